//! The tensors of a packed file: the projections and the copy of the output head as the kernels read them, everything
//! else as the model's file stores it.

use super::head::{Copy, STORED_HEAD};
use super::linear::Matrix;
use super::projections::projections;
use super::{Block, Model};
use crate::checkpoint::PREFIX;
use crate::checkpoint::gguf::{PackedLayout, Tensor, TensorType};
use crate::error::{Error, Result};
use crate::kernel::Team;
use crate::kernel::grouped::Grouped;
use crate::kernel::packing::{Packing, Word};
use crate::kernel::ternary::Ternary;
use std::collections::BTreeMap;

/// Bytes that are written at a time.
const CHUNK: usize = 8 << 20;

/// A tensor of a packed file.
pub struct StoredTensor<'a> {
    /// Its name.
    pub name: String,
    /// Its dimensions, the columns first.
    pub shape: Vec<usize>,
    /// Its type, which has an id in packed files.
    pub kind: TensorType,
    /// What it holds.
    pub content: Content<'a>,
}

/// What a tensor of a packed file holds.
pub enum Content<'a> {
    /// Bytes as the model's file stores them.
    Stored(&'a [u8]),
    /// Packed words, and an f32 for each row.
    Words(&'a [Word], Vec<f32>),
    /// Integers.
    Integers(&'a [i8]),
    /// Floats.
    Floats(&'a [f32]),
}

impl Content<'_> {
    /// Its size in bytes.
    pub fn size(&self) -> usize {
        match self {
            Content::Stored(bytes) => bytes.len(),
            Content::Words(words, rows) => size_of_val(*words) + 4 * rows.len(),
            Content::Integers(integers) => integers.len(),
            Content::Floats(floats) => 4 * floats.len(),
        }
    }

    /// Gives `write` its bytes in order.
    pub fn for_each_chunk<E>(
        &self,
        mut write: impl FnMut(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut buffer = Vec::new();
        let floats = |floats: &[f32]| floats.iter().flat_map(|float| float.to_le_bytes()).collect::<Vec<u8>>();
        match self {
            Content::Stored(bytes) => bytes.chunks(CHUNK).try_for_each(write),
            Content::Words(words, rows) => {
                for words in words.chunks(CHUNK / size_of::<Word>()) {
                    buffer.clear();
                    words.iter().for_each(|word| buffer.extend_from_slice(&word.0));
                    write(&buffer)?;
                }
                write(&floats(rows))
            }
            Content::Integers(integers) => integers.chunks(CHUNK).try_for_each(|integers| {
                buffer.clear();
                buffer.extend(integers.iter().map(|integer| *integer as u8));
                write(&buffer)
            }),
            Content::Floats(values) => write(&floats(values)),
        }
    }
}

impl Model {
    /// The tensors of the packed file of this model, the copy of the output head included, which is made if it would be
    /// made for an answer. An error if no projection is packed, or if a tensor has a type that no packed file holds.
    pub fn stored_tensors(&self, team: &Team) -> Result<Vec<StoredTensor<'_>>> {
        let mut packed: BTreeMap<String, &Matrix> = BTreeMap::new();
        for (layer, block) in self.layers.iter().enumerate() {
            // `linears` has the order of `projections`.
            for (projection, linear) in projections(&self.config, layer).iter().zip(Block::linears(block)) {
                if !matches!(linear.matrix, Matrix::Dense(_)) {
                    packed.insert(format!("blk.{layer}.{}.weight", projection.name), &linear.matrix);
                }
            }
        }
        if packed.is_empty() {
            let why = &self.act_quant.reason;
            return Err(Error::Unsupported(format!(
                "there is nothing to pack: the projections stay as the file stores them ({why}); open the model itself, \
                 whose pages processes share already"
            )));
        }
        let stored = self.gguf.tensors().iter().filter(|tensor| self.is_used(tensor));
        let mut tensors = Vec::new();
        for tensor in stored {
            let (kind, content) = match packed.get(tensor.name()) {
                Some(Matrix::Ternary(ternary)) => of_ternary(ternary),
                Some(Matrix::Grouped(grouped)) => of_grouped(grouped),
                _ => (tensor.kind(), Content::Stored(self.gguf.bytes(tensor))),
            };
            if kind.id_in_packed().is_none() {
                return Err(Error::Unsupported(format!(
                    "tensor '{}' has the type {kind}, which no packed file holds; open the model itself",
                    tensor.name()
                )));
            }
            tensors.push(StoredTensor { name: tensor.name().into(), shape: tensor.shape().to_vec(), kind, content });
        }
        // What a pass reads from end to end comes last, so that it can lie on huge pages.
        tensors.sort_by_key(|tensor| matches!(tensor.content, Content::Words(..)));
        tensors.extend(self.stored_head(team));
        Ok(tensors)
    }
}

impl Model {
    /// Whether a pass reads the tensor: those of blocks that predict several tokens at once are not used.
    fn is_used(&self, tensor: &Tensor) -> bool {
        let block = tensor.name().strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse().ok());
        block.is_none_or(|block: usize| block < self.config.n_layers)
    }

    /// The copy of the output head.
    fn stored_head(&self, team: &Team) -> Vec<StoredTensor<'_>> {
        let matrix = self.output.as_ref().unwrap_or(&self.embedding);
        let [q, steps, norms, errors, packed] = STORED_HEAD.map(|name| format!("{PREFIX}{name}"));
        let floats = |name: String, floats| {
            let content = Content::Floats(floats);
            StoredTensor { name, shape: vec![floats.len()], kind: TensorType::F32, content }
        };
        match self.head.copy(team, matrix) {
            None => Vec::new(),
            Some(Copy::EightBit(copy)) => {
                let (shape, content) = (vec![copy.stride(), matrix.rows()], Content::Integers(copy.integers()));
                let [of_steps, of_norms, of_errors] = copy.facts();
                let integers = StoredTensor { name: q, shape, kind: TensorType::HEAD_I8, content };
                vec![integers, floats(steps, of_steps), floats(norms, of_norms), floats(errors, of_errors)]
            }
            Some(Copy::Grouped(copy)) => {
                let (kind, content) = of_grouped(copy.matrix());
                let shape = vec![matrix.cols(), matrix.rows()];
                vec![StoredTensor { name: packed, shape, kind, content }, floats(norms, copy.norms())]
            }
        }
    }
}

fn of_ternary(ternary: &Ternary) -> (TensorType, Content<'_>) {
    (kind(None, ternary.packing()), Content::Words(ternary.words(), ternary.scales()))
}

fn of_grouped(grouped: &Grouped) -> (TensorType, Content<'_>) {
    let layout = grouped.layout();
    (kind(Some(layout.group), layout.packing), Content::Words(grouped.words(), grouped.factors().to_vec()))
}

fn kind(group: Option<usize>, packing: Packing) -> TensorType {
    let layout = PackedLayout { group, base3: packing == Packing::Base3 };
    TensorType::of_packed_layout(layout).expect("each of the layouts that the kernels have has a type")
}
