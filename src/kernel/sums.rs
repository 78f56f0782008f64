//! The ternary loops, written once: sums of codes times activations. An instruction set brings the [`TernaryDot`].
//!
//! Several tokens make a tile: the codes of a word are unpacked once and meet every token. A single token has loops of its
//! own, which need not unpack all codes (see [`TernaryDot::packed_dot`]).

use super::float::{ahead, prefetch, slices};
use super::packing::{BLOCK, BLOCK_WORDS, GROUP, Word};
use super::ternary::{STRIP, Sums};
use std::hint::black_box;

/// Code planes at most.
pub const PLANES: usize = 5;

/// The steps of an instruction set, on vectors that hold the same part of a word: all 16 rows, or 8, or 4 of them.
///
/// # Safety
/// Every function may be called only where the processor has the instruction set.
pub(super) trait TernaryDot {
    /// Rows of a part.
    const ROWS: usize;
    /// Code planes in a word.
    const PLANES: usize = 4;
    /// Accumulators that [`Self::packed_dot`] uses.
    const CHAINS: usize;
    /// A part of a word.
    type Part: Copy;
    /// Four codes, or activations, for each row of a part.
    type Bytes: Copy;
    /// A sum for each row of a part.
    type Sum: Copy;

    unsafe fn zero() -> Self::Sum;
    /// Reads a part of a word; there are 16 / `ROWS`.
    unsafe fn load(word: &Word, part: usize) -> Self::Part;
    /// Its planes, highest shift first, as numbers 0, 1, 2.
    unsafe fn codes(part: Self::Part) -> [Self::Bytes; PLANES];
    /// Four activations, for every row.
    unsafe fn splat(q: [i8; 4]) -> Self::Bytes;
    /// Adds the products of codes and activations.
    unsafe fn dot(sum: Self::Sum, codes: Self::Bytes, q: Self::Bytes) -> Self::Sum;
    /// Called after every block: nothing in between has left the range of narrower sums.
    #[inline(always)]
    unsafe fn settle(sum: Self::Sum) -> Self::Sum {
        sum
    }
    /// A dot of all planes of a part, each into an accumulator where it may count some-fold.
    unsafe fn packed_dot(sums: &mut [Self::Sum; PLANES], part: Self::Part, q: [Self::Bytes; PLANES]);
    /// The accumulators of [`Self::packed_dot`] as one sum.
    unsafe fn packed_sum(sums: [Self::Sum; PLANES]) -> Self::Sum;
    /// Writes the sums of the part's rows.
    unsafe fn store(sum: Self::Sum, out: &mut [i32]);
}

/// The activations of a block that plane p meets of word w of its eight words number `part`.
#[inline(always)]
unsafe fn broadcast<S: TernaryDot>(q: &[i8], p: usize, part: usize, w: usize) -> S::Bytes {
    let column = if p < 4 { BLOCK * part + 32 * p + 4 * w } else { 4 * BLOCK + 32 * part + 4 * w };
    let q = q[column..].first_chunk().expect("within the block");
    // SAFETY: by the caller's promise.
    unsafe { S::splat(*q) }
}

/// One or two groups of rows of words, in tiles of up to `N` tokens and `G` parts side by side.
#[inline(always)]
pub(super) fn strip<S: TernaryDot, const N: usize, const G: usize, const COLS: usize, const WORDS: usize>(
    words: &[Word],
    tokens: &[&[i8]],
    sums: &mut Sums,
) {
    let per_group = tokens[0].len() / COLS * WORDS;
    if let [token] = tokens {
        for (words, sums) in words.chunks(per_group).zip(sums[0].chunks_mut(GROUP)) {
            match GROUP / S::ROWS {
                1 => single::<S, 1, COLS, WORDS>(words, token, sums),
                2 => single::<S, 2, COLS, WORDS>(words, token, sums),
                _ => single::<S, 4, COLS, WORDS>(words, token, sums),
            }
        }
        return;
    }
    let parts = words.len() / per_group * GROUP / S::ROWS;
    let mut first = 0;
    while first < parts {
        if first + G <= parts {
            tiles::<S, N, G, COLS, WORDS>(words, per_group, first, tokens, sums);
            first += G;
        } else {
            tiles::<S, N, 1, COLS, WORDS>(words, per_group, first, tokens, sums);
            first += 1;
        }
    }
}

/// One token, all parts of a group side by side.
#[inline(always)]
fn single<S: TernaryDot, const G: usize, const COLS: usize, const WORDS: usize>(
    words: &[Word],
    token: &[i8],
    out: &mut [i32],
) {
    // SAFETY: this copy of the code runs only where the processor has `S`.
    unsafe {
        let mut sums = [[S::zero(); PLANES]; G];
        for (block, q) in words.as_chunks::<WORDS>().0.iter().zip(token.as_chunks::<COLS>().0) {
            for (part, words) in block.as_chunks::<BLOCK_WORDS>().0.iter().enumerate() {
                for (w, word) in words.iter().enumerate() {
                    prefetch(ahead(word));
                    let mut bytes = [S::splat([0; 4]); PLANES];
                    for (p, bytes) in bytes.iter_mut().enumerate().take(S::PLANES) {
                        *bytes = broadcast::<S>(q, p, part, w);
                    }
                    for (g, sums) in sums.iter_mut().enumerate() {
                        S::packed_dot(sums, S::load(word, g), bytes);
                    }
                }
            }
            for sums in &mut sums {
                for sum in &mut sums[..S::CHAINS] {
                    *sum = S::settle(*sum);
                }
            }
        }
        for g in 0..G {
            S::store(S::packed_sum(sums[g]), &mut out[g * S::ROWS..][..S::ROWS]);
        }
    }
}

