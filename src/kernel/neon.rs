//! AArch64 without the dot product extension.
//!
//! Ternary inner loop, for a quarter word (4 rows × 16 columns), 64 weights: 4 `and`, 3 `ushr` shared by the tokens of
//! a tile; per token 4 × (`ld1r`, `smlal`, `smlal2`), where for a single token four quarters share each `ld1r`; and
//! once a block 2 `sadalp`. i16 sums hold a block: 8 words × 4 planes × 2·127 = 8,128. Bound: 8 vector operations for
//! 64 multiply-adds a token.

#![expect(unsafe_op_in_unsafe_fn, reason = "an intrinsic needs the instruction set, which the caller promises")]

use super::grouped_dot::stamp_grouped;
use super::isa::Isa;
use super::lanes::{F16Bytes, F32x16, SimdF32};
use super::neuron_dot::stamp_neurons;
use super::packing::Word;
use super::quantized_head::Int8Dot;
use super::table::{Kernels, stamp_floats};
use super::ternary_dot::{PLANES, TernaryDot, pack4, stamp_sums};
use std::arch::aarch64::*;
use std::arch::asm;

/// Four registers of 4 floats make a vector; a quarter of a word, 4 rows, makes a part.
pub(super) struct Neon;

stamp_floats! { lanes: Neon, features: "neon" }
stamp_neurons! { neurons, dot: Neon, features: "neon" }
stamp_sums! { dot: Neon, features: "neon", tokens: 4, parts: 1 }
stamp_grouped! { lanes: Neon, dot: Neon, base3: Neon, features: "neon", tokens: 4, parts: 1 }

