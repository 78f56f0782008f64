//! AMX: a tile of registers holds 16 × 16 sums, and one instruction multiplies 16 tokens with 16 rows of 64 columns.
//! Everything else is AVX-512 with VNNI and VBMI.
//!
//! The codes of a strip are unpacked to one byte each, once for all tokens (`amx_tiles.rs`). The activations are tiles
//! where they lie.
//!
//! Inner loop, for 64 columns, 32 tokens and 32 rows: 4 `tileloadd`, 4 `tdpbsud`, 65,536 multiply-adds. Bound: one
//! `tdpbsud` in 16 cycles, 1,024 multiply-adds a cycle.
//!
//! The compiler has no stable intrinsics for tiles, so the loops are assembly. The compiler itself never uses tiles, so
//! they keep their configuration from one loop to the next. It is released at the end of a strip.

#![expect(unsafe_op_in_unsafe_fn, reason = "an intrinsic needs the instruction set, which the caller promises")]

use super::amx_grouped;
use super::amx_tiles::{
    CHUNK_LINES, LINES_PER_TILE, TILE, TILE_COLS, TileConfig, configure, release, unpack_base3, unpack_two_bit,
};
use super::avx512::FLOATS;
use super::avx512_vbmi::{self, BASE3};
use super::avx512_vnni::{self, byte_dots, two_bit_sums};
use super::grouped_dot::{GroupedKernels, ManyGrouped};
use super::isa::Isa;
use super::packing::{BASE3_BLOCK, GROUP, Packing, Word};
use super::table::{Kernels, ManySums};
use super::ternary::Tokens;
use super::ternary_dot::{STRIP, TileSums};
use std::arch::asm;
use std::cell::Cell;

/// Fewer tokens are faster by `vpdpbusd`, which need not unpack the codes to memory.
const MIN_TOKENS: usize = 4;

pub(super) static TABLE: Kernels = Kernels {
    isa: Isa::Amx,
    two_bit_sums,
    two_bit_neurons: avx512_vnni::neurons::KERNELS,
    base3: Some(BASE3),
    many: Some(ManySums { sums: many_sums, min_tokens: MIN_TOKENS }),
    grouped: GroupedKernels {
        many: Some(ManyGrouped { outputs: amx_grouped::many, min_tokens: MIN_TOKENS }),
        ..avx512_vbmi::GROUPED
    },
    peak_macs,
    byte_dots: Some(byte_dots),
    look_ups: &[],
    floats: FLOATS,
};

thread_local! {
    /// The unpacked codes of a strip, kept for the next one.
    static CODES: Cell<Vec<Word>> = const { Cell::new(Vec::new()) };
}

/// The kernel of [`ManySums`]. 640 columns at a time, so that their codes stay in the nearest cache while all tokens are
/// multiplied with them.
///
/// # Safety
/// The processor has AMX with 8-bit integers, AVX-512 with BW and VBMI, and this process may use tiles.
unsafe fn many_sums(packing: Packing, words: &[Word], tokens: Tokens, sums: &mut TileSums) {
    let (n, cols, per_group) = (tokens.len(), tokens.cols(), packing.words(tokens.cols()));
    let groups = words.len() / per_group;
    let mut codes = CODES.take();
    codes.resize(2 * CHUNK_LINES, Word([0; 64]));
    sums[..n].fill([0; STRIP]);
    let mut configured = [0; 2];
    for start in (0..cols).step_by(BASE3_BLOCK) {
        let columns = start..cols.min(start + BASE3_BLOCK);
        let (before, after) = (packing.words(columns.start), packing.words(columns.end));
        let (a, b) = codes.split_at_mut(CHUNK_LINES);
        let mut codes = [&mut a[..columns.len() / 4], &mut b[..columns.len() / 4]];
        for (words, codes) in words.chunks(per_group).zip(&mut codes) {
            match packing {
                Packing::TwoBit => unpack_two_bit(&words[before..after], codes),
                Packing::Base3 => unpack_base3(&words[before..after], codes),
            }
        }
        let codes = [&*codes[0], &*codes[groups - 1]];
        // Two chunks on, in this strip or in the next one, which the same thread mostly computes.
        let chunk = after - before;
        let at = if before + 2 * chunk < per_group { 0 } else { (groups - 1) * per_group } + before + 2 * chunk;
        let next = [0, groups - 1].map(|group| words.as_ptr().wrapping_add(group * per_group + at));
        for first in (0..n).step_by(2 * TILE) {
            let tile = TILE.min(n - first);
            let tiles = [tile, TILE.min(n - first - tile)];
            if tiles != configured {
                configure(&TileConfig::of(tiles));
                configured = tiles;
            }
            add_products(codes, next, tokens.range(first..n), columns.start, tiles, &mut sums[first..]);
        }
    }
    release();
    CODES.set(codes);
}

