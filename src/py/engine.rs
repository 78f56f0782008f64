//! `bitnet.Engine`.

use super::arrays::{self, Scores};
use super::awaitable::{Wanted, awaitable, step};
use super::convert::{choice, detached, ids_or_text, named, optional_count, optional_path, token_ids, unicode};
use super::notebook::{Bar, said_by};
use super::receipt::Receipt;
use super::sampling::{self, SamplingParams};
use super::stream::{Completion, Stream};
use super::template::Template;
use super::tokenizer::{self, Tokenizer};
use crate::decode::Watch;
use crate::engine::{Engine as Core, Options, PromptOrigin, Request};
use crate::error::{Error, Result};
use crate::model::ActQuant;
use crate::ops::activation::Activation;
use crate::ops::attention::KvType;
use crate::sampler::SamplingParams as Params;
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyType};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

#[doc = doc!(Engine)]
#[pyclass(frozen, module = "bitnet")]
pub struct Engine {
    core: Mutex<Option<Arc<Core>>>,
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
}

#[pymethods]
impl Prefill {
    #[doc = doc!(Prefill.tokens_per_second)]
    #[getter]
    fn tokens_per_second(&self) -> f64 {
        let computed = self.tokens - self.cached_tokens;
        if computed == 0 { 0.0 } else { computed as f64 / self.seconds }
    }

    fn __repr__(&self) -> String {
        format!(
            "Prefill(tokens={}, cached_tokens={}, seconds={:.6}, tokens_per_second={:.1})",
            self.tokens,
            self.cached_tokens,
            self.seconds,
            self.tokens_per_second()
        )
    }
}

/// What is to be answered: a text, with BOS where the model expects it, or ids as they are.
enum Prompt {
    Text(String),
    Ids(Vec<i64>),
}

impl Prompt {
    fn of(prompt: &Bound<'_, PyAny>) -> PyResult<Prompt> {
        match prompt.is_instance_of::<PyString>() {
            true => Ok(Prompt::Text(unicode(prompt, "prompt")?)),
            false => Ok(Prompt::Ids(ids_or_text(prompt, "prompt")?)),
        }
    }

    fn request(self, core: &Core, params: Params) -> Result<Request> {
        let text = match self {
            Prompt::Ids(ids) => return core.request(&ids, params),
            Prompt::Text(text) => text,
        };
        let tokenizer = core.tokenizer()?; // built since the engine was opened: no part of the answer's time
        let start = Instant::now();
        let ids = tokenizer::encode(tokenizer, &text, tokenizer.add_bos, false);
        let tokenize = start.elapsed();
        let ids: Vec<i64> = ids.into_iter().map(i64::from).collect();
        let origin = PromptOrigin { tokenize, ..PromptOrigin::default() };
        Ok(Request { origin, ..core.request(&ids, params)? })
    }
}

/// The whole answer, computed beside the event loop.
async fn complete_beside(core: Arc<Core>, prompt: Prompt, params: Params, wanted: &Wanted) -> PyResult<Completion> {
    let begin = move |_: &mut Watch| Ok(Stream::alone(core.clone(), core.stream(prompt.request(&core, params)?)));
    step(wanted, begin).await?.complete_beside(wanted).await
}

/// The prompts, if it is a list of them.
fn prompts<'py>(prompt: &Bound<'py, PyAny>) -> PyResult<Option<Vec<Bound<'py, PyAny>>>> {
    let Ok(list) = prompt.cast::<PyList>() else { return Ok(None) };
    let is_prompt = |item: &Bound<'py, PyAny>| item.is_instance_of::<PyString>() || item.try_iter().is_ok();
    let all: Vec<_> = list.iter().collect();
    Ok((!all.is_empty() && all.iter().all(is_prompt)).then_some(all))
}

/// The ids of several sequences; an error says which of them it is about.
fn checked<'py>(
    py: Python<'py>,
    core: &Core,
    sequences: impl Iterator<Item = PyResult<Bound<'py, PyAny>>>,
    name: &str,
) -> PyResult<Vec<Vec<i64>>> {
    let one = |(i, ids): (usize, PyResult<Bound<'py, PyAny>>)| {
        let name = format!("{name}[{i}]");
        let ids = token_ids(&ids?, &name)?;
        core.runtime().check_ids(&ids, 0).map_err(|error| named(error.into(), &name, py))?;
        Ok(ids)
    };
    sequences.enumerate().map(one).collect()
}

