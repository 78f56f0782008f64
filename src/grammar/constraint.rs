//! A grammar on its way through an answer.

use crate::error::{Error, Result};
use crate::sampler::GrammarSource;
use crate::token::{TokenId, TokenSet};
use llguidance::Matcher;
use llguidance::toktrie::TokTrie;

/// What a grammar allows after the ids of an answer so far.
pub struct Constraint {
    matcher: Matcher,
    source: GrammarSource,
    n_vocab: usize,
    stop_ids: Vec<TokenId>,
    /// The text after which the grammar begins, if it does not begin with the answer, and what of it was seen.
    after: Option<String>,
    waiting: Option<Vec<u8>>,
}

impl Constraint {
    pub(super) fn new(matcher: Matcher, source: GrammarSource, n_vocab: usize, stop_ids: Vec<TokenId>) -> Constraint {
        Constraint { matcher, source, n_vocab, stop_ids, after: None, waiting: None }
    }

    /// The same, of which the answer is free up to the token that completes this text, such as the end of thoughts.
    pub fn begin_after(self, mark: &str) -> Constraint {
        Constraint { after: Some(mark.into()), waiting: Some(Vec::new()), ..self }
    }

    /// The grammar.
    pub fn source(&self) -> &GrammarSource {
        &self.source
    }

    /// The text after which it begins, if it does not begin with the answer.
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// Reads the next id of the answer, which it allows.
    pub fn accept(&mut self, id: TokenId) -> Result<()> {
        let Some(seen) = &mut self.waiting else { return self.consume(id) };
        let (mark, tree) = (self.after.as_deref().unwrap_or_default(), self.matcher.tok_env());
        let tree = tree.map_err(|error| Error::Argument(error.to_string()))?;
        let bytes = tree.tok_trie().token(id);
        seen.extend_from_slice(bytes.strip_prefix(&[TokTrie::SPECIAL_TOKEN_MARKER]).unwrap_or(bytes));
        if seen.windows(mark.len()).any(|part| part == mark.as_bytes()) {
            self.waiting = None;
        } else {
            seen.drain(..seen.len().saturating_sub(mark.len()));
        }
        Ok(())
    }

    fn consume(&mut self, id: TokenId) -> Result<()> {
        self.matcher.consume_token(id).map_err(|error| self.failed(error.to_string()))
    }

    fn failed(&self, why: String) -> Error {
        let why = match why.lines().next() {
            None | Some("NoExtensionBias") => "no token of the vocabulary fits",
            Some(why) => why,
        };
        Error::Argument(format!("{}: the answer cannot go on in this form: {why}", self.source.kind.name()))
    }

    /// Whether the answer is complete: the grammar allows nothing more.
    pub fn is_complete(&self) -> bool {
        self.waiting.is_none() && self.matcher.is_stopped()
    }

    /// Reads the ids that must follow, at most `most` of them and none that `may_be_forced` refuses, and returns them.
    pub fn force(&mut self, most: usize, may_be_forced: impl Fn(TokenId) -> bool) -> Result<Vec<TokenId>> {
        if self.waiting.is_some() || most == 0 || self.matcher.is_stopped() {
            return Ok(Vec::new());
        }
        let mut ids = self.matcher.compute_ff_tokens();
        let refused = ids.iter().position(|id| !may_be_forced(*id)).unwrap_or(ids.len());
        ids.truncate(most.min(refused));
        ids.iter().try_for_each(|id| self.consume(*id))?;
        Ok(ids)
    }

    /// Takes the last id back.
    pub fn take_back(&mut self) -> Result<()> {
        self.matcher.rollback(1).map_err(|error| self.failed(error.to_string()))
    }

    /// The tokens that may come next, those that end the answer among them; `None` if all may.
    pub fn allowed(&mut self) -> Result<Option<TokenSet>> {
        if self.waiting.is_some() {
            return Ok(None);
        }
        let ends = self.matcher.is_stopped() || self.matcher.is_accepting().unwrap_or(false);
        let mut allowed = match self.matcher.compute_mask() {
            Ok(mask) => TokenSet::from_words(mask.as_slice(), self.n_vocab),
            Err(_) if ends => TokenSet::none(self.n_vocab),
            Err(error) => return Err(self.failed(error.to_string())),
        };
        if ends {
            self.stop_ids.iter().for_each(|id| allowed.insert(*id));
        }
        if allowed.is_empty() {
            return Err(self.failed(String::new()));
        }
        Ok(Some(allowed))
    }
}
