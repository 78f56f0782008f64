//! Jinja2 3.1 for chat templates, as transformers sets it up, with two things that Jinja2 does not have: every
//! character knows whether the template or a message wrote it, and a rendering is bounded in work and memory.

mod ast;
mod attribute;
mod compare;
mod evaluate;
mod expression;
mod filters;
mod filters_list;
mod filters_text;
mod format;
mod format_spec;
mod formatting;
mod globals;
mod iterate;
mod json;
mod lexer;
pub mod limits;
mod literal;
mod methods;
mod numbers;
mod ops;
mod parser;
mod percent;
mod print;
mod reader;
mod render;
mod scopes;
mod str_call;
mod str_methods;
mod strftime;
mod tests;
mod text;
mod unicode;
mod value;

pub use text::Text;

use ast::Frame;
use jiff::civil::DateTime;
use limits::{Budget, Fault, Res};
use reader::Parser;
use serde_json::{Map, Value as Json};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use value::{Machine, Scope, Value};

/// A template that is parsed.
#[derive(Clone, Debug)]
pub struct Program(Arc<Parsed>);

#[derive(Debug)]
struct Parsed {
    body: Frame,
    /// The names of all variables.
    names: Vec<Arc<str>>,
    source_len: usize,
}

/// What a template is rendered with.
pub struct Context<'a> {
    pub messages: &'a Json,
    pub tools: &'a Json,
    pub add_generation_prompt: bool,
    /// Other variables. They take precedence.
    pub variables: &'a Map<String, Json>,
    /// Variables whose text is the template's own.
    pub own: &'a [(&'a str, &'a str)],
    /// The time that `strftime_now` takes for now.
    pub clock: Option<DateTime>,
}

/// An error and its line.
pub type Located<T> = Result<T, (u32, Fault)>;

impl Program {
    /// Parses a source.
    pub fn parse(source: &str) -> Located<Program> {
        let known = |name: &str, is_filter: bool| {
            if is_filter { filters::is_known(name) } else { tests::is_known(name) }
        };
        let mut parser = Parser::new(lexer::tokens(source)?, known);
        let mut body = Frame { statements: parser::parse(&mut parser)?, unset: Vec::new() };
        scopes::resolve(&mut body);
        let mut names: Vec<(u32, Arc<str>)> =
            parser.symbols.into_iter().map(|(name, symbol)| (symbol, name.into())).collect();
        names.sort();
        let names = names.into_iter().map(|(_, name)| name).collect();
        Ok(Program(Arc::new(Parsed { body, names, source_len: source.len() })))
    }

    /// The text of a template for a conversation. It fails soon after `cancelled` is set.
    pub fn render(&self, context: &Context, cancelled: &Arc<AtomicBool>) -> Located<Text> {
        let mut input = self.0.source_len + size(context.messages) + size(context.tools);
        input += context.variables.values().map(size).sum::<usize>();
        self.render_within(context, Budget::new(input, cancelled.clone()))
    }

    /// The text of a template for a conversation, if the budget is enough.
    fn render_within(&self, context: &Context, budget: Budget) -> Located<Text> {
        let Parsed { body, names, .. } = &*self.0;
        let mut machine = Machine::new(budget, names.clone(), context.clock, render::HOOKS);
        let globals = names.iter().map(|name| global(&machine, context, name)).collect::<Res<_>>();
        machine.globals = globals.map_err(|fault| (1, fault))?;
        match render::run_frame(&machine, &Scope::inside(None), body) {
            Ok(_) => Ok(machine.out.take().finish()),
            Err(fault) => Err((machine.line.get(), fault)),
        }
    }
}

/// The value of a variable outside of the template.
fn global(m: &Machine, context: &Context, name: &str) -> Res<Option<Value>> {
    if let Some(value) = context.variables.get(name) {
        return json::from_json(m, value).map(Some);
    }
    if let Some((_, text)) = context.own.iter().find(|(known, _)| *known == name) {
        return m.own(*text).map(Some);
    }
    Ok(match name {
        "messages" => Some(json::from_messages(m, context.messages)?),
        "tools" => Some(json::from_json(m, context.tools)?),
        "documents" => Some(Value::None),
        "add_generation_prompt" => Some(Value::Bool(context.add_generation_prompt)),
        _ => globals::find(name),
    })
}

/// The bytes of a JSON value, about.
fn size(json: &Json) -> usize {
    match json {
        Json::String(text) => 16 + text.len(),
        Json::Array(items) => 16 + items.iter().map(size).sum::<usize>(),
        Json::Object(items) => 16 + items.iter().map(|(key, item)| key.len() + size(item)).sum::<usize>(),
        _ => 16,
    }
}

#[cfg(test)]
#[path = "../../../tests/unit/jinja_costs.rs"]
mod cost_tests;

#[cfg(test)]
#[path = "../../../tests/unit/jinja_origins.rs"]
mod origin_tests;
