//! Tokenizers: text to ids and back, exactly as the model was trained. They are built from the metadata of a GGUF file
//! or from a `tokenizer.json`.
//!
//! Text never becomes a control token unless the caller asks for it with `parse_special`.

mod bytes;
mod detokenizer;
mod gguf;
mod json;
mod merges;
mod pre_tokenizers;
mod sentencepiece;
mod special;
mod split;

pub use detokenizer::Detokenizer;
pub use gguf::bos_eos_texts;
pub use json::is_json as is_tokenizer_json;

use crate::checkpoint::gguf::Gguf;
use crate::error::Result;
use crate::template::RenderedPrompt;
use crate::token::TokenId;
use merges::{IdsByText, MergeModel};
use special::{Fragment, Matcher};
use split::{Split, split};
use std::borrow::Cow;
use std::path::Path;
use tokenizers::normalizers::NFC;
use tokenizers::{NormalizedString, Normalizer};

/// Tokens that end an answer even if the file does not say so. Each is the end-of-turn or end-of-text token of some
/// family of models.
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

/// A vocabulary with the rules for encoding and decoding.
pub struct Tokenizer {
    pipeline: Pipeline,
    model: MergeModel,
    /// The name of the pre-tokenizer; `spm` for SentencePiece, `tokenizer.json` for that file's own.
    pub pre: String,
    /// BLAKE3, in hexadecimal, of the `tokenizer.json` or of the metadata that it was built from.
    pub fingerprint: String,
    /// The text of each id, as the file spells it.
    texts: Vec<String>,
    /// The kind of each id.
    kinds: Vec<TokenKind>,
    /// Control tokens: never produced from text unless `parse_special` is set.
    control_ids: IdsByText,
    /// Finds user-defined tokens, which are recognized in any text.
    user_defined: Matcher,
    /// Finds user-defined tokens and control tokens.
    special: Matcher,
    /// The token that begins a text (BOS).
    pub bos: Option<TokenId>,
    /// The token that ends a text (EOS).
    pub eos: Option<TokenId>,
    /// Whether the model expects BOS at the start.
    pub add_bos: bool,
    /// The ids that end an answer, ascending.
    pub stop: Vec<TokenId>,
}

/// What happens to a text before byte-pair encoding: normalization and pre-tokenization.
#[derive(Default)]
struct Pipeline {
    /// Whether the text is brought into Unicode's composed form (NFC).
    nfc: bool,
    /// Splits of the text. For a byte-level vocabulary they see the text itself, for SentencePiece its spelling.
    splits: Vec<Split>,
    spelling: Spelling,
    /// Further splits of byte-level pieces, which see their spelling.
    spelled_splits: Vec<Split>,
}

/// How the vocabulary spells bytes and spaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Spelling {
    /// Each byte as one printable character (GPT-2).
    #[default]
    ByteLevel,
    /// Spaces as U+2581, and bytes without a token of their own as `<0xXX>` (SentencePiece).
    Sentence {
        /// Where a space is added in front.
        prefix: Option<SpacePrefix>,
    },
}

/// Which parts of a text get a space in front. Special tokens separate the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpacePrefix {
    /// Every part gets one.
    Each,
    /// Every part gets one that does not begin with a space.
    Missing,
    /// Only the part at the start of the text gets one, if it does not begin with a space.
    MissingAtStart,
}

/// The kind of a token, as in `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl TokenKind {
    /// Whether the token stands for no text, so that text becomes it only with `parse_special`.
    fn is_control(self) -> bool {
        matches!(self, TokenKind::Control | TokenKind::Unknown)
    }

    /// Whether the token is searched for in a text before the text is encoded.
    fn is_special(self) -> bool {
        self.is_control() || self == TokenKind::UserDefined
    }
}

impl Tokenizer {
    /// Opens the tokenizer of a file, which is a GGUF model or a `tokenizer.json`. `pre` is as for
    /// [`Tokenizer::from_gguf`].
    pub fn open(path: &Path, pre: Option<&str>) -> Result<Tokenizer> {
        if json::is_json(path) { json::open(path, pre) } else { Self::from_gguf(&Gguf::open(path)?, pre) }
    }

    /// Builds the tokenizer of a model. If the model has none, a `tokenizer.json` beside its file is used.
    ///
    /// `pre` names a pre-tokenizer to use in place of the one that the file names. Errors begin with the path of the
    /// file that they are about.
    pub fn from_gguf(gguf: &Gguf, pre: Option<&str>) -> Result<Tokenizer> {
        gguf::load(gguf, pre)
    }

    /// Adds the special tokens of `STOP_TEXTS` to the ids that end an answer.
    fn with_known_stop_texts(mut self) -> Tokenizer {
        let by_text = STOP_TEXTS.iter().filter_map(|text| self.id_of(text));
        let by_text: Vec<TokenId> = by_text.filter(|id| self.kinds[*id as usize].is_special()).collect();
        self.stop.extend(by_text);
        self.stop.sort_unstable();
        self.stop.dedup();
        self
    }

    /// The ids of a text, without BOS or EOS. Control tokens are recognized only if `parse_special` is set.
    pub fn encode(&self, text: &str, parse_special: bool) -> Vec<TokenId> {
        self.encode_parts(&[(text, parse_special)])
    }

