//! The model: its configuration, its weights, its forward pass.

pub mod arch;
mod cache;
pub mod config;
mod finite;
mod forward;
mod head;
mod input;
mod linear;
mod row;
mod tensors;
mod weights;

pub use cache::KvCache;
pub use forward::Scratch;
pub use row::{CandidateThreshold, LogitsFor, Row};
pub use weights::ActQuantDecision;

use crate::checkpoint::gguf::Gguf;
use crate::error::Result;
use crate::kernel::Team;
use crate::kernel::attention::PAGE;
use crate::ops::activation::Activation;
use crate::ops::attention::{KvType, PageShape};
use crate::ops::rope::Rope;
use config::Config;
use head::Head;
use linear::{Dense, Linear, Matrix};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

named! {
    /// What the projections' inputs are rounded to.
    pub enum ActQuant {
        /// Per-token absmax int8, as BitNet models were trained.
        Int8 = "int8",
        /// Not rounded.
        None = "none",
    }
}

/// How to load a model; `None` leaves the choice to what the file says.
#[derive(Clone, Copy, Default)]
pub struct LoadOptions {
    /// The feed-forward network's activation.
    pub activation: Option<Activation>,
    /// Whether the projections' inputs are rounded to int8.
    pub act_quant: Option<ActQuant>,
    /// Compute every logit from the stored output head; never make its 8-bit copy.
    pub exact_head: bool,
}

/// One transformer block.
struct Block {
    attn_norm: Vec<f32>,
    q: Linear,
    k: Linear,
    v: Linear,
    attn_sub_norm: Option<Vec<f32>>,
    o: Linear,
    ffn_norm: Vec<f32>,
    gate: Linear,
    up: Linear,
    ffn_sub_norm: Option<Vec<f32>>,
    down: Linear,
}

impl Block {
    fn linears(&self) -> [&Linear; 7] {
        [&self.q, &self.k, &self.v, &self.o, &self.gate, &self.up, &self.down]
    }
}

/// An immutable model, shared by any number of sequences.
pub struct Model {
    gguf: Arc<Gguf>,
    config: Config,
    /// Whether the projections take int8 activations, and why.
    pub act_quant: ActQuantDecision,
    /// What is odd about its weights without making them unusable.
    pub warnings: Vec<String>,
    embedding: Dense,
    /// Absent where the embedding serves as the output head as well.
    output: Option<Dense>,
    head: Head,
    output_norm: Vec<f32>,
    layers: Vec<Block>,
    /// Whether any projection is dense.
    has_dense: bool,
    rope: Rope,
}

/// What computing a token costs, in the parts that limit it: arithmetic and reading memory.
pub struct PerToken {
    /// Multiply-adds of int8 activations and trits.
    pub ternary_macs: usize,
    /// Bytes of weights that a pass reads which wants logits, however many sequences share it. Where the output head has
    /// its copy these are the copy's, without the few rows that are computed exactly.
    pub weight_bytes: usize,
    /// Bytes of keys and values that it reads for every position before its own.
    pub kv_bytes: usize,
}

impl Model {
    /// Reads a model from an open file. `cancel` is read between tensors.
    pub fn load(gguf: Arc<Gguf>, options: &LoadOptions, team: &Team, cancel: &AtomicBool) -> Result<Model> {
        let path = gguf.path().to_path_buf();
        let config = Config::read(&gguf, options.activation);
        let model = config.and_then(|config| weights::load(gguf, config, options, team, cancel));
        model.map_err(|error| error.of_file(&path))
    }

    /// The file.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// Measures and constants.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether the embedding serves as the output head.
    pub fn tied(&self) -> bool {
        self.output.is_none()
    }

    /// Bytes of all matrices, as they are read.
    pub fn weight_bytes(&self) -> usize {
        self.packed_bytes() + self.mapped_bytes()
    }

    /// Bytes of packed weights, which live in memory of our own.
    pub fn packed_bytes(&self) -> usize {
        let matrices = self.layers.iter().flat_map(Block::linears).map(|l| &l.matrix);
        matrices.map(|m| if let Matrix::Ternary(t) = m { t.bytes() } else { 0 }).sum()
    }

    /// Bytes of the output head's copy in 8 bits, once it is made.
    pub fn copied_bytes(&self) -> usize {
        self.head.bytes()
    }

    /// Bytes of weights that are read where they lie in the mapped file.
    pub fn mapped_bytes(&self) -> usize {
        let matrices = self.layers.iter().flat_map(Block::linears).map(|l| &l.matrix);
        let dense = matrices.filter_map(|m| if let Matrix::Dense(d) = m { Some(d) } else { None });
        dense.chain([&self.embedding]).chain(&self.output).map(Dense::bytes).sum()
    }

    /// What computing a token costs.
    pub fn per_token(&self, kv_type: KvType) -> PerToken {
        let matrices = || self.layers.iter().flat_map(Block::linears).map(|l| &l.matrix);
        let head = match self.copied_bytes() {
            0 => self.output.as_ref().unwrap_or(&self.embedding).bytes(),
            copied => copied,
        };
        let dense = matrices().filter_map(|m| if let Matrix::Dense(d) = m { Some(d) } else { None });
        let trits = matrices().map(|m| if let Matrix::Ternary(t) = m { t.rows() * t.cols() } else { 0 });
        PerToken {
            ternary_macs: trits.sum(),
            weight_bytes: self.packed_bytes() + dense.map(Dense::bytes).sum::<usize>() + head,
            kv_bytes: self.page_shape().elements() / PAGE * kv_type.bytes(),
        }
    }

    fn page_shape(&self) -> PageShape {
        let Config { n_layers, n_kv_heads, head_dim, .. } = self.config;
        PageShape { n_layers, n_kv_heads, head_dim }
    }

    /// An empty cache for one sequence.
    pub fn new_cache(&self, kv_type: KvType) -> KvCache {
        KvCache::new(self.page_shape(), kv_type)
    }
}
