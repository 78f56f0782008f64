//! The loops of ternary matrices with a scale for each group of columns, written once: groups end with a few float
//! operations, in ascending order (`docs/numerics.md`). An instruction set implements [`TernaryDot`] and [`SimdF32`].
//!
//! Activations have one to three planes of int8; the planes of a token are multiplied like as many tokens. Sums of a
//! block of 128 columns are exact integers: with two planes also as f32, since 2·128·32,639 is below 2²⁴; with three,
//! 2·128·2²² fits an i32, which is rounded once.

#![expect(clippy::needless_range_loop, reason = "planes, halves and tokens index several arrays at once")]

use super::lanes::{F16Bytes, F32x16, SimdF32};
use super::packing::{BASE3_WORDS, BLOCK, GROUP, TWO_BIT_WORDS, Word};
use super::prefetch::prefetch_far;
use super::ternary_dot::{PLANES, STRIP, TernaryDot};
use crate::machine::memory::Zeroable;
use std::ops::Range;

/// The most planes of an activation.
pub const MAX_PLANES: usize = 3;

/// Columns of the fifth codes in one of the four parts of a base3 block.
const FIFTH_COLS: usize = BLOCK / 4;

/// What turns the integer sums of a block of activations back into floats.
#[derive(Clone, Copy, Default)]
pub struct BlockScale {
    /// The step: an activation is `s` times its integer.
    pub s: f32,
    /// The sums of the integers in both halves of the block; they correct for codes being trit + 1.
    pub sums: [i32; 2],
}

// SAFETY: numbers, for which every bit pattern is valid.
unsafe impl Zeroable for BlockScale {}

impl BlockScale {
    /// The sum of the integers in one of `parts` equal parts of the block, 1 or 2.
    #[inline(always)]
    pub(super) fn sum(&self, part: usize, parts: usize) -> i32 {
        if parts == 1 { self.sums[0].wrapping_add(self.sums[1]) } else { self.sums[part] }
    }
}

/// The activations of a token, in blocks of 128 columns.
#[derive(Clone, Copy)]
pub struct GroupedToken<'a> {
    /// The planes of integers, `(high · 256 + middle) · 256 + low`; with fewer planes the first ones are empty.
    pub planes: [&'a [i8]; MAX_PLANES],
    /// How many planes there are.
    pub n_planes: usize,
    /// The scale of each block.
    pub scales: &'a [BlockScale],
}

/// The activations of some tokens.
#[derive(Clone, Copy)]
pub struct GroupedTokens<'a> {
    /// For each token its planes, the high one first.
    q: &'a [i8],
    scales: &'a [BlockScale],
    n_planes: usize,
    /// Blocks of a token.
    blocks: usize,
}

impl<'a> GroupedTokens<'a> {
    /// The planes of each token one after the other, the high one first, and the scales of its blocks.
    pub fn new(q: &'a [i8], scales: &'a [BlockScale], n_planes: usize, blocks: usize) -> GroupedTokens<'a> {
        assert!(matches!(n_planes, 1..=MAX_PLANES) && blocks > 0 && scales.len().is_multiple_of(blocks));
        assert_eq!(q.len(), scales.len() * n_planes * BLOCK);
        GroupedTokens { q, scales, n_planes, blocks }
    }

    /// The number of tokens.
    #[expect(clippy::len_without_is_empty, reason = "nothing asks whether it is empty")]
    pub fn len(&self) -> usize {
        self.scales.len() / self.blocks
    }

    /// How many planes there are.
    pub fn n_planes(&self) -> usize {
        self.n_planes
    }

    /// The bytes from one token to the next.
    fn stride(&self) -> usize {
        self.n_planes * self.blocks * BLOCK
    }

    /// Token `i`.
    pub fn token(&self, i: usize) -> GroupedToken<'a> {
        let mut planes: [&[i8]; MAX_PLANES] = [&[]; MAX_PLANES];
        let own = self.q[i * self.stride()..][..self.stride()].chunks(self.blocks * BLOCK);
        planes[MAX_PLANES - self.n_planes..].iter_mut().zip(own).for_each(|(plane, own)| *plane = own);
        let scales = &self.scales[i * self.blocks..][..self.blocks];
        GroupedToken { planes, n_planes: self.n_planes, scales }
    }

    /// The tokens in this range.
    pub fn range(&self, tokens: Range<usize>) -> GroupedTokens<'a> {
        let q = &self.q[tokens.start * self.stride()..tokens.end * self.stride()];
        let scales = &self.scales[tokens.start * self.blocks..tokens.end * self.blocks];
        GroupedTokens { q, scales, ..*self }
    }

    /// The bytes from the first of some tokens on, in one plane and from one block on, up to the end of the last of
    /// these tokens; and how far apart the tokens lie.
    pub(super) fn tile(&self, tokens: Range<usize>, plane: usize, block: usize) -> (&'a [i8], usize) {
        let column = (plane * self.blocks + block) * BLOCK;
        (&self.q[tokens.start * self.stride() + column..tokens.end * self.stride()], self.stride())
    }

    /// The scale of a token's block.
    #[inline(always)]
    pub(super) fn scale(&self, token: usize, block: usize) -> &'a BlockScale {
        &self.scales[token * self.blocks + block]
    }
}

