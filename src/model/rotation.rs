//! Weights that are stored rotated, as PrismML's "Bonsai 2" files hold them: their inputs pass signs and a block-wise
//! Walsh-Hadamard transform first. The metadata keys `prism.hadamard.*` say which weights these are.

use crate::checkpoint::gguf::{Gguf, Metadata};
use crate::error::{Error, Result};
use crate::kernel::Kernels;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const PREFIX: &str = "prism.hadamard.";
const KNOWN_KEYS: [&str; 11] = [
    "version",
    "block_size",
    "transform",
    "axis",
    "sign_mode",
    "sign_widths",
    "sign_values",
    "weight_names",
    "inverse_weight_names",
    "gdn_v_grouped",
    "tied_output",
];
const MAX_BLOCK: usize = 1 << 16;

/// The transform of inputs of one width: `H·(signs ∘ x)`, block by block.
pub(super) struct Rotation {
    block: usize,
    signs: Vec<f32>,
    /// As many ones.
    ones: Vec<f32>,
}

impl Rotation {
    /// `x = H·(signs ∘ x)`.
    pub fn apply(&self, kernels: &Kernels, x: &mut [f32]) {
        kernels.hadamard(x, &self.signs, self.block);
    }

    /// `x = signs ∘ (H·x)`, the inverse.
    pub fn invert(&self, kernels: &Kernels, x: &mut [f32]) {
        kernels.hadamard(x, &self.ones, self.block);
        x.iter_mut().zip(&self.signs).for_each(|(x, sign)| *x *= sign);
    }
}

/// Which weights of a file are stored rotated, and how.
pub(super) struct Rotations {
    block: usize,
    /// The signs of each width; without any, all signs are +1.
    signs: Option<BTreeMap<usize, Vec<f32>>>,
    /// The weights whose inputs are rotated.
    inputs: BTreeSet<String>,
    /// The weights whose rows are rotated back.
    rows: BTreeSet<String>,
    /// Whether the output projections of gated delta nets read their value heads grouped by key heads.
    pub groups_values: bool,
    /// Whether the output head is the embedding, rotated as its rows are.
    tied: bool,
    /// The names of inputs and of rows that were looked up.
    used: RefCell<[BTreeSet<String>; 2]>,
    made: RefCell<BTreeMap<usize, Arc<Rotation>>>,
}

impl Rotations {
    /// Reads the keys of a file; `None` if it has none. Whatever is not known is refused: a rotated model that runs
    /// unrotated gives nonsense.
    pub fn read(gguf: &Gguf) -> Result<Option<Rotations>> {
        let metadata = gguf.metadata();
        let mut keys = metadata.iter().filter_map(|(key, _)| key.strip_prefix(PREFIX)).peekable();
        if keys.peek().is_none() {
            return Ok(None);
        }
        if let Some(unknown) = keys.find(|key| !KNOWN_KEYS.contains(key)) {
            return Err(unsupported(unknown, "is there", "does not know it"));
        }
        let version = uint(metadata, "version")?;
        if !matches!(version, 1 | 2) {
            return Err(unsupported("version", &format!("is {version}"), "knows the versions 1 and 2"));
        }
        expect(metadata, "transform", &["normalized-sylvester-walsh-hadamard"])?;
        expect(metadata, "axis", &["input-last-dimension"])?;
        let explicit = expect(metadata, "sign_mode", &["identity", "explicit"])? == "explicit";
        let block = uint(metadata, "block_size")?;
        if !block.is_power_of_two() || block > MAX_BLOCK {
            let found = format!("is {block}");
            return Err(unsupported("block_size", &found, &format!("expects a power of two up to {MAX_BLOCK}")));
        }
        let tied = metadata.bool(&key("tied_output"))?.unwrap_or(false);
        if tied != (version == 2) || tied && gguf.tensor("output.weight").is_some() {
            return Err(unsupported(
                "tied_output",
                &format!("is {tied} in a file of version {version}"),
                "expects true in files of version 2, which have no tensor 'output.weight', and false in others",
            ));
        }
        Ok(Some(Rotations {
            block,
            signs: if explicit { Some(signs(metadata)?) } else { None },
            inputs: names(metadata, "weight_names")?,
            rows: names(metadata, "inverse_weight_names")?,
            groups_values: metadata.bool(&key("gdn_v_grouped"))?.unwrap_or(false),
            tied,
            used: RefCell::default(),
            made: RefCell::default(),
        }))
    }

    /// The rotation of the input of a weight with so many columns; `None` if its input is not rotated.
    pub fn of_input(&self, name: &str, cols: usize) -> Result<Option<Arc<Rotation>>> {
        if self.inputs.contains(name) { self.rotation(name, cols, 0).map(Some) } else { Ok(None) }
    }

