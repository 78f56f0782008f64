//! What a caller wants computed next: a sequence with the ids that follow it, and what is done with their logits.

use super::{Generation, Guessing, Sequence};
use crate::error::Result;
use crate::model::{CandidateThreshold, LogitsFor, Outputs, Row};
use crate::sampler::{LogSoftmax, logprobs};
use crate::token::TokenId;
use std::ops::Range;

/// A sequence and what is computed on it next. It owns both, so that any caller's thread can compute it.
pub struct Step {
    /// The sequence; each pass appends rows to it.
    pub sequence: Sequence,
    /// What is computed.
    pub task: Task,
}

/// What a [`Step`] computes.
pub enum Task {
    /// The next id of an answer; the first step of an answer computes its prompt.
    Token(Box<Generation>),
    /// Given ids, appended to the sequence.
    Extend(Extension),
}

/// Ids that are appended to a sequence, and what is wanted of them.
pub struct Extension {
    ids: Vec<TokenId>,
    /// How many of the ids are computed.
    done: usize,
    /// The ids whose logits or hidden states are wanted, by their indexes.
    wanted: Range<usize>,
    /// What has been collected so far.
    pub output: Output,
}

/// What an [`Extension`] collects.
pub enum Output {
    /// Nothing: the ids only extend the sequence.
    Nothing,
    /// All logits after each wanted id, one row after the other. The caller has allocated their memory.
    Logits(Vec<f32>),
    /// How likely the given ids are after the wanted ids.
    Scores {
        /// The ids to score, some for each wanted id.
        next: Vec<Vec<TokenId>>,
        /// Their scores so far.
        scores: Vec<Vec<TokenScore>>,
    },
    /// How likely the id after each wanted one is, and the most likely ids in its place.
    Likely {
        /// The ids after the wanted ones.
        next: Vec<TokenId>,
        /// How many of the most likely ids are reported.
        k: usize,
        /// What is known so far.
        found: Vec<Likelihood>,
    },
    /// The sum of the hidden states after the wanted ids, `hidden_size` numbers, added in the order of the ids.
    StateSum(Vec<f64>),
}

/// How likely a token is after those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenScore {
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// Whether it is the most likely token, which greedy sampling would choose.
    pub is_greedy: bool,
}

/// The log-probability of an id, and the most likely ids in its place with theirs, the best first.
pub type Likelihood = (f64, Vec<(TokenId, f64)>);

impl TokenScore {
    /// The score of `id` by the logits after the tokens before it.
    fn new(logits: &[f32], softmax: &LogSoftmax, id: TokenId) -> TokenScore {
        TokenScore { logprob: softmax.of(logits[id as usize]) as f32, is_greedy: softmax.best == id }
    }
}

impl Extension {
    /// Appends `ids`; of those in `wanted`, by their indexes, `output` says what is collected.
    pub fn new(ids: Vec<TokenId>, wanted: Range<usize>, output: Output) -> Extension {
        Extension { ids, done: 0, wanted, output }
    }

    /// Whether there is nothing to append.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    fn logits_for(&self, index: usize) -> LogitsFor<'static> {
        match self.output {
            _ if !self.wanted.contains(&index) => LogitsFor::None,
            Output::Nothing => LogitsFor::None,
            Output::Logits(_) | Output::Scores { .. } | Output::Likely { .. } => LogitsFor::All,
            Output::StateSum(_) => LogitsFor::Hidden,
        }
    }
}