/// The packed weights of a group of 16 rows.
#[derive(Clone, Copy)]
pub struct GroupedRows<'a> {
    /// f16 scales, `[group of columns][row]`, two groups of columns a word.
    pub scales: &'a [Word],
    /// Base3 blocks of 640 columns, then two-bit blocks of 128.
    pub words: &'a [Word],
    /// How many base3 blocks there are.
    pub base3_blocks: usize,
    /// Whether each half of a block, 64 columns, has a scale of its own.
    pub halves: bool,
}

impl<'a> GroupedRows<'a> {
    /// The scales of a group of columns.
    #[inline(always)]
    pub(super) fn scales_of(&self, group: usize) -> &'a [F16Bytes; GROUP] {
        let (both, _) = self.scales[group / 2].0.as_chunks::<2>();
        let (sixteen, _) = both.as_chunks::<GROUP>();
        &sixteen[group % 2]
    }
}

/// Computes the outputs of 16 rows for one token.
pub(super) type OneKernel = unsafe fn(&GroupedRows, GroupedToken, &mut F32x16);
/// Computes the outputs of one or two groups of 16 rows, whose words are two-bit, for some tokens: `[token][row]`.
pub(super) type TileKernel = unsafe fn(&[GroupedRows], &[GroupedToken], &mut [[f32; STRIP]]);

/// A kernel for many tokens.
#[derive(Clone, Copy)]
pub(super) struct ManyGrouped {
    /// Computes the outputs of one or two groups of 16 rows for any number of tokens: `[token][row]`.
    pub(super) outputs: unsafe fn(&[GroupedRows], GroupedTokens, &mut [[f32; STRIP]]),
    /// Fewer tokens are not faster by it.
    pub(super) min_tokens: usize,
}

/// The kernels of an instruction set for grouped ternary matrices.
#[derive(Clone, Copy)]
pub(super) struct GroupedKernels {
    pub(super) one: OneKernel,
    pub(super) tile: TileKernel,
    /// None where the kernels for tiles of tokens are as fast for many.
    pub(super) many: Option<ManyGrouped>,
}

/// Adds a group of columns to the outputs of 16 rows: `fma(float(sum of trits) · s, scale, y)`. `minus` turns sums of
/// codes into those of trits. Sums wrap only where an activation is not finite, when `s` is NaN.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
pub(super) unsafe fn fold<L: SimdF32, const N: usize>(
    y: L::Vector,
    sums: [&[i32; GROUP]; N],
    minus: i32,
    s: f32,
    scales: L::Vector,
) -> L::Vector {
    let mut trits = *sums[0];
    for n in 1..N {
        for r in 0..GROUP {
            trits[r] = (trits[r] << 8).wrapping_add(sums[n][r]);
        }
    }
    for trits in &mut trits {
        *trits = trits.wrapping_sub(minus);
    }
    // SAFETY: the caller promises the instruction set of `L`.
    unsafe {
        // A product: adding −0 changes nothing.
        let value = L::fma(L::i32_to_f32(&trits), L::splat(s), L::splat(-0.0));
        L::fma(value, scales, y)
    }
}

