//! Ids in, logits and ids out.

use super::{Engine, Request, Watch};
use crate::decode::{Generation, Sequence, complete_all};
use crate::error::Result;
use crate::model::{LogitsFor, Row};
use crate::receipt::rate;
use crate::sampler::SamplingParams;
use crate::token::TokenId;
use std::time::{Duration, Instant};

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
    /// The logits after every id of every sequence: `n_vocab` floats for each id, sequence after sequence. All
    /// sequences share the forward passes.
    pub fn logits(&self, sequences: &[Vec<TokenId>], watch: &mut Watch) -> Result<Vec<f32>> {
        let mut rows = Vec::new();
        for (sequence, ids) in sequences.iter().enumerate() {
            self.check_ids(ids, 0).map_err(|error| error.at(format!("sequences[{sequence}]")))?;
            rows.extend(ids.iter().map(|id| Row { sequence, id: *id, logits: LogitsFor::All }));
        }
        let mut sequences: Vec<Sequence> = sequences.iter().map(|_| self.new_sequence()).collect();
        self.runtime.advance(&mut sequences.iter_mut().collect::<Vec<_>>(), &rows, watch)
    }

    /// Computes a prompt, except the prefix that the warm sequence already holds. Afterwards the warm sequence holds
    /// exactly the prompt; after an error it is unchanged.
    pub fn prefill(&self, ids: &[TokenId], watch: &mut Watch) -> Result<Prefill> {
        self.check_ids(ids, 0)?;
        self.with_warm(|sequence| {
            let start = Instant::now();
            let common = sequence.common(ids);
            let cached_tokens = sequence.replace_from(common, |sequence| {
                let cached = sequence.ids().len();
                sequence.keep_states_for(ids, &self.message_starts(ids));
                self.runtime.prefill(sequence, &ids[cached..], LogitsFor::None, watch)?;
                Ok(cached)
            })?;
            Ok(Prefill { tokens: ids.len(), cached_tokens, elapsed: start.elapsed() })
        })
    }

    /// One forward pass of a prefill, for callers that show progress; `done` is the result of the passes before. Call
    /// it until `tokens` is the prompt's length.
    pub fn prefill_pass(&self, ids: &[TokenId], done: Option<Prefill>, watch: &mut Watch) -> Result<Prefill> {
        self.check_ids(ids, 0)?;
        // The first pass goes past everything that the warm sequence may hold: a shorter one would truncate it.
        let start = done.as_ref().map_or_else(|| self.cached_tokens(), |done| done.tokens);
        let end = (start + self.runtime.n_batch).min(ids.len());
        let pass = self.prefill(&ids[..end], watch)?;
        Ok(match done {
            None => pass,
            Some(done) => Prefill { tokens: end, elapsed: done.elapsed + pass.elapsed, ..done },
        })
    }

    /// Continues a prompt greedily, up to `max_tokens`, a stop id (which is not returned) or the end of the context.
    /// Starts from the prefix that the warm sequence holds.
    pub fn generate(
        &self,
        ids: &[TokenId],
        max_tokens: usize,
        stop: &[TokenId],
        watch: &mut Watch,
    ) -> Result<Vec<TokenId>> {
        let request = self.greedy_request(ids, max_tokens, stop)?;
        self.with_warm(|sequence| {
            let mut generation = Generation::begin(sequence, request.prompt, request.params, 0, request.stop_ids);
            while generation.next(&self.runtime, sequence, watch)?.is_some() {}
            Ok(generation.output_ids().to_vec())
        })
    }

    /// Continues several prompts in shared forward passes, each with the result that [`Engine::generate`] has for it
    /// alone. Each has its own sequence, which starts as a copy of the warm one.
    pub fn generate_many(
        &self,
        prompts: &[Vec<TokenId>],
        max_tokens: usize,
        stop: &[TokenId],
        watch: &mut Watch,
    ) -> Result<Vec<Vec<TokenId>>> {
        let requests = prompts.iter().map(|ids| self.greedy_request(ids, max_tokens, stop));
        let requests = requests.collect::<Result<Vec<Request>>>()?;
        let mut sequences = self.with_warm(|warm| Ok(vec![warm.clone(); requests.len()]))?;
        let begin = |(request, sequence): (Request, &mut Sequence)| {
            Generation::begin(sequence, request.prompt, request.params, 0, request.stop_ids)
        };
        let mut generations: Vec<Generation> = requests.into_iter().zip(&mut sequences).map(begin).collect();
        complete_all(&self.runtime, &mut generations, &mut sequences, watch)?;
        Ok(generations.iter().map(|generation| generation.output_ids().to_vec()).collect())
    }

    /// A request for greedy sampling in which only the ids of `stop` end the answer, not the model's own.
    fn greedy_request(&self, ids: &[TokenId], max_tokens: usize, stop: &[TokenId]) -> Result<Request> {
        let params = SamplingParams { max_tokens: Some(max_tokens), ..SamplingParams::default() };
        Ok(Request { stop_ids: stop.to_vec(), ..self.request(ids.to_vec().into(), params, &mut || false)? })
    }
}
