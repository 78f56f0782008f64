//! What a forward pass computes on its way, copied for people who want to look inside.

use super::config::Config;
use super::input::ProjectionInput;
use crate::error::{Error, Result};
use crate::kernel::Team;
use crate::machine::counters::WorkCounters;
use crate::machine::memory::{try_with_capacity, try_zeroed};
use crate::ops::activation::Activation;
use crate::ops::attention::{AttentionBatch, attention_weights};

/// The largest trace that is recorded, in bytes.
const MAX_BYTES: usize = 2 << 30;

/// Which input each projection reads, in the order of computation: q, k, v, o, gate, up, down.
const SHARED_INPUTS: [usize; 7] = [0, 0, 0, 1, 2, 2, 3];
/// The same for models with a norm before every projection.
const OWN_INPUTS: [usize; 7] = [0, 1, 2, 3, 4, 5, 6];

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
    /// For each query head the attention weights of all positions; 0 for later ones.
    pub attention: Vec<f32>,
    /// The inputs of the projections, in the order in which they are first read.
    pub inputs: Vec<InputTrace>,
    /// The index of the input that each of q, k, v, o, gate, up and down reads.
    pub input_of: [usize; 7],
    /// The outputs of the projections q, k, v, o, gate, up and down, before any rotation.
    pub outputs: [Vec<f32>; 7],
    /// The neurons of the feed-forward network: `act(gate) · up`, `intermediate_size` floats.
    pub ffn: Vec<f32>,
    /// How many projections of this layer the current pass has computed.
    computed: usize,
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
        let input_of = if own_inputs { OWN_INPUTS } else { SHARED_INPUTS };
        let input_widths = input_widths(config, &input_of);
        check_size(config, int8, &input_widths, layers.len(), n_tokens)?;
        let (hidden, n) = (config.hidden_size, n_tokens);
        let empty = |width: usize| try_with_capacity::<f32>(n * width);
        let mut traces = Vec::with_capacity(layers.len());
        for layer in layers {
            let (mut inputs, mut outputs) = (Vec::with_capacity(input_widths.len()), <[Vec<f32>; 7]>::default());
            for width in &input_widths {
                inputs.push(if int8 {
                    InputTrace { int8: try_with_capacity(n * width)?, scales: empty(1)?, ..InputTrace::default() }
                } else {
                    InputTrace { floats: empty(*width)?, ..InputTrace::default() }
                });
            }
            for (output, width) in outputs.iter_mut().zip(output_widths(config)) {
                *output = empty(width)?;
            }
            traces.push(LayerTrace {
                layer: *layer,
                hidden: empty(hidden)?,
                attention: try_zeroed(n * config.n_heads * n)?,
                inputs,
                input_of,
                outputs,
                ffn: empty(config.intermediate_size)?,
                computed: 0,
            });
        }
        Ok(Trace { layers: traces, hidden: empty(hidden)?, logits: Vec::new(), n_tokens, current: None })
    }
}

/// Channels of the inputs of a layer's projections.
fn input_widths(config: &Config, input_of: &[usize; 7]) -> Vec<usize> {
    let (hidden, q, ffn) = (config.hidden_size, config.q_dim(), config.intermediate_size);
    let mut of_projections = input_of.iter().zip([hidden, hidden, hidden, q, hidden, hidden, ffn]).collect::<Vec<_>>();
    of_projections.dedup_by_key(|(input, _)| **input);
    of_projections.into_iter().map(|(_, width)| width).collect()
}

/// Channels of the outputs of a layer's projections.
fn output_widths(config: &Config) -> [usize; 7] {
    let (hidden, ffn, kv) = (config.hidden_size, config.intermediate_size, config.kv_dim());
    [config.q_dim(), kv, kv, hidden, ffn, ffn, hidden]
}

/// Refuses a trace of more than [`MAX_BYTES`].
fn check_size(config: &Config, int8: bool, inputs: &[usize], n_layers: usize, n_tokens: usize) -> Result<()> {
    let inputs = inputs.iter().sum::<usize>() * if int8 { 1 } else { 4 };
    let floats = config.hidden_size + output_widths(config).iter().sum::<usize>() + config.intermediate_size;
    let layer = inputs + 4 * (floats + config.n_heads * n_tokens);
    let bytes = n_tokens * (n_layers * layer + 4 * (config.hidden_size + config.vocab_size));
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
        layer.outputs[layer.computed].extend_from_slice(out);
        let input_of = |projection: usize| layer.input_of[projection];
        let is_first = layer.computed == 0 || input_of(layer.computed) != input_of(layer.computed - 1);
        if is_first {
            let input = &mut layer.inputs[layer.input_of[layer.computed]];
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
