//! JSON as templates see it, and the filter `tojson` of transformers, which is Python's `json.dumps`.

use super::compare;
use super::limits::{Res, fail};
use super::numbers;
use super::text::{Text, TextBuilder};
use super::value::{Args, Dict, Machine, Value};
use serde_json::Value as Json;
use std::rc::Rc;

/// A JSON value as a template sees it: all its texts are data.
pub fn from_json(m: &Machine, json: &Json) -> Res<Value> {
    Ok(match json {
        Json::Null => Value::None,
        Json::Bool(yes) => Value::Bool(*yes),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(n), ..) => Value::Int(n.into()),
            (_, Some(n), _) => Value::Int(n.into()),
            (.., float) => Value::Float(float.unwrap_or(f64::NAN)),
        },
        Json::String(text) => m.text(Text::data(text.as_str()))?,
        Json::Array(items) => m.list(items.iter().map(|item| from_json(m, item)).collect::<Res<_>>()?)?,
        Json::Object(items) => {
            let mut dict = Dict::empty();
            for (key, item) in items {
                compare::insert(m, &mut dict, m.text(Text::data(key.as_str()))?, from_json(m, item)?)?;
            }
            Value::Dict(Rc::new(dict))
        }
    })
}

/// A list of messages as a template sees it. A role that consists of ASCII letters, digits, `_` and `-` counts as the
/// template's own text, because templates write it between the marks of control tokens: `<|user|>`.
pub fn from_messages(m: &Machine, messages: &Json) -> Res<Value> {
    let Some(messages) = messages.as_array() else {
        return from_json(m, messages);
    };
    let is_plain = |role: &str| role.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let message = |message: &Json| {
        let mut value = from_json(m, message)?;
        if let (Value::Dict(dict), Some(role)) = (&mut value, message["role"].as_str())
            && is_plain(role)
            && let Some(dict) = Rc::get_mut(dict)
        {
            compare::insert(m, dict, Value::Text(Text::own("role")), m.own(role)?)?;
        }
        Ok(value)
    };
    m.list(messages.iter().map(message).collect::<Res<_>>()?)
}

/// `tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`
pub fn tojson(m: &Machine, value: &Value, args: Args) -> Res<Value> {
    let [ascii, indent, separators, sort_keys] =
        args.bind("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let is_on = |option: Option<Value>| option.is_some_and(|option| option.is_true());
    let indent = match indent.unwrap_or(Value::None) {
        Value::None => None,
        Value::Text(text) | Value::Markup(text) => Some(text),
        width => {
            let width = width.as_int().ok_or_else(|| format!("tojson: indent is a {}", width.kind()))?;
            let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
            m.budget.build(width)?;
            Some(Text::own(" ".repeat(width)))
        }
    };
    let [comma, colon] = match separators.unwrap_or(Value::None) {
        Value::None => [if indent.is_some() { "," } else { ", " }, ": "].map(Text::data),
        Value::List(pair) | Value::Tuple(pair) => match &pair.items[..] {
            [Value::Text(comma), Value::Text(colon)] => [comma.clone(), colon.clone()],
            _ => return fail("tojson: separators must be two texts"),
        },
        other => return fail(format!("tojson: separators is a {}, expected two texts", other.kind())),
    };
    let mut writer = Writer {
        m,
        ascii: is_on(ascii),
        sort_keys: is_on(sort_keys),
        indent,
        comma,
        colon,
        out: TextBuilder::default(),
        paid: 0,
    };
    writer.write(value, 0)?;
    writer.pay()?;
    Ok(Value::Text(writer.out.finish()))
}

struct Writer<'a> {
    m: &'a Machine,
    ascii: bool,
    sort_keys: bool,
    indent: Option<Text>,
    comma: Text,
    colon: Text,
    out: TextBuilder,
    /// How much of the output is paid for.
    paid: usize,
}

