//! `bitnet.Tokenizer`.

use super::convert::{detached, file_path, to_token_ids, token_ids, unicode};
use crate::engine::Engine;
use crate::error::Result;
use crate::token::TokenId;
use crate::tokenizer::Tokenizer as CoreTokenizer;
use pyo3::prelude::*;
use std::path::PathBuf;
use std::sync::Arc;

#[doc = doc!(Tokenizer)]
#[pyclass(frozen, module = "bitnet")]
pub struct Tokenizer {
    owner: Owner,
}

/// Who owns the tokenizer.
enum Owner {
    Itself(Box<CoreTokenizer>),
    Engine(Arc<Engine>),
}

impl Tokenizer {
    /// The tokenizer of an engine. Fails if the engine's file has none.
    pub fn of(engine: Arc<Engine>) -> Result<Tokenizer> {
        engine.tokenizer()?;
        Ok(Tokenizer { owner: Owner::Engine(engine) })
    }

    /// The core's tokenizer, which does the work.
    pub fn core(&self) -> &CoreTokenizer {
        match &self.owner {
            Owner::Itself(core) => core,
            Owner::Engine(engine) => engine.tokenizer().expect("`of` checked it"),
        }
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
    fn new(py: Python<'_>, #[pyo3(from_py_with = file_path)] path: PathBuf, pre: Option<String>) -> PyResult<Self> {
        let core = detached(py, |_| CoreTokenizer::open(&path, pre.as_deref()))?;
        Ok(Tokenizer { owner: Owner::Itself(Box::new(core)) })
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
            Owner::Itself(core) => core.vocab_size(),
            Owner::Engine(engine) => engine.n_vocab(),
        };
        decode(py, self.core(), n_vocab, ids, skip_special_tokens)
    }

    #[doc = doc!(Tokenizer.id_to_token)]
    fn id_to_token(&self, id: TokenId) -> Option<String> {
        self.core().text_of(id).map(str::to_string)
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

    #[doc = doc!(Tokenizer.warning)]
    #[getter]
    fn warning(&self) -> Option<&str> {
        self.core().warning.as_deref()
    }

    fn __repr__(&self) -> String {
        format!("<Tokenizer {} {} tokens>", self.core().pre, self.core().vocab_size())
    }
}
