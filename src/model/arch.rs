//! The architectures that this engine runs, one row each.
//!
//! A new architecture whose operations all exist takes one row here and a model of its kind in the tests.

use crate::ops::activation::Activation;
use crate::ops::rope::RopeStyle;

/// What the engine needs to know of an architecture beyond a file's metadata.
#[derive(Debug)]
pub struct Arch {
    /// The value of `general.architecture`, which is also the prefix of all other metadata keys.
    pub name: &'static str,
    /// Which channels of a head rotate together.
    pub rope_style: RopeStyle,
    /// The feed-forward activation of a file without the key `hidden_activation`.
    pub activation: Activation,
    /// Some models of this name use another activation and can be told only by their size.
    pub exception: Option<Exception>,
    /// The names of the tensors of a block.
    pub tensors: BlockTensors,
}

/// The models of an architecture that use another activation than the others.
#[derive(Debug)]
pub struct Exception {
    /// Tells them by their size.
    pub applies: fn(ModelSize) -> bool,
    /// What they use.
    pub activation: Activation,
}

/// The sizes that tell a model from others of the same architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelSize {
    /// Transformer blocks.
    pub n_layers: usize,
    /// Channels of the residual stream.
    pub hidden_size: usize,
    /// Channels inside the feed-forward network.
    pub intermediate_size: usize,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
}

/// The names of a transformer block's tensors: "q" stands for `blk.N.q.weight`. A norm that the architecture lacks is
/// `None`.
#[derive(Debug)]
pub struct BlockTensors {
    /// RMSNorm before the attention, `hidden_size` weights.
    pub attn_norm: &'static str,
    /// Query projection, W_q.
    pub q: &'static str,
    /// Key projection, W_k.
    pub k: &'static str,
    /// Value projection, W_v.
    pub v: &'static str,
    /// RMSNorm between the attention and its output projection (SubLN, arXiv 2210.06423).
    pub attn_sub_norm: Option<&'static str>,
    /// Output projection of the attention.
    pub o: &'static str,
    /// RMSNorm before the feed-forward network.
    pub ffn_norm: &'static str,
    /// Gate projection of the feed-forward network.
    pub gate: &'static str,
    /// Up projection of the feed-forward network.
    pub up: &'static str,
    /// RMSNorm between the activation and the down projection.
    pub ffn_sub_norm: Option<&'static str>,
    /// Down projection of the feed-forward network.
    pub down: &'static str,
}

/// Embedding of the tokens; also the output head of a model without [`OUTPUT`].
pub const TOKEN_EMBEDDING: &str = "token_embd.weight";
/// The matrix of the output head; a file without it ties the head to the embedding.
pub const OUTPUT: &str = "output.weight";
/// RMSNorm before the output head.
pub const OUTPUT_NORM: &str = "output_norm.weight";
/// Divisors of the rotary frequencies.
pub const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// Every architecture that the engine computes.
pub static ARCHITECTURES: [Arch; 4] = [
    // Microsoft's BitNet b1.58 2B-4T; 1bitLLM's models by Microsoft's converter of 2026.
    Arch {
        name: "bitnet-b1.58",
        rope_style: RopeStyle::NeoX,
        activation: Activation::Relu2,
        exception: Some(ONE_BIT_LLM),
        tensors: BITNET,
    },
    // The same in its first upload.
    Arch {
        name: "bitnet-25",
        rope_style: RopeStyle::NeoX,
        activation: Activation::Relu2,
        exception: Some(ONE_BIT_LLM),
        tensors: BITNET,
    },
    // 1bitLLM's models; community conversions of BitNet b1.58 2B-4T carry this name, too.
    Arch {
        name: "bitnet",
        rope_style: RopeStyle::NeoX,
        activation: Activation::Silu,
        exception: Some(Exception { applies: |size| size == BITNET_2B_4T, activation: Activation::Relu2 }),
        tensors: BITNET,
    },
    // Llama's graph with ternary projections: HF1BitLLM, Falcon3, Falcon-E, TriLM.
    Arch {
        name: "llama",
        rope_style: RopeStyle::Interleaved,
        activation: Activation::Silu,
        exception: None,
        tensors: LLAMA,
    },
];

const BITNET_2B_4T: ModelSize =
    ModelSize { n_layers: 30, hidden_size: 2560, intermediate_size: 6912, vocab_size: 128_256 };

/// 1bitLLM's models: their vocabulary, Llama 2's with two tokens more, tells them from BitNet b1.58 2B-4T.
const ONE_BIT_LLM: Exception = Exception { applies: |size| size.vocab_size == 32_002, activation: Activation::Silu };

const LLAMA: BlockTensors = BlockTensors {
    attn_norm: "attn_norm",
    q: "attn_q",
    k: "attn_k",
    v: "attn_v",
    attn_sub_norm: None,
    o: "attn_output",
    ffn_norm: "ffn_norm",
    gate: "ffn_gate",
    up: "ffn_up",
    ffn_sub_norm: None,
    down: "ffn_down",
};

const BITNET: BlockTensors =
    BlockTensors { attn_sub_norm: Some("attn_sub_norm"), ffn_sub_norm: Some("ffn_sub_norm"), ..LLAMA };

impl Arch {
    /// The architecture of this name.
    pub fn find(name: &str) -> Option<&'static Arch> {
        ARCHITECTURES.iter().find(|arch| arch.name == name)
    }

    /// The feed-forward activation of a file that does not name one.
    pub fn activation_for(&self, size: ModelSize) -> Activation {
        match &self.exception {
            Some(Exception { applies, activation }) if applies(size) => *activation,
            _ => self.activation,
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/arch.rs"]
mod tests;
