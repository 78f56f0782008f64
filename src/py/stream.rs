//! `bitnet.Stream`, what it yields, and `bitnet.Completion`.

use super::awaitable::{Wanted, awaitable, step};
use super::convert::detached;
use super::receipt::Receipt;
use crate::chat::ChatStream;
use crate::decode::{Finish, Generation, Watch};
use crate::engine::{Engine, Piece as CorePiece, Stream as CoreStream};
use crate::error::{Error, Result};
use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::sync::atomic::{AtomicBool, Ordering::*, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

#[doc = doc!(Logprob)]
#[pyclass(frozen, get_all, module = "bitnet")]
#[derive(Clone)]
pub struct Logprob {
    #[doc = doc!(Logprob.id)]
    id: u32,
    #[doc = doc!(Logprob.text)]
    text: String,
    #[doc = doc!(Logprob.logprob)]
    logprob: f64,
}

#[doc = doc!(Piece)]
#[pyclass(frozen, get_all, module = "bitnet")]
pub struct Piece {
    #[doc = doc!(Piece.text)]
    text: String,
    #[doc = doc!(Piece.token_id)]
    token_id: Option<u32>,
    #[doc = doc!(Piece.logprob)]
    logprob: Option<Logprob>,
    #[doc = doc!(Piece.top_logprobs)]
    top_logprobs: Option<Vec<Logprob>>,
    #[doc = doc!(Piece.finish_reason)]
    finish_reason: Option<&'static str>,
}

#[doc = doc!(Completion)]
#[pyclass(frozen, get_all, module = "bitnet")]
pub struct Completion {
    #[doc = doc!(Completion.text)]
    text: String,
    #[doc = doc!(Completion.token_ids)]
    token_ids: Vec<u32>,
    #[doc = doc!(Completion.finish_reason)]
    finish_reason: Option<&'static str>,
    #[doc = doc!(Completion.prompt_tokens)]
    prompt_tokens: usize,
    #[doc = doc!(Completion.cached_tokens)]
    cached_tokens: usize,
    #[doc = doc!(Completion.completion_tokens)]
    completion_tokens: usize,
    #[doc = doc!(Completion.seed)]
    seed: u64,
    #[doc = doc!(Completion.ttft)]
    ttft: f64,
    #[doc = doc!(Completion.decode_seconds)]
    decode_seconds: f64,
    #[doc = doc!(Completion.logprobs)]
    logprobs: Option<Vec<Logprob>>,
    #[doc = doc!(Completion.top_logprobs)]
    top_logprobs: Option<Vec<Vec<Logprob>>>,
    #[doc = doc!(Completion.receipt)]
    receipt: Option<Receipt>,
}

#[doc = doc!(Stream)]
#[pyclass(frozen, module = "bitnet")]
pub struct Stream {
    shared: Arc<Shared>,
}

/// What a stream's consumer and those who look on share.
struct Shared {
    core: Mutex<Core>,
    /// Whether its one consumer is pulling.
    pulled: AtomicBool,
    /// Whether the step under way is to be the last.
    cancelled: AtomicBool,
    seen: Mutex<Seen>,
}

/// The answer as it was after the last step, for those who look on during the next.
#[derive(Default)]
struct Seen {
    text: String,
    ids: Vec<u32>,
    finish: Option<&'static str>,
    prompt: usize,
    cached: usize,
    sampled: usize,
    seed: u64,
    receipt: Option<Receipt>,
}

/// An answer by itself, or one within a conversation. A dropped one gives its sequence back; nothing more is computed.
enum Core {
    Alone(Arc<Engine>, CoreStream),
    InChat(ChatStream),
}

impl Core {
    fn next(&mut self, watch: &mut Watch) -> Result<Option<Piece>> {
        Ok(match self {
            Core::Alone(engine, stream) => stream.next(engine, watch)?.map(|piece| Piece::new(engine, piece)),
            Core::InChat(chat) => chat.next(watch)?.map(|piece| Piece::new(&chat.engine, piece)),
        })
    }

    fn cancel(&mut self) {
        match self {
            Core::Alone(engine, stream) => stream.cancel(engine),
            Core::InChat(chat) => chat.cancel(),
        }
    }

    fn stream(&self) -> &CoreStream {
        match self {
            Core::Alone(_, stream) => stream,
            Core::InChat(chat) => &chat.stream,
        }
    }

    fn answer(&self) -> &Generation {
        &self.stream().answer
    }

    fn receipt(&self) -> Option<Receipt> {
        self.stream().receipt.as_ref().map(|core| Receipt { core: core.clone() })
    }

    /// The whole answer, once it has ended.
    fn completion(&self, said: Said) -> Completion {
        let answer = self.answer();
        let receipt = self.receipt();
        let seconds = receipt.as_ref().map(|receipt| receipt.core.run.seconds).unwrap_or_default();
        Completion {
            text: self.stream().text.clone(),
            token_ids: answer.answered().to_vec(),
            finish_reason: answer.finish.map(Finish::name),
            prompt_tokens: answer.prompt().len(),
            cached_tokens: answer.cached,
            completion_tokens: answer.generated().len(),
            seed: answer.seed,
            ttft: seconds.first_token,
            decode_seconds: seconds.decode,
            logprobs: answer.params.logprobs.map(|_| said.logprobs),
            top_logprobs: answer.params.logprobs.map(|_| said.top_logprobs),
            receipt,
        }
    }
}

impl Seen {
    /// Takes in what is new.
    fn update(&mut self, core: &Core) {
        let (answer, text) = (core.answer(), &core.stream().text);
        self.text.push_str(&text[self.text.len()..]);
        self.ids.extend_from_slice(&answer.answered()[self.ids.len()..]);
        self.finish = answer.finish.map(Finish::name);
        (self.prompt, self.cached) = (answer.prompt().len(), answer.cached);
        (self.sampled, self.seed) = (answer.generated().len(), answer.seed);
        self.receipt = core.receipt();
    }
}

impl Shared {
    fn new(core: Core) -> Arc<Shared> {
        let mut seen = Seen::default();
        seen.update(&core);
        let (pulled, cancelled) = Default::default();
        Arc::new(Shared { core: Mutex::new(core), pulled, cancelled, seen: Mutex::new(seen) })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer; waits for who is at it.
    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next piece. The last step of an answer that is cancelled meanwhile is abandoned.
    fn next(&self, watch: &mut Watch) -> Result<Option<Piece>> {
        if self.pulled.swap(true, Acquire) {
            return Err(Error::Argument(
                "this stream is being pulled by another thread or task; a stream has one consumer, give each its own"
                    .into(),
            ));
        }
        let _pulled = Reset(&self.pulled);
        let mut core = self.core();
        let piece = core.next(&mut || self.cancelled.load(Relaxed) || watch());
        self.seen().update(&core);
        drop(core);
        fence(SeqCst);
        if self.cancelled.load(Relaxed) {
            self.cancel(); // who cancelled may have found the answer locked
        }
        match piece {
            Err(Error::Cancelled) if self.cancelled.load(Relaxed) => Ok(None),
            piece => piece,
        }
    }

    /// Ends the answer now, or by abandoning the step under way, after which its consumer ends it.
    fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
        fence(SeqCst);
        let mut core = match self.core.try_lock() {
            Ok(core) => core,
            Err(TryLockError::Poisoned(core)) => core.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        core.cancel();
        self.seen().update(&core);
    }
}

/// Sets a flag back, also where the thread panics.
struct Reset<'a>(&'a AtomicBool);

impl Drop for Reset<'_> {
    fn drop(&mut self) {
        self.0.store(false, Release);
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.cancel();
    }
}

