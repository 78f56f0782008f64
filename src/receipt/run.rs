//! How an answer was run: counts, times, processor.

use super::Claim;
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
    pub work: Work,
    /// Time inside the engine.
    pub seconds: Seconds,
    /// Bytes of the engine's own memory: packed weights and this answer's keys and values.
    pub memory_bytes: u64,
}

/// Rows that the kernels computed for one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Rows through ternary projections.
    pub ternary: u64,
    /// Rows through dense projections.
    pub dense: u64,
    /// Rows through the attention of a layer.
    pub attention: u64,
    /// Rows through the output head.
    pub head: u64,
    /// Logits that it computed exactly: those that the choice could fall on.
    pub logits: u64,
}

/// Seconds inside the engine; what the consumer spent between pulls is not among them.
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
    /// All of it.
    pub wall: f64,
}

pub(super) fn rate(count: u64, seconds: f64) -> f64 {
    if count == 0 || seconds <= 0.0 { 0.0 } else { count as f64 / seconds }
}

impl Seconds {
    /// What was measured piece by piece.
    pub(super) fn parts(&self) -> f64 {
        self.render + self.tokenize + self.prefill + self.decode + self.sample + self.detokenize
    }

    /// All times, with their names.
    pub fn named(&self) -> [(&'static str, f64); 8] {
        [
            ("render", self.render),
            ("tokenize", self.tokenize),
            ("prefill", self.prefill),
            ("first_token", self.first_token),
            ("decode", self.decode),
            ("sample", self.sample),
            ("detokenize", self.detokenize),
            ("wall", self.wall),
        ]
    }
}

impl Run {
    /// The kernels that ran: those that counted rows.
    pub fn kernels(&self) -> Vec<String> {
        let Work { ternary, dense, attention, head, .. } = self.work;
        let counted = [("ternary", ternary), ("dense", dense), ("attention", attention), ("head", head)];
        counted.iter().filter(|(_, rows)| *rows > 0).map(|(name, _)| format!("{name}/{}", self.isa)).collect()
    }

    /// Positions of the prompt that were computed for the answer to `claim`.
    pub(super) fn prefilled(&self, claim: &Claim) -> u64 {
        (claim.prompt_ids.len() as u64).saturating_sub(self.cached_tokens)
    }

    /// Positions that were computed for the answer: of the prompt, and of all sampled ids but the last.
    pub fn computed(&self, claim: &Claim) -> u64 {
        self.prefilled(claim) + (claim.output_ids.len() as u64).saturating_sub(1)
    }

    /// As JSON, with what follows from it.
    pub(super) fn document(&self, claim: &Claim) -> Json {
        let decoded = (claim.output_ids.len() as u64).saturating_sub(1);
        let mut document = json!({
            "prompt_tokens": claim.prompt_ids.len(),
            "computed_tokens": self.computed(claim),
            "completion_tokens": claim.output_ids.len(),
            "prefill_tokens_per_second": rate(self.prefilled(claim), self.seconds.prefill),
            "decode_tokens_per_second": rate(decoded, self.seconds.decode),
        });
        let own = serde_json::to_value(self).expect("plain data");
        if let (Json::Object(all), Json::Object(own)) = (&mut document, own) {
            all.extend(own);
            all.sort_keys();
        }
        document
    }
}
