//! Typed access to the settings of a `config.json`, and what becomes of those that nobody asked for.

use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

/// Settings that do not change what the model computes for given ids: where it came from, how it was trained, how
/// transformers samples. Those of the tokenizer are read by the tokenizer.
const HARMLESS: &str = " \
    _name_or_path architectures auto_map transformers_version torch_dtype dtype use_cache tokenizer_class \
    bos_token_id eos_token_id pad_token_id sep_token_id unk_token_id cls_token_id mask_token_id eod_token_id \
    decoder_start_token_id initializer_range pretraining_tp output_attentions output_hidden_states output_scores \
    return_dict return_dict_in_generate torchscript use_bfloat16 tf_legacy_loss pruned_heads \
    chunk_size_feed_forward finetuning_task id2label label2id problem_type prefix task_specific_params \
    max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k \
    top_p min_p typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size \
    bad_words_ids num_return_sequences forced_bos_token_id forced_eos_token_id remove_invalid_values \
    exponential_decay_length_penalty attention_dropout hidden_dropout hidden_dropout_prob resid_pdrop embd_pdrop \
    attn_pdrop suppress_tokens begin_suppress_tokens attn_implementation \
    _attn_implementation _attn_implementation_autoset _attn_implementation_internal use_flash_attn \
    cache_implementation ";

/// Names of settings with one of these parts speak of the graph.
const GRAPH_WORDS: &[&str] = &[
    "act",
    "adapter",
    "alibi",
    "attn",
    "attention",
    "bias",
    "causal",
    "bits",
    "bidirectional",
    "clamp",
    "clip",
    "conv",
    "cross",
    "decoder",
    "embed",
    "encoder",
    "expert",
    "head",
    "hidden",
    "kv",
    "layer",
    "logit",
    "lora",
    "mamba",
    "mlp",
    "moe",
    "multiplier",
    "norm",
    "parallel",
    "position",
    "qk",
    "quant",
    "residual",
    "rope",
    "rotary",
    "router",
    "scale",
    "scaling",
    "softcap",
    "sparse",
    "ssm",
    "vision",
    "window",
];