/// Adds to `sums` the products of two groups' codes of some columns, from `first_col` on, and the activations of the
/// first tokens, as many as `n` says for each tile. The tiles are configured for `n`. Asks for as many words from `next`
/// on as unpack to the codes of a chunk, a few in each step, so that memory is read while tiles are multiplied.
///
/// # Safety
/// As for [`many_sums`].
unsafe fn add_products(
    codes: [&[Word]; 2],
    next: [*const Word; 2],
    tokens: Tokens,
    first_col: usize,
    n: [usize; 2],
    sums: &mut TileSums,
) {
    const { assert!(size_of::<[i32; STRIP]>() == 2 * size_of::<Word>()) };
    let steps = codes[0].len() / LINES_PER_TILE;
    assert!(steps > 0 && codes.iter().all(|codes| codes.len() == steps * LINES_PER_TILE));
    assert!(n[0] > 0 && n[0] <= TILE && n[1] <= TILE && n[0] + n[1] <= tokens.len().min(sums.len()));
    assert!(first_col + steps * TILE_COLS <= tokens.cols());
    let first = tokens.bytes(n[0] + n[1])[first_col..].as_ptr();
    let (a, b) = (codes[0].as_ptr(), codes[1].as_ptr());
    let (stride, out) = (tokens.stride(), sums.as_mut_ptr());
    if n[1] == 0 {
        // SAFETY: the processor has the instructions, as the caller promises. A step reads 64 columns of `n[0]` tokens,
        // `stride` apart, and 16 lines of each group, which the assertions hold; the sums have `n[0]` rows of `STRIP`.
        // Nothing else uses tiles.
        asm!(
            "tileloadd tmm0, [{out} + 2*{line}]",
            "tileloadd tmm1, [{out} + 2*{line} + 64]",
            "2:",
            "tileloadd tmm4, [{first} + 1*{stride}]",
            "tileloadd tmm6, [{a} + 1*{line}]",
            "tileloadd tmm7, [{b} + 1*{line}]",
            "tdpbsud tmm0, tmm4, tmm6",
            "prefetcht0 [{next_a}]",
            "prefetcht0 [{next_a} + 64]",
            "prefetcht0 [{next_a} + 128]",
            "prefetcht0 [{next_a} + 192]",
            "tdpbsud tmm1, tmm4, tmm7",
            "prefetcht0 [{next_b}]",
            "prefetcht0 [{next_b} + 64]",
            "prefetcht0 [{next_b} + 128]",
            "prefetcht0 [{next_b} + 192]",
            "add {next_a}, 256",
            "add {next_b}, 256",
            "add {first}, 64",
            "add {a}, 1024",
            "add {b}, 1024",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{out} + 2*{line}], tmm0",
            "tilestored [{out} + 2*{line} + 64], tmm1",
            first = inout(reg) first => _,
            a = inout(reg) a => _,
            b = inout(reg) b => _,
            next_a = inout(reg) next[0] => _,
            next_b = inout(reg) next[1] => _,
            steps = inout(reg) steps => _,
            stride = in(reg) stride,
            line = in(reg) size_of::<Word>(),
            out = in(reg) out,
            options(nostack),
        );
        return;
    }
    // SAFETY: as above; the second tile of tokens and of sums follows the first.
    asm!(
        "tileloadd tmm0, [{out} + 2*{line}]",
        "tileloadd tmm1, [{out} + 2*{line} + 64]",
        "tileloadd tmm2, [{second_out} + 2*{line}]",
        "tileloadd tmm3, [{second_out} + 2*{line} + 64]",
        "2:",
        "tileloadd tmm4, [{first} + 1*{stride}]",
        "tileloadd tmm6, [{a} + 1*{line}]",
        "tileloadd tmm7, [{b} + 1*{line}]",
        "tdpbsud tmm0, tmm4, tmm6",
        "tileloadd tmm5, [{second} + 1*{stride}]",
        "prefetcht0 [{next_a}]",
        "prefetcht0 [{next_a} + 64]",
        "prefetcht0 [{next_a} + 128]",
        "prefetcht0 [{next_a} + 192]",
        "tdpbsud tmm1, tmm4, tmm7",
        "prefetcht0 [{next_b}]",
        "prefetcht0 [{next_b} + 64]",
        "prefetcht0 [{next_b} + 128]",
        "prefetcht0 [{next_b} + 192]",
        "add {next_a}, 256",
        "add {next_b}, 256",
        "tdpbsud tmm2, tmm5, tmm6",
        "tdpbsud tmm3, tmm5, tmm7",
        "add {first}, 64",
        "add {second}, 64",
        "add {a}, 1024",
        "add {b}, 1024",
        "dec {steps}",
        "jnz 2b",
        "tilestored [{out} + 2*{line}], tmm0",
        "tilestored [{out} + 2*{line} + 64], tmm1",
        "tilestored [{second_out} + 2*{line}], tmm2",
        "tilestored [{second_out} + 2*{line} + 64], tmm3",
        first = inout(reg) first => _,
        second = inout(reg) first.wrapping_add(n[0] * stride) => _,
        a = inout(reg) a => _,
        b = inout(reg) b => _,
        next_a = inout(reg) next[0] => _,
        next_b = inout(reg) next[1] => _,
        steps = inout(reg) steps => _,
        stride = in(reg) stride,
        line = in(reg) size_of::<Word>(),
        out = in(reg) out,
        second_out = in(reg) out.wrapping_add(n[0]),
        options(nostack),
    );
}

