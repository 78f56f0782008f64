//! What a model costs: bytes of memory, and the work of a token.

use super::input::InputForm;
use super::linear::{Dense, Matrix};
use super::state::{StateShape, max_mark_bytes};
use super::{Block, Model};
use crate::kernel::attention::PAGE_LEN;
use crate::ops::attention::KvType;

/// The work of one token, in the two parts that limit its speed: arithmetic and reading memory.
pub struct PerToken {
    /// Multiply-adds of int8 activations and trits, for each plane of int8.
    pub ternary_macs: usize,
    /// Bytes of weights that a pass with logits reads, whatever the batch size. Counts the 8-bit copy of the output
    /// head in its place once it exists, without the few rows that are computed exactly.
    pub weight_bytes: usize,
    /// Bytes of keys and values that it reads for each position before its own.
    pub kv_bytes: usize,
    /// Bytes of recurrent state that it reads and writes, whatever its position.
    pub state_bytes: usize,
}

impl Model {
    fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        self.layers.iter().flat_map(Block::linears).map(|linear| &linear.matrix)
    }

    /// Bytes of the projections that stay dense.
    fn dense_bytes(&self) -> usize {
        let dense = self.matrices().map(|matrix| if let Matrix::Dense(dense) = matrix { dense.bytes() } else { 0 });
        let rates = self.layers.iter().flat_map(Block::rates).map(Dense::bytes);
        dense.chain(rates).sum()
    }

    /// Bytes of all matrices in the form that a pass reads, without the output head's 8-bit copy.
    pub fn weight_bytes(&self) -> usize {
        self.packed_bytes() + self.stored_bytes()
    }

    /// Bytes of packed projections.
    pub fn packed_bytes(&self) -> usize {
        self.matrices()
            .map(|matrix| match matrix {
                Matrix::Ternary(ternary) => ternary.bytes(),
                Matrix::Grouped(grouped) => grouped.bytes(),
                Matrix::Dense(_) => 0,
            })
            .sum()
    }

    /// Bytes of packed projections that are in memory of the model's own, not in a mapped file.
    pub fn owned_bytes(&self) -> usize {
        self.matrices()
            .map(|matrix| match matrix {
                Matrix::Ternary(ternary) => ternary.owned_bytes(),
                Matrix::Grouped(grouped) => grouped.owned_bytes(),
                Matrix::Dense(_) => 0,
            })
            .sum()
    }

    /// Bytes of the output head's 8-bit copy that are in memory of the model's own; 0 until it is made.
    pub fn copied_bytes(&self) -> usize {
        self.head.owned_bytes()
    }

    /// Bytes of the upper bits of that copy; 0 until they are made.
    pub fn head_upper_bytes(&self) -> usize {
        self.head.upper_bytes()
    }

    /// Bytes of the feed-forward matrices' copies by neurons; 0 until they are made.
    pub fn neuron_bytes(&self) -> usize {
        self.neurons.bytes()
    }

    /// Bytes of matrices that are read from the mapped file.
    pub fn mapped_bytes(&self) -> usize {
        let packed = self.packed_bytes() - self.owned_bytes();
        self.stored_bytes() + packed + self.head.bytes() - self.head.owned_bytes()
    }

    /// Bytes of matrices that are read as the file stores them.
    fn stored_bytes(&self) -> usize {
        self.dense_bytes() + self.embedding.bytes() + self.output.as_ref().map_or(0, Dense::bytes)
    }

    /// Bytes of a sequence's recurrent state; 0 without gated delta nets.
    pub fn state_bytes(&self) -> usize {
        self.state_shape().as_ref().map_or(0, StateShape::bytes)
    }

    /// Bytes of a sequence of `len` positions, with one recurrent state and as many marks as it may keep.
    pub fn sequence_bytes(&self, kv_type: KvType, len: usize) -> usize {
        let pages = self.page_shape().elements() * kv_type.bytes() * len.div_ceil(PAGE_LEN);
        pages + self.state_shape().as_ref().map_or(0, |shape| shape.bytes() + max_mark_bytes(shape))
    }

    /// The work of one token.
    pub fn per_token(&self, kv_type: KvType) -> PerToken {
        let head_bytes = match self.head.bytes() {
            0 => self.output.as_ref().unwrap_or(&self.embedding).bytes(),
            copied => copied,
        };
        let planes = if let InputForm::Blocks(planes) = self.input_form { planes } else { 1 };
        let macs = |matrix: &Matrix| match matrix {
            Matrix::Ternary(ternary) => ternary.rows() * ternary.cols(),
            Matrix::Grouped(grouped) => planes * grouped.rows() * grouped.cols(),
            Matrix::Dense(_) => 0,
        };
        PerToken {
            ternary_macs: self.matrices().map(macs).sum(),
            weight_bytes: self.packed_bytes() + self.dense_bytes() + head_bytes,
            kv_bytes: self.page_shape().elements() / PAGE_LEN * kv_type.bytes(),
            state_bytes: self.state_bytes(),
        }
    }
}
