//! An answer as text, pulled piece by piece. Nothing is computed before it is asked for.

use super::stop_strings::StopStrings;
use super::thoughts::ThoughtSplitter;
use super::tool_calls::{CallSplitter, ToolCall, call_id};
use super::{Engine, Finish, LogitsProcessor, PromptOrigin, Request, Watch};
use crate::decode::{Done, Generation, Sequence, Step, Task, Token};
use crate::error::Result;
use crate::kernel::attention::PAGE_LEN;
use crate::machine::clock::Instant;
use crate::receipt::Receipt;
use crate::token::TokenId;
use crate::tokenizer::{Detokenizer, Tokenizer};
use std::sync::Arc;
use std::time::Duration;

/// A piece of an answer.
pub struct Piece {
    /// Characters of the answer that are now certain. May be empty; all pieces joined are the answer's text.
    pub text: String,
    /// Characters of the thoughts before the answer.
    pub reasoning: String,
    /// Calls of tools that are now complete. Their text is not in `text`.
    pub calls: Vec<ToolCall>,
    /// The token id. None in the last piece if a stop id ended the answer.
    pub id: Option<TokenId>,
    /// If asked for: the token's log-probability, and the most likely ids with theirs.
    pub logprobs: Option<(f64, Vec<(TokenId, f64)>)>,
    /// Why the answer ends with this piece, if it does.
    pub finish: Option<Finish>,
}

/// An answer under way.
pub struct Stream {
    /// Absent once the answer has ended and the sequence has gone back to its owner.
    sequence: Option<Sequence>,
    /// Whether the sequence goes to the prefix cache at the end; else its owner takes it back.
    is_owned: bool,
    /// Whether the prefix cache is used.
    uses_cache: bool,
    /// The ids and times of the answer so far.
    pub generation: Generation,
    detokenizer: Detokenizer,
    stop_strings: StopStrings,
    thoughts: ThoughtSplitter,
    processor: Option<LogitsProcessor>,
    call_splitter: CallSplitter,
    /// The text so far, without thoughts and calls.
    pub text: String,
    /// The thoughts so far.
    pub reasoning: String,
    /// The calls so far.
    pub calls: Vec<ToolCall>,
    pub(super) origin: PromptOrigin,
    pub(super) clock: Clock,
    /// When the pull under way began.
    entered: Option<Instant>,
    /// When the last pull returned.
    left: Instant,
    /// The receipt, once the answer has ended. None if it ended before its first id.
    pub receipt: Option<Arc<Receipt>>,
}

/// Times of a stream that neither its generation nor its prompt measures.
#[derive(Default)]
pub(super) struct Clock {
    /// From the start of the prompt to the first id.
    pub(super) first_token: Duration,
    /// Turning ids into text, and looking for stop strings.
    pub(super) detokenize: Duration,
    /// Everything inside the engine.
    pub(super) wall: Duration,
    /// What the consumer spent between pulls.
    pub(super) consumer: Duration,
}

impl Engine {
    /// Starts to answer from the prefix that the prefix cache holds. Computes nothing yet.
    pub fn stream(&self, request: Request) -> Stream {
        self.begin_stream(None, true, true, request)
    }

    /// Starts to answer on the caller's sequence, if it holds as much of the prompt as the prefix cache does.
    /// [`Stream::take_sequence`] gives it back.
    pub fn stream_on(&self, sequence: &mut Option<Sequence>, request: Request) -> Stream {
        self.begin_stream(sequence.take(), false, true, request)
    }

    /// Starts to answer from nothing, and leaves the prefix cache as it is.
    pub(super) fn stream_from_nothing(&self, request: Request) -> Stream {
        self.begin_stream(None, false, false, request)
    }

