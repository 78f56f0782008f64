//! Conversations: turns, the cached sequence, receipts; saved sessions.

mod metrics;
mod request;
mod saved;
mod shared_stream;
mod stream;
mod together;

pub use metrics::SessionMetrics;
pub use request::{encode, request};
pub use shared_stream::{Progress, SharedStream};
pub use stream::{ChatStream, UserTurn};
pub use together::Together;

use crate::decode::Sequence;
use crate::engine::{Engine, Finish, PromptOrigin, Request, Stream, Watch};
use crate::error::{Error, Result};
use crate::receipt::Receipt;
use crate::sampler::SamplingParams;
use crate::template::{ChatTurn, Conversation, Role, Template};
use crate::token::TokenId;
use std::sync::Arc;

/// A conversation of more bytes for each position of the context is assumed not to fit, and looked at from its end.
const PROBABLE_BYTES: usize = 16;

/// A conversation. An engine may have any number of them. A clone continues on its own; clones share their keys and
/// values until they diverge.
#[derive(Clone)]
pub struct ChatSession {
    /// The template that renders the prompts.
    pub template: Arc<Template>,
    /// The system prompt, which is not one of the turns.
    pub system: Option<String>,
    /// Whether answers begin with thoughts: the template's variable `enable_thinking`. `None`: the template decides.
    pub enable_thinking: Option<bool>,
    /// All turns, including those that have left the context.
    pub turns: Vec<ChatTurn>,
    /// How many of the oldest turns have left the context.
    pub evicted_turns: usize,
    /// The receipts of the answers, oldest first. A loaded conversation has none for its earlier answers.
    pub receipts: Vec<Arc<Receipt>>,
    /// Its keys and values. Absent before the first answer, and while a stream uses them.
    pub sequence: Option<Sequence>,
    /// Whether a stream uses the sequence.
    answering: bool,
}

impl ChatSession {
    /// A conversation without turns.
    pub fn new(template: Arc<Template>, system: Option<String>) -> ChatSession {
        ChatSession {
            template,
            system,
            enable_thinking: None,
            turns: Vec::new(),
            evicted_turns: 0,
            receipts: Vec::new(),
            sequence: None,
            answering: false,
        }
    }

    /// Fails while an answer is under way.
    pub fn check_idle(&self) -> Result<()> {
        let busy = "an answer is under way in this conversation; read its stream to the end, or cancel it";
        if self.answering { Err(Error::Argument(busy.into())) } else { Ok(()) }
    }

    /// Removes turns, receipts and the sequence. Everything that was set stays.
    pub fn clear(&mut self) -> Result<()> {
        self.check_idle()?;
        let enable_thinking = self.enable_thinking;
        *self = ChatSession { enable_thinking, ..ChatSession::new(self.template.clone(), self.system.take()) };
        Ok(())
    }

    /// Removes the last `n` exchanges with their receipts. Turns that have left the context stay out of it, unless no
    /// other turns remain.
    pub fn rewind(&mut self, n: usize) -> Result<()> {
        self.check_idle()?;
        let held = self.turns.len() / 2;
        if n > held {
            return Err(Error::Argument(format!("cannot take back {n} exchanges, the conversation has {held}")));
        }
        self.turns.truncate(2 * (held - n));
        // A loaded conversation has no receipts for its earlier exchanges.
        self.receipts.truncate(self.receipts.len().saturating_sub(n));
        if self.evicted_turns >= self.turns.len() {
            self.evicted_turns = 0;
        }
        Ok(())
    }

    /// Starts to answer the user. Computes nothing yet; the exchange enters the history in [`Self::end`].
    fn begin(
        &mut self,
        engine: &Engine,
        user: &mut UserTurn,
        params: SamplingParams,
        watch: &mut Watch,
    ) -> Result<Stream> {
        self.check_idle()?;
        let mut request = self.request(engine, user, params, watch)?;
        request.processor = user.processor.take();
        self.answering = true;
        Ok(engine.stream_on(&mut self.sequence, request))
    }

