//! AVX2 with FMA and F16C.
//!
//! Ternary inner loop, for half a word (8 rows × 16 columns) and one token: 4 `vpand` + 3 `vpsrld` shared by the
//! tokens of a tile; per token 4 × (`vpbroadcastd`, `vpmaddubsw`, `vpaddw`), and once a block of 128 columns
//! `vpmaddwd` + `vpaddd`. i16 sums hold a block: 8 words × 4 planes × 2 products × 2·127 = 16,256.

use super::float::{F16Bytes, Lanes, slices, stamp_floats, with_float_kernels};
use super::ternary::{BLOCK, BLOCK_WORDS, STRIP, Sums, WORD_COLS, Word};
use super::{Isa, Kernels};
use std::arch::asm;
use std::arch::x86_64::*;
use std::hint::black_box;

pub(super) struct Avx2;

impl Lanes for Avx2 {
    const MANY: bool = false;
    type V = [__m256; 2];
    #[inline(always)]
    unsafe fn splat(x: f32) -> [__m256; 2] {
        // SAFETY: AVX2, FMA and F16C by the caller's promise, here and below.
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    unsafe fn load(x: &[f32; 16]) -> [__m256; 2] {
        // SAFETY: 64 bytes are read.
        unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))] }
    }
    #[inline(always)]
    unsafe fn store(v: [__m256; 2], out: &mut [f32; 16]) {
        // SAFETY: 64 bytes are written.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), v[1]);
        }
    }
    #[inline(always)]
    unsafe fn fma(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: registers only.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }
    #[inline(always)]
    unsafe fn widen_f16(h: &[F16Bytes; 16]) -> [__m256; 2] {
        // SAFETY: 32 bytes are read.
        unsafe {
            let p = h.as_ptr().cast::<__m128i>();
            [_mm256_cvtph_ps(_mm_loadu_si128(p)), _mm256_cvtph_ps(_mm_loadu_si128(p.add(1)))]
        }
    }
    type W = [__m256i; 2];
    type I = __m256i;
    #[inline(always)]
    unsafe fn zero() -> __m256i {
        // SAFETY: registers only.
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn widen_i8(w: &[i8; 32]) -> [__m256i; 2] {
        // SAFETY: 32 bytes are read.
        unsafe {
            let p = w.as_ptr().cast::<__m128i>();
            [_mm256_cvtepi8_epi16(_mm_loadu_si128(p)), _mm256_cvtepi8_epi16(_mm_loadu_si128(p.add(1)))]
        }
    }
    #[inline(always)]
    unsafe fn madd(sums: __m256i, w: [__m256i; 2], x: &[i16; 32]) -> __m256i {
        // SAFETY: 64 bytes are read.
        unsafe {
            let p = x.as_ptr().cast::<__m256i>();
            let low = _mm256_madd_epi16(w[0], _mm256_loadu_si256(p));
            let high = _mm256_madd_epi16(w[1], _mm256_loadu_si256(p.add(1)));
            _mm256_add_epi32(sums, _mm256_add_epi32(low, high))
        }
    }
    #[inline(always)]
    unsafe fn sum(sums: __m256i) -> i32 {
        let mut lanes = [0i32; 8];
        // SAFETY: 32 bytes are written.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sums) };
        lanes.iter().sum()
    }
    #[inline(always)]
    fn prefetch<T>(at: *const T) {
        prefetch(at);
    }
}

