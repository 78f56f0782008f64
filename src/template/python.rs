//! Values with Python's behaviour: JSON as templates see it, `str` for printing, and `json.dumps` for `tojson`.

use super::limits::{MAX_BYTES, MAX_DEPTH, check_time, refusal, too_deep};
use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, ValueIter, ValueKind};
use minijinja::{Error, Output, State, Value};
use serde_json::Value as Json;
use std::sync::{Arc, Mutex};

/// Whether a value is a list, or something that Python would make a list of, such as a slice or a range.
pub(super) fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) && !is_generator(value)
}

/// Whether a value is the lazy result of a filter.
pub(super) fn is_generator(value: &Value) -> bool {
    value.downcast_object_ref::<Generator>().is_some()
}

/// A JSON value as a template sees it.
pub(super) fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => ().into(),
        Json::Bool(yes) => (*yes).into(),
        Json::Number(number) => Value::from(minijinja::value::Serde(number)),
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => items.iter().map(from_json).collect(),
        Json::Object(items) => {
            let items = items.iter().map(|(key, item)| (key.as_str(), from_json(item)));
            Value::from_object(Dict(Value::from_pairs(items)))
        }
    }
}

/// A dict of the conversation. As in Jinja2, `dict.items` is always the method, and `dict['items']` the item.
#[derive(Debug)]
struct Dict(Value);

impl Object for Dict {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.as_object()?.get_value(key)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        const METHODS: [&str; 11] =
            ["clear", "copy", "fromkeys", "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values"];
        if METHODS.contains(&key) { Some(Value::from_object(Method)) } else { self.get_value(&Value::from(key)) }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.try_iter().into_iter().flatten().collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        self.0.len()
    }
}

/// A method of a dict as a value, which templates test for but do not call. minijinja calls methods by name.
#[derive(Debug)]
struct Method;

impl Object for Method {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// A generator as in Python: it is true, has no length, and is empty after the first iteration.
#[derive(Debug)]
pub(super) struct Generator(Mutex<ValueIter>);

impl Generator {
    /// A generator over the items of a value.
    pub(super) fn of(value: &Value) -> Result<Value, Error> {
        Ok(Value::from_object(Generator(Mutex::new(value.try_iter()?))))
    }
}

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let generator = self.clone();
        Enumerator::Iter(Box::new(std::iter::from_fn(move || generator.0.lock().ok()?.next())))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        None
    }
}

/// Writes a value as `{{ value }}` prints it.
pub(super) fn print(out: &mut Output, _: &mut State, value: &Value) -> Result<(), Error> {
    check_time()?;
    match value.as_str() {
        Some(text) => out.write_str(text),
        None => out.write_str(&to_text(value)?),
    }
    .map_err(Error::from)
}

/// A value as a text, as Python's `str` gives it.
pub(super) fn to_text(value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.into()),
        None if value.is_undefined() => Ok(String::new()),
        None => Writer { comma: ", ".into(), colon: ": ".into(), ..Writer::default() }.text(value),
    }
}

/// A text with HTML's special characters escaped, as Python's `markupsafe` does it.
pub(super) fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&#34;").replace('\'', "&#39;")
}

/// The filter `tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)` of transformers.
pub(super) fn tojson(value: Value, options: Kwargs) -> Result<String, Error> {
    let indent = match options.get::<Option<Value>>("indent")? {
        Some(width) if width.is_integer() => Some(" ".repeat(i64::try_from(width)?.clamp(0, 1 << 10) as usize)),
        Some(indent) => Some(to_text(&indent)?),
        None => None,
    };
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    let separators = separators.unwrap_or_else(|| vec![if indent.is_some() { "," } else { ", " }.into(), ": ".into()]);
    let [comma, colon] =
        <[String; 2]>::try_from(separators).map_err(|_| refusal("tojson: separators must be a list of two texts"))?;
    let [ascii, sort_keys] = ["ensure_ascii", "sort_keys"].map(|name| options.get::<Option<bool>>(name));
    let (ascii, sort_keys) = (ascii?.unwrap_or(false), sort_keys?.unwrap_or(false));
    options.assert_all_used()?;
    Writer { json: true, comma, colon, indent, sort_keys, ascii, out: String::new() }.text(&value)
}

