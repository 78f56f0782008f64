//! The extent of a tensor: how many bytes lie between its start and whatever follows it in the file. Contested type ids
//! are decided by it, since a file does not store the size of its tensors.

use std::collections::HashSet;

use super::header::{Header, TensorEntry};

/// The space between a tensor's start and the next one's, or the end of the file.
#[derive(Debug)]
pub(super) struct Extent<'a> {
    pub entry: &'a TensorEntry,
    pub rows: usize,
    pub cols: usize,
    /// Bytes up to whatever follows, padding included.
    pub span: usize,
    /// Whether nothing follows, so that the padding may be missing.
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

/// The extent of every tensor, in the order of the directory.
pub(super) fn extents<'a>(header: &Header, entries: &'a [TensorEntry], file_size: usize) -> Vec<Extent<'a>> {
    let data_size = file_size.saturating_sub(header.data_start);
    let alignment = header.alignment;
    let mut offsets: Vec<(u64, usize)> = entries.iter().enumerate().map(|(at, entry)| (entry.offset, at)).collect();
    offsets.sort_unstable();
    let mut spans = vec![(0, false); entries.len()];
    for (index, &(offset, at)) in offsets.iter().enumerate() {
        let next = offsets.get(index + 1).map(|next| next.0);
        let span = next.unwrap_or(data_size as u64).saturating_sub(offset);
        spans[at] = (usize::try_from(span).unwrap_or(usize::MAX), next.is_none());
    }
    let names: HashSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    let has_sibling_scale = |name: &str| {
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        [format!("{name}_scale"), format!("{name}.scale"), format!("{stem}.scale")]
            .iter()
            .any(|sibling| names.contains(sibling.as_str()))
    };
    let extent = |(entry, (span, last)): (&'a TensorEntry, _)| {
        let (rows, cols) = rows_and_cols(&entry.shape);
        Extent { entry, rows, cols, span, last, alignment, has_sibling_scale: has_sibling_scale(&entry.name) }
    };
    entries.iter().zip(spans).map(extent).collect()
}

/// A tensor as a matrix: the first dimension is the columns, the product of the others the rows. Neither overflows,
/// because the header's parser checks the product of all dimensions.
pub(super) fn rows_and_cols(shape: &[usize]) -> (usize, usize) {
    (shape.iter().skip(1).product(), shape.first().copied().unwrap_or(1))
}
