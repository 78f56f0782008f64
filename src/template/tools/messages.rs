//! Conversations with tool calls, as a template expects them.
//!
//! A template that never reads `tools` would drop them in silence. For such templates the tools are described in the
//! system prompt, and calls and results in the history become text.

use super::{Conversation, Template, ToolChoice, json::text};
use crate::error::{Error, Result, Watch};
use serde_json::{Map, Value as Json, json};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Describes the tools to a model whose template does not: in front of them, and behind them.
const BEFORE: &str = "You can call functions. These are the functions, one JSON object per line:";
const BEHIND: &str = "To call a function, answer with a JSON object and nothing else:\n\
                      {\"name\": \"the name of the function\", \"arguments\": {\"the name of an argument\": its value}}\n\
                      To call several functions, write one such object per line. You are then given the results. If no \
                      function helps, answer in plain text.";
/// In front of a result in the history.
const RESULT: &str = "Result of";

impl Template {
    /// The conversation as it is rendered for an answer: arguments of calls are what the template expects, results know
    /// the name of their function, and a template that does not read tools finds them in the messages.
    pub fn prepared<'a>(&self, conversation: &'a Conversation, watch: &mut Watch) -> Result<Cow<'a, Conversation>> {
        let template = self.for_conversation(conversation);
        let is_empty = |value: &Json| value.as_array().is_none_or(Vec::is_empty);
        let messages = conversation.messages.as_array().map_or(&[][..], Vec::as_slice);
        let has_tools = !is_empty(&conversation.tools) && conversation.calls.choice != ToolChoice::None;
        let has_calls = messages.iter().any(|message| !is_empty(&message["tool_calls"]));
        let is_of_tools = |message: &Json| message["role"] == "tool" || message.get("tool_calls").is_some();
        if conversation.tools.is_null() && !messages.iter().any(is_of_tools) {
            return Ok(Cow::Borrowed(conversation));
        }
        let mut prepared = conversation.clone();
        if conversation.calls.choice == ToolChoice::None {
            prepared.tools = Json::Null;
        }
        let messages = prepared.messages.as_array_mut().map(std::mem::take).unwrap_or_default();
        let mut messages = with_objects(messages)?;
        if !template.reads_tools() && (has_tools || has_calls) {
            messages = with_texts(messages);
        } else if has_calls && !template.mentions("tool_calls") {
            messages.iter_mut().for_each(call_as_text);
        } else if has_calls && template.expects_text(watch) {
            each_call(&mut messages, |function| function["arguments"] = text(&function["arguments"]).into());
        }
        prepared.messages = messages.into();
        if has_tools && !template.reads_tools() {
            template.describe_tools(&mut prepared, watch)?;
        }
        Ok(Cow::Owned(prepared))
    }

    /// Whether the template expects the arguments of a call as a JSON text. Most take an object.
    fn expects_text(&self, watch: &mut Watch) -> bool {
        let mut render = |arguments: Json| {
            let call =
                json!({"id": "call00000", "type": "function", "function": {"name": "f", "arguments": arguments}});
            let messages = json!([
                {"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": [call]}
            ]);
            let probe = Conversation { messages, add_generation_prompt: false, ..Conversation::from_turns(&[], None) };
            self.render_conversation(&probe, watch)
        };
        match render(json!({"k": "v"})) {
            Ok(text) => text.contains("{'k': 'v'}"), // printed as Python prints it
            Err(_) => render(r#"{"k": "v"}"#.into()).is_ok(),
        }
    }

    /// Describes the tools in the system prompt, or in the first message of the user if the template does not show a
    /// system prompt.
    fn describe_tools(&self, conversation: &mut Conversation, watch: &mut Watch) -> Result<()> {
        let lines = conversation.tools.as_array().into_iter().flatten();
        let lines: Vec<String> = lines.map(|tool| text(tool.get("function").unwrap_or(tool))).collect();
        let description = format!("{BEFORE}\n{}\n\n{BEHIND}", lines.join("\n"));
        let Some(messages) = conversation.messages.as_array().cloned() else { return Ok(()) };
        let mut places = Vec::new();
        match messages.first() {
            Some(first) if first["role"] == "system" => {
                places.push(added(&messages, 0, |content| format!("{content}\n\n{description}")));
            }
            _ => {
                let system = json!({"role": "system", "content": description});
                places.push([vec![system], messages.clone()].concat());
            }
        }
        let user = messages.iter().position(|message| message["role"] == "user");
        places.extend(user.map(|at| added(&messages, at, |content| format!("{description}\n\n{content}"))));
        for messages in places {
            conversation.messages = messages.into();
            match self.render_conversation(conversation, watch) {
                Ok(prompt) if prompt.contains(&description) => return Ok(()),
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                _ => {}
            }
        }
        let hidden = "tools are given, but the chat template neither reads them nor shows a system prompt that \
                      describes them; leave tools out, or choose another template";
        Err(Error::Template(hidden.into()))
    }
}

