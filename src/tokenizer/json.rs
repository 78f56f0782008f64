//! Loads a `tokenizer.json`, as the `tokenizers` library writes it.

use super::merges::{BpeOptions, MergeModel, ids_by_text, merge_parts};
use super::special::{SpecialToken, matchers};
use super::split::Split;
use super::{Pipeline, SpacePrefix, Spelling, TokenKind, Tokenizer, bytes, pre_tokenizers};
use crate::checkpoint::gguf::Metadata;
use crate::error::{Error, Result};
use crate::token::TokenId;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The file's name, also beside a GGUF that has no tokenizer inside.
pub(super) const FILE_NAME: &str = "tokenizer.json";

/// The highest id that is accepted, about ten times the size of any vocabulary. It bounds the memory that a wrong id
/// can cost.
const MAX_ID: u64 = 1 << 22;

/// Two files that lie beside a `tokenizer.json` and say which tokens begin and end a text. Null if a file is missing.
#[derive(Default)]
pub(super) struct Companions {
    /// The content of `tokenizer_config.json`.
    config: Value,
    /// The content of `generation_config.json`.
    generation: Value,
}

impl Companions {
    /// Reads the files in the same folder as `path`.
    fn beside(path: &Path) -> Result<Companions> {
        let read = |name: &str| match std::fs::read(path.with_file_name(name)) {
            Ok(bytes) => parse(&bytes).map_err(|error| error.at(name)),
            Err(_) => Ok(Value::Null),
        };
        Ok(Companions { config: read("tokenizer_config.json")?, generation: read("generation_config.json")? })
    }

    /// The same facts from the metadata of a GGUF file.
    pub(super) fn of_metadata(metadata: &Metadata) -> Result<Companions> {
        let id = |key: &str| metadata.uint(&format!("tokenizer.ggml.{key}_token_id"));
        let stop: Vec<usize> = [id("eos")?, id("eot")?, id("eom")?].into_iter().flatten().collect();
        let config = json!({"add_bos_token": metadata.bool("tokenizer.ggml.add_bos_token")?});
        Ok(Companions { config, generation: json!({"bos_token_id": id("bos")?, "eos_token_id": stop}) })
    }
}

/// Whether a file begins like a JSON object.
pub fn is_json(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(64).read_to_end(&mut head));
    let text = head.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&head);
    read.is_ok() && text.trim_ascii_start().starts_with(b"{")
}

/// Opens a `tokenizer.json` with the files beside it. A pre-tokenizer that the caller chose (`pre`) is an error.
pub(super) fn open(path: &Path, pre: Option<&str>) -> Result<Tokenizer> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
    let loaded = Companions::beside(path).and_then(|companions| load(&bytes, &companions, pre));
    loaded.map_err(|error| error.at(path.display()))
}

/// The error for a vocabulary that contradicts itself.
pub(super) fn invalid(what: impl Into<String>) -> Error {
    Error::Model(what.into())
}

fn parse(bytes: &[u8]) -> Result<Value> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    serde_json::from_slice(bytes).map_err(|error| invalid(format!("is not JSON: {error}")))
}

/// Builds a tokenizer from the content of a `tokenizer.json`.
pub(super) fn load(bytes: &[u8], companions: &Companions, pre: Option<&str>) -> Result<Tokenizer> {
    if pre.is_some() {
        return Err(Error::Argument("a tokenizer.json defines its own pre-tokenizer; leave out 'pre'".into()));
    }
    let file = parse(bytes)?;
    let model = &file["model"];
    let options = bpe_options(model)?;
    let pipeline = pipeline(&file["normalizer"], &file["pre_tokenizer"])?;
    let added = items(&file["added_tokens"]).map(added_token).collect::<Result<Vec<_>>>()?;
    let (texts, kinds) = vocabulary(model, options.byte_fallback, &added)?;
    let (front, end) = post_processor_tokens(&file["post_processor"])?;

    let id = |text: &str| texts.iter().position(|known| known == text).map(|id| id as TokenId);
    let in_range = |value: &Value| value.as_u64().filter(|id| *id < texts.len() as u64).map(|id| id as TokenId);
    let configured = |key: &str| {
        let token = &companions.config[key];
        id(token.as_str().or(token["content"].as_str())?)
    };
    let generated = |key: &str| -> Vec<TokenId> {
        let value = &companions.generation[key];
        value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice).iter().filter_map(in_range).collect()
    };
    let in_template = |text: &Option<String>| text.as_deref().and_then(id);
    let mut stop = generated("eos_token_id");
    let bos = in_template(&front).or(configured("bos_token"));
    let bos = bos.or(generated("bos_token_id").first().copied());
    let eos = configured("eos_token").or(stop.first().copied()).or(in_template(&end));
    let add_bos = companions.config["add_bos_token"].as_bool().unwrap_or(front.is_some());
    stop.extend(eos);

    let (user_defined, special) = matchers(&added)?;
    let control_ids = ids_by_text(&texts, &kinds, TokenKind::is_control);
    // The model of merges includes the unknown token, because text can become it.
    let merged = |kind: TokenKind| kind == TokenKind::Unknown || !kind.is_control();
    let merges = items(&model["merges"]).map(merge).collect::<Result<Vec<_>>>()?;
    let model = MergeModel::by_rank(|| ids_by_text(&texts, &kinds, merged), merges.iter().copied(), &options)?;
    Ok(Tokenizer {
        user_defined,
        special,
        pipeline,
        model,
        control_ids,
        pre: FILE_NAME.to_string(),
        fingerprint: blake3::hash(bytes).to_hex().to_string(),
        add_bos: add_bos && bos.is_some(),
        texts,
        kinds,
        bos,
        eos,
        stop,
    }
    .with_known_stop_texts())
}

