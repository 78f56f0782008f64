//! The warm sequence: the keys and values of the last prompt, kept for the next one.

use super::Engine;
use crate::decode::Sequence;
use crate::error::Result;
use crate::token::TokenId;
use std::sync::{MutexGuard, PoisonError};

impl Engine {
    /// A new sequence without any positions.
    pub fn new_sequence(&self) -> Sequence {
        Sequence::new(self.runtime.model.new_cache(self.kv_type))
    }

    /// A sequence whose keys and values were computed and stored before, with recurrent states at `states`; `read` fills
    /// one piece after the other.
    pub fn restore_sequence(
        &self,
        ids: Vec<TokenId>,
        states: &[usize],
        read: impl FnMut(&mut [u8]) -> Result<()>,
    ) -> Result<Sequence> {
        Sequence::restored(self.runtime.model.new_cache(self.kv_type), ids, states, read)
    }

    /// Positions that the warm sequence holds.
    pub fn cached_tokens(&self) -> usize {
        self.lock_warm().and_then(|warm| Some(warm.as_ref()?.ids().len())).unwrap_or(0)
    }

    /// Bytes of the warm sequence's keys and values.
    pub(super) fn cached_bytes(&self) -> usize {
        self.lock_warm().and_then(|warm| Some(warm.as_ref()?.bytes())).unwrap_or(0)
    }

    /// None in a process that was forked off: another thread may have held the lock at that moment.
    fn lock_warm(&self) -> Option<MutexGuard<'_, Option<Sequence>>> {
        self.runtime.pool.is_here().then(|| self.warm.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The warm sequence, or an empty one while another caller uses it.
    pub(super) fn take_warm(&self) -> Sequence {
        let taken = self.lock_warm().and_then(|mut warm| warm.take());
        taken.unwrap_or_else(|| self.new_sequence())
    }

    /// Keeps `sequence` warm unless another one already is. A surplus one is freed outside the lock.
    pub(super) fn keep_warm(&self, sequence: Sequence) {
        let mut surplus = Some(sequence);
        if let Some(mut warm) = self.lock_warm().filter(|warm| warm.is_none()) {
            *warm = surplus.take();
        }
    }

    /// Runs `use_it` on the warm sequence and keeps the sequence warm, also after an error.
    pub(super) fn with_warm<T>(&self, use_it: impl FnOnce(&mut Sequence) -> Result<T>) -> Result<T> {
        let mut sequence = self.take_warm();
        let result = use_it(&mut sequence);
        self.keep_warm(sequence);
        result
    }
}
