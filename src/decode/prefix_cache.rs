//! The prefix cache: sequences that were computed before, of which later prompts take the part that they share.
//!
//! Sequences are sorted by their ids, so that the one that shares the longest prefix with a prompt is a neighbour of
//! the prompt: the sorted sequences are the leaves of a prefix tree. They share the pages of common prefixes, because
//! each grew from a clone of another one.

use super::{Sequence, common};
use crate::kernel::attention::PAGE_LEN;
use crate::token::TokenId;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many neighbours are looked at for prefixes of a new sequence, which it replaces.
const NEIGHBOURS: usize = 64;

/// The sequences of an engine that later prompts can continue from.
pub struct PrefixCache {
    max_bytes: usize,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    sequences: BTreeMap<Vec<TokenId>, Entry>,
    /// How many sequences hold each part of the memory, by its address.
    parts: HashMap<usize, usize>,
    /// Bytes of all parts, each counted once.
    bytes: usize,
    /// Counts uses.
    clock: u64,
}

struct Entry {
    sequence: Sequence,
    last_use: u64,
}

impl PrefixCache {
    /// An empty cache, which holds at most `max_bytes` bytes of keys, values and states.
    pub fn new(max_bytes: usize) -> PrefixCache {
        PrefixCache { max_bytes, entries: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its limit in bytes.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// Bytes of keys, values and states; what sequences share counts once.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Positions that it holds; a prefix that sequences share counts once.
    pub fn positions(&self) -> usize {
        let (entries, mut before, mut sum) = (self.lock(), &[][..], 0);
        for ids in entries.sequences.keys() {
            sum += ids.len() - common(before, ids);
            before = ids;
        }
        sum
    }

    /// A clone of the sequence that holds the longest prefix of `ids`, cut to that prefix; `None` if none holds more
    /// than `least` positions of it.
    pub fn find(&self, ids: &[TokenId], least: usize) -> Option<Sequence> {
        let mut entries = self.lock();
        let mut best: Option<(usize, &Vec<TokenId>)> = None;
        // The farther away a neighbour is, the less it shares.
        let up = entries.sequences.range::<[TokenId], _>((Included(ids), Unbounded));
        let down = entries.sequences.range::<[TokenId], _>((Unbounded, Excluded(ids))).rev();
        for neighbours in [&mut up.into_iter() as &mut dyn Iterator<Item = _>, &mut down.into_iter()] {
            for (key, entry) in neighbours {
                let shared = common(key, ids);
                if shared <= best.map_or(least, |(kept, _)| kept) {
                    break;
                }
                let kept = entry.sequence.reach(shared);
                if kept > best.map_or(least, |(kept, _)| kept) {
                    best = Some((kept, key));
                }
            }
        }
        let (kept, key) = best.map(|(kept, key)| (kept, key.clone()))?;
        entries.clock += 1;
        let now = entries.clock;
        let entry = entries.sequences.get_mut(&key).expect("just found");
        entry.last_use = now;
        let mut sequence = entry.sequence.clone();
        drop(entries);
        sequence.truncate(kept);
        Some(sequence)
    }

    /// Drops everything.
    pub fn clear(&self) {
        let dropped = std::mem::take(&mut *self.lock());
        drop(dropped); // memory is freed outside the lock
    }

    /// How many positions of `ids` [`PrefixCache::find`] would return.
    pub fn held(&self, ids: &[TokenId]) -> usize {
        self.find(ids, 0).map_or(0, |sequence| sequence.ids().len())
    }

    /// Keeps a sequence, in place of those that are prefixes of it; the least recently used ones leave until all fit. Of
    /// a sequence that is too large by itself the beginning is kept.
    pub fn keep(&self, mut sequence: Sequence) {
        while sequence.bytes() > self.max_bytes && !sequence.ids().is_empty() {
            let len = sequence.ids().len();
            sequence.truncate((len - 1) / PAGE_LEN * PAGE_LEN);
        }
        if sequence.ids().is_empty() {
            return;
        }
        let mut entries = self.lock();
        entries.clock += 1;
        let now = entries.clock;
        let (ids, len) = (sequence.ids().to_vec(), sequence.ids().len());
        let above = entries.sequences.range_mut::<[TokenId], _>((Included(&ids[..]), Unbounded)).next();
        if let Some((key, entry)) = above
            && key.starts_with(&ids)
            && entry.sequence.reach(len) == len
        {
            entry.last_use = now;
            return;
        }
        let below = entries.sequences.range::<[TokenId], _>((Unbounded, Excluded(&ids[..]))).rev();
        let prefixes = below.take(NEIGHBOURS).filter(|(key, _)| ids.starts_with(key));
        let prefixes: Vec<Vec<TokenId>> = prefixes.map(|(key, _)| key.clone()).collect();
        let mut dropped: Vec<Entry> = prefixes.iter().filter_map(|key| entries.remove(key)).collect();
        dropped.extend(entries.remove(&ids));
        entries.count(&sequence);
        entries.sequences.insert(ids, Entry { sequence, last_use: now });
        while entries.bytes > self.max_bytes {
            let oldest = entries.sequences.iter().min_by_key(|(_, entry)| entry.last_use).map(|(key, _)| key.clone());
            dropped.extend(oldest.and_then(|key| entries.remove(&key)));
        }
        drop(entries); // memory is freed outside the lock
        drop(dropped);
    }
}

impl Entries {
    fn count(&mut self, sequence: &Sequence) {
        for (address, bytes) in sequence.parts() {
            let holders = self.parts.entry(address).or_default();
            *holders += 1;
            if *holders == 1 {
                self.bytes += bytes;
            }
        }
    }

    fn remove(&mut self, key: &[TokenId]) -> Option<Entry> {
        let entry = self.sequences.remove(key)?;
        for (address, bytes) in entry.sequence.parts() {
            let holders = self.parts.get_mut(&address).expect("it was counted");
            *holders -= 1;
            if *holders == 0 {
                self.parts.remove(&address);
                self.bytes -= bytes;
            }
        }
        Some(entry)
    }
}

#[cfg(test)]
#[path = "../../tests/unit/prefix_cache.rs"]
mod tests;
