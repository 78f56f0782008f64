//! AVX2 with FMA and F16C.
//!
//! Ternary inner loop, for half a word (8 rows × 16 columns), 128 weights:
//!
//! | | shared by a tile's tokens | per token |
//! |---|---|---|
//! | one token | 4 `vpand`, 1 `vpsrld` (see below) | 4 × (`vpbroadcastd`, `vpmaddubsw`, `vpaddw`), two a broadcast |
//! | several | 4 `vpand`, 3 `vpsrld` | 4 × (`vpbroadcastd`, `vpmaddubsw`, `vpaddw`) |
//!
//! With one token two planes stay unshifted and count 4-fold; their sum is shifted back at the end.
//!
//! And once a block `vpmaddwd`, `vpaddd`: i16 sums hold a block, 8 words × 4 planes × 2 products × 2·127 = 16,256.
//! Bound: 8 vector operations for 128 multiply-adds a token.

#![expect(unsafe_op_in_unsafe_fn, reason = "an intrinsic needs the instruction set, which the caller promises")]

use super::grouped_dot::stamp_grouped;
use super::isa::Isa;
use super::lanes::{F16Bytes, F32x16, SimdF32};
use super::look_ups::{LookUps, stamp_look_ups};
use super::neuron_dot::stamp_neurons;
use super::packing::Word;
use super::quantized_head::Int8Dot;
use super::table::{Kernels, stamp_floats};
use super::ternary_dot::{PLANES, TernaryDot, pack4, stamp_sums};
use std::arch::x86_64::*;

/// Two registers of 8 floats make a vector; half a word of 8 rows makes a part.
pub(super) struct Avx2;

stamp_floats! { lanes: Avx2, features: "avx2,fma,f16c" }
stamp_neurons! { neurons, dot: Avx2, features: "avx2" }
stamp_sums! { dot: Avx2, features: "avx2", tokens: 4, parts: 1 }
stamp_look_ups! { lanes: Avx2, features: "avx2,fma,f16c,bmi2", tokens: 16 }
stamp_grouped! { lanes: Avx2, dot: Avx2, base3: Avx2, features: "avx2,fma,f16c", tokens: 4, parts: 1 }

pub(super) static TABLE: Kernels = Kernels {
    isa: Isa::Avx2,
    two_bit_sums,
    two_bit_neurons: neurons::KERNELS,
    base3: None,
    many: None,
    grouped: GROUPED,
    peak_macs,
    byte_dots: None,
    look_ups: &[look_ups::KERNELS],
    floats: FLOATS,
};

impl SimdF32 for Avx2 {
    const WIDE_TILES: bool = false;
    type Vector = [__m256; 2];
    #[inline(always)]
    unsafe fn splat(x: f32) -> [__m256; 2] {
        [_mm256_set1_ps(x); 2]
    }
    #[inline(always)]
    unsafe fn load(x: &F32x16) -> [__m256; 2] {
        // SAFETY: `x` holds 16 floats, of which each load reads 8, unaligned.
        [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))]
    }
    #[inline(always)]
    unsafe fn store(v: [__m256; 2], out: &mut F32x16) {
        // SAFETY: `out` holds 16 floats, of which each store writes 8, unaligned.
        _mm256_storeu_ps(out.as_mut_ptr(), v[0]);
        _mm256_storeu_ps(out.as_mut_ptr().add(8), v[1]);
    }
    #[inline(always)]
    unsafe fn fma(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])]
    }
    #[inline(always)]
    unsafe fn f16_to_f32(h: &[F16Bytes; 16]) -> [__m256; 2] {
        // SAFETY: `h` holds 32 bytes, of which each load reads 16, unaligned.
        let p = h.as_ptr().cast::<__m128i>();
        [_mm256_cvtph_ps(_mm_loadu_si128(p)), _mm256_cvtph_ps(_mm_loadu_si128(p.add(1)))]
    }
    #[inline(always)]
    unsafe fn i32_to_f32(x: &[i32; 16]) -> [__m256; 2] {
        // SAFETY: `x` holds 64 bytes, of which each load reads 32, unaligned.
        let p = x.as_ptr().cast::<__m256i>();
        [_mm256_cvtepi32_ps(_mm256_loadu_si256(p)), _mm256_cvtepi32_ps(_mm256_loadu_si256(p.add(1)))]
    }
}

