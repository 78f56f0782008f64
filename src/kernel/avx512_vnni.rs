//! AVX-512 with VNNI.
//!
//! Ternary inner loop, for a word (16 rows × 16 columns), 256 weights:
//!
//! | | shared by a tile's tokens | per token |
//! |---|---|---|
//! | one token | 4 `vpandd`, no shifts (see below) | 4 `vpdpbusd` with broadcast load |
//! | several | 4 `vpandd`, 3 `vpsrld` | 4 `vpdpbusd`, two words sharing each broadcast |
//! | more than a tile | loads of codes that were unpacked before | the same |
//!
//! With one token the planes stay unshifted; the sums of the higher ones are shifted back at the end.
//!
//! Bound: one 512-bit `vpdpbusd` a cycle on Zen 4, two on Zen 5: 64 or 128 multiply-adds a cycle.

#![expect(unsafe_op_in_unsafe_fn, reason = "an intrinsic needs the instruction set, which the caller promises")]

use super::avx512::{Avx512, FLOATS, LOOK_UPS, interleave, load, load_bytes, splat, store, unpack};
use super::grouped_dot::stamp_grouped;
use super::isa::Isa;
use super::neuron_dot::stamp_neurons;
use super::packing::{Word, base3_to_two_bit};
use super::quantized_head::{self, BYTE_STEP, ByteDot};
use super::table::{Kernels, ManySums};
use super::ternary_dot::{PLANES, TernaryDot, stamp_sums};
use super::unpacked_dot::{MIN_TOKENS, stamp_many};
use std::arch::x86_64::*;

stamp_neurons! { neurons, dot: Vnni, features: "avx512f,avx512bw,avx512vnni" }
stamp_sums! { dot: Vnni, features: "avx512f,avx512bw,avx512vnni", tokens: 12, parts: 2 }
stamp_many! {
    dot: Vnni, to_two_bit: base3_to_two_bit, features: "avx512f,avx512bw,avx512vnni", tokens: 12, parts: 2
}
stamp_grouped! {
    lanes: Avx512, dot: Vnni, base3: Vnni, features: "avx512f,avx512bw,avx512vnni", tokens: 12, parts: 2
}

pub(super) static TABLE: Kernels = Kernels {
    isa: Isa::Avx512Vnni,
    two_bit_sums,
    two_bit_neurons: neurons::KERNELS,
    base3: None,
    many: Some(ManySums { sums: many_sums, min_tokens: MIN_TOKENS }),
    grouped: GROUPED,
    peak_macs,
    byte_dots: Some(byte_dots),
    look_ups: LOOK_UPS,
    floats: FLOATS,
};

/// `vpdpbusd` adds to 32-bit sums. A part is a whole word.
pub(super) struct Vnni;

impl TernaryDot for Vnni {
    const ROWS: usize = 16;
    const ACCUMULATORS: usize = 4;
    type Part = __m512i;
    type Bytes = __m512i;
    type Sum = __m512i;
    #[inline(always)]
    unsafe fn zero() -> __m512i {
        _mm512_setzero_si512()
    }
    #[inline(always)]
    unsafe fn load(word: &Word, _: usize) -> __m512i {
        load(word)
    }
    #[inline(always)]
    unsafe fn unpack(word: __m512i) -> [__m512i; PLANES] {
        unpack(word)
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
    unsafe fn interleave<const HIGH: bool>(words: [&Word; 4], _: usize) -> [__m512i; 2] {
        interleave::<HIGH>(words)
    }
    #[inline(always)]
    unsafe fn dot(sum: __m512i, codes: __m512i, q: __m512i) -> __m512i {
        _mm512_dpbusd_epi32(sum, codes, q)
    }
    /// Codes are masked in place, so plane p counts 4^(3-p)-fold. A call adds at most 2·64·4·127 = 65,024 to a sum: i32
    /// holds those of 500,000 columns.
    #[inline(always)]
    unsafe fn packed_dot(sums: &mut [__m512i; PLANES], word: __m512i, q: [__m512i; PLANES]) {
        for (p, mask) in [0xc0u8, 0x30, 0x0c, 0x03].into_iter().enumerate() {
            sums[p] = _mm512_dpbusd_epi32(sums[p], _mm512_and_si512(word, _mm512_set1_epi8(mask as i8)), q[p]);
        }
    }
    #[inline(always)]
    unsafe fn packed_sum(sums: [__m512i; PLANES]) -> __m512i {
        let high = _mm512_add_epi32(_mm512_srai_epi32(sums[0], 6), _mm512_srai_epi32(sums[1], 4));
        _mm512_add_epi32(high, _mm512_add_epi32(_mm512_srai_epi32(sums[2], 2), sums[3]))
    }
    /// Planes are masked in place, and count as in [`Self::packed_dot`]: i32 holds the sums of 130,000 columns.
    #[inline(always)]
    unsafe fn planes_dot(sums: &mut [__m512i; PLANES], word: __m512i, q: __m512i) {
        Self::packed_dot(sums, word, [q; PLANES]);
    }
    #[inline(always)]
    unsafe fn plane_sums([a, b, c, d, e]: [__m512i; PLANES]) -> [__m512i; PLANES] {
        [_mm512_srai_epi32(a, 6), _mm512_srai_epi32(b, 4), _mm512_srai_epi32(c, 2), d, e]
    }
    #[inline(always)]
    unsafe fn store(sum: __m512i, out: &mut [i32]) {
        store(sum, out)
    }
}

impl ByteDot for Vnni {
    type Weights = __m512i;
    type Sums = __m512i;
    #[inline(always)]
    unsafe fn zero() -> __m512i {
        _mm512_setzero_si512()
    }
    #[inline(always)]
    unsafe fn load(w: &[i8; BYTE_STEP]) -> __m512i {
        // SAFETY: `w` holds the 64 bytes that are read, unaligned.
        _mm512_xor_si512(_mm512_loadu_si512(w.as_ptr().cast()), _mm512_set1_epi8(-128))
    }
    #[inline(always)]
    unsafe fn dot(sums: __m512i, w: __m512i, x: &[i8; BYTE_STEP]) -> __m512i {
        // SAFETY: `x` holds the 64 bytes that are read, unaligned.
        _mm512_dpbusd_epi32(sums, w, _mm512_loadu_si512(x.as_ptr().cast()))
    }
    #[inline(always)]
    unsafe fn totals([a, b, c, d]: [__m512i; 4]) -> [i32; 4] {
        // In each quarter of a register: two sums of a, two of b, or of c and d; then one sum of each.
        let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        let all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
        let half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64::<1>(all));
        let quarter = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
        let mut totals = [0; 4];
        // SAFETY: `totals` holds the 16 bytes that are written, unaligned.
        _mm_storeu_si128(totals.as_mut_ptr().cast(), quarter);
        totals
    }
}

/// See [`Kernels::byte_dots`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn byte_dots(rows: &[i8], xs: &[&[i8]], out: &mut [i32]) {
    quantized_head::byte_dots::<Vnni>(rows, xs, out)
}
