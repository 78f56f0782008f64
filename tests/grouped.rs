//! Grouped ternary matrices: every instruction set, number of tokens, packing and group gives the bits of plain loops
//! that follow `docs/numerics.md`.

use bitnet::codec::f16_to_f32;
use bitnet::error::Error;
use bitnet::kernel::f16::to_f16;
use bitnet::kernel::grouped::{Grouped, GroupedActivations, GroupedLayout};
use bitnet::kernel::packing::Packing;
use bitnet::kernel::{Isa, Kernels, Team, kernels};
use bitnet::machine::memory::Arena;
use bitnet::machine::pool::Pool;
use proptest::prelude::*;

const BLOCK: usize = 128;

/// A matrix as plain numbers.
#[derive(Clone, Debug)]
struct Plain {
    rows: usize,
    cols: usize,
    group: usize,
    trits: Vec<i8>,
    /// Bits of f16, for each row and group.
    scales: Vec<u16>,
    factors: Vec<f32>,
}

impl Plain {
    fn groups(&self) -> usize {
        self.cols.div_ceil(BLOCK) * (BLOCK / self.group)
    }

    fn pack(&self, team: &Team, packing: Packing) -> Grouped {
        let layout = GroupedLayout { rows: self.rows, cols: self.cols, group: self.group, packing };
        let packed = Grouped::from_rows::<Error>(team, &Arena::default(), layout, |row, bytes, scales| {
            let trit = |c: usize| self.trits[row * self.cols..][..self.cols].get(c).copied().unwrap_or(0);
            for (i, byte) in bytes.iter_mut().enumerate() {
                let first = i / 32 * BLOCK + i % 32;
                *byte = (0..4).fold(0, |byte, p| byte << 2 | (trit(first + 32 * p) + 1) as u8);
            }
            for (scale, bits) in scales.iter_mut().zip(&self.scales[row * self.groups()..]) {
                *scale = bits.to_le_bytes();
            }
            Ok(self.factors[row])
        });
        packed.expect("memory")
    }

    /// The outputs for a token, by the documented formula.
    fn product(&self, x: &[f32], planes: usize) -> Vec<f32> {
        let most = [127.0f32, 32_639.0, 4_194_303.0][planes - 1];
        let blocks: Vec<(f32, Vec<i64>)> = x
            .chunks(BLOCK)
            .map(|x| {
                let amax = x.iter().fold(0f32, |most, x| most.max(x.abs()));
                if amax < 1e-30 {
                    return (0.0, vec![0; x.len()]);
                }
                (amax / most, x.iter().map(|x| (x * (most / amax)).round_ties_even() as i64).collect())
            })
            .collect();
        (0..self.rows)
            .map(|row| {
                let mut y = 0f32;
                for group in 0..self.groups() {
                    let first = group * self.group;
                    let (s, integers) = &blocks[first / BLOCK];
                    let of_group = integers.iter().enumerate().skip(first % BLOCK).take(self.group);
                    let trit = |i: usize| self.trits[row * self.cols + first / BLOCK * BLOCK + i] as i64;
                    let sum: i64 = of_group.map(|(i, x)| trit(i) * x).sum();
                    let scale = f16_to_f32(self.scales[row * self.groups() + group]);
                    y = (sum as f32 * s).mul_add(scale, y);
                }
                y * self.factors[row]
            })
            .collect()
    }
}

fn in_team<R: Send>(threads: usize, kernels: &'static Kernels, job: impl FnOnce(&Team) -> R + Send) -> R {
    let threads = if cfg!(target_family = "wasm") { 1 } else { threads };
    Pool::new(threads).expect("threads").run(|workers| job(&Team::new(workers, kernels)))
}

/// Outputs of all tokens together, `[token][row]`.
fn outputs(team: &Team, matrix: &Grouped, x: &[Vec<f32>], planes: usize) -> Vec<f32> {
    let mut rounded = GroupedActivations::default();
    for (mut row, x) in rounded.rows(x.len(), matrix.cols(), planes).expect("memory").zip(x) {
        row.quantize(team.kernels, x);
    }
    let mut out = vec![f32::NAN; x.len() * matrix.rows()];
    matrix.matmul(team, &rounded, &mut out);
    out
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn check(plain: &Plain, x: &[Vec<f32>], threads: usize) {
    for planes in [1, 2, 3] {
        let want: Vec<f32> = x.iter().flat_map(|x| plain.product(x, planes)).collect();
        for isa in Isa::available() {
            let kernels = kernels(Some(isa.name())).expect("available");
            for packing in
                if kernels.grouped_packing() == Packing::Base3 { &Packing::ALL[..] } else { &Packing::ALL[..1] }
            {
                let found = in_team(threads, kernels, |team| outputs(team, &plain.pack(team, *packing), x, planes));
                let what = format!("{} {packing:?}, {planes} planes, {} tokens", isa.name(), x.len());
                assert_eq!(
                    bits(&want),
                    bits(&found),
                    "{what}, {} × {} in groups of {}",
                    plain.rows,
                    plain.cols,
                    plain.group
                );
            }
        }
    }
}

/// Pseudorandom numbers.
fn random(seed: u32) -> impl FnMut() -> u32 {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    }
}