/// The multiply-adds of `tdpbsud` on tiles of ones, `rounds` times the dots of a block of 128 columns for 32 tokens and
/// 32 rows. Returns the number of multiply-adds, which is the sum of the results.
///
/// # Safety
/// As for [`many_sums`].
unsafe fn peak_macs(rounds: usize) -> u64 {
    let config = TileConfig::of([TILE, TILE]);
    let ones = [1i8; LINES_PER_TILE * TILE_COLS];
    let mut sums = [[0i32; GROUP * TILE]; 4];
    if rounds == 0 {
        return 0;
    }
    // SAFETY: the processor has the instructions, as the caller promises; tiles of 1,024 bytes are read and written.
    asm!(
        "ldtilecfg [{config}]",
        "tilezero tmm0",
        "tilezero tmm1",
        "tilezero tmm2",
        "tilezero tmm3",
        "tileloadd tmm4, [{ones} + 1*{line}]",
        "tileloadd tmm5, [{ones} + 1*{line}]",
        "tileloadd tmm6, [{ones} + 1*{line}]",
        "tileloadd tmm7, [{ones} + 1*{line}]",
        "2:",
        "tdpbsud tmm0, tmm4, tmm6",
        "tdpbsud tmm1, tmm4, tmm7",
        "tdpbsud tmm2, tmm5, tmm6",
        "tdpbsud tmm3, tmm5, tmm7",
        "tdpbsud tmm0, tmm4, tmm6",
        "tdpbsud tmm1, tmm4, tmm7",
        "tdpbsud tmm2, tmm5, tmm6",
        "tdpbsud tmm3, tmm5, tmm7",
        "dec {rounds}",
        "jnz 2b",
        "tilestored [{out} + 1*{line}], tmm0",
        "tilestored [{out} + 1*{line} + 1024], tmm1",
        "tilestored [{out} + 1*{line} + 2048], tmm2",
        "tilestored [{out} + 1*{line} + 3072], tmm3",
        "tilerelease",
        config = in(reg) &config,
        ones = in(reg) ones.as_ptr(),
        line = in(reg) size_of::<Word>(),
        rounds = inout(reg) rounds => _,
        out = in(reg) sums.as_mut_ptr(),
        options(nostack),
    );
    sums.as_flattened().iter().map(|sum| *sum as u64).sum()
}
