//! Sequences of ids and generations: ids in, logits and ids out. Knows no text.

mod generation;

pub use crate::error::Watch;
pub use generation::{Finish, Generation, Times, Token, complete_all};

use crate::error::{Error, Result};
use crate::kernel::{Kernels, Team};
use crate::machine::counters::WorkCounters;
use crate::machine::memory::try_with_capacity;
use crate::machine::pool::{Pool, Workers};
use crate::model::{KvCache, LogitsFor, Mark, Model, Row, Scratch, Trace};
use crate::token::TokenId;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// A model with the threads and kernels that compute it.
pub struct Runtime {
    /// The loaded model; all sequences share it.
    pub model: Model,
    /// The kernels of the engine's instruction set.
    pub kernels: &'static Kernels,
    /// The engine's threads, which run one pass at a time.
    pub pool: Pool,
    /// The most positions that one sequence may have.
    pub n_ctx: usize,
    /// The most rows of one forward pass.
    pub n_batch: usize,
    /// Buffers for one pass; a pass that finds them in use allocates its own.
    pub scratch: Mutex<Scratch>,
}

/// A pass that reads fewer bytes of weights than this, counted once a row, runs on the caller's thread: it ends before
/// other threads would wake up.
const SMALL_PASS: usize = 4 << 20;

/// The last ids of a prompt, before which a recurrent state is kept.
const PROMPT_TAIL: usize = 8;

/// One sequence: its ids, and their keys and values, or recurrent states. Clones share the memory of these until one of
/// them writes.
#[derive(Clone)]
pub struct Sequence {
    cache: KvCache,
    ids: Vec<TokenId>,
}

impl Sequence {
    /// A sequence without ids, which owns `cache`.
    pub fn new(cache: KvCache) -> Sequence {
        Sequence { cache, ids: Vec::new() }
    }

    /// A sequence whose keys and values were computed before: `read` fills them with the bytes that
    /// [`Sequence::write_to`] gave, in the same pieces. `states` are the positions of its recurrent states.
    pub fn restored(
        mut cache: KvCache,
        ids: Vec<TokenId>,
        states: &[usize],
        read: impl FnMut(&mut [u8]) -> Result<()>,
    ) -> Result<Sequence> {
        cache.fill(ids.len(), states, read)?;
        Ok(Sequence { cache, ids })
    }

    /// Gives `write` the bytes of the cache, piece by piece.
    pub fn write_to<E>(&self, write: impl FnMut(&[u8]) -> std::result::Result<(), E>) -> std::result::Result<(), E> {
        self.cache.write_to(write)
    }

    /// The positions of its recurrent states, in ascending order; none for models without such states.
    pub fn state_positions(&self) -> Vec<usize> {
        self.cache.state_positions()
    }

    /// The ids whose keys and values it holds.
    pub fn ids(&self) -> &[TokenId] {
        &self.ids
    }

    /// Work counted since the last generation began.
    pub fn work(&self) -> WorkCounters {
        self.cache.work()
    }

    /// Bytes of the cache, shared ones included.
    pub fn bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// The length of the prefix that it shares with `ids`.
    pub fn common(&self, ids: &[TokenId]) -> usize {
        self.ids.iter().zip(ids).take_while(|(a, b)| a == b).count()
    }

    /// Truncates it to the prefix that it shares with `ids`, and returns how many positions it has kept.
    pub fn keep_prefix(&mut self, ids: &[TokenId]) -> usize {
        self.truncate(self.common(ids))
    }

    /// Prepares for a prompt that later ones will share in part. Recurrent states are kept at `starts`, where the later
    /// ones may differ, and shortly before the end. What follows there, a header and perhaps the begin of a thought, is
    /// what later prompts have in another form.
    pub fn keep_states_for(&mut self, prompt: &[TokenId], starts: &[usize]) {
        let tail = prompt.len().checked_sub(PROMPT_TAIL);
        self.cache.keep_states_at(starts.iter().copied().chain(tail));
    }

    /// Truncates it to `len` positions and extends it; restores it if that fails.
    pub fn replace_from<T>(&mut self, len: usize, extend: impl FnOnce(&mut Sequence) -> Result<T>) -> Result<T> {
        let before = self.clone();
        self.truncate(len);
        extend(self).inspect_err(|_| *self = before)
    }

    /// Keeps the first `len` positions only, and returns how many it has kept. A recurrent state cannot be cut back, so
    /// with one these are the positions up to the latest state that was kept; the others have to be computed again.
    pub fn truncate(&mut self, len: usize) -> usize {
        let kept = self.cache.truncate(len);
        self.ids.truncate(kept);
        kept
    }

    /// Where it is now.
    fn mark(&self) -> Mark {
        self.cache.mark()
    }

    /// Goes back to a mark that it has given since it was last truncated to fewer positions.
    fn return_to(&mut self, mark: Mark) {
        self.cache.return_to(mark);
        self.ids.truncate(self.cache.len());
    }
}

impl Runtime {
    /// Checks that ids from `position` on fit the context and are in the vocabulary.
    pub fn check_ids(&self, ids: &[TokenId], position: usize) -> Result<()> {
        if position + ids.len() > self.n_ctx {
            return Err(self.context_error(position + ids.len()));
        }
        self.check_vocabulary(ids)
    }

