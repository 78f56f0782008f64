//! `bitnet.Stream`, its pieces, and `bitnet.Completion`.

use super::awaitable::{Abandoned, awaitable, step};
use super::convert::detached;
use super::receipt::Receipt;
use crate::chat::{ChatStream, SharedStream};
use crate::engine::{Engine, Finish, Piece as CorePiece, Stream as CoreStream, Watch};
use crate::error::Result;
use crate::token::TokenId;
use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::sync::Arc;

#[doc = doc!(Logprob)]
#[pyclass(frozen, get_all, module = "bitnet")]
#[derive(Clone)]
pub struct Logprob {
    #[doc = doc!(Logprob.id)]
    id: TokenId,
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
    token_id: Option<TokenId>,
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
    token_ids: Vec<TokenId>,
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
    shared: Arc<SharedStream>,
}

fn logprob(engine: &Engine, (id, logprob): (TokenId, f64)) -> Logprob {
    let text = engine.tokenizer().map_or_else(|_| String::new(), |tokenizer| tokenizer.decode(&[id], false));
    Logprob { id, text, logprob }
}

/// A name or None, as Python's `repr` writes it.
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

impl Completion {
    /// An answer that has ended.
    fn new(shared: &SharedStream, logprobs: PieceLogprobs) -> Completion {
        let answer = shared.settled();
        let seconds = answer.receipt.as_ref().map(|receipt| receipt.run.seconds).unwrap_or_default();
        Completion {
            text: answer.text,
            token_ids: answer.ids,
            finish_reason: answer.finish.map(Finish::name),
            prompt_tokens: answer.prompt_tokens,
            cached_tokens: answer.cached_tokens,
            completion_tokens: answer.completion_tokens,
            seed: answer.seed,
            ttft: seconds.first_token,
            decode_seconds: seconds.decode,
            logprobs: answer.reports_logprobs.then_some(logprobs.logprobs),
            top_logprobs: answer.reports_logprobs.then_some(logprobs.top_logprobs),
            receipt: answer.receipt.map(|core| Receipt { core }),
        }
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

/// The log-probabilities of an answer's pieces; empty unless asked for.
#[derive(Default)]
struct PieceLogprobs {
    logprobs: Vec<Logprob>,
    top_logprobs: Vec<Vec<Logprob>>,
}

impl PieceLogprobs {
    fn push(&mut self, piece: Piece) {
        self.logprobs.extend(piece.logprob);
        self.top_logprobs.extend(piece.top_logprobs.filter(|_| piece.token_id.is_some()));
    }
}

impl Stream {
    /// An answer that has just begun.
    pub fn of_prompt(engine: Arc<Engine>, stream: CoreStream) -> Stream {
        Stream { shared: Arc::new(SharedStream::of_prompt(engine, stream)) }
    }

    /// An answer in a conversation that has just begun.
    pub fn in_chat(stream: ChatStream) -> Stream {
        Stream { shared: Arc::new(SharedStream::in_chat(stream)) }
    }

    fn pull(&self, py: Python<'_>) -> PyResult<Option<Piece>> {
        detached(py, |watch| next_piece(&self.shared, watch))
    }

    /// Pulls the whole answer.
    pub fn complete(&self, py: Python<'_>) -> PyResult<Completion> {
        let mut logprobs = PieceLogprobs::default();
        while let Some(piece) = self.pull(py)? {
            logprobs.push(piece);
            py.check_signals()?;
        }
        Ok(Completion::new(&self.shared, logprobs))
    }

    /// Pulls the whole answer step by step, beside the event loop.
    pub async fn complete_async(self, abandoned: &Abandoned) -> PyResult<Completion> {
        let mut logprobs = PieceLogprobs::default();
        while let Some(piece) = pull_async(self.shared.clone(), abandoned).await? {
            logprobs.push(piece);
        }
        Ok(Completion::new(&self.shared, logprobs))
    }
}

fn next_piece(shared: &SharedStream, watch: &mut Watch) -> Result<Option<Piece>> {
    Ok(shared.next(watch)?.map(|piece| Piece::new(shared.engine(), piece)))
}

async fn pull_async(shared: Arc<SharedStream>, abandoned: &Abandoned) -> PyResult<Option<Piece>> {
    step(abandoned, move |watch| Ok(next_piece(&shared, watch)?)).await
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
        awaitable(py, "Stream.__anext__", |abandoned| async move {
            pull_async(shared, &abandoned).await?.ok_or_else(|| PyStopAsyncIteration::new_err(()))
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
        self.shared.progress().text.clone()
    }

    #[doc = doc!(Stream.token_ids)]
    #[getter]
    fn token_ids(&self) -> Vec<TokenId> {
        self.shared.progress().ids.clone()
    }

    #[doc = doc!(Stream.finish_reason)]
    #[getter]
    fn finish_reason(&self) -> Option<&'static str> {
        self.shared.progress().finish.map(Finish::name)
    }

    #[doc = doc!(Stream.prompt_tokens)]
    #[getter]
    fn prompt_tokens(&self) -> usize {
        self.shared.progress().prompt_tokens
    }

    #[doc = doc!(Stream.cached_tokens)]
    #[getter]
    fn cached_tokens(&self) -> usize {
        self.shared.progress().cached_tokens
    }

    #[doc = doc!(Stream.completion_tokens)]
    #[getter]
    fn completion_tokens(&self) -> usize {
        self.shared.progress().completion_tokens
    }

    #[doc = doc!(Stream.receipt)]
    #[getter]
    fn receipt(&self) -> Option<Receipt> {
        self.shared.progress().receipt.clone().map(|core| Receipt { core })
    }

    #[doc = doc!(Stream.seed)]
    #[getter]
    fn seed(&self) -> u64 {
        self.shared.progress().seed
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
