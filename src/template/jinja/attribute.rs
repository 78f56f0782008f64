//! Attributes and items of values, by the rules of Jinja2's sandbox: no private attributes, and no methods that
//! change a list or a dict.

use super::compare;
use super::iterate::collect;
use super::limits::{Res, brief, fail};
use super::str_call;
use super::str_methods;
use super::text::Text;
use super::value::{Machine, Missing, Value, length};
use std::rc::Rc;

/// `value.name`: the attribute, or else the item.
pub fn attribute(m: &Machine, value: &Value, name: &Text) -> Res<Value> {
    m.budget.work(1)?;
    if let Some(found) = own(m, value, name)? {
        return Ok(found);
    }
    if let Value::Dict(dict) = value
        && let Some(found) = compare::find_name(m, dict, name.as_str())?
    {
        return Ok(found.clone());
    }
    Ok(value.no_attribute(name.clone()))
}

/// `value[key]`: the item, or else the attribute.
pub fn item(m: &Machine, value: &Value, key: &Value) -> Res<Value> {
    m.budget.work(1)?;
    value.defined()?;
    let found = match (value, key.as_int()) {
        // A key that cannot be hashed is not in the dict.
        (Value::Dict(dict), _) => match key {
            Value::List(_) | Value::Dict(_) | Value::View(..) => None,
            Value::Text(text) => compare::find_name(m, dict, text.as_str())?.cloned(),
            _ => compare::find(m, dict, key)?.cloned(),
        },
        (Value::List(list) | Value::Tuple(list), Some(at)) => {
            let at = if at < 0 { at.saturating_add(list.items.len() as i128) } else { at };
            usize::try_from(at).ok().and_then(|at| list.items.get(at)).cloned()
        }
        (Value::Text(text) | Value::Markup(text), Some(at)) => {
            m.budget.scan(text.len())?;
            match (str_methods::char_at(text, at), value) {
                (Some(c), Value::Text(_)) => Some(m.text(c)?),
                (Some(c), _) => Some(Value::Markup(c)),
                (None, _) => None,
            }
        }
        (Value::Range(range), Some(at)) => {
            let len = super::value::range_len(range);
            let at = if at < 0 { at.saturating_add(len) } else { at };
            (0..len).contains(&at).then(|| Value::Int(range[0] + at * range[2]))
        }
        _ => None,
    };
    match (found, key) {
        (Some(found), _) => Ok(found),
        (None, Value::Text(name) | Value::Markup(name)) => {
            Ok(own(m, value, name)?.unwrap_or_else(|| value.no_attribute(name.clone())))
        }
        (None, _) => Ok(Value::undefined("there is no such item")),
    }
}

