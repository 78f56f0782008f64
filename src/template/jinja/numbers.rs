//! Numbers and texts: `repr`, `int`, `float`, `round`, and the digits that formatting writes, as in Python.

use super::limits::brief;
use super::text::{Fault, Text};
use super::unicode::{decimal_value, is_space, repr};

/// The most digits that Python converts to an integer, unless the base is a power of two.
const MAX_DIGITS: usize = 4300;

/// The steps that it takes to write a float with so many digits after the point, or to read it.
pub fn cost(x: f64, precision: usize) -> usize {
    const LARGE: f64 = 1e16;
    let whole = if x.abs() < LARGE { 16 } else { 309 };
    8 + (whole + precision.min(ALL_DIGITS)) / 8
}

/// A float as `repr` and `str` print it: the fewest digits that identify it.
pub fn float_repr(x: f64) -> String {
    double(x, Style { kind: Kind::Repr, precision: 0, keep_point: false, is_float: true })
}

/// How to write a float.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    pub kind: Kind,
    /// Digits after the point, or all digits of [`Kind::General`].
    pub precision: usize,
    /// `#`: always write a point, and keep zeros at the end.
    pub keep_point: bool,
    /// Write `.0` after a whole number, so that it reads as a float.
    pub is_float: bool,
}

/// The three ways to write a float, and the shortest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `e`
    Exponent,
    /// `f`
    Fixed,
    /// `g`
    General,
    /// As short as possible.
    Repr,
}

/// A float in lower case, with a minus sign if it has one.
pub fn double(x: f64, style: Style) -> String {
    if !x.is_finite() {
        return if x.is_nan() { "nan".into() } else { format!("{x}") };
    }
    match style.kind {
        Kind::Exponent => {
            let (mantissa, exponent) = scientific(x, style.precision);
            let point = if style.keep_point && style.precision == 0 { "." } else { "" };
            format!("{mantissa}{point}e{exponent:+03}")
        }
        Kind::Fixed => {
            let point = if style.keep_point && style.precision == 0 { "." } else { "" };
            format!("{}{point}", fixed(x, style.precision))
        }
        Kind::General => {
            let precision = style.precision.max(1);
            let (mantissa, exponent) = scientific(x, precision - 1);
            let longest = precision - usize::from(style.is_float);
            shortest(&mantissa, exponent, i64::try_from(longest).unwrap_or(i64::MAX), style)
        }
        Kind::Repr => {
            let (mantissa, exponent) = fewest_digits(x);
            shortest(&mantissa, exponent, 16, style)
        }
    }
}

