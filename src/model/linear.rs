//! Linear layers: ternary ones, on rounded activations, and dense ones, whose rows are read as the file stores them.

use super::input::ProjectionInput;
use super::pack::{Packer, pack_grouped};
use super::rotation::Rotation;
use super::trace::Recorder;
use crate::checkpoint::gguf::{Gguf, Tensor, TensorType};
use crate::codec::TensorRows;
use crate::error::Result;
use crate::kernel::grouped::Grouped;
use crate::kernel::ternary::Ternary;
use crate::kernel::{Kernels, Team};
use crate::machine::clock::Instant;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many rows of a dense matrix one task computes.
const DENSE_ROWS_PER_TASK: usize = 16;
/// How many single rows one task computes.
const DOTS_PER_TASK: usize = 16;

/// A matrix that is read where it lies in the file.
pub struct Dense {
    gguf: Arc<Gguf>,
    tensor: Tensor,
    /// Multiplies every output: 1, or the scale that the file stores in a tensor of its own.
    factor: f32,
}

/// A projection's matrix, in the form in which the kernels read it.
pub enum Matrix {
    /// Packed trits with one scale (or one for each row), multiplied by int8 activations.
    Ternary(Ternary),
    /// Packed trits with a scale for each group of columns, multiplied by activations rounded in blocks.
    Grouped(Grouped),
    /// Rows of any type, multiplied by float activations.
    Dense(Dense),
}

/// A linear layer, `W·x + b`.
pub struct Linear {
    /// The weights W, `rows` × `cols`.
    pub matrix: Matrix,
    /// Its bias b, if the file has one.
    pub bias: Option<Vec<f32>>,
    /// RMSNorm of its input alone: of o and down the sub-norms of BitNet (SubLN, arXiv 2210.06423); embedding models
    /// have one before every projection.
    pub norm: Option<Vec<f32>>,
    /// The rotation of its input, if the weights are stored rotated.
    pub rotation: Option<Arc<Rotation>>,
}

impl Dense {
    /// The matrix of a tensor; an error if the engine cannot dequantize its type.
    pub fn new(gguf: &Arc<Gguf>, tensor: &Tensor, factor: f32) -> Result<Dense> {
        TensorRows::of(gguf, tensor)?;
        Ok(Dense { gguf: gguf.clone(), tensor: tensor.clone(), factor })
    }

    /// Reads all rows once, and refuses invalid codes and values that are not finite.
    pub fn check(&self, team: &Team) -> Result<()> {
        let (view, first) = (self.view(), AtomicUsize::new(usize::MAX));
        team.for_each(view.rows(), |row| {
            if view.check(row).is_err() {
                first.fetch_min(row, Ordering::Relaxed);
            }
        });
        match first.into_inner() {
            usize::MAX => Ok(()),
            row => view.check(row),
        }
    }

