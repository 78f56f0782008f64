//! One answer as it grows: sample, stop, compute the next position.

use super::{Runtime, Sequence, Step, Watch};
use crate::error::Result;
use crate::model::{CandidateThreshold, LogitsFor};
use crate::sampler::{Sampler, SamplingParams, logprobs};
use std::time::{Duration, Instant};

named! {
    /// Why an answer ended.
    pub enum Finish {
        /// A stop id or a stop text.
        Stop = "stop",
        /// `max_tokens` were generated.
        Length = "length",
        /// The context is full.
        Context = "context",
        /// Its consumer ended it.
        Cancelled = "cancelled",
    }
}

/// A generated id.
pub struct Token {
    /// The id; if `finish` is [`Finish::Stop`], the stop id, which is not part of the text.
    pub id: u32,
    /// If asked for: its own log-probability, and the best ids with theirs.
    pub logprobs: Option<(f64, Vec<(u32, f64)>)>,
    /// Why the answer ends with it, if it does.
    pub finish: Option<Finish>,
}

/// An answer under way. The sequence that computes it is passed to each step.
pub struct Generation {
    ids: Vec<u32>,
    prompt: usize,
    /// Positions of the prompt that the cache held.
    pub cached: usize,
    /// How it samples.
    pub params: SamplingParams,
    /// The seed of its draws.
    pub seed: u64,
    /// The ids that end it.
    pub stop: Vec<u32>,
    /// Why it ended, if it has.
    pub finish: Option<Finish>,
    /// The time spent on it.
    pub times: Times,
}

/// Time spent on an answer.
#[derive(Default)]
pub struct Times {
    /// Computing what the cache did not hold of the prompt.
    pub prefill: Duration,
    /// Computing each later position, in nanoseconds.
    pub steps: Vec<u64>,
    /// Choosing ids.
    pub sample: Duration,
}

impl Generation {
    /// Begins to answer `prompt`, which holds at least one id: what `sequence` holds of it is kept, the rest forgotten.
    /// Nothing is computed yet.
    ///
    /// `stop` are the ids that end the answer.
    pub fn begin(
        sequence: &mut Sequence,
        prompt: Vec<u32>,
        params: SamplingParams,
        seed: u64,
        stop: Vec<u32>,
    ) -> Generation {
        let cached = sequence.keep_prefix(&prompt[..prompt.len() - 1]);
        sequence.cache.count_anew();
        Generation {
            prompt: prompt.len(),
            ids: prompt,
            cached,
            params,
            seed,
            stop,
            finish: None,
            times: Times::default(),
        }
    }

    /// Computes and samples one id; nothing once the answer has ended. After an error it can be called again.
    pub fn next(&mut self, runtime: &Runtime, sequence: &mut Sequence, watch: &mut Watch) -> Result<Option<Token>> {
        if self.finish.is_some() {
            return Ok(None);
        }
        let mut times = std::mem::take(&mut self.times);
        let computed = {
            let likely = self.likely();
            self.compute(runtime, sequence, self.wanted(&likely), watch, &mut times)
        };
        self.times = times;
        Ok(Some(self.sample(runtime, &mut computed?)))
    }

    fn sampler(&self) -> Sampler<'_> {
        Sampler::new(&self.params, self.seed)
    }

    /// Says by bounds of the logits which of them the next choice can fall on.
    fn likely(&self) -> impl Fn(&mut [f32], &mut [f32]) -> Option<f32> + Sync {
        |low, high| self.sampler().bound(low, high, &self.ids, self.prompt)
    }

    /// The logits that the next choice needs: all of them, or those that are `likely`.
    fn wanted<'a>(&self, likely: &'a CandidateThreshold) -> LogitsFor<'a> {
        if self.sampler().needs_every_logit() { LogitsFor::All } else { LogitsFor::Candidates(likely) }
    }

    /// Samples one id by the logits after the last, and decides whether the answer ends with it.
    fn sample(&mut self, runtime: &Runtime, logits: &mut [f32]) -> Token {
        let start = Instant::now();
        let raw = self.params.logprobs.map(|_| logits.to_vec());
        let id = self.sampler().pick(logits, &self.ids, self.prompt);
        let logprobs = raw.zip(self.params.logprobs).map(|(raw, k)| logprobs(&raw, id, k));
        self.times.sample += start.elapsed();
        self.ids.push(id);
        self.finish = if self.stop.contains(&id) {
            Some(Finish::Stop)
        } else if Some(self.generated().len()) == self.params.max_tokens {
            Some(Finish::Length)
        } else if self.ids.len() > runtime.n_ctx {
            Some(Finish::Context)
        } else {
            None
        };
        Token { id, logprobs, finish: self.finish }
    }

    /// The logits after the last id. A prompt goes in chunk by chunk: one that is abandoned keeps what came before.
    fn compute(
        &self,
        runtime: &Runtime,
        sequence: &mut Sequence,
        wanted: LogitsFor,
        watch: &mut Watch,
        times: &mut Times,
    ) -> Result<Vec<f32>> {
        loop {
            let start = Instant::now();
            let pending = &self.ids[sequence.ids().len()..];
            let chunk = &pending[..pending.len().min(runtime.n_batch)];
            let last = chunk.len() == pending.len();
            let logits = runtime.prefill(sequence, chunk, if last { wanted } else { LogitsFor::None }, watch)?;
            match self.ids.len() == self.prompt {
                true => times.prefill += start.elapsed(),
                false => times.steps.push(start.elapsed().as_nanos() as u64),
            }
            if last {
                return Ok(logits);
            }
        }
    }

    /// The prompt's ids.
    pub fn prompt(&self) -> &[u32] {
        &self.ids[..self.prompt]
    }

    /// The ids sampled so far, a stop id included.
    pub fn generated(&self) -> &[u32] {
        &self.ids[self.prompt..]
    }

    /// The ids of the answer: those sampled, less a stop id.
    pub fn answered(&self) -> &[u32] {
        let all = self.generated();
        match all.split_last() {
            Some((last, before)) if self.stop.contains(last) => before,
            _ => all,
        }
    }
}

/// Completes answers together, each on its own sequence: every pass computes the next position of all that go on.
pub fn complete_all(
    runtime: &Runtime,
    answers: &mut [Generation],
    sequences: &mut [Sequence],
    watch: &mut Watch,
) -> Result<()> {
    let mut sequences: Vec<&mut Sequence> = sequences.iter_mut().collect();
    loop {
        let live: Vec<usize> = (0..answers.len()).filter(|i| answers[*i].finish.is_none()).collect();
        if live.is_empty() {
            return Ok(());
        }
        let mut logits = compute_all(runtime, answers, &live, &mut sequences, watch)?;
        for (i, logits) in live.into_iter().zip(logits.chunks_mut(runtime.model.config().vocab_size)) {
            answers[i].sample(runtime, logits);
        }
    }
}

/// The logits after the last ids of some of the answers, one after the other.
fn compute_all(
    runtime: &Runtime,
    answers: &[Generation],
    some: &[usize],
    sequences: &mut [&mut Sequence],
    watch: &mut Watch,
) -> Result<Vec<f32>> {
    let likely: Vec<_> = some.iter().map(|i| answers[*i].likely()).collect();
    let mut steps = Vec::new();
    for (i, likely) in some.iter().zip(&likely) {
        let pending = &answers[*i].ids[sequences[*i].ids().len()..];
        steps.extend(pending.iter().map(|id| Step { sequence: *i, id: *id, logits: LogitsFor::None }));
        steps.last_mut().expect("the last id was never computed").logits = answers[*i].wanted(likely);
    }
    runtime.advance(sequences, &steps, watch)
}
