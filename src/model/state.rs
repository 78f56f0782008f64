//! The recurrent state of a sequence: what its gated delta nets keep of all positions so far.
//!
//! A state has no positions that could be cut off. So a pass never changes a state in place: it writes the next one to
//! other memory, and the one before stays what it was until the pass has ended well. Some states are kept as marks, to
//! which a sequence can go back.

use super::hybrid::DeltaNets;
use crate::error::Result;
use crate::kernel::delta_net::STATE_BLOCK;
use crate::machine::memory::HugeBuf;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// Positions between the marks of a long text.
const MARK_EVERY: usize = 256;
/// Bytes that the marks of a sequence may take; one mark is always kept.
const MAX_MARK_BYTES: usize = 320 << 20;
/// Marks of a sequence whose states are small.
const MAX_MARKS: usize = 64;

/// The most bytes that the marks of a sequence take.
pub(super) fn max_mark_bytes(shape: &StateShape) -> usize {
    max_marks(shape) * shape.bytes()
}

fn max_marks(shape: &StateShape) -> usize {
    (MAX_MARK_BYTES / shape.bytes().max(1)).clamp(1, MAX_MARKS)
}

/// The sizes of a state.
#[derive(Clone, Copy, Debug)]
pub(super) struct StateShape {
    /// Gated delta nets of the model.
    pub n_layers: usize,
    /// Inputs of the convolution that are kept, one for each position that it looks back.
    pub history: usize,
    /// Channels of the convolution.
    pub channels: usize,
    /// Value heads.
    pub n_heads: usize,
    /// Floats of a head's state.
    pub head_len: usize,
}

impl StateShape {
    /// The shape for a model; `None` if it has no gated delta nets.
    pub fn of(delta_nets: Option<&DeltaNets>) -> Option<StateShape> {
        let nets = delta_nets?;
        let n_layers = nets.layers.iter().filter(|is_delta_net| **is_delta_net).count();
        Some(StateShape {
            n_layers,
            history: nets.conv - 1,
            channels: nets.channels(),
            n_heads: nets.n_value_heads,
            head_len: nets.head_dim.next_multiple_of(STATE_BLOCK) * nets.head_dim,
        })
    }

    fn history_len(&self) -> usize {
        self.history * self.channels
    }

    fn layer_len(&self) -> usize {
        self.history_len() + self.n_heads * self.head_len
    }

    /// Floats of a state.
    fn len(&self) -> usize {
        self.n_layers * self.layer_len()
    }

    /// Bytes of a state.
    pub fn bytes(&self) -> usize {
        self.len() * size_of::<f32>()
    }

    /// The last inputs of a layer's convolution, the oldest first.
    fn history_of(&self, layer: usize) -> Range<usize> {
        let start = layer * self.layer_len();
        start..start + self.history_len()
    }

    /// The states of a layer's heads.
    fn heads_of(&self, layer: usize) -> Range<usize> {
        self.history_of(layer).end..(layer + 1) * self.layer_len()
    }
}

/// A recurrent state after some position.
pub(super) struct State {
    shape: StateShape,
    floats: HugeBuf<f32>,
}

impl State {
    /// The state before the first position: zeros.
    pub fn new(shape: StateShape) -> Result<State> {
        Ok(State { shape, floats: HugeBuf::try_zeroed(shape.len())? })
    }

    /// The last inputs of a layer's convolution, the oldest first.
    pub fn history(&self, layer: usize) -> &[f32] {
        &self.floats[self.shape.history_of(layer)]
    }

    /// The states of a layer's heads, one after the other.
    pub fn heads(&self, layer: usize) -> &[f32] {
        &self.floats[self.shape.heads_of(layer)]
    }

    /// As [`State::history`] and [`State::heads`], to be overwritten.
    pub fn layer_mut(&mut self, layer: usize) -> (&mut [f32], &mut [f32]) {
        let range = self.shape.history_of(layer).start..self.shape.heads_of(layer).end;
        self.floats[range].split_at_mut(self.shape.history_len())
    }

    /// All floats, in the order in which they are stored.
    pub fn floats_mut(&mut self) -> &mut [f32] {
        &mut self.floats
    }
}

/// States that nobody uses any more: the next pass writes to them, since fresh memory costs more than filling it.
#[derive(Default)]
pub(super) struct SpareStates(Vec<State>);

/// Bytes of spare states that are kept; one is always kept.
const MAX_SPARE_BYTES: usize = 1 << 30;

impl SpareStates {
    fn take(&mut self, shape: StateShape) -> Result<State> {
        self.0.pop().map_or_else(|| State::new(shape), Ok)
    }

    /// Takes a state back, unless somebody else holds it, too.
    fn give(&mut self, state: Option<Arc<State>>) {
        self.0.extend(state.and_then(Arc::into_inner));
    }

    /// Keeps as many as the next pass of so many sequences needs, within the bound.
    pub fn shrink(&mut self, n_sequences: usize) {
        let bytes = self.0.first().map_or(1, |state| state.shape.bytes().max(1));
        self.0.truncate(n_sequences.min((MAX_SPARE_BYTES / bytes).max(1)));
    }
}

/// The states of a sequence. Clones share them.
#[derive(Clone, Default)]
pub(super) struct History {
    /// The state after the last position; `None` before the first.
    current: Option<Arc<State>>,
    /// States after earlier positions, in ascending order of these.
    marks: Vec<(usize, Arc<State>)>,
    /// Positions at which a mark is wanted when a pass comes to them.
    wanted: BTreeSet<usize>,
}

