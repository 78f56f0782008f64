//! Chat templates: the only author of prompt text, and the only user of minijinja.
//!
//! A template is a Jinja source, rendered as transformers' `apply_chat_template` renders it, byte for byte. Templates
//! come from files of strangers: they run with fuel, and their output has a limit.

mod builtin;
mod detect;
mod environment;
mod prompt;
mod python;
mod source;
mod turn;

pub use detect::Origin;
pub use prompt::Prompt;
pub use turn::{ChatTurn, Role};

use crate::error::{Error, Result};
use jiff::civil::DateTime;
use minijinja::{Environment, ErrorKind, Value};
use serde_json::{Map, Value as Json};

/// Bytes that a source may have: its reading recurses.
const MOST_SOURCE: usize = 128 << 10;
/// Bytes of a template's own stack, of which it takes what it needs: what a stranger nests is let go recursively.
const STACK: usize = 256 << 20;

/// A chat template.
#[derive(Clone, Debug)]
pub struct Template {
    name: &'static str,
    /// The Jinja source.
    pub source: String,
    environment: Environment<'static>,
    /// Where it came from.
    pub origin: Origin,
    /// What its user should know, if anything.
    pub warning: Option<String>,
    /// What the source knows as `bos_token`.
    pub bos_token: Option<String>,
    /// What the source knows as `eos_token`.
    pub eos_token: Option<String>,
}

impl Template {
    /// A built-in template: `raw`, `instruct`, `llama3-chat` or `bitnet` (that of BitNet b1.58 2B-4T).
    pub fn named(name: &str, bos_token: Option<&str>, eos_token: Option<&str>) -> Result<Template> {
        Template::from_jinja(builtin::source(name)?, bos_token, eos_token)
    }

    /// A template from its Jinja source; `bos_token` and `eos_token` are what the source knows under these names.
    pub fn from_jinja(source: &str, bos_token: Option<&str>, eos_token: Option<&str>) -> Result<Template> {
        if source.len() > MOST_SOURCE {
            let found = source.len();
            return Err(Error::Template(format!("chat template: {found} bytes; a template may have {MOST_SOURCE}")));
        }
        let environment = apart(|| environment::with_template(source).map_err(fault))?;
        let owned = |text: Option<&str>| text.map(str::to_string);
        Ok(Template {
            name: builtin::name_of(source).unwrap_or("jinja"),
            source: source.into(),
            environment,
            origin: Origin::Argument,
            warning: None,
            bos_token: owned(bos_token),
            eos_token: owned(eos_token),
        })
    }

    /// The same template with its clock stopped: `strftime_now` always tells this local time, such as
    /// `2026-07-04T12:00:00`.
    pub fn at(&self, now: &str) -> Result<Template> {
        let now: DateTime = now.parse().map_err(|error| {
            Error::Template(format!("'{now}' is no time ({error}), expected one such as 2026-07-04T12:00:00"))
        })?;
        let mut template = self.clone();
        environment::set_clock(&mut template.environment, Some(now));
        Ok(template)
    }

    /// A built-in template for the same model, because the caller chose it.
    pub fn sibling(&self, name: &str) -> Result<Template> {
        Template::named(name, self.bos_token.as_deref(), self.eos_token.as_deref())
    }

    /// The prompt of a conversation: `messages` is a list of objects, passed to the template untouched.
    pub fn render(
        &self,
        messages: &Json,
        tools: Option<&Json>,
        add_generation_prompt: bool,
        variables: &Map<String, Json>,
    ) -> Result<String> {
        let (messages, tools, variables) = (messages.clone(), tools.cloned().unwrap_or_default(), variables.clone());
        self.render_conversation(&Conversation { messages, tools, add_generation_prompt, variables })
    }

    /// The prompt of a single question.
    pub fn apply(&self, user: &str, system: Option<&str>) -> Result<String> {
        self.render_conversation(&Conversation::from_turns(&[ChatTurn::new(Role::User, user)], system))
    }

    /// The prompt of a conversation; all other ways to a prompt lead through here.
    pub fn render_conversation(&self, conversation: &Conversation) -> Result<String> {
        if conversation.messages.as_array().is_none_or(Vec::is_empty) {
            return Err(Error::Template("the conversation is empty; give at least one message".into()));
        }
        let Conversation { messages, tools, add_generation_prompt, variables } = conversation;
        apart(|| {
            let tokens = [("bos_token", &self.bos_token), ("eos_token", &self.eos_token)];
            let given = tokens.into_iter().filter_map(|(name, token)| Some((name, Value::from(token.as_deref()?))));
            let context = given.chain([
                ("messages", python::value(messages)),
                ("tools", python::value(tools)),
                ("documents", ().into()),
                ("add_generation_prompt", (*add_generation_prompt).into()),
            ]);
            let context = context.chain(variables.iter().map(|(name, value)| (name.as_str(), python::value(value))));
            let template = self.environment.get_template(environment::NAME).map_err(fault)?;
            template.render(Value::from_pairs(context)).map_err(fault)
        })
    }

    /// `raw`, `instruct`, `llama3-chat`, `bitnet`, or `jinja` for any other source.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Template) -> bool {
        let said = |t: &Template| (t.source.clone(), t.bos_token.clone(), t.eos_token.clone(), t.origin);
        said(self) == said(other)
    }
}

/// What a template is rendered with.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// A list of objects, which the template sees untouched.
    pub messages: Json,
    /// A list of objects, or null.
    pub tools: Json,
    /// Whether the prompt ends where the assistant's answer begins.
    pub add_generation_prompt: bool,
    /// Other names that the template knows.
    pub variables: Map<String, Json>,
}

impl Conversation {
    /// Turns that wait for an answer, with a system prompt before them.
    pub fn from_turns(history: &[ChatTurn], system: Option<&str>) -> Conversation {
        let system = system.map(|text| ChatTurn::new(Role::System, text).message());
        let messages = system.into_iter().chain(history.iter().map(ChatTurn::message)).collect();
        Conversation { messages, tools: Json::Null, add_generation_prompt: true, variables: Map::new() }
    }
}

/// What went wrong, with the line of the template.
fn fault(error: minijinja::Error) -> Error {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
    let what = match error.kind() {
        ErrorKind::OutOfFuel => "it takes too many steps, as an endless loop would".into(),
        _ => what,
    };
    let line = error.line().map_or(String::new(), |line| format!(", line {line}"));
    Error::Template(format!("chat template{line}: {what}"))
}

/// Does a stranger's work on a stack of its own, large enough for what its limits allow.
fn apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("template".into()).stack_size(STACK);
        let thread = thread
            .spawn_scoped(scope, work)
            .map_err(|error| Error::Template(format!("chat template: no thread for it: {error}")))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
