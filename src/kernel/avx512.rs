//! AVX-512 F, BW, DQ, VL without its dot products.
//!
//! Ternary inner loop, for a word (16 rows × 16 columns), 256 weights:
//!
//! | | shared by a tile's tokens | per token |
//! |---|---|---|
//! | one token | 4 `vpandd`, 1 `vpsrld` (see below) | 4 × (`vpbroadcastd`, `vpmaddubsw`, `vpaddw`) |
//! | several | 4 `vpandd`, 3 `vpsrld` | the same |
//!
//! With one token two planes stay unshifted and count 4-fold; their sum is shifted back at the end.
//!
//! And once a block `vpmaddwd`, `vpaddd`. Bound: 8 vector operations for 256 multiply-adds a token.

#![expect(unsafe_op_in_unsafe_fn, reason = "an intrinsic needs the instruction set, which the caller promises")]

use super::avx2;
use super::grouped_dot::stamp_grouped;
use super::isa::Isa;
use super::lanes::{F16Bytes, F32x16, SimdF32};
use super::look_ups::{LookUpKernels, LookUps, stamp_look_ups};
use super::neuron_dot::stamp_neurons;
use super::packing::{GROUP, Word};
use super::quantized_head::Int8Dot;
use super::table::{Kernels, stamp_floats};
use super::ternary_dot::{PLANES, TernaryDot, pack4, stamp_sums};
use std::arch::x86_64::*;

/// One register of 16 floats makes a vector.
pub(super) struct Avx512;

stamp_floats! { lanes: Avx512, features: "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c" }
stamp_neurons! { neurons, dot: Madd, features: "avx512f,avx512bw" }
stamp_sums! { dot: Madd, features: "avx512f,avx512bw", tokens: 8, parts: 1 }
stamp_look_ups! { lanes: Avx512, features: "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi2", tokens: 32 }
stamp_grouped! { lanes: Avx512, dot: Madd, base3: Madd, features: "avx512f,avx512bw", tokens: 8, parts: 1 }

/// Registers of 256 bits are faster where the processor adds 512 bits in two halves, or has small caches.
pub(super) const LOOK_UPS: &[LookUpKernels] = &[look_ups::KERNELS, avx2::look_ups::KERNELS];

pub(super) static TABLE: Kernels = Kernels {
    isa: Isa::Avx512,
    two_bit_sums,
    two_bit_neurons: neurons::KERNELS,
    base3: None,
    many: None,
    grouped: GROUPED,
    peak_macs,
    byte_dots: None,
    look_ups: LOOK_UPS,
    floats: FLOATS,
};

impl SimdF32 for Avx512 {
    const WIDE_TILES: bool = true;
    type Vector = __m512;
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        _mm512_set1_ps(x)
    }
    #[inline(always)]
    unsafe fn load(x: &F32x16) -> __m512 {
        // SAFETY: `x` holds the 64 bytes that are read, unaligned.
        _mm512_loadu_ps(x.as_ptr())
    }
    #[inline(always)]
    unsafe fn store(v: __m512, out: &mut F32x16) {
        // SAFETY: `out` holds the 64 bytes that are written, unaligned.
        _mm512_storeu_ps(out.as_mut_ptr(), v)
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn f16_to_f32(h: &[F16Bytes; 16]) -> __m512 {
        // SAFETY: `h` holds the 32 bytes that are read, unaligned.
        _mm512_cvtph_ps(_mm256_loadu_si256(h.as_ptr().cast()))
    }
    #[inline(always)]
    unsafe fn i32_to_f32(x: &[i32; 16]) -> __m512 {
        // SAFETY: `x` holds the 64 bytes that are read, unaligned.
        _mm512_cvtepi32_ps(_mm512_loadu_si512(x.as_ptr().cast()))
    }
}

impl Int8Dot for Avx512 {
    type Weights = __m512i;
    type Sums = __m512i;
    #[inline(always)]
    unsafe fn zero() -> __m512i {
        _mm512_setzero_si512()
    }
    #[inline(always)]
    unsafe fn i8_to_i16(w: &[i8; 32]) -> __m512i {
        // SAFETY: `w` holds the 32 bytes that are read, unaligned.
        _mm512_cvtepi8_epi16(_mm256_loadu_si256(w.as_ptr().cast()))
    }
    #[inline(always)]
    unsafe fn madd(sums: __m512i, w: __m512i, x: &[i16; 32]) -> __m512i {
        // SAFETY: `x` holds the 64 bytes that are read, unaligned.
        _mm512_add_epi32(sums, _mm512_madd_epi16(w, _mm512_loadu_si512(x.as_ptr().cast())))
    }
    #[inline(always)]
    unsafe fn total(sums: __m512i) -> i32 {
        _mm512_reduce_add_epi32(sums)
    }
}

