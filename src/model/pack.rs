//! From a tensor to a packed ternary matrix: with one scale, or with one for each row and group of columns. The words of
//! a packed model are used where they lie.

use crate::checkpoint::gguf::{Gguf, PackedLayout, Tensor, TensorType};
use crate::codec::{RowTrits, TensorRows, f16_to_f32};
use crate::error::Error;
use crate::kernel::Team;
use crate::kernel::f16::to_f16;
use crate::kernel::grouped::{Grouped, GroupedLayout};
use crate::kernel::packing::{Packing, Word, encode_i2s};
use crate::kernel::ternary::{BLOCK, Layout, Ternary};
use crate::machine::buffer::{Buffer, Mapped, Owner, Plain};
use crate::machine::memory::Arena;
use std::sync::Arc;

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

/// How matrices are packed.
pub struct Packer<'a> {
    /// The threads that do it, and the kernels that are to read the words.
    pub team: &'a Team<'a>,
    /// The packing, if it is not to be the one that suits the kernels.
    pub packing: Option<Packing>,
    /// Where the words go.
    pub arena: Arena,
}

impl<'a> Packer<'a> {
    /// With an empty arena.
    pub fn new(team: &'a Team<'a>, packing: Option<Packing>) -> Packer<'a> {
        Packer { team, packing, arena: Arena::default() }
    }

    /// The packing of a matrix with one scale. Short rows fill long base3 blocks badly.
    fn packing_of(&self, cols: usize) -> Packing {
        match self.packing {
            None => self.team.kernels.packing(cols),
            Some(Packing::TwoBit) => Packing::TwoBit,
            Some(Packing::Base3) => Packing::smallest(cols),
        }
    }
}

/// A tensor of an open model, whose bytes stay in place as long as this value.
struct TensorBytes {
    gguf: Arc<Gguf>,
    tensor: Tensor,
}

impl AsRef<[u8]> for TensorBytes {
    fn as_ref(&self) -> &[u8] {
        self.gguf.bytes(&self.tensor)
    }
}

/// The first `size` bytes of a tensor, used where they lie. An error if they are not aligned: the file is damaged.
pub(super) fn mapped<T: Plain>(gguf: &Arc<Gguf>, tensor: &Tensor, size: usize) -> Result<Buffer<T>, Error> {
    let owner: Owner = Arc::new(TensorBytes { gguf: gguf.clone(), tensor: tensor.clone() });
    Mapped::new(owner, 0..size).map(Buffer::Mapped).ok_or_else(|| broken(tensor, "its words are not aligned"))
}

fn broken(tensor: &Tensor, what: &str) -> Error {
    let (name, kind) = (tensor.name(), tensor.kind());
    Error::Model(format!("tensor '{name}' of type {kind}: {what}; the file is damaged: pack the model again"))
}

/// The words of a tensor of a packed model and its row scales, which must be finite.
fn words(gguf: &Arc<Gguf>, tensor: &Tensor, layout: PackedLayout) -> Result<(Buffer<Word>, Vec<f32>), Error> {
    let size = layout.word_bytes(tensor.rows(), tensor.cols()).unwrap_or_default();
    let words = mapped(gguf, tensor, size)?;
    let scales = gguf.bytes(tensor)[size..].as_chunks().0;
    let scales: Vec<f32> = scales.iter().map(|raw| f32::from_le_bytes(*raw)).collect();
    match scales.iter().position(|scale| !scale.is_finite()) {
        None => Ok((words, scales)),
        Some(row) => Err(broken(tensor, &format!("the scale of row {row} is {}", scales[row]))),
    }
}

/// The packing of a packed layout.
fn packing(layout: PackedLayout) -> Packing {
    if layout.base3 { Packing::Base3 } else { Packing::TwoBit }
}

/// The matrix of a tensor of a packed model that has a scale for each row and group of columns; `None` for other
/// tensors.
pub(super) fn mapped_groups(gguf: &Arc<Gguf>, tensor: &Tensor) -> Result<Option<Grouped>, Error> {
    let Some(layout) = tensor.kind().packed_layout() else { return Ok(None) };
    let Some(group) = layout.group else { return Ok(None) };
    let (words, factors) = words(gguf, tensor, layout)?;
    let layout = GroupedLayout { rows: tensor.rows(), cols: tensor.cols(), group, packing: packing(layout) };
    let matrix = Grouped::from_words(layout, words, factors);
    matrix.map(Some).ok_or_else(|| broken(tensor, "its words do not fit its shape"))
}

/// The matrix of a tensor of a packed model that has one scale, or one for each row; `None` for other tensors.
fn mapped_one_scale(gguf: &Arc<Gguf>, tensor: &Tensor) -> Result<Option<Ternary>, Error> {
    let Some(layout) = tensor.kind().packed_layout().filter(|layout| layout.group.is_none()) else { return Ok(None) };
    let (words, scales) = words(gguf, tensor, layout)?;
    let layout = Layout { packing: packing(layout), rows: tensor.rows(), cols: tensor.cols() };
    let matrix = Ternary::from_words(layout, words, scales);
    matrix.map(Some).ok_or_else(|| broken(tensor, "its words do not fit its shape"))
}

/// Packs a tensor if its values are ternary.
pub fn pack(gguf: &Arc<Gguf>, tensor: &Tensor, packer: &Packer) -> Packed<Ternary> {
    let Packer { team, arena, .. } = packer;
    if let Some(mapped) = mapped_one_scale(gguf, tensor)? {
        return Ok(mapped);
    }
    keep_master_scale(gguf, tensor, team)?;
    let view = TensorRows::of(gguf, tensor)?;
    let (rows, cols) = (tensor.rows(), tensor.cols());
    let layout = Layout { packing: packer.packing_of(cols), rows, cols };
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
pub fn pack_grouped(gguf: &Arc<Gguf>, tensor: &Tensor, packer: &Packer) -> Packed<Grouped> {
    let Packer { team, arena, .. } = packer;
    if let Some(mapped) = mapped_groups(gguf, tensor)? {
        return Ok(mapped);
    }
    let view = TensorRows::of(gguf, tensor)?;
    let (rows, cols) = (tensor.rows(), tensor.cols());
    let group = if tensor.kind() == TensorType::Q2_0_G64 { BLOCK / 2 } else { BLOCK };
    let layout = GroupedLayout { packing: packer.packing.unwrap_or(team.kernels.grouped_packing()), rows, cols, group };
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
