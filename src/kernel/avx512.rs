//! AVX-512 F, BW, DQ, VL without its dot products.
//!
//! Ternary inner loop, for a word (16 rows × 16 columns) and one token: 4 `vpandd` + 3 `vpsrld` shared by the tokens
//! of a tile; per token 4 × (`vpbroadcastd`, `vpmaddubsw`, `vpaddw`), and once a block `vpmaddwd` + `vpaddd`.

use super::avx2::prefetch;
use super::float::{F16Bytes, Lanes, slices, stamp_floats, with_float_kernels};
use super::ternary::{BLOCK, BLOCK_WORDS, GROUP, STRIP, Sums, WORD_COLS, Word};
use super::{Isa, Kernels};
use std::arch::asm;
use std::arch::x86_64::*;
use std::hint::black_box;

pub(super) struct Avx512;

impl Lanes for Avx512 {
    const MANY: bool = true;
    type V = __m512;
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        // SAFETY: AVX-512 F by the caller's promise, here and below.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(x: &[f32; 16]) -> __m512 {
        // SAFETY: 64 bytes are read.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn store(v: __m512, out: &mut [f32; 16]) {
        // SAFETY: 64 bytes are written.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: registers only.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn widen_f16(h: &[F16Bytes; 16]) -> __m512 {
        // SAFETY: 32 bytes are read.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(h.as_ptr().cast())) }
    }
    type W = __m512i;
    type I = __m512i;
    #[inline(always)]
    unsafe fn zero() -> __m512i {
        // SAFETY: registers only.
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn widen_i8(w: &[i8; 32]) -> __m512i {
        // SAFETY: 32 bytes are read; AVX-512 BW by the caller's promise.
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(w.as_ptr().cast())) }
    }
    #[inline(always)]
    unsafe fn madd(sums: __m512i, w: __m512i, x: &[i16; 32]) -> __m512i {
        // SAFETY: 64 bytes are read.
        unsafe { _mm512_add_epi32(sums, _mm512_madd_epi16(w, _mm512_loadu_si512(x.as_ptr().cast()))) }
    }
    #[inline(always)]
    unsafe fn sum(sums: __m512i) -> i32 {
        // SAFETY: registers only.
        unsafe { _mm512_reduce_add_epi32(sums) }
    }
    #[inline(always)]
    fn prefetch<T>(at: *const T) {
        prefetch(at);
    }
}

with_float_kernels!(stamp_floats Avx512 "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c");

pub(super) static TABLE: Kernels = Kernels { isa: Isa::Avx512, ternary_sums, dots, floats: FLOATS };

#[target_feature(enable = "avx512f,avx512bw")]
fn ternary_sums(words: &[Word], tokens: &[&[i8]], sums: &mut Sums) {
    let per_group = tokens[0].len() / WORD_COLS;
    for (g, words) in words.chunks(per_group).enumerate() {
        let mut t = 0;
        while t + 6 <= tokens.len() {
            tile::<6>(words, tokens[t..].first_chunk().expect("six"), &mut sums[t..], g * GROUP);
            t += 6;
        }
        while t < tokens.len() {
            tile::<1>(words, &[tokens[t]], &mut sums[t..], g * GROUP);
            t += 1;
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn tile<const N: usize>(words: &[Word], tokens: &[&[i8]; N], sums: &mut [[i32; STRIP]], first_row: usize) {
    let ones = _mm512_set1_epi16(1);
    let tokens: [&[[i8; BLOCK]]; N] = slices(|t| tokens[t].as_chunks().0);
    let mask = _mm512_set1_epi8(3);
    let mut wide = [_mm512_setzero_si512(); N];
    for (b, block) in words.as_chunks::<BLOCK_WORDS>().0.iter().enumerate() {
        let mut narrow = [_mm512_setzero_si512(); N];
        for (w, word) in block.iter().enumerate() {
            let planes = super::avx512_vnni::planes(word, mask);
            for (p, plane) in planes.iter().enumerate() {
                for t in 0..N {
                    let q = tokens[t][b][32 * p + 4 * w..].first_chunk::<4>().expect("within the block");
                    let q = _mm512_set1_epi32(i32::from_le_bytes(q.map(|q| q as u8)));
                    narrow[t] = _mm512_add_epi16(narrow[t], _mm512_maddubs_epi16(*plane, q));
                }
            }
        }
        for t in 0..N {
            wide[t] = _mm512_add_epi32(wide[t], _mm512_madd_epi16(narrow[t], ones));
        }
    }
    for t in 0..N {
        let out: &mut [i32] = &mut sums[t][first_row..first_row + GROUP];
        // SAFETY: sixteen sums are written to a slice of sixteen.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), wide[t]) };
    }
}

/// A block of the ternary loop in each round, of six tokens, less its loads and its unpacking of codes.
#[target_feature(enable = "avx512f,avx512bw")]
fn dots(rounds: usize) -> u64 {
    let ones = _mm512_set1_epi16(1);
    let mut planes = [_mm512_set1_epi8(1); 4];
    let tokens = black_box([_mm512_set1_epi8(1); 6]);
    let mut wide = [_mm512_setzero_si512(); 6];
    for _ in 0..rounds {
        let mut narrow = [_mm512_setzero_si512(); 6];
        for _ in 0..BLOCK_WORDS {
            for plane in &mut planes {
                *plane = opaque(*plane);
                for t in 0..6 {
                    narrow[t] = _mm512_add_epi16(narrow[t], _mm512_maddubs_epi16(*plane, tokens[t]));
                }
            }
        }
        for t in 0..6 {
            wide[t] = _mm512_add_epi32(wide[t], _mm512_madd_epi16(narrow[t], ones));
        }
    }
    wide.into_iter().map(|wide| lane_sum(wide)).sum()
}

/// The sum of sixteen counts.
#[target_feature(enable = "avx512f")]
pub(super) fn lane_sum(counts: __m512i) -> u64 {
    let mut lanes = [0u32; 16];
    // SAFETY: sixteen counts are written to an array of sixteen.
    unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), counts) };
    lanes.into_iter().map(u64::from).sum()
}

/// The same value, about which the compiler knows nothing: it must not take the products out of the loop.
#[inline]
#[target_feature(enable = "avx512f")]
fn opaque(mut x: __m512i) -> __m512i {
    // SAFETY: no instruction at all.
    unsafe { asm!("/* {x} */", x = inout(zmm_reg) x, options(nomem, nostack, preserves_flags)) };
    x
}
