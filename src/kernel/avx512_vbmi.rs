//! AVX-512 with VNNI and VBMI, whose byte look-ups unpack base3 codes quickly.
//!
//! Inner loop, for a word (16 rows × 20 columns), 320 weights:
//!
//! | | shared by a tile's tokens | per token |
//! |---|---|---|
//! | one token | 3 `vpsubb`, 2 `vpminub`, 1 `vpermi2b`, 4 `vpandd` | 5 `vpdpbusd` with broadcast load |
//! | several | the same, 4 `vpsrld`, 1 `vpandd` | 5 `vpdpbusd`, two words sharing each broadcast |
//!
//! Bound: for one token reading memory, 64 bytes for 320 weights; for several the same as with two-bit codes.

#![expect(unsafe_op_in_unsafe_fn, reason = "an intrinsic needs the instruction set, which the caller promises")]

use super::avx512::{Avx512, FLOATS, LOOK_UPS, interleave, load, load_bytes, splat, store, unpack};
use super::avx512_vnni::{self, Vnni, byte_dots, peak_macs, two_bit_sums};
use super::grouped_dot::stamp_grouped;
use super::isa::Isa;
use super::neuron_dot::stamp_neurons;
use super::packing::{BASE3_WORDS, EXPANDED_WORDS, TWO_BIT_OF_BASE3, TWO_BIT_WORDS, Word};
use super::prefetch::prefetch_ahead;
use super::table::{Base3Kernels, Kernels, ManySums};
use super::ternary_dot::{PLANES, TernaryDot, stamp_sums};
use super::unpacked_dot::{MIN_TOKENS, stamp_many};
use std::arch::x86_64::*;

/// The kernels of [`Isa::Avx512Vnni`] on processors that have VBMI as well.
pub(super) static TABLE: Kernels = Kernels {
    isa: Isa::Avx512Vnni,
    two_bit_sums,
    two_bit_neurons: avx512_vnni::neurons::KERNELS,
    base3: Some(BASE3),
    many: Some(ManySums { sums: many_sums, min_tokens: MIN_TOKENS }),
    grouped: GROUPED,
    peak_macs,
    byte_dots: Some(byte_dots),
    look_ups: LOOK_UPS,
    floats: FLOATS,
};

pub(super) const BASE3: Base3Kernels = Base3Kernels { sums: base3_sums, neurons: neurons::KERNELS, to_two_bit };

stamp_neurons! { neurons, dot: Base3, features: "avx512f,avx512bw,avx512vnni,avx512vbmi" }
stamp_sums! { base3: Base3, features: "avx512f,avx512bw,avx512vnni,avx512vbmi", tokens: 12, parts: 2 }
stamp_many! {
    dot: Vnni, to_two_bit: to_two_bit, features: "avx512f,avx512bw,avx512vnni,avx512vbmi", tokens: 12, parts: 2
}
stamp_grouped! {
    lanes: Avx512, dot: Vnni, base3: Base3, features: "avx512f,avx512bw,avx512vnni,avx512vbmi", tokens: 12, parts: 2
}

/// The dots of [`Vnni`], on codes that are unpacked from base3.
struct Base3;

