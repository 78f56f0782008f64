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
        counts[Sampler::new(params, seed).pick(&mut logits.to_vec(), sequence, prompt).unwrap() as usize] += 1;
    }
    counts
}

#[test]
fn temperature_zero_takes_the_largest_and_among_equal_ones_the_first() {
    let greedy = SamplingParams::default();
    assert_eq!(Sampler::new(&greedy, 1).pick(&mut [1.0, 3.0, 2.0, 3.0], &[], 0).unwrap(), 1);
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
        let id = Sampler::new(&sampling, 1).pick(&mut [5.0, 0.0, -1.0], &[], 0).unwrap();
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
    let pick = |params: SamplingParams, logits: &[f32]| {
        Sampler::new(&params, 0).pick(&mut logits.to_vec(), &sequence, 1).unwrap()
    };
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
    let draw = |seed, sequence: &[u32], prompt| {
        Sampler::new(&params, seed).pick(&mut logits.clone(), sequence, prompt).unwrap()
    };
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
    refuse("logit_bias", |p| p.logit_bias = vec![(3, f32::INFINITY), (1, 0.0), (3, f32::NEG_INFINITY)]);
    refuse("stop", |p| p.stop = vec![String::new()]);
}

/// Temperatures and filters with which only the most likely id can be drawn, or any.
const TEMPERATURES: [f32; 9] = [0.0, 1e-45, 1e-38, 2e-38, 1e-20, 1e-7, 0.7, 1e20, f32::MAX];

fn every_way(change: impl Fn(&mut SamplingParams)) -> Vec<SamplingParams> {
    let mut ways = Vec::new();
    for temperature in TEMPERATURES {
        for (top_k, top_p, min_p) in [(0, 1.0, 0.0), (1, 1.0, 0.0), (3, 0.5, 0.0), (0, 1e-45, 0.0), (0, 1.0, 1.0)] {
            ways.push(params(|p| {
                (p.temperature, p.top_k, p.top_p, p.min_p) = (temperature, top_k, top_p, min_p);
                change(p);
            }));
        }
    }
    ways
}

fn picked(params: &SamplingParams, logits: &[f32], sequence: &[u32]) -> Vec<u32> {
    (0..50).map(|seed| Sampler::new(params, seed).pick(&mut logits.to_vec(), sequence, 0).unwrap()).collect()
}

#[test]
fn a_temperature_near_zero_takes_the_most_likely_id() {
    for logits in
        [vec![1.0, 7.5, 7.4, -3.0, 0.0], vec![-9.0, -1.0, -1.1], vec![3e38, -3e38, 2e38], vec![1e-30, 2e-30, 0.0]]
    {
        let greedy = picked(&SamplingParams::default(), &logits, &[]);
        for params in every_way(|_| ()).iter().filter(|p| p.temperature < 1e-35) {
            assert_eq!(picked(params, &logits, &[]), greedy, "{logits:?} {params:?}");
        }
    }
}

#[test]
fn filters_keep_the_most_likely_id_at_any_temperature() {
    let logits = [1.0, 7.5, 7.4, -3.0];
    for params in every_way(|_| ()) {
        if params.top_k == 1 || params.top_p < 0.1 {
            assert_eq!(picked(&params, &logits, &[]), [1; 50], "{params:?}");
        }
    }
    let hot = params(|p| p.temperature = f32::MAX);
    let counts = counts(&hot, &logits, &[], 0);
    assert!(counts.iter().all(|count| (850..1150).contains(count)), "all alike: {counts:?}");
}

#[test]
fn banning_every_id_is_an_error_and_all_but_one_leaves_that() {
    let ban = |ids: &[u32]| ids.iter().map(|id| (*id, f32::NEG_INFINITY)).collect::<Vec<_>>();
    for params in every_way(|p| p.logit_bias = ban(&[0, 1, 2])) {
        let message = Sampler::new(&params, 1).pick(&mut [1.0, 2.0, 3.0], &[0, 1], 0).unwrap_err().to_string();
        assert!(message.contains("logit_bias") && message.contains("every id"), "{message}");
    }
    for params in every_way(|p| (p.logit_bias, p.repetition_penalty) = (ban(&[0, 2]), 1e-38)) {
        assert_eq!(picked(&params, &[9.0, -2.0, 30.0], &[0, 1, 2]), [1; 50], "{params:?}");
    }
}