    fn view(&self) -> TensorRows<'_> {
        TensorRows::of(&self.gguf, &self.tensor).expect("`Dense::new` made the same view")
    }

    /// The tensor's name, for errors.
    pub fn name(&self) -> &str {
        self.tensor.name()
    }

    /// The tensor's type, as GGUF names it.
    pub fn type_name(&self) -> String {
        self.tensor.kind().to_string()
    }

    /// Drops rows from memory; a later read loads them from the file again.
    pub fn release(&self, rows: Range<usize>) {
        let row = self.bytes() / self.rows();
        self.gguf.release(&self.tensor, rows.start * row..rows.end * row);
    }

    /// Its size in the file.
    pub fn bytes(&self) -> usize {
        self.tensor.size()
    }

    /// Writes row `row` to `out`, without the factor.
    pub fn dequantize(&self, kernels: &Kernels, row: usize, out: &mut [f32]) {
        match self.tensor.kind() {
            TensorType::F16 => kernels.f16_to_f32(self.stored(row, 2).as_chunks().0, out),
            _ => self.view().dequantize(row, out),
        }
    }

    /// The bytes of a row whose elements have `size` bytes.
    fn stored(&self, row: usize, size: usize) -> &[u8] {
        &self.gguf.bytes(&self.tensor)[row * self.cols() * size..][..self.cols() * size]
    }

    /// Its packed trits, if its type stores a scale for each group of columns; `None` also if packing fails.
    pub(super) fn packed_in_groups(&self, packer: &Packer) -> Option<Grouped> {
        let has_groups = self.view().has_scales_by_block();
        if has_groups { pack_grouped(&self.gguf, &self.tensor, packer).ok() } else { None }
    }

    /// Rows: how many outputs it computes.
    pub fn rows(&self) -> usize {
        self.tensor.rows()
    }

    /// Columns: how many inputs it reads.
    pub fn cols(&self) -> usize {
        self.tensor.cols()
    }

    /// `out[token][row] = x[token] · row`.
    pub fn matmul(&self, team: &Team, x: &[f32], out: &mut [f32]) {
        let tokens: Vec<&[f32]> = x.chunks(self.cols()).collect();
        team.for_each_rows(out, self.rows(), DENSE_ROWS_PER_TASK, |first, out| {
            let mut dequantized = Vec::new();
            let mut dots = vec![0f32; tokens.len()];
            for i in 0..out.len() {
                self.dot(team.kernels, first + i, &tokens, &mut dots, &mut dequantized);
                dots.iter().enumerate().for_each(|(t, dot)| out.token(t)[i] = *dot);
            }
        });
    }

    /// `x · row` for these rows, in their order.
    pub fn dots(&self, team: &Team, rows: &[usize], x: &[f32]) -> Vec<f32> {
        let mut out = vec![0f32; rows.len()];
        team.for_each_chunk(&mut out, DOTS_PER_TASK, |task, out| {
            let mut dequantized = Vec::new();
            for (out, row) in out.chunks_mut(1).zip(&rows[DOTS_PER_TASK * task..]) {
                self.dot(team.kernels, *row, &[x], out, &mut dequantized);
            }
        });
        out
    }

    /// `out[token] = x[token] · row`. Rows of block types are dequantized to the buffer first.
    fn dot(&self, kernels: &Kernels, row: usize, x: &[&[f32]], out: &mut [f32], dequantized: &mut Vec<f32>) {
        match self.tensor.kind() {
            TensorType::F32 => kernels.dot_f32(self.stored(row, 4).as_chunks().0, x, out),
            TensorType::F16 => kernels.dot_f16(self.stored(row, 2).as_chunks().0, x, out),
            TensorType::BF16 => kernels.dot_bf16(self.stored(row, 2).as_chunks().0, x, out),
            _ => {
                dequantized.resize(self.cols(), 0.0);
                self.dequantize(kernels, row, dequantized);
                kernels.dot_floats(dequantized, x, out);
            }
        }
        out.iter_mut().for_each(|out| *out *= self.factor);
    }
}

impl Linear {
    /// `out[token] = W·x[token] + b`. Counts itself in the recorder's work.
    pub(super) fn apply(&self, team: &Team, x: &ProjectionInput, out: &mut [f32], recorder: &mut Recorder) {
        let start = Instant::now();
        let work = &mut recorder.work;
        let (count, ns) = match &self.matrix {
            Matrix::Ternary(ternary) => {
                let int8 = x.int8.expect("a model with ternary layers has int8 activations");
                ternary.matmul(team, int8, out);
                (&mut work.ternary, &mut work.ternary_ns)
            }
            Matrix::Grouped(grouped) => {
                let blocks = x.grouped.expect("a model with grouped layers has activations rounded in blocks");
                grouped.matmul(team, blocks, out);
                (&mut work.ternary, &mut work.ternary_ns)
            }
            Matrix::Dense(dense) => {
                dense.matmul(team, &x.f32, out);
                (&mut work.dense, &mut work.dense_ns)
            }
        };
        if let Some(bias) = &self.bias {
            team.for_each_chunk(out, bias.len(), |_, out| team.kernels.add(out, bias));
        }
        *count += x.n_tokens as u64;
        *ns += start.elapsed().as_nanos() as u64;
        recorder.projection(x, out);
    }
}