/// The fewest digits that identify a float, and its exponent. Between two texts that are equally near, Python takes the
/// even one, and Rust the other.
fn fewest_digits(x: f64) -> (String, i64) {
    let text = format!("{x:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    let (even, even_exponent) = scientific(x, digits - 1);
    if format!("{even}e{even_exponent}").parse() == Ok(x) {
        return (even, even_exponent);
    }
    (mantissa.to_string(), exponent.parse().unwrap_or(0))
}

/// A float without an exponent, or with one if it would have more than `longest` digits before the point, or more than
/// four zeros after it.
fn shortest(mantissa: &str, exponent: i64, longest: i64, style: Style) -> String {
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |mantissa| ("-", mantissa));
    let digits = mantissa.replace('.', "");
    let digits = if style.keep_point { &digits } else { digits.trim_end_matches('0') };
    let digits = if digits.is_empty() { "0" } else { digits };
    if exponent < -4 || exponent >= longest {
        let point = if digits.len() > 1 || style.keep_point { "." } else { "" };
        return format!("{sign}{}{point}{}e{exponent:+03}", &digits[..1], &digits[1..]);
    }
    if exponent < 0 {
        return format!("{sign}0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1));
    }
    let whole = exponent as usize + 1;
    let zeros = "0".repeat(whole.saturating_sub(digits.len()));
    let (whole, rest) = digits.split_at(whole.min(digits.len()));
    let point = if !rest.is_empty() || style.keep_point { "." } else { "" };
    let zero = if rest.is_empty() && style.is_float { if point.is_empty() { ".0" } else { "0" } } else { "" };
    format!("{sign}{whole}{zeros}{point}{rest}{zero}")
}

/// More digits than any float has; Rust formats no more than 65,535.
const ALL_DIGITS: usize = 1100;

/// The decimal digits of a float, with a fixed number after the point.
fn fixed(x: f64, precision: usize) -> String {
    let zeros = precision.saturating_sub(ALL_DIGITS);
    format!("{x:.*}{}", precision - zeros, "0".repeat(zeros))
}

/// The digits and the exponent of a float.
fn scientific(x: f64, precision: usize) -> (String, i64) {
    let zeros = precision.saturating_sub(ALL_DIGITS);
    let text = format!("{x:.*e}", precision - zeros);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    (mantissa.to_string() + &"0".repeat(zeros), exponent.parse().unwrap_or(0))
}

/// A text without white space around it, and with ASCII digits for the decimal digits of every script.
fn ascii_digits(text: &str) -> String {
    // Not \x1c to \x1f, which are white space elsewhere in Python.
    let is_space = |c: char| if c.is_ascii() { matches!(c, ' ' | '\t'..='\r') } else { is_space(c) };
    let digit = |c: char| match c.is_ascii() {
        true => c,
        false => decimal_value(c).and_then(|value| char::from_digit(value, 10)).unwrap_or(c),
    };
    text.trim_matches(is_space).chars().map(digit).collect()
}

/// The text in quotes, or its beginning.
fn quoted(text: &Text) -> String {
    repr(&Text::own(brief(text.as_str())), usize::MAX).map(|quoted| quoted.as_str().to_string()).unwrap_or_default()
}

/// The digits of a number without its underscores, each of which must stand between two digits.
fn without_underscores(text: &str, is_digit: impl Fn(u8) -> bool) -> Option<String> {
    let bytes = text.as_bytes();
    let is_digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(|&byte| is_digit(byte));
    let lone = |at: usize| bytes[at] == b'_' && !(is_digit(at.checked_sub(1)) && is_digit(at.checked_add(1)));
    (!(0..bytes.len()).any(lone)).then(|| text.replace('_', ""))
}

/// `int(text, base)`
pub fn parse_int(text: &Text, base: i128) -> Result<i128, Fault> {
    if base != 0 && !(2..=36).contains(&base) {
        return Err(Fault::value_error("int() base must be >= 2 and <= 36, or 0"));
    }
    let wrong = || Fault::value_error(format!("invalid literal for int() with base {base}: {}", quoted(text)));
    let ascii = ascii_digits(text.as_str());
    let (is_negative, rest) = match ascii.as_bytes().first() {
        Some(b'-') => (true, &ascii[1..]),
        Some(b'+') => (false, &ascii[1..]),
        _ => (false, &ascii[..]),
    };
    let prefix = match rest.as_bytes() {
        [b'0', b'x' | b'X', ..] => Some(16),
        [b'0', b'o' | b'O', ..] => Some(8),
        [b'0', b'b' | b'B', ..] => Some(2),
        _ => None,
    };
    let (radix, digits) = match prefix {
        Some(radix) if base == 0 || base == i128::from(radix) => {
            let digits = &rest[2..];
            (radix, digits.strip_prefix('_').unwrap_or(digits)) // one underscore may follow the prefix
        }
        _ => (if base == 0 { 10 } else { base as u32 }, rest),
    };
    let digits = without_underscores(digits, |byte| char::from(byte).is_digit(radix)).ok_or_else(wrong)?;
    let old_octal = base == 0 && prefix.is_none() && digits.starts_with('0') && digits.bytes().any(|byte| byte != b'0');
    if digits.is_empty() || old_octal || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(wrong());
    }
    if digits.len() > MAX_DIGITS && !radix.is_power_of_two() {
        return Err(Fault::value_error(format!(
            "Exceeds the limit ({MAX_DIGITS} digits) for integer string conversion: value has {} digits; use \
             sys.set_int_max_str_digits() to increase the limit",
            digits.len()
        )));
    }
    let signed = if is_negative { format!("-{digits}") } else { digits };
    i128::from_str_radix(&signed, radix).map_err(|_| too_large())
}

