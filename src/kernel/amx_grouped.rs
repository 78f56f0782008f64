//! Ternary matrices with a scale for each group of columns, by tiles of AMX: products of 16 tokens and 16 rows for a
//! block of 128 columns are exact integers, which then become floats as in `grouped_dot.rs`.
//!
//! Inner loop, for a block, 16 tokens, 16 rows and a plane of activations: 2 `tdpbsud`. Bound: about as many float
//! operations, since each sum is scaled and added to an output.

#![expect(unsafe_op_in_unsafe_fn, reason = "an intrinsic needs the instruction set, which the caller promises")]

use super::amx_tiles::{
    CHUNK_LINES, LINES_PER_TILE, TILE, TILE_COLS, TileConfig, configure, release, unpack_base3, unpack_two_bit,
};
use super::avx512::Avx512;
use super::grouped_dot::{GroupedRows, GroupedTokens, MAX_PLANES, fold};
use super::lanes::SimdF32;
use super::packing::{BASE3_WORDS, BLOCK, GROUP, TWO_BIT_WORDS, Word};
use super::prefetch::prefetch_far;
use super::ternary_dot::STRIP;
use std::arch::asm;

/// Lines of codes of a block of 128 columns.
const BLOCK_LINES: usize = BLOCK / 4;

/// Sums of a tile of tokens for a block: `[plane][token][row]`; of the two halves of a block, if they have scales of
/// their own.
type BlockSums = [[[[i32; GROUP]; TILE]; MAX_PLANES]; 2];

/// The kernel of [`ManyGrouped`](super::grouped_dot::ManyGrouped).
///
/// # Safety
/// The processor has AMX with 8-bit integers, AVX-512 with BW, DQ, VL and VBMI, and this process may use tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx2,fma,f16c")]
pub(super) unsafe fn many(rows: &[GroupedRows], tokens: GroupedTokens, y: &mut [[f32; STRIP]]) {
    let n = tokens.len();
    y[..n].fill([0.0; STRIP]);
    // Whole tiles of tokens, and then the rest, for which the tiles are configured anew.
    let whole = n - n % TILE;
    for part in [0..whole, whole..n] {
        if part.is_empty() {
            continue;
        }
        configure(&TileConfig::of([part.len().min(TILE); 2]));
        let (tokens, y) = (tokens.range(part.clone()), &mut y[part]);
        for (r, rows) in rows.iter().enumerate() {
            match (tokens.n_planes(), rows.halves) {
                (1, false) => group::<1, 1>(rows, r, tokens, y),
                (1, true) => group::<1, 2>(rows, r, tokens, y),
                (2, false) => group::<2, 1>(rows, r, tokens, y),
                (2, true) => group::<2, 2>(rows, r, tokens, y),
                (_, false) => group::<3, 1>(rows, r, tokens, y),
                (_, true) => group::<3, 2>(rows, r, tokens, y),
            }
        }
    }
    release();
}

/// Adds to `y[token]`, from row 16·`r` on, the outputs of a group of rows: block by block, in ascending order. The
/// tiles are configured for the tokens, whose number is a multiple of a tile or less than one.
///
/// # Safety
/// As for [`many`].
#[inline(always)]
unsafe fn group<const N: usize, const PARTS: usize>(
    rows: &GroupedRows,
    r: usize,
    tokens: GroupedTokens,
    y: &mut [[f32; STRIP]],
) {
    let (base3, two_bit) = rows.words.split_at(rows.base3_blocks * BASE3_WORDS);
    let mut lines = [Word([0; 64]); CHUNK_LINES];
    for (at, words) in base3.as_chunks::<BASE3_WORDS>().0.iter().enumerate() {
        words.iter().for_each(prefetch_far);
        unpack_base3(words, &mut lines);
        for (b, lines) in lines.as_chunks().0.iter().enumerate() {
            block::<N, PARTS>(lines, rows, r, 5 * at + b, tokens, y);
        }
    }
    for (at, words) in two_bit.as_chunks::<TWO_BIT_WORDS>().0.iter().enumerate() {
        words.iter().for_each(prefetch_far);
        unpack_two_bit(words, &mut lines[..BLOCK_LINES]);
        let (lines, _) = lines.as_chunks();
        block::<N, PARTS>(&lines[0], rows, r, 5 * rows.base3_blocks + at, tokens, y);
    }
}