/// The settings of one `config.json`, or those of a map inside it.
pub(super) struct Settings<'a> {
    /// The file, for errors.
    pub path: &'a Path,
    /// What stands in front of a setting's name in errors, such as `rope_scaling.`.
    prefix: &'static str,
    map: &'a Map<String, Value>,
    /// The names that were asked for.
    used: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Settings<'a> {
    pub fn new(path: &'a Path, prefix: &'static str, map: &'a Map<String, Value>) -> Settings<'a> {
        Settings { path, prefix, map, used: RefCell::default() }
    }

    /// A setting, unless it is missing or null.
    pub fn get(&self, key: &'static str) -> Option<&'a Value> {
        self.used.borrow_mut().insert(key);
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The first entry of `other` that has another value here, or none.
    pub fn differs_from(&self, other: &Settings) -> Option<&'a str> {
        let differs = |(key, value): &(&'a String, &'a Value)| {
            !value.is_null() && other.map.get(*key).is_some_and(|other| !equal(value, other))
        };
        self.map.iter().find(differs).map(|(key, _)| &**key)
    }

    /// Whether there is such a setting other than null. It is not taken as asked for.
    pub fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|value| !value.is_null())
    }

    fn typed<T>(&self, key: &'static str, expected: &str, convert: fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| self.wrong(key, &shown(value), expected))
    }

    pub fn uint(&self, key: &'static str) -> Result<Option<u64>> {
        self.typed(key, "a whole number from 0 up", Value::as_u64)
    }

    /// A number as f64. JSON has no infinity, but a number may be too large for f32.
    pub fn number(&self, key: &'static str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub fn bool(&self, key: &'static str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub fn str(&self, key: &'static str) -> Result<Option<&'a str>> {
        self.typed(key, "a text", Value::as_str)
    }

    pub fn numbers(&self, key: &'static str) -> Result<Option<Vec<f64>>> {
        self.typed(key, "a list of numbers", |value| value.as_array()?.iter().map(Value::as_f64).collect())
    }

    pub fn strings(&self, key: &'static str) -> Result<Option<Vec<&'a str>>> {
        self.typed(key, "a list of texts", |value| value.as_array()?.iter().map(Value::as_str).collect())
    }

    pub fn map(&self, key: &'static str, prefix: &'static str) -> Result<Option<Settings<'a>>> {
        let map = self.typed(key, "an object", Value::as_object)?;
        Ok(map.map(|map| Settings::new(self.path, prefix, map)))
    }

    /// A number that must be there.
    pub fn required(&self, key: &'static str) -> Result<u64> {
        self.uint(key)?.ok_or_else(|| self.file_error(format!("'{}{key}' is missing", self.prefix)))
    }

    /// The error for a setting that contradicts the file's format.
    pub fn wrong(&self, key: &str, found: &str, expected: &str) -> Error {
        self.file_error(format!("'{}{key}' is {found}, expected {expected}", self.prefix))
    }

    /// The error for a sound setting that this engine does not run.
    pub fn unsupported(&self, key: &str, found: &str, known: &str) -> Error {
        Error::Unsupported(format!("{}: '{}{key}' is {found}; this engine {known}", self.path.display(), self.prefix))
    }

    fn file_error(&self, reason: String) -> Error {
        Error::File { path: self.path.into(), reason }
    }

    /// Refuses a setting whose value is another one than those at which it changes nothing.
    pub fn expect(&self, key: &'static str, neutral: &[Value]) -> Result<()> {
        match self.get(key).filter(|value| !neutral.iter().any(|other| equal(value, other))) {
            None => Ok(()),
            Some(value) => {
                let known = neutral.iter().map(shown).collect::<Vec<_>>().join(" or ");
                Err(self.unsupported(key, &shown(value), &format!("computes models with {known} alone")))
            }
        }
    }

    /// Refuses settings that nobody asked for if they may change the graph; warns of others that are not known. With
    /// `all`, each of them may.
    pub fn refuse_others(&self, all: bool) -> Result<Vec<String>> {
        let used = self.used.borrow();
        let mut unknown = Vec::new();
        for (key, value) in self.map {
            if used.contains(&**key) || is_neutral(key, value) || HARMLESS.contains(&format!(" {key} ")) {
                continue;
            }
            let key = key.escape_debug().to_string();
            if all || GRAPH_WORDS.iter().any(|word| key.to_ascii_lowercase().contains(word)) {
                let known = "does not know this setting, which may change what the model computes; if it does not, \
                             remove it from the file";
                return Err(self.unsupported(&key, &shown(value), known));
            }
            unknown.push(key);
        }
        let warning = |keys: &str| {
            format!("{}: settings that this engine does not know have no effect: {keys}", self.path.display())
        };
        Ok(if unknown.is_empty() { Vec::new() } else { vec![warning(&unknown.join(", "))] })
    }
}

/// Whether a value says that something is off, or that a factor is 1.
fn is_neutral(key: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => {
            let is_factor = ["multiplier", "scal", "factor"].iter().any(|word| key.contains(word));
            number.as_f64() == Some(if is_factor { 1.0 } else { 0.0 })
        }
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
    }
}

/// Equality in which 8 and 8.0 are the same number.
fn equal(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

/// A value for people, cut if it is long.
pub(super) fn shown(value: &Value) -> String {
    const MOST: usize = 72;
    let text = match value {
        // Long lists and objects are never written out.
        Value::Array(items) if items.len() > MOST => return format!("a list of {} items", items.len()),
        Value::Object(entries) if entries.len() > MOST => return format!("an object of {} entries", entries.len()),
        other => other.to_string(),
    };
    if text.chars().count() <= MOST { text } else { text.chars().take(MOST).chain(['…']).collect() }
}
