//! From a GGUF file's metadata to a tokenizer.

use super::json::wrong;
use super::model::{Model, Rules, ids, parts};
use super::scores::Scores;
use super::special::{Special, matchers};
use super::split::Split;
use super::{Kind, Prefix, STOP_TEXTS, Spelling, Steps, Tokenizer, bytes, json, pre};
use crate::checkpoint::gguf::{Gguf, Metadata};
use crate::error::{Error, Result};

pub(super) fn load(gguf: &Gguf, asked: Option<&str>) -> Result<Tokenizer> {
    let metadata = gguf.metadata();
    if let Some(whole) = metadata.str("tokenizer.huggingface.json")? {
        return json::load(whole.as_bytes(), &json::Companions::of_metadata(&metadata)?, asked);
    }
    let Some(model) = metadata.str("tokenizer.ggml.model")?.filter(|model| *model != "none") else {
        let beside = gguf.path().with_file_name(json::FILE);
        if beside.is_file() {
            return json::open(&beside, asked);
        }
        return Err(wrong(format!(
            "metadata key 'tokenizer.ggml.model' is missing and there is no {} beside the file, so it has no \
             tokenizer; only ids can be used",
            json::FILE
        )));
    };
    let tokens = metadata.strings("tokenizer.ggml.tokens")?;
    let tokens = tokens.ok_or_else(|| wrong("metadata key 'tokenizer.ggml.tokens' is missing"))?;
    let texts: Vec<String> = tokens.map(|token| String::from_utf8_lossy(token).into_owned()).collect();
    let kinds = kinds(&metadata, &texts)?;
    let special_id = |key: &str| -> Result<Option<u32>> {
        match metadata.uint(&format!("tokenizer.ggml.{key}_token_id"))? {
            Some(id) if id < texts.len() => Ok(Some(id as u32)),
            Some(id) => Err(wrong(format!(
                "metadata key 'tokenizer.ggml.{key}_token_id' is {id}, but there are {} tokens",
                texts.len()
            ))),
            None => Ok(None),
        }
    };
    let find = |text: &str| texts.iter().position(|known| known == text).map(|id| id as u32);
    let add = |key: &str| metadata.bool(&format!("tokenizer.ggml.add_{key}"));
    let (mut bos, mut eos) = (special_id("bos")?, special_id("eos")?);
    let (name, steps, model, apart, add_bos) = match model {
        "gpt2" => {
            let named = metadata.str("tokenizer.ggml.pre")?.filter(|name| !matches!(*name, "" | "default"));
            let name = asked.or(named).unwrap_or_else(|| guess_pre(find, texts.len(), eos));
            let class = pre::class(name)?;
            let splits = class.patterns.iter().map(|pattern| Split::new(pattern)).collect::<Result<_>>()?;
            let steps = Steps { splits, ..Steps::default() };
            let model = byte_level(&metadata, &texts, &kinds, class.ignore_merges)?;
            (name, steps, model, ids(&texts, &kinds, Kind::is_control), class.add_bos)
        }
        "llama" if asked.is_some() => {
            return Err(Error::Argument(
                "the file's tokenizer is SentencePiece, which has no pre-tokenizer; leave out pre=".into(),
            ));
        }
        "llama" => {
            (bos, eos) = (bos.or(find("<s>")), eos.or(find("</s>")));
            let prefix = add("space_prefix")?.unwrap_or(true).then_some(Prefix::Each);
            let steps = Steps { spelling: Spelling::Sentence { prefix }, ..Steps::default() };
            let model = sentence_piece(&metadata, &texts, &kinds, special_id("unknown")?.or(find("<unk>")))?;
            ("spm", steps, model, ids(&texts, &kinds, |kind| !is_piece(kind)), true)
        }
        other => {
            return Err(Error::Unsupported(format!(
                "metadata key 'tokenizer.ggml.model' is '{other}'; this engine has gpt2 (byte-level BPE) and llama \
                 (SentencePiece)"
            )));
        }
    };
    let specials: Vec<Special> = texts
        .iter()
        .zip(0..)
        .zip(&kinds)
        .filter(|(_, kind)| kind.is_special())
        .map(|((text, id), kind)| Special { id, text, kind: *kind, strip: (false, false) })
        .collect();
    let (user_defined, special) = matchers(&specials)?;
    let stop: Vec<u32> = [eos, special_id("eot")?, special_id("eom")?].into_iter().flatten().collect();
    Ok(Tokenizer {
        user_defined,
        special,
        steps,
        model,
        apart,
        pre: name.to_string(),
        fingerprint: gguf.tokenizer_fingerprint(),
        add_bos: add("bos_token")?.unwrap_or(add_bos) && bos.is_some(),
        add_eos: add("eos_token")?.unwrap_or(false) && eos.is_some(),
        texts,
        kinds,
        bos,
        eos,
        stop,
    }
    .stopping_at_known_texts())
}

