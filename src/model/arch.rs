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
    /// Where every head's queries and keys get an RMSNorm of their own, if they do.
    pub head_norm: Option<HeadNorm>,
    /// Whether the query, key and value projections must have a bias. Elsewhere a file may have one.
    pub qkv_bias: bool,
    /// Constants that multiply or divide, for files that do not state them.
    pub scales: fn(ModelSize) -> Scales,
    /// Whether scores are divided by √(hidden_size / n_heads) in place of √head_dim.
    pub scores_by_width: fn(ModelSize) -> bool,
    /// Whether a file may have an RMSNorm before every projection ([`NORM_IN`]).
    pub norm_in: bool,
    /// Whether most layers are gated delta nets in place of attention, and the others gate their attention's output, as
    /// in Qwen3.5.
    pub hybrid: bool,
    /// The optional metadata keys that change this graph; the graphs of other architectures lack what they state.
    pub keys: &'static [&'static str],
}

/// Where a head's queries and keys get their norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadNorm {
    /// Before the rotation.
    BeforeRope,
    /// After the rotation.
    AfterRope,
}

/// Constants that scale values on their way through the graph; 1 changes nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scales {
    /// Multiplies the embeddings.
    pub embedding: f32,
    /// Multiplies what the attention and the feed-forward network add to the residual stream.
    pub residual: f32,
    /// Divides the logits.
    pub logit: f32,
}

/// The models of an architecture that use another activation than the others.
#[derive(Debug)]
pub struct Exception {
    /// Tells them by their size.
    pub applies: fn(ModelSize) -> bool,
    /// What they use.
    pub activation: Activation,
    /// The kind of their tokenizers (`tokenizer.ggml.model`), if that of the others is another one: with it, a model of
    /// unknown size is doubtful.
    pub tokenizer: Option<&'static str>,
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
#[derive(Clone, Copy, Debug)]
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
    /// RMSNorm of what the attention adds to the residual stream.
    pub post_attn_norm: Option<&'static str>,
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
    /// RMSNorm of what the feed-forward network adds to the residual stream.
    pub post_ffn_norm: Option<&'static str>,
}

/// The names of the tensors of a gated delta net (arXiv 2412.06464), which stands in place of the attention.
#[derive(Debug)]
pub struct DeltaNetTensors {
    /// Projection to queries, keys and values, which the convolution reads.
    pub qkv: &'static str,
    /// Projection to the gate of the output.
    pub gate: &'static str,
    /// Projection to α, from which the decay follows.
    pub alpha: &'static str,
    /// Projection to the logit of β, the strength of a change.
    pub beta: &'static str,
    /// −exp(A_log), one factor of the decay's logarithm for each value head.
    pub a: &'static str,
    /// Added to α.
    pub dt: &'static str,
    /// The weights of the convolution, those of one channel together.
    pub conv: &'static str,
    /// RMSNorm of every head's output.
    pub norm: &'static str,
    /// Output projection.
    pub out: &'static str,
}

/// Embedding of the tokens; also the output head of a model without [`OUTPUT`].
pub const TOKEN_EMBEDDING: &str = "token_embd.weight";
/// The matrix of the output head; a file without it ties the head to the embedding.
pub const OUTPUT: &str = "output.weight";
/// RMSNorm before the output head.
pub const OUTPUT_NORM: &str = "output_norm.weight";
/// Divisors of the rotary frequencies.
pub const ROPE_DIVISORS: &str = "rope_freqs.weight";
/// The divisors of LongRoPE up to the original context.
pub const ROPE_SHORT_DIVISORS: &str = "rope_factors_short.weight";
/// The divisors of LongRoPE beyond the original context.
pub const ROPE_LONG_DIVISORS: &str = "rope_factors_long.weight";
/// RMSNorm of every head's queries, `head_dim` weights.
pub const Q_HEAD_NORM: &str = "attn_q_norm";
/// RMSNorm of every head's keys.
pub const K_HEAD_NORM: &str = "attn_k_norm";
/// The tensors of a gated delta net: "blk.N." and `.weight` belong to all names but those of its rates.
pub const DELTA_NET: DeltaNetTensors = DeltaNetTensors {
    qkv: "attn_qkv",
    gate: "attn_gate",
    alpha: "ssm_alpha",
    beta: "ssm_beta",
    a: "ssm_a",
    dt: "ssm_dt.bias",
    conv: "ssm_conv1d",
    norm: "ssm_norm",
    out: "ssm_out",
};
/// Behind a projection's name: RMSNorm of its input. Microsoft's embedding models have one before every projection.
pub const NORM_IN: &str = "_norm_in";

