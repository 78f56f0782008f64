//! `bitnet.Stream`, what it yields, and `bitnet.Completion`.

use super::awaitable::{Wanted, awaitable, step};
use super::convert::{BitnetError, detached};
use super::receipt::Receipt;
use crate::chat::ChatStream;
use crate::decode::{Answer, Finish, Watch};
use crate::engine::{Engine, Piece as CorePiece, Stream as CoreStream};
use crate::error::Result;
use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::prelude::*;
use std::sync::{Arc, Mutex, TryLockError};

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
    #[doc = doc!(Completion.receipt)]
    receipt: Option<Receipt>,
}

#[doc = doc!(Stream)]
#[pyclass(frozen, module = "bitnet")]
pub struct Stream {
    core: Arc<Mutex<Core>>,
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

    fn answer(&self) -> &Answer {
        &self.stream().answer
    }

    fn receipt(&self) -> Option<Receipt> {
        self.stream().receipt.as_ref().map(|core| Receipt { core: core.clone() })
    }

    /// The whole answer, once it has ended.
    fn completion(&self, logprobs: Vec<Logprob>) -> Completion {
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
            logprobs: answer.params.logprobs.map(|_| logprobs),
            receipt,
        }
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

impl Stream {
    /// Wraps an answer that has begun.
    pub fn alone(engine: Arc<Engine>, stream: CoreStream) -> Stream {
        Stream { core: Arc::new(Mutex::new(Core::Alone(engine, stream))) }
    }

    /// Wraps an answer that has begun in a conversation.
    pub fn in_chat(stream: ChatStream) -> Stream {
        Stream { core: Arc::new(Mutex::new(Core::InChat(stream))) }
    }

    /// Runs `use_it` on the answer, unless another thread is at it.
    fn with<T>(&self, use_it: impl FnOnce(&mut Core) -> T) -> PyResult<T> {
        with(&self.core, use_it)
    }

    fn pull(&self, py: Python<'_>) -> PyResult<Option<Piece>> {
        self.with(|core| detached(py, |watch| core.next(watch)))?
    }

    /// Pulls everything.
    pub fn complete(&self, py: Python<'_>) -> PyResult<Completion> {
        let mut logprobs = Vec::new();
        while let Some(piece) = self.pull(py)? {
            logprobs.extend(piece.logprob);
            py.check_signals()?;
        }
        self.with(|core| core.completion(logprobs))
    }

    /// Pulls everything, a step at a time, beside the event loop.
    pub async fn complete_beside(self, wanted: &Wanted) -> PyResult<Completion> {
        let mut logprobs = Vec::new();
        while let Some(piece) = pull_beside(self.core.clone(), wanted).await? {
            logprobs.extend(piece.logprob);
        }
        self.with(|core| core.completion(logprobs))
    }
}

fn with<T>(core: &Mutex<Core>, use_it: impl FnOnce(&mut Core) -> T) -> PyResult<T> {
    match core.try_lock() {
        Ok(mut core) => Ok(use_it(&mut core)),
        Err(TryLockError::Poisoned(core)) => Ok(use_it(&mut core.into_inner())),
        Err(TryLockError::WouldBlock) => Err(BitnetError::new_err(
            "this stream is being pulled by another thread or task; a stream has one consumer, give each its own",
        )),
    }
}

async fn pull_beside(core: Arc<Mutex<Core>>, wanted: &Wanted) -> PyResult<Option<Piece>> {
    step(wanted, move |watch| with(&core, |core| core.next(watch))?.map_err(PyErr::from)).await
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
        let core = self.core.clone();
        awaitable(py, |wanted| async move {
            pull_beside(core, &wanted).await?.ok_or_else(|| PyStopAsyncIteration::new_err(()))
        })
    }

    #[doc = doc!(Stream.cancel)]
    fn cancel(&self) -> PyResult<()> {
        self.with(Core::cancel)
    }

    #[doc = doc!(Stream.text)]
    #[getter]
    fn text(&self) -> PyResult<String> {
        self.with(|core| core.stream().text.clone())
    }

    #[doc = doc!(Stream.token_ids)]
    #[getter]
    fn token_ids(&self) -> PyResult<Vec<u32>> {
        self.with(|core| core.answer().answered().to_vec())
    }

    #[doc = doc!(Stream.finish_reason)]
    #[getter]
    fn finish_reason(&self) -> PyResult<Option<&'static str>> {
        self.with(|core| core.answer().finish.map(Finish::name))
    }

    #[doc = doc!(Stream.prompt_tokens)]
    #[getter]
    fn prompt_tokens(&self) -> PyResult<usize> {
        self.with(|core| core.answer().prompt().len())
    }

    #[doc = doc!(Stream.cached_tokens)]
    #[getter]
    fn cached_tokens(&self) -> PyResult<usize> {
        self.with(|core| core.answer().cached)
    }

    #[doc = doc!(Stream.completion_tokens)]
    #[getter]
    fn completion_tokens(&self) -> PyResult<usize> {
        self.with(|core| core.answer().generated().len())
    }

    #[doc = doc!(Stream.receipt)]
    #[getter]
    fn receipt(&self) -> PyResult<Option<Receipt>> {
        self.with(|core| core.receipt())
    }

    #[doc = doc!(Stream.seed)]
    #[getter]
    fn seed(&self) -> PyResult<u64> {
        self.with(|core| core.answer().seed)
    }
}
