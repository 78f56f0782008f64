//! AVX2 with AVX-VNNI: the VEX-encoded `vpdpbusd`.
//!
//! Ternary inner loop, for half a word (8 rows × 16 columns), 128 weights:
//!
//! | | shared by a tile's tokens | per token |
//! |---|---|---|
//! | one token | 4 `vpand`, no shifts (see below) | 4 × (`vpbroadcastd`, `vpdpbusd`), two halves a broadcast |
//! | several | 4 `vpand`, 3 `vpsrld` | 4 × (`vpbroadcastd`, `vpdpbusd`) |
//! | more than a tile | loads of codes that were unpacked before | the same, two halves a broadcast |
//!
//! With one token the planes stay unshifted; the sums of the higher ones are shifted back at the end.
//!
//! Bound: 4 `vpdpbusd` for 128 multiply-adds a token, one or two a cycle.

#![expect(unsafe_op_in_unsafe_fn, reason = "an intrinsic needs the instruction set, which the caller promises")]

use super::avx2::{self, Avx2, FLOATS};
use super::grouped_dot::stamp_grouped;
use super::isa::Isa;
use super::neuron_dot::stamp_neurons;
use super::packing::{Word, base3_to_two_bit};
use super::table::{Kernels, ManySums};
use super::ternary_dot::{PLANES, TernaryDot, stamp_sums};
use super::unpacked_dot::{MIN_TOKENS, stamp_many};
use std::arch::x86_64::*;

stamp_neurons! { neurons, dot: Vnni<false>, features: "avx2,avxvnni" }
stamp_sums! { dot: Vnni<false>, features: "avx2,avxvnni", tokens: 4, parts: 2 }
stamp_many! {
    dot: Vnni<false>, to_two_bit: base3_to_two_bit, features: "avx2,avxvnni", tokens: 6, parts: 2
}
stamp_grouped! {
    lanes: Avx2, dot: Vnni<false>, base3: Vnni<false>, features: "avx2,fma,f16c,avxvnni", tokens: 4, parts: 2
}

pub(super) static TABLE: Kernels = Kernels {
    isa: Isa::AvxVnni,
    two_bit_sums,
    two_bit_neurons: neurons::KERNELS,
    base3: None,
    many: Some(ManySums { sums: many_sums, min_tokens: MIN_TOKENS }),
    grouped: GROUPED,
    peak_macs,
    byte_dots: None,
    look_ups: &[avx2::look_ups::KERNELS],
    floats: FLOATS,
};

/// `vpdpbusd` adds to 32-bit sums. A part is half a word.
///
/// With `EVEX` the same instruction in the encoding of AVX-512-VNNI: processors that lack AVX-VNNI test the code with
/// it.
struct Vnni<const EVEX: bool>;

impl<const EVEX: bool> TernaryDot for Vnni<EVEX> {
    const ROWS: usize = 8;
    const ACCUMULATORS: usize = 4;
    type Part = __m256i;
    type Bytes = __m256i;
    type Sum = __m256i;
    #[inline(always)]
    unsafe fn zero() -> __m256i {
        _mm256_setzero_si256()
    }
    #[inline(always)]
    unsafe fn load(word: &Word, part: usize) -> __m256i {
        <Avx2 as TernaryDot>::load(word, part)
    }
    #[inline(always)]
    unsafe fn unpack(part: __m256i) -> [__m256i; PLANES] {
        Avx2::unpack(part)
    }
    #[inline(always)]
    unsafe fn splat(q: [i8; 4]) -> __m256i {
        <Avx2 as TernaryDot>::splat(q)
    }
    #[inline(always)]
    unsafe fn bytes(q: &[i8; 64], part: usize) -> __m256i {
        <Avx2 as TernaryDot>::bytes(q, part)
    }
    #[inline(always)]
    unsafe fn interleave<const HIGH: bool>(words: [&Word; 4], part: usize) -> [__m256i; 2] {
        <Avx2 as TernaryDot>::interleave::<HIGH>(words, part)
    }
    #[inline(always)]
    unsafe fn dot(sum: __m256i, codes: __m256i, q: __m256i) -> __m256i {
        if EVEX { _mm256_dpbusd_epi32(sum, codes, q) } else { _mm256_dpbusd_avx_epi32(sum, codes, q) }
    }
    /// Codes are masked in place, so plane p counts 4^(3-p)-fold. A call adds at most 2·64·4·127 = 65,024 to a sum: i32
    /// holds those of 500,000 columns.
    #[inline(always)]
    unsafe fn packed_dot(sums: &mut [__m256i; PLANES], part: __m256i, q: [__m256i; PLANES]) {
        for (p, mask) in [0xc0u8, 0x30, 0x0c, 0x03].into_iter().enumerate() {
            sums[p] = Self::dot(sums[p], _mm256_and_si256(part, _mm256_set1_epi8(mask as i8)), q[p]);
        }
    }
    #[inline(always)]
    unsafe fn packed_sum(sums: [__m256i; PLANES]) -> __m256i {
        let high = _mm256_add_epi32(_mm256_srai_epi32(sums[0], 6), _mm256_srai_epi32(sums[1], 4));
        _mm256_add_epi32(high, _mm256_add_epi32(_mm256_srai_epi32(sums[2], 2), sums[3]))
    }
    /// Planes are masked in place, and count as in [`Self::packed_dot`]: i32 holds the sums of 130,000 columns.
    #[inline(always)]
    unsafe fn planes_dot(sums: &mut [__m256i; PLANES], part: __m256i, q: __m256i) {
        Self::packed_dot(sums, part, [q; PLANES]);
    }
    #[inline(always)]
    unsafe fn plane_sums([a, b, c, d, e]: [__m256i; PLANES]) -> [__m256i; PLANES] {
        [_mm256_srai_epi32(a, 6), _mm256_srai_epi32(b, 4), _mm256_srai_epi32(c, 2), d, e]
    }
    #[inline(always)]
    unsafe fn store(sum: __m256i, out: &mut [i32]) {
        <Avx2 as TernaryDot>::store([sum; 2], out)
    }
}

#[cfg(test)]
#[path = "../../tests/unit/avx_vnni.rs"]
mod tests;
