//! `bitnet.Engine`.

use super::arrays::{self, Scores};
use super::awaitable::{Abandoned, awaitable, step};
use super::convert::{
    checked_sequences, choice, detached, engine_ids, optional_count, optional_path, possible_ids, text_or_ids, warn,
};
use super::notebook::{ProgressBar, html, mime_bundle};
use super::receipt::Receipt;
use super::sampling::{self, SamplingParams};
use super::stream::{Completion, Stream};
use super::template::Template;
use super::tensor::{self, Tensor};
use super::tokenizer::{self, Tokenizer};
use super::trace::{self, Trace};
use crate::engine::{
    ActQuant, Activation, Engine as CoreEngine, KvType, Options, Pooling, Prefill as CorePrefill, TextOrIds, Watch,
};
use crate::error::{Error, Result};
use crate::sampler::SamplingParams as Params;
use crate::token::TokenId;
use numpy::{PyArray1, PyArray2};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyType};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

#[doc = doc!(Engine)]
#[pyclass(frozen, module = "bitnet")]
pub struct Engine {
    core: Mutex<Option<Arc<CoreEngine>>>,
    path: PathBuf,
}

#[doc = doc!(Prefill)]
#[pyclass(frozen, get_all, module = "bitnet")]
pub struct Prefill {
    #[doc = doc!(Prefill.tokens)]
    tokens: usize,
    #[doc = doc!(Prefill.cached_tokens)]
    cached_tokens: usize,
    #[doc = doc!(Prefill.seconds)]
    seconds: f64,
    #[doc = doc!(Prefill.tokens_per_second)]
    tokens_per_second: f64,
}

impl From<CorePrefill> for Prefill {
    fn from(prefill: CorePrefill) -> Prefill {
        Prefill {
            tokens: prefill.tokens,
            cached_tokens: prefill.cached_tokens,
            seconds: prefill.elapsed.as_secs_f64(),
            tokens_per_second: prefill.tokens_per_second(),
        }
    }
}

#[pymethods]
impl Prefill {
    fn __repr__(&self) -> String {
        format!(
            "Prefill(tokens={}, cached_tokens={}, seconds={:.6}, tokens_per_second={:.1})",
            self.tokens, self.cached_tokens, self.seconds, self.tokens_per_second
        )
    }
}

/// The whole answer, computed beside the event loop.
async fn complete_async(
    core: Arc<CoreEngine>,
    prompt: TextOrIds,
    params: Params,
    abandoned: &Abandoned,
) -> PyResult<Completion> {
    let begin = move |_: &mut Watch| {
        let stream = core.stream(core.request(prompt, params)?);
        Ok(Stream::of_prompt(core, stream))
    };
    step(abandoned, begin).await?.complete_async(abandoned).await
}

/// The items of a list of prompts. None for a single prompt, which may itself be a list of ids.
fn prompt_list<'py>(prompt: &Bound<'py, PyAny>) -> PyResult<Option<Vec<Bound<'py, PyAny>>>> {
    let Ok(list) = prompt.cast::<PyList>() else { return Ok(None) };
    let is_prompt = |item: &Bound<'py, PyAny>| item.is_instance_of::<PyString>() || item.try_iter().is_ok();
    let all: Vec<_> = list.iter().collect();
    Ok((!all.is_empty() && all.iter().all(is_prompt)).then_some(all))
}

