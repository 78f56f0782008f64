//! Runs statements, loops and macros.

use super::ast::{After, Block, Expr, For, Frame, Macro, Statement};
use super::compare;
use super::evaluate::{args, assign, evaluate, follow};
use super::filters;
use super::globals;
use super::iterate::{Iter, iterate};
use super::limits::{Fault, Res, brief, fail};
use super::methods::call_method;
use super::print;
use super::tests;
use super::text::Text;
use super::value::{Args, Closure, Dict, Hooks, Kept, Loop, LoopState, Machine, Scope, Source, Value, length};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// What the evaluator calls.
pub const HOOKS: Hooks = Hooks { call, filter: filters::apply, test: tests::check };

/// How a block ends.
#[derive(Clone, Copy, PartialEq)]
pub enum Flow {
    Next,
    Break,
    Continue,
}

/// Runs statements.
pub fn run(m: &Machine, scope: &Rc<Scope>, block: &Block) -> Res<Flow> {
    for statement in block {
        m.budget.work(1)?;
        let flow = match statement {
            Statement::Text(text) => {
                m.budget.build(text.len())?;
                m.out.borrow_mut().push(text);
                Flow::Next
            }
            Statement::Print { line, value } => {
                let value = evaluate(m, scope, value)?;
                m.line.set(*line);
                print::print(m, &value)?;
                Flow::Next
            }
            Statement::Set { target, value } => {
                let value = evaluate(m, scope, value)?;
                assign(m, scope, target, value)?;
                Flow::Next
            }
            other => m.deeper(|| compound(m, scope, other))?,
        };
        if flow != Flow::Next {
            return Ok(flow);
        }
    }
    Ok(Flow::Next)
}

fn inside(scope: &Rc<Scope>) -> Rc<Scope> {
    Scope::inside(Some(scope.clone()))
}

/// Runs a frame in its scope.
pub fn run_frame(m: &Machine, scope: &Rc<Scope>, frame: &Frame) -> Res<Flow> {
    scope.declare(&m.budget, &frame.unset)?;
    run(m, scope, &frame.statements)
}

fn compound(m: &Machine, scope: &Rc<Scope>, statement: &Statement) -> Res<Flow> {
    match statement {
        Statement::Capture { target, filters, body } => {
            let inner = inside(scope);
            let (text, flow) = capture(m, || run_frame(m, &inner, body))?;
            if flow == Flow::Next {
                assign(m, scope, target, follow(m, &inner, Value::Text(text), filters)?)?;
            }
            return Ok(flow);
        }
        Statement::For(definition) => {
            let items = evaluate(m, scope, &definition.items)?;
            m.line.set(definition.line);
            return run_loop(m, scope, definition, &items, 0);
        }
        Statement::If { branches, otherwise } => {
            for (test, body) in branches {
                if evaluate(m, scope, test)?.is_true() {
                    return run(m, scope, body);
                }
            }
            return run(m, scope, otherwise);
        }
        Statement::With { targets, values, body } => {
            let inner = inside(scope);
            for (target, value) in targets.iter().zip(values) {
                let value = evaluate(m, scope, value)?;
                assign(m, &inner, target, value)?;
            }
            return run_frame(m, &inner, body);
        }
        Statement::Macro(definition) => {
            m.keep_scope(scope)?;
            let closure = Closure { definition: definition.clone(), scope: scope.clone() };
            scope.set(&m.budget, definition.symbol, Some(Value::Macro(Rc::new(closure))))?;
        }
        Statement::Call { body, call } => call_block(m, scope, body, call)?,
        Statement::Filter { filters, body } => {
            let inner = inside(scope);
            let (text, flow) = capture(m, || run_frame(m, &inner, body))?;
            if flow == Flow::Next {
                print_text(m, &follow(m, &inner, Value::Text(text), filters)?)?;
            }
            return Ok(flow);
        }
        Statement::Scope(body) | Statement::Block(body) => return run_frame(m, &inside(scope), body),
        Statement::Break => return Ok(Flow::Break),
        Statement::Continue => return Ok(Flow::Continue),
        Statement::Refused { line, why } => {
            m.line.set(*line);
            return fail(why.clone());
        }
        Statement::Text(_) | Statement::Print { .. } | Statement::Set { .. } => {}
    }
    Ok(Flow::Next)
}