/// The parts of a pass that belong to one step, when the pass has ended: work that different threads may do.
pub(super) enum Collecting<'a> {
    /// Chooses the next ids of an answer.
    Choose(&'a mut Generation, &'a mut [f32], usize, &'a mut Result<()>),
    /// Chooses one of the ids that a draft says, by its number in the step.
    Pick(&'a Generation, usize, &'a mut [f32]),
    /// Scores ids.
    Score(&'a mut Vec<TokenScore>, &'a [TokenId], &'a [f32]),
    /// Scores an id, and finds the most likely ones in its place.
    Rank(&'a mut Likelihood, TokenId, usize, &'a [f32]),
}

impl Collecting<'_> {
    pub fn run(&mut self) {
        match self {
            Collecting::Choose(generation, logits, n_vocab, result) => **result = generation.choose(logits, *n_vocab),
            Collecting::Pick(generation, choice, logits) => generation.pick(*choice, logits),
            Collecting::Score(scores, ids, logits) => {
                let softmax = LogSoftmax::new(logits);
                scores.extend(ids.iter().map(|id| TokenScore::new(logits, &softmax, *id)));
            }
            Collecting::Rank(found, id, k, logits) => **found = logprobs(logits, *id, *k),
        }
    }
}

impl Step {
    /// The next id of an answer, or several if it guesses some right.
    pub fn token(sequence: Sequence, mut generation: Generation, guessing: Option<Guessing>) -> Step {
        generation.prepare(sequence.ids.len(), guessing);
        Step { sequence, task: Task::Token(Box::new(generation)) }
    }

    /// Ids that are appended to a sequence.
    pub fn extend(sequence: Sequence, extension: Extension) -> Step {
        Step { sequence, task: Task::Extend(extension) }
    }

    /// Whether there is nothing to compute.
    pub fn is_empty(&self) -> bool {
        self.pending().is_empty()
    }

    /// The ids that are not computed yet.
    pub(super) fn pending(&self) -> &[TokenId] {
        self.task.pending(self.sequence.ids.len())
    }

    /// Whether it decodes, in at most `most` rows: it continues an answer of which ids were already sampled, and nothing
    /// before the last one has to be computed again.
    pub(super) fn decodes(&self, most: usize) -> bool {
        matches!(&self.task, Task::Token(generation) if generation.decodes(most))
    }

    /// How many of its pending ids another sequence may compute for it: those before the first whose logits are wanted.
    pub(super) fn shareable(&self) -> usize {
        match &self.task {
            Task::Token(generation) if !generation.generated().is_empty() => 0,
            // Not those with which a grammar makes the answer begin: they are no part of the prompt.
            Task::Token(generation) => (generation.prompt().len() - 1).saturating_sub(self.sequence.ids.len()),
            Task::Extend(Extension { ids, done, wanted, .. }) => {
                wanted.start.min(ids.len().saturating_sub(1)).saturating_sub(*done)
            }
        }
    }

    /// Goes on from the first `len` positions of another sequence, which holds the same ids there, if it has kept more
    /// of them than this step has computed.
    pub(super) fn adopt(&mut self, other: &Sequence, len: usize) {
        let mut prefix = other.clone();
        let more = prefix.truncate(len).saturating_sub(self.sequence.ids.len());
        if more == 0 {
            return;
        }
        self.sequence.adopt(prefix);
        match &mut self.task {
            Task::Token(generation) => generation.cached_tokens += more,
            Task::Extend(extension) => extension.done += more,
        }
    }

    /// Ends it after its last pass: the sequence drops the rows of ids that were guessed wrong.
    pub(super) fn end(&mut self) {
        if let Task::Token(generation) = &self.task {
            self.sequence.truncate(generation.computed_len());
        }
    }
}

impl Task {
    /// The ids that are not computed yet, if the sequence has `computed` positions.
    fn pending(&self, computed: usize) -> &[TokenId] {
        match self {
            Task::Token(generation) => generation.pending(computed),
            Task::Extend(extension) => &extension.ids[extension.done..],
        }
    }

