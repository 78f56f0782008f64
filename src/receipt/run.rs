//! How an answer was run: kernels, threads, times.

use super::Claim;
use crate::machine::counters::WorkCounters;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

/// How an answer was computed. Nothing here changes the answer, and nothing here is hashed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The version of this package.
    pub version: String,
    /// The instruction set of the kernels.
    pub isa: String,
    /// The number of threads that computed.
    pub threads: u64,
    /// The largest number of rows in one forward pass.
    pub n_batch: u64,
    /// Positions of the prompt that the cache held.
    pub cached_tokens: u64,
    /// Rows and times, as the kernels counted them.
    pub work: WorkCounters,
    /// The time of each part.
    pub seconds: Seconds,
    /// Nanoseconds of each decode step, in order.
    pub step_ns: Vec<u64>,
    /// Ids that were guessed, if guesses were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speculation: Option<Speculation>,
    /// Ids that a grammar forced, if the answer had to have a form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced: Option<Forced>,
    /// Bytes of the engine's own memory: packed weights and this answer's KV cache.
    pub memory_bytes: u64,
}

/// Guesses of ids, which do not change an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Speculation {
    /// Ids that were guessed and computed.
    pub proposed: u64,
    /// Ids that came without a step of their own, since they were guessed right.
    pub accepted: u64,
}

/// Ids that a grammar left no choice about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forced {
    /// Ids of the answer that came without a step of their own.
    pub ids: u64,
    /// Ids at the end of the answer, before the last one, whose positions were never computed: nothing followed them.
    pub uncomputed: u64,
    /// Positions that were computed for ids after the end of the answer, which was cancelled or stopped there.
    pub wasted: u64,
}

/// Times in seconds, each a whole number of nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// Formatting the prompt.
    pub render: f64,
    /// Tokenizing the prompt.
    pub tokenize: f64,
    /// Computing the positions of the prompt that the cache did not hold.
    pub prefill: f64,
    /// The time from the call to the first id.
    pub first_token: f64,
    /// Computing all later positions: the sum of the decode steps.
    pub decode: f64,
    /// Choosing ids from logits.
    pub sample: f64,
    /// Turning ids into text and looking for stop strings.
    pub detokenize: f64,
    /// The whole time inside the engine.
    pub wall: f64,
    /// The time that the stream's consumer spent between pulls. The others do not include it.
    pub consumer: f64,
}

