//! Calls as Qwen3-Coder writes them: each argument between tags, a text as it is and anything else as JSON.

use super::{FoundCall, Tool, is_text, json};
use serde_json::{Map, Value as Json};

/// In front of the name of the function.
pub(super) const FUNCTION: &str = "<function=";
pub(super) const END_FUNCTION: &str = "</function>";
/// In front of the name of an argument.
pub(super) const PARAMETER: &str = "<parameter=";
pub(super) const END_PARAMETER: &str = "</parameter>";

/// The call in a text from the function's name to its end tag.
pub(super) fn call(text: &str, tools: &[Tool]) -> Option<FoundCall> {
    let (name, mut rest) = text.split_once('>')?;
    let tool = tools.iter().find(|tool| tool.name == name.trim())?;
    let mut arguments = Map::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Some(FoundCall { name: tool.name.clone(), arguments: json::text(&arguments.into()) });
        }
        let (name, value) = rest.strip_prefix(PARAMETER)?.split_once('>')?;
        let name = name.trim();
        // A value may contain the end tag; the value ends where another argument or nothing follows.
        let is_end = |at: &usize| {
            let after = value[at + END_PARAMETER.len()..].trim_start();
            after.is_empty() || after.starts_with(PARAMETER)
        };
        let end = value.match_indices(END_PARAMETER).map(|(at, _)| at).find(is_end)?;
        arguments.insert(name.into(), argument(&value[..end], &tool.parameters["properties"][name]));
        rest = &value[end + END_PARAMETER.len()..];
    }
}

/// The value of an argument. The newlines beside the tags are not part of it.
fn argument(text: &str, schema: &Json) -> Json {
    let text = text.strip_prefix('\n').unwrap_or(text);
    let text = text.strip_suffix('\n').unwrap_or(text);
    let may_be_null = || schema["type"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "null"));
    if is_text(schema) && !(text == "null" && may_be_null()) {
        return text.into();
    }
    // Qwen 3.5's template shows these values as Python prints them. What is no JSON is a text.
    match text.trim() {
        "True" => true.into(),
        "False" => false.into(),
        "None" => Json::Null,
        value => serde_json::from_str(value).unwrap_or_else(|_| text.into()),
    }
}
