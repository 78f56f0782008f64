//! Characters as Python 3.11 sees them: their classes and their case.
//!
//! Python 3.11 has Unicode 14, Rust a later version. Characters that are newer than Unicode 14 are unassigned here, as
//! they are in Python.

use super::text::{Fault, Text, TextBuilder};
use regex_syntax::Parser;
use regex_syntax::hir::{Class, HirKind};
use std::sync::LazyLock;

/// A set of characters, written as a class of regular expressions.
pub struct CharClass(LazyLock<Vec<(char, char)>>);

macro_rules! class {
    ($class:literal) => {
        CharClass(LazyLock::new(|| ranges($class)))
    };
}

/// Characters that Unicode 14 has.
static KNOWN: CharClass = class!(r"\p{age=14.0}");
/// Letters, as `str.isalpha` sees them.
pub static ALPHABETIC: CharClass = class!(r"\p{L}");
/// Digits of decimal numbers.
pub static DECIMAL: CharClass = class!(r"\p{Nd}");
/// Digits, also superscripts and the like. Unicode's property `Numeric_Type=Digit` is not in `regex-syntax`.
pub static DIGIT: CharClass = class!(
    r"(?x)[\p{Nd}
    \x{b2}-\x{b3}\x{b9}\x{1369}-\x{1371}\x{19da}\x{2070}\x{2074}-\x{2079}\x{2080}-\x{2089}\x{2460}-\x{2468}
    \x{2474}-\x{247c}\x{2488}-\x{2490}\x{24ea}\x{24f5}-\x{24fd}\x{24ff}\x{2776}-\x{277e}\x{2780}-\x{2788}
    \x{278a}-\x{2792}\x{10a40}-\x{10a43}\x{10e60}-\x{10e68}\x{11052}-\x{1105a}\x{1f100}-\x{1f10a}]"
);
/// Characters with a numeric value: also fractions, and the ideographs with one, which are letters.
pub static NUMERIC: CharClass = class!(
    r"(?x)[\p{N}
    \x{3405}\x{3483}\x{382a}\x{3b4d}\x{4e00}\x{4e03}\x{4e07}\x{4e09}\x{4e5d}\x{4e8c}\x{4e94}\x{4e96}
    \x{4ebf}-\x{4ec0}\x{4edf}\x{4ee8}\x{4f0d}\x{4f70}\x{5104}\x{5146}\x{5169}\x{516b}\x{516d}\x{5341}
    \x{5343}-\x{5345}\x{534c}\x{53c1}-\x{53c4}\x{56db}\x{58f1}\x{58f9}\x{5e7a}\x{5efe}-\x{5eff}
    \x{5f0c}-\x{5f0e}\x{5f10}\x{62fe}\x{634c}\x{67d2}\x{6f06}\x{7396}\x{767e}\x{8086}\x{842c}\x{8cae}\x{8cb3}
    \x{8d30}\x{9621}\x{9646}\x{964c}\x{9678}\x{96f6}\x{f96b}\x{f973}\x{f978}\x{f9b2}\x{f9d1}\x{f9d3}\x{f9fd}
    \x{20001}\x{20064}\x{200e2}\x{20121}\x{2092a}\x{20983}\x{2098c}\x{2099c}\x{20aea}\x{20afd}\x{20b19}
    \x{22390}\x{22998}\x{23b1b}\x{2626d}\x{2f890}]"
);
/// Characters that `repr` writes as they are.
pub static PRINTABLE: CharClass = class!(r"[\ [^\p{C}\p{Z}]]");
/// The first character of an identifier.
pub static IDENTIFIER_START: CharClass = class!(r"[_\p{XID_Start}]");
/// The later characters of an identifier, without four that became so after Unicode 14.
pub static IDENTIFIER: CharClass = class!(r"[\p{XID_Continue}--\x{200c}\x{200d}\x{30fb}\x{ff65}]");
/// Lower-case characters, without five that became so after Unicode 14.
pub static LOWER: CharClass = class!(r"[\p{Lowercase}--\x{10fc}\x{a7f2}-\x{a7f4}\x{ab69}]");
/// Upper-case characters.
pub static UPPER: CharClass = class!(r"\p{Uppercase}");
/// Title-case characters, such as the single character ǅ.
pub static TITLE: CharClass = class!(r"\p{Lt}");
static CASED: CharClass = class!(r"[\p{Cased}--\x{10fc}\x{a7f2}-\x{a7f4}\x{ab69}]");
static CASE_IGNORABLE: CharClass = class!(r"[\p{Case_Ignorable}\x{1171e}]");