/// Adds a block of columns.
///
/// # Safety
/// As for [`many`].
#[inline(always)]
unsafe fn block<const N: usize, const PARTS: usize>(
    lines: &[Word; BLOCK_LINES],
    rows: &GroupedRows,
    r: usize,
    block: usize,
    tokens: GroupedTokens,
    y: &mut [[f32; STRIP]],
) {
    // SAFETY: the processor has the instructions, as the caller promises, and each reads 16 lines.
    asm!(
        "tileloadd tmm6, [{lines} + 1*{line}]",
        "tileloadd tmm7, [{lines} + 1*{line} + 1024]",
        lines = in(reg) lines.as_ptr(),
        line = in(reg) size_of::<Word>(),
        options(nostack, readonly),
    );
    const { assert!(BLOCK_LINES == 2 * LINES_PER_TILE && BLOCK == 2 * TILE_COLS) };
    let mut scales = [Avx512::splat(0.0); PARTS];
    for (part, scales) in scales.iter_mut().enumerate() {
        *scales = Avx512::f16_to_f32(rows.scales_of(PARTS * block + part));
    }
    let mut sums: BlockSums = [[[[0; GROUP]; TILE]; MAX_PLANES]; 2];
    for first in (0..tokens.len()).step_by(TILE) {
        let n = TILE.min(tokens.len() - first);
        for plane in 0..N {
            let (bytes, stride) = tokens.tile(first..first + n, plane, block);
            multiply::<PARTS>(bytes, stride, n, &mut sums, plane);
        }
        for (t, y) in y[first..first + n].iter_mut().enumerate() {
            let y = y.as_chunks_mut::<GROUP>().0;
            let scale = tokens.scale(first + t, block);
            let mut acc = Avx512::load(&y[r]);
            for part in 0..PARTS {
                let mut of_token = [&sums[part][0][t]; N];
                for plane in 1..N {
                    of_token[plane] = &sums[part][plane][t];
                }
                acc = fold::<Avx512, N>(acc, of_token, scale.sum(part, PARTS), scale.s, scales[part]);
            }
            Avx512::store(acc, &mut y[r]);
        }
    }
}

/// Code sums of `n` tokens, for a plane of 128 columns, with the codes in tiles 6 and 7. The tiles are configured for `n`.
///
/// # Safety
/// As for [`many`].
#[inline(always)]
unsafe fn multiply<const PARTS: usize>(q: &[i8], stride: usize, n: usize, sums: &mut BlockSums, plane: usize) {
    assert!(n > 0 && n <= TILE && q.len() >= (n - 1) * stride + BLOCK);
    let line = size_of::<[i32; GROUP]>();
    let [first, second] = sums;
    if PARTS == 1 {
        // SAFETY: the processor has the instructions, as the caller promises; they read 128 columns of `n` tokens, which the
        // assertion holds, and write `n` rows of sums.
        asm!(
            "tilezero tmm0",
            "tileloadd tmm4, [{q} + 1*{stride}]",
            "tileloadd tmm5, [{q} + 1*{stride} + 64]",
            "tdpbsud tmm0, tmm4, tmm6",
            "tdpbsud tmm0, tmm5, tmm7",
            "tilestored [{out} + 1*{line}], tmm0",
            q = in(reg) q.as_ptr(),
            stride = in(reg) stride,
            out = in(reg) first[plane].as_mut_ptr(),
            line = in(reg) line,
            options(nostack),
        );
        return;
    }
    // SAFETY: as above.
    asm!(
        "tilezero tmm0",
        "tilezero tmm1",
        "tileloadd tmm4, [{q} + 1*{stride}]",
        "tileloadd tmm5, [{q} + 1*{stride} + 64]",
        "tdpbsud tmm0, tmm4, tmm6",
        "tdpbsud tmm1, tmm5, tmm7",
        "tilestored [{first} + 1*{line}], tmm0",
        "tilestored [{second} + 1*{line}], tmm1",
        q = in(reg) q.as_ptr(),
        stride = in(reg) stride,
        first = in(reg) first[plane].as_mut_ptr(),
        second = in(reg) second[plane].as_mut_ptr(),
        line = in(reg) line,
        options(nostack),
    );
}