    /// The thresholds of its next `n` rows, which [`Task::rows`] refers to.
    pub(super) fn thresholds(&self, computed: usize, n: usize) -> Vec<Box<CandidateThreshold<'_>>> {
        match self {
            Task::Token(generation) => generation.thresholds(computed, n),
            Task::Extend(_) => Vec::new(),
        }
    }

    /// Its next `n` rows, as those of sequence `index` of a batch.
    pub(super) fn rows<'a>(
        &'a self,
        computed: usize,
        index: usize,
        n: usize,
        thresholds: &'a [Box<CandidateThreshold<'a>>],
    ) -> impl Iterator<Item = Row<'a>> {
        let pending = self.pending(computed);
        let logits = move |i: usize| match self {
            Task::Token(generation) => generation.logits_for(pending.len() - i, thresholds),
            Task::Extend(extension) => extension.logits_for(extension.done + i),
        };
        pending[..n].iter().enumerate().map(move |(i, id)| Row { sequence: index, id: *id, logits: logits(i) })
    }

    /// Takes the outputs of its `n` rows after a pass. Returns what is left to do with them.
    pub(super) fn collect<'a>(
        &'a mut self,
        n: usize,
        (logits, hidden): (&'a mut [f32], &[f32]),
        n_vocab: usize,
        result: &'a mut Result<()>,
    ) -> Vec<Collecting<'a>> {
        let extension = match self {
            Task::Token(_) if logits.is_empty() => return Vec::new(),
            Task::Token(generation) => {
                if !generation.has_draft() {
                    return vec![Collecting::Choose(generation, logits, n_vocab, result)];
                }
                let generation: &Generation = generation;
                let picks = generation.draft_picks(logits.len() / n_vocab).zip(logits.chunks_mut(n_vocab));
                return picks.map(|(choice, logits)| Collecting::Pick(generation, choice, logits)).collect();
            }
            Task::Extend(extension) => extension,
        };
        extension.done += n;
        match &mut extension.output {
            Output::Nothing => {}
            Output::Logits(all) => all.extend_from_slice(logits),
            Output::StateSum(sums) => {
                for state in hidden.chunks(sums.len()) {
                    sums.iter_mut().zip(state).for_each(|(sum, x)| *sum += *x as f64);
                }
            }
            Output::Scores { next, scores } => {
                let first = scores.len();
                scores.resize_with(first + logits.len() / n_vocab, Vec::new);
                let rows = scores[first..].iter_mut().zip(&next[first..]).zip(logits.chunks(n_vocab));
                return rows.map(|((scores, ids), logits)| Collecting::Score(scores, ids, logits)).collect();
            }
            Output::Likely { next, k, found } => {
                let (first, k) = (found.len(), *k);
                found.resize_with(first + logits.len() / n_vocab, Default::default);
                let rows = found[first..].iter_mut().zip(&next[first..]).zip(logits.chunks(n_vocab));
                return rows.map(|((found, id), logits)| Collecting::Rank(found, *id, k, logits)).collect();
            }
        }
        Vec::new()
    }
}

impl Task {
    /// Takes the ids that were chosen after a pass, if it chooses many; `computed` are the positions of its sequence.
    pub(super) fn settle(&mut self, computed: usize) -> Result<()> {
        match self {
            Task::Token(generation) => generation.settle(computed),
            Task::Extend(_) => Ok(()),
        }
    }
}

/// How many floats of the outputs belong to rows.
pub(super) fn output_len(rows: &[Row], n_vocab: usize, hidden_size: usize) -> (usize, usize) {
    let logits = rows.iter().filter(|row| row.logits.any_logits()).count();
    let hidden = rows.iter().filter(|row| matches!(row.logits, LogitsFor::Hidden)).count();
    (logits * n_vocab, hidden * hidden_size)
}

/// Splits the outputs of a pass among its steps; `lens` are those of [`output_len`].
pub(super) fn split<'a>(outputs: &'a mut Outputs, lens: &[(usize, usize)]) -> Vec<(&'a mut [f32], &'a [f32])> {
    let (mut logits, mut hidden) = (&mut outputs.logits[..], &outputs.hidden[..]);
    let take = |(n_logits, n_hidden): &(usize, usize)| {
        let (own, rest) = std::mem::take(&mut logits).split_at_mut(*n_logits);
        logits = rest;
        let (states, rest) = hidden.split_at(*n_hidden);
        hidden = rest;
        (own, states)
    };
    lens.iter().map(take).collect()
}
