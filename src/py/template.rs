//! `bitnet.Template`.

use super::convert::{ArgumentError, detached, model_path, unicode};
use super::hints;
use super::messages::Rendering;
use super::notebook::{html, mime_bundle};
use super::pickle::Reduced;
use super::spans::Span;
use super::tokenizer::Tokenizer;
use super::turn::ChatTurn;
use crate::chat;
use crate::engine::{Engine, spans, template_of_file};
use crate::template::{ChatTurn as CoreTurn, Conversation, Template as CoreTemplate, TemplateOrigin};
use crate::token::TokenId;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};
use std::path::PathBuf;
use std::sync::Arc;

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
    #[pyo3(signature = (path, variant=None))]
    fn from_model(
        py: Python<'_>,
        #[pyo3(from_py_with = model_path)] path: PathBuf,
        variant: Option<&str>,
    ) -> PyResult<Template> {
        Ok(Template::of(Arc::new(detached(py, |_| template_of_file(&path, variant))?)))
    }

    #[doc = doc!(Template.render)]
    #[pyo3(signature = (messages, tools=None, add_generation_prompt=None, continue_final_message=false, **variables))]
    fn render<'py>(
        &self,
        py: Python<'py>,
        messages: &Bound<'py, PyAny>,
        tools: Option<&Bound<'py, PyAny>>,
        add_generation_prompt: Option<bool>,
        continue_final_message: bool,
        variables: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<String> {
        let rendering = Rendering { tools, add_generation_prompt, continue_final_message, variables };
        let conversation = rendering.conversation(messages, "messages")?;
        detached(py, |watch| self.core.render_conversation(&conversation, watch))
    }

    #[doc = doc!(Template.encode)]
    #[pyo3(signature = (messages, tokenizer, tools=None, add_generation_prompt=None, continue_final_message=false,
        **variables))]
    #[allow(clippy::too_many_arguments)]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        messages: &Bound<'py, PyAny>,
        tokenizer: &Tokenizer,
        tools: Option<&Bound<'py, PyAny>>,
        add_generation_prompt: Option<bool>,
        continue_final_message: bool,
        variables: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Vec<TokenId>> {
        let rendering = Rendering { tools, add_generation_prompt, continue_final_message, variables };
        let conversation = rendering.conversation(messages, "messages")?;
        detached(py, |watch| chat::encode(&self.core, tokenizer.core(), &conversation, watch))
    }

    #[doc = doc!(Template.spans)]
    #[pyo3(signature = (messages, tools=None, add_generation_prompt=None, continue_final_message=false, *,
        tokenizer=None, **variables))]
    #[allow(clippy::too_many_arguments)]
    fn spans<'py>(
        &self,
        py: Python<'py>,
        messages: &Bound<'py, PyAny>,
        tools: Option<&Bound<'py, PyAny>>,
        add_generation_prompt: Option<bool>,
        continue_final_message: bool,
        tokenizer: Option<&Tokenizer>,
        variables: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Vec<Span>> {
        let rendering = Rendering { tools, add_generation_prompt, continue_final_message, variables };
        let conversation = rendering.conversation(messages, "messages")?;
        let spans = detached(py, |watch| spans(&self.core, &conversation, tokenizer.map(Tokenizer::core), watch))?;
        Ok(spans.into_iter().map(Span::from).collect())
    }

    #[doc = doc!(Template.render_chat)]
    #[pyo3(signature = (history, system=None))]
    fn render_chat(&self, py: Python<'_>, history: Vec<ChatTurn>, system: Option<&str>) -> PyResult<String> {
        let turns: Vec<CoreTurn> = history.into_iter().map(|turn| turn.core).collect();
        let conversation = Conversation::from_turns(&turns, system);
        detached(py, |watch| self.core.render_conversation(&conversation, watch))
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

    fn __getattr__(&self, py: Python<'_>, name: &str) -> PyResult<Py<PyAny>> {
        Err(hints::attribute(py, "Template", name))
    }

    #[classmethod]
    #[allow(clippy::too_many_arguments)]
    fn _rebuild(
        _cls: &Bound<'_, PyType>,
        source: &str,
        bos_token: Option<&str>,
        eos_token: Option<&str>,
        origin: &str,
        warning: Option<String>,
        tool_use: Option<&Template>,
        clock: Option<&str>,
    ) -> PyResult<Template> {
        let mut core = CoreTemplate::from_jinja(source, bos_token, eos_token)?;
        core.origin = TemplateOrigin::ALL.into_iter().find(|known| known.name() == origin).unwrap_or(core.origin);
        core.warning = warning;
        core.tool_use = tool_use.map(|template| template.core.clone());
        Ok(Template::of(Arc::new(clock.map_or(Ok(core.clone()), |clock| core.at(clock))?)))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        let core = &slf.get().core;
        let tool_use = core.tool_use.clone().map(Template::of);
        let (bos, eos) = (core.bos_token.as_deref(), core.eos_token.as_deref());
        let (origin, warning) = (core.origin.name(), core.warning.as_deref());
        let arguments = (core.source.as_str(), bos, eos, origin, warning, tool_use, core.clock());
        Ok((slf.get_type().getattr("_rebuild")?, arguments.into_pyobject(slf.py())?))
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

/// The template that an argument names: a Template, a built-in one or one of the model's; by default the model's own.
pub fn chat_template(
    py: Python<'_>,
    core: &Engine,
    template: Option<&Bound<'_, PyAny>>,
) -> PyResult<Arc<CoreTemplate>> {
    let Some(template) = template else { return detached(py, |_| core.template()) };
    if let Ok(template) = template.cast::<Template>() {
        return Ok(template.get().core().clone());
    }
    let name = unicode(template, "template")?;
    if name.contains("{{") || name.contains("{%") {
        let wrong = "template is a Jinja source, expected a Template or a name; write Template.from_jinja(source)";
        return Err(ArgumentError::new_err(wrong));
    }
    Ok(Arc::new(detached(py, |_| core.template_named(&name))?))
}
