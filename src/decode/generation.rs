//! One generation: which rows it needs computed next, which ids it samples from them, and whether to stop.

use super::Sequence;
use super::lookup::Lookup;
use super::pace::Pace;
use crate::error::Result;
use crate::model::{CandidateThreshold, LogitsFor};
use crate::sampler::{Sampler, SamplingParams, Speculate, logprobs};
use crate::token::TokenId;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

named! {
    /// Why a generation ended.
    pub enum Finish {
        /// A stop id or a stop string was generated.
        Stop = "stop",
        /// `max_tokens` ids were generated.
        Length = "length",
        /// The sequence fills the context.
        Context = "context",
        /// The caller cancelled it before it had ended.
        Cancelled = "cancelled",
    }
}

/// One generated id and what was requested about it.
pub struct Token {
    /// The id. If `finish` is [`Finish::Stop`] it is the stop id, which is not part of the text.
    pub id: TokenId,
    /// If requested: its log-probability, and the most likely ids with theirs.
    pub logprobs: Option<(f64, Vec<(TokenId, f64)>)>,
    /// Why the generation ends with this id, if it does.
    pub finish: Option<Finish>,
}

/// A generation in progress. It chooses ids; a [`Step`](super::Step) computes the logits.
#[derive(Default)]
pub struct Generation {
    /// The prompt's ids, then those generated.
    ids: Vec<TokenId>,
    prompt_len: usize,
    /// The most ids that its sequence can hold.
    n_ctx: usize,
    /// How many positions of the prompt the cache held.
    pub cached_tokens: usize,
    /// The sampling parameters of every id.
    pub params: SamplingParams,
    /// The seed of its random draws.
    pub seed: u64,
    /// Ids that end the answer, the model's own included.
    pub stop_ids: Vec<TokenId>,
    /// Why it ended; `None` while it goes on.
    pub finish: Option<Finish>,
    /// The time spent on it.
    pub times: Times,
    /// How quickly it comes back after a step.
    pub(super) pace: Pace,
    /// The ids that the step under way computes: those after `rows_from` positions.
    rows: Vec<TokenId>,
    rows_from: usize,
    /// How many of them are guessed: the last ones.
    n_guesses: usize,
    /// Guesses the next ids, if that was asked for.
    lookup: Option<Lookup>,
    /// Sampled tokens that [`Generation::take`] has not handed out.
    ready: VecDeque<Token>,
    /// Whether the first of them is the first of its step.
    is_first: bool,
}

/// How many ids a step may guess, and what they cost.
#[derive(Clone, Copy)]
pub struct Guessing {
    /// The most rows of a step.
    pub rows: usize,
    /// The cost of a row, in times of a plain step.
    pub row_cost: f64,
}

/// Where the time of a generation went.
#[derive(Default)]
pub struct Times {
    /// Computing those positions of the prompt that the cache did not hold, waiting for the engine included.
    pub prefill: Duration,
    /// Computing the positions of each step after the prompt, in nanoseconds, waiting for the engine included.
    pub steps: Vec<u64>,
    /// Choosing ids from logits, over all steps.
    pub sample: Duration,
    /// Choosing the ids of the step under way.
    sample_now: Duration,
}

impl Generation {
    /// Starts a generation from `prompt`, which holds at least one id, without computing anything yet. `sequence` keeps
    /// the positions that it shares with the prompt and drops the others. `stop_ids` end the answer, and so does the
    /// end of a context of `n_ctx` positions.
    pub fn begin(
        sequence: &mut Sequence,
        prompt: Vec<TokenId>,
        n_ctx: usize,
        params: SamplingParams,
        seed: u64,
        stop_ids: Vec<TokenId>,
    ) -> Generation {
        let cached_tokens = sequence.keep_prefix(&prompt[..prompt.len() - 1]);
        sequence.keep_states_for(&prompt, &[]);
        sequence.reset_work();
        let prompt_len = prompt.len();
        let lookup = params.speculate.map(|Speculate::Lookup| Lookup::default());
        Generation {
            ids: prompt,
            prompt_len,
            n_ctx,
            cached_tokens,
            params,
            seed,
            stop_ids,
            pace: Pace::new(),
            lookup,
            ..Generation::default()
        }
    }

    /// The next token that was sampled and not handed out; `None` if the next step has to be computed first.
    pub fn take(&mut self) -> Option<Token> {
        if self.finish.is_some() {
            return None;
        }
        let token = self.ready.pop_front()?;
        self.ids.push(token.id);
        self.finish = token.finish;
        if let Some(lookup) = &mut self.lookup {
            lookup.accepted += u64::from(!self.is_first);
        }
        self.is_first = false;
        Some(token)
    }

    /// Whether a step was computed of which no token was handed out.
    pub fn has_unseen_step(&self) -> bool {
        self.is_first && !self.ready.is_empty()
    }

    /// How many ids were guessed and computed, and how many came without a step of their own; `None` if none were asked
    /// for.
    pub fn guesses(&self) -> Option<(u64, u64)> {
        self.lookup.as_ref().map(|lookup| (lookup.proposed, lookup.accepted))
    }

    /// Whether [`Generation::take`] has nothing to hand out before another step.
    pub fn needs_step(&self) -> bool {
        self.ready.is_empty() && self.finish.is_none()
    }

    /// Whether the tokens that were sampled end it.
    pub(super) fn is_ending(&self) -> bool {
        self.ready.back().is_some_and(|token| token.finish.is_some())
    }

