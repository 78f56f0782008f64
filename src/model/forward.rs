//! The forward pass: one function for a chunk of a prompt, one decode step, and many sequences at once.

use super::arch::HeadNorm;
use super::config::Config;
use super::finite::check_finite;
use super::input::InputBuilder;
use super::linear::Linear;
use super::scratch::{Buffers, Scratch};
use super::trace::{Recorder, Trace};
use super::{Block, KvCache, LogitsFor, Model, Row, cache, check_cancelled};
use crate::error::Result;
use crate::kernel::Team;
use crate::machine::counters::WorkCounters;
use crate::machine::memory::try_with_capacity;
use crate::ops::attention::{AttentionBatch, attention};
use crate::ops::rope::Rope;
use std::sync::atomic::AtomicBool;

impl Model {
    /// Computes a batch: appends the keys and values of every row to the cache of its sequence, and returns, in
    /// order, `vocab_size` logits for every row whose `logits` asks for them, or `hidden_size` floats for
    /// [`LogitsFor::Hidden`].
    ///
    /// `cancel` is read between layers; a pass that fails or is cancelled leaves the caches at their former lengths.
    /// Ids must be below the vocabulary's size. A `trace` takes batches of one sequence, whose rows all want logits.
    pub fn forward(
        &self,
        team: &Team,
        caches: &mut [&mut KvCache],
        rows: &[Row],
        scratch: &mut Scratch,
        trace: Option<&mut Trace>,
        cancel: &AtomicBool,
    ) -> Result<Vec<f32>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let config = &self.config;
        let positions = cache::assign_positions(caches, rows)?;
        let cos_sin_of = |rope: &Rope| rope.cos_sin(positions.iter().map(|at| at.position));
        let cos_sin = cos_sin_of(&self.rope);
        let window_cos_sin = self.window_rope.as_ref().map(cos_sin_of);
        let Buffers { x, normed, normed_in, q, k, v, attended, gate, up, branch, int8, grouped } =
            scratch.buffers(config, rows.len())?;
        let (form, rounds_dense, eps) = (self.input_form, self.rounds_dense, config.eps);
        let mut inputs = InputBuilder { team, n_tokens: rows.len(), form, rounds_dense, eps, int8, grouped };
        let mut record = Recorder::new(trace);

        // Embedding: x = E[id], scaled in some architectures.
        self.embed(team, rows, x)?;
        scale(team, x, config.hidden_size, config.scales.embedding);

        for (layer, block) in self.layers.iter().enumerate() {
            check_cancelled(cancel)?;
            record.begin_layer(layer, x);
            let window = config.window_of(layer);

            // Attention norm: a = RMSNorm(x). Queries, keys and values: W·a.
            let mut qkv = [(&block.q, &mut *q), (&block.k, &mut *k), (&block.v, &mut *v)];
            norm_and_project(&mut inputs, x, &block.norms.attn, [normed, normed_in], &mut qkv, &mut record)?;
            // Norm of every head's queries and keys, before or after the rotary position embedding.
            let (rope, cos_sin) = match (window, &self.window_rope, &window_cos_sin) {
                (Some(_), Some(rope), Some(cos_sin)) => (rope, cos_sin),
                _ => (&self.rope, &cos_sin),
            };
            if config.arch.head_norm == Some(HeadNorm::BeforeRope) {
                self.norm_heads(team, block, q, k);
            }
            rope.rotate(team, cos_sin, q, k);
            if config.arch.head_norm == Some(HeadNorm::AfterRope) {
                self.norm_heads(team, block, q, k);
            }
            // The cache keeps keys and values; the attention reads them from there.
            cache::write(team, caches, &positions, layer, k, v);
            // Attention: softmax(q·kᵀ / √head_dim)·v.
            let attention_rows = cache::attention_rows(caches, &positions);
            let batch = AttentionBatch {
                shape: caches[rows[0].sequence].shape(),
                layer,
                window: window.map(|window| window.size),
                scale: config.score_scale,
                rows: &attention_rows,
            };
            attention(team, &batch, q, attended, &mut record.work);
            record.attention(team, &batch, q);
            // Sub-norm: a = RMSNorm(attended), or attended itself if the architecture has none.
            let a = inputs.sub_norm(attended, block.o.norm.as_deref())?;
            // Output projection and residual: x = x + W_o·a.
            block.o.apply(team, &a, branch, &mut record);
            self.add_branch(team, x, branch, block.norms.post_attn.as_deref());

            // Feed-forward norm: f = RMSNorm(x). Gate and up projections: W·f.
            let mut gate_up = [(&block.gate, &mut *gate), (&block.up, &mut *up)];
            norm_and_project(&mut inputs, x, &block.norms.ffn, [normed, normed_in], &mut gate_up, &mut record)?;
            record.ffn(team, config.activation, gate, up);
            // Activation and sub-norm: f = RMSNorm(act(gate) · up); without the norm if the architecture has none.
            let f = inputs.activate(config.activation, gate, up, block.down.norm.as_deref())?;
            // Down projection and residual: x = x + W_down·f.
            block.down.apply(team, &f, branch, &mut record);
            self.add_branch(team, x, branch, block.norms.post_ffn.as_deref());
        }

        check_cancelled(cancel)?;
        // NaN propagates through every operation above. So does an infinity, except where its limit is finite: relu²
        // and exp map −∞ to 0. So this one check is enough.
        check_finite(x, config.hidden_size, |i, value| {
            format!("position {}: the last layer gives {value}; some weights are out of range", positions[i].position)
        })?;

