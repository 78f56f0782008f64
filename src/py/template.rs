//! `bitnet.Template` and `bitnet.ChatTurn`.

use super::convert::{TemplateError, detached, type_name, unicode};
use super::notebook::{html, mime_bundle};
use super::spans::Span;
use super::tokenizer::Tokenizer;
use crate::engine::{spans, template_of_file};
use crate::error::Error;
use crate::template::{ChatTurn as CoreTurn, Conversation, Template as CoreTemplate};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use serde_json::{Map, Value as Json};
use std::path::PathBuf;
use std::sync::Arc;

/// Levels of nesting that messages, tools and variables may have: templates recurse through them.
const MAX_NESTING: usize = 200;

#[doc = doc!(ChatTurn)]
#[pyclass(frozen, eq, hash, from_py_object, module = "bitnet")]
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ChatTurn {
    pub core: CoreTurn,
}

#[pymethods]
impl ChatTurn {
    #[new]
    #[pyo3(signature = (role, text, cancelled=false))]
    fn new(role: &str, text: &Bound<'_, PyAny>, cancelled: bool) -> PyResult<ChatTurn> {
        Ok(ChatTurn { core: CoreTurn { role: role.parse()?, text: unicode(text, "text")?, cancelled } })
    }

    #[doc = doc!(ChatTurn.role)]
    #[getter]
    fn role(&self) -> &'static str {
        self.core.role.name()
    }

    #[doc = doc!(ChatTurn.text)]
    #[getter]
    fn text(&self) -> &str {
        &self.core.text
    }

    #[doc = doc!(ChatTurn.cancelled)]
    #[getter]
    fn cancelled(&self) -> bool {
        self.core.cancelled
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let text = PyString::new(py, &self.core.text).repr()?;
        let cancelled = if self.core.cancelled { ", cancelled=True" } else { "" };
        Ok(format!("ChatTurn('{}', {text}{cancelled})", self.role()))
    }
}

#[doc = doc!(Template)]
#[pyclass(frozen, eq, module = "bitnet")]
#[derive(PartialEq)]
pub struct Template {
    core: Arc<CoreTemplate>,
}

impl Template {
    /// The Python object for a template of the core.
    pub fn of(core: Arc<CoreTemplate>) -> Template {
        Template { core }
    }

    /// The core's template, which does the work.
    pub fn core(&self) -> &Arc<CoreTemplate> {
        &self.core
    }
}

#[pymethods]
impl Template {
    #[doc = doc!(Template.from_jinja)]
    #[staticmethod]
    #[pyo3(signature = (source, bos_token=None, eos_token=None))]
    fn from_jinja(source: &str, bos_token: Option<&str>, eos_token: Option<&str>) -> PyResult<Template> {
        Ok(Template::of(Arc::new(CoreTemplate::from_jinja(source, bos_token, eos_token)?)))
    }

    #[doc = doc!(Template.named)]
    #[staticmethod]
    #[pyo3(signature = (name, bos_token=None, eos_token=None))]
    fn named(name: &str, bos_token: Option<&str>, eos_token: Option<&str>) -> PyResult<Template> {
        Ok(Template::of(Arc::new(CoreTemplate::named(name, bos_token, eos_token)?)))
    }

    #[doc = doc!(Template.detect)]
    #[staticmethod]
    #[pyo3(signature = (jinja=None, tokenizer_name=None, bos_token=None, eos_token=None))]
    fn detect(
        jinja: Option<&str>,
        tokenizer_name: Option<&str>,
        bos_token: Option<&str>,
        eos_token: Option<&str>,
    ) -> PyResult<Template> {
        Ok(Template::of(Arc::new(CoreTemplate::detect(jinja, tokenizer_name, bos_token, eos_token)?)))
    }

    #[doc = doc!(Template.from_model)]
    #[staticmethod]
    fn from_model(py: Python<'_>, path: PathBuf) -> PyResult<Template> {
        Ok(Template::of(Arc::new(detached(py, |_| template_of_file(&path))?)))
    }

