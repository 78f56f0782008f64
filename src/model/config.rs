//! What a file's metadata says about its model: sizes, constants, and which graph.

use super::arch::{ARCHITECTURES, Arch, Exception, ModelSize, Scales, TOKEN_EMBEDDING};
use super::hybrid::{self, DeltaNets};
use super::keys::Keys;
use super::positions::{self, SlidingWindow};
use crate::checkpoint::gguf::{Gguf, Metadata};
use crate::error::{Error, Result};
use crate::ops::activation::Activation;
use crate::ops::rope::{RopeParams, RopeScaling, RopeStyle};

named! {
    /// How the states of a text's positions become one vector.
    pub enum Pooling {
        /// The mean over all positions.
        Mean = "mean",
        /// The state of the last position.
        Last = "last",
        /// The state of the first position.
        Cls = "cls",
    }
}

/// The sizes and constants of a model.
#[derive(Clone, Debug)]
pub struct Config {
    /// The architecture: names of its tensors, and what the metadata leaves open.
    pub arch: &'static Arch,
    /// Transformer blocks, each with attention and feed-forward network.
    pub n_layers: usize,
    /// Channels of the residual stream.
    pub hidden_size: usize,
    /// Channels inside the feed-forward network.
    pub intermediate_size: usize,
    /// Query heads of a layer.
    pub n_heads: usize,
    /// Key/value heads; fewer than query heads in grouped-query attention.
    pub n_kv_heads: usize,
    /// Channels of one head: the length of its query, key and value vectors.
    pub head_dim: usize,
    /// Tokens of the vocabulary; ids are below it.
    pub vocab_size: usize,
    /// Positions that the model was trained for.
    pub context: usize,
    /// Added to the mean square in every RMSNorm.
    pub eps: f32,
    /// The parameters of the rotary position embedding.
    pub rope: RopeParams,
    /// The activation of the feed-forward network.
    pub activation: Activation,
    /// Why it is this one, as a phrase for people.
    pub activation_reason: &'static str,
    /// Constants that scale embeddings, branches and logits.
    pub scales: Scales,
    /// Multiplies the scores of the attention.
    pub score_scale: f32,
    /// The layers that are gated delta nets, if there are any.
    pub delta_nets: Option<DeltaNets>,
    /// Blocks behind the layers, which predict several tokens at once; they are not used.
    pub n_prediction_layers: usize,
    /// The layers that see only the latest positions, if there are any.
    pub window: Option<SlidingWindow>,
    /// Logits are kept between minus this and this, by a hyperbolic tangent.
    pub softcap: Option<f32>,
    /// How the model's makers pool the states of a text, if they say so: such a model was trained for embeddings.
    pub pooling: Option<Pooling>,
    /// What the file leaves in doubt.
    pub warnings: Vec<String>,
}

/// The default `n_ctx`, unless the model was trained for a shorter context.
const DEFAULT_CONTEXT: usize = 4096;

/// Upper bound of every number of channels: far above any model, and products of two such numbers don't overflow.
const MAX_CHANNELS: usize = 1 << 20;

