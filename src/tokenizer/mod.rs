//! From text to ids and back, as the model's makers did it: from a GGUF file's metadata or a `tokenizer.json`.
//!
//! Special tokens are cut out of a text first, so that text of a user never yields one unless asked.

mod bytes;
mod detokenizer;
mod json;
mod load;
mod model;
mod pre;
mod scores;
mod special;
mod split;

pub use detokenizer::Detokenizer;

use crate::checkpoint::gguf::Gguf;
use crate::error::Result;
use crate::template::Prompt;
use model::{Ids, Model};
use special::{Fragment, Matcher};
use split::{Split, split};
use std::borrow::Cow;
use std::path::Path;
use tokenizers::normalizers::NFC;
use tokenizers::{NormalizedString, Normalizer};

/// Texts of tokens that end an answer whatever the file says of them (formats of many makers).
const STOP_TEXTS: [&str; 19] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
];

/// A vocabulary with its rules.
pub struct Tokenizer {
    steps: Steps,
    model: Model,
    /// The pre-tokenizer's class.
    pub pre: String,
    /// The BLAKE3, in hexadecimal, of its `tokenizer.json`, or of the metadata that it was built from.
    pub fingerprint: String,
    /// Each id's text as the file spells it.
    texts: Vec<String>,
    kinds: Vec<Kind>,
    /// The tokens that the model does not know, since no text becomes them unless asked.
    apart: Ids,
    /// Matches user-defined tokens; and those with control tokens.
    user_defined: Matcher,
    special: Matcher,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The token that ends a text.
    pub eos: Option<u32>,
    /// Whether the model expects BOS in front.
    pub add_bos: bool,
    /// Whether the model expects EOS at the end.
    pub add_eos: bool,
    /// The ids that end an answer.
    pub stop: Vec<u32>,
}

/// What happens to a text before byte-pair encoding.
#[derive(Default)]
struct Steps {
    /// Whether it is brought into Unicode's composed form.
    nfc: bool,
    /// How it is split: before it is spelled as bytes, or with its spaces spelled already.
    splits: Vec<Split>,
    spelling: Spelling,
    /// Further splits of byte-level pieces as they are spelled.
    spelled_splits: Vec<Split>,
}

/// How the vocabulary spells bytes and spaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Spelling {
    /// Each byte as a printable character (GPT-2).
    #[default]
    ByteLevel,
    /// Spaces as U+2581, other bytes as `<0xXX>` (SentencePiece); where a space is put in front.
    Sentence { prefix: Option<Prefix> },
}

/// Which stretches of a text, between special tokens, get a space in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prefix {
    /// Each.
    Each,
    /// Those that do not begin with one.
    Missing,
    /// The first, if it does not begin with one.
    MissingAtStart,
}

/// What a token is for (`tokenizer.ggml.token_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl Kind {
    /// Whether it stands for no text of its own, so that none becomes it unless asked.
    fn is_control(self) -> bool {
        matches!(self, Kind::Control | Kind::Unknown)
    }

    /// Whether it is matched as literal text before anything else.
    fn is_special(self) -> bool {
        self.is_control() || self == Kind::UserDefined
    }
}

impl Tokenizer {
    /// The tokenizer of a file, which is a model file or a `tokenizer.json`; `pre` as for `from_gguf`.
    pub fn open(path: &Path, pre: Option<&str>) -> Result<Tokenizer> {
        if json::is_json(path) { json::open(path, pre) } else { Self::from_gguf(&Gguf::open(path)?, pre) }
    }

    /// The tokenizer of a model file; `pre` overrides what the file says of its pre-tokenizer.
    ///
    /// A file that has none takes a `tokenizer.json` that lies beside it.
    pub fn from_gguf(gguf: &Gguf, pre: Option<&str>) -> Result<Tokenizer> {
        load::load(gguf, pre)
    }

    /// With the stop ids of tokens that are known to be stops by their texts.
    fn stopping_at_known_texts(mut self) -> Tokenizer {
        let by_text = STOP_TEXTS.iter().filter_map(|text| self.id_of(text));
        let by_text: Vec<u32> = by_text.filter(|id| self.kinds[*id as usize].is_special()).collect();
        self.stop.extend(by_text);
        self.stop.sort_unstable();
        self.stop.dedup();
        self
    }

    /// The ids of a text, without BOS or EOS. Control tokens are recognised only if `parse_special`.
    pub fn encode(&self, text: &str, parse_special: bool) -> Vec<u32> {
        self.encode_parts(&[(text, parse_special)])
    }

    /// [`Tokenizer::encode`], with BOS in front if `add_bos` and the vocabulary has one.
    pub fn encode_with_bos(&self, text: &str, add_bos: bool, parse_special: bool) -> Vec<u32> {
        let bos = self.bos.filter(|_| add_bos);
        bos.into_iter().chain(self.encode(text, parse_special)).collect()
    }

