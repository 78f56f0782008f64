//! The forward pass: one function for a chunk of a prompt, one decode step, and many sequences at once.

use super::finite::check_finite;
use super::input::InputBuilder;
use super::scratch::{Buffers, Scratch};
use super::trace::{Recorder, Trace};
use super::{KvCache, LogitsFor, Model, Row, cache, check_cancelled};
use crate::error::Result;
use crate::kernel::Team;
use crate::machine::counters::WorkCounters;
use crate::machine::memory::try_with_capacity;
use crate::ops::attention::{AttentionBatch, attention};
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
        let cos_sin = self.rope.cos_sin(positions.iter().map(|at| at.position));
        let Buffers { x, normed, q, k, v, attended, gate, up, branch, int8 } = scratch.buffers(config, rows.len())?;
        let (act_quant, has_dense, eps) = (self.act_quant.chosen, self.has_dense, config.eps);
        let mut inputs = InputBuilder { team, n_tokens: rows.len(), act_quant, has_dense, eps, int8 };
        let mut record = Recorder::new(trace);

        // Embedding: x = E[id].
        self.embed(team, rows, x)?;

        for (layer, block) in self.layers.iter().enumerate() {
            check_cancelled(cancel)?;
            record.begin_layer(layer, x);

            // Attention norm: a = RMSNorm(x).
            let a = inputs.norm(x, &block.attn_norm, normed)?;
            // Queries, keys and values.
            block.q.apply(team, &a, q, &mut record);
            block.k.apply(team, &a, k, &mut record);
            block.v.apply(team, &a, v, &mut record);
            // Rotary position embedding.
            self.rope.rotate(team, &cos_sin, q, k);
            // The cache keeps keys and values; the attention reads them from there.
            cache::write(team, caches, &positions, layer, k, v);
            // Attention: softmax(q·kᵀ / √head_dim)·v.
            let attention_rows = cache::attention_rows(caches, &positions);
            let batch = AttentionBatch { shape: caches[rows[0].sequence].shape(), layer, rows: &attention_rows };
            attention(team, &batch, q, attended, &mut record.work);
            record.attention(team, &batch, q);
            // Sub-norm: a = RMSNorm(attended), or attended itself if the architecture has none.
            let a = inputs.sub_norm(attended, block.attn_sub_norm.as_deref())?;
            // Output projection and residual: x = x + W_o·a.
            block.o.apply(team, &a, branch, &mut record);
            add(team, x, branch, config.hidden_size);

            // Feed-forward norm: f = RMSNorm(x).
            let f = inputs.norm(x, &block.ffn_norm, normed)?;
            // Gate and up projections.
            block.gate.apply(team, &f, gate, &mut record);
            block.up.apply(team, &f, up, &mut record);
            record.ffn(team, config.activation, gate, up);
            // Activation and sub-norm: f = RMSNorm(act(gate) · up); without the norm if the architecture has none.
            let f = inputs.activate(config.activation, gate, up, block.ffn_sub_norm.as_deref())?;
            // Down projection and residual: x = x + W_down·f.
            block.down.apply(team, &f, branch, &mut record);
            add(team, x, branch, config.hidden_size);
        }

        check_cancelled(cancel)?;
        // NaN propagates through every operation above. So does an infinity, except where its limit is finite: relu²
        // and exp map −∞ to 0. So this one check is enough.
        check_finite(x, config.hidden_size, |i, value| {
            format!("position {}: the last layer gives {value}; some weights are out of range", positions[i].position)
        })?;

        // Output norm: h = RMSNorm(x), for the rows whose logits or hidden state are wanted.
        let (needs, hidden) = self.output_norm(team, rows, x)?;
        record.output(&hidden);
        // Output head: logits = W_out·h.
        let mut head_work = vec![WorkCounters::default(); needs.len()];
        let n_hidden = needs.iter().filter(|logits| matches!(logits, LogitsFor::Hidden)).count();
        assert!(n_hidden == 0 || n_hidden == needs.len(), "a batch cannot mix hidden states with logits");
        let outputs = if n_hidden == needs.len() {
            hidden
        } else {
            let matrix = self.output.as_ref().unwrap_or(&self.embedding);
            self.head.logits(team, matrix, &hidden, &needs, &mut head_work)?
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

/// `x = x + y` for rows of `width` values.
fn add(team: &Team, x: &mut [f32], y: &[f32], width: usize) {
    team.for_each_chunk(x, width, |i, x| team.kernels.add(x, &y[i * width..][..width]));
}
