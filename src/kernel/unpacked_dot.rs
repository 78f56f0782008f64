//! Ternary dots of many tokens, written once: the codes of a strip are unpacked to bytes, once for all of them. An
//! instruction set implements [`TernaryDot`].
//!
//! Inner loop, for four columns: a load for each part; for each token one broadcast, and one dot for each part. Bound:
//! the dots. Unpacking anew for each tile of tokens would add an operation to seven dots (AVX-512), or to three (AVX2).

use super::lanes::slices;
use super::packing::{BASE3_BLOCK, BLOCK, EXPANDED_WORDS, GROUP, Packing, TWO_BIT_WORDS, Word};
use super::prefetch::prefetch;
use super::ternary::{MAX_TILE_TOKENS, Tokens};
use super::ternary_dot::{STRIP, TernaryDot, TileSums};
use std::hint::black_box;
use std::ops::Range;

/// Fewer tokens make a single tile, which unpacks nothing twice.
pub(super) const MIN_TOKENS: usize = MAX_TILE_TOKENS + 1;
/// Columns of a line: it has four codes of each row of a group, row by row.
const LINE_COLS: usize = 4;
/// Lines of a block of 128 columns.
const BLOCK_LINES: usize = BLOCK / LINE_COLS;
/// Lines that are unpacked at a time, so that they stay in the nearest cache with the activations of a tile.
const CHUNK_LINES: usize = BASE3_BLOCK / LINE_COLS;

/// Code sums of a strip for any number of tokens, in tiles of up to `TOKENS` tokens and `PARTS` parts. `to_two_bit`
/// converts whole blocks of base3 words.
#[inline(always)]
pub(super) fn many_sums<D: TernaryDot, const TOKENS: usize, const PARTS: usize>(
    packing: Packing,
    words: &[Word],
    tokens: Tokens,
    sums: &mut TileSums,
    to_two_bit: impl Fn(&[Word], &mut [Word]),
) {
    let (n, cols, per_group) = (tokens.len(), tokens.cols(), packing.words(tokens.cols()));
    let parts = words.len() / per_group * GROUP / D::ROWS;
    sums[..n].fill([0; STRIP]);
    let mut codes = [[Word([0; 64]); CHUNK_LINES]; STRIP / GROUP];
    for start in (0..cols).step_by(BASE3_BLOCK) {
        let columns = start..cols.min(start + BASE3_BLOCK);
        let (before, after) = (packing.words(columns.start), packing.words(columns.end));
        for (words, codes) in words.chunks(per_group).zip(&mut codes) {
            let mut two_bit = [Word([0; 64]); EXPANDED_WORDS];
            match packing {
                Packing::TwoBit => unpack::<D>(&words[before..after], codes),
                Packing::Base3 => {
                    to_two_bit(&words[before..after], &mut two_bit);
                    unpack::<D>(&two_bit, codes);
                }
            }
        }
        // Each tile asks for a share of the next chunk's words, in this strip or in the next one, which the same thread
        // mostly computes.
        let share = (after - before).div_ceil(n.div_ceil(TOKENS));
        let last = (words.len() / per_group - 1) * per_group;
        let mut next = after + if after < per_group { 0 } else { last };
        let mut t = 0;
        while t < n {
            for group in (0..=last).step_by(per_group) {
                (0..share).for_each(|i| prefetch(words.as_ptr().wrapping_add(group + next + i)));
            }
            next += share;
            let (left, sums) = (tokens.range(t..n), &mut sums[t..]);
            let lines = columns.start / LINE_COLS..columns.end / LINE_COLS;
            t += match n - t {
                left_over if left_over >= TOKENS => tiles::<D, TOKENS, PARTS>(&codes, parts, left, lines, sums),
                8.. if TOKENS > 8 => tiles::<D, 8, PARTS>(&codes, parts, left, lines, sums),
                4.. if TOKENS > 4 => tiles::<D, 4, PARTS>(&codes, parts, left, lines, sums),
                2.. => tiles::<D, 2, PARTS>(&codes, parts, left, lines, sums),
                _ => tiles::<D, 1, PARTS>(&codes, parts, left, lines, sums),
            };
        }
    }
}

/// Writes the codes of two-bit words, one a byte, in the order of the columns.
#[inline(always)]
fn unpack<D: TernaryDot>(words: &[Word], codes: &mut [Word]) {
    let blocks = words.as_chunks::<TWO_BIT_WORDS>().0.iter().zip(codes.as_chunks_mut::<BLOCK_LINES>().0);
    const { assert!(size_of::<D::Bytes>() == size_of::<Word>() * D::ROWS / GROUP) };
    for (words, codes) in blocks {
        for (w, word) in words.iter().enumerate() {
            for part in 0..GROUP / D::ROWS {
                // SAFETY: this copy of the code is compiled for `D`, as that of `tile` is. A line has room for the codes
                // of each part, which are bytes.
                unsafe {
                    let planes = D::unpack(D::load(word, part));
                    for p in 0..4 {
                        let line = codes[TWO_BIT_WORDS * p + w].0.as_mut_ptr();
                        line.cast::<D::Bytes>().add(part).write_unaligned(planes[p]);
                    }
                }
            }
        }
    }
}

