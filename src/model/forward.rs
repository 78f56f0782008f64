//! The forward pass: one function for a chunk of a prompt, one decode step, and many sequences at once.

use super::config::Config;
use super::finite::check_finite;
use super::input::InputBuilder;
use super::pass::Pass;
use super::scratch::{Buffers, Scratch};
use super::trace::{Recorder, Trace};
use super::{KvCache, LogitsFor, Mixer, Model, Outputs, Row, cache, check_cancelled};
use crate::error::Result;
use crate::kernel::Team;
use crate::machine::counters::WorkCounters;
use crate::machine::memory::try_with_capacity;
use crate::ops::rope::Rope;
use std::sync::atomic::AtomicBool;

impl Model {
    /// Computes a batch: appends the keys and values of every row to the cache of its sequence, and returns what the rows
    /// asked for.
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
    ) -> Result<Outputs> {
        if rows.is_empty() {
            return Ok(Outputs::default());
        }
        let config = &self.config;
        let positions = cache::assign_positions(caches, rows)?;
        let cos_sin_of = |rope: &Rope| rope.cos_sin(positions.iter().map(|at| at.position));
        let cos_sin = cos_sin_of(&self.rope);
        let window_cos_sin = self.window_rope.as_ref().map(cos_sin_of);
        let mut spare = std::mem::take(&mut scratch.spare_states);
        let recurrences = cache::recurrences(caches, &positions, &mut spare)?;
        let (buffers, int8, grouped) = scratch.buffers(config, rows.len())?;
        let (form, rounds_dense, eps) = (self.input_form, self.rounds_dense, config.eps);
        let inputs = InputBuilder { team, n_tokens: rows.len(), form, rounds_dense, eps, int8, grouped };
        let record = Recorder::new(trace);
        let mut pass = Pass { team, inputs, buffers, caches, positions, cos_sin, window_cos_sin, recurrences, record };

        // Embedding: x = E[id], scaled in some architectures.
        self.embed(team, rows, pass.buffers.x)?;
        scale(team, pass.buffers.x, config.hidden_size, config.scales.embedding);

        for (layer, block) in self.layers.iter().enumerate() {
            check_cancelled(cancel)?;
            pass.record.begin_layer(layer, pass.buffers.x);
            // Attention or delta net, and residual: x = x + mixer(RMSNorm(x)).
            match &block.mixer {
                Mixer::Attention(attention) => attention.run(self, layer, &block.norms.attn, &mut pass)?,
                Mixer::DeltaNet(net) => {
                    let nets = config.delta_nets.as_ref().expect("a layer is one");
                    net.run(nets, &block.norms.attn, &mut pass)?;
                }
            }
            let Buffers { x, branch, .. } = &mut pass.buffers;
            self.add_branch(team, x, branch, block.norms.post_attn.as_deref());

            // Feed-forward network, and residual: x = x + W_down·RMSNorm(act(W_gate·f) · W_up·f), f = RMSNorm(x).
            self.feed_forward(layer, block, &mut pass)?;
            let Buffers { x, branch, .. } = &mut pass.buffers;
            self.add_branch(team, x, branch, block.norms.post_ffn.as_deref());
        }

        let Pass { buffers, caches, positions, recurrences, mut record, .. } = pass;
        let x = &*buffers.x;
        check_cancelled(cancel)?;
        // NaN propagates through every operation above. So does an infinity, except where its limit is finite: relu²
        // and exp map −∞ to 0. So this one check is enough.
        check_finite(x, config.hidden_size, |i, value| {
            format!("position {}: the last layer gives {value}; some weights are out of range", positions[i].position)
        })?;

        // Output norm: h = RMSNorm(x), for the rows whose logits or hidden state are wanted.
        let hidden = self.output_norm(team, rows, x, |row| matches!(row.logits, LogitsFor::Hidden))?;
        let mut h = self.output_norm(team, rows, x, |row| row.logits.any_logits())?;
        record.output(&h);
        // Output head: logits = W_out·h, or in some architectures W_out·(h / scale), then cap · tanh(logits / cap).
        let needs: Vec<LogitsFor> = rows.iter().map(|row| row.logits).filter(LogitsFor::any_logits).collect();
        let mut head_work = vec![WorkCounters::default(); needs.len()];
        let mut logits = Vec::new();
        if !needs.is_empty() {
            let matrix = self.output.as_ref().unwrap_or(&self.embedding);
            let divisor = config.scales.logit;
            if divisor != 1.0 {
                h.iter_mut().for_each(|h| *h /= divisor);
            }
            if let Some(rotation) = &self.head_rotation {
                team.for_each_chunk(&mut h, config.hidden_size, |_, row| rotation.apply(team.kernels, row));
            }
            logits = self.head.logits(team, matrix, &h, &needs, &mut head_work)?;
            if let Some(cap) = config.softcap {
                team.for_each_chunk(&mut logits, config.vocab_size, |_, logits| team.kernels.softcap(logits, cap));
            }
        }

        // Each row gets an equal share of the work; its own part of the head's; and one more position in its cache.
        let share = record.work.share(rows.len());
        let mut head_work = head_work.into_iter();
        for row in rows {
            let head = if row.logits.any_logits() { head_work.next() } else { None };
            caches[row.sequence].advance(share, head.unwrap_or_default());
        }
        for (cache, recurrence) in caches.iter_mut().zip(recurrences) {
            recurrence.into_iter().for_each(|recurrence| cache.take_states(recurrence, &mut spare));
        }
        spare.shrink(caches.len());
        scratch.spare_states = spare;
        Ok(Outputs { logits, hidden })
    }

    /// Writes the embeddings of the rows' tokens to `x`.
    fn embed(&self, team: &Team, rows: &[Row], x: &mut [f32]) -> Result<()> {
        let width = self.config.hidden_size;
        team.for_each_chunk(x, width, |i, x| {
            self.embedding.dequantize(team.kernels, rows[i].id as usize, x);
            if let Some(rotation) = &self.embedding_rotation {
                rotation.invert(team.kernels, x);
            }
        });
        check_finite(x, width, |i, value| {
            format!("tensor '{}': row {} holds {value}; the file is broken", self.embedding.name(), rows[i].id)
        })
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

    /// RMSNorm of the rows of `x` that are wanted.
    fn output_norm(&self, team: &Team, rows: &[Row], x: &[f32], wanted: impl Fn(&Row) -> bool) -> Result<Vec<f32>> {
        let (width, eps) = (self.config.hidden_size, self.config.eps);
        let mut hidden = try_with_capacity(rows.iter().filter(|row| wanted(row)).count() * width)?;
        for (_, x) in rows.iter().zip(x.chunks(width)).filter(|(row, _)| wanted(row)) {
            hidden.extend_from_slice(x);
        }
        team.for_each_chunk(&mut hidden, width, |_, row| team.kernels.rms_norm(row, &self.output_norm, eps));
        Ok(hidden)
    }
}

/// `x = x · factor` for rows of `width` values.
fn scale(team: &Team, x: &mut [f32], width: usize, factor: f32) {
    if factor != 1.0 {
        team.for_each_chunk(x, width, |_, x| x.iter_mut().for_each(|x| *x *= factor));
    }
}
