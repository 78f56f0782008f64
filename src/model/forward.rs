//! The forward pass: one function for a chunk of a prompt, one decode step, and many conversations at once.

use super::config::Activation;
use super::head::Wanted;
use super::linear::Input;
use super::{ActQuant, KvCache, Model, Work, cache};
use crate::error::{Error, Result};
use crate::kernel::Kernels;
use crate::kernel::memory::zeros;
use crate::kernel::pool::Team;
use crate::ops::attention::{Sight, attention};
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
        team.for_each_chunk(&mut x, config.width, |i, x| self.embedding.widen(kernels, rows[i].id as usize, x));
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

        let width = config.width;
        let mut work = Work::default();
        for (layer, block) in self.layers.iter().enumerate() {
            if cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            team.for_each_pair(&mut x, width, &mut normed, width, |i, x, normed| {
                if layer > 0 {
                    kernels.add(x, &branch[i * width..][..width]);
                }
                kernels.rms_norm(x, &block.attn_norm, eps, normed);
            });
            let a = self.input(kernels, team, &normed, n);
            block.q.apply(kernels, team, &a, &mut q, &mut work);
            block.k.apply(kernels, team, &a, &mut k, &mut work);
            block.v.apply(kernels, team, &a, &mut v, &mut work);
            team.for_each_pair(&mut q, config.q_width(), &mut k, config.kv_width(), |i, q, k| {
                self.rope.apply(kernels, &turns, i, q, config.head_dim);
                self.rope.apply(kernels, &turns, i, k, config.head_dim);
            });
            cache::write(team, caches, rows, layer, &k, &v);
            let sights: Vec<Sight> =
                rows.iter().map(|row| Sight { pages: caches[row.sequence].pages(), position: row.position }).collect();
            attention(kernels, team, caches[rows[0].sequence].shape(), layer, &sights, &q, &mut mixed);
            work.attention += 1;
            if let Some(gamma) = &block.attn_sub_norm {
                self.norm(kernels, team, &mixed, gamma, &mut q);
                block.o.apply(kernels, team, &self.input(kernels, team, &q, n), &mut branch, &mut work);
            } else {
                block.o.apply(kernels, team, &self.input(kernels, team, &mixed, n), &mut branch, &mut work);
            }

            team.for_each_pair(&mut x, width, &mut normed, width, |i, x, normed| {
                kernels.add(x, &branch[i * width..][..width]);
                kernels.rms_norm(x, &block.ffn_norm, eps, normed);
            });
            let f = self.input(kernels, team, &normed, n);
            block.gate.apply(kernels, team, &f, &mut gate, &mut work);
            block.up.apply(kernels, team, &f, &mut up, &mut work);
            team.for_each_pair(&mut gate, config.ffn, &mut up, config.ffn, |_, gate, up| {
                match config.activation {
                    Activation::Relu2 => kernels.relu2_mul(gate, up),
                    Activation::Silu => kernels.silu_mul(gate, up),
                }
                if let Some(gamma) = &block.ffn_sub_norm {
                    kernels.rms_norm(gate, gamma, eps, up);
                }
            });
            let inner = if block.ffn_sub_norm.is_some() { &up } else { &gate };
            block.down.apply(kernels, team, &self.input(kernels, team, inner, n), &mut branch, &mut work);
        }
        team.for_each_chunk(&mut x, width, |i, x| kernels.add(x, &branch[i * width..][..width]));

        if cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        // Nothing hides a value that is not finite from here: each operation hands it on.
        check_finite(&x, config.width, |i, value| {
            format!("position {}: the layers end in {value}; their weights are out of range", rows[i].position)
        })?;
        let (logits, exact) = self.head_logits(kernels, team, rows, &x)?;
        let mut exact = exact.into_iter();
        for row in rows {
            let logits = row.logits.any().then(|| exact.next()).flatten().unwrap_or(0) as u64;
            caches[row.sequence].advance(Work { head: row.logits.any() as u64, logits, ..work });
        }
        Ok(logits)
    }

    /// `out = RMSNorm(x)` of every row.
    fn norm(&self, kernels: &Kernels, team: &Team, x: &[f32], gamma: &[f32], out: &mut [f32]) {
        let n = gamma.len();
        team.for_each_chunk(out, n, |i, out| kernels.rms_norm(&x[i * n..][..n], gamma, self.config.eps, out));
    }

    /// `n` tokens' activations as the projections take them.
    fn input<'a>(&self, kernels: &Kernels, team: &Team, x: &'a [f32], n: usize) -> Input<'a> {
        match self.verdict.act_quant {
            ActQuant::Int8 => Input::quantized(kernels, team, x, x.len() / n, self.some_dense),
            ActQuant::None => Input::plain(x),
        }
    }

    /// The logits of the rows that want them, and how many of each were computed exactly.
    fn head_logits(&self, kernels: &Kernels, team: &Team, rows: &[Row], x: &[f32]) -> Result<(Vec<f32>, Vec<usize>)> {
        let some = rows.iter().zip(x.chunks(self.config.width)).filter(|(row, _)| row.logits.any());
        let (wanted, x): (Vec<Wanted>, Vec<&[f32]>) = some.map(|(row, x)| (row.logits, x)).unzip();
        let x = x.concat();
        let mut normed = zeros(x.len())?;
        self.norm(kernels, team, &x, &self.output_norm, &mut normed);
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