fn logprob(engine: &Engine, (id, logprob): (u32, f64)) -> Logprob {
    let text = engine.tokenizer().map_or_else(|_| String::new(), |tokenizer| tokenizer.decode(&[id], false));
    Logprob { id, text, logprob }
}

/// As Python writes it.
fn quoted(name: Option<&str>) -> String {
    name.map_or("None".into(), |name| format!("'{name}'"))
}

impl Piece {
    fn new(engine: &Engine, piece: CorePiece) -> Piece {
        let (own, top) = piece.logprobs.unzip();
        let own = own.zip(piece.id).map(|(own, id)| logprob(engine, (id, own)));
        Piece {
            text: piece.text,
            token_id: piece.id,
            logprob: own,
            top_logprobs: top.map(|top| top.into_iter().map(|one| logprob(engine, one)).collect()),
            finish_reason: piece.finish.map(Finish::name),
        }
    }
}

#[pymethods]
impl Piece {
    fn __repr__(&self) -> String {
        format!(
            "Piece(text={:?}, token_id={}, finish_reason={})",
            self.text,
            self.token_id.map_or("None".into(), |id| id.to_string()),
            quoted(self.finish_reason)
        )
    }
}

#[pymethods]
impl Logprob {
    fn __repr__(&self) -> String {
        format!("Logprob(id={}, text={:?}, logprob={:.4})", self.id, self.text, self.logprob)
    }
}

