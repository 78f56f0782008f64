//! Applies a grammar to an answer: masks forbidden tokens, and appends the ids that the grammar forces.
//!
//! Forced ids need no logits. Those at the beginning of the answer are computed together with the prompt, those behind a
//! sampled id together with that one.

use crate::error::{Error, Result};
use crate::grammar::Constraint;
use crate::sampler::SamplingParams;
use crate::token::{TokenId, TokenSet};

/// A step after the prompt that computes up to this many ids in addition to the last one counts as decoding.
pub(super) const FEW_FORCED: usize = 8;

/// A grammar, and what follows from it for the next step.
#[derive(Clone)]
pub(super) struct Form {
    constraint: Box<Constraint>,
    /// The ids with which every answer begins.
    start: Vec<TokenId>,
    /// The ids that may be sampled next; `None` if all may.
    allowed: Option<TokenSet>,
    /// Why the grammar cannot be followed any further.
    failed: Option<Error>,
}

impl Form {
    /// Reads the ids with which every answer begins, at most `most`, and leaves one to be sampled.
    pub fn begin(constraint: Constraint, most: usize, params: &SamplingParams) -> Form {
        let (start, allowed, failed) = Default::default();
        let mut form = Form { constraint: Box::new(constraint), start, allowed, failed };
        form.failed = form.read_start(most, params).err();
        form
    }

    fn read_start(&mut self, most: usize, params: &SamplingParams) -> Result<()> {
        let fresh = self.constraint.clone();
        self.start = self.constraint.force(most, |id| !is_banned(params, id))?;
        self.allowed = self.constraint.allowed()?;
        if self.constraint.is_complete() && self.start.pop().is_some() {
            self.constraint = fresh;
            self.constraint.force(self.start.len(), |_| true)?;
            self.allowed = self.constraint.allowed()?;
        }
        if self.allowed.as_ref().is_some_and(TokenSet::is_empty) {
            let kind = self.constraint.source().kind.name();
            return Err(Error::Argument(format!("{kind}: only the empty text fits, and no stop id could end it")));
        }
        Ok(())
    }

    /// Reads the id that was sampled. Returns those that have to follow it, at most `most`. What goes wrong is an error of
    /// the next step.
    pub fn read(&mut self, id: TokenId, most: usize, params: &SamplingParams) -> Vec<TokenId> {
        let forced = self.constraint.accept(id).and_then(|()| self.constraint.force(most, |id| !is_banned(params, id)));
        let forced = forced.inspect_err(|error| self.failed = Some(error.clone())).unwrap_or_default();
        if self.failed.is_none() && !self.constraint.is_complete() {
            match self.constraint.allowed() {
                Ok(allowed) => self.allowed = allowed,
                Err(error) => self.failed = Some(error),
            }
        }
        forced
    }

    /// Fails if the grammar cannot be followed any further.
    pub fn check(&self) -> Result<()> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Whether the answer is complete.
    pub fn is_complete(&self) -> bool {
        self.failed.is_none() && self.constraint.is_complete()
    }

    /// Whether another id can be sampled.
    pub fn goes_on(&self) -> bool {
        self.failed.is_none() && !self.constraint.is_complete()
    }

    /// The ids with which every answer begins.
    pub fn start(&self) -> &[TokenId] {
        &self.start
    }

    /// The ids that may be sampled next; `None` if all may.
    pub fn allowed(&self) -> Option<&TokenSet> {
        self.allowed.as_ref()
    }

    /// The grammar at the state after all ids that were read.
    pub fn constraint(&self) -> &Constraint {
        &self.constraint
    }
}

/// Whether the bias of an id is minus infinity. Then it is not forced: sampling says that no id is left.
fn is_banned(params: &SamplingParams, id: TokenId) -> bool {
    params.logit_bias.iter().any(|(banned, bias)| *banned == id && *bias == f32::NEG_INFINITY)
}