/// The ranges of a class, without the characters that Python 3.11 does not know.
fn ranges(class: &str) -> Vec<(char, char)> {
    let parse = |class| match Parser::new().parse(class).map(|class| class.into_kind()) {
        Ok(HirKind::Class(Class::Unicode(class))) => class,
        _ => unreachable!("the classes of this file are valid"),
    };
    let mut class = parse(class);
    class.intersect(&parse(r"\p{age=14.0}"));
    class.iter().map(|range| (range.start(), range.end())).collect()
}

impl CharClass {
    /// Whether a character is in the class.
    pub fn contains(&self, c: char) -> bool {
        self.range_of(c).is_some()
    }

    /// The first character of the range that holds a character.
    fn range_of(&self, c: char) -> Option<char> {
        let at = self.0.partition_point(|&(_, end)| end < c);
        self.0.get(at).filter(|&&(start, _)| start <= c).map(|&(start, _)| start)
    }
}

/// The value of a decimal digit of any script.
pub fn decimal_value(c: char) -> Option<u32> {
    // Digits stand in blocks of ten, one after the other.
    DECIMAL.range_of(c).map(|zero| (u32::from(c) - u32::from(zero)) % 10)
}

/// Whether Unicode 14 has a character.
pub fn is_known(c: char) -> bool {
    KNOWN.contains(c)
}

/// White space, as `str.isspace`, `str.strip` and `str.split` see it.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

