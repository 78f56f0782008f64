//! Numbers of an engine as numpy arrays.

use super::answers::{OneOrMany, indexed, prompts};
use super::completion::Logprob;
use super::convert::{checked_sequences, detached, engine_ids, named, text_or_ids, unicode};
use super::pickle::{Reduced, by_fields};
use crate::engine::{
    ContinuationScore, Embedding, Engine, Likelihood, Question, Scores as CoreScores, TextOrIds, Watch,
};
use crate::error::Result;
use crate::token::TokenId;
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyType};

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
    #[classmethod]
    fn _rebuild(
        _cls: &Bound<'_, PyType>,
        logprobs: Py<PyArray1<f32>>,
        is_greedy: Py<PyArray1<bool>>,
        token_logprobs: Py<PyList>,
        computed_tokens: usize,
    ) -> Scores {
        Scores { logprobs, is_greedy, token_logprobs, computed_tokens }
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        by_fields(slf, &["logprobs", "is_greedy", "token_logprobs", "computed_tokens"])
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let (logprobs, greedy) = (self.logprobs.bind(py), self.is_greedy.bind(py));
        format!("Scores(logprobs={logprobs}, is_greedy={greedy}, computed_tokens={})", self.computed_tokens)
    }
}

/// The ids of a text or ids, or of each item of a list of either; those of several are checked.
fn sequences<'py>(
    py: Python<'py>,
    engine: &Engine,
    value: &Bound<'py, PyAny>,
    name: &str,
    ids_of: fn(&Engine, TextOrIds, &mut Watch) -> Result<Vec<TokenId>>,
) -> PyResult<OneOrMany<Vec<TokenId>>> {
    let to_ids = |item: &Bound<'py, PyAny>, name: &str| match text_or_ids(item, name, engine)? {
        TextOrIds::Ids(ids) => Ok(ids),
        text => detached(py, |watch| ids_of(engine, text, watch)),
    };
    Ok(match prompts(value) {
        OneOrMany::One(one) => OneOrMany::One(to_ids(&one, name)?),
        OneOrMany::Many(all) => OneOrMany::Many(checked_sequences(py, engine, all, 0, name, to_ids)?),
    })
}

/// `Engine.logits`: an array of shape [ids, n_vocab] for each sequence.
pub fn logits<'py>(py: Python<'py>, engine: &Engine, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    match sequences(py, engine, ids, "ids", Engine::ids_of)? {
        OneOrMany::One(ids) => logits_of_all(py, engine, &[ids])?.remove(0).into_bound_py_any(py),
        OneOrMany::Many(all) => logits_of_all(py, engine, &all)?.into_bound_py_any(py),
    }
}

/// `Engine.logits_batch`: an array of shape [ids, n_vocab] for each sequence.
pub fn logits_batch<'py>(
    py: Python<'py>,
    engine: &Engine,
    sequences: &Bound<'py, PyAny>,
) -> PyResult<Vec<Bound<'py, PyArray2<f32>>>> {
    let sequences = sequences.try_iter()?.collect::<PyResult<Vec<_>>>()?;
    let to_ids = |ids: &Bound<'py, PyAny>, name: &str| engine_ids(ids, name, engine);
    logits_of_all(py, engine, &checked_sequences(py, engine, sequences, 0, "sequences", to_ids)?)
}

fn logits_of_all<'py>(
    py: Python<'py>,
    engine: &Engine,
    sequences: &[Vec<TokenId>],
) -> PyResult<Vec<Bound<'py, PyArray2<f32>>>> {
    let all = detached(py, |watch| engine.logits(sequences, watch))?.into_iter().zip(sequences);
    all.map(|(logits, ids)| PyArray1::from_vec(py, logits).reshape([ids.len(), engine.n_vocab()])).collect()
}

/// `Engine.logprobs`: an array with an item for each id but the first.
pub fn logprobs<'py>(py: Python<'py>, engine: &Engine, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let sequences = sequences(py, engine, ids, "ids", Engine::ids_of)?;
    let mut all = detached(py, |watch| engine.logprobs(sequences.as_slice(), watch))?.into_iter();
    let next = |_, _| Ok(PyArray1::from_vec(py, all.next().expect("as many as sequences")));
    sequences.try_map(next)?.into_bound_py_any(py)
}

/// `Engine._likelihoods`: for each id but the first its log-probability, and those of the `k` most likely ids in its
/// place.
pub fn likelihoods(
    py: Python<'_>,
    engine: &Engine,
    ids: &Bound<'_, PyAny>,
    k: usize,
) -> PyResult<Vec<(Logprob, Vec<Logprob>)>> {
    let ids = engine_ids(ids, "ids", engine)?;
    let found = detached(py, |watch| engine.likelihoods(&ids, k, watch))?.into_iter().zip(ids.iter().skip(1));
    let one = |((own, top), id): (Likelihood, &TokenId)| {
        let top = top.into_iter().map(|one| Logprob::new(engine, one)).collect();
        (Logprob::new(engine, (*id, own)), top)
    };
    Ok(found.map(one).collect())
}