/// The codes of a line as [`TernaryDot::bytes`] takes them.
#[inline(always)]
fn as_i8(line: &Word) -> &[i8; 64] {
    // SAFETY: the same 64 bytes.
    unsafe { &*(&raw const line.0).cast() }
}

/// Adds the products of unpacked codes and activations of these lines to the sums of the first `TOKENS` tokens, for all
/// parts of the strip. Returns `TOKENS`.
#[inline(always)]
fn tiles<D: TernaryDot, const TOKENS: usize, const PARTS: usize>(
    codes: &[[Word; CHUNK_LINES]],
    parts: usize,
    tokens: Tokens,
    lines: Range<usize>,
    sums: &mut TileSums,
) -> usize {
    let (bytes, stride) = (tokens.bytes(TOKENS), tokens.stride());
    let q: [&[[i8; LINE_COLS]]; TOKENS] = slices(|t| &bytes[t * stride..].as_chunks().0[lines.clone()]);
    // Opaque, lest each address be computed from that of the token before: the additions would take the place of dots.
    let q = black_box(q);
    let mut first = 0;
    while first < parts {
        if first + PARTS <= parts {
            tile::<D, TOKENS, PARTS>(codes, first, &q, sums);
            first += PARTS;
        } else {
            tile::<D, TOKENS, 1>(codes, first, &q, sums);
            first += 1;
        }
    }
    TOKENS
}

/// As [`tiles`], for `PARTS` parts from `first` on.
#[inline(always)]
fn tile<D: TernaryDot, const TOKENS: usize, const PARTS: usize>(
    codes: &[[Word; CHUNK_LINES]],
    first: usize,
    q: &[&[[i8; LINE_COLS]]; TOKENS],
    sums: &mut TileSums,
) {
    let parts = GROUP / D::ROWS;
    // SAFETY: this copy of the code is compiled for `D` (`stamp_many!`) and runs only where the processor has it.
    unsafe {
        let mut acc = [[D::zero(); PARTS]; TOKENS];
        for block in (0..q[0].len()).step_by(BLOCK_LINES) {
            let q: [&[[i8; LINE_COLS]]; TOKENS] = slices(|t| &q[t][block..][..BLOCK_LINES]);
            let lines: [&[Word]; PARTS] = slices(|g| &codes[(first + g) / parts][block..][..BLOCK_LINES]);
            for c in 0..BLOCK_LINES {
                let mut codes = [D::splat([0; 4]); PARTS];
                for g in 0..PARTS {
                    codes[g] = D::bytes(as_i8(&lines[g][c]), (first + g) % parts);
                }
                for t in 0..TOKENS {
                    let q = D::splat(q[t][c]);
                    for g in 0..PARTS {
                        acc[t][g] = D::dot(acc[t][g], codes[g], q);
                    }
                }
            }
            for acc in acc.as_flattened_mut() {
                *acc = D::widen(*acc);
            }
        }
        for t in 0..TOKENS {
            for g in 0..PARTS {
                let mut added = [0i32; GROUP];
                D::store(acc[t][g], &mut added[..D::ROWS]);
                for (sum, added) in sums[t][(first + g) * D::ROWS..][..D::ROWS].iter_mut().zip(added) {
                    *sum += added;
                }
            }
        }
    }
}

/// The function `many_sums` for one [`TernaryDot`] with its target features, in tiles of `tokens` tokens and `parts`
/// parts. `to_two_bit` converts base3 words.
macro_rules! stamp_many {
    (
        dot: $dot:ty, to_two_bit: $to_two_bit:path, features: $features:literal,
        tokens: $tokens:literal, parts: $parts:literal $(,)?
    ) => {
        /// See [`ManySums`].
        #[target_feature(enable = $features)]
        fn many_sums(
            packing: $crate::kernel::packing::Packing,
            words: &[$crate::kernel::packing::Word],
            tokens: $crate::kernel::ternary::Tokens,
            sums: &mut $crate::kernel::ternary_dot::TileSums,
        ) {
            $crate::kernel::unpacked_dot::many_sums::<$dot, $tokens, $parts>(
                packing,
                words,
                tokens,
                sums,
                #[inline(always)]
                |base3, two_bit| $to_two_bit(base3, two_bit),
            )
        }
    };
}
pub(super) use stamp_many;
