//! How likely the model finds given tokens: log-probabilities, scores of continuations, perplexity.

use super::{Engine, TokenScore, Watch};
use crate::decode::{Extension, Likelihood, Output, Sequence, Step, Steps, Task};
use crate::error::{Error, Result};
use crate::token::TokenId;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// How likely a continuation is.
#[derive(Clone, Debug, PartialEq)]
pub struct ContinuationScore {
    /// The score of each of its tokens.
    pub tokens: Vec<TokenScore>,
}

impl ContinuationScore {
    /// The sum of the tokens' log-probabilities, taken in float64 in the order of the tokens.
    pub fn logprob(&self) -> f32 {
        sum_logprobs(0.0, &self.tokens) as f32
    }

    /// Whether greedy sampling would give exactly these tokens.
    pub fn is_greedy(&self) -> bool {
        self.tokens.iter().all(|token| token.is_greedy)
    }
}

/// A context and what may follow it, for [`Engine::score`].
#[derive(Clone)]
pub struct Question {
    /// The ids before each continuation.
    pub context: Vec<TokenId>,
    /// The ids of each continuation.
    pub continuations: Vec<Vec<TokenId>>,
}

/// The result of [`Engine::score`] for one question.
#[derive(Clone, Default)]
pub struct Scores {
    /// One score per continuation.
    pub continuations: Vec<ContinuationScore>,
    /// Positions that were computed: what the prefix cache does not hold of the context, once, and all tokens of each
    /// continuation but its last.
    pub computed_tokens: usize,
}

fn sum_logprobs(start: f64, scores: &[TokenScore]) -> f64 {
    scores.iter().fold(start, |sum, score| sum + score.logprob as f64)
}

impl Engine {
    /// The log-probability of every id of each sequence but the first.
    pub fn logprobs(&self, sequences: &[Vec<TokenId>], watch: &mut Watch) -> Result<Vec<Vec<f32>>> {
        sequences.iter().try_for_each(|ids| self.check_ids(ids, 0))?;
        let windows: Vec<Window> = sequences.iter().map(|ids| Window { ids, scored: 1..ids.len() }).collect();
        let logprobs = |scores: Vec<TokenScore>| scores.iter().map(|score| score.logprob).collect();
        Ok(self.score_windows(&windows, watch)?.into_iter().map(logprobs).collect())
    }

    /// The log-probability of every id but the first, and the `k` most likely ids in its place. The prefix cache keeps
    /// the ids but the last.
    pub fn likelihoods(&self, ids: &[TokenId], k: usize, watch: &mut Watch) -> Result<Vec<Likelihood>> {
        self.check_ids(ids, 0)?;
        let mut all = Vec::new();
        let before = &ids[..ids.len().saturating_sub(1)];
        let make = |_| {
            let output = Output::Likely { next: ids.iter().skip(1).copied().collect(), k, found: Vec::new() };
            Ok(Step::extend(self.new_sequence(), Extension::new(before.to_vec(), 0..before.len(), output)))
        };
        let take = |_, step: Step| {
            if let Task::Extend(Extension { output: Output::Likely { found, .. }, .. }) = step.task {
                all = found;
                self.keep(step.sequence);
            }
        };
        self.run_all(1, make, take, watch)?;
        Ok(all)
    }

