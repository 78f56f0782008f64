//! Plain Rust, for any processor: the reference that every other instruction set must equal.

use super::f16::f16_to_f32_portable;
use super::isa::Isa;
use super::lanes::{F16Bytes, F32x16, SimdF32};
use super::packing::{BLOCK, GROUP, TWO_BIT_WORDS, WORD_COLS, Word};
use super::quantized_head::Int8Dot;
use super::table::{Kernels, stamp_floats};
use super::ternary_dot::TileSums;
use std::hint::black_box;

/// An array of 16 floats makes a vector. No function needs an instruction set, so all of them are safe to call.
struct Scalar;

stamp_floats! { lanes: Scalar }

pub(super) static TABLE: Kernels = Kernels { isa: Isa::Scalar, two_bit_sums, base3: None, peak_macs, floats: FLOATS };

impl SimdF32 for Scalar {
    const WIDE_TILES: bool = false;
    type Vector = F32x16;
    #[inline(always)]
    unsafe fn splat(x: f32) -> F32x16 {
        [x; 16]
    }
    #[inline(always)]
    unsafe fn load(x: &F32x16) -> F32x16 {
        *x
    }
    #[inline(always)]
    unsafe fn store(v: F32x16, out: &mut F32x16) {
        *out = v;
    }
    #[inline(always)]
    unsafe fn fma(a: F32x16, b: F32x16, c: F32x16) -> F32x16 {
        std::array::from_fn(|l| a[l].mul_add(b[l], c[l]))
    }
    #[inline(always)]
    unsafe fn f16_to_f32(h: &[F16Bytes; 16]) -> F32x16 {
        f16_to_f32_portable(h)
    }
}

impl Int8Dot for Scalar {
    type Weights = [i8; 32];
    type Sums = i32;
    #[inline(always)]
    unsafe fn zero() -> i32 {
        0
    }
    #[inline(always)]
    unsafe fn i8_to_i16(w: &[i8; 32]) -> [i8; 32] {
        *w
    }
    #[inline(always)]
    unsafe fn madd(sums: i32, w: [i8; 32], x: &[i16; 32]) -> i32 {
        w.iter().zip(x).fold(sums, |sum, (w, x)| sum + *w as i32 * *x as i32)
    }
    #[inline(always)]
    unsafe fn total(sums: i32) -> i32 {
        sums
    }
}

fn two_bit_sums(words: &[Word], tokens: &[&[i8]], sums: &mut TileSums) {
    let per_group = tokens[0].len() / WORD_COLS;
    for (token, sums) in tokens.iter().zip(sums) {
        for (words, sums) in words.chunks(per_group).zip(sums.as_chunks_mut::<GROUP>().0) {
            *sums = [0; GROUP];
            for (i, word) in words.iter().enumerate() {
                let first = i / TWO_BIT_WORDS * BLOCK + 4 * (i % TWO_BIT_WORDS);
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

/// The multiply-adds of a plain loop as the compiler vectorises it; one token a round.
fn peak_macs(rounds: usize) -> u64 {
    let codes = black_box([1u8; GROUP]);
    let mut sums = [0i32; GROUP];
    for _ in 0..rounds {
        // Opaque in each iteration: the compiler must not move the products out of the loop.
        let q = black_box(1i8) as i32;
        for (sum, code) in sums.iter_mut().zip(codes) {
            *sum += (code & 3) as i32 * q;
        }
    }
    sums.into_iter().map(|sum| sum as u64).sum()
}
