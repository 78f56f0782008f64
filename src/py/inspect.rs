//! What the command line's `inspect` and `doctor` show.

use super::convert::{count, detached, file_path, optional_count};
use crate::checkpoint::gguf::{GgufHeader, Metadata, Value};
use crate::engine::{Engine, Options};
use crate::error::Error;
use crate::kernel::{Isa, kernels, peak};
use crate::machine::{bandwidth, facts};
use crate::model::Model;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Items of an array that are given; the count of all of them stands beside.
const SHOWN_ITEMS: usize = 64;

#[doc = doc!(isas)]
#[pyfunction]
pub fn isas() -> Vec<&'static str> {
    Isa::available().into_iter().map(Isa::name).collect()
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
    let kernels = kernels(isa)?;
    detached(py, |_| peak::dot_peak(threads, kernels))
}

#[doc = doc!(inspect)]
#[pyfunction]
pub fn inspect(py: Python<'_>, #[pyo3(from_py_with = file_path)] path: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("path", &path)?;
    let opened = detached(py, |watch| {
        Ok(match Engine::open(&path, Options::default(), watch) {
            Err(error @ (Error::Unsupported(_) | Error::Model(_))) => Err((error, GgufHeader::open(&path)?)),
            other => Ok(other?),
        })
    })?;
    match &opened {
        Ok(engine) => {
            let model = &engine.runtime().model;
            let gguf = model.gguf();
            let tensors = gguf.tensors().iter();
            let tensors = tensors.map(|t| (t.name(), t.kind().name(), t.shape(), t.size()));
            contents(&dict, gguf.version(), gguf.file_size(), gguf.metadata(), tensors)?;
            verdicts(&dict, model)?;
        }
        Err((error, outline)) => {
            let tensors = outline.tensors.iter();
            let tensors = tensors.map(|t| (&*t.name, &*t.kind, &*t.shape, t.bytes));
            contents(&dict, outline.version(), outline.file_size(), outline.metadata(), tensors)?;
            for key in ["config", "activation", "act_quant", "act_quant_reason"] {
                dict.set_item(key, py.None())?;
            }
            dict.set_item("warnings", PyList::empty(py))?;
            dict.set_item("error", error.to_string())?;
        }
    }
    Ok(dict)
}

/// How a model is run.
fn verdicts(dict: &Bound<'_, PyDict>, model: &Model) -> PyResult<()> {
    let config = model.config();
    let shape = PyDict::new(dict.py());
    shape.set_item("layers", config.n_layers)?;
    shape.set_item("width", config.hidden_size)?;
    shape.set_item("ffn", config.intermediate_size)?;
    shape.set_item("heads", config.n_heads)?;
    shape.set_item("kv_heads", config.n_kv_heads)?;
    shape.set_item("head_dim", config.head_dim)?;
    shape.set_item("vocab", config.vocab_size)?;
    shape.set_item("context", config.context)?;
    shape.set_item("rope_theta", config.rope.base)?;
    shape.set_item("eps", config.eps)?;
    shape.set_item("tied", model.tied())?;
    dict.set_item("config", shape)?;
    dict.set_item("activation", config.activation.name())?;
    dict.set_item("act_quant", model.act_quant.chosen.name())?;
    dict.set_item("act_quant_reason", &model.act_quant.reason)?;
    dict.set_item("warnings", [model.gguf().warnings(), &model.warnings].concat())?;
    dict.set_item("error", dict.py().None())
}

/// What a file holds.
fn contents<'a>(
    dict: &Bound<'_, PyDict>,
    version: u32,
    file_size: u64,
    metadata: Metadata,
    tensors: impl Iterator<Item = (&'a str, &'a str, &'a [usize], usize)>,
) -> PyResult<()> {
    let py = dict.py();
    dict.set_item("version", version)?;
    dict.set_item("file_size", file_size)?;
    dict.set_item("arch", metadata.str("general.architecture").unwrap_or_default())?;
    let entries = PyList::empty(py);
    for (key, value) in metadata.iter() {
        let entry = PyDict::new(py);
        entry.set_item("key", key)?;
        entry.set_item("type", value.type_name())?;
        entry.set_item("value", native(py, value)?)?;
        if let Value::Array(array) = value {
            entry.set_item("count", array.len())?;
        }
        entries.append(entry)?;
    }
    dict.set_item("metadata", entries)?;

    let list = PyList::empty(py);
    let mut types: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (name, kind, shape, bytes) in tensors {
        let entry = PyDict::new(py);
        entry.set_item("name", name)?;
        entry.set_item("type", kind)?;
        entry.set_item("shape", shape)?;
        entry.set_item("bytes", bytes)?;
        list.append(entry)?;
        let (n, sum) = types.entry(kind).or_default();
        *n += 1;
        *sum += bytes;
    }
    dict.set_item("tensors", list)?;
    let by_type = PyDict::new(py);
    for (name, (n, bytes)) in types {
        let entry = PyDict::new(py);
        entry.set_item("tensors", n)?;
        entry.set_item("bytes", bytes)?;
        by_type.set_item(name, entry)?;
    }
    dict.set_item("types", by_type)
}

/// A metadata value as Python's own; of a long array the first items.
fn native<'py>(py: Python<'py>, value: Value) -> PyResult<Bound<'py, PyAny>> {
    match value {
        Value::Bool(value) => value.into_bound_py_any(py),
        // The shortest number that means this f32.
        Value::F32(value) => value.to_string().parse::<f64>().unwrap_or_default().into_bound_py_any(py),
        Value::F64(value) => value.into_bound_py_any(py),
        Value::Str(bytes) => String::from_utf8_lossy(bytes).into_bound_py_any(py),
        Value::Array(array) => {
            let items = array.iter().take(SHOWN_ITEMS).map(|item| native(py, item));
            items.collect::<PyResult<Vec<_>>>()?.into_bound_py_any(py)
        }
        integer => integer.as_int().into_bound_py_any(py),
    }
}
