//! Loads a `tokenizer.json`, as the `tokenizers` library writes it.

use super::json_parts::{decoding, ends, items, pipeline, shortened, unsupported};
use super::merges::{BpeOptions, IdsByText, MergeModel, ids_by_text, merge_parts};
use super::pipeline::Pipeline;
use super::special::{SpecialToken, Specials};
use super::{TokenKind, Tokenizer, bytes, invalid, suffix_warning};
use crate::checkpoint::gguf::{Gguf, Metadata};
use crate::error::{Error, Result};
use crate::machine::file;
use crate::token::TokenId;
use ahash::{AHashMap, AHashSet};
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;

/// The file's name, also beside a GGUF that has no tokenizer inside.
pub(super) const FILE_NAME: &str = "tokenizer.json";

/// How many ids a vocabulary may leave out, beyond as many as it has. It bounds the memory that a wrong id can cost.
const SPARE_IDS: usize = 1 << 16;

/// The files that lie beside a `tokenizer.json` and say which tokens begin and end a text. Null if a file is missing.
#[derive(Default)]
pub(super) struct Companions {
    /// The content of `tokenizer_config.json`.
    config: Value,
    /// The content of `generation_config.json`.
    generation: Value,
    /// The content of `config.json`, the model's configuration.
    model: Value,
}

impl Companions {
    /// Reads the files in the same folder as `path`.
    fn beside(path: &Path) -> Result<Companions> {
        Companions::of_files(|name| file::read(&path.with_file_name(name)).ok())
    }

    /// Reads the files whose content `find` gives by their names.
    fn of_files<B: AsRef<[u8]>>(find: impl Fn(&str) -> Option<B>) -> Result<Companions> {
        let read = |name: &str| match find(name) {
            Some(bytes) => parse(bytes.as_ref()).map_err(|error| error.at(name)),
            None => Ok(Value::Null),
        };
        Ok(Companions {
            config: read("tokenizer_config.json")?,
            generation: read("generation_config.json")?,
            model: read("config.json")?,
        })
    }

    /// The same facts from the metadata of a GGUF file.
    pub(super) fn of_metadata(metadata: &Metadata) -> Result<Companions> {
        let id = |key: &str| metadata.uint(&format!("tokenizer.ggml.{key}_token_id"));
        let stop: Vec<usize> = [id("eos")?, id("eot")?, id("eom")?].into_iter().flatten().collect();
        let config = json!({"add_bos_token": metadata.bool("tokenizer.ggml.add_bos_token")?});
        let generation = json!({"bos_token_id": id("bos")?, "eos_token_id": stop});
        Ok(Companions { config, generation, model: Value::Null })
    }
}

/// Whether a file begins like a JSON object.
pub fn is_json(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = file::open(path).and_then(|file| file.take(64).read_to_end(&mut head));
    let text = head.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&head);
    read.is_ok() && text.trim_ascii_start().starts_with(b"{")
}

/// The error for a directory without tokenizer.
pub(super) fn missing(folder: &Path) -> Error {
    invalid(format!(
        "there is no {FILE_NAME}, so the model has no tokenizer; give token ids in place of text, or make the file with \
         transformers: AutoTokenizer.from_pretrained(…).save_pretrained(…)"
    ))
    .at(folder.display())
}

/// Opens a `tokenizer.json` with the files beside it. A pre-tokenizer that the caller chose (`pre`) is an error.
pub(super) fn open(path: &Path, pre: Option<&str>) -> Result<Tokenizer> {
    let bytes = file::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
    let loaded = Companions::beside(path).and_then(|companions| load(&bytes, &companions, pre));
    loaded.map_err(|error| error.at(path.display()))
}

