//! Activations of grouped ternary matrices: blocks of 128 columns, each with a step of its own, rounded to 24, 16 or 8
//! bits in as many planes of int8 as they have bytes.

use super::grouped_dot::{BlockScale, GroupedToken, GroupedTokens, MAX_PLANES};
use super::lanes::{ROUNDING_MAGIC, SimdF32, VECTOR_LEN};
use super::look_ups::RowCodes;
use super::packing::BLOCK;
use crate::error::Result;
use crate::machine::memory::try_grow;
use std::sync::Mutex;

/// The largest integer of three planes: the largest that adding [`ROUNDING_MAGIC`] rounds to.
const MOST_INT24: f32 = 4_194_303.0;
/// The largest integer of two planes: 127·256 + 127.
const MOST_INT16: f32 = 32_639.0;
/// The largest integer of one plane.
const MOST_INT8: f32 = 127.0;
/// A block whose largest magnitude is below this is stored as zeros: its step would be subnormal, or its inverse
/// infinite.
const MIN_AMAX: f32 = 1e-30;

#[inline(always)]
pub(super) fn quantize_blocks<L: SimdF32>(
    x: &[f32],
    high: &mut [i8],
    middle: &mut [i8],
    low: &mut [i8],
    scales: &mut [BlockScale],
) {
    assert!(low.len() == scales.len() * BLOCK && x.len().div_ceil(BLOCK) == scales.len());
    assert!((middle.is_empty() || middle.len() == low.len()) && (high.is_empty() || high.len() == middle.len()));
    let most = match (high.is_empty(), middle.is_empty()) {
        (false, _) => MOST_INT24,
        (true, false) => MOST_INT16,
        (true, true) => MOST_INT8,
    };
    let lows = low.as_chunks_mut::<BLOCK>().0;
    for (block, (x, (low, scale))) in x.chunks(BLOCK).zip(lows.iter_mut().zip(scales)).enumerate() {
        let mut padded = [0f32; BLOCK];
        padded[..x.len()].copy_from_slice(x);
        // The bits of magnitudes have the order of the magnitudes, and those of NaN are above all.
        let mut max = [0u32; VECTOR_LEN];
        for part in padded.as_chunks::<VECTOR_LEN>().0 {
            for (max, x) in max.iter_mut().zip(part) {
                *max = (*max).max(x.abs().to_bits());
            }
        }
        let amax = f32::from_bits(max.into_iter().fold(0, u32::max));
        let inverse = if amax < MIN_AMAX { 0.0 } else { most / amax };
        let mut integers = [0i32; BLOCK];
        for (integer, x) in integers.iter_mut().zip(&padded) {
            *integer = (x * inverse + ROUNDING_MAGIC).to_bits().wrapping_sub(ROUNDING_MAGIC.to_bits()) as i32;
        }
        let (first, second) = integers.split_at(BLOCK / 2);
        let sum = |half: &[i32]| half.iter().fold(0i32, |sum, x| sum.wrapping_add(*x));
        let sums = [sum(first), sum(second)];
        // The low byte with its sign; what is left is a multiple of 256.
        for (low, integer) in low.iter_mut().zip(&mut integers) {
            *low = *integer as i8;
            *integer = integer.wrapping_sub(*integer as i8 as i32) >> 8;
        }
        for plane in [&mut *middle, &mut *high] {
            if let Some(plane) = plane.as_chunks_mut::<BLOCK>().0.get_mut(block) {
                for (byte, integer) in plane.iter_mut().zip(&mut integers) {
                    *byte = *integer as i8;
                    *integer = integer.wrapping_sub(*integer as i8 as i32) >> 8;
                }
            }
        }
        // A NaN or infinity makes every output of the token NaN.
        let s = if !amax.is_finite() {
            f32::NAN
        } else if amax < MIN_AMAX {
            0.0
        } else {
            amax / most
        };
        *scale = BlockScale { s, sums };
    }
}

/// The rounded activations of some tokens.
#[derive(Default)]
pub struct GroupedActivations {
    /// For each token its planes, the high one first.
    q: Vec<i8>,
    scales: Vec<BlockScale>,
    n_planes: usize,
    n_tokens: usize,
    /// Blocks of a token.
    blocks: usize,
    /// Room for the codes of a matrix as look-ups read them, kept for the next product.
    pub(super) codes: Mutex<Vec<RowCodes>>,
}

/// Where the rounded activations of a token go.
pub struct GroupedRow<'a> {
    q: &'a mut [i8],
    scales: &'a mut [BlockScale],
    n_planes: usize,
}

impl GroupedRow<'_> {
    /// Rounds the token's activations.
    pub fn quantize(&mut self, kernels: &super::Kernels, x: &[f32]) {
        let plane = self.scales.len() * BLOCK;
        let (before, low) = self.q.split_at_mut((self.n_planes - 1) * plane);
        let (high, middle) = before.split_at_mut(before.len().saturating_sub(plane));
        kernels.quantize_blocks(x, high, middle, low, self.scales);
    }
}

impl GroupedActivations {
    /// Allocates the rows of `tokens` tokens of `cols` activations, in one to three planes.
    pub fn rows(
        &mut self,
        tokens: usize,
        cols: usize,
        n_planes: usize,
    ) -> Result<impl Iterator<Item = GroupedRow<'_>>> {
        let blocks = cols.div_ceil(BLOCK);
        (self.n_planes, self.n_tokens, self.blocks) = (n_planes, tokens, blocks);
        let width = n_planes * blocks * BLOCK;
        let rows = try_grow(&mut self.q, tokens * width)?.chunks_mut(width);
        let scales = try_grow(&mut self.scales, tokens * blocks)?.chunks_mut(blocks);
        Ok(rows.zip(scales).map(move |(q, scales)| GroupedRow { q, scales, n_planes }))
    }

    /// What the kernels read of each token.
    pub fn tokens(&self) -> GroupedTokens<'_> {
        let blocks = self.n_tokens * self.blocks;
        let q = &self.q[..blocks * self.n_planes * BLOCK];
        GroupedTokens::new(q, &self.scales[..blocks], self.n_planes, self.blocks)
    }

    /// The activations of a token as its integers stand for them, padded with zeros.
    pub fn dequantized(&self, token: usize) -> Vec<f64> {
        let GroupedToken { planes, scales, .. } = self.tokens().token(token);
        let byte = |plane: &[i8], i: usize| plane.get(i).map_or(0, |byte| *byte as i64);
        let integer = |i: usize| planes.iter().fold(0, |sum, plane| 256 * sum + byte(plane, i));
        (0..planes[MAX_PLANES - 1].len()).map(|i| integer(i) as f64 * scales[i / BLOCK].s as f64).collect()
    }

    /// How many blocks a token has.
    pub fn blocks(&self) -> usize {
        self.blocks
    }
}
