//! AVX-512 F, BW, DQ, VL without its dot products.
//!
//! Ternary inner loop, for a word (16 rows × 16 columns), 256 weights:
//!
//! | | shared by a tile's tokens | per token |
//! |---|---|---|
//! | one token | 4 `vpandd`, 1 `vpsrld`: two planes count 4-fold, their sum is shifted back at the end | 4 × (`vpbroadcastd`, `vpmaddubsw`, `vpaddw`) |
//! | several | 4 `vpandd`, 3 `vpsrld` | the same |
//!
//! And once a block `vpmaddwd`, `vpaddd`. Bound: 8 vector operations for 256 multiply-adds a token.

use super::float::{F16Bytes, Lanes, stamp_floats, with_float_kernels};
use super::packing::{GROUP, Word};
use super::sums::{PLANES, TernaryDot, stamp_sums};
use super::{Isa, Kernels, promised};
use std::arch::x86_64::*;

pub(super) struct Avx512;

impl Lanes for Avx512 {
    const MANY: bool = true;
    type V = __m512;
    promised! {
        fn splat(x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn load(x: &[f32; 16]) -> __m512 {
            // SAFETY: 64 bytes are read.
            _mm512_loadu_ps(x.as_ptr())
        }
        fn store(v: __m512, out: &mut [f32; 16]) {
            // SAFETY: 64 bytes are written.
            _mm512_storeu_ps(out.as_mut_ptr(), v)
        }
        fn fma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn f16_to_f32(h: &[F16Bytes; 16]) -> __m512 {
            // SAFETY: 32 bytes are read.
            _mm512_cvtph_ps(_mm256_loadu_si256(h.as_ptr().cast()))
        }
    }
    type W = __m512i;
    type I = __m512i;
    promised! {
        fn zero() -> __m512i { _mm512_setzero_si512() }
        fn i8_to_i16(w: &[i8; 32]) -> __m512i { _mm512_cvtepi8_epi16(_mm256_loadu_si256(w.as_ptr().cast())) }
        fn madd(sums: __m512i, w: __m512i, x: &[i16; 32]) -> __m512i {
            // SAFETY: 64 bytes are read.
            _mm512_add_epi32(sums, _mm512_madd_epi16(w, _mm512_loadu_si512(x.as_ptr().cast())))
        }
        fn sum(sums: __m512i) -> i32 { _mm512_reduce_add_epi32(sums) }
    }
}

with_float_kernels!(stamp_floats Avx512 "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c");

stamp_sums!(Madd, "avx512f,avx512bw", 8, 1);

pub(super) static TABLE: Kernels =
    Kernels { isa: Isa::Avx512, two_bit_sums: sums, base3: None, peak_macs, floats: FLOATS };

/// `vpmaddubsw` into sums of i16, which hold a block, and i32.
struct Madd;

impl TernaryDot for Madd {
    const ROWS: usize = 16;
    const CHAINS: usize = 2;
    type Part = __m512i;
    type Bytes = __m512i;
    type Sum = [__m512i; 2];
    promised! {
        fn zero() -> [__m512i; 2] { [_mm512_setzero_si512(); 2] }
        fn load(word: &Word, _: usize) -> __m512i { load(word) }
        fn codes(word: __m512i) -> [__m512i; PLANES] { codes(word) }
        fn splat(q: [i8; 4]) -> __m512i { splat(q) }
        fn dot([narrow, wide]: [__m512i; 2], codes: __m512i, q: __m512i) -> [__m512i; 2] {
            [_mm512_add_epi16(narrow, _mm512_maddubs_epi16(codes, q)), wide]
        }
        fn settle([narrow, wide]: [__m512i; 2]) -> [__m512i; 2] {
            let sum = _mm512_madd_epi16(narrow, _mm512_set1_epi16(1));
            [_mm512_setzero_si512(), _mm512_add_epi32(wide, sum)]
        }
        /// The second accumulator counts 4-fold: 16 × 2 × 4·2·127 = 32,512 a block.
        fn packed_dot(sums: &mut [[__m512i; 2]; PLANES], word: __m512i, q: [__m512i; PLANES]) {
            let high = _mm512_srli_epi32(word, 4);
            for (part, q) in [(high, [q[1], q[0]]), (word, [q[3], q[2]])] {
                sums[0] = Self::dot(sums[0], _mm512_and_si512(part, _mm512_set1_epi8(0x03)), q[0]);
                sums[1] = Self::dot(sums[1], _mm512_and_si512(part, _mm512_set1_epi8(0x0c)), q[1]);
            }
        }
        fn packed_sum([[_, one], [_, four], ..]: [[__m512i; 2]; PLANES]) -> [__m512i; 2] {
            [_mm512_setzero_si512(), _mm512_add_epi32(one, _mm512_srai_epi32(four, 2))]
        }
        fn store([_, wide]: [__m512i; 2], out: &mut [i32]) { store(wide, out) }
    }
}

/// A word.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(word: &Word) -> __m512i {
    // SAFETY: a word is 64 bytes, aligned to 64.
    unsafe { _mm512_load_si512(word.0.as_ptr().cast()) }
}

/// The four code planes of a word of four codes a byte.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn codes(word: __m512i) -> [__m512i; PLANES] {
    let mask = _mm512_set1_epi8(3);
    [
        _mm512_and_si512(_mm512_srli_epi32(word, 6), mask),
        _mm512_and_si512(_mm512_srli_epi32(word, 4), mask),
        _mm512_and_si512(_mm512_srli_epi32(word, 2), mask),
        _mm512_and_si512(word, mask),
        _mm512_setzero_si512(),
    ]
}

/// Four activations, for every row.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn splat(q: [i8; 4]) -> __m512i {
    _mm512_set1_epi32(i32::from_le_bytes([q[0] as u8, q[1] as u8, q[2] as u8, q[3] as u8]))
}

/// Writes sixteen sums.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store(sums: __m512i, out: &mut [i32]) {
    assert_eq!(out.len(), GROUP);
    // SAFETY: sixteen sums are written to a slice of sixteen.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), sums) };
}