#[pymethods]
impl Completion {
    fn __repr__(&self) -> String {
        format!(
            "Completion(text={:?}, finish_reason={}, prompt_tokens={}, completion_tokens={})",
            self.text,
            quoted(self.finish_reason),
            self.prompt_tokens,
            self.completion_tokens
        )
    }
}

/// The log-probabilities of an answer's pieces, if asked for.
#[derive(Default)]
struct Said {
    logprobs: Vec<Logprob>,
    top_logprobs: Vec<Vec<Logprob>>,
}

impl Said {
    fn push(&mut self, piece: Piece) {
        self.logprobs.extend(piece.logprob);
        self.top_logprobs.extend(piece.top_logprobs.filter(|_| piece.token_id.is_some()));
    }
}

impl Stream {
    /// Wraps an answer that has begun.
    pub fn alone(engine: Arc<Engine>, stream: CoreStream) -> Stream {
        Stream { shared: Shared::new(Core::Alone(engine, stream)) }
    }

    /// Wraps an answer that has begun in a conversation.
    pub fn in_chat(stream: ChatStream) -> Stream {
        Stream { shared: Shared::new(Core::InChat(stream)) }
    }

    fn pull(&self, py: Python<'_>) -> PyResult<Option<Piece>> {
        detached(py, |watch| self.shared.next(watch))
    }

    /// Pulls everything.
    pub fn complete(&self, py: Python<'_>) -> PyResult<Completion> {
        let mut said = Said::default();
        while let Some(piece) = self.pull(py)? {
            said.push(piece);
            py.check_signals()?;
        }
        Ok(self.shared.core().completion(said))
    }

    /// Pulls everything, a step at a time, beside the event loop.
    pub async fn complete_beside(self, wanted: &Wanted) -> PyResult<Completion> {
        let mut said = Said::default();
        while let Some(piece) = pull_beside(self.shared.clone(), wanted).await? {
            said.push(piece);
        }
        Ok(self.shared.core().completion(said))
    }
}

async fn pull_beside(shared: Arc<Shared>, wanted: &Wanted) -> PyResult<Option<Piece>> {
    step(wanted, move |watch| Ok(shared.next(watch)?)).await
}

#[pymethods]
impl Stream {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Piece>> {
        self.pull(py)
    }

    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __anext__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let shared = self.shared.clone();
        awaitable(py, "Stream.__anext__", |wanted| async move {
            pull_beside(shared, &wanted).await?.ok_or_else(|| PyStopAsyncIteration::new_err(()))
        })
    }

    #[doc = doc!(Stream.cancel)]
    fn cancel(&self, py: Python<'_>) {
        py.detach(|| self.shared.cancel());
    }

    #[doc = doc!(Stream.aclose)]
    fn aclose<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let shared = self.shared.clone();
        awaitable(py, "Stream.aclose", |_| async move {
            shared.cancel();
            Ok(None::<()>)
        })
    }

    #[doc = doc!(Stream.text)]
    #[getter]
    fn text(&self) -> String {
        self.shared.seen().text.clone()
    }

    #[doc = doc!(Stream.token_ids)]
    #[getter]
    fn token_ids(&self) -> Vec<u32> {
        self.shared.seen().ids.clone()
    }

    #[doc = doc!(Stream.finish_reason)]
    #[getter]
    fn finish_reason(&self) -> Option<&'static str> {
        self.shared.seen().finish
    }

    #[doc = doc!(Stream.prompt_tokens)]
    #[getter]
    fn prompt_tokens(&self) -> usize {
        self.shared.seen().prompt
    }

    #[doc = doc!(Stream.cached_tokens)]
    #[getter]
    fn cached_tokens(&self) -> usize {
        self.shared.seen().cached
    }

    #[doc = doc!(Stream.completion_tokens)]
    #[getter]
    fn completion_tokens(&self) -> usize {
        self.shared.seen().sampled
    }

    #[doc = doc!(Stream.receipt)]
    #[getter]
    fn receipt(&self) -> Option<Receipt> {
        self.shared.seen().receipt.clone()
    }

    #[doc = doc!(Stream.seed)]
    #[getter]
    fn seed(&self) -> u64 {
        self.shared.seen().seed
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let text = PyString::new(py, &self.text()).repr()?;
        Ok(format!(
            "<Stream {text} {} tokens, finish_reason={}>",
            self.completion_tokens(),
            quoted(self.finish_reason())
        ))
    }
}
