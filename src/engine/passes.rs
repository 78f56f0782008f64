//! Many rows, one forward pass at a time, so that only the results of one pass are in memory.

use super::Watch;
use crate::decode::{Runtime, Sequence};
use crate::error::Result;
use crate::model::Row;
use std::ops::Range;

/// Appends rows to the sequences. After each pass, `take` gets its rows and the logits or hidden states that they asked
/// for.
pub(super) fn pass_by_pass(
    runtime: &Runtime,
    sequences: &mut [Sequence],
    rows: &[Row],
    watch: &mut Watch,
    mut take: impl FnMut(&[Row], Vec<f32>),
) -> Result<()> {
    let mut sequences: Vec<&mut Sequence> = sequences.iter_mut().collect();
    for rows in rows.chunks(runtime.n_batch) {
        let results = runtime.advance(&mut sequences, rows, watch)?;
        take(rows, results);
    }
    Ok(())
}

/// Bytes of recurrent states that the sequences of a group may take together.
const MAX_STATE_BYTES: usize = 1 << 30;

/// Groups consecutive items, given their row counts, so that each group has at most the rows of a pass, and no more
/// items than fit their recurrent states in memory. A larger item is a group of its own.
pub(super) fn groups(runtime: &Runtime, rows: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let max_items = (MAX_STATE_BYTES / runtime.model.state_bytes().max(1)).max(1);
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut left = 0;
    for (i, rows) in rows.enumerate() {
        match groups.last_mut().filter(|group| rows <= left && group.len() < max_items) {
            Some(group) => group.end = i + 1,
            None => {
                groups.push(i..i + 1);
                left = runtime.n_batch;
            }
        }
        left = left.saturating_sub(rows);
    }
    groups
}