impl Writer<'_> {
    fn pay(&mut self) -> Res<()> {
        let new = self.out.size().saturating_sub(self.paid);
        self.paid = self.out.size();
        self.m.budget.build(new)
    }

    /// Appends characters that stand for the shape of a value. They count as data: a message may have that shape.
    fn sign(&mut self, text: &str) {
        self.out.push_from(text, true);
    }

    fn write(&mut self, value: &Value, depth: usize) -> Res<()> {
        self.pay()?;
        if let Value::Float(x) = value {
            self.m.budget.work(numbers::cost(*x, 0))?;
        }
        match value {
            Value::Text(text) | Value::Markup(text) => self.quoted(text)?,
            Value::List(list) | Value::Tuple(list) if list.items.is_empty() => self.sign("[]"),
            Value::List(list) | Value::Tuple(list) => {
                self.sign("[");
                for (i, item) in list.items.iter().enumerate() {
                    self.separate(i, depth + 1)?;
                    self.write(item, depth + 1)?;
                }
                self.line(depth)?;
                self.sign("]");
            }
            Value::Dict(dict) if dict.entries.is_empty() => self.sign("{}"),
            Value::Dict(dict) => self.dict(dict, depth)?,
            other => match scalar(other) {
                Some(text) => self.sign(&text),
                None if matches!(other, Value::Lazy(_)) => {
                    return fail("tojson: JSON has no generator; add '| list' to it");
                }
                None => return fail(format!("tojson: JSON has no {}", other.kind())),
            },
        }
        Ok(())
    }

    fn dict(&mut self, dict: &Dict, depth: usize) -> Res<()> {
        let mut entries = Vec::with_capacity(dict.entries.len());
        self.m.budget.items(dict.entries.len())?;
        for (i, (key, _)) in dict.entries.iter().enumerate() {
            entries.push((key.clone(), Value::Int(i as i128)));
        }
        let order: Vec<Value> = match self.sort_keys {
            true => compare::sort(self.m, entries, false)?,
            false => entries.into_iter().map(|(_, place)| place).collect(),
        };
        self.sign("{");
        for (i, place) in order.iter().enumerate() {
            let Some((key, value)) = place.as_int().and_then(|place| dict.entries.get(place as usize)) else {
                continue;
            };
            self.separate(i, depth + 1)?;
            match (key, scalar(key)) {
                (Value::Text(text) | Value::Markup(text), _) => self.quoted(text)?,
                (_, Some(text)) => self.quoted(&Text::data(text))?,
                (other, None) => return fail(format!("tojson: a key is a {}, expected a text", other.kind())),
            }
            self.out.push(&self.colon.clone());
            self.write(value, depth + 1)?;
        }
        self.line(depth)?;
        self.sign("}");
        Ok(())
    }

    /// What stands before an item.
    fn separate(&mut self, item: usize, depth: usize) -> Res<()> {
        if item > 0 {
            self.out.push(&self.comma.clone());
        }
        self.line(depth)
    }

    /// Starts a new line, if there is an indent.
    fn line(&mut self, depth: usize) -> Res<()> {
        if let Some(indent) = self.indent.clone() {
            self.m.budget.build(indent.size().saturating_mul(depth))?;
            self.out.push_own("\n");
            self.out.push_repeated(&indent, depth);
        }
        self.pay()
    }

    fn quoted(&mut self, text: &Text) -> Res<()> {
        self.m.budget.chars(text.len())?;
        self.sign("\"");
        for (run, is_data) in text.runs(0..text.len()) {
            let mut plain = 0;
            for (at, c) in run.char_indices() {
                let hidden = c < ' ' || c == '"' || c == '\\' || (self.ascii && !(' '..='~').contains(&c));
                if !hidden {
                    continue;
                }
                self.out.push_from(&run[plain..at], is_data);
                plain = at + c.len_utf8();
                match c {
                    '"' => self.out.push_from("\\\"", is_data),
                    '\\' => self.out.push_from("\\\\", is_data),
                    '\n' => self.out.push_from("\\n", is_data),
                    '\r' => self.out.push_from("\\r", is_data),
                    '\t' => self.out.push_from("\\t", is_data),
                    '\u{8}' => self.out.push_from("\\b", is_data),
                    '\u{c}' => self.out.push_from("\\f", is_data),
                    c => {
                        for unit in c.encode_utf16(&mut [0; 2]) {
                            self.out.push_from(&format!("\\u{unit:04x}"), is_data);
                        }
                    }
                }
            }
            self.out.push_from(&run[plain..], is_data);
        }
        self.sign("\"");
        Ok(())
    }
}

/// A number, a bool or null in JSON.
fn scalar(value: &Value) -> Option<String> {
    Some(match value {
        Value::None => "null".into(),
        Value::Bool(yes) => yes.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Float(x) if x.is_nan() => "NaN".into(),
        Value::Float(x) if x.is_infinite() => if *x > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        Value::Float(x) => numbers::float_repr(*x),
        _ => return None,
    })
}
