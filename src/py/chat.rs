//! `bitnet.ChatSession`.

use super::awaitable::{awaitable, step};
use super::completion::Completion;
use super::convert::{count, detached, unicode};
use super::engine::Engine;
use super::hints;
use super::messages::session_turns;
use super::notebook::{html, mime_bundle};
use super::parsed::JsonForm;
use super::pickle::Reduced;
use super::processor::logits_processor;
use super::receipt::Receipt;
use super::sampling::{self, Params, SamplingParams};
use super::stream::Stream;
use super::template::{Template, chat_template};
use super::turn::ChatTurn;
use crate::chat::{ChatSession as CoreSession, ChatStream, UserTurn};
use crate::engine::Watch;
use crate::error::Result;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyDict, PyTuple, PyType};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[doc = doc!(ChatSession)]
#[pyclass(frozen, module = "bitnet")]
pub struct ChatSession {
    engine: Py<Engine>,
    core: Arc<Mutex<CoreSession>>,
    params: Params,
}

impl ChatSession {
    fn of(engine: Py<Engine>, core: CoreSession, params: Params) -> ChatSession {
        ChatSession { engine, core: Arc::new(Mutex::new(core)), params }
    }

    fn core(&self) -> MutexGuard<'_, CoreSession> {
        // A thread that begins an answer asks for the GIL while it holds the lock, so this one lets go of it.
        Python::attach(|py| self.core.lock_py_attached(py)).unwrap_or_else(PoisonError::into_inner)
    }

    /// What starts to answer the user's next text.
    fn asked(
        &self,
        text: &Bound<'_, PyAny>,
        params: Option<&SamplingParams>,
        enable_thinking: Option<bool>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<impl FnOnce(&mut Watch) -> Result<Stream> + Send + use<>> {
        let Params { core: params, hooks } = sampling::params_over(&self.params, params, keywords)?;
        let (engine, session) = (self.engine.get().core()?, self.core.clone());
        let json = JsonForm::new(&params, &hooks);
        let processor = hooks.processor.map(logits_processor);
        let user = UserTurn { text: unicode(text, "text")?, enable_thinking, processor };
        Ok(move |watch: &mut Watch| Ok(Stream::in_chat(ChatStream::begin(engine, session, user, params, watch)?, json)))
    }
}