    /// How likely each continuation of each question is after its context. Contexts are computed once, also across
    /// calls: the prefix cache keeps them.
    pub fn score(&self, questions: &[Question], watch: &mut Watch) -> Result<Vec<Scores>> {
        for (i, question) in questions.iter().enumerate() {
            let of_list = |error: Error| if questions.len() > 1 { error.at(format!("context[{i}]")) } else { error };
            self.check_question(question).map_err(of_list)?;
        }
        let mut all: Vec<Scores> = questions.iter().map(Scores::of).collect();
        let mut steps = Steps::new(&self.runtime);
        // The question of each step, and the continuation; none for the step of its context.
        let mut parts: Vec<(usize, Option<usize>)> = Vec::new();
        // Continuations whose context is computed. Each takes memory of its own once it is a step.
        let mut ready: VecDeque<(usize, usize, Arc<Sequence>)> = VecDeque::new();
        let mut next = 0;
        loop {
            while steps.len() < self.max_together() && steps.rows() < 2 * self.n_batch() {
                if let Some((i, continuation, context)) = ready.pop_front() {
                    let ids = &questions[i].continuations[continuation];
                    steps.add(parts.len(), continuation_step(&context, ids));
                    parts.push((i, Some(continuation)));
                } else if next < questions.len() {
                    steps.add(parts.len(), self.context_step(&questions[next]));
                    parts.push((next, None));
                    next += 1;
                } else {
                    break;
                }
            }
            if steps.is_empty() {
                return Ok(all);
            }
            for done in steps.wait(watch) {
                done.result?;
                let Step { sequence, task } = done.step;
                let Task::Extend(Extension { output: Output::Scores { scores: found, .. }, .. }) = task else {
                    unreachable!("only scores were added")
                };
                let (i, part) = parts[done.key];
                let (question, scores) = (&questions[i], &mut all[i]);
                scores.computed_tokens += self.positions(&sequence);
                if let Some(continuation) = part {
                    scores.continuations[continuation].tokens.extend(found.concat());
                    continue;
                }
                let firsts =
                    question.continuations.iter().zip(&mut scores.continuations).filter(|(ids, _)| !ids.is_empty());
                firsts.zip(found.concat()).for_each(|((_, score), first)| score.tokens.push(first));
                let context = Arc::new(sequence.clone());
                let longer = question.continuations.iter().enumerate().filter(|(_, ids)| ids.len() > 1);
                ready.extend(longer.map(|(continuation, _)| (i, continuation, context.clone())));
                self.keep(sequence);
            }
        }
    }

    fn check_question(&self, Question { context, continuations }: &Question) -> Result<()> {
        self.check_ids(context, 0)?;
        let Some(position) = context.len().checked_sub(1) else {
            return Err(Error::Argument("context is empty; give at least one token id".into()));
        };
        // The last id of a continuation is never computed, so it takes no position: hence one less.
        for (i, ids) in continuations.iter().enumerate() {
            self.check_ids(ids, position).map_err(|error| error.at(format!("continuations[{i}]")))?;
        }
        Ok(())
    }

    /// Positions that were computed for a sequence.
    fn positions(&self, sequence: &Sequence) -> usize {
        sequence.work().attention as usize / self.config().n_layers
    }

    /// Computes a context, and scores the first id of each continuation.
    fn context_step(&self, Question { context, continuations }: &Question) -> Step {
        let mut sequence = self.sequence_for(&context[..context.len() - 1], None);
        let cached = sequence.keep_prefix(&context[..context.len() - 1]);
        sequence.keep_states_for(context, &[]);
        sequence.reset_work();
        let rest = context[cached..].to_vec();
        let firsts = continuations.iter().filter_map(|ids| ids.first().copied()).collect();
        let last = rest.len() - 1..rest.len();
        Step::extend(sequence, Extension::new(rest, last, Output::Scores { next: vec![firsts], scores: Vec::new() }))
    }

    /// Encodes a context and its continuations so that the ids of both, joined, are those of the whole text.
    ///
    /// Spaces at the end of the context go to the continuations, because vocabularies hold words with the space before
    /// them.
    pub fn encode_continuations(
        &self,
        context: &str,
        continuations: &[String],
        watch: &mut Watch,
    ) -> Result<(Vec<TokenId>, Vec<Vec<TokenId>>)> {
        let context_ids = self.ids_of(context.trim_end().into(), watch)?;
        let rest = |(i, text): (usize, &String)| {
            let whole = self.ids_of(format!("{context}{text}").as_str().into(), watch)?;
            match whole.get(context_ids.len()..) {
                Some(rest) if !rest.is_empty() || text.is_empty() => Ok(rest.to_vec()),
                _ => Err(Error::Argument(format!(
                    "continuations[{i}]: {text:?} adds no token of its own to the context; give ids instead of texts"
                ))),
            }
        };
        let rest = continuations.iter().enumerate().map(rest).collect::<Result<_>>()?;
        Ok((context_ids, rest))
    }

