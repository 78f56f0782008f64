//! Rewrites the source of a template, so that minijinja gives the result of Jinja2.
//!
//! minijinja's operators cannot be overloaded. So `a + b` becomes `__add(a, b)`, `a ~ b` becomes `__join(a, b)`, and
//! the iterable of a loop becomes `__walk((…))`. The value of `{% set %}` becomes `__hold((…))`, or `__keep((…))` if it
//! sets an attribute. `{% generation %}` becomes `{% if true %}`. Every line keeps its number.

/// The source for minijinja. From a tag that cannot be parsed on, it stays unchanged; minijinja reports the error.
pub(super) fn rewritten(source: &str) -> String {
    let source = source.replace("\r\n", "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    let opens = |text: &str, at: usize| text[at + 1..].starts_with(['{', '%', '#']);
    while let Some((start, _)) = rest.match_indices('{').find(|(at, _)| opens(rest, *at)) {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let end = if tag.starts_with("{#") { tag.find("#}").map(|end| end + 2) } else { raw_block(tag) };
        let sign = if tag[2..].starts_with(['-', '+']) { 3 } else { 2 };
        let mut rewriter = Rewriter { rest: &tag[end.unwrap_or(sign)..], depth: 0 };
        out.push_str(&tag[..end.unwrap_or(sign)]);
        if end.is_none() {
            let Some(inside) = rewriter.tag(if tag.starts_with("{{") { "}}" } else { "%}" }) else {
                return out + &tag[sign..];
            };
            out.push_str(&inside);
        }
        rest = rewriter.rest;
    }
    out + rest
}

/// The end of the raw block that `tag` starts with; nothing if it starts with another tag.
fn raw_block(tag: &str) -> Option<usize> {
    let inside = tag.strip_prefix("{%")?.trim_start_matches(['-', '+']).trim_start();
    inside.strip_prefix("raw").filter(|rest| rest.trim_start().starts_with(['-', '+', '%']))?;
    let end = tag.find("endraw")?;
    Some(end + tag[end..].find("%}")? + 2)
}

/// The words that bind less tightly than `+` and `~`. Between two separators stands one sum.
const WORDS: [&str; 10] = ["if", "elif", "else", "or", "and", "not", "in", "recursive", "set", "for"];
/// The signs that bind less tightly than `+` and `~`.
const SIGNS: [&str; 9] = [",", ":", "=", "==", "!=", "<", ">", "<=", ">="];

/// Terms joined by `+` and `-`. Each term is a list of factors joined by `~`.
#[derive(Default)]
struct Sum {
    /// The sign in front of each term, and its factors.
    terms: Vec<(char, Vec<String>)>,
    /// Whether the last token ends an operand, so that a sign after it is a binary operator.
    operand: bool,
}

impl Sum {
    /// Appends tokens to the last factor.
    fn push(&mut self, text: &[&str], operand: bool) {
        if self.terms.is_empty() {
            self.terms.push(('+', vec![String::new()]));
        }
        if let Some(factor) = self.terms.last_mut().and_then(|(_, factors)| factors.last_mut()) {
            factor.extend(text.iter().copied());
        }
        self.operand = operand;
    }

    /// Takes the sum as text for minijinja.
    fn take(&mut self) -> String {
        let mut added = Vec::new();
        for (sign, factors) in std::mem::take(self).terms {
            let term = call("__join", factors);
            if sign == '-' {
                added = vec![call("__add", added) + " -" + &term];
            } else {
                added.push(term);
            }
        }
        call("__add", added)
    }
}

/// A call of a function; a single argument is returned without the call.
fn call(function: &str, mut arguments: Vec<String>) -> String {
    match arguments.len() {
        0 | 1 => arguments.pop().unwrap_or_default(),
        _ => format!(" {function}({})", arguments.join(",")),
    }
}

/// Reads the tokens inside a tag and rewrites them.
struct Rewriter<'a> {
    /// The source that is not read yet.
    rest: &'a str,
    /// Number of brackets that are open at this place.
    depth: usize,
}