    /// [`Tokenizer::encode`], with BOS in front if `add_bos` and the vocabulary has one.
    pub fn encode_with_bos(&self, text: &str, add_bos: bool, parse_special: bool) -> Vec<TokenId> {
        let bos = self.bos.filter(|_| add_bos);
        bos.into_iter().chain(self.encode(text, parse_special)).collect()
    }

    /// The ids of a rendered prompt. Control tokens are recognized only where the template wrote them. BOS is added if
    /// the model expects it and the prompt does not begin with it.
    pub fn encode_prompt(&self, prompt: &RenderedPrompt) -> Vec<TokenId> {
        let mut ids = self.encode_parts(&prompt.parts());
        if let Some(bos) = self.bos.filter(|bos| self.add_bos && ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        ids
    }

    /// The ids of a text in parts, each with whether control tokens are recognized in it.
    pub fn encode_parts(&self, parts: &[(&str, bool)]) -> Vec<TokenId> {
        let mut ids = Vec::new();
        // Text between two special tokens is encoded as a whole, even if it spans several parts.
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

    /// Appends the ids of text without special tokens.
    fn encode_plain(&self, text: &str, ids: &mut Vec<TokenId>) {
        if text.is_empty() {
            return;
        }
        let text = if self.pipeline.nfc { composed(text) } else { Cow::Borrowed(text) };
        match self.pipeline.spelling {
            Spelling::ByteLevel => {
                let mut spelled = String::new();
                for piece in split(&self.pipeline.splits, &text) {
                    bytes::to_byte_level(piece, &mut spelled);
                    for piece in split(&self.pipeline.spelled_splits, &spelled) {
                        self.model.encode(piece, ids);
                    }
                }
            }
            Spelling::Sentence { prefix } => {
                let begins = text.starts_with([' ', '▁']);
                let prefixed = match prefix {
                    None => false,
                    Some(SpacePrefix::Each) => true,
                    Some(SpacePrefix::Missing) => !begins,
                    Some(SpacePrefix::MissingAtStart) => !begins && ids.is_empty(),
                };
                let spelled = text.replace(' ', "▁");
                let spelled = if prefixed { format!("▁{spelled}") } else { spelled };
                for piece in split(&self.pipeline.splits, &spelled) {
                    self.model.encode(piece, ids);
                }
            }
        }
    }

    /// The text of ids. Invalid UTF-8 becomes U+FFFD. `skip_special` leaves control tokens out.
    pub fn decode(&self, ids: &[TokenId], skip_special: bool) -> String {
        let mut detokenizer = Detokenizer::new(true, skip_special);
        let mut text: String = ids.iter().map(|id| detokenizer.push(self, *id)).collect();
        text.push_str(&detokenizer.flush());
        text
    }

    /// The bytes that a token stands for; empty for an id outside the vocabulary.
    pub fn bytes_of(&self, id: TokenId) -> Vec<u8> {
        let Some(text) = self.texts.get(id as usize) else { return Vec::new() };
        match (self.kinds[id as usize], self.pipeline.spelling) {
            (kind, _) if kind.is_special() => text.as_bytes().to_vec(),
            (TokenKind::Byte, _) => bytes::from_hex(text).map_or_else(|| text.as_bytes().to_vec(), |byte| vec![byte]),
            (_, Spelling::ByteLevel) => bytes::from_byte_level(text),
            (_, Spelling::Sentence { .. }) => text.replace('▁', " ").into_bytes(),
        }
    }

    /// The text of a token as the file spells it; nothing for an id outside the vocabulary.
    pub fn text_of(&self, id: TokenId) -> Option<&str> {
        self.texts.get(id as usize).map(String::as_str)
    }

    /// The id of a token by its text as the file spells it; the lowest id if several tokens have this text.
    pub fn id_of(&self, text: &str) -> Option<TokenId> {
        let known = [self.model.id_of(text), self.control_ids.get(text).copied()];
        known.into_iter().flatten().min()
    }

    /// Whether the id is a control token, which stands for no text.
    pub fn is_control(&self, id: TokenId) -> bool {
        self.kinds.get(id as usize).is_some_and(|kind| kind.is_control())
    }

    /// The texts of all control tokens, in the order of their ids.
    pub fn control_texts(&self) -> impl Iterator<Item = &str> {
        let control = (0..).zip(&self.texts).filter(|(id, text)| self.is_control(*id) && !text.is_empty());
        control.map(|(_, text)| text.as_str())
    }

    /// The text of the first control token that a text spells.
    pub fn control_text_in(&self, text: &str) -> Option<&str> {
        let ids = self.special.cut(text).into_iter().filter_map(|fragment| match fragment {
            Fragment::Token(id) => Some(id),
            Fragment::Plain(_) => None,
        });
        self.text_of(ids.into_iter().find(|id| self.is_control(*id))?)
    }

    /// The text of the BOS token.
    pub fn bos_text(&self) -> Option<&str> {
        self.text_of(self.bos?)
    }

    /// The text of the EOS token.
    pub fn eos_text(&self) -> Option<&str> {
        self.text_of(self.eos?)
    }

    /// Number of ids in the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.texts.len()
    }
}

/// A text in Unicode's composed form (NFC). ASCII has this form already.
fn composed(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut composed = NormalizedString::from(text);
    NFC.normalize(&mut composed).expect("every text has a composed form");
    Cow::Owned(composed.get().to_string())
}
