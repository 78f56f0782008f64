//! Splits a source into texts, tags and the tokens inside tags, as Jinja2's lexer does it with `trim_blocks` and
//! `lstrip_blocks`.

use super::ast::Const;
use super::limits::{Fault, Res};
use super::literal;
use super::text::Text;

/// A token and its line.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub line: u32,
    pub kind: Kind,
}

/// What a token is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Text between tags.
    Text(String),
    BlockStart,
    BlockEnd,
    PrintStart,
    PrintEnd,
    Name(String),
    Literal(Const),
    /// An operator or a bracket.
    Sign(&'static str),
    End,
}

impl PartialEq for Kind {
    fn eq(&self, other: &Kind) -> bool {
        match (self, other) {
            (Kind::Name(a), Kind::Name(b)) => a == b,
            (Kind::Sign(a), Kind::Sign(b)) => a == b,
            (Kind::Text(_) | Kind::Literal(_), _) => false,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl Kind {
    /// The token as an error names it.
    pub fn describe(&self) -> String {
        match self {
            Kind::Text(_) => "text".into(),
            Kind::BlockStart => "'{%'".into(),
            Kind::BlockEnd => "'%}'".into(),
            Kind::PrintStart => "'{{'".into(),
            Kind::PrintEnd => "'}}'".into(),
            Kind::Name(name) => format!("'{name}'"),
            Kind::Literal(_) => "a literal".into(),
            Kind::Sign(sign) => format!("'{sign}'"),
            Kind::End => "the end of the template".into(),
        }
    }
}

/// Operators and brackets, longer ones first.
const SIGNS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",", ";",
];

/// The tokens of a source, or an error and its line.
pub fn tokens(source: &str) -> Result<Vec<Token>, (u32, Fault)> {
    let unified = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = unified.strip_suffix('\n').unwrap_or(&unified);
    let mut lexer = Lexer { source, at: 0, line: 1, tokens: Vec::new() };
    match lexer.run() {
        Ok(()) => Ok(lexer.tokens),
        Err(fault) => Err((lexer.line, fault)),
    }
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: u32,
    tokens: Vec<Token>,
}

/// How a tag treats the white space before it.
#[derive(Clone, Copy, PartialEq)]
enum Strip {
    Default,
    Keep,
    Remove,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn push(&mut self, kind: Kind) {
        self.tokens.push(Token { line: self.line, kind });
    }

    fn advance(&mut self, bytes: usize) {
        self.line += self.rest()[..bytes].matches('\n').count() as u32;
        self.at += bytes;
    }

    fn run(&mut self) -> Res<()> {
        while !self.rest().is_empty() {
            let rest = self.rest();
            let is_tag = |(at, _): &(usize, &str)| rest[at + 1..].starts_with(['{', '%', '#']);
            let Some((start, _)) = rest.match_indices('{').find(is_tag) else {
                self.text(rest, rest.len());
                break;
            };
            let tag = &rest[start..];
            let strip = sign(&tag[2..]);
            let width = 2 + usize::from(strip != Strip::Default);
            let text = self.stripped(&rest[..start], strip, tag.starts_with("{{"));
            self.text(text, start);
            if let Some(begin) = raw_begin(tag) {
                self.advance(begin);
                self.raw()?;
            } else if tag.starts_with("{#") {
                self.advance(width);
                self.comment()?;
            } else {
                let is_block = tag.starts_with("{%");
                self.push(if is_block { Kind::BlockStart } else { Kind::PrintStart });
                self.advance(width);
                self.inside(is_block)?;
            }
        }
        self.push(Kind::End);
        Ok(())
    }

    /// A text token, and a step over `bytes` of the source.
    fn text(&mut self, text: &str, bytes: usize) {
        if !text.is_empty() {
            self.push(Kind::Text(text.into()));
        }
        self.advance(bytes);
    }

    /// The text before a tag, without the white space that the tag removes.
    fn stripped(&self, text: &'a str, strip: Strip, is_print: bool) -> &'a str {
        if strip == Strip::Remove {
            return text.trim_end_matches(is_space);
        }
        let line_start = text.rfind('\n').map_or(0, |at| at + 1);
        let starts_line = line_start > 0 || self.at == 0 || self.source[..self.at].ends_with('\n');
        if strip == Strip::Default && !is_print && starts_line && text[line_start..].chars().all(is_space) {
            return &text[..line_start];
        }
        text
    }

    /// Steps over the end of a tag that starts `rest`, with the white space after it that it removes.
    fn tag_end(rest: &str, close: &str) -> Option<usize> {
        if let Some(after) = rest.strip_prefix('-').and_then(|rest| rest.strip_prefix(close)) {
            return Some(rest.len() - after.trim_start_matches(is_space).len());
        }
        if close != "}}" && rest.strip_prefix('+').is_some_and(|rest| rest.starts_with(close)) {
            return Some(1 + close.len());
        }
        let after = rest.strip_prefix(close)?;
        Some(close.len() + usize::from(close != "}}" && after.starts_with('\n')))
    }

    fn comment(&mut self) -> Res<()> {
        let rest = self.rest();
        let ends = rest.match_indices("#}").map(|(at, _)| {
            let signed = rest[..at].ends_with(['-', '+']);
            at - usize::from(signed)
        });
        let end = ends.into_iter().next().ok_or("a comment has no end; close it with '#}'")?;
        let width = Lexer::tag_end(&rest[end..], "#}").unwrap_or(2);
        self.advance(end + width);
        Ok(())
    }

    fn raw(&mut self) -> Res<()> {
        let rest = self.rest();
        let ends = rest.match_indices("{%").find_map(|(at, _)| {
            let strip = sign(&rest[at + 2..]);
            let inside = rest[at + 2 + usize::from(strip != Strip::Default)..].trim_start_matches(is_space);
            let close = inside.strip_prefix("endraw")?.trim_start_matches(is_space);
            let end = rest.len() - close.len() + Lexer::tag_end(close, "%}")?;
            Some((at, strip, end))
        });
        let (at, strip, end) = ends.ok_or("a raw block has no end; close it with '{% endraw %}'")?;
        let text = self.stripped(&rest[..at], strip, false);
        self.text(text, end);
        Ok(())
    }

    /// The tokens inside a tag, and its end.
    fn inside(&mut self, is_block: bool) -> Res<()> {
        let close = if is_block { "%}" } else { "}}" };
        let mut open: Vec<&str> = Vec::new();
        loop {
            let rest = self.rest();
            if open.is_empty()
                && let Some(width) = Lexer::tag_end(rest, close)
            {
                self.push(if is_block { Kind::BlockEnd } else { Kind::PrintEnd });
                self.advance(width);
                return Ok(());
            }
            let Some(first) = rest.chars().next() else {
                return Err(format!("a tag has no end; close it with '{close}'").into());
            };
            if is_space(first) {
                self.advance(first.len_utf8());
            } else if first.is_ascii_digit() {
                self.number()?;
            } else if first.is_alphanumeric() || first == '_' {
                let width = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                self.push(Kind::Name(rest[..width].into()));
                self.advance(width);
            } else if first == '\'' || first == '"' {
                self.string(first)?;
            } else if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
                match sign {
                    "(" => open.push(")"),
                    "[" => open.push("]"),
                    "{" => open.push("}"),
                    ")" | "]" | "}" if open.pop() != Some(sign) => return Err(format!("unexpected '{sign}'").into()),
                    _ => {}
                }
                self.push(Kind::Sign(sign));
                self.advance(sign.len());
            } else {
                return Err(format!("unexpected character {first:?} in a tag").into());
            }
        }
    }

    fn string(&mut self, quote: char) -> Res<()> {
        let rest = self.rest();
        let mut escaped = false;
        let end = rest[1..].find(|c| {
            let ends = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let end = end.ok_or("a text has no end; close it with its quote")? + 1;
        let text = literal::unescape(&rest[1..end])?;
        self.push(Kind::Literal(Const::Text(Text::own(text))));
        self.advance(end + 1);
        Ok(())
    }

    fn number(&mut self) -> Res<()> {
        let rest = self.rest();
        let (literal, width) = match (float(rest), rest.as_bytes().get(1)) {
            _ if self.at > 0 && self.source[..self.at].ends_with('.') => integer(rest)?,
            (Some(width), _) => {
                let digits = rest[..width].replace('_', "");
                (Const::Float(digits.parse().map_err(|_| format!("'{digits}' is not a number"))?), width)
            }
            _ => integer(rest)?,
        };
        self.push(Kind::Literal(literal));
        self.advance(width);
        Ok(())
    }
}

fn sign(rest: &str) -> Strip {
    match rest.as_bytes().first() {
        Some(b'-') => Strip::Remove,
        Some(b'+') => Strip::Keep,
        _ => Strip::Default,
    }
}

/// White space as Python's `\s` matches it.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// The length of `{% raw %}`, if the tag is that.
fn raw_begin(tag: &str) -> Option<usize> {
    let inside = tag.strip_prefix("{%")?;
    let inside = inside.strip_prefix(['-', '+']).unwrap_or(inside).trim_start_matches(is_space);
    let close = inside.strip_prefix("raw")?.trim_start_matches(is_space);
    let after = match close.strip_prefix("-%}") {
        Some(after) => after.trim_start_matches(is_space),
        None => close.strip_prefix("%}")?,
    };
    Some(tag.len() - after.len())
}

/// The length of digits with single underscores between them.
fn digits(text: &str, is_digit: impl Fn(u8) -> bool) -> usize {
    let bytes = text.as_bytes();
    let mut end = 0;
    while let Some(byte) = bytes.get(end) {
        let joins = *byte == b'_' && end > 0 && bytes.get(end + 1).is_some_and(|next| is_digit(*next));
        if !is_digit(*byte) && !joins {
            break;
        }
        end += 1;
    }
    end
}

/// The length of a float literal at the start of a text.
fn float(text: &str) -> Option<usize> {
    let decimal = |text: &str| digits(text, |b| b.is_ascii_digit());
    let whole = decimal(text);
    let after_point = text[whole..].strip_prefix('.').map_or(0, decimal);
    let mantissa = if after_point > 0 { whole + 1 + after_point } else { whole };
    let exponent = text[mantissa..].strip_prefix(['e', 'E']).map_or(0, |exponent| {
        let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let width = decimal(unsigned);
        if width > 0 { 1 + exponent.len() - unsigned.len() + width } else { 0 }
    });
    (after_point > 0 || exponent > 0).then_some(mantissa + exponent)
}

/// An integer literal at the start of a text, and its length.
fn integer(text: &str) -> Res<(Const, usize)> {
    let prefixed = |radix: u32| {
        let after = text.get(2..).unwrap_or("");
        let after = after.strip_prefix('_').unwrap_or(after);
        let width = digits(after, |b| char::from(b).is_digit(radix));
        (width > 0).then(|| (radix, text.len() - after.len(), text.len() - after.len() + width))
    };
    let special = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => prefixed(16),
        [b'0', b'o' | b'O', ..] => prefixed(8),
        [b'0', b'b' | b'B', ..] => prefixed(2),
        _ => None,
    };
    let (radix, start, end) = special.unwrap_or_else(|| {
        let zeros = text.starts_with('0');
        (10, 0, digits(text, |b| if zeros { b == b'0' } else { b.is_ascii_digit() }))
    });
    let digits = text[start..end].replace('_', "");
    let value = i128::from_str_radix(&digits, radix);
    let value = value.map_err(|_| format!("the integer {digits} is too large; integers have at most 127 bits"))?;
    Ok((Const::Int(value), end))
}
