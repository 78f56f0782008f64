//! The inputs of projections. Making one is a loop over rows that computes a row and rounds it to int8 at once: a batch
//! does not fit the nearest cache, a row does.

use super::ActQuant;
use crate::error::Result;
use crate::kernel::Team;
use crate::kernel::ternary::Activations;
use crate::ops::activation::Activation;
use std::borrow::Cow;

/// The input of projections, one row a token, in the forms that the layers read.
pub(super) struct Input<'a> {
    /// How many rows it has.
    pub n_rows: usize,
    /// For dense layers.
    pub floats: Cow<'a, [f32]>,
    /// For ternary layers.
    pub ints: Option<&'a Activations>,
}

/// Makes inputs in the form that the model's projections read.
pub(super) struct Inputs<'a> {
    pub team: &'a Team<'a>,
    /// How many rows a batch has.
    pub n_rows: usize,
    /// What the projections take.
    pub act_quant: ActQuant,
    /// Whether any projection is dense.
    pub has_dense: bool,
    /// Added to the mean square in every RMSNorm.
    pub eps: f32,
    /// Where the rounded activations go.
    pub ints: &'a mut Activations,
}

impl Inputs<'_> {
    /// `out = RMSNorm(x)`.
    pub fn norm<'a>(&'a mut self, x: &[f32], gamma: &[f32], out: &'a mut [f32]) -> Result<Input<'a>> {
        let (team, eps, width) = (self.team, self.eps, gamma.len());
        self.make(out, |i, out| {
            out.copy_from_slice(&x[i * width..][..width]);
            team.kernels.rms_norm(out, gamma, eps);
        })
    }

    /// `x = RMSNorm(x)`, or `x` as it is without a `gamma`.
    pub fn sub_norm<'a>(&'a mut self, x: &'a mut [f32], gamma: Option<&[f32]>) -> Result<Input<'a>> {
        let (team, eps) = (self.team, self.eps);
        self.make(x, |_, x| {
            if let Some(gamma) = gamma {
                team.kernels.rms_norm(x, gamma, eps);
            }
        })
    }

    /// `gate = act(gate) · up`, then as [`Inputs::sub_norm`].
    pub fn activate<'a>(
        &'a mut self,
        activation: Activation,
        gate: &'a mut [f32],
        up: &[f32],
        gamma: Option<&[f32]>,
    ) -> Result<Input<'a>> {
        let (team, eps, width) = (self.team, self.eps, up.len() / self.n_rows);
        self.make(gate, |i, gate| {
            activation.apply(team.kernels, gate, &up[i * width..][..width]);
            if let Some(gamma) = gamma {
                team.kernels.rms_norm(gate, gamma, eps);
            }
        })
    }

    /// Computes each row of `x` in place, by `compute(i, row)`, and rounds it if the projections take int8 activations.
    fn make<'a>(&'a mut self, x: &'a mut [f32], compute: impl Fn(usize, &mut [f32]) + Sync) -> Result<Input<'a>> {
        let (team, width) = (self.team, x.len() / self.n_rows);
        if self.act_quant == ActQuant::None {
            team.for_each_chunk(x, width, compute);
            return Ok(Input { n_rows: self.n_rows, floats: Cow::Borrowed(x), ints: None });
        }
        let mut rows: Vec<_> = x.chunks_mut(width).zip(self.ints.rows(self.n_rows, width)?).collect();
        team.for_each_chunk(&mut rows, 1, |i, rows| {
            for (row, (q, scale)) in rows {
                compute(i, row);
                **scale = team.kernels.quantize(row, q);
            }
        });
        // A dense projection among ternary ones reads what they read.
        let floats = if self.has_dense { Cow::Owned(self.ints.dequantize()) } else { Cow::Borrowed(&*x) };
        Ok(Input { n_rows: self.n_rows, floats, ints: Some(&*self.ints) })
    }
}
