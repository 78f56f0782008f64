//! `str.format` as Jinja2's sandbox runs it: with Python's `string.Formatter`.

use super::format_spec::{FormatValue, format as format_value, number};
use super::str_methods::is_of_kind;
use super::text::{Fault, Text, TextBuilder};
use super::unicode::escape_non_ascii;
use std::ops::Range;

/// A value whose attributes and items a replacement field can name.
pub trait FieldValue: FormatValue {
    /// `value.name`, as `{0.name}` asks for it.
    fn attribute(&self, name: &Text) -> Result<Self, Fault>;
    /// `value[key]`, as `{0[key]}` asks for it.
    fn item(&self, key: Key) -> Result<Self, Fault>;
}

/// The key of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    Index(i64),
    Name(Text),
}

/// How deep format specifications may hold fields themselves, as in Python.
const MAX_DEPTH: i32 = 2;

/// `template.format(*args, **named)`
pub fn format<V: FieldValue>(
    template: &Text,
    args: &[V],
    named: &dyn Fn(&str) -> Option<V>,
    limit: usize,
) -> Result<Text, Fault> {
    Formatter { args, named, limit, numbering: Numbering::Open }.render(template, MAX_DEPTH)
}

struct Formatter<'a, V> {
    args: &'a [V],
    named: &'a dyn Fn(&str) -> Option<V>,
    limit: usize,
    numbering: Numbering,
}

/// Whether fields name their arguments by number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Numbering {
    Open,
    /// They don't; the next argument.
    Automatic(i64),
    Manual,
}

impl<V: FieldValue> Formatter<'_, V> {
    fn render(&mut self, template: &Text, depth: i32) -> Result<Text, Fault> {
        if depth < 0 {
            return Err(Fault::value_error("Max string recursion exceeded"));
        }
        let mut out = TextBuilder::limited(self.limit);
        let mut at = 0;
        while at < template.len() {
            let (literal, field, next) = next_part(template.as_str(), at)?;
            out.push_slice(template, literal);
            at = next;
            if let Some(field) = field {
                let room = out.room()?;
                let name = template.slice(field.name);
                let value = self.value(&name)?;
                let value = match field.conversion {
                    None => Value::Plain(value),
                    Some('s') => Value::Text(value.to_str(room)?),
                    Some('r') => Value::Text(value.to_repr(room)?),
                    Some('a') => Value::Text(escape_non_ascii(&value.to_repr(room)?, room)?),
                    Some(other) => return Err(Fault::value_error(format!("Unknown conversion specifier {other}"))),
                };
                let spec = self.render(&template.slice(field.spec), depth - 1)?;
                out.push(&match value {
                    Value::Plain(value) => format_value(&value, &spec, room)?,
                    Value::Text(text) => format_value(&text, &spec, room)?,
                });
            }
        }
        out.finish_within()
    }

    /// The value that a field names.
    fn value(&mut self, name: &Text) -> Result<V, Fault> {
        let switched = || {
            // Python has this message for both directions.
            let message = "cannot switch from manual field specification to automatic field numbering";
            Err(Fault::value_error(message))
        };
        let split = name.as_str().find(['.', '[']).unwrap_or(name.len());
        let first = match (name.is_empty(), self.numbering) {
            (true, Numbering::Manual) => return switched(),
            (true, numbering) => {
                let next = if let Numbering::Automatic(next) = numbering { next } else { 0 };
                self.numbering = Numbering::Automatic(next + 1);
                Key::Index(next)
            }
            (false, numbering) => {
                if is_of_kind(name, "isdigit") == Some(true) {
                    if matches!(numbering, Numbering::Automatic(_)) {
                        return switched();
                    }
                    self.numbering = Numbering::Manual;
                }
                key(&name.slice(0..split))?
            }
        };
        let mut value = match first {
            Key::Index(index) => usize::try_from(index).ok().and_then(|index| self.args.get(index)).cloned(),
            Key::Name(ref name) => (self.named)(name.as_str()),
        };
        let mut value = value.take().ok_or_else(|| match &first {
            Key::Index(_) => Fault::Raised("IndexError", "tuple index out of range".into()),
            Key::Name(name) => Fault::Raised("KeyError", format!("'{}'", name.as_str())),
        })?;
        let mut at = split;
        while at < name.len() {
            let rest = &name.as_str()[at + 1..];
            let is_item = name.as_str().as_bytes()[at] == b'[';
            // Only what ends this step is searched: the whole rest would be looked at again for each.
            let end = match is_item {
                true => rest.find(']').ok_or_else(|| Fault::value_error("Missing ']' in format string"))?,
                false => rest.find(['.', '[']).unwrap_or(rest.len()),
            };
            if end == 0 {
                return Err(Fault::value_error("Empty attribute in format string"));
            }
            let step = name.slice(at + 1..at + 1 + end);
            value = if is_item { value.item(key(&step)?)? } else { value.attribute(&step)? };
            at += 1 + end + usize::from(is_item);
            if !matches!(name.as_str().as_bytes().get(at), None | Some(b'.' | b'[')) {
                return Err(Fault::value_error("Only '.' or '[' may follow ']' in format field specifier"));
            }
        }
        Ok(value)
    }
}

