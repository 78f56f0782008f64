//! `bitnet.Prefill`: computing a prompt ahead of its answer.

use super::convert::{detached, engine_ids};
use super::notebook::ProgressBar;
use super::pickle::{Reduced, by_fields};
use crate::engine::{Engine, Prefill as CorePrefill};
use pyo3::prelude::*;
use pyo3::types::PyType;

#[doc = doc!(Prefill)]
#[pyclass(frozen, get_all, eq, module = "bitnet")]
#[derive(PartialEq)]
pub struct Prefill {
    #[doc = doc!(Prefill.tokens)]
    tokens: usize,
    #[doc = doc!(Prefill.cached_tokens)]
    cached_tokens: usize,
    #[doc = doc!(Prefill.seconds)]
    seconds: f64,
    #[doc = doc!(Prefill.tokens_per_second)]
    tokens_per_second: f64,
}

impl From<CorePrefill> for Prefill {
    fn from(prefill: CorePrefill) -> Prefill {
        Prefill {
            tokens: prefill.tokens,
            cached_tokens: prefill.cached_tokens,
            seconds: prefill.elapsed.as_secs_f64(),
            tokens_per_second: prefill.tokens_per_second(),
        }
    }
}

#[pymethods]
impl Prefill {
    #[classmethod]
    fn _rebuild(
        _cls: &Bound<'_, PyType>,
        tokens: usize,
        cached_tokens: usize,
        seconds: f64,
        tokens_per_second: f64,
    ) -> Prefill {
        Prefill { tokens, cached_tokens, seconds, tokens_per_second }
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        by_fields(slf, &["tokens", "cached_tokens", "seconds", "tokens_per_second"])
    }

    fn __repr__(&self) -> String {
        format!(
            "Prefill(tokens={}, cached_tokens={}, seconds={:.6}, tokens_per_second={:.1})",
            self.tokens, self.cached_tokens, self.seconds, self.tokens_per_second
        )
    }
}

/// Computes a prompt and keeps it in the prefix cache.
pub fn prefill(py: Python<'_>, core: &Engine, ids: &Bound<'_, PyAny>, progress: bool) -> PyResult<Prefill> {
    let ids = engine_ids(ids, "ids", core)?;
    if !progress {
        return Ok(detached(py, |watch| core.prefill(&ids, watch))?.into());
    }
    core.check_ids(&ids, 0)?;
    let bar = ProgressBar::begin(py, true, "prefill", ids.len(), "token")?;
    let mut shown = 0;
    let mut done: Option<CorePrefill> = None;
    while done.as_ref().is_none_or(|done| done.tokens < ids.len()) {
        let next = detached(py, |watch| core.prefill_pass(&ids, done, watch))?;
        bar.advance(next.tokens - shown)?;
        shown = next.tokens;
        done = Some(next);
    }
    Ok(done.expect("at least one pass").into())
}
