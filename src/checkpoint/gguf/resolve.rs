//! Which type a tensor has. Forks of llama.cpp gave the same type id to different types. Only the bytes that a tensor
//! takes tell them apart, so a contested id is decided by the sizes of all tensors in the file that have it.

use std::collections::BTreeSet;
use std::path::Path;

use super::extent::Extent;
use super::types::TensorType;
use crate::error::{Error, Result};

/// One meaning of a contested id.
enum Meaning {
    /// A type that this engine runs.
    Runs(TensorType),
    /// A type that it does not run, with the bytes that a tensor takes; `None` if no tensor can have this shape.
    Foreign(&'static str, fn(&Extent) -> Option<usize>),
}

impl Meaning {
    fn name(&self) -> &'static str {
        match self {
            Self::Runs(kind) => kind.name(),
            Self::Foreign(name, _) => name,
        }
    }

    fn size(&self, extent: &Extent) -> Option<usize> {
        match self {
            Self::Runs(kind) => kind.size_of(extent.rows, extent.cols).ok(),
            Self::Foreign(_, size) => size(extent),
        }
    }
}

/// Bytes of a tensor whose rows are a head and whole blocks.
fn by_row(extent: &Extent, head: usize, elements: usize, bytes: usize) -> Option<usize> {
    let blocks = extent.cols.is_multiple_of(elements).then_some(extent.cols / elements)?;
    blocks.checked_mul(bytes)?.checked_add(head)?.checked_mul(extent.rows)
}

/// Bytes of a tensor whose blocks run over row ends.
fn flat(extent: &Extent, elements: usize, bytes: usize) -> Option<usize> {
    let count = extent.rows.checked_mul(extent.cols)?;
    count.is_multiple_of(elements).then_some(count / elements)?.checked_mul(bytes)
}

/// Bytes of the codes of a TL2 tensor, by the integer arithmetic of bitnet.cpp, evaluated from left to right.
fn tl2(extent: &Extent) -> Option<usize> {
    let threes = extent.cols.checked_sub(256)?.checked_mul(extent.rows)? / 3;
    let twos = extent.rows.checked_mul(256)? / 2;
    let codes = (threes.checked_mul(5)? / 8).checked_add(twos.checked_mul(4)? / 8)?;
    codes.checked_next_multiple_of(32)
}

/// Bytes of the codes of a TL1 tensor.
fn tl1(extent: &Extent) -> Option<usize> {
    flat(extent, 4, 1)
}

const TL1: &str = "TL1 (bitnet.cpp, for ARM; its layout is not in the file, so convert the model to I2_S)";
const TL2: &str = "TL2 (bitnet.cpp, for x86; its layout is not in the file, so convert the model to I2_S)";

/// TL1 and TL2 as older converters write them, the scale in 32 bytes behind the codes; and as those of 2026 do, the
/// scale in another tensor.
const TL1_WITH_SCALE: Meaning = Meaning::Foreign(TL1, |extent| tl1(extent)?.checked_add(32));
const TL2_WITH_SCALE: Meaning = Meaning::Foreign(TL2, |extent| tl2(extent)?.checked_add(32));
const TL1_WITHOUT_SCALE: Meaning =
    Meaning::Foreign(TL1, |extent| extent.has_sibling_scale.then(|| tl1(extent)).flatten());
const TL2_WITHOUT_SCALE: Meaning =
    Meaning::Foreign(TL2, |extent| extent.has_sibling_scale.then(|| tl2(extent)).flatten());

