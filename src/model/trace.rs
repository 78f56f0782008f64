//! What a forward pass computes on its way, copied for people who want to look inside.

use super::config::Config;
use super::input::ProjectionInput;
use super::projections::{Projection, projections};
use crate::error::{Error, Result};
use crate::kernel::Team;
use crate::machine::counters::WorkCounters;
use crate::machine::memory::{try_with_capacity, try_zeroed};
use crate::ops::activation::Activation;
use crate::ops::attention::{AttentionBatch, attention_weights};

/// The largest trace that is recorded, in bytes.
const MAX_BYTES: usize = 2 << 30;

/// The values inside the model at every position of one sequence. All lists are row by row, one row a position.
pub struct Trace {
    /// The chosen layers, in ascending order.
    pub layers: Vec<LayerTrace>,
    /// The hidden state after the output norm, `hidden_size` floats.
    pub hidden: Vec<f32>,
    /// The logits, `vocab_size` floats. The caller of [`Model::forward`](super::Model::forward) stores them.
    pub logits: Vec<f32>,
    n_tokens: usize,
    /// The index of the layer that is computed now, if it was chosen.
    current: Option<usize>,
}

/// The values of one layer.
pub struct LayerTrace {
    /// Index of the layer, from 0.
    pub layer: usize,
    /// The residual stream before the layer, `hidden_size` floats.
    pub hidden: Vec<f32>,
    /// For each query head the attention weights of all positions; 0 for later ones. Empty in a gated delta net.
    pub attention: Vec<f32>,
    /// The inputs of the projections, in the order in which they are first read.
    pub inputs: Vec<InputTrace>,
    /// The projections in the order of computation.
    pub projections: Vec<ProjectionTrace>,
    /// The neurons of the feed-forward network: `act(gate) · up`, `intermediate_size` floats.
    pub ffn: Vec<f32>,
    /// How many projections of this layer the current pass has computed.
    computed: usize,
}

/// What a projection reads and gives.
pub struct ProjectionTrace {
    /// Its tensor's name in the block.
    pub name: &'static str,
    /// The index of its input.
    pub input: usize,
    /// Its outputs, before any rotation.
    pub output: Vec<f32>,
}

/// An input of projections, in the form that they read.
#[derive(Default)]
pub struct InputTrace {
    /// The activations rounded to int8; empty if the model reads floats.
    pub int8: Vec<i8>,
    /// For each position the scale `s` of its int8 values, which stand for `int8 / s`.
    pub scales: Vec<f32>,
    /// The activations, if the model reads floats.
    pub floats: Vec<f32>,
}

impl Trace {
    /// An empty trace of `layers`, in ascending order, for `n_tokens` positions. `int8` tells whether the projections
    /// read int8 activations, `own_inputs` whether each of them has an input of its own. All its memory is allocated
    /// here.
    pub fn new(config: &Config, int8: bool, own_inputs: bool, layers: &[usize], n_tokens: usize) -> Result<Trace> {
        check_size(config, int8, own_inputs, layers, n_tokens)?;
        let n = n_tokens;
        let empty = |width: usize| try_with_capacity::<f32>(n * width);
        let mut traces = Vec::with_capacity(layers.len());
        for layer in layers {
            let mut inputs: Vec<InputTrace> = Vec::new();
            let mut traced = Vec::new();
            for Traced { name, input, cols, rows } in projections_of(config, own_inputs, *layer) {
                if input == inputs.len() {
                    inputs.push(if int8 {
                        InputTrace { int8: try_with_capacity(n * cols)?, scales: empty(1)?, ..InputTrace::default() }
                    } else {
                        InputTrace { floats: empty(cols)?, ..InputTrace::default() }
                    });
                }
                traced.push(ProjectionTrace { name, input, output: empty(rows)? });
            }
            traces.push(LayerTrace {
                layer: *layer,
                hidden: empty(config.hidden_size)?,
                attention: try_zeroed(n * heads_of(config, *layer) * n)?,
                inputs,
                projections: traced,
                ffn: empty(config.intermediate_size)?,
                computed: 0,
            });
        }
        Ok(Trace { layers: traces, hidden: empty(config.hidden_size)?, logits: Vec::new(), n_tokens, current: None })
    }
}

/// A projection that is traced: its name, the index of its input, and its sizes.
struct Traced {
    name: &'static str,
    input: usize,
    cols: usize,
    rows: usize,
}

/// The projections of a layer. Those of the attention or delta net but its last one share an input, and so do gate and
/// up, unless each has an input of its own.
fn projections_of(config: &Config, own_inputs: bool, layer: usize) -> Vec<Traced> {
    let all = projections(config, layer);
    let of_mixer = all.len() - 3;
    let input = |i: usize| match i {
        _ if own_inputs => i,
        i if i + 1 < of_mixer => 0,
        i if i + 1 == of_mixer => 1,
        i if i < of_mixer + 2 => 2,
        _ => 3,
    };
    let traced =
        |(i, Projection { name, cols, rows, .. }): (usize, Projection)| Traced { name, input: input(i), cols, rows };
    all.into_iter().enumerate().map(traced).collect()
}

