//! `bitnet.Tokenizer`.

use super::answers::{conversations, indexed};
use super::convert::{detached, model_path, to_token_ids, token_ids, unicode};
use super::hints;
use super::messages::Rendering;
use super::pickle::{Reduced, by_function};
use crate::chat;
use crate::engine::{Engine, template_of_file};
use crate::error::Result;
use crate::template::Template;
use crate::token::TokenId;
use crate::tokenizer::Tokenizer as CoreTokenizer;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

#[doc = doc!(Tokenizer)]
#[pyclass(frozen, module = "bitnet")]
pub struct Tokenizer {
    owner: Owner,
    /// The template of the model, once it is asked for.
    template: OnceLock<Arc<Template>>,
}

/// Who owns the tokenizer.
enum Owner {
    /// Opened from this absolute path, with this choice of a pre-tokenizer.
    Itself(Box<CoreTokenizer>, PathBuf, Option<String>),
    Engine(Arc<Engine>),
}

impl Tokenizer {
    /// The tokenizer of an engine. Fails if the engine's file has none.
    pub fn of(engine: Arc<Engine>) -> Result<Tokenizer> {
        engine.tokenizer()?;
        Ok(Tokenizer { owner: Owner::Engine(engine), template: OnceLock::new() })
    }

    /// The core's tokenizer, which does the work.
    pub fn core(&self) -> &CoreTokenizer {
        match &self.owner {
            Owner::Itself(core, ..) => core,
            Owner::Engine(engine) => engine.tokenizer().expect("`of` checked it"),
        }
    }
}

impl Tokenizer {
    /// The chat template of the model.
    fn template(&self) -> Result<Arc<Template>> {
        if let Some(template) = self.template.get() {
            return Ok(template.clone());
        }
        let template = match &self.owner {
            Owner::Engine(engine) => engine.template()?,
            Owner::Itself(_, path, _) => template_of_file(path, None)?.into(),
        };
        Ok(self.template.get_or_init(|| template).clone())
    }
}

/// The text of token ids below `n_vocab`.
pub fn decode(
    py: Python<'_>,
    core: &CoreTokenizer,
    n_vocab: usize,
    ids: &Bound<'_, PyAny>,
    skip_special_tokens: bool,
) -> PyResult<String> {
    let ids = to_token_ids(&token_ids(ids, "ids")?, n_vocab.max(core.vocab_size()))?;
    detached(py, |_| Ok(core.decode(&ids, skip_special_tokens)))
}

#[pymethods]
impl Tokenizer {
    #[new]
    #[pyo3(signature = (path, *, pre=None))]
    fn new(py: Python<'_>, #[pyo3(from_py_with = model_path)] path: PathBuf, pre: Option<String>) -> PyResult<Self> {
        let core = detached(py, |_| CoreTokenizer::open(&path, pre.as_deref()))?;
        let path = std::path::absolute(&path).unwrap_or(path);
        Ok(Tokenizer { owner: Owner::Itself(Box::new(core), path, pre), template: OnceLock::new() })
    }

