//! Chat templates turn messages into prompt text. No other module writes prompt text.
//!
//! A template is a Jinja source, and renders to the same bytes as with `apply_chat_template` of transformers. Templates
//! come from files of strangers, so `limits` bounds what they may use.

mod builtin;
mod continued;
mod detect;
mod jinja;
mod prompt;
pub mod thoughts;
mod tools;
mod turn;

pub use detect::TemplateOrigin;
pub use prompt::RenderedPrompt;
pub use thoughts::ThoughtState;
pub use tools::{CallFormat, CallReader, CallRules, FoundCall, Reading, Tool, ToolChoice};
pub use turn::{ChatTurn, Role};

use crate::error::{Error, Result, Watch};
use crate::machine::thread::on_stack;
use jiff::civil::DateTime;
use jinja::limits::{Fault, MAX_SOURCE, STACK};
use jinja::{Context, Located, Program, Text};
use serde_json::{Map, Value as Json};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A chat template, ready to render.
#[derive(Clone, Debug)]
pub struct Template {
    name: &'static str,
    /// The Jinja source that is rendered.
    pub source: String,
    program: Program,
    /// The time that `strftime_now` takes for now; none for the time of the rendering.
    clock: Option<DateTime>,
    /// Where the source came from.
    pub origin: TemplateOrigin,
    /// A warning for the user, such as that no template was found.
    pub warning: Option<String>,
    /// The variable `bos_token` of the source.
    pub bos_token: Option<String>,
    /// The variable `eos_token` of the source.
    pub eos_token: Option<String>,
    /// The template of conversations with tools, if the model has one of its own (transformers' `tool_use`).
    pub tool_use: Option<Arc<Template>>,
}

impl Template {
    /// A built-in template: `raw`, `instruct`, `llama3-chat` or `bitnet` (the template of BitNet b1.58 2B-4T).
    pub fn named(name: &str, bos_token: Option<&str>, eos_token: Option<&str>) -> Result<Template> {
        Template::from_jinja(builtin::source(name)?, bos_token, eos_token)
    }

    /// A template from its Jinja source. `bos_token` and `eos_token` become variables of the source.
    pub fn from_jinja(source: &str, bos_token: Option<&str>, eos_token: Option<&str>) -> Result<Template> {
        if source.len() > MAX_SOURCE {
            let found = source.len();
            return Err(Error::Template(format!("chat template: has {found} bytes, expected at most {MAX_SOURCE}")));
        }
        let program = on_own_stack(&mut || false, |_| Program::parse(source))?;
        let owned = |text: Option<&str>| text.map(str::to_string);
        Ok(Template {
            name: builtin::name_of(source).unwrap_or("jinja"),
            source: source.into(),
            program,
            clock: None,
            origin: TemplateOrigin::Argument,
            warning: None,
            bos_token: owned(bos_token),
            eos_token: owned(eos_token),
            tool_use: None,
        })
    }

    /// The same template with a fixed clock: `strftime_now` always formats this local time, such as
    /// `2026-07-04T12:00:00`.
    pub fn at(&self, text: &str) -> Result<Template> {
        let now: DateTime = text.parse().map_err(|error| {
            Error::Template(format!("'{text}' is not a time ({error}); give one such as 2026-07-04T12:00:00"))
        })?;
        let tool_use = self.tool_use.as_ref().map(|other| other.at(text).map(Arc::new)).transpose()?;
        Ok(Template { clock: Some(now), tool_use, ..self.clone() })
    }

    /// The local time that [`Template::at`] fixed, as it takes it.
    pub fn clock(&self) -> Option<String> {
        self.clock.map(|clock| clock.to_string())
    }

    /// All built-in templates, with the same `bos_token` and `eos_token`.
    pub fn siblings(&self) -> impl Iterator<Item = Template> {
        builtin::names().filter_map(|name| self.sibling(name).ok())
    }

    /// A built-in template with the same `bos_token` and `eos_token`.
    pub fn sibling(&self, name: &str) -> Result<Template> {
        Template::named(name, self.bos_token.as_deref(), self.eos_token.as_deref())
    }