#[inline(always)]
fn tiles<S: TernaryDot, const N: usize, const G: usize, const COLS: usize, const WORDS: usize>(
    words: &[Word],
    per_group: usize,
    first: usize,
    tokens: &[&[i8]],
    sums: &mut Sums,
) {
    let mut t = 0;
    while t < tokens.len() {
        let (left, sums) = (&tokens[t..], &mut sums[t..]);
        t += match left.len() {
            n if n >= N => tile::<S, N, G, COLS, WORDS>(words, per_group, first, left, sums),
            8.. if N > 8 => tile::<S, 8, G, COLS, WORDS>(words, per_group, first, left, sums),
            4.. if N > 4 => tile::<S, 4, G, COLS, WORDS>(words, per_group, first, left, sums),
            2.. => tile::<S, 2, G, COLS, WORDS>(words, per_group, first, left, sums),
            _ => tile::<S, 1, G, COLS, WORDS>(words, per_group, first, left, sums),
        };
    }
}

/// `N` tokens and the parts from `first` on; gives `N`.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "plane, token and part index several arrays at once")]
fn tile<S: TernaryDot, const N: usize, const G: usize, const COLS: usize, const WORDS: usize>(
    words: &[Word],
    per_group: usize,
    first: usize,
    tokens: &[&[i8]],
    sums: &mut Sums,
) -> usize {
    let parts = GROUP / S::ROWS;
    let tokens: [&[[i8; COLS]]; N] = slices(|t| tokens[t].as_chunks().0);
    let words: [&[[Word; WORDS]]; G] = slices(|g| words[(first + g) / parts * per_group..][..per_group].as_chunks().0);
    // SAFETY: as above.
    unsafe {
        let mut acc = [[S::zero(); G]; N];
        for b in 0..words[0].len() {
            for part in 0..WORDS / BLOCK_WORDS {
                for w in 0..BLOCK_WORDS {
                    let mut codes = [[S::splat([0; 4]); PLANES]; G];
                    for g in 0..G {
                        let word = &words[g][b][part * BLOCK_WORDS + w];
                        prefetch(ahead(word));
                        codes[g] = S::codes(S::load(word, (first + g) % parts));
                    }
                    for p in 0..S::PLANES {
                        for t in 0..N {
                            let q = broadcast::<S>(&tokens[t][b], p, part, w);
                            for g in 0..G {
                                acc[t][g] = S::dot(acc[t][g], codes[g][p], q);
                            }
                        }
                    }
                }
            }
            for acc in acc.as_flattened_mut() {
                *acc = S::settle(*acc);
            }
        }
        for t in 0..N {
            for g in 0..G {
                S::store(acc[t][g], &mut sums[t][(first + g) * S::ROWS..][..S::ROWS]);
            }
        }
    }
    N
}

/// Dots of ones in registers alone, `rounds` times a block of a tile of `N` tokens, `G` parts: how many multiply-adds.
#[inline(always)]
pub(super) fn peak<S: TernaryDot, const N: usize, const G: usize>(rounds: usize) -> u64 {
    // SAFETY: as above.
    unsafe {
        let mut codes = [S::splat([1; 4]); 4];
        let q = black_box([S::splat([1; 4]); N]);
        let mut acc = [[S::zero(); G]; N];
        for _ in 0..rounds {
            for _ in 0..BLOCK_WORDS {
                // Opaque in each turn: the compiler must not take the products out of the loop.
                codes = black_box(codes);
                for code in codes {
                    for t in 0..N {
                        for acc in &mut acc[t] {
                            *acc = S::dot(*acc, code, q[t]);
                        }
                    }
                }
            }
            for acc in acc.as_flattened_mut() {
                *acc = S::settle(*acc);
            }
        }
        let mut total = 0;
        for sum in acc.as_flattened() {
            let mut lanes = [0i32; STRIP];
            S::store(*sum, &mut lanes[..S::ROWS]);
            total += lanes.iter().map(|lane| *lane as u64).sum::<u64>();
        }
        total
    }
}

/// The loops of some [`TernaryDot`], compiled for their instruction set; tiles of `$tokens` and `$parts`.
macro_rules! stamp_sums {
    ($steps:ty, $features:literal, $tokens:literal, $parts:literal) => {
        #[target_feature(enable = $features)]
        pub(super) fn sums(
            words: &[$crate::kernel::packing::Word],
            tokens: &[&[i8]],
            out: &mut $crate::kernel::ternary::Sums,
        ) {
            $crate::kernel::sums::strip::<
                $steps,
                $tokens,
                $parts,
                { $crate::kernel::packing::BLOCK },
                { $crate::kernel::packing::BLOCK_WORDS },
            >(words, tokens, out);
        }

        #[target_feature(enable = $features)]
        pub(super) fn peak_macs(rounds: usize) -> u64 {
            $crate::kernel::sums::peak::<$steps, $tokens, $parts>(rounds)
        }
    };
}
pub(super) use stamp_sums;