/// Loads the `tokenizer.json` that a packed model holds; `None` if it holds none.
pub(super) fn of_packed(gguf: &Gguf, pre: Option<&str>) -> Result<Option<Tokenizer>> {
    let Some(bytes) = gguf.packed_beside(FILE_NAME) else { return Ok(None) };
    let companions = Companions::of_files(|name| gguf.packed_beside(name));
    let loaded = companions.and_then(|companions| load(bytes, &companions, pre));
    loaded.map(Some).map_err(|error| error.at(FILE_NAME))
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
    let decoding = decoding(&file["decoder"])?;
    let added = added_tokens(&file["added_tokens"], &model["vocab"])?;
    let (texts, kinds) = vocabulary(model, options.byte_fallback, &added)?;
    let in_range = |value: &Value| value.as_u64().filter(|id| *id < texts.len() as u64).map(|id| id as TokenId);
    let end_id = |(text, id): (&str, &Value)| {
        let outside = || invalid(format!("post_processor: the token '{text}' has the id {id}, which no token has"));
        in_range(id).ok_or_else(outside)
    };
    let [front, end] = ends(&file["post_processor"])?.map(|end| end.map(end_id).transpose());
    let (front, end) = (front?, end?);

    let id = |text: &str| texts.iter().position(|known| known == text).map(|id| id as TokenId);
    let configured = |key: &str| {
        let token = &companions.config[key];
        id(token.as_str().or(token["content"].as_str())?)
    };
    // An id, or a list of ids.
    let generated = |key: &str| -> Vec<TokenId> {
        let values = [&companions.generation[key], &companions.model[key]];
        let items = |value| Value::as_array(value).map_or(std::slice::from_ref(value), Vec::as_slice);
        values.into_iter().flat_map(items).filter_map(in_range).collect()
    };
    let mut stop = generated("eos_token_id");
    let bos = front.or_else(|| configured("bos_token")).or_else(|| generated("bos_token_id").first().copied());
    let eos = configured("eos_token").or(stop.first().copied()).or(end);
    let add_bos = companions.config["add_bos_token"].as_bool().unwrap_or(front.is_some());
    let add_eos = companions.config["add_eos_token"].as_bool().unwrap_or(end.is_some());
    let suffix = end.or(eos).filter(|_| add_eos);
    stop.extend(eos);

    let normalized = normalized(&added, &pipeline)?;
    let found: Vec<SpecialToken> = added
        .iter()
        .filter(|token| token.normalized)
        .map(|token| SpecialToken {
            text: normalized.get(&token.id).map_or(token.text, String::as_str),
            ..token.clone()
        })
        .collect();
    let specials = Specials::of_json(&added, &found)?;
    let merges = items(&model["merges"]).map(merge).collect::<Result<Vec<_>>>()?;
    // Text becomes a control token only where it is written, not by merges; except for the unknown token and bytes.
    let merged = |text: &str, id: TokenId| {
        let kind = kinds[id as usize];
        !kind.is_control() || kind == TokenKind::Unknown || options.byte_fallback && bytes::from_hex(text).is_some()
    };
    let tokens = || -> IdsByText {
        let all = model["vocab"].as_object().into_iter().flatten();
        let ids = all.filter_map(|(text, id)| Some((text.clone(), in_range(id)?)));
        ids.filter(|(text, id)| !text.is_empty() && merged(text, *id)).collect()
    };
    let model = MergeModel::by_rank(tokens, merges.iter().copied(), &options)?;
    let unused = ["truncation", "padding"].into_iter().filter(|key| !file[*key].is_null());
    let unused = unused.map(|key| format!("the file's '{key}' is not applied: texts keep their length"));
    let warnings: Vec<String> = suffix.map(|id| suffix_warning(&texts, id)).into_iter().chain(unused).collect();
    Ok(Tokenizer {
        specials,
        pipeline,
        model,
        decoding,
        control_ids: ids_by_text(&texts, &kinds, TokenKind::is_special),
        pre: FILE_NAME.to_string(),
        fingerprint: blake3::hash(bytes).to_hex().to_string(),
        add_bos: add_bos && bos.is_some(),
        normalized,
        texts,
        kinds,
        bos,
        eos,
        suffix,
        stop,
        warning: (!warnings.is_empty()).then(|| warnings.join("; ")),
    }
    .with_known_stop_texts())
}

/// The options of the file's byte-pair encoding.
fn bpe_options(model: &Value) -> Result<BpeOptions> {
    if model.is_null() {
        return Err(invalid("has no 'model', so it is not a tokenizer.json"));
    }
    if !matches!(model["type"].as_str(), None | Some("BPE")) || !model["vocab"].is_object() {
        let known = "BPE with a 'vocab'";
        return Err(unsupported("model", &json!({"type": model["type"]}), known));
    }
    let off = |value: &Value| value.is_null() || *value == 0.0 || *value == "";
    let options = ["dropout", "continuing_subword_prefix", "end_of_word_suffix"];
    if let Some(key) = options.into_iter().find(|key| !off(&model[*key])) {
        return Err(Error::Unsupported(format!(
            "model: its {key} is {}, which is not supported; this engine has BPE without it",
            shortened(&model[key])
        )));
    }
    Ok(BpeOptions {
        ignore_merges: model["ignore_merges"] == true,
        byte_fallback: model["byte_fallback"] == true,
        fuse_unknown: model["fuse_unk"] == true,
        unknown: model["unk_token"].as_str().filter(|text| model["vocab"][*text].is_u64()).map(str::to_string),
    })
}

