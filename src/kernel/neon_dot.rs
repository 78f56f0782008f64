//! AArch64 with the dot product extension.
//!
//! Ternary inner loop, for a quarter word (4 rows × 16 columns), 64 weights: 4 `and`, 3 `ushr` shared by the tokens of
//! a tile; per token 4 × (`ld1r`, `sdot`), where for a single token four quarters share each `ld1r`. Bound: 4 `sdot`
//! for 64 multiply-adds a token.

#![expect(unsafe_op_in_unsafe_fn, reason = "an intrinsic needs the instruction set, which the caller promises")]

use super::grouped_dot::stamp_grouped;
use super::isa::Isa;
use super::neon::{FLOATS, Neon};
use super::neuron_dot::stamp_neurons;
use super::packing::Word;
use super::table::Kernels;
use super::ternary_dot::{PLANES, TernaryDot, stamp_sums};
use std::arch::aarch64::*;
use std::arch::asm;

stamp_neurons! { neurons, dot: Sdot, features: "neon,dotprod" }
stamp_sums! { dot: Sdot, features: "neon,dotprod", tokens: 4, parts: 1 }
stamp_grouped! { lanes: Neon, dot: Sdot, base3: Sdot, features: "neon,dotprod", tokens: 4, parts: 1 }

pub(super) static TABLE: Kernels = Kernels {
    isa: Isa::NeonDot,
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

/// `sdot` adds to 32-bit sums. A part is a quarter of a word.
struct Sdot;

impl TernaryDot for Sdot {
    const ROWS: usize = 4;
    const ACCUMULATORS: usize = 2;
    type Part = uint8x16_t;
    type Bytes = int8x16_t;
    type Sum = int32x4_t;
    #[inline(always)]
    unsafe fn zero() -> int32x4_t {
        vdupq_n_s32(0)
    }
    #[inline(always)]
    unsafe fn load(word: &Word, part: usize) -> uint8x16_t {
        <Neon as TernaryDot>::load(word, part)
    }
    #[inline(always)]
    unsafe fn unpack(part: uint8x16_t) -> [int8x16_t; PLANES] {
        Neon::unpack(part)
    }
    #[inline(always)]
    unsafe fn splat(q: [i8; 4]) -> int8x16_t {
        <Neon as TernaryDot>::splat(q)
    }
    #[inline(always)]
    unsafe fn bytes(q: &[i8; 64], part: usize) -> int8x16_t {
        <Neon as TernaryDot>::bytes(q, part)
    }
    #[inline(always)]
    unsafe fn interleave<const HIGH: bool>(words: [&Word; 4], part: usize) -> [uint8x16_t; 2] {
        <Neon as TernaryDot>::interleave::<HIGH>(words, part)
    }
    /// `vdotq_s32`, an intrinsic that is not stable yet.
    #[inline(always)]
    unsafe fn dot(mut sum: int32x4_t, codes: int8x16_t, q: int8x16_t) -> int32x4_t {
        // SAFETY: registers only; the caller promises the extension.
        asm!(".arch_extension dotprod", "sdot {sum:v}.4s, {codes:v}.16b, {q:v}.16b", sum = inout(vreg) sum,
            codes = in(vreg) codes, q = in(vreg) q, options(pure, nomem, nostack));
        sum
    }
    #[inline(always)]
    unsafe fn packed_dot(sums: &mut [int32x4_t; PLANES], part: uint8x16_t, q: [int8x16_t; PLANES]) {
        // Two accumulators, so that a dot does not wait for the one before it.
        let codes = Self::unpack(part);
        for p in 0..4 {
            sums[p % 2] = Self::dot(sums[p % 2], codes[p], q[p]);
        }
    }
    #[inline(always)]
    unsafe fn packed_sum(sums: [int32x4_t; PLANES]) -> int32x4_t {
        vaddq_s32(sums[0], sums[1])
    }
    #[inline(always)]
    unsafe fn store(sum: int32x4_t, out: &mut [i32]) {
        assert_eq!(out.len(), 4);
        // SAFETY: `out` holds the four sums that are written.
        vst1q_s32(out.as_mut_ptr(), sum);
    }
}
