//! Types with trits and one scale for the whole tensor: I2_S, and those of Hugging Face directories.

use super::{DEQUANT_CHUNK, RowTrits, TensorRows, i2s};
use crate::checkpoint::gguf::TensorType;
use crate::error::{Error, Result};

/// The least scale of masters, as in transformers (BitNet b1.58, arXiv 2402.17764).
const LEAST_SCALE: f32 = 1e-5;
/// The partial sums of a row: lane l adds the columns k with k mod 64 = l.
const LANES: usize = 64;

impl TensorRows<'_> {
    /// Whether the type has one scale for the tensor.
    pub fn has_one_scale(&self) -> bool {
        matches!(self.kind, TensorType::I2_S | TensorType::U8_TRITS) || self.kind.is_master()
    }

    /// Writes the trits of a row from column `start` on, a multiple of `DEQUANT_CHUNK`. The invalid code 3 becomes 2.
    fn unpack(&self, row: usize, start: usize, out: &mut [i8]) {
        match self.kind {
            TensorType::I2_S => i2s::unpack(self.bytes, row * self.cols + start, out),
            TensorType::U8_TRITS => {
                // Byte row r holds the rows r, R + r, 2R + r and 3R + r, low bits first.
                let byte_rows = self.rows / 4;
                let bytes = &self.bytes[row % byte_rows * self.cols + start..][..out.len()];
                let shift = 2 * (row / byte_rows);
                out.iter_mut().zip(bytes).for_each(|(trit, byte)| *trit = (byte >> shift & 3) as i8 - 1);
            }
            _ => {
                let inverse = 1.0 / self.scale;
                let mut floats = [0.0; DEQUANT_CHUNK];
                for (index, trits) in out.chunks_mut(DEQUANT_CHUNK).enumerate() {
                    let floats = &mut floats[..trits.len()];
                    self.floats(row, start + DEQUANT_CHUNK * index, floats);
                    for (trit, float) in trits.iter_mut().zip(&*floats) {
                        // Rounded half to even and clamped: a half becomes 0. A call of `round` for each would be slow.
                        let scaled = float * inverse;
                        *trit = i8::from(scaled > 0.5) - i8::from(scaled < -0.5);
                    }
                }
            }
        }
    }

    /// The floats of which trits are to be made.
    fn floats(&self, row: usize, start: usize, out: &mut [f32]) {
        TensorRows { kind: self.kind.stored_as(), ..*self }.dequantize_part(row, start, out);
    }

    /// The sum of a row's magnitudes, of a tensor of floats of which trits are to be made.
    pub fn magnitude(&self, row: usize) -> f64 {
        let mut lanes = [0f64; LANES];
        let mut floats = [0.0; DEQUANT_CHUNK];
        for start in (0..self.cols).step_by(DEQUANT_CHUNK) {
            let floats = &mut floats[..DEQUANT_CHUNK.min(self.cols - start)];
            self.floats(row, start, floats);
            for part in floats.chunks(LANES) {
                lanes.iter_mut().zip(part).for_each(|(lane, float)| *lane += f64::from(float.abs()));
            }
        }
        let mut width = LANES;
        while width > 1 {
            width /= 2;
            let (low, high) = lanes.split_at_mut(width);
            low.iter_mut().zip(high).for_each(|(low, high)| *low += *high);
        }
        lanes[0]
    }

    /// The scale of a tensor of floats of which trits are to be made: the mean magnitude, from the sums of all rows.
    pub fn master_scale(&self, magnitudes: impl Iterator<Item = f64>) -> Result<f32> {
        let total = magnitudes.fold(0.0, |total, row| total + row);
        let mean = (total / (self.rows * self.cols) as f64) as f32;
        if mean.is_finite() {
            return Ok(mean.max(LEAST_SCALE));
        }
        let kind = self.kind.stored_as();
        let checked = (0..self.rows).find_map(|row| TensorRows { kind, ..*self }.check(row).err());
        Err(checked
            .unwrap_or_else(|| Error::Model(format!("tensor '{}': the mean of its weights is {mean}", self.name))))
    }

    /// Dequantizes columns of a row from `start` on.
    pub(super) fn scaled_values(&self, row: usize, start: usize, out: &mut [f32]) {
        let mut trits = [0; DEQUANT_CHUNK];
        for (index, values) in out.chunks_mut(DEQUANT_CHUNK).enumerate() {
            let trits = &mut trits[..values.len()];
            self.unpack(row, start + DEQUANT_CHUNK * index, trits);
            for (value, &trit) in values.iter_mut().zip(&*trits) {
                *value = self.scale * f32::from(trit);
            }
        }
    }

    /// The trits of a row as they are stored. An invalid code is an error.
    pub(super) fn unscaled_trits(&self, row: usize, out: &mut [i8]) -> Result<()> {
        self.unpack(row, 0, out);
        // Without an early exit the compiler vectorizes this loop.
        if out.iter().fold(false, |any, &trit| any | (trit > 1)) {
            let col = out.iter().position(|&trit| trit > 1).unwrap_or_default();
            return Err(self.invalid_code(row, col));
        }
        Ok(())
    }

    /// The trits of a row for a scale that is positive.
    pub(super) fn scaled_trits(&self, row: usize, out: &mut [i8]) -> Result<RowTrits> {
        self.unscaled_trits(row, out)?;
        if self.scale <= 0.0 {
            let sign = if self.scale < 0.0 { -1 } else { 0 };
            out.iter_mut().for_each(|trit| *trit *= sign);
        }
        let is_zero = out.iter().fold(0, |seen, &trit| seen | trit) == 0;
        Ok(if is_zero { RowTrits::Zero } else { RowTrits::Scale(self.scale.abs()) })
    }
}