/// Four activations of a plane.
#[inline(always)]
fn four<const COLS: usize>(plane: &[i8; COLS], column: usize) -> [i8; 4] {
    *plane[column..].first_chunk().expect("the column lies in the block")
}

/// Outputs of 16 rows for one token, by the token's number of planes and the rows' groups.
#[inline(always)]
pub(super) fn one<L: SimdF32, D: TernaryDot, B: TernaryDot>(rows: &GroupedRows, x: GroupedToken, y: &mut F32x16) {
    let [high, middle, low] = x.planes;
    let (high, middle, low) = (high.as_chunks().0, middle.as_chunks().0, low.as_chunks().0);
    match (x.n_planes, rows.halves) {
        (1, false) => one_token::<L, D, B, 1, 1>(rows, [low], x.scales, y),
        (1, true) => one_token::<L, D, B, 1, 2>(rows, [low], x.scales, y),
        (2, false) => one_token::<L, D, B, 2, 1>(rows, [middle, low], x.scales, y),
        (2, true) => one_token::<L, D, B, 2, 2>(rows, [middle, low], x.scales, y),
        (_, false) => one_token::<L, D, B, 3, 1>(rows, [high, middle, low], x.scales, y),
        (_, true) => one_token::<L, D, B, 3, 2>(rows, [high, middle, low], x.scales, y),
    }
}

/// `N` planes; `PARTS` groups of columns in a block. `D` computes two-bit blocks and `B` base3 blocks, if it has five
/// planes.
#[inline(always)]
fn one_token<L: SimdF32, D: TernaryDot, B: TernaryDot, const N: usize, const PARTS: usize>(
    rows: &GroupedRows,
    planes: [&[[i8; BLOCK]]; N],
    scales: &[BlockScale],
    y: &mut F32x16,
) {
    let (base3, two_bit) = rows.words.split_at(rows.base3_blocks * BASE3_WORDS);
    let blocks = 5 * rows.base3_blocks + two_bit.len() / TWO_BIT_WORDS;
    let scales = &scales[..blocks];
    // SAFETY: this copy of the code is compiled for `L`, `D` and `B` (`stamp_grouped!`) and runs only where the
    // processor has them.
    unsafe {
        let mut acc = L::splat(0.0);
        if B::PLANES == PLANES {
            const { assert!(B::PLANES < PLANES || B::ROWS == GROUP) };
            for (at, words) in base3.as_chunks::<BASE3_WORDS>().0.iter().enumerate() {
                let last = 5 * at + 4;
                let fifth_q = block_of(planes, last);
                let mut fifth = [[B::zero(); N]; PARTS];
                for b in 0..4 {
                    let block = 5 * at + b;
                    prefetch_far(rows.scales_of(PARTS * block));
                    let words = &words.as_chunks::<TWO_BIT_WORDS>().0[b];
                    let fifth = &mut fifth[if PARTS == 1 { 0 } else { b / 2 }];
                    let q = block_of(planes, block);
                    let sums = block_sums::<B, N, PARTS>(words, 0, q, fifth_q, FIFTH_COLS * b, fifth);
                    let mut out = [[[0; GROUP]; N]; PARTS];
                    for (out, sums) in out.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
                        B::store(*sums, out);
                    }
                    acc = add_block::<L, N, PARTS>(acc, &out, rows, block, &scales[block]);
                }
                let mut out = [[[0; GROUP]; N]; PARTS];
                for (out, sum) in out.as_flattened_mut().iter_mut().zip(fifth.as_flattened()) {
                    let mut only = [B::zero(); PLANES];
                    only[PLANES - 1] = *sum;
                    B::store(if PARTS == 1 { B::packed_sum(only) } else { *sum }, out);
                }
                acc = add_block::<L, N, PARTS>(acc, &out, rows, last, &scales[last]);
            }
        }
        for (at, words) in two_bit.as_chunks::<TWO_BIT_WORDS>().0.iter().enumerate() {
            let block = 5 * rows.base3_blocks + at;
            let q = block_of(planes, block);
            let mut out = [[[0; GROUP]; N]; PARTS];
            prefetch_far(rows.scales_of(PARTS * block));
            for part in 0..GROUP / D::ROWS {
                let sums = block_sums::<D, N, PARTS>(words, part, q, q, 0, &mut [D::zero(); N]);
                for (out, sum) in out.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
                    D::store(*sum, &mut out[part * D::ROWS..][..D::ROWS]);
                }
            }
            acc = add_block::<L, N, PARTS>(acc, &out, rows, block, &scales[block]);
        }
        L::store(acc, y);
    }
}

