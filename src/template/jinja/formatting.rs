//! `str.format`, the operator `%` and the filter `format` on values.

use super::attribute;
use super::compare;
use super::format::{self, FieldValue, Key};
use super::format_spec::{FormatValue, Formatted};
use super::limits::{Fault, Res, fail};
use super::percent::{self, Operand};
use super::print;
use super::text::{Fault as TextFault, Text};
use super::value::{Args, Machine, Value, required};

/// A value as formatting sees it.
#[derive(Clone)]
struct Field<'a> {
    m: &'a Machine,
    value: Value,
}

fn raised<T>(done: Res<T>) -> Result<T, TextFault> {
    done.map_err(|Fault(what)| TextFault::Raised("TemplateError", what))
}

impl FormatValue for Field<'_> {
    fn formatted(&self) -> Formatted {
        match &self.value {
            Value::Text(text) | Value::Markup(text) => Formatted::Text(text.clone()),
            Value::Int(n) => Formatted::Int(*n),
            Value::Float(x) => Formatted::Float(*x),
            Value::Bool(yes) => Formatted::Bool(*yes),
            other => Formatted::Other(other.kind()),
        }
    }

    fn to_str(&self, _: usize) -> Result<Text, TextFault> {
        raised(print::to_text(self.m, &self.value))
    }

    fn to_repr(&self, _: usize) -> Result<Text, TextFault> {
        raised(print::repr(self.m, &self.value))
    }

    fn pay(&self, steps: usize) -> Result<(), TextFault> {
        raised(self.m.budget.work(steps))
    }
}

impl FieldValue for Field<'_> {
    fn attribute(&self, name: &Text) -> Result<Self, TextFault> {
        let value = raised(attribute::attribute(self.m, &self.value, name))?;
        Ok(Field { m: self.m, value })
    }

    fn item(&self, key: Key) -> Result<Self, TextFault> {
        let key = match key {
            Key::Index(index) => Value::Int(index.into()),
            Key::Name(name) => Value::Text(name),
        };
        Ok(Field { m: self.m, value: raised(attribute::item(self.m, &self.value, &key))? })
    }
}

fn fields(m: &Machine, values: Vec<Value>) -> Vec<Field<'_>> {
    values.into_iter().map(|value| Field { m, value }).collect()
}

/// `text.format(…)` and `text.format_map(dict)`
pub fn format_method(m: &Machine, value: &Value, name: &str, args: Args) -> Res<Value> {
    let Value::Text(text) = value else { return fail(format!("the method '{name}' of Markup is not supported")) };
    m.budget.chars(text.len())?;
    let (positional, named) = if name == "format_map" {
        let [mapping] = args.bind(name, ["mapping"])?;
        (Vec::new(), required(mapping, name, "mapping")?)
    } else {
        let named = super::globals::call(m, "dict", Args { positional: Vec::new(), named: args.named })?;
        (args.positional, named)
    };
    let find = |name: &str| match &named {
        Value::Dict(dict) => {
            let found = compare::find_name(m, dict, name).ok().flatten();
            found.map(|value| Field { m, value: value.clone() })
        }
        _ => None,
    };
    m.text(format::format(text, &fields(m, positional), &find, m.budget.left())?)
}

/// `text % value`
pub fn percent(m: &Machine, template: &Value, value: &Value) -> Res<Value> {
    let Value::Text(text) = template else { return fail("'%' of Markup is not supported") };
    m.budget.chars(text.len())?;
    let formatted = match value {
        Value::Tuple(list) => {
            m.budget.items(list.items.len())?;
            percent::format(text, Operand::Tuple(&fields(m, list.items.clone())), m.budget.left())?
        }
        Value::Dict(_) | Value::List(_) | Value::Range(_) | Value::Undefined(_) => {
            percent::format(text, Operand::Mapping(&Field { m, value: value.clone() }), m.budget.left())?
        }
        _ => percent::format(text, Operand::Single(&Field { m, value: value.clone() }), m.budget.left())?,
    };
    m.text(formatted)
}

/// The filter `format`.
pub fn format_filter(m: &Machine, value: &Value, args: Args) -> Res<Value> {
    if !args.positional.is_empty() && !args.named.is_empty() {
        return fail("format takes either positional or named arguments, not both");
    }
    let operand =
        if args.named.is_empty() { m.tuple(args.positional)? } else { super::globals::call(m, "dict", args)? };
    match value {
        Value::Text(_) | Value::Markup(_) => percent(m, value, &operand),
        _ => percent(m, &Value::Text(print::to_text(m, value)?), &operand),
    }
}