    /// The ids of a formatted prompt: control tokens where the template wrote them, and one BOS or none.
    pub fn encode_prompt(&self, prompt: &Prompt) -> Vec<u32> {
        let mut ids = self.encode_parts(&prompt.parts());
        if let Some(bos) = self.bos.filter(|bos| self.add_bos && ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        ids
    }

    /// The ids of a text that comes in parts, each with whether control tokens are recognised in it.
    pub fn encode_parts(&self, parts: &[(&str, bool)]) -> Vec<u32> {
        let mut ids = Vec::new();
        // A stretch without special tokens may span parts.
        let mut plain = String::new();
        for (text, parse_special) in parts {
            let matcher = if *parse_special { &self.special } else { &self.user_defined };
            for fragment in matcher.cut(text) {
                match fragment {
                    Fragment::Plain(text) => plain.push_str(text),
                    Fragment::Token(id) => {
                        self.encode_plain(&plain, &mut ids);
                        plain.clear();
                        ids.push(id);
                    }
                }
            }
        }
        self.encode_plain(&plain, &mut ids);
        ids
    }

    /// Appends the ids of a stretch without special tokens.
    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>) {
        if text.is_empty() {
            return;
        }
        let text = if self.steps.nfc { composed(text) } else { Cow::Borrowed(text) };
        match self.steps.spelling {
            Spelling::ByteLevel => {
                let mut spelled = String::new();
                for piece in split(&self.steps.splits, &text) {
                    bytes::to_byte_level(piece, &mut spelled);
                    for piece in split(&self.steps.spelled_splits, &spelled) {
                        self.model.encode(piece, ids);
                    }
                }
            }
            Spelling::Sentence { prefix } => {
                let begins = text.starts_with([' ', '▁']);
                let prefixed = match prefix {
                    None => false,
                    Some(Prefix::Each) => true,
                    Some(Prefix::Missing) => !begins,
                    Some(Prefix::MissingAtStart) => !begins && ids.is_empty(),
                };
                let spelled = text.replace(' ', "▁");
                let spelled = if prefixed { format!("▁{spelled}") } else { spelled };
                for piece in split(&self.steps.splits, &spelled) {
                    self.model.encode(piece, ids);
                }
            }
        }
    }

    /// The text of ids; invalid UTF-8 becomes U+FFFD. Control tokens are left out if `skip_special`.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut detokenizer = Detokenizer::new(true, skip_special);
        let mut text: String = ids.iter().map(|id| detokenizer.push(self, *id)).collect();
        text.push_str(&detokenizer.flush());
        text
    }

    /// The bytes that a token stands for; none for an id outside the vocabulary.
    pub fn bytes_of(&self, id: u32) -> Vec<u8> {
        let Some(text) = self.texts.get(id as usize) else { return Vec::new() };
        match (self.kinds[id as usize], self.steps.spelling) {
            (kind, _) if kind.is_special() => text.as_bytes().to_vec(),
            (Kind::Byte, _) => bytes::from_hex(text).map_or_else(|| text.as_bytes().to_vec(), |byte| vec![byte]),
            (_, Spelling::ByteLevel) => bytes::from_byte_level(text),
            (_, Spelling::Sentence { .. }) => text.replace('▁', " ").into_bytes(),
        }
    }

    /// The text of a token as the file spells it.
    pub fn text_of(&self, id: u32) -> Option<&str> {
        self.texts.get(id as usize).map(String::as_str)
    }

    /// The id of a token as the file spells it.
    pub fn id_of(&self, text: &str) -> Option<u32> {
        let known = [self.model.id_of(text), self.apart.get(text).copied()];
        known.into_iter().flatten().min()
    }

    /// Whether the id is a control token, which is not part of any text.
    pub fn is_control(&self, id: u32) -> bool {
        self.kinds.get(id as usize).is_some_and(|kind| kind.is_control())
    }

    /// The texts of control tokens.
    pub fn control_texts(&self) -> impl Iterator<Item = &str> {
        let control = (0..).zip(&self.texts).filter(|(id, text)| self.is_control(*id) && !text.is_empty());
        control.map(|(_, text)| text.as_str())
    }

    /// The text of the token that begins a text.
    pub fn bos_text(&self) -> Option<&str> {
        self.text_of(self.bos?)
    }

    /// The text of the token that ends a text.
    pub fn eos_text(&self) -> Option<&str> {
        self.text_of(self.eos?)
    }

    /// How many ids there are.
    pub fn vocab_size(&self) -> usize {
        self.texts.len()
    }
}

/// A text in Unicode's composed form, which ASCII is in.
fn composed(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut composed = NormalizedString::from(text);
    NFC.normalize(&mut composed).expect("any text has a composed form");
    Cow::Owned(composed.get().to_string())
}