/// A block of each plane. Closures and `map` would be calls, since they lack the target features of their callers.
#[inline(always)]
fn block_of<const N: usize>(planes: [&[[i8; BLOCK]]; N], block: usize) -> [&[i8; BLOCK]; N] {
    let mut of = [&planes[0][block]; N];
    for n in 1..N {
        of[n] = &planes[n][block];
    }
    of
}

/// Adds the groups of columns of a block, in ascending order.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
unsafe fn add_block<L: SimdF32, const N: usize, const PARTS: usize>(
    mut y: L::Vector,
    sums: &[[[i32; GROUP]; N]; PARTS],
    rows: &GroupedRows,
    block: usize,
    scale: &BlockScale,
) -> L::Vector {
    for part in 0..PARTS {
        // SAFETY: the caller promises the instruction set of `L`.
        unsafe {
            let scales = L::f16_to_f32(rows.scales_of(PARTS * block + part));
            let mut of_part = [&sums[part][0]; N];
            for n in 1..N {
                of_part[n] = &sums[part][n];
            }
            y = fold::<L, N>(y, of_part, scale.sum(part, PARTS), scale.s, scales);
        }
    }
    y
}

/// Code sums of a part of the rows and a block of columns, for each group of columns and each plane. The fifth codes
/// of a base3 block, which belong to another block, are added to `fifth`.
///
/// # Safety
/// The processor has the instruction set of `D`.
#[inline(always)]
unsafe fn block_sums<D: TernaryDot, const N: usize, const PARTS: usize>(
    words: &[Word; TWO_BIT_WORDS],
    part: usize,
    q: [&[i8; BLOCK]; N],
    fifth_q: [&[i8; BLOCK]; N],
    fifth_first: usize,
    fifth: &mut [D::Sum; N],
) -> [[D::Sum; N]; PARTS] {
    // SAFETY: the caller promises the instruction set of `D`.
    unsafe {
        let mut packed = [[D::zero(); PLANES]; N];
        let mut sums = [[D::zero(); N]; PARTS];
        if D::PLANES == PLANES && PARTS == 1 {
            for (packed, fifth) in packed.iter_mut().zip(&*fifth) {
                packed[PLANES - 1] = *fifth;
            }
        }
        for (w, word) in words.iter().enumerate() {
            if part == 0 {
                prefetch_far(word);
            }
            let bits = D::load(word, part);
            for n in 0..N {
                let mut bytes = [D::splat([0; 4]); PLANES];
                for (p, bytes) in bytes.iter_mut().enumerate().take(4) {
                    *bytes = D::splat(four(q[n], 32 * p + 4 * w));
                }
                if D::PLANES == PLANES {
                    bytes[PLANES - 1] = D::splat(four(fifth_q[n], fifth_first + 4 * w));
                }
                if PARTS == 1 {
                    D::packed_dot(&mut packed[n], bits, bytes);
                    continue;
                }
                // Two groups of columns: the first two planes and the last two.
                let codes = D::unpack(bits);
                for p in 0..4 {
                    sums[p / 2][n] = D::dot(sums[p / 2][n], codes[p], bytes[p]);
                }
                if D::PLANES == PLANES {
                    fifth[n] = D::dot(fifth[n], codes[PLANES - 1], bytes[PLANES - 1]);
                }
            }
        }
        for n in 0..N {
            if PARTS == 1 {
                if D::PLANES == PLANES {
                    fifth[n] = packed[n][PLANES - 1];
                    packed[n][PLANES - 1] = D::zero();
                }
                for sum in &mut packed[n][..D::ACCUMULATORS] {
                    *sum = D::widen(*sum);
                }
                sums[0][n] = D::packed_sum(packed[n]);
            }
            for sums in &mut sums {
                if PARTS > 1 {
                    sums[n] = D::widen(sums[n]);
                }
            }
        }
        sums
    }
}

