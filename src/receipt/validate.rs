//! Validation: recomputes every sum and compares every derived field with the figures that it follows from.
//!
//! A check is called a gate. Its name is the path of the field that it checks.

use super::run::{ns_to_seconds, saturating_sum, seconds_to_ns};
use super::{GrammarClaim, Receipt, Redactable, gate_error};
use crate::error::Result;
use crate::machine::counters::WorkCounters;
use crate::token::TokenId;
use serde_json::Value as Json;

impl Receipt {
    /// Checks that the figures agree with each other, and the stored document with the figures. The error names the
    /// first gate that fails. This finds accidents; only a replay finds forgery.
    pub fn validate(&self) -> Result<()> {
        self.check_claim()?;
        self.check_work()?;
        self.check_seconds()?;
        self.check_tests()?;
        if let Some(stored) = &self.stored {
            compare("", stored, &self.derived()?)?;
        }
        self.check_parts()
    }

    fn check_claim(&self) -> Result<()> {
        let (claim, sampling) = (&self.claim, &self.claim.sampling);
        let vocab = self.model_info.vocab_size;
        check_gate("claim.lm_head", claim.lm_head.as_deref().is_none_or(|kind| kind == "int8"), || {
            let found = claim.lm_head.as_deref().unwrap_or_default();
            format!("it is '{found}', expected 'int8', or no such field for exact logits")
        })?;
        let blocks = claim.act_block.is_none_or(|columns| columns == 128 && claim.act_quant == "int8");
        check_gate("claim.act_block", blocks, || {
            let (found, quant) = (claim.act_block.unwrap_or_default(), &claim.act_quant);
            format!("it is {found} with act_quant '{quant}', expected 128 with 'int8', or no such field")
        })?;
        for (name, ids) in [("claim.prompt_ids", &claim.prompt_ids), ("claim.output_ids", &claim.output_ids)] {
            check_gate(name, ids.len() > 0, || "the list is empty, expected at least one id".into())?;
            let outside = ids.whole().into_iter().flatten().find(|id| u64::from(**id) >= vocab);
            check_gate(name, outside.is_none(), || {
                format!("id {} is outside the vocabulary of {vocab}", outside.copied().unwrap_or_default())
            })?;
        }
        let (prompt, output) = (claim.prompt_ids.len() as u64, claim.output_ids.len() as u64);
        let cached = self.run.cached_tokens;
        check_gate("run.cached_tokens", cached < prompt, || {
            format!("it is {cached}, but the prompt has {prompt} positions; expected fewer")
        })?;
        let ends = |ids: &Vec<TokenId>| ids.last().is_some_and(|last| sampling.stop_token_ids().contains(last));
        let at_stop_id = claim.output_ids.whole().is_none_or(ends);
        let at_most = sampling.max_tokens();
        let (at_length, at_context) = (at_most == Some(output), prompt.saturating_add(output) > claim.n_ctx);
        // An answer that reached two ends at once has the first of them in this order.
        let agrees = at_most.is_none_or(|most| output <= most)
            && prompt.saturating_add(output - 1) <= claim.n_ctx
            && match claim.finish_reason.as_str() {
                // A grammar may allow nothing more.
                "stop" => at_stop_id || sampling.stop.len() > 0 || claim.grammar.is_some(),
                "length" => at_length,
                "context" => at_context && !at_length,
                "cancelled" => !at_context && !at_length,
                _ => false,
            };
        check_gate("claim.finish_reason", agrees, || {
            let max_tokens = at_most.map_or("none".into(), |most| most.to_string());
            format!(
                "'{}' does not fit {output} ids with max_tokens {max_tokens}, a prompt of {prompt} ids and n_ctx {}",
                claim.finish_reason, claim.n_ctx
            )
        })
    }

    /// Checks what nothing else in the document depends on.
    fn check_parts(&self) -> Result<()> {
        let claim = &self.claim;
        for (name, agrees) in [
            ("claim.prompt_ids", claim.prompt_ids.agrees()),
            ("claim.output_ids", claim.output_ids.agrees()),
            ("claim.system", claim.system.as_ref().is_none_or(Redactable::agrees)),
            ("claim.sampling.stop", claim.sampling.stop.agrees()),
            ("claim.grammar.text", claim.grammar.as_ref().is_none_or(|grammar| grammar.text.agrees())),
        ] {
            check_gate(name, agrees, || "its count is 0 but its hash is not that of nothing, or the reverse".into())?;
        }
        claim.grammar.as_ref().map_or(Ok(()), GrammarClaim::validate)?;
        check_gate("claim.system", claim.system.is_none() || claim.template.is_some(), || {
            "there is a system prompt but no template, which alone could have put it into the prompt".into()
        })
    }

