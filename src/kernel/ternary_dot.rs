//! The ternary loops, written once: sums of codes times activations. An instruction set implements [`TernaryDot`].
//!
//! A word is processed in *parts* of 16, 8 or 4 rows, as many as one register holds. A byte's codes make 4 or 5
//! *planes*: plane p holds the codes at the p-th place of every byte.
//!
//! Several tokens form a tile: the codes of a word are unpacked once and multiplied with every token. A single token
//! has loops of its own, which need not unpack all codes (see [`TernaryDot::packed_dot`]).

use super::lanes::slices;
use super::packing::{BLOCK, GROUP, TWO_BIT_WORDS, Word};
use super::prefetch::prefetch_ahead;
use std::hint::black_box;

/// The largest number of code planes in a word.
pub(super) const PLANES: usize = 5;
/// The largest number of rows that one kernel call computes: two groups.
pub(super) const STRIP: usize = 2 * GROUP;

/// Code sums (Σ code·q, from which Σ q is still to be subtracted) of a strip for a tile of tokens: `[token][row]`.
pub type TileSums = [[i32; STRIP]];

/// The operations of an instruction set on one part of a word: all its 16 rows, or 8, or 4 of them.
///
/// # Safety
/// Every function may be called only where the processor has the implementor's instruction set.
pub(super) trait TernaryDot {
    /// Rows in a part: 16, 8 or 4, as many as one register holds.
    const ROWS: usize;
    /// Code planes in a word.
    const PLANES: usize = 4;
    /// Accumulators that [`Self::packed_dot`] uses.
    const ACCUMULATORS: usize;
    /// A part of a word.
    type Part: Copy;
    /// Four codes, or four activations, for each row of a part.
    type Bytes: Copy;
    /// A sum for each row of a part.
    type Sum: Copy;

    /// Sums that are all zero.
    unsafe fn zero() -> Self::Sum;
    /// Reads a part of a word; a word has 16 / `ROWS`.
    unsafe fn load(word: &Word, part: usize) -> Self::Part;
    /// Unpacks a part into its planes of codes 0, 1, 2; the highest shift comes first.
    unsafe fn unpack(part: Self::Part) -> [Self::Bytes; PLANES];
    /// Broadcasts four activations to every row.
    unsafe fn splat(q: [i8; 4]) -> Self::Bytes;
    /// Reads the activations that belong to the bytes of a part, one each; `q` are those of a word.
    unsafe fn bytes(q: &[i8; 64], part: usize) -> Self::Bytes;
    /// Interleaves the bytes of the same part of four words, the lower or the upper eight of every 16: dword 4·k + j of
    /// register o has byte 16·k + 8·HIGH + 4·o + j of the part, of each word one.
    unsafe fn interleave<const HIGH: bool>(words: [&Word; 4], part: usize) -> [Self::Part; 2];
    /// Adds the products of codes and activations.
    unsafe fn dot(sum: Self::Sum, codes: Self::Bytes, q: Self::Bytes) -> Self::Sum;
    /// Adds 16-bit sums into 32-bit ones. It is called after every block; the 16-bit sums of one block cannot overflow.
    #[inline(always)]
    unsafe fn widen(sum: Self::Sum) -> Self::Sum {
        sum
    }
    /// Adds the products of all planes of a packed part. A plane that is not shifted down counts a multiple (4-fold,
    /// 16-fold …) and has an accumulator for that multiple.
    unsafe fn packed_dot(sums: &mut [Self::Sum; PLANES], part: Self::Part, q: [Self::Bytes; PLANES]);
    /// The accumulators of [`Self::packed_dot`] as one sum.
    unsafe fn packed_sum(sums: [Self::Sum; PLANES]) -> Self::Sum;
    /// Adds the products of every plane of a part with the same activations to a sum of its own, which may count a
    /// multiple until [`Self::plane_sums`].
    #[inline(always)]
    unsafe fn planes_dot(sums: &mut [Self::Sum; PLANES], part: Self::Part, q: Self::Bytes) {
        // SAFETY: the caller promises the instruction set.
        let codes = unsafe { Self::unpack(part) };
        for p in 0..Self::PLANES {
            // SAFETY: as above.
            sums[p] = unsafe { Self::dot(sums[p], codes[p], q) };
        }
    }
    /// The sums of [`Self::planes_dot`], each counted once.
    #[inline(always)]
    unsafe fn plane_sums(sums: [Self::Sum; PLANES]) -> [Self::Sum; PLANES] {
        sums
    }
    /// Writes the sums of the part's rows.
    unsafe fn store(sum: Self::Sum, out: &mut [i32]);
}

