//! From a tensor to a packed ternary matrix: with one scale, or with one for each row and group of columns.

use crate::checkpoint::gguf::{Gguf, Tensor, TensorType};
use crate::codec::{RowTrits, TensorRows, f16_to_f32};
use crate::error::Error;
use crate::kernel::Team;
use crate::kernel::f16::to_f16;
use crate::kernel::grouped::{Grouped, GroupedLayout};
use crate::kernel::packing::encode_i2s;
use crate::kernel::ternary::{BLOCK, Layout, Ternary};
use crate::machine::memory::Arena;

/// How many rows of floats one task adds up.
const ROWS_PER_TASK: usize = 16;

/// Why a tensor was not packed as trits.
pub enum NotPacked {
    /// Its values are not trits of one magnitude (of one in each row or group, where the type or the caller says so);
    /// the reason, for people.
    NotTernary(String),
    /// It cannot be decoded, or memory is lacking.
    Broken(Error),
}

impl From<Error> for NotPacked {
    fn from(error: Error) -> Self {
        NotPacked::Broken(error)
    }
}

type Packed<T> = std::result::Result<T, NotPacked>;

fn not_ternary(tensor: &Tensor, what: &str, a: f32, b: f32) -> NotPacked {
    NotPacked::NotTernary(format!(
        "tensor '{}' of type {}: {what} the magnitudes {a} and {b}",
        tensor.name(),
        tensor.kind()
    ))
}

/// Computes the scale of trits that are to be made of floats, unless it is known; in parallel, unlike
/// [`TensorRows::of`].
fn keep_master_scale(gguf: &Gguf, tensor: &Tensor, team: &Team) -> Result<(), Error> {
    if tensor.kind().is_master() && tensor.scale().is_none() {
        let view = TensorRows::of_master(gguf, tensor)?;
        let mut magnitudes = vec![0f64; view.rows()];
        team.for_each_chunk(&mut magnitudes, ROWS_PER_TASK, |task, magnitudes| {
            for (i, magnitude) in magnitudes.iter_mut().enumerate() {
                *magnitude = view.magnitude(ROWS_PER_TASK * task + i);
            }
        });
        tensor.keep_scale(view.master_scale(magnitudes.into_iter())?);
    }
    Ok(())
}

/// Packs a tensor if its values are ternary.
pub fn pack(gguf: &Gguf, tensor: &Tensor, team: &Team, arena: &Arena) -> Packed<Ternary> {
    keep_master_scale(gguf, tensor, team)?;
    let view = TensorRows::of(gguf, tensor)?;
    let (rows, cols) = (tensor.rows(), tensor.cols());
    let layout = Layout { packing: team.kernels.packing(cols), rows, cols };
    if let Some((codes, scale)) = view.i2s().filter(|(_, scale)| *scale > 0.0 && cols.is_multiple_of(BLOCK)) {
        let invalid = |row| match view.trits(row, &mut vec![0; cols]) {
            Err(error) => error,
            Ok(_) => unreachable!("row {row} holds a code 3"),
        };
        return Ok(Ternary::from_i2s(team, arena, layout, codes, scale, invalid)?);
    }
    let ternary = Ternary::from_rows(team, arena, layout, |row, trits| match view.trits(row, trits)? {
        RowTrits::Scale(scale) => Ok(Some(scale)),
        RowTrits::Zero => Ok(None),
        RowTrits::Mixed(a, b) => Err(not_ternary(tensor, &format!("row {row} holds"), a, b)),
    })?;
    let by_row = matches!(tensor.kind(), TensorType::IQ1_BN | TensorType::IQ2_BN | TensorType::IQ2_BN_R4);
    match ternary.row_scales().filter(|_| !by_row) {
        None => Ok(ternary),
        Some((a, b)) => Err(not_ternary(tensor, "its rows hold", a, b)),
    }
}

/// Packs a tensor if its values are ternary in each row and group of columns, with scales that f16 holds, or with one
/// scale in each row.
pub fn pack_grouped(gguf: &Gguf, tensor: &Tensor, team: &Team, arena: &Arena) -> Packed<Grouped> {
    let view = TensorRows::of(gguf, tensor)?;
    let (rows, cols) = (tensor.rows(), tensor.cols());
    let group = if tensor.kind() == TensorType::Q2_0_G64 { BLOCK / 2 } else { BLOCK };
    let layout = GroupedLayout { packing: team.kernels.grouped_packing(), rows, cols, group };
    Grouped::from_rows(team, arena, layout, |row, bytes, halves| {
        let mut trits = vec![0i8; cols.next_multiple_of(BLOCK)];
        if view.stored_groups(row, group, &mut trits[..cols], halves)? {
            encode_i2s(&trits, bytes);
            return Ok(1.0);
        }
        let mut scales = vec![0f32; halves.len()];
        if let Some((a, b)) = view.grouped_trits(row, group, &mut trits[..cols], &mut scales)? {
            return Err(not_ternary(tensor, &format!("a group of {group} columns of row {row} holds"), a, b));
        }
        encode_i2s(&trits, bytes);
        for (half, scale) in halves.iter_mut().zip(&scales) {
            *half = to_f16(*scale);
        }
        let exact = |(half, scale): (&[u8; 2], &f32)| f16_to_f32(u16::from_le_bytes(*half)) == *scale;
        if halves.iter().zip(&scales).all(exact) {
            return Ok(1.0);
        }
        let most = scales.iter().fold(0.0, |most: f32, scale| most.max(*scale));
        if let Some(other) = scales.iter().find(|scale| **scale != 0.0 && **scale != most) {
            return Err(not_ternary(
                tensor,
                &format!("row {row} holds, not all of them numbers of f16,"),
                most,
                *other,
            ));
        }
        for (half, scale) in halves.iter_mut().zip(&scales) {
            *half = to_f16(if *scale == 0.0 { 0.0 } else { 1.0 });
        }
        Ok(most)
    })
}
