//! From logits to an id: the parameters, their order, and the random draws.
//!
//! Order: logit_bias → repetition → presence and frequency penalties → ids that a grammar allows → (temperature 0: the
//! most likely id) → temperature → top_k → top_p → min_p → draw. Candidates are sorted by logit, then by id; draw i depends on
//! (seed, i) alone.
//!
//! Ordinary parameters are applied in f32. Those that could leave its range are applied in f64 (`wide.rs`).

mod grammar;
mod parameter;
mod params;
mod wide;

pub use grammar::{Choices, GrammarKind, GrammarSource, SchemaText};
pub use parameter::{Parameter, Rules, Speculate, bias_from_json, bias_to_json_exact, decimal};
#[cfg(feature = "python")]
pub(crate) use params::sampling_parameters;
pub use params::{PARAMETERS, SamplingParams};

use crate::error::{Error, Result};
use crate::token::{TokenId, TokenSet};

/// Chooses the ids of one answer.
pub struct Sampler<'a> {
    params: &'a SamplingParams,
    seed: u64,
    /// The only ids that may be chosen, if not all may.
    allowed: Option<&'a TokenSet>,
    /// Whether the parameters are applied in f64.
    wide: bool,
}

impl<'a> Sampler<'a> {
    /// A sampler for these parameters, whose random draws follow `seed`.
    pub fn new(params: &'a SamplingParams, seed: u64) -> Self {
        Sampler { params, seed, allowed: None, wide: wide::is_needed(params) }
    }

    /// The same, which chooses only ids of this set: after the penalties, the logits of all others are minus infinity.
    pub fn allowing(self, allowed: Option<&'a TokenSet>) -> Self {
        Sampler { allowed, ..self }
    }

    /// Chooses the id that follows `sequence`, whose first `prompt` ids are the prompt. Changes the logits. An error if
    /// the parameters ban every id.
    pub fn pick(&self, logits: &mut [f32], sequence: &[TokenId], prompt: usize) -> Result<TokenId> {
        let candidates = if self.wide {
            wide::candidates(self.params, self.allowed, logits, sequence, prompt)
        } else {
            self.adjust(logits, sequence, prompt);
            self.candidates(logits)
        };
        let candidates = self.filtered(candidates)?;
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let mut left = uniform(self.seed, (sequence.len() - prompt) as u64) * total;
        let drawn = candidates.iter().find(|(_, weight)| {
            left -= weight;
            left < 0.0
        });
        // Rounding can leave a rest. An id of weight 0 is never drawn.
        let last = || candidates.iter().rfind(|(_, weight)| *weight > 0.0).expect("the best has weight 1");
        Ok(drawn.unwrap_or_else(last).0)
    }

    /// Whether the choice needs every logit: because their sum enters it, or because log-probabilities are reported.
    pub fn needs_every_logit(&self) -> bool {
        let params = self.params;
        let summed = params.temperature > 0.0 && params.top_k == 0 && (params.min_p == 0.0 || params.top_p < 1.0);
        summed || self.wide || params.logprobs.is_some()
    }

    /// Applies the penalties and the temperature to lower and upper bounds of the logits, and returns the threshold: an
    /// id whose adjusted upper bound is below it cannot be chosen. None if any id can be chosen.
    ///
    /// This is valid because every adjustment is monotone, rounding included.
    pub fn bound(&self, low: &mut [f32], high: &mut [f32], sequence: &[TokenId], prompt: usize) -> Option<f32> {
        let params = self.params;
        for bounds in [&mut *low, high] {
            self.adjust(bounds, sequence, prompt);
            if params.temperature > 0.0 {
                bounds.iter_mut().for_each(|bound| *bound /= params.temperature);
            }
        }
        let best = || low.iter().fold(f32::NEG_INFINITY, |best, x| if *x > best { *x } else { best });
        if params.temperature == 0.0 {
            return Some(best());
        }
        if params.top_k > 0 {
            let rank = low.len().checked_sub(params.top_k)?;
            return Some(*low.select_nth_unstable_by(rank, f32::total_cmp).1);
        }
        // min_p keeps weights exp(logit - best) >= min_p. The slack of 1e-3 exceeds the rounding errors of exp and ln.
        Some(((best() as f64 + libm::log(params.min_p as f64) - 1e-3) as f32).next_down())
    }

