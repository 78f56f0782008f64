//! What is written in Python: how objects are displayed, plots, progress bars. Each is imported when it is asked for.

use pyo3::prelude::*;

/// What a function of the package says of an object.
pub fn said_by<'py, T>(function: &str, module: &str, object: &Bound<'py, T>) -> PyResult<Bound<'py, PyAny>> {
    object.py().import(module)?.call_method1(function, (object.as_any(),))
}

/// A progress bar; None unless asked for.
pub struct Bar<'py>(Option<Bound<'py, PyAny>>);

impl<'py> Bar<'py> {
    /// Begins one of `total` units.
    pub fn begin(py: Python<'py>, wanted: bool, what: &str, total: usize, unit: &str) -> PyResult<Bar<'py>> {
        let begin = || py.import("bitnet._progress")?.call_method1("bar", (what, total, unit));
        Ok(Bar(wanted.then(begin).transpose()?))
    }

    /// So many more are done.
    pub fn advance(&self, done: usize) -> PyResult<()> {
        self.0.iter().try_for_each(|bar| bar.call_method1("update", (done,)).map(drop))
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        // Also after an error, which is the one to be told.
        let _ = self.0.iter().try_for_each(|bar| bar.call_method0("close").map(drop));
    }
}
