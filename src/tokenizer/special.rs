//! Special tokens, which are found in a text before it is encoded: control tokens and user-defined tokens.

use super::TokenKind;
use crate::error::{Error, Result};
use crate::token::TokenId;
use aho_corasick::{AhoCorasick, MatchKind};

/// A token to find in texts.
pub(super) struct SpecialToken<'a> {
    pub(super) id: TokenId,
    pub(super) text: &'a str,
    pub(super) kind: TokenKind,
    /// Whether the white space before it is dropped, and the white space after it.
    pub(super) strip: (bool, bool),
}

/// Finds special tokens in a text: the leftmost, and the longest if several begin at the same place.
pub(super) struct Matcher {
    automaton: AhoCorasick,
    /// The id and `strip` of each pattern of the automaton.
    tokens: Vec<(TokenId, (bool, bool))>,
}

/// A part of a text.
pub(super) enum Fragment<'a> {
    /// Text without special tokens.
    Plain(&'a str),
    /// The id of a special token.
    Token(TokenId),
}

/// A matcher for user-defined tokens only, and one for all special tokens.
pub(super) fn matchers(specials: &[SpecialToken]) -> Result<(Matcher, Matcher)> {
    let all = specials.iter().filter(|special| !special.text.is_empty());
    Ok((Matcher::new(all.clone().filter(|special| special.kind == TokenKind::UserDefined))?, Matcher::new(all)?))
}

impl Matcher {
    fn new<'a>(specials: impl Iterator<Item = &'a SpecialToken<'a>>) -> Result<Matcher> {
        let (texts, tokens): (Vec<&str>, _) = specials.map(|token| (token.text, (token.id, token.strip))).unzip();
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts);
        let automaton =
            automaton.map_err(|error| Error::Model(format!("the special tokens cannot be searched for: {error}")))?;
        Ok(Matcher { automaton, tokens })
    }

    /// Cuts a text at the special tokens in it. Plain parts may be empty.
    pub(super) fn cut<'a>(&self, text: &'a str) -> Vec<Fragment<'a>> {
        let mut fragments = Vec::new();
        let mut done = 0;
        for found in self.automaton.find_iter(text) {
            let (id, (before, after)) = self.tokens[found.pattern().as_usize()];
            // `done` can lie behind `found.start()`: the last token may have dropped white space that begins this one.
            let plain = text.get(done..found.start()).unwrap_or_default();
            fragments.push(Fragment::Plain(if before { plain.trim_end() } else { plain }));
            fragments.push(Fragment::Token(id));
            let rest = &text[found.end()..];
            done = text.len() - if after { rest.trim_start().len() } else { rest.len() };
        }
        fragments.push(Fragment::Plain(&text[done..]));
        fragments
    }
}
