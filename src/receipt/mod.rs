//! Receipts: what an answer claims, and how it was run. Pure data with its own checks.
//!
//! A receipt's JSON document holds the fields of schema 1.0.0 and two more blocks: `claim` says what was computed and
//! is hashed into `digest`; `run` says how. Every figure that follows from others is derived here and nowhere else, so
//! [`Receipt::validate`] can compare a stored document with the one that its own figures give.

mod claim;
mod grammar;
mod run;
mod sampling;
mod size;
mod validate;

pub use claim::{Claim, LazyHash, PreviousReceipt, Redactable, TemplateClaim};
pub use grammar::GrammarClaim;
pub use run::{Forced, Run, Seconds, Speculation, ns_to_seconds, rate};
pub use sampling::Sampling;
pub use size::JsonSize;
pub use validate::check_gate;

use crate::error::{Error, Result};
use crate::machine::clock;
use crate::machine::file::{self, Readers, write_atomically};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::OnceLock;

const SCHEMA_VERSION: &str = "1.0.0";

/// Limits of a document that is read, so that a hostile one takes a few hundred megabytes of memory at most. An answer
/// with a context of two million ids stays below both.
const MAX_BYTES: u64 = 32 << 20;
const MAX_VALUES: usize = 2 << 20;

/// The receipt of one answer.
#[derive(Clone, Deserialize)]
pub struct Receipt {
    /// When the answer ended, in UTC (RFC 3339).
    pub timestamp: String,
    /// Everything that decides the ids, and the ids; hashed into the digest.
    pub claim: Claim,
    /// How it was computed.
    pub run: Run,
    /// The model's file and sizes, for people; `claim.model` identifies it.
    pub model_info: ModelInfo,
    /// The machine, for people: names and values.
    pub environment: Map<String, Json>,
    /// Results of tests that somebody ran on this answer.
    pub test_results: TestResults,
    #[serde(skip)]
    digest: OnceLock<String>,
    /// The document from which the receipt was read, if it was read.
    #[serde(skip)]
    stored: Option<Json>,
}

/// A model's file and sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// The name of the file, without its folder.
    pub file: String,
    /// The size of the file; for a split model, of all its files.
    pub bytes: u64,
    /// The file's `general.architecture`.
    pub architecture: String,
    /// The number of transformer layers.
    pub layers: u64,
    /// Channels of the hidden state.
    pub hidden_size: u64,
    /// Query heads of a layer.
    pub num_attention_heads: u64,
    /// Key and value heads of a layer.
    pub num_key_value_heads: u64,
    /// The number of token ids.
    pub vocab_size: u64,
}

/// How many tests somebody ran on an answer, and how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TestResults {
    /// The sum of the others.
    pub total_tests: u64,
    /// How many tests passed.
    pub passed: u64,
    /// How many tests failed.
    pub failed: u64,
    /// Tests that were not run.
    pub skipped: u64,
}

/// The error of a gate (a named check of a receipt) that fails.
pub fn gate_error(gate: &str, what: impl Into<String>) -> Error {
    Error::Receipt { gate: gate.into(), what: what.into() }
}

impl Receipt {
    /// The receipt of an answer that has just ended.
    pub fn new(claim: Claim, run: Run, model_info: ModelInfo, environment: Map<String, Json>) -> Receipt {
        Receipt {
            timestamp: format!("{:.3}", clock::utc()),
            claim,
            run,
            model_info,
            environment,
            test_results: TestResults::default(),
            digest: OnceLock::new(),
            stored: None,
        }
    }

    /// The BLAKE3 of the redacted claim's canonical JSON (no spaces, keys sorted), in hexadecimal. It stands for the
    /// claim and for the claims of all receipts before this one, and is the same on every processor. The first call of
    /// an engine reads the model's whole file.
    pub fn digest(&self) -> Result<&str> {
        // There may be thousands of receipts before this one: a loop, oldest first, and no recursion.
        let mut waiting = Vec::new();
        let mut receipt = self;
        while receipt.digest.get().is_none() {
            waiting.push(receipt);
            match &receipt.claim.previous {
                Some(PreviousReceipt::InMemory(previous)) => receipt = previous,
                _ => break,
            }
        }
        for receipt in waiting.into_iter().rev() {
            let digest = receipt.claim.digest()?;
            receipt.digest.get_or_init(|| digest);
        }
        Ok(self.digest.get().expect("set just now"))
    }

