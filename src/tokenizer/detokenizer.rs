//! From ids to text, one at a time, without ever splitting a character.

use super::{Spelling, Tokenizer};

/// The state between two ids of one text.
pub struct Detokenizer {
    /// Bytes of a character that is not complete yet.
    held: Vec<u8>,
    /// Whether the next token is the text's first, whose leading space may be the tokenizer's own.
    first: bool,
    skip_special: bool,
}

impl Detokenizer {
    /// At the start of a text, or within one (`starts` false: a leading space is the text's own).
    pub fn new(starts: bool, skip_special: bool) -> Detokenizer {
        Detokenizer { held: Vec::new(), first: starts, skip_special }
    }

    /// The characters that this id completes. Bytes that are no UTF-8 become U+FFFD.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        if self.skip_special && tokenizer.is_control(id) {
            return String::new();
        }
        let bytes = tokenizer.bytes_of(id);
        let prefixes = matches!(tokenizer.steps.spelling, Spelling::Sentence { prefix: Some(_) });
        let own = std::mem::take(&mut self.first) && prefixes;
        self.held.extend(bytes.strip_prefix(b" ").filter(|_| own).unwrap_or(&bytes));
        self.take(false)
    }

    /// What is left at the end: an incomplete character as U+FFFD.
    pub fn flush(&mut self) -> String {
        self.take(true)
    }

    fn take(&mut self, all: bool) -> String {
        let last = self.held.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
        // Incomplete are bytes that the end cut off, not another byte.
        let incomplete = std::str::from_utf8(last).is_err_and(|error| error.error_len().is_none());
        let kept = if incomplete && !all { last.len() } else { 0 };
        let rest = self.held.split_off(self.held.len() - kept);
        String::from_utf8_lossy(&std::mem::replace(&mut self.held, rest)).into_owned()
    }
}
