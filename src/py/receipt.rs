//! `bitnet.Receipt`.

use super::convert::detached;
use super::notebook::{call_python, html, mime_bundle};
use super::pickle::{Reduced, by_function};
use crate::error::Result;
use crate::receipt::{Receipt as Core, TestResults};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;
use std::sync::Arc;

#[doc = doc!(Receipt)]
#[pyclass(frozen, from_py_object, module = "bitnet")]
#[derive(Clone)]
pub struct Receipt {
    pub core: Arc<Core>,
}

impl Receipt {
    /// Runs `work` once the model's hash is known, which may take seconds.
    fn hashed<T: Send>(&self, py: Python<'_>, work: impl FnOnce(&Core) -> Result<T> + Send) -> PyResult<T> {
        detached(py, |watch| {
            self.core.claim.model.get_watched(watch)?;
            work(&self.core)
        })
    }
}

#[pymethods]
impl Receipt {
    #[doc = doc!(Receipt.load)]
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let core = detached(py, |_| Core::load(&path))?;
        Ok(Receipt { core: Arc::new(core) })
    }

    #[doc = doc!(Receipt.from_json)]
    #[staticmethod]
    fn from_json(py: Python<'_>, text: &str) -> PyResult<Self> {
        let core = detached(py, |_| Core::from_json(text))?;
        Ok(Receipt { core: Arc::new(core) })
    }

    #[doc = doc!(Receipt.save)]
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<PathBuf> {
        self.hashed(py, |core| core.save(&path))?;
        Ok(path)
    }

    #[doc = doc!(Receipt.validate)]
    fn validate(&self, py: Python<'_>) -> PyResult<()> {
        self.hashed(py, |core| core.validate())
    }

    #[doc = doc!(Receipt.redact)]
    fn redact(&self, py: Python<'_>) -> PyResult<Receipt> {
        let core = self.hashed(py, |core| core.redact())?;
        Ok(Receipt { core: Arc::new(core) })
    }

    #[doc = doc!(Receipt.to_json)]
    fn to_json(&self, py: Python<'_>) -> PyResult<String> {
        self.hashed(py, |core| core.to_json())
    }

    #[doc = doc!(Receipt.to_dict)]
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import("json")?.call_method1("loads", (self.to_json(py)?,))
    }

    #[doc = doc!(Receipt.plot)]
    fn plot<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        call_python("receipt", "bitnet.plot", slf)
    }

    #[doc = doc!(Receipt.with_test_results)]
    #[pyo3(signature = (*, total_tests, passed, failed=0, skipped=0))]
    fn with_test_results(&self, total_tests: u64, passed: u64, failed: u64, skipped: u64) -> Self {
        let results = TestResults { total_tests, passed, failed, skipped };
        Receipt { core: Arc::new(self.core.with_test_results(results)) }
    }

    #[doc = doc!(Receipt.digest)]
    #[getter]
    fn digest(&self, py: Python<'_>) -> PyResult<String> {
        self.hashed(py, |core| core.digest().map(str::to_string))
    }

    #[doc = doc!(Receipt.timestamp)]
    #[getter]
    fn timestamp(&self) -> &str {
        &self.core.timestamp
    }

    #[doc = doc!(Receipt.prompt_tokens)]
    #[getter]
    fn prompt_tokens(&self) -> usize {
        self.core.claim.prompt_ids.len()
    }

    #[doc = doc!(Receipt.cached_tokens)]
    #[getter]
    fn cached_tokens(&self) -> u64 {
        self.core.run.cached_tokens
    }

    #[doc = doc!(Receipt.computed_tokens)]
    #[getter]
    fn computed_tokens(&self) -> u64 {
        self.core.run.computed(&self.core.claim)
    }

    #[doc = doc!(Receipt.completion_tokens)]
    #[getter]
    fn completion_tokens(&self) -> usize {
        self.core.claim.output_ids.len()
    }

    #[doc = doc!(Receipt.finish_reason)]
    #[getter]
    fn finish_reason(&self) -> &str {
        &self.core.claim.finish_reason
    }

    #[doc = doc!(Receipt.kernels)]
    #[getter]
    fn kernels(&self) -> Vec<String> {
        self.core.run.kernels()
    }

    #[doc = doc!(Receipt.seconds)]
    #[getter]
    fn seconds<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let seconds = PyDict::new(py);
        for (name, value) in self.core.run.seconds.named() {
            seconds.set_item(name, value)?;
        }
        Ok(seconds)
    }

    fn __eq__(&self, py: Python<'_>, other: &Receipt) -> PyResult<bool> {
        detached(py, |watch| {
            self.core.claim.model.get_watched(watch)?;
            other.core.claim.model.get_watched(watch)?;
            Ok(self.core.document()? == other.core.document()?)
        })
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        by_function(py, "receipt", (self.to_json(py)?,))
    }

    fn __repr__(&self) -> String {
        format!(
            "<Receipt {} {} prompt tokens ({} cached), {} sampled, {}>",
            self.core.timestamp,
            self.prompt_tokens(),
            self.cached_tokens(),
            self.completion_tokens(),
            self.finish_reason()
        )
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
