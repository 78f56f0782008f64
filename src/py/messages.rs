//! Messages and the other arguments of a template, as the core takes them.

use super::convert::{TemplateError, named, type_name, unicode};
use super::tools::tool_choice;
use super::turn::ChatTurn;
use crate::error::Error;
use crate::template::{CallRules, ChatTurn as CoreTurn, Conversation, Role, ToolChoice};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use serde_json::{Map, Value as Json};

/// Levels of nesting that messages, tools and variables may have: templates recurse through them.
const MAX_NESTING: usize = 200;

/// Arguments of transformers' `apply_chat_template` that are no variables of a template, and what to do instead.
const NOT_VARIABLES: [(&str, &str); 13] = [
    ("tokenize", "render gives text, encode gives ids; leave it out"),
    ("return_tensors", "encode gives a list of ids; numpy.array makes an array of it"),
    ("return_dict", "encode gives a list of ids; leave it out"),
    ("return_assistant_tokens_mask", "spans tells which message each token comes from"),
    ("tokenizer_kwargs", "leave it out"),
    ("padding", "prompts are never padded; leave it out"),
    ("truncation", "prompts are never truncated; leave out messages instead"),
    ("max_length", "prompts are never truncated; leave out messages instead"),
    ("chat_template", "Template.from_jinja(source) makes a template of another source"),
    ("conversation", "the argument is named messages"),
    ("add_special_tokens", "a BOS token is added if the model expects it; leave it out"),
    ("template", "this is the template; engine.chat takes template="),
    ("chat_template_kwargs", "give the template's variables themselves as keywords, such as enable_thinking=False"),
];

/// The arguments beside the messages.
#[derive(Clone, Copy, Default)]
pub struct Rendering<'a, 'py> {
    /// JSON schemas of functions.
    pub tools: Option<&'a Bound<'py, PyAny>>,
    /// None: unless the final message is continued.
    pub add_generation_prompt: Option<bool>,
    /// Whether the prompt ends inside the final message.
    pub continue_final_message: bool,
    /// Other variables of the template.
    pub variables: Option<&'a Bound<'py, PyDict>>,
}

impl<'py> Rendering<'_, 'py> {
    /// The conversation that a template renders: messages are ChatTurns, or dicts that reach the template unchanged.
    pub fn conversation(&self, messages: &Bound<'py, PyAny>, name: &str) -> PyResult<Conversation> {
        let Rendering { tools, add_generation_prompt, continue_final_message, variables } = *self;
        check_messages(messages, name)?;
        tools.map_or(Ok(()), check_tools)?;
        let variable = |(name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
            let name: String = name.extract()?;
            if let Some((_, advice)) = NOT_VARIABLES.iter().find(|(other, _)| *other == name) {
                return Err(PyTypeError::new_err(format!("{name} is not a variable of a template; {advice}")));
            }
            Ok((name.clone(), to_json(&value, &name, 0)?))
        };
        let mut messages = to_json(messages, name, 0)?;
        for message in messages.as_array_mut().into_iter().flatten().filter(|message| message.is_object()) {
            // Templates know thoughts by the longer name.
            if let (Json::Null, Json::String(thoughts)) = (&message["reasoning_content"], &message["reasoning"]) {
                message["reasoning_content"] = thoughts.clone().into();
            }
        }
        Ok(Conversation {
            messages,
            tools: tools.map_or(Ok(Json::Null), |tools| to_json(tools, "tools", 0))?,
            add_generation_prompt: add_generation_prompt.unwrap_or(!continue_final_message),
            continue_final_message,
            variables: variables.map_or(Ok(Map::new()), |all| all.iter().map(variable).collect::<PyResult<_>>())?,
            calls: CallRules::default(),
        })
    }

    /// The conversation that an engine answers. Every message has a role, and a content of text parts is joined by line
    /// breaks, since most templates expect a text.
    pub fn chat(&self, messages: &Bound<'py, PyAny>, name: &str) -> PyResult<Conversation> {
        let mut conversation = self.conversation(messages, name)?;
        for (i, message) in conversation.messages.as_array_mut().into_iter().flatten().enumerate() {
            let name = format!("{name}[{i}]");
            if !message["role"].is_string() {
                let wrong = format!("{name} has no text 'role'; a message is {EXAMPLE}");
                return Err(PyTypeError::new_err(wrong));
            }
            let calls = message["tool_calls"].is_array();
            match &message["content"] {
                Json::String(_) => {}
                Json::Array(parts) => message["content"] = joined(parts, &name)?.into(),
                // An answer may consist of calls alone.
                Json::Null if calls => {}
                _ => {
                    let wrong = format!("{name} has no text 'content'; a message is {EXAMPLE}");
                    return Err(PyTypeError::new_err(wrong));
                }
            }
            if !matches!(message["reasoning"], Json::Null | Json::String(_)) {
                return Err(PyTypeError::new_err(format!("{name}['reasoning'] is no text")));
            }
        }
        Ok(conversation)
    }
}

