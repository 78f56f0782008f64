//! Answers that one call has computed together, and that come out in the order in which they were asked for.

use super::completion::{Completion, Piece, PieceLogprobs};
use super::convert::{DroppedDetached, detached};
use super::stream::Stream;
use crate::chat::Together as CoreTogether;
use crate::engine::{Engine, Piece as CorePiece, Watch};
use crate::error::Result;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::PyIterator;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// How many answers are asked for ahead of the oldest one that is not done, as a multiple of those under way.
const AHEAD: usize = 4;

/// Answers under way, and those that wait for earlier ones.
pub struct Ordered {
    engine: Arc<Engine>,
    together: CoreTogether,
    streams: HashMap<usize, (Stream, PieceLogprobs)>,
    done: BTreeMap<usize, Result<Completion>>,
    /// How many were added, and how many have come out.
    added: usize,
    taken: usize,
}

impl Ordered {
    /// No answers yet.
    pub fn new(engine: Arc<Engine>) -> Ordered {
        let together = CoreTogether::new(&engine);
        Ordered { engine, together, streams: HashMap::new(), done: BTreeMap::new(), added: 0, taken: 0 }
    }

    /// The engine of all answers.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Whether another answer should be added before the next one is waited for.
    pub fn has_room(&self) -> bool {
        let most = self.engine.max_together();
        self.together.len() < most && self.added - self.taken < AHEAD * most
    }

    /// Adds an answer.
    pub fn add(&mut self, stream: Stream) -> Result<()> {
        let key = self.added;
        let shared = stream.shared.clone();
        self.streams.insert(key, (stream, PieceLogprobs::default()));
        let Ordered { engine, together, streams, .. } = self;
        together.add(key, shared, &mut |key, piece| keep_logprobs(engine, streams, key, piece))?;
        self.added += 1;
        Ok(())
    }

    /// The next answer in order, if it is done.
    pub fn take(&mut self) -> Option<Result<Completion>> {
        let next = self.done.remove(&self.taken)?;
        self.taken += 1;
        Some(next)
    }

    /// Computes until one more answer is done; false if none is under way.
    pub fn advance(&mut self, watch: &mut Watch) -> bool {
        let Ordered { engine, together, streams, .. } = self;
        let mut keep = |key, piece| keep_logprobs(engine, streams, key, piece);
        let Some((key, result)) = together.next(watch, &mut keep) else { return false };
        let (stream, logprobs) = self.streams.remove(&key).expect("it was added");
        self.done.insert(key, result.map(|()| Completion::new(&stream.shared, logprobs, stream.json)));
        true
    }
}

fn keep_logprobs(engine: &Engine, streams: &mut HashMap<usize, (Stream, PieceLogprobs)>, key: usize, piece: CorePiece) {
    if let Some((_, logprobs)) = streams.get_mut(&key) {
        logprobs.push(Piece::new(engine, piece));
    }
}

/// Streams of one engine that are pulled to their ends together. An iterator of their completions, in order.
#[pyclass(frozen, module = "bitnet")]
pub struct Together {
    source: Py<PyIterator>,
    ordered: Mutex<Option<DroppedDetached<Ordered>>>,
}

#[pymethods]
impl Together {
    /// `streams` is an iterable of streams, all of one engine; it is asked for more as others end.
    #[new]
    fn new(streams: &Bound<'_, PyAny>) -> PyResult<Together> {
        Ok(Together { source: streams.try_iter()?.unbind(), ordered: Mutex::new(None) })
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// The completion of the next stream. If that has failed, raises its error; those after it can still be had.
    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Completion>> {
        let mut guard = self.ordered.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
        loop {
            while guard.as_mut().is_none_or(|ordered| ordered.get().has_room())
                && let Some(stream) = self.source.bind(py).clone().next().transpose()?
            {
                let stream = stream.cast_into::<Stream>()?.get().clone();
                let ordered =
                    guard.get_or_insert_with(|| DroppedDetached::new(Ordered::new(stream.shared.shared_engine())));
                ordered.get().add(stream)?;
            }
            let Some(ordered) = guard.as_mut().map(DroppedDetached::get) else { return Ok(None) };
            if let Some(done) = ordered.take() {
                return Ok(Some(done?));
            }
            if !detached(py, |watch| Ok(ordered.advance(watch)))? {
                return Ok(None);
            }
        }
    }
}