/// Four activations as the dword that the instructions broadcast.
#[inline(always)]
pub(super) fn pack4(q: [i8; 4]) -> i32 {
    i32::from_le_bytes([q[0] as u8, q[1] as u8, q[2] as u8, q[3] as u8])
}

/// Broadcasts the activations that plane `p` of word `w` of two-bit block `b` is multiplied with; `q` starts at the
/// block. A base3 block holds four two-bit blocks, and a fifth plane with the columns after them.
///
/// # Safety
/// The processor has the instruction set of `D`.
#[inline(always)]
unsafe fn broadcast<D: TernaryDot>(q: &[i8], p: usize, b: usize, w: usize) -> D::Bytes {
    let column = if p < 4 { BLOCK * b + 32 * p + 4 * w } else { 4 * BLOCK + 32 * b + 4 * w };
    let q = q[column..].first_chunk().expect("the column lies in the block");
    // SAFETY: the caller promises the instruction set of `D`.
    unsafe { D::splat(*q) }
}

/// Code sums of one or two groups of rows, in tiles of up to `TOKENS` tokens and `PARTS` parts.
#[inline(always)]
pub(super) fn strip_sums<
    D: TernaryDot,
    const TOKENS: usize,
    const PARTS: usize,
    const BLOCK_COLS: usize,
    const BLOCK_WORDS: usize,
>(
    words: &[Word],
    tokens: &[&[i8]],
    sums: &mut TileSums,
) {
    let per_group = tokens[0].len() / BLOCK_COLS * BLOCK_WORDS;
    if let [token] = tokens {
        for (words, sums) in words.chunks(per_group).zip(sums[0].chunks_mut(GROUP)) {
            match GROUP / D::ROWS {
                1 => one_token::<D, 1, BLOCK_COLS, BLOCK_WORDS>(words, token, sums),
                2 => one_token::<D, 2, BLOCK_COLS, BLOCK_WORDS>(words, token, sums),
                _ => one_token::<D, 4, BLOCK_COLS, BLOCK_WORDS>(words, token, sums),
            }
        }
        return;
    }
    let parts = words.len() / per_group * GROUP / D::ROWS;
    let mut first = 0;
    while first < parts {
        if first + PARTS <= parts {
            tiles::<D, TOKENS, PARTS, BLOCK_COLS, BLOCK_WORDS>(words, per_group, first, tokens, sums);
            first += PARTS;
        } else {
            tiles::<D, TOKENS, 1, BLOCK_COLS, BLOCK_WORDS>(words, per_group, first, tokens, sums);
            first += 1;
        }
    }
}