/// The keywords of `Engine.chat` and its forms.
pub struct ChatArguments<'py> {
    tools: Option<Bound<'py, PyAny>>,
    add_generation_prompt: Option<bool>,
    continue_final_message: bool,
    variables: Option<Bound<'py, PyDict>>,
    /// Which calls of tools the answer may have.
    pub calls: CallRules,
    /// The template's variable of this name; None: the template decides.
    pub enable_thinking: Option<bool>,
    /// A Template, or the name of one.
    pub template: Option<Bound<'py, PyAny>>,
    /// Answers to each conversation.
    pub n: Option<Bound<'py, PyAny>>,
    /// The other keywords: sampling parameters.
    pub sampling: Bound<'py, PyDict>,
}

impl<'py> ChatArguments<'py> {
    /// Takes the keywords apart.
    pub fn new(py: Python<'py>, keywords: Option<&Bound<'py, PyDict>>) -> PyResult<ChatArguments<'py>> {
        let sampling = keywords.map_or_else(|| Ok(PyDict::new(py)), |keywords| keywords.copy())?;
        let take = |name: &str| {
            let value = sampling.get_item(name)?;
            value.as_ref().map_or(Ok(()), |_| sampling.del_item(name))?;
            Ok::<_, PyErr>(value.filter(|value| !value.is_none()))
        };
        let flag = |name: &str| {
            let value = take(name)?;
            value.map(|value| value.extract().map_err(|error| named(error, name, py))).transpose()
        };
        let enable_thinking = flag("enable_thinking")?;
        let variables = take("chat_template_kwargs")?.map(|variables| variables.cast_into::<PyDict>());
        let variables =
            variables.transpose().map_err(|_| PyTypeError::new_err("chat_template_kwargs must be a dict"))?;
        let has_variable = |name| variables.as_ref().is_some_and(|all| all.contains(name).unwrap_or(false));
        for name in ["messages", "tools", "add_generation_prompt", "continue_final_message"] {
            if has_variable(name) {
                let wrong = format!("chat_template_kwargs has {name}, which is an argument of the call itself");
                return Err(PyTypeError::new_err(wrong));
            }
        }
        if enable_thinking.is_some() && has_variable("enable_thinking") {
            let twice = "enable_thinking is given, and chat_template_kwargs has it too; give it once";
            return Err(PyTypeError::new_err(twice));
        }
        let choice = take("tool_choice")?.map_or(Ok(ToolChoice::Auto), |choice| tool_choice(&choice))?;
        Ok(ChatArguments {
            tools: take("tools")?,
            calls: CallRules { choice, parallel: flag("parallel_tool_calls")?.unwrap_or(true) },
            add_generation_prompt: flag("add_generation_prompt")?,
            continue_final_message: flag("continue_final_message")?.unwrap_or(false),
            variables,
            enable_thinking,
            template: take("template")?,
            n: take("n")?,
            sampling,
        })
    }

    /// The arguments of the template.
    pub fn rendering(&self) -> Rendering<'_, 'py> {
        Rendering {
            tools: self.tools.as_ref(),
            add_generation_prompt: self.add_generation_prompt,
            continue_final_message: self.continue_final_message,
            variables: self.variables.as_ref(),
        }
    }
}