    /// The prompt of a conversation. `messages` is a list of objects, which the template sees unchanged.
    pub fn render(
        &self,
        messages: &Json,
        tools: Option<&Json>,
        add_generation_prompt: bool,
        variables: &Map<String, Json>,
    ) -> Result<String> {
        let (messages, tools, variables) = (messages.clone(), tools.cloned().unwrap_or_default(), variables.clone());
        let (continue_final_message, calls) = (false, CallRules::default());
        let conversation =
            Conversation { messages, tools, add_generation_prompt, continue_final_message, variables, calls };
        self.render_conversation(&conversation, &mut || false)
    }

    /// The prompt of a single message of the user.
    pub fn apply(&self, user: &str, system: Option<&str>) -> Result<String> {
        self.render_conversation(&Conversation::from_turns(&[ChatTurn::new(Role::User, user)], system), &mut || false)
    }

    /// The template that renders a conversation: another one if it has tools and the model has a template for them.
    pub fn for_conversation(&self, conversation: &Conversation) -> &Template {
        let has_tools = !conversation.tools.is_null() && conversation.calls.choice != ToolChoice::None;
        self.tool_use.as_deref().filter(|_| has_tools).unwrap_or(self)
    }

    /// The prompt of a conversation.
    pub fn render_conversation(&self, conversation: &Conversation, watch: &mut Watch) -> Result<String> {
        Ok(self.text_of(conversation, watch)?.as_str().to_string())
    }

    /// The text of a conversation to the end of its final message, or beyond.
    fn render_whole(&self, conversation: &Conversation, watch: &mut Watch) -> Result<Text> {
        if conversation.messages.as_array().is_none_or(Vec::is_empty) {
            return Err(Error::Template("the conversation is empty; give at least one message".into()));
        }
        let Conversation { messages, tools, add_generation_prompt, variables, .. } = conversation;
        let tokens = [("bos_token", &self.bos_token), ("eos_token", &self.eos_token)];
        let own: Vec<_> = tokens.into_iter().filter_map(|(name, token)| Some((name, token.as_deref()?))).collect();
        let add_generation_prompt = *add_generation_prompt;
        let context = Context { messages, tools, add_generation_prompt, variables, own: &own, clock: self.clock };
        on_own_stack(watch, |cancelled| self.program.render(&context, cancelled))
    }

    /// The name of the built-in template with this source: `raw`, `instruct`, `llama3-chat` or `bitnet`; `jinja` for
    /// any other source.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Template) -> bool {
        let key = |t: &Template| (t.source.clone(), t.bos_token.clone(), t.eos_token.clone(), t.origin);
        key(self) == key(other) && self.tool_use == other.tool_use && self.clock == other.clock
    }
}

/// A conversation and everything else that a template is rendered with.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// A list of objects, which the template sees unchanged.
    pub messages: Json,
    /// A list of objects that describe tools, or null.
    pub tools: Json,
    /// Whether the prompt ends with the beginning of the assistant's turn.
    pub add_generation_prompt: bool,
    /// Whether the prompt ends inside the final message, which the model continues.
    pub continue_final_message: bool,
    /// Other variables of the template.
    pub variables: Map<String, Json>,
    /// Which tools the answer may call.
    pub calls: CallRules,
}

impl Conversation {
    /// A conversation that waits for an answer, with a system prompt if there is one.
    pub fn from_turns(history: &[ChatTurn], system: Option<&str>) -> Conversation {
        let system = system.map(|text| ChatTurn::new(Role::System, text).message());
        let messages = system.into_iter().chain(history.iter().map(ChatTurn::message)).collect();
        Conversation {
            messages,
            tools: Json::Null,
            add_generation_prompt: true,
            continue_final_message: false,
            variables: Map::new(),
            calls: CallRules::default(),
        }
    }

    /// The text of the system prompt, if the conversation begins with one.
    pub fn system(&self) -> Option<&str> {
        let first = self.messages.get(0)?;
        first["content"].as_str().filter(|_| first["role"] == "system")
    }
}

/// Runs the work of a template on a thread whose stack is large enough for everything that the limits allow.
fn on_own_stack<T: Send>(watch: &mut Watch, work: impl FnOnce(&Arc<AtomicBool>) -> Located<T> + Send) -> Result<T> {
    let done = on_stack("template", STACK, watch, work)?;
    done.map_err(|(line, Fault(what))| Error::Template(format!("chat template, line {line}: {what}")))
}
