//! `bitnet.Span`.

use crate::engine;
use crate::token::TokenId;
use pyo3::prelude::*;
use pyo3::types::PyString;

#[doc = doc!(Span)]
#[pyclass(frozen, get_all, eq, module = "bitnet")]
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
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let rewritten = if self.rewritten { ", rewritten" } else { "" };
        let (author, text) = (self.role.as_deref().unwrap_or("template"), PyString::new(py, &self.text).repr()?);
        Ok(format!("<Span {}..{} {author}{rewritten} {text}>", self.start, self.end))
    }
}
