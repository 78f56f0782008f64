//! What the command line's `inspect` and `doctor` show.

use super::convert::{count, detached, file_path, optional_count};
use crate::engine::{Engine, Options};
use crate::kernel::{Isa, machine};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The instruction sets of this processor, best last.
#[pyfunction]
pub fn isas() -> Vec<&'static str> {
    Isa::available().into_iter().map(Isa::name).collect()
}

/// The processor's name, the cores that this process may use, its instruction sets.
#[pyfunction]
pub fn processor(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("name", machine::processor_name())?;
    dict.set_item("cores", machine::cores())?;
    dict.set_item("isas", isas())?;
    dict.set_item("target", format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS))?;
    Ok(dict)
}

/// Gigabytes a second that threads read from memory.
#[pyfunction]
#[pyo3(signature = (n_threads, megabytes=None))]
pub fn read_bandwidth(
    py: Python<'_>,
    n_threads: &Bound<'_, PyAny>,
    megabytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<f64> {
    let threads = count(n_threads, "n_threads", 1)?;
    let megabytes = optional_count(megabytes, "megabytes")?.unwrap_or(512);
    detached(py, |_| Ok(machine::read_bandwidth(threads, megabytes.saturating_mul(1 << 20))? / 1e9))
}

/// Everything about a model file that can be said without running it.
#[pyfunction]
pub fn inspect(
    py: Python<'_>,
    #[pyo3(from_py_with = file_path)] path: PathBuf,
) -> PyResult<Bound<'_, PyDict>> {
    let engine = detached(py, |watch| Engine::open(&path, Options::default(), watch))?;
    let model = &engine.runtime().model;
    let (gguf, config) = (model.gguf(), model.config());
    let dict = PyDict::new(py);
    dict.set_item("path", &path)?;
    dict.set_item("version", gguf.version())?;
    dict.set_item("file_size", gguf.file_size())?;
    dict.set_item("arch", config.arch.name())?;

    let shape = PyDict::new(py);
    shape.set_item("layers", config.layers)?;
    shape.set_item("width", config.width)?;
    shape.set_item("ffn", config.ffn)?;
    shape.set_item("heads", config.heads)?;
    shape.set_item("kv_heads", config.kv_heads)?;
    shape.set_item("head_dim", config.head_dim)?;
    shape.set_item("vocab", config.vocab)?;
    shape.set_item("context", config.context)?;
    shape.set_item("rope_theta", config.rope_base)?;
    shape.set_item("eps", config.eps)?;
    shape.set_item("tied", model.tied())?;
    dict.set_item("config", shape)?;
    dict.set_item("activation", config.activation.name())?;
    dict.set_item("act_quant", model.verdict().act_quant.name())?;
    dict.set_item("act_quant_reason", &model.verdict().reason)?;

    let metadata = PyList::empty(py);
    for (key, value) in gguf.metadata().iter() {
        let entry = PyDict::new(py);
        entry.set_item("key", key)?;
        entry.set_item("type", value.type_name())?;
        entry.set_item("value", value.to_string())?;
        metadata.append(entry)?;
    }
    dict.set_item("metadata", metadata)?;

    let tensors = PyList::empty(py);
    let mut types: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for tensor in gguf.tensors() {
        let entry = PyDict::new(py);
        entry.set_item("name", tensor.name())?;
        entry.set_item("type", tensor.kind().name())?;
        entry.set_item("shape", tensor.shape())?;
        entry.set_item("bytes", tensor.size())?;
        tensors.append(entry)?;
        let (n, bytes) = types.entry(tensor.kind().name()).or_default();
        *n += 1;
        *bytes += tensor.size();
    }
    dict.set_item("tensors", tensors)?;
    let by_type = PyDict::new(py);
    for (name, (n, bytes)) in types {
        let entry = PyDict::new(py);
        entry.set_item("tensors", n)?;
        entry.set_item("bytes", bytes)?;
        by_type.set_item(name, entry)?;
    }
    dict.set_item("types", by_type)?;
    dict.set_item("warnings", gguf.warnings())?;
    Ok(dict)
}
