//! The escapes of string literals, as Jinja2 reads them: with Python's `unicode-escape`.

use super::text::Fault;
use super::unicode::{escape, is_known};
use std::ops::RangeInclusive;

/// The characters of a string literal without its quotes.
pub fn unescape(source: &str) -> Result<String, Fault> {
    let wrong = |why: &str| Fault::Raised("UnicodeDecodeError", why.into());
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(c) = rest.chars().next() else {
            return Err(wrong("\\ at end of string"));
        };
        let code = rest;
        rest = &rest[c.len_utf8()..];
        match c {
            '\n' => {}
            '\\' | '\'' | '"' => out.push(c),
            'a' => out.push('\x07'),
            'b' => out.push('\x08'),
            'f' => out.push('\x0c'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\x0b'),
            '0'..='7' => {
                let (value, after) = number(code, 8, 1..=3).unwrap_or((0, code));
                out.extend(char::from_u32(value));
                rest = after;
            }
            'x' | 'u' | 'U' => {
                let (digits, name) = match c {
                    'x' => (2, "\\xXX"),
                    'u' => (4, "\\uXXXX"),
                    _ => (8, "\\UXXXXXXXX"),
                };
                let found = number(rest, 16, digits..=digits);
                let (value, after) = found.ok_or_else(|| wrong(&format!("truncated {name} escape")))?;
                out.push(match char::from_u32(value) {
                    Some(c) => c,
                    None if value > char::MAX.into() => return Err(wrong("illegal Unicode character")),
                    None => {
                        let what = format!("the escape \\u{value:04x}, half of a surrogate pair,");
                        return Err(Fault::Unsupported(format!("{what} is not supported in templates")));
                    }
                });
                rest = after;
            }
            'N' => {
                let name = rest.strip_prefix('{').and_then(|name| name.split_once('}'));
                let name = name.filter(|(name, _)| !name.is_empty());
                let (name, after) = name.ok_or_else(|| wrong("malformed \\N character escape"))?;
                out.push(named(name).ok_or_else(|| wrong("unknown Unicode character name"))?);
                rest = after;
            }
            // Jinja2 escapes what is not ASCII before Python reads the escapes, and so reads the backslash twice.
            _ if !c.is_ascii() => out.push_str(&escape(c)),
            _ => out.extend(['\\', c]),
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The number at the start of a text, with so many digits, and what follows it.
fn number(text: &str, radix: u32, digits: RangeInclusive<usize>) -> Option<(u32, &str)> {
    let len = text.chars().take(*digits.end()).take_while(|c| c.is_digit(radix)).count();
    let value = u32::from_str_radix(&text[..len], radix).ok()?;
    digits.contains(&len).then_some((value, &text[len..]))
}

/// The character of a name, in upper or lower case, that Python 3.11 knows.
fn named(name: &str) -> Option<char> {
    let c = unicode_names2::character(name).filter(|&c| is_known(c))?;
    // The crate also takes names with other spaces and hyphens, which Python does not.
    let loose =
        |name: &str| name.bytes().filter(|byte| !b" -_".contains(byte)).collect::<Vec<_>>().to_ascii_uppercase();
    let official = unicode_names2::name(c).map(|official| official.to_string());
    let is_strict = match official {
        Some(official) if loose(&official) == loose(name) => official.eq_ignore_ascii_case(name),
        _ => true, // another name of the character
    };
    is_strict.then_some(c)
}

#[cfg(test)]
#[path = "../../../tests/unit/jinja_literal.rs"]
mod tests;
