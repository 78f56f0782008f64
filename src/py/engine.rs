//! `bitnet.Engine`.

use super::arrays;
use super::convert::{choice, count, detached, engine_ids, model_path, optional_count, warn};
use super::hints;
use super::notebook::{html, mime_bundle};
use super::pickle::{Reduced, by_function};
use super::prefill::{self, Prefill};
use super::replay;
use super::sampling;
use super::template::Template;
use super::tensor::{self, Tensor};
use super::tokenizer::{self, Tokenizer};
use super::trace::{self, Trace};
use crate::engine::{ActQuant, Activation, Embedding, Engine as CoreEngine, KvType, LmHead, Options, Packing, Pooling};
use crate::error::{Error, Result};
use crate::token::TokenId;
use numpy::{PyArray1, PyArray2};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict, PyTuple, PyType};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

#[doc = doc!(Engine)]
#[pyclass(frozen, weakref, module = "bitnet")]
pub struct Engine {
    core: Mutex<Option<Arc<CoreEngine>>>,
    path: PathBuf,
    /// The path and the options that a copy in another process is opened with.
    reopened_path: PathBuf,
    options: Py<PyDict>,
    /// Whether the user was told that the model has a chat template.
    pub(super) warned_of_raw: AtomicBool,
    /// Whether the user was told what is odd about the tokenizer, which is built beside the loading of the weights.
    warned_of_tokenizer: AtomicBool,
}

