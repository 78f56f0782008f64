//! The model: its architecture and configuration, its weights, the forward pass and the output head.

pub mod arch;
mod attention;
mod cache;
pub mod config;
mod cost;
mod delta_net;
mod describe;
mod feed_forward;
mod finite;
mod forward;
mod grouped_head;
mod head;
pub mod hybrid;
mod input;
mod keys;
mod linear;
mod pack;
mod pass;
mod plausible;
mod positions;
mod projections;
mod quantized_head;
mod rotation;
mod row;
mod scratch;
mod state;
mod store;
mod tensors;
mod trace;
mod upper_head;
mod weights;

pub use cache::KvCache;
pub use cost::PerToken;
pub use head::LmHead;
pub use row::{CandidateThreshold, LogitsFor, Outputs, Row};
pub use scratch::Scratch;
pub use store::{Content, StoredTensor};
pub use trace::{InputTrace, LayerTrace, ProjectionTrace, Trace};
pub use weights::ActQuantDecision;

use crate::checkpoint::gguf::Gguf;
use crate::error::{Error, Result};
use crate::kernel::Team;
use crate::kernel::packing::{BLOCK, Packing};
use crate::ops::activation::Activation;
use crate::ops::attention::{KvType, PageShape};
use crate::ops::rope::Rope;
use attention::Attention;
use config::Config;
use delta_net::DeltaNet;
use feed_forward::NeuronCopies;
use head::Head;
use input::InputForm;
use linear::{Dense, Linear};
use rotation::Rotation;
use state::StateShape;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

named! {
    /// What the inputs of projections are rounded to.
    pub enum ActQuant {
        /// int8 with one absmax scale a token, as BitNet models were trained (BitNet b1.58, arXiv 2402.17764); with one
        /// for each 128 columns if the weights have several scales.
        Int8 = "int8",
        /// 16-bit fixed point with one absmax scale a token and 128 columns, for models trained on float activations.
        Int16 = "int16",
        /// 24-bit fixed point in the same blocks, for such models whose graph magnifies roundings.
        Int24 = "int24",
        /// Nothing: projections read floats.
        None = "none",
    }
}

impl ActQuant {
    /// The planes of int8 of an activation rounded in blocks.
    fn planes(self) -> usize {
        match self {
            ActQuant::Int24 => 3,
            ActQuant::Int16 => 2,
            ActQuant::Int8 | ActQuant::None => 1,
        }
    }
}

/// How to load a model; `None` leaves the choice to what the file says.
#[derive(Clone, Copy, Default)]
pub struct LoadOptions {
    /// The feed-forward network's activation, in place of the one that the file implies.
    pub activation: Option<Activation>,
    /// What the inputs of projections are rounded to.
    pub act_quant: Option<ActQuant>,
    /// Positions that a sequence may have; decides between the two tables of LongRoPE.
    pub n_ctx: Option<usize>,
    /// How logits are computed.
    pub lm_head: LmHead,
    /// How trits are packed, if not as suits the kernels.
    pub packing: Option<Packing>,
}

/// One transformer block.
struct Block {
    norms: Norms,
    mixer: Mixer,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// What takes values from earlier positions.
enum Mixer {
    Attention(Attention),
    DeltaNet(DeltaNet),
}

/// The RMSNorms of a block, but for those of single projections ([`Linear::norm`]); those that the architecture lacks are `None`.
struct Norms {
    /// Before the attention or the delta net.
    attn: Vec<f32>,
    /// Of what the attention or the delta net adds to the residual stream.
    post_attn: Option<Vec<f32>>,
    /// Before the feed-forward network.
    ffn: Vec<f32>,
    /// Of what the feed-forward network adds to the residual stream.
    post_ffn: Option<Vec<f32>>,
}

impl Block {
    /// The matrices that are read as a file stores them, whatever the others are.
    fn rates(&self) -> impl Iterator<Item = &Dense> {
        let rates = if let Mixer::DeltaNet(net) = &self.mixer { Some([&net.alpha, &net.beta]) } else { None };
        rates.into_iter().flatten()
    }

