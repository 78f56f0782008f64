//! `Completion.parsed`: JSON answers as Python values.

use super::sampling::Hooks;
use crate::sampler::SamplingParams;
use pyo3::prelude::*;
use pyo3::types::PyBool;
use std::convert::Infallible;
use std::sync::Arc;

/// Whether an answer is JSON, and what it becomes. In Python: None, True, or a class.
#[derive(Clone, Default)]
pub enum JsonForm {
    /// It is a text.
    #[default]
    None,
    /// It becomes dicts, lists, texts, numbers.
    Value,
    /// It becomes an object of this class.
    Model(Arc<Py<PyAny>>),
}

impl JsonForm {
    /// What these parameters make of an answer.
    pub fn new(params: &SamplingParams, hooks: &Hooks) -> JsonForm {
        match (&params.json_schema, &hooks.model) {
            (None, _) => JsonForm::None,
            (Some(_), None) => JsonForm::Value,
            (Some(_), Some(model)) => JsonForm::Model(model.clone()),
        }
    }

    /// The value that an answer stands for; None if it is no JSON, or was not written to its end.
    pub fn parse(&self, py: Python<'_>, text: Option<&String>) -> PyResult<Py<PyAny>> {
        let (Some(text), JsonForm::Value | JsonForm::Model(_)) = (text, self) else { return Ok(py.None()) };
        let parsed = py.import("bitnet._schema")?.call_method1("parsed", (text, self.clone()))?;
        Ok(parsed.unbind())
    }
}

impl<'py> IntoPyObject<'py> for JsonForm {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = Infallible;

    fn into_pyobject(self, py: Python<'py>) -> Result<Bound<'py, PyAny>, Infallible> {
        Ok(match self {
            JsonForm::None => py.None().into_bound(py),
            JsonForm::Value => PyBool::new(py, true).to_owned().into_any(),
            JsonForm::Model(model) => model.bind(py).clone(),
        })
    }
}

impl<'py> FromPyObject<'_, 'py> for JsonForm {
    type Error = Infallible;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> Result<JsonForm, Infallible> {
        Ok(if value.is_none() {
            JsonForm::None
        } else if value.is_instance_of::<PyBool>() {
            JsonForm::Value
        } else {
            JsonForm::Model(Arc::new(value.to_owned().unbind()))
        })
    }
}
