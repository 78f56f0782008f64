//! AArch64 without the dot product extension.
//!
//! Ternary inner loop, for a quarter word (4 rows × 16 columns) and one token: 4 `and` + 3 `ushr` shared by the tokens
//! of a tile; per token 4 × (`ld1r`, `smlal`, `smlal2`), and once a block of 128 columns 2 `sadalp`. i16 sums hold
//! a block: 8 words × 4 planes × 2·127 = 8,128.

use super::float::{F16Bytes, Lanes, stamp_floats, with_float_kernels};
use super::ternary::{BLOCK, BLOCK_WORDS, STRIP, Sums, WORD_COLS, Word};
use super::{Isa, Kernels};
use std::arch::aarch64::*;
use std::arch::asm;
use std::hint::black_box;

pub(super) struct Neon;

impl Lanes for Neon {
    const MANY: bool = false;
    type V = [float32x4_t; 4];
    #[inline(always)]
    unsafe fn splat(x: f32) -> [float32x4_t; 4] {
        // SAFETY: NEON is part of every AArch64, here and below.
        unsafe { [vdupq_n_f32(x); 4] }
    }
    #[inline(always)]
    unsafe fn load(x: &[f32; 16]) -> [float32x4_t; 4] {
        // SAFETY: 64 bytes are read.
        std::array::from_fn(|i| unsafe { vld1q_f32(x.as_ptr().add(4 * i)) })
    }
    #[inline(always)]
    unsafe fn store(v: [float32x4_t; 4], out: &mut [f32; 16]) {
        for (i, v) in v.into_iter().enumerate() {
            // SAFETY: 64 bytes are written.
            unsafe { vst1q_f32(out.as_mut_ptr().add(4 * i), v) };
        }
    }
    #[inline(always)]
    unsafe fn fma(a: [float32x4_t; 4], b: [float32x4_t; 4], c: [float32x4_t; 4]) -> [float32x4_t; 4] {
        // SAFETY: registers only.
        std::array::from_fn(|i| unsafe { vfmaq_f32(c[i], a[i], b[i]) })
    }
    #[inline(always)]
    unsafe fn widen_f16(h: &[F16Bytes; 16]) -> [float32x4_t; 4] {
        std::array::from_fn(|i| {
            let (half, wide): (uint16x4_t, float32x4_t);
            // SAFETY: 32 bytes are read; `fcvtl` is part of every AArch64 (its intrinsic is not stable).
            unsafe {
                half = vld1_u16(h.as_ptr().cast::<u16>().add(4 * i));
                asm!("fcvtl {o:v}.4s, {i:v}.4h", o = out(vreg) wide, i = in(vreg) half, options(pure, nomem, nostack));
            }
            wide
        })
    }
    type W = [int16x8_t; 4];
    type I = [int32x4_t; 4];
    #[inline(always)]
    unsafe fn zero() -> [int32x4_t; 4] {
        // SAFETY: registers only.
        unsafe { [vdupq_n_s32(0); 4] }
    }
    #[inline(always)]
    unsafe fn widen_i8(w: &[i8; 32]) -> [int16x8_t; 4] {
        // SAFETY: 32 bytes are read.
        std::array::from_fn(|i| unsafe { vmovl_s8(vld1_s8(w.as_ptr().add(8 * i))) })
    }
    #[inline(always)]
    unsafe fn madd(sums: [int32x4_t; 4], w: [int16x8_t; 4], x: &[i16; 32]) -> [int32x4_t; 4] {
        std::array::from_fn(|i| {
            // SAFETY: 64 bytes are read.
            let x = unsafe { vld1q_s16(x.as_ptr().add(8 * i)) };
            // SAFETY: registers only.
            unsafe {
                let low = vmlal_s16(sums[i], vget_low_s16(w[i]), vget_low_s16(x));
                vmlal_high_s16(low, w[i], x)
            }
        })
    }
    #[inline(always)]
    unsafe fn sum(sums: [int32x4_t; 4]) -> i32 {
        // SAFETY: registers only.
        sums.iter().map(|sum| unsafe { vaddvq_s32(*sum) }).sum()
    }
    #[inline(always)]
    fn prefetch<T>(at: *const T) {
        // SAFETY: a hint, which never faults.
        unsafe { asm!("prfm pldl1keep, [{}]", in(reg) at, options(nostack, readonly)) };
    }
}

with_float_kernels!(stamp_floats Neon "neon");

pub(super) static TABLE: Kernels = Kernels { isa: Isa::Neon, ternary_sums, dots, floats: FLOATS };

