//! From text to ids and back, as the model's makers did it: a `tokenizers` pipeline built from a GGUF file's metadata.
//!
//! Special tokens are cut out here and not by the pipeline, so that text of a user never yields one unless asked.

mod bytes;
mod detokenizer;
mod load;
mod pre;

pub use detokenizer::Detokenizer;

use crate::error::Result;
use crate::gguf::Gguf;
use aho_corasick::AhoCorasick;
use std::collections::HashMap;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{Model, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

/// How the vocabulary spells bytes and spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// Each byte as a printable character (GPT-2).
    ByteLevel,
    /// Spaces as U+2581, other bytes as `<0xXX>` (SentencePiece); whether a space is put in front.
    Sentence { space_prefix: bool },
}

/// A vocabulary with its rules.
pub struct Tokenizer {
    model: BPE,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    spelling: Spelling,
    pre: String,
    /// Each id's text as the file spells it.
    texts: Vec<String>,
    kinds: Vec<Kind>,
    ids: HashMap<String, u32>,
    /// Ids of control tokens.
    control: Vec<u32>,
    /// Matches user-defined tokens; and those with control tokens.
    user_defined: Matcher,
    special: Matcher,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    stop: Vec<u32>,
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

/// Finds tokens that are matched as literal text, the longest first.
struct Matcher {
    automaton: AhoCorasick,
    ids: Vec<u32>,
}

/// A stretch of a text.
enum Fragment<'a> {
    Plain(&'a str),
    Token(u32),
}

impl Matcher {
    fn cut<'a>(&self, text: &'a str) -> Vec<Fragment<'a>> {
        let mut fragments = Vec::new();
        let mut start = 0;
        for found in self.automaton.find_iter(text) {
            fragments.push(Fragment::Plain(&text[start..found.start()]));
            fragments.push(Fragment::Token(self.ids[found.pattern().as_usize()]));
            start = found.end();
        }
        fragments.push(Fragment::Plain(&text[start..]));
        fragments
    }
}

impl Tokenizer {
    /// The tokenizer of a model file; `pre` overrides what the file says of its pre-tokenizer.
    pub fn from_gguf(gguf: &Gguf, pre: Option<&str>) -> Result<Tokenizer> {
        load::load(gguf, pre)
    }

    /// The ids of a text, without BOS or EOS. Control tokens are recognised only if `parse_special`.
    pub fn encode(&self, text: &str, parse_special: bool) -> Vec<u32> {
        self.encode_parts(&[(text, parse_special)])
    }

    /// The ids of a text that comes in parts, each with whether control tokens are recognised in it.
    pub fn encode_parts(&self, parts: &[(&str, bool)]) -> Vec<u32> {
        let mut fragments = Vec::new();
        for (text, parse_special) in parts {
            let matcher = if *parse_special { &self.special } else { &self.user_defined };
            fragments.extend(matcher.cut(text));
        }
        let mut ids = Vec::new();
        let mut plain = String::new();
        let mut after_token = true;
        for fragment in fragments {
            match fragment {
                Fragment::Plain(text) => plain.push_str(text),
                Fragment::Token(id) => {
                    self.encode_plain(&plain, after_token, &mut ids);
                    plain.clear();
                    after_token = true;
                    ids.push(id);
                    continue;
                }
            }
        }
        self.encode_plain(&plain, after_token, &mut ids);
        ids
    }

    /// A stretch without special tokens; `leads` if it stands at the start or after a special token.
    fn encode_plain(&self, text: &str, leads: bool, ids: &mut Vec<u32>) {
        if text.is_empty() {
            return;
        }
        let spelled = match self.spelling {
            Spelling::ByteLevel => text.to_string(),
            Spelling::Sentence { space_prefix } => {
                let prefix = if space_prefix && leads { "▁" } else { "" };
                format!("{prefix}{}", text.replace(' ', "▁"))
            }
        };
        let mut pieces = PreTokenizedString::from(spelled);
        if let Some(pre_tokenizer) = &self.pre_tokenizer {
            pre_tokenizer.pre_tokenize(&mut pieces).expect("the pre-tokenizer splits any text");
        }
        pieces
            .tokenize(|piece| self.model.tokenize(piece.get()))
            .expect("byte-pair encoding covers any text");
        let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::None);
        for (_, _, tokens) in splits {
            ids.extend(tokens.iter().flatten().map(|token| token.id));
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
        match (self.kinds[id as usize], self.spelling) {
            (Kind::Control | Kind::UserDefined | Kind::Unknown, _) => text.as_bytes().to_vec(),
            (Kind::Byte, _) => {
                bytes::from_hex(text).map_or_else(|| text.as_bytes().to_vec(), |byte| vec![byte])
            }
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
        self.ids.get(text).copied()
    }

    /// Whether the id is a control token, which is not part of any text.
    pub fn is_control(&self, id: u32) -> bool {
        self.kinds.get(id as usize).is_some_and(|kind| matches!(kind, Kind::Control | Kind::Unknown))
    }

    /// The texts of all tokens that are no part of any text.
    pub fn control_texts(&self) -> impl Iterator<Item = &str> {
        self.control.iter().map(|id| self.texts[*id as usize].as_str())
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether the model expects BOS in front.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether the model expects EOS at the end.
    pub fn add_eos(&self) -> bool {
        self.add_eos
    }

    /// The ids that end an answer.
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop
    }

    /// How many ids there are.
    pub fn vocab_size(&self) -> usize {
        self.texts.len()
    }

    /// The pre-tokenizer's class.
    pub fn pre(&self) -> &str {
        &self.pre
    }

    fn strips_first_space(&self) -> bool {
        self.spelling == Spelling::Sentence { space_prefix: true }
    }
}
