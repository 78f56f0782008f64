//! `bitnet.Completion`, `bitnet.Piece` and `bitnet.Logprob`: what an answer consists of.

use super::hints;
use super::notebook::call_python;
use super::parsed::JsonForm;
use super::pickle::{Reduced, by_fields};
use super::receipt::Receipt;
use super::texts;
use super::tools::{ToolCall, tool_calls, tool_calls_repr};
use crate::chat::SharedStream;
use crate::engine::{Engine, Piece as CorePiece};
use crate::token::TokenId;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};

#[doc = doc!(Logprob)]
#[pyclass(frozen, get_all, eq, from_py_object, module = "bitnet")]
#[derive(Clone, PartialEq)]
pub struct Logprob {
    #[doc = doc!(Logprob.id)]
    id: TokenId,
    #[doc = doc!(Logprob.text)]
    text: String,
    #[doc = doc!(Logprob.logprob)]
    logprob: f64,
    #[doc = doc!(Logprob.bytes)]
    #[pyo3(name = "bytes")]
    bytes: Vec<u8>,
}

#[doc = doc!(Piece)]
#[pyclass(frozen, get_all, module = "bitnet")]
#[derive(PartialEq)]
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
    finish_reason: Option<String>,
    #[doc = doc!(Piece.reasoning)]
    reasoning: String,
    #[doc = doc!(Piece.tool_calls)]
    tool_calls: Option<Vec<ToolCall>>,
}

#[doc = doc!(Completion)]
#[pyclass(frozen, get_all, module = "bitnet")]
pub struct Completion {
    #[doc = doc!(Completion.text)]
    text: String,
    #[doc = doc!(Completion.token_ids)]
    token_ids: Vec<TokenId>,
    #[doc = doc!(Completion.finish_reason)]
    finish_reason: Option<String>,
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
    #[doc = doc!(Completion.reasoning)]
    reasoning: Option<String>,
    #[pyo3(name = "_json")]
    json: JsonForm,
    #[doc = doc!(Completion.tool_calls)]
    tool_calls: Option<Vec<ToolCall>>,
}

impl Logprob {
    /// The log-probability of a token of this engine.
    pub(super) fn new(engine: &Engine, (id, logprob): (TokenId, f64)) -> Logprob {
        let (text, bytes) = engine
            .tokenizer()
            .map_or_else(|_| Default::default(), |tokenizer| (tokenizer.decode(&[id], false), tokenizer.bytes_of(id)));
        Logprob { id, text, logprob, bytes }
    }
}

impl Piece {
    /// A piece of an answer of this engine.
    pub fn new(engine: &Engine, piece: CorePiece) -> Piece {
        let (own, top) = piece.logprobs.unzip();
        let own = own.zip(piece.id).map(|(own, id)| Logprob::new(engine, (id, own)));
        Piece {
            text: piece.text,
            token_id: piece.id,
            logprob: own,
            top_logprobs: top.map(|top| top.into_iter().map(|one| Logprob::new(engine, one)).collect()),
            finish_reason: piece.finish.map(|finish| finish.name().into()),
            reasoning: piece.reasoning,
            tool_calls: tool_calls(piece.calls),
        }
    }
}

impl Completion {
    /// An answer that has ended.
    pub fn new(shared: &SharedStream, logprobs: PieceLogprobs, json: JsonForm) -> Completion {
        let answer = shared.settled();
        let seconds = answer.receipt.as_ref().map(|receipt| receipt.run.seconds).unwrap_or_default();
        Completion {
            text: answer.text,
            token_ids: answer.ids,
            finish_reason: answer.finish.map(|finish| finish.name().into()),
            prompt_tokens: answer.prompt_tokens,
            cached_tokens: answer.cached_tokens,
            completion_tokens: answer.completion_tokens,
            seed: answer.seed,
            ttft: seconds.first_token,
            decode_seconds: seconds.decode,
            logprobs: answer.reports_logprobs.then_some(logprobs.logprobs),
            top_logprobs: answer.reports_logprobs.then_some(logprobs.top_logprobs),
            receipt: answer.receipt.map(|core| Receipt { core }),
            reasoning: Some(answer.reasoning).filter(|thoughts| !thoughts.is_empty()),
            json,
            tool_calls: tool_calls(answer.calls),
        }
    }
}

/// The log-probabilities of an answer's pieces; empty unless asked for.
#[derive(Default)]
pub struct PieceLogprobs {
    logprobs: Vec<Logprob>,
    top_logprobs: Vec<Vec<Logprob>>,
}

impl PieceLogprobs {
    /// Adds those of one piece.
    pub fn push(&mut self, piece: Piece) {
        self.logprobs.extend(piece.logprob);
        self.top_logprobs.extend(piece.top_logprobs.filter(|_| piece.token_id.is_some()));
    }
}

/// The thoughts in a `repr`; nothing if there are none.
fn reasoning(py: Python<'_>, thoughts: Option<&str>) -> PyResult<String> {
    thoughts.map_or(Ok(String::new()), |text| Ok(format!(", reasoning={}", PyString::new(py, text).repr()?)))
}

/// A name or None, as Python's `repr` writes it.
pub fn quoted(name: Option<&str>) -> String {
    name.map_or("None".into(), |name| format!("'{name}'"))
}

#[pymethods]
impl Logprob {
    #[classmethod]
    fn _rebuild(_cls: &Bound<'_, PyType>, id: TokenId, text: String, logprob: f64, bytes: Vec<u8>) -> Logprob {
        Logprob { id, text, logprob, bytes }
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        by_fields(slf, &["id", "text", "logprob", "bytes"])
    }

