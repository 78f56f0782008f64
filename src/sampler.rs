//! From logits to an id: the parameters, their order, and the draws.
//!
//! Order: logit_bias → repetition → presence and frequency penalties → (temperature 0: the largest) → temperature →
//! top_k → top_p → min_p → draw. Candidates are sorted by logit, then by id; draw i depends on (seed, i) alone.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// How to choose the next id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingParams {
    /// Divides the logits; 0 takes the largest.
    pub temperature: f32,
    /// Candidates kept by rank; 0 for all.
    pub top_k: usize,
    /// Candidates kept by cumulated probability: the fewest that reach it.
    pub top_p: f32,
    /// Candidates kept by probability relative to the best.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of recent ids (arXiv 1909.05858); 1 for none.
    pub repetition_penalty: f32,
    /// How many ids at the end of the sequence, prompt included, are recent.
    pub repeat_last_n: usize,
    /// Subtracted from the logits of ids generated before.
    pub presence_penalty: f32,
    /// Subtracted from them once for each time.
    pub frequency_penalty: f32,
    /// Added to the logits of ids.
    #[serde(skip)] // may be infinite, which JSON does not know
    pub logit_bias: Vec<(u32, f32)>,
    /// Of the draws; `None` lets the engine choose and record one.
    pub seed: Option<u64>,
    /// Ids to generate at most; `None` for up to a stop or the end of the context.
    pub max_tokens: Option<usize>,
    /// Texts that end the answer, which they are not part of.
    pub stop: Vec<String>,
    /// Ids that end the answer besides the model's own.
    pub stop_token_ids: Vec<u32>,
    /// Whether the model's own stop ids do not end the answer.
    pub ignore_eos: bool,
    /// How many of the best ids to report with each token, beside its own log-probability.
    pub logprobs: Option<usize>,
}

/// The decimal number that a binary32 parameter stands for.
pub fn decimal(x: f32) -> f64 {
    x.to_string().parse().expect("a number as Rust writes it")
}

impl Default for SamplingParams {
    fn default() -> Self {
        SamplingParams {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            repeat_last_n: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: None,
            max_tokens: None,
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            ignore_eos: false,
            logprobs: None,
        }
    }
}

impl SamplingParams {
    /// Checks every range.
    pub fn validate(&self) -> Result<()> {
        let wrong = |name: &str, value: &dyn std::fmt::Display, expected: &str| {
            Err(Error::Argument(format!("{name} is {value}, expected {expected}")))
        };
        type Holds = fn(f32) -> bool;
        let ranges: [(&str, f32, Holds, &str); 6] = [
            ("temperature", self.temperature, |x| x >= 0.0 && x.is_finite(), "a finite number from 0 up"),
            ("top_p", self.top_p, |x| x > 0.0 && x <= 1.0, "a number above 0, up to 1"),
            ("min_p", self.min_p, |x| (0.0..=1.0).contains(&x), "a number from 0 to 1"),
            ("repetition_penalty", self.repetition_penalty, |x| x > 0.0 && x.is_finite(), "a finite number above 0"),
            ("presence_penalty", self.presence_penalty, f32::is_finite, "a finite number"),
            ("frequency_penalty", self.frequency_penalty, f32::is_finite, "a finite number"),
        ];
        if let Some((name, x, _, expected)) = ranges.into_iter().find(|(_, x, holds, _)| !holds(*x)) {
            return wrong(name, &x, expected);
        }
        if let Some((id, bias)) = self.logit_bias.iter().find(|(_, bias)| bias.is_nan()) {
            return wrong(&format!("logit_bias of id {id}"), bias, "a number");
        }
        if self.stop.iter().any(String::is_empty) {
            return wrong("stop", &"an empty text", "texts of at least one character");
        }
        Ok(())
    }
}

/// Chooses the ids of one answer.
pub struct Sampler<'a> {
    params: &'a SamplingParams,
    seed: u64,
}

impl<'a> Sampler<'a> {
    /// A sampler whose draws follow `seed`.
    pub fn new(params: &'a SamplingParams, seed: u64) -> Self {
        Sampler { params, seed }
    }

    /// The next id after `sequence`, of which the first `prompt` ids were not generated. Changes the logits.
    pub fn pick(&self, logits: &mut [f32], sequence: &[u32], prompt: usize) -> u32 {
        self.penalise(logits, sequence, prompt);
        if self.params.temperature == 0.0 {
            return argmax(logits);
        }
        let candidates = self.candidates(logits);
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let mut left = uniform(self.seed, (sequence.len() - prompt) as u64) * total;
        for (id, weight) in &candidates {
            left -= weight;
            if left < 0.0 {
                return *id;
            }
        }
        candidates[candidates.len() - 1].0
    }