pub(super) static TABLE: Kernels = Kernels {
    isa: Isa::Neon,
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

impl SimdF32 for Neon {
    const WIDE_TILES: bool = false;
    type Vector = [float32x4_t; 4];
    #[inline(always)]
    unsafe fn splat(x: f32) -> [float32x4_t; 4] {
        [vdupq_n_f32(x); 4]
    }
    #[inline(always)]
    unsafe fn load(x: &F32x16) -> [float32x4_t; 4] {
        // SAFETY: `x` holds 16 floats, of which each load reads 4.
        std::array::from_fn(|i| vld1q_f32(x.as_ptr().add(4 * i)))
    }
    #[inline(always)]
    unsafe fn store(v: [float32x4_t; 4], out: &mut F32x16) {
        for (i, v) in v.into_iter().enumerate() {
            // SAFETY: `out` holds 16 floats, of which each store writes 4.
            vst1q_f32(out.as_mut_ptr().add(4 * i), v);
        }
    }
    #[inline(always)]
    unsafe fn fma(a: [float32x4_t; 4], b: [float32x4_t; 4], c: [float32x4_t; 4]) -> [float32x4_t; 4] {
        std::array::from_fn(|i| vfmaq_f32(c[i], a[i], b[i]))
    }
    #[inline(always)]
    unsafe fn f16_to_f32(h: &[F16Bytes; 16]) -> [float32x4_t; 4] {
        std::array::from_fn(|i| {
            let (half, wide): (uint16x4_t, float32x4_t);
            // SAFETY: `h` holds 16 halves, of which each load reads 4. `fcvtl`, whose intrinsic is not stable, is part
            // of every AArch64 and touches registers only.
            half = vld1_u16(h.as_ptr().cast::<u16>().add(4 * i));
            asm!("fcvtl {o:v}.4s, {i:v}.4h", o = out(vreg) wide, i = in(vreg) half, options(pure, nomem, nostack));
            wide
        })
    }
    #[inline(always)]
    unsafe fn i32_to_f32(x: &[i32; 16]) -> [float32x4_t; 4] {
        // SAFETY: `x` holds 16 integers, of which each load reads 4.
        std::array::from_fn(|i| vcvtq_f32_s32(vld1q_s32(x.as_ptr().add(4 * i))))
    }
}

impl Int8Dot for Neon {
    type Weights = [int16x8_t; 4];
    type Sums = [int32x4_t; 4];
    #[inline(always)]
    unsafe fn zero() -> [int32x4_t; 4] {
        [vdupq_n_s32(0); 4]
    }
    #[inline(always)]
    unsafe fn i8_to_i16(w: &[i8; 32]) -> [int16x8_t; 4] {
        // SAFETY: `w` holds 32 bytes, of which each load reads 8.
        std::array::from_fn(|i| vmovl_s8(vld1_s8(w.as_ptr().add(8 * i))))
    }
    #[inline(always)]
    unsafe fn madd(sums: [int32x4_t; 4], w: [int16x8_t; 4], x: &[i16; 32]) -> [int32x4_t; 4] {
        std::array::from_fn(|i| {
            // SAFETY: `x` holds 32 int16, of which each load reads 8.
            let x = vld1q_s16(x.as_ptr().add(8 * i));
            let low = vmlal_s16(sums[i], vget_low_s16(w[i]), vget_low_s16(x));
            vmlal_high_s16(low, w[i], x)
        })
    }
    #[inline(always)]
    unsafe fn total(sums: [int32x4_t; 4]) -> i32 {
        sums.iter().map(|sum| vaddvq_s32(*sum)).sum()
    }
}

/// `smlal` adds to 16-bit sums, which a block cannot overflow; these are added to 32-bit sums after each block.
impl TernaryDot for Neon {
    const ROWS: usize = 4;
    const ACCUMULATORS: usize = 1;
    type Part = uint8x16_t;
    type Bytes = int8x16_t;
    type Sum = ([int16x8_t; 2], [int32x4_t; 2]);
    #[inline(always)]
    unsafe fn zero() -> Self::Sum {
        ([vdupq_n_s16(0); 2], [vdupq_n_s32(0); 2])
    }
    #[inline(always)]
    unsafe fn load(word: &Word, part: usize) -> uint8x16_t {
        // SAFETY: a word is 64 bytes and has four such parts.
        vld1q_u8(word.0.as_ptr().add(16 * part))
    }
    #[inline(always)]
    unsafe fn unpack(part: uint8x16_t) -> [int8x16_t; PLANES] {
        let mask = vdupq_n_u8(3);
        let planes = [
            vshrq_n_u8::<6>(part),
            vandq_u8(vshrq_n_u8::<4>(part), mask),
            vandq_u8(vshrq_n_u8::<2>(part), mask),
            vandq_u8(part, mask),
            vdupq_n_u8(0),
        ];
        // SAFETY: the same registers with their bytes read as signed.
        std::mem::transmute(planes)
    }
    #[inline(always)]
    unsafe fn splat(q: [i8; 4]) -> int8x16_t {
        vreinterpretq_s8_s32(vdupq_n_s32(pack4(q)))
    }
    #[inline(always)]
    unsafe fn bytes(q: &[i8; 64], part: usize) -> int8x16_t {
        // SAFETY: `q` is 64 bytes and has four such parts.
        vld1q_s8(q.as_ptr().add(16 * part))
    }
    #[inline(always)]
    unsafe fn interleave<const HIGH: bool>(words: [&Word; 4], part: usize) -> [uint8x16_t; 2] {
        let low = [<Neon as TernaryDot>::load(words[0], part), <Neon as TernaryDot>::load(words[1], part)];
        let high = [<Neon as TernaryDot>::load(words[2], part), <Neon as TernaryDot>::load(words[3], part)];
        let [a, b] = if HIGH {
            [vzip2q_u8(low[0], low[1]), vzip2q_u8(high[0], high[1])]
        } else {
            [vzip1q_u8(low[0], low[1]), vzip1q_u8(high[0], high[1])]
        };
        let [a, b] = [vreinterpretq_u16_u8(a), vreinterpretq_u16_u8(b)];
        [vreinterpretq_u8_u16(vzip1q_u16(a, b)), vreinterpretq_u8_u16(vzip2q_u16(a, b))]
    }
    #[inline(always)]
    unsafe fn dot((narrow, wide): Self::Sum, codes: int8x16_t, q: int8x16_t) -> Self::Sum {
        let low = vmlal_s8(narrow[0], vget_low_s8(codes), vget_low_s8(q));
        ([low, vmlal_high_s8(narrow[1], codes, q)], wide)
    }
    #[inline(always)]
    unsafe fn widen((narrow, wide): Self::Sum) -> Self::Sum {
        let wide = [vpadalq_s16(wide[0], narrow[0]), vpadalq_s16(wide[1], narrow[1])];
        ([vdupq_n_s16(0); 2], wide)
    }
    #[inline(always)]
    unsafe fn packed_dot(sums: &mut [Self::Sum; PLANES], part: uint8x16_t, q: [int8x16_t; PLANES]) {
        let codes = Self::unpack(part);
        for p in 0..4 {
            sums[0] = Self::dot(sums[0], codes[p], q[p]);
        }
    }
    #[inline(always)]
    unsafe fn packed_sum(sums: [Self::Sum; PLANES]) -> Self::Sum {
        sums[0]
    }
    #[inline(always)]
    unsafe fn store((_, wide): Self::Sum, out: &mut [i32]) {
        assert_eq!(out.len(), 4);
        // SAFETY: `out` holds the four sums that are written.
        vst1q_s32(out.as_mut_ptr(), vpaddq_s32(wide[0], wide[1]));
    }
}
