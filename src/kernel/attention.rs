//! The loops of attention over one page of the KV cache: scores of its keys, and the weighted sum of its values.
//!
//! The order of every sum is part of the numerical contract (`docs/numerics.md`): a lane holds one key (scores) or one
//! channel (values) and sums in ascending order.

#![expect(clippy::needless_range_loop, reason = "vectors and lanes index several arrays at once")]

use super::lanes::{F16, F16Bytes, F32, F32Bytes, SimdF32, Stored, VECTOR_LEN, slices};
use super::prefetch::prefetch;
use std::ops::Range;

/// Keys in one page of the KV cache.
pub const PAGE_LEN: usize = 64;

/// Scores of a page's keys for `N` query vectors, `G` groups of 16 keys at a time.
#[inline(always)]
fn scores_tile<L: SimdF32, S: Stored, const N: usize, const G: usize>(
    q: &[f32],
    keys: &[[S::Bytes; PAGE_LEN]],
    next: &[[S::Bytes; PAGE_LEN]],
    out: &mut [f32],
    stride: usize,
) {
    let channels = keys.len();
    let q: [&[f32]; N] = slices(|v| &q[v * channels..][..channels]);
    for tile in 0..PAGE_LEN / VECTOR_LEN / G {
        // SAFETY: this copy of the code is compiled for `L` (`stamp_floats!`) and runs only where the processor has it.
        unsafe {
            let mut acc = [[L::splat(0.0); G]; N];
            for (d, channel) in keys.iter().enumerate() {
                let mut k = [L::splat(0.0); G];
                for g in 0..G {
                    // A cache line holds 32 keys of f16: each line is asked for twice, which costs little.
                    prefetch(&raw const next[d][(tile * G + g) * VECTOR_LEN]);
                    k[g] = S::to_f32::<L>(&channel.as_chunks().0[tile * G + g]);
                }
                for v in 0..N {
                    let q = L::splat(q[v][d]);
                    for g in 0..G {
                        acc[v][g] = L::fma(q, k[g], acc[v][g]);
                    }
                }
            }
            for v in 0..N {
                let out = out[v * stride..v * stride + PAGE_LEN].as_chunks_mut().0;
                for g in 0..G {
                    L::store(acc[v][g], &mut out[tile * G + g]);
                }
            }
        }
    }
}

#[inline(always)]
fn scores<L: SimdF32, S: Stored>(q: &[f32], keys: &[S::Bytes], next: &[S::Bytes], out: &mut [f32], stride: usize) {
    let (keys, next) = (keys.as_chunks::<PAGE_LEN>().0, next.as_chunks::<PAGE_LEN>().0);
    assert_eq!(keys.len(), next.len());
    let channels = keys.len();
    let n = q.len() / channels;
    let mut v = 0;
    while L::WIDE_TILES && v + 8 <= n {
        scores_tile::<L, S, 8, 2>(&q[v * channels..], keys, next, &mut out[v * stride..], stride);
        v += 8;
    }
    while v + 4 <= n {
        if L::WIDE_TILES {
            scores_tile::<L, S, 4, 4>(&q[v * channels..], keys, next, &mut out[v * stride..], stride);
        } else {
            scores_tile::<L, S, 4, 1>(&q[v * channels..], keys, next, &mut out[v * stride..], stride);
        }
        v += 4;
    }
    while v < n {
        scores_tile::<L, S, 1, 4>(&q[v * channels..], keys, next, &mut out[v * stride..], stride);
        v += 1;
    }
}

#[inline(always)]
pub(super) fn scores_f16<L: SimdF32>(q: &[f32], keys: &[F16Bytes], next: &[F16Bytes], out: &mut [f32], stride: usize) {
    scores::<L, F16>(q, keys, next, out, stride)
}
#[inline(always)]
pub(super) fn scores_f32<L: SimdF32>(q: &[f32], keys: &[F32Bytes], next: &[F32Bytes], out: &mut [f32], stride: usize) {
    scores::<L, F32>(q, keys, next, out, stride)
}

/// The channels of a page's values: how many each key has, and those of them that are summed.
pub type Columns = (usize, Range<usize>);