impl Config {
    /// Reads and checks the metadata; `activation` overrides what the file implies.
    pub fn read(gguf: &Gguf, activation: Option<Activation>) -> Result<Config> {
        let metadata = gguf.metadata();
        let arch = arch_of(metadata)?;
        let mut keys = Keys { metadata, arch, n_layers: 1 };
        keys.refuse_foreign()?;
        let n_blocks = keys.count("block_count", 1024)?;
        keys.n_layers = n_blocks;
        let n_prediction_layers = hybrid::prediction_layers(&keys, n_blocks)?;
        let n_layers = n_blocks - n_prediction_layers;
        let hidden_size = keys.count("embedding_length", MAX_CHANNELS)?;
        let intermediate_size = keys.count("feed_forward_length", MAX_CHANNELS)?;
        let n_heads = keys.count("attention.head_count", 1 << 14)?;
        let n_kv_heads = keys.count_or("attention.head_count_kv", 1 << 14, n_heads)?;
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(keys.wrong(&format!("{n_heads} heads are not a multiple of {n_kv_heads} key/value heads")));
        }
        let head_dim = keys.count_or("attention.key_length", 1 << 14, hidden_size / n_heads)?;
        let value_dim = keys.count_or("attention.value_length", 1 << 14, head_dim)?;
        if head_dim == 0 || value_dim != head_dim {
            return Err(keys.wrong(&format!(
                "a head has {head_dim} key channels and {value_dim} value channels, expected two equal numbers above 0"
            )));
        }
        if n_heads * head_dim > MAX_CHANNELS {
            return Err(keys.wrong(&format!(
                "{n_heads} heads of {head_dim} channels, expected at most {MAX_CHANNELS} channels in all"
            )));
        }
        let embedding_rows = gguf.tensor(TOKEN_EMBEDDING).map_or(0, |t| t.rows());
        let vocab_size = keys.count_or("vocab_size", 1 << 24, embedding_rows)?;
        let size = ModelSize { n_layers, hidden_size, intermediate_size, vocab_size };
        let mut warnings = Vec::new();
        let (activation, activation_reason) = match (activation, arch.activation_for(size)) {
            (Some(asked), _) => (asked, "as requested"),
            (None, by_arch) => match (stated_activation(&keys)?, by_arch) {
                (Some(stated), _) => (stated, "as the file states"),
                (None, (known, true)) => (known, "by the size, that of a known model"),
                (None, (usual, false)) => {
                    warnings.extend(doubt(&keys, usual)?);
                    (usual, "by the architecture")
                }
            },
        };
        let context = keys.count_or("context_length", usize::MAX, 4096)?;
        let mut rope = positions::rope(&keys, head_dim, context)?;
        if gguf.is_unpermuted() {
            rope.style = RopeStyle::NeoX;
        }
        let score_width = if (arch.scores_by_width)(size) { hidden_size / n_heads } else { head_dim };
        Ok(Config {
            arch,
            n_layers,
            hidden_size,
            intermediate_size,
            n_heads,
            n_kv_heads,
            head_dim,
            vocab_size,
            context,
            eps: keys.positive("attention.layer_norm_rms_epsilon")?,
            delta_nets: hybrid::delta_nets(&keys, n_layers)?,
            n_prediction_layers,
            window: positions::window(&keys, &rope)?,
            rope,
            activation,
            activation_reason,
            scales: scales(&keys, (arch.scales)(size))?,
            score_scale: score_scale(&keys, score_width)?,
            softcap: softcap(&keys)?,
            pooling: pooling(&keys)?,
            warnings,
        })
    }

    /// Positions that a sequence may have: as asked, by default the model's, at most 4096.
    pub fn n_ctx(&self, asked: Option<usize>) -> Result<usize> {
        let n_ctx = asked.unwrap_or(self.context.min(DEFAULT_CONTEXT));
        if n_ctx <= self.context {
            return Ok(n_ctx);
        }
        Err(Error::Argument(format!(
            "n_ctx is {n_ctx}, expected at most {}, the positions that the model was trained for",
            self.context
        )))
    }

    /// Which of LongRoPE's tables a context of so many positions takes; `None` for other models.
    pub fn rope_table(&self, n_ctx: usize) -> Option<&'static str> {
        match self.rope.scaling {
            RopeScaling::LongRope { original_context, .. } if n_ctx > original_context => Some("long"),
            RopeScaling::LongRope { .. } => Some("short"),
            _ => None,
        }
    }

    /// The window of a layer; `None` if it sees all positions.
    pub fn window_of(&self, layer: usize) -> Option<&SlidingWindow> {
        self.window.as_ref().filter(|window| window.layers[layer])
    }

    /// The gated delta net of a layer; `None` if it has attention.
    pub fn delta_net_of(&self, layer: usize) -> Option<&DeltaNets> {
        self.delta_nets.as_ref().filter(|nets| nets.layers[layer])
    }

    /// How many layers have attention.
    pub fn n_attention_layers(&self) -> usize {
        (0..self.n_layers).filter(|layer| self.delta_net_of(*layer).is_none()).count()
    }

    /// Channels of all query heads.
    pub fn q_dim(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Channels of all key (or value) heads.
    pub fn kv_dim(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }
}

