//! Jinja2's filters on texts and numbers.

use super::iterate::{collect, iterate};
use super::limits::{Res, fail};
use super::methods::text_method;
use super::numbers;
use super::ops;
use super::print;
use super::str_methods;
use super::text::{Text, TextBuilder};
use super::unicode::{self, Case, change_case};
use super::value::{Args, Machine, Value, View, length, required};

fn is_true(value: Option<Value>) -> bool {
    value.is_some_and(|value| value.is_true())
}

/// The text of a value; Markup stays Markup.
fn soft(m: &Machine, value: &Value) -> Res<Value> {
    match value {
        Value::Text(_) | Value::Markup(_) => Ok(value.clone()),
        _ => Ok(Value::Text(print::to_text(m, value)?)),
    }
}

/// A method of the value's text.
pub fn method(m: &Machine, value: &Value, name: &str, args: Args) -> Res<Value> {
    match soft(m, value)? {
        Value::Markup(text) => text_method(m, &text, name, args, true),
        other => text_method(m, other.as_text().unwrap_or(&Text::default()), name, args, false),
    }
}

/// The same without arguments.
pub fn plain_method(m: &Machine, value: &Value, name: &str, args: Args) -> Res<Value> {
    let [] = args.bind(name, [])?;
    method(m, value, name, Args::default())
}

fn like(m: &Machine, value: &Value, text: Text) -> Res<Value> {
    m.budget.build(text.size())?;
    Ok(if matches!(value, Value::Markup(_)) { Value::Markup(text) } else { Value::Text(text) })
}

fn text_of<'a>(value: &'a Value, filter: &str) -> Res<&'a Text> {
    match value.defined()?.as_text() {
        Some(text) => Ok(text),
        None => fail(format!("{filter} needs a text, found a {}", value.kind())),
    }
}

fn integer(value: Option<Value>, default: i128, filter: &str) -> Res<i128> {
    match value {
        None => Ok(default),
        Some(value) => match value.defined()?.as_int() {
            Some(n) => Ok(n),
            None => fail(format!("{filter}: an argument is a {}, expected an integer", value.kind())),
        },
    }
}

/// `title`: not that of `str`.
pub fn title(m: &Machine, value: &Value) -> Res<Value> {
    let value = soft(m, value)?;
    let text = text_of(&value, "title")?;
    m.budget.chars(text.len())?;
    m.text(change_case(text, Case::Headline, m.budget.left())?)
}

/// `replace(old, new, count=None)`
pub fn replace(m: &Machine, value: &Value, args: Args) -> Res<Value> {
    let [old, new, count] = args.bind("replace", ["old", "new", "count"])?;
    let text = |value: Option<Value>, name: &str| print::to_text(m, &required(value, "replace", name)?);
    let (old, new) = (text(old, "old")?, text(new, "new")?);
    let count = integer(count.filter(|count| !matches!(count, Value::None)), -1, "replace")?;
    let whole = print::to_text(m, value)?;
    m.budget.chars(whole.len())?;
    let replaced = str_methods::replace(&whole, &old, &new, count, m.budget.left())?;
    m.budget.chars(replaced.len() / 2)?;
    m.text(replaced)
}

/// `indent(width=4, first=False, blank=False)`
pub fn indent(m: &Machine, value: &Value, args: Args) -> Res<Value> {
    let [width, first, blank] = args.bind("indent", ["width", "first", "blank"])?;
    let margin = match width {
        Some(Value::Text(text)) => text,
        Some(margin @ Value::Markup(_)) => print::to_text(m, &margin)?,
        width => {
            let width = usize::try_from(integer(width, 4, "indent")?.max(0)).unwrap_or(usize::MAX);
            m.budget.build(width)?;
            Text::own(" ".repeat(width))
        }
    };
    let (first, blank) = (is_true(first), is_true(blank));
    let text = text_of(value, "indent")?;
    m.budget.build(text.size())?;
    let mut out = TextBuilder::default();
    let ended = Text::concat([text, &Text::own("\n")].into_iter());
    for (i, line) in str_methods::split_lines(&ended, false).enumerate() {
        m.budget.build(line.size() + margin.size() + 1)?;
        if i > 0 {
            out.push_own("\n");
        }
        if (i == 0 && first) || (i > 0 && (blank || !line.is_empty())) {
            out.push(&margin);
        }
        out.push(&line);
    }
    like(m, value, out.finish())
}

