//! Splits a text into pieces. Byte-pair encoding never merges across pieces.
//!
//! A pattern is a finite automaton that runs from each piece's start. It takes linear time on any text: a scan that
//! looks past its match without finding a longer one leaves marks (`Memo`), at which later scans stop (Reps, "Maximal
//! Munch" Tokenization in Linear Time, 1998).

use crate::error::{Error, Result};
use ahash::AHashMap;
use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::pool::Pool;
use regex_automata::{Anchored, Input, PatternID};
use regex_syntax::hir::{Hir, HirKind};
use std::ops::Range;
use std::panic::{RefUnwindSafe, UnwindSafe};

/// The ends of most patterns: white space, whose last character is left to the word that follows. These hold the only
/// look-ahead that published patterns use. `Split::find` does its work, so that the rest of a pattern is a finite
/// automaton. With the first, a single white space before a word is a piece of its own.
const SPACES: [&str; 2] = [r"|\s+(?!\S)|\s+", r"|\s+(?!\S)"];

/// Possessive repetitions of other regex engines. This engine would read them as nested repetitions.
const POSSESSIVE: [&str; 3] = ["?+", "*+", "++"];

/// The most parts that a pattern may have, each counted as often as it is repeated: several times those of any published
/// one, and RE2's limit for repetitions. So many states can be active at once, and a step's time grows with them.
const PATTERN_PARTS: u64 = 1000;
/// The most memory that a pattern's states may take before they are determinized, in bytes.
const PATTERN_BYTES: usize = 2 << 20;
/// The memory for determinized states, in bytes. When it is full, it starts afresh.
const CACHE_BYTES: usize = 4 << 20;

/// A scan leaves no marks for the first bytes past its match: published patterns look no further, as a rule.
const UNMARKED: usize = 64;
/// The most states that leave marks; each takes a bit for every byte of the text.
const MARKED_STATES: usize = 512;

/// What becomes of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behavior {
    /// A piece of its own.
    Isolated,
    /// Left out.
    Removed,
    /// A piece together with the matches beside it.
    Contiguous,
    /// The end of the piece before it.
    MergedWithPrevious,
    /// The start of the piece after it.
    MergedWithNext,
}

/// The number of literals and classes of a pattern, each as often as it is repeated.
fn parts(pattern: &Hir) -> u64 {
    match pattern.kind() {
        HirKind::Empty | HirKind::Look(_) | HirKind::Literal(_) | HirKind::Class(_) => 1,
        HirKind::Capture(capture) => parts(&capture.sub),
        HirKind::Repetition(repetition) => {
            let copies = repetition.max.unwrap_or(repetition.min).max(1);
            parts(&repetition.sub).saturating_mul(copies.into())
        }
        HirKind::Concat(all) | HirKind::Alternation(all) => {
            all.iter().map(parts).fold(0, |sum: u64, parts| sum.saturating_add(parts))
        }
    }
}

type MakeCache = Box<dyn Fn() -> Cache + Send + Sync + UnwindSafe + RefUnwindSafe>;

/// One step of splitting: cuts a text at the matches of a pattern. Each gap between two matches is a piece.
pub(super) struct Split {
    dfa: DFA,
    caches: Pool<Cache, MakeCache>,
    /// Whether a single white space before a word is a match of `SPACES`.
    single_space: bool,
    behavior: Behavior,
    /// Whether the gaps count as the matches.
    invert: bool,
}

impl Split {
    /// Compiles a pattern whose matches are pieces; an error if it needs look-around other than a final one of
    /// `SPACES`.
    pub(super) fn new(pattern: &str) -> Result<Split> {
        let refused = |why: &str| {
            Error::Unsupported(format!(
                "the pre-tokenizer's pattern '{pattern}' {why}; this engine has regular expressions without \
                 look-around, except for a final '{}'",
                SPACES[0]
            ))
        };
        if POSSESSIVE.iter().any(|repetition| pattern.contains(repetition)) {
            return Err(refused("has a possessive repetition, which is not supported"));
        }
        let cut = SPACES.iter().find_map(|spaces| pattern.strip_suffix(spaces));
        let patterns = [cut.unwrap_or(pattern), r"\s+"];
        let patterns = &patterns[..if cut.is_some() { 2 } else { 1 }];
        let parts: u64 = patterns.iter().filter_map(|pattern| Some(parts(&regex_syntax::parse(pattern).ok()?))).sum();
        if parts > PATTERN_PARTS {
            return Err(refused(&format!("has {parts} parts with its repetitions, more than {PATTERN_PARTS}")));
        }
        let built = DFA::builder()
            .configure(DFA::config().cache_capacity(CACHE_BYTES))
            .thompson(thompson::Config::new().nfa_size_limit(Some(PATTERN_BYTES)))
            .build_many(patterns);
        let dfa = built.map_err(|error| refused(&format!("cannot be used: {error}")))?;
        let source = dfa.clone();
        let caches = Pool::new(Box::new(move || source.create_cache()) as MakeCache);
        let single_space = pattern.ends_with(SPACES[0]);
        Ok(Split { dfa, caches, single_space, behavior: Behavior::Isolated, invert: false })
    }

    /// The same with another behavior of its matches, or of the gaps in their place.
    pub(super) fn with(self, behavior: Behavior, invert: bool) -> Split {
        Split { behavior, invert, ..self }
    }

    /// The pattern that matches exactly this text.
    pub(super) fn literal(text: &str) -> String {
        text.chars().map(|c| format!(r"\x{{{:x}}}", c as u32)).collect()
    }

