//! Embeddings: the hidden states that the output head would read, pooled over a text.

use super::passes::{groups, pass_by_pass};
use super::{Engine, Watch};
use crate::decode::Sequence;
use crate::error::{Error, Result};
use crate::model::config::Pooling;
use crate::model::{LogitsFor, Row};
use crate::token::TokenId;

/// How to make a vector of a text.
#[derive(Clone, Copy, Default)]
pub struct Embedding {
    /// How the states are pooled. Default: as the file states, or else the mean.
    pub pooling: Option<Pooling>,
    /// Whether the vectors are scaled to Euclidean length 1.
    pub normalize: bool,
}

impl Engine {
    /// One vector of `hidden_size` floats for each sequence, one after the other. Short sequences share forward passes.
    pub fn embed(&self, sequences: &[Vec<TokenId>], how: Embedding, watch: &mut Watch) -> Result<Vec<f32>> {
        for (i, ids) in sequences.iter().enumerate() {
            self.check_ids(ids, 0).map_err(|error| error.at(format!("texts[{i}]")))?;
            if ids.is_empty() {
                return Err(Error::Argument(format!("texts[{i}] is empty; an embedding needs at least one token")));
            }
        }
        let pooling = how.pooling.or(self.config().pooling).unwrap_or(Pooling::Mean);
        let (runtime, size) = (&self.runtime, self.config().hidden_size);
        let mut vectors = Vec::with_capacity(sequences.len() * size);
        for group in groups(runtime, sequences.iter().map(Vec::len)) {
            let group = &sequences[group];
            let mut sequences: Vec<Sequence> = group.iter().map(|_| self.new_sequence()).collect();
            let mut rows = Vec::new();
            for (sequence, ids) in group.iter().enumerate() {
                let counts = |i: usize| match pooling {
                    Pooling::Mean => true,
                    Pooling::Last => i + 1 == ids.len(),
                    Pooling::Cls => i == 0,
                };
                let logits = |i: usize| if counts(i) { LogitsFor::Hidden } else { LogitsFor::None };
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
                let count = if pooling == Pooling::Mean { ids.len() } else { 1 };
                let length = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
                let divisor = if how.normalize && length > 0.0 { length } else { count as f64 };
                vectors.extend(sums.iter().map(|sum| (sum / divisor) as f32));
            }
        }
        Ok(vectors)
    }
}
