//! Numbers of an engine as arrays: log-probabilities of given ids, scores of continuations, perplexity, embeddings.
//!
//! Whatever the length of a text, the logits of one pass are in memory at a time.

use super::convert::{detached, ids_or_text, named, token_ids, type_name, unicode};
use super::tokenizer;
use crate::decode::{Runtime, Sequence, Watch};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model::{LogitsFor, Row};
use crate::sampler::LogSoftmax;
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};
use std::ops::Range;

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

/// An id's log-probability, and whether it is the likeliest.
#[derive(Clone, Copy, Default)]
struct Likelihood {
    logprob: f32,
    best: bool,
}

impl Likelihood {
    fn new(logits: &[f32], softmax: &LogSoftmax, id: u32) -> Likelihood {
        Likelihood { logprob: softmax.of(logits[id as usize]) as f32, best: softmax.best == id }
    }
}

/// Appends `steps` to the sequences and gives `take` those of each pass, with what they wanted.
fn pass_by_pass(
    runtime: &Runtime,
    sequences: &mut [Sequence],
    steps: &[Row],
    watch: &mut Watch,
    mut take: impl FnMut(&[Row], Vec<f32>),
) -> Result<()> {
    let mut sequences: Vec<&mut Sequence> = sequences.iter_mut().collect();
    for steps in steps.chunks(runtime.n_batch) {
        let wanted = runtime.advance(&mut sequences, steps, watch)?;
        take(steps, wanted);
    }
    Ok(())
}

/// How likely each of `next` is, in order, after those of `steps` that want logits.
fn likelihoods(
    runtime: &Runtime,
    sequences: &mut [Sequence],
    steps: &[Row],
    next: &[u32],
    watch: &mut Watch,
) -> Result<Vec<Likelihood>> {
    let vocab = runtime.model.config().vocab_size;
    let mut found = vec![Likelihood::default(); next.len()];
    let mut done = 0;
    pass_by_pass(runtime, sequences, steps, watch, |_, logits| {
        let rows = logits.len() / vocab;
        let (found, next) = (&mut found[done..][..rows], &next[done..]);
        done += rows;
        let each = |i: usize, found: &mut [Likelihood]| {
            let logits = &logits[i * vocab..][..vocab];
            found[0] = Likelihood::new(logits, &LogSoftmax::new(logits), next[i]);
        };
        runtime.pool.run(|team| team.for_each_chunk(found, 1, each));
    })?;
    Ok(found)
}

/// How likely each id of a sequence but the first is, from `first` on.
fn likelihoods_from(core: &Engine, ids: &[u32], first: usize, watch: &mut Watch) -> Result<Vec<Likelihood>> {
    let before = &ids[..ids.len().saturating_sub(1)];
    let wanted = |i: usize| if i + 1 >= first { LogitsFor::All } else { LogitsFor::None };
    let step = |(i, id): (usize, &u32)| Row { sequence: 0, id: *id, logits: wanted(i) };
    let steps: Vec<Row> = before.iter().enumerate().map(step).collect();
    likelihoods(core.runtime(), &mut [core.new_sequence()], &steps, &ids[first.min(ids.len())..], watch)
}

/// Neighbours that have at most `most` rows together, each range as long as can be.
fn groups(rows: impl Iterator<Item = usize>, most: usize) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut left = 0;
    for (i, rows) in rows.enumerate() {
        match groups.last_mut().filter(|_| rows <= left) {
            Some(group) => group.end = i + 1,
            None => {
                groups.push(i..i + 1);
                left = most;
            }
        }
        left = left.saturating_sub(rows);
    }
    groups
}

/// The ids of a text, with BOS where the model expects it, or ids as they are.
fn ids_of(py: Python<'_>, core: &Engine, text: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<i64>> {
    if !text.is_instance_of::<PyString>() {
        return ids_or_text(text, name);
    }
    let text = unicode(text, name)?;
    detached(py, |_| {
        let tokenizer = core.tokenizer()?;
        Ok(tokenizer::encode(tokenizer, &text, tokenizer.add_bos, false).into_iter().map(i64::from).collect())
    })
}

/// The items of a list; a text is none, although it can be walked over.
fn items<'py>(list: &Bound<'py, PyAny>, name: &str) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let found = if list.is_instance_of::<PyString>() { "one text".into() } else { type_name(list) };
    let wrong = |_| PyTypeError::new_err(format!("{name} must be a list of texts, or of lists of ids; found {found}"));
    let list = if list.is_instance_of::<PyString>() { Err(()) } else { list.try_iter().map_err(|_| ()) };
    list.map_err(wrong)?.collect()
}