/// Writes values as `json.dumps` or as `repr` writes them.
#[derive(Default)]
struct Writer {
    json: bool,
    comma: String,
    colon: String,
    indent: Option<String>,
    sort_keys: bool,
    ascii: bool,
    out: String,
}

impl Writer {
    fn text(mut self, value: &Value) -> Result<String, Error> {
        self.write(value, 0)?;
        Ok(self.out)
    }

    fn write(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
        if self.out.len() > MAX_BYTES {
            return Err(refusal(format!("a text is longer than {} MiB", MAX_BYTES >> 20)));
        }
        let is_integer = value.is_integer();
        match value.kind() {
            ValueKind::String => self.quoted(value.as_str().unwrap_or_default()),
            ValueKind::Map => self.nested(value, ["{", "}"], depth)?,
            _ if is_generator(value) => {
                return Err(refusal("a generator cannot be printed or turned into JSON; add '| list' to it"));
            }
            ValueKind::Seq | ValueKind::Iterable if value.is_tuple() && !self.json => {
                self.nested(value, ["(", if value.len() == Some(1) { ",)" } else { ")" }], depth)?;
            }
            ValueKind::Seq | ValueKind::Iterable => self.nested(value, ["[", "]"], depth)?,
            ValueKind::None => self.out += if self.json { "null" } else { "None" },
            ValueKind::Bool if self.json => self.out += &value.is_true().to_string(),
            ValueKind::Bool => self.out += if value.is_true() { "True" } else { "False" },
            ValueKind::Number if !is_integer => {
                let digits = float(f64::try_from(value.clone())?);
                self.out += &if self.json { digits.replace("inf", "Infinity").replace("nan", "NaN") } else { digits };
            }
            ValueKind::Number => self.out += &value.to_string(),
            kind if self.json => return Err(refusal(format!("tojson: JSON has no {kind}"))),
            ValueKind::Undefined => self.out += "Undefined",
            _ => self.out += &value.to_string(),
        }
        Ok(())
    }

    fn nested(&mut self, value: &Value, [open, close]: [&str; 2], depth: usize) -> Result<(), Error> {
        let is_map = value.kind() == ValueKind::Map;
        let mut items = value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
        if is_map && self.sort_keys {
            items.sort();
        }
        self.out += open;
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.out += &self.comma;
            }
            self.line(depth + 1);
            // Keys of JSON are texts.
            let quote = if is_map && self.json && item.as_str().is_none() { "\"" } else { "" };
            self.out += quote;
            self.write(item, depth + 1)?;
            self.out += quote;
            if is_map {
                self.out += &self.colon;
                self.write(&value.get_item(item)?, depth + 1)?;
            }
        }
        if !items.is_empty() {
            self.line(depth);
        }
        self.out += close;
        Ok(())
    }

    /// Starts a new line, if there is an indent.
    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn quoted(&mut self, text: &str) {
        let single = !self.json && (!text.contains('\'') || text.contains('"'));
        let quote = if single { '\'' } else { '"' };
        self.out.push(quote);
        for c in text.chars() {
            match c {
                '\n' => self.out += "\\n",
                '\r' => self.out += "\\r",
                '\t' => self.out += "\\t",
                '\u{8}' if self.json => self.out += "\\b",
                '\u{c}' if self.json => self.out += "\\f",
                c if c == quote || c == '\\' => self.out.extend(['\\', c]),
                c if !self.hides(c) => self.out.push(c),
                c if !self.json && u32::from(c) < 0x100 => self.out += &format!("\\x{:02x}", u32::from(c)),
                c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| self.out += &format!("\\u{unit:04x}")),
            }
        }
        self.out.push(quote);
    }

    /// Whether a character is written as an escape with its code.
    fn hides(&self, c: char) -> bool {
        if self.json {
            return c < ' ' || (self.ascii && !c.is_ascii());
        }
        matches!(c, '\u{a0}' | '\u{ad}' | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{3000}' | '\u{feff}')
            || c.is_control()
    }
}

/// A float as Python writes it: the fewest digits that identify it, with an exponent below 1e-4 and from 1e16 on.
fn float(x: f64) -> String {
    if !x.is_finite() || x == 0.0 || (1e-4..1e16).contains(&x.abs()) {
        return format!("{x:?}").to_lowercase();
    }
    let text = format!("{x:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or_default();
    format!("{digits}e{:+03}", exponent.parse::<i32>().unwrap_or(0))
}
