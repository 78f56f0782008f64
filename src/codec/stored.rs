//! Ternary types as their makers stored them: the trits, and a scale for the tensor, for each row or for each block.

use super::{TensorRows, f16_to_f32, first_f32, i2s};
use crate::checkpoint::gguf::TensorType;
use crate::error::Result;

/// The f16 that leaves trits as they are.
const ONE_F16: [u8; 2] = 0x3c00u16.to_le_bytes();

impl TensorRows<'_> {
    /// Where a block of a TQ type holds its scale, an f16.
    fn block_scale(&self) -> Option<usize> {
        match self.kind {
            TensorType::TQ1_0 => Some(52),
            TensorType::TQ2_0 => Some(64),
            _ => None,
        }
    }

    /// The scales of a row of a ternary type: one for I2_S (that of the tensor) and IQ*_BN (that of the row), one for
    /// each 256 columns of TQ*_0. Nothing for other types.
    pub fn stored_scales(&self, row: usize) -> Option<Vec<f32>> {
        let half = |raw: &[u8]| f16_to_f32(u16::from_le_bytes([raw[0], raw[1]]));
        if self.kind == TensorType::I2_S {
            return Some(vec![self.scale]);
        }
        let (head, blocks) = self.row(row);
        match (self.kind, self.block_scale()) {
            (TensorType::IQ1_BN, _) => Some(vec![half(head)]),
            (TensorType::IQ2_BN, _) => Some(vec![first_f32(head)]),
            (_, Some(at)) => {
                Some(blocks.chunks_exact(self.kind.block_bytes()).map(|block| half(&block[at..])).collect())
            }
            _ => None,
        }
    }

    /// Writes the trits of a row of a ternary type to `out`: `scale · trit` is the value. The type must be one for
    /// which [`TensorRows::stored_scales`] gives scales. An invalid code or a scale that is not finite is an error.
    pub fn stored_trits(&self, row: usize, out: &mut [i8]) -> Result<()> {
        self.check(row)?;
        if self.kind == TensorType::I2_S {
            i2s::unpack(self.bytes, row * self.cols, out);
            return Ok(());
        }
        // The values of a row whose scales are 1 are its trits.
        let (head, blocks) = self.row(row);
        let mut unscaled = [head, blocks].concat();
        match self.kind {
            TensorType::IQ1_BN => unscaled[..2].copy_from_slice(&ONE_F16),
            TensorType::IQ2_BN => unscaled[..4].copy_from_slice(&1f32.to_le_bytes()),
            kind => {
                let at = self.block_scale().expect("a ternary type");
                let scales = unscaled.chunks_exact_mut(kind.block_bytes()).map(|block| &mut block[at..at + 2]);
                scales.for_each(|scale| scale.copy_from_slice(&ONE_F16));
            }
        }
        let mut values = vec![0.0; self.cols];
        TensorRows { rows: 1, bytes: &unscaled, ..*self }.dequantize(0, &mut values);
        out.iter_mut().zip(values).for_each(|(trit, value)| *trit = value as i8);
        Ok(())
    }

    /// Whether every value is zero; of I2_S, whether every code is. It reads no further than the row of the first other
    /// value.
    pub fn is_zero(&self) -> bool {
        const ZEROS: u8 = 0b01_01_01_01;
        if self.kind == TensorType::I2_S {
            return self.bytes.iter().all(|codes| *codes == ZEROS);
        }
        let mut values = vec![0.0; self.cols];
        (0..self.rows).all(|row| {
            self.dequantize(row, &mut values);
            values.iter().all(|value| *value == 0.0)
        })
    }
}
