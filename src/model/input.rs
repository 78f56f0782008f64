//! Inputs of the projections. A norm (or the activation) and the rounding are one task per row: a row fits in the L1
//! cache, a batch does not.

use super::rotation::Rotation;
use crate::error::Result;
use crate::kernel::Team;
use crate::kernel::grouped::GroupedActivations;
use crate::kernel::ternary::Activations;
use crate::ops::activation::Activation;
use std::borrow::Cow;

/// The input of projections, one row a token, in the forms that the layers read.
pub(super) struct ProjectionInput<'a> {
    /// How many tokens it has, one row each.
    pub n_tokens: usize,
    /// As floats: dense layers read these.
    pub f32: Cow<'a, [f32]>,
    /// As int8 with one scale a token: ternary layers with one scale read these.
    pub int8: Option<&'a Activations>,
    /// Rounded in blocks: ternary layers with a scale for each group of columns read these.
    pub grouped: Option<&'a GroupedActivations>,
}

/// The form of their inputs that a model's ternary projections read.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum InputForm {
    /// Floats: no projection is ternary.
    Floats,
    /// int8 with one scale a token.
    PerToken,
    /// Rounded in blocks of 128 columns, to this number of planes of int8.
    Blocks(usize),
}

/// Computes the inputs of a batch's projections, in the forms that the model's projections read.
pub(super) struct InputBuilder<'a> {
    pub team: &'a Team<'a>,
    /// How many tokens a batch has, one row each.
    pub n_tokens: usize,
    /// What the ternary projections read.
    pub form: InputForm,
    /// Whether there are dense projections that read what the ternary ones read, rounded to int8.
    pub rounds_dense: bool,
    /// Added to the mean square in every RMSNorm.
    pub eps: f32,
    /// Buffer for the int8 activations.
    pub int8: &'a mut Activations,
    /// Buffer for activations rounded in blocks.
    pub grouped: &'a mut GroupedActivations,
}

impl InputBuilder<'_> {
    /// `out = RMSNorm(x)`, row by row; `x` is kept for the residual connection.
    pub fn norm<'a>(
        &'a mut self,
        x: &[f32],
        gamma: &[f32],
        rotation: Option<&Rotation>,
        out: &'a mut [f32],
    ) -> Result<ProjectionInput<'a>> {
        let norm = self.norm_of(x, gamma);
        self.compute(out, rotation, norm)
    }

    /// As [`InputBuilder::norm`], for floats that no projection reads.
    pub fn norm_floats(&self, x: &[f32], gamma: &[f32], out: &mut [f32]) {
        self.team.for_each_chunk(out, gamma.len(), self.norm_of(x, gamma));
    }

    /// Writes RMSNorm of row i of `x`.
    fn norm_of<'a>(&self, x: &'a [f32], gamma: &'a [f32]) -> impl Fn(usize, &mut [f32]) + Sync + use<'a> {
        let (kernels, eps, width) = (self.team.kernels, self.eps, gamma.len());
        move |i, out| {
            out.copy_from_slice(&x[i * width..][..width]);
            kernels.rms_norm(out, gamma, eps);
        }
    }

    /// `x = RMSNorm(x)`, or `x` as it is without a `gamma`.
    pub fn sub_norm<'a>(
        &'a mut self,
        x: &'a mut [f32],
        gamma: Option<&[f32]>,
        rotation: Option<&Rotation>,
    ) -> Result<ProjectionInput<'a>> {
        let (team, eps) = (self.team, self.eps);
        self.compute(x, rotation, |_, x| {
            if let Some(gamma) = gamma {
                team.kernels.rms_norm(x, gamma, eps);
            }
        })
    }

    /// `gate = act(gate) · up`, then as [`InputBuilder::sub_norm`].
    pub fn activate<'a>(
        &'a mut self,
        activation: Activation,
        gate: &'a mut [f32],
        up: &[f32],
        gamma: Option<&[f32]>,
        rotation: Option<&Rotation>,
    ) -> Result<ProjectionInput<'a>> {
        let (team, eps, width) = (self.team, self.eps, up.len() / self.n_tokens);
        self.compute(gate, rotation, |i, gate| {
            activation.apply(team.kernels, gate, &up[i * width..][..width]);
            if let Some(gamma) = gamma {
                team.kernels.rms_norm(gate, gamma, eps);
            }
        })
    }

    /// Computes each row of `x` in place, by `compute(i, row)`, rotates it if the weights are stored rotated, and rounds
    /// it as the ternary projections read it.
    pub fn compute<'a>(
        &'a mut self,
        x: &'a mut [f32],
        rotation: Option<&Rotation>,
        compute: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<ProjectionInput<'a>> {
        let (team, n_tokens, width) = (self.team, self.n_tokens, x.len() / self.n_tokens);
        let compute = |i: usize, row: &mut [f32]| {
            compute(i, row);
            if let Some(rotation) = rotation {
                rotation.apply(team.kernels, row);
            }
        };
        if self.form == InputForm::Floats {
            team.for_each_chunk(x, width, compute);
            return Ok(ProjectionInput { n_tokens, f32: Cow::Borrowed(x), int8: None, grouped: None });
        }
        if let InputForm::Blocks(planes) = self.form {
            let mut rows: Vec<_> = x.chunks_mut(width).zip(self.grouped.rows(n_tokens, width, planes)?).collect();
            team.for_each_chunk(&mut rows, 1, |i, rows| {
                for (row, blocks) in rows {
                    compute(i, row);
                    blocks.quantize(team.kernels, row);
                }
            });
            // A dense projection among these reads the floats, which the blocks only approximate.
            let grouped = Some(&*self.grouped);
            return Ok(ProjectionInput { n_tokens, f32: Cow::Borrowed(x), int8: None, grouped });
        }
        let mut rows: Vec<_> = x.chunks_mut(width).zip(self.int8.rows(n_tokens, width)?).collect();
        team.for_each_chunk(&mut rows, 1, |i, rows| {
            for (row, (q, scale)) in rows {
                compute(i, row);
                **scale = team.kernels.quantize(row, q);
            }
        });
        // A dense projection among ternary ones reads what they read, unless the model's makers left it as floats.
        let f32 = if self.rounds_dense { Cow::Owned(self.int8.dequantize()) } else { Cow::Borrowed(&*x) };
        Ok(ProjectionInput { n_tokens, f32, int8: Some(&*self.int8), grouped: None })
    }
}