    fn begin_stream(&self, own: Option<Sequence>, is_owned: bool, uses_cache: bool, mut request: Request) -> Stream {
        let seed = request.params.seed.unwrap_or_else(random_seed);
        let controls = self.tokenizer().ok().into_iter().flat_map(Tokenizer::control_texts);
        let stop_strings = StopStrings::new(request.params.stop.clone(), controls);
        let thoughts = ThoughtSplitter::new(request.origin.thoughts);
        let call_splitter = CallSplitter::new(request.origin.calls.take());
        let wall = request.origin.render + request.origin.tokenize;
        let (origin, processor) = (std::mem::take(&mut request.origin), request.processor.take());
        let (sequence, generation) = self.begin(own, uses_cache, seed, processor.is_some(), request);
        Stream {
            sequence: Some(sequence),
            is_owned,
            uses_cache,
            generation,
            detokenizer: Detokenizer::new(false, true),
            stop_strings,
            thoughts,
            processor,
            call_splitter,
            text: String::new(),
            reasoning: String::new(),
            calls: Vec::new(),
            origin,
            clock: Clock { wall, ..Clock::default() },
            entered: None,
            left: Instant::now(),
            receipt: None,
        }
    }
}

impl Stream {
    /// The next piece; None once the answer has ended. After an error it can be called again.
    pub fn next(&mut self, engine: &Engine, watch: &mut Watch) -> Result<Option<Piece>> {
        if let Some(step) = self.begin_step(engine) {
            self.end_step(engine, engine.runtime.run(step, watch))?;
        }
        Ok(self.take_piece(engine))
    }

    /// The step that computes the next piece, unless there is one already or the answer has ended. The stream is of no
    /// use before [`Stream::end_step`] has taken the step back.
    pub fn begin_step(&mut self, engine: &Engine) -> Option<Step> {
        self.enter();
        let sequence = self.sequence.take_if(|_| self.generation.needs_step())?;
        Some(Step::token(sequence, std::mem::take(&mut self.generation), engine.runtime.guessing()))
    }

    /// Takes a step back.
    pub fn end_step(&mut self, engine: &Engine, done: Done) -> Result<()> {
        let Task::Token(generation) = done.step.task else { unreachable!("the task of `begin_step`") };
        (self.sequence, self.generation) = (Some(done.step.sequence), *generation);
        done.result.inspect_err(|_| self.leave())?;
        let Some(processor) = &mut self.processor else { return Ok(()) };
        // A function that fails once ends the answer: nobody can tell what it would do when it is asked again.
        self.generation.choose_held(&mut *processor.run).inspect_err(|_| self.cancel(engine))
    }

    /// The name of the function that changes the logits, if there is one.
    pub(super) fn processor_name(&self) -> Option<&str> {
        self.processor.as_ref().map(|processor| &*processor.name)
    }

    /// Whether its step has not been taken back.
    pub fn is_computing(&self) -> bool {
        self.generation.prompt().is_empty()
    }

    /// The next piece, if its step was computed; None once the answer has ended.
    pub fn take_piece(&mut self, engine: &Engine) -> Option<Piece> {
        self.enter();
        let piece = self.generation.take().map(|token| self.piece(engine, token));
        self.leave();
        if self.generation.generated().len() == 1 {
            self.clock.first_token = self.clock.wall;
            self.keep_prompt(engine);
        }
        if piece.as_ref().is_some_and(|piece| piece.finish.is_some()) {
            self.close(engine);
        }
        piece
    }

    /// Counts the time from now on as the engine's.
    fn enter(&mut self) {
        if self.entered.is_none() {
            let now = Instant::now();
            self.clock.consumer += now - self.left;
            self.entered = Some(now);
        }
    }

    /// Counts the time from now on as the consumer's.
    fn leave(&mut self) {
        self.left = Instant::now();
        self.clock.wall += self.entered.take().map_or(Duration::ZERO, |entered| self.left - entered);
    }