impl Int8Dot for Avx2 {
    type Weights = [__m256i; 2];
    type Sums = __m256i;
    #[inline(always)]
    unsafe fn zero() -> __m256i {
        _mm256_setzero_si256()
    }
    #[inline(always)]
    unsafe fn i8_to_i16(w: &[i8; 32]) -> [__m256i; 2] {
        // SAFETY: `w` holds 32 bytes, of which each load reads 16, unaligned.
        let p = w.as_ptr().cast::<__m128i>();
        [_mm256_cvtepi8_epi16(_mm_loadu_si128(p)), _mm256_cvtepi8_epi16(_mm_loadu_si128(p.add(1)))]
    }
    #[inline(always)]
    unsafe fn madd(sums: __m256i, w: [__m256i; 2], x: &[i16; 32]) -> __m256i {
        // SAFETY: `x` holds 64 bytes, of which each load reads 32, unaligned.
        let p = x.as_ptr().cast::<__m256i>();
        let low = _mm256_madd_epi16(w[0], _mm256_loadu_si256(p));
        let high = _mm256_madd_epi16(w[1], _mm256_loadu_si256(p.add(1)));
        _mm256_add_epi32(sums, _mm256_add_epi32(low, high))
    }
    #[inline(always)]
    unsafe fn total(sums: __m256i) -> i32 {
        let mut lanes = [0i32; 8];
        // SAFETY: `lanes` holds the 32 bytes that are written, unaligned.
        _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sums);
        lanes.iter().sum()
    }
}

/// `vpmaddubsw` adds to 16-bit sums, which a block cannot overflow; these are added to 32-bit sums after each block.
impl TernaryDot for Avx2 {
    const ROWS: usize = 8;
    const ACCUMULATORS: usize = 2;
    type Part = __m256i;
    type Bytes = __m256i;
    type Sum = [__m256i; 2];
    #[inline(always)]
    unsafe fn zero() -> [__m256i; 2] {
        [_mm256_setzero_si256(); 2]
    }
    #[inline(always)]
    unsafe fn load(word: &Word, part: usize) -> __m256i {
        // SAFETY: a word is 64 bytes, aligned to 64, and has two such parts.
        _mm256_load_si256(word.0.as_ptr().cast::<__m256i>().add(part))
    }
    #[inline(always)]
    unsafe fn unpack(part: __m256i) -> [__m256i; PLANES] {
        let mask = _mm256_set1_epi8(3);
        [
            _mm256_and_si256(_mm256_srli_epi32(part, 6), mask),
            _mm256_and_si256(_mm256_srli_epi32(part, 4), mask),
            _mm256_and_si256(_mm256_srli_epi32(part, 2), mask),
            _mm256_and_si256(part, mask),
            _mm256_setzero_si256(),
        ]
    }
    #[inline(always)]
    unsafe fn splat(q: [i8; 4]) -> __m256i {
        _mm256_set1_epi32(pack4(q))
    }
    #[inline(always)]
    unsafe fn bytes(q: &[i8; 64], part: usize) -> __m256i {
        // SAFETY: `q` is 64 bytes and has two such parts, unaligned.
        _mm256_loadu_si256(q.as_ptr().cast::<__m256i>().add(part))
    }
    #[inline(always)]
    unsafe fn interleave<const HIGH: bool>(words: [&Word; 4], part: usize) -> [__m256i; 2] {
        let low = [<Avx2 as TernaryDot>::load(words[0], part), <Avx2 as TernaryDot>::load(words[1], part)];
        let high = [<Avx2 as TernaryDot>::load(words[2], part), <Avx2 as TernaryDot>::load(words[3], part)];
        let [a, b] = if HIGH {
            [_mm256_unpackhi_epi8(low[0], low[1]), _mm256_unpackhi_epi8(high[0], high[1])]
        } else {
            [_mm256_unpacklo_epi8(low[0], low[1]), _mm256_unpacklo_epi8(high[0], high[1])]
        };
        [_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)]
    }
    #[inline(always)]
    unsafe fn dot([narrow, wide]: [__m256i; 2], codes: __m256i, q: __m256i) -> [__m256i; 2] {
        [_mm256_add_epi16(narrow, _mm256_maddubs_epi16(codes, q)), wide]
    }
    #[inline(always)]
    unsafe fn widen([narrow, wide]: [__m256i; 2]) -> [__m256i; 2] {
        let sum = _mm256_madd_epi16(narrow, _mm256_set1_epi16(1));
        [_mm256_setzero_si256(), _mm256_add_epi32(wide, sum)]
    }
    /// The second accumulator counts 4-fold: 16 × 2 × 4·2·127 = 32,512 a block, which i16 holds.
    #[inline(always)]
    unsafe fn packed_dot(sums: &mut [[__m256i; 2]; PLANES], part: __m256i, q: [__m256i; PLANES]) {
        let high = _mm256_srli_epi32(part, 4);
        for (part, q) in [(high, [q[1], q[0]]), (part, [q[3], q[2]])] {
            sums[0] = Self::dot(sums[0], _mm256_and_si256(part, _mm256_set1_epi8(0x03)), q[0]);
            sums[1] = Self::dot(sums[1], _mm256_and_si256(part, _mm256_set1_epi8(0x0c)), q[1]);
        }
    }
    #[inline(always)]
    unsafe fn packed_sum([[_, once], [_, fourfold], ..]: [[__m256i; 2]; PLANES]) -> [__m256i; 2] {
        [_mm256_setzero_si256(), _mm256_add_epi32(once, _mm256_srai_epi32(fourfold, 2))]
    }
    #[inline(always)]
    unsafe fn store([_, wide]: [__m256i; 2], out: &mut [i32]) {
        assert_eq!(out.len(), 8);
        // SAFETY: `out` holds the eight sums that are written, unaligned.
        _mm256_storeu_si256(out.as_mut_ptr().cast(), wide);
    }
}

