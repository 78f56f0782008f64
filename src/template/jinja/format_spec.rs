//! Python's format specifications, as in `format(value, spec)` and `"{:>8.2f}"`.

use super::numbers::{self, Kind, Style, double};
use super::str_methods::pad_by;
use super::text::{Fault, Text, TextBuilder};
use super::unicode::{decimal_value, repr};

/// A value as formatting sees it.
#[derive(Clone, Debug)]
pub enum Formatted {
    Text(Text),
    Int(i128),
    Float(f64),
    Bool(bool),
    /// Any other value, by the name of its type.
    Other(&'static str),
}

/// A value that can be formatted.
pub trait FormatValue: Clone {
    /// What kind of value this is.
    fn formatted(&self) -> Formatted;
    /// `str(value)`, at most `limit` bytes large.
    fn to_str(&self, limit: usize) -> Result<Text, Fault>;
    /// `repr(value)`, at most `limit` bytes large.
    fn to_repr(&self, limit: usize) -> Result<Text, Fault>;
    /// Pays for steps that it takes to format the value.
    fn pay(&self, _steps: usize) -> Result<(), Fault> {
        Ok(())
    }
}

impl FormatValue for Text {
    fn formatted(&self) -> Formatted {
        Formatted::Text(self.clone())
    }

    fn to_str(&self, _: usize) -> Result<Text, Fault> {
        Ok(self.clone())
    }

    fn to_repr(&self, limit: usize) -> Result<Text, Fault> {
        repr(self, limit)
    }
}

impl Formatted {
    pub fn type_name(&self) -> &'static str {
        match self {
            Formatted::Text(_) => "str",
            Formatted::Int(_) => "int",
            Formatted::Float(_) => "float",
            Formatted::Bool(_) => "bool",
            Formatted::Other(name) => name,
        }
    }
}

/// `format(value, spec)`. Texts and the fill character keep their origins. What a number becomes counts as data: it may
/// have come from a message.
pub fn format<V: FormatValue>(value: &V, spec: &Text, limit: usize) -> Result<Text, Fault> {
    if spec.is_empty() {
        return value.to_str(limit);
    }
    let kind = value.formatted();
    match &kind {
        Formatted::Text(text) => format_text(text, &Spec::parse(spec, '<', &kind)?, limit),
        Formatted::Int(number) => {
            value.pay(numbers::cost(f64::MAX, 0))?;
            format_int(*number, &Spec::parse(spec, '>', &kind)?, &kind, limit)
        }
        Formatted::Bool(yes) => format_int((*yes).into(), &Spec::parse(spec, '>', &kind)?, &kind, limit),
        Formatted::Float(x) => {
            let spec = Spec::parse(spec, '>', &kind)?;
            value.pay(numbers::cost(*x, spec.precision.unwrap_or(0)))?;
            format_float(*x, &spec, &kind, limit)
        }
        Formatted::Other(name) => {
            Err(Fault::type_error(format!("unsupported format string passed to {name}.__format__")))
        }
    }
}

/// A specification: `[[fill]align][sign][z][#][0][width][grouping][.precision][type]`.
struct Spec {
    fill: Text,
    align: char,
    sign: Option<char>,
    /// `z`: no minus sign for a zero.
    no_negative_zero: bool,
    /// `#`
    alternate: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    /// The presentation type, if there is one.
    code: Option<char>,
}

impl Spec {
    fn parse(text: &Text, default_align: char, value: &Formatted) -> Result<Spec, Fault> {
        let is_align = |c: &char| matches!(c, '<' | '>' | '=' | '^');
        let mut rest = text.as_str();
        let mut take = |wanted: &dyn Fn(&char) -> bool| {
            let c = rest.chars().next().filter(wanted)?;
            rest = &rest[c.len_utf8()..];
            Some(c)
        };
        let (mut fill, mut align) = (None, None);
        let first = text.as_str().chars().next();
        if text.as_str().chars().nth(1).is_some_and(|c| is_align(&c)) {
            fill = take(&|_| true).map(|c| text.slice(0..c.len_utf8()));
            align = take(&is_align);
        } else if first.is_some_and(|c| is_align(&c)) {
            align = take(&is_align);
        }
        let sign = take(&|c| matches!(c, '+' | '-' | ' '));
        let no_negative_zero = take(&|&c| c == 'z').is_some();
        let alternate = take(&|&c| c == '#').is_some();
        if fill.is_none() && take(&|&c| c == '0').is_some() {
            fill = Some(Text::own("0"));
            if align.is_none() && default_align == '>' {
                align = Some('=');
            }
        }
        let width = number(&mut rest)?;
        let mut grouping = None;
        if let Some(next) = rest.strip_prefix(',') {
            (grouping, rest) = (Some(','), next);
        }
        if let Some(next) = rest.strip_prefix('_') {
            if grouping.is_some() {
                return Err(Fault::value_error("Cannot specify both ',' and '_'."));
            }
            (grouping, rest) = (Some('_'), next);
        }
        if rest.starts_with(',') && grouping == Some('_') {
            return Err(Fault::value_error("Cannot specify both ',' and '_'."));
        }
        let mut precision = None;
        if let Some(next) = rest.strip_prefix('.') {
            rest = next;
            precision = number(&mut rest)?;
            if precision.is_none() {
                return Err(Fault::value_error("Format specifier missing precision"));
            }
        }
        let mut codes = rest.chars();
        let code = codes.next();
        if codes.next().is_some() {
            let (spec, name) = (text.as_str(), value.type_name());
            return Err(Fault::value_error(format!("Invalid format specifier '{spec}' for object of type '{name}'")));
        }
        let groups = match code {
            None | Some('d' | 'e' | 'f' | 'g' | 'E' | 'G' | '%' | 'F') => true,
            Some('b' | 'o' | 'x' | 'X') => grouping != Some(','),
            _ => false,
        };
        if let (Some(grouping), Some(code), false) = (grouping, code, groups) {
            return Err(Fault::value_error(format!("Cannot specify '{grouping}' with '{}'.", shown(code))));
        }
        let align = align.unwrap_or(default_align);
        let fill = fill.unwrap_or_else(|| Text::own(" "));
        let width = width.unwrap_or(0);
        Ok(Spec { fill, align, sign, no_negative_zero, alternate, width, grouping, precision, code })
    }