/// Seconds as nanoseconds, so that sums are exact.
pub(super) fn seconds_to_ns(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

/// Converts whole nanoseconds to seconds.
pub fn ns_to_seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// The sum. It saturates: a stored receipt may hold any figures.
pub(super) fn saturating_sum(figures: &[u64]) -> u64 {
    figures.iter().fold(0, |sum, figure| sum.saturating_add(*figure))
}

/// Items per second; 0 for no items or no time.
pub fn rate(count: u64, seconds: f64) -> f64 {
    if count == 0 || seconds <= 0.0 { 0.0 } else { count as f64 / seconds }
}

impl Seconds {
    /// The sum of the parts that were measured one by one, in nanoseconds.
    pub(super) fn sum_of_parts_ns(&self) -> u64 {
        let Seconds { render, tokenize, prefill, decode, sample, detokenize, .. } = *self;
        saturating_sum(&[render, tokenize, prefill, decode, sample, detokenize].map(seconds_to_ns))
    }

    /// All times with their names.
    pub fn named(&self) -> impl Iterator<Item = (String, f64)> {
        let all = serde_json::to_value(self).ok().and_then(|all| all.as_object().cloned());
        all.into_iter().flatten().filter_map(|(name, value)| Some((name, value.as_f64()?)))
    }
}

impl Run {
    /// The kernels that counted rows, as "NAME/ISA".
    pub fn kernels(&self) -> Vec<String> {
        let WorkCounters { ternary, dense, attention, head, .. } = self.work;
        let counted = [("ternary", ternary), ("dense", dense), ("attention", attention), ("head", head)];
        counted.iter().filter(|(_, rows)| *rows > 0).map(|(name, _)| format!("{name}/{}", self.isa)).collect()
    }

    /// Nanoseconds of all forward passes, and of the kernels in them.
    pub(super) fn forward_and_kernel_ns(&self) -> (u64, u64) {
        let WorkCounters { ternary_ns, dense_ns, attention_ns, head_ns, .. } = self.work;
        let forward = [self.seconds.prefill, self.seconds.decode].map(seconds_to_ns);
        (saturating_sum(&forward), saturating_sum(&[ternary_ns, dense_ns, attention_ns, head_ns]))
    }

    /// Positions of the claim's prompt that were computed: the cache held the others.
    pub(super) fn prefilled(&self, claim: &Claim) -> u64 {
        (claim.prompt_ids.len() as u64).saturating_sub(self.cached_tokens)
    }

    /// Positions that were computed: the rest of the prompt, and all sampled ids but the last; not those at the end of an
    /// answer that a grammar forced.
    pub fn computed(&self, claim: &Claim) -> u64 {
        let uncomputed = self.forced.map_or(0, |forced| forced.uncomputed);
        let output = (claim.output_ids.len() as u64).saturating_sub(1).saturating_sub(uncomputed);
        self.prefilled(claim).saturating_add(output)
    }

    /// Rows of wrong guesses, which plain decoding would not have.
    pub(super) fn wrong_guesses(&self) -> u64 {
        self.speculation.map_or(0, |guesses| guesses.proposed.saturating_sub(guesses.accepted))
    }

    /// Ids that came with a step of their own, or with one of the prompt's.
    pub(super) fn steps(&self, claim: &Claim) -> u64 {
        let guessed = self.speculation.map_or(0, |guesses| guesses.accepted);
        let forced = self.forced.map_or(0, |forced| forced.ids);
        (claim.output_ids.len() as u64).saturating_sub(guessed).saturating_sub(forced)
    }

    /// The run as JSON, with the figures that follow from it and the claim.
    pub(super) fn document(&self, claim: &Claim) -> Json {
        let decoded = (claim.output_ids.len() as u64).saturating_sub(1);
        let (wall, (forward, kernels)) = (seconds_to_ns(self.seconds.wall), self.forward_and_kernel_ns());
        let mut steps = self.step_ns.clone();
        steps.sort_unstable();
        // The percentile by nearest rank.
        let rank = |percent: usize| (steps.len() * percent).div_ceil(100).saturating_sub(1);
        let step = |percent| ns_to_seconds(steps.get(rank(percent)).copied().unwrap_or(0));
        let mut document = json!({
            "prompt_tokens": claim.prompt_ids.len(),
            "computed_tokens": self.computed(claim),
            "completion_tokens": claim.output_ids.len(),
            "prefill_tokens_per_second": rate(self.prefilled(claim), self.seconds.prefill),
            "decode_tokens_per_second": rate(decoded, self.seconds.decode),
            "logits_per_token": rate(self.work.logits, self.work.head as f64),
            "step_seconds": {"p50": step(50), "p95": step(95), "max": step(100)},
            // These make every part checkable: a part that is altered alone no longer adds up.
            "other_seconds": ns_to_seconds(wall.saturating_sub(self.seconds.sum_of_parts_ns())),
            "between_kernels_seconds": ns_to_seconds(forward.saturating_sub(kernels)),
            "elapsed_seconds": ns_to_seconds(saturating_sum(&[wall, seconds_to_ns(self.seconds.consumer)])),
        });
        let WorkCounters { ffn_neurons, ffn_up_rows, ffn_down_columns, .. } = self.work;
        if ffn_neurons > 0 {
            document["ffn_up_share"] = json!(ffn_up_rows as f64 / ffn_neurons as f64);
            document["ffn_down_share"] = json!(ffn_down_columns as f64 / ffn_neurons as f64);
        }
        let own = serde_json::to_value(self).expect("plain data");
        if let (Json::Object(all), Json::Object(own)) = (&mut document, own) {
            all.extend(own);
            all.sort_keys();
        }
        document
    }
}