impl Engine {
    /// The wrapped engine, unless it is closed.
    pub fn core(&self) -> Result<Arc<CoreEngine>> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Error::Closed)
    }

    /// Whether a receipt's answer is the same when it is computed again, and the ids of the new answer.
    fn replayed(
        &self,
        py: Python<'_>,
        receipt: &Receipt,
        prompt: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(bool, Vec<TokenId>)> {
        let core = self.core()?;
        let prompt = prompt.map(|prompt| text_or_ids(prompt, "prompt", &core)).transpose()?;
        detached(py, |watch| {
            let prompt = prompt.map(|prompt| core.request(prompt, Params::default())).transpose()?;
            core.replay(&receipt.core, prompt.map(|request| request.prompt), watch)
        })
    }
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (path=None, *, n_ctx=None, n_threads=None, isa=None, kv_type="f16", act_quant="auto",
        ffn_act=None, n_batch=None, lm_head="auto", progress=false))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        #[pyo3(from_py_with = optional_path)] path: Option<PathBuf>,
        n_ctx: Option<&Bound<'_, PyAny>>,
        n_threads: Option<&Bound<'_, PyAny>>,
        isa: Option<String>,
        kv_type: &str,
        act_quant: &str,
        ffn_act: Option<&str>,
        n_batch: Option<&Bound<'_, PyAny>>,
        lm_head: &str,
        progress: bool,
    ) -> PyResult<Engine> {
        let quants = [("auto", None), ("int8", Some(ActQuant::Int8)), ("none", Some(ActQuant::None))];
        let activations = Activation::ALL.map(|a| (a.name(), a));
        let options = Options {
            n_ctx: optional_count(n_ctx, "n_ctx")?,
            n_threads: optional_count(n_threads, "n_threads")?,
            n_batch: optional_count(n_batch, "n_batch")?,
            isa,
            kv_type: Some(choice(kv_type, "kv_type", &[KvType::F16, KvType::F32].map(|t| (t.name(), t)))?),
            act_quant: choice(act_quant, "act_quant", &quants)?,
            exact_head: choice(lm_head, "lm_head", &[("auto", false), ("exact", true)])?,
            ffn_act: ffn_act.map(|name| choice(name, "ffn_act", &activations)).transpose()?,
        };
        let path = match path {
            Some(path) => path,
            None => py.import("bitnet.models")?.call_method0("inside")?.extract()?,
        };
        if progress {
            py.import("bitnet._progress")?.call_method1("read", (&path,))?;
        }
        let core = detached(py, |watch| CoreEngine::open(&path, options, watch))?;
        // numpy initialises itself at its first array; a process forked off during that would deadlock. So do it now.
        PyArray1::<f32>::from_vec(py, Vec::new());
        core.warnings().iter().try_for_each(|warning| warn(py, warning))?;
        Ok(Engine { core: Mutex::new(Some(Arc::new(core))), path })
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
    fn logits<'py>(&self, py: Python<'py>, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray2<f32>>> {
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
    fn logprobs<'py>(&self, py: Python<'py>, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray1<f32>>> {
        arrays::logprobs(py, &*self.core()?, ids)
    }

    #[doc = doc!(Engine.score)]
    fn score<'py>(
        &self,
        py: Python<'py>,
        context: &Bound<'py, PyAny>,
        continuations: &Bound<'py, PyAny>,
    ) -> PyResult<Scores> {
        arrays::score(py, &*self.core()?, context, continuations)
    }

    #[doc = doc!(Engine.perplexity)]
    #[pyo3(signature = (text, stride=None))]
    fn perplexity(&self, py: Python<'_>, text: &Bound<'_, PyAny>, stride: Option<&Bound<'_, PyAny>>) -> PyResult<f64> {
        arrays::perplexity(py, &*self.core()?, text, optional_count(stride, "stride")?)
    }

    #[doc = doc!(Engine.embed)]
    #[pyo3(signature = (texts, pooling="mean"))]
    fn embed<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        pooling: &str,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let pooling = choice(pooling, "pooling", &Pooling::ALL.map(|pooling| (pooling.name(), pooling)))?;
        arrays::embed(py, &*self.core()?, texts, pooling)
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
        let core = self.core()?;
        let ids = engine_ids(ids, "ids", &core)?;
        if !progress {
            return Ok(detached(py, |watch| core.prefill(&ids, watch))?.into());
        }
        core.check_ids(&ids, 0)?;
        let bar = ProgressBar::begin(py, true, "prefill", ids.len(), "token")?;
        let mut shown = 0;
        let mut done: Option<CorePrefill> = None;
        while done.as_ref().is_none_or(|done| done.tokens < ids.len()) {
            let next = detached(py, |watch| core.prefill_pass(&ids, done, watch))?;
            bar.advance(next.tokens - shown)?;
            shown = next.tokens;
            done = Some(next);
        }
        Ok(done.expect("at least one pass").into())
    }

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
        match prompt_list(ids)? {
            None => {
                let ids = engine_ids(ids, "ids", &core)?;
                detached(py, |watch| core.generate(&ids, max_tokens, &stop, watch))?.into_bound_py_any(py)
            }
            Some(prompts) => {
                let to_ids = |ids: &Bound<'py, PyAny>, name: &str| engine_ids(ids, name, &core);
                let all = checked_sequences(py, &core, prompts, 0, "ids", to_ids)?;
                detached(py, |watch| core.generate_many(&all, max_tokens, &stop, watch))?.into_bound_py_any(py)
            }
        }
    }

    #[doc = doc!(Engine.tokenizer)]
    #[getter]
    fn tokenizer(&self, py: Python<'_>) -> PyResult<Tokenizer> {
        let core = self.core()?;
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
    fn decode(&self, ids: &Bound<'_, PyAny>, skip_special_tokens: bool) -> PyResult<String> {
        tokenizer::decode(self.core()?.tokenizer()?, ids, skip_special_tokens)
    }

    #[doc = doc!(Engine.stream)]
    #[pyo3(signature = (prompt, params=None, **keywords))]
    fn stream(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
        params: Option<&SamplingParams>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Stream> {
        let params = sampling::params(params, keywords)?;
        let core = self.core()?;
        let prompt = text_or_ids(prompt, "prompt", &core)?;
        let stream = detached(py, |_| Ok(core.stream(core.request(prompt, params)?)))?;
        Ok(Stream::of_prompt(core, stream))
    }

    #[doc = doc!(Engine.generate)]
    #[pyo3(signature = (prompt, params=None, *, progress=false, **keywords))]
    fn generate<'py>(
        &self,
        py: Python<'py>,
        prompt: &Bound<'py, PyAny>,
        params: Option<&SamplingParams>,
        progress: bool,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let one = |prompt: &Bound<'py, PyAny>| self.stream(py, prompt, params, keywords)?.complete(py);
        match prompt_list(prompt)? {
            None => Ok(Bound::new(py, one(prompt)?)?.into_any()),
            Some(prompts) => {
                let bar = ProgressBar::begin(py, progress, "generate", prompts.len(), "prompt")?;
                let advanced = |prompt| one(prompt).and_then(|answer| bar.advance(1).map(|()| answer));
                let answers = prompts.iter().map(advanced).collect::<PyResult<Vec<Completion>>>()?;
                answers.into_pyobject(py)
            }
        }
    }

    #[doc = doc!(Engine.agenerate)]
    #[pyo3(signature = (prompt, params=None, **keywords))]
    fn agenerate<'py>(
        &self,
        py: Python<'py>,
        prompt: &Bound<'py, PyAny>,
        params: Option<&SamplingParams>,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let params = sampling::params(params, keywords)?;
        let core = self.core()?;
        let convert = |prompt: &Bound<'py, PyAny>| text_or_ids(prompt, "prompt", &core);
        let Some(prompts) = prompt_list(prompt)? else {
            let prompt = convert(prompt)?;
            return awaitable(py, "Engine.agenerate", |abandoned| async move {
                complete_async(core, prompt, params, &abandoned).await
            });
        };
        let prompts = prompts.iter().map(convert).collect::<PyResult<Vec<TextOrIds>>>()?;
        awaitable(py, "Engine.agenerate", |abandoned| async move {
            let mut answers = Vec::new();
            for prompt in prompts {
                answers.push(complete_async(core.clone(), prompt, params.clone(), &abandoned).await?);
            }
            Ok(answers)
        })
    }

    #[doc = doc!(Engine.replay)]
    #[pyo3(signature = (receipt, prompt=None))]
    fn replay(&self, py: Python<'_>, receipt: &Receipt, prompt: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        Ok(self.replayed(py, receipt, prompt)?.0)
    }

    #[doc = doc!(Engine.replay_ids)]
    #[pyo3(signature = (receipt, prompt=None))]
    fn replay_ids(
        &self,
        py: Python<'_>,
        receipt: &Receipt,
        prompt: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Vec<TokenId>> {
        Ok(self.replayed(py, receipt, prompt)?.1)
    }

    #[doc = doc!(Engine.cached_tokens)]
    #[getter]
    fn cached_tokens(&self) -> Result<usize> {
        Ok(self.core()?.cached_tokens())
    }

    #[doc = doc!(Engine.memory)]
    #[getter]
    fn memory<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let core = self.core()?;
        let memory = core.memory();
        let dict = PyDict::new(py);
        dict.set_item("packed_weights", memory.packed_weights)?;
        dict.set_item("mapped_weights", memory.mapped_weights)?;
        dict.set_item("head_copy", memory.head_copy)?;
        dict.set_item("kv_cache", memory.kv_cache)?;
        dict.set_item("file", memory.file)?;
        Ok(dict)
    }

    #[doc = doc!(Engine.per_token)]
    #[getter]
    fn per_token<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let cost = self.core()?.per_token();
        let dict = PyDict::new(py);
        dict.set_item("ternary_macs", cost.ternary_macs)?;
        dict.set_item("weight_bytes", cost.weight_bytes)?;
        dict.set_item("kv_bytes", cost.kv_bytes)?;
        Ok(dict)
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
    fn __exit__(&self, py: Python<'_>, _exc: &Bound<'_, pyo3::types::PyTuple>) {
        self.close(py);
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