    #[doc = doc!(Template.render)]
    #[pyo3(signature = (messages, tools=None, add_generation_prompt=true, **variables))]
    fn render(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        tools: Option<&Bound<'_, PyAny>>,
        add_generation_prompt: bool,
        variables: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<String> {
        let conversation = conversation(messages, tools, add_generation_prompt, variables)?;
        detached(py, |_| self.core.render_conversation(&conversation))
    }

    #[doc = doc!(Template.spans)]
    #[pyo3(signature = (messages, tools=None, add_generation_prompt=true, *, tokenizer=None, **variables))]
    fn spans(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        tools: Option<&Bound<'_, PyAny>>,
        add_generation_prompt: bool,
        tokenizer: Option<&Tokenizer>,
        variables: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Vec<Span>> {
        let conversation = conversation(messages, tools, add_generation_prompt, variables)?;
        let spans = detached(py, |_| spans(&self.core, &conversation, tokenizer.map(Tokenizer::core)))?;
        Ok(spans.into_iter().map(Span::from).collect())
    }

    #[doc = doc!(Template.render_chat)]
    #[pyo3(signature = (history, system=None))]
    fn render_chat(&self, py: Python<'_>, history: Vec<ChatTurn>, system: Option<&str>) -> PyResult<String> {
        let turns: Vec<CoreTurn> = history.into_iter().map(|turn| turn.core).collect();
        let conversation = Conversation::from_turns(&turns, system);
        detached(py, |_| self.core.render_conversation(&conversation))
    }

    #[doc = doc!(Template.apply)]
    #[pyo3(signature = (user, system=None))]
    fn apply(&self, py: Python<'_>, user: &str, system: Option<&str>) -> PyResult<String> {
        detached(py, |_| self.core.apply(user, system))
    }

    #[doc = doc!(Template.at)]
    fn at(&self, now: &str) -> PyResult<Template> {
        Ok(Template::of(Arc::new(self.core.at(now)?)))
    }

    #[doc = doc!(Template.name)]
    #[getter]
    fn name(&self) -> &str {
        self.core.name()
    }

    #[doc = doc!(Template.source)]
    #[getter]
    fn source(&self) -> &str {
        &self.core.source
    }

    #[doc = doc!(Template.origin)]
    #[getter]
    fn origin(&self) -> &'static str {
        self.core.origin.name()
    }

    #[doc = doc!(Template.warning)]
    #[getter]
    fn warning(&self) -> Option<&str> {
        self.core.warning.as_deref()
    }

    #[doc = doc!(Template.bos_token)]
    #[getter]
    fn bos_token(&self) -> Option<&str> {
        self.core.bos_token.as_deref()
    }

    #[doc = doc!(Template.eos_token)]
    #[getter]
    fn eos_token(&self) -> Option<&str> {
        self.core.eos_token.as_deref()
    }

    #[doc = doc!(Template.stop_sequences)]
    #[getter]
    fn stop_sequences(&self) -> Vec<String> {
        self.core.stop_sequences()
    }

    #[doc = doc!(Template.add_bos)]
    #[getter]
    fn add_bos(&self, py: Python<'_>) -> PyResult<bool> {
        let text = detached(py, |_| self.core.apply("text", None))?;
        Ok(self.core.add_bos(self.core.bos_token.is_some(), &text))
    }

    fn __repr__(&self) -> String {
        format!("<Template {} from {}>", self.name(), self.origin())
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

/// The arguments of `render`: messages are ChatTurns, or dicts that reach the template unchanged.
pub fn conversation(
    messages: &Bound<'_, PyAny>,
    tools: Option<&Bound<'_, PyAny>>,
    add_generation_prompt: bool,
    variables: Option<&Bound<'_, PyDict>>,
) -> PyResult<Conversation> {
    for (name, list) in [("messages", Some(messages)), ("tools", tools)] {
        if let Some(list) = list.filter(|list| !list.is_instance_of::<PyList>() && !list.is_instance_of::<PyTuple>()) {
            return Err(PyTypeError::new_err(format!("{name} must be a list, found {}", type_name(list))));
        }
    }
    for (i, tool) in tools.into_iter().flat_map(|tools| tools.try_iter()).flatten().enumerate() {
        if tool?.is_callable() {
            let message = format!("tools[{i}] is a function; give its JSON schema as a dict");
            return Err(PyTypeError::new_err(message));
        }
    }
    let variable = |(name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
        let name: String = name.extract()?;
        Ok((name.clone(), to_json(&value, &name, 0)?))
    };
    Ok(Conversation {
        messages: to_json(messages, "messages", 0)?,
        tools: tools.map_or(Ok(Json::Null), |tools| to_json(tools, "tools", 0))?,
        add_generation_prompt,
        variables: variables.map_or(Ok(Map::new()), |all| all.iter().map(variable).collect::<PyResult<_>>())?,
    })
}

/// A Python value as JSON. Tuples count as lists; `path` names the value in errors.
fn to_json(value: &Bound<'_, PyAny>, path: &str, depth: usize) -> PyResult<Json> {
    if depth > MAX_NESTING {
        return Err(Error::Template(format!("{path} is nested more than {MAX_NESTING} deep")).into());
    }
    if value.is_none() {
        Ok(Json::Null)
    } else if let Ok(text) = value.cast::<PyString>() {
        Ok(unicode(text, path)?.into())
    } else if let Ok(yes) = value.cast::<PyBool>() {
        Ok(yes.is_true().into())
    } else if value.is_instance_of::<PyInt>() {
        let whole = value.extract::<i64>().map(Json::from).or_else(|_| value.extract::<u64>().map(Json::from));
        whole.map_err(|_| TemplateError::new_err(format!("{path} is an int of more than 64 bits")))
    } else if let Ok(float) = value.cast::<PyFloat>() {
        let number = serde_json::Number::from_f64(float.value());
        let number =
            number.ok_or_else(|| TemplateError::new_err(format!("{path} is {value}, which JSON cannot express")));
        Ok(number?.into())
    } else if let Ok(dict) = value.cast::<PyDict>() {
        let item = |(key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
            let path = format!("{path}[{}]", key.repr()?);
            let text = key.cast::<PyString>().map_err(|_| {
                PyTypeError::new_err(format!("{path}: the key is of type {}, expected str", type_name(&key)))
            })?;
            Ok((unicode(text, &path)?, to_json(&value, &path, depth + 1)?))
        };
        Ok(dict.iter().map(item).collect::<PyResult<Map<String, Json>>>()?.into())
    } else if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let item = |(i, item): (usize, PyResult<Bound<'_, PyAny>>)| to_json(&item?, &format!("{path}[{i}]"), depth + 1);
        Ok(value.try_iter()?.enumerate().map(item).collect::<PyResult<Vec<Json>>>()?.into())
    } else if let Ok(turn) = value.cast::<ChatTurn>() {
        Ok(turn.get().core.message())
    } else {
        let kind = type_name(value);
        Err(PyTypeError::new_err(format!("{path} is of type {kind}, which JSON cannot express")))
    }
}