/// What a message looks like, for errors.
const EXAMPLE: &str = "{\"role\": \"user\", \"content\": \"Hello\"}";

/// The texts of a content that is a list of parts, as vLLM joins them.
fn joined(parts: &[Json], name: &str) -> PyResult<String> {
    let text = |(i, part): (usize, &Json)| match (part, &part["text"]) {
        (Json::String(text), _) | (_, Json::String(text)) => Ok(text.clone()),
        _ => {
            let kind = part["type"].as_str().unwrap_or("unknown");
            let wrong =
                format!("{name}['content'][{i}] is of type '{kind}'; the model reads parts of type 'text' only");
            Err(PyTypeError::new_err(wrong))
        }
    };
    Ok(parts.iter().enumerate().map(text).collect::<PyResult<Vec<_>>>()?.join("\n"))
}

/// The names that the thoughts of a message may have: that of templates, and the shorter one of answers.
const REASONING: [&str; 2] = ["reasoning_content", "reasoning"];

/// The thoughts of a message.
fn reasoning(message: &Json, name: &str) -> PyResult<Option<String>> {
    for key in REASONING {
        match &message[key] {
            Json::Null => {}
            Json::String(text) => return Ok(Some(text.clone())),
            _ => return Err(PyTypeError::new_err(format!("{name}['{key}'] is no text; give a text, or leave it out"))),
        }
    }
    Ok(None)
}

/// A list of dicts or ChatTurns.
fn check_messages(messages: &Bound<'_, PyAny>, name: &str) -> PyResult<()> {
    let is_list = |value: &Bound<'_, PyAny>| value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>();
    let error = |what: String| Err(PyTypeError::new_err(what));
    if !is_list(messages) {
        return error(format!("{name} must be a list of messages, found {}; write [{EXAMPLE}]", type_name(messages)));
    }
    for (i, message) in messages.try_iter()?.enumerate() {
        let message = message?;
        if is_list(&message) {
            return error(format!(
                "{name}[{i}] is a list, expected a message, {EXAMPLE}; give one conversation at a time"
            ));
        }
        if !message.is_instance_of::<PyDict>() && !message.is_instance_of::<ChatTurn>() {
            let found = type_name(&message);
            return error(format!("{name}[{i}] is of type {found}, expected a dict such as {EXAMPLE}, or a ChatTurn"));
        }
    }
    Ok(())
}

/// A list of JSON schemas.
fn check_tools(tools: &Bound<'_, PyAny>) -> PyResult<()> {
    if !tools.is_instance_of::<PyList>() && !tools.is_instance_of::<PyTuple>() {
        return Err(PyTypeError::new_err(format!("tools must be a list, found {}", type_name(tools))));
    }
    for (i, tool) in tools.try_iter()?.enumerate() {
        if tool?.is_callable() {
            let message = format!("tools[{i}] is a function; give its JSON schema as a dict");
            return Err(PyTypeError::new_err(message));
        }
    }
    Ok(())
}

/// The turns of a session that begins with these messages, and its system prompt.
pub fn session_turns(messages: &Bound<'_, PyAny>) -> PyResult<(Option<String>, Vec<CoreTurn>)> {
    check_messages(messages, "messages")?;
    let (mut system, mut turns) = (None, Vec::new());
    for (i, message) in messages.try_iter()?.enumerate() {
        let name = format!("messages[{i}]");
        let turn = turn(&message?, &name)?;
        let expected = if turns.len() % 2 == 0 { Role::User } else { Role::Assistant };
        if i == 0 && turn.role == Role::System {
            system = Some(turn.text);
        } else if turn.role == expected {
            turns.push(turn);
        } else {
            let (found, expected) = (turn.role.name(), expected.name());
            return Err(PyTypeError::new_err(format!("{name} has the role '{found}', expected '{expected}'")));
        }
    }
    if turns.len() % 2 != 0 {
        let open = "messages ends with a user's message; leave it out and send it, or call engine.chat(messages)";
        return Err(PyTypeError::new_err(open));
    }
    Ok((system, turns))
}