    #[doc = doc!(Tokenizer.from_pretrained)]
    #[classmethod]
    #[pyo3(signature = (repo_id, filename=None, **how))]
    fn from_pretrained<'py>(
        cls: &Bound<'py, PyType>,
        repo_id: &Bound<'py, PyAny>,
        filename: Option<&Bound<'py, PyAny>>,
        how: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        cls.call1((cls.py().import("bitnet.hub")?.call_method("model_file", (repo_id, filename), how)?,))
    }

    #[doc = doc!(Tokenizer.encode)]
    #[pyo3(signature = (text, add_bos=false, parse_special=false))]
    pub fn encode(
        &self,
        py: Python<'_>,
        text: &Bound<'_, PyAny>,
        add_bos: bool,
        parse_special: bool,
    ) -> PyResult<Vec<TokenId>> {
        let text = unicode(text, "text")?;
        detached(py, |watch| self.core().encode_watched(&text, add_bos, parse_special, watch))
    }

    #[doc = doc!(Tokenizer.decode)]
    #[pyo3(signature = (ids, skip_special_tokens=true))]
    fn decode(&self, py: Python<'_>, ids: &Bound<'_, PyAny>, skip_special_tokens: bool) -> PyResult<String> {
        let n_vocab = match &self.owner {
            Owner::Itself(core, ..) => core.vocab_size(),
            Owner::Engine(engine) => engine.n_vocab(),
        };
        decode(py, self.core(), n_vocab, ids, skip_special_tokens)
    }

    #[doc = doc!(Tokenizer.id_to_token)]
    fn id_to_token(&self, id: i64) -> Option<String> {
        self.core().text_of(TokenId::try_from(id).ok()?).map(str::to_string)
    }

    #[doc = doc!(Tokenizer.token_to_id)]
    fn token_to_id(&self, token: &str) -> Option<TokenId> {
        self.core().id_of(token)
    }

    #[doc = doc!(Tokenizer.vocab_size)]
    #[getter]
    fn vocab_size(&self) -> usize {
        self.core().vocab_size()
    }

    #[doc = doc!(Tokenizer.bos_token_id)]
    #[getter]
    fn bos_token_id(&self) -> Option<TokenId> {
        self.core().bos
    }

    #[doc = doc!(Tokenizer.eos_token_id)]
    #[getter]
    fn eos_token_id(&self) -> Option<TokenId> {
        self.core().eos
    }

    #[doc = doc!(Tokenizer.add_bos)]
    #[getter]
    fn add_bos(&self) -> bool {
        self.core().add_bos
    }

    #[doc = doc!(Tokenizer.stop_token_ids)]
    #[getter]
    fn stop_token_ids(&self) -> Vec<TokenId> {
        self.core().stop.to_vec()
    }

    #[doc = doc!(Tokenizer.pre)]
    #[getter]
    fn pre(&self) -> String {
        self.core().pre.to_string()
    }

    #[doc = doc!(Tokenizer.apply_chat_template)]
    #[pyo3(signature = (messages, tools=None, add_generation_prompt=false, continue_final_message=false, tokenize=true,
        **variables))]
    #[allow(clippy::too_many_arguments)]
    fn apply_chat_template<'py>(
        &self,
        py: Python<'py>,
        messages: &Bound<'py, PyAny>,
        tools: Option<&Bound<'py, PyAny>>,
        add_generation_prompt: bool,
        continue_final_message: bool,
        tokenize: bool,
        variables: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let template = detached(py, |_| self.template())?;
        let add_generation_prompt = Some(add_generation_prompt);
        let rendering = Rendering { tools, add_generation_prompt, continue_final_message, variables };
        let one = |messages: Bound<'py, PyAny>, i| {
            let conversation = rendering.conversation(&messages, &indexed("messages", i))?;
            if tokenize {
                detached(py, |watch| chat::encode(&template, self.core(), &conversation, watch))?.into_bound_py_any(py)
            } else {
                detached(py, |watch| template.render_conversation(&conversation, watch))?.into_bound_py_any(py)
            }
        };
        conversations(messages).try_map(one)?.into_bound_py_any(py)
    }

    fn __getattr__(&self, py: Python<'_>, name: &str) -> PyResult<Py<PyAny>> {
        Err(hints::attribute(py, "Tokenizer", name))
    }

    #[pyo3(signature = (*_arguments, **_keywords))]
    fn __call__(&self, _arguments: &Bound<'_, PyTuple>, _keywords: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        Err(PyTypeError::new_err("a Tokenizer is not a function; call tokenizer.encode(text)"))
    }

    fn __len__(&self) -> usize {
        self.core().vocab_size()
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        let (path, pre) = match &self.owner {
            Owner::Itself(_, path, pre) => (path.as_path(), pre.as_deref()),
            Owner::Engine(engine) => (engine.gguf().path(), None),
        };
        let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
        by_function(py, "tokenizer", (path, pre))
    }

    #[doc = doc!(Tokenizer.warning)]
    #[getter]
    fn warning(&self) -> Option<&str> {
        self.core().warning.as_deref()
    }

    fn __repr__(&self) -> String {
        format!("<Tokenizer {} {} tokens>", self.core().pre, self.core().vocab_size())
    }
}
