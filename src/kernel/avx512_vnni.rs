//! AVX-512 with VNNI.
//!
//! Ternary inner loop, for a word (16 rows × 16 columns), 256 weights:
//!
//! | | shared by a tile's tokens | per token |
//! |---|---|---|
//! | one token | 4 `vpandd`, no shifts: the sums of the higher planes are shifted back at the end | 4 `vpdpbusd` with broadcast load |
//! | several | 4 `vpandd`, 3 `vpsrld` | 4 `vpdpbusd`, two words sharing each broadcast |
//!
//! Bound: one 512-bit `vpdpbusd` a cycle on Zen 4, two on Zen 5: 64 or 128 multiply-adds a cycle.

use super::avx2::prefetch;
use super::avx512::{Avx512, lane_sum};
use super::float::{ahead, slices, stamp_floats, with_float_kernels};
use super::ternary::{BLOCK, BLOCK_WORDS, GROUP, STRIP, Sums, TILE, WORD_COLS, Word};
use super::{Isa, Kernels};
use std::arch::x86_64::*;
use std::hint::black_box;

with_float_kernels!(stamp_floats Avx512 "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c");

pub(super) static TABLE: Kernels = Kernels { isa: Isa::Avx512Vnni, ternary_sums, dots, floats: FLOATS };

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn ternary_sums(words: &[Word], tokens: &[&[i8]], sums: &mut Sums) {
    let per_group = tokens[0].len() / WORD_COLS;
    if let [token] = tokens {
        for (g, words) in words.chunks(per_group).enumerate() {
            single(words, token, &mut sums[0][g * GROUP..(g + 1) * GROUP]);
        }
    } else if words.len() == 2 * per_group {
        let (a, b) = words.split_at(per_group);
        tiles::<2>([a, b], tokens, sums);
    } else {
        tiles::<1>([words], tokens, sums);
    }
}

/// The four code planes of a word, bytes 0 to 3.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn planes(word: &Word, mask: __m512i) -> [__m512i; 4] {
    // SAFETY: a word is 64 bytes, aligned to 64.
    let word = unsafe { _mm512_load_si512(word.0.as_ptr().cast()) };
    [
        _mm512_and_si512(_mm512_srli_epi32(word, 6), mask),
        _mm512_and_si512(_mm512_srli_epi32(word, 4), mask),
        _mm512_and_si512(_mm512_srli_epi32(word, 2), mask),
        _mm512_and_si512(word, mask),
    ]
}

/// One token: codes are masked in place, so plane p counts 4^(3-p)-fold; 2·64·4·127 a step leaves i32 ample room.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn single(words: &[Word], token: &[i8], out: &mut [i32]) {
    let masks = [0xc0u8, 0x30, 0x0c, 0x03].map(|m| _mm512_set1_epi8(m as i8));
    let mut acc = [_mm512_setzero_si512(); 4];
    for (block, q) in words.as_chunks::<BLOCK_WORDS>().0.iter().zip(token.as_chunks::<BLOCK>().0) {
        for (w, word) in block.iter().enumerate() {
            prefetch(ahead(word));
            // SAFETY: a word is 64 bytes, aligned to 64.
            let word = unsafe { _mm512_load_si512(word.0.as_ptr().cast()) };
            for p in 0..4 {
                acc[p] = _mm512_dpbusd_epi32(acc[p], _mm512_and_si512(word, masks[p]), broadcast(q, p, w));
            }
        }
    }
    let high = _mm512_add_epi32(_mm512_srai_epi32(acc[0], 6), _mm512_srai_epi32(acc[1], 4));
    let low = _mm512_add_epi32(_mm512_srai_epi32(acc[2], 2), acc[3]);
    // SAFETY: the caller passes sixteen sums.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), _mm512_add_epi32(high, low)) };
}

/// The four activations that plane p of word w meets.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(q: &[i8; BLOCK], p: usize, w: usize) -> __m512i {
    let q = q[32 * p + 4 * w..].first_chunk::<4>().expect("within the block");
    _mm512_set1_epi32(i32::from_le_bytes(q.map(|q| q as u8)))
}

#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn tiles<const G: usize>(words: [&[Word]; G], tokens: &[&[i8]], sums: &mut [[i32; STRIP]]) {
    let mut t = 0;
    while t < tokens.len() {
        let (left, sums) = (&tokens[t..], &mut sums[t..]);
        t += match left.len() {
            TILE.. => tile::<TILE, G>(words, left, sums),
            8.. => tile::<8, G>(words, left, sums),
            4.. => tile::<4, G>(words, left, sums),
            2.. => tile::<2, G>(words, left, sums),
            _ => tile::<1, G>(words, left, sums),
        };
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
#[expect(clippy::needless_range_loop, reason = "word, plane, token and group index several arrays at once")]
fn tile<const N: usize, const G: usize>(words: [&[Word]; G], tokens: &[&[i8]], sums: &mut [[i32; STRIP]]) -> usize {
    let mask = _mm512_set1_epi8(3);
    let mut acc = [[_mm512_setzero_si512(); G]; N];
    let tokens: [&[[i8; BLOCK]]; N] = slices(|t| tokens[t].as_chunks().0);
    let words: [&[[Word; BLOCK_WORDS]]; G] = slices(|g| words[g].as_chunks().0);
    for b in 0..words[0].len() {
        for w in 0..BLOCK_WORDS {
            let mut codes = [[_mm512_setzero_si512(); 4]; G];
            for g in 0..G {
                prefetch(ahead(&words[g][b][w]));
                codes[g] = planes(&words[g][b][w], mask);
            }
            for p in 0..4 {
                for t in 0..N {
                    let q = broadcast(&tokens[t][b], p, w);
                    for g in 0..G {
                        acc[t][g] = _mm512_dpbusd_epi32(acc[t][g], codes[g][p], q);
                    }
                }
            }
        }
    }
    for t in 0..N {
        for g in 0..G {
            let out: &mut [i32] = &mut sums[t][g * GROUP..(g + 1) * GROUP];
            // SAFETY: sixteen sums are written to a slice of sixteen.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), acc[t][g]) };
        }
    }
    N
}

/// Twenty-four chains, more than the instruction's latency and ports can hold.
#[target_feature(enable = "avx512f,avx512vnni")]
fn dots(rounds: usize) -> u64 {
    let [a, b] = black_box([_mm512_set1_epi8(1); 2]);
    let mut acc = black_box([_mm512_setzero_si512(); 24]);
    for _ in 0..rounds {
        for acc in &mut acc {
            *acc = _mm512_dpbusd_epi32(*acc, a, b);
        }
    }
    acc.into_iter().map(|acc| lane_sum(acc)).sum()
}