    /// The JSON document: as it was read, or else as the figures give it.
    pub fn document(&self) -> Result<Json> {
        self.stored.clone().map_or_else(|| self.derived(), Ok)
    }

    /// The document that the figures give.
    fn derived(&self) -> Result<Json> {
        let (claim, run, digest) = (&self.claim, &self.run, self.digest()?);
        let tokens = claim.output_ids.len() as u64;
        let per_token = |seconds: f64, tokens: u64| if tokens == 0 { 0.0 } else { seconds * 1e3 / tokens as f64 };
        Ok(json!({
            "schema_version": SCHEMA_VERSION,
            "timestamp": self.timestamp,
            // "real" if the kernels counted the work that the claim takes.
            "compute_path": if self.check_work().is_ok() { "real" } else { "mock" },
            "backend": "cpu",
            "backend_summary": format!("{}, {} threads", run.isa, run.threads),
            "kernels": run.kernels(),
            // Random draws follow the seed, and float operations have one order.
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
            "digest": digest,
        }))
    }

    /// Reads a document. [`Self::validate`] checks whether its figures agree.
    pub fn from_json(text: &str) -> Result<Receipt> {
        check_size(text)?;
        let not_a_receipt = |error: serde_json::Error| gate_error("form", format!("it is not a receipt: {error}"));
        let stored: Json = serde_json::from_str(text).map_err(not_a_receipt)?;
        let receipt = Receipt::deserialize(&stored).map_err(not_a_receipt)?;
        Ok(Receipt { stored: Some(stored), ..receipt })
    }

    /// The document as indented text.
    pub fn to_json(&self) -> Result<String> {
        Ok(format!("{:#}\n", self.document()?))
    }

    /// Reads a file that [`Self::save`] wrote.
    pub fn load(path: &Path) -> Result<Receipt> {
        let mut text = String::new();
        let read = |mut file: File| {
            let bytes = file.metadata()?.len();
            if bytes <= MAX_BYTES { file.read_to_string(&mut text).map(drop) } else { Ok(()) }.map(|()| bytes)
        };
        let bytes = file::open(path).and_then(read).map_err(|source| Error::Io { path: path.into(), source })?;
        check_bytes(bytes).and_then(|()| Receipt::from_json(&text)).map_err(|error| error.of_file(path))
    }

    /// Writes the document to a file, atomically.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = self.to_json()?;
        write_atomically(path, Readers::Everyone, |file| file.write_all(text.as_bytes()))
    }

    /// A copy with these test results.
    pub fn with_test_results(&self, test_results: TestResults) -> Receipt {
        Receipt { test_results, stored: None, ..self.clone() }
    }

    /// A copy with hashes in place of prompt, answer, system prompt, grammar and stop strings. Its digest is the same.
    pub fn redact(&self) -> Result<Receipt> {
        let mut document = self.document()?;
        document["claim"] = self.claim.redacted()?;
        Receipt::from_json(&document.to_string())
    }
}

fn check_bytes(bytes: u64) -> Result<()> {
    check_gate("form", bytes <= MAX_BYTES, || {
        format!("it has {bytes} bytes, more than a receipt can have, {MAX_BYTES}")
    })
}

/// Refuses a text that is larger than any receipt, before it is parsed.
fn check_size(text: &str) -> Result<()> {
    check_bytes(text.len() as u64)?;
    let JsonSize { values, .. } = JsonSize::of(text);
    check_gate("form", values <= MAX_VALUES, || {
        format!("it has {values} values, more than a receipt can have, {MAX_VALUES}")
    })
}
