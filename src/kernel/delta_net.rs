//! Kernels of the gated delta net (arXiv 2412.06464): the causal convolution, the norm of its queries and keys, and the
//! delta rule. The lanes are value channels, each of which is a chain of its own, so no sum crosses lanes.
//!
//! The state of a head is stored in blocks of 16 value channels: `[block][key channel][16]`. The last block is padded
//! with zeros, which stay zeros.

use super::dot::dot_tile;
use super::elementwise::exp;
use super::lanes::{Dequantized, F32x16, SimdF32, VECTOR_LEN};

/// Value channels of a block of the state.
pub const STATE_BLOCK: usize = VECTOR_LEN;
/// Blocks that are computed together: as many chains of sums hide the latency of one, and 128 key channels of them stay
/// in the L1 cache.
pub const STATE_BLOCKS: usize = 4;
/// Added to the squares of a vector whose length becomes 1, as in transformers.
const LENGTH_EPS: f32 = 1e-6;

#[inline(always)]
pub(super) fn convolve_silu<L: SimdF32>(taps: &[&[f32]], weights: &[&[f32]], out: &mut [f32]) {
    assert!(taps.len() == weights.len());
    out.fill(0.0);
    for (tap, weights) in taps.iter().zip(weights) {
        assert!(tap.len() == out.len() && weights.len() == out.len());
        for ((out, x), weight) in out.iter_mut().zip(*tap).zip(*weights) {
            *out = weight.mul_add(*x, *out);
        }
    }
    for out in out.iter_mut() {
        *out /= 1.0 + exp(-*out);
    }
}

#[inline(always)]
pub(super) fn unit_length<L: SimdF32>(x: &mut [f32], factor: f32) {
    let squares = dot_tile::<L, Dequantized, 1>(x, [&*x])[0];
    let r = 1.0 / (squares + LENGTH_EPS).sqrt();
    for x in x.iter_mut() {
        *x = *x * r * factor;
    }
}

#[inline(always)]
pub(super) fn sigmoid_mul<L: SimdF32>(x: &mut [f32], gate: &[f32]) {
    assert_eq!(x.len(), gate.len());
    for (x, gate) in x.iter_mut().zip(gate) {
        *x /= 1.0 + exp(-*gate);
    }
}

#[inline(always)]
pub(super) fn delta_rule<L: SimdF32>(
    state: &mut [f32],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    [decay, beta]: [f32; 2],
    out: &mut [f32],
) {
    let (rows, rest) = state.as_chunks_mut::<STATE_BLOCK>();
    assert!(rest.is_empty() && q.len() == k.len() && v.len() == out.len());
    assert!(rows.len() == k.len() * v.len().div_ceil(STATE_BLOCK));
    let tiles = rows.chunks_mut(STATE_BLOCKS * k.len());
    let channels = v.chunks(STATE_BLOCKS * STATE_BLOCK).zip(out.chunks_mut(STATE_BLOCKS * STATE_BLOCK));
    for (rows, (v, out)) in tiles.zip(channels) {
        match rows.len() / k.len() {
            4 => tile::<L, 4>(rows, q, k, v, decay, beta, out),
            3 => tile::<L, 3>(rows, q, k, v, decay, beta, out),
            2 => tile::<L, 2>(rows, q, k, v, decay, beta, out),
            _ => tile::<L, 1>(rows, q, k, v, decay, beta, out),
        }
    }
}

/// The delta rule for `N` blocks of value channels.
#[inline(always)]
fn tile<L: SimdF32, const N: usize>(
    mut state: &mut [F32x16],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    decay: f32,
    beta: f32,
    out: &mut [f32],
) {
    let mut blocks: [&mut [F32x16]; N] = [(); N].map(|()| &mut [] as &mut [F32x16]);
    for block in &mut blocks {
        (*block, state) = state.split_at_mut(k.len());
    }
    let mut values = [[0f32; STATE_BLOCK]; N];
    values.as_flattened_mut()[..v.len()].copy_from_slice(v);
    // SAFETY: this copy of the code is compiled for `L` (`stamp_floats!`) and runs only where the processor has it.
    unsafe {
        // What the state holds for the key, Sᵀ·k.
        let mut held = [L::splat(0.0); N];
        for (i, k) in k.iter().enumerate() {
            let k = L::splat(*k);
            for n in 0..N {
                held[n] = L::fma(L::load(&blocks[n][i]), k, held[n]);
            }
        }
        // The change, e = β·(v − a·Sᵀ·k). A product: adding −0 changes nothing.
        let (minus_decay, beta, zero) = (L::splat(-decay), L::splat(beta), L::splat(-0.0));
        let mut change = [zero; N];
        for n in 0..N {
            change[n] = L::fma(L::fma(minus_decay, held[n], L::load(&values[n])), beta, zero);
        }
        // The new state, S = a·S + k·eᵀ, and the output, Sᵀ·q.
        let (decay, mut read) = (L::splat(decay), [L::splat(0.0); N]);
        for (i, (k, q)) in k.iter().zip(q).enumerate() {
            let (k, q) = (L::splat(*k), L::splat(*q));
            for n in 0..N {
                let row = &mut blocks[n][i];
                let new = L::fma(k, change[n], L::fma(L::load(row), decay, zero));
                L::store(new, row);
                read[n] = L::fma(new, q, read[n]);
            }
        }
        for n in 0..N {
            L::store(read[n], &mut values[n]);
        }
    }
    out.copy_from_slice(&values.as_flattened()[..out.len()]);
}
