//! The tensor types of packed models, which `bitnet pack` writes: their ids, and where each trit lies.
//!
//! A packed tensor is the words that the kernels read (`kernel/packing.rs`), and behind them an f32 for each row: its
//! scale, or of a grouped matrix the factor of its outputs. 16 rows are a *strip*, and a word of 64 bytes holds four
//! bytes of each row. A strip of a grouped matrix begins with the scales of its groups, f16, `[group][row]`, in whole
//! words. Its trits follow, as codes (trit + 1): blocks of 640 columns in 32 words, five codes a byte, as far as the
//! type has them, then blocks of 128 columns in 8 words, four codes a byte.

use std::ops::Range;

use super::types::TensorType;

/// The ids of packed tensors begin here, far above those of any other program, which so refuses them: "BT" in ASCII.
const FIRST_ID: u32 = 0x4254_0000;
/// Every type that has an id in packed models only. Ids that forks of llama.cpp contest are among them, so that no size
/// needs to decide. A number is never given to another type.
const IDS: [(u32, TensorType); 19] = [
    (1, TensorType::TWO_BIT),
    (2, TensorType::BASE3),
    (3, TensorType::TWO_BIT_G64),
    (4, TensorType::BASE3_G64),
    (5, TensorType::TWO_BIT_G128),
    (6, TensorType::BASE3_G128),
    (7, TensorType::HEAD_I8),
    (0x101, TensorType::TQ1_0),
    (0x102, TensorType::TQ2_0),
    (0x103, TensorType::I2_S),
    (0x104, TensorType::IQ1_BN),
    (0x105, TensorType::IQ2_BN),
    (0x106, TensorType::IQ2_BN_R4),
    (0x107, TensorType::Q2_0_G64),
    (0x108, TensorType::Q2_0_G128),
    (0x109, TensorType::PQ2_0),
    (0x10a, TensorType::PTQ1_0),
    (0x10b, TensorType::Q1_0),
    (0x10c, TensorType::STQ1_0),
];

/// Rows of a strip.
const ROWS: usize = 16;
const WORD: usize = 64;
/// Columns and bytes of the two kinds of blocks.
const TWO_BIT: (usize, usize) = (128, 8 * WORD);
const BASE3: (usize, usize) = (640, 32 * WORD);

/// How the trits of a packed tensor lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedLayout {
    /// The columns that share a scale, of a grouped matrix.
    pub group: Option<usize>,
    /// Whether there are blocks of five codes a byte.
    pub base3: bool,
}

impl PackedLayout {
    /// Of a row of `cols`: how many blocks have five codes a byte, and how many have four.
    fn blocks(self, cols: usize) -> (usize, usize) {
        let all = cols.div_ceil(TWO_BIT.0);
        match (self.base3, self.group) {
            (false, _) => (0, all),
            (true, None) => (cols.div_ceil(BASE3.0), 0),
            (true, Some(_)) => (all / 5, all % 5),
        }
    }

    /// The groups of columns of a row, padding included; none without scales for groups.
    fn groups(self, cols: usize) -> usize {
        self.group.map_or(0, |group| cols.div_ceil(TWO_BIT.0) * (TWO_BIT.0 / group))
    }

    /// The bytes of a strip, and of the scales at its beginning.
    fn strip(self, cols: usize) -> Option<(usize, usize)> {
        let (base3, two_bit) = self.blocks(cols);
        let scales = self.groups(cols).div_ceil(2).checked_mul(WORD)?;
        let trits = base3.checked_mul(BASE3.1)?.checked_add(two_bit.checked_mul(TWO_BIT.1)?)?;
        Some((scales.checked_add(trits)?, scales))
    }

    /// The bytes of a tensor's words, without the row scales; `None` if they are more than memory can address.
    pub fn word_bytes(self, rows: usize, cols: usize) -> Option<usize> {
        rows.div_ceil(ROWS).checked_mul(self.strip(cols)?.0)
    }

    /// The codes of `out.len()` columns of a row from `start` on. Damaged words give codes up to 3.
    pub fn codes(self, words: &[u8], row: usize, cols: usize, start: usize, out: &mut [u8]) {
        let (trits, (base3, _)) = (self.strip_of(words, row, cols).1, self.blocks(cols));
        let first = 4 * (row % ROWS);
        // The row's byte number `at` of a block.
        let byte = |block: Range<usize>, at: usize| trits[block][at / 4 * WORD + first + at % 4];
        for (column, out) in (start..).zip(out) {
            *out = if column < base3 * BASE3.0 {
                let (block, k) = (column / BASE3.0, column % BASE3.0);
                let block = block * BASE3.1..(block + 1) * BASE3.1;
                match k / TWO_BIT.0 {
                    4 => byte(block, k - 4 * TWO_BIT.0) / 81,
                    quarter => {
                        let (plane, at) = (k % TWO_BIT.0 / 32, k % 32);
                        byte(block, 32 * quarter + at) % 81 / [27, 9, 3, 1][plane] % 3
                    }
                }
            } else {
                let column = column - base3 * BASE3.0;
                let (block, k) = (column / TWO_BIT.0, column % TWO_BIT.0);
                let start = base3 * BASE3.1 + block * TWO_BIT.1;
                byte(start..start + TWO_BIT.1, k % 32) >> (6 - 2 * (k / 32)) & 3
            };
        }
    }

    /// The f16 scale of a group of columns of a row.
    pub fn group_scale(self, words: &[u8], row: usize, cols: usize, group: usize) -> [u8; 2] {
        let scales = self.strip_of(words, row, cols).0;
        let at = group / 2 * WORD + 2 * (ROWS * (group % 2) + row % ROWS);
        [scales[at], scales[at + 1]]
    }

    /// The scales and the trits of a row's strip.
    fn strip_of(self, words: &[u8], row: usize, cols: usize) -> (&[u8], &[u8]) {
        let (strip, scales) = self.strip(cols).expect("the tensor is in memory");
        words[row / ROWS * strip..][..strip].split_at(scales)
    }
}

impl TensorType {
    /// How a packed tensor's trits lie; nothing for other types.
    pub fn packed_layout(self) -> Option<PackedLayout> {
        let layout = |group, base3| Some(PackedLayout { group, base3 });
        match self {
            TensorType::TWO_BIT => layout(None, false),
            TensorType::BASE3 => layout(None, true),
            TensorType::TWO_BIT_G64 => layout(Some(64), false),
            TensorType::BASE3_G64 => layout(Some(64), true),
            TensorType::TWO_BIT_G128 => layout(Some(128), false),
            TensorType::BASE3_G128 => layout(Some(128), true),
            _ => None,
        }
    }

    /// The type with this layout.
    pub fn of_packed_layout(layout: PackedLayout) -> Option<TensorType> {
        TensorType::ALL.into_iter().find(|kind| kind.packed_layout() == Some(layout))
    }

    /// The id in a packed model; `None` for a type that none holds.
    pub fn id_in_packed(self) -> Option<u32> {
        let own = IDS.iter().find(|(_, kind)| *kind == self).map(|(number, _)| FIRST_ID + number);
        own.or(self.id())
    }

    /// The type of an id that only packed models have.
    pub(super) fn of_packed_id(id: u32) -> Option<TensorType> {
        let number = id.checked_sub(FIRST_ID)?;
        IDS.iter().find(|(known, _)| *known == number).map(|(_, kind)| *kind)
    }
}