    /// Keeps the prompt for others, while the answer goes on.
    fn keep_prompt(&self, engine: &Engine) {
        let is_new = self.generation.prompt().len() >= self.generation.cached_tokens + PAGE_LEN;
        if let Some(sequence) = self.sequence.as_ref().filter(|_| self.uses_cache && is_new) {
            engine.keep_pages(sequence);
        }
    }

    fn piece(&mut self, engine: &Engine, token: Token) -> Piece {
        let start = Instant::now();
        let stopped = !token.is_text;
        let mut text = String::new();
        let mut control = None;
        if let (false, Ok(tokenizer)) = (stopped, engine.tokenizer()) {
            text = self.detokenizer.push(tokenizer, token.id);
            control = tokenizer.text_of(token.id).filter(|_| tokenizer.is_control(token.id));
        }
        if token.finish.is_some() {
            text += &self.detokenizer.flush();
        }
        let (mut shown, ended) = match control {
            Some(control) if text.is_empty() => self.stop_strings.push_control(control),
            _ => self.stop_strings.push(&text),
        };
        if ended {
            // Also where the same id reached max_tokens or the context's end.
            self.generation.finish = Some(Finish::Stop);
        } else if token.finish.is_some() {
            shown += &self.stop_strings.flush();
        }
        // A mark of thoughts or calls counts, though as a control token it has no text. Stop strings do not see it: a
        // replay, which knows nothing of thoughts and calls, must end where this answer does.
        let is_mark = |control: &&str| self.thoughts.reads(control) || self.call_splitter.reads(control);
        shown += control.filter(is_mark).unwrap_or_default();
        let (text, reasoning, calls) = self.split(&shown, self.generation.finish.is_some());
        self.clock.detokenize += start.elapsed();
        let (finish, id) = (self.generation.finish, (!stopped).then_some(token.id));
        Piece { text, reasoning, calls, id, logprobs: token.logprobs, finish }
    }

    /// Takes text apart, and adds it to what there is so far. `last`: no more text follows. Returns the new text of the
    /// answer, that of the thoughts, and the new calls.
    fn split(&mut self, shown: &str, last: bool) -> (String, String, Vec<ToolCall>) {
        let mut split = self.thoughts.push(shown, last);
        if split.all_thought {
            self.text += &self.call_splitter.take_held();
        }
        let found = self.call_splitter.push(&split.text, last);
        split.text = found.text;
        split.add_to(&mut self.reasoning, &mut self.text);
        let (seed, prompt, first) = (self.generation.seed, self.generation.prompt().len(), self.calls.len());
        let named = |(i, call)| ToolCall { id: call_id(seed, prompt, first + i), call };
        let calls: Vec<ToolCall> = found.calls.into_iter().enumerate().map(named).collect();
        self.calls.extend_from_slice(&calls);
        (split.text, split.reasoning, calls)
    }

    /// Ends the answer now. Does nothing if it has ended.
    pub fn cancel(&mut self, engine: &Engine) {
        // A receipt counts the work of every step, so the answer has at least one id of each.
        if self.generation.has_unseen_step() {
            self.take_piece(engine);
        }
        if self.generation.finish.is_none() {
            self.generation.finish = Some(Finish::Cancelled);
            self.clock.consumer += self.left.elapsed();
            self.close(engine);
        }
    }

    /// Writes the receipt, and gives a sequence that nobody owns to the prefix cache.
    fn close(&mut self, engine: &Engine) {
        engine.runtime.forget(&self.generation);
        let Some(sequence) = &self.sequence else { return };
        if !self.generation.generated().is_empty() {
            self.receipt = Some(Arc::new(engine.receipt_of(self, sequence)));
        }
        if self.is_owned
            && let Some(sequence) = self.sequence.take()
        {
            engine.keep(sequence);
        }
    }

    /// The sequence, for a caller who owns it; None before the answer has ended.
    pub fn take_sequence(&mut self) -> Option<Sequence> {
        self.generation.finish.and_then(|_| self.sequence.take())
    }
}

/// A random seed. The standard library's only public randomness is in the keys of its hash maps.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