/// The error for a part of the file that this engine does not have.
fn unsupported(what: &str, found: &Value, known: &str) -> Error {
    let name = found["type"].as_str().map_or_else(|| found.to_string(), |name| format!("'{name}'"));
    Error::Unsupported(format!("the {what} {name} is not supported; this engine has {known}"))
}

/// The items of a list; nothing for any other value.
fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// A component as a list: the members of a `Sequence` at any depth, any other component alone, nothing for null.
fn members<'a>(value: &'a Value, list: &str) -> Vec<&'a Value> {
    match value["type"].as_str() {
        Some("Sequence") => items(&value[list]).flat_map(|value| members(value, list)).collect(),
        _ if value.is_null() => Vec::new(),
        _ => vec![value],
    }
}

/// The normalizer and the pre-tokenizer of the file.
fn pipeline(normalizer: &Value, pre_tokenizer: &Value) -> Result<Pipeline> {
    let mut pipeline = Pipeline::default();
    let (mut byte_level, mut sentence, mut prefix) = (false, false, None);
    for step in members(normalizer, "normalizers") {
        match step["type"].as_str() {
            Some("NFC") => pipeline.nfc = true,
            Some("Prepend") if step["prepend"] == "▁" => prefix = Some(SpacePrefix::Each),
            Some("Replace") if step["pattern"]["String"] == " " && step["content"] == "▁" => sentence = true,
            _ => return Err(unsupported("normalizer", step, "NFC, Prepend of '▁' and Replace of ' ' by '▁'")),
        }
    }
    for step in members(pre_tokenizer, "pretokenizers") {
        let pattern = &step["pattern"];
        let isolated = step["behavior"] == "Isolated" && step["invert"] != true;
        let pattern = match (step["type"].as_str(), pattern["Regex"].as_str(), pattern["String"].as_str()) {
            // By then the normalizer has replaced the spaces.
            (Some("Split"), None, Some(" ")) if sentence => None,
            (Some("Split"), Some(regex), _) if isolated => Some(regex.to_string()),
            (Some("Split"), None, Some(text)) if isolated => Some(Split::literal(text)),
            (Some("Digits"), ..) if step["individual_digits"] == true => Some(r"\p{N}".to_string()),
            (Some("Digits"), ..) => Some(r"\p{N}+".to_string()),
            (Some("Punctuation"), ..) if step["behavior"] == "Isolated" => Some(PUNCTUATION.to_string()),
            (Some("Punctuation"), ..) if step["behavior"] == "Contiguous" => Some(format!("{PUNCTUATION}+")),
            (Some("ByteLevel"), ..) if step["add_prefix_space"] != true && !byte_level => {
                let regex = (step["use_regex"] != false).then(|| Split::new(pre_tokenizers::GPT2)).transpose()?;
                pipeline.splits.extend(regex);
                byte_level = true;
                None
            }
            (Some("Metaspace"), ..) if step["replacement"] == "▁" && pipeline.splits.is_empty() => {
                sentence = true;
                prefix = match step["prepend_scheme"].as_str() {
                    Some("never") => None,
                    Some("first") => Some(SpacePrefix::MissingAtStart),
                    None if step["add_prefix_space"] == false => None,
                    _ => Some(SpacePrefix::Missing),
                };
                (step["split"] != false).then(|| "▁?[^▁]+|▁".to_string())
            }
            _ => {
                let known = "ByteLevel without add_prefix_space, Metaspace if it is first, and Split, Digits and \
                             Punctuation with the behavior Isolated";
                return Err(unsupported("pre-tokenizer", step, known));
            }
        };
        let splits = if byte_level { &mut pipeline.spelled_splits } else { &mut pipeline.splits };
        splits.extend(pattern.map(|pattern| Split::new(&pattern)).transpose()?);
    }
    pipeline.spelling = match (byte_level, sentence) {
        (true, false) => Spelling::ByteLevel,
        (false, true) => Spelling::Sentence { prefix },
        (both, _) => {
            let found = if both { "both as bytes and" } else { "neither as bytes nor" };
            return Err(Error::Unsupported(format!(
                "the file spells text {found} with '▁' for spaces; this engine has ByteLevel pre-tokenizers, and \
                 Metaspace pre-tokenizers or Replace normalizers with '▁'"
            )));
        }
    };
    Ok(pipeline)
}

