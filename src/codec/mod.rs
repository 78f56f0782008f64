//! Decodes tensors: any row of any tensor type as f32, or as trits with a scale if the row is ternary.

mod block_quants;
mod groups;
mod i2s;
mod one_scale;
mod packed;
mod stored;
mod ternary;

pub use crate::checkpoint::{bf16_to_f32, f16_to_f32};

use crate::checkpoint::gguf::{Gguf, Tensor, TensorType};
use crate::error::{Error, Result};

/// Elements that are dequantized at a time when a row is read as trits. Every type's block size divides it.
const DEQUANT_CHUNK: usize = 256;

/// The encoded rows of one tensor.
#[derive(Clone, Copy, Debug)]
pub struct TensorRows<'a> {
    name: &'a str,
    kind: TensorType,
    rows: usize,
    cols: usize,
    /// The encoded elements; in I2_S without the field of the scale, of packed trits without the row scales.
    bytes: &'a [u8],
    /// The f32 for each row of packed trits; empty for other types.
    row_scales: &'a [u8],
    /// The scale of the tensor, for types with one ([`TensorRows::has_one_scale`]).
    scale: f32,
}

/// What [`TensorRows::trits`] found in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RowTrits {
    /// Every value is zero.
    Zero,
    /// Every value is −1, 0 or +1 times this scale, which is positive and finite.
    Scale(f32),
    /// The values that are not zero have these two magnitudes, and perhaps more: one scale is not enough.
    Mixed(f32, f32),
}

impl<'a> TensorRows<'a> {
    /// The rows of a tensor of an open model.
    pub fn of(gguf: &'a Gguf, tensor: &'a Tensor) -> Result<Self> {
        let (name, kind) = (tensor.name(), tensor.kind());
        let make = |scale| Self::make(name, kind, tensor.rows(), tensor.cols(), gguf.bytes(tensor), scale);
        let view = make(tensor.scale())?;
        if kind.is_master() {
            tensor.keep_scale(view.scale);
        }
        Ok(view)
    }

    /// [`TensorRows::of`] for a tensor of floats of which trits are to be made, before their scale is known.
    pub fn of_master(gguf: &'a Gguf, tensor: &'a Tensor) -> Result<Self> {
        Self::make(tensor.name(), tensor.kind(), tensor.rows(), tensor.cols(), gguf.bytes(tensor), Some(1.0))
    }

    /// Checks that `bytes` have the size of a tensor of this type and shape. `name` appears in errors only.
    ///
    /// The scale of packed bytes, which is not among them, is 1.
    pub fn new(name: &'a str, kind: TensorType, rows: usize, cols: usize, bytes: &'a [u8]) -> Result<Self> {
        Self::make(name, kind, rows, cols, bytes, None)
    }

    /// [`TensorRows::new`], with the scale if it is not among the bytes but known.
    fn make(
        name: &'a str,
        kind: TensorType,
        rows: usize,
        cols: usize,
        bytes: &'a [u8],
        scale: Option<f32>,
    ) -> Result<Self> {
        let fault = |why: String| Error::Model(format!("tensor '{name}' of type {kind}: {why}"));
        let size = kind.size_of(rows, cols).map_err(fault)?;
        if bytes.len() != size {
            let found = bytes.len();
            let what =
                format!("{rows} rows of {cols} columns take {size} bytes, but there are {found}; the file is damaged");
            return Err(fault(what));
        }
        let row_scales = if kind.packed_layout().is_some() { size - 4 * rows } else { size };
        let (bytes, row_scales) = bytes.split_at(row_scales);
        let mut view = Self { name, kind, rows, cols, bytes, row_scales, scale: scale.unwrap_or(1.0) };
        if kind.is_master() && scale.is_none() {
            view.scale = view.master_scale((0..rows).map(|row| view.magnitude(row)))?;
        }
        if kind == TensorType::I2_S {
            let (codes, trailer) = bytes.split_at(rows * cols / 4);
            view.bytes = codes;
            view.scale = first_f32(trailer);
            if !view.scale.is_finite() {
                let what = format!("its scale is {}, expected a finite number; the file is damaged", view.scale);
                return Err(fault(what));
            }
        }
        Ok(view)
    }

    /// The tensor's name in its file, for errors.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The type in which the tensor is stored.
    pub fn kind(&self) -> TensorType {
        self.kind
    }

    /// Rows: all dimensions but the first, multiplied.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: elements of a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The codes and the scale of an I2_S tensor; nothing for other types.
    pub fn i2s(&self) -> Option<(&'a [u8], f32)> {
        (self.kind == TensorType::I2_S).then_some((self.bytes, self.scale))
    }