    fn context_error(&self, needed: usize) -> Error {
        Error::Context { needed, n_ctx: self.n_ctx, model_max: self.model.config().context }
    }

    /// Checks that ids, however many, are in the vocabulary.
    pub fn check_vocabulary(&self, ids: &[TokenId]) -> Result<()> {
        let n_vocab = self.model.config().vocab_size;
        match ids.iter().position(|id| *id as usize >= n_vocab) {
            Some(position) => Err(Error::TokenId { id: ids[position].into(), position, n_vocab }),
            None => Ok(()),
        }
    }

    /// Appends rows to the sequences, at most `n_batch` in a pass, and returns their logits or hidden states, in
    /// order.
    ///
    /// If it fails or is cancelled, every sequence is as long as it was.
    pub fn advance(&self, sequences: &mut [&mut Sequence], rows: &[Row], watch: &mut Watch) -> Result<Vec<f32>> {
        self.advance_traced(sequences, rows, None, watch)
    }

    /// As [`Runtime::advance`], and records what the passes compute.
    pub fn advance_traced(
        &self,
        sequences: &mut [&mut Sequence],
        rows: &[Row],
        mut trace: Option<&mut Trace>,
        watch: &mut Watch,
    ) -> Result<Vec<f32>> {
        // A pass that fails has changed nothing; only passes before it have to be undone. Marks hold states, which a
        // single pass would like to write to.
        let marks: Vec<Mark> = if rows.len() > self.n_batch {
            sequences.iter().map(|sequence| sequence.mark()).collect()
        } else {
            Vec::new()
        };
        let config = self.model.config();
        let outputs = rows.iter().map(|row| match row.logits {
            LogitsFor::None => 0,
            LogitsFor::Hidden => config.hidden_size,
            LogitsFor::All | LogitsFor::Candidates(_) => config.vocab_size,
        });
        let total = outputs.fold(0, usize::saturating_add);
        // A single pass returns its own buffer.
        let mut results = try_with_capacity(if rows.len() > self.n_batch { total } else { 0 })?;
        for chunk in rows.chunks(self.n_batch) {
            match self.pass(sequences, chunk, trace.as_deref_mut(), watch) {
                Ok(all) if chunk.len() == rows.len() => return Ok(all),
                Ok(some) => results.extend(some),
                Err(error) => {
                    sequences.iter_mut().zip(marks).for_each(|(sequence, mark)| sequence.return_to(mark));
                    return Err(error);
                }
            }
        }
        Ok(results)
    }

    /// Runs one forward pass on the engine's threads, or a small one on the caller's. Cancelled by `watch`.
    fn pass(
        &self,
        sequences: &mut [&mut Sequence],
        rows: &[Row],
        trace: Option<&mut Trace>,
        watch: &mut Watch,
    ) -> Result<Vec<f32>> {
        let mut lens: Vec<usize> = sequences.iter().map(|sequence| sequence.ids.len()).collect();
        for row in rows {
            lens[row.sequence] += 1;
            if lens[row.sequence] > self.n_ctx {
                return Err(self.context_error(self.n_ctx + 1));
            }
        }
        if !self.pool.is_here() {
            return Err(Error::Argument(
                "the engine was opened in the process that forked this one off, where its threads stayed; open an \
                 engine in this process, or start processes by 'spawn'"
                    .into(),
            ));
        }
        if watch() {
            return Err(Error::Cancelled);
        }
        let mut caches: Vec<&mut KvCache> = sequences.iter_mut().map(|sequence| &mut sequence.cache).collect();
        let cancel = AtomicBool::new(false);
        let mut own = Scratch::default();
        let mut kept = self.scratch.try_lock();
        let scratch = kept.as_deref_mut().unwrap_or(&mut own);
        let forward = |workers: &Workers| {
            let team = Team::new(workers, self.kernels);
            self.model.forward(&team, &mut caches, rows, scratch, trace, &cancel)
        };
        let logits = if rows.len() * self.model.weight_bytes() < SMALL_PASS {
            self.pool.run_here(forward)
        } else {
            let look = || cancel.fetch_or(watch(), Ordering::Relaxed) || cancel.load(Ordering::Relaxed);
            self.pool.run_watched(forward, look).unwrap_or(Err(Error::Cancelled))
        };
        let logits = logits.map_err(|error| error.of_file(self.model.gguf().path()))?;
        rows.iter().for_each(|row| sequences[row.sequence].ids.push(row.id));
        Ok(logits)
    }

    /// Appends ids to one sequence, and returns those `logits` of the last one.
    pub fn prefill(
        &self,
        sequence: &mut Sequence,
        ids: &[TokenId],
        logits: LogitsFor,
        watch: &mut Watch,
    ) -> Result<Vec<f32>> {
        let of = |i: usize| if i + 1 == ids.len() { logits } else { LogitsFor::None };
        let row = |(i, id): (usize, &TokenId)| Row { sequence: 0, id: *id, logits: of(i) };
        let rows: Vec<Row> = ids.iter().enumerate().map(row).collect();
        self.advance(&mut [sequence], &rows, watch)
    }
}
