//! Classes that stand for a text: `str()` gives it, and they compare with a str as texts do.

use pyo3::PyClass;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// `==` of an object with this text: with a str by the text, with an object of the same class by `same`.
pub fn equals<T: PyClass<Frozen = pyo3::pyclass::boolean_struct::True> + Sync>(
    text: &str,
    other: &Bound<'_, PyAny>,
    same: impl FnOnce(&T) -> PyResult<bool>,
) -> PyResult<Py<PyAny>> {
    let py = other.py();
    let equal = if let Ok(other) = other.cast::<PyString>() {
        other.to_str().is_ok_and(|other| other == text)
    } else if let Ok(other) = other.cast::<T>() {
        same(other.get())?
    } else {
        return Ok(py.NotImplemented());
    };
    Ok(pyo3::types::PyBool::new(py, equal).to_owned().into_any().unbind())
}

/// The hash of a str with this text, so that objects that are equal have equal hashes.
pub fn hash(py: Python<'_>, text: &str) -> PyResult<isize> {
    PyString::new(py, text).hash()
}
