//! One sequence of ids with what the model has computed for them.

use crate::error::Result;
use crate::machine::counters::WorkCounters;
use crate::model::KvCache;
use crate::token::TokenId;

/// The last ids of a prompt, before which a recurrent state is kept.
const PROMPT_TAIL: usize = 8;

/// One sequence: its ids, and their keys and values, or recurrent states. Clones share the memory of these until one of
/// them writes.
#[derive(Clone)]
pub struct Sequence {
    pub(super) cache: KvCache,
    pub(super) ids: Vec<TokenId>,
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
        common(&self.ids, ids)
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

    /// How many positions [`Sequence::truncate`] would keep.
    pub fn reach(&self, len: usize) -> usize {
        self.cache.reach(len)
    }

    /// Keeps the first `len` positions only, and returns how many it has kept. A recurrent state cannot be cut back, so
    /// with one these are the positions up to the latest state that was kept; the others have to be computed again.
    pub fn truncate(&mut self, len: usize) -> usize {
        let kept = self.cache.truncate(len);
        self.ids.truncate(kept);
        kept
    }

    /// An empty sequence for the same model.
    pub fn new_like(&self) -> Sequence {
        Sequence { cache: self.cache.new_like(), ids: Vec::new() }
    }

    /// Takes over what another sequence has computed for a prefix of this one's ids. The states that this one wants kept
    /// and its counted work stay.
    pub(super) fn adopt(&mut self, prefix: Sequence) {
        self.cache.adopt(prefix.cache);
        self.ids = prefix.ids;
    }

    /// Asks for one more position at which a recurrent state is kept.
    pub(super) fn keep_state_at(&mut self, position: usize) {
        self.cache.keep_state_at(position);
    }

    /// Sets the counters of its work to zero.
    pub fn reset_work(&mut self) {
        self.cache.reset_work();
    }

    /// The parts of its memory that clones share, each with its address and its bytes.
    pub(super) fn parts(&self) -> impl Iterator<Item = (usize, usize)> {
        self.cache.parts()
    }
}

/// The length of the prefix that two lists share.
pub(super) fn common(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
