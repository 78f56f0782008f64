//! Ids in, logits and ids out.

use super::{Engine, Request, Watch};
use crate::decode::{Extension, Generation, Output, Sequence, Step, Steps, Task};
use crate::error::Result;
use crate::machine::clock::Instant;
use crate::machine::memory::try_with_capacity;
use crate::receipt::rate;
use crate::sampler::SamplingParams;
use crate::token::TokenId;
use std::time::Duration;

/// What a prefill did.
pub struct Prefill {
    /// Positions of the prompt.
    pub tokens: usize,
    /// Positions of the prompt that the cache already held.
    pub cached_tokens: usize,
    /// Time spent on computing the other positions.
    pub elapsed: Duration,
}

impl Prefill {
    /// Computed positions per second; 0 if none was computed.
    pub fn tokens_per_second(&self) -> f64 {
        rate((self.tokens - self.cached_tokens) as u64, self.elapsed.as_secs_f64())
    }
}

impl Engine {
    /// The logits after every id of every sequence: `n_vocab` floats for each id. All sequences share the forward passes.
    pub fn logits(&self, sequences: &[Vec<TokenId>], watch: &mut Watch) -> Result<Vec<Vec<f32>>> {
        for (i, ids) in sequences.iter().enumerate() {
            self.check_ids(ids, 0).map_err(|error| error.at(format!("sequences[{i}]")))?;
        }
        let memory = |ids: &Vec<TokenId>| try_with_capacity(ids.len().saturating_mul(self.n_vocab()));
        let mut all = sequences.iter().map(memory).collect::<Result<Vec<Vec<f32>>>>()?;
        let mut buffers: Vec<Vec<f32>> = all.iter_mut().map(std::mem::take).collect();
        let make = |i: usize| {
            let output = Output::Logits(std::mem::take(&mut buffers[i]));
            let extension = Extension::new(sequences[i].clone(), 0..sequences[i].len(), output);
            Ok(Step::extend(self.new_sequence(), extension))
        };
        let take = |i: usize, step: Step| {
            if let Task::Extend(Extension { output: Output::Logits(logits), .. }) = step.task {
                all[i] = logits;
            }
        };
        self.run_all(sequences.len(), make, take, watch)?;
        Ok(all)
    }

    /// Computes a prompt, except the prefix that the prefix cache already holds, and keeps it there.
    pub fn prefill(&self, ids: &[TokenId], watch: &mut Watch) -> Result<Prefill> {
        self.check_ids(ids, 0)?;
        let start = Instant::now();
        let mut sequence = self.sequence_for(ids, None);
        let cached_tokens = sequence.keep_prefix(ids);
        sequence.keep_states_for(ids, &self.message_starts(ids));
        let rest = Extension::new(ids[cached_tokens..].to_vec(), 0..0, Output::Nothing);
        self.runtime.extend(&mut sequence, rest, watch)?;
        self.keep(sequence);
        Ok(Prefill { tokens: ids.len(), cached_tokens, elapsed: start.elapsed() })
    }

    /// One forward pass of a prefill, for callers that show progress; `done` is the result of the passes before. Call
    /// it until `tokens` is the prompt's length.
    pub fn prefill_pass(&self, ids: &[TokenId], done: Option<Prefill>, watch: &mut Watch) -> Result<Prefill> {
        self.check_ids(ids, 0)?;
        let start = done.as_ref().map_or_else(|| self.cached_prefix(ids), |done| done.tokens);
        let end = (start + self.runtime.n_batch).min(ids.len());
        let pass = self.prefill(&ids[..end], watch)?;
        Ok(match done {
            None => pass,
            Some(done) => Prefill { tokens: end, elapsed: done.elapsed + pass.elapsed, ..done },
        })
    }

    /// Continues a prompt greedily, up to `max_tokens`, a stop id (which is not returned) or the end of the context.
    /// Starts from the prefix that the prefix cache holds.
    pub fn generate(
        &self,
        ids: &[TokenId],
        max_tokens: usize,
        stop: &[TokenId],
        watch: &mut Watch,
    ) -> Result<Vec<TokenId>> {
        let all = self.generate_many(&[ids.to_vec()], max_tokens, stop, watch)?;
        Ok(all.into_iter().next().expect("one prompt"))
    }

    /// Continues several prompts in shared forward passes, each with the result that [`Engine::generate`] has for it
    /// alone.
    pub fn generate_many(
        &self,
        prompts: &[Vec<TokenId>],
        max_tokens: usize,
        stop: &[TokenId],
        watch: &mut Watch,
    ) -> Result<Vec<Vec<TokenId>>> {
        let requests = prompts.iter().map(|ids| self.greedy_request(ids, max_tokens, stop));
        let requests = requests.collect::<Result<Vec<Request>>>()?;
        let mut answers: Vec<Vec<TokenId>> = vec![Vec::new(); requests.len()];
        let mut requests = requests.into_iter().enumerate();
        let mut steps = Steps::new(&self.runtime);
        loop {
            while steps.len() < self.max_together()
                && let Some((i, request)) = requests.next()
            {
                let (sequence, generation) = self.begin(None, true, 0, false, request);
                steps.add(i, Step::token(sequence, generation, None));
            }
            if steps.is_empty() {
                return Ok(answers);
            }
            for done in steps.wait(watch) {
                done.result?;
                let Task::Token(mut generation) = done.step.task else { unreachable!("only answers were added") };
                while generation.take().is_some() {}
                if generation.finish.is_none() {
                    steps.add(done.key, Step::token(done.step.sequence, *generation, None));
                } else {
                    answers[done.key] = generation.output_ids().to_vec();
                    self.keep(done.step.sequence);
                }
            }
        }
    }

    /// Starts to answer a prompt: on the caller's `own` sequence or on what the prefix cache holds, if it may be used.
    pub(super) fn begin(
        &self,
        own: Option<Sequence>,
        uses_cache: bool,
        seed: u64,
        holds_logits: bool,
        request: Request,
    ) -> (Sequence, Generation) {
        let Request { prompt, n_ctx, params, stop_ids, constraint, .. } = request;
        let n_ctx = n_ctx.unwrap_or(self.n_ctx());
        let mut sequence = match own {
            own if uses_cache => self.sequence_for(&prompt[..prompt.len() - 1], own),
            own => own.unwrap_or_else(|| self.new_sequence()),
        };
        let generation = Generation::begin(&mut sequence, prompt, n_ctx, params, seed, stop_ids);
        let generation = generation.shaped(constraint, holds_logits);
        sequence.keep_states_for(generation.prompt(), &self.message_starts(generation.prompt()));
        (sequence, generation)
    }

    /// A request for greedy sampling in which only the ids of `stop` end the answer, not the model's own.
    fn greedy_request(&self, ids: &[TokenId], max_tokens: usize, stop: &[TokenId]) -> Result<Request> {
        let params = SamplingParams { max_tokens: Some(max_tokens), ..SamplingParams::default() };
        Ok(Request { stop_ids: stop.to_vec(), ..self.request(ids.to_vec().into(), params, &mut || false)? })
    }
}
