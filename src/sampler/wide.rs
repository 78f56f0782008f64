//! Sampling in f64, for parameters that could leave the range of f32: a temperature near 0 whose quotients overflow, a
//! penalty of 1e38. The largest and smallest f32 have products and quotients that f64 holds, so ids keep their order,
//! and only an infinite bias makes a value infinite.

use super::{SamplingParams, distinct, most, weighted};
use crate::token::{TokenId, TokenSet};

/// Factors and divisors from 1e-6 to 1e6 and summands up to 1e20 keep the logits of any model within f32.
const FACTOR: f32 = 1e6;
const SUMMAND: f32 = 1e20;

/// Whether a parameter is so large or so small that f32 could overflow.
pub(super) fn is_needed(params: &SamplingParams) -> bool {
    let factor = |x: f32| (1.0 / FACTOR..=FACTOR).contains(&x);
    let summand = |x: f32| x.abs() <= SUMMAND;
    let ordinary = (params.temperature == 0.0 || factor(params.temperature))
        && factor(params.repetition_penalty)
        && summand(params.presence_penalty)
        && summand(params.frequency_penalty)
        && params.logit_bias.iter().all(|(_, bias)| bias.is_infinite() || summand(*bias));
    !ordinary
}

/// The ids that `top_k` keeps, most likely first, each with its weight, as `Sampler::candidates` gives them.
pub(super) fn candidates(
    params: &SamplingParams,
    allowed: Option<&TokenSet>,
    logits: &[f32],
    sequence: &[TokenId],
    prompt: usize,
) -> Vec<(TokenId, f64)> {
    let mut values: Vec<f64> = logits.iter().map(|logit| f64::from(*logit)).collect();
    adjust(params, &mut values, sequence, prompt);
    if let Some(allowed) = allowed {
        let forbidden = values.iter_mut().zip(0..).filter(|(_, id)| !allowed.contains(*id));
        forbidden.for_each(|(value, _)| *value = f64::NEG_INFINITY);
    }
    let greedy = params.temperature == 0.0;
    let most = if greedy { 1 } else { most(params) };
    // Plus zero turns -0 into 0, as `argmax` compares them.
    let mut ranked: Vec<(TokenId, f64)> = (0..).zip(values).map(|(id, value)| (id, value + 0.0)).collect();
    let order = |a: &(TokenId, f64), b: &(TokenId, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if most < ranked.len() {
        ranked.select_nth_unstable_by(most, order);
        ranked.truncate(most);
    }
    ranked.sort_unstable_by(order);
    weighted(ranked, if greedy { 1.0 } else { params.temperature.into() })
}

/// Applies the bias and the penalties, in the order of `Sampler::adjust`.
fn adjust(params: &SamplingParams, values: &mut [f64], sequence: &[TokenId], prompt: usize) {
    for (id, bias) in &params.logit_bias {
        if let Some(value) = values.get_mut(*id as usize) {
            *value += f64::from(*bias);
        }
    }
    let repetition = f64::from(params.repetition_penalty);
    let recent = sequence.len().saturating_sub(params.repeat_last_n);
    for (id, _) in distinct(&sequence[recent..]) {
        let value = &mut values[id as usize];
        *value = if *value > 0.0 { *value / repetition } else { *value * repetition };
    }
    for (id, times) in distinct(&sequence[prompt..]) {
        values[id as usize] -= f64::from(params.presence_penalty) + f64::from(params.frequency_penalty) * times as f64;
    }
}