/// `truncate(length=255, killwords=False, end='...', leeway=None)`
pub fn truncate(m: &Machine, value: &Value, args: Args) -> Res<Value> {
    let [size, killwords, end, leeway] = args.bind("truncate", ["length", "killwords", "end", "leeway"])?;
    // A length that is not an integer is an error only where it cuts.
    let cuts = !matches!(size, Some(Value::Float(_)));
    let size = match size {
        Some(Value::Float(x)) if x.is_finite() => x.floor() as i128,
        size => integer(size, 255, "truncate")?,
    };
    let end = end.unwrap_or_else(|| Value::Text(Text::own("...")));
    let end_len = text_of(&end, "truncate")?.count_chars() as i128;
    let leeway = integer(leeway.filter(|leeway| !matches!(leeway, Value::None)), 5, "truncate")?;
    if size < end_len || leeway < 0 {
        return fail(format!("truncate: the length must be at least {end_len}, and the leeway at least 0"));
    }
    match length(m, value)? {
        None => return fail(format!("truncate needs a text, found a {}", value.kind())),
        Some(len) if len <= size.saturating_add(leeway) => return Ok(value.clone()),
        Some(_) if !cuts => return fail("truncate: the length is a float, expected an integer"),
        Some(_) => {}
    }
    let text = text_of(value, "truncate")?;
    let mut cut = str_methods::slice(text, None, Some(size - end_len), None)?;
    if !is_true(killwords)
        && let Some(space) = cut.as_str().rfind(' ')
    {
        cut = cut.slice(0..space);
    }
    let end = if matches!(value, Value::Markup(_)) { print::to_markup(m, &end)? } else { print::to_text(m, &end)? };
    like(m, value, Text::concat([&cut, &end].into_iter()))
}

/// `wordcount`
pub fn wordcount(m: &Machine, value: &Value) -> Res<Value> {
    let text = print::to_text(m, value)?;
    m.budget.chars(text.len())?;
    let is_word = |c: char| c == '_' || unicode::ALPHABETIC.contains(c) || unicode::NUMERIC.contains(c);
    let words = text.as_str().split(|c| !is_word(c)).filter(|word| !word.is_empty()).count();
    Ok(Value::Int(words as i128))
}

/// `striptags`
pub fn striptags(m: &Machine, value: &Value) -> Res<Value> {
    let mut text = print::to_text(m, value)?;
    for (open, close) in [("<!--", "-->"), ("<", ">")] {
        m.budget.chars(text.len())?;
        m.budget.build(text.size())?;
        let mut kept = TextBuilder::default();
        let mut at = 0;
        let whole = text.as_str();
        while let Some(start) = whole[at..].find(open).map(|start| at + start) {
            let Some(end) = whole[start..].find(close) else { break };
            kept.push_slice(&text, at..start);
            at = start + end + close.len();
        }
        kept.push_slice(&text, at..text.len());
        text = kept.finish();
        if text.as_str().contains(open) && text.as_str().split_once(open).is_some_and(|(_, rest)| rest.contains(close))
        {
            return fail("striptags: tags inside one another are not supported");
        }
    }
    let is_entity = |rest: &str| rest.starts_with(|c: char| c == '#' || c.is_ascii_alphanumeric());
    if text.as_str().split('&').skip(1).any(is_entity) {
        return fail("striptags: entities such as '&amp;' are not supported");
    }
    let words = str_methods::split(&text, None, -1, str_methods::Side::Left)?;
    let joined = str_methods::join(&Text::own(" "), words, m.budget.left())?;
    m.text(joined)
}

