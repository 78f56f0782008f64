//! Jinja2's tests by their names: `value is name`.

use super::ast::{Comparison, Operator};
use super::compare;
use super::expression::unknown;
use super::filters;
use super::iterate::iterate;
use super::limits::{Res, fail};
use super::ops;
use super::print;
use super::str_methods;
use super::value::{Args, Machine, Value, length, required};

/// The tests that exist.
const NAMES: [&str; 39] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
];

/// Whether Jinja2 has a test of this name.
pub fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

/// `value is name(args)`
pub fn check(m: &Machine, name: &str, value: &Value, args: Args) -> Res<bool> {
    m.budget.work(1)?;
    let comparison = match name {
        "==" | "eq" | "equalto" => Some(Comparison::Eq),
        "!=" | "ne" => Some(Comparison::Ne),
        ">" | "gt" | "greaterthan" => Some(Comparison::Gt),
        ">=" | "ge" => Some(Comparison::Ge),
        "<" | "lt" | "lessthan" => Some(Comparison::Lt),
        "<=" | "le" => Some(Comparison::Le),
        "in" => Some(Comparison::In),
        _ => None,
    };
    if let Some(comparison) = comparison {
        if !args.named.is_empty() && name != "in" {
            return fail(format!("the test '{name}' takes no named arguments"));
        }
        let [other] = args.bind(name, ["seq"])?;
        return ops::compare(m, comparison, value, &required(other, name, "value")?);
    }
    match name {
        "sameas" => {
            let [other] = args.bind(name, ["other"])?;
            let other = required(other, name, "other")?;
            return match (value, &other) {
                (Value::Int(a), Value::Int(b)) if a == b && !(-5..=256).contains(a) => {
                    fail("the test 'sameas' of large integers is not supported")
                }
                (Value::Text(a), Value::Text(b)) | (Value::Markup(a), Value::Markup(b)) if a == b => {
                    fail("the test 'sameas' of equal texts is not supported")
                }
                (Value::Float(a), Value::Float(b)) if a == b => {
                    fail("the test 'sameas' of equal floats is not supported")
                }
                _ => Ok(compare::same(value, &other)),
            };
        }
        "divisibleby" => {
            let [number] = args.bind(name, ["num"])?;
            let rest = ops::binary(m, Operator::Mod, value, &required(number, name, "num")?)?;
            return compare::equal(m, &rest, &Value::Int(0));
        }
        _ => {}
    }
    let [] = args.bind(name, [])?;
    let name_of = value.as_text().map(|text| text.as_str()).unwrap_or_default();
    let kind = |method: &str| {
        let text = print::to_text(m, value)?;
        m.budget.chars(text.len())?;
        Ok::<_, super::limits::Fault>(str_methods::is_of_kind(&text, method).unwrap_or(false))
    };
    Ok(match name {
        "odd" | "even" => {
            let rest = ops::binary(m, Operator::Mod, value, &Value::Int(2))?;
            compare::equal(m, &rest, &Value::Int((name == "odd").into()))?
        }
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "filter" => {
            compare::hash(m, value)?;
            filters::is_known(name_of)
        }
        "test" => {
            compare::hash(m, value)?;
            is_known(name_of)
        }
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => matches!(value, Value::Int(_) | Value::Float(_) | Value::Bool(_)),
        "string" => value.as_text().is_some(),
        "lower" => kind("islower")?,
        "upper" => kind("isupper")?,
        "mapping" => matches!(value, Value::Dict(_)),
        "sequence" => !matches!(value, Value::View(..)) && length(m, value)?.is_some(),
        "iterable" => iterate(value).is_ok(),
        "callable" => matches!(
            value,
            Value::Macro(_)
                | Value::Loop(_)
                | Value::Joiner(_)
                | Value::Method(_)
                | Value::Function(_)
                | Value::Undefined(_)
        ),
        "escaped" => matches!(value, Value::Markup(_)),
        _ => return Err(unknown(name, false)),
    })
}
