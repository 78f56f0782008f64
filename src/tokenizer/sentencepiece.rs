//! Byte-pair encoding as in SentencePiece: of all neighbours whose joined text is a token, merge the pair whose token
//! has the best score, until no such pair is left.

use crate::token::TokenId;
use ahash::AHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A vocabulary whose tokens have scores.
pub(super) struct SentencePiece {
    /// The id and the score of each token that merges can produce.
    tokens: AHashMap<String, (TokenId, i32)>,
    /// The length of the longest token in bytes.
    longest: usize,
    /// Whether no token spans two words, so that words can be encoded one by one.
    by_words: bool,
    /// The token of each byte.
    bytes: Vec<Option<TokenId>>,
    /// The token for characters without a token, if their bytes have none either.
    unknown: Option<TokenId>,
}

/// A part of the text that has been merged so far, linked with its neighbours. A part of length 0 has been merged into
/// the one before it.
struct Symbol {
    start: usize,
    len: usize,
    before: usize,
    after: usize,
}

/// The index of a missing neighbour, at the edge of the text.
const NONE: usize = usize::MAX;

/// A symbol that could be merged with the one after it. The better score comes first, and the left pair on a tie.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    score: i32,
    left: Reverse<usize>,
    /// Length of both symbols when the pair was found. If it has changed since, one of them was merged otherwise.
    len: u32,
}

/// The score as an integer of the same order; −0 equals 0.
fn order(score: f32) -> i32 {
    let bits = (score + 0.0).to_bits() as i32;
    if bits < 0 { bits ^ i32::MAX } else { bits }
}

impl SentencePiece {
    /// A model of tokens with scores; `bytes` has the token of each byte.
    pub(super) fn new(
        tokens: impl Iterator<Item = (String, (TokenId, f32))>,
        bytes: Vec<Option<TokenId>>,
        unknown: Option<TokenId>,
    ) -> SentencePiece {
        let tokens: AHashMap<_, _> = tokens.map(|(text, (id, score))| (text, (id, order(score)))).collect();
        let longest = tokens.keys().map(String::len).max().unwrap_or(0);
        let by_words = tokens.keys().all(|text| words(text).count() == 1);
        SentencePiece { tokens, longest, by_words, bytes, unknown }
    }

    /// The id of a token by its text.
    pub(super) fn id_of(&self, text: &str) -> Option<TokenId> {
        self.tokens.get(text).map(|token| token.0)
    }

    /// Appends the ids of a text.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<TokenId>) {
        let mut in_unknown = false;
        let mut push = |symbol: &str| {
            let unknown = std::mem::take(&mut in_unknown);
            if let Some(id) = self.id_of(symbol) {
                ids.push(id);
            } else if symbol.bytes().all(|byte| self.bytes[byte as usize].is_some()) {
                ids.extend(symbol.bytes().filter_map(|byte| self.bytes[byte as usize]));
            } else {
                // A run of unknown characters gives one unknown token.
                ids.extend(self.unknown.filter(|_| !unknown));
                in_unknown = true;
            }
        };
        if self.by_words {
            words(text).for_each(|word| self.merge(word, &mut push));
        } else {
            self.merge(text, &mut push);
        }
    }

    /// Merges the characters of a text as far as possible, and passes each resulting symbol to `push`.
    fn merge(&self, text: &str, push: &mut impl FnMut(&str)) {
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
        let merged = symbols.iter().filter(|symbol| symbol.len > 0);
        merged.for_each(|symbol| push(&text[symbol.start..][..symbol.len]));
    }

    /// A symbol and the one after it as a pair, if their joined text is a token.
    fn pair(&self, text: &str, symbols: &[Symbol], left: usize) -> Option<Pair> {
        let len = symbols[left].len + symbols.get(symbols[left].after)?.len;
        let joined = text[symbols[left].start..].get(..len).filter(|_| len <= self.longest)?;
        let (_, score) = self.tokens.get(joined)?;
        Some(Pair { score: *score, left: Reverse(left), len: u32::try_from(len).ok()? })
    }
}

/// The words of a text, each with the spaces in front of it.
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
