//! From a `tokenizer.json`, as the `tokenizers` library writes it, to a tokenizer.

use super::model::{Model, Rules, ids, parts};
use super::special::{Special, matchers};
use super::split::Split;
use super::{Kind, Prefix, Spelling, Steps, Tokenizer, bytes, pre};
use crate::checkpoint::gguf::Metadata;
use crate::error::{Error, Result};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The name that the file has beside a model.
pub(super) const FILE: &str = "tokenizer.json";

/// The highest id, so that a wrong one is not paid for in memory: some ten times what any vocabulary has.
const MAX_ID: u64 = 1 << 22;

/// What else is known of the tokenizer: two files beside it, null where they are not.
#[derive(Default)]
pub(super) struct Companions {
    /// `tokenizer_config.json`
    config: Value,
    /// `generation_config.json`
    generation: Value,
}

impl Companions {
    fn beside(path: &Path) -> Result<Companions> {
        let read = |name: &str| match std::fs::read(path.with_file_name(name)) {
            Ok(bytes) => parse(&bytes).map_err(|error| error.at(name)),
            Err(_) => Ok(Value::Null),
        };
        Ok(Companions { config: read("tokenizer_config.json")?, generation: read("generation_config.json")? })
    }

    /// The same from the keys of a GGUF file.
    pub(super) fn of_metadata(metadata: &Metadata) -> Result<Companions> {
        let id = |key: &str| metadata.uint(&format!("tokenizer.ggml.{key}_token_id"));
        let add = |key: &str| metadata.bool(&format!("tokenizer.ggml.add_{key}_token"));
        let stop: Vec<usize> = [id("eos")?, id("eot")?, id("eom")?].into_iter().flatten().collect();
        let config = json!({"add_bos_token": add("bos")?, "add_eos_token": add("eos")?});
        Ok(Companions { config, generation: json!({"bos_token_id": id("bos")?, "eos_token_id": stop}) })
    }
}

/// Whether a file begins as a JSON object does.
pub(super) fn is_json(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(64).read_to_end(&mut head));
    let text = head.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&head);
    read.is_ok() && text.trim_ascii_start().starts_with(b"{")
}

/// Opens a file, with what lies beside it.
pub(super) fn open(path: &Path, asked: Option<&str>) -> Result<Tokenizer> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
    let loaded = Companions::beside(path).and_then(|companions| load(&bytes, &companions, asked));
    loaded.map_err(|error| error.at(path.display()))
}

pub(super) fn wrong(what: impl Into<String>) -> Error {
    Error::Model(what.into())
}

fn parse(bytes: &[u8]) -> Result<Value> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    serde_json::from_slice(bytes).map_err(|error| wrong(format!("is not JSON: {error}")))
}

pub(super) fn load(bytes: &[u8], companions: &Companions, asked: Option<&str>) -> Result<Tokenizer> {
    if asked.is_some() {
        return Err(Error::Argument("a tokenizer.json says itself how it splits texts; leave out pre=".into()));
    }
    let file = parse(bytes)?;
    let model = &file["model"];
    let rules = rules(model)?;
    let steps = steps(&file["normalizer"], &file["pre_tokenizer"])?;
    let added = items(&file["added_tokens"]).map(added_token).collect::<Result<Vec<_>>>()?;
    let (texts, kinds) = vocabulary(model, rules.byte_fallback, &added)?;
    let (front, end) = template(&file["post_processor"])?;

    let id = |text: &str| texts.iter().position(|known| known == text).map(|id| id as u32);
    let in_range = |value: &Value| value.as_u64().filter(|id| *id < texts.len() as u64).map(|id| id as u32);
    let configured = |key: &str| {
        let token = &companions.config[key];
        id(token.as_str().or(token["content"].as_str())?)
    };
    let generated = |key: &str| -> Vec<u32> {
        let value = &companions.generation[key];
        value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice).iter().filter_map(in_range).collect()
    };
    let in_template = |text: &Option<String>| text.as_deref().and_then(id);
    let mut stop = generated("eos_token_id");
    let bos = in_template(&front).or(configured("bos_token"));
    let bos = bos.or(generated("bos_token_id").first().copied());
    let eos = configured("eos_token").or(stop.first().copied()).or(in_template(&end));
    let add = |key: &str, otherwise: bool| companions.config[key].as_bool().unwrap_or(otherwise);
    let (add_bos, add_eos) = (add("add_bos_token", front.is_some()), add("add_eos_token", end.is_some()));
    stop.extend(eos);

    let (user_defined, special) = matchers(&added)?;
    let apart = ids(&texts, &kinds, Kind::is_control);
    // The unknown token stands for text, so the model has to know it.
    let known = |kind: Kind| kind == Kind::Unknown || !kind.is_control();
    let merges = items(&model["merges"]).map(merge).collect::<Result<Vec<_>>>()?;
    let model = Model::ranks(|| ids(&texts, &kinds, known), merges.iter().copied(), &rules)?;
    Ok(Tokenizer {
        user_defined,
        special,
        steps,
        model,
        apart,
        pre: FILE.to_string(),
        fingerprint: blake3::hash(bytes).to_hex().to_string(),
        add_bos: add_bos && bos.is_some(),
        add_eos: add_eos && eos.is_some(),
        texts,
        kinds,
        bos,
        eos,
        stop,
    }
    .stopping_at_known_texts())
}

