//! What the kernels of AMX share: the configuration of tiles, and codes unpacked to lines of tiles.
//!
//! A line is 64 codes, one byte each: four columns of the 16 rows of a group, as `vpdpbusd` reads them too. 16 lines in the
//! order of the columns are a tile (the layout that `tdpbsud` takes for its second operand: Intel SDM, "TDPBSUD").

#![expect(unsafe_op_in_unsafe_fn, reason = "an intrinsic needs the instruction set, which the caller promises")]

use super::avx512::{load, unpack};
use super::avx512_vbmi::{split_base3, write};
use super::packing::{BASE3_BLOCK, BASE3_WORDS, BLOCK, TWO_BIT_WORDS, Word};
use std::arch::asm;
use std::arch::x86_64::*;

/// Tokens in a tile.
pub(super) const TILE: usize = 16;
/// Columns in a tile of activations.
pub(super) const TILE_COLS: usize = 64;
/// Lines of codes in a tile.
pub(super) const LINES_PER_TILE: usize = 16;
/// Lines of codes of a group that are unpacked at a time.
pub(super) const CHUNK_LINES: usize = BASE3_BLOCK / 4;

/// The operand of `ldtilecfg`: bytes and rows of each tile (Intel SDM, "LDTILECFG").
#[repr(C, align(64))]
pub(super) struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl TileConfig {
    /// Tiles 0 and 1 hold sums of the first tokens, 2 and 3 those of the second ones; 4 and 5 their activations; 6 and
    /// 7 the codes of two groups. There may be no second tokens.
    pub(super) fn of(tokens: [usize; 2]) -> TileConfig {
        let [first, second] = tokens.map(|n| n as u8);
        let mut config = TileConfig { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for (tile, rows) in [first, first, second, second, first, second, 16, 16].into_iter().enumerate() {
            (config.rows[tile], config.row_bytes[tile]) = (rows, if rows > 0 { 64 } else { 0 });
        }
        config
    }
}

/// Configures the tiles, whose values are lost.
///
/// # Safety
/// The processor has AMX, and this process may use tiles.
pub(super) unsafe fn configure(config: &TileConfig) {
    // SAFETY: the processor has the instruction, as the caller promises, and it reads the 64 bytes of the configuration.
    asm!("ldtilecfg [{}]", in(reg) config, options(nostack, readonly));
}

/// Unpacks two-bit words to lines of codes, in the order of the columns.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn unpack_two_bit(words: &[Word], codes: &mut [Word]) {
    let blocks = words.as_chunks::<TWO_BIT_WORDS>().0.iter().zip(codes.as_chunks_mut::<{ BLOCK / 4 }>().0);
    for (words, codes) in blocks {
        for (w, word) in words.iter().enumerate() {
            let planes = unpack(load(word));
            for p in 0..4 {
                write(&mut codes[TWO_BIT_WORDS * p + w], planes[p]);
            }
        }
    }
}

/// Unpacks base3 words to lines of codes, in the order of the columns.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn unpack_base3(words: &[Word], codes: &mut [Word]) {
    let blocks = words.as_chunks::<BASE3_WORDS>().0.iter().zip(codes.as_chunks_mut::<{ 5 * BLOCK / 4 }>().0);
    for (words, codes) in blocks {
        for b in 0..4 {
            for w in 0..TWO_BIT_WORDS {
                let word = &words[TWO_BIT_WORDS * b + w];
                let [two_bit, fifth] = split_base3(load(word));
                let planes = unpack(two_bit);
                for p in 0..4 {
                    write(&mut codes[BLOCK / 4 * b + TWO_BIT_WORDS * p + w], planes[p]);
                }
                let fifth = _mm512_and_si512(_mm512_srli_epi32(fifth, 6), _mm512_set1_epi8(3));
                write(&mut codes[BLOCK + TWO_BIT_WORDS * b + w], fifth);
            }
        }
    }
}

/// Releases the tiles, so that no state of theirs has to be saved.
///
/// # Safety
/// The processor has AMX, and this process may use tiles.
pub(super) unsafe fn release() {
    // SAFETY: the processor has the instruction, as the caller promises.
    asm!("tilerelease", options(nomem, nostack));
}
