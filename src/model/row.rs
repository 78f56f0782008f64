//! A batch as the callers of [`Model::forward`](super::Model::forward) give it: a list of rows.

use crate::token::{TokenId, TokenSet};

/// One token of a batch: of a prompt, or of a step that generates. Its position follows those in the sequence's
/// cache and those of earlier rows of the same sequence.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// The index of its sequence among the sequences of the batch.
    pub sequence: usize,
    /// The token's id, below the vocabulary's size.
    pub id: TokenId,
    /// Which logits to compute at its position.
    pub logits: LogitsFor<'a>,
}

/// Which logits a row needs.
#[derive(Clone, Copy)]
pub enum LogitsFor<'a> {
    /// None: the row only extends the cache.
    None,
    /// Those of the whole vocabulary.
    All,
    /// Those of the tokens that the sampler can choose; the others may be minus infinity.
    Candidates(&'a CandidateThreshold<'a>),
    /// Those of the tokens in the set, or only of those of them that the sampler can choose; the others may hold anything.
    Allowed(&'a TokenSet, Option<&'a CandidateThreshold<'a>>),
    /// The hidden state after the output norm, `hidden_size` floats, in place of logits.
    Hidden,
}

/// Applies the sampler's penalties to the lower and upper bounds of all logits, and returns the threshold below which
/// an upper bound rules a token out; `None` if every logit is needed, whatever the bounds.
///
/// The penalties must keep the order of values (be monotone), or the bounds would no longer hold. The function may be
/// called with wide bounds first and with tighter ones then, where bounds of tokens that the first threshold ruled out are
/// minus infinity. So the threshold must follow from the n-th largest adjusted lower bound, for some n, and rise with it.
pub type CandidateThreshold<'a> = dyn Fn(&mut [f32], &mut [f32]) -> Option<f32> + Sync + 'a;

impl<'a> LogitsFor<'a> {
    /// Those that a choice needs among `allowed` ids, all if none; without a threshold any of them can be chosen.
    pub fn chosen(allowed: Option<&'a TokenSet>, threshold: Option<&'a CandidateThreshold<'a>>) -> LogitsFor<'a> {
        match allowed {
            Some(allowed) => LogitsFor::Allowed(allowed, threshold),
            None => threshold.map_or(LogitsFor::All, LogitsFor::Candidates),
        }
    }

    /// Whether the row needs logits.
    pub fn any_logits(&self) -> bool {
        matches!(self, LogitsFor::All | LogitsFor::Candidates(_) | LogitsFor::Allowed(..))
    }
}

/// What a pass gives for its rows.
#[derive(Default)]
pub struct Outputs {
    /// `vocab_size` floats for each row that asked for logits, in the order of the rows.
    pub logits: Vec<f32>,
    /// `hidden_size` floats for each row that asked for its hidden state, in the order of the rows.
    pub hidden: Vec<f32>,
}
