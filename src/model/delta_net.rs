//! The gated delta net of a layer (arXiv 2412.06464), from the residual stream to what it adds to it.
//!
//! The rule is computed position by position, also for a prompt, and never in the reference's blocks of 64 positions:
//! so the order of its sums does not depend on how a text is cut.

use super::hybrid::DeltaNets;
use super::linear::{Dense, Linear};
use super::pass::Pass;
use super::state::Recurrence;
use crate::error::Result;
use crate::kernel::Team;
use crate::kernel::delta_net::{STATE_BLOCK, STATE_BLOCKS};
use crate::machine::clock::Instant;

/// The weights of a layer's gated delta net.
pub(super) struct DeltaNet {
    /// Queries, keys and values, before the convolution.
    pub qkv: Linear,
    /// The gate of the output.
    pub gate: Linear,
    /// The decay, before [`decay`].
    pub alpha: Dense,
    /// The logit of β.
    pub beta: Dense,
    /// Output projection.
    pub out: Linear,
    /// −exp(A_log) and the number that is added to alpha, for each value head.
    pub rates: Vec<(f32, f32)>,
    /// The weights of the convolution, `[tap][channel]`, the oldest tap first.
    pub conv: Vec<f32>,
    /// RMSNorm of every head's output.
    pub norm: Vec<f32>,
    /// The index of its part of a recurrent state.
    pub state_layer: usize,
    /// Where the output of each value head stands in the input of the output projection.
    pub places: Vec<usize>,
}

/// Value channels of a task of the delta rule.
const TASK_CHANNELS: usize = STATE_BLOCKS * STATE_BLOCK;
/// Heads of a task of the convolution.
const TASK_HEADS: usize = 8;

/// The delta rule for some value channels of a head, for rows of one sequence.
struct RuleTask<'a> {
    rows: &'a [usize],
    head: usize,
    /// The first of its channels in the head.
    first: usize,
    before: Option<&'a [f32]>,
    state: &'a mut [f32],
    /// `[row][channel]`.
    read: &'a mut [f32],
}

impl DeltaNet {
    /// `branch = W_out·(RMSNorm(rule(conv(W_qkv·a))) · silu(W_gate·a))` for `a = RMSNorm(x)`, and the next states.
    pub fn run(&self, nets: &DeltaNets, gamma: &[f32], pass: &mut Pass) -> Result<()> {
        let Pass { team, inputs, buffers, recurrences, record, .. } = pass;
        let n_rows = inputs.n_tokens;
        let value_dim = nets.value_dim();

        // Norm: a = RMSNorm(x). The rates α and β of every value head, from a before any rotation or rounding.
        inputs.norm_floats(buffers.x, gamma, buffers.normed);
        let start = Instant::now();
        self.alpha.matmul(team, buffers.normed, buffers.decay);
        self.beta.matmul(team, buffers.normed, buffers.beta);
        record.work.dense += n_rows as u64;
        record.work.dense_ns += start.elapsed().as_nanos() as u64;
        self.finish_rates(team, buffers.decay, buffers.beta);
        // Queries, keys, values and the gate: W·a.
        let mixed = &mut buffers.mixed[..n_rows * nets.channels()];
        let gate = &mut buffers.output_gate[..n_rows * value_dim];
        let a = inputs.sub_norm(buffers.normed, None, self.qkv.rotation.as_deref())?;
        self.qkv.apply(team, &a, mixed, record);
        self.gate.apply(team, &a, gate, record);

        let start = Instant::now();
        // Causal convolution and SiLU; queries and keys of length 1, queries divided by √head_dim.
        self.convolve(team, nets, recurrences, mixed, buffers.convolved);
        self.keep_history(team, nets, recurrences, mixed);
        // The rule: S = a·S + k·(β·(v − a·Sᵀk))ᵀ, and Sᵀ·q.
        let parts = self.rule(team, nets, recurrences, [buffers.convolved, buffers.decay, buffers.beta], buffers.read);
        record.work.attention += n_rows as u64;
        record.work.attention_ns += start.elapsed().as_nanos() as u64;

        // Norm of every head, then its gate; and the output projection.
        let (read, eps, d) = (&*buffers.read, inputs.eps, nets.head_dim);
        let attended = &mut buffers.attended[..n_rows * value_dim];
        let gate = &*gate;
        let input = inputs.compute(attended, self.out.rotation.as_deref(), |row, out| {
            let mut gate = gate[row * value_dim..][..value_dim].to_vec();
            for (head, gate) in gate.chunks_mut(d).enumerate() {
                let out = &mut out[self.places[head] * d..][..d];
                parts[row].copy(read, head, out);
                team.kernels.rms_norm(out, &self.norm, eps);
                team.kernels.silu_mul(gate, out);
                out.copy_from_slice(gate);
            }
        })?;
        self.out.apply(team, &input, buffers.branch, record);
        Ok(())
    }