/// One entry for each token.
fn check_count(key: &str, found: usize, texts: &[String]) -> Result<()> {
    let count = texts.len();
    if found == count {
        return Ok(());
    }
    Err(wrong(format!("metadata key 'tokenizer.ggml.{key}' has {found} entries for {count} tokens")))
}

fn kinds(metadata: &Metadata, texts: &[String]) -> Result<Vec<Kind>> {
    let types = metadata.ints("tokenizer.ggml.token_type")?.unwrap_or_else(|| vec![1; texts.len()]);
    check_count("token_type", types.len(), texts)?;
    // Fillers that some converters call user-defined.
    let is_padding = |text: &str| {
        let digits = text.strip_prefix("[PAD").and_then(|rest| rest.strip_suffix(']'));
        digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
    };
    // Marks that some converters call normal.
    let is_mark = |text: &str| text.starts_with("<|") && STOP_TEXTS.contains(&text);
    let known = [Kind::Normal, Kind::Unknown, Kind::Control, Kind::UserDefined, Kind::Unused, Kind::Byte];
    let kind = |(kind, text): (i64, &String)| match kind {
        1 if is_mark(text) => Ok(Kind::Control),
        1 | 4 if is_padding(text) => Ok(Kind::Unused),
        1..=6 => Ok(known[kind as usize - 1]),
        other => Err(wrong(format!("token '{text}' has the type {other}, expected 1 to 6"))),
    };
    types.into_iter().zip(texts).map(kind).collect()
}

/// The pre-tokenizer of files that do not name theirs, the official BitNet 2B-4T among them.
fn guess_pre(find: impl Fn(&str) -> Option<u32>, count: usize, eos: Option<u32>) -> &'static str {
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

fn byte_level(metadata: &Metadata, texts: &[String], kinds: &[Kind], ignore_merges: bool) -> Result<Model> {
    let merges = metadata.strings("tokenizer.ggml.merges")?.into_iter().flatten();
    let merges = merges.filter_map(|merge| parts(std::str::from_utf8(merge).ok()?));
    let tokens = || ids(texts, kinds, |kind| !kind.is_control());
    Model::ranks(tokens, merges, &Rules { ignore_merges, ..Rules::default() })
}

/// Whether a SentencePiece token is made by joining.
fn is_piece(kind: Kind) -> bool {
    matches!(kind, Kind::Normal | Kind::UserDefined)
}

fn sentence_piece(metadata: &Metadata, texts: &[String], kinds: &[Kind], unknown: Option<u32>) -> Result<Model> {
    let scores = metadata.floats("tokenizer.ggml.scores")?.unwrap_or_default();
    check_count("scores", scores.len(), texts)?;
    if texts.len() > 1 && scores.iter().all(|score| *score == scores[0]) {
        return Err(wrong(
            "all tokens have the same score, so the order of merging is lost; convert the model again with its \
             tokenizer.model",
        ));
    }
    let mut of_bytes = vec![None; 256];
    for (text, id) in texts.iter().zip(0..) {
        if let Some(byte) = bytes::from_hex(text) {
            of_bytes[byte as usize].get_or_insert(id);
        }
    }
    let pieces = ids(texts, kinds, is_piece).into_iter();
    let scored = pieces.map(|(text, id)| (text, (id, scores[id as usize])));
    Ok(Model::Scores(Scores::new(scored, of_bytes, unknown)))
}
