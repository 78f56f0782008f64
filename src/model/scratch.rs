//! The buffers of a forward pass.

use super::config::Config;
use super::state::SpareStates;
use crate::error::Result;
use crate::kernel::grouped::GroupedActivations;
use crate::kernel::ternary::Activations;
use crate::machine::memory::try_grow;

/// The memory of a pass, kept for the next one: fresh memory costs more than filling it.
#[derive(Default)]
pub struct Scratch {
    floats: [Vec<f32>; 16],
    pub(super) spare_states: SpareStates,
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
    /// The output of the attention or the delta net, then its sub-norm.
    pub attended: &'a mut [f32],
    /// What the convolution of a delta net reads; or queries, each before the gate of its output.
    pub mixed: &'a mut [f32],
    /// The output of the convolution: queries, keys and values of a delta net.
    pub convolved: &'a mut [f32],
    /// The gate of the output of the attention or the delta net.
    pub output_gate: &'a mut [f32],
    /// The decay of every value head.
    pub decay: &'a mut [f32],
    /// The strength of the change of every value head.
    pub beta: &'a mut [f32],
    /// What the heads of a delta net read from their states, in the order of the tasks.
    pub read: &'a mut [f32],
    /// The feed-forward network's gate projection, then its activation, then the sub-norm of that.
    pub gate: &'a mut [f32],
    /// The feed-forward network's up projection.
    pub up: &'a mut [f32],
    /// What the attention or the feed-forward network adds to the residual stream.
    pub branch: &'a mut [f32],
}

impl Scratch {
    /// Buffers for `n_rows` rows; what they hold is left from the last pass. And those for the input of projections,
    /// rounded to int8 or rounded in blocks.
    pub(super) fn buffers(
        &mut self,
        config: &Config,
        n_rows: usize,
    ) -> Result<(Buffers<'_>, &mut Activations, &mut GroupedActivations)> {
        let Scratch { floats, int8, grouped, .. } = self;
        let [
            x,
            normed,
            normed_in,
            q,
            k,
            v,
            attended,
            mixed,
            convolved,
            output_gate,
            decay,
            beta,
            read,
            gate,
            up,
            branch,
        ] = floats;
        let rows = |buffer, width| try_grow(buffer, n_rows * width);
        let (hidden, ffn, q_dim, kv_dim) =
            (config.hidden_size, config.intermediate_size, config.q_dim(), config.kv_dim());
        let (channels, value_dim, value_heads) = config
            .delta_nets
            .as_ref()
            .map_or((0, 0, 0), |nets| (nets.channels(), nets.value_dim(), nets.n_value_heads));
        let gated = if config.arch.hybrid { q_dim } else { 0 };
        let buffers = Buffers {
            x: rows(x, hidden)?,
            normed: rows(normed, hidden)?,
            normed_in: rows(normed_in, if config.arch.norm_in { hidden } else { 0 })?,
            q: rows(q, q_dim)?,
            k: rows(k, kv_dim)?,
            v: rows(v, kv_dim)?,
            attended: rows(attended, q_dim.max(value_dim))?,
            mixed: rows(mixed, channels.max(2 * gated))?,
            convolved: rows(convolved, channels)?,
            output_gate: rows(output_gate, value_dim.max(gated))?,
            decay: rows(decay, value_heads)?,
            beta: rows(beta, value_heads)?,
            read: rows(read, value_dim)?,
            gate: rows(gate, ffn)?,
            up: rows(up, ffn)?,
            branch: rows(branch, hidden)?,
        };
        Ok((buffers, int8, grouped))
    }
}