/// The four code planes of a quarter word, values 0 to 3.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn planes(word: &Word, quarter: usize) -> [int8x16_t; 4] {
    let mask = vdupq_n_u8(3);
    // SAFETY: a word is 64 bytes; `quarter` is 0 to 3.
    let word = unsafe { vld1q_u8(word.0.as_ptr().add(16 * quarter)) };
    [
        vshrq_n_u8::<6>(word),
        vandq_u8(vshrq_n_u8::<4>(word), mask),
        vandq_u8(vshrq_n_u8::<2>(word), mask),
        vandq_u8(word, mask),
    ]
    .map(|plane| vreinterpretq_s8_u8(plane))
}

/// The four activations that plane p of word w meets, for each of four rows.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn broadcast(token: &[i8], block: usize, p: usize, w: usize) -> int8x16_t {
    let q = token[block * BLOCK + 32 * p + 4 * w..].first_chunk::<4>().expect("whole blocks");
    vreinterpretq_s8_s32(vdupq_n_s32(i32::from_le_bytes(q.map(|q| q as u8))))
}

#[target_feature(enable = "neon")]
fn ternary_sums(words: &[Word], tokens: &[&[i8]], sums: &mut Sums) {
    let per_group = tokens[0].len() / WORD_COLS;
    for (g, words) in words.chunks(per_group).enumerate() {
        for quarter in 0..4 {
            let first_row = 16 * g + 4 * quarter;
            let mut t = 0;
            while t + 4 <= tokens.len() {
                tile::<4>(words, quarter, tokens[t..].first_chunk().expect("four"), &mut sums[t..], first_row);
                t += 4;
            }
            while t < tokens.len() {
                tile::<1>(words, quarter, &[tokens[t]], &mut sums[t..], first_row);
                t += 1;
            }
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn tile<const N: usize>(
    words: &[Word],
    quarter: usize,
    tokens: &[&[i8]; N],
    sums: &mut [[i32; STRIP]],
    first_row: usize,
) {
    let mut wide = [[vdupq_n_s32(0); 2]; N];
    for (b, block) in words.as_chunks::<BLOCK_WORDS>().0.iter().enumerate() {
        let mut narrow = [[vdupq_n_s16(0); 2]; N];
        for (w, word) in block.iter().enumerate() {
            for (p, plane) in planes(word, quarter).into_iter().enumerate() {
                for t in 0..N {
                    let q = broadcast(tokens[t], b, p, w);
                    narrow[t][0] = vmlal_s8(narrow[t][0], vget_low_s8(plane), vget_low_s8(q));
                    narrow[t][1] = vmlal_high_s8(narrow[t][1], plane, q);
                }
            }
        }
        for t in 0..N {
            for half in 0..2 {
                wide[t][half] = vpadalq_s16(wide[t][half], narrow[t][half]);
            }
        }
    }
    for t in 0..N {
        let out: &mut [i32] = &mut sums[t][first_row..first_row + 4];
        // SAFETY: four sums are written to a slice of four.
        unsafe { vst1q_s32(out.as_mut_ptr(), vpaddq_s32(wide[t][0], wide[t][1])) };
    }
}

/// A block of the ternary loop in each round, of four tokens, less its loads and its unpacking of codes.
#[target_feature(enable = "neon")]
fn dots(rounds: usize) -> u64 {
    let mut planes = [vdupq_n_s8(1); 4];
    let tokens = black_box([vdupq_n_s8(1); 4]);
    let mut wide = [[vdupq_n_s32(0); 2]; 4];
    for _ in 0..rounds {
        let mut narrow = [[vdupq_n_s16(0); 2]; 4];
        for _ in 0..BLOCK_WORDS {
            for plane in &mut planes {
                *plane = opaque(*plane);
                for t in 0..4 {
                    narrow[t][0] = vmlal_s8(narrow[t][0], vget_low_s8(*plane), vget_low_s8(tokens[t]));
                    narrow[t][1] = vmlal_high_s8(narrow[t][1], *plane, tokens[t]);
                }
            }
        }
        for t in 0..4 {
            for half in 0..2 {
                wide[t][half] = vpadalq_s16(wide[t][half], narrow[t][half]);
            }
        }
    }
    wide.as_flattened().iter().map(|wide| vaddlvq_u32(vreinterpretq_u32_s32(*wide))).sum()
}

/// The same value, about which the compiler knows nothing: it must not take the products out of the loop.
#[inline]
#[target_feature(enable = "neon")]
fn opaque(mut x: int8x16_t) -> int8x16_t {
    // SAFETY: no instruction at all.
    unsafe { asm!("/* {x:v} */", x = inout(vreg) x, options(nomem, nostack, preserves_flags)) };
    x
}
