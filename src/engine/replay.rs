//! Replay: computes a receipt's answer again, and checks what else its claim says of the model and the prompt.

use super::{Engine, Finish, NUMERICS, Request, Stream, Watch};
use crate::decode::{Done, Generation, Step, Steps};
use crate::error::{Error, Result};
use crate::grammar;
use crate::receipt::{Claim, Receipt, Redactable, check_gate, gate_error};
use crate::template::Template;
use crate::token::TokenId;
use serde_json::{Map, json};
use std::collections::HashMap;

/// A receipt to replay, and the prompt of a redacted one.
pub type ReplayTask<'a> = (&'a Receipt, Option<Vec<TokenId>>);

/// What a replay found.
pub struct Replay {
    /// Whether the answer has the same ids and ends in the same way.
    pub same: bool,
    /// The ids of the new answer.
    pub ids: Vec<TokenId>,
    /// The fields that are told, not proven: they could say something else, and the replay would have the same result.
    pub told: Vec<&'static str>,
}

/// A replay under way.
struct Replaying<'a> {
    receipt: &'a Receipt,
    /// The answer, which is computed again.
    stream: Stream,
    /// Whether the prompt begins with the system prompt of the receipt.
    system_is_shown: bool,
}

impl Engine {
    /// Computes a receipt's answer again, all its ids in one pass: see [`Engine::replay_many`].
    pub fn replay(&self, receipt: &Receipt, prompt: Option<Vec<TokenId>>, watch: &mut Watch) -> Result<Replay> {
        let mut found = None;
        self.replay_many(&[(receipt, prompt)], |_, replay| found = Some(replay), watch)?;
        found.expect("one receipt")
    }

    /// Computes the answers of receipts again, in shared passes; `report` gets each when it is done, by its index.
    ///
    /// A pass computes the ids of an answer like a prompt, and the sampler chooses each of them again from the logits
    /// before it. From the first id that differs on the answer is generated, and so is one whose ids are redacted.
    ///
    /// A replay fails, naming the field, if the receipt is of another model, other settings or another order of float
    /// operations, or if it contradicts the model or its own prompt. A redacted receipt needs its prompt; if one of its
    /// redacted stop strings ended the answer, only ids are compared.
    pub fn replay_many(
        &self,
        tasks: &[ReplayTask],
        mut report: impl FnMut(usize, Result<Replay>),
        watch: &mut Watch,
    ) -> Result<()> {
        let mut steps = Steps::new(&self.runtime);
        let mut open: HashMap<usize, Replaying> = HashMap::new();
        let mut next = 0;
        loop {
            while next < tasks.len() && steps.len() < self.max_together() && steps.rows() < 2 * self.n_batch() {
                let (receipt, prompt) = &tasks[next];
                match self.begin_replay(receipt, prompt.clone(), watch) {
                    Err(Error::Cancelled) => return Err(Error::Cancelled),
                    Err(error) => report(next, Err(error)),
                    Ok(mut replaying) => {
                        let step = replaying.stream.begin_step(self).expect("nothing is computed yet");
                        steps.add(next, step);
                        open.insert(next, replaying);
                    }
                }
                next += 1;
            }
            if steps.is_empty() {
                return Ok(());
            }
            for done in steps.wait(watch) {
                let key = done.key;
                let replaying = open.get_mut(&key).expect("its step was added");
                match replaying.advance(self, done) {
                    Err(Error::Cancelled) => return Err(Error::Cancelled),
                    Ok(Some(step)) => steps.add(key, step),
                    Ok(None) => {
                        let replaying = open.remove(&key).expect("it was just there");
                        report(key, replaying.end(self));
                    }
                    Err(error) => {
                        open.remove(&key);
                        report(key, Err(error));
                    }
                }
            }
        }
    }

