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

/// Groups consecutive items, given their row counts, so that each group has at most `max_rows` rows. A larger item is a
/// group of its own.
pub(super) fn groups(rows: impl Iterator<Item = usize>, max_rows: usize) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut left = 0;
    for (i, rows) in rows.enumerate() {
        match groups.last_mut().filter(|_| rows <= left) {
            Some(group) => group.end = i + 1,
            None => {
                groups.push(i..i + 1);
                left = max_rows;
            }
        }
        left = left.saturating_sub(rows);
    }
    groups
}