#[pymethods]
impl ChatSession {
    #[new]
    #[pyo3(signature = (engine, system=None, *, messages=None, template=None, enable_thinking=None, params=None,
        **keywords))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        engine: Py<Engine>,
        system: Option<&Bound<'_, PyAny>>,
        messages: Option<&Bound<'_, PyAny>>,
        template: Option<&Bound<'_, PyAny>>,
        enable_thinking: Option<bool>,
        params: Option<&SamplingParams>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<ChatSession> {
        let core = engine.get().core()?;
        let template = chat_template(py, &core, template)?;
        let system = system.map(|text| unicode(text, "system")).transpose()?;
        let (first, turns) = messages.map(session_turns).transpose()?.unwrap_or_default();
        if system.is_some() && first.is_some() {
            let twice = "messages begins with a system prompt, and system gives another; give one of them";
            return Err(PyTypeError::new_err(twice));
        }
        let params = sampling::params(params, keywords)?;
        enable_thinking.map_or(Ok(()), |_| template.check_thinking())?;
        let mut core = CoreSession::new(template, system.or(first));
        (core.turns, core.enable_thinking) = (turns, enable_thinking);
        Ok(ChatSession::of(engine, core, params))
    }

    #[doc = doc!(ChatSession.stream)]
    #[pyo3(signature = (text, params=None, *, enable_thinking=None, **keywords))]
    fn stream(
        &self,
        py: Python<'_>,
        text: &Bound<'_, PyAny>,
        params: Option<&SamplingParams>,
        enable_thinking: Option<bool>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Stream> {
        let begin = self.asked(text, params, enable_thinking, keywords)?;
        detached(py, begin)
    }

    #[doc = doc!(ChatSession.send)]
    #[pyo3(signature = (text, params=None, *, enable_thinking=None, **keywords))]
    fn send(
        &self,
        py: Python<'_>,
        text: &Bound<'_, PyAny>,
        params: Option<&SamplingParams>,
        enable_thinking: Option<bool>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Completion> {
        self.stream(py, text, params, enable_thinking, keywords)?.complete(py)
    }

    #[doc = doc!(ChatSession.asend)]
    #[pyo3(signature = (text, params=None, *, enable_thinking=None, **keywords))]
    fn asend<'py>(
        &self,
        py: Python<'py>,
        text: &Bound<'_, PyAny>,
        params: Option<&SamplingParams>,
        enable_thinking: Option<bool>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let begin = self.asked(text, params, enable_thinking, keywords)?;
        awaitable(py, "ChatSession.asend", |abandoned| async move {
            step(&abandoned, |watch| Ok(begin(watch)?)).await?.complete_async(&abandoned).await
        })
    }

    #[doc = doc!(ChatSession.clear)]
    fn clear(&self) -> PyResult<()> {
        Ok(self.core().clear()?)
    }

    #[doc = doc!(ChatSession.fork)]
    fn fork(&self, py: Python<'_>) -> PyResult<ChatSession> {
        let (engine, params) = (self.engine.clone_ref(py), self.params.clone());
        let core = self.core();
        core.check_idle()?;
        Ok(ChatSession::of(engine, core.clone(), params))
    }

    #[doc = doc!(ChatSession.rewind)]
    fn rewind(&self, n: &Bound<'_, PyAny>) -> PyResult<()> {
        let n = count(n, "n", 0)?;
        Ok(self.core().rewind(n)?)
    }

    #[doc = doc!(ChatSession.to_json)]
    fn to_json(&self) -> PyResult<String> {
        Ok(self.core().to_json(&self.params.core)?)
    }

    #[doc = doc!(ChatSession.from_json)]
    #[staticmethod]
    #[pyo3(signature = (engine, text, *, template=None))]
    fn from_json(engine: Py<Engine>, text: &str, template: Option<&Template>) -> PyResult<ChatSession> {
        let (mut core, params) = CoreSession::from_json(text)?;
        if let Some(template) = template {
            core.template = template.core().clone();
        }
        Ok(ChatSession::of(engine, core, Params { core: params, ..Params::default() }))
    }

    #[doc = doc!(ChatSession.save)]
    #[pyo3(signature = (path, *, cache=false))]
    fn save(&self, py: Python<'_>, path: PathBuf, cache: bool) -> PyResult<PathBuf> {
        let (engine, core) = (self.engine.get().core()?, self.core().clone());
        detached(py, |watch| core.save(&self.params.core, cache.then_some(&*engine), &path, watch))?;
        Ok(path)
    }

    #[doc = doc!(ChatSession.load)]
    #[staticmethod]
    #[pyo3(signature = (engine, path, *, cache=true))]
    fn load(py: Python<'_>, engine: Py<Engine>, path: PathBuf, cache: bool) -> PyResult<ChatSession> {
        let opened = engine.get().core()?;
        let (core, params) = detached(py, |watch| CoreSession::load(&opened, cache, &path, watch))?;
        Ok(ChatSession::of(engine, core, Params { core: params, ..Params::default() }))
    }

    #[doc = doc!(ChatSession.engine)]
    #[getter]
    fn engine(&self, py: Python<'_>) -> Py<Engine> {
        self.engine.clone_ref(py)
    }

    #[doc = doc!(ChatSession.template)]
    #[getter]
    fn template(&self) -> Template {
        Template::of(self.core().template.clone())
    }

    #[doc = doc!(ChatSession.system)]
    #[getter]
    fn system(&self) -> Option<String> {
        self.core().system.clone()
    }

    #[doc = doc!(ChatSession.enable_thinking)]
    #[getter]
    fn enable_thinking(&self) -> Option<bool> {
        self.core().enable_thinking
    }

    #[doc = doc!(ChatSession.params)]
    #[getter]
    fn params(&self) -> SamplingParams {
        SamplingParams { all: self.params.clone() }
    }

    #[doc = doc!(ChatSession.history)]
    #[getter]
    fn history(&self) -> Vec<ChatTurn> {
        self.core().turns.iter().map(|turn| ChatTurn { core: turn.clone() }).collect()
    }

    // The API's name for the evicted turns.
    #[doc = doc!(ChatSession.forgotten)]
    #[getter]
    fn forgotten(&self) -> usize {
        self.core().evicted_turns
    }

    #[doc = doc!(ChatSession.receipts)]
    #[getter]
    fn receipts(&self) -> Vec<Receipt> {
        self.core().receipts.iter().map(|receipt| Receipt { core: receipt.clone() }).collect()
    }

    #[doc = doc!(ChatSession.metrics)]
    #[getter]
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let sums = self.core().metrics();
        let metrics = PyDict::new(py);
        metrics.set_item("exchanges", sums.exchanges)?;
        metrics.set_item("prompt_tokens", sums.prompt_tokens)?;
        metrics.set_item("cached_tokens", sums.cached_tokens)?;
        metrics.set_item("completion_tokens", sums.completion_tokens)?;
        metrics.set_item("prefill_seconds", sums.prefill_seconds)?;
        metrics.set_item("decode_seconds", sums.decode_seconds)?;
        metrics.set_item("wall_seconds", sums.wall_seconds)?;
        metrics.set_item("prefill_tokens_per_second", sums.prefill_tokens_per_second())?;
        metrics.set_item("decode_tokens_per_second", sums.decode_tokens_per_second())?;
        Ok(metrics)
    }

    fn __getattr__(&self, py: Python<'_>, name: &str) -> PyResult<Py<PyAny>> {
        Err(hints::attribute(py, "ChatSession", name))
    }

    #[pyo3(signature = (*_arguments, **_keywords))]
    fn __call__(&self, _arguments: &Bound<'_, PyTuple>, _keywords: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        Err(PyTypeError::new_err("a ChatSession is not a function; call chat.send(text)"))
    }

    #[classmethod]
    fn _rebuild(
        _cls: &Bound<'_, PyType>,
        engine: Py<Engine>,
        text: &str,
        template: &Template,
        receipts: Vec<Receipt>,
    ) -> PyResult<ChatSession> {
        let (mut core, params) = CoreSession::from_json(text)?;
        core.template = template.core().clone();
        core.receipts = receipts.into_iter().map(|receipt| receipt.core).collect();
        Ok(ChatSession::of(engine, core, Params { core: params, ..Params::default() }))
    }

    /// Without its KV cache, which the first answer computes again.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        let session = slf.get();
        session.core().check_idle()?;
        let (engine, text) = (session.engine.clone_ref(slf.py()), session.to_json()?);
        let arguments = (engine, text, session.template(), session.receipts()).into_pyobject(slf.py())?;
        Ok((slf.get_type().getattr("_rebuild")?, arguments))
    }

    fn __copy__(&self, py: Python<'_>) -> PyResult<ChatSession> {
        self.fork(py)
    }

    fn __deepcopy__(&self, py: Python<'_>, _memo: &Bound<'_, PyAny>) -> PyResult<ChatSession> {
        self.fork(py)
    }

    fn __repr__(&self) -> String {
        let core = self.core();
        format!("<ChatSession {} turns, template {}>", core.turns.len(), core.template.name())
    }

    fn _repr_html_<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        html(slf)
    }

    #[pyo3(signature = (**_options))]
    fn _repr_mimebundle_<'py>(
        slf: &Bound<'py, Self>,
        _options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        mime_bundle(slf)
    }
}
