//! Embeddings: the hidden states that the output head would read, pooled over a text.

use super::passes::{groups, pass_by_pass};
use super::{Engine, Watch};
use crate::decode::Sequence;
use crate::error::{Error, Result};
use crate::model::{LogitsFor, Row};
use crate::token::TokenId;

named! {
    /// How the states of a text's positions become one vector.
    pub enum Pooling {
        /// The mean over all positions.
        Mean = "mean",
        /// The state of the last position.
        Last = "last",
    }
}

impl Engine {
    /// One vector of `hidden_size` floats for each sequence, one after the other. Short sequences share forward passes.
    pub fn embed(&self, sequences: &[Vec<TokenId>], pooling: Pooling, watch: &mut Watch) -> Result<Vec<f32>> {
        for (i, ids) in sequences.iter().enumerate() {
            self.check_ids(ids, 0).map_err(|error| error.at(format!("texts[{i}]")))?;
            if ids.is_empty() {
                return Err(Error::Argument(format!("texts[{i}] is empty; an embedding needs at least one token")));
            }
        }
        let last = pooling == Pooling::Last;
        let (runtime, size) = (&self.runtime, self.config().hidden_size);
        let mut vectors = Vec::with_capacity(sequences.len() * size);
        for group in groups(sequences.iter().map(Vec::len), runtime.n_batch) {
            let group = &sequences[group];
            let mut sequences: Vec<Sequence> = group.iter().map(|_| self.new_sequence()).collect();
            let mut rows = Vec::new();
            for (sequence, ids) in group.iter().enumerate() {
                let logits = |i: usize| if last && i + 1 < ids.len() { LogitsFor::None } else { LogitsFor::Hidden };
                rows.extend(ids.iter().enumerate().map(|(i, id)| Row { sequence, id: *id, logits: logits(i) }));
            }
            let mut sums = vec![0f64; group.len() * size];
            pass_by_pass(runtime, &mut sequences, &rows, watch, |rows, states| {
                let pooled = rows.iter().filter(|row| row.logits.any());
                for (row, state) in pooled.zip(states.chunks(size)) {
                    let sums = &mut sums[row.sequence * size..][..size];
                    sums.iter_mut().zip(state).for_each(|(sum, x)| *sum += *x as f64);
                }
            })?;
            for (sums, ids) in sums.chunks(size).zip(group) {
                let count = if last { 1 } else { ids.len() };
                vectors.extend(sums.iter().map(|sum| (sum / count as f64) as f32));
            }
        }
        Ok(vectors)
    }
}