/// The weighted sums of `N` vectors of weights, in `G` groups of 16 channels from channel `c` of the columns on.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn weighted_sum_tile<L: SimdF32, S: Stored, const N: usize, const G: usize>(
    p: &[f32],
    stride: usize,
    keys: Range<usize>,
    values: &[S::Bytes],
    next: &[S::Bytes],
    acc: &mut [f32],
    (channels, columns): Columns,
    c: usize,
) {
    let p: [&[f32]; N] = slices(|v| &p[v * stride..][..keys.end]);
    let whole = "the columns are a multiple of 16";
    let width = columns.len();
    // SAFETY: this copy of the code is compiled for `L` (`stamp_floats!`) and runs only where the processor has it.
    unsafe {
        let mut sums = [[L::splat(0.0); G]; N];
        for v in 0..N {
            for g in 0..G {
                sums[v][g] = L::load(acc[v * width + c + g * VECTOR_LEN..].first_chunk().expect(whole));
            }
        }
        for key in keys {
            let mut value = [L::splat(0.0); G];
            for g in 0..G {
                let at = key * channels + columns.start + c + g * VECTOR_LEN;
                prefetch(&raw const next[at]);
                let stored = values[at..].first_chunk().expect("the page holds all channels of each key");
                value[g] = S::to_f32::<L>(stored);
            }
            for v in 0..N {
                let weight = L::splat(p[v][key]);
                for g in 0..G {
                    sums[v][g] = L::fma(weight, value[g], sums[v][g]);
                }
            }
        }
        for v in 0..N {
            for g in 0..G {
                let out = acc[v * width + c + g * VECTOR_LEN..].first_chunk_mut().expect(whole);
                L::store(sums[v][g], out);
            }
        }
    }
}

/// The weighted sums of `N` vectors of weights in all columns, `G` groups of 16 at a time.
#[inline(always)]
fn weighted_sum_vectors<L: SimdF32, S: Stored, const N: usize, const G: usize>(
    p: &[f32],
    stride: usize,
    keys: Range<usize>,
    values: &[S::Bytes],
    next: &[S::Bytes],
    acc: &mut [f32],
    of: Columns,
) {
    let width = of.1.len();
    let mut c = 0;
    while c + G * VECTOR_LEN <= width {
        weighted_sum_tile::<L, S, N, G>(p, stride, keys.clone(), values, next, acc, of.clone(), c);
        c += G * VECTOR_LEN;
    }
    // The columns of one cache line of f16, where a head is divided among threads.
    while G > 2 && c + 2 * VECTOR_LEN <= width {
        weighted_sum_tile::<L, S, N, 2>(p, stride, keys.clone(), values, next, acc, of.clone(), c);
        c += 2 * VECTOR_LEN;
    }
    while c < width {
        weighted_sum_tile::<L, S, N, 1>(p, stride, keys.clone(), values, next, acc, of.clone(), c);
        c += VECTOR_LEN;
    }
}

#[inline(always)]
fn weighted_sum<L: SimdF32, S: Stored>(
    p: &[f32],
    stride: usize,
    keys: Range<usize>,
    values: &[S::Bytes],
    next: &[S::Bytes],
    acc: &mut [f32],
    of: Columns,
) {
    let width = of.1.len();
    let vectors = acc.len() / width;
    let mut v = 0;
    while v < vectors {
        let (p, acc, keys, of) = (&p[v * stride..], &mut acc[v * width..], keys.clone(), of.clone());
        v += match vectors - v {
            8.. if L::WIDE_TILES => {
                weighted_sum_vectors::<L, S, 8, 2>(p, stride, keys, values, next, acc, of);
                8
            }
            4.. if L::WIDE_TILES => {
                weighted_sum_vectors::<L, S, 4, 4>(p, stride, keys, values, next, acc, of);
                4
            }
            4.. => {
                weighted_sum_vectors::<L, S, 4, 1>(p, stride, keys, values, next, acc, of);
                4
            }
            _ => {
                weighted_sum_vectors::<L, S, 1, 4>(p, stride, keys, values, next, acc, of);
                1
            }
        };
    }
}

#[inline(always)]
pub(super) fn weighted_sum_f16<L: SimdF32>(
    p: &[f32],
    stride: usize,
    keys: Range<usize>,
    values: &[F16Bytes],
    next: &[F16Bytes],
    acc: &mut [f32],
    of: Columns,
) {
    weighted_sum::<L, F16>(p, stride, keys, values, next, acc, of)
}
#[inline(always)]
pub(super) fn weighted_sum_f32<L: SimdF32>(
    p: &[f32],
    stride: usize,
    keys: Range<usize>,
    values: &[F32Bytes],
    next: &[F32Bytes],
    acc: &mut [f32],
    of: Columns,
) {
    weighted_sum::<L, F32>(p, stride, keys, values, next, acc, of)
}
