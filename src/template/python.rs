//! Values as Python writes them: what `{{ x }}` prints, and `tojson` as `json.dumps`.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Output, State, Value};
use serde_json::Value as Json;
use std::fmt::Write;

/// What `{{ value }}` prints.
pub(super) fn print(out: &mut Output, _: &mut State, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(()),
        ValueKind::String => out.write_str(value.as_str().unwrap_or_default()).map_err(Error::from),
        _ => out.write_str(&repr(value)).map_err(Error::from),
    }
}

/// Python's `repr`.
fn repr(value: &Value) -> String {
    match value.kind() {
        ValueKind::None => "None".into(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.into(),
        ValueKind::Number if !value.is_integer() => float(f64::try_from(value.clone()).unwrap_or(f64::NAN)),
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter().into_iter().flatten().map(|item| repr(&item));
            format!("[{}]", items.collect::<Vec<_>>().join(", "))
        }
        ValueKind::Map => {
            let item =
                |key: Value| format!("{}: {}", repr(&key), repr(&value.get_item(&key).unwrap_or_default()));
            format!("{{{}}}", value.try_iter().into_iter().flatten().map(item).collect::<Vec<_>>().join(", "))
        }
        _ => value.to_string(),
    }
}

fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// A float as Python writes it: the shortest digits, an exponent below 1e-4 and from 1e16 on.
fn float(x: f64) -> String {
    let size = x.abs();
    if !x.is_finite() || x == 0.0 || (1e-4..1e16).contains(&size) {
        return match x {
            _ if x.is_nan() => "nan".into(),
            _ if x.is_infinite() => if x > 0.0 { "inf" } else { "-inf" }.into(),
            _ => format!("{x:?}"),
        };
    }
    let (digits, exponent) =
        format!("{x:e}").split_once('e').map(|(d, e)| (d.to_string(), e.to_string())).unwrap_or_default();
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// `tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`, as transformers defines it.
pub(super) fn tojson(value: Value, keywords: Kwargs) -> Result<String, Error> {
    let json: Json = serde_json::to_value(&value)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("tojson: {error}")))?;
    let indent = match keywords.get::<Option<Value>>("indent")? {
        Some(indent) if indent.is_integer() => Some(" ".repeat(usize::try_from(indent)?)),
        Some(indent) => indent.as_str().map(str::to_string),
        None => None,
    };
    let separators = keywords.get::<Option<Vec<String>>>("separators")?.filter(|pair| pair.len() == 2);
    let dumps = Dumps {
        comma: separators.as_ref().map_or(if indent.is_some() { "," } else { ", " }, |pair| &pair[0]),
        colon: separators.as_ref().map_or(": ", |pair| &pair[1]),
        indent: indent.as_deref(),
        sort_keys: keywords.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        ascii: keywords.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
    };
    keywords.assert_all_used()?;
    let mut out = String::new();
    dumps.write(&json, 0, &mut out);
    Ok(out)
}

/// The options of Python's `json.dumps`.
struct Dumps<'a> {
    comma: &'a str,
    colon: &'a str,
    indent: Option<&'a str>,
    sort_keys: bool,
    ascii: bool,
}

impl Dumps<'_> {
    fn write(&self, value: &Json, depth: usize, out: &mut String) {
        match value {
            Json::Null => out.push_str("null"),
            Json::Bool(yes) => out.push_str(if *yes { "true" } else { "false" }),
            Json::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
                Some(x) => out.push_str(&float(x)),
                None => out.push_str(&number.to_string()),
            },
            Json::String(text) => self.string(text, out),
            Json::Array(items) => {
                self.list('[', ']', items.iter(), depth, out, |item, out| self.write(item, depth + 1, out));
            }
            Json::Object(items) => {
                let mut items: Vec<(&String, &Json)> = items.iter().collect();
                if self.sort_keys {
                    items.sort_by_key(|(key, _)| *key);
                }
                self.list('{', '}', items.into_iter(), depth, out, |(key, value), out| {
                    self.string(key, out);
                    out.push_str(self.colon);
                    self.write(value, depth + 1, out);
                });
            }
        }
    }

    fn list<T>(
        &self,
        open: char,
        close: char,
        items: impl ExactSizeIterator<Item = T>,
        depth: usize,
        out: &mut String,
        write: impl Fn(T, &mut String),
    ) {
        let empty = items.len() == 0;
        let line = |depth: usize, out: &mut String| {
            if let Some(indent) = self.indent.filter(|_| !empty) {
                out.push('\n');
                out.push_str(&indent.repeat(depth));
            }
        };
        out.push(open);
        for (i, item) in items.enumerate() {
            if i > 0 {
                out.push_str(self.comma);
            }
            line(depth + 1, out);
            write(item, out);
        }
        line(depth, out);
        out.push(close);
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a String cannot fail.
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}