impl<'a> Rewriter<'a> {
    /// The inside of a tag, rewritten, with the closing mark.
    fn tag(&mut self, close: &str) -> Option<String> {
        let word = self.rest.trim_start().split(|c| !is_word(c)).next().filter(|_| close == "%}").unwrap_or("");
        let wrapped = match word {
            "generation" | "endgeneration" => {
                self.rest = self.rest.split_once(word)?.1;
                let replaced = if word == "generation" { " if true" } else { " endif" };
                return Some(replaced.to_string() + &self.inside(close, None)?);
            }
            "for" => Some(("in", "__walk")),
            "set" if self.rest.split('=').next()?.contains('.') => Some(("=", "__keep")),
            "set" => Some(("=", "__hold")),
            _ => None,
        };
        self.inside(close, wrapped)
    }

    /// Everything up to and including the closing mark, rewritten. `wrapped` is a word and a function: the expression
    /// after the word becomes the argument of a call.
    fn inside(&mut self, close: &str, mut wrapped: Option<(&str, &str)>) -> Option<String> {
        let (mut out, mut sum) = (String::new(), Sum::default());
        let (mut wrapping, mut before) = ("", "");
        loop {
            let (gap, token) = self.token()?;
            let closes = token == close || (close.len() == 2 && token.trim_start_matches(['-', '+']) == close);
            // A word after one of these is a name, never an operator.
            let named = matches!(before, "." | "|") || (before == "is" && token != "not");
            let negates = before == "is" && token == "not";
            let separates = closes || ((WORDS.contains(&token) || SIGNS.contains(&token)) && !named && !negates);
            if separates {
                out.push_str(&sum.take());
                if closes && !wrapping.is_empty() || wrapping == "in" && matches!(token, "if" | "recursive") {
                    out.push_str("))");
                    wrapping = "";
                }
                out.extend([gap, token]);
            }
            match token {
                _ if closes => return Some(out),
                _ if separates => {
                    if let Some((word, function)) = wrapped.filter(|(word, _)| *word == token) {
                        out.extend([" ", function, "(("]);
                        (wrapped, wrapping) = (None, word);
                    }
                }
                // The sign in `1e-5` is not an operator.
                "+" | "-"
                    if sum.operand
                        && !(before.starts_with(|c: char| c.is_ascii_digit()) && before.ends_with(['e', 'E'])) =>
                {
                    sum.terms.push((token.chars().next()?, vec![gap.to_string()]));
                    sum.operand = false;
                }
                "~" => {
                    sum.terms.last_mut()?.1.push(gap.to_string());
                    sum.operand = false;
                }
                "(" | "[" | "{" => {
                    self.depth += 1;
                    let close = match token {
                        "(" => ")",
                        "[" => "]",
                        _ => "}",
                    };
                    sum.push(&[gap, token, &self.inside(close, None)?], true);
                    self.depth -= 1;
                }
                _ => sum.push(&[gap, token], token.starts_with(|c| is_word(c) || "'\"".contains(c)) && token != "is"),
            }
            // After `is not`, as after `is`, comes the name of a test.
            before = if negates { "is" } else { token };
        }
    }

    /// The white space before the next token, and the token.
    fn token(&mut self) -> Option<(&'a str, &'a str)> {
        let (gap, text) = self.rest.split_at(self.rest.len() - self.rest.trim_start().len());
        let first = text.chars().next()?;
        let length = match first {
            '\'' | '"' => {
                let mut escaped = false;
                let ends = |c| {
                    let ends = c == first && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                };
                text[1..].find(ends)? + 2
            }
            c if is_word(c) => text.find(|c| !is_word(c)).unwrap_or(text.len()),
            // Inside brackets `}}` closes two dicts.
            '}' if self.depth > 0 => 1,
            _ => ["-%}", "+%}", "-}}", "%}", "}}", "//", "**", "==", "!=", "<=", ">="]
                .iter()
                .find(|token| text.starts_with(**token))
                .map_or(first.len_utf8(), |token| token.len()),
        };
        let (token, rest) = text.split_at(length);
        self.rest = rest;
        Some((gap, token))
    }
}

/// Whether a character can be part of a name or number.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