/// `Engine.score`: of one context, or of a list of contexts with a list of continuations for each.
pub fn score<'py>(
    py: Python<'py>,
    engine: &Engine,
    context: &Bound<'py, PyAny>,
    continuations: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let (questions, is_one) = match prompts(context) {
        OneOrMany::One(context) => (vec![question(py, engine, &context, continuations)?], true),
        OneOrMany::Many(contexts) => {
            let all = continuations.try_iter()?.collect::<PyResult<Vec<_>>>()?;
            if continuations.is_instance_of::<PyString>() || all.len() != contexts.len() {
                let found = if continuations.is_instance_of::<PyString>() { 1 } else { all.len() };
                return Err(PyTypeError::new_err(format!(
                    "{} contexts need as many lists of continuations; found {found}",
                    contexts.len()
                )));
            }
            let one = |(i, (context, own)): (usize, (&Bound<'py, PyAny>, &Bound<'py, PyAny>))| {
                question(py, engine, context, own).map_err(|error| named(error, &format!("context[{i}]"), py))
            };
            (contexts.iter().zip(&all).enumerate().map(one).collect::<PyResult<_>>()?, false)
        }
    };
    let mut all =
        detached(py, |watch| engine.score(&questions, watch))?.into_iter().map(|scores| to_python(py, scores));
    if is_one {
        return all.next().expect("one question")?.into_bound_py_any(py);
    }
    all.collect::<PyResult<Vec<Scores>>>()?.into_bound_py_any(py)
}

/// A context and its continuations, which are all texts or all ids.
fn question<'py>(
    py: Python<'py>,
    engine: &Engine,
    context: &Bound<'py, PyAny>,
    continuations: &Bound<'py, PyAny>,
) -> PyResult<Question> {
    let is_text = context.is_instance_of::<PyString>();
    let continuations = match prompts(continuations) {
        // For ids this is one continuation without ids.
        OneOrMany::One(list) if is_text && list.cast::<PyList>().is_ok_and(PyListMethods::is_empty) => Vec::new(),
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(all) => all,
    };
    let texts = continuations.iter().filter(|one| one.is_instance_of::<PyString>()).count();
    if texts != if is_text { continuations.len() } else { 0 } {
        let wrong = "context and continuations must be either all texts or all lists of ids";
        return Err(PyTypeError::new_err(wrong));
    }
    let (context, continuations) = if is_text {
        let context = unicode(context, "context")?;
        let text = |(i, text): (usize, &Bound<'py, PyAny>)| unicode(text, &format!("continuations[{i}]"));
        let texts = continuations.iter().enumerate().map(text).collect::<PyResult<Vec<_>>>()?;
        detached(py, |watch| engine.encode_continuations(&context, &texts, watch))?
    } else {
        let context = engine_ids(context, "context", engine)?;
        engine.check_ids(&context, 0)?;
        // The last id of a continuation is never computed, so it takes no position.
        let position = context.len().saturating_sub(1);
        let to_ids = |ids: &Bound<'py, PyAny>, name: &str| engine_ids(ids, name, engine);
        (context, checked_sequences(py, engine, continuations, position, "continuations", to_ids)?)
    };
    Ok(Question { context, continuations })
}

fn to_python(py: Python<'_>, scores: CoreScores) -> PyResult<Scores> {
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
pub fn perplexity<'py>(
    py: Python<'py>,
    engine: &Engine,
    text: &Bound<'py, PyAny>,
    stride: Option<usize>,
) -> PyResult<Bound<'py, PyAny>> {
    let ids_of = |text: Bound<'py, PyAny>, i| {
        let name = indexed("text", i);
        let ids = text_or_ids(&text, &name, engine)?;
        let ids = detached(py, |watch| engine.ids_of(ids, watch));
        ids.map_err(|error| if i.is_some() { named(error, &name, py) } else { error })
    };
    let texts = prompts(text).try_map(ids_of)?;
    let results = detached(py, |watch| Ok(engine.perplexity(texts.as_slice(), stride, watch)))?;
    let all = results.map_err(|(index, error)| match (&texts, index) {
        (OneOrMany::Many(_), Some(i)) => named(error.into(), &indexed("text", Some(i)), py),
        _ => error.into(),
    })?;
    let mut all = all.into_iter();
    texts.try_map(|_, _| Ok(all.next().expect("one for each text")))?.into_bound_py_any(py)
}

/// `Engine.embed`: an array of shape [hidden_size], or [texts, hidden_size] for a list.
pub fn embed<'py>(
    py: Python<'py>,
    engine: &Engine,
    texts: &Bound<'py, PyAny>,
    how: Embedding,
) -> PyResult<Bound<'py, PyAny>> {
    let vectors = |texts: &[Vec<TokenId>]| {
        Ok::<_, PyErr>(PyArray1::from_vec(py, detached(py, |watch| engine.embed(texts, how, watch))?))
    };
    if texts.cast::<PyList>().is_ok_and(PyListMethods::is_empty) {
        return Ok(vectors(&[])?.reshape([0, engine.config().hidden_size])?.into_any());
    }
    match sequences(py, engine, texts, "texts", Engine::ids_to_embed)? {
        OneOrMany::One(ids) => Ok(vectors(&[ids])?.into_any()),
        OneOrMany::Many(all) => Ok(vectors(&all)?.reshape([all.len(), engine.config().hidden_size])?.into_any()),
    }
}
