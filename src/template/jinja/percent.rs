//! `%` formatting of texts, as Python does it. What a number becomes counts as data: it may have come from a message.

use super::format::{FieldValue, Key};
use super::format_spec::{Formatted, char_of, in_radix};
use super::numbers::{self, Kind, Style, double, float_to_int};
use super::text::{Fault, Text, TextBuilder};
use super::unicode::escape_non_ascii;

/// What stands right of the `%`.
pub enum Operand<'a, V> {
    /// The arguments of a tuple.
    Tuple(&'a [V]),
    /// A value with items: a dict or a list. It is the one argument, or has them by name.
    Mapping(&'a V),
    /// Any other value, which is the one argument.
    Single(&'a V),
}

/// `template % operand`
pub fn format<V: FieldValue>(template: &Text, operand: Operand<'_, V>, limit: usize) -> Result<Text, Fault> {
    let (args, mapping) = match operand {
        Operand::Tuple(args) => (args, None),
        Operand::Mapping(value) => (std::slice::from_ref(value), Some(value)),
        Operand::Single(value) => (std::slice::from_ref(value), None),
    };
    let mut args = Arguments { args, named: None, mapping };
    let mut out = TextBuilder::limited(limit);
    let mut at = 0;
    while let Some(percent) = template.as_str()[at..].find('%').map(|found| at + found) {
        out.push_slice(template, at..percent);
        at = percent + 1;
        if template.as_str()[at..].starts_with('%') {
            out.push_slice(template, at..at + 1);
            at += 1;
            continue;
        }
        let (directive, next) = Directive::parse(template, at, &mut args)?;
        let place = || template.as_str()[..next].chars().count() - 1;
        directive.write(&args.next()?, place, &mut out)?;
        at = next;
    }
    out.push_slice(template, at..template.len());
    if !args.args.is_empty() && mapping.is_none() {
        return Err(Fault::type_error("not all arguments converted during string formatting"));
    }
    out.finish_within()
}

/// The arguments that are left.
struct Arguments<'a, V> {
    args: &'a [V],
    /// The argument that the directive names; from the first name on, there are no others.
    named: Option<Option<V>>,
    mapping: Option<&'a V>,
}

impl<V: FieldValue> Arguments<'_, V> {
    fn next(&mut self) -> Result<V, Fault> {
        let next = match &mut self.named {
            Some(named) => named.take(),
            None => self.args.split_first().map(|(first, rest)| {
                self.args = rest;
                first.clone()
            }),
        };
        next.ok_or_else(|| Fault::type_error("not enough arguments for format string"))
    }

    /// The integer that a `*` stands for.
    fn size(&mut self) -> Result<i128, Fault> {
        let size = match self.next()?.formatted() {
            Formatted::Int(number) => number,
            Formatted::Bool(yes) => yes.into(),
            _ => return Err(Fault::type_error("* wants int")),
        };
        let message = "Python int too large to convert to C ssize_t";
        if i64::try_from(size).is_ok() { Ok(size) } else { Err(Fault::Raised("OverflowError", message.into())) }
    }
}

/// What follows a `%`: `[(key)][flags][width][.precision][length]code`.
#[derive(Clone, Copy, Default)]
struct Directive {
    left: bool,
    plus: bool,
    blank: bool,
    alternate: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
    code: char,
}

impl Directive {
    /// The directive at a position, and where the rest begins.
    fn parse<V: FieldValue>(
        template: &Text,
        start: usize,
        args: &mut Arguments<'_, V>,
    ) -> Result<(Directive, usize), Fault> {
        let bytes = template.as_str().as_bytes();
        let mut at = start;
        if bytes.get(at) == Some(&b'(') {
            let mapping = args.mapping.ok_or_else(|| Fault::type_error("format requires a mapping"))?;
            let end = closing(&bytes[at..]).ok_or_else(|| Fault::value_error("incomplete format key"))?;
            let key = template.slice(at + 1..at + end);
            args.named = Some(Some(mapping.item(Key::Name(key))?));
            at += end + 1;
        }
        let mut directive = Directive::default();
        loop {
            match bytes.get(at) {
                Some(b'-') => directive.left = true,
                Some(b'+') => directive.plus = true,
                Some(b' ') => directive.blank = true,
                Some(b'#') => directive.alternate = true,
                Some(b'0') => directive.zero = true,
                _ => break,
            }
            at += 1;
        }
        if bytes.get(at) == Some(&b'*') {
            at += 1;
            let width = args.size()?;
            directive.left |= width < 0;
            directive.width = width.unsigned_abs() as usize;
        } else {
            directive.width = digits(bytes, &mut at, "width too big")?;
        }
        if bytes.get(at) == Some(&b'.') {
            at += 1;
            directive.precision = Some(if bytes.get(at) == Some(&b'*') {
                at += 1;
                args.size()?.max(0) as usize
            } else {
                digits(bytes, &mut at, "precision too big")?
            });
        }
        if matches!(bytes.get(at), Some(b'h' | b'l' | b'L')) {
            at += 1;
        }
        let code = template.as_str()[at..].chars().next();
        directive.code = code.ok_or_else(|| Fault::value_error("incomplete format"))?;
        Ok((directive, at + directive.code.len_utf8()))
    }

