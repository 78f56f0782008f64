//! How trits lie in memory: the two packings, and how rows are written into them.
//!
//! A *word* of 64 bytes holds 16 rows; its dword r belongs to row r of the group. A group's words follow each other
//! along K; columns are padded to whole blocks and rows to whole groups. A code is a trit + 1.
//!
//! *Two-bit*, four codes in a byte. A block is 128 columns, 8 words. Word w of block b, dword r (for row r), byte j:
//!
//! ```text
//! bits    7-6              5-4              3-2              1-0
//! column  128·b+4·w+j      that + 32        that + 64        that + 96
//! ```
//!
//! A row's 32 bytes of a block are those of the I2_S format, so packing I2_S only transposes dwords.
//!
//! *Base3*, five codes in a byte, 1.6 bits a trit: a block is 640 columns, 32 words. The first 512 columns are four
//! two-bit blocks, whose bytes become numbers below 81 (digits to the base 3, shift 6 the highest); of the last 128
//! columns, byte i (0 to 127) of the row gets 81 times the code of column i. So word 8·b + w holds the columns of word
//! w of two-bit block b, and columns 512 + 32·b + 4·w + j.

use crate::machine::buffer::Plain;
use crate::machine::memory::Zeroable;

/// Rows in a group: one dword of each word belongs to each of them.
pub const GROUP: usize = 16;
/// Columns in a two-bit block.
pub const BLOCK: usize = 128;
/// Columns in a two-bit word.
pub const WORD_COLS: usize = 16;
/// Words of a two-bit block of one group.
pub const TWO_BIT_WORDS: usize = BLOCK / WORD_COLS;
/// Columns in a base3 block.
pub const BASE3_BLOCK: usize = 5 * BLOCK;
/// Words of a base3 block of one group.
pub const BASE3_WORDS: usize = 4 * TWO_BIT_WORDS;
/// Two-bit words that hold the columns of a base3 block.
pub const EXPANDED_WORDS: usize = 5 * TWO_BIT_WORDS;

/// Codes of the same columns for the 16 rows of a group.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Word(pub [u8; 64]);

// SAFETY: an array of bytes, for which every value is valid.
unsafe impl Zeroable for Word {}
// SAFETY: as above; its size is its alignment, so it has no padding.
unsafe impl Plain for Word {}

/// How many codes a byte holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Four codes in a byte, 2 bits each.
    TwoBit,
    /// Five codes in a byte, as digits to the base 3.
    Base3,
}

impl Packing {
    /// Both packings, for tests and measurements.
    pub const ALL: [Packing; 2] = [Packing::TwoBit, Packing::Base3];

    /// The packing that takes fewer bytes for rows of `cols`. Short rows fill long base3 blocks badly.
    pub fn smallest(cols: usize) -> Packing {
        if Packing::Base3.words(cols) < Packing::TwoBit.words(cols) { Packing::Base3 } else { Packing::TwoBit }
    }

    /// Columns and words of a block.
    fn block(self) -> (usize, usize) {
        match self {
            Packing::TwoBit => (BLOCK, TWO_BIT_WORDS),
            Packing::Base3 => (BASE3_BLOCK, BASE3_WORDS),
        }
    }

    /// `cols`, padded to whole blocks.
    pub fn padded(self, cols: usize) -> usize {
        cols.next_multiple_of(self.block().0)
    }

    /// Words of a group of rows of `cols`.
    pub fn words(self, cols: usize) -> usize {
        cols.div_ceil(self.block().0) * self.block().1
    }

    /// Writes a row into the words of its group. `bytes` are whole I2_S blocks without a code 3.
    pub(super) fn write_row(self, words: &mut [Word], row: usize, bytes: &[u8]) {
        let (words, own) = (words.chunks_mut(self.block().1), 4 * row..4 * row + 4);
        let write = |words: &mut [Word], bytes: &[u8]| {
            for (word, dword) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
                word.0[own.clone()].copy_from_slice(dword);
            }
        };
        match self {
            Packing::TwoBit => words.zip(bytes.chunks(BLOCK / 4)).for_each(|(words, bytes)| write(words, bytes)),
            Packing::Base3 => words.zip(bytes.chunks(BASE3_BLOCK / 4)).for_each(|(words, bytes)| {
                let mut whole = [0; BASE3_BLOCK / 4];
                whole[..bytes.len()].copy_from_slice(bytes);
                write(words, &to_base3(&whole));
            }),
        }
    }
}

