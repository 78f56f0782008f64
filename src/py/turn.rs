//! `bitnet.ChatTurn`.

use super::convert::unicode;
use super::pickle::Reduced;
use super::texts;
use crate::template::ChatTurn as CoreTurn;
use pyo3::prelude::*;
use pyo3::types::PyString;

#[doc = doc!(ChatTurn)]
#[pyclass(frozen, from_py_object, module = "bitnet")]
#[derive(Clone)]
pub struct ChatTurn {
    pub core: CoreTurn,
}

#[pymethods]
impl ChatTurn {
    #[new]
    #[pyo3(signature = (role, text, cancelled=false, reasoning=None))]
    fn new(
        role: &str,
        text: &Bound<'_, PyAny>,
        cancelled: bool,
        reasoning: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<ChatTurn> {
        let reasoning = reasoning.map(|thoughts| unicode(thoughts, "reasoning")).transpose()?;
        Ok(ChatTurn { core: CoreTurn { role: role.parse()?, text: unicode(text, "text")?, reasoning, cancelled } })
    }

    #[doc = doc!(ChatTurn.role)]
    #[getter]
    fn role(&self) -> &'static str {
        self.core.role.name()
    }

    #[doc = doc!(ChatTurn.text)]
    #[getter]
    fn text(&self) -> &str {
        &self.core.text
    }

    #[doc = doc!(ChatTurn.reasoning)]
    #[getter]
    fn reasoning(&self) -> Option<&str> {
        self.core.reasoning.as_deref()
    }

    #[doc = doc!(ChatTurn.cancelled)]
    #[getter]
    fn cancelled(&self) -> bool {
        self.core.cancelled
    }

    fn __str__(&self) -> &str {
        &self.core.text
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        texts::equals(&self.core.text, other, |other: &ChatTurn| Ok(self.core == other.core))
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        texts::hash(py, &self.core.text)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        let turn = slf.get();
        let arguments = (turn.role(), turn.text(), turn.cancelled(), turn.reasoning()).into_pyobject(slf.py())?;
        Ok((slf.get_type().into_any(), arguments))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let text = PyString::new(py, &self.core.text).repr()?;
        let cancelled = if self.core.cancelled { ", cancelled=True" } else { "" };
        let reasoning = match self.reasoning() {
            Some(thoughts) => format!(", reasoning={}", PyString::new(py, thoughts).repr()?),
            None => String::new(),
        };
        Ok(format!("ChatTurn('{}', {text}{cancelled}{reasoning})", self.role()))
    }
}
