//! Plain Rust, for any processor: what every other instruction set must equal.

use super::float::{F16Bytes, Lanes, f16_to_f32_portable, stamp_floats, with_float_kernels};
use super::packing::{BASE3_WORDS, BLOCK, BLOCK_WORDS, EXPANDED_WORDS, GROUP, TWO_BIT_OF_BASE3, WORD_COLS, Word};
use super::ternary::Sums;
use super::{Base3Kernels, Isa, Kernels, promised};
use std::hint::black_box;

struct Plain;

impl Lanes for Plain {
    const MANY: bool = false;
    type V = [f32; 16];
    promised! {
        fn splat(x: f32) -> [f32; 16] { [x; 16] }
        fn load(x: &[f32; 16]) -> [f32; 16] { *x }
        fn store(v: [f32; 16], out: &mut [f32; 16]) { *out = v; }
        fn fma(a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
            std::array::from_fn(|l| a[l].mul_add(b[l], c[l]))
        }
        fn f16_to_f32(h: &[F16Bytes; 16]) -> [f32; 16] { f16_to_f32_portable(h) }
    }
    type W = [i8; 32];
    type I = i32;
    promised! {
        fn zero() -> i32 { 0 }
        fn i8_to_i16(w: &[i8; 32]) -> [i8; 32] { *w }
        fn madd(sums: i32, w: [i8; 32], x: &[i16; 32]) -> i32 {
            w.iter().zip(x).fold(sums, |sum, (w, x)| sum + *w as i32 * *x as i32)
        }
        fn sum(sums: i32) -> i32 { sums }
    }
}

with_float_kernels!(stamp_floats Plain);

pub(super) static TABLE: Kernels = Kernels { isa: Isa::Scalar, two_bit_sums, base3: None, peak_macs, floats: FLOATS };

fn two_bit_sums(words: &[Word], tokens: &[&[i8]], sums: &mut Sums) {
    let per_group = tokens[0].len() / WORD_COLS;
    for (token, sums) in tokens.iter().zip(sums) {
        for (words, sums) in words.chunks(per_group).zip(sums.as_chunks_mut::<GROUP>().0) {
            *sums = [0; GROUP];
            for (i, word) in words.iter().enumerate() {
                let first = i / BLOCK_WORDS * BLOCK + 4 * (i % BLOCK_WORDS);
                for plane in 0..4 {
                    for j in 0..4 {
                        let q = token[first + 32 * plane + j] as i32;
                        for (r, sum) in sums.iter_mut().enumerate() {
                            *sum += (word.0[4 * r + j] >> (6 - 2 * plane) & 3) as i32 * q;
                        }
                    }
                }
            }
        }
    }
}

pub(super) const BASE3: Base3Kernels = Base3Kernels { sums: five_sums, expand };

fn five_sums(words: &[Word], tokens: &[&[i8]], sums: &mut Sums) {
    let mut fours = vec![Word([0; 64]); words.len() / 4 * 5];
    expand(words, &mut fours);
    two_bit_sums(&fours, tokens, sums);
}

fn expand(words: &[Word], out: &mut [Word]) {
    for (words, out) in words.chunks(BASE3_WORDS).zip(out.chunks_mut(EXPANDED_WORDS)) {
        let (fours, last) = out.split_at_mut(BASE3_WORDS);
        for (w, (word, out)) in words.iter().zip(fours).enumerate() {
            let last = &mut last[w % BLOCK_WORDS].0;
            for ((byte, out), last) in word.0.iter().zip(&mut out.0).zip(last) {
                *out = TWO_BIT_OF_BASE3[*byte as usize % 81];
                *last = (*last << 2) | (byte / 81);
            }
        }
    }
}

/// What the compiler makes of a plain loop, for one token in each round.
fn peak_macs(rounds: usize) -> u64 {
    let codes = black_box([1u8; GROUP]);
    let mut sums = [0i32; GROUP];
    for _ in 0..rounds {
        // Opaque in each turn: the compiler must not take the products out of the loop.
        let q = black_box(1i8) as i32;
        for (sum, code) in sums.iter_mut().zip(codes) {
            *sum += (code & 3) as i32 * q;
        }
    }
    sums.into_iter().map(|sum| sum as u64).sum()
}