    /// Writes row `row` to `out` as f32: the same bits that gguf-py computes. `out` is as long as a row. Invalid codes
    /// and scales that are not finite are not errors here; [`TensorRows::check`] finds them.
    #[inline(always)]
    pub fn dequantize(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.cols, "a row of '{}' has {} columns", self.name, self.cols);
        self.dequantize_part(row, 0, out);
    }

    /// Dequantizes columns of a row from `start` on, a multiple of `DEQUANT_CHUNK`. `out` ends with a block or with the
    /// row.
    #[inline(always)]
    fn dequantize_part(&self, row: usize, start: usize, out: &mut [f32]) {
        if self.has_one_scale() {
            return self.scaled_values(row, start, out);
        }
        if let Some(layout) = self.kind.packed_layout() {
            return self.packed_values(layout, row, start, out);
        }
        let (head, blocks) = self.row(row);
        let (elements, bytes) = (self.kind.block_elements(), self.kind.block_bytes());
        let blocks = &blocks[start / elements * bytes..][..out.len() / elements * bytes];
        match self.kind {
            TensorType::F32 => block_quants::plain(blocks, out, f32::from_le_bytes),
            TensorType::F16 => block_quants::plain(blocks, out, |raw| f16_to_f32(u16::from_le_bytes(raw))),
            TensorType::BF16 => block_quants::plain(blocks, out, |raw| bf16_to_f32(u16::from_le_bytes(raw))),
            TensorType::HEAD_I8 => block_quants::plain(blocks, out, |[byte]| f32::from(byte as i8)),
            TensorType::Q8_0 => block_quants::q8_0(blocks, out),
            TensorType::Q4_0 => block_quants::q4_0(blocks, out),
            TensorType::Q5_0 => block_quants::q5_0(blocks, out),
            TensorType::Q4_K => block_quants::q4_k(blocks, out),
            TensorType::Q5_K => block_quants::q5_k(blocks, out),
            TensorType::Q6_K => block_quants::q6_k(blocks, out),
            _ => self.decode_ternary((row, head, blocks), out, |scale, trit| scale * f32::from(trit)),
        }
    }

    /// The head and the blocks of a row, or of the rows that are stored with it. Not for I2_S, whose blocks run over
    /// row ends.
    #[inline(always)]
    fn row(&self, row: usize) -> (&'a [u8], &'a [u8]) {
        let head = self.kind.row_head();
        let size = head + self.cols / self.kind.block_elements() * self.kind.block_bytes();
        self.bytes[row / self.kind.row_group() * size..][..size].split_at(head)
    }

    /// Writes row `row` to `out` as trits, if all its values that are not zero have the same magnitude. The values, not
    /// the type that stores them, decide whether a row is ternary. `out` is as long as a row; after `Mixed` its content
    /// is unspecified. An invalid code or a value that is not finite is an error.
    pub fn trits(&self, row: usize, out: &mut [i8]) -> Result<RowTrits> {
        assert_eq!(out.len(), self.cols, "a row of '{}' has {} columns", self.name, self.cols);
        if self.has_one_scale() {
            return self.scaled_trits(row, out);
        }
        if let Some(layout) = self.kind.packed_layout() {
            self.packed_trits(layout, row, out)?;
        }
        if let Some(col) = self.code_3(row) {
            return Err(self.invalid_code(row, col));
        }
        let mut magnitude = 0.0;
        let mut part = [0.0; DEQUANT_CHUNK];
        for (index, trits) in out.chunks_mut(DEQUANT_CHUNK).enumerate() {
            let values = &mut part[..trits.len()];
            self.dequantize_part(row, DEQUANT_CHUNK * index, values);
            if magnitude == 0.0 {
                magnitude = values.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
            }
            let is_other = |value: f32| value.abs() != magnitude && value != 0.0;
            if magnitude.is_infinite() || values.iter().fold(false, |any, &value| any | is_other(value)) {
                if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                    return Err(self.not_finite(row, DEQUANT_CHUNK * index + at, values[at]));
                }
                let other = values.iter().find(|&&value| is_other(value)).map_or(magnitude, |value| value.abs());
                return Ok(RowTrits::Mixed(magnitude, other));
            }
            for (trit, &value) in trits.iter_mut().zip(&*values) {
                *trit = i8::from(value > 0.0) - i8::from(value < 0.0);
            }
        }
        Ok(if magnitude == 0.0 { RowTrits::Zero } else { RowTrits::Scale(magnitude) })
    }

    /// An error if a row holds an invalid code or a value that is not finite. For block types it reads only codes and
    /// scales, which is faster than dequantizing.
    pub fn check(&self, row: usize) -> Result<()> {
        if self.has_one_scale() {
            return self.unscaled_trits(row, &mut vec![0; self.cols]);
        }
        if let Some(layout) = self.kind.packed_layout() {
            return self.packed_trits(layout, row, &mut vec![0; self.cols]);
        }
        if let Some(col) = self.code_3(row) {
            return Err(self.invalid_code(row, col));
        }
        let (head, blocks) = self.row(row);
        // The exponent of an infinite or NaN f16 is all ones.
        let half = |raw: &[u8], at: usize| raw[at + 1] & 0x7c != 0x7c;
        let halves = |at| blocks.chunks_exact(self.kind.block_bytes()).all(|block| half(block, at));
        let finite = match self.kind {
            TensorType::F32 => all(blocks, |raw| f32::from_le_bytes(raw).is_finite()),
            TensorType::BF16 => all(blocks, |raw| bf16_to_f32(u16::from_le_bytes(raw)).is_finite()),
            TensorType::F16 => all(blocks, |raw: [u8; 2]| half(&raw, 0)),
            TensorType::HEAD_I8 => true,
            TensorType::Q8_0 | TensorType::Q4_0 | TensorType::Q5_0 => halves(0),
            TensorType::Q4_K | TensorType::Q5_K => halves(0) && halves(2),
            TensorType::Q6_K => halves(208),
            TensorType::IQ1_BN => half(head, 0),
            TensorType::IQ2_BN => first_f32(head).is_finite(),
            TensorType::IQ2_BN_R4 => first_f32(&head[4 * (row % 4)..]).is_finite(),
            kind => halves(kind.block_scale().expect("the other types have a scale in each block")),
        };
        if finite {
            return Ok(());
        }
        let mut values = vec![0.0; self.cols];
        self.dequantize(row, &mut values);
        let col = values.iter().position(|value| !value.is_finite()).unwrap_or_default();
        Err(self.not_finite(row, col, values[col]))
    }

    /// Whether row `row` looks like ternary weights that llama.cpp quantized to Q4_0. Its codes are then 0, 8 and 15,
    /// which mean ±1, 0 and ∓7/8 of the true scale, because Q4_0 has no code for ∓1.
    pub fn is_lossy_ternary(&self, row: usize) -> bool {
        let nibbles = |block: &[u8]| block[2..].iter().flat_map(|byte| [byte & 15, byte >> 4]).collect::<Vec<_>>();
        let codes = || self.row(row).1.chunks_exact(18).flat_map(nibbles);
        self.kind == TensorType::Q4_0 && codes().any(|q| q == 15) && codes().all(|q| matches!(q, 0 | 8 | 15))
    }

    /// The column of the first code 3 of a row, for block types with 2-bit codes.
    fn code_3(&self, row: usize) -> Option<usize> {
        let (lanes, codes) = match self.kind {
            TensorType::TQ2_0 => (32, 0..64),
            TensorType::IQ2_BN => (16, 0..16),
            TensorType::Q2_0_G64 => (1, 2..18),
            TensorType::Q2_0_G128 | TensorType::PQ2_0 => (1, 2..34),
            TensorType::IQ2_BN_R4 => return self.code_3_of_four(row),
            _ => return None,
        };
        let blocks = self.row(row).1.chunks_exact(self.kind.block_bytes()).enumerate();
        let found = |block: &[u8]| ternary::first_code_3(&block[codes.clone()], lanes, [0, 2, 4, 6]);
        blocks.filter_map(|(at, block)| Some(at * self.kind.block_elements() + found(block)?)).next()
    }

    /// [`TensorRows::code_3`] of IQ2_BN_R4, where 4 bytes of a row and 12 of the others take turns.
    fn code_3_of_four(&self, row: usize) -> Option<usize> {
        let lanes = self.row(row).1.chunks_exact(16).enumerate();
        let found = |lane: &[u8]| ternary::first_code_3(&lane[4 * (row % 4)..][..4], 4, [0, 2, 4, 6]);
        lanes.filter_map(|(at, lane)| Some(16 * at + found(lane)?)).next()
    }

    fn invalid_code(&self, row: usize, col: usize) -> Error {
        let what = "holds the code 3, expected 0, 1 or 2 for a trit; the file is damaged, or has a layout that this \
                    engine does not know";
        self.fault(row, col, what)
    }

    fn not_finite(&self, row: usize, col: usize, value: f32) -> Error {
        self.fault(row, col, &format!("is {value}, expected a finite number; the file is damaged"))
    }

    /// An error about one element.
    fn fault(&self, row: usize, col: usize, what: &str) -> Error {
        Error::Model(format!("tensor '{}' of type {}: row {row}, column {col} {what}", self.name, self.kind))
    }
}

#[inline(always)]
fn first_f32(bytes: &[u8]) -> f32 {
    f32::from_le_bytes(*bytes.first_chunk().expect("four bytes"))
}

/// Whether all values of N bytes pass a test. Without an early exit the compiler vectorizes this loop.
fn all<const N: usize>(bytes: &[u8], passes: impl Fn([u8; N]) -> bool) -> bool {
    bytes.as_chunks().0.iter().fold(true, |all, raw| all & passes(*raw))
}