impl Engine {
    /// The engine behind it, unless it is closed.
    pub fn core(&self) -> Result<Arc<Core>> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Error::Closed)
    }

    /// Whether a receipt's answer comes out again, and the ids that do.
    fn replayed(
        &self,
        py: Python<'_>,
        receipt: &Receipt,
        prompt: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(bool, Vec<u32>)> {
        let core = self.core()?;
        let prompt = prompt.map(Prompt::of).transpose()?;
        detached(py, |watch| {
            let prompt = prompt.map(|prompt| prompt.request(&core, Params::default())).transpose()?;
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
            py.import("bitnet.progress")?.call_method1("read", (&path,))?;
        }
        let core = detached(py, |watch| Core::open(&path, options, watch))?;
        // numpy sets itself up at its first array, and a process that forks off meanwhile would wait for it for ever.
        PyArray1::<f32>::from_vec(py, Vec::new());
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
        let ids = token_ids(ids, "ids")?;
        let n = ids.len();
        let core = self.core()?;
        let logits = detached(py, |watch| core.logits(&[ids], watch))?;
        PyArray1::from_vec(py, logits).reshape([n, core.config().vocab_size])
    }

    #[doc = doc!(Engine.logits_batch)]
    fn logits_batch<'py>(
        &self,
        py: Python<'py>,
        sequences: &Bound<'py, PyAny>,
    ) -> PyResult<Vec<Bound<'py, PyArray2<f32>>>> {
        let core = self.core()?;
        let sequences = checked(py, &core, sequences.try_iter()?, "sequences")?;
        let logits = detached(py, |watch| core.logits(&sequences, watch))?;
        let vocab = core.config().vocab_size;
        let mut rest = &logits[..];
        sequences
            .iter()
            .map(|ids| {
                let (own, others) = rest.split_at(ids.len() * vocab);
                rest = others;
                PyArray1::from_slice(py, own).reshape([ids.len(), vocab])
            })
            .collect()
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
        arrays::embed(py, &*self.core()?, texts, choice(pooling, "pooling", &[("mean", false), ("last", true)])?)
    }

    #[doc = doc!(Engine.prefill)]
    #[pyo3(signature = (ids, *, progress=false))]
    fn prefill(&self, py: Python<'_>, ids: &Bound<'_, PyAny>, progress: bool) -> PyResult<Prefill> {
        let ids = token_ids(ids, "ids")?;
        let core = self.core()?;
        core.runtime().check_ids(&ids, 0)?;
        let bar = Bar::begin(py, progress, "prefill", ids.len(), "token")?;
        // With a bar pass by pass. The first goes as far as the warm cache may be of use: a shorter one would cut it.
        let step = if progress { core.runtime().n_batch } else { ids.len() };
        let first = (core.cached_tokens() + step).min(ids.len());
        let mut done = detached(py, |watch| core.prefill(&ids[..first], watch))?;
        bar.advance(first)?;
        while done.tokens < ids.len() {
            let next = (done.tokens + step).min(ids.len());
            done.elapsed += detached(py, |watch| core.prefill(&ids[..next], watch))?.elapsed;
            bar.advance(next - done.tokens)?;
            done.tokens = next;
        }
        let (tokens, cached_tokens) = (done.tokens, done.cached_tokens);
        Ok(Prefill { tokens, cached_tokens, seconds: done.elapsed.as_secs_f64() })
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
        let stop = stop_token_ids.map_or(Ok(Vec::new()), |stop| token_ids(stop, "stop_token_ids"))?;
        let max_tokens = optional_count(max_tokens, "max_tokens")?.unwrap_or(usize::MAX);
        let core = self.core()?;
        match prompts(ids)? {
            None => {
                let ids = token_ids(ids, "ids")?;
                detached(py, |watch| core.generate(&ids, max_tokens, &stop, watch))?.into_bound_py_any(py)
            }
            Some(prompts) => {
                let all = checked(py, &core, prompts.into_iter().map(Ok), "ids")?;
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
    ) -> PyResult<Vec<u32>> {
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
        let prompt = Prompt::of(prompt)?;
        let stream = detached(py, |_| Ok(core.stream(prompt.request(&core, params)?)))?;
        Ok(Stream::alone(core, stream))
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
        match prompts(prompt)? {
            None => Ok(Bound::new(py, one(prompt)?)?.into_any()),
            Some(prompts) => {
                let bar = Bar::begin(py, progress, "generate", prompts.len(), "prompt")?;
                let counted = |prompt| one(prompt).and_then(|answer| bar.advance(1).map(|()| answer));
                let answers = prompts.iter().map(counted).collect::<PyResult<Vec<Completion>>>()?;
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
        let Some(prompts) = prompts(prompt)? else {
            let prompt = Prompt::of(prompt)?;
            return awaitable(py, "Engine.agenerate", |wanted| async move {
                complete_beside(core, prompt, params, &wanted).await
            });
        };
        let prompts = prompts.iter().map(Prompt::of).collect::<PyResult<Vec<Prompt>>>()?;
        awaitable(py, "Engine.agenerate", |wanted| async move {
            let mut answers = Vec::new();
            for prompt in prompts {
                answers.push(complete_beside(core.clone(), prompt, params.clone(), &wanted).await?);
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
    fn replay_ids(&self, py: Python<'_>, receipt: &Receipt, prompt: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<u32>> {
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
        let model = &core.runtime().model;
        let dict = PyDict::new(py);
        dict.set_item("packed_weights", model.packed_bytes())?;
        dict.set_item("mapped_weights", model.mapped_bytes())?;
        dict.set_item("head_copy", model.copied_bytes())?;
        dict.set_item("kv_cache", core.cached_bytes())?;
        dict.set_item("file", model.gguf().file_size())?;
        Ok(dict)
    }

    #[doc = doc!(Engine.per_token)]
    #[getter]
    fn per_token<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let core = self.core()?;
        let cost = core.runtime().model.per_token(core.kv_type);
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
        Ok(self.core()?.config().vocab_size)
    }

    #[doc = doc!(Engine.n_ctx)]
    #[getter]
    fn n_ctx(&self) -> Result<usize> {
        Ok(self.core()?.runtime().n_ctx)
    }

    #[doc = doc!(Engine.n_threads)]
    #[getter]
    fn n_threads(&self) -> Result<usize> {
        Ok(self.core()?.runtime().pool.size())
    }

    #[doc = doc!(Engine.n_batch)]
    #[getter]
    fn n_batch(&self) -> Result<usize> {
        Ok(self.core()?.runtime().n_batch)
    }

    #[doc = doc!(Engine.isa)]
    #[getter]
    fn isa(&self) -> Result<&'static str> {
        Ok(self.core()?.runtime().kernels.isa.name())
    }

    #[doc = doc!(Engine.kv_type)]
    #[getter]
    fn kv_type(&self) -> Result<&'static str> {
        Ok(self.core()?.kv_type.name())
    }

    #[doc = doc!(Engine.act_quant)]
    #[getter]
    fn act_quant(&self) -> Result<&'static str> {
        Ok(self.core()?.runtime().model.act_quant.chosen.name())
    }

    #[doc = doc!(Engine.ffn_act)]
    #[getter]
    fn ffn_act(&self) -> Result<&'static str> {
        Ok(self.core()?.config().activation.name())
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
                let (runtime, config) = (core.runtime(), core.config());
                format!(
                    "<Engine {path} {} {} layers, {} wide, n_ctx={}, n_threads={}, isa={}>",
                    config.arch.name,
                    config.n_layers,
                    config.hidden_size,
                    runtime.n_ctx,
                    runtime.pool.size(),
                    runtime.kernels.isa.name()
                )
            }
        }
    }

    fn _repr_html_<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        said_by("html", "bitnet.display", slf)
    }

    #[pyo3(signature = (**_options))]
    fn _repr_mimebundle_<'py>(
        slf: &Bound<'py, Self>,
        _options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        said_by("bundle", "bitnet.display", slf)
    }
}
