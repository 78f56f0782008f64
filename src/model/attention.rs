//! The attention of a layer, from the residual stream to what it adds to it.

use super::arch::HeadNorm;
use super::config::Config;
use super::linear::Linear;
use super::pass::{Pass, norm_and_project};
use super::{Model, cache};
use crate::error::Result;
use crate::kernel::Team;
use crate::ops::attention::{AttentionBatch, attention};

/// The weights of a layer's attention.
pub(super) struct Attention {
    pub q: Linear,
    pub k: Linear,
    pub v: Linear,
    pub o: Linear,
    /// RMSNorm of every head's queries and keys.
    pub head_norms: Option<[Vec<f32>; 2]>,
    /// The index of its keys and values in a page.
    pub kv_layer: usize,
}

impl Attention {
    /// `branch = W_o·attention(RMSNorm(x))`, and keys and values into the caches.
    pub fn run(&self, model: &Model, layer: usize, gamma: &[f32], pass: &mut Pass) -> Result<()> {
        let config = &model.config;
        let Pass { team, inputs, buffers, caches, positions, record, .. } = pass;
        let window = config.window_of(layer);

        // Attention norm: a = RMSNorm(x). Queries, keys and values: W·a.
        let (k, v) = (&mut *buffers.k, &mut *buffers.v);
        let gated = config.arch.hybrid;
        let q_out = if gated { &mut buffers.mixed[..2 * buffers.q.len()] } else { &mut *buffers.q };
        let mut qkv = [(&self.q, q_out), (&self.k, &mut *k), (&self.v, &mut *v)];
        norm_and_project(inputs, buffers.x, gamma, [buffers.normed, buffers.normed_in], &mut qkv, record)?;
        if gated {
            split_gates(team, config, buffers.mixed, buffers.q, buffers.output_gate);
        }
        let q = &mut *buffers.q;
        // Norm of every head's queries and keys, before or after the rotary position embedding.
        let (rope, cos_sin) = match (window, &model.window_rope, &pass.window_cos_sin) {
            (Some(_), Some(rope), Some(cos_sin)) => (rope, cos_sin),
            _ => (&model.rope, &pass.cos_sin),
        };
        if config.arch.head_norm == Some(HeadNorm::BeforeRope) {
            self.norm_heads(team, config, q, k);
        }
        rope.rotate(team, cos_sin, q, k);
        if config.arch.head_norm == Some(HeadNorm::AfterRope) {
            self.norm_heads(team, config, q, k);
        }
        // The cache keeps keys and values; the attention reads them from there.
        cache::write(team, caches, positions, self.kv_layer, k, v);
        // Attention: softmax(q·kᵀ / √head_dim)·v.
        let attention_rows = cache::attention_rows(caches, positions);
        let batch = AttentionBatch {
            shape: caches[positions[0].sequence].shape(),
            layer: self.kv_layer,
            window: window.map(|window| window.size),
            scale: config.score_scale,
            rows: &attention_rows,
        };
        let (width, len) = (config.q_dim(), q.len());
        let attended = &mut buffers.attended[..len];
        attention(team, &batch, q, attended, &mut record.work);
        record.attention(team, &batch, q);
        // Output gate: attended · sigmoid(gate).
        if gated {
            let gate = &*buffers.output_gate;
            let of_row = |row: usize| &gate[row * width..][..width];
            team.for_each_chunk(attended, width, |row, attended| team.kernels.sigmoid_mul(attended, of_row(row)));
        }
        // Sub-norm: a = RMSNorm(attended), or attended itself if the architecture has none. Output projection: W_o·a.
        let a = inputs.sub_norm(attended, self.o.norm.as_deref(), self.o.rotation.as_deref())?;
        self.o.apply(team, &a, buffers.branch, record);
        Ok(())
    }

    /// RMSNorm of every head's queries and keys.
    fn norm_heads(&self, team: &Team, config: &Config, q: &mut [f32], k: &mut [f32]) {
        let Config { head_dim, eps, .. } = *config;
        let Some([q_gamma, k_gamma]) = &self.head_norms else { return };
        let norm = |heads: &mut [f32], gamma: &[f32]| {
            heads.chunks_mut(head_dim).for_each(|head| team.kernels.rms_norm(head, gamma, eps));
        };
        team.for_each_pair(q, config.q_dim(), k, config.kv_dim(), |_, q, k| {
            norm(q, q_gamma);
            norm(k, k_gamma);
        });
    }
}

/// Takes apart what the query projection of a hybrid model gives for each head: its query and the gate of its output.
fn split_gates(team: &Team, config: &Config, mixed: &[f32], q: &mut [f32], gate: &mut [f32]) {
    let (width, head_dim) = (config.q_dim(), config.head_dim);
    let gate = &mut gate[..q.len()];
    team.for_each_pair(q, width, gate, width, |row, q, gate| {
        let heads = mixed[row * 2 * width..][..2 * width].chunks(2 * head_dim);
        for (both, (q, gate)) in heads.zip(q.chunks_mut(head_dim).zip(gate.chunks_mut(head_dim))) {
            q.copy_from_slice(&both[..head_dim]);
            gate.copy_from_slice(&both[head_dim..]);
        }
    });
}
