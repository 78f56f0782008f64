//! What a file's metadata says about its model: sizes, constants, and which graph.

use super::arch::{ARCHITECTURES, Arch, ModelSize, TOKEN_EMBEDDING};
use crate::checkpoint::gguf::{Gguf, Metadata, Value};
use crate::error::{Error, Result};
use crate::ops::activation::Activation;
use crate::ops::rope::RopeParams;

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
}

/// Keys (behind the architecture's prefix) that change the graph in ways that this engine does not compute, and the
/// values at which they change nothing. A bool is 0 or 1; every item of a list must be neutral.
const FOREIGN_KEYS: [(&str, &[f32]); 14] = [
    ("expert_count", &[0.0]),
    ("attention.sliding_window", &[0.0]),
    ("attention.scale", &[0.0]),
    ("attention.causal", &[1.0]),
    ("attention.clamp_kqv", &[0.0]),
    ("attention.max_alibi_bias", &[0.0]),
    ("attn_logit_softcapping", &[0.0]),
    ("final_logit_softcapping", &[0.0]),
    ("logit_scale", &[0.0, 1.0]),
    ("embedding_scale", &[0.0, 1.0]),
    ("residual_scale", &[0.0, 1.0]),
    ("rope.scaling.attn_factor", &[1.0]),
    ("use_parallel_residual", &[0.0]),
    ("pooling_type", &[0.0]),
];
/// Upper bound of every number of channels: far above any model, and products of two such numbers don't overflow.
const MAX_CHANNELS: usize = 1 << 20;

impl Config {
    /// Reads and checks the metadata; `activation` overrides what the file implies.
    pub fn read(gguf: &Gguf, activation: Option<Activation>) -> Result<Config> {
        let metadata = gguf.metadata();
        let arch = arch_of(metadata)?;
        let mut keys = Keys { metadata, arch, n_layers: 1 };
        keys.refuse_foreign()?;
        let n_layers = keys.count("block_count", 1024)?;
        keys.n_layers = n_layers;
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
        let activation = match activation {
            Some(asked) => asked,
            None => keys.hidden_activation()?.unwrap_or_else(|| arch.activation_for(size)),
        };
        Ok(Config {
            arch,
            n_layers,
            hidden_size,
            intermediate_size,
            n_heads,
            n_kv_heads,
            head_dim,
            vocab_size,
            context: keys.count_or("context_length", usize::MAX, 4096)?,
            eps: keys.positive("attention.layer_norm_rms_epsilon", None)?,
            rope: keys.rope(head_dim)?,
            activation,
        })
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

/// The metadata under the architecture's prefix.
struct Keys<'a> {
    metadata: Metadata<'a>,
    arch: &'static Arch,
    /// The length that a list of one value a layer must have.
    n_layers: usize,
}

impl Keys<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.arch.name)
    }

    fn wrong(&self, what: &str) -> Error {
        Error::Model(format!("metadata of architecture '{}': {what}", self.arch.name))
    }

    /// A number from 1 to `max`, or a list of one number a layer if all are equal.
    fn optional(&self, key: &str, max: usize) -> Result<Option<usize>> {
        let key = self.key(key);
        let Some(values) = self.metadata.uints(&key)? else { return Ok(None) };
        if let Some(Value::Array(list)) = self.metadata.get(&key)
            && list.len() != self.n_layers
        {
            let (found, n_layers) = (list.len(), self.n_layers);
            return Err(self.wrong(&format!("key '{key}' lists {found} values for {n_layers} layers")));
        }
        if values.iter().any(|value| *value != values[0]) {
            return Err(Error::Unsupported(format!(
                "metadata key '{key}' differs between layers; this engine runs models whose layers are alike"
            )));
        }
        match values.first() {
            Some(value) if (1..=max).contains(value) => Ok(Some(*value)),
            _ => Err(self.wrong(&format!("key '{key}' is {values:?}, expected a number from 1 to {max}"))),
        }
    }

    fn count(&self, key: &str, max: usize) -> Result<usize> {
        self.optional(key, max)?.ok_or_else(|| self.wrong(&format!("key '{}' is missing", self.key(key))))
    }

    fn count_or(&self, key: &str, max: usize, default: usize) -> Result<usize> {
        Ok(self.optional(key, max)?.unwrap_or(default))
    }

    fn positive(&self, key: &str, default: Option<f32>) -> Result<f32> {
        let key = self.key(key);
        match self.metadata.float(&key)?.or(default) {
            Some(x) if x > 0.0 && x.is_finite() => Ok(x),
            Some(x) => Err(self.wrong(&format!("key '{key}' is {x}, expected a finite number above 0"))),
            None => Err(self.wrong(&format!("key '{key}' is missing"))),
        }
    }

    /// The activation that the file names, if it does.
    fn hidden_activation(&self) -> Result<Option<Activation>> {
        let key = self.key("hidden_activation");
        let Some(name) = self.metadata.str(&key)? else { return Ok(None) };
        Activation::ALL.into_iter().find(|known| known.name() == name).map(Some).ok_or_else(|| {
            Error::Unsupported(format!("metadata key '{key}' is '{name}'; this engine computes silu and relu2"))
        })
    }

    fn rope(&self, head_dim: usize) -> Result<RopeParams> {
        let dim = self.count_or("rope.dimension_count", 1 << 14, head_dim)?;
        if dim > head_dim || !dim.is_multiple_of(2) {
            return Err(
                self.wrong(&format!("{dim} channels of a head rotate, expected an even number of at most {head_dim}"))
            );
        }
        let base = self.positive("rope.freq_base", Some(10_000.0))?;
        Ok(RopeParams { style: self.arch.rope_style, dim, base, factor: self.rope_factor()? })
    }

    /// The factor of linear scaling. As llama.cpp reads the keys: the type is linear unless stated, files of 2023 hold
    /// the factor under another key, and 0 means no scaling.
    fn rope_factor(&self) -> Result<f32> {
        let key = self.key("rope.scaling.type");
        match self.metadata.str(&key)?.unwrap_or("linear") {
            "none" => Ok(1.0),
            "linear" => {
                let given = |key: &&str| self.metadata.get(&self.key(key)).is_some();
                match ["rope.scaling.factor", "rope.scale_linear"].into_iter().find(given) {
                    Some(key) if self.metadata.float(&self.key(key))? != Some(0.0) => self.positive(key, None),
                    _ => Ok(1.0),
                }
            }
            other => Err(Error::Unsupported(format!(
                "metadata key '{key}' is '{other}'; this engine knows the types 'none' and 'linear'"
            ))),
        }
    }

    /// Refuses a file with one of the [`FOREIGN_KEYS`] in effect.
    fn refuse_foreign(&self) -> Result<()> {
        for (key, neutral) in FOREIGN_KEYS {
            let key = self.key(key);
            let changes = |value: &Value| !value.floats().is_some_and(|all| all.iter().all(|x| neutral.contains(x)));
            if let Some(value) = self.metadata.get(&key).filter(changes) {
                return Err(Error::Unsupported(format!(
                    "metadata key '{key}' is {value}, which changes the graph in a way that this engine does not compute"
                )));
            }
        }
        Ok(())
    }
}