    /// Whether the pattern matches the empty text.
    pub(super) fn matches_nothing(&self) -> bool {
        self.scan("", 0, &mut self.caches.get(), &mut Memo::default()).is_some()
    }

    /// The pieces of a text, none of them empty.
    pub(super) fn pieces(&self, text: &str) -> Vec<Range<usize>> {
        let parts = self.parts(text);
        let mut pieces: Vec<Range<usize>> = Vec::with_capacity(parts.len());
        let mut before = false;
        match self.behavior {
            Behavior::Isolated => pieces.extend(parts.into_iter().map(|(range, _)| range)),
            Behavior::Removed => pieces.extend(parts.into_iter().filter(|part| !part.1).map(|(range, _)| range)),
            Behavior::MergedWithNext => {
                for (range, is_match) in parts.into_iter().rev() {
                    match pieces.last_mut() {
                        Some(next) if is_match && !before => next.start = range.start,
                        _ => pieces.push(range),
                    }
                    before = is_match;
                }
                pieces.reverse();
            }
            Behavior::Contiguous | Behavior::MergedWithPrevious => {
                for (range, is_match) in parts {
                    let joins = match self.behavior {
                        Behavior::Contiguous => is_match == before,
                        _ => is_match && !before,
                    };
                    match pieces.last_mut() {
                        Some(last) if joins => last.end = range.end,
                        _ => pieces.push(range),
                    }
                    before = is_match;
                }
            }
        }
        pieces
    }

    /// The matches and the gaps between them, which cover the text. The flag says which count as matches.
    fn parts(&self, text: &str) -> Vec<(Range<usize>, bool)> {
        let mut parts = Vec::new();
        let mut cache = self.caches.get();
        let mut memo = Memo::default();
        let (mut done, mut at) = (0, 0);
        while at < text.len() {
            match self.find(text, at, &mut cache, &mut memo) {
                Some(end) => {
                    if done < at {
                        parts.push((done..at, self.invert));
                    }
                    parts.push((at..end, !self.invert));
                    (done, at) = (end, end);
                }
                None => at = text.ceil_char_boundary(at + 1),
            }
        }
        if done < text.len() {
            parts.push((done..text.len(), self.invert));
        }
        parts
    }

    /// The end of the match that begins at `start`. An empty match is none.
    fn find(&self, text: &str, start: usize, cache: &mut Cache, memo: &mut Memo) -> Option<usize> {
        let (end, pattern) = self.scan(text, start, cache, memo).filter(|(end, _)| *end > start)?;
        if pattern == PatternID::ZERO || end == text.len() {
            return Some(end);
        }
        // White space before a word: its last character goes to the word, unless it is the only one.
        let (last, _) = text[start..end].char_indices().next_back().expect("it is not empty");
        if last > 0 { Some(start + last) } else { Some(end).filter(|_| self.single_space) }
    }

    /// Runs the automaton from `start`. Returns the end of the match, and which pattern it is of.
    fn scan(&self, text: &str, start: usize, cache: &mut Cache, memo: &mut Memo) -> Option<(usize, PatternID)> {
        const NEVER: &str = "the automaton is not configured to give up";
        let mut state =
            self.dfa.start_state_forward(cache, &Input::new(text).range(start..).anchored(Anchored::Yes)).expect(NEVER);
        let (mut found, mut since) = (None, start);
        for (at, byte) in (start..).zip(text[start..].bytes()) {
            #[cfg(test)]
            (memo.steps = at - start);
            state = self.dfa.next_state(cache, state, byte).expect(NEVER);
            // A match is reported one byte late.
            if state.is_match() {
                found = Some((at, self.dfa.match_pattern(cache, state, 0)));
                since = at;
                memo.pending.clear();
            } else if state.is_dead() || at - since > UNMARKED && memo.is_marked(state, at, cache.clear_count()) {
                memo.commit(text.len());
                return found;
            }
        }
        state = self.dfa.next_eoi_state(cache, state).expect(NEVER);
        if state.is_match() {
            memo.pending.clear();
            return Some((text.len(), self.dfa.match_pattern(cache, state, 0)));
        }
        memo.commit(text.len());
        found
    }
}

/// The states and places of a text from which no scan finds a match any more.
#[derive(Default)]
struct Memo {
    /// For each state, a bit for each byte of the text.
    marks: AHashMap<LazyStateID, Vec<u64>>,
    /// Those that the current scan has passed since its last match.
    pending: Vec<(LazyStateID, usize)>,
    /// How often the automaton had forgotten its states, which then get other ids.
    clears: usize,
    /// How many bytes the last scan read.
    #[cfg(test)]
    steps: usize,
}

impl Memo {
    /// Whether a scan failed from this state at this place. Notes that this one passed it.
    fn is_marked(&mut self, state: LazyStateID, at: usize, clears: usize) -> bool {
        if self.clears != clears {
            *self = Memo { clears, ..Memo::default() };
        }
        let marked = self.marks.get(&state).is_some_and(|marks| marks[at / 64] >> (at % 64) & 1 == 1);
        if !marked {
            self.pending.push((state, at));
        }
        marked
    }

    /// The current scan found no match since it passed those pending.
    fn commit(&mut self, len: usize) {
        for (state, at) in self.pending.drain(..) {
            let full = self.marks.len() == MARKED_STATES;
            let marks = match self.marks.get_mut(&state) {
                Some(marks) => marks,
                None if full => continue,
                None => self.marks.entry(state).or_insert_with(|| vec![0; len.div_ceil(64)]),
            };
            marks[at / 64] |= 1 << (at % 64);
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/split.rs"]
mod tests;
