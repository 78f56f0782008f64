//! Sampling: the order of the steps, the filters, the random draws, the ranges of the parameters.

use bitnet::sampler::{Sampler, SamplingParams, logprobs};
use proptest::prelude::*;

fn params(change: impl FnOnce(&mut SamplingParams)) -> SamplingParams {
    let mut params = SamplingParams { temperature: 1.0, ..SamplingParams::default() };
    change(&mut params);
    params.validate().expect("in range");
    params
}

/// How often each id is drawn for 4,000 seeds.
fn counts(params: &SamplingParams, logits: &[f32], sequence: &[u32], prompt: usize) -> Vec<usize> {
    let mut counts = vec![0; logits.len()];
    for seed in 0..4000 {
        counts[Sampler::new(params, seed).pick(&mut logits.to_vec(), sequence, prompt) as usize] += 1;
    }
    counts
}

#[test]
fn temperature_zero_takes_the_largest_and_among_equal_ones_the_first() {
    let greedy = SamplingParams::default();
    assert_eq!(Sampler::new(&greedy, 1).pick(&mut [1.0, 3.0, 2.0, 3.0], &[], 0), 1);
}

#[test]
fn frequencies_follow_the_softmax() {
    let logits = [0.0, 1.0, 2.0, -1.0];
    let total: f64 = logits.iter().map(|x| (*x as f64).exp()).sum();
    for (count, logit) in counts(&params(|_| ()), &logits, &[], 0).iter().zip(logits) {
        let expected = 4000.0 * (logit as f64).exp() / total;
        assert!((*count as f64 - expected).abs() < 5.0 * expected.sqrt(), "{count} {expected}");
    }
}

#[test]
fn filters_keep_the_most_likely_ids() {
    let logits = [2.0, 0.0, 1.0, 1.0, -3.0];
    let drawn = |params: &SamplingParams| -> Vec<usize> {
        let counts = counts(params, &logits, &[], 0);
        (0..logits.len()).filter(|id| counts[*id] > 0).collect()
    };
    assert_eq!(drawn(&params(|p| p.top_k = 1)), [0]);
    // Of two equal logits the lower id ranks first.
    assert_eq!(drawn(&params(|p| p.top_k = 2)), [0, 2]);
    // Probabilities 0.52, 0.19, 0.19, 0.07, 0.004 in this order: ids 0, 2, 3, 1, 4.
    assert_eq!(drawn(&params(|p| p.top_p = 0.5)), [0]);
    assert_eq!(drawn(&params(|p| p.top_p = 0.6)), [0, 2]);
    assert_eq!(drawn(&params(|p| p.top_p = 0.9)), [0, 2, 3]);
    assert_eq!(drawn(&params(|p| p.min_p = 0.3)), [0, 2, 3]);
    // top_k comes before top_p: among the two best, 0.73 and 0.27, the first alone reaches 0.7.
    assert_eq!(drawn(&params(|p| (p.top_k, p.top_p) = (2, 0.7))), [0]);
}

#[test]
fn an_infinite_bias_forces_or_bans_an_id() {
    for bias in [f32::INFINITY, f32::NEG_INFINITY] {
        let sampling = params(|p| {
            p.logit_bias = vec![(1, bias), (2, bias)];
            p.min_p = 0.5;
        });
        let id = Sampler::new(&sampling, 1).pick(&mut [5.0, 0.0, -1.0], &[], 0);
        assert_eq!(id == 0, bias < 0.0, "{id}");
    }
}

