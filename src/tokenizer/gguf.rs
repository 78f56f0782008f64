//! Loads the tokenizer of a GGUF file: from its metadata, or from a `tokenizer.json` inside the file or beside it.

use super::detokenizer::{Decoding, Spelling, Start};
use super::json;
use super::merges::{BpeOptions, MergeModel, ids_by_text, merge_parts};
use super::pipeline::{Normalize, Pipeline, Step};
use super::pre_tokenizers::pre_tokenizer;
use super::sentencepiece::SentencePiece;
use super::special::{SpecialToken, Specials};
use super::split::Split;
use super::{STOP_TEXTS, TokenKind, Tokenizer, bytes, invalid, suffix_warning};
use crate::checkpoint::gguf::{Gguf, Metadata};
use crate::error::{Error, Result};
use crate::token::TokenId;
use ahash::AHashMap;

/// Builds the tokenizer of a model. `pre` is the caller's choice of a pre-tokenizer.
pub(super) fn load(gguf: &Gguf, pre: Option<&str>) -> Result<Tokenizer> {
    let inside = inside(gguf, pre).map_err(|error| error.of_file(gguf.path()))?;
    let beside = gguf.folder().join(json::FILE_NAME);
    match inside {
        Some(tokenizer) => Ok(tokenizer),
        None if gguf.packed().is_some() => of_packed(gguf, pre).map_err(|error| error.of_file(gguf.path())),
        None if beside.is_file() => json::open(&beside, pre),
        None if gguf.version().is_none() => Err(json::missing(gguf.folder())),
        None => Err(invalid(format!(
            "metadata key 'tokenizer.ggml.model' is missing and there is no {} beside the file, so the model has no \
             tokenizer; give token ids in place of text",
            json::FILE_NAME
        ))
        .of_file(gguf.path())),
    }
}

/// The tokenizer of a packed model that has none in its metadata: its `tokenizer.json` was packed, too. What lies beside
/// the packed file does not count.
fn of_packed(gguf: &Gguf, pre: Option<&str>) -> Result<Tokenizer> {
    let missing = || invalid("the model that was packed has no tokenizer; give token ids in place of text");
    json::of_packed(gguf, pre)?.ok_or_else(missing)
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
    let mut warning = None;
    let (name, pipeline, spelling, start, model, control_ids, add_bos) = match model {
        "gpt2" => {
            let found = metadata.str("tokenizer.ggml.pre")?;
            let named = pre.or(found.filter(|name| !matches!(*name, "" | "default")));
            let name = match named.or_else(|| known_pre(find, texts.len(), eos)) {
                Some(name) => name,
                None => {
                    warning = Some(guess_warning(found));
                    GUESS
                }
            };
            let rules = pre_tokenizer(name)?;
            let splits = rules.patterns.iter().map(|pattern| Split::new(pattern).map(Step::from));
            let mut steps = splits.collect::<Result<Vec<Step>>>()?;
            steps.push(Step::Bytes);
            let pipeline = Pipeline { steps, ..Pipeline::default() };
            let model = byte_level(&metadata, &texts, &kinds, rules.ignore_merges)?;
            let control_ids = ids_by_text(&texts, &kinds, TokenKind::is_control);
            (name, pipeline, Spelling::Bytes, Start::Kept, model, control_ids, rules.add_bos)
        }
        "llama" if pre.is_some() => {
            return Err(Error::Argument(
                "the file's tokenizer is SentencePiece, which has no pre-tokenizer; leave out 'pre'".into(),
            ));
        }
        "llama" => {
            let prefix = add("space_prefix")?.unwrap_or(true);
            let mut normalizers = vec![Normalize::Replace(" ".into(), "▁".into())];
            normalizers.extend(prefix.then(|| Normalize::Prepend("▁".into())));
            let pipeline = Pipeline { normalizers, ..Pipeline::default() };
            let spelling = Spelling::Text { replace: vec![("▁".into(), " ".into())], bytes: false };
            let start = if prefix { Start::Spaces(1) } else { Start::Kept };
            let model = sentence_piece(&metadata, &texts, &kinds, special_id("unknown")?.or(find("<unk>")))?;
            ("spm", pipeline, spelling, start, model, ids_by_text(&texts, &kinds, |kind| !is_piece(kind)), true)
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
        .map(|((text, id), kind)| SpecialToken { id, text, kind: *kind, ..SpecialToken::default() })
        .collect();
    let specials = Specials::of_gguf(&specials)?;
    let stop: Vec<TokenId> = [eos, special_id("eot")?, special_id("eom")?].into_iter().flatten().collect();
    let suffix = eos.filter(|_| add("eos_token").is_ok_and(|add| add == Some(true)));
    Ok(Tokenizer {
        specials,
        normalized: AHashMap::new(),
        pipeline,
        model,
        decoding: Decoding { spelling, is_json: false, start },
        control_ids,
        pre: name.to_string(),
        fingerprint: gguf.tokenizer_fingerprint(),
        add_bos: add("bos_token")?.unwrap_or(add_bos) && bos.is_some(),
        kinds,
        bos,
        eos,
        suffix,
        stop,
        warning: warning.or(suffix.map(|id| suffix_warning(&texts, id))),
        texts,
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

/// The pre-tokenizer of a vocabulary that is neither named nor known.
const GUESS: &str = "gpt-2";

/// The warning about a guess. `found` is the name in the file, if there is one.
fn guess_warning(found: Option<&str>) -> String {
    let found = match found {
        None => "the file does not name its pre-tokenizer (no metadata key 'tokenizer.ggml.pre')".to_string(),
        Some(name) => format!("the file's pre-tokenizer (metadata key 'tokenizer.ggml.pre') is '{name}'"),
    };
    format!(
        "{found}, and its vocabulary is not a known one, so '{GUESS}' is a guess: if it is wrong, texts become other \
         tokens than in training, and answers get worse. Convert the model again with a newer converter, or compare \
         with its original tokenizer"
    )
}

/// The pre-tokenizer of a known vocabulary whose files do not name it, such as the official BitNet b1.58 2B-4T.
fn known_pre(find: impl Fn(&str) -> Option<TokenId>, count: usize, eos: Option<TokenId>) -> Option<&'static str> {
    if find("<|begin_of_text|>").is_some() || count == 128_256 {
        Some("llama-bpe")
    } else if find("<|im_start|>").is_some() && count >= 151_000 {
        Some("qwen2")
    } else if count == 131_072 && eos == Some(11) {
        Some("falcon3")
    } else {
        None
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