    /// The decay `a = exp(rate · softplus(alpha + dt))` and the strength `β = sigmoid(beta)` of every value head, in
    /// binary64, rounded once.
    fn finish_rates(&self, team: &Team, decay: &mut [f32], beta: &mut [f32]) {
        let heads = self.rates.len();
        team.for_each_pair(decay, heads, beta, heads, |_, decay, beta| {
            for ((decay, beta), (rate, dt)) in decay.iter_mut().zip(beta).zip(&self.rates) {
                let x = (*decay + dt) as f64;
                let softplus = if x > 20.0 { x } else { libm::log1p(libm::exp(x)) };
                *decay = libm::exp(*rate as f64 * softplus) as f32;
                *beta = (1.0 / (1.0 + libm::exp(-*beta as f64))) as f32;
            }
        });
    }

    /// The convolution and SiLU of every channel; then queries and keys get the length 1, queries times 1/√head_dim.
    fn convolve(
        &self,
        team: &Team,
        nets: &DeltaNets,
        recurrences: &[Option<Recurrence>],
        mixed: &[f32],
        convolved: &mut [f32],
    ) {
        let (d, channels, taps) = (nets.head_dim, nets.channels(), nets.conv);
        let (n_heads, scale) = (channels / d, (1.0 / (d as f64).sqrt()) as f32);
        let nothing = vec![0f32; channels];
        // What each row's taps read: earlier rows of its sequence, or inputs of earlier passes.
        let mut inputs: Vec<Vec<&[f32]>> = vec![Vec::new(); mixed.len() / channels];
        for recurrence in recurrences.iter().flatten() {
            let kept = recurrence.before.as_ref().map(|state| state.history(self.state_layer));
            let rows: Vec<usize> = recurrence.rows().collect();
            for (i, row) in rows.iter().enumerate() {
                inputs[*row] = (0..taps)
                    .map(|tap| match (i + tap).checked_sub(taps - 1) {
                        Some(earlier) => &mixed[rows[earlier] * channels..][..channels],
                        None => kept.map_or(&nothing[..], |kept| &kept[(i + tap) * channels..][..channels]),
                    })
                    .collect();
            }
        }
        let weights: Vec<&[f32]> = self.conv.chunks(channels).collect();
        let mut heads: Vec<&mut [f32]> = convolved.chunks_mut(d).collect();
        team.for_each_chunk(&mut heads, TASK_HEADS, |task, outs| {
            for (i, out) in outs.iter_mut().enumerate() {
                let (row, head) = ((task * TASK_HEADS + i) / n_heads, (task * TASK_HEADS + i) % n_heads);
                team.kernels.convolve_silu(&of_head(&inputs[row], head, d), &of_head(&weights, head, d), out);
                if head < 2 * nets.n_key_heads {
                    team.kernels.unit_length(out, if head < nets.n_key_heads { scale } else { 1.0 });
                }
            }
        });
    }

    /// Stores the last inputs of the convolution in every state that the pass makes.
    fn keep_history(&self, team: &Team, nets: &DeltaNets, recurrences: &mut [Option<Recurrence>], mixed: &[f32]) {
        let (channels, kept) = (nets.channels(), nets.conv - 1);
        let mut copies: Vec<(&mut [f32], Option<&[f32]>)> = Vec::new();
        for recurrence in recurrences.iter_mut().flatten() {
            let rows: Vec<usize> = recurrence.rows().collect();
            let before = recurrence.before.as_ref().map(|state| state.history(self.state_layer));
            let mut end = 0;
            for segment in &mut recurrence.segments {
                end += segment.rows.len();
                let (history, _) = segment.state.layer_mut(self.state_layer);
                for (i, out) in history.chunks_mut(channels).enumerate() {
                    // The input `kept - i` positions before the end of the segment.
                    let source = match (end + i).checked_sub(kept) {
                        Some(earlier) => Some(&mixed[rows[earlier] * channels..][..channels]),
                        None => before.map(|before| &before[(end + i) * channels..][..channels]),
                    };
                    copies.push((out, source));
                }
            }
        }
        team.for_each_chunk(&mut copies, 1, |_, copies| {
            for (out, source) in copies {
                match source {
                    Some(source) => out.copy_from_slice(source),
                    None => out.fill(0.0),
                }
            }
        });
    }

