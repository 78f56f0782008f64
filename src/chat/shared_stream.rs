//! An answer that several threads may hold: one pulls it, any of them may look at it or cancel it.

use super::ChatStream;
use crate::decode::{Done, Step};
use crate::engine::{Engine, Finish, Piece, Stream, ToolCall, Watch};
use crate::error::{Error, Result};
use crate::receipt::Receipt;
use crate::token::TokenId;
use std::sync::atomic::{AtomicBool, Ordering::*, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// An answer under way, of a prompt or in a conversation. Dropping it cancels it.
pub struct SharedStream {
    engine: Arc<Engine>,
    source: Mutex<Source>,
    /// Whether a thread is pulling.
    pulled: AtomicBool,
    /// Whether the step under way is to be abandoned and the answer to end.
    cancelled: AtomicBool,
    progress: Mutex<Progress>,
    /// A piece that was computed and has not reached the consumer.
    undelivered: Mutex<Option<Piece>>,
}

/// An answer as it was after its last step.
#[derive(Clone, Default)]
pub struct Progress {
    /// The text so far, without thoughts and calls.
    pub text: String,
    /// The thoughts so far.
    pub reasoning: String,
    /// The calls so far.
    pub calls: Vec<ToolCall>,
    /// The ids of the text, without a stop id.
    pub ids: Vec<TokenId>,
    /// Why the answer ended, if it has.
    pub finish: Option<Finish>,
    /// Positions of the prompt.
    pub prompt_tokens: usize,
    /// Positions of the prompt that the cache already held.
    pub cached_tokens: usize,
    /// Ids sampled, a stop id included.
    pub completion_tokens: usize,
    /// The seed of the draws.
    pub seed: u64,
    /// Whether the pieces report log-probabilities.
    pub reports_logprobs: bool,
    /// The receipt, once the answer has ended with at least one id.
    pub receipt: Option<Arc<Receipt>>,
}

/// What the pieces come from. Dropping it gives the sequence back to its owner.
enum Source {
    Prompt(Arc<Engine>, Stream),
    Chat(ChatStream),
}

/// What a caller who computes several answers together does next with one of them.
pub(super) enum Next {
    /// Take this piece.
    Piece(Piece),
    /// Compute this step, and give it to [`SharedStream::end_step`].
    Step(Box<Step>),
    /// Nothing: the answer has ended.
    Ended,
}

impl Source {
    fn begin_step(&mut self) -> Option<Step> {
        match self {
            Source::Prompt(engine, stream) => stream.begin_step(engine),
            Source::Chat(chat) => chat.stream.begin_step(&chat.engine),
        }
    }

    fn end_step(&mut self, done: Done) -> Result<()> {
        match self {
            Source::Prompt(engine, stream) => stream.end_step(engine, done),
            Source::Chat(chat) => chat.stream.end_step(&chat.engine, done),
        }
    }

    fn take_piece(&mut self) -> Option<Piece> {
        match self {
            Source::Prompt(engine, stream) => stream.take_piece(engine),
            Source::Chat(chat) => chat.take_piece(),
        }
    }

    fn next(&mut self, watch: &mut Watch) -> Result<Option<Piece>> {
        match self {
            Source::Prompt(engine, stream) => stream.next(engine, watch),
            Source::Chat(chat) => chat.next(watch),
        }
    }

    fn cancel(&mut self) {
        match self {
            Source::Prompt(engine, stream) => stream.cancel(engine),
            Source::Chat(chat) => chat.cancel(),
        }
    }

    fn stream(&self) -> &Stream {
        match self {
            Source::Prompt(_, stream) => stream,
            Source::Chat(chat) => &chat.stream,
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl Progress {
    /// Adds what is new since the last step.
    fn update(&mut self, stream: &Stream) {
        let generation = &stream.generation;
        extend(&mut self.reasoning, &stream.reasoning);
        extend(&mut self.text, &stream.text);
        self.calls.extend_from_slice(&stream.calls[self.calls.len()..]);
        self.ids.extend_from_slice(&generation.output_ids()[self.ids.len()..]);
        self.finish = generation.finish;
        (self.prompt_tokens, self.cached_tokens) = (generation.prompt().len(), generation.cached_tokens);
        (self.completion_tokens, self.seed) = (generation.generated().len(), generation.seed);
        self.reports_logprobs = generation.params.logprobs.is_some();
        self.receipt = stream.receipt.clone();
    }
}

impl SharedStream {
    /// Shares an answer that does not belong to a conversation.
    pub fn of_prompt(engine: Arc<Engine>, stream: Stream) -> SharedStream {
        SharedStream::new(engine.clone(), Source::Prompt(engine, stream))
    }

    /// Shares an answer in a conversation.
    pub fn in_chat(stream: ChatStream) -> SharedStream {
        SharedStream::new(stream.engine.clone(), Source::Chat(stream))
    }

    fn new(engine: Arc<Engine>, source: Source) -> SharedStream {
        let mut progress = Progress::default();
        progress.update(source.stream());
        let (pulled, cancelled, undelivered) = Default::default();
        let (source, progress) = (Mutex::new(source), Mutex::new(progress));
        SharedStream { engine, source, pulled, cancelled, progress, undelivered }
    }

    /// The engine that computes the answer.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The same, to be held.
    pub fn shared_engine(&self) -> Arc<Engine> {
        self.engine.clone()
    }

    /// The answer as it was after the last step. Never waits for the step under way.
    pub fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer once whoever pulls or cancels it has finished doing so.
    pub fn settled(&self) -> Progress {
        let _source = self.source();
        self.progress().clone()
    }

    fn source(&self) -> MutexGuard<'_, Source> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next piece; None once the answer has ended. For a consumer that nothing can interrupt between the two steps.
    pub fn next(&self, watch: &mut Watch) -> Result<Option<Piece>> {
        self.advance(watch)?;
        Ok(self.take())
    }

    /// The piece that `advance` computed; None once the answer has ended.
    pub fn take(&self) -> Option<Piece> {
        self.undelivered.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Computes the next piece, which [`SharedStream::take`] hands out. Does nothing if there still is a piece: its
    /// consumer was interrupted before it took it. An error if another thread is pulling. If the answer is cancelled
    /// meanwhile, the step is abandoned.
    pub fn advance(&self, watch: &mut Watch) -> Result<()> {
        self.claim()?;
        let _pulled = Reset(&self.pulled);
        if self.undelivered.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let mut source = self.source();
        let piece = source.next(&mut || self.cancelled.load(Relaxed) || watch());
        self.progress().update(source.stream());
        drop(source);
        // Pairs with the fence in `cancel`. Either this thread sees the flag here, or `cancel`, which sets the flag
        // before it tries the lock, finds the lock free. So the answer ends in every case.
        fence(SeqCst);
        if self.cancelled.load(Relaxed) {
            self.cancel();
        }
        let piece = match piece {
            Err(Error::Cancelled) if self.cancelled.load(Relaxed) => None,
            piece => piece?,
        };
        *self.undelivered.lock().unwrap_or_else(PoisonError::into_inner) = piece;
        Ok(())
    }

    /// Makes the caller the only one who pulls, until [`SharedStream::release`].
    pub(super) fn claim(&self) -> Result<()> {
        if self.pulled.swap(true, Acquire) {
            return Err(Error::Argument(
                "another thread or task is pulling this stream; a stream has one consumer, give each its own".into(),
            ));
        }
        Ok(())
    }

    /// Lets others pull again.
    pub(super) fn release(&self) {
        self.pulled.store(false, Release);
    }

    /// What is to be done next, for a caller who has claimed it.
    pub(super) fn poll(&self) -> Next {
        if let Some(piece) = self.take() {
            return Next::Piece(piece);
        }
        let mut source = self.source();
        if self.cancelled.load(Relaxed) {
            source.cancel();
        } else if let Some(step) = source.begin_step() {
            return Next::Step(Box::new(step));
        }
        let piece = source.take_piece();
        self.progress().update(source.stream());
        piece.map_or(Next::Ended, Next::Piece)
    }

    /// Takes the step of [`SharedStream::poll`] back.
    pub(super) fn end_step(&self, done: Done) -> Result<()> {
        self.source().end_step(done)
    }

    /// Ends the answer. While a thread is pulling, its step is abandoned and that thread ends the answer.
    pub fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
        fence(SeqCst);
        let mut source = match self.source.try_lock() {
            Ok(source) => source,
            Err(TryLockError::Poisoned(source)) => source.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if source.stream().is_computing() {
            return; // whoever takes its step back ends it
        }
        source.cancel();
        self.progress().update(source.stream());
    }
}

/// Clears a flag, also if the thread panics.
struct Reset<'a>(&'a AtomicBool);

impl Drop for Reset<'_> {
    fn drop(&mut self) {
        self.0.store(false, Release);
    }
}

/// Makes `known` what `now` is. Mostly that only adds to it; but an answer so far may turn out to be thoughts.
fn extend(known: &mut String, now: &str) {
    match now.strip_prefix(&**known) {
        Some(new) => known.push_str(new),
        None => *known = now.to_string(),
    }
}