/// Whether `str.splitlines` ends a line at a character.
pub fn is_line_break(c: char) -> bool {
    matches!(c, '\n'..='\r' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// What becomes of each character of a text.
#[derive(Clone, Copy)]
pub enum Case {
    /// `str.lower`
    Lower,
    /// `str.upper`
    Upper,
    /// `str.title`: the first letter of each word in title case, the others in lower case.
    Title,
    /// `str.capitalize`: the first character in title case, the others in lower case.
    Capitalize,
    /// `str.swapcase`
    Swap,
    /// `str.casefold`
    Fold,
    /// The filter `title`: upper case after white space and opening brackets, lower case elsewhere.
    Headline,
}

/// A text with its case changed; each character keeps its origin.
pub fn change_case(text: &Text, case: Case, limit: usize) -> Result<Text, Fault> {
    let mut out = TextBuilder::limited(limit);
    let mut after_cased = false;
    let mut after_gap = true;
    let mut at = 0;
    for (c, is_data) in text.chars() {
        let mapped = match case {
            Case::Upper => Mapped::Upper,
            Case::Fold => Mapped::Fold,
            Case::Capitalize if at == 0 => Mapped::Title,
            Case::Title if !after_cased => Mapped::Title,
            Case::Swap if UPPER.contains(c) => Mapped::Lower,
            Case::Swap if LOWER.contains(c) => Mapped::Upper,
            Case::Swap => Mapped::Same,
            Case::Headline if after_gap => Mapped::Upper,
            Case::Lower | Case::Capitalize | Case::Title | Case::Headline => Mapped::Lower,
        };
        match mapped {
            Mapped::Lower if c == 'Σ' && ends_word(text.as_str(), at, at + c.len_utf8()) => {
                out.push_char('ς', is_data)
            }
            mapped => map(c, mapped, |c| out.push_char(c, is_data)),
        }
        after_cased = matches!(case, Case::Title) && CASED.contains(c);
        after_gap = matches!(case, Case::Headline) && (is_space(c) || "-({[<".contains(c));
        at += c.len_utf8();
    }
    out.finish_within()
}

#[derive(Clone, Copy)]
enum Mapped {
    Same,
    Lower,
    Upper,
    Title,
    Fold,
}

/// Hands on the characters that a character becomes.
fn map(c: char, mapped: Mapped, mut push: impl FnMut(char)) {
    if c.is_ascii() {
        return push(match mapped {
            Mapped::Same => c,
            Mapped::Lower | Mapped::Fold => c.to_ascii_lowercase(),
            Mapped::Upper | Mapped::Title => c.to_ascii_uppercase(),
        });
    }
    let upper = |c: char| c.to_uppercase();
    match mapped {
        _ if !KNOWN.contains(c) => push(c),
        Mapped::Same => push(c),
        Mapped::Lower => c.to_lowercase().for_each(push),
        // The upper-case form is newer than Python, which sees none.
        Mapped::Upper | Mapped::Title | Mapped::Fold if upper(c).any(|c| !KNOWN.contains(c)) => push(c),
        Mapped::Upper => upper(c).for_each(push),
        Mapped::Title => match c {
            'Ǆ'..='ǆ' => push('ǅ'),
            'Ǉ'..='ǉ' => push('ǈ'),
            'Ǌ'..='ǌ' => push('ǋ'),
            'Ǳ'..='ǳ' => push('ǲ'),
            'ა'..='ჿ' => push(c), // Georgian has a mapping, but does not capitalize
            'ᾀ'..='ᾯ' => push(char::from_u32(u32::from(c) | 8).unwrap_or(c)),
            'ᾳ' | 'ᾼ' => push('ᾼ'),
            'ῃ' | 'ῌ' => push('ῌ'),
            'ῳ' | 'ῼ' => push('ῼ'),
            // An iota below the letter stays below it.
            'ᾲ' | 'ᾴ' | 'ᾷ' | 'ῂ' | 'ῄ' | 'ῇ' | 'ῲ' | 'ῴ' | 'ῷ' => {
                upper(c).for_each(|c| push(if c == 'Ι' { '\u{345}' } else { c }));
            }
            'ŉ' => upper(c).for_each(push),
            // A ligature becomes several letters, of which the first is upper case.
            _ => {
                let mut letters = upper(c);
                letters.next().into_iter().for_each(&mut push);
                letters.flat_map(char::to_lowercase).for_each(push);
            }
        },
        Mapped::Fold => match c {
            'Ꭰ'..='Ᏽ' | 'ᏸ'..='ᏽ' | 'ꭰ'..='ꮿ' => upper(c).for_each(push), // Cherokee
            'ı' => push(c),
            'ẞ' => "ss".chars().for_each(push),
            _ => upper(c).flat_map(char::to_lowercase).for_each(push),
        },
    }
}

/// Whether a Σ between two positions ends a word: a cased letter stands before it, and none after it.
fn ends_word(text: &str, start: usize, end: usize) -> bool {
    let is_cased = |c: Option<char>| c.is_some_and(|c| CASED.contains(c));
    let counts = |c: &char| !CASE_IGNORABLE.contains(*c);
    is_cased(text[..start].chars().rev().find(counts)) && !is_cased(text[end..].chars().find(counts))
}

/// A text as `repr` prints it. Escapes have the origin of their character; the quotes count as data.
pub fn repr(text: &Text, limit: usize) -> Result<Text, Fault> {
    let quote = if text.as_str().contains('\'') && !text.as_str().contains('"') { '"' } else { '\'' };
    let mut out = TextBuilder::limited(limit);
    out.push_char(quote, true);
    for (c, is_data) in text.chars() {
        match c {
            '\n' => out.push_from("\\n", is_data),
            '\r' => out.push_from("\\r", is_data),
            '\t' => out.push_from("\\t", is_data),
            _ if c == quote || c == '\\' => {
                out.push_char('\\', is_data);
                out.push_char(c, is_data);
            }
            _ if PRINTABLE.contains(c) => out.push_char(c, is_data),
            _ => out.push_from(&escape(c), is_data),
        }
    }
    out.push_char(quote, true);
    out.finish_within()
}

/// The `repr` of a value as `ascii` prints it.
pub fn escape_non_ascii(repr: &Text, limit: usize) -> Result<Text, Fault> {
    let mut out = TextBuilder::limited(limit);
    for (c, is_data) in repr.chars() {
        if c.is_ascii() { out.push_char(c, is_data) } else { out.push_from(&escape(c), is_data) }
    }
    out.finish_within()
}

/// The escape of a character in a Python literal.
pub(super) fn escape(c: char) -> String {
    match u32::from(c) {
        code @ ..0x100 => format!("\\x{code:02x}"),
        code @ ..0x10000 => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    }
}

#[cfg(test)]
#[path = "../../../tests/unit/jinja_unicode.rs"]
mod tests;