    /// The rotation of the embedding's rows; `None` if they are not rotated.
    pub fn of_rows(&self, name: &str, cols: usize) -> Result<Option<Arc<Rotation>>> {
        if self.rows.contains(name) { self.rotation(name, cols, 1).map(Some) } else { Ok(None) }
    }

    /// The rotation of the state before a head that is tied to the embedding `name`.
    pub fn of_tied_head(&self, name: &str, cols: usize) -> Result<Option<Arc<Rotation>>> {
        let rotation = self.of_rows(name, cols)?;
        if rotation.is_some() && !self.tied {
            let found = format!("lists '{name}', which is the output head, too");
            return Err(unsupported("inverse_weight_names", &found, "expects a file of version 2 with such a head"));
        }
        Ok(rotation)
    }

    /// `list` is 0 for a name among the inputs, 1 for one among the rows.
    fn rotation(&self, name: &str, cols: usize, list: usize) -> Result<Arc<Rotation>> {
        self.used.borrow_mut()[list].insert(name.into());
        if let Some(made) = self.made.borrow().get(&cols) {
            return Ok(made.clone());
        }
        let signs = match &self.signs {
            None => vec![1.0; cols],
            Some(signs) => signs.get(&cols).cloned().ok_or_else(|| {
                unsupported("sign_widths", &format!("lacks the width {cols} of tensor '{name}'"), "expects all widths")
            })?,
        };
        if !cols.is_multiple_of(self.block) {
            let found = format!("is {}, but tensor '{name}' has {cols} columns", self.block);
            return Err(unsupported("block_size", &found, "expects a divisor"));
        }
        let made = Arc::new(Rotation { block: self.block, signs, ones: vec![1.0; cols] });
        self.made.borrow_mut().insert(cols, made.clone());
        Ok(made)
    }

    /// Refuses a file that lists a weight whose input (or rows) nobody rotates.
    pub fn refuse_surplus(&self) -> Result<()> {
        let used = self.used.borrow();
        for (list, names, used) in
            [("weight_names", &self.inputs, &used[0]), ("inverse_weight_names", &self.rows, &used[1])]
        {
            if let Some(name) = names.difference(used).next() {
                let found = format!("lists '{name}', which has no such use in this model");
                return Err(unsupported(list, &found, "rotates the inputs of projections and the embedding's rows"));
            }
        }
        Ok(())
    }
}

fn key(key: &str) -> String {
    format!("{PREFIX}{key}")
}

fn unsupported(name: &str, found: &str, expected: &str) -> Error {
    let key = key(name);
    Error::Unsupported(format!(
        "the weights are rotated (Bonsai 2), and metadata key '{key}' {found}; this engine {expected}"
    ))
}

fn missing(name: &str) -> Error {
    unsupported(name, "is missing", "needs it")
}

fn uint(metadata: Metadata, name: &str) -> Result<usize> {
    metadata.uint(&key(name))?.ok_or_else(|| missing(name))
}

/// A text that must be one of the known ones.
fn expect<'a>(metadata: Metadata<'a>, name: &str, known: &[&str]) -> Result<&'a str> {
    let value = metadata.str(&key(name))?.ok_or_else(|| missing(name))?;
    if known.contains(&value) {
        return Ok(value);
    }
    Err(unsupported(name, &format!("is '{value}'"), &format!("knows '{}'", known.join("' and '"))))
}

/// The signs of each width, which the file lists one width after the other.
fn signs(metadata: Metadata) -> Result<BTreeMap<usize, Vec<f32>>> {
    let widths = metadata.uints(&key("sign_widths"))?.ok_or_else(|| missing("sign_widths"))?;
    let values = metadata.get(&key("sign_values")).ok_or_else(|| missing("sign_values"))?.floats();
    let values = values.filter(|values| values.iter().all(|sign| *sign == 1.0 || *sign == -1.0));
    let values = values.ok_or_else(|| unsupported("sign_values", "holds other values", "expects 1 and −1"))?;
    let total = widths.iter().fold(0usize, |sum, width| sum.saturating_add(*width));
    if total != values.len() {
        let found = format!("holds {} signs for widths that add up to {total}", values.len());
        return Err(unsupported("sign_values", &found, "expects one for each channel"));
    }
    let mut rest = &values[..];
    let mut signs = BTreeMap::new();
    for width in widths {
        let (own, after) = rest.split_at(width);
        if signs.insert(width, own.to_vec()).is_some() {
            return Err(unsupported("sign_widths", &format!("lists {width} twice"), "expects each width once"));
        }
        rest = after;
    }
    Ok(signs)
}

fn names(metadata: Metadata, name: &str) -> Result<BTreeSet<String>> {
    let names = metadata.strings(&key(name))?.ok_or_else(|| missing(name))?;
    Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}