    /// The conversation with the user's new text, as a request. If the context is full, the oldest exchanges leave it
    /// until the prompt fills three quarters of it: one eviction, after which the cached prefix stays valid for many
    /// turns.
    fn request(
        &mut self,
        engine: &Engine,
        user: &UserTurn,
        mut params: SamplingParams,
        watch: &mut Watch,
    ) -> Result<Request> {
        let mut turns = self.turns[self.evicted_turns..].to_vec();
        turns.push(ChatTurn::new(Role::User, &*user.text));
        let enable_thinking = user.enable_thinking.or(self.enable_thinking);
        let reserve = params.max_tokens.unwrap_or(usize::MAX).min(engine.n_ctx() / 8);
        let (kept, ids, origin) = self.encode_fitting(engine, &turns, enable_thinking, reserve, watch)?;
        request::add_stops(engine, &self.template, &mut params)?;
        let request = engine.request(ids.into(), params, watch)?.with_origin(origin);
        self.evicted_turns = self.turns.len() + 1 - kept; // only now, so that an error changes nothing
        Ok(request)
    }

    /// The prompt of all turns if it leaves room for `reserve` ids, or else of the newest ones; with their number. No
    /// turns are rendered that cannot fit, however long the conversation is.
    fn encode_fitting(
        &self,
        engine: &Engine,
        turns: &[ChatTurn],
        enable_thinking: Option<bool>,
        reserve: usize,
        watch: &mut Watch,
    ) -> Result<(usize, Vec<TokenId>, PromptOrigin)> {
        let (all, n_ctx) = (turns.len(), engine.n_ctx());
        let mut encode = |kept: usize| self.encode(engine, &turns[all - kept..], enable_thinking, watch);
        if turns.iter().map(|turn| turn.text.len()).sum::<usize>() <= n_ctx * PROBABLE_BYTES {
            let (ids, origin) = encode(all)?;
            if ids.len() + reserve <= n_ctx {
                return Ok((all, ids, origin));
            }
        }
        // The newest turn stays even if it is too long. A prompt grows with its turns: so doubling, and then halving
        // what is left, finds the most exchanges that fit. The number of turns is always odd.
        let (mut best, mut too_many) = ((1, encode(1)?), None);
        loop {
            let next = match too_many {
                None => (2 * best.0 + 1).min(all),
                Some(above) => best.0 + (above - best.0) / 4 * 2,
            };
            if next == best.0 {
                break;
            }
            let prompt = encode(next)?;
            if prompt.0.len() <= n_ctx / 4 * 3 || next == all && prompt.0.len() + reserve <= n_ctx {
                best = (next, prompt);
            } else {
                too_many = Some(next);
            }
        }
        let (kept, (ids, origin)) = best;
        Ok((kept, ids, origin))
    }

    /// The prompt of these turns as ids, and how it was made.
    fn encode(
        &self,
        engine: &Engine,
        turns: &[ChatTurn],
        enable_thinking: Option<bool>,
        watch: &mut Watch,
    ) -> Result<(Vec<TokenId>, PromptOrigin)> {
        let mut conversation = Conversation::from_turns(turns, self.system.as_deref());
        self.template.set_thinking(&mut conversation, enable_thinking)?;
        let (ids, origin) = request::prompt(engine, &self.template, &conversation, watch)?;
        Ok((ids, PromptOrigin { previous: self.receipts.last().cloned(), ..origin }))
    }

    /// Takes the sequence back from a stream that has ended, and adds the exchange to the history. An answer that was
    /// cancelled before its first id leaves no trace.
    fn end(&mut self, user: String, stream: &mut Stream) {
        self.answering = false;
        self.sequence = stream.take_sequence();
        let Some(receipt) = &stream.receipt else { return };
        let cancelled = stream.generation.finish == Some(Finish::Cancelled);
        self.turns.push(ChatTurn::new(Role::User, user));
        let reasoning = Some(&stream.reasoning).filter(|thoughts| !thoughts.is_empty()).cloned();
        self.turns.push(ChatTurn { reasoning, cancelled, ..ChatTurn::new(Role::Assistant, &stream.text) });
        self.receipts.push(receipt.clone());
    }
}