    fn unknown_code(&self, value: &Formatted) -> Fault {
        let (code, name) = (self.code.map(shown).unwrap_or_default(), value.type_name());
        Fault::value_error(format!("Unknown format code '{code}' for object of type '{name}'"))
    }
}

/// A format code as Python's messages show it.
fn shown(code: char) -> String {
    if code > ' ' && code < '\x7f' { code.to_string() } else { format!("\\x{:x}", u32::from(code)) }
}

/// The number at the start of a text, if there is one.
pub(super) fn number(rest: &mut &str) -> Result<Option<usize>, Fault> {
    let mut number = None;
    while let Some((c, digit)) = rest.chars().next().and_then(|c| Some((c, decimal_value(c)?))) {
        let longer = number.unwrap_or(0i64).checked_mul(10).and_then(|number| number.checked_add(digit.into()));
        number = Some(longer.ok_or_else(|| Fault::value_error("Too many decimal digits in format string"))?);
        *rest = &rest[c.len_utf8()..];
    }
    Ok(number.map(|number| number as usize))
}

fn format_text(text: &Text, spec: &Spec, limit: usize) -> Result<Text, Fault> {
    let refused = |what| Err(Fault::value_error(what));
    if !matches!(spec.code, None | Some('s')) {
        return Err(spec.unknown_code(&Formatted::Text(Text::default())));
    }
    match spec.sign {
        Some(' ') => return refused("Space not allowed in string format specifier"),
        Some(_) => return refused("Sign not allowed in string format specifier"),
        None => {}
    }
    if spec.no_negative_zero {
        return refused("Negative zero coercion (z) not allowed in string format specifier");
    }
    if spec.alternate {
        return refused("Alternate form (#) not allowed in string format specifier");
    }
    if spec.align == '=' {
        return refused("'=' alignment not allowed in string format specifier");
    }
    let end = spec.precision.and_then(|chars| text.as_str().char_indices().nth(chars)).map_or(text.len(), |(at, _)| at);
    let text = text.slice(0..end);
    let missing = spec.width.saturating_sub(text.count_chars()) as i128;
    let left = match spec.align {
        '<' => 0,
        '>' => missing,
        _ => missing / 2,
    };
    pad_by(&text, left, missing - left, &spec.fill, limit)
}

fn format_int(number: i128, spec: &Spec, value: &Formatted, limit: usize) -> Result<Text, Fault> {
    let (radix, prefix) = match spec.code {
        None | Some('d' | 'n') => (10, ""),
        Some('b') => (2, "0b"),
        Some('o') => (8, "0o"),
        Some('x') => (16, "0x"),
        Some('X') => (16, "0X"),
        Some('c') => return format_char(number, spec, limit),
        Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%') => return format_float(number as f64, spec, value, limit),
        Some(_) => return Err(spec.unknown_code(value)),
    };
    check_integer(spec)?;
    let digits = in_radix(number.unsigned_abs(), radix);
    let digits = if spec.code == Some('X') { digits.to_uppercase() } else { digits };
    let group = if radix == 10 { 3 } else { 4 };
    let prefix = if spec.alternate { prefix } else { "" };
    let parts = Parts { is_negative: number < 0, prefix, digits: &digits, group, rest: "" };
    parts.laid_out(spec, limit)
}

fn check_integer(spec: &Spec) -> Result<(), Fault> {
    if spec.precision.is_some() {
        return Err(Fault::value_error("Precision not allowed in integer format specifier"));
    }
    if spec.no_negative_zero {
        return Err(Fault::value_error("Negative zero coercion (z) not allowed in integer format specifier"));
    }
    Ok(())
}

/// The digits of a number in lower case.
pub(super) fn in_radix(number: u128, radix: u32) -> String {
    match radix {
        2 => format!("{number:b}"),
        8 => format!("{number:o}"),
        16 => format!("{number:x}"),
        _ => number.to_string(),
    }
}