/// Code sums of one group of rows for a single token.
#[inline(always)]
fn one_token<D: TernaryDot, const PARTS_PER_WORD: usize, const BLOCK_COLS: usize, const BLOCK_WORDS: usize>(
    words: &[Word],
    token: &[i8],
    out: &mut [i32],
) {
    // SAFETY: this copy of the code is compiled for `D` (`stamp_sums!`) and runs only where the processor has it.
    unsafe {
        let mut sums = [[D::zero(); PLANES]; PARTS_PER_WORD];
        for (block, q) in words.as_chunks::<BLOCK_WORDS>().0.iter().zip(token.as_chunks::<BLOCK_COLS>().0) {
            for (b, words) in block.as_chunks::<TWO_BIT_WORDS>().0.iter().enumerate() {
                for (w, word) in words.iter().enumerate() {
                    prefetch_ahead(word);
                    let mut bytes = [D::splat([0; 4]); PLANES];
                    for (p, bytes) in bytes.iter_mut().enumerate().take(D::PLANES) {
                        *bytes = broadcast::<D>(q, p, b, w);
                    }
                    for (g, sums) in sums.iter_mut().enumerate() {
                        D::packed_dot(sums, D::load(word, g), bytes);
                    }
                }
            }
            for sums in &mut sums {
                for sum in &mut sums[..D::ACCUMULATORS] {
                    *sum = D::widen(*sum);
                }
            }
        }
        for g in 0..PARTS_PER_WORD {
            D::store(D::packed_sum(sums[g]), &mut out[g * D::ROWS..][..D::ROWS]);
        }
    }
}

/// Code sums of `PARTS` parts from `first` on for all tokens, in tiles of up to `TOKENS`.
#[inline(always)]
fn tiles<D: TernaryDot, const TOKENS: usize, const PARTS: usize, const BLOCK_COLS: usize, const BLOCK_WORDS: usize>(
    words: &[Word],
    per_group: usize,
    first: usize,
    tokens: &[&[i8]],
    sums: &mut TileSums,
) {
    let mut t = 0;
    while t < tokens.len() {
        let (left, sums) = (&tokens[t..], &mut sums[t..]);
        t += match left.len() {
            n if n >= TOKENS => tile::<D, TOKENS, PARTS, BLOCK_COLS, BLOCK_WORDS>(words, per_group, first, left, sums),
            8.. if TOKENS > 8 => tile::<D, 8, PARTS, BLOCK_COLS, BLOCK_WORDS>(words, per_group, first, left, sums),
            4.. if TOKENS > 4 => tile::<D, 4, PARTS, BLOCK_COLS, BLOCK_WORDS>(words, per_group, first, left, sums),
            2.. => tile::<D, 2, PARTS, BLOCK_COLS, BLOCK_WORDS>(words, per_group, first, left, sums),
            _ => tile::<D, 1, PARTS, BLOCK_COLS, BLOCK_WORDS>(words, per_group, first, left, sums),
        };
    }
}

/// Code sums of `PARTS` parts from `first` on for `TOKENS` tokens. Returns `TOKENS`.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "plane, token and part index several arrays at once")]
fn tile<D: TernaryDot, const TOKENS: usize, const PARTS: usize, const BLOCK_COLS: usize, const BLOCK_WORDS: usize>(
    words: &[Word],
    per_group: usize,
    first: usize,
    tokens: &[&[i8]],
    sums: &mut TileSums,
) -> usize {
    let parts = GROUP / D::ROWS;
    let tokens: [&[[i8; BLOCK_COLS]]; TOKENS] = slices(|t| tokens[t].as_chunks().0);
    let words: [&[[Word; BLOCK_WORDS]]; PARTS] =
        slices(|g| words[(first + g) / parts * per_group..][..per_group].as_chunks().0);
    // SAFETY: this copy of the code is compiled for `D` (`stamp_sums!`) and runs only where the processor has it.
    unsafe {
        let mut acc = [[D::zero(); PARTS]; TOKENS];
        for block in 0..words[0].len() {
            for b in 0..BLOCK_WORDS / TWO_BIT_WORDS {
                for w in 0..TWO_BIT_WORDS {
                    let mut codes = [[D::splat([0; 4]); PLANES]; PARTS];
                    for g in 0..PARTS {
                        let word = &words[g][block][b * TWO_BIT_WORDS + w];
                        prefetch_ahead(word);
                        codes[g] = D::unpack(D::load(word, (first + g) % parts));
                    }
                    for p in 0..D::PLANES {
                        for t in 0..TOKENS {
                            let q = broadcast::<D>(&tokens[t][block], p, b, w);
                            for g in 0..PARTS {
                                acc[t][g] = D::dot(acc[t][g], codes[g][p], q);
                            }
                        }
                    }
                }
            }
            for acc in acc.as_flattened_mut() {
                *acc = D::widen(*acc);
            }
        }
        for t in 0..TOKENS {
            for g in 0..PARTS {
                D::store(acc[t][g], &mut sums[t][(first + g) * D::ROWS..][..D::ROWS]);
            }
        }
    }
    TOKENS
}

