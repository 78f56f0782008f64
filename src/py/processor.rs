//! `logits_processor`: a Python function that changes the logits before an id is chosen.

use crate::engine::LogitsProcessor;
use crate::error::{Error, Result};
use crate::token::TokenId;
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration, PyStopIteration};
use pyo3::prelude::*;
use std::sync::Arc;

/// The function as the engine calls it. It may change the array of logits in place, or return another.
pub fn logits_processor(function: Arc<Py<PyAny>>) -> LogitsProcessor {
    let name = Python::attach(|py| {
        let function = function.bind(py);
        let name = function.getattr("__qualname__").or_else(|_| function.get_type().getattr("__qualname__"));
        name.and_then(|name| name.extract::<String>()).unwrap_or_else(|_| "a function".into())
    });
    let run = move |ids: &[TokenId], logits: &mut [f32]| -> Result<()> {
        Python::attach(|py| call(function.bind(py), ids, logits)).map_err(|error| Error::Callback(Arc::new(error)))
    };
    LogitsProcessor { name, run: Box::new(run) }
}

fn call(function: &Bound<'_, PyAny>, ids: &[TokenId], logits: &mut [f32]) -> PyResult<()> {
    let py = function.py();
    let array = PyArray1::from_slice(py, logits);
    let returned = function.call1((PyArray1::from_slice(py, ids), &array)).map_err(|error| not_an_end(py, error))?;
    let changed = if returned.is_none() { array.into_any() } else { returned };
    let same_size = |changed: &PyReadonlyArray1<f32>| changed.len().is_ok_and(|len| len == logits.len());
    let read: Option<PyReadonlyArray1<f32>> = changed.extract().ok().filter(same_size);
    let Some(changed) = read else {
        let (n, found) = (logits.len(), described(&changed));
        let wrong = format!("logits_processor must return None or an array of {n} float32, the logits, not {found}");
        return Err(pyo3::exceptions::PyTypeError::new_err(wrong));
    };
    logits.iter_mut().zip(changed.as_array()).for_each(|(logit, changed)| *logit = *changed);
    match logits.iter().position(|logit| logit.is_nan()) {
        Some(id) => Err(super::convert::ArgumentError::new_err(format!("logits_processor made logit {id} NaN"))),
        None => Ok(()),
    }
}

/// The error of the function. As in a generator, one that would end the loop over a stream becomes a RuntimeError.
fn not_an_end(py: Python<'_>, error: PyErr) -> PyErr {
    if !error.is_instance_of::<PyStopIteration>(py) && !error.is_instance_of::<PyStopAsyncIteration>(py) {
        return error;
    }
    let name = error.get_type(py).name().map_or("an exception".into(), |name| name.to_string());
    let instead = PyRuntimeError::new_err(format!("logits_processor raised {name}"));
    instead.set_cause(py, Some(error));
    instead
}

/// What was returned, for an error.
fn described(returned: &Bound<'_, PyAny>) -> String {
    let array = || Some((returned.getattr("dtype").ok()?, returned.getattr("shape").ok()?));
    array().map_or_else(|| super::convert::type_name(returned), |(dtype, shape)| format!("{dtype} of shape {shape}"))
}
