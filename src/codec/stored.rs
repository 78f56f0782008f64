//! Ternary types as their makers stored them: the trits, and a scale for the tensor, for each row or for each block.

use super::{TensorRows, f16_to_f32, first_f32, ternary};
use crate::checkpoint::gguf::TensorType;
use crate::error::Result;

impl TensorType {
    /// Where a block of a ternary type holds its scale, an f16; nothing for types without one in each block.
    pub(super) fn block_scale(self) -> Option<usize> {
        match self {
            TensorType::TQ1_0 => Some(52),
            TensorType::TQ2_0 => Some(64),
            TensorType::Q2_0_G64 | TensorType::Q2_0_G128 | TensorType::PQ2_0 | TensorType::Q1_0 => Some(0),
            TensorType::PTQ1_0 => Some(26),
            TensorType::STQ1_0 => Some(40),
            _ => None,
        }
    }
}

impl TensorRows<'_> {
    /// Decodes blocks of a row of a ternary type, with the row's head: `value` of the scale and the trit.
    #[inline(always)]
    pub(super) fn decode_ternary<T>(
        &self,
        (row, head, blocks): (usize, &[u8], &[u8]),
        out: &mut [T],
        value: impl Fn(f32, i8) -> T + Copy,
    ) {
        match self.kind {
            TensorType::TQ1_0 => ternary::tq1_0(blocks, out, value),
            TensorType::TQ2_0 => ternary::tq2_0(blocks, out, value),
            TensorType::Q2_0_G64 => ternary::q2_0::<T, 64>(blocks, out, value),
            TensorType::Q2_0_G128 | TensorType::PQ2_0 => ternary::q2_0::<T, 128>(blocks, out, value),
            TensorType::PTQ1_0 => ternary::ptq1_0(blocks, out, value),
            TensorType::Q1_0 => ternary::q1_0(blocks, out, value),
            TensorType::STQ1_0 => ternary::stq1_0(blocks, out, value),
            TensorType::IQ1_BN => ternary::iq1_bn(blocks, half(head), out, value),
            TensorType::IQ2_BN => ternary::iq2_bn(blocks, first_f32(head), out, value),
            TensorType::IQ2_BN_R4 => {
                ternary::iq2_bn_r4(blocks, row % 4, first_f32(&head[4 * (row % 4)..]), out, value);
            }
            kind => unreachable!("{kind} has no blocks of trits"),
        }
    }

    /// Whether the type is a ternary one that stores a scale for each block.
    pub fn has_scales_by_block(&self) -> bool {
        self.kind.block_scale().is_some()
    }

    /// The scales of a row of a ternary type: one for types with one for the tensor, and for IQ*_BN (that of the
    /// row), one for each block of the others. Nothing for other types.
    pub fn stored_scales(&self, row: usize) -> Option<Vec<f32>> {
        if self.has_one_scale() {
            return Some(vec![self.scale]);
        }
        if let Some(layout) = self.kind.packed_layout() {
            return Some(self.packed_scales(layout, row));
        }
        let (head, blocks) = self.row(row);
        match (self.kind, self.kind.block_scale()) {
            (TensorType::IQ1_BN, _) => Some(vec![half(head)]),
            (TensorType::IQ2_BN, _) => Some(vec![first_f32(head)]),
            (TensorType::IQ2_BN_R4, _) => Some(vec![first_f32(&head[4 * (row % 4)..])]),
            (_, Some(at)) => {
                Some(blocks.chunks_exact(self.kind.block_bytes()).map(|block| half(&block[at..])).collect())
            }
            _ => None,
        }
    }

    /// Writes the trits of a row of a ternary type to `out`: `scale · trit` is the value. The type must be one for
    /// which [`TensorRows::stored_scales`] gives scales. An invalid code or a scale that is not finite is an error.
    pub fn stored_trits(&self, row: usize, out: &mut [i8]) -> Result<()> {
        if self.has_one_scale() {
            return self.unscaled_trits(row, out);
        }
        if let Some(layout) = self.kind.packed_layout() {
            return self.packed_trits(layout, row, out);
        }
        self.check(row)?;
        let (head, blocks) = self.row(row);
        self.decode_ternary((row, head, blocks), out, |_, trit| trit);
        Ok(())
    }

    /// Whether every value is zero; of I2_S and packed bytes, whether every code is. It reads no further than the row of the first other
    /// value.
    pub fn is_zero(&self) -> bool {
        const ZEROS: u8 = 0b01_01_01_01;
        if matches!(self.kind, TensorType::I2_S | TensorType::U8_TRITS) {
            return self.bytes.iter().all(|codes| *codes == ZEROS);
        }
        let mut values = vec![0.0; self.cols];
        (0..self.rows).all(|row| {
            self.dequantize(row, &mut values);
            values.iter().all(|value| *value == 0.0)
        })
    }
}

/// The f16 at the beginning of these bytes, as f32.
#[inline(always)]
fn half(raw: &[u8]) -> f32 {
    f16_to_f32(u16::from_le_bytes([raw[0], raw[1]]))
}