#[test]
fn forced_ids_are_drawn_alike_whatever_their_penalties() {
    let forced = |p: &mut SamplingParams| {
        p.logit_bias = vec![(1, f32::INFINITY), (3, f32::INFINITY)];
        (p.presence_penalty, p.frequency_penalty, p.repetition_penalty) = (3e38, 3e38, 3e38);
    };
    for params in every_way(forced) {
        let all = picked(&params, &[9.0, -2.0, 30.0, 4.0], &[1, 1, 3, 0]);
        assert!(all.iter().all(|id| [1, 3].contains(id)), "{params:?}: {all:?}");
        let one = params.temperature == 0.0 || params.top_k == 1 || params.top_p < 1.0;
        assert_eq!(all.contains(&3), !one, "{params:?}: {all:?}");
    }
}

#[test]
fn penalties_that_overflow_keep_the_order() {
    let greedy = |change: fn(&mut SamplingParams), logits: &[f32]| {
        let mut params = SamplingParams::default();
        change(&mut params);
        params.validate().unwrap();
        picked(&params, logits, &[0, 1, 2, 2])[0]
    };
    // Each of these overflows f32 for several ids.
    assert_eq!(greedy(|p| p.repetition_penalty = 1e-38, &[5.0, 7.0, 6.0, 99.0]), 1);
    assert_eq!(greedy(|p| p.repetition_penalty = 3e38, &[-5.0, -4.0, -6.0]), 1);
    assert_eq!(greedy(|p| p.presence_penalty = 3e38, &[5.0, 7.0, 6.0, -99.0]), 3);
    assert_eq!(greedy(|p| (p.presence_penalty, p.frequency_penalty) = (-3e38, -3e38), &[5.0, 7.0, 6.0, 99.0]), 2);
    assert_eq!(greedy(|p| p.logit_bias = vec![(0, 3e38), (1, -3e38), (3, 2e38)], &[5.0, 7.0, 6.0, 3e38]), 3);
    // A penalty and a bias that cancel.
    assert_eq!(greedy(|p| (p.presence_penalty, p.logit_bias) = (3e38, vec![(1, 3e38)]), &[5.0, 7.0, 6.0, -1.0]), 1);
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
        let id = Sampler::new(&params, seed).pick(&mut logits.clone(), &[], 0).unwrap() as usize;
        let rank = logits.iter().enumerate().filter(|(i, x)| **x > logits[id] || (**x == logits[id] && *i < id)).count();
        prop_assert!(top_k == 0 || rank < top_k);
        let best = logits.iter().fold(f32::MIN, |m, x| m.max(*x));
        prop_assert!(((logits[id] - best) / temperature).exp() >= min_p * 0.999);
    }

    /// Whatever the parameters: the id that the bounds allow is the id of all logits.
    #[test]
    fn candidates_by_bounds_give_the_id_of_all_logits(
        logits in prop::collection::vec(-20f32..20.0, 2..60),
        slack in 0f32..3.0,
        temperature in prop::sample::select(TEMPERATURES.to_vec()),
        top_k in 0usize..4,
        min_p in prop::sample::select(vec![1e-45f32, 0.1, 1.0]),
        penalties in prop::sample::select(vec![(1.0f32, 0.0f32), (1.3, 0.5), (1e-38, 3e38), (3e38, -3e38)]),
        biases in prop::collection::btree_map(0u32..60, prop::sample::select(
            vec![f32::INFINITY, f32::NEG_INFINITY, 3e38, -3e38, 1.5]), 0..70),
        seed: u64,
    ) {
        let params = params(|p| {
            (p.temperature, p.top_k, p.min_p) = (temperature, top_k, min_p);
            (p.repetition_penalty, p.presence_penalty) = penalties;
            p.logit_bias = biases.into_iter().collect();
        });
        let sampler = Sampler::new(&params, seed);
        let sequence = [0, 1, 1];
        let all = sampler.pick(&mut logits.clone(), &sequence, 1).ok();
        if !sampler.needs_every_logit() {
            let mut low: Vec<f32> = logits.iter().map(|x| x - slack).collect();
            let mut high: Vec<f32> = logits.iter().map(|x| x + slack).collect();
            let least = sampler.bound(&mut low, &mut high, &sequence, 1).unwrap_or(f32::NEG_INFINITY);
            let mut some = logits.clone();
            some.iter_mut().zip(high).filter(|(_, high)| *high < least).for_each(|(x, _)| *x = f32::NEG_INFINITY);
            prop_assert_eq!(sampler.pick(&mut some, &sequence, 1).ok(), all);
        }
    }
}
