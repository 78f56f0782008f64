//! Tokens that are matched as literal text: control tokens, and those that a model's users added.

use super::Kind;
use crate::error::{Error, Result};
use aho_corasick::{AhoCorasick, MatchKind};

/// A token to find in texts.
pub(super) struct Special<'a> {
    pub(super) id: u32,
    pub(super) text: &'a str,
    pub(super) kind: Kind,
    /// Whether it swallows the white space before it, and after it.
    pub(super) strip: (bool, bool),
}

/// Finds tokens, the longest of those that begin at the same place.
pub(super) struct Matcher {
    automaton: AhoCorasick,
    tokens: Vec<(u32, (bool, bool))>,
}

/// A stretch of a text.
pub(super) enum Fragment<'a> {
    Plain(&'a str),
    Token(u32),
}

/// One matcher for user-defined tokens alone, and one for all.
pub(super) fn matchers(specials: &[Special]) -> Result<(Matcher, Matcher)> {
    let all = specials.iter().filter(|special| !special.text.is_empty());
    Ok((Matcher::new(all.clone().filter(|special| special.kind == Kind::UserDefined))?, Matcher::new(all)?))
}

impl Matcher {
    fn new<'a>(specials: impl Iterator<Item = &'a Special<'a>>) -> Result<Matcher> {
        let (texts, tokens): (Vec<&str>, _) = specials.map(|token| (token.text, (token.id, token.strip))).unzip();
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts);
        let automaton = automaton.map_err(|error| Error::Model(format!("special tokens: {error}")))?;
        Ok(Matcher { automaton, tokens })
    }

    /// Cuts a text at the tokens in it; plain stretches may be empty.
    pub(super) fn cut<'a>(&self, text: &'a str) -> Vec<Fragment<'a>> {
        let mut fragments = Vec::new();
        let mut done = 0;
        for found in self.automaton.find_iter(text) {
            let (id, (before, after)) = self.tokens[found.pattern().as_usize()];
            // The white space that the last token swallowed may have begun this one.
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
