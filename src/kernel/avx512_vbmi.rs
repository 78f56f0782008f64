//! AVX-512 with VNNI and VBMI: trits packed five to a byte.
//!
//! Inner loop, for a word (16 rows × 20 columns), 320 weights:
//!
//! | | shared by a tile's tokens | per token |
//! |---|---|---|
//! | one token | 3 `vpsubb`, 2 `vpminub`, 1 `vpermi2b`, 4 `vpandd` | 5 `vpdpbusd` with broadcast load |
//! | several | the same, 4 `vpsrld`, 1 `vpandd` | 5 `vpdpbusd`, two words sharing each broadcast |
//!
//! Bound: for one token reading memory, 64 bytes for 320 weights; for several as with four codes a byte.

use super::avx512::{codes, load, splat, store};
use super::avx512_vnni::Vnni;
use super::float::{ahead, prefetch};
use super::packing::{BASE3_BLOCK, BASE3_WORDS, BLOCK_WORDS, EXPANDED_WORDS, TWO_BIT_OF_BASE3, Word};
use super::sums::{PLANES, TernaryDot, strip};
use super::ternary::Sums;
use super::{Base3Kernels, promised};
use std::arch::x86_64::*;

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512vbmi")]
fn sums(words: &[Word], tokens: &[&[i8]], out: &mut Sums) {
    strip::<Base3, 12, 2, BASE3_BLOCK, BASE3_WORDS>(words, tokens, out);
}

pub(super) const BASE3: Base3Kernels = Base3Kernels { sums, expand };

struct Base3;

impl TernaryDot for Base3 {
    const ROWS: usize = 16;
    const PLANES: usize = 5;
    const CHAINS: usize = 5;
    /// Its bytes of four codes, and 81 times its fifth codes.
    type Part = [__m512i; 2];
    type Bytes = __m512i;
    type Sum = __m512i;
    promised! {
        fn zero() -> __m512i { _mm512_setzero_si512() }
        fn load(word: &Word, _: usize) -> [__m512i; 2] { two_bit_and_fifth(word) }
        fn codes([four, fifth]: [__m512i; 2]) -> [__m512i; PLANES] {
            // SAFETY: registers only. 81 and 162 are 0101'0001 and 1010'0010.
            let [a, b, c, d, _] = codes(four);
            [a, b, c, d, _mm512_and_si512(_mm512_srli_epi32(fifth, 6), _mm512_set1_epi8(3))]
        }
        fn splat(q: [i8; 4]) -> __m512i { splat(q) }
        fn dot(sum: __m512i, codes: __m512i, q: __m512i) -> __m512i { _mm512_dpbusd_epi32(sum, codes, q) }
        fn packed_dot(sums: &mut [__m512i; PLANES], [four, fifth]: [__m512i; 2], q: [__m512i; PLANES]) {
            Vnni::packed_dot(sums, four, q);
            sums[4] = _mm512_dpbusd_epi32(sums[4], fifth, q[4]);
        }
        /// The fifth codes count 81-fold; INVERSE is the inverse of 81 modulo 2³².
        fn packed_sum(sums: [__m512i; PLANES]) -> __m512i {
            const INVERSE: i32 = 0x7819_48b1;
            let fifth = _mm512_mullo_epi32(sums[4], _mm512_set1_epi32(INVERSE));
            _mm512_add_epi32(Vnni::packed_sum(sums), fifth)
        }
        fn store(sum: __m512i, out: &mut [i32]) { store(sum, out) }
    }
}

/// A word's bytes of four codes, and 81 times its fifth codes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn two_bit_and_fifth(word: &Word) -> [__m512i; 2] {
    let (halves, _) = TWO_BIT_OF_BASE3.as_chunks::<64>();
    // SAFETY: 64 bytes are read.
    let table =
        unsafe { [_mm512_loadu_si512(halves[0].as_ptr().cast()), _mm512_loadu_si512(halves[1].as_ptr().cast())] };
    let word = load(word);
    // The remainder by 81 is the least of these: a difference below zero wraps round to a larger byte.
    let less = [_mm512_sub_epi8(word, _mm512_set1_epi8(81)), _mm512_sub_epi8(word, _mm512_set1_epi8(162u8 as i8))];
    let rest = _mm512_min_epu8(_mm512_min_epu8(word, less[0]), less[1]);
    [_mm512_permutex2var_epi8(table[0], rest, table[1]), _mm512_sub_epi8(word, rest)]
}

/// Blocks of five as blocks of four.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn expand(words: &[Word], out: &mut [Word]) {
    let mask = _mm512_set1_epi8(3);
    let blocks = words.as_chunks::<BASE3_WORDS>().0.iter().zip(out.as_chunks_mut::<EXPANDED_WORDS>().0);
    for (words, out) in blocks {
        for w in 0..BLOCK_WORDS {
            let mut last = _mm512_setzero_si512();
            for part in 0..4 {
                let i = BLOCK_WORDS * part + w;
                prefetch(ahead(&words[i]));
                let [four, fifth] = two_bit_and_fifth(&words[i]);
                write(&mut out[i], four);
                let code = _mm512_and_si512(_mm512_srli_epi32(fifth, 6), mask);
                last = _mm512_or_si512(_mm512_slli_epi32(last, 2), code);
            }
            write(&mut out[BASE3_WORDS + w], last);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn write(word: &mut Word, bytes: __m512i) {
    // SAFETY: a word is 64 bytes, aligned to 64.
    unsafe { _mm512_store_si512(word.0.as_mut_ptr().cast(), bytes) };
}
