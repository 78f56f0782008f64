//! Reads calls off the text of an answer.

use super::{ARGS, BEGIN, CallFormat, CallReader, END, PYTHON_TAG, TOOL_CALLS, Tool, json, xml};
use serde_json::{Map, Value as Json};

/// A call as the model wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCall {
    /// The name of the function.
    pub name: String,
    /// The arguments: the JSON text of an object.
    pub arguments: String,
}

/// What a text begins with.
#[derive(Debug, PartialEq)]
pub enum Reading {
    /// More text has to come first.
    Undecided,
    /// No call.
    Text,
    /// Calls, which take this many bytes.
    Calls(Vec<FoundCall>, usize),
}

impl CallReader {
    /// Reads the calls at the start of a text: it begins with the format's mark or, without one, with the first
    /// character of an answer that is no white space. `last`: no more text follows.
    pub fn read(&self, text: &str, last: bool) -> Reading {
        let read = match self.format {
            CallFormat::Hermes | CallFormat::Xml => self.tagged(&text[BEGIN.len()..], last),
            CallFormat::Mistral | CallFormat::MistralArgs => self.mistral(&text[TOOL_CALLS.len()..]),
            CallFormat::Llama | CallFormat::Json => self.bare(text),
        };
        match read {
            Reading::Calls(calls, rest) => Reading::Calls(calls, text.len() - rest),
            Reading::Undecided if last => Reading::Text,
            read => read,
        }
    }

    // The following return how many bytes are left in place of how many were taken.

    /// A call between tags, read behind the first one. The second one may be missing at the end of an answer.
    fn tagged(&self, body: &str, last: bool) -> Reading {
        let body = body.trim_start();
        if body.starts_with(['{', '[']) {
            let Some(end) = json_end(body) else { return Reading::Undecided };
            let (body, after) = body.split_at(end);
            return ended(after, last, || json_calls(body, &self.tools));
        }
        if let Some(function) = body.strip_prefix(xml::FUNCTION) {
            // A value may contain the tag; the function ends where the end of the call follows.
            for (at, _) in function.match_indices(xml::END_FUNCTION) {
                let call = || xml::call(&function[..at], &self.tools).map(|call| vec![call]);
                match ended(&function[at + xml::END_FUNCTION.len()..], last, call) {
                    Reading::Text => {}
                    read => return read,
                }
            }
            return Reading::Undecided;
        }
        if xml::FUNCTION.starts_with(body) { Reading::Undecided } else { Reading::Text }
    }

    /// Calls of Mistral, read behind the mark: a list, or the name and the arguments of one.
    fn mistral(&self, body: &str) -> Reading {
        let body = body.trim_start();
        if body.is_empty() {
            return Reading::Undecided;
        }
        if body.starts_with(['{', '[']) {
            return self.json(body);
        }
        let name = body.split(['[', '{', ' ', '\n']).next().unwrap_or_default();
        let rest = &body[name.len()..];
        let arguments = rest.strip_prefix(ARGS).unwrap_or(rest).trim_start();
        if arguments.is_empty() || ARGS.starts_with(rest) {
            return Reading::Undecided;
        }
        if !arguments.starts_with('{') {
            return Reading::Text;
        }
        let Some(end) = json_end(arguments) else { return Reading::Undecided };
        let value = serde_json::from_str(&arguments[..end]).ok();
        match value.and_then(|value: Json| call(name, &value, &self.tools)) {
            Some(call) => Reading::Calls(vec![call], arguments.len() - end),
            None => Reading::Text,
        }
    }

    /// A call that is all of an answer.
    fn bare(&self, text: &str) -> Reading {
        let body = text.strip_prefix(PYTHON_TAG).unwrap_or(text).trim_start();
        if body.is_empty() || PYTHON_TAG.starts_with(text) {
            return Reading::Undecided;
        }
        if body.starts_with(['{', '[']) { self.json(body) } else { Reading::Text }
    }

    /// Calls in JSON, behind which the text goes on.
    fn json(&self, body: &str) -> Reading {
        let Some(end) = json_end(body) else { return Reading::Undecided };
        json_calls(&body[..end], &self.tools).map_or(Reading::Text, |calls| Reading::Calls(calls, body.len() - end))
    }
}

/// The calls in front of the end tag, if `after` begins with it.
fn ended(after: &str, last: bool, calls: impl FnOnce() -> Option<Vec<FoundCall>>) -> Reading {
    let after = after.trim_start();
    let left = match after.strip_prefix(END) {
        Some(rest) => rest.len(),
        None if after.is_empty() && last => 0,
        None if END.starts_with(after) => return Reading::Undecided,
        None => return Reading::Text,
    };
    calls().map_or(Reading::Text, |calls| Reading::Calls(calls, left))
}

/// Where the object or list that a text begins with ends: where its brackets are balanced.
fn json_end(text: &str) -> Option<usize> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// The calls that a JSON text describes: one, or a list of them. None if anything in it is no call.
fn json_calls(text: &str, tools: &[Tool]) -> Option<Vec<FoundCall>> {
    let one = |value: &Json| {
        let value = value.get("function").filter(|inner| inner.is_object()).unwrap_or(value);
        let arguments = value.get("arguments").or(value.get("parameters")).unwrap_or(&Json::Null);
        call(value["name"].as_str()?, arguments, tools)
    };
    match serde_json::from_str(text).ok()? {
        Json::Array(values) if values.is_empty() => None,
        Json::Array(values) => values.iter().map(one).collect(),
        value => Some(vec![one(&value)?]),
    }
}

/// A call, if there is a tool of this name and the arguments are an object, the JSON text of one, or missing.
fn call(name: &str, arguments: &Json, tools: &[Tool]) -> Option<FoundCall> {
    let arguments = match arguments {
        Json::Object(_) => json::text(arguments),
        Json::Null => "{}".into(),
        Json::String(text) => {
            serde_json::from_str::<Map<String, Json>>(text).ok().map(|all| json::text(&all.into()))?
        }
        _ => return None,
    };
    tools.iter().any(|tool| tool.name == name).then(|| FoundCall { name: name.into(), arguments })
}
