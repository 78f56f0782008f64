//! The kernels of gated delta nets and of rotated weights: every instruction set gives the same bits, and the scalar
//! kernels compute the formulas of `docs/numerics.md`.

use bitnet::kernel::delta_net::STATE_BLOCK;
use bitnet::kernel::{Isa, Kernels, kernels};
use proptest::prelude::*;

/// Pseudorandom floats from −1 to 1, some of them zero or tiny.
fn floats(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    let value = |bits: u32, kind: u32| match kind % 16 {
        0 => 0.0,
        1 => (bits % 1000) as f32 * 1e-20,
        _ => (bits % 20_001) as f32 / 10_000.0 - 1.0,
    };
    (0..n).map(|_| value(next(), next())).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Asserts that every instruction set gives the same bits as plain Rust, and returns these.
fn same_bits(what: &str, compute: impl Fn(&Kernels) -> Vec<f32>) -> Vec<f32> {
    let want = compute(kernels(Some("scalar")).expect("always available"));
    for isa in Isa::available() {
        let found = compute(kernels(Some(isa.name())).expect("available"));
        assert_eq!(bits(&want), bits(&found), "{what}, {}", isa.name());
    }
    want
}

fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((*found as f64 - expected).abs() <= tolerance, "at {i}: {found}, expected {expected}");
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

const LENGTHS: [usize; 9] = [1, 2, 15, 16, 17, 40, 64, 96, 128];

#[test]
fn the_convolution_adds_its_taps_and_applies_silu() {
    for n in LENGTHS {
        for taps in [1, 2, 4] {
            let (inputs, weights) = (floats(taps * n, 1), floats(taps * n, 2));
            let found = same_bits(&format!("{taps} taps of {n}"), |k| {
                let mut out = vec![f32::NAN; n];
                let slices = |all| <[f32]>::chunks(all, n).collect::<Vec<_>>();
                k.convolve_silu(&slices(&inputs), &slices(&weights), &mut out);
                out
            });
            let expected = (0..n).map(|c| {
                let sum: f64 = (0..taps).map(|tap| inputs[tap * n + c] as f64 * weights[tap * n + c] as f64).sum();
                sum * sigmoid(sum)
            });
            assert_close(&found, &expected.collect::<Vec<_>>(), 1e-6);
        }
    }
}

#[test]
fn unit_length_divides_by_the_length() {
    for n in LENGTHS {
        let x = floats(n, 3);
        let found = same_bits(&format!("unit length of {n}"), |k| {
            let mut x = x.clone();
            k.unit_length(&mut x, 0.25);
            x
        });
        let squares: f64 = x.iter().map(|x| (*x as f64).powi(2)).sum();
        let expected: Vec<f64> = x.iter().map(|x| *x as f64 / (squares + 1e-6).sqrt() * 0.25).collect();
        assert_close(&found, &expected, 1e-6);
    }
}

#[test]
fn sigmoid_mul_scales_by_the_sigmoid() {
    for n in LENGTHS {
        let (x, gate) = (floats(n, 4), floats(n, 5).iter().map(|g| g * 20.0).collect::<Vec<f32>>());
        let found = same_bits(&format!("sigmoid_mul of {n}"), |k| {
            let mut x = x.clone();
            k.sigmoid_mul(&mut x, &gate);
            x
        });
        let expected: Vec<f64> = x.iter().zip(&gate).map(|(x, g)| *x as f64 * sigmoid(*g as f64)).collect();
        assert_close(&found, &expected, 1e-6);
    }
}

/// A head's state `[key channel][value channel]` in blocks of value channels, the last one padded with zeros.
fn blocked(state: &[f64], keys: usize, values: usize) -> Vec<f32> {
    let mut out = Vec::new();
    for block in 0..values.div_ceil(STATE_BLOCK) {
        for key in 0..keys {
            let of_lane = |lane: usize| block * STATE_BLOCK + lane;
            let value = |c: usize| if c < values { state[key * values + c] as f32 } else { 0.0 };
            out.extend((0..STATE_BLOCK).map(|lane| value(of_lane(lane))));
        }
    }
    out
}

#[test]
fn the_delta_rule_follows_its_formula() {
    for (keys, values) in [(1, 1), (6, 6), (16, 16), (32, 17), (40, 70), (128, 128), (8, 200)] {
        let mut state: Vec<f64> = floats(keys * values, 6).iter().map(|x| *x as f64).collect();
        let mut stored = blocked(&state, keys, values);
        for step in 0..3 {
            let (q, k, v) = (floats(keys, 7 + step), floats(keys, 70 + step), floats(values, 700 + step));
            let (decay, beta) = (0.75f32, 0.3 + 0.2 * step as f32);
            let found = same_bits(&format!("{keys} × {values}"), |kernels| {
                let (mut state, mut out) = (stored.clone(), vec![f32::NAN; values]);
                kernels.delta_rule(&mut state, &q, &k, &v, [decay, beta], &mut out);
                [out, state].concat()
            });
            let (out, new) = found.split_at(values);
            stored = new.to_vec();
            let mut expected = vec![0f64; values];
            for c in 0..values {
                let held: f64 = (0..keys).map(|i| decay as f64 * state[i * values + c] * k[i] as f64).sum();
                let change = beta as f64 * (v[c] as f64 - held);
                for i in 0..keys {
                    let cell = &mut state[i * values + c];
                    *cell = decay as f64 * *cell + k[i] as f64 * change;
                    expected[c] += *cell * q[i] as f64;
                }
            }
            assert_close(out, &expected, 1e-4);
            assert_close(&stored, &blocked(&state, keys, values).iter().map(|x| *x as f64).collect::<Vec<_>>(), 1e-5);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Tasks may take any blocks of value channels of a head: the bits are those of all together.
    #[test]
    fn blocks_of_a_state_are_independent(keys in 1usize..40, blocks in 2usize..10, cut in 1usize..9, seed in any::<u32>()) {
        let (values, cut) = (blocks * STATE_BLOCK, cut.min(blocks - 1));
        let state = floats(keys * values, seed);
        let (q, k, v) = (floats(keys, seed ^ 1), floats(keys, seed ^ 2), floats(values, seed ^ 3));
        let kernels = kernels(None).expect("some");
        let run = |state: &mut [f32], v: &[f32]| {
            let mut out = vec![0f32; v.len()];
            kernels.delta_rule(state, &q, &k, v, [0.9, 0.4], &mut out);
            out
        };
        let (mut whole, mut parts) = (state.clone(), state);
        let together = run(&mut whole, &v);
        let (first, second) = parts.split_at_mut(cut * STATE_BLOCK * keys);
        let apart = [run(first, &v[..cut * STATE_BLOCK]), run(second, &v[cut * STATE_BLOCK..])].concat();
        prop_assert_eq!(bits(&together), bits(&apart));
        prop_assert_eq!(bits(&whole), bits(&parts));
    }
}

#[test]
fn the_transform_is_that_of_sylvesters_matrix_and_its_own_inverse() {
    for block in [1usize, 2, 8, 16, 32, 128, 1024] {
        let n = 3 * block;
        let signs: Vec<f32> = floats(n, 8).iter().map(|x| if *x < 0.0 { -1.0 } else { 1.0 }).collect();
        let x = floats(n, 9);
        let found = same_bits(&format!("blocks of {block}"), |k| {
            let mut x = x.clone();
            k.hadamard(&mut x, &signs, block);
            x
        });
        let expected = (0..n).map(|i| {
            let (first, row) = (i / block * block, i % block);
            let entry = |c: usize| if (row & c).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
            let sum: f64 = (0..block).map(|c| entry(c) * (x[first + c] * signs[first + c]) as f64).sum();
            sum / (block as f64).sqrt()
        });
        assert_close(&found, &expected.collect::<Vec<_>>(), 1e-5);
        let mut back = found;
        kernels(None).expect("some").hadamard(&mut back, &vec![1.0; n], block);
        let back: Vec<f32> = back.iter().zip(&signs).map(|(x, sign)| x * sign).collect();
        assert_close(&back, &x.iter().map(|x| *x as f64).collect::<Vec<_>>(), 1e-5);
    }
}