/// What the pre-tokenizer `Punctuation` matches: Unicode punctuation and the ASCII symbols.
const PUNCTUATION: &str = r"[\p{P}!-/:-@\[-`{-~]";

/// The options of the file's byte-pair encoding.
fn bpe_options(model: &Value) -> Result<BpeOptions> {
    if model.is_null() {
        return Err(invalid("has no 'model', so it is not a tokenizer.json"));
    }
    if !matches!(model["type"].as_str(), None | Some("BPE")) || !model["vocab"].is_object() {
        return Err(unsupported("model", model, "BPE"));
    }
    let off = |value: &Value| value.is_null() || *value == 0.0 || *value == "";
    let options = ["dropout", "continuing_subword_prefix", "end_of_word_suffix"];
    if let Some(key) = options.into_iter().find(|key| !off(&model[*key])) {
        let found = &model[key];
        return Err(Error::Unsupported(format!(
            "the model's {key} is {found}, which is not supported; this engine has BPE without it"
        )));
    }
    Ok(BpeOptions {
        ignore_merges: model["ignore_merges"] == true,
        byte_fallback: model["byte_fallback"] == true,
        fuse_unknown: model["fuse_unk"] == true,
        unknown: model["unk_token"].as_str().filter(|text| model["vocab"][*text].is_u64()).map(str::to_string),
    })
}

/// The id of the token `text`.
fn id_of(value: &Value, text: &str) -> Result<TokenId> {
    let id = value.as_u64().filter(|id| *id <= MAX_ID);
    let id = id.ok_or_else(|| invalid(format!("token '{text}' has the id {value}, expected 0 to {MAX_ID}")))?;
    Ok(id as TokenId)
}

/// A token of the file's `added_tokens`.
fn added_token(token: &Value) -> Result<SpecialToken<'_>> {
    let text =
        token["content"].as_str().ok_or_else(|| invalid("an added token has no 'content', expected its text"))?;
    if token["single_word"] == true {
        return Err(Error::Unsupported(format!(
            "the added token '{text}' matches single words only, which is not supported; this engine has added tokens \
             that match anywhere"
        )));
    }
    let kind = if token["special"] == true { TokenKind::Control } else { TokenKind::UserDefined };
    let strip = (token["lstrip"] == true, token["rstrip"] == true);
    Ok(SpecialToken { id: id_of(&token["id"], text)?, text, kind, strip })
}

/// The text and the kind of each id.
fn vocabulary(model: &Value, byte_fallback: bool, added: &[SpecialToken]) -> Result<(Vec<String>, Vec<TokenKind>)> {
    let mut tokens = Vec::new();
    for (text, id) in model["vocab"].as_object().into_iter().flatten() {
        let kind = match () {
            () if model["unk_token"] == *text => TokenKind::Unknown,
            () if byte_fallback && bytes::from_hex(text).is_some() => TokenKind::Byte,
            () => TokenKind::Normal,
        };
        tokens.push((id_of(id, text)?, text.as_str(), kind));
    }
    tokens.extend(added.iter().map(|special| (special.id, special.text, special.kind)));
    let count = tokens.iter().map(|(id, ..)| *id as usize + 1).max().unwrap_or(0);
    let (mut texts, mut kinds) = (vec![String::new(); count], vec![TokenKind::Unused; count]);
    for (id, text, kind) in tokens {
        let (known, id) = (&mut texts[id as usize], id as usize);
        if kinds[id] != TokenKind::Unused && known != text {
            return Err(invalid(format!(
                "the tokens '{known}' and '{text}' have the same id {id}, but ids must differ"
            )));
        }
        *known = text.to_string();
        // The unknown token is usually among the added tokens too.
        kinds[id] = if kinds[id] == TokenKind::Unknown { TokenKind::Unknown } else { kind };
    }
    Ok((texts, kinds))
}

/// The two parts of a merge, which is a string with a space or a list of two strings.
fn merge(merge: &Value) -> Result<(&str, &str)> {
    let pair = match merge {
        Value::String(merge) => merge_parts(merge),
        merge => merge[0].as_str().zip(merge[1].as_str()),
    };
    pair.ok_or_else(|| invalid(format!("the merge {merge} is not a pair of tokens")))
}

/// The tokens that the post-processor adds at the start and at the end of a text.
fn post_processor_tokens(post_processor: &Value) -> Result<(Option<String>, Option<String>)> {
    let (mut front, mut end) = (None, None);
    for step in members(post_processor, "processors") {
        let mut side = &mut front;
        for piece in items(&step["single"]) {
            let Some(token) = piece["SpecialToken"]["id"].as_str() else {
                side = &mut end;
                continue;
            };
            if side.replace(token.to_string()).is_some() {
                return Err(Error::Unsupported(
                    "the post-processor adds several tokens on one side of a text, which is not supported; this engine \
                     has at most one"
                        .into(),
                ));
            }
        }
    }
    Ok((front, end))
}
