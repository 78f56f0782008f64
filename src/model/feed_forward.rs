//! The feed-forward network of a layer, and the zeros that a single token does not read.
//!
//! With relu² a neuron whose gate is not above 0 is 0, whatever its row of `up` gives; and a neuron that rounds to 0
//! adds nothing to the output of `down`. In trained models these are more than half of the neurons, and four of five. So
//! a pass of one row reads the others only, from a copy of both matrices by neurons (`kernel/neurons.rs`). Passes of
//! several rows read the matrices whole: their rows need different neurons.

use super::config::Config;
use super::input::ProjectionInput;
use super::linear::{Linear, Matrix};
use super::pass::{Pass, norm_and_project};
use super::trace::Recorder;
use super::{Block, Model};
use crate::error::Result;
use crate::kernel::Team;
use crate::kernel::neurons::Neurons;
use crate::kernel::ternary::{Activations, Ternary};
use crate::machine::clock::Instant;
use crate::machine::memory::Arena;
use crate::ops::activation::Activation;
use std::sync::OnceLock;

/// Matrices of fewer trits stay in the processor's caches, and rows of fewer are short: reading them whole is faster.
const MIN_TRITS: usize = 1 << 20;
const MIN_COLS: usize = 512;
/// The sums of the kernels hold as many neurons.
const MAX_NEURONS: usize = 1 << 17;
/// The largest share of neurons, in tenths, that is read one by one: reading all in order is faster than reading more.
const MAX_TENTHS: usize = 7;

/// The copies of a model's feed-forward matrices by neurons. The first pass of a single row makes them.
pub(super) struct NeuronCopies {
    /// One for each layer, `None` if memory is lacking; empty if the model has no zeros to skip.
    layers: Vec<OnceLock<Option<Neurons>>>,
    arena: Arena,
}

impl NeuronCopies {
    /// No copies yet; there will be some if the model is one whose zeros can be skipped.
    pub fn new(config: &Config, blocks: &[Block]) -> NeuronCopies {
        let skips = config.activation == Activation::Relu2 && blocks.iter().all(|block| matrices(block).is_some());
        let layers = if skips { blocks.iter().map(|_| OnceLock::new()).collect() } else { Vec::new() };
        NeuronCopies { layers, arena: Arena::default() }
    }

    /// Whether passes of a single row skip zeros.
    fn exist(&self) -> bool {
        !self.layers.is_empty()
    }

    /// Bytes of the copies that have been made.
    pub fn bytes(&self) -> usize {
        self.layers.iter().filter_map(|copy| copy.get()?.as_ref()).map(Neurons::bytes).sum()
    }

    /// The copy of a layer, with the matrices that it was made of.
    fn of<'a>(&'a self, team: &Team, layer: usize, block: &'a Block) -> Option<(&'a Neurons, [&'a Ternary; 2])> {
        let (copy, [up, down]) = (self.layers.get(layer)?, matrices(block)?);
        let make = || Neurons::new(team, &self.arena, up, down).ok();
        Some((copy.get_or_init(make).as_ref()?, [up, down]))
    }
}

/// The matrices `up` and `down` of a block, if zeros can be skipped in them and this pays.
fn matrices(block: &Block) -> Option<[&Ternary; 2]> {
    let plain = |linear: &Linear| linear.bias.is_none() && linear.rotation.is_none();
    // Gate and up share an input, unless they have norms of their own.
    if !plain(&block.up) || !plain(&block.down) || block.gate.rotation.is_some() || block.gate.norm.is_some() {
        return None;
    }
    match (&block.up.matrix, &block.down.matrix) {
        (Matrix::Ternary(up), Matrix::Ternary(down)) => {
            let (neurons, cols) = (up.rows(), up.cols());
            (neurons <= MAX_NEURONS && cols >= MIN_COLS && neurons * cols >= MIN_TRITS).then_some([up, down])
        }
        _ => None,
    }
}

/// Whether `count` of `all` neurons are so few that they are read one by one.
fn few(count: usize, all: usize) -> bool {
    10 * count <= MAX_TENTHS * all
}

impl Model {
    /// The feed-forward network of a layer: writes its output for the residual stream `x` to `branch`.
    pub(super) fn feed_forward(&self, layer: usize, block: &Block, pass: &mut Pass) -> Result<()> {
        let Pass { team, inputs, buffers, record, .. } = pass;
        let (gate, up) = (&mut *buffers.gate, &mut *buffers.up);
        let (neurons, whole) = (self.config.intermediate_size, inputs.n_tokens * self.config.intermediate_size);
        // A trace shows what every neuron gives.
        let alone = inputs.n_tokens == 1 && !record.has_trace();
        let copy = if alone { self.neurons.of(team, layer, block) } else { None };
        let (mut up_rows, mut down_columns) = (whole, whole);

        // Feed-forward norm: f = RMSNorm(x). Gate and up projections: W·f.
        if let Some((copy, [matrix, _])) = copy {
            let input = inputs.norm(buffers.x, &block.norms.ffn, None, buffers.normed)?;
            block.gate.apply(team, &input, gate, record);
            // A gate that is not a number is active.
            let active = |gate: &f32| *gate > 0.0 || gate.is_nan();
            let count = gate.iter().filter(|gate| active(gate)).count();
            // A product of 0 with an output that is not finite would not be 0.
            if few(count, neurons) && copy.gives_finite(int8(&input)) {
                // relu²(gate) · up is +0 for a skipped neuron, where a negative `up` would give −0. The sub-norm and the
                // rounding to int8 make no difference between the two.
                timed(record, || copy.up(team, matrix, int8(&input), |neuron| active(&gate[neuron]), up));
                up_rows = count;
            } else {
                block.up.apply(team, &input, up, record);
            }
        } else {
            let mut gate_up = [(&block.gate, &mut *gate), (&block.up, &mut *up)];
            let normed = [&mut *buffers.normed, &mut *buffers.normed_in];
            norm_and_project(inputs, buffers.x, &block.norms.ffn, normed, &mut gate_up, record)?;
        }
        record.ffn(team, self.config.activation, gate, up);

        // Activation and sub-norm: f = RMSNorm(act(gate) · up); without the norm if the architecture has none.
        let (norm, rotation) = (block.down.norm.as_deref(), block.down.rotation.as_deref());
        let f = inputs.activate(self.config.activation, gate, up, norm, rotation)?;
        // Down projection: W_down·f.
        let count = copy.map_or(neurons, |_| int8(&f).count_nonzero());
        match copy {
            Some((copy, [_, matrix])) if few(count, neurons) => {
                timed(record, || copy.down(team, matrix, int8(&f), count, buffers.branch));
                down_columns = count;
            }
            _ => block.down.apply(team, &f, buffers.branch, record),
        }
        if self.neurons.exist() {
            record.work.ffn_neurons += whole as u64;
            record.work.ffn_up_rows += up_rows as u64;
            record.work.ffn_down_columns += down_columns as u64;
        }
        Ok(())
    }
}

fn int8<'a>(input: &ProjectionInput<'a>) -> &'a Activations {
    input.int8.expect("a model with ternary layers has int8 activations")
}

/// Computes one row of a ternary projection, and counts it.
fn timed(record: &mut Recorder, compute: impl FnOnce()) {
    let start = Instant::now();
    compute();
    record.work.ternary += 1;
    record.work.ternary_ns += start.elapsed().as_nanos() as u64;
}
