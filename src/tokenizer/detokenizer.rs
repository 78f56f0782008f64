//! Decodes ids to text one at a time. A character whose bytes come from several tokens is given out as a whole.

use super::{Spelling, Tokenizer};
use crate::token::TokenId;

/// Decodes the ids of one text; the state between two calls.
pub struct Detokenizer {
    /// Bytes of a character that is incomplete so far.
    held: Vec<u8>,
    /// Whether the next token is the first of the text. Its leading space may be one that the tokenizer added.
    first: bool,
    skip_special: bool,
}

impl Detokenizer {
    /// A detokenizer for a text from its start, or from within it (`starts` false), where a leading space is part of
    /// the text. `skip_special` leaves control tokens out.
    pub fn new(starts: bool, skip_special: bool) -> Detokenizer {
        Detokenizer { held: Vec::new(), first: starts, skip_special }
    }

    /// The characters that this id completes. Invalid UTF-8 becomes U+FFFD.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: TokenId) -> String {
        if self.skip_special && tokenizer.is_control(id) {
            return String::new();
        }
        let bytes = tokenizer.bytes_of(id);
        let prefixes = matches!(tokenizer.pipeline.spelling, Spelling::Sentence { prefix: Some(_) });
        let is_added = std::mem::take(&mut self.first) && prefixes;
        self.held.extend(bytes.strip_prefix(b" ").filter(|_| is_added).unwrap_or(&bytes));
        self.take(false)
    }

    /// Ends the text: an incomplete character becomes U+FFFD.
    pub fn flush(&mut self) -> String {
        self.take(true)
    }

    /// Takes the held bytes as text, except for an incomplete character at the end unless `all`.
    fn take(&mut self, all: bool) -> String {
        let last = self.held.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
        // Without `error_len` the bytes are invalid only because they end too early.
        let incomplete = std::str::from_utf8(last).is_err_and(|error| error.error_len().is_none());
        let kept = if incomplete && !all { last.len() } else { 0 };
        let rest = self.held.split_off(self.held.len() - kept);
        String::from_utf8_lossy(&std::mem::replace(&mut self.held, rest)).into_owned()
    }
}
