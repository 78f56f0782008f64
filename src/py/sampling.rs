//! `bitnet.SamplingParams`, and the same as flat keywords.

use super::convert::{ArgumentError, count, named, token_ids, unicode};
use crate::sampler::{SamplingParams as Core, decimal};
use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

#[doc = doc!(SamplingParams)]
#[pyclass(frozen, eq, module = "bitnet")]
#[derive(PartialEq, Clone)]
pub struct SamplingParams {
    pub core: Core,
}

const NAMES: [&str; 15] = [
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "repeat_last_n",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "seed",
    "max_tokens",
    "stop",
    "stop_token_ids",
    "ignore_eos",
    "logprobs",
];

/// `params` and keywords, as every call that samples takes them.
pub fn params(params: Option<&SamplingParams>, keywords: Option<&Bound<'_, PyDict>>) -> PyResult<Core> {
    params_over(&Core::default(), params, keywords)
}

/// `params`, or else `base`, with what the keywords change of it.
pub fn params_over(
    base: &Core,
    params: Option<&SamplingParams>,
    keywords: Option<&Bound<'_, PyDict>>,
) -> PyResult<Core> {
    let base = params.map_or(base, |params| &params.core).clone();
    keywords.map_or(Ok(base.clone()), |keywords| changed(base, keywords))
}

fn changed(mut core: Core, keywords: &Bound<'_, PyDict>) -> PyResult<Core> {
    for (name, value) in keywords {
        let name: String = name.extract()?;
        set(&mut core, &name, &value).map_err(|error| match error.is_instance_of::<PyTypeError>(value.py()) {
            true => named(error, &name, value.py()),
            false => error,
        })?;
    }
    core.validate()?;
    Ok(core)
}

fn seed(value: &Bound<'_, PyAny>) -> PyResult<u64> {
    value.extract().map_err(|error: PyErr| match error.is_instance_of::<PyOverflowError>(value.py()) {
        true => ArgumentError::new_err(format!("seed is {value}, expected 0 to {}", u64::MAX)),
        false => error,
    })
}

fn set(core: &mut Core, name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let count = |least: i64| count(value, name, least);
    let is_none = value.is_none();
    match name {
        "temperature" => core.temperature = value.extract()?,
        "top_k" => core.top_k = count(0)?,
        "top_p" => core.top_p = value.extract()?,
        "min_p" => core.min_p = value.extract()?,
        "repetition_penalty" => core.repetition_penalty = value.extract()?,
        "repeat_last_n" => core.repeat_last_n = count(0)?,
        "presence_penalty" => core.presence_penalty = value.extract()?,
        "frequency_penalty" => core.frequency_penalty = value.extract()?,
        "logit_bias" => {
            let dict = value.cast::<PyDict>()?;
            let ids = token_ids(dict.keys().as_any(), name)?;
            core.logit_bias = Vec::new();
            for (id, bias) in ids.into_iter().zip(dict.values()) {
                let bias: f64 = bias.extract()?;
                if bias.is_finite() && (bias as f32).is_infinite() {
                    return Err(ArgumentError::new_err(format!("logit_bias is {bias}, more than a float32 holds")));
                }
                let no_id =
                    |_| ArgumentError::new_err(format!("logit_bias has the id {id}, expected 0 to {}", u32::MAX));
                core.logit_bias.push((u32::try_from(id).map_err(no_id)?, bias as f32));
            }
            core.logit_bias.sort_unstable_by_key(|(id, _)| *id);
        }
        "seed" => core.seed = if is_none { None } else { Some(seed(value)?) },
        "max_tokens" => core.max_tokens = if is_none { None } else { Some(count(1)?) },
        "stop" => {
            core.stop = match value.is_instance_of::<PyString>() {
                true => vec![unicode(value, name)?],
                false if is_none => Vec::new(),
                false => value.try_iter()?.map(|text| unicode(&text?, name)).collect::<PyResult<_>>()?,
            }
        }
        "stop_token_ids" => {
            let ids = token_ids(value, name)?;
            core.stop_token_ids = ids.into_iter().filter_map(|id| u32::try_from(id).ok()).collect();
        }
        "ignore_eos" => core.ignore_eos = value.extract()?,
        "logprobs" => core.logprobs = if is_none { None } else { Some(count(0)?) },
        _ => {
            return Err(PyTypeError::new_err(format!("{name} is not a sampling parameter; see SamplingParams")));
        }
    }
    Ok(())
}