fn matrix(rows: usize, cols: usize, group: usize, seed: u32) -> Plain {
    let mut next = random(seed);
    let trits = (0..rows * cols).map(|_| next() as i8 % 3 - next() as i8 % 2).map(|trit| trit.clamp(-1, 1)).collect();
    let groups = cols.div_ceil(BLOCK) * (BLOCK / group);
    // Zeros, subnormals, both signs and all magnitudes.
    let scales = (0..rows * groups).map(|_| match next() % 8 {
        0 => 0,
        1 => (next() % 0x400) as u16,
        2 => 0x7bff,
        _ => (next() % 0x7c00) as u16 | (next() as u16 & 1) << 15,
    });
    let scales = scales.collect();
    let factors = (0..rows).map(|_| [1.0, 0.37][next() as usize % 2]).collect();
    Plain { rows, cols, group, trits, scales, factors }
}

fn activations(tokens: usize, cols: usize, seed: u32) -> Vec<Vec<f32>> {
    let mut next = random(seed);
    (0..tokens)
        .map(|_| {
            let sizes: Vec<f32> = (0..cols.div_ceil(BLOCK))
                .map(|_| [1.0, 1e-4, 3e4, 0.0, 1e-29, 1e-31, 1e-40][next() as usize % 7])
                .collect();
            (0..cols).map(|c| sizes[c / BLOCK] * (next() as f32 / (1 << 23) as f32 - 1.0)).collect()
        })
        .collect()
}

#[test]
fn every_shape_has_the_bits_of_plain_loops() {
    for (cols, rows) in [(1, 1), (64, 16), (100, 17), (128, 32), (192, 33), (640, 48), (704, 31), (1000, 5), (1408, 64)]
    {
        for group in [64, 128] {
            let plain = matrix(rows, cols, group, (cols + group) as u32);
            for tokens in [1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 25] {
                check(&plain, &activations(tokens, cols, tokens as u32), 1 + tokens % 2);
            }
        }
    }
}

#[test]
fn extreme_integers_are_exact() {
    for trit in [-1, 1] {
        for group in [64, 128] {
            let (rows, cols) = (32, 1280);
            let mut plain = matrix(rows, cols, group, 1);
            plain.trits.fill(trit);
            for value in [-1.0, 1.0, 32_512.5 / 32_639.0, -32_640.0 / 32_639.0] {
                // The largest magnitude decides the step; the others are the value.
                let x: Vec<f32> = (0..cols).map(|c| if c % BLOCK == 0 { 1.0 } else { value }).collect();
                check(&plain, std::slice::from_ref(&x), 1);
                check(&plain, &vec![x; 6], 1);
            }
        }
    }
}

#[test]
fn what_is_not_finite_is_never_hidden() {
    let plain = matrix(16, 300, 128, 3);
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for tokens in [1, 3] {
            let mut x = activations(tokens, 300, 4);
            x[tokens - 1][17] = value;
            for planes in [1, 2, 3] {
                for isa in Isa::available() {
                    let found = in_team(1, kernels(Some(isa.name())).expect("available"), |team| {
                        outputs(team, &plain.pack(team, Packing::TwoBit), &x, planes)
                    });
                    assert!(found[16 * (tokens - 1)..].iter().all(|y| y.is_nan()), "{}", isa.name());
                    assert!(found[..16 * (tokens - 1)].iter().all(|y| y.is_finite()));
                }
            }
        }
    }
}

/// |error| of a group ≤ z · s / 2 for z trits that are not zero (`docs/numerics.md`), beside the rounding of floats.
#[test]
fn the_error_is_within_its_bound() {
    let (rows, cols) = (16, 512);
    let mut plain = matrix(rows, cols, 128, 9);
    plain.factors.fill(1.0);
    plain.scales.iter_mut().for_each(|scale| *scale = u16::from_le_bytes(to_f16(0.02 + f16_to_f32(*scale % 0x2000))));
    let x = &activations(1, cols, 7)[0];
    for (planes, most) in [(1, 127.0), (2, 32_639.0f64), (3, 4_194_303.0)] {
        for (row, y) in plain.product(x, planes).iter().enumerate() {
            let (mut exact, mut bound, mut size) = (0.0, 0.0, 0.0);
            for (group, x) in x.chunks(BLOCK).enumerate() {
                let amax = x.iter().fold(0f64, |most, x| most.max(x.abs() as f64));
                let scale = f16_to_f32(plain.scales[row * 4 + group]) as f64;
                for (c, x) in x.iter().enumerate() {
                    let trit = plain.trits[row * cols + group * BLOCK + c] as f64;
                    exact += trit * *x as f64 * scale;
                    size += (trit * *x as f64 * scale).abs();
                    bound += trit.abs() * amax / most / 2.0 * scale;
                }
            }
            assert!((exact - *y as f64).abs() <= bound * 1.001 + size * 1e-6, "{exact} {y} {bound}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn random_shapes(rows in 1usize..70, cols in 1usize..2000, tokens in 1usize..14, group in 0usize..2, seed in any::<u32>()) {
        check(&matrix(rows, cols, [64, 128][group], seed), &activations(tokens, cols, seed ^ 1), 2);
    }
}
