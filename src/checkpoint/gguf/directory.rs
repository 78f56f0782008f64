//! From the directory as written to tensors with a type and checked bytes.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::Path;

use super::header::{Header, Info};
use super::reader::Parse;
use super::resolve::{self, resolve};
use super::types::TensorType;
use crate::error::{Error, Result};

/// A tensor of the file.
#[derive(Clone, Debug)]
pub struct Tensor {
    name: String,
    shape: Vec<usize>,
    kind: TensorType,
    /// The file of a split set, and the bytes in it.
    pub(super) shard: usize,
    pub(super) range: Range<usize>,
}

impl Tensor {
    /// As in the file: `blk.0.attn_q.weight`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// ggml's order: the contiguous dimension (columns) first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How the elements are stored.
    pub fn kind(&self) -> TensorType {
        self.kind
    }

    /// The length of a row: the first dimension.
    pub fn cols(&self) -> usize {
        rows_and_cols(&self.shape).1
    }

    /// The number of rows: the product of the other dimensions.
    pub fn rows(&self) -> usize {
        rows_and_cols(&self.shape).0
    }

    /// The product of all dimensions.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes in the file, without padding.
    pub fn size(&self) -> usize {
        self.range.len()
    }
}

/// Whole numbers: the header's parser has checked the product.
fn rows_and_cols(shape: &[usize]) -> (usize, usize) {
    (shape.iter().skip(1).product(), shape.first().copied().unwrap_or(1))
}

/// A tensor as a file lists it, whether or not its type is run.
#[derive(Debug)]
pub struct TensorInfo {
    /// As in the file.
    pub name: String,
    /// The contiguous dimension first.
    pub shape: Vec<usize>,
    /// The name of its type, or its id.
    pub kind: String,
    /// Bytes up to the next tensor, or to the end of the file.
    pub bytes: usize,
}

/// The tensors that a header lists, unchecked.
pub(super) fn listed(header: &Header, infos: &[Info], file_size: usize) -> Vec<TensorInfo> {
    let list = |extent: Extent| TensorInfo {
        name: extent.info.name.clone(),
        shape: extent.info.shape.clone(),
        kind: resolve::name(&extent),
        bytes: extent.span,
    };
    extents(header, infos, file_size).into_iter().map(list).collect()
}

/// The space between a tensor's start and the next one's, or the end of the file.
#[derive(Debug)]
pub(super) struct Extent<'a> {
    pub info: &'a Info,
    pub rows: usize,
    pub cols: usize,
    pub span: usize,
    pub last: bool,
    pub alignment: usize,
    /// Whether another tensor is named as this one's scale.
    pub has_sibling_scale: bool,
}

impl Extent<'_> {
    /// Whether a tensor of this size and its padding fill the space exactly. The last tensor may lack its padding.
    pub(super) fn is_filled_by(&self, size: Option<usize>) -> bool {
        match size.and_then(|size| Some((size, size.checked_next_multiple_of(self.alignment)?))) {
            Some((size, padded)) if self.last => size <= self.span && self.span <= padded,
            Some((_, padded)) => self.span == padded,
            None => false,
        }
    }
}

/// The tensors of one file of `file_size` bytes, in file order, and what is odd about them.
pub(super) fn tensors(
    header: &Header,
    infos: &[Info],
    file_size: usize,
    path: &Path,
) -> Result<(Vec<Tensor>, Vec<String>)> {
    let broken = |reason: String| Error::File { path: path.into(), reason };
    let extents = extents(header, infos, file_size);
    let kinds = kinds(&extents, path)?;
    let mut tensors = Vec::with_capacity(infos.len());
    let mut gaps = Vec::new();
    for Extent { info, rows, cols, span, alignment, .. } in &extents {
        let Info { name, shape, id, offset } = info;
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
                "tensor '{name}' of type {kind} needs {size} bytes, but the next tensor starts after {span}"
            )));
        }
        if span - size >= *alignment {
            gaps.push((name, span - size));
        }
        tensors.push(Tensor { name: name.clone(), shape: shape.clone(), kind, shard: 0, range });
    }
    sort_by_name(&tensors).map_err(broken)?;
    let warning = gaps.first().map(|(name, unused)| {
        format!("gaps in the tensor data: {}, the first of {unused} bytes after '{name}'", gaps.len())
    });
    Ok((tensors, warning.into_iter().collect()))
}

/// Indices in the order of the names, which must differ.
pub(super) fn sort_by_name(tensors: &[Tensor]) -> Parse<Vec<usize>> {
    let name = |index: usize| tensors[index].name();
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_unstable_by_key(|&index| name(index));
    match order.windows(2).find(|pair| name(pair[0]) == name(pair[1])) {
        Some(pair) => Err(format!("tensor '{}' occurs twice", name(pair[0]))),
        None => Ok(order),
    }
}

/// In file order, each with the distance to whatever follows it in the data.
fn extents<'a>(header: &Header, infos: &'a [Info], file_size: usize) -> Vec<Extent<'a>> {
    let data_size = file_size.saturating_sub(header.data_start);
    let alignment = header.alignment;
    let mut offsets: Vec<(u64, usize)> = infos.iter().enumerate().map(|(at, info)| (info.offset, at)).collect();
    offsets.sort_unstable();
    let mut spans = vec![(0, false); infos.len()];
    for (index, &(offset, at)) in offsets.iter().enumerate() {
        let next = offsets.get(index + 1).map(|next| next.0);
        let span = next.unwrap_or(data_size as u64).saturating_sub(offset);
        spans[at] = (usize::try_from(span).unwrap_or(usize::MAX), next.is_none());
    }
    let names: HashSet<&str> = infos.iter().map(|info| info.name.as_str()).collect();
    let has_sibling_scale = |name: &str| {
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        [format!("{name}_scale"), format!("{name}.scale"), format!("{stem}.scale")]
            .iter()
            .any(|sibling| names.contains(sibling.as_str()))
    };
    let extent = |(info, (span, last)): (&'a Info, _)| {
        let (rows, cols) = rows_and_cols(&info.shape);
        Extent { info, rows, cols, span, last, alignment, has_sibling_scale: has_sibling_scale(&info.name) }
    };
    infos.iter().zip(spans).map(extent).collect()
}

/// The type behind each id that the file uses.
fn kinds(extents: &[Extent], path: &Path) -> Result<BTreeMap<u32, TensorType>> {
    let mut by_id: BTreeMap<u32, Vec<&Extent>> = BTreeMap::new();
    for extent in extents {
        by_id.entry(extent.info.id).or_default().push(extent);
    }
    by_id.into_iter().map(|(id, extents)| Ok((id, resolve(id, &extents, path)?))).collect()
}