    /// Appends a value; `place` is the position of the code in characters, for an error.
    fn write<V: FieldValue>(&self, value: &V, place: impl Fn() -> usize, out: &mut TextBuilder) -> Result<(), Fault> {
        let limit = out.room()?;
        if self.precision.is_some_and(|precision| precision > limit) && !matches!(self.code, 's' | 'r' | 'a' | 'c') {
            return Err(Fault::TooLong);
        }
        match self.code {
            's' => self.write_text(&value.to_str(limit)?, out),
            'r' => self.write_text(&value.to_repr(limit)?, out),
            'a' => self.write_text(&escape_non_ascii(&value.to_repr(limit)?, limit)?, out),
            'c' => Directive { precision: None, ..*self }.write_text(&character(value)?, out),
            'd' | 'i' | 'u' | 'o' | 'x' | 'X' => self.write_int(value, out)?,
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
                let x = float(value)?;
                value.pay(numbers::cost(x, self.precision.unwrap_or(0)))?;
                self.write_float(x, out);
            }
            code => {
                let shown = if (' '..='~').contains(&code) || code == '\x1f' { code } else { '?' };
                let code = u32::from(code);
                let message = format!("unsupported format character '{shown}' (0x{code:x}) at index {}", place());
                return Err(Fault::value_error(message));
            }
        }
        Ok(())
    }

    fn write_text(&self, text: &Text, out: &mut TextBuilder) {
        let cut = self.precision.and_then(|chars| text.as_str().char_indices().nth(chars));
        let text = text.slice(0..cut.map_or(text.len(), |(at, _)| at));
        self.write_padded(&text, out);
    }

    fn write_padded(&self, text: &Text, out: &mut TextBuilder) {
        let missing = self.width.saturating_sub(text.count_chars());
        let fill = Text::own(" ");
        out.push_repeated(&fill, if self.left { 0 } else { missing });
        out.push(text);
        out.push_repeated(&fill, if self.left { missing } else { 0 });
    }

    fn write_int<V: FieldValue>(&self, value: &V, out: &mut TextBuilder) -> Result<(), Fault> {
        let (radix, prefix) = match self.code {
            'o' => (8, "0o"),
            'x' => (16, "0x"),
            'X' => (16, "0X"),
            _ => (10, ""),
        };
        let (is_negative, digits) = match value.formatted() {
            Formatted::Int(number) => (number < 0, in_radix(number.unsigned_abs(), radix)),
            Formatted::Bool(yes) => (false, in_radix(yes.into(), radix)),
            // All digits of a float, which may be too large for an integer here.
            Formatted::Float(x) if radix == 10 && x.is_finite() => {
                value.pay(numbers::cost(x, 0))?;
                (x <= -1.0, format!("{:.0}", x.trunc().abs()))
            }
            Formatted::Float(x) if radix == 10 => float_to_int(x).map(|_| Default::default())?,
            other => {
                let what = if radix == 10 { "a real number" } else { "an integer" };
                let found = other.type_name();
                return Err(Fault::type_error(format!("%{} format: {what} is required, not {found}", self.code)));
            }
        };
        let digits = if self.code == 'X' { digits.to_uppercase() } else { digits };
        let zeros = self.precision.unwrap_or(0).saturating_sub(digits.len());
        let prefix = if self.alternate { prefix } else { "" };
        self.write_number(is_negative, prefix, &("0".repeat(zeros) + &digits), out);
        Ok(())
    }

    fn write_float(&self, x: f64, out: &mut TextBuilder) {
        let kind = match self.code {
            'e' | 'E' => Kind::Exponent,
            'f' | 'F' => Kind::Fixed,
            _ => Kind::General,
        };
        let precision = self.precision.unwrap_or(6);
        let text = double(x, Style { kind, precision, keep_point: self.alternate, is_float: false });
        let text = if self.code.is_uppercase() { text.to_uppercase() } else { text };
        let (is_negative, digits) = text.strip_prefix('-').map_or((false, &text[..]), |digits| (true, digits));
        self.write_number(is_negative, "", digits, out);
    }

    fn write_number(&self, is_negative: bool, prefix: &str, digits: &str, out: &mut TextBuilder) {
        let sign = match (is_negative, self.plus, self.blank) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (_, _, true) => " ",
            _ => "",
        };
        if self.zero && !self.left {
            out.push_from(sign, true);
            out.push_from(prefix, true);
            let zeros = self.width.saturating_sub(sign.len() + prefix.len() + digits.len());
            out.push_repeated(&Text::own("0"), zeros);
            out.push_from(digits, true);
        } else {
            self.write_padded(&Text::data(format!("{sign}{prefix}{digits}")), out);
        }
    }
}

fn float<V: FieldValue>(value: &V) -> Result<f64, Fault> {
    match value.formatted() {
        Formatted::Float(x) => Ok(x),
        Formatted::Int(number) => Ok(number as f64),
        Formatted::Bool(yes) => Ok(yes.into()),
        other => Err(Fault::type_error(format!("must be real number, not {}", other.type_name()))),
    }
}

fn character<V: FieldValue>(value: &V) -> Result<Text, Fault> {
    match value.formatted() {
        Formatted::Text(text) if text.count_chars() == 1 => Ok(text),
        Formatted::Int(code) => char_of(code),
        Formatted::Bool(yes) => char_of(yes.into()),
        _ => Err(Fault::type_error("%c requires int or char")),
    }
}

/// The place of the bracket that closes the first one.
fn closing(bytes: &[u8]) -> Option<usize> {
    let mut open = 0;
    bytes.iter().position(|byte| {
        open += i32::from(*byte == b'(') - i32::from(*byte == b')');
        open == 0
    })
}

/// The number at a position, or zero.
fn digits(bytes: &[u8], at: &mut usize, too_big: &str) -> Result<usize, Fault> {
    let mut number = 0i64;
    while let Some(digit) = bytes.get(*at).filter(|byte| byte.is_ascii_digit()) {
        let longer = number.checked_mul(10).and_then(|number| number.checked_add(i64::from(digit - b'0')));
        number = longer.ok_or_else(|| Fault::value_error(too_big))?;
        *at += 1;
    }
    Ok(number as usize)
}
