//! Rows of packed models: trits in the words of the kernels, and behind the words an f32 for each row.

use super::{DEQUANT_CHUNK, TensorRows, f16_to_f32, first_f32};
use crate::checkpoint::gguf::PackedLayout;
use crate::error::Result;

impl TensorRows<'_> {
    /// The scale of a packed row; of a grouped matrix the factor of its outputs.
    fn row_scale(&self, row: usize) -> f32 {
        first_f32(&self.row_scales[4 * row..])
    }

    /// The scale of a group of columns, or of a row without groups, the row's factor included.
    fn packed_scale(&self, layout: PackedLayout, row: usize, group: usize) -> f32 {
        if layout.group.is_none() {
            return self.row_scale(row);
        }
        let scale = layout.group_scale(self.bytes, row, self.cols, group);
        f16_to_f32(u16::from_le_bytes(scale)) * self.row_scale(row)
    }

    /// The scales of a packed row: one, or one for each group of columns.
    pub(super) fn packed_scales(&self, layout: PackedLayout, row: usize) -> Vec<f32> {
        let groups = layout.group.map_or(1, |group| self.cols.div_ceil(group));
        (0..groups).map(|group| self.packed_scale(layout, row, group)).collect()
    }

    /// Dequantizes columns of a packed row from `start` on, a multiple of `DEQUANT_CHUNK`.
    pub(super) fn packed_values(&self, layout: PackedLayout, row: usize, start: usize, out: &mut [f32]) {
        let mut codes = [0; DEQUANT_CHUNK];
        for (index, out) in out.chunks_mut(DEQUANT_CHUNK).enumerate() {
            let start = start + DEQUANT_CHUNK * index;
            let codes = &mut codes[..out.len()];
            layout.codes(self.bytes, row, self.cols, start, codes);
            let group = layout.group.unwrap_or(DEQUANT_CHUNK);
            for (g, (out, codes)) in out.chunks_mut(group).zip(codes.chunks(group)).enumerate() {
                let scale = self.packed_scale(layout, row, start / group + g);
                out.iter_mut().zip(codes).for_each(|(out, code)| *out = scale * (f32::from(*code) - 1.0));
            }
        }
    }

    /// The trits of a packed row. An invalid code or a scale that is not finite is an error.
    pub(super) fn packed_trits(&self, layout: PackedLayout, row: usize, out: &mut [i8]) -> Result<()> {
        let mut codes = vec![0; self.cols];
        layout.codes(self.bytes, row, self.cols, 0, &mut codes);
        if let Some(col) = codes.iter().position(|code| *code > 2) {
            return Err(self.invalid_code(row, col));
        }
        let scales = self.packed_scales(layout, row);
        if let Some(group) = scales.iter().position(|scale| !scale.is_finite()) {
            return Err(self.not_finite(row, group * layout.group.unwrap_or(0), scales[group]));
        }
        out.iter_mut().zip(codes).for_each(|(out, code)| *out = code as i8 - 1);
        Ok(())
    }
}