/// The heads of a layer's attention; none in a gated delta net.
fn heads_of(config: &Config, layer: usize) -> usize {
    if config.delta_net_of(layer).is_some() { 0 } else { config.n_heads }
}

/// Refuses a trace of more than [`MAX_BYTES`].
fn check_size(config: &Config, int8: bool, own_inputs: bool, layers: &[usize], n_tokens: usize) -> Result<()> {
    let of_layer = |layer: &usize| {
        let all = projections_of(config, own_inputs, *layer);
        let is_first = |i: &usize| *i == 0 || all[*i].input != all[*i - 1].input;
        let inputs: usize = (0..all.len()).filter(is_first).map(|i| all[i].cols).sum();
        let outputs: usize = all.iter().map(|projection| projection.rows).sum();
        let floats = config.hidden_size + outputs + config.intermediate_size + heads_of(config, *layer) * n_tokens;
        inputs * if int8 { 1 } else { 4 } + 4 * floats
    };
    let n_layers = layers.len();
    let of_layers: usize = layers.iter().map(of_layer).sum();
    let bytes = n_tokens * (of_layers + 4 * (config.hidden_size + config.vocab_size));
    if bytes <= MAX_BYTES {
        return Ok(());
    }
    let gigabytes = |bytes: usize| bytes as f64 / 1e9;
    Err(Error::Argument(format!(
        "a trace of {n_layers} layers and {n_tokens} tokens takes {:.1} GB, expected at most {:.1}; choose fewer layers \
         or give fewer tokens",
        gigabytes(bytes),
        gigabytes(MAX_BYTES)
    )))
}

/// Follows a forward pass: counts its work, and copies values if there is a trace.
pub(super) struct Recorder<'a> {
    pub work: WorkCounters,
    trace: Option<&'a mut Trace>,
}

impl<'a> Recorder<'a> {
    pub fn new(trace: Option<&'a mut Trace>) -> Recorder<'a> {
        Recorder { work: WorkCounters::default(), trace }
    }

    /// Whether values are copied.
    pub fn has_trace(&self) -> bool {
        self.trace.is_some()
    }

    /// The layer that is recorded now.
    fn layer(&mut self) -> Option<&mut LayerTrace> {
        let trace = self.trace.as_deref_mut()?;
        trace.layers.get_mut(trace.current?)
    }

    /// Begins a layer, with the residual stream before it.
    pub fn begin_layer(&mut self, layer: usize, x: &[f32]) {
        let Some(trace) = self.trace.as_deref_mut() else { return };
        trace.current = trace.layers.iter().position(|chosen| chosen.layer == layer);
        if let Some(recorded) = self.layer() {
            recorded.hidden.extend_from_slice(x);
            recorded.computed = 0;
        }
    }

    /// The next projection of the layer.
    pub fn projection(&mut self, x: &ProjectionInput, out: &[f32]) {
        let Some(layer) = self.layer() else { return };
        let (before, projection) = layer.projections[..=layer.computed].split_at_mut(layer.computed);
        projection[0].output.extend_from_slice(out);
        let input = projection[0].input;
        if before.last().is_none_or(|before| before.input != input) {
            let input = &mut layer.inputs[input];
            match x.int8 {
                None => input.floats.extend_from_slice(&x.f32),
                Some(activations) => activations.rows_and_scales().for_each(|(q, scale)| {
                    input.int8.extend_from_slice(q);
                    input.scales.push(scale);
                }),
            }
        }
        layer.computed += 1;
    }

    /// The attention weights of rotated queries.
    pub fn attention(&mut self, team: &Team, batch: &AttentionBatch, q: &[f32]) {
        let Some(n) = self.trace.as_deref().map(|trace| trace.n_tokens) else { return };
        let Some(layer) = self.layer() else { return };
        let (per_row, rows) = (layer.attention.len() / n, batch.rows);
        let first = rows[0].position;
        attention_weights(team, batch, q, n, &mut layer.attention[first * per_row..][..rows.len() * per_row]);
    }

    /// The neurons of the feed-forward network, by the operation that the next step runs.
    pub fn ffn(&mut self, team: &Team, activation: Activation, gate: &[f32], up: &[f32]) {
        let Some(layer) = self.layer() else { return };
        let first = layer.ffn.len();
        layer.ffn.extend_from_slice(gate);
        activation.apply(team.kernels, &mut layer.ffn[first..], up);
    }

    /// The hidden states after the output norm.
    pub fn output(&mut self, hidden: &[f32]) {
        if let Some(trace) = self.trace.as_deref_mut() {
            trace.hidden.extend_from_slice(hidden);
        }
    }
}
