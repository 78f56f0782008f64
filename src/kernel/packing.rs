//! How trits lie in memory: the two packings, and how rows get into them.
//!
//! A *word* of 64 bytes holds 16 rows; its dword r belongs to row r of the group. A group's words follow each other along
//! K; columns are padded to whole blocks and rows to whole groups. A code is a trit + 1.
//!
//! *Four* codes in a byte, 2 bits a trit: byte j of a word's dword holds, at shifts 6, 4, 2, 0, columns 32·0, 32·1, 32·2,
//! 32·3 + 4·w + j of a block of 128 columns, where w (0 to 7) is the word's place in the block. A row's 32 bytes of a block
//! are those of the I2_S format, so packing I2_S only transposes dwords.
//!
//! *Five* codes in a byte, 1.6 bits a trit: a block is 640 columns, 32 words. The first 512 columns are four blocks as above,
//! whose bytes stand as numbers below 81 (digits to the base 3, shift 6 the highest); the block of the last 128 columns
//! gives to byte i (0 to 127) of the row 81 times the code of its column i. So word 8·b + w meets what word w of block b
//! meets, and column 512 + 32·b + 4·w + j.

use crate::machine::memory::Zero;

/// Rows in a group.
pub const GROUP: usize = 16;
/// Columns in a block of four codes a byte.
pub const BLOCK: usize = 128;
/// Columns in a word of four codes a byte.
pub const WORD_COLS: usize = 16;
/// Words in such a block of one group.
pub const BLOCK_WORDS: usize = BLOCK / WORD_COLS;
/// Columns in a block of five codes a byte.
pub const BASE3_BLOCK: usize = 5 * BLOCK;
/// Words in such a block of one group.
pub const BASE3_WORDS: usize = 4 * BLOCK_WORDS;

/// Words of four codes a byte for such a block.
pub const EXPANDED_WORDS: usize = 5 * BLOCK_WORDS;

/// 16 rows of codes.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Word(pub [u8; 64]);

// SAFETY: bytes.
unsafe impl Zero for Word {}

/// Codes in a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Four.
    TwoBit,
    /// Five.
    Base3,
}

impl Packing {
    /// Both.
    pub const ALL: [Packing; 2] = [Packing::TwoBit, Packing::Base3];

    /// The one that takes fewer bytes for rows of `cols`; the blocks of five are long.
    pub fn smallest(cols: usize) -> Packing {
        if Packing::Base3.words(cols) < Packing::TwoBit.words(cols) { Packing::Base3 } else { Packing::TwoBit }
    }

    /// Columns and words of a block.
    fn block(self) -> (usize, usize) {
        match self {
            Packing::TwoBit => (BLOCK, BLOCK_WORDS),
            Packing::Base3 => (BASE3_BLOCK, BASE3_WORDS),
        }
    }

    /// `cols`, filled up to whole blocks.
    pub fn padded(self, cols: usize) -> usize {
        cols.next_multiple_of(self.block().0)
    }

    /// Words of a group of rows of `cols`.
    pub fn words(self, cols: usize) -> usize {
        cols.div_ceil(self.block().0) * self.block().1
    }

    /// Puts a row, as the bytes of whole I2_S blocks without a code 3, into the words of its group.
    pub(super) fn place(self, words: &mut [Word], row: usize, bytes: &[u8]) {
        let (words, own) = (words.chunks_mut(self.block().1), 4 * row..4 * row + 4);
        let put = |words: &mut [Word], bytes: &[u8]| {
            for (word, dword) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
                word.0[own.clone()].copy_from_slice(dword);
            }
        };
        match self {
            Packing::TwoBit => words.zip(bytes.chunks(BLOCK / 4)).for_each(|(words, bytes)| put(words, bytes)),
            Packing::Base3 => words.zip(bytes.chunks(BASE3_BLOCK / 4)).for_each(|(words, bytes)| {
                let mut whole = [0; BASE3_BLOCK / 4];
                whole[..bytes.len()].copy_from_slice(bytes);
                put(words, &to_base3(&whole));
            }),
        }
    }
}

/// The bytes of a block of five, from those of five I2_S blocks.
fn to_base3(bytes: &[u8; BASE3_BLOCK / 4]) -> [u8; BLOCK] {
    let mut out = [0; BLOCK];
    let last: &[u8; 32] = bytes.last_chunk().expect("longer");
    for (out, code) in out.as_chunks_mut::<32>().0.iter_mut().zip([6, 4, 2, 0]) {
        for (out, last) in out.iter_mut().zip(last) {
            *out = 81 * (last >> code & 3);
        }
    }
    for (out, byte) in out.iter_mut().zip(bytes) {
        *out += 27 * (byte >> 6) + 9 * (byte >> 4 & 3) + 3 * (byte >> 2 & 3) + (byte & 3);
    }
    out
}

/// The byte of four codes that a number below 81 stands for.
pub const TWO_BIT_OF_BASE3: [u8; BLOCK] = {
    let mut table = [0; BLOCK];
    let mut n = 0;
    while n < 81 {
        table[n] = (((n / 27) << 6) | ((n / 9 % 3) << 4) | ((n / 3 % 3) << 2) | (n % 3)) as u8;
        n += 1;
    }
    table
};
