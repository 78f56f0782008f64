//! One generation: which rows it needs computed next, which ids it samples from them, and whether to stop.

use super::Sequence;
use super::draft::Draft;
use super::form::{FEW_FORCED, Form};
use super::lookup::Lookup;
use super::pace::Pace;
use super::token::{Finish, Token};
use crate::error::Result;
use crate::grammar::Constraint;
use crate::machine::clock::Instant;
use crate::model::{CandidateThreshold, LogitsFor};
use crate::sampler::{Sampler, SamplingParams, Speculate, logprobs};
use crate::token::{TokenId, TokenSet};
use std::collections::VecDeque;
use std::time::Duration;

/// A generation in progress. It chooses ids; a [`Step`](super::Step) computes the logits.
#[derive(Default)]
pub struct Generation {
    /// The prompt's ids, then those generated.
    pub(super) ids: Vec<TokenId>,
    pub(super) prompt_len: usize,
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
    pub(super) rows: Vec<TokenId>,
    pub(super) rows_from: usize,
    /// How many of them are guessed: the last ones.
    n_guesses: usize,
    /// Guesses the next ids, if that was asked for.
    lookup: Option<Lookup>,
    /// The ids that it is said to have.
    pub(super) draft: Option<Draft>,
    /// The form that the answer has to have.
    pub(super) form: Option<Form>,
    /// Whether ids are chosen by [`Generation::choose_held`], after the caller has changed the logits.
    holds_logits: bool,
    /// The logits of the last step, until then.
    held: Vec<f32>,
    /// Sampled tokens that [`Generation::take`] has not handed out.
    pub(super) ready: VecDeque<Token>,
    /// Whether the first of them is the first of its step.
    pub(super) is_first: bool,
}