/// The meanings of a contested id, the most common first; none for an id that is not contested.
fn meanings(id: u32) -> &'static [Meaning] {
    use Meaning::{Foreign, Runs};
    match id {
        34 => &[
            Runs(TensorType::TQ1_0),
            Foreign("IQ1_BN (ik_llama.cpp of August 2024)", |extent| by_row(extent, 0, 64, 13)),
        ],
        35 => &[
            Runs(TensorType::TQ2_0),
            Foreign("IQ2_BN (ik_llama.cpp of August 2024)", |extent| by_row(extent, 0, 64, 16)),
        ],
        36 => &[
            Runs(TensorType::I2_S),
            Foreign("BitNet32-F16 (BitNet-rs)", |extent| flat(extent, 32, 10)),
            Foreign("I2_S with the scale in another tensor", |extent| {
                extent.has_sibling_scale.then(|| flat(extent, 4, 1)).flatten()
            }),
        ],
        38 => &[TL1_WITH_SCALE, TL1_WITHOUT_SCALE],
        39 => &[
            Foreign("MXFP4", |extent| by_row(extent, 0, 32, 17)),
            TL2_WITH_SCALE,
            TL2_WITHOUT_SCALE,
            TL1_WITHOUT_SCALE,
        ],
        42 => &[
            Runs(TensorType::Q2_0_G64),
            Runs(TensorType::Q2_0_G128),
            Runs(TensorType::STQ1_0),
            TL2_WITH_SCALE,
            TL2_WITHOUT_SCALE,
            TL1_WITHOUT_SCALE,
        ],
        43 => &[Runs(TensorType::STQ1_0)],
        134 => &[
            Runs(TensorType::IQ1_BN),
            Foreign("IQ1_BN without row scales (ik_llama.cpp before October 2024)", |extent| by_row(extent, 0, 64, 13)),
        ],
        135 => &[
            Runs(TensorType::IQ2_BN),
            Foreign("IQ2_BN without row scales (ik_llama.cpp before October 2024)", |extent| by_row(extent, 0, 64, 16)),
        ],
        142 => &[
            Runs(TensorType::PQ2_0),
            // Rows of 256 columns take the same bytes in both; no model of that type has such rows only.
            Foreign("IQ2_TN (ik_llama.cpp before October 2024)", |extent| {
                (extent.cols > 256).then(|| by_row(extent, 4, 256, 64)).flatten()
            }),
        ],
        143 => &[
            Runs(TensorType::PTQ1_0),
            Foreign("IQ1_TN (ik_llama.cpp before October 2024)", |extent| by_row(extent, 2, 256, 52)),
        ],
        _ => &[],
    }
}