/// `vpmaddubsw` adds to 16-bit sums, which a block cannot overflow; these are added to 32-bit sums after each block. A
/// part is a whole word.
struct Madd;

impl TernaryDot for Madd {
    const ROWS: usize = 16;
    const ACCUMULATORS: usize = 2;
    type Part = __m512i;
    type Bytes = __m512i;
    type Sum = [__m512i; 2];
    #[inline(always)]
    unsafe fn zero() -> [__m512i; 2] {
        [_mm512_setzero_si512(); 2]
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
    unsafe fn dot([narrow, wide]: [__m512i; 2], codes: __m512i, q: __m512i) -> [__m512i; 2] {
        [_mm512_add_epi16(narrow, _mm512_maddubs_epi16(codes, q)), wide]
    }
    #[inline(always)]
    unsafe fn widen([narrow, wide]: [__m512i; 2]) -> [__m512i; 2] {
        let sum = _mm512_madd_epi16(narrow, _mm512_set1_epi16(1));
        [_mm512_setzero_si512(), _mm512_add_epi32(wide, sum)]
    }
    /// The second accumulator counts 4-fold: 16 × 2 × 4·2·127 = 32,512 a block, which i16 holds.
    #[inline(always)]
    unsafe fn packed_dot(sums: &mut [[__m512i; 2]; PLANES], word: __m512i, q: [__m512i; PLANES]) {
        let high = _mm512_srli_epi32(word, 4);
        for (part, q) in [(high, [q[1], q[0]]), (word, [q[3], q[2]])] {
            sums[0] = Self::dot(sums[0], _mm512_and_si512(part, _mm512_set1_epi8(0x03)), q[0]);
            sums[1] = Self::dot(sums[1], _mm512_and_si512(part, _mm512_set1_epi8(0x0c)), q[1]);
        }
    }
    #[inline(always)]
    unsafe fn packed_sum([[_, once], [_, fourfold], ..]: [[__m512i; 2]; PLANES]) -> [__m512i; 2] {
        [_mm512_setzero_si512(), _mm512_add_epi32(once, _mm512_srai_epi32(fourfold, 2))]
    }
    #[inline(always)]
    unsafe fn store([_, wide]: [__m512i; 2], out: &mut [i32]) {
        store(wide, out)
    }
}

/// Reads a whole word.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(word: &Word) -> __m512i {
    // SAFETY: a word is the 64 bytes that are read, and aligned to 64.
    unsafe { _mm512_load_si512(word.0.as_ptr().cast()) }
}

/// The four code planes of a two-bit word.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn unpack(word: __m512i) -> [__m512i; PLANES] {
    let mask = _mm512_set1_epi8(3);
    [
        _mm512_and_si512(_mm512_srli_epi32(word, 6), mask),
        _mm512_and_si512(_mm512_srli_epi32(word, 4), mask),
        _mm512_and_si512(_mm512_srli_epi32(word, 2), mask),
        _mm512_and_si512(word, mask),
        _mm512_setzero_si512(),
    ]
}

/// Reads 64 activations.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_bytes(q: &[i8; 64]) -> __m512i {
    // SAFETY: `q` holds the 64 bytes that are read, unaligned.
    unsafe { _mm512_loadu_si512(q.as_ptr().cast()) }
}

/// Interleaves the bytes of four words, the lower or the upper eight of every 16: see [`TernaryDot::interleave`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn interleave<const HIGH: bool>([a, b, c, d]: [&Word; 4]) -> [__m512i; 2] {
    let [a, b, c, d] = [load(a), load(b), load(c), load(d)];
    let [ab, cd] = if HIGH {
        [_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d)]
    } else {
        [_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d)]
    };
    [_mm512_unpacklo_epi16(ab, cd), _mm512_unpackhi_epi16(ab, cd)]
}

