//! Decodes ids to text one at a time. A character whose bytes come from several tokens is given out as a whole.

use super::Tokenizer;
use crate::token::TokenId;

/// How tokens become text.
#[derive(Clone, Debug)]
pub(super) struct Decoding {
    pub(super) spelling: Spelling,
    /// Whether a `tokenizer.json` says how to decode. Special tokens are then spelled like the others; in GGUF files
    /// their text stands for itself.
    pub(super) is_json: bool,
    pub(super) start: Start,
}

/// How the vocabulary spells bytes and spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Each byte as one printable character (GPT-2).
    Bytes,
    /// As text, with other texts for some, such as U+2581 for the space.
    Text {
        /// Texts to replace, each with its replacement.
        replace: Vec<(String, String)>,
        /// Whether tokens such as `<0x0A>` stand for bytes.
        bytes: bool,
    },
}

/// What is left out at the start of a text, where the tokenizer may have added it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Nothing.
    Kept,
    /// Up to so many spaces.
    Spaces(usize),
    /// Every occurrence of this character in the first token.
    Marks(char),
}

/// Decodes the ids of one text; the state between two calls.
pub struct Detokenizer {
    /// Bytes of a character that is incomplete so far.
    held: Vec<u8>,
    /// Whether the next token is the first of the text.
    first: bool,
    /// Spaces at the start that are still to be left out.
    spaces: usize,
    skip_special: bool,
    /// Bytes of tokens such as `<0x0A>`. If all ids of a text are known, such a run counts as a whole: when it is not
    /// valid UTF-8, each of its bytes becomes U+FFFD.
    run: Option<Vec<u8>>,
}

impl Detokenizer {
    /// A detokenizer for a text from its start, or from within it (`starts` false), where a leading space is part of
    /// the text. `skip_special` leaves control tokens out.
    pub fn new(starts: bool, skip_special: bool) -> Detokenizer {
        Detokenizer { held: Vec::new(), first: starts, spaces: 0, skip_special, run: None }
    }

    /// The same for a text whose ids are all known, as the `tokenizers` library decodes it.
    pub(super) fn whole(self, tokenizer: &Tokenizer) -> Detokenizer {
        Detokenizer { run: tokenizer.decoding.is_json.then(Vec::new), ..self }
    }

    /// The characters that this id completes. Invalid UTF-8 becomes U+FFFD.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: TokenId) -> String {
        if self.skip_special && tokenizer.is_control(id) {
            return String::new();
        }
        let first = std::mem::take(&mut self.first);
        if let (true, Start::Spaces(most)) = (first, tokenizer.decoding.start) {
            self.spaces = most;
        }
        let mut bytes = tokenizer.bytes_at(id, first);
        if let Some(run) = &mut self.run {
            if tokenizer.byte_of(id).is_some() {
                run.append(&mut bytes);
                return String::new();
            }
            self.end_run();
        }
        self.held.extend(bytes);
        self.take(false)
    }

    /// Ends the text: an incomplete character becomes U+FFFD.
    pub fn flush(&mut self) -> String {
        self.end_run();
        self.take(true)
    }

    /// Adds a run of bytes to the text.
    fn end_run(&mut self) {
        let run = self.run.as_mut().map(std::mem::take).unwrap_or_default();
        if std::str::from_utf8(&run).is_ok() {
            self.held.extend(run);
        } else {
            self.held.extend("\u{fffd}".repeat(run.len()).into_bytes());
        }
    }

    /// Takes the held bytes as text, except for an incomplete character at the end unless `all`.
    fn take(&mut self, all: bool) -> String {
        let last = self.held.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
        // Without `error_len` the bytes are invalid only because they end too early.
        let incomplete = std::str::from_utf8(last).is_err_and(|error| error.error_len().is_none());
        let kept = if incomplete && !all { last.len() } else { 0 };
        let rest = self.held.split_off(self.held.len() - kept);
        let text = String::from_utf8_lossy(&std::mem::replace(&mut self.held, rest)).into_owned();
        self.without_spaces(text)
    }

    /// The text without those spaces at the start of the whole that are still to be left out.
    fn without_spaces(&mut self, text: String) -> String {
        let spaces = text.bytes().take(self.spaces).take_while(|byte| *byte == b' ').count();
        if !text.is_empty() {
            self.spaces = if spaces == text.len() { self.spaces - spaces } else { 0 };
        }
        if spaces == 0 { text } else { text[spaces..].to_string() }
    }
}
