//! WebAssembly with vectors of 128 bits, which every engine has had since 2023.
//!
//! Ternary inner loop, for a quarter word (4 rows × 16 columns), 64 weights: 4 `and`, 3 `shr_u`, 8 `extend` shared by
//! the tokens of a tile; per token 4 × (`load32_splat`, `extend`, 2 `i32x4.dot_i16x8_s`, 2 `add`). Bound: 8 dots for 64
//! multiply-adds a token.

#![expect(unsafe_op_in_unsafe_fn, reason = "an intrinsic needs the instruction set, which the caller promises")]

use super::f16::f16_to_f32_portable;
use super::grouped_dot::stamp_grouped;
use super::isa::Isa;
use super::lanes::{F16Bytes, F32x16, SimdF32};
use super::neuron_dot::stamp_neurons;
use super::packing::Word;
use super::quantized_head::Int8Dot;
use super::table::{Kernels, stamp_floats};
use super::ternary_dot::{PLANES, TernaryDot, pack4, stamp_sums};
use std::arch::wasm32::*;

/// Four registers of 4 floats make a vector; a quarter of a word, 4 rows, makes a part.
pub(super) struct Simd128;

stamp_floats! { lanes: Simd128, features: "simd128" }
stamp_neurons! { neurons, dot: Simd128, features: "simd128" }
stamp_sums! { dot: Simd128, features: "simd128", tokens: 4, parts: 1 }
stamp_grouped! { lanes: Simd128, dot: Simd128, base3: Simd128, features: "simd128", tokens: 4, parts: 1 }

pub(super) static TABLE: Kernels = Kernels {
    isa: Isa::Simd128,
    two_bit_sums,
    two_bit_neurons: neurons::KERNELS,
    base3: None,
    many: None,
    grouped: GROUPED,
    peak_macs,
    byte_dots: None,
    look_ups: &[],
    floats: FLOATS,
};

/// `a · b + c` of two doubles that hold floats, as a double that rounds to the right float.
///
/// The product is exact. The sum may not be, and rounding it twice, to a double and to a float, may end elsewhere than
/// rounding once. So the sum is rounded to odd: where it is not exact, to the one of its two neighbours that has an odd
/// last bit. That keeps all that the second rounding needs (Boldo and Melquiond, "Emulation of FMA and correctly rounded
/// sums", 2008). The error of the sum is Knuth's.
#[inline(always)]
fn fma_to_odd(a: v128, b: v128, c: v128) -> v128 {
    let product = f64x2_mul(a, b);
    let sum = f64x2_add(product, c);
    let added = f64x2_sub(sum, product);
    let error = f64x2_add(f64x2_sub(product, f64x2_sub(sum, added)), f64x2_sub(c, added));
    // Where the sum was rounded away from zero, the neighbour below; then the odd one of both.
    let away = i64x2_lt(v128_xor(error, sum), i64x2_splat(0));
    let odd = v128_or(i64x2_add(sum, away), i64x2_splat(1));
    // Infinite and NaN sums have an error of NaN, and stay.
    let inexact = f64x2_gt(f64x2_abs(error), f64x2_splat(0.0));
    v128_bitselect(odd, sum, inexact)
}

/// The lower two floats as doubles.
#[inline(always)]
fn promote_low(x: v128) -> v128 {
    f64x2_promote_low_f32x4(x)
}

/// The upper two floats as doubles.
#[inline(always)]
fn promote_high(x: v128) -> v128 {
    f64x2_promote_low_f32x4(i32x4_shuffle::<2, 3, 2, 3>(x, x))
}

impl SimdF32 for Simd128 {
    const WIDE_TILES: bool = false;
    type Vector = [v128; 4];
    #[inline(always)]
    unsafe fn splat(x: f32) -> [v128; 4] {
        [f32x4_splat(x); 4]
    }
    #[inline(always)]
    unsafe fn load(x: &F32x16) -> [v128; 4] {
        // SAFETY: `x` holds 16 floats, of which each load reads 4.
        std::array::from_fn(|i| v128_load(x.as_ptr().add(4 * i).cast()))
    }
    #[inline(always)]
    unsafe fn store(v: [v128; 4], out: &mut F32x16) {
        for (i, v) in v.into_iter().enumerate() {
            // SAFETY: `out` holds 16 floats, of which each store writes 4.
            v128_store(out.as_mut_ptr().add(4 * i).cast(), v);
        }
    }
    #[inline(always)]
    unsafe fn fma(a: [v128; 4], b: [v128; 4], c: [v128; 4]) -> [v128; 4] {
        std::array::from_fn(|i| {
            let [a, b, c] = [a[i], b[i], c[i]];
            let low = [a, b, c].map(promote_low);
            let high = [a, b, c].map(promote_high);
            let low = f32x4_demote_f64x2_zero(fma_to_odd(low[0], low[1], low[2]));
            let high = f32x4_demote_f64x2_zero(fma_to_odd(high[0], high[1], high[2]));
            i32x4_shuffle::<0, 1, 4, 5>(low, high)
        })
    }
    #[inline(always)]
    unsafe fn f16_to_f32(h: &[F16Bytes; 16]) -> [v128; 4] {
        <Self as SimdF32>::load(&f16_to_f32_portable(h))
    }
    #[inline(always)]
    unsafe fn i32_to_f32(x: &[i32; 16]) -> [v128; 4] {
        // SAFETY: `x` holds 16 integers, of which each load reads 4.
        std::array::from_fn(|i| f32x4_convert_i32x4(v128_load(x.as_ptr().add(4 * i).cast())))
    }
}

