//! The methods of `bitnet.Engine` that generate text.

use super::answers::{self, OneOrMany, Prompt, Questions, conversations, indexed, prompts};
use super::convert::{
    TokenIdError, checked_sequences, detached, engine_ids, named, optional_count, possible_ids, text_or_ids,
};
use super::engine::Engine;
use super::messages::{ChatArguments, Rendering};
use super::stream::Stream;
use super::template::chat_template;
use super::turn::ChatTurn;
use crate::chat;
use crate::engine::{TextOrIds, Watch};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

impl Engine {
    /// Prompts that are continued as they are.
    fn raw<'py>(
        &self,
        prompt: &Bound<'py, PyAny>,
        params: Option<&Bound<'py, PyAny>>,
        n: Option<&Bound<'py, PyAny>>,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<(Questions, OneOrMany<TextOrIds>)> {
        let core = self.core()?;
        let convert = |prompt: Bound<'py, PyAny>, i: Option<usize>| {
            let name = indexed("prompt", i);
            let of_list = |error: PyErr| {
                let is_nameless = i.is_some() && error.is_instance_of::<TokenIdError>(prompt.py());
                if is_nameless { named(error, &name, prompt.py()) } else { error }
            };
            text_or_ids(&prompt, &name, &core).map_err(of_list)
        };
        let prompts = prompts(prompt).try_map(convert)?;
        let raw = prompts.clone().try_map(|prompt, _| Ok(Prompt::Raw(prompt)))?;
        Ok((Questions::new(core, raw, params, n, keywords)?, prompts))
    }

    /// Warns of texts that were probably meant as messages.
    fn warn_of_raw(&self, py: Python<'_>, prompts: &OneOrMany<TextOrIds>) -> PyResult<()> {
        let core = self.core()?;
        if prompts.as_slice().iter().any(|prompt| matches!(prompt, TextOrIds::Text(_))) {
            self.warn_of_tokenizer(py, &core)?;
        }
        prompts.as_slice().iter().try_for_each(|prompt| answers::warn_of_raw(py, &core, prompt, &self.warned_of_raw))
    }

    /// Conversations whose next message is written.
    fn chats<'py>(
        &self,
        py: Python<'py>,
        messages: &Bound<'py, PyAny>,
        params: Option<&Bound<'py, PyAny>>,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Questions> {
        let core = self.core()?;
        self.warn_of_tokenizer(py, &core)?;
        let arguments = ChatArguments::new(py, keywords)?;
        let template = chat_template(py, &core, arguments.template.as_ref())?;
        let convert = |messages: Bound<'py, PyAny>, i| {
            let mut conversation = arguments.rendering().chat(&messages, &indexed("messages", i))?;
            conversation.calls = arguments.calls.clone();
            template.set_thinking(&mut conversation, arguments.enable_thinking)?;
            Ok(Prompt::Chat(template.clone(), Box::new(conversation)))
        };
        let prompts = conversations(messages).try_map(convert)?;
        Questions::new(core, prompts, params, arguments.n.as_ref(), Some(&arguments.sampling))
    }
}

