//! Special tokens, which are found in a text before it is encoded: control tokens and user-defined tokens.

use super::{STOP_TEXTS, TokenKind};
use crate::error::{Error, Result};
use crate::token::TokenId;
use ahash::AHashMap;
use aho_corasick::{AhoCorasick, MatchKind};
use regex_automata::Input;
use regex_automata::meta::Regex;
use std::ops::Range;
use std::sync::LazyLock;

/// The most bytes that the texts of all special tokens may have together: a hundred times those of any vocabulary. It
/// bounds the memory of the automaton that finds them.
const MAX_BYTES: usize = 4 << 20;

/// A token to find in texts.
#[derive(Clone, Default)]
pub(super) struct SpecialToken<'a> {
    pub(super) id: TokenId,
    pub(super) text: &'a str,
    pub(super) kind: TokenKind,
    /// Whether the white space before it is dropped, and the white space after it.
    pub(super) strip: (bool, bool),
    /// Whether it is found only where no word character stands beside it.
    pub(super) single_word: bool,
    /// Whether it is found in the normalized text.
    pub(super) normalized: bool,
}

/// Finds the special tokens of a vocabulary.
pub(super) struct Specials {
    /// Finds tokens in the text as it is.
    raw: Matcher,
    /// The same, where only user-defined tokens count and control tokens don't hide those inside them.
    user_defined: Option<Matcher>,
    /// The same, where parts of the text are plain: there, those that belong into normalized text are control tokens
    /// only as they are written.
    written: Option<Matcher>,
    /// Finds tokens in normalized text.
    normalized: Option<Matcher>,
}

/// A part of a text.
pub(super) enum Fragment {
    /// Text without special tokens.
    Plain(Range<usize>),
    /// The id of a special token.
    Token(TokenId),
}

impl Specials {
    /// Those of a GGUF file, with the rules of llama.cpp.
    pub(super) fn of_gguf(tokens: &[SpecialToken]) -> Result<Specials> {
        let user_defined = Matcher::new(tokens.iter().filter(|token| token.kind == TokenKind::UserDefined))?;
        Ok(Specials {
            raw: Matcher::new(tokens.iter())?,
            user_defined: Some(user_defined),
            written: None,
            normalized: None,
        })
    }

    /// Those of a `tokenizer.json`. `normalized` has those that are found in normalized text, with their normalized
    /// texts.
    pub(super) fn of_json(tokens: &[SpecialToken], normalized: &[SpecialToken]) -> Result<Specials> {
        let raw = Matcher::new(tokens.iter().filter(|token| !token.normalized))?;
        let (mut written, mut found) = (None, None);
        if !normalized.is_empty() {
            written = Some(Matcher::new(tokens.iter().filter(|token| !token.normalized || token.kind.is_control()))?);
            found = Some(Matcher::new(normalized.iter())?);
        }
        Ok(Specials { raw, user_defined: None, written, normalized: found })
    }

    /// Cuts a text at the special tokens in it. A range is a part of the text with whether control tokens count in it;
    /// the parts follow one another and cover the text.
    ///
    /// Of a rendered conversation, `data` are the ranges that come from it, ascending. No token that controls the model
    /// is found where it has a character of them.
    pub(super) fn cut(
        &self,
        text: &str,
        parts: &[(Range<usize>, bool)],
        data: Option<&[Range<usize>]>,
    ) -> Vec<Fragment> {
        let mixed = data.is_some() || parts.windows(2).any(|pair| pair[0].1 != pair[1].1);
        let mut cut = Cut::new(text, data.unwrap_or_default());
        for (range, control) in parts {
            let matcher = match (control, mixed) {
                (true, true) => self.written.as_ref(),
                (true, false) => None,
                (false, _) => self.user_defined.as_ref(),
            };
            cut.part(matcher.unwrap_or(&self.raw), range.clone(), *control);
        }
        cut.end()
    }

    /// Cuts a normalized text at the tokens that are found there.
    pub(super) fn cut_normalized(&self, text: &str, control: bool) -> Vec<Fragment> {
        let mut cut = Cut::new(text, &[]);
        if let Some(matcher) = &self.normalized {
            cut.part(matcher, 0..text.len(), control);
        }
        cut.end()
    }
}