/// A Python attribute, with undefined for one that the sandbox hides. None if the value does not have it.
pub fn own(m: &Machine, value: &Value, name: &Text) -> Res<Option<Value>> {
    value.defined()?;
    if let Value::Namespace(namespace) = value {
        return Ok(compare::find_name(m, &namespace.attributes.borrow(), name.as_str())?.cloned());
    }
    let method = || {
        m.budget.items(3)?;
        Ok(Some(Value::Method(Rc::new((value.clone(), name.as_str().into())))))
    };
    let hidden = || Ok(Some(value.no_attribute(name.clone())));
    let refused = || fail(format!("the attribute '{}' of {} is not supported", brief(name.as_str()), value.kind()));
    match (value, name.as_str()) {
        (Value::Markup(_), "striptags" | "unescape" | "escape") => refused(),
        (Value::Text(_) | Value::Markup(_), name) if str_call::is_method(name) => method(),
        (Value::List(_), "count" | "index" | "copy") | (Value::Tuple(_), "count" | "index") => method(),
        (Value::List(_), "append" | "clear" | "pop" | "reverse" | "insert" | "sort" | "extend" | "remove") => hidden(),
        (Value::Tuple(list), "grouper") if list.is_group => Ok(list.items.first().cloned()),
        (Value::Tuple(list), "list") if list.is_group => Ok(list.items.get(1).cloned()),
        (Value::Dict(_), "get" | "items" | "keys" | "values" | "copy") => method(),
        (Value::Dict(_), "clear" | "pop" | "popitem" | "setdefault" | "update") => hidden(),
        (Value::Dict(_), "fromkeys") | (Value::View(..), "mapping" | "isdisjoint") => refused(),
        (Value::Range(range), "start") => Ok(Some(Value::Int(range[0]))),
        (Value::Range(range), "stop") => Ok(Some(Value::Int(range[1]))),
        (Value::Range(range), "step") => Ok(Some(Value::Int(range[2]))),
        (Value::Range(_), "count" | "index") => refused(),
        (Value::Int(n), "real" | "numerator") => Ok(Some(Value::Int(*n))),
        (Value::Bool(yes), "real" | "numerator") => Ok(Some(Value::Int((*yes).into()))),
        (Value::Int(_) | Value::Bool(_), "imag") => Ok(Some(Value::Int(0))),
        (Value::Int(_) | Value::Bool(_), "denominator") => Ok(Some(Value::Int(1))),
        (
            Value::Int(_) | Value::Bool(_),
            "bit_length" | "bit_count" | "conjugate" | "as_integer_ratio" | "to_bytes" | "from_bytes",
        ) => refused(),
        (Value::Float(x), "real") => Ok(Some(Value::Float(*x))),
        (Value::Float(_), "imag") => Ok(Some(Value::Float(0.0))),
        (Value::Float(_), "is_integer") => method(),
        (Value::Float(_), "hex" | "fromhex" | "conjugate" | "as_integer_ratio") => refused(),
        (Value::Lazy(_), "send" | "throw" | "close") => refused(),
        (Value::Lazy(_), name) if name.starts_with("gi_") => refused(),
        (Value::Macro(closure), "name") => match &closure.definition.name {
            Some(name) => m.own(&**name).map(Some),
            None => Ok(Some(Value::None)),
        },
        (Value::Macro(closure), "arguments") => {
            let names = closure.definition.parameters.iter().map(|parameter| m.own(&*parameter.name));
            m.tuple(names.collect::<Res<_>>()?).map(Some)
        }
        (Value::Macro(closure), "catch_kwargs") => Ok(Some(Value::Bool(closure.definition.kwargs.is_some()))),
        (Value::Macro(closure), "catch_varargs") => Ok(Some(Value::Bool(closure.definition.varargs.is_some()))),
        (Value::Macro(_), "caller" | "explicit_caller") => refused(),
        (Value::Loop(looped), name) => looped_attribute(m, value, looped, name),
        (Value::Cycler(_), "next" | "reset") => method(),
        (Value::Cycler(cycler), "current") => Ok(cycler.items.items.get(cycler.position.get()).cloned()),
        (Value::Cycler(cycler), "items") => Ok(Some(Value::Tuple(cycler.items.clone()))),
        (Value::Cycler(cycler), "pos") => Ok(Some(Value::Int(cycler.position.get() as i128))),
        (Value::Joiner(joiner), "sep") => Ok(Some(joiner.0.clone())),
        (Value::Joiner(joiner), "used") => Ok(Some(Value::Bool(joiner.1.get()))),
        _ => Ok(None),
    }
}

fn looped_attribute(m: &Machine, value: &Value, looped: &super::value::Loop, name: &str) -> Res<Option<Value>> {
    let index0 = looped.state.borrow().index0;
    let int = |n: i128| Ok(Some(Value::Int(n)));
    match name {
        "index" => int(index0 + 1),
        "index0" => int(index0),
        "first" => Ok(Some(Value::Bool(index0 == 0))),
        "last" => Ok(Some(Value::Bool(looped.peek(m)?.is_none()))),
        "length" => int(looped.length(m)?),
        "revindex" => int(looped.length(m)? - index0),
        "revindex0" => int(looped.length(m)? - index0 - 1),
        "depth" => int(looped.depth0 + 1),
        "depth0" => int(looped.depth0),
        "previtem" => {
            let before = looped.state.borrow().before.clone();
            Ok(Some(before.filter(|_| index0 > 0).unwrap_or_else(|| Value::undefined("there is no previous item"))))
        }
        "nextitem" => Ok(Some(looped.peek(m)?.unwrap_or_else(|| Value::undefined("there is no next item")))),
        "cycle" | "changed" => m.budget.items(3).map(|()| Some(Value::Method(Rc::new((value.clone(), name.into()))))),
        _ => Ok(None),
    }
}

/// The items from the last to the first, if the value has an end to start from.
pub fn reversed(m: &Machine, value: &Value) -> Res<Option<Vec<Value>>> {
    if length(m, value)?.is_none() {
        return Ok(None);
    }
    let mut items = collect(m, value)?;
    items.reverse();
    Ok(Some(items))
}

/// The value of a variable that is not set.
pub fn missing(m: &Machine, symbol: u32) -> Value {
    let name = m.names.get(symbol as usize).cloned().unwrap_or_else(|| "".into());
    Value::Undefined(Rc::new(Missing::Variable(name)))
}
