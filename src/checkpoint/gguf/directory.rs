//! From the tensor directory as the file has it to tensors with a known type and checked bytes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use super::extent::{Extent, extents, rows_and_cols};
use super::header::{Header, TensorEntry};
use super::reader::Parse;
use super::resolve::{resolve, type_name};
use super::types::TensorType;
use crate::error::{Error, Result};

/// A tensor of a model file: its name, shape and type, and where its bytes lie.
#[derive(Clone, Debug)]
pub struct Tensor {
    name: String,
    shape: Vec<usize>,
    kind: TensorType,
    /// Index of the model's part that holds it.
    pub(in crate::checkpoint) part: usize,
    /// The tensor's bytes in that part.
    pub(in crate::checkpoint) range: Range<usize>,
    /// The scale of its trits, where that is not among its bytes: stored elsewhere, or computed from all of them.
    scale: OnceLock<f32>,
}

impl Tensor {
    /// A tensor whose bytes are checked to be there.
    pub(in crate::checkpoint) fn new(
        name: String,
        shape: Vec<usize>,
        kind: TensorType,
        (part, range): (usize, Range<usize>),
    ) -> Tensor {
        Tensor { name, shape, kind, part, range, scale: OnceLock::new() }
    }

    /// The name as in the file, such as `blk.0.attn_q.weight`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The dimensions in ggml's order: the contiguous one (columns) first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How the elements are stored.
    pub fn kind(&self) -> TensorType {
        self.kind
    }

    /// The length of a row, which is the first dimension.
    pub fn cols(&self) -> usize {
        rows_and_cols(&self.shape).1
    }

    /// The number of rows, which is the product of all dimensions but the first.
    pub fn rows(&self) -> usize {
        rows_and_cols(&self.shape).0
    }

    /// The number of elements, which is the product of all dimensions.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The scale of its trits, if it is known and not among the tensor's bytes.
    pub fn scale(&self) -> Option<f32> {
        self.scale.get().copied()
    }

    /// Keeps a scale that is not among the tensor's bytes. The first one stays.
    pub fn keep_scale(&self, scale: f32) {
        let _ = self.scale.set(scale);
    }

    /// Bytes in the file, without padding.
    pub fn size(&self) -> usize {
        self.range.len()
    }
}

/// A tensor as a file lists it, also of a type that this engine cannot run.
#[derive(Debug)]
pub struct TensorInfo {
    /// The name as in the file.
    pub name: String,
    /// The dimensions, the contiguous one first.
    pub shape: Vec<usize>,
    /// The name of its type, or the id of an unknown type.
    pub kind: String,
    /// Bytes up to the next tensor, or to the end of the file.
    pub bytes: usize,
}

/// The tensors that a header lists, without checking that their bytes are there.
pub(super) fn list(header: &Header, entries: &[TensorEntry], file_size: usize) -> Vec<TensorInfo> {
    let info = |extent: Extent| TensorInfo {
        name: extent.entry.name.clone(),
        shape: extent.entry.shape.clone(),
        kind: type_name(&extent),
        bytes: extent.span,
    };
    extents(header, entries, file_size).into_iter().map(info).collect()
}

/// The tensors of one file of `file_size` bytes, in the order of the directory, with warnings about the file.
pub(super) fn tensors(
    header: &Header,
    entries: &[TensorEntry],
    file_size: usize,
    path: &Path,
) -> Result<(Vec<Tensor>, Vec<String>)> {
    let broken = |reason: String| Error::File { path: path.into(), reason };
    let extents = extents(header, entries, file_size);
    let kinds = types_by_id(&extents, path)?;
    let mut tensors = Vec::with_capacity(entries.len());
    let mut gaps = Vec::new();
    for Extent { entry, rows, cols, span, alignment, .. } in &extents {
        let TensorEntry { name, shape, id, offset } = entry;
        let kind = kinds[id];
        let size =
            kind.size_of(*rows, *cols).map_err(|why| broken(format!("tensor '{name}' of type {kind}: {why}")))?;
        let start = usize::try_from(*offset).ok().and_then(|offset| offset.checked_add(header.data_start));
        let range = start
            .and_then(|start| Some(start..start.checked_add(size)?))
            .ok_or_else(|| broken(format!("tensor '{name}': its offset {offset} is more than memory can address")))?;
        if range.end > file_size {
            return Err(broken(format!(
                "tensor '{name}' needs {size} bytes from byte {}, so the file should have at least {} bytes, but it \
                 has {file_size}; it is truncated: download it again",
                range.start, range.end
            )));
        }
        if size > *span {
            return Err(broken(format!(
                "tensor '{name}' of type {kind} needs {size} bytes, but the next tensor starts after {span}; the \
                 file is damaged: download it again"
            )));
        }
        if span - size >= *alignment {
            gaps.push((name, span - size));
        }
        tensors.push(Tensor::new(name.clone(), shape.clone(), kind, (0, range)));
    }
    sort_by_name(&tensors).map_err(broken)?;
    let warning = gaps.first().map(|(name, unused)| {
        let others = if gaps.len() > 1 { format!(", and {} more gaps", gaps.len() - 1) } else { String::new() };
        format!("the tensor data has a gap: {unused} unused bytes after tensor '{name}'{others}")
    });
    Ok((tensors, warning.into_iter().collect()))
}

/// Indices of `tensors` in the order of their names; an error if two have the same name.
pub(in crate::checkpoint) fn sort_by_name(tensors: &[Tensor]) -> Parse<Vec<usize>> {
    let name = |index: usize| tensors[index].name();
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_unstable_by_key(|&index| name(index));
    match order.windows(2).find(|pair| name(pair[0]) == name(pair[1])) {
        Some(pair) => Err(format!("tensor '{}' occurs twice, but names must differ", name(pair[0]))),
        None => Ok(order),
    }
}

/// The type that each type id of the file means.
fn types_by_id(extents: &[Extent], path: &Path) -> Result<BTreeMap<u32, TensorType>> {
    let mut by_id: BTreeMap<u32, Vec<&Extent>> = BTreeMap::new();
    for extent in extents {
        by_id.entry(extent.entry.id).or_default().push(extent);
    }
    by_id.into_iter().map(|(id, extents)| Ok((id, resolve(id, &extents, path)?))).collect()
}
