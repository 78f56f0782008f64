//! Loads the tokenizer of a GGUF file: from its metadata, or from a `tokenizer.json` inside the file or beside it.

use super::json::{self, invalid};
use super::merges::{BpeOptions, MergeModel, ids_by_text, merge_parts};
use super::pre_tokenizers::pre_tokenizer;
use super::sentencepiece::SentencePiece;
use super::special::{SpecialToken, matchers};
use super::split::Split;
use super::{Pipeline, STOP_TEXTS, SpacePrefix, Spelling, TokenKind, Tokenizer, bytes};
use crate::checkpoint::gguf::{Gguf, Metadata};
use crate::error::{Error, Result};
use crate::token::TokenId;

/// Builds the tokenizer of a model. `pre` is the caller's choice of a pre-tokenizer.
pub(super) fn load(gguf: &Gguf, pre: Option<&str>) -> Result<Tokenizer> {
    let inside = inside(gguf, pre).map_err(|error| error.of_file(gguf.path()))?;
    let beside = gguf.path().with_file_name(json::FILE_NAME);
    match inside {
        Some(tokenizer) => Ok(tokenizer),
        None if beside.is_file() => json::open(&beside, pre),
        None => Err(invalid(format!(
            "metadata key 'tokenizer.ggml.model' is missing and there is no {} beside the file, so the model has no \
             tokenizer; give token ids in place of text",
            json::FILE_NAME
        ))
        .of_file(gguf.path())),
    }
}

/// The tokenizer inside a model file, if it has one.
fn inside(gguf: &Gguf, pre: Option<&str>) -> Result<Option<Tokenizer>> {
    let metadata = gguf.metadata();
    if let Some(json) = metadata.str("tokenizer.huggingface.json")? {
        let loaded = json::load(json.as_bytes(), &json::Companions::of_metadata(&metadata)?, pre);
        return loaded.map(Some).map_err(|error| error.at("metadata key 'tokenizer.huggingface.json'"));
    }
    let model = metadata.str("tokenizer.ggml.model")?.filter(|model| *model != "none");
    model.map(|model| from_metadata(gguf, model, pre)).transpose()
}

/// Builds a tokenizer from the keys `tokenizer.ggml.*`. `model` is the kind of the vocabulary.
fn from_metadata(gguf: &Gguf, model: &str, pre: Option<&str>) -> Result<Tokenizer> {
    let metadata = gguf.metadata();
    let tokens = metadata.strings("tokenizer.ggml.tokens")?;
    let tokens = tokens.ok_or_else(|| invalid("metadata key 'tokenizer.ggml.tokens' is missing"))?;
    let texts: Vec<String> = tokens.map(|token| String::from_utf8_lossy(token).into_owned()).collect();
    let kinds = kinds(&metadata, &texts)?;
    let special_id = |key: &str| special_id(&metadata, key, texts.len());
    let find = |text: &str| texts.iter().position(|known| known == text).map(|id| id as TokenId);
    let add = |key: &str| metadata.bool(&format!("tokenizer.ggml.add_{key}"));
    let (bos, eos) = bos_eos(&metadata, texts.len(), find)?;
    let (name, pipeline, model, control_ids, add_bos) = match model {
        "gpt2" => {
            let named = metadata.str("tokenizer.ggml.pre")?.filter(|name| !matches!(*name, "" | "default"));
            let name = pre.or(named).unwrap_or_else(|| guess_pre(find, texts.len(), eos));
            let rules = pre_tokenizer(name)?;
            let splits = rules.patterns.iter().map(|pattern| Split::new(pattern)).collect::<Result<_>>()?;
            let pipeline = Pipeline { splits, ..Pipeline::default() };
            let model = byte_level(&metadata, &texts, &kinds, rules.ignore_merges)?;
            (name, pipeline, model, ids_by_text(&texts, &kinds, TokenKind::is_control), rules.add_bos)
        }
        "llama" if pre.is_some() => {
            return Err(Error::Argument(
                "the file's tokenizer is SentencePiece, which has no pre-tokenizer; leave out 'pre'".into(),
            ));
        }
        "llama" => {
            let prefix = add("space_prefix")?.unwrap_or(true).then_some(SpacePrefix::Each);
            let pipeline = Pipeline { spelling: Spelling::Sentence { prefix }, ..Pipeline::default() };
            let model = sentence_piece(&metadata, &texts, &kinds, special_id("unknown")?.or(find("<unk>")))?;
            ("spm", pipeline, model, ids_by_text(&texts, &kinds, |kind| !is_piece(kind)), true)
        }
        other => {
            return Err(Error::Unsupported(format!(
                "metadata key 'tokenizer.ggml.model' is '{other}', which is not supported; this engine has gpt2 \
                 (byte-level BPE) and llama (SentencePiece)"
            )));
        }
    };
    let specials: Vec<SpecialToken> = texts
        .iter()
        .zip(0..)
        .zip(&kinds)
        .filter(|(_, kind)| kind.is_special())
        .map(|((text, id), kind)| SpecialToken { id, text, kind: *kind, strip: (false, false) })
        .collect();
    let (user_defined, special) = matchers(&specials)?;
    let stop: Vec<TokenId> = [eos, special_id("eot")?, special_id("eom")?].into_iter().flatten().collect();
    Ok(Tokenizer {
        user_defined,
        special,
        pipeline,
        model,
        control_ids,
        pre: name.to_string(),
        fingerprint: gguf.tokenizer_fingerprint(),
        add_bos: add("bos_token")?.unwrap_or(add_bos) && bos.is_some(),
        texts,
        kinds,
        bos,
        eos,
        stop,
    }
    .with_known_stop_texts())
}