/// Runs something whose output is captured.
fn capture<T>(m: &Machine, work: impl FnOnce() -> Res<T>) -> Res<(Text, T)> {
    m.budget.build(64)?;
    let outer = m.out.take();
    let done = work();
    let captured = m.out.replace(outer);
    Ok((captured.finish(), done?))
}

fn call_block(m: &Machine, scope: &Rc<Scope>, body: &Arc<Macro>, call: &Expr) -> Res<()> {
    m.keep_scope(scope)?;
    let caller = Value::Macro(Rc::new(Closure { definition: body.clone(), scope: scope.clone() }));
    let Expr::Postfix { value, rest } = call else { return fail("unexpected expression in a call block") };
    let Some((last, before)) = rest.split_last() else { return fail("unexpected expression in a call block") };
    let After::Call(arguments) = &last.what else { return fail("unexpected expression in a call block") };
    let called = evaluate(m, scope, value)?;
    let called = follow(m, scope, called, before)?;
    let mut args = args(m, scope, arguments)?;
    m.line.set(last.line);
    if args.named.iter().any(|(name, _)| name.as_str() == "caller") {
        return fail("a call block gets the argument 'caller' twice");
    }
    // As in Jinja2, it stands before the arguments of `**`.
    args.named.insert(arguments.named.len(), (Text::own("caller"), caller));
    let printed = self::call(m, &called, args)?;
    print_text(m, &printed)
}

/// Prints what a block gives, which must be a text.
fn print_text(m: &Machine, value: &Value) -> Res<()> {
    match value.as_text() {
        Some(_) => print::print(m, value),
        None => fail(format!("a block gives a {}, expected a text", value.kind())),
    }
}

/// The items of a loop that pass its test.
struct Tested {
    items: Iter,
    scope: Rc<Scope>,
    definition: Arc<For>,
}