impl TernaryDot for Base3 {
    const ROWS: usize = 16;
    const PLANES: usize = 5;
    const ACCUMULATORS: usize = 5;
    /// A word's lower four codes as a two-bit word, and 81 times its fifth codes.
    type Part = [__m512i; 2];
    type Bytes = __m512i;
    type Sum = __m512i;
    #[inline(always)]
    unsafe fn zero() -> __m512i {
        _mm512_setzero_si512()
    }
    #[inline(always)]
    unsafe fn load(word: &Word, _: usize) -> [__m512i; 2] {
        split_base3(load(word))
    }
    #[inline(always)]
    unsafe fn unpack([two_bit, fifth]: [__m512i; 2]) -> [__m512i; PLANES] {
        // 81 and 162 are 0101'0001 and 1010'0010: the upper two bits are the fifth code.
        let [a, b, c, d, _] = unpack(two_bit);
        [a, b, c, d, _mm512_and_si512(_mm512_srli_epi32(fifth, 6), _mm512_set1_epi8(3))]
    }
    #[inline(always)]
    unsafe fn splat(q: [i8; 4]) -> __m512i {
        splat(q)
    }
    #[inline(always)]
    unsafe fn bytes(q: &[i8; 64], _: usize) -> __m512i {
        load_bytes(q)
    }
    #[inline(always)]
    unsafe fn interleave<const HIGH: bool>(words: [&Word; 4], _: usize) -> [[__m512i; 2]; 2] {
        let [a, b] = interleave::<HIGH>(words);
        [split_base3(a), split_base3(b)]
    }
    #[inline(always)]
    unsafe fn dot(sum: __m512i, codes: __m512i, q: __m512i) -> __m512i {
        _mm512_dpbusd_epi32(sum, codes, q)
    }
    #[inline(always)]
    unsafe fn packed_dot(sums: &mut [__m512i; PLANES], [two_bit, fifth]: [__m512i; 2], q: [__m512i; PLANES]) {
        Vnni::packed_dot(sums, two_bit, q);
        sums[4] = _mm512_dpbusd_epi32(sums[4], fifth, q[4]);
    }
    #[inline(always)]
    unsafe fn packed_sum(sums: [__m512i; PLANES]) -> __m512i {
        _mm512_add_epi32(Vnni::packed_sum(sums), fifth_sum(sums[4]))
    }
    #[inline(always)]
    unsafe fn planes_dot(sums: &mut [__m512i; PLANES], part: [__m512i; 2], q: __m512i) {
        Self::packed_dot(sums, part, [q; PLANES]);
    }
    #[inline(always)]
    unsafe fn plane_sums(sums: [__m512i; PLANES]) -> [__m512i; PLANES] {
        let [a, b, c, d, fifth] = Vnni::plane_sums(sums);
        [a, b, c, d, fifth_sum(fifth)]
    }
    #[inline(always)]
    unsafe fn store(sum: __m512i, out: &mut [i32]) {
        store(sum, out)
    }
}

/// The lower four codes of base3 bytes as a two-bit word, and 81 times their fifth codes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn split_base3(word: __m512i) -> [__m512i; 2] {
    let (halves, _) = TWO_BIT_OF_BASE3.as_chunks::<64>();
    // SAFETY: each half of the table holds the 64 bytes that are read, unaligned.
    let table =
        unsafe { [_mm512_loadu_si512(halves[0].as_ptr().cast()), _mm512_loadu_si512(halves[1].as_ptr().cast())] };
    // The remainder by 81 is the smallest of the three: a difference below zero wraps around to a larger byte.
    let minus = [_mm512_sub_epi8(word, _mm512_set1_epi8(81)), _mm512_sub_epi8(word, _mm512_set1_epi8(162u8 as i8))];
    let remainder = _mm512_min_epu8(_mm512_min_epu8(word, minus[0]), minus[1]);
    [_mm512_permutex2var_epi8(table[0], remainder, table[1]), _mm512_sub_epi8(word, remainder)]
}

/// Sums of the fifth codes, which count 81-fold; INVERSE is the inverse of 81 modulo 2³².
#[inline]
#[target_feature(enable = "avx512f")]
fn fifth_sum(sum: __m512i) -> __m512i {
    const INVERSE: i32 = 0x7819_48b1;
    _mm512_mullo_epi32(sum, _mm512_set1_epi32(INVERSE))
}

/// Converts whole blocks of base3 words to two-bit words.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn to_two_bit(base3: &[Word], two_bit: &mut [Word]) {
    let mask = _mm512_set1_epi8(3);
    let blocks = base3.as_chunks::<BASE3_WORDS>().0.iter().zip(two_bit.as_chunks_mut::<EXPANDED_WORDS>().0);
    for (words, out) in blocks {
        for w in 0..TWO_BIT_WORDS {
            let mut fifths = _mm512_setzero_si512();
            for b in 0..4 {
                let i = TWO_BIT_WORDS * b + w;
                prefetch_ahead(&words[i]);
                let [two_bit, fifth] = split_base3(load(&words[i]));
                write(&mut out[i], two_bit);
                let code = _mm512_and_si512(_mm512_srli_epi32(fifth, 6), mask);
                fifths = _mm512_or_si512(_mm512_slli_epi32(fifths, 2), code);
            }
            write(&mut out[BASE3_WORDS + w], fifths);
        }
    }
}

/// Writes a whole word.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn write(word: &mut Word, bytes: __m512i) {
    // SAFETY: a word is the 64 bytes that are written, and aligned to 64.
    unsafe { _mm512_store_si512(word.0.as_mut_ptr().cast(), bytes) };
}
