//! One generation: compute the next position, sample an id, decide whether to stop.

use super::{Runtime, Sequence, Watch};
use crate::error::Result;
use crate::model::{CandidateThreshold, LogitsFor, Row};
use crate::sampler::{Sampler, SamplingParams, logprobs};
use crate::token::TokenId;
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

/// A generation in progress. Every step is given the sequence that it belongs to.
pub struct Generation {
    /// The prompt's ids, then those generated.
    ids: Vec<TokenId>,
    prompt_len: usize,
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
}

/// Where the time of a generation went.
#[derive(Default)]
pub struct Times {
    /// Computing those positions of the prompt that the cache did not hold.
    pub prefill: Duration,
    /// Computing each position after the prompt, in nanoseconds.
    pub steps: Vec<u64>,
    /// Choosing ids from logits, over all steps.
    pub sample: Duration,
}

impl Generation {
    /// Starts a generation from `prompt`, which holds at least one id, without computing anything yet. `sequence` keeps
    /// the positions that it shares with the prompt and drops the others. `stop_ids` end the answer.
    pub fn begin(
        sequence: &mut Sequence,
        prompt: Vec<TokenId>,
        params: SamplingParams,
        seed: u64,
        stop_ids: Vec<TokenId>,
    ) -> Generation {
        let cached_tokens = sequence.keep_prefix(&prompt[..prompt.len() - 1]);
        sequence.keep_states_for(&prompt, &[]);
        sequence.cache.reset_work();
        Generation {
            prompt_len: prompt.len(),
            ids: prompt,
            cached_tokens,
            params,
            seed,
            stop_ids,
            finish: None,
            times: Times::default(),
        }
    }

    /// Computes and samples the next id; `None` once the generation has ended. After an error it can be called again.
    pub fn next(&mut self, runtime: &Runtime, sequence: &mut Sequence, watch: &mut Watch) -> Result<Option<Token>> {
        if self.finish.is_some() {
            return Ok(None);
        }
        let mut times = std::mem::take(&mut self.times);
        let computed = {
            let threshold = self.threshold();
            self.compute(runtime, sequence, self.logits_for(&threshold), watch, &mut times)
        };
        self.times = times;
        let token = self.sample(runtime, &mut computed?);
        // Without an id the last position is computed again by the next call.
        token.map(Some).inspect_err(|_| {
            sequence.truncate(self.ids.len() - 1);
        })
    }

    fn sampler(&self) -> Sampler<'_> {
        Sampler::new(&self.params, self.seed)
    }

    /// Finds the candidates of the next id by the bounds of their logits.
    fn threshold(&self) -> impl Fn(&mut [f32], &mut [f32]) -> Option<f32> + Sync {
        |low, high| self.sampler().bound(low, high, &self.ids, self.prompt_len)
    }

    /// Which logits the sampler needs for the next id.
    fn logits_for<'a>(&self, threshold: &'a CandidateThreshold) -> LogitsFor<'a> {
        if self.sampler().needs_every_logit() { LogitsFor::All } else { LogitsFor::Candidates(threshold) }
    }

    /// Samples one id from the logits after the last, and decides whether the generation ends with it.
    fn sample(&mut self, runtime: &Runtime, logits: &mut [f32]) -> Result<Token> {
        let start = Instant::now();
        let raw = self.params.logprobs.map(|_| logits.to_vec());
        let id = self.sampler().pick(logits, &self.ids, self.prompt_len)?;
        let logprobs = raw.zip(self.params.logprobs).map(|(raw, k)| logprobs(&raw, id, k));
        self.times.sample += start.elapsed();
        self.ids.push(id);
        self.finish = if self.stop_ids.contains(&id) {
            Some(Finish::Stop)
        } else if Some(self.generated().len()) == self.params.max_tokens {
            Some(Finish::Length)
        } else if self.ids.len() > runtime.n_ctx {
            Some(Finish::Context)
        } else {
            None
        };
        Ok(Token { id, logprobs, finish: self.finish })
    }

    /// Computes the logits after the last id. A prompt is computed in chunks; abandoning one keeps the chunks
    /// before it.
    fn compute(
        &self,
        runtime: &Runtime,
        sequence: &mut Sequence,
        logits: LogitsFor,
        watch: &mut Watch,
        times: &mut Times,
    ) -> Result<Vec<f32>> {
        loop {
            let start = Instant::now();
            let pending = &self.ids[sequence.ids().len()..];
            let chunk = &pending[..pending.len().min(runtime.n_batch)];
            let last = chunk.len() == pending.len();
            let logits_for = if last { logits } else { LogitsFor::None };
            let logits = runtime.prefill(sequence, chunk, logits_for, watch)?;
            if self.ids.len() == self.prompt_len {
                times.prefill += start.elapsed();
            } else {
                times.steps.push(start.elapsed().as_nanos() as u64);
            }
            if last {
                return Ok(logits);
            }
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

/// Runs generations to their end together, each on its own sequence: each pass computes the next position of all that
/// have not ended.
pub fn complete_all(
    runtime: &Runtime,
    generations: &mut [Generation],
    sequences: &mut [Sequence],
    watch: &mut Watch,
) -> Result<()> {
    let mut sequences: Vec<&mut Sequence> = sequences.iter_mut().collect();
    loop {
        let live: Vec<usize> = (0..generations.len()).filter(|i| generations[*i].finish.is_none()).collect();
        if live.is_empty() {
            return Ok(());
        }
        let mut logits = compute_all(runtime, generations, &live, &mut sequences, watch)?;
        for (i, logits) in live.into_iter().zip(logits.chunks_mut(runtime.model.config().vocab_size)) {
            generations[i].sample(runtime, logits)?;
        }
    }
}

/// Computes the logits after the last ids of the `live` generations, one after the other.
fn compute_all(
    runtime: &Runtime,
    generations: &[Generation],
    live: &[usize],
    sequences: &mut [&mut Sequence],
    watch: &mut Watch,
) -> Result<Vec<f32>> {
    let thresholds: Vec<_> = live.iter().map(|i| generations[*i].threshold()).collect();
    let mut rows = Vec::new();
    for (i, threshold) in live.iter().zip(&thresholds) {
        let pending = &generations[*i].ids[sequences[*i].ids().len()..];
        rows.extend(pending.iter().map(|id| Row { sequence: *i, id: *id, logits: LogitsFor::None }));
        rows.last_mut().expect("the last id is never in the cache").logits = generations[*i].logits_for(threshold);
    }
    runtime.advance(sequences, &rows, watch)
}