/// `urlencode`
pub fn urlencode(m: &Machine, value: &Value) -> Res<Value> {
    let mut out = TextBuilder::default();
    m.budget.work(1)?;
    if value.as_text().is_some() || iterate(value).is_err() {
        quote(m, value, false, &mut out)?;
        return Ok(Value::Text(out.finish()));
    }
    let pairs = match value {
        Value::Dict(dict) => collect(m, &Value::View(View::Items, dict.clone()))?,
        other => collect(m, other)?,
    };
    for (i, pair) in pairs.iter().enumerate() {
        if i > 0 {
            out.push_own("&");
        }
        match &collect(m, pair)?[..] {
            [key, value] => {
                quote(m, key, true, &mut out)?;
                out.push_own("=");
                quote(m, value, true, &mut out)?;
            }
            _ => return fail("urlencode needs pairs of a key and a value"),
        }
    }
    Ok(Value::Text(out.finish()))
}

/// Appends a value for a URL. In a query, a slash is quoted and a space is `+`.
fn quote(m: &Machine, value: &Value, in_query: bool, out: &mut TextBuilder) -> Res<()> {
    let text = print::to_text(m, value)?;
    m.budget.chars(text.len())?;
    m.budget.build(text.size().saturating_mul(3))?;
    for (run, is_data) in text.runs(0..text.len()) {
        for byte in run.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                    out.push_char(char::from(byte), is_data);
                }
                b'/' if !in_query => out.push_char('/', is_data),
                b' ' if in_query => out.push_char('+', is_data),
                _ => {
                    const HEX: &[u8; 16] = b"0123456789ABCDEF";
                    out.push_char('%', is_data);
                    for digit in [byte >> 4, byte & 15] {
                        out.push_char(char::from(HEX[usize::from(digit)]), is_data);
                    }
                }
            }
        }
    }
    Ok(())
}

/// `int(default=0, base=10)`
pub fn int(m: &Machine, value: &Value, args: Args) -> Res<Value> {
    let [default, base] = args.bind("int", ["default", "base"])?;
    let default = default.unwrap_or(Value::Int(0));
    match value.defined()? {
        Value::Text(text) | Value::Markup(text) => {
            m.budget.work(16)?;
            m.budget.chars(text.len())?;
            let base = base.map_or(Some(10), |base| base.as_int());
            if let Some(base) = base
                && let Ok(n) = numbers::parse_int(text, base)
            {
                return Ok(Value::Int(n));
            }
            match numbers::parse_float(text) {
                Ok(x) if x.is_finite() => Ok(Value::Int(numbers::float_to_int(x)?)),
                _ => Ok(default),
            }
        }
        Value::Float(x) if x.is_nan() => Ok(default),
        Value::Float(x) => Ok(Value::Int(numbers::float_to_int(*x)?)),
        other => Ok(other.as_int().map_or(default, Value::Int)),
    }
}

/// `float(default=0.0)`
pub fn float(m: &Machine, value: &Value, args: Args) -> Res<Value> {
    let [default] = args.bind("float", ["default"])?;
    let default = default.unwrap_or(Value::Float(0.0));
    match value.defined()? {
        Value::Text(text) | Value::Markup(text) => {
            m.budget.work(16)?;
            m.budget.chars(text.len())?;
            Ok(numbers::parse_float(text).map_or(default, Value::Float))
        }
        other => Ok(ops::as_float(other).map_or(default, Value::Float)),
    }
}

/// `round(precision=0, method='common')`
pub fn round(m: &Machine, value: &Value, args: Args) -> Res<Value> {
    let [precision, method] = args.bind("round", ["precision", "method"])?;
    let to_int = matches!(precision, Some(Value::None));
    let precision = integer(precision.filter(|_| !to_int), 0, "round")?;
    let method = match &method {
        None => "common",
        Some(method) => method.as_text().map_or("", |method| method.as_str()),
    };
    if !["common", "ceil", "floor"].contains(&method) {
        return fail("round: the method must be common, ceil or floor");
    }
    let rounded = match value.defined()? {
        _ if to_int && method != "common" => return fail("round: the precision is None"),
        Value::Float(x) if to_int => return Ok(Value::Int(numbers::round_to_int(*x)?)),
        Value::Float(x) if method == "common" => {
            let digits = usize::try_from(precision.unsigned_abs()).unwrap_or(usize::MAX);
            m.budget.work(numbers::cost(*x, digits))?;
            return Ok(Value::Float(numbers::round_float(*x, precision)?));
        }
        Value::Float(x) => *x,
        other => match other.as_int() {
            Some(n) if method == "common" => return Ok(Value::Int(numbers::round_int(n, precision)?)),
            Some(n) if precision == 0 => return Ok(Value::Float(n as f64)),
            Some(n) => n as f64,
            None => return fail(format!("round needs a number, found a {}", other.kind())),
        },
    };
    let scale = 10f64.powi(i32::try_from(precision).map_err(|_| "round: the precision is too large")?);
    let scaled = rounded * scale;
    if !scaled.is_finite() {
        return fail("round: the number is too large");
    }
    Ok(Value::Float((if method == "ceil" { scaled.ceil() } else { scaled.floor() }) / scale))
}