/// The id that the metadata gives for a special token, of `count` tokens.
fn special_id(metadata: &Metadata, key: &str, count: usize) -> Result<Option<TokenId>> {
    match metadata.uint(&format!("tokenizer.ggml.{key}_token_id"))? {
        Some(id) if id < count => Ok(Some(id as TokenId)),
        Some(id) => Err(invalid(format!(
            "metadata key 'tokenizer.ggml.{key}_token_id' is {id}, expected the id of one of {count} tokens"
        ))),
        None => Ok(None),
    }
}

/// The ids of BOS and EOS. `find` looks a text up: a SentencePiece vocabulary without these ids has `<s>` and `</s>`.
fn bos_eos(
    metadata: &Metadata,
    count: usize,
    find: impl Fn(&str) -> Option<TokenId>,
) -> Result<(Option<TokenId>, Option<TokenId>)> {
    let (bos, eos) = (special_id(metadata, "bos", count)?, special_id(metadata, "eos", count)?);
    let is_sentence_piece = metadata.str("tokenizer.ggml.model")? == Some("llama");
    Ok(if is_sentence_piece { (bos.or_else(|| find("<s>")), eos.or_else(|| find("</s>"))) } else { (bos, eos) })
}

/// The texts of BOS and EOS by a model file's metadata, without building its tokenizer.
pub fn bos_eos_texts(gguf: &Gguf) -> Result<(Option<String>, Option<String>)> {
    let metadata = gguf.metadata();
    let Some(tokens) = metadata.strings("tokenizer.ggml.tokens")? else { return Ok((None, None)) };
    let tokens: Vec<&[u8]> = tokens.collect();
    let find = |text: &str| tokens.iter().position(|known| *known == text.as_bytes()).map(|id| id as TokenId);
    let (bos, eos) = bos_eos(&metadata, tokens.len(), find).map_err(|error| error.of_file(gguf.path()))?;
    let text = |id: TokenId| String::from_utf8_lossy(tokens[id as usize]).into_owned();
    Ok((bos.map(text), eos.map(text)))
}

/// An error unless a list of the metadata has one entry for each token.
fn check_count(key: &str, found: usize, texts: &[String]) -> Result<()> {
    let count = texts.len();
    if found == count {
        return Ok(());
    }
    Err(invalid(format!(
        "metadata key 'tokenizer.ggml.{key}' has {found} entries, expected one for each of {count} tokens"
    )))
}