impl History {
    /// Asks for a mark at these positions, in place of those that were asked for before.
    pub fn want(&mut self, positions: impl Iterator<Item = usize>) {
        self.wanted = positions.collect();
    }

    /// Asks for a mark at one more position.
    pub fn want_also(&mut self, position: usize) {
        self.wanted.insert(position);
    }

    /// Takes the states of another history; the positions at which marks are wanted stay.
    pub fn adopt(&mut self, other: History) {
        (self.current, self.marks) = (other.current, other.marks);
    }

    /// The address and the bytes of each state.
    pub fn parts(&self) -> impl Iterator<Item = (usize, usize)> {
        let states = self.marks.iter().map(|(_, state)| state).chain(&self.current);
        states.map(|state| (Arc::as_ptr(state).addr(), state.shape.bytes()))
    }

    /// Goes back to the latest mark at or before `len`, and returns its position; `now` is where it is.
    pub fn truncate(&mut self, now: usize, len: usize) -> usize {
        if len >= now {
            return now;
        }
        self.marks.retain(|(at, _)| *at <= len);
        let latest = self.marks.last();
        self.current = latest.map(|(_, state)| state.clone());
        latest.map_or(0, |(at, _)| *at)
    }

    /// Where [`History::truncate`] would go back to.
    pub fn reach(&self, now: usize, len: usize) -> usize {
        if len >= now { now } else { self.marks.iter().rev().find(|(at, _)| *at <= len).map_or(0, |(at, _)| *at) }
    }

    /// The positions of kept states with their floats, in ascending order; the last is the one after `len` positions.
    pub fn kept(&self, len: usize) -> impl Iterator<Item = (usize, &[f32])> {
        let marks = self.marks.iter().filter(move |(at, _)| *at < len).map(|(at, state)| (*at, state));
        let all = marks.chain(self.current.iter().map(move |state| (len, state)));
        all.map(|(at, state)| (at, &*state.floats))
    }

    /// Takes a state that was stored before; `len` is where the sequence is.
    pub fn restore(&mut self, at: usize, len: usize, state: State) {
        let state = Arc::new(state);
        if at == len { self.current = Some(state) } else { self.marks.push((at, state)) }
    }

    /// Bytes of all states of a sequence of `len` positions.
    pub fn bytes(&self, len: usize) -> usize {
        self.kept(len).map(|(_, floats)| size_of_val(floats)).sum()
    }

    /// Keeps the state after `at` positions, and drops marks that lie close to others until all fit in their memory.
    fn keep(&mut self, at: usize, state: Arc<State>) {
        self.marks.retain(|(other, _)| *other < at);
        let most = max_marks(&state.shape);
        self.marks.push((at, state));
        while self.marks.len() > most {
            let ends = |i: usize| (i.checked_sub(1).map_or(0, |before| self.marks[before].0), self.marks[i + 1].0);
            let gap = |i: &usize| ends(*i).1 - ends(*i).0;
            // Never the latest one.
            let closest = (0..self.marks.len() - 1).min_by_key(gap).unwrap_or(0);
            self.marks.remove(closest);
        }
    }
}

/// Rows of one sequence in a batch that end with a state that is to be kept.
pub(super) struct Segment {
    /// The indexes of its rows in the batch, in their order.
    pub rows: Vec<usize>,
    /// How many positions the sequence has after them.
    end: usize,
    /// The state after them, which the pass writes.
    pub state: State,
}

/// The recurrent states of a pass, for one sequence of the batch.
pub(super) struct Recurrence {
    /// The state before the pass; `None` before the first position.
    pub before: Option<Arc<State>>,
    /// The rows of the sequence, cut where a state is kept.
    pub segments: Vec<Segment>,
}

impl Recurrence {
    /// Plans the pass of a sequence of `len` positions over these rows.
    pub fn new(
        shape: StateShape,
        history: &History,
        len: usize,
        rows: &[usize],
        spare: &mut SpareStates,
    ) -> Result<Recurrence> {
        let end = len + rows.len();
        let regular = (len + 1..end).filter(|at| at.is_multiple_of(MARK_EVERY));
        let cuts: BTreeSet<usize> = history.wanted.range(len + 1..end).copied().chain(regular).chain([end]).collect();
        let (mut start, mut segments) = (len, Vec::new());
        for cut in cuts {
            let rows = rows[start - len..cut - len].to_vec();
            segments.push(Segment { rows, end: cut, state: spare.take(shape)? });
            start = cut;
        }
        Ok(Recurrence { before: history.current.clone(), segments })
    }

    /// The indexes of the sequence's rows in the batch, in their order.
    pub fn rows(&self) -> impl Iterator<Item = usize> {
        self.segments.iter().flat_map(|segment| segment.rows.iter().copied())
    }

    /// Gives the states to the sequence, after the pass has ended well.
    pub fn finish(self, history: &mut History, spare: &mut SpareStates) {
        drop(self.before);
        let mut before = history.current.take();
        for Segment { end, state, .. } in self.segments {
            spare.give(before.take());
            before = Some(Arc::new(state));
            if let Some(state) =
                before.as_ref().filter(|_| end.is_multiple_of(MARK_EVERY) || history.wanted.contains(&end))
            {
                history.keep(end, state.clone());
            }
        }
        history.current = before;
    }
}
