//! Chat templates: the only author of prompt text, and the only user of minijinja.
//!
//! A template is a Jinja source, rendered as transformers' `apply_chat_template` renders it, byte for byte. Templates
//! come from files of strangers: they run with fuel, and their output has a limit.

mod builtin;
mod detect;
mod prompt;
mod python;
mod turn;

pub use detect::Origin;
pub use prompt::Prompt;
pub use turn::{ChatTurn, Role};

use crate::error::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value};
use serde_json::{Map, Value as Json};

/// Steps that one rendering may take.
const FUEL: u64 = 20_000_000;
/// Bytes that one rendering may give.
const MOST_BYTES: usize = 64 << 20;

/// A chat template.
#[derive(Debug)]
pub struct Template {
    name: String,
    source: String,
    environment: Environment<'static>,
    origin: Origin,
    warning: Option<String>,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

impl Template {
    /// A built-in template: `raw`, `instruct`, `llama3-chat` or `bitnet` (that of BitNet b1.58 2B-4T).
    pub fn named(name: &str, bos_token: Option<&str>, eos_token: Option<&str>) -> Result<Template> {
        Template::from_jinja(builtin::source(name)?, bos_token, eos_token)
    }

    /// A template from its Jinja source; `bos_token` and `eos_token` are what the source knows under these names.
    pub fn from_jinja(source: &str, bos_token: Option<&str>, eos_token: Option<&str>) -> Result<Template> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(fault)?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(python::print);
        environment.set_fuel(Some(FUEL));
        environment.add_filter("tojson", python::tojson);
        // Unlike minijinja's own, it says no of None.
        environment.add_test("iterable", |value: Value| !value.is_none() && value.try_iter().is_ok());
        environment.add_function(
            "raise_exception",
            |message: String| -> std::result::Result<Value, minijinja::Error> {
                Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        environment.add_template_owned("template", without_generation_tags(source)).map_err(fault)?;
        let owned = |text: Option<&str>| text.map(str::to_string);
        Ok(Template {
            name: builtin::name_of(source).unwrap_or("jinja").into(),
            source: source.into(),
            environment,
            origin: Origin::Argument,
            warning: None,
            bos_token: owned(bos_token),
            eos_token: owned(eos_token),
        })
    }

    /// A built-in template for the same model, because the caller chose it.
    pub fn sibling(&self, name: &str) -> Result<Template> {
        Template::named(name, self.bos_token(), self.eos_token())
    }

    /// The prompt of a conversation: `messages` is a list of objects, passed to the template untouched.
    pub fn render(
        &self,
        messages: &Json,
        tools: Option<&Json>,
        add_generation_prompt: bool,
        variables: &Map<String, Json>,
    ) -> Result<String> {
        self.render_conversation(&Conversation {
            messages: messages.clone(),
            tools: tools.cloned().unwrap_or(Json::Null),
            add_generation_prompt,
            variables: variables.clone(),
        })
    }

    /// The prompt of turns that wait for an answer.
    pub fn render_chat(&self, history: &[ChatTurn], system: Option<&str>) -> Result<String> {
        self.render_conversation(&Conversation::from_turns(history, system))
    }

    /// The prompt of a single question.
    pub fn apply(&self, user: &str, system: Option<&str>) -> Result<String> {
        self.render_chat(&[ChatTurn::new(Role::User, user)], system)
    }

    /// The prompt of a conversation; all other ways to a prompt lead through here.
    pub fn render_conversation(&self, conversation: &Conversation) -> Result<String> {
        if conversation.messages.as_array().is_none_or(Vec::is_empty) {
            return Err(Error::Template("the conversation is empty; give at least one message".into()));
        }
        let mut context = Map::new();
        for (name, token) in [("bos_token", &self.bos_token), ("eos_token", &self.eos_token)] {
            if let Some(token) = token {
                context.insert(name.into(), token.as_str().into());
            }
        }
        context.insert("messages".into(), conversation.messages.clone());
        context.insert("tools".into(), conversation.tools.clone());
        context.insert("documents".into(), Json::Null);
        context.insert("add_generation_prompt".into(), conversation.add_generation_prompt.into());
        context.extend(conversation.variables.clone());
        let template = self.environment.get_template("template").map_err(fault)?;
        let mut out = Limited(Vec::new());
        template.render_captured_to(Value::from(Serde(&context)), &mut out).map_err(fault)?;
        String::from_utf8(out.0).map_err(|error| Error::Template(error.to_string()))
    }

    /// `raw`, `instruct`, `llama3-chat`, `bitnet`, or `jinja` for any other source.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it came from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// What its user should know, if anything.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// What the source knows as `bos_token`.
    pub fn bos_token(&self) -> Option<&str> {
        self.bos_token.as_deref()
    }

    /// What the source knows as `eos_token`.
    pub fn eos_token(&self) -> Option<&str> {
        self.eos_token.as_deref()
    }

    /// The Jinja source.
    pub fn source(&self) -> &str {
        &self.source
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

/// Output with an end.
struct Limited(Vec<u8>);

impl std::io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MOST_BYTES {
            return Err(std::io::Error::other(format!("the prompt grows beyond {} MiB", MOST_BYTES >> 20)));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What went wrong, with the line of the template.
fn fault(error: minijinja::Error) -> Error {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
    let what = match error.kind() {
        ErrorKind::OutOfFuel => "it takes too many steps, as an endless loop would".into(),
        _ => what,
    };
    Error::Template(match error.line() {
        Some(line) => format!("chat template, line {line}: {what}"),
        None => format!("chat template: {what}"),
    })
}

/// transformers' `{% generation %}` blocks mark what the assistant wrote and print nothing: as `{% if true %}`.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, after)) = rest.split_once("{%") {
        let Some((tag, following)) = after.split_once("%}") else { break };
        let keyword = tag.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        let plain = match keyword {
            "generation" => tag.replace("generation", " if true "),
            "endgeneration" => tag.replace("endgeneration", " endif "),
            _ => tag.to_string(),
        };
        out.extend([before, "{%", &plain, "%}"]);
        rest = following;
    }
    out + rest
}