#[pymethods]
impl SamplingParams {
    #[new]
    #[pyo3(signature = (**keywords), text_signature = "(*, temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, \
        repetition_penalty=1.0, repeat_last_n=64, presence_penalty=0.0, frequency_penalty=0.0, logit_bias={}, seed=None, \
        max_tokens=None, stop=(), stop_token_ids=(), ignore_eos=False, logprobs=None)")]
    fn new(keywords: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        Ok(SamplingParams { core: params(None, keywords)? })
    }
    #[doc = doc!(SamplingParams.temperature)]
    #[getter]
    fn temperature(&self) -> f64 {
        decimal(self.core.temperature)
    }
    #[doc = doc!(SamplingParams.top_k)]
    #[getter]
    fn top_k(&self) -> usize {
        self.core.top_k
    }
    #[doc = doc!(SamplingParams.top_p)]
    #[getter]
    fn top_p(&self) -> f64 {
        decimal(self.core.top_p)
    }
    #[doc = doc!(SamplingParams.min_p)]
    #[getter]
    fn min_p(&self) -> f64 {
        decimal(self.core.min_p)
    }
    #[doc = doc!(SamplingParams.repetition_penalty)]
    #[getter]
    fn repetition_penalty(&self) -> f64 {
        decimal(self.core.repetition_penalty)
    }
    #[doc = doc!(SamplingParams.repeat_last_n)]
    #[getter]
    fn repeat_last_n(&self) -> usize {
        self.core.repeat_last_n
    }
    #[doc = doc!(SamplingParams.presence_penalty)]
    #[getter]
    fn presence_penalty(&self) -> f64 {
        decimal(self.core.presence_penalty)
    }
    #[doc = doc!(SamplingParams.frequency_penalty)]
    #[getter]
    fn frequency_penalty(&self) -> f64 {
        decimal(self.core.frequency_penalty)
    }
    #[doc = doc!(SamplingParams.logit_bias)]
    #[getter]
    fn logit_bias<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        self.core.logit_bias.iter().try_for_each(|(id, bias)| dict.set_item(id, decimal(*bias)))?;
        Ok(dict)
    }
    #[doc = doc!(SamplingParams.seed)]
    #[getter]
    fn seed(&self) -> Option<u64> {
        self.core.seed
    }
    #[doc = doc!(SamplingParams.max_tokens)]
    #[getter]
    fn max_tokens(&self) -> Option<usize> {
        self.core.max_tokens
    }
    #[doc = doc!(SamplingParams.stop)]
    #[getter]
    fn stop(&self) -> Vec<String> {
        self.core.stop.clone()
    }
    #[doc = doc!(SamplingParams.stop_token_ids)]
    #[getter]
    fn stop_token_ids(&self) -> Vec<u32> {
        self.core.stop_token_ids.clone()
    }
    #[doc = doc!(SamplingParams.ignore_eos)]
    #[getter]
    fn ignore_eos(&self) -> bool {
        self.core.ignore_eos
    }
    #[doc = doc!(SamplingParams.logprobs)]
    #[getter]
    fn logprobs(&self) -> Option<usize> {
        self.core.logprobs
    }
    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let shown = NAMES.iter().map(|name| Ok(format!("{name}={}", slf.getattr(*name)?.repr()?)));
        Ok(format!("SamplingParams({})", shown.collect::<PyResult<Vec<_>>>()?.join(", ")))
    }
}