impl Source for Tested {
    fn next(&mut self, m: &Machine) -> Res<Option<Value>> {
        while let Some(item) = self.items.next(m)? {
            let inner = inside(&self.scope);
            assign(m, &inner, &self.definition.target, item.clone())?;
            let passes = match &self.definition.test {
                Some(test) => evaluate(m, &inner, test)?.is_true(),
                None => true,
            };
            if passes {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }
}

/// The items of a loop, one by one, and the variable `loop` if the body needs it.
enum Walk {
    Plain(Box<dyn Source>),
    Counted(Rc<Loop>),
}

fn run_loop(m: &Machine, scope: &Rc<Scope>, definition: &Arc<For>, items: &Value, depth0: i128) -> Res<Flow> {
    let known = if definition.test.is_none() { length(m, items)? } else { None };
    let items = iterate(items)?;
    let items: Box<dyn Source> = match definition.test {
        Some(_) => Box::new(Tested { items, scope: scope.clone(), definition: definition.clone() }),
        None => Box::new(items),
    };
    let mut walk = if definition.uses_loop {
        let state = LoopState { items: Some(items), length: known, index0: -1, ..LoopState::default() };
        let state = RefCell::new(state);
        let looped = Rc::new(Loop { definition: definition.clone(), scope: scope.clone(), depth0, state });
        m.keep(Kept::Loop(looped.clone()))?;
        Walk::Counted(looped)
    } else {
        Walk::Plain(items)
    };
    let mut ran = false;
    let mut inner = inside(scope);
    while let Some(item) = match &mut walk {
        Walk::Plain(items) => items.next(m)?,
        Walk::Counted(looped) => looped.step(m)?,
    } {
        // A macro may still use the variables of the last round.
        match Rc::get_mut(&mut inner) {
            Some(inner) => inner.variables.get_mut().clear(),
            None => inner = inside(scope),
        }
        assign(m, &inner, &definition.target, item)?;
        if let Walk::Counted(looped) = &walk {
            inner.set(&m.budget, definition.symbol, Some(Value::Loop(looped.clone())))?;
        }
        match run_frame(m, &inner, &definition.body)? {
            Flow::Break => break,
            Flow::Continue => {}
            // As in Jinja2, the `else` of a loop also runs if no round came to its end.
            Flow::Next => ran = true,
        }
    }
    if ran { Ok(Flow::Next) } else { run_frame(m, &inside(scope), &definition.otherwise) }
}

/// Calls a value.
pub fn call(m: &Machine, value: &Value, args: Args) -> Res<Value> {
    m.deeper(|| match value.defined()? {
        Value::Macro(closure) => call_macro(m, closure, args),
        Value::Method(method) => call_method(m, &method.0, &method.1, args),
        Value::Function(name) => globals::call(m, name, args),
        Value::Joiner(joiner) => {
            let [] = args.bind("joiner", [])?;
            if joiner.1.replace(true) { Ok(joiner.0.clone()) } else { m.own("") }
        }
        Value::Loop(looped) => {
            let [items] = args.bind("loop", ["iterable"])?;
            if !looped.definition.recursive {
                return fail("the loop must be 'recursive' to be called");
            }
            let items = super::value::required(items, "loop", "iterable")?;
            let (text, _) = capture(m, || run_loop(m, &looped.scope, &looped.definition, &items, looped.depth0 + 1))?;
            Ok(Value::Text(text))
        }
        other => fail(format!("a {} cannot be called", other.kind())),
    })
}

fn call_macro(m: &Machine, closure: &Closure, mut args: Args) -> Res<Value> {
    let definition = &closure.definition;
    let name = definition.name.as_deref().unwrap_or("caller");
    let scope = inside(&closure.scope);
    let mut positional = args.positional.into_iter();
    let mut take_named = |wanted: &str| {
        m.budget.variables(args.named.len())?;
        let place = args.named.iter().position(|(name, _)| name.as_str() == wanted);
        Ok::<_, Fault>(place.map(|place| args.named.remove(place).1))
    };
    for parameter in &definition.parameters {
        let value = match positional.next() {
            Some(value) => Some(value),
            None => take_named(&parameter.name)?,
        };
        scope.add(&m.budget, parameter.symbol, value)?;
    }
    if let Some(symbol) = definition.caller {
        let caller = take_named("caller")?;
        let caller = caller.filter(|caller| !matches!(caller, Value::None));
        scope.set(&m.budget, symbol, Some(caller.unwrap_or_else(|| Value::undefined("no caller is defined"))))?;
    }
    match definition.kwargs {
        Some(symbol) => {
            let mut dict = Dict::empty();
            for (name, value) in args.named {
                compare::insert(m, &mut dict, Value::Text(name), value)?;
            }
            scope.set(&m.budget, symbol, Some(Value::Dict(Rc::new(dict))))?;
        }
        None => {
            if let Some((unknown, _)) = args.named.first() {
                return fail(format!("the macro '{name}' has no parameter '{}'", brief(unknown.as_str())));
            }
        }
    }
    let more: Vec<Value> = positional.collect();
    match definition.varargs {
        Some(symbol) => scope.set(&m.budget, symbol, Some(m.tuple(more)?))?,
        None if !more.is_empty() => {
            return fail(format!("the macro '{name}' takes at most {} arguments", definition.parameters.len()));
        }
        None => {}
    }
    for parameter in &definition.parameters {
        if scope.get(&m.budget, parameter.symbol)?.flatten().is_none() {
            let value = match &parameter.default {
                Some(default) => evaluate(m, &scope, default)?,
                None => Value::undefined("the parameter was not given"),
            };
            scope.set(&m.budget, parameter.symbol, Some(value))?;
        }
    }
    let (text, _) = capture(m, || run_frame(m, &scope, &definition.body))?;
    Ok(Value::Text(text))
}