/// Outputs of one or two groups of 16 rows for some tokens, in tiles of up to `DOTS` planes and `GROUPS` parts.
#[inline(always)]
pub(super) fn tiles<L: SimdF32, D: TernaryDot, const DOTS: usize, const GROUPS: usize>(
    rows: &[GroupedRows],
    tokens: &[GroupedToken],
    y: &mut [[f32; STRIP]],
) {
    match (tokens[0].n_planes, rows[0].halves) {
        (1, false) => tiles_of::<L, D, DOTS, GROUPS, 1, 1>(rows, tokens, y),
        (1, true) => tiles_of::<L, D, DOTS, GROUPS, 1, 2>(rows, tokens, y),
        (2, false) => tiles_of::<L, D, DOTS, GROUPS, 2, 1>(rows, tokens, y),
        (2, true) => tiles_of::<L, D, DOTS, GROUPS, 2, 2>(rows, tokens, y),
        (_, false) => tiles_of::<L, D, DOTS, GROUPS, 3, 1>(rows, tokens, y),
        (_, true) => tiles_of::<L, D, DOTS, GROUPS, 3, 2>(rows, tokens, y),
    }
}

/// [`tiles`] of `N` planes a token and `PARTS` groups of columns a block.
#[inline(always)]
fn tiles_of<L: SimdF32, D: TernaryDot, const DOTS: usize, const GROUPS: usize, const N: usize, const PARTS: usize>(
    rows: &[GroupedRows],
    tokens: &[GroupedToken],
    y: &mut [[f32; STRIP]],
) {
    let mut t = 0;
    while t < tokens.len() {
        let (left, y) = (&tokens[t..], &mut y[t..]);
        t += match left.len() * N {
            12.. if N == 3 && DOTS >= 12 => tile::<L, D, 12, GROUPS, N, PARTS>(rows, left, y),
            6.. if N == 3 && DOTS >= 6 => tile::<L, D, 6, GROUPS, N, PARTS>(rows, left, y),
            _ if N == 3 => tile::<L, D, 3, GROUPS, N, PARTS>(rows, left, y),
            n if n >= DOTS => tile::<L, D, DOTS, GROUPS, N, PARTS>(rows, left, y),
            8.. if DOTS > 8 => tile::<L, D, 8, GROUPS, N, PARTS>(rows, left, y),
            4.. if DOTS > 4 => tile::<L, D, 4, GROUPS, N, PARTS>(rows, left, y),
            2.. => tile::<L, D, 2, GROUPS, N, PARTS>(rows, left, y),
            _ => tile::<L, D, 1, GROUPS, N, PARTS>(rows, left, y),
        };
    }
}

/// Outputs for `DOTS / N` tokens; returns how many tokens that are.
#[inline(always)]
fn tile<L: SimdF32, D: TernaryDot, const DOTS: usize, const GROUPS: usize, const N: usize, const PARTS: usize>(
    rows: &[GroupedRows],
    tokens: &[GroupedToken],
    y: &mut [[f32; STRIP]],
) -> usize {
    let n_tokens = DOTS / N;
    let parts = rows.len() * GROUP / D::ROWS;
    let blocks = rows[0].words.len() / TWO_BIT_WORDS;
    let mut planes: [&[[i8; BLOCK]]; DOTS] = [&[]; DOTS];
    for (i, plane) in planes.iter_mut().enumerate() {
        *plane = &tokens[i / N].planes[MAX_PLANES - N + i % N].as_chunks().0[..blocks];
    }
    // SAFETY: this copy of the code is compiled for `L` and `D` (`stamp_grouped!`) and runs only where the processor
    // has them.
    unsafe {
        let mut acc = [[L::splat(0.0); STRIP / GROUP]; DOTS];
        let mut sums = [[[0; GROUP]; STRIP / GROUP]; DOTS];
        for block in 0..blocks {
            let mut q = [&[0; BLOCK]; DOTS];
            for (q, plane) in q.iter_mut().zip(&planes) {
                *q = &plane[block];
            }
            for group in 0..PARTS {
                let mut first = 0;
                while first < parts {
                    let codes = 4 / PARTS * group..4 / PARTS * (group + 1);
                    if first + GROUPS <= parts {
                        block_tile::<D, DOTS, GROUPS>(rows, block, first, &q, codes, &mut sums);
                        first += GROUPS;
                    } else {
                        block_tile::<D, DOTS, 1>(rows, block, first, &q, codes, &mut sums);
                        first += 1;
                    }
                }
                for (r, rows) in rows.iter().enumerate() {
                    let scales = L::f16_to_f32(rows.scales_of(PARTS * block + group));
                    for t in 0..n_tokens {
                        let scale = &tokens[t].scales[block];
                        let mut of_token = [&sums[N * t][r]; N];
                        for n in 1..N {
                            of_token[n] = &sums[N * t + n][r];
                        }
                        let sum = scale.sum(group, PARTS);
                        acc[t][r] = fold::<L, N>(acc[t][r], of_token, sum, scale.s, scales);
                    }
                }
            }
        }
        for (y, acc) in y.iter_mut().zip(&acc).take(n_tokens) {
            for (y, acc) in y.as_chunks_mut::<GROUP>().0.iter_mut().zip(acc).take(rows.len()) {
                L::store(*acc, y);
            }
        }
    }
    n_tokens
}

