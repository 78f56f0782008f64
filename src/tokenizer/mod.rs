//! Tokenizers: text to ids and back, exactly as the model was trained. They are built from the metadata of a GGUF file
//! or from a `tokenizer.json`.
//!
//! Text never becomes a control token unless the caller asks for it with `parse_special`.

mod bytes;
mod detokenizer;
mod gguf;
mod json;
mod json_parts;
mod merges;
mod onig;
mod pipeline;
mod pre_tokenizers;
mod sentencepiece;
mod special;
mod split;

pub use detokenizer::Detokenizer;
pub use gguf::bos_eos_texts;
pub use json::is_json as is_tokenizer_json;

use crate::checkpoint::gguf::Gguf;
use crate::checkpoint::{check_directory, directory_of};
use crate::error::{Error, Result, Watch};
use crate::template::RenderedPrompt;
use crate::token::TokenId;
use ahash::AHashMap;
use detokenizer::{Decoding, Spelling, Start};
use merges::{IdsByText, MergeModel};
use pipeline::Pipeline;
use special::{Fragment, Specials};
use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

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
    decoding: Decoding,
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
    /// Finds user-defined tokens, which are recognized in any text, and control tokens.
    specials: Specials,
    /// Texts to decode in place of `texts`: those of added tokens that a `tokenizer.json` normalizes.
    normalized: AHashMap<TokenId, String>,
    /// The token that begins a text (BOS).
    pub bos: Option<TokenId>,
    /// The token that ends a text (EOS).
    pub eos: Option<TokenId>,
    /// Whether the model expects BOS at the start.
    pub add_bos: bool,
    /// Whether the file adds a token at the end of a text, too, and which. It is not added to a prompt, which goes on.
    pub suffix: Option<TokenId>,
    /// The ids that end an answer, ascending.
    pub stop: Vec<TokenId>,
    /// A warning for the user: what the file leaves open or asks for in vain, and what is done instead.
    pub warning: Option<String>,
}