fn too_large() -> Fault {
    Fault::Unsupported("integers of more than 128 bits are not supported in templates".into())
}

/// `int(x)` of a float.
pub fn float_to_int(x: f64) -> Result<i128, Fault> {
    match x {
        _ if x.is_nan() => Err(Fault::value_error("cannot convert float NaN to integer")),
        _ if x.is_infinite() => Err(Fault::Raised("OverflowError", "cannot convert float infinity to integer".into())),
        _ if x.abs() >= 2f64.powi(127) => Err(too_large()),
        _ => Ok(x as i128),
    }
}

/// `float(text)`
pub fn parse_float(text: &Text) -> Result<f64, Fault> {
    let wrong = || Fault::value_error(format!("could not convert string to float: {}", quoted(text)));
    let ascii = ascii_digits(text.as_str());
    // Rust's grammar is Python's, except for the underscores.
    without_underscores(&ascii, |byte| byte.is_ascii_digit()).and_then(|text| text.parse().ok()).ok_or_else(wrong)
}

/// `round(x)` of a float: a tie goes to the even integer.
pub fn round_to_int(x: f64) -> Result<i128, Fault> {
    float_to_int(x.round_ties_even())
}

/// `round(x, digits)` of a float.
pub fn round_float(x: f64, digits: i128) -> Result<f64, Fault> {
    // The same bounds as in CPython: no float has more digits, or is larger.
    if !x.is_finite() || digits > 323 {
        return Ok(x);
    }
    if digits < -308 {
        return Ok(0.0 * x);
    }
    // The text has the exact digits, rounded once; parsing it gives the nearest float.
    let rounded = if digits >= 0 {
        fixed(x, digits as usize)
    } else {
        let whole = fixed(x.trunc(), 0);
        let (sign, whole) = whole.strip_prefix('-').map_or(("", &whole[..]), |whole| ("-", whole));
        let cut = digits.unsigned_abs() as usize;
        format!("{sign}{}e{cut}", rounded_digits(whole, cut, x.fract() != 0.0))
    };
    let value: f64 = rounded.parse().unwrap_or(x);
    let overflow = || Fault::Raised("OverflowError", "rounded value too large to represent".into());
    if value.is_finite() { Ok(value) } else { Err(overflow()) }
}

/// The digits of a whole number without the last `cut` ones, rounded half to even. `is_above` says that the number is a
/// little larger than its digits.
fn rounded_digits(digits: &str, cut: usize, is_above: bool) -> String {
    let padded = format!("{digits:0>width$}", width = cut + 1);
    let (kept, rest) = padded.split_at(padded.len() - cut);
    let half = "5".to_string() + &"0".repeat(cut.saturating_sub(1));
    let is_odd = kept.as_bytes().last().is_some_and(|byte| byte % 2 == 1);
    let up = rest > &half[..] || (rest == half && (is_above || is_odd));
    if !up {
        return kept.to_string();
    }
    let nines = kept.len() - kept.trim_end_matches('9').len();
    let (head, tail) = kept.split_at(kept.len() - nines);
    let head = match head.split_at_checked(head.len().wrapping_sub(1)) {
        Some((head, last)) => format!("{head}{}", char::from(last.as_bytes()[0] + 1)),
        None => "1".into(),
    };
    head + &"0".repeat(tail.len())
}

/// `round(n, digits)` of an integer.
pub fn round_int(n: i128, digits: i128) -> Result<i128, Fault> {
    if digits >= 0 {
        return Ok(n);
    }
    let cut = digits.unsigned_abs();
    if cut > 40 {
        return Ok(0); // 128 bits are 39 digits
    }
    let rounded = rounded_digits(&n.unsigned_abs().to_string(), cut as usize, false) + &"0".repeat(cut as usize);
    let rounded = if n < 0 { format!("-{rounded}") } else { rounded };
    rounded.parse().map_err(|_| too_large())
}

#[cfg(test)]
#[path = "../../../tests/unit/jinja_numbers.rs"]
mod tests;