fn format_char(number: i128, spec: &Spec, limit: usize) -> Result<Text, Fault> {
    check_integer(spec)?;
    if spec.sign.is_some() {
        return Err(Fault::value_error("Sign not allowed with integer format specifier 'c'"));
    }
    if spec.alternate {
        return Err(Fault::value_error("Alternate form (#) not allowed with integer format specifier 'c'"));
    }
    let text = char_of(number)?;
    let missing = spec.width.saturating_sub(1) as i128;
    let left = match spec.align {
        '<' => 0,
        '^' => missing / 2,
        _ => missing,
    };
    pad_by(&text, left, missing - left, &spec.fill, limit)
}

/// The character with a code. It counts as data: the number may have come from a message.
pub(super) fn char_of(code: i128) -> Result<Text, Fault> {
    if !(0..0x110000).contains(&code) {
        return Err(Fault::Raised("OverflowError", "%c arg not in range(0x110000)".into()));
    }
    let c = char::from_u32(code as u32);
    c.map(Text::data).ok_or_else(|| Fault::Unsupported("half of a surrogate pair is not supported in templates".into()))
}

fn format_float(x: f64, spec: &Spec, value: &Formatted, limit: usize) -> Result<Text, Fault> {
    let kind = match spec.code {
        Some('e' | 'E') => Kind::Exponent,
        Some('f' | 'F' | '%') => Kind::Fixed,
        Some('g' | 'G' | 'n') => Kind::General,
        None if spec.precision.is_none() => Kind::Repr,
        None => Kind::General,
        Some(_) => return Err(spec.unknown_code(value)),
    };
    let percent = if spec.code == Some('%') { "%" } else { "" };
    let x = if spec.code == Some('%') { x * 100.0 } else { x };
    let precision = spec.precision.unwrap_or(6);
    if precision > limit {
        return Err(Fault::TooLong);
    }
    let is_float = spec.code.is_none();
    let text = double(x, Style { kind, precision, keep_point: spec.alternate, is_float });
    let text = if matches!(spec.code, Some('E' | 'F' | 'G')) { text.to_uppercase() } else { text };
    let (is_negative, text) = text.strip_prefix('-').map_or((false, &text[..]), |text| (true, text));
    let is_zero =
        text.split(['e', 'E']).next().is_some_and(|digits| digits.bytes().all(|byte| matches!(byte, b'0' | b'.')));
    let is_negative = is_negative && !(spec.no_negative_zero && is_zero);
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let rest = format!("{}{percent}", &text[end..]);
    let parts = Parts { is_negative, prefix: "", digits: &text[..end], group: 3, rest: &rest };
    parts.laid_out(spec, limit)
}

/// A number as it is printed, before it is padded.
struct Parts<'a> {
    is_negative: bool,
    prefix: &'a str,
    /// The digits before the point.
    digits: &'a str,
    /// Digits in a group.
    group: usize,
    /// The point and what follows.
    rest: &'a str,
}

impl Parts<'_> {
    fn laid_out(self, spec: &Spec, limit: usize) -> Result<Text, Fault> {
        if spec.width > limit {
            return Err(Fault::TooLong);
        }
        let sign = match spec.sign {
            _ if self.is_negative => "-",
            Some('+') => "+",
            Some(' ') => " ",
            _ => "",
        };
        let others = sign.len() + self.prefix.len() + self.rest.len();
        // Zeros after the sign are digits too, and are grouped.
        let zeros = spec.align == '=' && spec.fill.as_str() == "0";
        let least = if zeros { spec.width.saturating_sub(others) } else { 0 };
        let digits = grouped(self.digits, self.group, spec.grouping, least);
        let missing = spec.width.saturating_sub(others + digits.len());
        let (left, inside, right) = match spec.align {
            '<' => (0, 0, missing),
            '^' => (missing / 2, 0, missing - missing / 2),
            '=' => (0, missing, 0),
            _ => (missing, 0, 0),
        };
        let mut out = TextBuilder::limited(limit);
        out.push_repeated(&spec.fill, left);
        out.push_from(sign, true);
        out.push_from(self.prefix, true);
        out.push_repeated(&spec.fill, inside);
        out.push_from(&digits, true);
        out.push_from(self.rest, true);
        out.push_repeated(&spec.fill, right);
        out.finish_within()
    }
}

/// Digits with a separator between groups, and zeros before them until they are at least so long.
fn grouped(digits: &str, group: usize, separator: Option<char>, least: usize) -> String {
    if digits.is_empty() {
        return String::new(); // inf and nan
    }
    let mut backwards = String::new();
    let mut in_group = 0;
    let mut digits = digits.chars().rev();
    loop {
        let digit = digits.next();
        // A separator never comes first: a digit follows it.
        if digit.is_none() && backwards.len() >= least {
            break;
        }
        if let (Some(separator), true) = (separator, in_group == group) {
            backwards.push(separator);
            in_group = 0;
        }
        backwards.push(digit.unwrap_or('0'));
        in_group += 1;
    }
    backwards.chars().rev().collect()
}