/// The tokens of the file's `added_tokens`, with the ids that the `tokenizers` library gives them: that of the
/// vocabulary, or else the next one behind it.
fn added_tokens<'a>(list: &'a Value, vocab: &Value) -> Result<Vec<SpecialToken<'a>>> {
    let mut next = vocab.as_object().map_or(0, |vocab| vocab.len() as u64);
    let (mut added, mut known) = (Vec::new(), AHashSet::new());
    for token in items(list) {
        let text = token["content"].as_str();
        let text = text.ok_or_else(|| invalid("added_tokens: a token has no 'content', expected its text"))?;
        if text.is_empty() {
            continue;
        }
        if !known.insert(text) {
            return Err(invalid(format!("added_tokens: the token '{text}' is there twice; leave one out")));
        }
        let id = vocab[text].as_u64().unwrap_or_else(|| {
            next += 1;
            next - 1
        });
        if token["id"] != id {
            return Err(invalid(format!(
                "added_tokens: the token '{text}' has the id {}, expected {id}: its id in 'vocab', or the next one \
                 behind the vocabulary",
                token["id"]
            )));
        }
        let kind = if token["special"] == true { TokenKind::Control } else { TokenKind::UserDefined };
        added.push(SpecialToken {
            id: TokenId::try_from(id).map_err(|_| wrong_id(text, &token["id"]))?,
            text,
            kind,
            strip: (token["lstrip"] == true, token["rstrip"] == true),
            single_word: token["single_word"] == true,
            normalized: token["normalized"] == true,
        });
    }
    Ok(added)
}

/// The normalized texts of added tokens whose text changes.
fn normalized(added: &[SpecialToken], pipeline: &Pipeline) -> Result<AHashMap<TokenId, String>> {
    let (mut changed, mut known) = (AHashMap::new(), AHashSet::new());
    let written: AHashMap<&str, TokenId> = added.iter().map(|token| (token.text, token.id)).collect();
    for token in added.iter().filter(|token| token.normalized) {
        let text = pipeline.normalize(token.text);
        let is_other = written.get(&*text).is_some_and(|id| *id != token.id);
        if text.is_empty() || is_other || !known.insert(text.to_string()) {
            return Err(Error::Unsupported(format!(
                "added_tokens: the token '{}' has the normalized text '{text}', which is empty or that of another \
                 token; this engine has added tokens that differ",
                token.text
            )));
        }
        if text != token.text {
            changed.insert(token.id, text.into_owned());
        }
    }
    Ok(changed)
}

fn wrong_id(text: &str, id: &Value) -> Error {
    invalid(format!("token '{text}' has the id {id}, expected a number from 0 up to about that of tokens"))
}

/// The text and the kind of each id.
fn vocabulary(model: &Value, byte_fallback: bool, added: &[SpecialToken]) -> Result<(Vec<String>, Vec<TokenKind>)> {
    let mut tokens = Vec::new();
    for (text, id) in model["vocab"].as_object().into_iter().flatten() {
        let is_byte = byte_fallback && bytes::from_hex(text).is_some();
        let kind = if is_byte { TokenKind::Byte } else { TokenKind::Normal };
        let number = id.as_u64().and_then(|id| TokenId::try_from(id).ok()).ok_or_else(|| wrong_id(text, id))?;
        tokens.push((number, text.as_str(), kind));
    }
    // The unknown token is usually among the added tokens.
    let kind_of = |added: &SpecialToken| match added.kind {
        TokenKind::Control if model["unk_token"] == added.text => TokenKind::Unknown,
        kind => kind,
    };
    tokens.extend(added.iter().map(|added| (added.id, added.text, kind_of(added))));
    if let Some((id, text, _)) = tokens.iter().find(|(id, ..)| *id as usize >= 2 * tokens.len() + SPARE_IDS) {
        return Err(wrong_id(text, &json!(id)));
    }
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
        kinds[id] = kind;
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