/// Sums of some codes of a block for `GROUPS` parts from `first` on.
///
/// # Safety
/// The processor has the instruction set of `D`.
#[inline(always)]
unsafe fn block_tile<D: TernaryDot, const DOTS: usize, const GROUPS: usize>(
    rows: &[GroupedRows],
    block: usize,
    first: usize,
    q: &[&[i8; BLOCK]; DOTS],
    codes: Range<usize>,
    sums: &mut [[[i32; GROUP]; STRIP / GROUP]; DOTS],
) {
    let parts = GROUP / D::ROWS;
    let mut words: [&[Word; TWO_BIT_WORDS]; GROUPS] = [&rows[0].words.as_chunks().0[0]; GROUPS];
    for (g, words) in words.iter_mut().enumerate() {
        *words = &rows[(first + g) / parts].words.as_chunks().0[block];
    }
    // SAFETY: the caller promises the instruction set of `D`.
    unsafe {
        let mut acc = [[D::zero(); GROUPS]; DOTS];
        for w in 0..TWO_BIT_WORDS {
            let mut unpacked = [[D::splat([0; 4]); PLANES]; GROUPS];
            for g in 0..GROUPS {
                unpacked[g] = D::unpack(D::load(&words[g][w], (first + g) % parts));
            }
            for p in codes.clone() {
                for t in 0..DOTS {
                    let q = D::splat(four(q[t], 32 * p + 4 * w));
                    for g in 0..GROUPS {
                        acc[t][g] = D::dot(acc[t][g], unpacked[g][p], q);
                    }
                }
            }
        }
        for t in 0..DOTS {
            for g in 0..GROUPS {
                let out = &mut sums[t].as_flattened_mut()[(first + g) * D::ROWS..][..D::ROWS];
                D::store(D::widen(acc[t][g]), out);
            }
        }
    }
}

/// `GROUPED`: the loops compiled with some target features, in tiles of `tokens` planes and `parts` parts.
macro_rules! stamp_grouped {
    (lanes: $lanes:ty, dot: $dot:ty, base3: $base3:ty, features: $features:literal, tokens: $tokens:literal,
        parts: $parts:literal $(,)?) => {
        mod grouped {
            use super::*;
            use $crate::kernel::grouped_dot::{self, GroupedRows, GroupedToken};

            #[target_feature(enable = $features)]
            pub(super) fn one(rows: &GroupedRows, x: GroupedToken, y: &mut [f32; 16]) {
                grouped_dot::one::<$lanes, $dot, $base3>(rows, x, y);
            }

            #[target_feature(enable = $features)]
            pub(super) fn tile(
                rows: &[GroupedRows],
                tokens: &[GroupedToken],
                y: &mut [[f32; $crate::kernel::ternary_dot::STRIP]],
            ) {
                grouped_dot::tiles::<$lanes, $dot, $tokens, $parts>(rows, tokens, y);
            }
        }
        pub(super) const GROUPED: $crate::kernel::grouped_dot::GroupedKernels =
            $crate::kernel::grouped_dot::GroupedKernels { one: grouped::one, tile: grouped::tile, many: None };
    };
}
pub(super) use stamp_grouped;
