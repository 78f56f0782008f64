//! From a file's metadata to a tokenizer.

use super::{Kind, Matcher, Spelling, Tokenizer, pre};
use crate::error::{Error, Result};
use crate::gguf::{Gguf, Metadata};
use aho_corasick::{AhoCorasick, MatchKind};
use std::collections::HashMap;
use tokenizers::models::bpe::{BPE, BpeBuilder, Merges};

/// Texts of tokens that end an answer whatever the file says of them (formats of many makers).
const STOP_TEXTS: [&str; 18] = [
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
    "<|file_sep|>",
];

fn wrong(what: impl Into<String>) -> Error {
    Error::Model(what.into())
}

pub(super) fn load(gguf: &Gguf, asked: Option<&str>) -> Result<Tokenizer> {
    let metadata = gguf.metadata();
    let model = metadata.str("tokenizer.ggml.model")?.ok_or_else(|| {
        wrong(
            "metadata key 'tokenizer.ggml.model' is missing: the file has no tokenizer, only ids can be used",
        )
    })?;
    let tokens = metadata.strings("tokenizer.ggml.tokens")?;
    let tokens = tokens.ok_or_else(|| wrong("metadata key 'tokenizer.ggml.tokens' is missing"))?;
    let texts: Vec<String> = tokens.map(|token| String::from_utf8_lossy(token).into_owned()).collect();
    let kinds = kinds(&metadata, &texts)?;
    let mut ids = HashMap::with_capacity(texts.len());
    for (id, text) in texts.iter().enumerate() {
        ids.entry(text.clone()).or_insert(id as u32);
    }
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
    let (mut bos, mut eos) = (special_id("bos")?, special_id("eos")?);
    let add = |key: &str| metadata.bool(&format!("tokenizer.ggml.add_{key}"));
    let (bpe, pre_tokenizer, spelling, pre, add_bos) = match model {
        "gpt2" => {
            let name =
                asked.or(metadata.str("tokenizer.ggml.pre")?.filter(|pre| !matches!(*pre, "" | "default")));
            let name = name.unwrap_or_else(|| guess_pre(&ids, texts.len(), eos));
            let class = pre::class(name)?;
            let bpe = byte_level(&metadata, &ids, class.ignore_merges)?;
            (bpe, Some(class.pre_tokenizer()), Spelling::ByteLevel, name, class.add_bos)
        }
        "llama" => {
            (bos, eos) = (bos.or(ids.get("<s>").copied()), eos.or(ids.get("</s>").copied()));
            let space_prefix = add("space_prefix")?.unwrap_or(true);
            let bpe = sentence_piece(&metadata, &texts, &kinds, &ids, special_id("unknown")?)?;
            (bpe, None, Spelling::Sentence { space_prefix }, "spm", true)
        }
        other => {
            return Err(Error::Unsupported(format!(
                "metadata key 'tokenizer.ggml.model' is '{other}'; this engine has gpt2 (byte-level BPE) and llama \
                 (SentencePiece)"
            )));
        }
    };
    let mut stop: Vec<u32> = [eos, special_id("eot")?, special_id("eom")?].into_iter().flatten().collect();
    let by_text = STOP_TEXTS.iter().filter_map(|text| ids.get(*text).copied());
    let special = |id: &u32| matches!(kinds[*id as usize], Kind::Control | Kind::UserDefined);
    stop.extend(by_text.filter(special));
    stop.sort_unstable();
    stop.dedup();
    let matcher = |wanted: &dyn Fn(Kind) -> bool| {
        let found = ids.iter().filter(|(text, id)| !text.is_empty() && wanted(kinds[**id as usize]));
        let (texts, ids): (Vec<&String>, Vec<u32>) = found.unzip();
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&texts);
        let automaton = automaton.map_err(|error| wrong(format!("special tokens: {error}")))?;
        Ok::<_, Error>(Matcher { automaton, ids })
    };
    let is_control =
        |(id, kind): (usize, &Kind)| matches!(kind, Kind::Control | Kind::Unknown).then_some(id as u32);
    Ok(Tokenizer {
        control: kinds.iter().enumerate().filter_map(is_control).collect(),
        user_defined: matcher(&|kind| kind == Kind::UserDefined)?,
        special: matcher(&|kind| matches!(kind, Kind::UserDefined | Kind::Control | Kind::Unknown))?,
        model: bpe,
        pre_tokenizer,
        spelling,
        pre: pre.to_string(),
        add_bos: add("bos_token")?.unwrap_or(add_bos) && bos.is_some(),
        add_eos: add("eos_token")?.unwrap_or(false) && eos.is_some(),
        texts,
        kinds,
        ids,
        bos,
        eos,
        stop,
    })
}

