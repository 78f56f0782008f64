//! Dot products of a stored row with one or more vectors.
//!
//! The order of every sum is part of the numerical contract (`docs/numerics.md`): a dot along K keeps 64 lanes
//! (lane = k mod 64, ascending) and combines them by halving. Multiply-adds are fused, everywhere; Rust never contracts
//! or reorders what is written.

#![expect(clippy::needless_range_loop, reason = "groups and tokens index several arrays at once")]

use super::lanes::{
    Bf16, Bf16Bytes, DOT_LANES, Dequantized, F16, F16Bytes, F32, F32Bytes, SimdF32, Stored, VECTOR_LEN, slices,
    sum_by_halving,
};
use super::prefetch::prefetch_ahead;

/// Dots of a row with `N` vectors, which share one pass over the row.
#[inline(always)]
pub(super) fn dot_tile<L: SimdF32, S: Stored, const N: usize>(row: &[S::Bytes], xs: [&[f32]; N]) -> [f32; N] {
    const VECTORS: usize = DOT_LANES / VECTOR_LEN;
    let (blocks, tail) = row.as_chunks::<DOT_LANES>();
    let x_blocks: [&[[f32; DOT_LANES]]; N] = slices(|t| &xs[t].as_chunks::<DOT_LANES>().0[..blocks.len()]);
    let mut sums = [[[0f32; VECTOR_LEN]; VECTORS]; N];
    // SAFETY: `L` is the instruction set that this copy of the code is compiled for, which `stamp_floats!` alone
    // decides, and `Kernels` runs it only where the processor has it.
    unsafe {
        let mut acc = [[L::splat(0.0); VECTORS]; N];
        for (b, block) in blocks.iter().enumerate() {
            prefetch_ahead(block);
            for g in 0..VECTORS {
                let w = S::to_f32::<L>(&block.as_chunks().0[g]);
                for t in 0..N {
                    acc[t][g] = L::fma(w, L::load(&x_blocks[t][b].as_chunks().0[g]), acc[t][g]);
                }
            }
        }
        for t in 0..N {
            for g in 0..VECTORS {
                L::store(acc[t][g], &mut sums[t][g]);
            }
        }
    }
    if let Some(first) = tail.first() {
        let mut padded = [*first; DOT_LANES];
        padded[..tail.len()].copy_from_slice(tail);
        let mut w = [[0f32; VECTOR_LEN]; VECTORS];
        for (w, group) in w.iter_mut().zip(padded.as_chunks().0) {
            // SAFETY: as above.
            unsafe { L::store(S::to_f32::<L>(group), w) };
        }
        for (sums, x) in sums.iter_mut().zip(xs) {
            let lanes = sums.as_flattened_mut().iter_mut().zip(w.as_flattened());
            for ((sum, w), x) in lanes.zip(&x[blocks.len() * DOT_LANES..]) {
                *sum = w.mul_add(*x, *sum);
            }
        }
    }
    let mut dots = [0f32; N];
    for (dot, sums) in dots.iter_mut().zip(sums) {
        *dot = sum_by_halving(sums);
    }
    dots
}

#[inline(always)]
fn dot<L: SimdF32, S: Stored>(row: &[S::Bytes], xs: &[&[f32]], out: &mut [f32]) {
    assert!(xs.len() == out.len() && xs.iter().all(|x| x.len() == row.len()));
    let mut t = 0;
    if L::WIDE_TILES {
        while t + 4 <= xs.len() {
            let tile = dot_tile::<L, S, 4>(row, [xs[t], xs[t + 1], xs[t + 2], xs[t + 3]]);
            out[t..t + 4].copy_from_slice(&tile);
            t += 4;
        }
    }
    for t in t..xs.len() {
        out[t] = dot_tile::<L, S, 1>(row, [xs[t]])[0];
    }
}

#[inline(always)]
pub(super) fn dot_f16<L: SimdF32>(row: &[F16Bytes], xs: &[&[f32]], out: &mut [f32]) {
    dot::<L, F16>(row, xs, out)
}
#[inline(always)]
pub(super) fn dot_bf16<L: SimdF32>(row: &[Bf16Bytes], xs: &[&[f32]], out: &mut [f32]) {
    dot::<L, Bf16>(row, xs, out)
}
#[inline(always)]
pub(super) fn dot_f32<L: SimdF32>(row: &[F32Bytes], xs: &[&[f32]], out: &mut [f32]) {
    dot::<L, F32>(row, xs, out)
}
#[inline(always)]
pub(super) fn dot_floats<L: SimdF32>(row: &[f32], xs: &[&[f32]], out: &mut [f32]) {
    dot::<L, Dequantized>(row, xs, out)
}