    fn linears(&self) -> impl Iterator<Item = &Linear> {
        let mixer = match &self.mixer {
            Mixer::Attention(Attention { q, k, v, o, .. }) => vec![q, k, v, o],
            Mixer::DeltaNet(DeltaNet { qkv, gate, out, .. }) => vec![qkv, gate, out],
        };
        mixer.into_iter().chain([&self.gate, &self.up, &self.down])
    }

    fn attention(&self) -> Option<&Attention> {
        if let Mixer::Attention(attention) = &self.mixer { Some(attention) } else { None }
    }
}

/// A model. It never changes, so any number of sequences and threads can share it.
pub struct Model {
    gguf: Arc<Gguf>,
    config: Config,
    /// What the inputs of the projections are rounded to, and why.
    pub act_quant: ActQuantDecision,
    input_form: InputForm,
    /// Warnings about metadata and weights that look wrong but can be used.
    pub warnings: Vec<String>,
    /// Those of them about the weights.
    pub doubts: Vec<String>,
    embedding: Dense,
    /// The rotation of the embedding's rows, if they are stored rotated.
    embedding_rotation: Option<Arc<Rotation>>,
    /// The rotation of the state before the output head, if it is stored rotated.
    head_rotation: Option<Arc<Rotation>>,
    /// The output head; `None` if it is tied to the embedding.
    output: Option<Dense>,
    head: Head,
    output_norm: Vec<f32>,
    layers: Vec<Block>,
    /// The feed-forward matrices by neurons, for zeros that a single row does not read.
    neurons: NeuronCopies,
    /// Whether there are dense projections that read what the ternary ones read, rounded to int8.
    rounds_dense: bool,
    rope: Rope,
    /// The rotary embedding of layers with a sliding window.
    window_rope: Option<Rope>,
}

impl Model {
    /// Loads the model of an open file. `cancel` is read between tensors.
    pub fn load(gguf: Arc<Gguf>, options: &LoadOptions, team: &Team, cancel: &AtomicBool) -> Result<Model> {
        let path = gguf.path().to_path_buf();
        let config = Config::read(&gguf, options.activation);
        let model = config.and_then(|config| weights::load(gguf, config, options, team, cancel));
        model.map_err(|error| match error {
            // The caller's, not the file's.
            Error::Argument(_) => error,
            error => error.of_file(&path),
        })
    }

    /// The file that it was loaded from.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// The sizes and constants that its file states.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The columns that share a step of int8 activations; `None` if each token has one step, or for other types.
    pub fn act_block(&self) -> Option<u64> {
        let blocks = matches!(self.input_form, InputForm::Blocks(_)) && self.act_quant.chosen == ActQuant::Int8;
        blocks.then_some(BLOCK as u64)
    }

    /// How logits are computed.
    pub fn lm_head(&self) -> LmHead {
        self.head.kind()
    }

    /// Whether the output head is tied to the embedding.
    pub fn tied(&self) -> bool {
        self.output.is_none()
    }

    /// Whether every projection has a norm of its own before it, so that none share an input.
    pub fn norms_inputs(&self) -> bool {
        self.layers.iter().flat_map(Block::attention).any(|attention| attention.q.norm.is_some())
    }

    /// Whether projections read int8 activations with one scale a token.
    pub fn reads_int8(&self) -> bool {
        self.input_form == InputForm::PerToken
    }

    fn page_shape(&self) -> PageShape {
        let Config { n_kv_heads, head_dim, .. } = self.config;
        PageShape { n_layers: self.config.n_attention_layers(), n_kv_heads, head_dim }
    }

    fn state_shape(&self) -> Option<StateShape> {
        StateShape::of(self.config.delta_nets.as_ref())
    }

    /// An empty cache for a new sequence.
    pub fn new_cache(&self, kv_type: KvType) -> KvCache {
        KvCache::new(self.page_shape(), kv_type, self.state_shape())
    }
}

/// [`Error::Cancelled`] once `cancel` is set.
fn check_cancelled(cancel: &AtomicBool) -> Result<()> {
    if cancel.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
}
