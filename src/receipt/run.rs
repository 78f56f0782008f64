//! How an answer was run: counts, times, processor.

use super::Claim;
use crate::machine::counters::WorkCounters;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

/// How it went. Nothing here changes an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Of this package.
    pub version: String,
    /// The instruction set of the kernels.
    pub isa: String,
    /// Threads that computed.
    pub threads: u64,
    /// Rows that one forward pass took at most.
    pub n_batch: u64,
    /// Positions of the prompt that the cache held.
    pub cached_tokens: u64,
    /// What the kernels did, by their own count.
    pub work: WorkCounters,
    /// Where the time went.
    pub seconds: Seconds,
    /// Nanoseconds that each later position took.
    pub step_ns: Vec<u64>,
    /// Bytes of the engine's own memory: packed weights and this answer's keys and values.
    pub memory_bytes: u64,
}

/// Seconds, each a whole number of nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// Formatting the prompt.
    pub render: f64,
    /// Its text to ids.
    pub tokenize: f64,
    /// Computing what the cache did not hold of it.
    pub prefill: f64,
    /// Everything up to the first id.
    pub first_token: f64,
    /// Computing the later positions.
    pub decode: f64,
    /// Choosing ids.
    pub sample: f64,
    /// Ids to text, and looking for stop texts.
    pub detokenize: f64,
    /// All of it: the time inside the engine.
    pub wall: f64,
    /// What the consumer of the stream spent between pulls, which is in none of the others.
    pub consumer: f64,
}

/// Seconds as nanoseconds, whose sums are exact.
pub(super) fn ns(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

/// Nanoseconds as seconds.
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// The sum of figures that may be anybody's.
pub(super) fn total(figures: &[u64]) -> u64 {
    figures.iter().fold(0, |sum, figure| sum.saturating_add(*figure))
}

/// Items per second; 0 for no items or no time.
pub fn rate(count: u64, seconds: f64) -> f64 {
    if count == 0 || seconds <= 0.0 { 0.0 } else { count as f64 / seconds }
}

impl Seconds {
    /// What was measured piece by piece, in nanoseconds.
    pub(super) fn parts(&self) -> u64 {
        let Seconds { render, tokenize, prefill, decode, sample, detokenize, .. } = *self;
        total(&[render, tokenize, prefill, decode, sample, detokenize].map(ns))
    }

    /// All times, with their names.
    pub fn named(&self) -> impl Iterator<Item = (String, f64)> {
        let all = serde_json::to_value(self).ok().and_then(|all| all.as_object().cloned());
        all.into_iter().flatten().filter_map(|(name, value)| Some((name, value.as_f64()?)))
    }
}

impl Run {
    /// The kernels that ran: those that counted rows.
    pub fn kernels(&self) -> Vec<String> {
        let WorkCounters { ternary, dense, attention, head, .. } = self.work;
        let counted = [("ternary", ternary), ("dense", dense), ("attention", attention), ("head", head)];
        counted.iter().filter(|(_, rows)| *rows > 0).map(|(name, _)| format!("{name}/{}", self.isa)).collect()
    }

    /// Nanoseconds of the forward passes, and of the kernels in them.
    pub(super) fn forward_and_kernels(&self) -> (u64, u64) {
        let WorkCounters { ternary_ns, dense_ns, attention_ns, head_ns, .. } = self.work;
        let forward = [self.seconds.prefill, self.seconds.decode].map(ns);
        (total(&forward), total(&[ternary_ns, dense_ns, attention_ns, head_ns]))
    }

    /// Positions of the prompt that were computed for the answer to `claim`.
    pub(super) fn prefilled(&self, claim: &Claim) -> u64 {
        (claim.prompt_ids.len() as u64).saturating_sub(self.cached_tokens)
    }

    /// Positions that were computed for the answer: of the prompt, and of all sampled ids but the last.
    pub fn computed(&self, claim: &Claim) -> u64 {
        self.prefilled(claim).saturating_add((claim.output_ids.len() as u64).saturating_sub(1))
    }

    /// As JSON, with what follows from it.
    pub(super) fn document(&self, claim: &Claim) -> Json {
        let decoded = (claim.output_ids.len() as u64).saturating_sub(1);
        let (wall, (forward, kernels)) = (ns(self.seconds.wall), self.forward_and_kernels());
        let mut steps = self.step_ns.clone();
        steps.sort_unstable();
        // By nearest rank.
        let rank = |percent: usize| (steps.len() * percent).div_ceil(100).saturating_sub(1);
        let step = |percent| seconds(steps.get(rank(percent)).copied().unwrap_or(0));
        let mut document = json!({
            "prompt_tokens": claim.prompt_ids.len(),
            "computed_tokens": self.computed(claim),
            "completion_tokens": claim.output_ids.len(),
            "prefill_tokens_per_second": rate(self.prefilled(claim), self.seconds.prefill),
            "decode_tokens_per_second": rate(decoded, self.seconds.decode),
            "logits_per_token": rate(self.work.logits, self.work.head as f64),
            "step_seconds": {"p50": step(50), "p95": step(95), "max": step(100)},
            // What the parts leave of the sums: no part can be altered alone.
            "other_seconds": seconds(wall.saturating_sub(self.seconds.parts())),
            "between_kernels_seconds": seconds(forward.saturating_sub(kernels)),
            "elapsed_seconds": seconds(total(&[wall, ns(self.seconds.consumer)])),
        });
        let own = serde_json::to_value(self).expect("plain data");
        if let (Json::Object(all), Json::Object(own)) = (&mut document, own) {
            all.extend(own);
            all.sort_keys();
        }
        document
    }
}