/// `abs`
pub fn abs(value: &Value) -> Res<Value> {
    match value.defined()? {
        Value::Float(x) => Ok(Value::Float(x.abs())),
        other => match other.as_int().and_then(i128::checked_abs) {
            Some(n) => Ok(Value::Int(n)),
            None => fail(format!("abs needs a number, found a {}", other.kind())),
        },
    }
}

/// `filesizeformat(binary=False)`
pub fn filesizeformat(m: &Machine, value: &Value, args: Args) -> Res<Value> {
    let [binary] = args.bind("filesizeformat", ["binary"])?;
    let binary = is_true(binary);
    m.budget.work(numbers::cost(f64::MAX, 0))?;
    let bytes = match value.defined()? {
        Value::Text(text) | Value::Markup(text) => {
            m.budget.chars(text.len())?;
            numbers::parse_float(text)?
        }
        other => ops::as_float(other).ok_or("filesizeformat needs a number")?,
    };
    let base = if binary { 1024.0 } else { 1000f64 };
    if bytes == 1.0 {
        return m.data("1 Byte");
    }
    if bytes < base {
        return m.data(format!("{} Bytes", bytes.trunc() as i128));
    }
    let unit = |i: i32| base.powi(i + 2);
    let prefixes = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
    let i = (0..7).find(|i| bytes < unit(*i)).unwrap_or(7);
    let prefix = if binary {
        format!("{}iB", prefixes[i as usize].to_uppercase())
    } else {
        format!("{}B", prefixes[i as usize])
    };
    if !bytes.is_finite() {
        return fail("filesizeformat: the number is not finite");
    }
    m.data(format!("{:.1} {prefix}", base * bytes / unit(i)))
}

/// `xmlattr(autospace=True)`
pub fn xmlattr(m: &Machine, value: &Value, args: Args) -> Res<Value> {
    let [autospace] = args.bind("xmlattr", ["autospace"])?;
    let autospace = autospace.is_none_or(|autospace| autospace.is_true());
    let Value::Dict(dict) = value.defined()? else {
        return fail(format!("xmlattr needs a dict, found a {}", value.kind()));
    };
    let mut out = TextBuilder::default();
    for (key, value) in &dict.entries {
        m.budget.work(1)?;
        if matches!(value, Value::None | Value::Undefined(_)) {
            continue;
        }
        let name = text_of(key, "xmlattr")?;
        m.budget.chars(name.len())?;
        if name.as_str().contains([' ', '\t', '\n', '\r', '\u{b}', '\u{c}', '/', '>', '=']) {
            return fail("xmlattr: a key has a character that an attribute's name cannot have");
        }
        if autospace || !out.is_empty() {
            out.push_own(" ");
        }
        out.push(&print::to_markup(m, key)?);
        out.push_own("=\"");
        out.push(&print::to_markup(m, value)?);
        out.push_own("\"");
        m.budget.build(4)?;
    }
    m.text(out.finish())
}

/// `count` and `length`
pub fn count(m: &Machine, value: &Value) -> Res<Value> {
    match (length(m, value)?, value) {
        (Some(length), _) => Ok(Value::Int(length)),
        (None, Value::Loop(looped)) => Ok(Value::Int(looped.length(m)?)),
        _ => fail(format!("a {} has no length", value.kind())),
    }
}