    /// Checks what a receipt says of the model and the prompt, and starts to compute its answer.
    fn begin_replay<'a>(
        &self,
        receipt: &'a Receipt,
        prompt: Option<Vec<TokenId>>,
        watch: &mut Watch,
    ) -> Result<Replaying<'a>> {
        let claim = &receipt.claim;
        self.check_settings(claim, watch)?;
        self.check_model(receipt)?;
        let prompt = prompt.or(claim.prompt_ids.whole().cloned());
        let prompt =
            prompt.ok_or_else(|| gate_error("claim.prompt_ids", "the receipt is redacted; pass its prompt, too"))?;
        check_gate("claim.prompt_ids", claim.prompt_ids.matches(&prompt), || {
            "the given prompt is not the receipt's prompt".into()
        })?;
        let system_is_shown = self.check_template(claim, &prompt)?;
        // The last id is never computed.
        self.check_ids(&[], claim.prompt_ids.len().saturating_add(claim.output_ids.len()).saturating_sub(1))?;
        let mut params = claim.sampling.params();
        if let Some(grammar) = &claim.grammar {
            let invalid = |why| gate_error("claim.grammar.text", why);
            params = params.with_grammar(&grammar.source()?).map_err(invalid)?;
        }
        let mut request = Request {
            stop_ids: claim.sampling.stop_token_ids().to_vec(),
            n_ctx: Some(claim.n_ctx as usize),
            ..self.request(prompt.into(), params, watch)?
        };
        if let Some(after) = claim.grammar.as_ref().and_then(|grammar| grammar.after.as_deref()) {
            request.begin_form_after(after);
        }
        let mut stream = self.stream_from_nothing(request);
        if let Some(ids) = claim.output_ids.whole() {
            let known = ids.iter().copied().take_while(|id| (*id as usize) < self.n_vocab());
            stream.generation.expect(known.collect(), self.runtime.draft_rows());
        }
        Ok(Replaying { receipt, stream, system_is_shown })
    }

    /// Checks that this engine computes as the claim says.
    fn check_settings(&self, claim: &Claim, watch: &mut Watch) -> Result<()> {
        check_gate("claim.numerics", claim.numerics == NUMERICS, || {
            let theirs = claim.numerics;
            format!(
                "it is {theirs}, but this version has {NUMERICS}; replay the receipt with a version that has {theirs}"
            )
        })?;
        check_gate("claim.sampling", claim.sampling.unknown.is_empty(), || {
            let names = claim.sampling.unknown.join(", ");
            format!("this version does not know {names}; replay the receipt with the version that wrote it")
        })?;
        check_gate("claim.logits_processor", claim.logits_processor.is_none(), || {
            let name = claim.logits_processor.as_deref().unwrap_or_default();
            format!(
                "the function '{name}' changed the logits, and a receipt does not hold it; such answers cannot be replayed"
            )
        })?;
        let block = |block: Option<u64>| block.map_or("none".to_string(), |columns| columns.to_string());
        let tokenizer = self.tokenizer().map_or("none", |tokenizer| &tokenizer.fingerprint);
        for (name, theirs, own) in [
            ("claim.act_quant", &*claim.act_quant, self.act_quant().name()),
            ("claim.act_block", &block(claim.act_block), &block(self.runtime.model.act_block())),
            ("claim.ffn_act", &claim.ffn_act, self.config().activation.name()),
            ("claim.kv_type", &claim.kv_type, self.kv_type.name()),
            ("claim.lm_head", claim.lm_head.as_deref().unwrap_or("exact"), self.inexact_head().unwrap_or("exact")),
            ("claim.model", claim.model.get_watched(watch)?, self.fingerprint(watch)?),
            ("claim.tokenizer", claim.tokenizer.as_deref().unwrap_or("none"), tokenizer),
        ] {
            check_gate(name, theirs == own, || {
                format!("it is '{theirs}', but this engine has '{own}'; open an engine with what the receipt says")
            })?;
        }
        let table = self.config().rope_table(usize::try_from(claim.n_ctx).unwrap_or(usize::MAX));
        check_gate("claim.n_ctx", table == self.rope_table(), || {
            let (theirs, own) = (claim.n_ctx, self.n_ctx());
            format!(
                "it is {theirs}, but this engine has {own}, which takes other rotary frequencies of this model \
                 (LongRoPE); open an engine with what the receipt says"
            )
        })
    }

    /// Checks what the receipt tells of the model, whose hash is known to be right.
    fn check_model(&self, receipt: &Receipt) -> Result<()> {
        let (told, own) = (&receipt.model_info, &self.identity.model_info);
        check_gate("model_info.architecture", told.architecture == own.architecture, || {
            format!("it is '{}', but the model has '{}'", told.architecture, own.architecture)
        })?;
        let context = self.config().context as u64;
        for (name, told, own) in [
            ("model_info.bytes", told.bytes, own.bytes),
            ("model_info.layers", told.layers, own.layers),
            ("model_info.hidden_size", told.hidden_size, own.hidden_size),
            ("model_info.num_attention_heads", told.num_attention_heads, own.num_attention_heads),
            ("model_info.num_key_value_heads", told.num_key_value_heads, own.num_key_value_heads),
            ("model_info.vocab_size", told.vocab_size, own.vocab_size),
            // A context may be shorter than the model's.
            ("claim.n_ctx", receipt.claim.n_ctx.max(context), context),
        ] {
            check_gate(name, told == own, || format!("it is {told}, but the model has {own}"))?;
        }
        Ok(())
    }

    /// Checks template and system prompt against the prompt's ids, as far as the template is known: the model's own, or
    /// a built-in one. Returns whether the prompt begins as the template begins it with this system prompt.
    ///
    /// The messages and the template's variables are not in the receipt, so the prompt itself can't be rendered again.
    fn check_template(&self, claim: &Claim, prompt: &[TokenId]) -> Result<bool> {
        let (Some(claimed), Ok(own), Ok(tokenizer)) = (&claim.template, self.template(), self.tokenizer()) else {
            return Ok(false);
        };
        let tool_use = own.tool_use.as_deref().cloned();
        let mut known = own.siblings().chain([(*own).clone()]).chain(tool_use);
        let Some(template) = known.find(|template| claimed.is_of(&template.source)) else { return Ok(false) };
        check_gate("claim.template.name", claimed.name == template.name(), || {
            format!("it is '{}', but the template with this hash is '{}'", claimed.name, template.name())
        })?;
        let Some(system) = claim.system.as_ref().and_then(|system| system.whole()) else { return Ok(false) };
        let Some(head) = head(&template, system) else { return Ok(false) };
        // Some tokenizers change text. Only what they leave as it is can be compared.
        if tokenizer.decode(&tokenizer.encode_with_bos(&head, false, true), false) != head {
            return Ok(false);
        }
        let text = tokenizer.decode(prompt, false);
        check_gate("claim.system", text.contains(system.trim()), || {
            "the template puts the system prompt into the prompt, but the prompt does not contain it".into()
        })?;
        let bos = tokenizer.bos_text().unwrap_or_default();
        let [text, head] = [&text, &head].map(|text| text.strip_prefix(bos).unwrap_or(text));
        let begins = text.starts_with(head);
        // A built-in template always begins a prompt in this way, unless it names tokens that the caller may have
        // chosen. The prompt of a system prompt that the model continues ends before.
        let is_fixed = own.siblings().any(|built_in| built_in.source == template.source)
            && !["bos_token", "eos_token"].iter().any(|variable| template.source.contains(variable));
        check_gate("claim.system", begins || head.starts_with(text) || !is_fixed, || {
            "the prompt does not begin as the template begins it with this system prompt".into()
        })?;
        Ok(begins)
    }
}

