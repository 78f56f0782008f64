//! The engine's prefix cache: what prompts have in common is computed once.

use super::Engine;
use crate::decode::{PrefixCache, Sequence};
use crate::error::Result;
use crate::kernel::attention::PAGE_LEN;
use crate::token::TokenId;

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

    /// None in a process that was forked off: another thread may have held its lock at that moment.
    fn prefixes(&self) -> Option<&PrefixCache> {
        self.runtime.pool.is_here().then_some(&self.prefix_cache)
    }

    /// Positions that the prefix cache holds; those that sequences share count once.
    pub fn cached_tokens(&self) -> usize {
        self.prefixes().map_or(0, PrefixCache::positions)
    }

    /// Bytes of the prefix cache.
    pub(super) fn cached_bytes(&self) -> usize {
        self.prefixes().map_or(0, PrefixCache::bytes)
    }

    /// The most bytes that the prefix cache may have.
    pub fn cache_bytes(&self) -> usize {
        self.prefix_cache.max_bytes()
    }

    /// How many positions at the beginning of `ids` the prefix cache holds.
    pub(super) fn cached_prefix(&self, ids: &[TokenId]) -> usize {
        self.prefixes().map_or(0, |prefixes| prefixes.held(ids))
    }

    /// A sequence that holds the longest cached prefix of `ids`; `own` if that holds as much of it already.
    pub(super) fn sequence_for(&self, ids: &[TokenId], own: Option<Sequence>) -> Sequence {
        let least = own.as_ref().map_or(0, |own| own.reach(own.common(ids)));
        let cached = self.prefixes().and_then(|prefixes| prefixes.find(ids, least));
        cached.or(own).unwrap_or_else(|| self.new_sequence())
    }

    /// Empties the prefix cache.
    pub fn clear_cache(&self) {
        if let Some(prefixes) = self.prefixes() {
            prefixes.clear();
        }
    }

    /// Keeps a sequence in the prefix cache.
    pub(super) fn keep(&self, sequence: Sequence) {
        if let Some(prefixes) = self.prefixes() {
            prefixes.keep(sequence);
        }
    }

    /// Keeps the whole pages of a sequence that goes on in use; a page that it shared would be copied at its next step.
    pub(super) fn keep_pages(&self, sequence: &Sequence) {
        let whole = sequence.ids().len() / PAGE_LEN * PAGE_LEN;
        if whole > 0 {
            let mut pages = sequence.clone();
            pages.truncate(whole);
            self.keep(pages);
        }
    }
}
