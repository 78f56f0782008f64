//! The forward pass: one function for a chunk of a prompt, one decode step, and many conversations at once.

use super::config::Activation;
use super::head::Wanted;
use super::linear::Input;
use super::{ActQuant, KvCache, Model, Work};
use crate::error::{Error, Result};
use crate::kernel::Kernels;
use crate::kernel::machine::zeros;
use crate::kernel::pool::Team;
use crate::ops::attention::{Sight, attention};
use crate::ops::{add, relu2_mul, rms_norm};
use std::sync::atomic::{AtomicBool, Ordering};

/// One row of a batch.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// Which of the caches it belongs to.
    pub sequence: usize,
    /// Where it stands: its cache's length, plus the number of its rows before this one.
    pub position: usize,
    /// The token.
    pub id: u32,
    /// Which of its logits are wanted.
    pub logits: Wanted<'a>,
}

impl Model {
    /// Computes a batch: appends every row's keys and values to its cache and returns the logits of the rows that
    /// want them, `vocab` floats each, in order.
    ///
    /// `cancel` is read between layers; an abandoned pass leaves the caches at their former lengths. Ids are below
    /// the vocabulary's size.
    pub fn forward(
        &self,
        kernels: &Kernels,
        team: &Team,
        caches: &mut [&mut KvCache],
        rows: &[Row],
        cancel: &AtomicBool,
    ) -> Result<Vec<f32>> {
        let config = &self.config;
        let (n, eps) = (rows.len(), config.eps);
        if n == 0 {
            return Ok(Vec::new());
        }
        for row in rows {
            caches[row.sequence].reserve(row.position + 1)?;
        }
        let turns = self.rope.turns(rows.iter().map(|row| row.position));

        let floats = |channels: usize| zeros::<f32>(n.saturating_mul(channels));
        let mut x = floats(config.width)?;
        team.for_each_chunk(&mut x, config.width, |i, x| {
            self.embedding.widen(kernels, rows[i].id as usize, x)
        });
        check_finite(&x, config.width, |i, value| {
            format!("tensor 'token_embd.weight': row {} holds {value}; the file is broken", rows[i].id)
        })?;
        let mut normed = floats(config.width)?;
        let mut branch = floats(config.width)?;
        let mut q = floats(config.q_width())?;
        let mut mixed = floats(config.q_width())?;
        let mut k = floats(config.kv_width())?;
        let mut v = floats(config.kv_width())?;
        let mut gate = floats(config.ffn)?;
        let mut up = floats(config.ffn)?;

        let mut work = Work::default();
        for (layer, block) in self.layers.iter().enumerate() {
            if cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            rms_norm(kernels, team, &x, &block.attn_norm, eps, &mut normed);
            let a = self.input(kernels, team, &normed, n);
            block.q.apply(kernels, team, &a, &mut q, &mut work);
            block.k.apply(kernels, team, &a, &mut k, &mut work);
            block.v.apply(kernels, team, &a, &mut v, &mut work);
            for (i, row) in rows.iter().enumerate() {
                let k = &mut k[i * config.kv_width()..][..config.kv_width()];
                self.rope.apply(
                    &turns,
                    i,
                    &mut q[i * config.q_width()..][..config.q_width()],
                    config.head_dim,
                );
                self.rope.apply(&turns, i, k, config.head_dim);
                caches[row.sequence].write(
                    layer,
                    row.position,
                    k,
                    &v[i * config.kv_width()..][..config.kv_width()],
                );
            }
            let sights: Vec<Sight> = rows
                .iter()
                .map(|row| Sight { pages: caches[row.sequence].pages(), position: row.position })
                .collect();
            attention(kernels, team, caches[rows[0].sequence].shape(), layer, &sights, &q, &mut mixed);
            work.attention += 1;
            if let Some(gamma) = &block.attn_sub_norm {
                rms_norm(kernels, team, &mixed, gamma, eps, &mut q);
                block.o.apply(kernels, team, &self.input(kernels, team, &q, n), &mut branch, &mut work);
            } else {
                block.o.apply(kernels, team, &self.input(kernels, team, &mixed, n), &mut branch, &mut work);
            }
            add(&mut x, &branch);

            rms_norm(kernels, team, &x, &block.ffn_norm, eps, &mut normed);
            let f = self.input(kernels, team, &normed, n);
            block.gate.apply(kernels, team, &f, &mut gate, &mut work);
            block.up.apply(kernels, team, &f, &mut up, &mut work);
            team.for_each_chunk(&mut gate, config.ffn, |i, gate| {
                let up = &up[i * config.ffn..][..config.ffn];
                match config.activation {
                    Activation::Relu2 => relu2_mul(gate, up),
                    Activation::Silu => kernels.silu_mul(gate, up),
                }
            });
            if let Some(gamma) = &block.ffn_sub_norm {
                rms_norm(kernels, team, &gate, gamma, eps, &mut up);
                block.down.apply(kernels, team, &self.input(kernels, team, &up, n), &mut branch, &mut work);
            } else {
                block.down.apply(kernels, team, &self.input(kernels, team, &gate, n), &mut branch, &mut work);
            }
            add(&mut x, &branch);
        }

        if cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        // Nothing hides a value that is not finite from here: each operation hands it on.
        check_finite(&x, config.width, |i, value| {
            format!(
                "position {}: the layers end in {value}; their weights are out of range",
                rows[i].position
            )
        })?;
        let (logits, exact) = self.head_logits(kernels, team, rows, &x)?;
        let mut exact = exact.into_iter();
        for row in rows {
            let logits = row.logits.any().then(|| exact.next()).flatten().unwrap_or(0) as u64;
            caches[row.sequence].advance(Work { head: row.logits.any() as u64, logits, ..work });
        }
        Ok(logits)
    }

    /// `n` tokens' activations as the projections take them.
    fn input<'a>(&self, kernels: &Kernels, team: &Team, x: &'a [f32], n: usize) -> Input<'a> {
        match self.verdict.act_quant {
            ActQuant::Int8 => Input::quantized(kernels, team, x, x.len() / n, self.some_dense),
            ActQuant::None => Input::plain(x),
        }
    }

    /// The logits of the rows that want them, and how many of each were computed exactly.
    fn head_logits(
        &self,
        kernels: &Kernels,
        team: &Team,
        rows: &[Row],
        x: &[f32],
    ) -> Result<(Vec<f32>, Vec<usize>)> {
        let some = rows.iter().zip(x.chunks(self.config.width)).filter(|(row, _)| row.logits.any());
        let (wanted, x): (Vec<Wanted>, Vec<&[f32]>) = some.map(|(row, x)| (row.logits, x)).unzip();
        let x = x.concat();
        let mut normed = zeros(x.len())?;
        rms_norm(kernels, team, &x, &self.output_norm, self.config.eps, &mut normed);
        let matrix = self.output.as_ref().unwrap_or(&self.embedding);
        self.head.logits(kernels, team, matrix, &normed, &wanted)
    }
}

/// An error of the model if any value is not finite; `what` is told in which group of `len` it is.
pub(super) fn check_finite(x: &[f32], len: usize, what: impl Fn(usize, f32) -> String) -> Result<()> {
    // Without an early exit this is a loop over vectors.
    if x.iter().fold(true, |all, x| all & x.is_finite()) {
        return Ok(());
    }
    let at = x.iter().position(|x| !x.is_finite()).unwrap_or_default();
    Err(Error::Model(what(at / len, x[at])))
}
