//! The gates of a receipt: every sum recomputed, every derived field compared with what it is derived from.

use super::{Receipt, Work, wrong};
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
        let claim = &self.claim;
        let (prompt, output) = (claim.prompt_ids.len() as u64, claim.output_ids.len() as u64);
        if prompt == 0 {
            return Err(wrong("claim.prompt_ids", "there are none, expected at least one"));
        }
        if output == 0 {
            return Err(wrong("claim.output_ids", "there are none, expected at least one"));
        }
        let vocab = self.model_info.vocab_size;
        for (name, ids) in [("claim.prompt_ids", &claim.prompt_ids), ("claim.output_ids", &claim.output_ids)] {
            if let Some(id) = ids.iter().find(|id| **id as u64 >= vocab) {
                return Err(wrong(name, format!("id {id} is outside the vocabulary of {vocab}")));
            }
        }
        if self.run.cached_tokens >= prompt {
            let cached = self.run.cached_tokens;
            return Err(wrong("run.cached_tokens", format!("{cached} of the prompt's {prompt} positions were reused")));
        }
        let last = claim.output_ids.last().expect("not empty");
        let at_stop_id = claim.sampling.stop_token_ids.contains(last);
        let full = prompt + output > claim.n_ctx;
        let at_most = claim.sampling.max_tokens;
        let agrees = at_most.is_none_or(|most| output <= most)
            && prompt + output <= claim.n_ctx + 1
            && match claim.finish_reason.as_str() {
                "stop" => at_stop_id || !claim.sampling.stop.is_empty(),
                "length" => at_most == Some(output),
                "context" => full,
                "cancelled" => true,
                _ => false,
            };
        if !agrees {
            return Err(wrong(
                "claim.finish_reason",
                format!(
                    "it is '{}' after {output} ids with max_tokens {at_most:?}, a prompt of {prompt} and a context of {}",
                    claim.finish_reason, claim.n_ctx
                ),
            ));
        }
        Ok(())
    }

    /// Whether the kernels counted what the claim takes: each computed position passes seven projections and one
    /// attention a layer, and each id comes from one row of the head.
    pub(super) fn check_work(&self) -> Result<()> {
        let Work { ternary, dense, attention, head, logits } = self.run.work;
        let layer_rows = self.model_info.layers.checked_mul(self.run.computed(&self.claim)).unwrap_or(0);
        let ids = self.claim.output_ids.len() as u64;
        let gates = [
            ("projections", ternary.saturating_add(dense), layer_rows.saturating_mul(7)),
            ("attention", attention, layer_rows),
            ("head", head, ids),
        ];
        match gates.into_iter().find(|(_, found, expected)| found != expected || *found == 0) {
            Some((name, found, expected)) => Err(wrong(
                &format!("run.work.{name}"),
                format!("{found} rows were counted, the claim takes {expected}"),
            )),
            None if (head..=head.saturating_mul(self.model_info.vocab_size)).contains(&logits) => Ok(()),
            None => Err(wrong(
                "run.work.logits",
                format!("{logits} were counted, expected from one for each id up to the whole vocabulary"),
            )),
        }
    }

    fn check_seconds(&self) -> Result<()> {
        let seconds = &self.run.seconds;
        if let Some((name, value)) = seconds.named().into_iter().find(|(_, value)| !(0.0..1e12).contains(value)) {
            return Err(wrong(&format!("run.seconds.{name}"), format!("it is {value}, expected a time")));
        }
        // Each time is rounded to a nanosecond.
        let wall = seconds.wall + 1e-8;
        if seconds.parts() > wall {
            return Err(wrong(
                "run.seconds.wall",
                format!("the parts add up to {}, more than {}", seconds.parts(), seconds.wall),
            ));
        }
        if seconds.first_token > wall
            || seconds.first_token + 1e-8 < seconds.render + seconds.tokenize + seconds.prefill
        {
            return Err(wrong(
                "run.seconds.first_token",
                format!("it is {}, expected from render + tokenize + prefill up to wall", seconds.first_token),
            ));
        }
        Ok(())
    }

    fn check_tests(&self) -> Result<()> {
        let tests = self.test_results;
        let sum = tests.passed.checked_add(tests.failed).and_then(|sum| sum.checked_add(tests.skipped));
        if sum != Some(tests.total_tests) {
            return Err(wrong(
                "test_results",
                format!("passed, failed and skipped give {sum:?}, not the total of {}", tests.total_tests),
            ));
        }
        Ok(())
    }
}

/// Compares two documents; the gate is the path of the first difference.
fn compare(path: &str, stored: &Json, derived: &Json) -> Result<()> {
    let inside = |key: &str| if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
    match (stored, derived) {
        (Json::Object(stored), Json::Object(derived)) => {
            for (key, value) in derived {
                match stored.get(key) {
                    Some(found) => compare(&inside(key), found, value)?,
                    None => return Err(wrong(&inside(key), "it is missing")),
                }
            }
            match stored.keys().find(|key| !derived.contains_key(*key)) {
                Some(key) => Err(wrong(&inside(key), "no receipt has such a field")),
                None => Ok(()),
            }
        }
        _ if stored == derived => Ok(()),
        _ => Err(wrong(path, format!("it is {stored}, but the receipt's figures give {derived}"))),
    }
}
