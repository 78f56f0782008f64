//! The gates of a receipt: every sum recomputed, every derived field compared with what it is derived from.

use super::run::{ns, seconds, total};
use super::{Receipt, wrong};
use crate::error::Result;
use serde_json::Value as Json;

impl Receipt {
    /// Checks that its figures agree with each other, and its stored document with its figures; the error names the
    /// first gate that fails. A digest finds accidents; only a replay finds forgery.
    pub fn validate(&self) -> Result<()> {
        self.check_claim()?;
        self.check_work()?;
        self.check_seconds()?;
        self.check_tests()?;
        match &self.stored {
            Some(stored) => compare("", stored, &self.derived()?),
            None => Ok(()),
        }
    }

    fn check_claim(&self) -> Result<()> {
        let (claim, sampling) = (&self.claim, &self.claim.sampling);
        let vocab = self.model_info.vocab_size;
        for (name, ids) in [("claim.prompt_ids", &claim.prompt_ids), ("claim.output_ids", &claim.output_ids)] {
            gate(name, ids.len() > 0, || "there are none, expected at least one".into())?;
            let outside = ids.whole().into_iter().flatten().find(|id| u64::from(**id) >= vocab);
            gate(name, outside.is_none(), || {
                format!("id {} is outside the vocabulary of {vocab}", outside.copied().unwrap_or_default())
            })?;
        }
        let (prompt, output) = (claim.prompt_ids.len() as u64, claim.output_ids.len() as u64);
        let cached = self.run.cached_tokens;
        gate("run.cached_tokens", cached < prompt, || {
            format!("{cached} of the prompt's {prompt} positions were reused")
        })?;
        let ends = |ids: &Vec<u32>| ids.last().is_some_and(|last| sampling.stop_token_ids.contains(last));
        let at_stop_id = claim.output_ids.whole().is_none_or(ends);
        let at_most = sampling.max_tokens;
        let agrees = at_most.is_none_or(|most| output <= most)
            && prompt.saturating_add(output - 1) <= claim.n_ctx
            && match claim.finish_reason.as_str() {
                "stop" => at_stop_id || sampling.stop.len() > 0,
                "length" => at_most == Some(output),
                "context" => prompt.saturating_add(output) > claim.n_ctx,
                "cancelled" => true,
                _ => false,
            };
        gate("claim.finish_reason", agrees, || {
            format!(
                "it is '{}' after {output} ids with max_tokens {at_most:?}, a prompt of {prompt} and a context of {}",
                claim.finish_reason, claim.n_ctx
            )
        })
    }

    /// Whether the kernels counted what the claim takes: each computed position passes seven projections and one
    /// attention a layer, and each id comes from one row of the head.
    pub(super) fn check_work(&self) -> Result<()> {
        let work = self.run.work;
        let layer_rows = self.model_info.layers.checked_mul(self.run.computed(&self.claim)).unwrap_or(0);
        let ids = self.claim.output_ids.len() as u64;
        for (name, found, expected) in [
            ("run.work.projections", work.ternary.saturating_add(work.dense), layer_rows.saturating_mul(7)),
            ("run.work.attention", work.attention, layer_rows),
            ("run.work.head", work.head, ids),
        ] {
            gate(name, found == expected && found > 0, || {
                format!("{found} rows were counted, the claim takes {expected}")
            })?;
        }
        let possible = ids..=ids.saturating_mul(self.model_info.vocab_size);
        gate("run.work.logits", possible.contains(&work.logits), || {
            format!("{} were counted, expected from one for each id up to the whole vocabulary", work.logits)
        })
    }

    fn check_seconds(&self) -> Result<()> {
        let times = &self.run.seconds;
        for (name, value) in times.named() {
            let is_time = (0.0..1e9).contains(&value) && seconds(ns(value)) == value;
            gate(&format!("run.seconds.{name}"), is_time, || format!("it is {value}, expected whole nanoseconds"))?;
        }
        let (first, wall, parts) = (ns(times.first_token), ns(times.wall), times.parts());
        gate("run.seconds.wall", parts <= wall, || format!("it is {wall} ns, but its parts add up to {parts}"))?;
        let least = total(&[times.render, times.tokenize, times.prefill].map(ns));
        gate("run.seconds.first_token", (least..=wall).contains(&first), || {
            format!("it is {first} ns, expected from render + tokenize + prefill up to wall")
        })?;
        let (steps, decode) = (&self.run.step_ns, ns(times.decode));
        let agrees = total(steps) == decode && steps.len() + 1 == self.claim.output_ids.len();
        gate("run.step_ns", agrees, || format!("{} steps of {} ns, decode is {decode}", steps.len(), total(steps)))?;
        let (forward, kernels) = self.run.forward_and_kernels();
        gate("run.work.ns", kernels <= forward, || format!("{kernels} ns, prefill and decode are {forward}"))
    }

    fn check_tests(&self) -> Result<()> {
        let tests = self.test_results;
        let sum = tests.passed.checked_add(tests.failed).and_then(|sum| sum.checked_add(tests.skipped));
        gate("test_results", sum == Some(tests.total_tests), || {
            format!("passed, failed and skipped give {sum:?}, not the total of {}", tests.total_tests)
        })
    }
}

/// One check, by its name: an error unless it holds.
pub fn gate(name: &str, holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(wrong(name, what())) }
}

/// Compares two documents; the gate is the path of the first difference.
fn compare(path: &str, stored: &Json, derived: &Json) -> Result<()> {
    let inside = |key: &str| if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
    match (stored, derived) {
        (Json::Object(stored), Json::Object(derived)) => {
            for (key, value) in derived {
                let found = stored.get(key).ok_or_else(|| wrong(&inside(key), "it is missing"))?;
                compare(&inside(key), found, value)?;
            }
            let foreign = stored.keys().find(|key| !derived.contains_key(*key));
            foreign.map_or(Ok(()), |key| Err(wrong(&inside(key), "no receipt has such a field")))
        }
        _ => gate(path, stored == derived, || format!("it is {stored}, but the receipt's figures give {derived}")),
    }
}
