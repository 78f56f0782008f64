//! The state of a grammar during an answer: which tokens it allows next, and which it forces.

use super::watched::Watched;
use crate::error::{Error, Result};
use crate::sampler::GrammarSource;
use crate::token::{TokenId, TokenSet};
use llguidance::Matcher;
use llguidance::toktrie::TokTrie;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A compiled grammar. Answers share the states of its lexer, which are made when they are first needed, up to a limit.
pub struct Compiled {
    /// A matcher whose lexer no answer has used.
    fresh: Mutex<Matcher>,
    /// One that shares its lexer with those of answers.
    shared: Mutex<Matcher>,
    /// Whether the shared lexer failed an answer.
    is_worn: AtomicBool,
}

impl Compiled {
    pub(super) fn new(matcher: Matcher) -> Compiled {
        Compiled {
            shared: Mutex::new(matcher.deep_clone()),
            fresh: Mutex::new(matcher),
            is_worn: AtomicBool::new(false),
        }
    }

    /// A matcher with a lexer of its own.
    fn fresh(&self) -> Matcher {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).deep_clone()
    }

    /// A matcher with the shared lexer.
    fn shared(&self) -> Matcher {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_worn.swap(false, Ordering::Relaxed) {
            *shared = self.fresh();
        }
        shared.clone()
    }
}

/// What a grammar allows after the ids of an answer so far.
#[derive(Clone)]
pub struct Constraint {
    matcher: Watched,
    compiled: Arc<Compiled>,
    /// Whether the matcher has a lexer of its own.
    is_alone: bool,
    /// What the matcher has read.
    read: Vec<TokenId>,
    source: GrammarSource,
    n_vocab: usize,
    stop_ids: Vec<TokenId>,
    /// Whether the answer is complete, which the matcher has seen only when it found that nothing can follow.
    is_at_end: bool,
    /// The text after which the grammar begins, if it does not begin with the answer, and what of it was seen.
    after: Option<String>,
    waiting: Option<Vec<u8>>,
}

impl Constraint {
    pub(super) fn new(
        compiled: Arc<Compiled>,
        source: GrammarSource,
        n_vocab: usize,
        stop_ids: Vec<TokenId>,
    ) -> Constraint {
        let (matcher, read) = (Watched::new(compiled.shared()), Vec::new());
        let (is_alone, is_at_end, after, waiting) = Default::default();
        Constraint { matcher, compiled, is_alone, read, source, n_vocab, stop_ids, is_at_end, after, waiting }
    }

    /// Applies the grammar only after this text, such as the mark that ends thoughts; the answer is free before it.
    pub fn begin_after(self, mark: &str) -> Constraint {
        Constraint { after: Some(mark.into()), waiting: Some(Vec::new()), ..self }
    }

    /// The kind of grammar and its text, as the caller gave them.
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
        self.ask(|matcher| matcher.consume_token(id).map_err(|error| error.to_string()))?;
        self.read.push(id);
        Ok(())
    }

    /// Asks the matcher. What others have left in a shared lexer must not fail this answer, so a matcher that fails is asked
    /// again with a lexer of its own.
    fn ask<T>(&mut self, what: impl Fn(&mut Matcher) -> std::result::Result<T, String>) -> Result<T> {
        let found = self.matcher.run(&what);
        let found = match found {
            Err(why) if !self.is_alone && is_of_lexer(&why) => {
                self.compiled.is_worn.store(true, Ordering::Relaxed);
                self.matcher = Watched::new(self.compiled.fresh());
                self.is_alone = true;
                let read = &self.read;
                self.matcher.run(|matcher| {
                    for id in read {
                        matcher.compute_ff_tokens(); // as before: it also tells the matcher what has to follow
                        matcher.consume_token(*id).map_err(|error| error.to_string())?;
                    }
                    what(matcher)
                })
            }
            found => found,
        };
        found.map_err(|why| self.failed(&why))
    }

    fn failed(&self, why: &str) -> Error {
        let why = match why {
            why if is_dead_end(why) => "no token of the vocabulary fits",
            _ if self.matcher.is_cancelled() => "it forces text that does not end",
            why => why.lines().next().unwrap_or_default(),
        };
        Error::Argument(format!("{}: the answer cannot go on in this form: {why}", self.source.kind.name()))
    }

    /// Whether the answer is complete: the grammar allows nothing more.
    pub fn is_complete(&self) -> bool {
        self.waiting.is_none() && (self.is_at_end || self.is_stopped())
    }

    /// Whether the matcher has come to its end, and not to an error.
    fn is_stopped(&self) -> bool {
        self.matcher.is_stopped() && !self.matcher.is_error()
    }

    /// Reads the ids that must follow, at most `most` of them, and returns them. The first one that ends the answer or that
    /// `may_be_forced` refuses is to be sampled, and those behind it are not known yet.
    pub fn force(&mut self, most: usize, may_be_forced: impl Fn(TokenId) -> bool) -> Result<Vec<TokenId>> {
        if self.waiting.is_some() || most == 0 || self.is_complete() {
            return Ok(Vec::new());
        }
        let mut ids = self.ask(|matcher| {
            let ids = matcher.compute_ff_tokens();
            matcher.get_error().map_or(Ok(ids), Err)
        })?;
        let is_refused = |id: &TokenId| self.stop_ids.contains(id) || !may_be_forced(*id);
        let refused = ids.iter().position(is_refused).unwrap_or(ids.len());
        ids.truncate(most.min(refused));
        ids.iter().try_for_each(|id| self.consume(*id))?;
        Ok(ids)
    }

    /// The tokens that may come next, those that end the answer among them; `None` if all may.
    pub fn allowed(&mut self) -> Result<Option<TokenSet>> {
        if self.waiting.is_some() {
            return Ok(None);
        }
        let mut allowed = TokenSet::none(self.n_vocab);
        let mut ends = self.is_complete();
        if !ends {
            let (accepts, mask) = self.ask(|matcher| {
                let accepts = matcher.is_accepting().map_err(|error| error.to_string())?;
                match matcher.compute_mask().map_err(|error| error.to_string()) {
                    Err(why) if accepts && is_dead_end(&why) => Ok((accepts, None)),
                    mask => Ok((accepts, Some(mask?))),
                }
            })?;
            (ends, self.is_at_end) = (accepts, mask.is_none());
            if let Some(mask) = mask {
                allowed = TokenSet::from_words(mask.as_slice(), self.n_vocab);
            }
        }
        if ends {
            self.stop_ids.iter().for_each(|id| allowed.insert(*id));
        }
        Ok(Some(allowed))
    }
}

/// Whether this error of the matcher says that no token can follow.
fn is_dead_end(error: &str) -> bool {
    error.lines().next().is_none_or(|line| line == "NoExtensionBias")
}

/// Whether this error of the matcher comes from its lexer, or from one that another answer has broken.
fn is_of_lexer(error: &str) -> bool {
    ["lexer error", "PoisonError"].iter().any(|sign| error.contains(sign))
}