    /// Checks that the kernels counted the work that the claim takes: in each layer, a computed position passes seven
    /// projections and one attention; each id comes from one row of the output head, unless a grammar forced it.
    pub(super) fn check_work(&self) -> Result<()> {
        let work = self.run.work;
        let forced = self.run.forced.unwrap_or_default();
        let output = self.claim.output_ids.len() as u64;
        check_gate("run.forced", forced.uncomputed < output.max(1) && forced.ids < output.max(1), || {
            format!("{} ids forced and {} not computed do not fit an answer of {output}", forced.ids, forced.uncomputed)
        })?;
        let wrong = self.run.wrong_guesses();
        let wasted = wrong.saturating_add(forced.wasted);
        let positions = self.run.computed(&self.claim).saturating_add(wasted);
        let layer_rows = self.model_info.layers.checked_mul(positions).unwrap_or(0);
        let guessed = self.run.speculation.map_or(0, |guesses| guesses.accepted);
        let ids = saturating_sum(&[self.run.steps(&self.claim), guessed, wrong]);
        for (name, found, expected) in [
            ("run.work.projections", work.ternary.saturating_add(work.dense), layer_rows.saturating_mul(7)),
            ("run.work.attention", work.attention, layer_rows),
            ("run.work.head", work.head, ids),
        ] {
            check_gate(name, found == expected && found > 0, || {
                format!("the kernels counted {found} rows, but the claim takes {expected}")
            })?;
        }
        let WorkCounters { ffn_neurons, ffn_up_rows, ffn_down_columns, .. } = work;
        check_gate("run.work.ffn_neurons", ffn_neurons.is_multiple_of(layer_rows), || {
            format!("it is {ffn_neurons}, expected as many neurons for each of {layer_rows} rows of a layer")
        })?;
        for (name, read) in [("ffn_up_rows", ffn_up_rows), ("ffn_down_columns", ffn_down_columns)] {
            check_gate(&format!("run.work.{name}"), read <= ffn_neurons, || {
                format!("it is {read}, expected at most run.work.ffn_neurons, {ffn_neurons}")
            })?;
        }
        let possible = ids..=ids.saturating_mul(self.model_info.vocab_size);
        check_gate("run.work.logits", possible.contains(&work.logits), || {
            format!("it is {}, expected from one logit for each id up to the whole vocabulary for each", work.logits)
        })
    }

    fn check_seconds(&self) -> Result<()> {
        let times = &self.run.seconds;
        for (name, value) in times.named() {
            let is_time = (0.0..1e9).contains(&value) && ns_to_seconds(seconds_to_ns(value)) == value;
            check_gate(&format!("run.seconds.{name}"), is_time, || {
                format!("it is {value}, expected whole nanoseconds")
            })?;
        }
        let (first, wall, parts) =
            (seconds_to_ns(times.first_token), seconds_to_ns(times.wall), times.sum_of_parts_ns());
        check_gate("run.seconds.wall", parts <= wall, || {
            format!("it is {wall} ns, but its parts add up to {parts} ns")
        })?;
        let least = saturating_sum(&[times.render, times.tokenize, times.prefill].map(seconds_to_ns));
        check_gate("run.seconds.first_token", (least..=wall).contains(&first), || {
            format!("it is {first} ns, expected from render + tokenize + prefill up to wall")
        })?;
        let (steps, decode) = (&self.run.step_ns, seconds_to_ns(times.decode));
        let ids = self.run.steps(&self.claim);
        let agrees = saturating_sum(steps) == decode && steps.len() as u64 + 1 == ids;
        check_gate("run.step_ns", agrees, || {
            let sum = saturating_sum(steps);
            let (found, wanted) = (steps.len(), ids.saturating_sub(1));
            format!(
                "it has {found} steps of {sum} ns in all, expected {decode} ns, which is seconds.decode, in {wanted} steps: \
                 one for each id after the first that was neither guessed nor forced"
            )
        })?;
        let (forward, kernels) = self.run.forward_and_kernel_ns();
        check_gate("run.work.ns", kernels <= forward, || {
            format!("the kernels took {kernels} ns, but prefill and decode only {forward} ns")
        })
    }

    fn check_tests(&self) -> Result<()> {
        let tests = self.test_results;
        let sum = tests.passed.checked_add(tests.failed).and_then(|sum| sum.checked_add(tests.skipped));
        check_gate("test_results", sum == Some(tests.total_tests), || {
            format!("passed, failed and skipped do not add up to total_tests, {}", tests.total_tests)
        })
    }
}

/// Fails with the gate's name and what is wrong, unless the gate holds.
pub fn check_gate(name: &str, holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(gate_error(name, what())) }
}

/// Compares two documents. The gate that fails is the path of the first difference.
fn compare(path: &str, stored: &Json, derived: &Json) -> Result<()> {
    let inside = |key: &str| if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
    match (stored, derived) {
        (Json::Object(stored), Json::Object(derived)) => {
            for (key, value) in derived {
                let found = stored.get(key).ok_or_else(|| gate_error(&inside(key), "it is missing"))?;
                compare(&inside(key), found, value)?;
            }
            let foreign = stored.keys().find(|key| !derived.contains_key(*key));
            foreign.map_or(Ok(()), |key| Err(gate_error(&inside(key), "no such field is known")))
        }
        _ => check_gate(path, stored == derived, || {
            format!("it is {stored}, but the receipt's other figures give {derived}")
        }),
    }
}
