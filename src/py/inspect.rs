//! `bitnet.inspect`, and what `bitnet doctor` shows of the processor.

use super::convert::{count, detached, model_path, optional_count};
use crate::checkpoint::gguf::{Metadata, Value};
use crate::engine::{self, Inspection, ModelSummary, TensorSummary};
use crate::machine::{bandwidth, facts};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::path::PathBuf;

/// Items of a metadata array that are shown; `count` tells how many there are.
const SHOWN_ITEMS: usize = 64;

#[doc = doc!(isas)]
#[pyfunction]
pub fn isas() -> Vec<&'static str> {
    engine::isas()
}

#[doc = doc!(processor)]
#[pyfunction]
pub fn processor(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("name", facts::processor_name())?;
    dict.set_item("cores", facts::cores())?;
    dict.set_item("isas", isas())?;
    dict.set_item("target", format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS))?;
    Ok(dict)
}

#[doc = doc!(read_bandwidth)]
#[pyfunction]
#[pyo3(signature = (n_threads, megabytes=None))]
pub fn read_bandwidth(
    py: Python<'_>,
    n_threads: &Bound<'_, PyAny>,
    megabytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<f64> {
    let threads = count(n_threads, "n_threads", 1)?;
    let megabytes = optional_count(megabytes, "megabytes")?.unwrap_or(512);
    detached(py, |_| Ok(bandwidth::read_bandwidth(threads, megabytes.saturating_mul(1 << 20))? / 1e9))
}

#[doc = doc!(dot_peak)]
#[pyfunction]
#[pyo3(signature = (n_threads, isa=None))]
pub fn dot_peak(py: Python<'_>, n_threads: &Bound<'_, PyAny>, isa: Option<&str>) -> PyResult<f64> {
    let threads = count(n_threads, "n_threads", 1)?;
    detached(py, |_| engine::dot_peak(threads, isa))
}

#[doc = doc!(look_up_peak)]
#[pyfunction]
#[pyo3(signature = (n_threads, isa=None))]
pub fn look_up_peak(py: Python<'_>, n_threads: &Bound<'_, PyAny>, isa: Option<&str>) -> PyResult<f64> {
    let threads = count(n_threads, "n_threads", 1)?;
    detached(py, |_| engine::look_up_peak(threads, isa))
}

#[doc = doc!(inspect)]
#[pyfunction]
#[pyo3(signature = (path, *, weights=false))]
pub fn inspect(
    py: Python<'_>,
    #[pyo3(from_py_with = model_path)] path: PathBuf,
    weights: bool,
) -> PyResult<Bound<'_, PyDict>> {
    let (inspection, zeros) = detached(py, |watch| {
        let inspection = Inspection::open(&path, watch)?;
        let zeros = if weights { inspection.zeros(watch)? } else { Vec::new() };
        Ok((inspection, zeros))
    })?;
    let dict = PyDict::new(py);
    dict.set_item("path", &path)?;
    let format = match (inspection.packed(), inspection.version()) {
        (Some(_), _) => "packed",
        (None, Some(_)) => "gguf",
        (None, None) => "safetensors",
    };
    dict.set_item("format", format)?;
    dict.set_item("version", inspection.version())?;
    dict.set_item("file_size", inspection.file_size())?;
    dict.set_item("arch", inspection.metadata().str("general.architecture").unwrap_or_default())?;
    dict.set_item("metadata", metadata_list(py, inspection.metadata())?)?;
    let zeros = zeros.into_iter().chain(std::iter::repeat(None));
    let tensors = inspection.tensors().into_iter().zip(zeros).map(|(tensor, zeros)| tensor_dict(py, tensor, zeros));
    dict.set_item("tensors", tensors.collect::<PyResult<Vec<_>>>()?)?;
    let types = PyDict::new(py);
    for (name, total) in inspection.types() {
        let entry = PyDict::new(py);
        entry.set_item("tensors", total.tensors)?;
        entry.set_item("bytes", total.bytes)?;
        types.set_item(name, entry)?;
    }
    dict.set_item("types", types)?;
    match inspection.model() {
        Ok(model) => add_model(&dict, model)?,
        Err(error) => {
            for key in ["config", "graph", "activation", "activation_reason", "act_quant", "act_quant_reason"] {
                dict.set_item(key, py.None())?;
            }
            dict.set_item("warnings", PyList::empty(py))?;
            dict.set_item("error", error.to_string())?;
        }
    }
    Ok(dict)
}

/// Adds how an engine runs the model.
fn add_model(dict: &Bound<'_, PyDict>, model: ModelSummary) -> PyResult<()> {
    let config = model.config;
    let shape = PyDict::new(dict.py());
    shape.set_item("layers", config.n_layers)?;
    // The API's names, which differ from the core's.
    shape.set_item("width", config.hidden_size)?;
    shape.set_item("ffn", config.intermediate_size)?;
    shape.set_item("heads", config.n_heads)?;
    shape.set_item("kv_heads", config.n_kv_heads)?;
    shape.set_item("head_dim", config.head_dim)?;
    shape.set_item("vocab", config.vocab_size)?;
    shape.set_item("context", config.context)?;
    shape.set_item("rope_theta", config.rope.base)?;
    shape.set_item("eps", config.eps)?;
    shape.set_item("tied", model.tied)?;
    dict.set_item("config", shape)?;
    dict.set_item("graph", model.graph)?;
    dict.set_item("activation", config.activation.name())?;
    dict.set_item("activation_reason", config.activation_reason)?;
    dict.set_item("act_quant", model.act_quant.name())?;
    dict.set_item("act_quant_reason", model.act_quant_reason)?;
    dict.set_item("warnings", model.warnings)?;
    dict.set_item("error", dict.py().None())
}

fn metadata_list<'py>(py: Python<'py>, metadata: Metadata) -> PyResult<Bound<'py, PyList>> {
    let entries = PyList::empty(py);
    for (key, value) in metadata.iter() {
        let entry = PyDict::new(py);
        entry.set_item("key", key)?;
        entry.set_item("type", value.type_name())?;
        entry.set_item("value", metadata_value(py, value)?)?;
        if let Value::Array(array) = value {
            entry.set_item("count", array.len())?;
        }
        entries.append(entry)?;
    }
    Ok(entries)
}

fn tensor_dict<'py>(py: Python<'py>, tensor: TensorSummary, zeros: Option<f64>) -> PyResult<Bound<'py, PyDict>> {
    let entry = PyDict::new(py);
    entry.set_item("name", tensor.name)?;
    entry.set_item("type", tensor.kind)?;
    entry.set_item("shape", tensor.shape)?;
    entry.set_item("bytes", tensor.bytes)?;
    entry.set_item("zeros", zeros)?;
    Ok(entry)
}

/// A metadata value as a Python value; of a long array only the first items.
fn metadata_value<'py>(py: Python<'py>, value: Value) -> PyResult<Bound<'py, PyAny>> {
    match value {
        Value::Bool(value) => value.into_bound_py_any(py),
        // Python shows the shortest decimal number that is this f32, not the digits of its f64.
        Value::F32(value) => value.to_string().parse::<f64>().unwrap_or_default().into_bound_py_any(py),
        Value::F64(value) => value.into_bound_py_any(py),
        Value::Str(bytes) => String::from_utf8_lossy(bytes).into_bound_py_any(py),
        Value::Array(array) => {
            let items = array.iter().take(SHOWN_ITEMS).map(|item| metadata_value(py, item));
            items.collect::<PyResult<Vec<_>>>()?.into_bound_py_any(py)
        }
        integer => integer.as_int().into_bound_py_any(py),
    }
}
