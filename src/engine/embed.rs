//! Embeddings: the hidden states that the output head would read, pooled over a text.

use super::{Engine, Watch};
use crate::decode::{Extension, Output, Step, Task};
use crate::error::{Error, Result};
use crate::model::config::Pooling;
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
        let size = self.config().hidden_size;
        let make = |i: usize| {
            let ids: &Vec<TokenId> = &sequences[i];
            let pooled = match pooling {
                Pooling::Mean => 0..ids.len(),
                Pooling::Last => ids.len() - 1..ids.len(),
                Pooling::Cls => 0..1,
            };
            let extension = Extension::new(ids.clone(), pooled, Output::StateSum(vec![0.0; size]));
            Ok(Step::extend(self.new_sequence(), extension))
        };
        let mut vectors = vec![0f32; sequences.len() * size];
        let take = |i: usize, step: Step| {
            let Task::Extend(Extension { output: Output::StateSum(sums), .. }) = step.task else { return };
            let count = if pooling == Pooling::Mean { sequences[i].len() } else { 1 };
            let length = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
            let divisor = if how.normalize && length > 0.0 { length } else { count as f64 };
            vectors[i * size..][..size].iter_mut().zip(&sums).for_each(|(x, sum)| *x = (sum / divisor) as f32);
        };
        self.run_all(sequences.len(), make, take, watch)?;
        Ok(vectors)
    }
}