/// A message as a turn, which has a role and a text, and as an answer maybe thoughts.
fn turn(message: &Bound<'_, PyAny>, name: &str) -> PyResult<CoreTurn> {
    if let Ok(turn) = message.cast::<ChatTurn>() {
        return Ok(turn.get().core.clone());
    }
    let message = to_json(message, name, 0)?;
    for key in message.as_object().into_iter().flat_map(Map::keys) {
        let may_think = message["role"] == Role::Assistant.name();
        if key != "role" && key != "content" && !(may_think && REASONING.contains(&key.as_str())) {
            let wrong =
                format!("{name} has the key '{key}', expected 'role' and 'content'; engine.chat takes any message");
            return Err(PyTypeError::new_err(wrong));
        }
    }
    let Some(role) = message["role"].as_str() else {
        return Err(PyTypeError::new_err(format!("{name} has no text 'role'; a message is {EXAMPLE}")));
    };
    let text = match &message["content"] {
        Json::String(text) => text.clone(),
        Json::Array(parts) => joined(parts, name)?,
        _ => return Err(PyTypeError::new_err(format!("{name} has no text 'content'; a message is {EXAMPLE}"))),
    };
    let role = role.parse().map_err(|error: Error| error.at(name))?;
    Ok(CoreTurn { reasoning: reasoning(&message, name)?, ..CoreTurn::new(role, text) })
}

/// A Python value as JSON. Tuples count as lists; `path` names the value in errors.
fn to_json(value: &Bound<'_, PyAny>, path: &str, depth: usize) -> PyResult<Json> {
    if depth > MAX_NESTING {
        return Err(Error::Template(format!("{path} is nested more than {MAX_NESTING} deep")).into());
    }
    if value.is_none() {
        Ok(Json::Null)
    } else if let Ok(text) = value.cast::<PyString>() {
        Ok(unicode(text, path)?.into())
    } else if let Ok(yes) = value.cast::<PyBool>() {
        Ok(yes.is_true().into())
    } else if value.is_instance_of::<PyInt>() {
        let whole = value.extract::<i64>().map(Json::from).or_else(|_| value.extract::<u64>().map(Json::from));
        whole.map_err(|_| TemplateError::new_err(format!("{path} is an int of more than 64 bits")))
    } else if let Ok(float) = value.cast::<PyFloat>() {
        let number = serde_json::Number::from_f64(float.value());
        let number =
            number.ok_or_else(|| TemplateError::new_err(format!("{path} is {value}, which JSON cannot express")));
        Ok(number?.into())
    } else if let Ok(dict) = value.cast::<PyDict>() {
        let item = |(key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
            let path = format!("{path}[{}]", key.repr()?);
            let text = key.cast::<PyString>().map_err(|_| {
                PyTypeError::new_err(format!("{path}: the key is of type {}, expected str", type_name(&key)))
            })?;
            Ok((unicode(text, &path)?, to_json(&value, &path, depth + 1)?))
        };
        Ok(dict.iter().map(item).collect::<PyResult<Map<String, Json>>>()?.into())
    } else if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let item = |(i, item): (usize, PyResult<Bound<'_, PyAny>>)| to_json(&item?, &format!("{path}[{i}]"), depth + 1);
        Ok(value.try_iter()?.enumerate().map(item).collect::<PyResult<Vec<Json>>>()?.into())
    } else if let Ok(turn) = value.cast::<ChatTurn>() {
        Ok(turn.get().core.message())
    } else {
        let kind = type_name(value);
        Err(PyTypeError::new_err(format!("{path} is of type {kind}, which JSON cannot express")))
    }
}
