//! Evaluates expressions, and assigns to targets.

use super::ast::{After, Arguments, Const, Expr, Postfix, Target};
use super::attribute::{attribute, item, missing};
use super::compare;
use super::iterate::{collect, iterate};
use super::limits::{Res, brief, fail};
use super::methods::call_method;
use super::ops;
use super::print::to_text;
use super::str_call;
use super::text::TextBuilder;
use super::value::{Args, Dict, Machine, Scope, Source, Value};
use std::rc::Rc;

/// The value of an expression.
pub fn evaluate(m: &Machine, scope: &Rc<Scope>, expr: &Expr) -> Res<Value> {
    m.budget.work(1)?;
    match expr {
        Expr::Const(value) => Ok(constant(value)),
        Expr::Name(symbol) => variable(m, scope, *symbol),
        _ => m.deeper(|| compound(m, scope, expr)),
    }
}

fn constant(value: &Const) -> Value {
    match value {
        Const::None => Value::None,
        Const::Bool(yes) => Value::Bool(*yes),
        Const::Int(n) => Value::Int(*n),
        Const::Float(x) => Value::Float(*x),
        Const::Text(text) => Value::Text(text.clone()),
    }
}

fn variable(m: &Machine, scope: &Scope, symbol: u32) -> Res<Value> {
    let value = scope.get(&m.budget, symbol)?;
    let value = value.unwrap_or_else(|| m.globals.get(symbol as usize).cloned().flatten());
    Ok(value.unwrap_or_else(|| missing(m, symbol)))
}

fn all(m: &Machine, scope: &Rc<Scope>, expressions: &[Expr]) -> Res<Vec<Value>> {
    expressions.iter().map(|expr| evaluate(m, scope, expr)).collect()
}

fn compound(m: &Machine, scope: &Rc<Scope>, expr: &Expr) -> Res<Value> {
    match expr {
        Expr::Const(_) | Expr::Name(_) => evaluate(m, scope, expr),
        Expr::List(items) => m.list(all(m, scope, items)?),
        Expr::Tuple(items) => m.tuple(all(m, scope, items)?),
        Expr::Dict(items) => {
            let mut dict = Dict::empty();
            for (key, value) in items {
                let key = evaluate(m, scope, key)?;
                compare::insert(m, &mut dict, key, evaluate(m, scope, value)?)?;
            }
            Ok(Value::Dict(Rc::new(dict)))
        }
        Expr::Binary { line, first, rest } => {
            let mut value = evaluate(m, scope, first)?;
            for (operator, operand) in rest {
                let operand = evaluate(m, scope, operand)?;
                m.line.set(*line);
                value = ops::binary(m, *operator, &value, &operand)?;
            }
            Ok(value)
        }
        Expr::Concat { line, parts } => {
            let values = all(m, scope, parts)?;
            m.line.set(*line);
            let mut out = TextBuilder::default();
            for value in &values {
                let text = to_text(m, value)?;
                m.budget.build(text.size())?;
                out.push(&text);
            }
            Ok(Value::Text(out.finish()))
        }
        Expr::Compare { line, first, rest } => {
            let mut left = evaluate(m, scope, first)?;
            for (comparison, right) in rest {
                let right = evaluate(m, scope, right)?;
                m.line.set(*line);
                if !ops::compare(m, *comparison, &left, &right)? {
                    return Ok(Value::Bool(false));
                }
                left = right;
            }
            Ok(Value::Bool(true))
        }
        Expr::And(parts) => first_where(m, scope, parts, false),
        Expr::Or(parts) => first_where(m, scope, parts, true),
        Expr::Not { times, value } => {
            let yes = evaluate(m, scope, value)?.is_true();
            Ok(Value::Bool(yes != (times % 2 == 1)))
        }
        Expr::Signs { line, signs, value } => {
            let mut value = evaluate(m, scope, value)?;
            m.line.set(*line);
            for is_minus in signs.iter().rev() {
                m.budget.work(1)?;
                value = ops::signed(*is_minus, &value)?;
            }
            Ok(value)
        }
        Expr::If { line, arms, otherwise } => {
            for (value, test) in arms {
                if evaluate(m, scope, test)?.is_true() {
                    return evaluate(m, scope, value);
                }
            }
            m.line.set(*line);
            match otherwise {
                Some(value) => evaluate(m, scope, value),
                None => Ok(Value::undefined("the inline 'if' is false and has no 'else'")),
            }
        }
        Expr::Postfix { value, rest } => {
            let value = evaluate(m, scope, value)?;
            follow(m, scope, value, rest)
        }
    }
}

/// The first value that is as true as wanted, or else the last one.
fn first_where(m: &Machine, scope: &Rc<Scope>, parts: &[Expr], wanted: bool) -> Res<Value> {
    let mut value = Value::None;
    for part in parts {
        value = evaluate(m, scope, part)?;
        if value.is_true() == wanted {
            break;
        }
    }
    Ok(value)
}

