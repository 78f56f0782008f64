//! `Engine.replay`: receipts in, what their replays found out.

use super::convert::{detached, named, text_or_ids, type_name};
use super::receipt::Receipt;
use crate::engine::{Engine, Replay, ReplayTask, TextOrIds, Watch};
use crate::error::Result;
use crate::receipt::Receipt as Core;
use crate::sampler::SamplingParams;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Receipts as Python gave them, with the prompts of those that need one.
struct Given {
    receipts: Vec<Arc<Core>>,
    prompts: Vec<Option<TextOrIds>>,
    /// Whether one receipt was given, and no list.
    is_one: bool,
}

impl Given {
    fn read(engine: &Engine, receipts: &Bound<'_, PyAny>, prompts: Option<&Bound<'_, PyAny>>) -> PyResult<Given> {
        let prompts = prompts.filter(|prompts| !prompts.is_none());
        if let Ok(receipt) = receipts.extract::<Receipt>() {
            let prompt = prompts.map(|prompt| text_or_ids(prompt, "prompt", engine)).transpose()?;
            return Ok(Given { receipts: vec![receipt.core], prompts: vec![prompt], is_one: true });
        }
        let wrong = |what: &str, found: &Bound<'_, PyAny>| {
            PyTypeError::new_err(format!("{what} must be a Receipt or a list of them, found {}", type_name(found)))
        };
        let mut all = Vec::new();
        for (i, receipt) in receipts.try_iter().map_err(|_| wrong("receipt", receipts))?.enumerate() {
            let receipt = receipt?;
            let extracted = receipt.extract::<Receipt>();
            all.push(extracted.map_err(|_| wrong(&format!("receipt[{i}]"), &receipt))?.core);
        }
        let Some(prompts) = prompts else {
            let prompts = all.iter().map(|_| None).collect();
            return Ok(Given { receipts: all, prompts, is_one: false });
        };
        let list: Vec<Bound<'_, PyAny>> = match prompts.try_iter() {
            Ok(list) if !prompts.is_instance_of::<PyString>() => list.collect::<PyResult<_>>()?,
            _ => Vec::new(),
        };
        if list.len() != all.len() {
            let (n, found) = (all.len(), type_name(prompts));
            return Err(PyTypeError::new_err(format!("{n} receipts need a list of {n} prompts; found {found}")));
        }
        let one = |(i, prompt): (usize, &Bound<'_, PyAny>)| {
            let read = (!prompt.is_none()).then(|| text_or_ids(prompt, &format!("prompt[{i}]"), engine));
            read.transpose()
        };
        Ok(Given { receipts: all, prompts: list.iter().enumerate().map(one).collect::<PyResult<_>>()?, is_one: false })
    }

    /// Replays all of them.
    fn replay(self, engine: &Engine, report: impl FnMut(usize, Result<Replay>), watch: &mut Watch) -> Result<()> {
        let Given { receipts, prompts, .. } = self;
        let mut tasks: Vec<ReplayTask> = Vec::with_capacity(receipts.len());
        for (receipt, prompt) in receipts.iter().zip(prompts) {
            let ids = prompt.map(|prompt| engine.request(prompt, SamplingParams::default(), watch)).transpose()?;
            tasks.push((receipt, ids.map(|request| request.prompt)));
        }
        engine.replay_many(&tasks, report, watch)
    }
}

/// What `of` says of the replay of a receipt, or a list of that for several. The first that cannot be replayed raises.
pub fn replay<'py, T: IntoPyObject<'py> + Send>(
    py: Python<'py>,
    engine: &Engine,
    receipts: &Bound<'py, PyAny>,
    prompts: Option<&Bound<'py, PyAny>>,
    of: impl Fn(Replay) -> T + Send,
) -> PyResult<Bound<'py, PyAny>>
where
    Vec<T>: IntoPyObject<'py>,
{
    let given = Given::read(engine, receipts, prompts)?;
    let (count, is_one) = (given.receipts.len(), given.is_one);
    let mut all: Vec<Option<Result<Replay>>> = (0..count).map(|_| None).collect();
    detached(py, |watch| given.replay(engine, |i, found| all[i] = Some(found), watch))?;
    let mut found = Vec::with_capacity(count);
    for (i, replay) in all.into_iter().enumerate() {
        let replay = replay.expect("all are done").map_err(PyErr::from);
        let at = |error| if is_one { error } else { named(error, &format!("receipt[{i}]"), py) };
        found.push(of(replay.map_err(at)?));
    }
    if is_one {
        return found.pop().expect("one receipt").into_bound_py_any(py);
    }
    found.into_bound_py_any(py)
}

/// Calls `report` with the index of each receipt that is done, and what was found or an exception.
pub fn each(
    py: Python<'_>,
    engine: &Engine,
    receipts: &Bound<'_, PyAny>,
    prompts: Option<&Bound<'_, PyAny>>,
    report: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let given = Given::read(engine, receipts, prompts)?;
    let (report, mut failed) = (report.clone().unbind(), None);
    let has_failed = AtomicBool::new(false);
    let done = detached(py, |watch| {
        let call = |i: usize, found: Result<Replay>| {
            let called = Python::attach(|py| match found {
                Ok(Replay { same, ids, told }) => report.call1(py, (i, (same, ids, told))),
                Err(error) => report.call1(py, (i, PyErr::from(error).into_value(py))),
            });
            failed = failed.take().or(called.err());
            has_failed.store(failed.is_some(), Relaxed);
        };
        given.replay(engine, call, &mut || has_failed.load(Relaxed) || watch())
    });
    match failed {
        Some(raised) => Err(raised),
        None => done,
    }
}
