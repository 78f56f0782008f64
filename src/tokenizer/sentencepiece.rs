//! SentencePiece's byte-pair encoding: of all neighbours whose texts together are a token, join those of the best score.

use ahash::AHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Tokens with scores.
pub(super) struct Scores {
    /// The tokens that text can become, with their scores.
    tokens: AHashMap<String, (u32, i32)>,
    /// The length of the longest.
    longest: usize,
    /// Whether no token reaches from one word into the next, so that words can be taken one by one.
    by_words: bool,
    /// The tokens that stand for bytes.
    bytes: Vec<Option<u32>>,
    /// Stands for what nothing else stands for.
    unknown: Option<u32>,
}

/// A stretch of the text that is joined already; one of no length has become part of the one before.
struct Symbol {
    start: usize,
    len: usize,
    before: usize,
    after: usize,
}

/// The edge of the text, where a symbol has no neighbour.
const NONE: usize = usize::MAX;

/// A symbol to be joined with the one after it: the better score first, of equals the left one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    score: i32,
    left: Reverse<usize>,
    /// Their length together when this was noted; it has grown since if one of them was joined otherwise.
    len: u32,
}

/// An integer in the order of the scores; the two zeros are one score.
fn order(score: f32) -> i32 {
    let bits = (score + 0.0).to_bits() as i32;
    if bits < 0 { bits ^ i32::MAX } else { bits }
}

impl Scores {
    pub(super) fn new(
        tokens: impl Iterator<Item = (String, (u32, f32))>,
        bytes: Vec<Option<u32>>,
        unknown: Option<u32>,
    ) -> Scores {
        let tokens: AHashMap<_, _> = tokens.map(|(text, (id, score))| (text, (id, order(score)))).collect();
        let longest = tokens.keys().map(String::len).max().unwrap_or(0);
        let by_words = tokens.keys().all(|text| words(text).count() == 1);
        Scores { tokens, longest, by_words, bytes, unknown }
    }

    pub(super) fn id_of(&self, text: &str) -> Option<u32> {
        self.tokens.get(text).map(|token| token.0)
    }

    /// Appends the ids of a text.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let mut in_unknown = false;
        let mut push = |symbol: &str| {
            let unknown = std::mem::take(&mut in_unknown);
            if let Some(id) = self.id_of(symbol) {
                ids.push(id);
            } else if symbol.bytes().all(|byte| self.bytes[byte as usize].is_some()) {
                ids.extend(symbol.bytes().filter_map(|byte| self.bytes[byte as usize]));
            } else {
                // A run of unknown characters is one unknown token.
                ids.extend(self.unknown.filter(|_| !unknown));
                in_unknown = true;
            }
        };
        if self.by_words {
            words(text).for_each(|word| self.join(word, &mut push));
        } else {
            self.join(text, &mut push);
        }
    }

    /// Joins the characters of a text as far as it goes, and hands over what has come of them.
    fn join(&self, text: &str, push: &mut impl FnMut(&str)) {
        let mut symbols: Vec<Symbol> = (0..)
            .zip(text.char_indices())
            .map(|(at, (start, c))| Symbol {
                start,
                len: c.len_utf8(),
                before: usize::checked_sub(at, 1).unwrap_or(NONE),
                after: at + 1,
            })
            .collect();
        let Some(last) = symbols.last_mut() else { return };
        last.after = NONE;
        let mut pairs: BinaryHeap<Pair> =
            (0..symbols.len()).filter_map(|left| self.pair(text, &symbols, left)).collect();
        while let Some(Pair { left: Reverse(left), len, .. }) = pairs.pop() {
            let Symbol { len: left_len, after: right, .. } = symbols[left];
            if left_len == 0 || right == NONE || left_len + symbols[right].len != len as usize {
                continue;
            }
            let after = symbols[right].after;
            symbols[right].len = 0;
            symbols[left].len = len as usize;
            symbols[left].after = after;
            if after != NONE {
                symbols[after].before = left;
            }
            pairs.extend(self.pair(text, &symbols, left));
            if symbols[left].before != NONE {
                pairs.extend(self.pair(text, &symbols, symbols[left].before));
            }
        }
        let joined = symbols.iter().filter(|symbol| symbol.len > 0);
        joined.for_each(|symbol| push(&text[symbol.start..][..symbol.len]));
    }

    /// A symbol and the one after it, if together they are a token.
    fn pair(&self, text: &str, symbols: &[Symbol], left: usize) -> Option<Pair> {
        let len = symbols[left].len + symbols.get(symbols[left].after)?.len;
        let together = text[symbols[left].start..].get(..len).filter(|_| len <= self.longest)?;
        let (_, score) = self.tokens.get(together)?;
        Some(Pair { score: *score, left: Reverse(left), len: u32::try_from(len).ok()? })
    }
}

/// Cuts a text in front of each run of spaces.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let spaces = rest.len() - rest.trim_start_matches('▁').len();
        let end = rest[spaces..].find('▁').map_or(rest.len(), |at| spaces + at);
        let word;
        (word, rest) = rest.split_at(end);
        (!word.is_empty()).then_some(word)
    })
}