/// A value, or the text that a conversion made of it.
enum Value<V> {
    Plain(V),
    Text(Text),
}

/// A key, which is an index if it is all digits.
fn key(text: &Text) -> Result<Key, Fault> {
    let mut rest = text.as_str();
    match number(&mut rest) {
        Ok(Some(index)) if rest.is_empty() => Ok(Key::Index(index as i64)),
        Err(error) => Err(error),
        _ => Ok(Key::Name(text.clone())),
    }
}

/// A replacement field, by its places in the template.
struct Field {
    name: Range<usize>,
    conversion: Option<char>,
    spec: Range<usize>,
}

/// The next literal text of a template, the field after it if there is one, and where the rest begins.
fn next_part(template: &str, start: usize) -> Result<(Range<usize>, Option<Field>, usize), Fault> {
    let bytes = template.as_bytes();
    let Some(brace) = bytes[start..].iter().position(|byte| matches!(byte, b'{' | b'}')).map(|at| start + at) else {
        return Ok((start..template.len(), None, template.len()));
    };
    let after = brace + 1;
    if bytes.get(after) == Some(&bytes[brace]) {
        return Ok((start..after, None, after + 1)); // a doubled brace is a brace
    }
    match (bytes[brace], after == bytes.len()) {
        (b'}', _) => Err(Fault::value_error("Single '}' encountered in format string")),
        (_, true) => Err(Fault::value_error("Single '{' encountered in format string")),
        _ => field(template, after).map(|(field, next)| (start..brace, Some(field), next)),
    }
}

/// The field that begins at a position, and where the rest begins.
fn field(template: &str, start: usize) -> Result<(Field, usize), Fault> {
    let bytes = template.as_bytes();
    let mut at = start;
    let end = loop {
        match bytes.get(at) {
            None => return Err(Fault::value_error("expected '}' before end of string")),
            Some(b'{') => return Err(Fault::value_error("unexpected '{' in field name")),
            Some(b'[') => {
                let close = bytes[at..].iter().position(|&byte| byte == b']');
                at = close.map_or(bytes.len(), |close| at + close);
            }
            Some(b'}' | b':' | b'!') => break at,
            Some(_) => at += 1,
        }
    };
    let name = start..end;
    let mut at = end + 1;
    let mut conversion = None;
    match bytes[end] {
        b'}' => return Ok((Field { name, conversion, spec: at..at }, at)),
        b'!' => {
            let Some(c) = template[at..].chars().next() else {
                return Err(Fault::value_error("end of string while looking for conversion specifier"));
            };
            conversion = Some(c);
            at += c.len_utf8();
            match bytes.get(at) {
                Some(b'}') => return Ok((Field { name, conversion, spec: at..at }, at + 1)),
                Some(b':') => at += 1,
                Some(_) => return Err(Fault::value_error("expected ':' after conversion specifier")),
                None => {}
            }
        }
        _ => {}
    }
    let mut open = 1;
    for (end, byte) in (at..).zip(&bytes[at..]) {
        match byte {
            b'{' => open += 1,
            b'}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Ok((Field { name, conversion, spec: at..end }, end + 1));
        }
    }
    Err(Fault::value_error("unmatched '{' in format spec"))
}

#[cfg(test)]
#[path = "../../../tests/unit/jinja_format.rs"]
mod tests;