/// Gets the ids so far, prompt included, and changes the logits after them.
pub type ChangeLogits = dyn FnMut(&[TokenId], &mut [f32]) -> Result<()> + Send;

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

    /// The same with a form that the answer has to have, and with logits that the caller changes in each step
    /// (`holds_logits`).
    pub fn shaped(mut self, constraint: Option<Constraint>, holds_logits: bool) -> Generation {
        self.holds_logits = holds_logits;
        let most = self.forcible(self.prompt_len).saturating_sub(1);
        self.form = constraint.map(|constraint| Form::begin(constraint, most, &self.params));
        self
    }

    /// The next token that was sampled and not handed out; `None` if the next step has to be computed first.
    pub fn take(&mut self) -> Option<Token> {
        if self.finish.is_some() {
            return None;
        }
        let token = self.ready.pop_front()?;
        self.ids.push(token.id);
        self.finish = token.finish;
        if let Some(lookup) = self.lookup.as_mut().filter(|_| self.form.is_none()) {
            lookup.accepted += u64::from(!self.is_first); // with a form, those behind the first are forced
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

    pub(super) fn sampler(&self) -> Sampler<'_> {
        Sampler::new(&self.params, self.seed)
    }

    /// The ids that may be sampled next; `None` if all may.
    pub(super) fn allowed(&self) -> Option<&TokenSet> {
        self.form.as_ref()?.allowed()
    }

    /// The grammar of the answer.
    pub fn constraint(&self) -> Option<&Constraint> {
        self.form.as_ref().map(Form::constraint)
    }

    /// Whether the logits of each id are reported, or changed by the caller.
    fn sees_every_logit(&self) -> bool {
        self.params.logprobs.is_some() || self.holds_logits
    }

    /// How many ids a grammar may force after `len` ids: none if each needs its logits.
    pub(super) fn forcible(&self, len: usize) -> usize {
        let left = self.params.max_tokens.map_or(usize::MAX, |max| max.saturating_sub(len - self.prompt_len));
        if self.sees_every_logit() { 0 } else { left.min((self.n_ctx + 1).saturating_sub(len)) }
    }

    /// Decides what the next step computes after the `computed` positions of its sequence.
    pub(super) fn prepare(&mut self, computed: usize, guessing: Option<Guessing>) {
        self.rows = self.ids[computed.min(self.ids.len())..].to_vec();
        self.rows_from = computed;
        self.n_guesses = 0;
        let start = self.due_start();
        // An interrupted step may have computed some of these.
        let start = start[computed.saturating_sub(self.ids.len()).min(start.len())..].to_vec();
        self.rows.extend(start);
        if self.draft.is_some() {
            return self.plan_draft();
        }
        let left = self.params.max_tokens.map_or(usize::MAX, |max| max - self.generated().len());
        // Guesses know nothing of a grammar, nor of what the caller makes of the logits.
        let is_free = self.form.is_none() && !self.holds_logits;
        let decodes = self.rows.len() == 1 && !self.generated().is_empty() && is_free;
        if let (Some(lookup), Some(Guessing { rows, row_cost }), true) = (&mut self.lookup, guessing, decodes) {
            let most = (rows - 1).min(left - 1).min(self.n_ctx.saturating_sub(self.ids.len()));
            let guesses = lookup.guess(&self.ids, most, row_cost);
            self.n_guesses = guesses.len();
            self.rows.extend(guesses);
        }
    }

    /// Whether the step under way computes the last id, few that a grammar has forced before it, and what is guessed to
    /// follow, in `most` rows. After an error the sequence of a recurrent model goes back to an earlier state; then there
    /// are more.
    pub(super) fn decodes(&self, most: usize) -> bool {
        let forced = if self.form.is_some() { FEW_FORCED } else { 0 };
        let most = most.min(1 + forced + self.n_guesses);
        !self.has_draft() && !self.generated().is_empty() && self.rows.len() <= most
    }

    /// The ids that the step under way has still to compute after `computed` positions of its sequence.
    pub(super) fn pending(&self, computed: usize) -> &[TokenId] {
        &self.rows[computed - self.rows_from..]
    }

    /// How many positions its sequence keeps: those of all ids but the last one.
    pub(super) fn computed_len(&self) -> usize {
        // Logits that are held will give one. What an interrupted step has computed is not computed, and counted, again.
        let coming = self.ready.len().max(usize::from(!self.held.is_empty())).max(self.due_start().len());
        self.drafted_len(self.ids.len() + coming - 1)
    }

    /// The ids with which a grammar makes the answer begin, as long as it has not begun.
    pub(super) fn due_start(&self) -> &[TokenId] {
        if self.generated().is_empty() { self.start() } else { &[] }
    }

    /// For each row of the step that gives an id: what finds the candidates of the id by the bounds of their logits.
    /// Empty if the next `n` rows after `computed` positions give none, or if all logits are needed.
    pub(super) fn thresholds(&self, computed: usize, n: usize) -> Vec<Box<CandidateThreshold<'_>>> {
        if let Some(draft) = &self.draft {
            return self.draft_thresholds(draft, computed - self.rows_from);
        }
        let known = self.rows_from + self.rows.len() - self.n_guesses;
        if computed + n < known || self.holds_logits || self.sampler().needs_every_logit() {
            return Vec::new();
        }
        let guesses = &self.rows[self.rows.len() - self.n_guesses..];
        let threshold = |right: usize| -> Box<CandidateThreshold<'_>> {
            let known = [&self.ids, self.due_start(), &guesses[..right]].concat();
            Box::new(move |low: &mut [f32], high: &mut [f32]| {
                self.sampler().allowing(self.allowed()).bound(low, high, &known, self.prompt_len)
            })
        };
        (0..=self.n_guesses).map(threshold).collect()
    }

    /// The logits that the row `from_end` rows before the end of the step needs, counted from 1.
    pub(super) fn logits_for<'a>(
        &'a self,
        from_end: usize,
        thresholds: &'a [Box<CandidateThreshold<'a>>],
    ) -> LogitsFor<'a> {
        if let Some(draft) = &self.draft {
            return self.draft_logits(draft, self.rows.len() - from_end, thresholds);
        }
        if from_end > self.n_guesses + 1 {
            return LogitsFor::None;
        }
        let threshold = thresholds.len().checked_sub(from_end).map(|i| &*thresholds[i]);
        LogitsFor::chosen(self.allowed().filter(|_| !self.sees_every_logit()), threshold)
    }

    /// The ids with which a grammar makes every answer begin.
    fn start(&self) -> &[TokenId] {
        self.form.as_ref().map_or(&[], Form::start)
    }

    /// Samples the next ids: one from the logits after the last id, and one after each guess as long as guesses are
    /// right. A grammar may force more.
    pub(super) fn choose(&mut self, logits: &mut [f32], n_vocab: usize) -> Result<()> {
        if self.holds_logits {
            self.held = logits.to_vec();
            return Ok(());
        }
        let start = Instant::now();
        let chosen =
            if self.form.is_some() { self.choose_in_form(logits) } else { self.choose_freely(logits, n_vocab) };
        self.is_first = true;
        if let Some(lookup) = &mut self.lookup {
            lookup.learn(self.n_guesses, self.ready.len().saturating_sub(1));
        }
        self.times.sample_now = start.elapsed();
        self.times.sample += self.times.sample_now;
        chosen
    }

    /// Chooses an id from the logits of the last step, which `change` gets first, with all ids so far.
    pub fn choose_held(&mut self, change: &mut ChangeLogits) -> Result<()> {
        let mut logits = std::mem::take(&mut self.held);
        if logits.is_empty() {
            return Ok(());
        }
        change(&self.ids, &mut logits)?;
        self.holds_logits = false;
        let n_vocab = logits.len();
        let chosen = self.choose(&mut logits, n_vocab);
        self.holds_logits = true;
        chosen
    }

    fn choose_freely(&mut self, logits: &mut [f32], n_vocab: usize) -> Result<()> {
        let mut known = self.ids.clone();
        for (i, logits) in logits.chunks_mut(n_vocab).enumerate() {
            match self.sample(logits, &known, None) {
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
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Samples the next id of an answer that has a form, and adds those that the form puts before and behind it.
    fn choose_in_form(&mut self, logits: &mut [f32]) -> Result<()> {
        self.form.as_ref().map_or(Ok(()), Form::check)?;
        let start = self.due_start().to_vec();
        let known = [&self.ids[..], &start].concat();
        let token = self.sample(logits, &known, self.allowed())?;
        self.ready.extend(start.into_iter().map(|id| Token::text(id, None)));
        self.follow(token, known.len() + 1);
        Ok(())
    }

    /// Adds a sampled id, the last of `len` ids, and those that the form puts behind it.
    pub(super) fn follow(&mut self, token: Token, len: usize) {
        let forced = if token.is_text { self.read(token.id, len, token.finish) } else { Vec::new() };
        self.push(token, &forced, len);
        if self.form.as_ref().is_some_and(Form::is_complete) {
            self.ready.back_mut().expect("the id that was sampled").finish = Some(Finish::Stop);
        }
    }

    /// The form reads the last of `len` ids, with which the answer ends if `finish` says so. Returns the ids that it
    /// forces behind it.
    pub(super) fn read(&mut self, id: TokenId, len: usize, finish: Option<Finish>) -> Vec<TokenId> {
        let most = if finish.is_none() { self.forcible(len) } else { 0 };
        self.form.as_mut().map(|form| form.read(id, most, &self.params)).unwrap_or_default()
    }

    /// Adds the last of `len` ids, and those that were forced behind it.
    pub(super) fn push(&mut self, token: Token, forced: &[TokenId], len: usize) {
        self.ready.push_back(token);
        for (id, len) in forced.iter().zip(len + 1..) {
            self.ready.push_back(Token::text(*id, self.finish_after(len)));
        }
    }

    /// Samples the id that follows `known`, and decides whether the generation ends with it.
    pub(super) fn sample(&self, logits: &mut [f32], known: &[TokenId], allowed: Option<&TokenSet>) -> Result<Token> {
        let raw = self.params.logprobs.map(|_| logits.to_vec());
        let id = self.sampler().allowing(allowed).pick(logits, known, self.prompt_len)?;
        let logprobs = raw.zip(self.params.logprobs).map(|(raw, k)| logprobs(&raw, id, k));
        let stops = self.stop_ids.contains(&id);
        let finish = if stops { Some(Finish::Stop) } else { self.finish_after(known.len() + 1) };
        Ok(Token { id, is_text: !stops, logprobs, finish })
    }

    /// Whether the generation ends with `len` ids in all.
    pub(super) fn finish_after(&self, len: usize) -> Option<Finish> {
        if Some(len - self.prompt_len) == self.params.max_tokens {
            Some(Finish::Length)
        } else if len > self.n_ctx {
            Some(Finish::Context)
        } else {
            None
        }
    }

    /// Counts the time of a step: `spent` from when it was asked for to the end of its last pass.
    pub(super) fn count(&mut self, spent: Duration) {
        let spent = spent.saturating_sub(std::mem::take(&mut self.times.sample_now));
        if self.generated().is_empty() {
            self.times.prefill += spent;
        } else if !self.ready.is_empty() || !self.held.is_empty() {
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