/// The kind of a token, as in `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum TokenKind {
    #[default]
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
    /// Opens the tokenizer of a file, which is a GGUF model or a `tokenizer.json`, or of a directory with such a file.
    /// `pre` is as for [`Tokenizer::from_gguf`].
    pub fn open(path: &Path, pre: Option<&str>) -> Result<Tokenizer> {
        if let Some(place) = directory_of(path) {
            check_directory(&place.folder)?;
            let file = place.folder.join(json::FILE_NAME);
            return if file.is_file() { json::open(&file, pre) } else { Err(json::missing(&place.folder)) };
        }
        if json::is_json(path) { json::open(path, pre) } else { Self::from_gguf(&Gguf::open_metadata(path)?, pre) }
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
        self.encode_with_bos(text, false, parse_special)
    }

    /// [`Tokenizer::encode`], with BOS in front if `add_bos` and the vocabulary has one.
    pub fn encode_with_bos(&self, text: &str, add_bos: bool, parse_special: bool) -> Vec<TokenId> {
        self.encode_watched(text, add_bos, parse_special, &mut || false).expect("it is never cancelled")
    }

    /// [`Tokenizer::encode_with_bos`], cancelled by `watch`, which is called every few milliseconds.
    pub fn encode_watched(
        &self,
        text: &str,
        add_bos: bool,
        parse_special: bool,
        watch: &mut Watch,
    ) -> Result<Vec<TokenId>> {
        let mut encoder = Encoder { tokenizer: self, ids: Vec::new(), watch, pieces: 0, inside: false };
        encoder.ids.extend(self.bos.filter(|_| add_bos));
        encoder.encode(&[(text, parse_special)], None)?;
        Ok(encoder.ids)
    }

    /// The ids of a rendered prompt. Control tokens are recognized only where the template wrote them. BOS is added if
    /// the model expects it and the prompt does not begin with it.
    pub fn encode_prompt(&self, prompt: &RenderedPrompt, watch: &mut Watch) -> Result<Vec<TokenId>> {
        let mut encoder = Encoder { tokenizer: self, ids: Vec::new(), watch, pieces: 0, inside: false };
        encoder.encode(&prompt.parts(), Some(prompt.data()))?;
        let mut ids = encoder.ids;
        if let Some(bos) = self.bos.filter(|bos| self.add_bos && ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// The ids of a text in parts, each with whether control tokens are recognized in it.
    pub fn encode_parts(&self, parts: &[(&str, bool)], watch: &mut Watch) -> Result<Vec<TokenId>> {
        let mut encoder = Encoder { tokenizer: self, ids: Vec::new(), watch, pieces: 0, inside: false };
        encoder.encode(parts, None)?;
        Ok(encoder.ids)
    }

    /// The text of ids. Invalid UTF-8 becomes U+FFFD. `skip_special` leaves control tokens out. Ids outside the
    /// vocabulary have no text.
    pub fn decode(&self, ids: &[TokenId], skip_special: bool) -> String {
        let mut detokenizer = Detokenizer::new(true, skip_special).whole(self);
        let mut text: String = ids.iter().map(|id| detokenizer.push(self, *id)).collect();
        text.push_str(&detokenizer.flush());
        text
    }

    /// The bytes that a token stands for; empty for an id outside the vocabulary.
    pub fn bytes_of(&self, id: TokenId) -> Vec<u8> {
        self.bytes_at(id, false)
    }

    /// The bytes that a token adds to a text, apart from its beginning; `None` for control tokens and unused ids.
    pub fn bytes_in_text(&self, id: TokenId) -> Option<Vec<u8>> {
        let kind = self.kinds.get(id as usize).filter(|kind| !kind.is_control() && **kind != TokenKind::Unused);
        kind.map(|_| self.bytes_of(id))
    }

    /// The ids of a text that follows another. Control tokens are plain text.
    pub fn encode_inside(&self, text: &str) -> Vec<TokenId> {
        let mut encoder = Encoder { tokenizer: self, ids: Vec::new(), watch: &mut || false, pieces: 0, inside: true };
        encoder.encode(&[(text, false)], None).expect("it is never cancelled");
        encoder.ids
    }

    /// [`Tokenizer::bytes_of`] for the first token of a text (`first`) or another.
    fn bytes_at(&self, id: TokenId, first: bool) -> Vec<u8> {
        let Some(text) = self.normalized.get(&id).or(self.texts.get(id as usize)) else { return Vec::new() };
        if self.kinds[id as usize].is_special() && !self.decoding.is_json {
            return text.as_bytes().to_vec();
        }
        if let Some(byte) = self.byte_of(id) {
            return vec![byte];
        }
        match &self.decoding.spelling {
            Spelling::Bytes => bytes::from_byte_level(text),
            Spelling::Text { replace, .. } => {
                let unmarked = match self.decoding.start {
                    Start::Marks(mark) if first => text.replace(mark, ""),
                    _ => text.clone(),
                };
                replace.iter().fold(unmarked, |text, (from, to)| text.replace(from, to)).into_bytes()
            }
        }
    }

    /// The byte that a token such as `<0x0A>` stands for, if the file says so.
    fn byte_of(&self, id: TokenId) -> Option<u8> {
        let text = self.normalized.get(&id).or(self.texts.get(id as usize))?;
        let is_byte = match self.decoding.spelling {
            _ if !self.decoding.is_json => self.kinds[id as usize] == TokenKind::Byte,
            Spelling::Text { bytes, .. } => bytes,
            Spelling::Bytes => false,
        };
        bytes::from_hex(text).filter(|_| is_byte)
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

    /// The texts of all control tokens, each once, in the order of their ids.
    pub fn control_texts(&self) -> impl Iterator<Item = &str> {
        // Of tokens with equal texts, `control_ids` has the first.
        let control = (0..).zip(&self.texts).filter(|(id, _)| self.is_control(*id));
        control
            .map(|(id, text)| (id, text.as_str()))
            .filter(|(id, text)| self.control_ids.get(*text) == Some(id))
            .map(|(_, text)| text)
    }

    /// The ids of all control tokens with this text.
    pub fn control_ids(&self, text: &str) -> Vec<TokenId> {
        let Some(first) = self.control_ids.get(text) else { return Vec::new() };
        (*first..self.texts.len() as TokenId)
            .filter(|id| self.is_control(*id) && self.texts[*id as usize] == text)
            .collect()
    }

    /// The text of the first control token that a text spells.
    pub fn control_text_in(&self, text: &str) -> Option<&str> {
        let whole = [(0..text.len(), true)];
        let ids = self.specials.cut(text, &whole, None).into_iter().filter_map(|fragment| match fragment {
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

/// The error for a vocabulary that contradicts itself.
fn invalid(what: impl Into<String>) -> Error {
    Error::Model(what.into())
}

/// The warning about a token that the file adds at the end of a text.
fn suffix_warning(texts: &[String], id: TokenId) -> String {
    format!(
        "the file adds the token '{}' (id {id}) at the end of a text; prompts are left without it, since the answer \
         continues them, and `embed` adds it",
        texts[id as usize]
    )
}

/// Encodes one text.
struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<TokenId>,
    /// Whether to stop.
    watch: &'a mut Watch<'a>,
    /// How many pieces were encoded since `watch` was asked.
    pieces: usize,
    /// Whether another text comes before.
    inside: bool,
}

/// After so many pieces `watch` is asked again: after some milliseconds.
const PIECES_UNWATCHED: usize = 4096;

impl Encoder<'_> {
    /// Encodes a text in parts. Text between two special tokens is encoded as a whole, even if it spans several parts.
    /// Of a rendered conversation, `data` are the ranges that come from it.
    fn encode(&mut self, parts: &[(&str, bool)], data: Option<&[Range<usize>]>) -> Result<()> {
        let text = match parts {
            [(text, _)] => Cow::Borrowed(*text),
            _ => parts.iter().map(|(text, _)| *text).collect::<String>().into(),
        };
        let mut end = 0;
        let ranges = parts.iter().map(|(part, control)| {
            end += part.len();
            (end - part.len()..end, *control)
        });
        let ranges: Vec<(Range<usize>, bool)> = ranges.collect();
        // A normalizer may make a control token of other texts, so a conversation's are found only as written.
        let control = data.is_none() && ranges.iter().all(|(_, control)| *control);
        for fragment in self.tokenizer.specials.cut(&text, &ranges, data) {
            match fragment {
                Fragment::Token(id) => self.ids.push(id),
                Fragment::Plain(range) => {
                    self.plain(&text[range.clone()], range.start == 0 && !self.inside, control)?
                }
            }
        }
        Ok(())
    }

    /// Encodes text without special tokens, apart from those in its normalized form.
    fn plain(&mut self, text: &str, at_start: bool, control: bool) -> Result<()> {
        let Tokenizer { pipeline, specials, model, .. } = self.tokenizer;
        let text = pipeline.normalize(text);
        for fragment in specials.cut_normalized(&text, control) {
            match fragment {
                Fragment::Token(id) => self.ids.push(id),
                Fragment::Plain(range) => {
                    let at_start = at_start && range.start == 0;
                    pipeline.pieces(&text[range], at_start, &mut |piece| {
                        self.pieces += 1;
                        if self.pieces == PIECES_UNWATCHED {
                            self.pieces = 0;
                            if (self.watch)() {
                                return Err(Error::Cancelled);
                            }
                        }
                        model.encode(piece, &mut self.ids);
                        Ok(())
                    })?;
                }
            }
        }
        Ok(())
    }
}
