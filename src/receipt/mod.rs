//! Receipts: what an answer claims, and how it was run. Pure data with its own checks.
//!
//! A receipt's JSON document holds the fields of schema 1.0.0 and two blocks of ours: `claim`, what was computed, hashed
//! into `digest`; and `run`, how it went. Everything that can be derived is derived, here and nowhere else, so that
//! [`Receipt::validate`] can hold a document that somebody stored against what its own figures give.

mod claim;
mod run;
mod validate;

pub use claim::{Claim, LazyHash, Previous, Redactable, Sampling, TemplateClaim};
pub use run::{Run, Seconds, rate, seconds};
pub use validate::gate;

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use std::sync::OnceLock;

const SCHEMA_VERSION: &str = "1.0.0";

/// The receipt of one answer.
#[derive(Clone, Deserialize)]
pub struct Receipt {
    /// When the answer ended, in UTC (RFC 3339).
    pub timestamp: String,
    /// What was computed.
    pub claim: Claim,
    /// How.
    pub run: Run,
    /// With which model, for people.
    pub model_info: ModelInfo,
    /// On which machine, for people: name and value.
    pub environment: Map<String, Json>,
    /// Results of tests that somebody ran on this answer.
    pub test_results: TestResults,
    #[serde(skip)]
    digest: OnceLock<String>,
    /// The document that it was read from, if one.
    #[serde(skip)]
    stored: Option<Json>,
}

/// A model's measures; `architecture` is `general.architecture`, `file` its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ModelInfo {
    pub file: String,
    pub bytes: u64,
    pub architecture: String,
    pub layers: u64,
    pub hidden_size: u64,
    pub num_attention_heads: u64,
    pub num_key_value_heads: u64,
    pub vocab_size: u64,
}

/// How many tests were run, and how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TestResults {
    pub total_tests: u64,
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

/// The error of a gate that fails.
pub fn wrong(gate: &str, what: impl Into<String>) -> Error {
    Error::Receipt { gate: gate.into(), what: what.into() }
}

impl Receipt {
    /// The receipt of an answer that has just ended.
    pub fn new(claim: Claim, run: Run, model_info: ModelInfo, environment: Map<String, Json>) -> Receipt {
        Receipt {
            timestamp: humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string(),
            claim,
            run,
            model_info,
            environment,
            test_results: TestResults::default(),
            digest: OnceLock::new(),
            stored: None,
        }
    }

    /// The BLAKE3 of the redacted claim's canonical JSON (no spaces, keys sorted), in hexadecimal. It stands for the claim
    /// and for those of all receipts before; it is the same on every processor. The first call may read the model's file.
    pub fn digest(&self) -> Result<&str> {
        // Receipts before this one may be many: the oldest without a digest is first.
        let mut waiting = Vec::new();
        let mut receipt = self;
        while receipt.digest.get().is_none() {
            waiting.push(receipt);
            match &receipt.claim.previous {
                Some(Previous::Receipt(previous)) => receipt = previous,
                _ => break,
            }
        }
        for receipt in waiting.into_iter().rev() {
            let digest = receipt.claim.digest()?;
            receipt.digest.get_or_init(|| digest);
        }
        Ok(self.digest.get().expect("set just now"))
    }

    /// Its JSON document: as it was read, or as its figures give it.
    pub fn document(&self) -> Result<Json> {
        self.stored.clone().map_or_else(|| self.derived(), Ok)
    }

    /// The document that its figures give.
    fn derived(&self) -> Result<Json> {
        let (claim, run) = (&self.claim, &self.run);
        let tokens = claim.output_ids.len() as u64;
        let per_token = |seconds: f64, tokens: u64| if tokens == 0 { 0.0 } else { seconds * 1e3 / tokens as f64 };
        Ok(json!({
            "schema_version": SCHEMA_VERSION,
            "timestamp": self.timestamp,
            // Whether the kernels counted the work that the claim takes.
            "compute_path": if self.check_work().is_ok() { "real" } else { "mock" },
            "backend": "cpu",
            "backend_summary": format!("{}, {} threads", run.isa, run.threads),
            "kernels": run.kernels(),
            // Draws follow the seed, and everything else has one order.
            "deterministic": true,
            "environment": self.environment,
            "model_info": self.model_info,
            "test_results": self.test_results,
            "performance_baseline": {
                "tokens_generated": tokens,
                "total_time_ms": run.seconds.wall * 1e3,
                "tokens_per_second": run::rate(tokens, run.seconds.wall),
                "first_token_latency_ms": run.seconds.first_token * 1e3,
                "average_token_latency_ms": per_token(run.seconds.decode, tokens.saturating_sub(1)),
                "memory_usage_mb": run.memory_bytes as f64 / 1e6,
                "cache_efficiency": run.cached_tokens as f64 / claim.prompt_ids.len().max(1) as f64,
            },
            "corrections": [],
            "claim": claim.document()?,
            "run": run.document(claim),
            "digest": self.digest()?,
        }))
    }

    /// Reads a document. Whether its figures agree is [`Self::validate`]'s business.
    pub fn from_json(text: &str) -> Result<Receipt> {
        let broken = |error: serde_json::Error| wrong("form", format!("it is not a receipt: {error}"));
        let stored: Json = serde_json::from_str(text).map_err(broken)?;
        let receipt = Receipt::deserialize(&stored).map_err(broken)?;
        Ok(Receipt { stored: Some(stored), ..receipt })
    }

    /// Its document as indented text.
    pub fn to_json(&self) -> Result<String> {
        Ok(format!("{:#}\n", self.document()?))
    }

    /// A copy with these results.
    pub fn with_test_results(&self, test_results: TestResults) -> Receipt {
        Receipt { test_results, stored: None, ..self.clone() }
    }

    /// A copy with hashes in place of prompt, answer, system prompt and stop texts. Its digest is the same.
    pub fn redact(&self) -> Result<Receipt> {
        let mut document = self.document()?;
        document["claim"] = self.claim.redacted()?;
        Receipt::from_json(&document.to_string())
    }
}