impl Engine {
    /// The wrapped engine, unless it is closed.
    pub fn core(&self) -> Result<Arc<CoreEngine>> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Error::Closed)
    }

    /// Warns of an odd tokenizer, when it is used first.
    pub fn warn_of_tokenizer(&self, py: Python<'_>, core: &CoreEngine) -> PyResult<()> {
        if self.warned_of_tokenizer.swap(true, Relaxed) {
            return Ok(());
        }
        let warning = detached(py, |_| Ok(core.tokenizer().ok().and_then(|tokenizer| tokenizer.warning.clone())))?;
        warning.map_or(Ok(()), |text| warn(py, &text))
    }
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (path=None, *, n_ctx=None, n_threads=None, isa=None, kv_type="f16", act_quant="auto",
        ffn_act=None, n_batch=None, lm_head="auto", max_batch=None, cache_bytes=None, progress=false, **unknown),
        text_signature = "(path=None, *, n_ctx=None, n_threads=None, isa=None, kv_type='f16', act_quant='auto', \
        ffn_act=None, n_batch=None, lm_head='auto', max_batch=None, cache_bytes=None, progress=False)")]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        path: Option<&Bound<'_, PyAny>>,
        n_ctx: Option<&Bound<'_, PyAny>>,
        n_threads: Option<&Bound<'_, PyAny>>,
        isa: Option<String>,
        kv_type: &str,
        act_quant: &str,
        ffn_act: Option<&str>,
        n_batch: Option<&Bound<'_, PyAny>>,
        lm_head: &str,
        max_batch: Option<&Bound<'_, PyAny>>,
        cache_bytes: Option<&Bound<'_, PyAny>>,
        progress: bool,
        unknown: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Engine> {
        if let Some((name, _)) = unknown.and_then(|unknown| unknown.iter().next()) {
            return Err(hints::engine_keyword(py, &name.extract::<String>()?));
        }
        let named = ActQuant::ALL.map(|quant| (quant.name(), Some(quant)));
        let quants = [&[("auto", None)], &named[..]].concat();
        let activations = Activation::ALL.map(|a| (a.name(), a));
        let options = Options {
            n_ctx: optional_count(n_ctx, "n_ctx")?,
            n_threads: optional_count(n_threads, "n_threads")?,
            n_batch: optional_count(n_batch, "n_batch")?,
            max_batch: optional_count(max_batch, "max_batch")?,
            cache_bytes: cache_bytes.filter(|n| !n.is_none()).map(|n| count(n, "cache_bytes", 0)).transpose()?,
            isa: isa.clone(),
            kv_type: Some(choice(kv_type, "kv_type", &[KvType::F16, KvType::F32].map(|t| (t.name(), t)))?),
            act_quant: choice(act_quant, "act_quant", &quants)?,
            lm_head: choice(lm_head, "lm_head", &LmHead::ALL.map(|kind| (kind.name(), kind)))?,
            ffn_act: ffn_act.map(|name| choice(name, "ffn_act", &activations)).transpose()?,
            packing: Packing::Auto,
        };
        let path = match path {
            Some(path) => model_path(path)?,
            None => py.import("bitnet.models")?.call_method0("inside")?.extract()?,
        };
        let given = PyDict::new(py);
        for (name, value) in [
            ("n_ctx", n_ctx),
            ("n_threads", n_threads),
            ("n_batch", n_batch),
            ("max_batch", max_batch),
            ("cache_bytes", cache_bytes),
        ] {
            value.map_or(Ok(()), |value| given.set_item(name, value))?;
        }
        for (name, value) in [("isa", isa.as_deref()), ("ffn_act", ffn_act)] {
            value.map_or(Ok(()), |value| given.set_item(name, value))?;
        }
        for (name, value) in [("kv_type", kv_type), ("act_quant", act_quant), ("lm_head", lm_head)] {
            given.set_item(name, value)?;
        }
        if progress {
            py.import("bitnet._progress")?.call_method1("read", (&path,))?;
        }
        let core = detached(py, |watch| CoreEngine::open(&path, options, watch))?;
        // numpy initialises itself at its first array; a process forked off during that would deadlock. So do it now,
        // after an import that Ctrl-C can end: the array would panic.
        py.import("numpy")?;
        PyArray1::<f32>::from_vec(py, Vec::new());
        core.warnings().iter().try_for_each(|warning| warn(py, warning))?;
        Ok(Engine {
            core: Mutex::new(Some(Arc::new(core))),
            reopened_path: std::path::absolute(&path).unwrap_or_else(|_| path.clone()),
            path,
            options: given.unbind(),
            warned_of_raw: AtomicBool::new(false),
            warned_of_tokenizer: AtomicBool::new(false),
        })
    }

    #[doc = doc!(Engine.from_pretrained)]
    #[classmethod]
    #[pyo3(signature = (repo_id, filename=None, revision=None, cache_dir=None, local_files_only=false, token=None,
        **options))]
    #[allow(clippy::too_many_arguments)]
    fn from_pretrained<'py>(
        cls: &Bound<'py, PyType>,
        repo_id: &Bound<'py, PyAny>,
        filename: Option<&Bound<'py, PyAny>>,
        revision: Option<&Bound<'py, PyAny>>,
        cache_dir: Option<&Bound<'py, PyAny>>,
        local_files_only: bool,
        token: Option<&Bound<'py, PyAny>>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let how = PyDict::new(cls.py());
        how.set_item("revision", revision)?;
        how.set_item("cache_dir", cache_dir)?;
        how.set_item("local_files_only", local_files_only)?;
        how.set_item("token", token)?;
        let path = cls.py().import("bitnet.hub")?.call_method("model_file", (repo_id, filename), Some(&how))?;
        cls.call((path,), options)
    }

    #[doc = doc!(Engine.logits)]
    fn logits<'py>(&self, py: Python<'py>, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        arrays::logits(py, &*self.core()?, ids)
    }

    #[doc = doc!(Engine.logits_batch)]
    fn logits_batch<'py>(
        &self,
        py: Python<'py>,
        sequences: &Bound<'py, PyAny>,
    ) -> PyResult<Vec<Bound<'py, PyArray2<f32>>>> {
        arrays::logits_batch(py, &*self.core()?, sequences)
    }

    #[doc = doc!(Engine.logprobs)]
    fn logprobs<'py>(&self, py: Python<'py>, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        arrays::logprobs(py, &*self.core()?, ids)
    }

    fn _likelihoods(
        &self,
        py: Python<'_>,
        ids: &Bound<'_, PyAny>,
        k: usize,
    ) -> PyResult<Vec<(super::completion::Logprob, Vec<super::completion::Logprob>)>> {
        arrays::likelihoods(py, &*self.core()?, ids, k)
    }

    #[doc = doc!(Engine.score)]
    fn score<'py>(
        &self,
        py: Python<'py>,
        context: &Bound<'py, PyAny>,
        continuations: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        arrays::score(py, &*self.core()?, context, continuations)
    }

    #[doc = doc!(Engine.perplexity)]
    #[pyo3(signature = (text, stride=None))]
    fn perplexity<'py>(
        &self,
        py: Python<'py>,
        text: &Bound<'py, PyAny>,
        stride: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        arrays::perplexity(py, &*self.core()?, text, optional_count(stride, "stride")?)
    }

    #[doc = doc!(Engine.embed)]
    #[pyo3(signature = (texts, pooling=None, normalize=false))]
    fn embed<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        pooling: Option<&str>,
        normalize: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let known = Pooling::ALL.map(|pooling| (pooling.name(), pooling));
        let pooling = pooling.map(|name| choice(name, "pooling", &known)).transpose()?;
        arrays::embed(py, &*self.core()?, texts, Embedding { pooling, normalize })
    }

    #[doc = doc!(Engine.tensor)]
    fn tensor(&self, py: Python<'_>, name: &str) -> PyResult<Tensor> {
        tensor::tensor(py, &*self.core()?, name)
    }

    #[doc = doc!(Engine.tensor_names)]
    #[getter]
    fn tensor_names(&self) -> Result<Vec<String>> {
        Ok(tensor::names(&*self.core()?))
    }

    #[doc = doc!(Engine.trace)]
    #[pyo3(signature = (prompt, layers=None))]
    fn trace(&self, py: Python<'_>, prompt: &Bound<'_, PyAny>, layers: Option<&Bound<'_, PyAny>>) -> PyResult<Trace> {
        trace::trace(py, &*self.core()?, prompt, layers)
    }

    #[doc = doc!(Engine.prefill)]
    #[pyo3(signature = (ids, *, progress=false))]
    fn prefill(&self, py: Python<'_>, ids: &Bound<'_, PyAny>, progress: bool) -> PyResult<Prefill> {
        prefill::prefill(py, &*self.core()?, ids, progress)
    }

    #[doc = doc!(Engine.tokenizer)]
    #[getter]
    fn tokenizer(&self, py: Python<'_>) -> PyResult<Tokenizer> {
        let core = self.core()?;
        self.warn_of_tokenizer(py, &core)?;
        detached(py, |_| Tokenizer::of(core))
    }

    #[doc = doc!(Engine.template)]
    #[getter]
    fn template(&self, py: Python<'_>) -> PyResult<Template> {
        let core = self.core()?;
        Ok(Template::of(detached(py, |_| core.template())?))
    }

    #[doc = doc!(Engine.encode)]
    #[pyo3(signature = (text, add_bos=false, parse_special=false))]
    fn encode(
        &self,
        py: Python<'_>,
        text: &Bound<'_, PyAny>,
        add_bos: bool,
        parse_special: bool,
    ) -> PyResult<Vec<TokenId>> {
        self.tokenizer(py)?.encode(py, text, add_bos, parse_special)
    }

    #[doc = doc!(Engine.decode)]
    #[pyo3(signature = (ids, skip_special_tokens=true))]
    fn decode(&self, py: Python<'_>, ids: &Bound<'_, PyAny>, skip_special_tokens: bool) -> PyResult<String> {
        let core = self.core()?;
        tokenizer::decode(py, core.tokenizer()?, core.n_vocab(), ids, skip_special_tokens)
    }

    #[doc = doc!(Engine.replay)]
    #[pyo3(signature = (receipt, prompt=None))]
    fn replay<'py>(
        &self,
        py: Python<'py>,
        receipt: &Bound<'py, PyAny>,
        prompt: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        replay::replay(py, &*self.core()?, receipt, prompt, |found| found.same)
    }

    #[doc = doc!(Engine.replay_ids)]
    #[pyo3(signature = (receipt, prompt=None))]
    fn replay_ids<'py>(
        &self,
        py: Python<'py>,
        receipt: &Bound<'py, PyAny>,
        prompt: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        replay::replay(py, &*self.core()?, receipt, prompt, |found| found.ids)
    }

    /// All results of a replay: same, ids, told.
    #[pyo3(signature = (receipt, prompt=None))]
    fn _replay<'py>(
        &self,
        py: Python<'py>,
        receipt: &Bound<'py, PyAny>,
        prompt: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        replay::replay(py, &*self.core()?, receipt, prompt, |found| (found.same, found.ids, found.told))
    }

    /// Replays receipts, for the command line: `report` gets the index of each that is done, with same, ids and told, or
    /// with the exception that says why it cannot be replayed.
    #[pyo3(signature = (receipts, prompts, report))]
    fn _replay_each(
        &self,
        py: Python<'_>,
        receipts: &Bound<'_, PyAny>,
        prompts: Option<&Bound<'_, PyAny>>,
        report: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        replay::each(py, &*self.core()?, receipts, prompts, report)
    }

    #[doc = doc!(Engine.cached_tokens)]
    #[getter]
    fn cached_tokens(&self) -> Result<usize> {
        Ok(self.core()?.cached_tokens())
    }

    #[doc = doc!(Engine.memory)]
    #[getter]
    fn memory<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let memory = self.core()?.memory();
        [
            ("packed_weights", memory.packed_weights as u64),
            ("mapped_weights", memory.mapped_weights as u64),
            ("head_copy", memory.head_copy as u64),
            ("head_upper", memory.head_upper as u64),
            ("neuron_copy", memory.neuron_copy as u64),
            ("kv_cache", memory.kv_cache as u64),
            ("file", memory.file),
            ("resident", memory.process.bytes),
            ("resident_file", memory.process.of_files),
        ]
        .into_py_dict(py)
    }

    #[doc = doc!(Engine.per_token)]
    #[getter]
    fn per_token<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let cost = self.core()?.per_token();
        [
            ("ternary_macs", cost.ternary_macs),
            ("weight_bytes", cost.weight_bytes),
            ("kv_bytes", cost.kv_bytes),
            ("state_bytes", cost.state_bytes),
        ]
        .into_py_dict(py)
    }

    #[doc = doc!(Engine.lm_head)]
    #[getter]
    fn lm_head(&self) -> Result<&'static str> {
        Ok(self.core()?.lm_head().name())
    }

    #[doc = doc!(Engine.path)]
    #[getter]
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    #[doc = doc!(Engine.arch)]
    #[getter]
    fn arch(&self) -> Result<&'static str> {
        Ok(self.core()?.config().arch.name)
    }

    #[doc = doc!(Engine.n_vocab)]
    #[getter]
    fn n_vocab(&self) -> Result<usize> {
        Ok(self.core()?.n_vocab())
    }

    #[doc = doc!(Engine.n_ctx)]
    #[getter]
    fn n_ctx(&self) -> Result<usize> {
        Ok(self.core()?.n_ctx())
    }

    #[doc = doc!(Engine.n_threads)]
    #[getter]
    fn n_threads(&self) -> Result<usize> {
        Ok(self.core()?.n_threads())
    }

    #[doc = doc!(Engine.n_batch)]
    #[getter]
    fn n_batch(&self) -> Result<usize> {
        Ok(self.core()?.n_batch())
    }

    #[doc = doc!(Engine.clear_cache)]
    fn clear_cache(&self, py: Python<'_>) -> PyResult<()> {
        let core = self.core()?;
        py.detach(|| core.clear_cache());
        Ok(())
    }

    #[doc = doc!(Engine.max_batch)]
    #[getter]
    fn max_batch(&self) -> Result<usize> {
        Ok(self.core()?.max_batch())
    }

    #[doc = doc!(Engine.cache_bytes)]
    #[getter]
    fn cache_bytes(&self) -> Result<usize> {
        Ok(self.core()?.cache_bytes())
    }

    #[doc = doc!(Engine.isa)]
    #[getter]
    fn isa(&self) -> Result<&'static str> {
        Ok(self.core()?.isa())
    }

    #[doc = doc!(Engine.kv_type)]
    #[getter]
    fn kv_type(&self) -> Result<&'static str> {
        Ok(self.core()?.kv_type().name())
    }

    #[doc = doc!(Engine.act_quant)]
    #[getter]
    fn act_quant(&self) -> Result<&'static str> {
        Ok(self.core()?.act_quant().name())
    }

    #[doc = doc!(Engine.ffn_act)]
    #[getter]
    fn ffn_act(&self) -> Result<&'static str> {
        Ok(self.core()?.config().activation.name())
    }

    #[doc = doc!(Engine.warnings)]
    #[getter]
    fn warnings(&self) -> Result<Vec<String>> {
        Ok(self.core()?.warnings())
    }

    /// For tests and measurements: how many tokens the form of these parameters allows at the beginning and after each
    /// id, and the seconds that it took to find them.
    #[pyo3(signature = (ids, **keywords))]
    fn _follow_form(
        &self,
        py: Python<'_>,
        ids: &Bound<'_, PyAny>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Vec<(usize, f64)>> {
        let core = self.core()?;
        let (ids, params) = (engine_ids(ids, "ids", &core)?, sampling::params(None, keywords)?.core);
        let found = detached(py, |_| core.follow_form(&ids, &params))?;
        Ok(found.into_iter().map(|(allowed, time)| (allowed, time.as_secs_f64())).collect())
    }

    /// For tests: passes so far, the steps in all of them, and what the queue of steps holds.
    #[getter]
    fn _queue(&self) -> Result<(u64, u64, usize)> {
        Ok(self.core()?.queue_counts())
    }

    #[doc = doc!(Engine.closed)]
    #[getter]
    fn closed(&self) -> bool {
        self.core().is_err()
    }

    #[doc = doc!(Engine.close)]
    fn close(&self, py: Python<'_>) {
        let core = self.core.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| drop(core));
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().core()?;
        Ok(slf)
    }

    #[pyo3(signature = (*_exc))]
    fn __exit__(&self, py: Python<'_>, _exc: &Bound<'_, PyTuple>) {
        self.close(py);
    }

    fn __getattr__(&self, py: Python<'_>, name: &str) -> PyResult<Py<PyAny>> {
        Err(hints::attribute(py, "Engine", name))
    }

    #[pyo3(signature = (*_arguments, **_keywords))]
    fn __call__(&self, _arguments: &Bound<'_, PyTuple>, _keywords: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        let hint =
            "an Engine is not a function; call engine.chat(messages), engine.generate(prompt) or engine.logits(ids)";
        Err(PyTypeError::new_err(hint))
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        self.core()?;
        by_function(py, "engine", (self.reopened_path.clone(), self.options.bind(py).copy()?))
    }

    fn __copy__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf
    }

    fn __repr__(&self) -> String {
        let path = self.path.display();
        match self.core() {
            Err(_) => format!("<Engine {path} closed>"),
            Ok(core) => {
                let config = core.config();
                format!(
                    "<Engine {path} {} {} layers, {} wide, n_ctx={}, n_threads={}, isa={}>",
                    config.arch.name,
                    config.n_layers,
                    config.hidden_size,
                    core.n_ctx(),
                    core.n_threads(),
                    core.isa()
                )
            }
        }
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
