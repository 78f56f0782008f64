//! What the answers of a conversation took, summed up.

use super::ChatSession;
use crate::receipt::{Receipt, Seconds, rate};

/// Sums over the receipts of a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SessionMetrics {
    /// Number of answers that have a receipt.
    pub exchanges: usize,
    /// Positions of all prompts.
    pub prompt_tokens: u64,
    /// Positions of the prompts that the cache already held.
    pub cached_tokens: u64,
    /// Ids sampled, stop ids included.
    pub completion_tokens: u64,
    /// Seconds spent on computing prompts.
    pub prefill_seconds: f64,
    /// Seconds spent on computing later positions.
    pub decode_seconds: f64,
    /// Seconds inside the engine.
    pub wall_seconds: f64,
}

impl SessionMetrics {
    /// Computed prompt positions per second.
    pub fn prefill_tokens_per_second(&self) -> f64 {
        rate(self.prompt_tokens.saturating_sub(self.cached_tokens), self.prefill_seconds)
    }

    /// Sampled ids per second of decoding. The first id of each answer does not count: prefill gives it.
    pub fn decode_tokens_per_second(&self) -> f64 {
        rate(self.completion_tokens.saturating_sub(self.exchanges as u64), self.decode_seconds)
    }
}

impl ChatSession {
    /// Sums over the receipts.
    pub fn metrics(&self) -> SessionMetrics {
        let count = |of: fn(&Receipt) -> u64| self.receipts.iter().map(|receipt| of(receipt)).sum::<u64>();
        // `sum` of no floats is -0.0, so fold from 0.0.
        let time = |of: fn(&Seconds) -> f64| self.receipts.iter().fold(0.0, |sum, r| sum + of(&r.run.seconds));
        SessionMetrics {
            exchanges: self.receipts.len(),
            prompt_tokens: count(|receipt| receipt.claim.prompt_ids.len() as u64),
            cached_tokens: count(|receipt| receipt.run.cached_tokens),
            completion_tokens: count(|receipt| receipt.claim.output_ids.len() as u64),
            prefill_seconds: time(|seconds| seconds.prefill),
            decode_seconds: time(|seconds| seconds.decode),
            wall_seconds: time(|seconds| seconds.wall),
        }
    }
}
