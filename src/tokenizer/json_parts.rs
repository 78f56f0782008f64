//! The parts of a `tokenizer.json` around its model: normalizer, pre-tokenizer, post-processor, decoder. Each part does
//! what the `tokenizers` library does, or is refused by its name and place.

use super::detokenizer::{Decoding, Spelling, Start};
use super::invalid;
use super::onig;
use super::pipeline::{Normalize, Pipeline, Step};
use super::pre_tokenizers::GPT2;
use super::split::{Behavior, Split};
use crate::error::{Error, Result};
use serde_json::Value;

/// The error for a part of the file that this engine does not have. `place` is its key.
pub(super) fn unsupported(place: &str, found: &Value, known: &str) -> Error {
    let name =
        found["type"].as_str().map_or_else(|| shortened(found), |name| format!("'{name}' ({})", shortened(found)));
    Error::Unsupported(format!("{place}: {name} is not supported; this engine has {known}"))
}

/// A value as an error shows it.
pub(super) fn shortened(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 120 { text } else { text.chars().take(120).collect::<String>() + "…" }
}

/// The items of a list; nothing for any other value.
pub(super) fn items(list: &Value) -> impl Iterator<Item = &Value> {
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

/// A value that is one character.
fn character(value: &Value) -> Option<char> {
    let mut chars = value.as_str()?.chars();
    chars.next().filter(|_| chars.next().is_none())
}

/// The pattern and the content of a `Replace` of a text, which is not empty.
fn replacement(step: &Value) -> Option<(String, String)> {
    let from = step["pattern"]["String"].as_str().filter(|from| !from.is_empty())?;
    Some((from.to_string(), step["content"].as_str()?.to_string()))
}

/// The normalizer and the pre-tokenizer of the file.
pub(super) fn pipeline(normalizer: &Value, pre_tokenizer: &Value) -> Result<Pipeline> {
    let normalizers = members(normalizer, "normalizers").into_iter().map(normalize).collect::<Result<Vec<_>>>()?;
    let mut pipeline = Pipeline { normalizers, steps: Vec::new() };
    for step in members(pre_tokenizer, "pretokenizers") {
        let steps = steps(step)?;
        // Where the text starts is known only while nothing but splits has touched it.
        let touched =
            !pipeline.normalizers.is_empty() || !pipeline.steps.iter().all(|step| matches!(step, Step::Split(_)));
        if touched && steps.iter().any(|step| matches!(step, Step::Prefix { first: true, .. })) {
            return Err(unsupported(
                "pre_tokenizer",
                step,
                "Metaspace with the prepend_scheme 'first' only if no normalizer and no ByteLevel or Metaspace comes \
                 before it",
            ));
        }
        pipeline.steps.extend(steps);
    }
    Ok(pipeline)
}

/// One normalizer.
fn normalize(step: &Value) -> Result<Normalize> {
    let refused = || {
        let known = "NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, Nmt, BertNormalizer, Prepend, and Replace of \
                     a text (not of a Regex)";
        unsupported("normalizer", step, known)
    };
    let library = || serde_json::from_value(step.clone()).map_err(|_| refused());
    match step["type"].as_str() {
        Some("NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase" | "StripAccents" | "Strip" | "Nmt" | "BertNormalizer") => {
            Ok(Normalize::Library(Box::new(library()?)))
        }
        Some("Prepend") => Ok(Normalize::Prepend(step["prepend"].as_str().ok_or_else(refused)?.to_string())),
        Some("Replace") => replacement(step).map(|(from, to)| Normalize::Replace(from, to)).ok_or_else(refused),
        _ => Err(refused()),
    }
}

/// What the pre-tokenizer `Punctuation` matches: the ASCII symbols, and punctuation as Unicode 8 has it.
const PUNCTUATION: &str = r"[[\p{P}&&\p{age:8.0}]\x{166d}\x{111c9}!-/:-@\[-`{-~]";

/// What the pre-tokenizer `Digits` matches: numbers as Unicode 17 has them.
const NUMBER: &str = r"[\p{N}\x{11de0}-\x{11de9}\x{16ff4}-\x{16ff6}]";

/// The steps of one pre-tokenizer.
fn steps(step: &Value) -> Result<Vec<Step>> {
    let refused = || {
        let known = "ByteLevel, Metaspace, Split, Digits, Punctuation, Whitespace, WhitespaceSplit, CharDelimiterSplit \
                     and BertPreTokenizer";
        unsupported("pre_tokenizer", step, known)
    };
    let split = |pattern: &str, behavior| Ok(Step::from(Split::new(pattern)?.with(behavior, false)));
    let behavior = || match step["behavior"].as_str() {
        Some("Isolated") => Ok(Behavior::Isolated),
        Some("Removed") => Ok(Behavior::Removed),
        Some("Contiguous") => Ok(Behavior::Contiguous),
        Some("MergedWithPrevious") => Ok(Behavior::MergedWithPrevious),
        Some("MergedWithNext") => Ok(Behavior::MergedWithNext),
        None if step["type"] == "Punctuation" => Ok(Behavior::Isolated),
        _ => Err(refused()),
    };
    let pattern = &step["pattern"];
    Ok(match step["type"].as_str() {
        Some("Split") => {
            let pattern = match (pattern["Regex"].as_str(), pattern["String"].as_str()) {
                (Some(regex), _) => onig::translated(regex)?,
                (None, Some(text)) if !text.is_empty() => Split::literal(text),
                _ => return Err(refused()),
            };
            let split = Split::new(&pattern)?.with(behavior()?, step["invert"] == true);
            if split.matches_nothing() {
                return Err(unsupported("pre_tokenizer", step, "patterns whose matches have at least one character"));
            }
            vec![split.into()]
        }
        Some("Digits") if step["individual_digits"] == true => vec![split(NUMBER, Behavior::Isolated)?],
        Some("Digits") => vec![split(NUMBER, Behavior::Contiguous)?],
        Some("Punctuation") => vec![split(PUNCTUATION, behavior()?)?],
        Some("BertPreTokenizer") => vec![split(r"\s", Behavior::Removed)?, split(PUNCTUATION, Behavior::Isolated)?],
        Some("Whitespace") => vec![Split::new(r"\w+|[^\w\s]+")?.with(Behavior::Removed, true).into()],
        Some("WhitespaceSplit") => vec![split(r"\s", Behavior::Removed)?],
        Some("CharDelimiterSplit") => {
            let delimiter = character(&step["delimiter"]).ok_or_else(refused)?;
            vec![split(&Split::literal(&delimiter.to_string()), Behavior::Removed)?]
        }
        Some("ByteLevel") => {
            let mut steps = Vec::new();
            if step["add_prefix_space"] == true {
                steps.push(Step::Prefix { mark: ' ', first: false });
            }
            if step["use_regex"] != false {
                steps.push(split(GPT2, Behavior::Isolated)?);
            }
            steps.push(Step::Bytes);
            steps
        }
        Some("Metaspace") => {
            let (mark, scheme) = metaspace(step).ok_or_else(refused)?;
            let mut steps = vec![Step::Spaces(mark)];
            if scheme != "never" {
                steps.push(Step::Prefix { mark, first: scheme == "first" });
            }
            if step["split"] != false {
                steps.push(split(&Split::literal(&mark.to_string()), Behavior::MergedWithNext)?);
            }
            steps
        }
        _ => return Err(refused()),
    })
}

/// The character and the scheme of a `Metaspace`, as a pre-tokenizer or as a decoder.
fn metaspace(step: &Value) -> Option<(char, &str)> {
    let scheme = match step["prepend_scheme"].as_str() {
        Some(scheme) => scheme,
        None if step["add_prefix_space"] == false => "never",
        None => "always",
    };
    let agrees = step["add_prefix_space"] != false || scheme == "never";
    let known = ["always", "first", "never"].contains(&scheme) && agrees;
    Some((character(&step["replacement"])?, scheme)).filter(|_| known)
}

/// The decoder of the file.
pub(super) fn decoding(decoder: &Value) -> Result<Decoding> {
    let known = "ByteLevel, Metaspace, or a Sequence of Replace of a text, ByteFallback, Fuse and Strip of spaces at \
                 the start, in this order";
    let steps = members(decoder, "decoders");
    let refused = |step: &Value| unsupported("decoder", step, known);
    let (mut replace, mut bytes, mut start) = (Vec::new(), false, Start::Kept);
    // How far the order has come: texts replaced, bytes, fused.
    let mut reached = 0;
    for (i, step) in steps.iter().enumerate() {
        let alone = i == 0 && steps[1..].iter().all(|step| step["type"] == "Fuse");
        match step["type"].as_str() {
            Some("ByteLevel") if alone => return Ok(Decoding { spelling: Spelling::Bytes, is_json: true, start }),
            Some("Metaspace") if alone => {
                let (mark, scheme) = metaspace(step).ok_or_else(|| refused(step))?;
                replace.push((mark.to_string(), " ".to_string()));
                start = if scheme == "never" { Start::Kept } else { Start::Marks(mark) };
            }
            Some("Replace") if reached == 0 => replace.push(replacement(step).ok_or_else(|| refused(step))?),
            Some("ByteFallback") if reached == 0 => (bytes, reached) = (true, 1),
            Some("Fuse") => reached = 2,
            Some("Strip") if reached == 2 && step["content"] == " " && step["stop"] == 0 => {
                let most = step["start"].as_u64().ok_or_else(|| refused(step))?;
                (start, reached) = (Start::Spaces(most as usize), 3);
            }
            _ => return Err(refused(step)),
        }
    }
    // These could make a byte token of another, or another of a byte token.
    let makes_bytes = |text: &str| text.contains(|c: char| c.is_ascii_alphanumeric() || "<>".contains(c));
    if steps.is_empty() || bytes && replace.iter().any(|(from, to)| makes_bytes(from) || makes_bytes(to)) {
        return Err(refused(decoder));
    }
    Ok(Decoding { spelling: Spelling::Text { replace, bytes }, is_json: true, start })
}

/// The tokens that the post-processor adds at the start and at the end of a text: text and id.
pub(super) type Ends<'a> = [Option<(&'a str, &'a Value)>; 2];

/// What the post-processor adds.
pub(super) fn ends(post_processor: &Value) -> Result<Ends<'_>> {
    let mut ends: Ends = [None, None];
    let mut adds = false;
    for step in members(post_processor, "processors") {
        let refused = |known| unsupported("post_processor", step, known);
        if step["type"] != "ByteLevel" && std::mem::replace(&mut adds, true) {
            return Err(refused("one part of a Sequence that adds tokens"));
        }
        let mut add = |side: usize, token| match ends[side].replace(token) {
            None => Ok(()),
            Some(_) => Err(refused("at most one token on each side of a text; this file adds several tokens")),
        };
        match step["type"].as_str() {
            Some("ByteLevel") => (),
            Some("BertProcessing" | "RobertaProcessing") => {
                for (side, key) in [(0, "cls"), (1, "sep")] {
                    let text = step[key][0].as_str();
                    add(
                        side,
                        (text.ok_or_else(|| invalid(format!("post_processor: it has no '{key}'")))?, &step[key][1]),
                    )?;
                }
            }
            Some("TemplateProcessing") => {
                let mut side = 0;
                for piece in items(&step["single"]) {
                    let Some(name) = piece["SpecialToken"]["id"].as_str() else {
                        if piece["Sequence"]["id"] != "A" || side == 1 {
                            return Err(refused("a 'single' with the text once"));
                        }
                        side = 1;
                        continue;
                    };
                    let ids = step["special_tokens"][name]["ids"].as_array();
                    let [id] = ids.map_or(&[][..], Vec::as_slice) else {
                        return Err(refused("special tokens of one id each"));
                    };
                    add(side, (name, id))?;
                }
                if side == 0 {
                    return Err(refused("a 'single' with the text once"));
                }
            }
            _ => {
                let known = "ByteLevel, TemplateProcessing, BertProcessing and RobertaProcessing";
                return Err(refused(known));
            }
        }
    }
    Ok(ends)
}
