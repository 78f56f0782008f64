//! AArch64 with the dot product extension.
//!
//! Ternary inner loop, for a quarter word (4 rows × 16 columns), 64 weights: 4 `and`, 3 `ushr` shared by the tokens of a
//! tile; per token 4 × (`ld1r`, `sdot`), of one token four quarters sharing each `ld1r`. Bound: 4 `sdot` for 64
//! multiply-adds a token.

use super::float::{stamp_floats, with_float_kernels};
use super::neon::Neon;
use super::packing::Word;
use super::sums::{PLANES, TernaryDot, stamp_sums};
use super::{Isa, Kernels, promised};
use std::arch::aarch64::*;
use std::arch::asm;

with_float_kernels!(stamp_floats Neon "neon");
stamp_sums!(Dot, "neon,dotprod", 4, 1);

pub(super) static TABLE: Kernels =
    Kernels { isa: Isa::NeonDot, two_bit_sums: sums, base3: None, peak_macs, floats: FLOATS };

struct Dot;

impl TernaryDot for Dot {
    const ROWS: usize = 4;
    const CHAINS: usize = 2;
    type Part = uint8x16_t;
    type Bytes = int8x16_t;
    type Sum = int32x4_t;
    promised! {
        fn zero() -> int32x4_t { vdupq_n_s32(0) }
        fn load(word: &Word, part: usize) -> uint8x16_t { <Neon as TernaryDot>::load(word, part) }
        fn codes(part: uint8x16_t) -> [int8x16_t; PLANES] { Neon::codes(part) }
        fn splat(q: [i8; 4]) -> int8x16_t { <Neon as TernaryDot>::splat(q) }
        /// `vdotq_s32`, whose intrinsic is not stable yet.
        fn dot(mut sum: int32x4_t, codes: int8x16_t, q: int8x16_t) -> int32x4_t {
            asm!(".arch_extension dotprod", "sdot {sum:v}.4s, {codes:v}.16b, {q:v}.16b", sum = inout(vreg) sum,
                codes = in(vreg) codes, q = in(vreg) q, options(pure, nomem, nostack));
            sum
        }
        fn packed_dot(sums: &mut [int32x4_t; PLANES], part: uint8x16_t, q: [int8x16_t; PLANES]) {
            let codes = Self::codes(part);
            for p in 0..4 {
                sums[p % 2] = Self::dot(sums[p % 2], codes[p], q[p]);
            }
        }
        fn packed_sum(sums: [int32x4_t; PLANES]) -> int32x4_t { vaddq_s32(sums[0], sums[1]) }
        fn store(sum: int32x4_t, out: &mut [i32]) {
            assert_eq!(out.len(), 4);
            // SAFETY: four sums are written to a slice of four.
            vst1q_s32(out.as_mut_ptr(), sum);
        }
    }
}
