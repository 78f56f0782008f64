//! Errors for names that other libraries have. `bitnet._hints` says what to write here.

use pyo3::exceptions::{PyAttributeError, PyTypeError};
use pyo3::prelude::*;

/// An attribute that the class does not have.
pub fn attribute(py: Python<'_>, class: &str, name: &str) -> PyErr {
    text(py, "attribute", (class, name)).map_or_else(|error| error, PyAttributeError::new_err)
}

/// `object[key]` of a class that has no items.
pub fn item(py: Python<'_>, class: &str) -> PyErr {
    text(py, "item", (class,)).map_or_else(|error| error, PyTypeError::new_err)
}

/// A keyword that is no sampling parameter.
pub fn sampling_keyword(py: Python<'_>, name: &str) -> PyErr {
    text(py, "sampling_keyword", (name,)).map_or_else(|error| error, PyTypeError::new_err)
}

/// A keyword that `Engine` does not take.
pub fn engine_keyword(py: Python<'_>, name: &str) -> PyErr {
    text(py, "engine_keyword", (name,)).map_or_else(|error| error, PyTypeError::new_err)
}

fn text<'py>(py: Python<'py>, function: &str, arguments: impl pyo3::call::PyCallArgs<'py>) -> PyResult<String> {
    py.import("bitnet._hints")?.call_method1(function, arguments)?.extract()
}