    /// The perplexity of each sequence, of any length: e to the power of the mean negative log-probability of its ids. An
    /// error names the index of the sequence.
    ///
    /// Windows of `n_ctx` positions advance by `stride` (default: half of `n_ctx`). Each id counts once, in the first
    /// window that reaches it, given all ids before it in that window (the sliding window of Hugging Face's guide
    /// "Perplexity of fixed-length models").
    pub fn perplexity(
        &self,
        sequences: &[Vec<TokenId>],
        stride: Option<usize>,
        watch: &mut Watch,
    ) -> std::result::Result<Vec<f64>, (Option<usize>, Error)> {
        let stride = self.stride(stride).map_err(|error| (None, error))?;
        let (mut windows, mut owners) = (Vec::new(), Vec::new());
        for (i, ids) in sequences.iter().enumerate() {
            self.runtime.check_vocabulary(ids).map_err(|error| (Some(i), error))?;
            if ids.len() < 2 {
                let found = ids.len();
                let error = Error::Argument(format!("perplexity needs at least two tokens; the text has {found}"));
                return Err((Some(i), error));
            }
            let own = windows_of(ids, self.n_ctx(), stride);
            owners.extend(std::iter::repeat_n(i, own.len()));
            windows.extend(own);
        }
        let scores = self.score_windows(&windows, watch).map_err(|error| (None, error))?;
        let mut sums = vec![(0f64, 0usize); sequences.len()];
        for (owner, scores) in owners.into_iter().zip(scores) {
            let (sum, count) = &mut sums[owner];
            *sum = sum_logprobs(*sum, &scores);
            *count += scores.len();
        }
        Ok(sums.into_iter().map(|(sum, count)| libm::exp(-sum / count as f64)).collect())
    }

    fn stride(&self, stride: Option<usize>) -> Result<usize> {
        let n_ctx = self.n_ctx();
        let stride = stride.unwrap_or(n_ctx.div_ceil(2));
        if stride == 0 || stride > n_ctx {
            return Err(Error::Argument(format!("stride is {stride}, expected 1 to n_ctx, which is {n_ctx}")));
        }
        Ok(stride)
    }

    /// The scores of some ids of each window.
    fn score_windows(&self, windows: &[Window], watch: &mut Watch) -> Result<Vec<Vec<TokenScore>>> {
        let mut all = vec![Vec::new(); windows.len()];
        let make = |i: usize| {
            let Window { ids, scored } = &windows[i];
            // The last id is never computed.
            let before = ids[..ids.len().saturating_sub(1)].to_vec();
            let next = ids[scored.start.min(ids.len())..].iter().map(|id| vec![*id]).collect();
            let output = Output::Scores { next, scores: Vec::new() };
            let wanted = scored.start.saturating_sub(1)..before.len();
            Ok(Step::extend(self.new_sequence(), Extension::new(before, wanted, output)))
        };
        let take = |i: usize, step: Step| {
            if let Task::Extend(Extension { output: Output::Scores { scores, .. }, .. }) = step.task {
                all[i] = scores.concat();
            }
        };
        self.run_all(windows.len(), make, take, watch)?;
        Ok(all)
    }
}

/// A sequence, and those of its ids that are scored; the first id has nothing before it.
struct Window<'a> {
    ids: &'a [TokenId],
    scored: Range<usize>,
}

/// Cuts a sequence into windows of `n_ctx` ids, each `stride` further on; each scores the ids that those before it have
/// not reached.
fn windows_of(ids: &[TokenId], n_ctx: usize, stride: usize) -> Vec<Window<'_>> {
    let (mut windows, mut seen) = (Vec::new(), 0);
    for begin in (0..ids.len()).step_by(stride) {
        let end = (begin + n_ctx).min(ids.len());
        windows.push(Window { ids: &ids[begin..end], scored: seen.max(begin + 1) - begin..end - begin });
        seen = end;
        if end == ids.len() {
            break;
        }
    }
    windows
}

impl Scores {
    /// The scores of a question before any is known.
    fn of(question: &Question) -> Scores {
        let continuations = question.continuations.iter().map(|_| ContinuationScore { tokens: Vec::new() }).collect();
        Scores { continuations, computed_tokens: 0 }
    }
}

/// Computes a continuation, and scores its ids but the first.
fn continuation_step(context: &Sequence, ids: &[TokenId]) -> Step {
    let mut sequence = context.clone();
    sequence.reset_work();
    let before = ids[..ids.len() - 1].to_vec();
    let next = ids[1..].iter().map(|id| vec![*id]).collect();
    let wanted = 0..before.len();
    Step::extend(sequence, Extension::new(before, wanted, Output::Scores { next, scores: Vec::new() }))
}