    /// The delta rule of every value head. Writes what the heads read to `read`, and returns where each row's is.
    fn rule(
        &self,
        team: &Team,
        nets: &DeltaNets,
        recurrences: &mut [Option<Recurrence>],
        [convolved, decay, beta]: [&[f32]; 3],
        read: &mut [f32],
    ) -> Vec<RowParts> {
        let (d, channels, value_dim) = (nets.head_dim, nets.channels(), nets.value_dim());
        let (key_heads, value_heads) = (nets.n_key_heads, nets.n_value_heads);
        let mut parts = vec![RowParts::default(); read.len() / value_dim];
        // The part of `read` of each segment.
        let (mut rest, mut start) = (read, 0);
        let mut reads: Vec<Vec<&mut [f32]>> = Vec::new();
        for recurrence in recurrences.iter() {
            let mut of_segments = Vec::new();
            for segment in recurrence.iter().flat_map(|recurrence| &recurrence.segments) {
                let n = segment.rows.len();
                let (own, after) = rest.split_at_mut(n * value_dim);
                for (i, row) in segment.rows.iter().enumerate() {
                    parts[*row] = RowParts { start, n, i };
                }
                of_segments.push(own);
                (rest, start) = (after, start + n * value_dim);
            }
            reads.push(of_segments);
        }
        // The first segments of all sequences, then the second ones, whose states follow from those.
        let most = recurrences.iter().flatten().map(|recurrence| recurrence.segments.len()).max().unwrap_or(0);
        for step in 0..most {
            let mut tasks: Vec<RuleTask> = Vec::new();
            for (recurrence, reads) in recurrences.iter_mut().zip(&mut reads) {
                let Some(recurrence) = recurrence.as_mut().filter(|all| step < all.segments.len()) else { continue };
                let (done, left) = recurrence.segments.split_at_mut(step);
                let before = match done.last() {
                    Some(segment) => Some(segment.state.heads(self.state_layer)),
                    None => recurrence.before.as_ref().map(|state| state.heads(self.state_layer)),
                };
                let (rows, mut read) = (&left[0].rows, std::mem::take(&mut reads[step]));
                let (_, states) = left[0].state.layer_mut(self.state_layer);
                let head_len = states.len() / value_heads;
                for (head, state) in states.chunks_mut(head_len).enumerate() {
                    for (part, state) in state.chunks_mut(TASK_CHANNELS * d).enumerate() {
                        let first = part * TASK_CHANNELS;
                        let own;
                        (own, read) = read.split_at_mut(rows.len() * TASK_CHANNELS.min(d - first));
                        let before = before.map(|before| &before[head * head_len + first * d..][..state.len()]);
                        tasks.push(RuleTask { rows, head, first, before, state, read: own });
                    }
                }
            }
            team.for_each_chunk(&mut tasks, 1, |_, tasks| {
                for RuleTask { rows, head, first, before, state, read } in tasks {
                    match before {
                        Some(before) => state.copy_from_slice(before),
                        None => state.fill(0.0),
                    }
                    let width = read.len() / rows.len();
                    let (key, value) = (*head % key_heads, 2 * key_heads + *head);
                    for (row, out) in rows.iter().zip(read.chunks_mut(width)) {
                        let of_row = &convolved[row * channels..][..channels];
                        let (q, k) = (&of_row[key * d..][..d], &of_row[(key_heads + key) * d..][..d]);
                        let v = &of_row[value * d + *first..][..width];
                        let rate = row * value_heads + *head;
                        team.kernels.delta_rule(state, q, k, v, [decay[rate], beta[rate]], out);
                    }
                }
            });
        }
        parts
    }
}

/// The channels of a head, of each slice.
fn of_head<'a>(all: &[&'a [f32]], head: usize, head_dim: usize) -> Vec<&'a [f32]> {
    all.iter().map(|of_all| &of_all[head * head_dim..][..head_dim]).collect()
}

/// Where the outputs of a row's heads are: a segment of `n` rows, of which it is number `i`, starts at `start`. Each task
/// of the segment has written its channels for all rows.
#[derive(Clone, Copy, Default)]
struct RowParts {
    start: usize,
    n: usize,
    i: usize,
}

impl RowParts {
    /// Copies the output of a head.
    fn copy(&self, read: &[f32], head: usize, out: &mut [f32]) {
        let d = out.len();
        for (part, out) in out.chunks_mut(TASK_CHANNELS).enumerate() {
            let task = self.start + self.n * (head * d + part * TASK_CHANNELS);
            out.copy_from_slice(&read[task + self.i * out.len()..][..out.len()]);
        }
    }
}
