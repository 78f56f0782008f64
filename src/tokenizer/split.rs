//! Splits a text into pieces. Byte-pair encoding never merges across pieces.

use crate::error::{Error, Result};
use regex_automata::meta::{Config, Regex};
use regex_automata::{Input, PatternID};

/// The ends of most patterns: white space, whose last character is left to the word that follows. These hold the only
/// look-ahead that published patterns use. `Split::split` does its work, so that the rest of a pattern is a finite
/// automaton, which takes linear time on any text and cannot fail.
const SPACES: [&str; 2] = [r"|\s+(?!\S)|\s+", r"|\s+(?!\S)"];

/// Possessive repetitions of other regex engines. This engine would read them as nested repetitions.
const POSSESSIVE: [&str; 3] = ["?+", "*+", "++"];

/// The most memory that a compiled pattern may take, in bytes.
const PATTERN_BYTES: usize = 16 << 20;

/// One step of splitting: each match of a pattern is a piece, and so is each gap between two matches.
pub(super) struct Split {
    regex: Regex,
}

impl Split {
    /// Compiles a pattern of a tokenizer; an error if it needs look-around other than a final one of `SPACES`.
    pub(super) fn new(pattern: &str) -> Result<Split> {
        let refused = |why: &str| {
            Error::Unsupported(format!(
                "the pre-tokenizer's pattern '{pattern}' {why}; this engine has regular expressions without \
                 look-around, except for a final '{}'",
                SPACES[0]
            ))
        };
        if POSSESSIVE.iter().any(|repetition| pattern.contains(repetition)) {
            return Err(refused("has a possessive repetition, which is not supported"));
        }
        let cut = SPACES.iter().find_map(|spaces| pattern.strip_suffix(spaces));
        let patterns = [cut.unwrap_or(pattern), r"\s+"];
        let patterns = &patterns[..if cut.is_some() { 2 } else { 1 }];
        let config = Config::new().nfa_size_limit(Some(PATTERN_BYTES)).onepass(false);
        let regex = Regex::builder().configure(config).build_many(patterns);
        regex.map(|regex| Split { regex }).map_err(|error| refused(&format!("cannot be used: {error}")))
    }

    /// The pattern that matches exactly this text.
    pub(super) fn literal(text: &str) -> String {
        text.chars().map(|c| format!(r"\x{{{:x}}}", c as u32)).collect()
    }

    /// Appends the pieces of a text.
    fn split<'a>(&self, text: &'a str, pieces: &mut Vec<&'a str>) {
        let (mut done, mut at) = (0, 0);
        while let Some(found) = self.regex.find(Input::new(text).range(at..)) {
            let (start, mut end) = (found.start(), found.end());
            if found.is_empty() {
                at = text.ceil_char_boundary(end + 1);
                if end == text.len() {
                    break;
                }
                continue;
            }
            // White space before a word: its last character goes to the word, unless it is the only one.
            if found.pattern() == PatternID::must(1) && end < text.len() {
                let (last, _) = text[start..end].char_indices().next_back().expect("it is not empty");
                end = if last > 0 { start + last } else { end };
            }
            if done < start {
                pieces.push(&text[done..start]);
            }
            pieces.push(&text[start..end]);
            (done, at) = (end, end);
        }
        if done < text.len() {
            pieces.push(&text[done..]);
        }
    }
}

/// The pieces of a text after all steps. Each step splits the pieces of the step before.
pub(super) fn split<'a>(splits: &[Split], text: &'a str) -> Vec<&'a str> {
    splits.iter().fold(vec![text], |pieces, split| {
        let mut finer = Vec::with_capacity(pieces.len());
        pieces.into_iter().for_each(|piece| split.split(piece, &mut finer));
        finer
    })
}

#[cfg(test)]
#[path = "../../tests/unit/split.rs"]
mod tests;
