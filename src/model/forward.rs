//! The forward pass: one function for a chunk of a prompt, one decode step, and many conversations at once.

use super::config::Activation;
use super::head::LogitsFor;
use super::linear::Input;
use super::{ActQuant, KvCache, Model, cache};
use crate::error::{Error, Result};
use crate::kernel::Team;
use crate::kernel::ternary::Activations;
use crate::machine::counters::WorkCounters;
use crate::machine::memory::{try_grow, try_zeroed};
use crate::ops::attention::{AttentionRow, attention};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The buffers of a pass, kept for the next one: fresh memory costs more than filling it.
#[derive(Default)]
pub struct Scratch {
    x: Vec<f32>,
    normed: Vec<f32>,
    branch: Vec<f32>,
    q: Vec<f32>,
    mixed: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    ints: Activations,
}

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
    pub logits: LogitsFor<'a>,
}

impl Model {
    /// Computes a batch: appends every row's keys and values to its cache and returns the logits of the rows that
    /// want them, `vocab` floats each, in order; or their states.
    ///
    /// `cancel` is read between layers; an abandoned pass leaves the caches at their former lengths. Ids are below
    /// the vocabulary's size.
    pub fn forward(
        &self,
        team: &Team,
        caches: &mut [&mut KvCache],
        rows: &[Row],
        scratch: &mut Scratch,
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
        let cos_sin = self.rope.cos_sin(rows.iter().map(|row| row.position));

        let x = try_grow(&mut scratch.x, n * config.hidden_size)?;
        let normed = try_grow(&mut scratch.normed, n * config.hidden_size)?;
        let branch = try_grow(&mut scratch.branch, n * config.hidden_size)?;
        let q = try_grow(&mut scratch.q, n * config.q_width())?;
        let mixed = try_grow(&mut scratch.mixed, n * config.q_width())?;
        let k = try_grow(&mut scratch.k, n * config.kv_width())?;
        let v = try_grow(&mut scratch.v, n * config.kv_width())?;
        let gate = try_grow(&mut scratch.gate, n * config.intermediate_size)?;
        let up = try_grow(&mut scratch.up, n * config.intermediate_size)?;
        let ints = &mut scratch.ints;
        team.for_each_chunk(x, config.hidden_size, |i, x| self.embedding.dequantize(team, rows[i].id as usize, x));
        check_finite(x, config.hidden_size, |i, value| {
            format!("tensor 'token_embd.weight': row {} holds {value}; the file is broken", rows[i].id)
        })?;

        let width = config.hidden_size;
        let mut work = WorkCounters::default();
        for (layer, block) in self.layers.iter().enumerate() {
            if cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let a = self.input(team, n, x, normed, ints, |i, x, normed| {
                if layer > 0 {
                    team.kernels.add(x, &branch[i * width..][..width]);
                }
                team.kernels.rms_norm(x, &block.attn_norm, eps, normed);
            })?;
            block.q.apply(team, &a, q, &mut work);
            block.k.apply(team, &a, k, &mut work);
            block.v.apply(team, &a, v, &mut work);
            team.for_each_pair(q, config.q_width(), k, config.kv_width(), |i, q, k| {
                self.rope.apply(team, &cos_sin, i, q, config.head_dim);
                self.rope.apply(team, &cos_sin, i, k, config.head_dim);
            });
            cache::write(team, caches, rows, layer, k, v);
            let rows_seen: Vec<AttentionRow> = rows
                .iter()
                .map(|row| AttentionRow { pages: caches[row.sequence].pages(), position: row.position })
                .collect();
            let start = Instant::now();
            attention(team, caches[rows[0].sequence].shape(), layer, &rows_seen, q, mixed);
            work.attention += 1;
            work.attention_ns += start.elapsed().as_nanos() as u64;
            let a = self.input(team, n, mixed, q, ints, |_, mixed, q| match &block.attn_sub_norm {
                Some(gamma) => team.kernels.rms_norm(mixed, gamma, eps, q),
                None => q.copy_from_slice(mixed),
            })?;
            block.o.apply(team, &a, branch, &mut work);

            let f = self.input(team, n, x, normed, ints, |i, x, normed| {
                team.kernels.add(x, &branch[i * width..][..width]);
                team.kernels.rms_norm(x, &block.ffn_norm, eps, normed);
            })?;
            block.gate.apply(team, &f, gate, &mut work);
            block.up.apply(team, &f, up, &mut work);
            let f = self.input(team, n, gate, up, ints, |_, gate, up| {
                match config.activation {
                    Activation::Relu2 => team.kernels.relu2_mul(gate, up),
                    Activation::Silu => team.kernels.silu_mul(gate, up),
                }
                match &block.ffn_sub_norm {
                    Some(gamma) => team.kernels.rms_norm(gate, gamma, eps, up),
                    None => up.copy_from_slice(gate),
                }
            })?;
            block.down.apply(team, &f, branch, &mut work);
        }
        team.for_each_chunk(x, width, |i, x| team.kernels.add(x, &branch[i * width..][..width]));

        if cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        // Nothing hides a value that is not finite from here: each operation hands it on.
        check_finite(x, config.hidden_size, |i, value| {
            format!("position {}: the layers end in {value}; their weights are out of range", rows[i].position)
        })?;
        let start = Instant::now();
        let (logits, exact) = self.head_logits(team, rows, x)?;
        // Rows of several sequences share a pass, and so its time.
        let head_ns = start.elapsed().as_nanos() as u64 / exact.len().max(1) as u64;
        let [ternary_ns, dense_ns, attention_ns] =
            [work.ternary_ns, work.dense_ns, work.attention_ns].map(|all| all / n as u64);
        let mut exact = exact.into_iter();
        for row in rows {
            let head = (row.logits.any() && !matches!(row.logits, LogitsFor::Hidden)) as u64;
            let logits = row.logits.any().then(|| exact.next()).flatten().unwrap_or(0) as u64;
            let head_ns = head * head_ns;
            caches[row.sequence].advance(WorkCounters {
                head,
                logits,
                head_ns,
                ternary_ns,
                dense_ns,
                attention_ns,
                ..work
            });
        }
        Ok(logits)
    }