fn kinds(metadata: &Metadata, texts: &[String]) -> Result<Vec<Kind>> {
    let types = metadata.ints("tokenizer.ggml.token_type")?.unwrap_or_else(|| vec![1; texts.len()]);
    if types.len() != texts.len() {
        return Err(wrong(format!(
            "metadata key 'tokenizer.ggml.token_type' has {} entries for {} tokens",
            types.len(),
            texts.len()
        )));
    }
    let is_padding = |text: &str| {
        let digits = text.strip_prefix("[PAD").and_then(|rest| rest.strip_suffix(']'));
        digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
    };
    let kind = |(kind, text): (i64, &String)| match kind {
        _ if is_padding(text) => Ok(Kind::Unused),
        1 => Ok(Kind::Normal),
        2 => Ok(Kind::Unknown),
        3 => Ok(Kind::Control),
        4 => Ok(Kind::UserDefined),
        5 => Ok(Kind::Unused),
        6 => Ok(Kind::Byte),
        other => Err(wrong(format!("token '{text}' has the type {other}, expected 1 to 6"))),
    };
    types.into_iter().zip(texts).map(kind).collect()
}

/// The pre-tokenizer of files that do not name theirs, the official BitNet 2B-4T among them.
fn guess_pre(ids: &HashMap<String, u32>, count: usize, eos: Option<u32>) -> &'static str {
    if ids.contains_key("<|begin_of_text|>") || count == 128_256 {
        "llama-bpe"
    } else if ids.contains_key("<|im_start|>") && count >= 151_000 {
        "qwen2"
    } else if count == 131_072 && eos == Some(11) {
        "falcon3"
    } else {
        "gpt-2"
    }
}

fn build(builder: BpeBuilder) -> Result<BPE> {
    builder.build().map_err(|error| wrong(format!("the vocabulary's merges do not fit together: {error}")))
}

fn byte_level(metadata: &Metadata, ids: &HashMap<String, u32>, ignore_merges: bool) -> Result<BPE> {
    let merges = metadata.strings("tokenizer.ggml.merges")?;
    let mut known = Merges::new();
    let mut product = String::new();
    for merge in merges.into_iter().flatten() {
        let Ok(merge) = std::str::from_utf8(merge) else { continue };
        let Some((left, right)) = merge
            .char_indices()
            .skip(1)
            .find(|(_, c)| *c == ' ')
            .map(|(i, _)| (&merge[..i], &merge[i + 1..]))
        else {
            continue;
        };
        product.clear();
        product.push_str(left);
        product.push_str(right);
        // Merges of tokens that the vocabulary lacks can never apply.
        if [left, right, &product].iter().all(|text| ids.contains_key(*text)) {
            known.push((left.to_string(), right.to_string()));
        }
    }
    build(BPE::builder().vocab_and_merges(vocab(ids), known).ignore_merges(ignore_merges))
}

fn vocab(ids: &HashMap<String, u32>) -> ahash::AHashMap<String, u32> {
    ids.iter().map(|(text, id)| (text.clone(), *id)).collect()
}

/// SentencePiece merges the pair whose product has the highest score: byte-pair encoding with merges in that order.
fn sentence_piece(
    metadata: &Metadata,
    texts: &[String],
    kinds: &[Kind],
    ids: &HashMap<String, u32>,
    unknown: Option<u32>,
) -> Result<BPE> {
    let scores = metadata.floats("tokenizer.ggml.scores")?.unwrap_or_default();
    if scores.len() != texts.len() {
        return Err(wrong(format!(
            "metadata key 'tokenizer.ggml.scores' has {} entries for {} tokens",
            scores.len(),
            texts.len()
        )));
    }
    if texts.len() > 1 && scores.iter().all(|score| *score == scores[0]) {
        return Err(wrong(
            "all tokens have the same score, so the order of merging is lost; convert the model again with its \
             tokenizer.model",
        ));
    }
    let normal = |id: u32| matches!(kinds[id as usize], Kind::Normal | Kind::UserDefined);
    let mut merges = Vec::new();
    for (id, text) in texts.iter().enumerate().filter(|(id, _)| normal(*id as u32)) {
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if let (Some(l), Some(r)) = (ids.get(left), ids.get(right))
                && normal(*l)
                && normal(*r)
            {
                merges.push((scores[id], *l, *r, left, right));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let merges: Merges = merges.into_iter().map(|(_, _, _, l, r)| (l.to_string(), r.to_string())).collect();
    let unknown = unknown.map_or("<unk>", |id| texts[id as usize].as_str()).to_string();
    let builder = BPE::builder().vocab_and_merges(vocab(ids), merges).byte_fallback(true).fuse_unk(true);
    build(if ids.contains_key(&unknown) { builder.unk_token(unknown) } else { builder })
}
