//! Patterns of a `tokenizer.json`, which are written for Oniguruma in its Ruby syntax, as patterns of this engine.
//!
//! What both engines read alike is kept, and what they read differently is translated or refused. Their classes
//! (`\p{…}`, `\s`, `\d`) hold the same characters; `tests/fixtures/make_tokenizers.py` compares them.

use crate::error::{Error, Result};

/// Case-insensitive groups of published patterns. Elsewhere Oniguruma also matches several characters as one (`ß` and
/// `ss`), which no text of these groups allows.
const INSENSITIVE: [&str; 3] = ["(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(?i:[sdmt]|ll|ve|re)", "(?i:[sdmt]|re|ve|ll)"];

/// Word characters as Oniguruma has them: without joiners, with the digits of Latin-1.
const WORD: &str = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be}";

/// What a final look-ahead for white space begins with; `Split` does its work.
const LOOK_AHEAD: &str = r"(?!\S)";

/// The pattern in this engine's syntax.
pub(super) fn translated(pattern: &str) -> Result<String> {
    let refuse = |what: &str| {
        Error::Unsupported(format!(
            "the pattern '{pattern}' has {what}, which is not supported; this engine has patterns without it, or else \
             convert the tokenizer to the pre-tokenizers of a GGUF file"
        ))
    };
    let mut out = String::new();
    let mut rest = pattern;
    // Whether the place is inside `[…]`, how deep, and whether a `]` would be the first there.
    let (mut depth, mut opened) = (0, false);
    let mut can_begin = true;
    while let Some(c) = rest.chars().next() {
        let known = INSENSITIVE.iter().find(|group| depth == 0 && rest.starts_with(**group));
        if let Some(kept) = known.copied().or(rest.starts_with(LOOK_AHEAD).then_some(LOOK_AHEAD)) {
            out += kept;
            rest = &rest[kept.len()..];
            can_begin = false;
            continue;
        }
        let begins = std::mem::replace(&mut can_begin, false);
        let was_opened = std::mem::replace(&mut opened, false);
        let mut length = c.len_utf8();
        match c {
            '\\' => {
                let (translated, taken) = escape(rest).map_err(|what| refuse(&what))?;
                out += &translated;
                length = taken;
            }
            '[' => {
                if rest.starts_with("[:") {
                    return Err(refuse("a POSIX class"));
                }
                depth += 1;
                opened = true;
                out.push(c);
                if rest[1..].starts_with('^') {
                    out.push('^');
                    length += 1;
                }
            }
            ']' if was_opened || depth == 0 => return Err(refuse("a ']' that ends no class")),
            ']' => {
                depth -= 1;
                out.push(c);
            }
            '&' | '~' | '-' if depth > 0 && rest[1..].starts_with(c) => return Err(refuse("an operation on classes")),
            _ if depth > 0 => out.push(c),
            '(' if rest.starts_with("(?") && !rest.starts_with("(?:") => {
                return Err(refuse("look-around, an option or a special group"));
            }
            '(' => {
                length = if rest.starts_with("(?:") { 3 } else { 1 };
                out += &rest[..length];
                can_begin = true;
            }
            '|' => {
                out.push(c);
                can_begin = true;
            }
            '^' if begins => out += "(?m:^)",
            '^' => return Err(refuse("a '^' inside")),
            '$' => out += "(?m:$)",
            '{' => {
                let end = rest
                    .find('}')
                    .filter(|end| rest.as_bytes()[1..*end].iter().all(|b| b.is_ascii_digit() || *b == b','));
                let end = end.ok_or_else(|| refuse("a '{' that begins no repetition"))?;
                let (least, most) = rest[1..end].split_once(',').unwrap_or((&rest[1..end], "0"));
                let follows = rest[end + 1..].chars().next();
                if least.is_empty() || follows == Some('+') || follows == Some('?') && !rest[1..end].contains(',') {
                    return Err(refuse("a repetition that engines read differently"));
                }
                if let (Ok(least), Ok(most), true) = (least.parse::<u64>(), most.parse(), rest[1..end].contains(','))
                    && least > most
                {
                    return Err(refuse("a repetition that engines read differently"));
                }
                length = end + 1;
                out += &rest[..length];
            }
            _ => out.push(c),
        }
        rest = &rest[length..];
    }
    Ok(out)
}

/// The translation of the escape at the start of a pattern, and its length; or what is not supported.
fn escape(rest: &str) -> std::result::Result<(String, usize), String> {
    let Some(c) = rest[1..].chars().next() else { return Err("a '\\' at its end".into()) };
    let unknown = || format!("the escape '\\{c}'");
    let same = |length: usize| Ok((rest[..length].to_string(), length));
    match c {
        's' | 'S' | 'd' | 'D' | 'n' | 'r' | 't' => same(2),
        'w' => Ok((format!("[{WORD}]"), 2)),
        'W' => Ok((format!("[^{WORD}]"), 2)),
        'p' | 'P' => {
            let name = rest[2..].strip_prefix('{').and_then(|name| name.split_once('}')).map(|(name, _)| name);
            let name = name.filter(|name| CLASSES.split(' ').any(|known| known == *name)).ok_or_else(unknown)?;
            same(name.len() + 4)
        }
        'x' | 'u' => {
            let braced = rest[2..].starts_with('{');
            let length = match (c, braced) {
                ('x', true) => rest.find('}').ok_or_else(unknown)? + 1,
                ('x', false) => 4,
                ('u', false) => 6,
                _ => return Err(unknown()),
            };
            let digits = rest.get(2..length).ok_or_else(unknown)?.trim_matches(['{', '}']);
            let code = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32).ok_or_else(unknown)?;
            // Two digits are a byte for Oniguruma.
            if c == 'x' && !braced && code > '\x7f' {
                return Err(unknown());
            }
            Ok((format!("\\x{{{:x}}}", code as u32), length))
        }
        c if c.is_ascii_punctuation() => Ok((format!("\\x{{{:x}}}", c as u32), 2)),
        _ => Err(unknown()),
    }
}

/// The classes that hold the same characters for both engines.
const CLASSES: &str = "L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp C Cc Cf \
                       Co Cn Han Hiragana Katakana Hangul Alphabetic";
