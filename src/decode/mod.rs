//! Decoding: ids in, logits and ids out. Knows no text.

mod generation;

pub use generation::{Finish, Generation, Times, Token, complete_all};

use crate::error::{Error, Result};
use crate::kernel::Kernels;
use crate::machine::counters::WorkCounters;
use crate::machine::memory::try_with_capacity;
use crate::machine::pool::{Pool, Team};
use crate::model::{KvCache, LogitsFor, Model, Row, Scratch};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// A model with what computes it.
pub struct Runtime {
    /// The model.
    pub model: Model,
    /// The instruction set's kernels.
    pub kernels: &'static Kernels,
    /// The engine's threads.
    pub pool: Pool,
    /// Positions that one sequence may have.
    pub n_ctx: usize,
    /// Rows that one forward pass takes at most.
    pub n_batch: usize,
    /// The buffers of the last pass, for the next one that finds them free.
    pub scratch: Mutex<Scratch>,
}

/// A pass over fewer bytes of weights, counted once for each row, takes less time than waking up threads is worth.
const SMALL: usize = 4 << 20;

/// Asked before each step and every 50 ms while it computes: whether to abandon it.
pub type Watch<'a> = dyn FnMut() -> bool + 'a;

/// A token of a sequence, and which of its logits are wanted.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    /// Which of the sequences.
    pub sequence: usize,
    /// The token.
    pub id: u32,
    /// Which of its logits are wanted.
    pub logits: LogitsFor<'a>,
}

/// One sequence: its ids, and its keys and values, which clones share as far as they agree.
#[derive(Clone)]
pub struct Sequence {
    cache: KvCache,
    ids: Vec<u32>,
}

impl Sequence {
    /// An empty sequence.
    pub fn new(cache: KvCache) -> Sequence {
        Sequence { cache, ids: Vec::new() }
    }

    /// A sequence whose keys and values were computed before; `read` fills its pages with [`Sequence::contents`].
    pub fn restored(mut cache: KvCache, ids: Vec<u32>, read: impl FnMut(&mut [u8]) -> Result<()>) -> Result<Sequence> {
        cache.fill(ids.len(), read)?;
        Ok(Sequence { cache, ids })
    }

    /// The contents of the cache's pages.
    pub fn contents(&self) -> impl Iterator<Item = &[u8]> {
        self.cache.contents()
    }

    /// The ids whose keys and values are held.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// What the kernels have computed for its last answer, by their own count.
    pub fn work(&self) -> WorkCounters {
        self.cache.work()
    }

    /// Bytes that the cache takes.
    pub fn bytes(&self) -> usize {
        self.contents().map(<[u8]>::len).sum()
    }

    /// How many ids at the beginning are common with `ids`.
    pub fn common(&self, ids: &[u32]) -> usize {
        self.ids.iter().zip(ids).take_while(|(a, b)| a == b).count()
    }

    /// Keeps what is common with `ids`, and returns its length.
    pub fn keep_prefix(&mut self, ids: &[u32]) -> usize {
        let common = self.common(ids);
        self.truncate(common);
        common
    }

    /// Keeps the first `len` positions and extends them; if that fails, everything is as it was.
    pub fn replace_from<T>(&mut self, len: usize, extend: impl FnOnce(&mut Sequence) -> Result<T>) -> Result<T> {
        let before = self.clone();
        self.truncate(len);
        extend(self).inspect_err(|_| *self = before)
    }

    /// Keeps the first `len` positions.
    pub fn truncate(&mut self, len: usize) {
        self.ids.truncate(len);
        self.cache.truncate(len);
    }
}

impl Runtime {
    /// Checks that ids from `position` on fit the context and are in the vocabulary.
    pub fn check_ids(&self, ids: &[u32], position: usize) -> Result<()> {
        if position + ids.len() > self.n_ctx {
            return Err(Error::Context { needed: position + ids.len(), n_ctx: self.n_ctx });
        }
        self.check_vocabulary(ids)
    }

    /// Checks that ids, however many, are in the vocabulary.
    pub fn check_vocabulary(&self, ids: &[u32]) -> Result<()> {
        let n_vocab = self.model.config().vocab_size;
        match ids.iter().position(|id| *id as usize >= n_vocab) {
            Some(position) => Err(Error::TokenId { id: ids[position].into(), position, n_vocab }),
            None => Ok(()),
        }
    }

    /// Appends `steps` to the sequences, at most `n_batch` in a pass, and returns the wanted logits in order.
    ///
    /// If it fails or is cancelled, every sequence is as long as it was.
    pub fn advance(&self, sequences: &mut [&mut Sequence], steps: &[Step], watch: &mut Watch) -> Result<Vec<f32>> {
        let before: Vec<usize> = sequences.iter().map(|d| d.ids.len()).collect();
        let wanted = steps.iter().filter(|step| step.logits.any()).count();
        let mut logits = try_with_capacity(if steps.len() > self.n_batch {
            wanted.saturating_mul(self.model.config().vocab_size)
        } else {
            0
        })?;
        for chunk in steps.chunks(self.n_batch) {
            match self.pass(sequences, chunk, watch) {
                Ok(all) if chunk.len() == steps.len() => return Ok(all),
                Ok(some) => logits.extend(some),
                Err(error) => {
                    sequences.iter_mut().zip(before).for_each(|(d, len)| d.truncate(len));
                    return Err(error);
                }
            }
        }
        Ok(logits)
    }

    fn pass(&self, sequences: &mut [&mut Sequence], steps: &[Step], watch: &mut Watch) -> Result<Vec<f32>> {
        let mut rows = Vec::with_capacity(steps.len());
        let mut lens: Vec<usize> = sequences.iter().map(|d| d.ids.len()).collect();
        for Step { sequence, id, logits } in steps.iter().copied() {
            if lens[sequence] == self.n_ctx {
                return Err(Error::Context { needed: self.n_ctx + 1, n_ctx: self.n_ctx });
            }
            rows.push(Row { sequence, position: lens[sequence], id, logits });
            lens[sequence] += 1;
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
        let mut caches: Vec<&mut KvCache> = sequences.iter_mut().map(|d| &mut d.cache).collect();
        let cancel = AtomicBool::new(false);
        let mut own = Scratch::default();
        let mut kept = self.scratch.try_lock();
        let scratch = kept.as_deref_mut().unwrap_or(&mut own);
        let forward = |team: &Team| self.model.forward(self.kernels, team, &mut caches, &rows, scratch, &cancel);
        let logits = if steps.len() * self.model.weight_bytes() < SMALL {
            self.pool.run_here(forward)
        } else {
            let look = || cancel.fetch_or(watch(), Ordering::Relaxed) || cancel.load(Ordering::Relaxed);
            self.pool.run_watched(forward, look).unwrap_or(Err(Error::Cancelled))
        };
        let logits = logits.map_err(|error| error.of_file(self.model.gguf().path()))?;
        steps.iter().for_each(|step| sequences[step.sequence].ids.push(step.id));
        Ok(logits)
    }

    /// Appends ids to one sequence; returns the logits of the last that are wanted.
    pub fn prefill(
        &self,
        sequence: &mut Sequence,
        ids: &[u32],
        logits: LogitsFor,
        watch: &mut Watch,
    ) -> Result<Vec<f32>> {
        let of = |i: usize| if i + 1 == ids.len() { logits } else { LogitsFor::None };
        let step = |(i, id): (usize, &u32)| Step { sequence: 0, id: *id, logits: of(i) };
        let steps: Vec<Step> = ids.iter().enumerate().map(step).collect();
        self.advance(&mut [sequence], &steps, watch)
    }
}