/// The messages, one of them with another content.
fn added(messages: &[Json], at: usize, content: impl FnOnce(&str) -> String) -> Vec<Json> {
    let mut messages = messages.to_vec();
    messages[at]["content"] = content(messages[at]["content"].as_str().unwrap_or_default()).into();
    messages
}

/// Calls `change` with the function of each call.
fn each_call(messages: &mut [Json], mut change: impl FnMut(&mut Json)) {
    let calls = messages.iter_mut().filter_map(|message| message.get_mut("tool_calls")?.as_array_mut()).flatten();
    calls.filter_map(|call| call.get_mut("function")).for_each(&mut change);
}

/// The messages with arguments as objects, as transformers gives them to templates. OpenAI has them as JSON text. A
/// message of calls alone has an empty content, and a result the name of the function.
fn with_objects(mut messages: Vec<Json>) -> Result<Vec<Json>> {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for (i, message) in messages.iter_mut().enumerate() {
        let answered = message["tool_call_id"].as_str().and_then(|id| names.get(id));
        if let Some(name) = answered.filter(|_| message["role"] == "tool" && message["name"].is_null()) {
            message["name"] = name.as_str().into();
        }
        if message["tool_calls"].as_array().is_none_or(Vec::is_empty) {
            // Some templates ask only whether there is such a key.
            message.as_object_mut().and_then(|message| message.shift_remove("tool_calls"));
            continue;
        }
        if message["content"].is_null() {
            message["content"] = "".into();
        }
        for (j, call) in message["tool_calls"].as_array_mut().into_iter().flatten().enumerate() {
            let id = call["id"].as_str().map(str::to_string);
            let Some(function) = call.get_mut("function").filter(|function| function["name"].is_string()) else {
                let wrong = format!("messages[{i}]['tool_calls'][{j}] has no function with a name");
                return Err(Error::Template(wrong));
            };
            names.extend(id.zip(function["name"].as_str().map(str::to_string)));
            let object = match &function["arguments"] {
                Json::Object(_) => continue,
                Json::Null => Some(Map::new()),
                Json::String(text) if text.trim().is_empty() => Some(Map::new()),
                Json::String(text) => serde_json::from_str::<Map<String, Json>>(text).ok(),
                _ => None,
            };
            let wrong = || {
                let place = format!("messages[{i}]['tool_calls'][{j}]['function']['arguments']");
                Error::Template(format!("{place} is {}, expected a JSON object", function["arguments"]))
            };
            function["arguments"] = Json::Object(object.ok_or_else(wrong)?);
        }
    }
    Ok(messages)
}

/// Writes the calls of a message into its text.
fn call_as_text(message: &mut Json) {
    let Some(calls) = message.as_object_mut().and_then(|message| message.shift_remove("tool_calls")) else { return };
    let line = |call: &Json| {
        let function = &call["function"];
        text(&json!({"name": function["name"], "arguments": function["arguments"]}))
    };
    let content = message["content"].as_str().filter(|content| !content.is_empty()).map(str::to_string);
    let parts: Vec<String> = content.into_iter().chain(calls.as_array().into_iter().flatten().map(line)).collect();
    message["content"] = parts.join("\n").into();
}

/// The messages with calls and results as texts. Results in a row become one message of the user, since many templates
/// expect user and assistant in turn.
fn with_texts(messages: Vec<Json>) -> Vec<Json> {
    let mut texts: Vec<Json> = Vec::new();
    let mut after_result = false;
    for mut message in messages {
        let is_result = message["role"] == "tool";
        if is_result {
            let name = message["name"].as_str().unwrap_or("the function");
            let result = format!("{RESULT} {name}:\n{}", message["content"].as_str().unwrap_or_default());
            match texts.last_mut().and_then(|last| last.get_mut("content")).filter(|_| after_result) {
                Some(last) => *last = format!("{}\n\n{result}", last.as_str().unwrap_or_default()).into(),
                None => texts.push(json!({"role": "user", "content": result})),
            }
        } else {
            call_as_text(&mut message);
            texts.push(message);
        }
        after_result = is_result;
    }
    texts
}
