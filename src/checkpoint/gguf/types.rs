//! The tensor types that this engine runs, and the size of a tensor of each type.

use std::fmt;

named! {
    /// How the elements of a tensor are stored. The names are ggml's; Q2_0 has two layouts under one id and one name,
    /// which are told apart here. U8 and the masters are of Hugging Face directories: packed trits whose scale is
    /// another tensor, and floats of which trits are to be made. The last seven are of packed models (`packed_types.rs`).
    #[expect(missing_docs, reason = "the variants are ggml's type names")]
    #[expect(non_camel_case_types, reason = "the variants are ggml's type names")]
    pub enum TensorType {
        F32 = "F32",
        F16 = "F16",
        BF16 = "BF16",
        Q8_0 = "Q8_0",
        Q4_0 = "Q4_0",
        Q5_0 = "Q5_0",
        Q4_K = "Q4_K",
        Q5_K = "Q5_K",
        Q6_K = "Q6_K",
        TQ1_0 = "TQ1_0",
        TQ2_0 = "TQ2_0",
        I2_S = "I2_S",
        IQ1_BN = "IQ1_BN",
        IQ2_BN = "IQ2_BN",
        IQ2_BN_R4 = "IQ2_BN_R4",
        Q2_0_G64 = "Q2_0_g64",
        Q2_0_G128 = "Q2_0_g128",
        PQ2_0 = "PQ2_0",
        PTQ1_0 = "PTQ1_0",
        Q1_0 = "Q1_0",
        STQ1_0 = "STQ1_0",
        U8_TRITS = "U8",
        F32_MASTER = "F32 master",
        F16_MASTER = "F16 master",
        BF16_MASTER = "BF16 master",
        TWO_BIT = "TWO_BIT",
        BASE3 = "BASE3",
        TWO_BIT_G64 = "TWO_BIT_g64",
        BASE3_G64 = "BASE3_g64",
        TWO_BIT_G128 = "TWO_BIT_g128",
        BASE3_G128 = "BASE3_g128",
        HEAD_I8 = "HEAD_I8",
    }
}

/// In place of a type id.
const NO_ID: u32 = u32::MAX;

impl TensorType {
    /// The id, the columns and bytes of a block, and the bytes in front of each row; of IQ2_BN_R4 those of four rows.
    fn facts(self) -> (u32, usize, usize, usize) {
        match self.stored_as() {
            Self::F32 => (0, 1, 4, 0),
            Self::F16 => (1, 1, 2, 0),
            Self::BF16 => (30, 1, 2, 0),
            Self::Q8_0 => (8, 32, 34, 0),
            Self::Q4_0 => (2, 32, 18, 0),
            Self::Q5_0 => (6, 32, 22, 0),
            Self::Q4_K => (12, 256, 144, 0),
            Self::Q5_K => (13, 256, 176, 0),
            Self::Q6_K => (14, 256, 210, 0),
            Self::TQ1_0 => (34, 256, 54, 0),
            Self::TQ2_0 => (35, 256, 66, 0),
            Self::I2_S => (36, 128, 32, 0),
            Self::IQ1_BN => (134, 64, 13, 2),
            Self::IQ2_BN => (135, 64, 16, 4),
            Self::IQ2_BN_R4 => (335, 64, 64, 16),
            Self::Q2_0_G64 => (42, 64, 18, 0),
            Self::Q2_0_G128 => (42, 128, 34, 0),
            Self::PQ2_0 => (142, 128, 34, 0),
            Self::PTQ1_0 => (143, 128, 28, 0),
            Self::Q1_0 => (41, 128, 18, 0),
            Self::STQ1_0 => (42, 256, 42, 0),
            // Four rows a byte; rows do not follow one another.
            Self::U8_TRITS => (NO_ID, 1, 1, 0),
            // Rows are stored in strips: see `PackedLayout`.
            Self::TWO_BIT | Self::BASE3 => (NO_ID, 1, 1, 0),
            Self::TWO_BIT_G64 | Self::BASE3_G64 | Self::TWO_BIT_G128 | Self::BASE3_G128 => (NO_ID, 1, 1, 0),
            Self::HEAD_I8 => (NO_ID, 1, 1, 0),
            Self::F32_MASTER | Self::F16_MASTER | Self::BF16_MASTER => unreachable!("stored as floats"),
        }
    }

    /// The type id in a GGUF file, if it has one. Other programs give some ids another meaning; `resolve` tells them
    /// apart.
    pub fn id(self) -> Option<u32> {
        Some(self.facts().0).filter(|id| *id != NO_ID && !self.is_master())
    }

    /// Whether trits are to be made of the floats, with one scale for the tensor.
    pub fn is_master(self) -> bool {
        matches!(self, Self::F32_MASTER | Self::F16_MASTER | Self::BF16_MASTER)
    }

    /// The type of the bytes: that of the floats of which trits are to be made, or else this one.
    pub fn stored_as(self) -> Self {
        match self {
            Self::F32_MASTER => Self::F32,
            Self::F16_MASTER => Self::F16,
            Self::BF16_MASTER => Self::BF16,
            other => other,
        }
    }

    /// Columns of one block. A row is a whole number of blocks; in I2_S only the whole tensor is.
    pub fn block_elements(self) -> usize {
        self.facts().1
    }

    /// Bytes of one block, which holds these columns of [`TensorType::row_group`] rows.
    pub fn block_bytes(self) -> usize {
        self.facts().2
    }

    /// Bytes in front of each row (or group of rows), which hold its scale in the IQ*_BN types.
    pub fn row_head(self) -> usize {
        self.facts().3
    }

    /// How many rows are stored together.
    pub fn row_group(self) -> usize {
        if matches!(self, Self::IQ2_BN_R4 | Self::U8_TRITS) { 4 } else { 1 }
    }

    /// Bytes of a tensor of this shape, or why it cannot have this type.
    pub fn size_of(self, rows: usize, cols: usize) -> Result<usize, String> {
        let (_, elements, bytes, row_head) = self.facts();
        let overflow = || format!("{rows} rows of {cols} columns are more than memory can address");
        let size = if self == Self::I2_S {
            // The codes of the flattened tensor, then a field of 32 bytes that begins with the scale.
            let count = rows.checked_mul(cols).ok_or_else(overflow)?;
            if !count.is_multiple_of(elements) {
                return Err(format!("{count} elements are not a multiple of {elements}, the block of {self}"));
            }
            (count / 4).checked_add(32)
        } else if let Some(layout) = self.packed_layout() {
            let words = layout.word_bytes(rows, cols);
            words.and_then(|words| words.checked_add(rows.checked_mul(4)?))
        } else {
            if !cols.is_multiple_of(elements) {
                return Err(format!("{cols} columns are not a multiple of {elements}, the block of {self}"));
            }
            let group = self.row_group();
            if !rows.is_multiple_of(group) {
                return Err(format!("{rows} rows are not a multiple of {group}, which {self} stores together"));
            }
            let row = (cols / elements).checked_mul(bytes).and_then(|blocks| blocks.checked_add(row_head));
            row.and_then(|row| row.checked_mul(rows / group))
        };
        size.ok_or_else(overflow)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