#[test]
fn penalties_come_before_temperature_and_affect_the_right_ids() {
    let greedy = |change: fn(&mut SamplingParams)| {
        let mut params = SamplingParams::default();
        change(&mut params);
        params
    };
    let sequence = [0, 0, 1];
    let pick =
        |params: SamplingParams, logits: &[f32]| Sampler::new(&params, 0).pick(&mut logits.to_vec(), &sequence, 1);
    // Repetition: positive logits are divided and negative ones multiplied, once per id however often it occurred.
    assert_eq!(pick(greedy(|p| p.repetition_penalty = 2.0), &[4.0, 3.0, 1.9]), 0);
    assert_eq!(pick(greedy(|p| p.repetition_penalty = 2.0), &[4.0, 3.0, 2.1]), 2);
    assert_eq!(pick(greedy(|p| p.repetition_penalty = 2.0), &[-1.0, -1.1, -1.9]), 2);
    assert_eq!(pick(greedy(|p| (p.repetition_penalty, p.repeat_last_n) = (2.0, 1)), &[4.0, 5.0, 3.9]), 0);
    // Presence and frequency penalties affect generated ids only (here one 0 and one 1).
    assert_eq!(pick(greedy(|p| p.presence_penalty = 1.0), &[3.0, 3.0, 2.1]), 2);
    assert_eq!(pick(greedy(|p| p.frequency_penalty = 1.0), &[3.0, 2.5, 1.9]), 0);
    // The bias comes first: the repetition penalty applies to logit and bias together.
    assert_eq!(pick(greedy(|p| (p.logit_bias, p.repetition_penalty) = (vec![(1, 4.0)], 2.0)), &[0.0, 0.0, 2.1]), 2);
}

#[test]
fn a_draw_depends_on_seed_and_number_alone() {
    let params = params(|_| ());
    let logits = vec![0.0; 1000];
    let draw = |seed, sequence: &[u32], prompt| Sampler::new(&params, seed).pick(&mut logits.clone(), sequence, prompt);
    assert_eq!(draw(5, &[1, 2, 3], 1), draw(5, &[9, 9, 9, 9], 2));
    assert_ne!(draw(5, &[1, 2, 3], 1), draw(5, &[1, 2, 3], 2));
    assert_ne!(draw(5, &[], 0), draw(6, &[], 0));
}

#[test]
fn logprobs_are_those_of_the_unchanged_logits() {
    let (own, best) = logprobs(&[1.0, 3.0, 2.0, 3.0], 2, 3);
    let total: f64 = [1.0f64, 3.0, 2.0, 3.0].iter().map(|x| x.exp()).sum();
    assert!((own - (2.0 - total.ln())).abs() < 1e-12);
    assert_eq!(best.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3, 2]);
    assert!(best.iter().all(|(_, log)| *log < 0.0));
}

#[test]
fn values_outside_their_range_are_refused_by_name() {
    let refuse = |name: &str, change: fn(&mut SamplingParams)| {
        let mut params = SamplingParams::default();
        change(&mut params);
        let message = params.validate().expect_err("refused").to_string();
        assert!(message.starts_with(name) && message.contains("expected"), "{message}");
    };
    refuse("temperature", |p| p.temperature = -0.1);
    refuse("temperature", |p| p.temperature = f32::NAN);
    refuse("top_p", |p| p.top_p = 0.0);
    refuse("top_p", |p| p.top_p = 1.1);
    refuse("min_p", |p| p.min_p = -1.0);
    refuse("repetition_penalty", |p| p.repetition_penalty = 0.0);
    refuse("presence_penalty", |p| p.presence_penalty = f32::INFINITY);
    refuse("max_tokens", |p| p.max_tokens = Some(0));
    refuse("logit_bias", |p| p.logit_bias = vec![(3, f32::NAN)]);
    refuse("stop", |p| p.stop = vec![String::new()]);
}

proptest! {
    #[test]
    fn an_id_that_a_filter_drops_is_never_drawn(
        logits in prop::collection::vec(-20f32..20.0, 1..60),
        top_k in 0usize..10,
        top_p in 0.01f32..=1.0,
        min_p in 0f32..=1.0,
        temperature in 0.1f32..3.0,
        seed: u64,
    ) {
        let params = params(|p| (p.top_k, p.top_p, p.min_p, p.temperature) = (top_k, top_p, min_p, temperature));
        let id = Sampler::new(&params, seed).pick(&mut logits.clone(), &[], 0) as usize;
        let rank = logits.iter().enumerate().filter(|(i, x)| **x > logits[id] || (**x == logits[id] && *i < id)).count();
        prop_assert!(top_k == 0 || rank < top_k);
        let best = logits.iter().fold(f32::MIN, |m, x| m.max(*x));
        prop_assert!(((logits[id] - best) / temperature).exp() >= min_p * 0.999);
    }
}