fn unsupported(what: &str, found: &Value, known: &str) -> Error {
    let name = found["type"].as_str().map_or_else(|| found.to_string(), |name| format!("'{name}'"));
    Error::Unsupported(format!("the {what} {name} is not known; this engine has {known}"))
}

/// The items of a list; none of anything else.
fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The members of a `Sequence`, at any depth; nothing for null.
fn members<'a>(value: &'a Value, list: &str) -> Vec<&'a Value> {
    match value["type"].as_str() {
        Some("Sequence") => items(&value[list]).flat_map(|value| members(value, list)).collect(),
        _ if value.is_null() => Vec::new(),
        _ => vec![value],
    }
}

/// What happens to a text before byte-pair encoding.
fn steps(normalizer: &Value, pre_tokenizer: &Value) -> Result<Steps> {
    let mut steps = Steps::default();
    let (mut byte_level, mut sentence, mut prefix) = (false, false, None);
    for step in members(normalizer, "normalizers") {
        match step["type"].as_str() {
            Some("NFC") => steps.nfc = true,
            Some("Prepend") if step["prepend"] == "▁" => prefix = Some(Prefix::Each),
            Some("Replace") if step["pattern"]["String"] == " " && step["content"] == "▁" => sentence = true,
            _ => return Err(unsupported("normalizer", step, "NFC, Prepend of '▁' and Replace of ' ' by '▁'")),
        }
    }
    for step in members(pre_tokenizer, "pretokenizers") {
        let pattern = &step["pattern"];
        let isolated = step["behavior"] == "Isolated" && step["invert"] != true;
        let pattern = match (step["type"].as_str(), pattern["Regex"].as_str(), pattern["String"].as_str()) {
            // Spaces are spelled otherwise by then.
            (Some("Split"), None, Some(" ")) if sentence => None,
            (Some("Split"), Some(regex), _) if isolated => Some(regex.to_string()),
            (Some("Split"), None, Some(text)) if isolated => Some(Split::literal(text)),
            (Some("Digits"), ..) if step["individual_digits"] == true => Some(r"\p{N}".to_string()),
            (Some("Digits"), ..) => Some(r"\p{N}+".to_string()),
            (Some("Punctuation"), ..) if step["behavior"] == "Isolated" => Some(PUNCTUATION.to_string()),
            (Some("Punctuation"), ..) if step["behavior"] == "Contiguous" => Some(format!("{PUNCTUATION}+")),
            (Some("ByteLevel"), ..) if step["add_prefix_space"] != true && !byte_level => {
                let regex = (step["use_regex"] != false).then(|| Split::new(pre::GPT2)).transpose()?;
                steps.splits.extend(regex);
                byte_level = true;
                None
            }
            (Some("Metaspace"), ..) if step["replacement"] == "▁" && steps.splits.is_empty() => {
                sentence = true;
                prefix = match step["prepend_scheme"].as_str() {
                    Some("never") => None,
                    Some("first") => Some(Prefix::MissingAtStart),
                    None if step["add_prefix_space"] == false => None,
                    _ => Some(Prefix::Missing),
                };
                (step["split"] != false).then(|| "▁?[^▁]+|▁".to_string())
            }
            _ => {
                let known = "ByteLevel without prefix, Metaspace first, and Split, Digits and Punctuation that isolate \
                             what they find";
                return Err(unsupported("pre-tokenizer", step, known));
            }
        };
        let splits = if byte_level { &mut steps.spelled_splits } else { &mut steps.splits };
        splits.extend(pattern.map(|pattern| Split::new(&pattern)).transpose()?);
    }
    steps.spelling = match (byte_level, sentence) {
        (true, false) => Spelling::ByteLevel,
        (false, true) => Spelling::Sentence { prefix },
        _ => {
            return Err(Error::Unsupported(
                "texts are spelled neither by bytes nor with '▁' for spaces; this engine has ByteLevel \
                 pre-tokenizers, and Replace normalizers or Metaspace pre-tokenizers with '▁'"
                    .into(),
            ));
        }
    };
    Ok(steps)
}