/// The kind of each token, with corrections for mistakes of common converters.
fn kinds(metadata: &Metadata, texts: &[String]) -> Result<Vec<TokenKind>> {
    let types = metadata.ints("tokenizer.ggml.token_type")?.unwrap_or_else(|| vec![1; texts.len()]);
    check_count("token_type", types.len(), texts)?;
    // Tokens that fill the vocabulary up; some converters call them user-defined.
    let is_padding = |text: &str| {
        let digits = text.strip_prefix("[PAD").and_then(|rest| rest.strip_suffix(']'));
        digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
    };
    // Stop tokens; some converters call them normal.
    let is_stop = |text: &str| text.starts_with("<|") && STOP_TEXTS.contains(&text);
    let known = [
        TokenKind::Normal,
        TokenKind::Unknown,
        TokenKind::Control,
        TokenKind::UserDefined,
        TokenKind::Unused,
        TokenKind::Byte,
    ];
    let kind = |(kind, text): (i64, &String)| match kind {
        1 if is_stop(text) => Ok(TokenKind::Control),
        1 | 4 if is_padding(text) => Ok(TokenKind::Unused),
        1..=6 => Ok(known[kind as usize - 1]),
        other => Err(invalid(format!("token '{text}' has the type {other}, expected 1 to 6"))),
    };
    types.into_iter().zip(texts).map(kind).collect()
}

/// The pre-tokenizer of a file that does not name one, such as the official BitNet b1.58 2B-4T.
fn guess_pre(find: impl Fn(&str) -> Option<TokenId>, count: usize, eos: Option<TokenId>) -> &'static str {
    if find("<|begin_of_text|>").is_some() || count == 128_256 {
        "llama-bpe"
    } else if find("<|im_start|>").is_some() && count >= 151_000 {
        "qwen2"
    } else if count == 131_072 && eos == Some(11) {
        "falcon3"
    } else {
        "gpt-2"
    }
}

/// The merges of a byte-level vocabulary.
fn byte_level(metadata: &Metadata, texts: &[String], kinds: &[TokenKind], ignore_merges: bool) -> Result<MergeModel> {
    let merges = metadata.strings("tokenizer.ggml.merges")?.into_iter().flatten();
    let merges = merges.filter_map(|merge| merge_parts(std::str::from_utf8(merge).ok()?));
    let tokens = || ids_by_text(texts, kinds, |kind| !kind.is_control());
    MergeModel::by_rank(tokens, merges, &BpeOptions { ignore_merges, ..BpeOptions::default() })
}

/// Whether merges can produce a SentencePiece token of this kind.
fn is_piece(kind: TokenKind) -> bool {
    matches!(kind, TokenKind::Normal | TokenKind::UserDefined)
}

/// The merges of a SentencePiece vocabulary.
fn sentence_piece(
    metadata: &Metadata,
    texts: &[String],
    kinds: &[TokenKind],
    unknown: Option<TokenId>,
) -> Result<MergeModel> {
    let scores = metadata.floats("tokenizer.ggml.scores")?.unwrap_or_default();
    check_count("scores", scores.len(), texts)?;
    if texts.len() > 1 && scores.iter().all(|score| *score == scores[0]) {
        return Err(invalid(
            "metadata key 'tokenizer.ggml.scores' gives all tokens the same score, so the order of merges is lost; \
             convert the model again with its tokenizer.model",
        ));
    }
    let mut of_bytes = vec![None; 256];
    for (text, id) in texts.iter().zip(0..) {
        if let Some(byte) = bytes::from_hex(text) {
            of_bytes[byte as usize].get_or_insert(id);
        }
    }
    let pieces = ids_by_text(texts, kinds, is_piece).into_iter();
    let scored = pieces.map(|(text, id)| (text, (id, scores[id as usize])));
    Ok(MergeModel::ByScore(SentencePiece::new(scored, of_bytes, unknown)))
}
