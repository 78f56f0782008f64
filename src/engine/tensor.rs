//! A tensor of a model as numbers: trits with their scales, or floats.

use super::{Engine, Watch};
use crate::checkpoint::gguf::{Gguf, Tensor};
use crate::codec::{RowTrits, TensorRows};
use crate::error::{Error, Result};
use crate::machine::memory::{try_with_capacity, try_zeroed};

/// The numbers of a tensor, row by row.
pub enum TensorValues {
    /// Each value is a trit times the scale of its group: the tensor, its row, or its block of columns.
    Ternary {
        /// −1, 0 or 1, `rows` × `cols` of them.
        trits: Vec<i8>,
        /// As many for each row that has scales of its own; otherwise one for all.
        scales: Vec<f32>,
        /// Scales of a row, or 1 if one scale serves all rows.
        scales_per_row: usize,
    },
    /// The values, dequantized.
    Floats(Vec<f32>),
}

impl Engine {
    /// The numbers of one of the model's tensors. A matrix is ternary if its type is, or if its values are −1, 0 and 1
    /// times one scale, whatever type stores them. A scale that the file keeps in a tensor of its own is not included.
    pub fn tensor(&self, tensor: &Tensor, watch: &mut Watch) -> Result<TensorValues> {
        let gguf = self.gguf();
        let (rows, cols) = (tensor.rows(), tensor.cols());
        let mut trits = try_with_capacity(rows * cols)?;
        let mut scales = Vec::new();
        let mut take = |row: &[i8], of_row: &[f32]| {
            trits.extend_from_slice(row);
            scales.extend_from_slice(of_row);
        };
        if let Some(grouping) = for_each_trit_row(gguf, tensor, watch, &mut take)? {
            let scales_per_row = scales.len() / rows;
            if grouping == Grouping::Tensor {
                scales.drain(..rows - 1);
            }
            return Ok(TensorValues::Ternary { trits, scales, scales_per_row });
        }
        drop(trits);
        let view = TensorRows::of(gguf, tensor)?;
        let mut values = try_zeroed(rows * cols)?;
        for (row, values) in values.chunks_mut(cols).enumerate() {
            check(watch)?;
            view.check(row)?;
            view.dequantize(row, values);
        }
        Ok(TensorValues::Floats(values))
    }
}

/// The share of a ternary tensor's values that are zero; `None` if it is not ternary.
pub(super) fn zeros(gguf: &Gguf, tensor: &Tensor, watch: &mut Watch) -> Result<Option<f64>> {
    let mut count = 0;
    let mut take = |trits: &[i8], _: &[f32]| count += trits.iter().filter(|trit| **trit == 0).count();
    let grouping = for_each_trit_row(gguf, tensor, watch, &mut take)?;
    Ok(grouping.map(|_| count as f64 / tensor.elements() as f64))
}

/// What one scale of a ternary tensor belongs to.
#[derive(PartialEq)]
enum Grouping {
    /// The whole tensor; every row names the same scale, and the last one is right.
    Tensor,
    /// A row, or a block of its columns.
    Row,
}

/// Gives `take` the trits and scales of every row. `None` as soon as a row shows that the tensor is not ternary.
fn for_each_trit_row(
    gguf: &Gguf,
    tensor: &Tensor,
    watch: &mut Watch,
    take: &mut dyn FnMut(&[i8], &[f32]),
) -> Result<Option<Grouping>> {
    if tensor.shape().len() < 2 {
        return Ok(None);
    }
    let view = TensorRows::of(gguf, tensor)?;
    let mut trits = vec![0; view.cols()];
    let mut magnitude = None;
    let mut grouping = Grouping::Tensor;
    for row in 0..view.rows() {
        check(watch)?;
        if let Some(scales) = view.stored_scales(row) {
            view.stored_trits(row, &mut trits)?;
            take(&trits, &scales);
            if !view.has_one_scale() {
                grouping = Grouping::Row;
            }
            continue;
        }
        match view.trits(row, &mut trits)? {
            RowTrits::Scale(scale) if *magnitude.get_or_insert(scale) == scale => {}
            RowTrits::Zero => {}
            RowTrits::Scale(_) | RowTrits::Mixed(..) => return Ok(None),
        }
        take(&trits, &[magnitude.unwrap_or(0.0)]);
    }
    Ok(Some(grouping))
}

fn check(watch: &mut Watch) -> Result<()> {
    if watch() { Err(Error::Cancelled) } else { Ok(()) }
}