    fn __repr__(&self) -> String {
        format!("Logprob(id={}, text={:?}, logprob={:.4})", self.id, self.text, self.logprob)
    }
}

#[pymethods]
impl Piece {
    #[classmethod]
    #[pyo3(signature = (text, token_id, logprob, top_logprobs, finish_reason, reasoning=String::new(),
        tool_calls=None))]
    #[allow(clippy::too_many_arguments)]
    fn _rebuild(
        _cls: &Bound<'_, PyType>,
        text: String,
        token_id: Option<TokenId>,
        logprob: Option<Logprob>,
        top_logprobs: Option<Vec<Logprob>>,
        finish_reason: Option<String>,
        reasoning: String,
        tool_calls: Option<Vec<ToolCall>>,
    ) -> Piece {
        Piece { text, token_id, logprob, top_logprobs, finish_reason, reasoning, tool_calls }
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        by_fields(slf, &["text", "token_id", "logprob", "top_logprobs", "finish_reason", "reasoning", "tool_calls"])
    }

    fn __str__(&self) -> &str {
        &self.text
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        texts::equals(&self.text, other, |other: &Piece| Ok(self == other))
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        texts::hash(py, &self.text)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let thoughts = Some(&*self.reasoning).filter(|thoughts| !thoughts.is_empty());
        Ok(format!(
            "Piece(text={}{}{}, token_id={}, finish_reason={})",
            PyString::new(py, &self.text).repr()?,
            reasoning(py, thoughts)?,
            tool_calls_repr(py, self.tool_calls.as_ref())?,
            self.token_id.map_or("None".into(), |id| id.to_string()),
            quoted(self.finish_reason.as_deref())
        ))
    }
}

/// The fields of a completion, as `_rebuild` takes them.
const FIELDS: [&str; 15] = [
    "text",
    "token_ids",
    "finish_reason",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "seed",
    "ttft",
    "decode_seconds",
    "logprobs",
    "top_logprobs",
    "receipt",
    "reasoning",
    "_json",
    "tool_calls",
];

#[pymethods]
impl Completion {
    #[classmethod]
    #[pyo3(signature = (text, token_ids, finish_reason, prompt_tokens, cached_tokens, completion_tokens, seed, ttft,
        decode_seconds, logprobs, top_logprobs, receipt, reasoning=None, json=JsonForm::None, tool_calls=None))]
    #[allow(clippy::too_many_arguments)]
    fn _rebuild(
        _cls: &Bound<'_, PyType>,
        text: String,
        token_ids: Vec<TokenId>,
        finish_reason: Option<String>,
        prompt_tokens: usize,
        cached_tokens: usize,
        completion_tokens: usize,
        seed: u64,
        ttft: f64,
        decode_seconds: f64,
        logprobs: Option<Vec<Logprob>>,
        top_logprobs: Option<Vec<Vec<Logprob>>>,
        receipt: Option<Receipt>,
        reasoning: Option<String>,
        json: JsonForm,
        tool_calls: Option<Vec<ToolCall>>,
    ) -> Completion {
        Completion {
            text,
            token_ids,
            finish_reason,
            prompt_tokens,
            cached_tokens,
            completion_tokens,
            seed,
            ttft,
            decode_seconds,
            logprobs,
            top_logprobs,
            receipt,
            reasoning,
            json,
            tool_calls,
        }
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        by_fields(slf, &FIELDS)
    }

    #[doc = doc!(Completion.to_dict)]
    fn to_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        call_python("completion_dict", "bitnet._values", slf)
    }

    #[doc = doc!(Completion.parsed)]
    #[getter]
    fn parsed(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let is_whole = self.finish_reason.as_deref() == Some("stop");
        self.json.parse(py, is_whole.then_some(&self.text))
    }

    fn __str__(&self) -> &str {
        &self.text
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let fields = |c: &Completion| {
            let times = [c.ttft.to_bits(), c.decode_seconds.to_bits()];
            (
                c.token_ids.clone(),
                c.finish_reason.clone(),
                [c.prompt_tokens, c.cached_tokens, c.completion_tokens],
                c.seed,
                times,
            )
        };
        texts::equals(&self.text, other, |other: &Completion| {
            let receipts = match (&self.receipt, &other.receipt) {
                (Some(own), Some(other)) => own.core.document()? == other.core.document()?,
                (own, other) => own.is_none() && other.is_none(),
            };
            let logprobs = self.logprobs == other.logprobs && self.top_logprobs == other.top_logprobs;
            let texts = self.text == other.text && self.reasoning == other.reasoning;
            let texts = texts && self.tool_calls == other.tool_calls;
            Ok(texts && fields(self) == fields(other) && logprobs && receipts)
        })
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        texts::hash(py, &self.text)
    }

    fn __getattr__(&self, py: Python<'_>, name: &str) -> PyResult<Py<PyAny>> {
        Err(hints::attribute(py, "Completion", name))
    }

    fn __getitem__(&self, py: Python<'_>, _key: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        Err(hints::item(py, "Completion"))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "Completion(text={}{}{}, finish_reason={}, prompt_tokens={}, completion_tokens={})",
            PyString::new(py, &self.text).repr()?,
            reasoning(py, self.reasoning.as_deref())?,
            tool_calls_repr(py, self.tool_calls.as_ref())?,
            quoted(self.finish_reason.as_deref()),
            self.prompt_tokens,
            self.completion_tokens
        ))
    }
}
