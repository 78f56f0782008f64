//! A conversation: its turns, its sequence of keys and values, its receipts.

mod stream;

pub use stream::ChatStream;

use crate::decode::{Finish, Sequence};
use crate::engine::{Engine, PromptOrigin, Request, Stream};
use crate::error::{Error, Result};
use crate::receipt::{Receipt, TemplateClaim};
use crate::sampler::SamplingParams;
use crate::template::{ChatTurn, Conversation, Role, Template};
use std::sync::Arc;
use std::time::Instant;

/// The conversation so far. An engine may have any number of them. A clone, made while none is under way, goes on from
/// there; both share what is computed until they diverge.
#[derive(Clone)]
pub struct ChatSession {
    /// What formats the prompts.
    pub template: Arc<Template>,
    /// The system prompt, which is no turn.
    pub system: Option<String>,
    /// All turns, those that left the context included.
    pub turns: Vec<ChatTurn>,
    /// How many turns at the beginning have left the context.
    pub evicted_turns: usize,
    /// The receipts of the answers.
    pub receipts: Vec<Arc<Receipt>>,
    /// Its sequence, unless it has none yet or a stream has it.
    pub sequence: Option<Sequence>,
    /// Whether a stream has the sequence.
    answering: bool,
}

impl ChatSession {
    /// A conversation that has not begun.
    pub fn new(template: Arc<Template>, system: Option<String>) -> ChatSession {
        ChatSession {
            template,
            system,
            turns: Vec::new(),
            evicted_turns: 0,
            receipts: Vec::new(),
            sequence: None,
            answering: false,
        }
    }

    /// An error while an answer is under way.
    pub fn check_idle(&self) -> Result<()> {
        let busy = "an answer is under way in this conversation; read its stream to the end, or cancel it";
        if self.answering { Err(Error::Argument(busy.into())) } else { Ok(()) }
    }

    /// Forgets turns, receipts and the sequence; system prompt and template stay.
    pub fn clear(&mut self) -> Result<()> {
        self.check_idle()?;
        *self = ChatSession::new(self.template.clone(), self.system.take());
        Ok(())
    }

    /// Forgets the last `n` exchanges with their receipts. What left the context stays out, unless nothing would be in.
    pub fn rewind(&mut self, n: usize) -> Result<()> {
        self.check_idle()?;
        let held = self.turns.len() / 2;
        if n > held {
            return Err(Error::Argument(format!("{n} exchanges cannot be taken back, the conversation has {held}")));
        }
        self.turns.truncate(2 * (held - n));
        // A conversation that was loaded has none for its first exchanges.
        self.receipts.truncate(self.receipts.len().saturating_sub(n));
        if self.evicted_turns >= self.turns.len() {
            self.evicted_turns = 0;
        }
        Ok(())
    }

    /// Begins to answer what the user says. Nothing is computed yet, and nothing enters the history before [`Self::end`].
    fn begin(&mut self, engine: &Engine, user: &str, params: SamplingParams) -> Result<Stream> {
        self.check_idle()?;
        let request = self.request(engine, user, params)?;
        self.answering = true;
        Ok(engine.stream_on(&mut self.sequence, request))
    }

    /// The conversation as a request. If the context is full, whole exchanges leave it, the oldest first, down to three
    /// quarters at once, so that the prefix of the prompts to come is reused again.
    fn request(&mut self, engine: &Engine, user: &str, mut params: SamplingParams) -> Result<Request> {
        let mut evicted_turns = self.evicted_turns;
        let mut turns = self.turns[evicted_turns..].to_vec();
        turns.push(ChatTurn::new(Role::User, user));
        let n_ctx = engine.runtime().n_ctx;
        let room = params.max_tokens.unwrap_or(n_ctx).min(n_ctx / 8);
        let (mut ids, mut origin) = self.encode(engine, &turns)?;
        if ids.len() + room > n_ctx {
            while ids.len() > n_ctx / 4 * 3 && turns.len() > 1 {
                turns.drain(..2);
                (ids, origin) = self.encode(engine, &turns)?;
            }
            evicted_turns = self.turns.len() + 1 - turns.len();
        }
        if !params.ignore_eos {
            let tokenizer = engine.tokenizer()?;
            for stop in self.template.stop_sequences() {
                match tokenizer.id_of(&stop).filter(|id| tokenizer.is_control(*id)) {
                    Some(id) => params.stop_token_ids.push(id),
                    None => params.stop.push(stop),
                }
            }
        }
        let ids: Vec<i64> = ids.into_iter().map(i64::from).collect();
        let request = Request { origin, ..engine.request(&ids, params)? };
        self.evicted_turns = evicted_turns; // an error leaves everything as it was
        Ok(request)
    }

    /// A conversation as ids, and where they come from.
    fn encode(&self, engine: &Engine, turns: &[ChatTurn]) -> Result<(Vec<u32>, PromptOrigin)> {
        let tokenizer = engine.tokenizer()?; // built since the engine was opened: no part of the answer's time
        let start = Instant::now();
        let template = &self.template;
        let conversation = Conversation::from_turns(turns, self.system.as_deref());
        let controls: Vec<&str> = tokenizer.control_texts().collect();
        let prompt = template.prompt(&conversation, &controls)?;
        let render = start.elapsed();
        let ids = tokenizer.encode_prompt(&prompt);
        let origin = PromptOrigin {
            render,
            tokenize: start.elapsed() - render,
            template: Some(TemplateClaim::new(template.name(), template.origin.name(), &template.source)),
            system: self.system.clone(),
            previous: self.receipts.last().cloned(),
        };
        Ok((ids, origin))
    }

    /// Takes the sequence back from a stream that has ended, with what it answered.
    ///
    /// An exchange enters the history when its answer has ended, or was cancelled after its first id.
    fn end(&mut self, user: String, stream: &mut Stream) {
        self.answering = false;
        self.sequence = stream.take_decoder();
        let Some(receipt) = &stream.receipt else { return };
        let cancelled = stream.answer.finish == Some(Finish::Cancelled);
        self.turns.push(ChatTurn::new(Role::User, user));
        self.turns.push(ChatTurn { cancelled, ..ChatTurn::new(Role::Assistant, &stream.text) });
        self.receipts.push(receipt.clone());
    }
}
