//! Splitting a text into the pieces within which byte-pair encoding stays.

use crate::error::{Error, Result};
use regex_automata::meta::{Config, Regex};
use regex_automata::{Input, PatternID};

/// How most patterns end: spaces, the last of which is left to the word that follows. It is the only look-ahead that
/// the makers' patterns use; without it they are automata, which take linear time on any text and cannot fail.
const SPACES: [&str; 2] = [r"|\s+(?!\S)|\s+", r"|\s+(?!\S)"];

/// What nested repetition means to the makers' engines, and something else to this one.
const POSSESSIVE: [&str; 3] = ["?+", "*+", "++"];

/// The most memory that a pattern may compile to.
const PATTERN_BYTES: usize = 16 << 20;

/// One split: each match of a pattern is a piece, and so is each gap between two.
pub(super) struct Split {
    regex: Regex,
}

impl Split {
    pub(super) fn new(pattern: &str) -> Result<Split> {
        let refused = |why: &str| {
            Error::Unsupported(format!(
                "the pre-tokenizer's pattern '{pattern}' {why}; this engine has regular expressions whose only look-ahead \
                 is a final '{}'",
                SPACES[0]
            ))
        };
        if POSSESSIVE.iter().any(|repetition| pattern.contains(repetition)) {
            return Err(refused("has a possessive repetition"));
        }
        let cut = SPACES.iter().find_map(|spaces| pattern.strip_suffix(spaces));
        let patterns = [cut.unwrap_or(pattern), r"\s+"];
        let patterns = &patterns[..if cut.is_some() { 2 } else { 1 }];
        let config = Config::new().nfa_size_limit(Some(PATTERN_BYTES)).onepass(false);
        let regex = Regex::builder().configure(config).build_many(patterns);
        regex.map(|regex| Split { regex }).map_err(|error| refused(&format!("cannot be used: {error}")))
    }

    /// The pattern that matches a text as it is.
    pub(super) fn literal(text: &str) -> String {
        text.chars().map(|c| format!(r"\x{{{:x}}}", c as u32)).collect()
    }

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

/// The pieces of a text after all splits, each of which splits the pieces of the one before.
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