/// Applies attributes, calls, filters and tests to a value.
pub fn follow(m: &Machine, scope: &Rc<Scope>, mut value: Value, rest: &[Postfix]) -> Res<Value> {
    let mut rest = rest.iter();
    while let Some(Postfix { line, what }) = rest.next() {
        m.budget.work(1)?;
        m.line.set(*line);
        value = match what {
            After::Attribute(name) => match rest.as_slice().first() {
                Some(Postfix { what: After::Call(arguments), .. }) if is_method(&value, name.as_str()) => {
                    rest.next();
                    let args = args(m, scope, arguments)?;
                    m.line.set(*line);
                    call_method(m, &value, name.as_str(), args)?
                }
                _ => attribute(m, &value, name)?,
            },
            After::Item(key) => {
                let key = evaluate(m, scope, key)?;
                m.line.set(*line);
                item(m, &value, &key)?
            }
            After::Slice(bounds) => {
                let bound = |i: usize| bounds[i].as_ref().map(|bound| evaluate(m, scope, bound)).transpose();
                let bounds = [bound(0)?, bound(1)?, bound(2)?];
                m.line.set(*line);
                ops::slice(m, &value, bounds)?
            }
            After::Call(arguments) => {
                let args = args(m, scope, arguments)?;
                m.line.set(*line);
                (m.hooks.call)(m, &value, args)?
            }
            After::Filter(name, arguments) => {
                let args = args(m, scope, arguments)?;
                m.line.set(*line);
                (m.hooks.filter)(m, name, value, args)?
            }
            After::Test { name, arguments, negated } => {
                let args = args(m, scope, arguments)?;
                m.line.set(*line);
                Value::Bool((m.hooks.test)(m, name, &value, args)? != *negated)
            }
        };
    }
    Ok(value)
}

/// Whether an attribute is a method that can be called without making it a value first.
fn is_method(value: &Value, name: &str) -> bool {
    match value {
        Value::Text(_) | Value::Markup(_) => str_call::is_method(name),
        Value::Dict(_) => matches!(name, "get" | "items" | "keys" | "values"),
        _ => false,
    }
}

/// The values of a call's arguments.
pub fn args(m: &Machine, scope: &Rc<Scope>, arguments: &Arguments) -> Res<Args> {
    let mut args = Args { positional: all(m, scope, &arguments.positional)?, named: Vec::new() };
    for (name, value) in &arguments.named {
        args.named.push((name.clone(), evaluate(m, scope, value)?));
    }
    if let Some(more) = &arguments.all_positional {
        let more = evaluate(m, scope, more)?;
        args.positional.extend(collect(m, &more)?);
    }
    if let Some(more) = &arguments.all_named {
        let more = evaluate(m, scope, more)?;
        let Value::Dict(more) = more.defined()? else {
            return fail(format!("the arguments after ** are a {}, expected a dict", more.kind()));
        };
        for (name, value) in &more.entries {
            m.budget.items(1)?;
            let Some(name) = name.as_text() else {
                return fail("the names of arguments must be texts");
            };
            // The keys of a dict differ; only the names that the template gives can be among them.
            m.budget.work(arguments.named.len())?;
            m.budget.scan(name.len())?;
            if arguments.named.iter().any(|(known, _)| known == name) {
                return fail(format!("the argument '{}' is given twice", brief(name.as_str())));
            }
            args.named.push((name.clone(), value.clone()));
        }
    }
    Ok(args)
}

/// Assigns a value.
pub fn assign(m: &Machine, scope: &Rc<Scope>, target: &Target, value: Value) -> Res<()> {
    m.budget.work(1)?;
    match target {
        Target::Name(symbol) => scope.set(&m.budget, *symbol, Some(value)),
        Target::Attribute { line, namespace, name } => {
            m.line.set(*line);
            let Value::Namespace(namespace) = variable(m, scope, *namespace)? else {
                return fail("cannot assign an attribute of something that is not a namespace");
            };
            let key = m.own(&**name)?;
            let Ok(mut attributes) = namespace.attributes.try_borrow_mut() else {
                return fail("a namespace changes while it is read");
            };
            compare::insert(m, &mut attributes, key, value)
        }
        Target::Tuple { line, targets } => {
            m.line.set(*line);
            let mut items = iterate(&value)?;
            let mut values = Vec::new();
            while values.len() <= targets.len()
                && let Some(item) = items.next(m)?
            {
                values.push(item);
            }
            if values.len() != targets.len() {
                let more = if values.len() > targets.len() { "more" } else { "fewer" };
                return fail(format!("cannot assign {more} values than the {} variables", targets.len()));
            }
            targets.iter().zip(values).try_for_each(|(target, value)| assign(m, scope, target, value))
        }
    }
}
