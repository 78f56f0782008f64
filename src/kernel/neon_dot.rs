//! AArch64 with the dot product extension.
//!
//! Ternary inner loop, for a quarter word (4 rows × 16 columns) and one token: 4 `and` + 3 `ushr` shared by the tokens
//! of a tile; per token 4 × (`ld1r`, `sdot`): 64 weights.

use super::float::{stamp_floats, with_float_kernels};
use super::neon::{Neon, broadcast, planes};
use super::ternary::{BLOCK_WORDS, STRIP, Sums, WORD_COLS, Word};
use super::{Isa, Kernels};
use std::arch::aarch64::*;
use std::arch::asm;
use std::hint::black_box;

with_float_kernels!(stamp_floats Neon "neon");

pub(super) static TABLE: Kernels = Kernels { isa: Isa::NeonDot, ternary_sums, dots, floats: FLOATS };

#[target_feature(enable = "neon,dotprod")]
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
#[target_feature(enable = "neon,dotprod")]
fn tile<const N: usize>(
    words: &[Word],
    quarter: usize,
    tokens: &[&[i8]; N],
    sums: &mut [[i32; STRIP]],
    first_row: usize,
) {
    let mut acc = [[vdupq_n_s32(0); 4]; N];
    for (b, block) in words.as_chunks::<BLOCK_WORDS>().0.iter().enumerate() {
        for (w, word) in block.iter().enumerate() {
            for (p, plane) in planes(word, quarter).into_iter().enumerate() {
                for t in 0..N {
                    acc[t][p] = sdot(acc[t][p], plane, broadcast(tokens[t], b, p, w));
                }
            }
        }
    }
    for t in 0..N {
        let sum = vaddq_s32(vaddq_s32(acc[t][0], acc[t][1]), vaddq_s32(acc[t][2], acc[t][3]));
        let out: &mut [i32] = &mut sums[t][first_row..first_row + 4];
        // SAFETY: four sums are written to a slice of four.
        unsafe { vst1q_s32(out.as_mut_ptr(), sum) };
    }
}

/// `vdotq_s32`, whose intrinsic is not stable yet.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: registers only; the extension is there by the target feature.
    unsafe {
        asm!("sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b", acc = inout(vreg) acc, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack));
    }
    acc
}

/// Twenty-four chains, more than the instruction's latency and ports can hold.
#[target_feature(enable = "neon,dotprod")]
fn dots(rounds: usize) -> u64 {
    let [a, b] = black_box([vdupq_n_s8(1); 2]);
    let mut acc = black_box([vdupq_n_s32(0); 24]);
    for _ in 0..rounds {
        for acc in &mut acc {
            *acc = sdot(*acc, a, b);
        }
    }
    acc.into_iter().map(|acc| vaddlvq_u32(vreinterpretq_u32_s32(acc))).sum()
}