    /// Whether the choice depends on every logit: through their sum, or because they are to be reported.
    pub fn needs_every_logit(&self) -> bool {
        let params = self.params;
        let summed = params.temperature > 0.0 && params.top_k == 0 && (params.min_p == 0.0 || params.top_p < 1.0);
        summed || params.logprobs.is_some()
    }

    /// Puts bounds of the logits through the same adjustments as the logits, and returns the least upper bound that the
    /// choice can fall on; none if it can fall on any. Every adjustment is monotone, also as it is rounded.
    pub fn bound(&self, low: &mut [f32], high: &mut [f32], sequence: &[u32], prompt: usize) -> Option<f32> {
        let params = self.params;
        for bounds in [&mut *low, high] {
            self.penalise(bounds, sequence, prompt);
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
        // A weight of at least min_p; the slack is more than the roundings of exp and ln.
        Some(((best() as f64 + libm::log(params.min_p as f64) - 1e-3) as f32).next_down())
    }

    fn penalise(&self, logits: &mut [f32], sequence: &[u32], prompt: usize) {
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
    }

    /// The ids that may be drawn, best first, with weights relative to the best.
    fn candidates(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let params = self.params;
        let most = if params.top_k == 0 { usize::MAX } else { params.top_k };
        let ranked: Vec<(u32, f32)> = ranked(logits.iter().map(|logit| logit / params.temperature), most).collect();
        let best = ranked[0].1;
        // A bias may be infinite, and infinity less itself is no number.
        let weight = |logit: f32| if logit == best { 1.0 } else { libm::exp(logit as f64 - best as f64) };
        let mut candidates: Vec<(u32, f64)> = ranked.into_iter().map(|(id, logit)| (id, weight(logit))).collect();
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
        candidates
    }
}

/// The index of the largest logit; of equals the first.
pub fn argmax(logits: &[f32]) -> u32 {
    let best = |best: usize, i: usize| if logits[i] > logits[best] { i } else { best };
    (0..logits.len()).fold(0, best) as u32
}

/// Each id once, with how often it occurs, in ascending order.
fn distinct(ids: &[u32]) -> Vec<(u32, usize)> {
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    sorted.chunk_by(|a, b| a == b).map(|same| (same[0], same.len())).collect()
}

/// Bits whose unsigned order is that of the floats.
fn ordered(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

fn unordered(bits: u32) -> f32 {
    f32::from_bits(if bits >> 31 == 1 { bits & !(1 << 31) } else { !bits })
}

/// Draw number `i` of a seed, in [0, 1): SplitMix64 (Steele, Lea and Flood, 2014) at its i-th state.
fn uniform(seed: u64, i: u64) -> f64 {
    let mut z = seed.wrapping_add((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ z >> 31) >> 11) as f64 / (1u64 << 53) as f64
}

/// What makes natural logarithms of probabilities out of a position's unchanged logits.
pub struct LogSoftmax {
    /// The likeliest id.
    pub best: u32,
    max: f64,
    log_sum: f64,
}

impl LogSoftmax {
    /// Of these logits.
    pub fn new(logits: &[f32]) -> LogSoftmax {
        let best = argmax(logits);
        let max = logits[best as usize] as f64;
        let sum: f64 = logits.iter().map(|logit| libm::exp(*logit as f64 - max)).sum();
        LogSoftmax { best, max, log_sum: libm::log(sum) }
    }

    /// The log-probability that belongs to one of them.
    pub fn of(&self, logit: f32) -> f64 {
        logit as f64 - self.max - self.log_sum
    }
}

/// Natural logarithms of the probabilities that unchanged logits give: of `id`, and of the `k` best ids, best first.
pub fn logprobs(logits: &[f32], id: u32, k: usize) -> (f64, Vec<(u32, f64)>) {
    let log = LogSoftmax::new(logits);
    (log.of(logits[id as usize]), ranked(logits.iter().copied(), k).map(|(id, logit)| (id, log.of(logit))).collect())
}

/// The `k` largest values with their ids, best first, of equals the lower id.
fn ranked(values: impl Iterator<Item = f32>, k: usize) -> impl Iterator<Item = (u32, f32)> {
    // Keys whose ascending order is by value downwards, then by id.
    let mut keys: Vec<u64> = values.zip(0..).map(|(x, id)| (!ordered(x) as u64) << 32 | id).collect();
    if k < keys.len() {
        keys.select_nth_unstable(k);
        keys.truncate(k);
    }
    keys.sort_unstable();
    keys.into_iter().map(|key| (key as u32, unordered(!(key >> 32) as u32)))
}
