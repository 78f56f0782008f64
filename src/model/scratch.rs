//! The buffers of a forward pass.

use super::config::Config;
use crate::error::Result;
use crate::kernel::grouped::GroupedActivations;
use crate::kernel::ternary::Activations;
use crate::machine::memory::try_grow;

/// The memory of a pass, kept for the next one: fresh memory costs more than filling it.
#[derive(Default)]
pub struct Scratch {
    floats: [Vec<f32>; 10],
    int8: Activations,
    grouped: GroupedActivations,
}

/// The buffers of a pass, each with one row a token.
pub(super) struct Buffers<'a> {
    /// The residual stream: `hidden_size` floats a row.
    pub x: &'a mut [f32],
    /// The residual stream after the norm before the attention or the feed-forward network.
    pub normed: &'a mut [f32],
    /// That, after the norm of one projection's input; empty for architectures without such norms.
    pub normed_in: &'a mut [f32],
    /// The queries of all heads.
    pub q: &'a mut [f32],
    /// The keys of all key/value heads.
    pub k: &'a mut [f32],
    /// The values of all key/value heads.
    pub v: &'a mut [f32],
    /// The attention's output, then its sub-norm.
    pub attended: &'a mut [f32],
    /// The feed-forward network's gate projection, then its activation, then the sub-norm of that.
    pub gate: &'a mut [f32],
    /// The feed-forward network's up projection.
    pub up: &'a mut [f32],
    /// What the attention or the feed-forward network adds to the residual stream.
    pub branch: &'a mut [f32],
    /// The input of the projections that come next, rounded to int8.
    pub int8: &'a mut Activations,
    /// The same, rounded in blocks.
    pub grouped: &'a mut GroupedActivations,
}

impl Scratch {
    /// Buffers for `n_rows` rows; what they hold is left from the last pass.
    pub(super) fn buffers(&mut self, config: &Config, n_rows: usize) -> Result<Buffers<'_>> {
        let Scratch { floats: [x, normed, normed_in, q, k, v, attended, gate, up, branch], int8, grouped } = self;
        let rows = |buffer, width| try_grow(buffer, n_rows * width);
        let (hidden, ffn, q_dim, kv_dim) =
            (config.hidden_size, config.intermediate_size, config.q_dim(), config.kv_dim());
        Ok(Buffers {
            x: rows(x, hidden)?,
            normed: rows(normed, hidden)?,
            normed_in: rows(normed_in, if config.arch.norm_in { hidden } else { 0 })?,
            q: rows(q, q_dim)?,
            k: rows(k, kv_dim)?,
            v: rows(v, kv_dim)?,
            attended: rows(attended, q_dim)?,
            gate: rows(gate, ffn)?,
            up: rows(up, ffn)?,
            branch: rows(branch, hidden)?,
            int8,
            grouped,
        })
    }
}