    /// The input of projections: `fill(i, from, to)` writes each row of `to`, which is rounded while it is at hand.
    #[allow(clippy::too_many_arguments)]
    fn input<'a>(
        &self,
        team: &Team,
        n: usize,
        from: &mut [f32],
        to: &'a mut [f32],
        ints: &'a mut Activations,
        fill: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
    ) -> Result<Input<'a>> {
        let cols = to.len() / n;
        if self.verdict.act_quant == ActQuant::None {
            team.for_each_pair(from, cols, to, cols, fill);
            return Ok(Input { floats: (&*to).into(), ints: None });
        }
        let pairs = from.chunks_mut(cols).zip(to.chunks_mut(cols));
        let mut rows: Vec<_> = pairs.zip(ints.rows(n, cols)?).collect();
        team.for_each_chunk(&mut rows, 1, |i, rows| {
            for ((from, to), (q, scale)) in rows {
                fill(i, from, to);
                **scale = team.kernels.quantize(to, q);
            }
        });
        let floats = if self.some_dense { ints.dequantize().into() } else { (&*to).into() };
        Ok(Input { floats, ints: Some(ints) })
    }

    /// The logits of the rows that want them, and how many of each were computed exactly; or the states.
    fn head_logits(&self, team: &Team, rows: &[Row], x: &[f32]) -> Result<(Vec<f32>, Vec<usize>)> {
        let some = rows.iter().zip(x.chunks(self.config.hidden_size)).filter(|(row, _)| row.logits.any());
        let (wanted, x): (Vec<LogitsFor>, Vec<&[f32]>) = some.map(|(row, x)| (row.logits, x)).unzip();
        let x = x.concat();
        let mut normed = try_zeroed(x.len())?;
        let (width, eps) = (self.config.hidden_size, self.config.eps);
        team.for_each_chunk(&mut normed, width, |i, normed| {
            team.kernels.rms_norm(&x[i * width..][..width], &self.output_norm, eps, normed);
        });
        if wanted.iter().all(|wanted| matches!(wanted, LogitsFor::Hidden)) {
            return Ok((normed, Vec::new()));
        }
        let matrix = self.output.as_ref().unwrap_or(&self.embedding);
        self.head.logits(team, matrix, &normed, &wanted)
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