/// Asks for a cache line.
#[inline(always)]
pub(super) fn prefetch<T>(at: *const T) {
    // SAFETY: a hint, which never faults; SSE is part of every x86-64.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

with_float_kernels!(stamp_floats Avx2 "avx2,fma,f16c");

pub(super) static TABLE: Kernels = Kernels { isa: Isa::Avx2, ternary_sums, dots, floats: FLOATS };

#[target_feature(enable = "avx2")]
fn ternary_sums(words: &[Word], tokens: &[&[i8]], sums: &mut Sums) {
    let per_group = tokens[0].len() / WORD_COLS;
    for (g, words) in words.chunks(per_group).enumerate() {
        for half in 0..2 {
            let first_row = 16 * g + 8 * half;
            let mut t = 0;
            while t + 4 <= tokens.len() {
                tile::<4>(words, half, tokens[t..].first_chunk().expect("four"), &mut sums[t..], first_row);
                t += 4;
            }
            while t < tokens.len() {
                tile::<1>(words, half, &[tokens[t]], &mut sums[t..], first_row);
                t += 1;
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn tile<const N: usize>(words: &[Word], half: usize, tokens: &[&[i8]; N], sums: &mut [[i32; STRIP]], first_row: usize) {
    let ones = _mm256_set1_epi16(1);
    let tokens: [&[[i8; BLOCK]]; N] = slices(|t| tokens[t].as_chunks().0);
    let mask = _mm256_set1_epi8(3);
    let mut wide = [_mm256_setzero_si256(); N];
    for (b, block) in words.as_chunks::<BLOCK_WORDS>().0.iter().enumerate() {
        let mut narrow = [_mm256_setzero_si256(); N];
        for (w, word) in block.iter().enumerate() {
            // SAFETY: a word is 64 bytes; `half` is 0 or 1.
            let word = unsafe { _mm256_load_si256(word.0.as_ptr().cast::<__m256i>().add(half)) };
            let planes = [
                _mm256_and_si256(_mm256_srli_epi32(word, 6), mask),
                _mm256_and_si256(_mm256_srli_epi32(word, 4), mask),
                _mm256_and_si256(_mm256_srli_epi32(word, 2), mask),
                _mm256_and_si256(word, mask),
            ];
            for (p, plane) in planes.iter().enumerate() {
                for t in 0..N {
                    let q = tokens[t][b][32 * p + 4 * w..].first_chunk::<4>().expect("within the block");
                    let q = _mm256_set1_epi32(i32::from_le_bytes(q.map(|q| q as u8)));
                    narrow[t] = _mm256_add_epi16(narrow[t], _mm256_maddubs_epi16(*plane, q));
                }
            }
        }
        for t in 0..N {
            wide[t] = _mm256_add_epi32(wide[t], _mm256_madd_epi16(narrow[t], ones));
        }
    }
    for t in 0..N {
        let out: &mut [i32] = &mut sums[t][first_row..first_row + 8];
        // SAFETY: eight sums are written to a slice of eight.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), wide[t]) };
    }
}

/// A block of the ternary loop in each round, of four tokens, less its loads and its unpacking of codes.
#[target_feature(enable = "avx2")]
fn dots(rounds: usize) -> u64 {
    let ones = _mm256_set1_epi16(1);
    let mut planes = [_mm256_set1_epi8(1); 4];
    let tokens = black_box([_mm256_set1_epi8(1); 4]);
    let mut wide = [_mm256_setzero_si256(); 4];
    for _ in 0..rounds {
        let mut narrow = [_mm256_setzero_si256(); 4];
        for _ in 0..BLOCK_WORDS {
            for plane in &mut planes {
                *plane = opaque(*plane);
                for t in 0..4 {
                    narrow[t] = _mm256_add_epi16(narrow[t], _mm256_maddubs_epi16(*plane, tokens[t]));
                }
            }
        }
        for t in 0..4 {
            wide[t] = _mm256_add_epi32(wide[t], _mm256_madd_epi16(narrow[t], ones));
        }
    }
    wide.into_iter().map(|wide| lane_sum(wide)).sum()
}

/// The sum of eight counts.
#[target_feature(enable = "avx2")]
pub(super) fn lane_sum(counts: __m256i) -> u64 {
    let mut lanes = [0u32; 8];
    // SAFETY: eight counts are written to an array of eight.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), counts) };
    lanes.into_iter().map(u64::from).sum()
}

/// The same value, about which the compiler knows nothing: it must not take the products out of the loop.
#[inline]
#[target_feature(enable = "avx2")]
fn opaque(mut x: __m256i) -> __m256i {
    // SAFETY: no instruction at all.
    unsafe { asm!("/* {x} */", x = inout(ymm_reg) x, options(nomem, nostack, preserves_flags)) };
    x
}
