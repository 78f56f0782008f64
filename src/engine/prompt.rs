//! Prompts: a text or ids, checked, with the parameters of the answer.

use super::{Engine, Watch};
use crate::decode::ChangeLogits;
use crate::error::{Error, Result};
use crate::grammar::Constraint;
use crate::machine::clock::Instant;
use crate::receipt::{Receipt, TemplateClaim};
use crate::sampler::SamplingParams;
use crate::template::{CallReader, ThoughtState, thoughts};
use crate::token::TokenId;
use std::sync::Arc;
use std::time::Duration;

/// A prompt as callers give it.
#[derive(Clone, Debug, PartialEq)]
pub enum TextOrIds {
    /// A text, encoded without control tokens and with BOS in front where the model expects it.
    Text(String),
    /// Token ids, used as they are.
    Ids(Vec<TokenId>),
}

impl From<&str> for TextOrIds {
    fn from(text: &str) -> TextOrIds {
        TextOrIds::Text(text.into())
    }
}

impl From<Vec<TokenId>> for TextOrIds {
    fn from(ids: Vec<TokenId>) -> TextOrIds {
        TextOrIds::Ids(ids)
    }
}

/// A checked prompt with everything that decides how it is answered.
pub struct Request {
    /// The prompt's ids, at least one.
    pub prompt: Vec<TokenId>,
    /// The positions at which the answer ends, if not those of the engine's context.
    pub n_ctx: Option<usize>,
    /// How ids are sampled.
    pub params: SamplingParams,
    /// All ids that end the answer: the model's own, unless they are ignored, and those of the parameters.
    pub stop_ids: Vec<TokenId>,
    /// How the prompt was made.
    pub origin: PromptOrigin,
    /// The form that the answer has to have.
    pub constraint: Option<Constraint>,
    /// Changes the logits before an id is chosen.
    pub processor: Option<LogitsProcessor>,
}

/// A function of the caller that changes the logits before an id is chosen. It runs on the caller's thread.
pub struct LogitsProcessor {
    /// Its name, for the receipt.
    pub name: String,
    /// Changes the logits of one step; an error ends the answer.
    pub run: Box<ChangeLogits>,
}

/// How a prompt was made, for the receipt and for reading the answer. The default is that of a prompt given as ids.
#[derive(Default)]
pub struct PromptOrigin {
    /// Time spent on rendering the template.
    pub render: Duration,
    /// Time spent on encoding the text.
    pub tokenize: Duration,
    /// The template, if there was one.
    pub template: Option<TemplateClaim>,
    /// The system prompt of the conversation.
    pub system: Option<String>,
    /// The receipt of the previous answer in the conversation.
    pub previous: Option<Arc<Receipt>>,
    /// How far thoughts are at its end, if the template knows thoughts. They are then kept apart from the answer.
    pub thoughts: Option<ThoughtState>,
    /// Finds the calls in the answer, if it may have any. They are then kept apart from the answer.
    pub calls: Option<CallReader>,
}

impl Request {
    /// The same for a prompt that was made in this way. Where it has begun the thoughts of the answer, a grammar begins
    /// when they end.
    pub fn with_origin(mut self, origin: PromptOrigin) -> Request {
        if origin.thoughts == Some(ThoughtState::Begun) {
            self.begin_form_after(thoughts::END);
        }
        self.origin = origin;
        self
    }

    /// Lets the grammar of the answer begin after this text.
    pub(super) fn begin_form_after(&mut self, mark: &str) {
        self.constraint = self.constraint.take().map(|constraint| constraint.begin_after(mark));
    }
}

impl Engine {
    /// Checks that ids from `position` on fit the context and are in the vocabulary.
    pub fn check_ids(&self, ids: &[TokenId], position: usize) -> Result<()> {
        self.runtime.check_ids(ids, position)
    }