/// Ids with a single meaning that this engine knows by name but does not run.
const KNOWN: [(u32, &str); 27] = [
    (3, "Q4_1"),
    (4, "Q4_2 (removed)"),
    (5, "Q4_3 (removed)"),
    (7, "Q5_1"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4 (removed)"),
    (32, "Q4_0_4_8 (removed)"),
    (33, "Q4_0_8_8 (removed)"),
    (37, "I8_S or IQ4_NL_4_8 (removed)"),
    (40, "NVFP4, or an early Q1_0 of Prism"),
];

/// The type of every tensor that has this id. `extents` are those tensors, at least one.
pub(super) fn resolve(id: u32, extents: &[&Extent], path: &Path) -> Result<TensorType> {
    let first = &extents[0].entry.name;
    let unsupported = |name: &str| {
        let run = TensorType::ALL.iter().filter(|kind| kind.id().is_some());
        let run: Vec<&str> = run.map(|kind| kind.name()).collect();
        let (path, run) = (path.display(), run.join(", "));
        Error::Unsupported(format!(
            "{path}: tensor '{first}' has type id {id}, {name}, which this engine does not run; get the model in one \
             of the types that it runs: {run}"
        ))
    };
    if let Some(kind) = TensorType::of_packed_id(id) {
        return Ok(kind);
    }
    let meanings = meanings(id);
    if meanings.is_empty() {
        if let Some(kind) = TensorType::ALL.into_iter().find(|kind| kind.id() == Some(id)) {
            return Ok(kind);
        }
        let known = KNOWN.iter().find(|entry| entry.0 == id);
        return Err(unsupported(known.map_or("of no known meaning", |entry| entry.1)));
    }
    let fits = |meaning: &&Meaning| extents.iter().all(|extent| extent.is_filled_by(meaning.size(extent)));
    let same = |a: &Meaning, b: &Meaning| extents.iter().all(|extent| a.size(extent) == b.size(extent));
    match meanings.iter().filter(fits).collect::<Vec<_>>()[..] {
        // The others fit only because a wide alignment pads them: in bytes they differ from the type that runs. Two
        // types that run (Q2_0 in groups of 64 and of 128) are not told apart by that.
        [runs @ Meaning::Runs(kind), ref others @ ..]
            if !others.iter().any(|other| same(runs, other) || matches!(other, Meaning::Runs(_))) =>
        {
            Ok(*kind)
        }
        [Meaning::Foreign(name, _)] => Err(unsupported(name)),
        [] => Err(no_fit(id, meanings, extents, path)),
        _ => {
            let fitting: Vec<&Meaning> = meanings.iter().filter(fits).collect();
            let names = |name: fn(&str) -> &str| {
                fitting.iter().map(|meaning| name(meaning.name())).collect::<Vec<_>>().join(" or ")
            };
            if fitting.iter().any(|meaning| matches!(meaning, Meaning::Runs(_))) {
                return Err(Error::Unsupported(format!(
                    "{}: tensor '{first}' has type id {id}, which may mean {}: the sizes of its tensors do not tell \
                     which; convert the model to another type",
                    path.display(),
                    names(short)
                )));
            }
            let names = names(|name| name);
            Err(unsupported(&format!("which may mean {names}")))
        }
    }
}

/// The name of a tensor's type for people, also of a type that this engine does not run.
pub(super) fn type_name(extent: &Extent) -> String {
    let id = extent.entry.id;
    if let Some(kind) = TensorType::of_packed_id(id) {
        return kind.name().into();
    }
    let fits = |meaning: &&Meaning| extent.is_filled_by(meaning.size(extent));
    let meant = meanings(id).iter().filter(fits).map(Meaning::name);
    let run =
        TensorType::ALL.iter().filter(|kind| kind.id() == Some(id) && meanings(id).is_empty()).map(|kind| kind.name());
    let known = KNOWN.iter().filter(|entry| entry.0 == id).map(|entry| entry.1);
    let names: Vec<&str> = meant.chain(run).chain(known).collect();
    if names.is_empty() { format!("type id {id}") } else { names.join(" or ") }
}

/// A name without what is said about it in parentheses.
fn short(name: &str) -> &str {
    name.split_once(" (").map_or(name, |(name, _)| name)
}

/// The error for a contested id if no meaning of it explains the sizes of all its tensors.
fn no_fit(id: u32, meanings: &[Meaning], extents: &[&Extent], path: &Path) -> Error {
    let meaning = |extent: &&Extent| meanings.iter().find(|meaning| extent.is_filled_by(meaning.size(extent)));
    if let Some(kinds) = extents.iter().map(meaning).collect::<Option<Vec<_>>>() {
        let kinds: BTreeSet<&str> = kinds.into_iter().map(|kind| short(kind.name())).collect();
        let (path, kinds) = (path.display(), kinds.into_iter().collect::<Vec<_>>().join(" and "));
        return Error::Unsupported(format!(
            "{path}: by their sizes, its tensors of type id {id} are of the types {kinds}, which have the same id; this \
             engine runs files in which an id has one meaning: convert all of them to one type"
        ));
    }
    // Report a tensor that contradicts the most common meaning: the file most likely means that one.
    let stray = |extent: &&&Extent| !extent.is_filled_by(meanings[0].size(extent));
    let extent = extents.iter().find(stray).unwrap_or(&extents[0]);
    let size = |meaning: &Meaning| match meaning.size(extent) {
        Some(size) => format!("{} would take {size}", short(meaning.name())),
        None => format!("{} cannot have this shape", short(meaning.name())),
    };
    let sizes: Vec<String> = meanings.iter().map(size).collect();
    let (name, shape, span, sizes) = (&extent.entry.name, &extent.entry.shape, extent.span, sizes.join(", "));
    let advice = match meanings[0].size(extent) {
        Some(size) if extent.last && span < size => "the file is truncated: download it again",
        _ => "the file is damaged, or a program wrote it that this engine does not know",
    };
    let reason = format!(
        "tensor '{name}' of shape {shape:?} and type id {id} has {span} bytes, which fits no meaning of that id \
         ({sizes}); {advice}"
    );
    Error::File { path: path.into(), reason }
}
