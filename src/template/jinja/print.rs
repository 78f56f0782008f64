//! Values as texts: Python's `str` and `repr`.

use super::limits::{Res, fail};
use super::numbers;
use super::text::{Text, TextBuilder};
use super::unicode;
use super::value::{Dict, Machine, Value, View};

/// Python's `str`.
pub fn to_text(m: &Machine, value: &Value) -> Res<Text> {
    match value {
        Value::Text(text) | Value::Markup(text) => Ok(text.clone()),
        Value::Undefined(_) => Ok(Text::default()),
        _ => repr(m, value),
    }
}

/// Appends Python's `str` of a value to the output.
pub fn print(m: &Machine, value: &Value) -> Res<()> {
    let text = to_text(m, value)?;
    m.budget.build(text.size())?;
    m.out.borrow_mut().push(&text);
    Ok(())
}

/// Python's `repr`.
pub fn repr(m: &Machine, value: &Value) -> Res<Text> {
    let mut out = TextBuilder::default();
    write(m, value, &mut out)?;
    Ok(out.finish())
}

/// Appends what a value other than a text prints as. It counts as data: such values do not know where they came from.
fn shown(m: &Machine, text: &str, out: &mut TextBuilder) -> Res<()> {
    m.budget.build(text.len())?;
    out.push_from(text, true);
    Ok(())
}

fn write(m: &Machine, value: &Value, out: &mut TextBuilder) -> Res<()> {
    match value {
        Value::Undefined(_) => shown(m, "Undefined", out),
        Value::None => shown(m, "None", out),
        Value::Bool(yes) => shown(m, if *yes { "True" } else { "False" }, out),
        Value::Int(n) => shown(m, &n.to_string(), out),
        Value::Float(x) => {
            m.budget.work(numbers::cost(*x, 0))?;
            shown(m, &numbers::float_repr(*x), out)
        }
        Value::Text(text) => quoted(m, text, out),
        Value::Markup(text) => {
            shown(m, "Markup(", out)?;
            quoted(m, text, out)?;
            shown(m, ")", out)
        }
        Value::List(list) => items(m, ["[", "]"], &list.items, out),
        Value::Tuple(list) => items(m, ["(", if list.items.len() == 1 { ",)" } else { ")" }], &list.items, out),
        Value::Dict(dict) => entries(m, dict, out),
        Value::View(view, dict) => self::view(m, *view, dict, out),
        Value::Range(range) => {
            let [start, stop, step] = **range;
            let step = if step == 1 { String::new() } else { format!(", {step}") };
            shown(m, &format!("range({start}, {stop}{step})"), out)
        }
        Value::Namespace(namespace) => {
            shown(m, "<Namespace ", out)?;
            m.deeper(|| entries(m, &namespace.attributes.borrow(), out))?;
            shown(m, ">", out)
        }
        Value::Macro(closure) => match &closure.definition.name {
            Some(name) => shown(m, &format!("<Macro '{name}'>"), out),
            None => shown(m, "<Macro anonymous>", out),
        },
        Value::Loop(looped) => {
            let length = looped.length(m)?;
            shown(m, &format!("<LoopContext {}/{length}>", looped.state.borrow().index0 + 1), out)
        }
        Value::Lazy(_) => fail("a generator cannot be printed; add '| list' to it"),
        _ => fail(format!("a {} cannot be printed", value.kind())),
    }
}

fn quoted(m: &Machine, text: &Text, out: &mut TextBuilder) -> Res<()> {
    m.budget.chars(text.len())?;
    let quoted = unicode::repr(text, m.budget.left())?;
    m.budget.build(quoted.size())?;
    out.push(&quoted);
    Ok(())
}

fn items(m: &Machine, [open, close]: [&str; 2], items: &[Value], out: &mut TextBuilder) -> Res<()> {
    shown(m, open, out)?;
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            shown(m, ", ", out)?;
        }
        write(m, item, out)?;
    }
    shown(m, close, out)
}

fn entries(m: &Machine, dict: &Dict, out: &mut TextBuilder) -> Res<()> {
    shown(m, "{", out)?;
    for (i, (key, value)) in dict.entries.iter().enumerate() {
        if i > 0 {
            shown(m, ", ", out)?;
        }
        write(m, key, out)?;
        shown(m, ": ", out)?;
        write(m, value, out)?;
    }
    shown(m, "}", out)
}

fn view(m: &Machine, view: View, dict: &Dict, out: &mut TextBuilder) -> Res<()> {
    let entries = dict.entries.iter();
    let (open, shown) = match view {
        View::Keys => ("dict_keys([", entries.map(|(key, _)| Ok(key.clone())).collect::<Res<Vec<_>>>()?),
        View::Values => ("dict_values([", entries.map(|(_, value)| Ok(value.clone())).collect::<Res<_>>()?),
        View::Items => {
            let pair = |(key, value): &(Value, Value)| m.tuple(vec![key.clone(), value.clone()]);
            ("dict_items([", entries.map(pair).collect::<Res<_>>()?)
        }
    };
    items(m, [open, "])"], &shown, out)
}

/// A text with HTML's special characters escaped, as `markupsafe` does it. An escape has the origin of its character.
pub fn escape(m: &Machine, text: &Text) -> Res<Text> {
    m.budget.chars(text.len() / 4)?;
    let mut out = TextBuilder::limited(m.budget.left());
    for (run, is_data) in text.runs(0..text.len()) {
        let mut plain = 0;
        for (at, c) in run.char_indices() {
            let escaped = match c {
                '&' => "&amp;",
                '<' => "&lt;",
                '>' => "&gt;",
                '"' => "&#34;",
                '\'' => "&#39;",
                _ => continue,
            };
            out.push_from(&run[plain..at], is_data);
            out.push_from(escaped, is_data);
            plain = at + 1;
        }
        out.push_from(&run[plain..], is_data);
    }
    let escaped = out.finish_within()?;
    m.budget.build(escaped.size())?;
    Ok(escaped)
}

/// The text of a value for Markup: escaped, if the value is not Markup itself.
pub fn to_markup(m: &Machine, value: &Value) -> Res<Text> {
    match value {
        Value::Markup(text) => Ok(text.clone()),
        _ => escape(m, &to_text(m, value)?),
    }
}
