//! AArch64 with the matrix multiplication of 8-bit integers (FEAT_I8MM), for several tokens. One token has nothing to
//! fill a matrix with and is left to `sdot`.
//!
//! `smmla` multiplies 2 rows × 8 columns of codes with 8 columns × 2 tokens of activations: 32 multiply-adds, twice as
//! many as `sdot`. Two words that follow each other hold 8 consecutive columns of a row in each plane, so a `zip` of
//! their dwords, before they are unpacked, gives the two rows.
//!
//! Inner loop, for a plane of two words, 8 rows and 8 tokens: 4 × (`ushr`, `and`); 4 × (`ldr`, `ld1`); 16 `smmla`, 512
//! multiply-adds. Bound: 16 `smmla` for these.

#![expect(unsafe_op_in_unsafe_fn, reason = "an intrinsic needs the instruction set, which the caller promises")]

use super::grouped_dot::{GroupedKernels, GroupedRows, GroupedTokens, MAX_PLANES, ManyGrouped, fold};
use super::isa::Isa;
use super::lanes::SimdF32;
use super::neon::{FLOATS, Neon};
use super::neon_dot;
use super::packing::{BASE3_WORDS, BLOCK, EXPANDED_WORDS, GROUP, Packing, TWO_BIT_WORDS, Word, base3_to_two_bit};
use super::prefetch::{prefetch_ahead, prefetch_far};
use super::table::{Kernels, ManySums};
use super::ternary::Tokens;
use super::ternary_dot::{STRIP, TernaryDot, TileSums};
use std::arch::aarch64::*;
use std::arch::asm;
use std::hint::black_box;
use std::ops::Range;

/// Fewer tokens do not fill a matrix.
const MIN_TOKENS: usize = 2;
/// Pairs of rows in a tile; half a group.
const ROW_PAIRS: usize = 4;
/// Rows in a tile.
const ROWS: usize = 2 * ROW_PAIRS;

pub(super) static TABLE: Kernels = Kernels {
    isa: Isa::NeonI8mm,
    two_bit_sums: neon_dot::two_bit_sums,
    two_bit_neurons: neon_dot::neurons::KERNELS,
    base3: None,
    many: Some(ManySums { sums: many_sums, min_tokens: MIN_TOKENS }),
    grouped: GroupedKernels {
        many: Some(ManyGrouped { outputs: many_grouped, min_tokens: MIN_TOKENS }),
        ..neon_dot::GROUPED
    },
    peak_macs,
    byte_dots: None,
    look_ups: &[],
    floats: FLOATS,
};

/// Sums of a tile of `2 · N` tokens: `[pair of tokens][pair of rows]`, each `[row][token]`.
type Sums<const N: usize> = [[int32x4_t; ROW_PAIRS]; N];

/// The kernel of [`ManySums`]. Words in base3, which other processors prefer, are expanded first.
#[target_feature(enable = "neon,i8mm")]
fn many_sums(packing: Packing, words: &[Word], tokens: Tokens, sums: &mut TileSums) {
    let mut expanded = Vec::new();
    let words = match packing {
        Packing::TwoBit => words,
        Packing::Base3 => {
            expanded.resize(words.len() / BASE3_WORDS * EXPANDED_WORDS, Word([0; 64]));
            base3_to_two_bit(words, &mut expanded);
            &expanded
        }
    };
    let mut t = 0;
    while t < tokens.len() {
        let (left, sums) = (tokens.range(t..tokens.len()), &mut sums[t..]);
        t += match left.len() {
            7.. => tile::<4>(words, left, sums),
            5.. => tile::<3>(words, left, sums),
            3.. => tile::<2>(words, left, sums),
            _ => tile::<1>(words, left, sums),
        };
    }
}

/// Code sums of a strip for the first `2 · N` tokens, or for all if they are fewer. Returns for how many.
#[inline(always)]
fn tile<const N: usize>(words: &[Word], tokens: Tokens, sums: &mut TileSums) -> usize {
    let n = tokens.len().min(2 * N);
    let q = pairs::<_, N>(n, |t| tokens.rows().nth(t).expect("one of the tokens").as_chunks::<BLOCK>().0);
    let words = words.as_chunks::<TWO_BIT_WORDS>().0;
    for (group, blocks) in words.chunks(tokens.cols() / BLOCK).enumerate() {
        for half in 0..GROUP / ROWS {
            // SAFETY: this copy of the code is compiled for the instructions and runs only where the processor has
            // them.
            unsafe {
                let mut acc = [[vdupq_n_s32(0); ROW_PAIRS]; N];
                for (b, words) in blocks.iter().enumerate() {
                    if half == 0 {
                        words.iter().for_each(prefetch_ahead);
                    }
                    add_block(words, half, &block_of(&q, b), 0..4, &mut acc);
                }
                for (t, sums) in sums.iter_mut().enumerate().take(n) {
                    store(&acc, t, &mut sums[group * GROUP + half * ROWS..][..ROWS]);
                }
            }
        }
    }
    n
}

