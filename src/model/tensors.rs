//! Looks up a file's tensors by name, checks their shapes, and finds tensors that the model has no use for.

use super::config::Config;
use super::linear::Dense;
use crate::checkpoint::gguf::{Gguf, Tensor};
use crate::codec::TensorRows;
use crate::error::{Error, Result};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// The tensors of a file.
pub(super) struct Tensors<'a> {
    pub(super) gguf: &'a Arc<Gguf>,
    /// The architecture's name, for errors.
    arch: &'static str,
    /// Blocks that predict several tokens at once, whose tensors are not used.
    prediction_blocks: Range<usize>,
    /// The names that were looked up.
    used: RefCell<BTreeSet<String>>,
}

impl<'a> Tensors<'a> {
    /// The tensors of a file of this architecture.
    pub(super) fn new(gguf: &'a Arc<Gguf>, config: &Config) -> Tensors<'a> {
        let prediction_blocks = config.n_layers..config.n_layers + config.n_prediction_layers;
        Tensors { gguf, arch: config.arch.name, prediction_blocks, used: RefCell::default() }
    }

    fn find(&self, name: &str) -> Option<&'a Tensor> {
        let tensor = self.gguf.tensor(name)?;
        self.used.borrow_mut().insert(name.to_string());
        Some(tensor)
    }

    /// The tensor, if the file has it; an error if its shape is another one.
    pub(super) fn optional(&self, name: &str, cols: usize, rows: usize) -> Result<Option<&'a Tensor>> {
        let Some(tensor) = self.find(name) else { return Ok(None) };
        if matches!(tensor.shape(), [_] | [_, _]) && (tensor.cols(), tensor.rows()) == (cols, rows) {
            return Ok(Some(tensor));
        }
        Err(Error::Model(format!(
            "tensor '{name}' has the shape {:?}, expected [{cols}{}] by the metadata of architecture '{}'",
            tensor.shape(),
            if rows == 1 { String::new() } else { format!(", {rows}") },
            self.arch
        )))
    }

    /// The tensor of this shape, which the file must have.
    pub(super) fn required(&self, name: &str, cols: usize, rows: usize) -> Result<&'a Tensor> {
        self.optional(name, cols, rows)?.ok_or_else(|| {
            Error::Model(format!(
                "tensor '{name}' is missing, which architecture '{}' needs; the file is incomplete",
                self.arch
            ))
        })
    }

    /// A required matrix, to be read where it lies in the file.
    pub(super) fn dense(&self, name: &str, cols: usize, rows: usize) -> Result<Dense> {
        Dense::new(self.gguf, self.required(name, cols, rows)?, 1.0)
    }

    /// A required vector of finite numbers, dequantized.
    pub(super) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.matrix(name, len, 1)
    }

    /// A required matrix of finite numbers, dequantized row by row.
    pub(super) fn matrix(&self, name: &str, cols: usize, rows: usize) -> Result<Vec<f32>> {
        let view = TensorRows::of(self.gguf, self.required(name, cols, rows)?)?;
        let mut values = vec![0.0; cols * rows];
        values.chunks_mut(cols).enumerate().for_each(|(row, values)| view.dequantize(row, values));
        match values.iter().position(|x| !x.is_finite()) {
            Some(i) => Err(Error::Model(format!(
                "tensor '{name}' holds {} at index {i}, expected finite numbers; the file is broken",
                values[i]
            ))),
            None => Ok(values),
        }
    }

    /// As [`Tensors::vector`], if the file has it.
    pub(super) fn optional_vector(&self, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        self.find(name).map(|_| self.vector(name, len)).transpose()
    }

    /// Refuses a file with tensors that nobody has looked up: its graph is another one.
    pub(super) fn refuse_surplus(&self) -> Result<()> {
        let used = self.used.borrow();
        let predicts = |name: &str| {
            let block = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()).and_then(|n| n.parse().ok());
            block.is_some_and(|block: usize| self.prediction_blocks.contains(&block))
        };
        let names = self.gguf.tensors().iter().map(Tensor::name);
        let surplus: Vec<&str> = names.filter(|name| !used.contains(*name) && !predicts(name)).collect();
        let Some(first) = surplus.first() else { return Ok(()) };
        let more = if surplus.len() > 1 { format!(" and {} more", surplus.len() - 1) } else { String::new() };
        Err(Error::Model(format!(
            "tensor '{first}'{more} is not part of architecture '{}', so this file holds another kind of model",
            self.arch
        )))
    }
}
