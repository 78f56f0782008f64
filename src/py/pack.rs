//! `bitnet.pack` and `bitnet.check_packed`.

use super::convert::{choice, detached, model_path, optional_count};
use crate::engine::{self, PackedFile, Packing};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::{Path, PathBuf};

#[doc = doc!(pack)]
#[pyfunction]
#[pyo3(signature = (model, out, *, layout="auto", force=false, n_threads=None))]
pub fn pack<'py>(
    py: Python<'py>,
    #[pyo3(from_py_with = model_path)] model: PathBuf,
    out: &Bound<'py, PyAny>,
    layout: &str,
    force: bool,
    n_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let out: PathBuf = py.import("os")?.call_method1("fsdecode", (out,))?.extract()?;
    let layout = choice(layout, "layout", &Packing::ALL.map(|layout| (layout.name(), layout)))?;
    let threads = optional_count(n_threads, "n_threads")?;
    let made = detached(py, |watch| engine::pack(&model, &out, layout, threads, force, watch))?;
    facts(py, &out, &made)
}

#[doc = doc!(check_packed)]
#[pyfunction]
#[pyo3(signature = (path, model=None, *, n_threads=None))]
pub fn check_packed<'py>(
    py: Python<'py>,
    #[pyo3(from_py_with = model_path)] path: PathBuf,
    model: Option<&Bound<'py, PyAny>>,
    n_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let model = model.map(model_path).transpose()?;
    let threads = optional_count(n_threads, "n_threads")?;
    let found = detached(py, |watch| engine::check_packed(&path, model.as_deref(), threads, watch))?;
    facts(py, &path, &found)
}

/// What is known of a packed file.
fn facts<'py>(py: Python<'py>, path: &Path, file: &PackedFile) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("path", path)?;
    dict.set_item("bytes", file.bytes)?;
    dict.set_item("content", &file.content)?;
    dict.set_item("layout", &file.packed.layout)?;
    dict.set_item("fingerprint", &file.packed.fingerprint)?;
    dict.set_item("model_file", &file.packed.file)?;
    dict.set_item("model_bytes", file.packed.bytes)?;
    Ok(dict)
}