    fn sampler(&self) -> Sampler<'_> {
        Sampler::new(&self.params, self.seed)
    }

    /// Decides what the next step computes after the `computed` positions of its sequence.
    pub(super) fn prepare(&mut self, computed: usize, guessing: Option<Guessing>) {
        self.rows = self.ids[computed..].to_vec();
        self.rows_from = computed;
        self.n_guesses = 0;
        let left = self.params.max_tokens.map_or(usize::MAX, |max| max - self.generated().len());
        let decodes = self.rows.len() == 1 && !self.generated().is_empty();
        if let (Some(lookup), Some(Guessing { rows, row_cost }), true) = (&mut self.lookup, guessing, decodes) {
            let most = (rows - 1).min(left - 1).min(self.n_ctx.saturating_sub(self.ids.len()));
            let guesses = lookup.guess(&self.ids, most, row_cost);
            self.n_guesses = guesses.len();
            self.rows.extend(guesses);
        }
    }

    /// Whether the step under way computes the last id alone, and what is guessed to follow. After an error the sequence of
    /// a recurrent model goes back to an earlier state; then there are more.
    pub(super) fn decodes(&self) -> bool {
        !self.generated().is_empty() && self.rows.len() == 1 + self.n_guesses
    }

    /// The ids that the step under way has still to compute after `computed` positions of its sequence.
    pub(super) fn pending(&self, computed: usize) -> &[TokenId] {
        &self.rows[computed - self.rows_from..]
    }

    /// How many positions its sequence keeps: those of all ids but the last one.
    pub(super) fn computed_len(&self) -> usize {
        self.ids.len() + self.ready.len() - 1
    }

    /// For each row of the step that gives an id: what finds the candidates of the id by the bounds of their logits.
    /// Empty if the next `n` rows after `computed` positions give none, or if all logits are needed.
    pub(super) fn thresholds(&self, computed: usize, n: usize) -> Vec<Box<CandidateThreshold<'_>>> {
        if computed + n < self.ids.len() || self.sampler().needs_every_logit() {
            return Vec::new();
        }
        let guesses = &self.rows[self.rows.len() - self.n_guesses..];
        let threshold = |right: usize| -> Box<CandidateThreshold<'_>> {
            let known = [&self.ids, &guesses[..right]].concat();
            Box::new(move |low: &mut [f32], high: &mut [f32]| self.sampler().bound(low, high, &known, self.prompt_len))
        };
        (0..=self.n_guesses).map(threshold).collect()
    }

    /// The logits that the row `from_end` rows before the end of the step needs, counted from 1.
    pub(super) fn logits_for<'a>(
        &self,
        from_end: usize,
        thresholds: &'a [Box<CandidateThreshold<'a>>],
    ) -> LogitsFor<'a> {
        if from_end > self.n_guesses + 1 {
            return LogitsFor::None;
        }
        thresholds.len().checked_sub(from_end).map_or(LogitsFor::All, |i| LogitsFor::Candidates(&thresholds[i]))
    }

    /// Samples the next ids: one from the logits after the last id, and one after each guess as long as guesses are
    /// right.
    pub(super) fn choose(&mut self, logits: &mut [f32], n_vocab: usize) -> Result<()> {
        let start = Instant::now();
        let mut known = self.ids.clone();
        let mut chosen = Ok(());
        for (i, logits) in logits.chunks_mut(n_vocab).enumerate() {
            match self.sample(logits, &known) {
                Ok(token) => {
                    let (id, ends) = (token.id, token.finish.is_some());
                    self.ready.push_back(token);
                    known.push(id);
                    let guess = self.rows.get(self.rows.len() - self.n_guesses + i);
                    if ends || guess != Some(&id) {
                        break;
                    }
                }
                // Ids before it stay; the next step comes to this one again.
                Err(_) if i > 0 => break,
                Err(error) => chosen = Err(error),
            }
        }
        self.is_first = true;
        if let Some(lookup) = &mut self.lookup {
            lookup.learn(self.n_guesses, self.ready.len().saturating_sub(1));
        }
        self.times.sample_now = start.elapsed();
        self.times.sample += self.times.sample_now;
        chosen
    }

    /// Samples the id that follows `known`, and decides whether the generation ends with it.
    fn sample(&self, logits: &mut [f32], known: &[TokenId]) -> Result<Token> {
        let raw = self.params.logprobs.map(|_| logits.to_vec());
        let id = self.sampler().pick(logits, known, self.prompt_len)?;
        let logprobs = raw.zip(self.params.logprobs).map(|(raw, k)| logprobs(&raw, id, k));
        let len = known.len() + 1;
        let finish = if self.stop_ids.contains(&id) {
            Some(Finish::Stop)
        } else if Some(len - self.prompt_len) == self.params.max_tokens {
            Some(Finish::Length)
        } else if len > self.n_ctx {
            Some(Finish::Context)
        } else {
            None
        };
        Ok(Token { id, logprobs, finish })
    }

    /// Counts the time of a step: `spent` from when it was asked for to the end of its last pass.
    pub(super) fn count(&mut self, spent: Duration) {
        let spent = spent.saturating_sub(std::mem::take(&mut self.times.sample_now));
        if self.generated().is_empty() {
            self.times.prefill += spent;
        } else if !self.ready.is_empty() {
            self.times.steps.push(spent.as_nanos() as u64);
        }
    }

    /// The prompt's ids, BOS included if it has one.
    pub fn prompt(&self) -> &[TokenId] {
        &self.ids[..self.prompt_len]
    }

    /// The ids sampled so far, a stop id included.
    pub fn generated(&self) -> &[TokenId] {
        &self.ids[self.prompt_len..]
    }

    /// The ids sampled so far, without a stop id at the end.
    pub fn output_ids(&self) -> &[TokenId] {
        let all = self.generated();
        match all.split_last() {
            Some((last, before)) if self.stop_ids.contains(last) => before,
            _ => all,
        }
    }
}