/// Every architecture that the engine computes.
pub static ARCHITECTURES: [Arch; 10] = [
    // Microsoft's BitNet b1.58 2B-4T; 1bitLLM's models by Microsoft's converter of 2026.
    Arch {
        name: "bitnet-b1.58",
        activation: Activation::Relu2,
        exception: Some(ONE_BIT_LLM),
        tensors: BITNET_TENSORS,
        ..PLAIN
    },
    // The same in its first upload.
    Arch {
        name: "bitnet-25",
        activation: Activation::Relu2,
        exception: Some(ONE_BIT_LLM),
        tensors: BITNET_TENSORS,
        ..PLAIN
    },
    // 1bitLLM's models; community conversions of BitNet b1.58 2B-4T carry this name, too.
    Arch {
        name: "bitnet",
        exception: Some(Exception {
            applies: |size| size == BITNET_2B_4T,
            activation: Activation::Relu2,
            tokenizer: None,
        }),
        tensors: BITNET_TENSORS,
        ..PLAIN
    },
    // Llama's graph with ternary projections: HF1BitLLM, Falcon3, Falcon-E, TriLM.
    Arch { name: "llama", rope_style: RopeStyle::Interleaved, ..PLAIN },
    // Qwen2's graph with ternary projections, such as the text model of VibeVoice-ASR-BitNet.
    Arch { name: "qwen2", qkv_bias: true, ..PLAIN },
    // PrismML's Bonsai models of 1.7B to 8B; Microsoft's larger embedding model.
    Arch { name: "qwen3", head_norm: Some(HeadNorm::BeforeRope), norm_in: true, ..PLAIN },
    // PrismML's Bonsai models of 27B: Qwen3.5's graph.
    Arch {
        name: "qwen35",
        tensors: BlockTensors { ffn_norm: "post_attention_norm", ..LLAMA_TENSORS },
        head_norm: Some(HeadNorm::BeforeRope),
        hybrid: true,
        ..PLAIN
    },
    // BitCPM-CANN by OpenBMB. The defaults are llama.cpp's, those of MiniCPM 2B.
    Arch {
        name: "minicpm",
        rope_style: RopeStyle::Interleaved,
        scales: |size| Scales {
            embedding: 12.0,
            residual: (1.4 / (size.n_layers as f64).sqrt()) as f32,
            logit: size.hidden_size as f32 / 256.0,
        },
        keys: &["embedding_scale", "residual_scale", "logit_scale"],
        ..PLAIN
    },
    // Gemma 3; Microsoft's smaller embedding model.
    Arch {
        name: "gemma3",
        activation: Activation::GeluTanh,
        tensors: BlockTensors {
            post_attn_norm: Some("post_attention_norm"),
            post_ffn_norm: Some("post_ffw_norm"),
            ..LLAMA_TENSORS
        },
        head_norm: Some(HeadNorm::BeforeRope),
        scales: |size| Scales { embedding: (size.hidden_size as f64).sqrt() as f32, ..Scales::NONE },
        // Gemma 3 27B alone.
        scores_by_width: |size| size.n_layers == 62,
        norm_in: true,
        keys: &["attention.sliding_window", "attention.scale", "final_logit_softcapping"],
        ..PLAIN
    },
    // Tencent's Hunyuan models, such as Hy-MT.
    Arch { name: "hunyuan-dense", head_norm: Some(HeadNorm::AfterRope), ..PLAIN },
];

/// Llama's graph with the rotation of transformers, from which most architectures differ in few points.
const PLAIN: Arch = Arch {
    name: "",
    rope_style: RopeStyle::NeoX,
    activation: Activation::Silu,
    exception: None,
    tensors: LLAMA_TENSORS,
    head_norm: None,
    qkv_bias: false,
    scales: |_| Scales::NONE,
    scores_by_width: |_| false,
    norm_in: false,
    hybrid: false,
    keys: &[],
};

const BITNET_2B_4T: ModelSize =
    ModelSize { n_layers: 30, hidden_size: 2560, intermediate_size: 6912, vocab_size: 128_256 };

/// 1bitLLM's models: their vocabulary, Llama 2's with two tokens more, tells them from BitNet b1.58 2B-4T.
const ONE_BIT_LLM: Exception =
    Exception { applies: |size| size.vocab_size == 32_002, activation: Activation::Silu, tokenizer: Some("llama") };

const LLAMA_TENSORS: BlockTensors = BlockTensors {
    attn_norm: "attn_norm",
    q: "attn_q",
    k: "attn_k",
    v: "attn_v",
    attn_sub_norm: None,
    o: "attn_output",
    post_attn_norm: None,
    ffn_norm: "ffn_norm",
    gate: "ffn_gate",
    up: "ffn_up",
    ffn_sub_norm: None,
    down: "ffn_down",
    post_ffn_norm: None,
};

const BITNET_TENSORS: BlockTensors =
    BlockTensors { attn_sub_norm: Some("attn_sub_norm"), ffn_sub_norm: Some("ffn_sub_norm"), ..LLAMA_TENSORS };

impl Scales {
    /// Nothing is scaled.
    pub const NONE: Scales = Scales { embedding: 1.0, residual: 1.0, logit: 1.0 };
}

impl Arch {
    /// The architecture of this name.
    pub fn find(name: &str) -> Option<&'static Arch> {
        ARCHITECTURES.iter().find(|arch| arch.name == name)
    }

    /// The feed-forward activation of a file that does not name one, and whether its size decides it.
    pub fn activation_for(&self, size: ModelSize) -> (Activation, bool) {
        match &self.exception {
            Some(exception) if (exception.applies)(size) => (exception.activation, true),
            _ => (self.activation, false),
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/arch.rs"]
mod tests;