/// The kernel of [`ManyGrouped`].
#[target_feature(enable = "neon,i8mm")]
fn many_grouped(rows: &[GroupedRows], tokens: GroupedTokens, y: &mut [[f32; STRIP]]) {
    for (r, rows) in rows.iter().enumerate() {
        match (tokens.n_planes(), rows.halves) {
            (1, false) => grouped_tiles::<1, 1>(rows, r, tokens, y),
            (1, true) => grouped_tiles::<1, 2>(rows, r, tokens, y),
            (2, false) => grouped_tiles::<2, 1>(rows, r, tokens, y),
            (2, true) => grouped_tiles::<2, 2>(rows, r, tokens, y),
            (_, false) => grouped_tiles::<3, 1>(rows, r, tokens, y),
            (_, true) => grouped_tiles::<3, 2>(rows, r, tokens, y),
        }
    }
}

/// Outputs of a group of rows, from row 16·`r` on, for all tokens. The `P` planes of a token are multiplied like as
/// many tokens; a block has `PARTS` groups of columns.
#[inline(always)]
fn grouped_tiles<const P: usize, const PARTS: usize>(
    rows: &GroupedRows,
    r: usize,
    tokens: GroupedTokens,
    y: &mut [[f32; STRIP]],
) {
    let mut t = 0;
    while t < tokens.len() {
        let (left, y) = (tokens.range(t..tokens.len()), &mut y[t..]);
        t += match left.len() * P {
            7.. if P < 3 => grouped_tile::<4, P, PARTS>(rows, r, left, y),
            5.. => grouped_tile::<3, P, PARTS>(rows, r, left, y),
            3.. => grouped_tile::<2, P, PARTS>(rows, r, left, y),
            _ => grouped_tile::<1, P, PARTS>(rows, r, left, y),
        };
    }
}

/// Outputs for the first tokens, as many as have `2 · N` planes, or for all if they are fewer. Returns for how many.
#[inline(always)]
fn grouped_tile<const N: usize, const P: usize, const PARTS: usize>(
    rows: &GroupedRows,
    r: usize,
    tokens: GroupedTokens,
    y: &mut [[f32; STRIP]],
) -> usize {
    let n = tokens.len().min(2 * N / P);
    let q = pairs::<_, N>(n * P, |i| tokens.token(i / P).planes[MAX_PLANES - P + i % P].as_chunks::<BLOCK>().0);
    // SAFETY: this copy of the code is compiled for the instructions and runs only where the processor has them.
    unsafe {
        let mut acc = [[<Neon as SimdF32>::splat(0.0); 2]; N];
        let acc = acc.as_flattened_mut();
        let mut sums = [[[0; GROUP]; 2]; N];
        for (b, words) in rows.words.as_chunks::<TWO_BIT_WORDS>().0.iter().enumerate() {
            words.iter().for_each(prefetch_far);
            for part in 0..PARTS {
                let planes = 4 / PARTS * part..4 / PARTS * (part + 1);
                for half in 0..GROUP / ROWS {
                    let mut products = [[vdupq_n_s32(0); ROW_PAIRS]; N];
                    add_block(words, half, &block_of(&q, b), planes.clone(), &mut products);
                    for (i, sums) in sums.as_flattened_mut().iter_mut().enumerate() {
                        store(&products, i, &mut sums[half * ROWS..][..ROWS]);
                    }
                }
                let scales = Neon::f16_to_f32(rows.scales_of(PARTS * b + part));
                for (t, acc) in acc.iter_mut().enumerate().take(n) {
                    let of_token = std::array::from_fn(|p| &sums.as_flattened()[P * t + p]);
                    let scale = tokens.scale(t, b);
                    *acc = fold::<Neon, P>(*acc, of_token, scale.sum(part, PARTS), scale.s, scales);
                }
            }
        }
        for (acc, y) in acc.iter().zip(&mut *y).take(n) {
            <Neon as SimdF32>::store(*acc, &mut y.as_chunks_mut::<GROUP>().0[r]);
        }
    }
    n
}

