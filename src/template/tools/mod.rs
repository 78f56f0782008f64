//! Tool calls: how a template's models write them, how a conversation with them is rendered, and grammars for them.
//!
//! A model calls a function by writing text in a format that it was trained on. Which one that is, is read off the
//! template, which shows the format to the model. Models without such a template are told one in the system prompt
//! (`messages.rs`).

mod call;
mod grammar;
mod json;
mod messages;
mod xml;

pub use call::{FoundCall, Reading};

use super::{Conversation, Template};
use crate::error::{Error, Result};
use serde_json::Value as Json;

/// Begins and ends a call of Hermes, Qwen and others.
const BEGIN: &str = "<tool_call>";
const END: &str = "</tool_call>";
/// Llama 3 may write this in front of a call.
const PYTHON_TAG: &str = "<|python_tag|>";
/// Begins the calls of Mistral, and the arguments of a call in its later models.
const TOOL_CALLS: &str = "[TOOL_CALLS]";
const ARGS: &str = "[ARGS]";

/// How a model writes its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFormat {
    /// Hermes, Qwen 2.5 and 3: `<tool_call>{"name": NAME, "arguments": {…}}</tool_call>`.
    Hermes,
    /// Qwen3-Coder, Qwen 3.5: `<tool_call><function=NAME><parameter=P>VALUE</parameter></function></tool_call>`.
    Xml,
    /// Llama 3: the whole answer is `{"name": NAME, "parameters": {…}}`; several calls are separated by `;`.
    Llama,
    /// Mistral: `[TOOL_CALLS][{"name": NAME, "arguments": {…}}]`.
    Mistral,
    /// Later models of Mistral: `[TOOL_CALLS]NAME[ARGS]{…}`.
    MistralArgs,
    /// Any other model: the whole answer is `{"name": NAME, "arguments": {…}}`, several calls on a line each.
    Json,
}

/// Whether and what an answer is to call.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// No call: the tools are not rendered.
    None,
    /// At least one call, of any function.
    Required,
    /// One call of this function.
    Named(String),
}

/// Which calls an answer may have.
#[derive(Clone, Debug, PartialEq)]
pub struct CallRules {
    /// Whether and what to call.
    pub choice: ToolChoice,
    /// Whether an answer may have several calls.
    pub parallel: bool,
}

impl Default for CallRules {
    fn default() -> CallRules {
        CallRules { choice: ToolChoice::Auto, parallel: true }
    }
}

/// A function that may be called.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// The name of the function that is called.
    pub name: String,
    /// The JSON schema of its arguments; null if it has none.
    pub parameters: Json,
}

/// What is needed to find the calls in an answer.
#[derive(Clone, Debug)]
pub struct CallReader {
    /// How the model writes calls.
    pub format: CallFormat,
    /// The functions that may be called; a call of any other one is text.
    pub tools: Vec<Tool>,
    /// Whether calls after the first one count.
    pub parallel: bool,
}

impl CallFormat {
    /// The text that begins a call anywhere in an answer. None: a call is a whole answer.
    pub fn mark(self) -> Option<&'static str> {
        match self {
            CallFormat::Hermes | CallFormat::Xml => Some(BEGIN),
            CallFormat::Mistral | CallFormat::MistralArgs => Some(TOOL_CALLS),
            CallFormat::Llama | CallFormat::Json => None,
        }
    }

    /// The name of the arguments, where a call is a JSON object without marks around it.
    fn bare_arguments(self) -> Option<&'static str> {
        match self {
            CallFormat::Llama => Some("parameters"),
            CallFormat::Json => Some("arguments"),
            _ => None,
        }
    }

    /// Whether a control token with this text is a part of calls.
    pub fn reads(self, control: &str) -> bool {
        let marks: &[&str] = match self {
            CallFormat::Hermes | CallFormat::Xml => &[BEGIN, END],
            CallFormat::Mistral | CallFormat::MistralArgs => &[TOOL_CALLS, ARGS],
            CallFormat::Llama => &[PYTHON_TAG],
            CallFormat::Json => &[],
        };
        marks.contains(&control)
    }
}

impl Template {
    /// How models of this template write calls.
    pub fn call_format(&self) -> CallFormat {
        let has = |text: &str| self.source.contains(text);
        if !self.reads_tools() {
            CallFormat::Json
        } else if has(TOOL_CALLS) {
            if has(ARGS) { CallFormat::MistralArgs } else { CallFormat::Mistral }
        } else if has(BEGIN) {
            if has("<function=") { CallFormat::Xml } else { CallFormat::Hermes }
        } else if has("\"parameters\": ") || has("\\\"parameters\\\": ") {
            CallFormat::Llama
        } else {
            CallFormat::Json
        }
    }

    /// Whether the source reads the variable `tools`.
    fn reads_tools(&self) -> bool {
        self.mentions("tools")
    }
}

impl Tool {
    /// The functions that a list of tools describes: as OpenAI does, `{"type": "function", "function": {…}}`, or only
    /// the inner object. No list is an empty one.
    pub fn all(tools: &Json) -> Result<Vec<Tool>> {
        let tool = |(i, tool): (usize, &Json)| {
            let function = tool.get("function").unwrap_or(tool);
            let Some(name) = function["name"].as_str().filter(|name| !name.is_empty()) else {
                return Err(Error::Argument(format!(
                    "tools[{i}] has no name; a tool is {{\"type\": \"function\", \"function\": {{\"name\": ..., \
                     \"description\": ..., \"parameters\": JSON schema}}}}"
                )));
            };
            Ok(Tool { name: name.into(), parameters: function["parameters"].clone() })
        };
        tools.as_array().into_iter().flatten().enumerate().map(tool).collect()
    }
}

/// A schema of one argument, as far as `xml.rs` and `grammar.rs` have to agree about it: whether a value is written as
/// the text itself, and not as JSON.
fn is_text(schema: &Json) -> bool {
    match &schema["type"] {
        Json::String(kind) => kind == "string",
        Json::Array(kinds) => kinds.iter().any(|kind| kind == "string"),
        _ => match (&schema["enum"], &schema["anyOf"]) {
            (Json::Array(values), _) => values.iter().all(Json::is_string),
            (_, Json::Array(options)) => options.iter().any(is_text),
            _ => schema["const"].is_string(),
        },
    }
}

#[cfg(test)]
#[path = "../../../tests/unit/tools.rs"]
mod tests;