    /// Applies the bias, the penalties and the set of allowed ids. A bias for an id outside the vocabulary has no effect.
    fn adjust(&self, logits: &mut [f32], sequence: &[TokenId], prompt: usize) {
        let params = self.params;
        for (id, bias) in &params.logit_bias {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit += bias;
            }
        }
        if params.repetition_penalty != 1.0 {
            let recent = sequence.len().saturating_sub(params.repeat_last_n);
            for id in distinct(&sequence[recent..]) {
                let logit = &mut logits[id.0 as usize];
                let up = *logit > 0.0;
                *logit = if up { *logit / params.repetition_penalty } else { *logit * params.repetition_penalty };
            }
        }
        if params.presence_penalty != 0.0 || params.frequency_penalty != 0.0 {
            for (id, times) in distinct(&sequence[prompt..]) {
                logits[id as usize] -= params.presence_penalty + params.frequency_penalty * times as f32;
            }
        }
        if let Some(allowed) = self.allowed {
            allowed.mask(logits);
        }
    }

    /// The ids that `top_k` keeps, most likely first, each with its weight exp((logit - best) / temperature). At
    /// temperature 0 only the best. Empty if every id is banned.
    fn candidates(&self, logits: &[f32]) -> Vec<(TokenId, f64)> {
        let params = self.params;
        if params.temperature == 0.0 {
            let best = argmax(logits);
            return weighted(vec![(best, logits[best as usize].into())], 1.0);
        }
        let ranked = ranked(logits.iter().map(|logit| logit / params.temperature), most(params));
        weighted(ranked.map(|(id, logit)| (id, logit.into())).collect(), 1.0)
    }

    /// Applies `top_p` and `min_p` to what `top_k` kept.
    fn filtered(&self, mut candidates: Vec<(TokenId, f64)>) -> Result<Vec<(TokenId, f64)>> {
        let params = self.params;
        if candidates.is_empty() {
            let ids = if self.allowed.is_some() { "that the grammar allows here" } else { "of the vocabulary" };
            let bias = params.logit_bias.iter().any(|(_, bias)| *bias == f32::NEG_INFINITY);
            let (who, what) = if bias {
                ("logit_bias", "leave out the bias of at least one id")
            } else {
                ("logits_processor", "leave at least one id finite")
            };
            return Err(Error::Argument(format!(
                "{who} bans every id {ids} (minus infinity), so no id can be chosen; {what}"
            )));
        }
        if params.top_p < 1.0 {
            let goal = params.top_p as f64 * candidates.iter().map(|(_, weight)| weight).sum::<f64>();
            let mut reached = 0.0;
            let last = candidates.iter().position(|(_, weight)| {
                reached += weight;
                reached >= goal
            });
            candidates.truncate(last.map_or(candidates.len(), |last| last + 1));
        }
        candidates.retain(|(_, weight)| *weight >= params.min_p as f64);
        Ok(candidates)
    }
}

/// How many candidates `top_k` keeps.
fn most(params: &SamplingParams) -> usize {
    if params.top_k == 0 { usize::MAX } else { params.top_k }
}

/// Ranked ids with their weights exp((logit - best) / temperature); nothing if the best is banned.
fn weighted(mut ranked: Vec<(TokenId, f64)>, temperature: f64) -> Vec<(TokenId, f64)> {
    let best = ranked.first().map_or(f64::NEG_INFINITY, |(_, logit)| *logit);
    if best == f64::NEG_INFINITY {
        return Vec::new();
    }
    for (_, logit) in &mut ranked {
        // A bias may be infinite, and infinity minus infinity is NaN.
        *logit = if *logit == best { 1.0 } else { libm::exp((*logit - best) / temperature) };
    }
    ranked
}

/// The index of the largest logit; among equal ones the first.
pub fn argmax(logits: &[f32]) -> TokenId {
    let best = |best: usize, i: usize| if logits[i] > logits[best] { i } else { best };
    (0..logits.len()).fold(0, best) as TokenId
}

/// Each distinct id with the number of times it occurs, in ascending order.
fn distinct(ids: &[TokenId]) -> Vec<(TokenId, usize)> {
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    sorted.chunk_by(|a, b| a == b).map(|same| (same[0], same.len())).collect()
}

/// Maps a float to bits that compare as unsigned integers the way the floats compare.
fn ordered(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

/// The inverse of [`ordered`].
fn unordered(bits: u32) -> f32 {
    f32::from_bits(if bits >> 31 == 1 { bits & !(1 << 31) } else { !bits })
}

/// Random number `i` of a seed, in [0, 1): the output of SplitMix64 (Steele, Lea and Flood, 2014) after i + 1 steps.
fn uniform(seed: u64, i: u64) -> f64 {
    let mut z = seed.wrapping_add((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ z >> 31) >> 11) as f64 / (1u64 << 53) as f64
}

/// The log-softmax of a position's logits, before any sampling parameter.
pub struct LogSoftmax {
    /// The most likely id.
    pub best: TokenId,
    max: f64,
    log_sum: f64,
}

impl LogSoftmax {
    /// Computes the normalization of these logits, in f64 and in ascending order of ids.
    pub fn new(logits: &[f32]) -> LogSoftmax {
        let best = argmax(logits);
        let max = logits[best as usize] as f64;
        let sum: f64 = logits.iter().map(|logit| libm::exp(*logit as f64 - max)).sum();
        LogSoftmax { best, max, log_sum: libm::log(sum) }
    }

    /// The natural logarithm of the probability that belongs to one of these logits.
    pub fn of(&self, logit: f32) -> f64 {
        logit as f64 - self.max - self.log_sum
    }
}

/// The log-probability of `id`, and the `k` most likely ids with theirs, most likely first. The logits must be
/// unchanged by sampling parameters.
pub fn logprobs(logits: &[f32], id: TokenId, k: usize) -> (f64, Vec<(TokenId, f64)>) {
    let log = LogSoftmax::new(logits);
    (log.of(logits[id as usize]), ranked(logits.iter().copied(), k).map(|(id, logit)| (id, log.of(logit))).collect())
}

/// The `k` largest values with their ids, the largest first; among equal ones the lower id first.
fn ranked(values: impl Iterator<Item = f32>, k: usize) -> impl Iterator<Item = (TokenId, f32)> {
    // The ascending order of these keys is by value downwards, then by id.
    let mut keys: Vec<u64> = values.zip(0..).map(|(x, id)| (!ordered(x) as u64) << 32 | id).collect();
    if k < keys.len() {
        keys.select_nth_unstable(k);
        keys.truncate(k);
    }
    keys.sort_unstable();
    keys.into_iter().map(|key| (key as TokenId, unordered(!(key >> 32) as u32)))
}