#[pymethods]
impl Engine {
    #[doc = doc!(Engine.generate_tokens)]
    #[pyo3(signature = (ids, max_tokens=None, stop_token_ids=None))]
    fn generate_tokens<'py>(
        &self,
        py: Python<'py>,
        ids: &Bound<'py, PyAny>,
        max_tokens: Option<&Bound<'py, PyAny>>,
        stop_token_ids: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let stop = stop_token_ids.map_or(Ok(Vec::new()), |stop| possible_ids(stop, "stop_token_ids"))?;
        let max_tokens = optional_count(max_tokens, "max_tokens")?.unwrap_or(usize::MAX);
        let core = self.core()?;
        match prompts(ids) {
            OneOrMany::One(ids) => {
                let ids = engine_ids(&ids, "ids", &core)?;
                detached(py, |watch| core.generate(&ids, max_tokens, &stop, watch))?.into_bound_py_any(py)
            }
            OneOrMany::Many(prompts) => {
                let to_ids = |ids: &Bound<'py, PyAny>, name: &str| engine_ids(ids, name, &core);
                let all = checked_sequences(py, &core, prompts, 0, "ids", to_ids)?;
                detached(py, |watch| core.generate_many(&all, max_tokens, &stop, watch))?.into_bound_py_any(py)
            }
        }
    }

    #[doc = doc!(Engine.count_tokens)]
    fn count_tokens<'py>(&self, py: Python<'py>, prompt: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let core = self.core()?;
        let is_message = |item: Bound<'py, PyAny>| item.is_instance_of::<PyDict>() || item.is_instance_of::<ChatTurn>();
        if prompt.cast::<PyList>().is_ok_and(|list| list.iter().any(is_message)) {
            let conversation = Rendering::default().chat(prompt, "messages")?;
            let template = detached(py, |_| core.template())?;
            let count = |watch: &mut Watch| {
                let conversation = template.prepared(&conversation, watch)?;
                Ok(chat::encode(&template, core.tokenizer()?, &conversation, watch)?.len())
            };
            return detached(py, count)?.into_bound_py_any(py);
        }
        let count = |prompt: Bound<'py, PyAny>, i| {
            let prompt = text_or_ids(&prompt, &indexed("prompt", i), &core)?;
            detached(py, |watch| Ok(core.ids_of(prompt, watch)?.len()))
        };
        match prompts(prompt).try_map(count)? {
            OneOrMany::One(count) => count.into_bound_py_any(py),
            OneOrMany::Many(counts) => counts.into_bound_py_any(py),
        }
    }

    #[doc = doc!(Engine.stream)]
    #[pyo3(signature = (prompt, params=None, **keywords))]
    fn stream<'py>(
        &self,
        py: Python<'py>,
        prompt: &Bound<'py, PyAny>,
        params: Option<&Bound<'py, PyAny>>,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Stream> {
        let (questions, prompts) = self.raw(prompt, params, None, keywords)?;
        let (engine, prompt, params) = questions.single("stream")?;
        let stream = detached(py, |watch| answers::begin(engine, prompt, params, watch))?;
        self.warn_of_raw(py, &prompts)?;
        Ok(stream)
    }

    #[doc = doc!(Engine.generate)]
    #[pyo3(signature = (prompt, params=None, *, n=None, progress=false, **keywords))]
    fn generate<'py>(
        &self,
        py: Python<'py>,
        prompt: &Bound<'py, PyAny>,
        params: Option<&Bound<'py, PyAny>>,
        n: Option<&Bound<'py, PyAny>>,
        progress: bool,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (questions, prompts) = self.raw(prompt, params, n, keywords)?;
        self.warn_of_raw(py, &prompts)?;
        questions.answer(py, progress)
    }

    #[doc = doc!(Engine.agenerate)]
    #[pyo3(signature = (prompt, params=None, *, n=None, **keywords))]
    fn agenerate<'py>(
        &self,
        py: Python<'py>,
        prompt: &Bound<'py, PyAny>,
        params: Option<&Bound<'py, PyAny>>,
        n: Option<&Bound<'py, PyAny>>,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (questions, prompts) = self.raw(prompt, params, n, keywords)?;
        self.warn_of_raw(py, &prompts)?;
        questions.answer_async(py, "Engine.agenerate")
    }

    #[doc = doc!(Engine.chat)]
    #[pyo3(signature = (messages, params=None, *, progress=false, **keywords), text_signature = "($self, messages, \
        params=None, *, tools=None, tool_choice='auto', parallel_tool_calls=True, template=None, \
        add_generation_prompt=None, continue_final_message=False, enable_thinking=None, chat_template_kwargs=None, n=None, progress=False, **keywords)")]
    fn chat<'py>(
        &self,
        py: Python<'py>,
        messages: &Bound<'py, PyAny>,
        params: Option<&Bound<'py, PyAny>>,
        progress: bool,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.chats(py, messages, params, keywords)?.answer(py, progress)
    }

    #[doc = doc!(Engine.achat)]
    #[pyo3(signature = (messages, params=None, **keywords), text_signature = "($self, messages, params=None, *, tools=None, \
        tool_choice='auto', parallel_tool_calls=True, template=None, add_generation_prompt=None, \
        continue_final_message=False, enable_thinking=None, chat_template_kwargs=None, n=None, **keywords)")]
    fn achat<'py>(
        &self,
        py: Python<'py>,
        messages: &Bound<'py, PyAny>,
        params: Option<&Bound<'py, PyAny>>,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.chats(py, messages, params, keywords)?.answer_async(py, "Engine.achat")
    }

    #[doc = doc!(Engine.chat_stream)]
    #[pyo3(signature = (messages, params=None, **keywords), text_signature = "($self, messages, params=None, *, tools=None, \
        tool_choice='auto', parallel_tool_calls=True, template=None, add_generation_prompt=None, \
        continue_final_message=False, enable_thinking=None, chat_template_kwargs=None, **keywords)")]
    fn chat_stream<'py>(
        &self,
        py: Python<'py>,
        messages: &Bound<'py, PyAny>,
        params: Option<&Bound<'py, PyAny>>,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Stream> {
        let (engine, prompt, params) = self.chats(py, messages, params, keywords)?.single("chat_stream")?;
        detached(py, |watch| answers::begin(engine, prompt, params, watch))
    }
}