const PUNCTUATION: &str = r"[\p{P}!-/:-@\[-`{-~]";

fn rules(model: &Value) -> Result<Rules> {
    if model.is_null() {
        return Err(wrong("has no 'model', so it is not a tokenizer.json"));
    }
    if !matches!(model["type"].as_str(), None | Some("BPE")) || !model["vocab"].is_object() {
        return Err(unsupported("model", model, "BPE"));
    }
    let off = |value: &Value| value.is_null() || *value == 0.0 || *value == "";
    let options = ["dropout", "continuing_subword_prefix", "end_of_word_suffix"];
    if let Some(key) = options.into_iter().find(|key| !off(&model[*key])) {
        let found = &model[key];
        return Err(Error::Unsupported(format!("the model's {key} is {found}; this engine has BPE without it")));
    }
    Ok(Rules {
        ignore_merges: model["ignore_merges"] == true,
        byte_fallback: model["byte_fallback"] == true,
        fuse_unknown: model["fuse_unk"] == true,
        unknown: model["unk_token"].as_str().filter(|text| model["vocab"][*text].is_u64()).map(str::to_string),
    })
}

fn id_of(value: &Value, text: &str) -> Result<u32> {
    let id = value.as_u64().filter(|id| *id <= MAX_ID);
    let id = id.ok_or_else(|| wrong(format!("token '{text}' has the id {value}, expected 0 to {MAX_ID}")))?;
    Ok(id as u32)
}

fn added_token(token: &Value) -> Result<Special<'_>> {
    let text = token["content"].as_str().ok_or_else(|| wrong("an added token has no content"))?;
    if token["single_word"] == true {
        return Err(Error::Unsupported(format!(
            "the added token '{text}' matches single words only; this engine has added tokens that match anywhere"
        )));
    }
    let kind = if token["special"] == true { Kind::Control } else { Kind::UserDefined };
    let strip = (token["lstrip"] == true, token["rstrip"] == true);
    Ok(Special { id: id_of(&token["id"], text)?, text, kind, strip })
}

/// Each id's text and kind.
fn vocabulary(model: &Value, byte_fallback: bool, added: &[Special]) -> Result<(Vec<String>, Vec<Kind>)> {
    let mut tokens = Vec::new();
    for (text, id) in model["vocab"].as_object().into_iter().flatten() {
        let kind = match () {
            () if model["unk_token"] == *text => Kind::Unknown,
            () if byte_fallback && bytes::from_hex(text).is_some() => Kind::Byte,
            () => Kind::Normal,
        };
        tokens.push((id_of(id, text)?, text.as_str(), kind));
    }
    tokens.extend(added.iter().map(|special| (special.id, special.text, special.kind)));
    let count = tokens.iter().map(|(id, ..)| *id as usize + 1).max().unwrap_or(0);
    let (mut texts, mut kinds) = (vec![String::new(); count], vec![Kind::Unused; count]);
    for (id, text, kind) in tokens {
        let (known, id) = (&mut texts[id as usize], id as usize);
        if kinds[id] != Kind::Unused && known != text {
            return Err(wrong(format!("the tokens '{known}' and '{text}' have the same id {id}")));
        }
        *known = text.to_string();
        // The unknown token is usually an added one too.
        kinds[id] = if kinds[id] == Kind::Unknown { Kind::Unknown } else { kind };
    }
    Ok((texts, kinds))
}

/// The parts of a merge, which is a string or a pair.
fn merge(merge: &Value) -> Result<(&str, &str)> {
    let pair = match merge {
        Value::String(merge) => parts(merge),
        merge => merge[0].as_str().zip(merge[1].as_str()),
    };
    pair.ok_or_else(|| wrong(format!("the merge {merge} is no pair")))
}

/// The tokens that the file puts in front of a text and at its end.
fn template(post_processor: &Value) -> Result<(Option<String>, Option<String>)> {
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
                    "the post-processor adds several tokens on one side of a text; this engine has one".into(),
                ));
            }
        }
    }
    Ok((front, end))
}
