//! `bitnet.Tokenizer`.

use super::convert::{detached, file_path, token_ids, unicode};
use crate::engine::Engine;
use crate::error::Result;
use crate::tokenizer::Tokenizer as Core;
use pyo3::prelude::*;
use std::path::PathBuf;
use std::sync::Arc;

#[doc = doc!(Tokenizer)]
#[pyclass(frozen, module = "bitnet")]
pub struct Tokenizer {
    owner: Owner,
}

/// A tokenizer stands alone, or belongs to an engine.
enum Owner {
    Alone(Box<Core>),
    Engine(Arc<Engine>),
}

impl Tokenizer {
    /// The tokenizer of an engine; an error if its file has none.
    pub fn of(engine: Arc<Engine>) -> Result<Tokenizer> {
        engine.tokenizer()?;
        Ok(Tokenizer { owner: Owner::Engine(engine) })
    }

    /// The tokenizer behind it.
    pub fn core(&self) -> &Core {
        match &self.owner {
            Owner::Alone(core) => core,
            Owner::Engine(engine) => engine.tokenizer().expect("checked when this was made"),
        }
    }
}

/// The ids of a text, with BOS in front if asked.
pub fn encode(core: &Core, text: &str, add_bos: bool, parse_special: bool) -> Vec<u32> {
    let bos = core.bos.filter(|_| add_bos);
    bos.into_iter().chain(core.encode(text, parse_special)).collect()
}

/// The text of ids that Python gives.
pub fn decode(core: &Core, ids: &Bound<'_, PyAny>, skip_special_tokens: bool) -> PyResult<String> {
    // What is no id of this vocabulary stands for nothing.
    let ids: Vec<u32> = token_ids(ids, "ids")?.into_iter().filter_map(|id| u32::try_from(id).ok()).collect();
    Ok(core.decode(&ids, skip_special_tokens))
}

#[pymethods]
impl Tokenizer {
    #[new]
    #[pyo3(signature = (path, *, pre=None))]
    fn new(py: Python<'_>, #[pyo3(from_py_with = file_path)] path: PathBuf, pre: Option<String>) -> PyResult<Self> {
        let core = detached(py, |_| Core::open(&path, pre.as_deref()))?;
        Ok(Tokenizer { owner: Owner::Alone(Box::new(core)) })
    }

    #[doc = doc!(Tokenizer.encode)]
    #[pyo3(signature = (text, add_bos=false, parse_special=false))]
    pub fn encode(
        &self,
        py: Python<'_>,
        text: &Bound<'_, PyAny>,
        add_bos: bool,
        parse_special: bool,
    ) -> PyResult<Vec<u32>> {
        let text = unicode(text, "text")?;
        detached(py, |_| Ok(encode(self.core(), &text, add_bos, parse_special)))
    }

    #[doc = doc!(Tokenizer.decode)]
    #[pyo3(signature = (ids, skip_special_tokens=true))]
    fn decode(&self, ids: &Bound<'_, PyAny>, skip_special_tokens: bool) -> PyResult<String> {
        decode(self.core(), ids, skip_special_tokens)
    }

    #[doc = doc!(Tokenizer.id_to_token)]
    fn id_to_token(&self, id: u32) -> Option<String> {
        self.core().text_of(id).map(str::to_string)
    }

    #[doc = doc!(Tokenizer.token_to_id)]
    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.core().id_of(token)
    }

    #[doc = doc!(Tokenizer.vocab_size)]
    #[getter]
    fn vocab_size(&self) -> usize {
        self.core().vocab_size()
    }

    #[doc = doc!(Tokenizer.bos_token_id)]
    #[getter]
    fn bos_token_id(&self) -> Option<u32> {
        self.core().bos
    }

    #[doc = doc!(Tokenizer.eos_token_id)]
    #[getter]
    fn eos_token_id(&self) -> Option<u32> {
        self.core().eos
    }

    #[doc = doc!(Tokenizer.add_bos)]
    #[getter]
    fn add_bos(&self) -> bool {
        self.core().add_bos
    }

    #[doc = doc!(Tokenizer.stop_token_ids)]
    #[getter]
    fn stop_token_ids(&self) -> Vec<u32> {
        self.core().stop.to_vec()
    }

    #[doc = doc!(Tokenizer.pre)]
    #[getter]
    fn pre(&self) -> String {
        self.core().pre.to_string()
    }

    fn __repr__(&self) -> String {
        format!("<Tokenizer {} {} tokens>", self.core().pre, self.core().vocab_size())
    }
}