/// Even words are tokens 0 to 7, odd ones 8 to 15.
impl LookUps<16> for Avx2 {
    type Sums = __m256i;
    type Ints = [__m256i; 2];
    #[inline(always)]
    unsafe fn zero() -> __m256i {
        _mm256_setzero_si256()
    }
    #[inline(always)]
    unsafe fn load(from: &[i16; 16]) -> __m256i {
        // SAFETY: `from` holds the 32 bytes that are read, unaligned.
        _mm256_loadu_si256(from.as_ptr().cast())
    }
    #[inline(always)]
    unsafe fn store(sums: __m256i, to: &mut [i16; 16]) {
        // SAFETY: `to` holds the 32 bytes that are written, unaligned.
        _mm256_storeu_si256(to.as_mut_ptr().cast(), sums)
    }
    #[inline(always)]
    unsafe fn add(a: __m256i, b: __m256i) -> __m256i {
        _mm256_add_epi16(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: __m256i, b: __m256i) -> __m256i {
        _mm256_sub_epi16(a, b)
    }
    #[inline(always)]
    unsafe fn columns(quads: &[[i8; 4]; 16]) -> [__m256i; 4] {
        // SAFETY: `quads` holds 64 bytes, of which each load reads 32, unaligned.
        let p = quads.as_ptr().cast::<__m256i>();
        let (even, odd) = (_mm256_loadu_si256(p), _mm256_loadu_si256(p.add(1)));
        [
            columns_of(_mm256_slli_epi32::<24>(even), _mm256_slli_epi32::<24>(odd)),
            columns_of(_mm256_slli_epi32::<16>(even), _mm256_slli_epi32::<16>(odd)),
            columns_of(_mm256_slli_epi32::<8>(even), _mm256_slli_epi32::<8>(odd)),
            columns_of(even, odd),
        ]
    }
    #[inline(always)]
    unsafe fn widen(sums: __m256i) -> [__m256i; 2] {
        [_mm256_srai_epi32::<16>(_mm256_slli_epi32::<16>(sums)), _mm256_srai_epi32::<16>(sums)]
    }
    #[inline(always)]
    unsafe fn add_to(sums: [__m256i; 2], to: &mut [i32; 16]) {
        // SAFETY: `to` holds 64 bytes, of which each load and store covers 32, unaligned.
        let p = to.as_mut_ptr().cast::<__m256i>();
        _mm256_storeu_si256(p, _mm256_add_epi32(_mm256_loadu_si256(p), sums[0]));
        _mm256_storeu_si256(p.add(1), _mm256_add_epi32(_mm256_loadu_si256(p.add(1)), sums[1]));
    }
    #[inline(always)]
    unsafe fn join(high: [__m256i; 2], low: [__m256i; 2]) -> [__m256i; 2] {
        let high = [_mm256_slli_epi32::<8>(high[0]), _mm256_slli_epi32::<8>(high[1])];
        [_mm256_add_epi32(high[0], low[0]), _mm256_add_epi32(high[1], low[1])]
    }
    #[inline(always)]
    unsafe fn fold(sums: [__m256i; 2], s: &[f32; 16], scale: f32, y: &mut [f32; 16]) {
        let scale = _mm256_set1_ps(scale);
        for (half, sums) in sums.into_iter().enumerate() {
            // SAFETY: `s` and `y` hold 64 bytes, of which each load and store covers 32, unaligned.
            let (s, y) = (s.as_ptr().add(8 * half), y.as_mut_ptr().add(8 * half));
            let value = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), _mm256_loadu_ps(s));
            _mm256_storeu_ps(y, _mm256_fmadd_ps(value, scale, _mm256_loadu_ps(y)));
        }
    }
}

/// The highest byte of each dword, with its sign, as the even or the odd word.
#[inline]
#[target_feature(enable = "avx2")]
fn columns_of(even: __m256i, odd: __m256i) -> __m256i {
    _mm256_blend_epi16::<0xaa>(_mm256_srai_epi32::<24>(even), _mm256_srai_epi16::<8>(odd))
}
