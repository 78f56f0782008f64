//! Numbers of an engine as numpy arrays.

use super::convert::{checked_sequences, detached, engine_ids, text_or_ids, type_name, unicode};
use crate::engine::{ContinuationScore, Engine, Pooling, TextOrIds};
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

#[doc = doc!(Scores)]
#[pyclass(frozen, get_all, module = "bitnet")]
pub struct Scores {
    #[doc = doc!(Scores.logprobs)]
    logprobs: Py<PyArray1<f32>>,
    #[doc = doc!(Scores.is_greedy)]
    is_greedy: Py<PyArray1<bool>>,
    #[doc = doc!(Scores.token_logprobs)]
    token_logprobs: Py<PyList>,
    #[doc = doc!(Scores.computed_tokens)]
    computed_tokens: usize,
}

#[pymethods]
impl Scores {
    fn __repr__(&self, py: Python<'_>) -> String {
        let (logprobs, greedy) = (self.logprobs.bind(py), self.is_greedy.bind(py));
        format!("Scores(logprobs={logprobs}, is_greedy={greedy}, computed_tokens={})", self.computed_tokens)
    }
}

/// `Engine.logits`: an array of shape [ids, n_vocab].
pub fn logits<'py>(py: Python<'py>, engine: &Engine, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let ids = engine_ids(ids, "ids", engine)?;
    let n = ids.len();
    let logits = detached(py, |watch| engine.logits(&[ids], watch))?;
    PyArray1::from_vec(py, logits).reshape([n, engine.n_vocab()])
}

/// `Engine.logits_batch`: an array of shape [ids, n_vocab] for each sequence.
pub fn logits_batch<'py>(
    py: Python<'py>,
    engine: &Engine,
    sequences: &Bound<'py, PyAny>,
) -> PyResult<Vec<Bound<'py, PyArray2<f32>>>> {
    let sequences = sequences.try_iter()?.collect::<PyResult<Vec<_>>>()?;
    let to_ids = |ids: &Bound<'py, PyAny>, name: &str| engine_ids(ids, name, engine);
    let sequences = checked_sequences(py, engine, sequences, 0, "sequences", to_ids)?;
    let logits = detached(py, |watch| engine.logits(&sequences, watch))?;
    let mut rest = &logits[..];
    sequences
        .iter()
        .map(|ids| {
            let (own, others) = rest.split_at(ids.len() * engine.n_vocab());
            rest = others;
            PyArray1::from_slice(py, own).reshape([ids.len(), engine.n_vocab()])
        })
        .collect()
}

/// `Engine.logprobs`: an array with an item for each id but the first.
pub fn logprobs<'py>(py: Python<'py>, engine: &Engine, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let ids = engine_ids(ids, "ids", engine)?;
    Ok(PyArray1::from_vec(py, detached(py, |watch| engine.logprobs(&ids, watch))?))
}

/// `Engine.score`: context and continuations are all texts or all ids.
pub fn score<'py>(
    py: Python<'py>,
    engine: &Engine,
    context: &Bound<'py, PyAny>,
    continuations: &Bound<'py, PyAny>,
) -> PyResult<Scores> {
    let continuations = items(continuations, "continuations")?;
    let texts = continuations.iter().filter(|one| one.is_instance_of::<PyString>()).count();
    let is_text = context.is_instance_of::<PyString>();
    if texts != if is_text { continuations.len() } else { 0 } {
        let wrong = "context and continuations must be either all texts or all lists of ids";
        return Err(PyTypeError::new_err(wrong));
    }
    let (context, continuations) = if is_text {
        let context = unicode(context, "context")?;
        let text = |(i, text): (usize, &Bound<'py, PyAny>)| unicode(text, &format!("continuations[{i}]"));
        let texts = continuations.iter().enumerate().map(text).collect::<PyResult<Vec<_>>>()?;
        detached(py, |_| engine.encode_continuations(&context, &texts))?
    } else {
        let context = engine_ids(context, "context", engine)?;
        engine.check_ids(&context, 0)?;
        // The last id of a continuation is never computed, so it takes no position.
        let position = context.len().saturating_sub(1);
        let to_ids = |ids: &Bound<'py, PyAny>, name: &str| engine_ids(ids, name, engine);
        (context, checked_sequences(py, engine, continuations, position, "continuations", to_ids)?)
    };
    let scores = detached(py, |watch| engine.score(&context, &continuations, watch))?;
    let all = scores.continuations.iter();
    let tokens = |score: &ContinuationScore| PyArray1::from_iter(py, score.tokens.iter().map(|token| token.logprob));
    Ok(Scores {
        logprobs: PyArray1::from_iter(py, all.clone().map(ContinuationScore::logprob)).unbind(),
        is_greedy: PyArray1::from_iter(py, all.clone().map(ContinuationScore::is_greedy)).unbind(),
        token_logprobs: PyList::new(py, all.map(tokens))?.unbind(),
        computed_tokens: scores.computed_tokens,
    })
}

/// `Engine.perplexity`: of a text, or of ids.
pub fn perplexity(py: Python<'_>, engine: &Engine, text: &Bound<'_, PyAny>, stride: Option<usize>) -> PyResult<f64> {
    let text = text_or_ids(text, "text", engine)?;
    detached(py, |watch| engine.perplexity(&engine.ids_of(text)?, stride, watch))
}

/// `Engine.embed`: an array of shape [texts, hidden_size].
pub fn embed<'py>(
    py: Python<'py>,
    engine: &Engine,
    texts: &Bound<'py, PyAny>,
    pooling: Pooling,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let to_ids = |text: &Bound<'py, PyAny>, name: &str| match text_or_ids(text, name, engine)? {
        TextOrIds::Ids(ids) => Ok(ids),
        text => detached(py, |_| engine.ids_of(text)),
    };
    let texts = checked_sequences(py, engine, items(texts, "texts")?, 0, "texts", to_ids)?;
    let vectors = detached(py, |watch| engine.embed(&texts, pooling, watch))?;
    PyArray1::from_vec(py, vectors).reshape([texts.len(), engine.config().hidden_size])
}

/// The items of a list. A str is refused, although Python can iterate over it.
fn items<'py>(list: &Bound<'py, PyAny>, name: &str) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let found = if list.is_instance_of::<PyString>() { "a single text".into() } else { type_name(list) };
    let wrong = |_| PyTypeError::new_err(format!("{name} must be a list of texts or of lists of ids, found {found}"));
    let list = if list.is_instance_of::<PyString>() { Err(()) } else { list.try_iter().map_err(|_| ()) };
    list.map_err(wrong)?.collect()
}
