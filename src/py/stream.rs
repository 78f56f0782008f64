//! `bitnet.Stream`.

use super::awaitable::{Abandoned, awaitable, step};
use super::completion::{Completion, Piece, PieceLogprobs, quoted};
use super::convert::detached;
use super::hints;
use super::parsed::JsonForm;
use super::receipt::Receipt;
use super::tools::{ToolCall, tool_calls};
use crate::chat::{ChatStream, SharedStream};
use crate::engine::{Engine, Finish, Stream as CoreStream};
use crate::token::TokenId;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::sync::Arc;

#[doc = doc!(Stream)]
#[pyclass(frozen, module = "bitnet")]
#[derive(Clone)]
pub struct Stream {
    pub(super) shared: Arc<SharedStream>,
    pub(super) json: JsonForm,
}

impl Stream {
    /// An answer that has just begun.
    pub fn of_prompt(engine: Arc<Engine>, stream: CoreStream, json: JsonForm) -> Stream {
        Stream { shared: Arc::new(SharedStream::of_prompt(engine, stream)), json }
    }

    /// An answer in a conversation that has just begun.
    pub fn in_chat(stream: ChatStream, json: JsonForm) -> Stream {
        Stream { shared: Arc::new(SharedStream::in_chat(stream)), json }
    }

    /// The next piece. Whatever interrupts the call, such as Ctrl-C, comes before the piece is taken, so the next pull
    /// gets it.
    fn pull(&self, py: Python<'_>) -> PyResult<Option<Piece>> {
        detached(py, |watch| self.shared.advance(watch))?;
        py.check_signals()?;
        Ok(self.take())
    }

    fn take(&self) -> Option<Piece> {
        Some(Piece::new(self.shared.engine(), self.shared.take()?))
    }

    /// Pulls the whole answer.
    pub fn complete(&self, py: Python<'_>) -> PyResult<Completion> {
        let mut logprobs = PieceLogprobs::default();
        while let Some(piece) = self.pull(py)? {
            logprobs.push(piece);
        }
        Ok(Completion::new(&self.shared, logprobs, self.json.clone()))
    }

    /// Pulls the whole answer step by step, beside the event loop.
    pub async fn complete_async(self, abandoned: &Abandoned) -> PyResult<Completion> {
        let mut logprobs = PieceLogprobs::default();
        loop {
            let shared = self.shared.clone();
            step(abandoned, move |watch| Ok(shared.advance(watch)?)).await?;
            let Some(piece) = self.take() else { break };
            logprobs.push(piece);
        }
        Ok(Completion::new(&self.shared, logprobs, self.json.clone()))
    }
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

    /// The coroutine takes the piece itself, after it has waited for it: a task that is cancelled before then leaves the
    /// piece to the next pull.
    fn __anext__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let methods = (slf.getattr("_advance")?, slf.getattr("_take")?);
        let coroutine = slf.py().import("bitnet._async")?.call_method1("next_piece", methods)?;
        coroutine.setattr("__qualname__", "Stream.__anext__")?;
        Ok(coroutine)
    }

    fn _advance<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let shared = self.shared.clone();
        awaitable(py, "Stream._advance", |abandoned| async move {
            step(&abandoned, move |watch| Ok(shared.advance(watch)?)).await?;
            Ok(None::<()>)
        })
    }

    fn _take(&self) -> Option<Piece> {
        self.take()
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

    #[doc = doc!(Stream.reasoning)]
    #[getter]
    fn reasoning(&self) -> Option<String> {
        Some(self.shared.progress().reasoning.clone()).filter(|thoughts| !thoughts.is_empty())
    }

    #[doc = doc!(Stream.tool_calls)]
    #[getter]
    fn tool_calls(&self) -> Option<Vec<ToolCall>> {
        tool_calls(self.shared.progress().calls.clone())
    }

    #[doc = doc!(Stream.parsed)]
    #[getter]
    fn parsed(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let text = self.text();
        self.json.parse(py, (self.finish_reason() == Some(Finish::Stop.name())).then_some(&text))
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

    fn __str__(&self) -> String {
        self.text()
    }

    fn __eq__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        if other.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err("a Stream is no text; compare stream.text, once the stream has ended"));
        }
        Ok(slf.is(other))
    }

    fn __hash__(slf: &Bound<'_, Self>) -> isize {
        slf.as_ptr() as isize
    }

    fn __getattr__(&self, py: Python<'_>, name: &str) -> PyResult<Py<PyAny>> {
        Err(hints::attribute(py, "Stream", name))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err(
            "a Stream cannot be pickled or copied; keep its text, or its receipt once it has ended",
        ))
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
