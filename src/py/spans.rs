//! `bitnet.Span`.

use super::pickle::{Reduced, by_fields};
use super::texts;
use crate::engine;
use crate::token::TokenId;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};

#[doc = doc!(Span)]
#[pyclass(frozen, get_all, module = "bitnet")]
#[derive(Clone, PartialEq)]
pub struct Span {
    #[doc = doc!(Span.text)]
    text: String,
    #[doc = doc!(Span.role)]
    role: Option<String>,
    #[doc = doc!(Span.message)]
    message: Option<usize>,
    #[doc = doc!(Span.start)]
    start: usize,
    #[doc = doc!(Span.end)]
    end: usize,
    #[doc = doc!(Span.rewritten)]
    rewritten: bool,
    #[doc = doc!(Span.token_ids)]
    token_ids: Option<Vec<TokenId>>,
}

impl From<engine::Span> for Span {
    fn from(span: engine::Span) -> Span {
        let engine::Span { text, role, message, start, end, rewritten, token_ids } = span;
        Span { text, role, message, start, end, rewritten, token_ids }
    }
}

#[pymethods]
impl Span {
    #[classmethod]
    #[allow(clippy::too_many_arguments)]
    fn _rebuild(
        _cls: &Bound<'_, PyType>,
        text: String,
        role: Option<String>,
        message: Option<usize>,
        start: usize,
        end: usize,
        rewritten: bool,
        token_ids: Option<Vec<TokenId>>,
    ) -> Span {
        Span { text, role, message, start, end, rewritten, token_ids }
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        by_fields(slf, &["text", "role", "message", "start", "end", "rewritten", "token_ids"])
    }

    fn __str__(&self) -> &str {
        &self.text
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        texts::equals(&self.text, other, |other: &Span| Ok(self == other))
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        texts::hash(py, &self.text)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let rewritten = if self.rewritten { ", rewritten" } else { "" };
        let (author, text) = (self.role.as_deref().unwrap_or("template"), PyString::new(py, &self.text).repr()?);
        Ok(format!("<Span {}..{} {author}{rewritten} {text}>", self.start, self.end))
    }
}