/// Checks ids that would stand at `position` and after; an error says which of the sequences it is about.
fn checked(
    py: Python<'_>,
    core: &Engine,
    sequences: &[Vec<i64>],
    position: usize,
    name: &str,
) -> PyResult<Vec<Vec<u32>>> {
    let check = |(i, ids): (usize, &Vec<i64>)| {
        let checked = core.runtime().check_ids(ids, position);
        checked.map_err(|error| named(error.into(), &format!("{name}[{i}]"), py))
    };
    sequences.iter().enumerate().map(check).collect()
}

/// `Engine.logprobs`.
pub fn logprobs<'py>(py: Python<'py>, core: &Engine, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let ids = token_ids(ids, "ids")?;
    let found = detached(py, |watch| likelihoods_from(core, &core.runtime().check_ids(&ids, 0)?, 1, watch))?;
    Ok(PyArray1::from_iter(py, found.iter().map(|found| found.logprob)))
}

/// `Engine.score`.
pub fn score<'py>(
    py: Python<'py>,
    core: &Engine,
    context: &Bound<'py, PyAny>,
    continuations: &Bound<'py, PyAny>,
) -> PyResult<Scores> {
    let continuations = items(continuations, "continuations")?;
    let texts = continuations.iter().filter(|one| one.is_instance_of::<PyString>()).count();
    let is_text = context.is_instance_of::<PyString>();
    if texts != if is_text { continuations.len() } else { 0 } {
        let wrong = "context and continuations must be texts, all of them, or all of them ids";
        return Err(PyTypeError::new_err(wrong));
    }
    let (context, continuations) = if is_text {
        let context = unicode(context, "context")?;
        let text = |(i, text): (usize, &Bound<'py, PyAny>)| unicode(text, &format!("continuations[{i}]"));
        let texts = continuations.iter().enumerate().map(text).collect::<PyResult<Vec<_>>>()?;
        detached(py, |_| split(core, &context, &texts))?
    } else {
        let ids = |(i, ids): (usize, &Bound<'py, PyAny>)| token_ids(ids, &format!("continuations[{i}]"));
        (token_ids(context, "context")?, continuations.iter().enumerate().map(ids).collect::<PyResult<_>>()?)
    };
    let runtime = core.runtime();
    let context = runtime.check_ids(&context, 0)?;
    let Some(before) = context.len().checked_sub(1) else {
        return Err(Error::Argument("context is empty; give at least one token id".into()).into());
    };
    // The last id of a continuation is never computed: it takes no position.
    let continuations = checked(py, core, &continuations, before, "continuations")?;
    let (found, computed_tokens) = detached(py, |watch| scored(core, &context, &continuations, watch))?;
    // Sums are of what the caller sees, in the order of the ids.
    let sum = |found: &Vec<Likelihood>| found.iter().fold(0f64, |sum, found| sum + found.logprob as f64) as f32;
    let tokens = |found: &Vec<Likelihood>| PyArray1::from_iter(py, found.iter().map(|found| found.logprob));
    Ok(Scores {
        logprobs: PyArray1::from_iter(py, found.iter().map(sum)).unbind(),
        is_greedy: PyArray1::from_iter(py, found.iter().map(|found| found.iter().all(|found| found.best))).unbind(),
        token_logprobs: PyList::new(py, found.iter().map(tokens))?.unbind(),
        computed_tokens,
    })
}

/// The ids of a context, and of each continuation those that the whole text has more. Spaces at the context's end belong
/// to the continuations: vocabularies hold words with the space before them.
fn split(core: &Engine, context: &str, continuations: &[String]) -> Result<(Vec<i64>, Vec<Vec<i64>>)> {
    let tokenizer = core.tokenizer()?;
    let encode = |text: &str| -> Vec<i64> {
        tokenizer::encode(tokenizer, text, tokenizer.add_bos, false).into_iter().map(i64::from).collect()
    };
    let ids = encode(context.trim_end());
    let rest = |(i, text): (usize, &String)| match encode(&format!("{context}{text}")).get(ids.len()..) {
        Some(rest) if !rest.is_empty() || text.is_empty() => Ok(rest.to_vec()),
        _ => Err(Error::Argument(format!(
            "continuations[{i}]: {text:?} has no token of its own after the context; give ids"
        ))),
    };
    let rest = continuations.iter().enumerate().map(rest).collect::<Result<_>>()?;
    Ok((ids, rest))
}

/// How likely each id of each continuation is, and how many positions were computed.
fn scored(
    core: &Engine,
    context: &[u32],
    continuations: &[Vec<u32>],
    watch: &mut Watch,
) -> Result<(Vec<Vec<Likelihood>>, usize)> {
    let runtime = core.runtime();
    let positions = |sequence: &Sequence| sequence.work().attention as usize / core.config().n_layers;
    let mut base = core.new_sequence();
    let logits = runtime.prefill(&mut base, context, LogitsFor::All, watch)?;
    let softmax = LogSoftmax::new(&logits);
    let (shared, mut computed) = (positions(&base), positions(&base));
    let mut all = Vec::with_capacity(continuations.len());
    for group in groups(continuations.iter().map(Vec::len), runtime.n_batch) {
        let group = &continuations[group];
        let mut sequences = vec![base.clone(); group.len()];
        let mut steps = Vec::new();
        for (sequence, ids) in group.iter().enumerate() {
            let before = &ids[..ids.len().saturating_sub(1)];
            steps.extend(before.iter().map(|id| Row { sequence, id: *id, logits: LogitsFor::All }));
        }
        let next: Vec<u32> = group.iter().flat_map(|ids| ids.iter().skip(1).copied()).collect();
        let mut later = likelihoods(runtime, &mut sequences, &steps, &next, watch)?.into_iter();
        computed += sequences.iter().map(|sequence| positions(sequence) - shared).sum::<usize>();
        for ids in group {
            let first = ids.first().map(|id| Likelihood::new(&logits, &softmax, *id));
            all.push(first.into_iter().chain(later.by_ref().take(ids.len().saturating_sub(1))).collect());
        }
    }
    Ok((all, computed))
}

/// `Engine.perplexity`.
pub fn perplexity(py: Python<'_>, core: &Engine, text: &Bound<'_, PyAny>, stride: Option<usize>) -> PyResult<f64> {
    let ids = ids_of(py, core, text, "text")?;
    let n_ctx = core.runtime().n_ctx;
    let stride = stride.unwrap_or(n_ctx.div_ceil(2));
    let ids = core.runtime().check_vocabulary(&ids)?;
    if stride > n_ctx {
        return Err(Error::Argument(format!("stride is {stride}, expected at most n_ctx, which is {n_ctx}")).into());
    }
    detached(py, |watch| {
        let (mut sum, mut count, mut seen) = (0f64, 0usize, 0);
        for begin in (0..ids.len()).step_by(stride) {
            let end = (begin + n_ctx).min(ids.len());
            let found = likelihoods_from(core, &ids[begin..end], (seen.max(begin + 1)) - begin, watch)?;
            sum = found.iter().fold(sum, |sum, found| sum + found.logprob as f64);
            (count, seen) = (count + found.len(), end);
            if end == ids.len() {
                break;
            }
        }
        match count {
            0 => Err(Error::Argument(format!(
                "text has {} tokens, but none has one before it; give at least two",
                ids.len()
            ))),
            _ => Ok(libm::exp(-sum / count as f64)),
        }
    })
}

/// `Engine.embed`.
pub fn embed<'py>(
    py: Python<'py>,
    core: &Engine,
    texts: &Bound<'py, PyAny>,
    last: bool,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let texts = items(texts, "texts")?;
    let ids = |(i, text)| ids_of(py, core, text, &format!("texts[{i}]"));
    let texts = checked(py, core, &texts.iter().enumerate().map(ids).collect::<PyResult<Vec<_>>>()?, 0, "texts")?;
    if let Some(i) = texts.iter().position(Vec::is_empty) {
        return Err(Error::Argument(format!("texts[{i}] is empty; there is no state to give")).into());
    }
    let states = detached(py, |watch| states(core, &texts, last, watch))?;
    PyArray1::from_vec(py, states).reshape([texts.len(), core.config().hidden_size])
}

/// The mean of each sequence's states, or the last of them, one after the other.
fn states(core: &Engine, sequences: &[Vec<u32>], last: bool, watch: &mut Watch) -> Result<Vec<f32>> {
    let (runtime, width) = (core.runtime(), core.config().hidden_size);
    let mut states = Vec::with_capacity(sequences.len() * width);
    for group in groups(sequences.iter().map(Vec::len), runtime.n_batch) {
        let group = &sequences[group];
        let mut sequences: Vec<Sequence> = group.iter().map(|_| core.new_sequence()).collect();
        let mut steps = Vec::new();
        for (sequence, ids) in group.iter().enumerate() {
            let wanted = |i: usize| if last && i + 1 < ids.len() { LogitsFor::None } else { LogitsFor::Hidden };
            steps.extend(ids.iter().enumerate().map(|(i, id)| Row { sequence, id: *id, logits: wanted(i) }));
        }
        let mut sums = vec![0f64; group.len() * width];
        pass_by_pass(runtime, &mut sequences, &steps, watch, |steps, states| {
            let wanted = steps.iter().filter(|step| step.logits.any());
            for (step, state) in wanted.zip(states.chunks(width)) {
                let sums = &mut sums[step.sequence * width..][..width];
                sums.iter_mut().zip(state).for_each(|(sum, x)| *sum += *x as f64);
            }
        })?;
        for (sums, ids) in sums.chunks(width).zip(group) {
            let count = if last { 1 } else { ids.len() };
            states.extend(sums.iter().map(|sum| (sum / count as f64) as f32));
        }
    }
    Ok(states)
}