/// Broadcasts four activations to every row.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn splat(q: [i8; 4]) -> __m512i {
    _mm512_set1_epi32(pack4(q))
}

/// Writes sixteen sums.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store(sums: __m512i, out: &mut [i32]) {
    assert_eq!(out.len(), GROUP);
    // SAFETY: `out` holds the sixteen sums that are written, unaligned.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), sums) };
}

/// Even words are tokens 0 to 15, odd ones 16 to 31.
impl LookUps<32> for Avx512 {
    type Sums = __m512i;
    type Ints = [__m512i; 2];
    #[inline(always)]
    unsafe fn zero() -> __m512i {
        _mm512_setzero_si512()
    }
    #[inline(always)]
    unsafe fn load(from: &[i16; 32]) -> __m512i {
        // SAFETY: `from` holds the 64 bytes that are read, unaligned.
        _mm512_loadu_si512(from.as_ptr().cast())
    }
    #[inline(always)]
    unsafe fn store(sums: __m512i, to: &mut [i16; 32]) {
        // SAFETY: `to` holds the 64 bytes that are written, unaligned.
        _mm512_storeu_si512(to.as_mut_ptr().cast(), sums)
    }
    #[inline(always)]
    unsafe fn add(a: __m512i, b: __m512i) -> __m512i {
        _mm512_add_epi16(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: __m512i, b: __m512i) -> __m512i {
        _mm512_sub_epi16(a, b)
    }
    #[inline(always)]
    unsafe fn columns(quads: &[[i8; 4]; 32]) -> [__m512i; 4] {
        // SAFETY: `quads` holds 128 bytes, of which each load reads 64, unaligned.
        let p = quads.as_ptr().cast::<__m512i>();
        let (even, odd) = (_mm512_loadu_si512(p), _mm512_loadu_si512(p.add(1)));
        [
            columns_of(_mm512_slli_epi32::<24>(even), _mm512_slli_epi32::<24>(odd)),
            columns_of(_mm512_slli_epi32::<16>(even), _mm512_slli_epi32::<16>(odd)),
            columns_of(_mm512_slli_epi32::<8>(even), _mm512_slli_epi32::<8>(odd)),
            columns_of(even, odd),
        ]
    }
    #[inline(always)]
    unsafe fn widen(sums: __m512i) -> [__m512i; 2] {
        [_mm512_srai_epi32::<16>(_mm512_slli_epi32::<16>(sums)), _mm512_srai_epi32::<16>(sums)]
    }
    #[inline(always)]
    unsafe fn add_to(sums: [__m512i; 2], to: &mut [i32; 32]) {
        // SAFETY: `to` holds 128 bytes, of which each load and store covers 64, unaligned.
        let p = to.as_mut_ptr().cast::<__m512i>();
        _mm512_storeu_si512(p, _mm512_add_epi32(_mm512_loadu_si512(p), sums[0]));
        _mm512_storeu_si512(p.add(1), _mm512_add_epi32(_mm512_loadu_si512(p.add(1)), sums[1]));
    }
    #[inline(always)]
    unsafe fn join(high: [__m512i; 2], low: [__m512i; 2]) -> [__m512i; 2] {
        let high = [_mm512_slli_epi32::<8>(high[0]), _mm512_slli_epi32::<8>(high[1])];
        [_mm512_add_epi32(high[0], low[0]), _mm512_add_epi32(high[1], low[1])]
    }
    #[inline(always)]
    unsafe fn fold(sums: [__m512i; 2], s: &[f32; 32], scale: f32, y: &mut [f32; 32]) {
        let scale = _mm512_set1_ps(scale);
        for (half, sums) in sums.into_iter().enumerate() {
            // SAFETY: `s` and `y` hold 128 bytes, of which each load and store covers 64, unaligned.
            let (s, y) = (s.as_ptr().add(16 * half), y.as_mut_ptr().add(16 * half));
            let value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_loadu_ps(s));
            _mm512_storeu_ps(y, _mm512_fmadd_ps(value, scale, _mm512_loadu_ps(y)));
        }
    }
}

/// The highest byte of each dword, with its sign, as the even or the odd word.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn columns_of(even: __m512i, odd: __m512i) -> __m512i {
    _mm512_mask_blend_epi16(0xaaaa_aaaa, _mm512_srai_epi32::<24>(even), _mm512_srai_epi16::<8>(odd))
}