/// The first `n` slices in pairs; the last one fills up `N` pairs.
#[inline(always)]
fn pairs<'a, T, const N: usize>(n: usize, of: impl Fn(usize) -> &'a [T]) -> [[&'a [T]; 2]; N] {
    let mut all: [[&[T]; 2]; N] = [[&[]; 2]; N];
    for (i, slice) in all.as_flattened_mut().iter_mut().enumerate() {
        *slice = of(i.min(n - 1));
    }
    all
}

/// A block of each token.
#[inline(always)]
fn block_of<'a, const N: usize>(q: &[[&'a [[i8; BLOCK]]; 2]; N], block: usize) -> [[&'a [i8; BLOCK]; 2]; N] {
    q.map(|pair| pair.map(|token| &token[block]))
}

/// Adds the products of some planes of a block, of half the rows of a group, with all tokens.
///
/// # Safety
/// The processor has FEAT_I8MM.
#[inline(always)]
unsafe fn add_block<const N: usize>(
    words: &[Word; TWO_BIT_WORDS],
    half: usize,
    q: &[[&[i8; BLOCK]; 2]; N],
    planes: Range<usize>,
    acc: &mut Sums<N>,
) {
    for (w, [first, second]) in words.as_chunks::<2>().0.iter().enumerate() {
        let mut packed = [vdupq_n_u32(0); ROW_PAIRS];
        for (part, packed) in packed.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let load = |word| vreinterpretq_u32_u8(<Neon as TernaryDot>::load(word, 2 * half + part));
            let (a, b) = (load(first), load(second));
            *packed = [vzip1q_u32(a, b), vzip2q_u32(a, b)];
        }
        for p in planes.clone() {
            let codes = packed.map(|packed| Neon::unpack(vreinterpretq_u8_u32(packed))[p]);
            for (q, acc) in q.iter().zip(&mut *acc) {
                let q = q.map(|token| eight(token, 32 * p + 8 * w));
                for (acc, codes) in acc.iter_mut().zip(codes) {
                    *acc = smmla(*acc, codes, vcombine_s8(q[0], q[1]));
                }
            }
        }
    }
}

/// Eight activations of a block.
#[inline(always)]
fn eight(q: &[i8; BLOCK], column: usize) -> int8x8_t {
    let q: &[i8; 8] = q[column..].first_chunk().expect("the columns lie in the block");
    // SAFETY: `q` holds the eight bytes that are read.
    unsafe { vld1_s8(q.as_ptr()) }
}

/// `vmmlaq_s32`, an intrinsic that is not stable yet: adds the products of 2 rows of `a` and 2 rows of `b`, 8 bytes
/// each.
///
/// # Safety
/// The processor has FEAT_I8MM.
#[inline(always)]
unsafe fn smmla(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: registers only; the caller promises the extension.
    asm!(".arch_extension i8mm", "smmla {sums:v}.4s, {a:v}.16b, {b:v}.16b", sums = inout(vreg) sums,
        a = in(vreg) a, b = in(vreg) b, options(pure, nomem, nostack));
    sums
}

/// Writes the sums of a token.
#[inline(always)]
fn store<const N: usize>(acc: &Sums<N>, token: usize, out: &mut [i32]) {
    assert_eq!(out.len(), ROWS);
    let [a, b, c, d] = acc[token / 2];
    // SAFETY: `out` holds the eight sums that are written; NEON is part of every AArch64.
    unsafe {
        let [low, high] = match token % 2 {
            0 => [vuzp1q_s32(a, b), vuzp1q_s32(c, d)],
            _ => [vuzp2q_s32(a, b), vuzp2q_s32(c, d)],
        };
        vst1q_s32(out.as_mut_ptr(), low);
        vst1q_s32(out.as_mut_ptr().add(4), high);
    }
}

/// The multiply-adds of `smmla` in registers alone, `rounds` times those of a block for 8 tokens and 8 rows. Returns
/// their number, which is the sum of the results.
#[target_feature(enable = "neon,i8mm")]
fn peak_macs(rounds: usize) -> u64 {
    let mut codes = [vdupq_n_s8(1); ROW_PAIRS];
    let q = black_box([vdupq_n_s8(1); 4]);
    let mut acc = [[vdupq_n_s32(0); ROW_PAIRS]; 4];
    for _ in 0..rounds * (BLOCK / 8) {
        // Opaque in each iteration: the compiler must not move the products out of the loop.
        codes = black_box(codes);
        for (q, acc) in q.into_iter().zip(&mut acc) {
            for (acc, codes) in acc.iter_mut().zip(codes) {
                // SAFETY: the processor has the instruction, as this function requires.
                *acc = unsafe { smmla(*acc, codes, q) };
            }
        }
    }
    acc.into_iter().flatten().map(|sums| vaddlvq_s32(sums) as u64).sum()
}