        // Output norm: h = RMSNorm(x), for the rows whose logits or hidden state are wanted.
        let (needs, mut hidden) = self.output_norm(team, rows, x)?;
        record.output(&hidden);
        // Output head: logits = W_out·h, or in some architectures W_out·(h / scale), then cap · tanh(logits / cap).
        let mut head_work = vec![WorkCounters::default(); needs.len()];
        let n_hidden = needs.iter().filter(|logits| matches!(logits, LogitsFor::Hidden)).count();
        assert!(n_hidden == 0 || n_hidden == needs.len(), "a batch cannot mix hidden states with logits");
        let outputs = if n_hidden == needs.len() {
            hidden
        } else {
            let matrix = self.output.as_ref().unwrap_or(&self.embedding);
            let divisor = config.scales.logit;
            if divisor != 1.0 {
                hidden.iter_mut().for_each(|h| *h /= divisor);
            }
            let mut logits = self.head.logits(team, matrix, &hidden, &needs, &mut head_work)?;
            if let Some(cap) = config.softcap {
                team.for_each_chunk(&mut logits, config.vocab_size, |_, logits| team.kernels.softcap(logits, cap));
            }
            logits
        };

        // Each row gets an equal share of the work; its own part of the head's; and one more position in its cache.
        let share = record.work.share(rows.len());
        let mut head_work = head_work.into_iter();
        for row in rows {
            let head = if row.logits.any() { head_work.next() } else { None };
            caches[row.sequence].advance(share, head.unwrap_or_default());
        }
        Ok(outputs)
    }

    /// Writes the embeddings of the rows' tokens to `x`.
    fn embed(&self, team: &Team, rows: &[Row], x: &mut [f32]) -> Result<()> {
        let width = self.config.hidden_size;
        team.for_each_chunk(x, width, |i, x| self.embedding.dequantize(team.kernels, rows[i].id as usize, x));
        check_finite(x, width, |i, value| {
            format!("tensor '{}': row {} holds {value}; the file is broken", self.embedding.name(), rows[i].id)
        })
    }

    /// RMSNorm of every head's queries and keys.
    fn norm_heads(&self, team: &Team, block: &Block, q: &mut [f32], k: &mut [f32]) {
        let Config { head_dim, eps, .. } = self.config;
        let Some([q_gamma, k_gamma]) = &block.norms.heads else { return };
        let norm = |heads: &mut [f32], gamma: &[f32]| {
            heads.chunks_mut(head_dim).for_each(|head| team.kernels.rms_norm(head, gamma, eps));
        };
        team.for_each_pair(q, self.config.q_dim(), k, self.config.kv_dim(), |_, q, k| {
            norm(q, q_gamma);
            norm(k, k_gamma);
        });
    }

    /// `x = x + branch`; some architectures norm or scale the branch first.
    fn add_branch(&self, team: &Team, x: &mut [f32], branch: &mut [f32], norm: Option<&[f32]>) {
        let Config { hidden_size, eps, scales, .. } = self.config;
        if let Some(gamma) = norm {
            team.for_each_chunk(branch, hidden_size, |_, row| team.kernels.rms_norm(row, gamma, eps));
        }
        scale(team, branch, hidden_size, scales.residual);
        team.for_each_chunk(x, hidden_size, |i, x| team.kernels.add(x, &branch[i * hidden_size..][..hidden_size]));
    }

    /// RMSNorm of those rows of `x` that need something, and what they need.
    fn output_norm<'a>(&self, team: &Team, rows: &[Row<'a>], x: &[f32]) -> Result<(Vec<LogitsFor<'a>>, Vec<f32>)> {
        let (width, eps) = (self.config.hidden_size, self.config.eps);
        let needs: Vec<LogitsFor> = rows.iter().map(|row| row.logits).filter(LogitsFor::any).collect();
        let mut hidden = try_with_capacity(needs.len() * width)?;
        for (_, x) in rows.iter().zip(x.chunks(width)).filter(|(row, _)| row.logits.any()) {
            hidden.extend_from_slice(x);
        }
        team.for_each_chunk(&mut hidden, width, |_, row| team.kernels.rms_norm(row, &self.output_norm, eps));
        Ok((needs, hidden))
    }
}

/// `normed = RMSNorm(x)`, and `out = W·normed + b` for some projections. If they have norms of their inputs, each reads
/// `normed_in = RMSNorm(normed)` instead.
fn norm_and_project(
    inputs: &mut InputBuilder,
    x: &[f32],
    gamma: &[f32],
    [normed, normed_in]: [&mut [f32]; 2],
    projections: &mut [(&Linear, &mut [f32])],
    record: &mut Recorder,
) -> Result<()> {
    let team = inputs.team;
    if projections.iter().all(|(linear, _)| linear.norm.is_none()) {
        let input = inputs.norm(x, gamma, normed)?;
        projections.iter_mut().for_each(|(linear, out)| linear.apply(team, &input, out, record));
        return Ok(());
    }
    inputs.norm_floats(x, gamma, normed);
    for (linear, out) in projections {
        let gamma = linear.norm.as_deref().expect("a file has such norms for all projections or none");
        let input = inputs.norm(normed, gamma, normed_in)?;
        linear.apply(team, &input, out, record);
    }
    Ok(())
}

/// `x = x · factor` for rows of `width` values.
fn scale(team: &Team, x: &mut [f32], width: usize, factor: f32) {
    if factor != 1.0 {
        team.for_each_chunk(x, width, |_, x| x.iter_mut().for_each(|x| *x *= factor));
    }
}
