//! Rows of trits with a scale for each group of columns.

use super::{DEQUANT_CHUNK, TensorRows};
use crate::error::Result;

impl TensorRows<'_> {
    /// Writes the trits of a row and the bits of its f16 scales as a ternary type with a scale in each block stores
    /// them; a block gives its scale to each group of columns in it. Returns false for other types, or if a group
    /// would span blocks. An invalid code or a scale that is not finite is an error.
    pub fn stored_groups(&self, row: usize, group: usize, out: &mut [i8], halves: &mut [[u8; 2]]) -> Result<bool> {
        let Some(at) = self.kind().block_scale().filter(|_| self.kind().block_elements().is_multiple_of(group)) else {
            return Ok(false);
        };
        self.stored_trits(row, out)?;
        let (elements, bytes) = (self.kind().block_elements(), self.kind().block_bytes());
        let blocks = self.row(row).1.chunks_exact(bytes);
        for (block, halves) in blocks.zip(halves.chunks_mut(elements / group)) {
            halves.fill([block[at], block[at + 1]]);
        }
        Ok(true)
    }

    /// Writes row `row` to `out` as trits, if the values of each group of columns that are not zero have the same
    /// magnitude, which goes to `scales`. The values, not the type that stores them, decide. Otherwise returns two
    /// magnitudes of a group; what was written is then unspecified. `group` divides 256. An invalid code or a value
    /// that is not finite is an error.
    pub fn grouped_trits(
        &self,
        row: usize,
        group: usize,
        out: &mut [i8],
        scales: &mut [f32],
    ) -> Result<Option<(f32, f32)>> {
        assert!(out.len() == self.cols() && scales.len() >= out.len().div_ceil(group));
        self.check(row)?;
        let mut part = [0.0; DEQUANT_CHUNK];
        let per_part = DEQUANT_CHUNK / group;
        for (index, (trits, scales)) in out.chunks_mut(DEQUANT_CHUNK).zip(scales.chunks_mut(per_part)).enumerate() {
            let values = &mut part[..trits.len()];
            self.dequantize_part(row, DEQUANT_CHUNK * index, values);
            for ((values, trits), scale) in values.chunks(group).zip(trits.chunks_mut(group)).zip(scales) {
                let magnitude = values.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
                let is_other = |value: f32| value.abs() != magnitude && value != 0.0;
                if values.iter().fold(false, |any, &value| any | is_other(value)) {
                    let other = values.iter().find(|&&value| is_other(value)).map_or(magnitude, |value| value.abs());
                    return Ok(Some((magnitude, other)));
                }
                for (trit, &value) in trits.iter_mut().zip(values) {
                    *trit = i8::from(value > 0.0) - i8::from(value < 0.0);
                }
                *scale = magnitude;
            }
        }
        Ok(None)
    }
}