impl Packing {
    /// How many lines of 64 bytes a row of `cols` takes by itself, without the other rows of a group.
    pub(super) fn lines(self, cols: usize) -> usize {
        self.words(cols).div_ceil(size_of::<Word>() / 4)
    }

    /// Writes a row as lines: its dwords of the words of a group, one after the other. `bytes` are whole I2_S blocks
    /// without a code 3.
    pub(super) fn write_lines(self, lines: &mut [Word], bytes: &[u8]) {
        match self {
            Packing::TwoBit => {
                for (line, bytes) in lines.iter_mut().zip(bytes.chunks(64)) {
                    line.0[..bytes.len()].copy_from_slice(bytes);
                }
            }
            Packing::Base3 => {
                for (lines, bytes) in lines.as_chunks_mut::<2>().0.iter_mut().zip(bytes.chunks(BASE3_BLOCK / 4)) {
                    let mut whole = [0; BASE3_BLOCK / 4];
                    whole[..bytes.len()].copy_from_slice(bytes);
                    let block = to_base3(&whole);
                    lines[0].0.copy_from_slice(&block[..64]);
                    lines[1].0.copy_from_slice(&block[64..]);
                }
            }
        }
    }

    /// The first of the 32 columns, one a byte, whose codes are the plane `plane` of one half of a line.
    pub(super) fn run(self, line: usize, plane: usize, half: usize) -> usize {
        match self {
            Packing::TwoBit => BLOCK * (2 * line + half) + RUN * plane,
            Packing::Base3 => {
                let (block, b) = (BASE3_BLOCK * (line / 2), 2 * (line % 2) + half);
                block + if plane < 4 { BLOCK * b + RUN * plane } else { 4 * BLOCK + RUN * b }
            }
        }
    }

    /// Code planes of a line.
    pub(super) fn planes(self) -> usize {
        match self {
            Packing::TwoBit => 4,
            Packing::Base3 => 5,
        }
    }
}

/// Columns that follow each other in a plane of a line.
pub(super) const RUN: usize = 32;

/// Writes whole blocks of trits as I2_S codes.
pub fn encode_i2s(trits: &[i8], bytes: &mut [u8]) {
    for (bytes, trits) in bytes.as_chunks_mut::<32>().0.iter_mut().zip(trits.as_chunks::<BLOCK>().0) {
        let code = |k: usize| (trits[k] + 1) as u8;
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = code(i) << 6 | code(32 + i) << 4 | code(64 + i) << 2 | code(96 + i);
        }
    }
}

/// A row's bytes of a base3 block, from those of five I2_S blocks.
fn to_base3(bytes: &[u8; BASE3_BLOCK / 4]) -> [u8; BLOCK] {
    let mut out = [0; BLOCK];
    let fifth: &[u8; 32] = bytes.last_chunk().expect("the five blocks are longer than one");
    for (out, shift) in out.as_chunks_mut::<32>().0.iter_mut().zip([6, 4, 2, 0]) {
        for (out, fifth) in out.iter_mut().zip(fifth) {
            *out = 81 * (fifth >> shift & 3);
        }
    }
    for (out, byte) in out.iter_mut().zip(bytes) {
        *out += 27 * (byte >> 6) + 9 * (byte >> 4 & 3) + 3 * (byte >> 2 & 3) + (byte & 3);
    }
    out
}

/// The two-bit byte for each number below 81, the lower four digits of a base3 byte.
pub const TWO_BIT_OF_BASE3: [u8; BLOCK] = {
    let mut table = [0; BLOCK];
    let mut n = 0;
    while n < 81 {
        table[n] = (((n / 27) << 6) | ((n / 9 % 3) << 4) | ((n / 3 % 3) << 2) | (n % 3)) as u8;
        n += 1;
    }
    table
};

/// Converts whole blocks of base3 words to two-bit words.
pub(super) fn base3_to_two_bit(base3: &[Word], two_bit: &mut [Word]) {
    for (words, out) in base3.chunks(BASE3_WORDS).zip(two_bit.chunks_mut(EXPANDED_WORDS)) {
        let (first, fifth) = out.split_at_mut(BASE3_WORDS);
        for (w, (word, out)) in words.iter().zip(first).enumerate() {
            let fifth = &mut fifth[w % TWO_BIT_WORDS].0;
            for ((byte, out), fifth) in word.0.iter().zip(&mut out.0).zip(fifth) {
                *out = TWO_BIT_OF_BASE3[*byte as usize % 81];
                *fifth = (*fifth << 2) | (byte / 81);
            }
        }
    }
}
