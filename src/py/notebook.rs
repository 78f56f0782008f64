//! Calls into the package's Python modules: how objects are displayed, plots, progress bars. Each module is imported
//! only when it is needed.

use pyo3::prelude::*;

/// The result of a function of one of the package's Python modules, called with an object.
pub fn call_python<'py, T>(function: &str, module: &str, object: &Bound<'py, T>) -> PyResult<Bound<'py, PyAny>> {
    object.py().import(module)?.call_method1(function, (object.as_any(),))
}

/// `_repr_html_` of a class that notebooks display.
pub fn html<'py, T>(object: &Bound<'py, T>) -> PyResult<Bound<'py, PyAny>> {
    call_python("html", "bitnet._display", object)
}

/// `_repr_mimebundle_` of a class that notebooks display.
pub fn mime_bundle<'py, T>(object: &Bound<'py, T>) -> PyResult<Bound<'py, PyAny>> {
    call_python("bundle", "bitnet._display", object)
}

/// A progress bar; shows nothing unless it was asked for.
pub struct ProgressBar<'py>(Option<Bound<'py, PyAny>>);

impl<'py> ProgressBar<'py> {
    /// Shows a bar of `total` units if `wanted`.
    pub fn begin(py: Python<'py>, wanted: bool, what: &str, total: usize, unit: &str) -> PyResult<ProgressBar<'py>> {
        let begin = || py.import("bitnet._progress")?.call_method1("bar", (what, total, unit));
        Ok(ProgressBar(wanted.then(begin).transpose()?))
    }

    /// Advances the bar by `units`.
    pub fn advance(&self, units: usize) -> PyResult<()> {
        self.0.iter().try_for_each(|bar| bar.call_method1("update", (units,)).map(drop))
    }
}

impl Drop for ProgressBar<'_> {
    fn drop(&mut self) {
        // The caller may be returning an error of its own, which matters more than one of the bar.
        let _ = self.0.iter().try_for_each(|bar| bar.call_method0("close").map(drop));
    }
}