impl Int8Dot for Simd128 {
    type Weights = [v128; 4];
    type Sums = [v128; 4];
    #[inline(always)]
    unsafe fn zero() -> [v128; 4] {
        [i32x4_splat(0); 4]
    }
    #[inline(always)]
    unsafe fn i8_to_i16(w: &[i8; 32]) -> [v128; 4] {
        // SAFETY: `w` holds 32 bytes, of which each load reads 8.
        std::array::from_fn(|i| i16x8_load_extend_i8x8(w.as_ptr().add(8 * i)))
    }
    #[inline(always)]
    unsafe fn madd(sums: [v128; 4], w: [v128; 4], x: &[i16; 32]) -> [v128; 4] {
        std::array::from_fn(|i| {
            // SAFETY: `x` holds 32 int16, of which each load reads 8.
            let x = v128_load(x.as_ptr().add(8 * i).cast());
            i32x4_add(sums[i], i32x4_dot_i16x8(w[i], x))
        })
    }
    #[inline(always)]
    unsafe fn total(sums: [v128; 4]) -> i32 {
        let sum = i32x4_add(i32x4_add(sums[0], sums[1]), i32x4_add(sums[2], sums[3]));
        let half = i32x4_add(sum, i32x4_shuffle::<2, 3, 0, 1>(sum, sum));
        i32x4_extract_lane::<0>(half).wrapping_add(i32x4_extract_lane::<1>(half))
    }
}

/// Bytes are held as two registers of 16-bit integers, whose dots add neighbours in 32 bits.
impl TernaryDot for Simd128 {
    const ROWS: usize = 4;
    const ACCUMULATORS: usize = 1;
    type Part = v128;
    type Bytes = [v128; 2];
    type Sum = [v128; 2];
    #[inline(always)]
    unsafe fn zero() -> [v128; 2] {
        [i32x4_splat(0); 2]
    }
    #[inline(always)]
    unsafe fn load(word: &Word, part: usize) -> v128 {
        // SAFETY: a word is 64 bytes and has four such parts.
        v128_load(word.0.as_ptr().add(16 * part).cast())
    }
    #[inline(always)]
    unsafe fn unpack(part: v128) -> [[v128; 2]; PLANES] {
        code_planes(part).map(|plane| [i16x8_extend_low_u8x16(plane), i16x8_extend_high_u8x16(plane)])
    }
    #[inline(always)]
    unsafe fn splat(q: [i8; 4]) -> [v128; 2] {
        [i16x8_extend_low_i8x16(i32x4_splat(pack4(q))); 2]
    }
    #[inline(always)]
    unsafe fn bytes(q: &[i8; 64], part: usize) -> [v128; 2] {
        // SAFETY: `q` is 64 bytes and has four such parts.
        let q = v128_load(q.as_ptr().add(16 * part).cast());
        [i16x8_extend_low_i8x16(q), i16x8_extend_high_i8x16(q)]
    }
    #[inline(always)]
    unsafe fn interleave<const HIGH: bool>(words: [&Word; 4], part: usize) -> [v128; 2] {
        let [w0, w1, w2, w3] = words;
        let load = |word| <Simd128 as TernaryDot>::load(word, part);
        let [a, b] = [zip_bytes::<HIGH>(load(w0), load(w1)), zip_bytes::<HIGH>(load(w2), load(w3))];
        [i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(a, b), i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(a, b)]
    }
    #[inline(always)]
    unsafe fn dot(sum: [v128; 2], codes: [v128; 2], q: [v128; 2]) -> [v128; 2] {
        [i32x4_add(sum[0], i32x4_dot_i16x8(codes[0], q[0])), i32x4_add(sum[1], i32x4_dot_i16x8(codes[1], q[1]))]
    }
    #[inline(always)]
    unsafe fn packed_dot(sums: &mut [[v128; 2]; PLANES], part: v128, q: [[v128; 2]; PLANES]) {
        let codes = Self::unpack(part);
        for p in 0..4 {
            sums[0] = Self::dot(sums[0], codes[p], q[p]);
        }
    }
    #[inline(always)]
    unsafe fn packed_sum(sums: [[v128; 2]; PLANES]) -> [v128; 2] {
        sums[0]
    }
    #[inline(always)]
    unsafe fn store([low, high]: [v128; 2], out: &mut [i32]) {
        assert_eq!(out.len(), 4);
        let (even, odd) = (i32x4_shuffle::<0, 2, 4, 6>(low, high), i32x4_shuffle::<1, 3, 5, 7>(low, high));
        // SAFETY: `out` holds the four sums that are written.
        v128_store(out.as_mut_ptr().cast(), i32x4_add(even, odd));
    }
}

/// The planes of codes of a part, a byte each; the highest shift comes first.
#[inline(always)]
pub(super) fn code_planes(part: v128) -> [v128; PLANES] {
    let mask = u8x16_splat(3);
    [
        u8x16_shr(part, 6),
        v128_and(u8x16_shr(part, 4), mask),
        v128_and(u8x16_shr(part, 2), mask),
        v128_and(part, mask),
        u8x16_splat(0),
    ]
}

/// The lower or the upper eight bytes of both registers in turn.
#[inline(always)]
fn zip_bytes<const HIGH: bool>(a: v128, b: v128) -> v128 {
    if HIGH {
        i8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(a, b)
    } else {
        i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(a, b)
    }
}