/// How a template begins every prompt with this system prompt, up to where the messages after it differ. None if that
/// doesn't contain the system prompt and something after it.
fn head(template: &Template, system: &str) -> Option<String> {
    // A template may refuse some of these conversations.
    let render = |[role, content]: [&str; 2]| {
        let messages = json!([{"role": "system", "content": system}, {"role": role, "content": content}]);
        template.render(&messages, None, true, &Map::new()).ok()
    };
    let first = render(["user", "Question"])?;
    let others = [["user", "1, 2"], ["assistant", "Answer"], ["system", "Another"], ["tool", "3"]];
    let end = others.into_iter().filter_map(render).map(|other| common_prefix(&first, &other)).min()?;
    let (head, system) = (&first[..end], system.trim());
    let after = head.find(system).filter(|_| !system.is_empty())? + system.len();
    (after < head.len()).then(|| head.to_string())
}

/// The length in bytes of the longest common prefix.
fn common_prefix(one: &str, other: &str) -> usize {
    let differ = one.char_indices().zip(other.chars()).find(|((_, a), b)| a != b);
    differ.map_or(one.len().min(other.len()), |((at, _), _)| at)
}

impl Replaying<'_> {
    /// Takes the ids of a step. Returns the next step, if the answer goes on.
    fn advance(&mut self, engine: &Engine, done: Done) -> Result<Option<Step>> {
        self.stream.end_step(engine, done)?;
        while !self.is_complete() && self.stream.take_piece(engine).is_some() {}
        Ok(if self.is_complete() { None } else { self.stream.begin_step(engine) })
    }

    /// Whether the answer has all its ids, or has ended before.
    fn is_complete(&self) -> bool {
        let Generation { finish, .. } = &self.stream.generation;
        finish.is_some() || self.stream.generation.generated().len() >= self.receipt.claim.output_ids.len()
    }

    /// Compares the answer with the receipt's.
    fn end(self, engine: &Engine) -> Result<Replay> {
        let (claim, generation) = (&self.receipt.claim, &self.stream.generation);
        engine.runtime.forget(generation);
        let ids = generation.generated().to_vec();
        // An answer that could go on was cancelled.
        let end = generation.finish.unwrap_or(Finish::Cancelled).name();
        let stop_strings_are_hidden = claim.sampling.stop.whole().is_none() && claim.sampling.stop.len() > 0;
        let ends_alike = claim.finish_reason == end;
        let may_stop = claim.finish_reason == Finish::Stop.name() && stop_strings_are_hidden;
        let same = claim.output_ids.matches(&ids) && (ends_alike || may_stop);
        // A difference is no proof of forgery if another version might have read the grammar differently.
        let read_by = claim.grammar.as_ref().map_or(grammar::ENGINE, |grammar| &grammar.engine);
        check_gate("claim.grammar.engine", same || read_by == grammar::ENGINE, || {
            let own = grammar::ENGINE;
            format!(
                "the answer differs, but {read_by} read its grammar and here it is {own}, which may read it otherwise"
            )
        })?;
        Ok(Replay { same, ids, told: told(claim, self.system_is_shown) })
    }
}

/// The fields of a replayed receipt that are told, not proven. `docs/receipts.md` says of each what that means.
fn told(claim: &Claim, system_is_shown: bool) -> Vec<&'static str> {
    // Templates trim a system prompt, so that the space around it does not show.
    let system_is_exact = claim.system.as_ref().and_then(Redactable::whole).is_some_and(|text| text.trim() == text);
    let was_cancelled = claim.finish_reason == Finish::Cancelled.name();
    let settled = [
        ("claim.system", system_is_shown && system_is_exact),
        ("claim.output_ids", !was_cancelled),
        ("claim.grammar", claim.grammar.is_none()),
    ];
    [
        "claim.previous",
        "claim.template",
        "claim.system",
        "claim.n_ctx",
        "claim.sampling",
        "claim.grammar",
        "claim.output_ids",
        "claim.finish_reason",
        "run",
        "timestamp",
        "environment",
        "model_info.file",
        "test_results",
    ]
    .into_iter()
    .filter(|field| !settled.contains(&(field, true)))
    .collect()
}