    /// Where a recurrent state of a prompt is worth keeping, since other prompts go on differently from there: before the
    /// second message, which follows the system prompt, and before the last three, the answer among them. Messages begin
    /// with the control token with which the answer begins: the last one of the prompt.
    pub(super) fn message_starts(&self, prompt: &[TokenId]) -> Vec<usize> {
        if self.config().delta_nets.is_none() {
            return Vec::new();
        }
        let Ok(tokenizer) = self.tokenizer() else { return Vec::new() };
        let Some(start) = prompt.iter().rfind(|id| tokenizer.is_control(**id)) else { return Vec::new() };
        let all: Vec<usize> = (1..prompt.len()).filter(|at| prompt[*at] == *start).collect();
        let last = all.iter().rev().take(3);
        all.iter().take(1).chain(last).copied().collect()
    }

    /// The ids of a prompt, unchecked if they were given as ids.
    pub fn ids_of(&self, prompt: TextOrIds, watch: &mut Watch) -> Result<Vec<TokenId>> {
        match prompt {
            TextOrIds::Ids(ids) => Ok(ids),
            TextOrIds::Text(text) => {
                let tokenizer = self.tokenizer()?;
                tokenizer.encode_watched(&text, tokenizer.add_bos, false, watch)
            }
        }
    }

    /// The ids of a text to embed: as [`Engine::ids_of`], with the token behind a text that the file asks for.
    pub fn ids_to_embed(&self, text: TextOrIds, watch: &mut Watch) -> Result<Vec<TokenId>> {
        let suffix = if matches!(text, TextOrIds::Text(_)) { self.tokenizer()?.suffix } else { None };
        let mut ids = self.ids_of(text, watch)?;
        ids.extend(suffix);
        Ok(ids)
    }

    /// Follows an answer of the form that the parameters ask for, id by id. For the beginning and after each id: how many
    /// tokens are allowed, and how long it took to find them. Ends before the first id that is not allowed.
    pub fn follow_form(&self, ids: &[TokenId], params: &SamplingParams) -> Result<Vec<(usize, Duration)>> {
        let source = params.grammar_source().ok_or_else(|| Error::Argument("there is no form to follow".into()))?;
        let mut constraint = self.grammars()?.start(&source, Vec::new())?;
        let mut found = Vec::new();
        let mut next = ids.iter();
        loop {
            let start = Instant::now();
            let Ok(Some(allowed)) = constraint.allowed() else { break };
            let looked = start.elapsed();
            let Some(id) = next.next().filter(|id| allowed.contains(**id)) else {
                found.push((allowed.len(), looked));
                break;
            };
            let start = Instant::now();
            constraint.accept(*id)?;
            found.push((allowed.len(), looked + start.elapsed()));
        }
        Ok(found)
    }

    /// Checks a prompt and the parameters of its answer.
    pub fn request(&self, prompt: TextOrIds, params: SamplingParams, watch: &mut Watch) -> Result<Request> {
        let (prompt, tokenize) = match prompt {
            TextOrIds::Ids(ids) => (ids, Duration::ZERO),
            text => {
                self.tokenizer()?; // may wait for the thread that builds it, which is not this prompt's time
                let start = Instant::now();
                (self.ids_of(text, watch)?, start.elapsed())
            }
        };
        self.check_ids(&prompt, 0)?;
        if prompt.is_empty() {
            return Err(Error::Argument("the prompt is empty; give at least one token id".into()));
        }
        params.validate()?;
        let mut stop_ids = params.stop_token_ids.clone();
        if let Ok(tokenizer) = self.tokenizer() {
            stop_ids.extend(tokenizer.stop.iter().filter(|_| !params.ignore_eos));
            // Such a token has no text in the answer, so that its text alone would never be seen.
            stop_ids.extend(params.stop.iter().flat_map(|stop| tokenizer.control_ids(stop)));
        }
        stop_ids.sort_unstable();
        stop_ids.dedup();
        let source = params.grammar_source();
        let start = |source| self.grammars()?.start(&source, stop_ids.clone());
        let constraint = source.map(start).transpose()?;
        let origin = PromptOrigin { tokenize, ..PromptOrigin::default() };
        Ok(Request { prompt, n_ctx: None, params, stop_ids, origin, constraint, processor: None })
    }
}