/// Finds tokens in a text: the leftmost, and the longest if several begin at the same place.
struct Matcher {
    automaton: AhoCorasick,
    /// The token of each pattern of the automaton.
    tokens: Vec<Found>,
}

#[derive(Clone, Copy)]
struct Found {
    id: TokenId,
    control: bool,
    /// Whether it may not come from a conversation's texts: a control token, or one that some files call user-defined
    /// though it ends or begins a turn.
    guarded: bool,
    strip: (bool, bool),
    single_word: bool,
}

impl Matcher {
    fn new<'a>(specials: impl Iterator<Item = &'a SpecialToken<'a>>) -> Result<Matcher> {
        // Of equal texts the first counts.
        let mut by_text: AHashMap<&str, ()> = AHashMap::new();
        let (mut texts, mut tokens) = (Vec::new(), Vec::new());
        for token in specials.filter(|token| !token.text.is_empty()) {
            if by_text.insert(token.text, ()).is_none() {
                texts.push(token.text);
                let SpecialToken { id, kind, strip, single_word, .. } = *token;
                let (control, text) = (kind.is_control(), token.text);
                let guarded = control || text.starts_with("<|") && text.ends_with("|>") || STOP_TEXTS.contains(&text);
                tokens.push(Found { id, control, guarded, strip, single_word });
            }
        }
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        if bytes > MAX_BYTES {
            return Err(Error::Unsupported(format!(
                "the texts of the {} special tokens have {bytes} bytes, which is not supported; this engine has at \
                 most {MAX_BYTES}",
                texts.len()
            )));
        }
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts);
        let automaton =
            automaton.map_err(|error| Error::Model(format!("the special tokens cannot be searched for: {error}")))?;
        Ok(Matcher { automaton, tokens })
    }
}

/// A text while it is cut.
struct Cut<'a> {
    text: &'a str,
    /// The ranges that come from a conversation.
    data: &'a [Range<usize>],
    fragments: Vec<Fragment>,
    /// Where the last token ended, with the white space that it dropped.
    done: usize,
}

impl<'a> Cut<'a> {
    fn new(text: &'a str, data: &'a [Range<usize>]) -> Cut<'a> {
        Cut { text, data, fragments: Vec::new(), done: 0 }
    }

    /// Cuts at the tokens inside a range of the text.
    fn part(&mut self, matcher: &Matcher, range: Range<usize>, control: bool) {
        let text = self.text;
        for found in matcher.automaton.find_iter(aho_corasick::Input::new(text).range(range)) {
            let token = matcher.tokens[found.pattern().as_usize()];
            let in_word = || ends_with_word(&text[..found.start()]) || starts_with_word(&text[found.end()..]);
            if token.control && !control || token.single_word && in_word() {
                continue;
            }
            if token.guarded && self.is_data(found.range()) {
                continue;
            }
            let rest = &text[found.end()..];
            let end = text.len() - if token.strip.1 { rest.trim_start().len() } else { rest.len() };
            // The last token may have dropped all of this one, which is white space then. `tokenizers` sees it only if
            // it does not strip what is before it.
            if token.strip.0 && end <= self.done {
                continue;
            }
            // `done` can lie behind the start: the last token may have dropped white space that begins this one.
            let mut plain = self.done..found.start().max(self.done);
            if token.strip.0 {
                plain.end = plain.start + text[plain.clone()].trim_end().len();
            }
            if !plain.is_empty() {
                self.fragments.push(Fragment::Plain(plain));
            }
            self.fragments.push(Fragment::Token(token.id));
            self.done = end;
        }
    }

    /// Whether a range has a character that comes from a conversation.
    fn is_data(&self, range: Range<usize>) -> bool {
        let next = self.data.partition_point(|data| data.end <= range.start);
        self.data.get(next).is_some_and(|data| data.start < range.end)
    }

    fn end(mut self) -> Vec<Fragment> {
        if self.done < self.text.len() {
            self.fragments.push(Fragment::Plain(self.done..self.text.len()));
        }
        self.fragments
    }
}

static WORD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\w").expect("a valid pattern"));

fn is_word(c: char) -> bool {
    WORD.is_match(Input::new(c.encode_utf8(&mut [0; 4])))
}

fn starts_with_word(text: &str) -> bool {
    text.chars().next().is_some_and(is_word)
}

fn ends_with_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(is_word)
}