/// Dots of ones in registers alone: `rounds` times the dots of a block for a tile of `TOKENS` tokens and `PARTS` parts.
/// Returns the number of multiply-adds.
#[inline(always)]
pub(super) fn peak_macs<D: TernaryDot, const TOKENS: usize, const PARTS: usize>(rounds: usize) -> u64 {
    // SAFETY: this copy of the code is compiled for `D` (`stamp_sums!`) and runs only where the processor has it.
    unsafe {
        let mut codes = [D::splat([1; 4]); 4];
        let q = black_box([D::splat([1; 4]); TOKENS]);
        let mut acc = [[D::zero(); PARTS]; TOKENS];
        for _ in 0..rounds {
            for _ in 0..TWO_BIT_WORDS {
                // Opaque in each iteration: the compiler must not move the products out of the loop.
                codes = black_box(codes);
                for code in codes {
                    for t in 0..TOKENS {
                        for acc in &mut acc[t] {
                            *acc = D::dot(*acc, code, q[t]);
                        }
                    }
                }
            }
            for acc in acc.as_flattened_mut() {
                *acc = D::widen(*acc);
            }
        }
        let mut total = 0;
        for sum in acc.as_flattened() {
            let mut lanes = [0i32; STRIP];
            D::store(*sum, &mut lanes[..D::ROWS]);
            total += lanes.iter().map(|lane| *lane as u64).sum::<u64>();
        }
        total
    }
}

/// The loops compiled for one [`TernaryDot`] with its target features, in tiles of `tokens` tokens and `parts` parts:
/// the functions `two_bit_sums` and `peak_macs`; or, for the dots of base3 codes, the function `base3_sums`.
macro_rules! stamp_sums {
    (dot: $dot:ty, features: $features:literal, tokens: $tokens:literal, parts: $parts:literal $(,)?) => {
        #[target_feature(enable = $features)]
        pub(super) fn two_bit_sums(
            words: &[$crate::kernel::packing::Word],
            tokens: &[&[i8]],
            sums: &mut $crate::kernel::ternary_dot::TileSums,
        ) {
            $crate::kernel::ternary_dot::strip_sums::<
                $dot,
                $tokens,
                $parts,
                { $crate::kernel::packing::BLOCK },
                { $crate::kernel::packing::TWO_BIT_WORDS },
            >(words, tokens, sums);
        }

        #[target_feature(enable = $features)]
        pub(super) fn peak_macs(rounds: usize) -> u64 {
            $crate::kernel::ternary_dot::peak_macs::<$dot, $tokens, $parts>(rounds)
        }
    };
    (base3: $dot:ty, features: $features:literal, tokens: $tokens:literal, parts: $parts:literal $(,)?) => {
        #[target_feature(enable = $features)]
        fn base3_sums(
            words: &[$crate::kernel::packing::Word],
            tokens: &[&[i8]],
            sums: &mut $crate::kernel::ternary_dot::TileSums,
        ) {
            $crate::kernel::ternary_dot::strip_sums::<
                $dot,
                $tokens,
                $parts,
                { $crate::kernel::packing::BASE3_BLOCK },
                { $crate::kernel::packing::BASE3_WORDS },
            >(words, tokens, sums);
        }
    };
}
pub(super) use stamp_sums;