fn arch_of(metadata: Metadata) -> Result<&'static Arch> {
    let known = || ARCHITECTURES.each_ref().map(|arch| arch.name).join(", ");
    let name = metadata.str("general.architecture")?.ok_or_else(|| {
        Error::Model(format!(
            "metadata key 'general.architecture' is missing, so this is not a language model; this engine runs: {}",
            known()
        ))
    })?;
    Arch::find(name)
        .ok_or_else(|| Error::Unsupported(format!("architecture '{name}' is not known; this engine runs: {}", known())))
}

/// The activation that the file names, if it does.
fn stated_activation(keys: &Keys) -> Result<Option<Activation>> {
    let Some(name) = keys.str("hidden_activation")? else { return Ok(None) };
    let known = || Activation::ALL.map(Activation::name).join(", ");
    let found = Activation::ALL.into_iter().find(|known| known.name() == name);
    found.map(Some).ok_or_else(|| keys.unsupported("hidden_activation", name, &format!("computes {}", known())))
}

/// The warning about an activation by the architecture's name, where models of another one carry the name, too.
fn doubt(keys: &Keys, usual: Activation) -> Result<Option<String>> {
    let Some(Exception { activation, tokenizer: Some(tokenizer), .. }) = &keys.arch.exception else { return Ok(None) };
    if keys.metadata.str("tokenizer.ggml.model")? != Some(tokenizer) {
        return Ok(None);
    }
    let (usual, other) = (usual.name(), activation.name());
    Ok(Some(format!(
        "the file does not state its activation. Models of architecture '{}' use {usual}, but 1bitLLM's, which have a \
         SentencePiece vocabulary as this one, use {other}, and a converter gives them the same name; if the answers \
         make no sense, open it with ffn_act=\"{other}\"; ffn_act=\"{usual}\" confirms the choice",
        keys.arch.name
    )))
}

/// The constants that the file states for an architecture with such keys, or else the architecture's own.
fn scales(keys: &Keys, default: Scales) -> Result<Scales> {
    let scale = |key, default| if keys.computes(key) { keys.positive_or(key, default) } else { Ok(default) };
    Ok(Scales {
        embedding: scale("embedding_scale", default.embedding)?,
        residual: scale("residual_scale", default.residual)?,
        logit: scale("logit_scale", default.logit)?,
    })
}

/// What attention scores are multiplied by: as the file states (0 means nothing), or 1 / √width.
fn score_scale(keys: &Keys, width: usize) -> Result<f32> {
    let key = "attention.scale";
    if keys.computes(key)
        && keys.metadata.float(&keys.key(key))? != Some(0.0)
        && let Some(stated) = keys.optional_positive(key)?
    {
        return Ok(stated);
    }
    Ok((1.0 / (width as f64).sqrt()) as f32)
}

/// The bound of the logits; 0 means none.
fn softcap(keys: &Keys) -> Result<Option<f32>> {
    let key = "final_logit_softcapping";
    if !keys.computes(key) || keys.metadata.float(&keys.key(key))? == Some(0.0) {
        return Ok(None);
    }
    keys.optional_positive(key)
}

/// The pooling that the file states, by llama.cpp's numbers; 0 means none.
fn pooling(keys: &Keys) -> Result<Option<Pooling>> {
    let known = [None, Some(Pooling::Mean), Some(Pooling::Cls), Some(Pooling::Last)];
    let stated = keys.metadata.uint(&keys.key("pooling_type"))?.unwrap_or(0);
    known.get(stated).copied().ok_or_else(|| {
        keys.unsupported("pooling_type", &stated.to_string(), "knows 0 (none), 1 (mean), 2 (cls) and 3 (last)")
    })
}
