//! What a model's metadata says about its graph.

use crate::checkpoint::gguf::{Gguf, Metadata, Value};
use crate::error::{Error, Result};
use crate::ops::rope::RopeStyle;

named! {
    /// A graph that this engine knows, by the value of `general.architecture`.
    pub enum Arch {
        /// Microsoft's BitNet b1.58 2B-4T.
        BitnetB158 = "bitnet-b1.58",
        /// The same in its first upload.
        Bitnet25 = "bitnet-25",
        /// 1bitLLM's models, and community conversions of 2B-4T.
        Bitnet = "bitnet",
        /// Llama's graph with ternary projections.
        Llama = "llama",
    }
}

named! {
    /// The activation of the feed-forward network.
    pub enum Activation {
        /// `x / (1 + e^-x)`.
        Silu = "silu",
        /// `max(x, 0)²`.
        Relu2 = "relu2",
    }
}

/// The measures and constants of a model.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which graph.
    pub arch: Arch,
    /// Transformer blocks.
    pub n_layers: usize,
    /// Channels of the residual stream.
    pub hidden_size: usize,
    /// Channels inside the feed-forward network.
    pub intermediate_size: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Token ids.
    pub vocab_size: usize,
    /// Positions that the model was trained for.
    pub context: usize,
    /// Added to the mean square in every RMSNorm.
    pub eps: f32,
    /// Base of the rotary frequencies.
    pub rope_base: f32,
    /// Divisor of positions (linear scaling); 1 for none.
    pub rope_factor: f32,
    /// Channels of a head that turn.
    pub rope_dim: usize,
    /// Which channels turn together.
    pub rope_style: RopeStyle,
    /// The feed-forward network's activation.
    pub activation: Activation,
    /// Whether a norm stands before each output projection.
    pub sub_norms: bool,
}

/// Keys (after the architecture) that change the graph in ways that this engine does not compute, and the values with
/// which they do not. A bool counts as 0 or 1; of a list every item counts.
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
/// The most channels of anything.
const MOST_CHANNELS: usize = 1 << 20;

impl Config {
    /// Reads and checks the metadata; `activation` overrides what the file implies.
    pub fn read(gguf: &Gguf, activation: Option<Activation>) -> Result<Config> {
        let metadata = gguf.metadata();
        let known = || Arch::ALL.map(Arch::name).join(", ");
        let name = metadata.str("general.architecture")?.ok_or_else(|| {
            Error::Model(format!(
                "metadata key 'general.architecture' is missing, so this is not a language model; \
                 this engine runs: {}",
                known()
            ))
        })?;
        let arch = Arch::ALL.into_iter().find(|arch| arch.name() == name).ok_or_else(|| {
            Error::Unsupported(format!("architecture '{name}' is not known; this engine runs: {}", known()))
        })?;
        let mut keys = Keys { metadata, arch, n_layers: 1 };
        keys.refuse_foreign()?;
        let n_layers = keys.count("block_count", 1024)?;
        keys.n_layers = n_layers;
        let hidden_size = keys.count("embedding_length", MOST_CHANNELS)?;
        let intermediate_size = keys.count("feed_forward_length", MOST_CHANNELS)?;
        let n_heads = keys.count("attention.head_count", 1 << 14)?;
        let n_kv_heads = keys.count_or("attention.head_count_kv", 1 << 14, n_heads)?;
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(keys.wrong(&format!("{n_heads} heads are not a multiple of {n_kv_heads} key/value heads")));
        }
        let head_dim = keys.count_or("attention.key_length", 1 << 14, hidden_size / n_heads)?;
        let value_dim = keys.count_or("attention.value_length", 1 << 14, head_dim)?;
        let rope_dim = keys.count_or("rope.dimension_count", 1 << 14, head_dim)?;
        if head_dim == 0 || value_dim != head_dim {
            return Err(
                keys.wrong(&format!("keys have {head_dim} channels a head and values {value_dim}, expected as many"))
            );
        }
        if n_heads * head_dim > MOST_CHANNELS {
            return Err(keys.wrong(&format!(
                "{n_heads} heads of {head_dim} channels, expected at most {MOST_CHANNELS} channels in all"
            )));
        }
        if rope_dim > head_dim || !rope_dim.is_multiple_of(2) {
            return Err(keys
                .wrong(&format!("{rope_dim} channels of a head turn, expected an even number of at most {head_dim}")));
        }
        let embedded = gguf.tensor("token_embd.weight").map_or(0, |t| t.rows());
        let vocab_size = keys.count_or("vocab_size", 1 << 24, embedded)?;
        let activation = match (activation, keys.hidden_activation()?) {
            (Some(given), _) | (None, Some(given)) => given,
            (None, None) => match arch {
                Arch::BitnetB158 | Arch::Bitnet25 => Activation::Relu2,
                // Community conversions of 2B-4T carry this name: only the shape tells.
                Arch::Bitnet if (n_layers, hidden_size, intermediate_size, vocab_size) == (30, 2560, 6912, 128_256) => {
                    Activation::Relu2
                }
                Arch::Bitnet | Arch::Llama => Activation::Silu,
            },
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
            rope_base: keys.positive("rope.freq_base", Some(10_000.0))?,
            rope_factor: keys.rope_factor()?,
            rope_dim,
            rope_style: if arch == Arch::Llama { RopeStyle::Interleaved } else { RopeStyle::NeoX },
            activation,
            sub_norms: arch != Arch::Llama,
        })
    }

    /// Channels of all query heads.
    pub fn q_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Channels of all key (or value) heads.
    pub fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }
}

/// The metadata under the architecture's prefix.
struct Keys<'a> {
    metadata: Metadata<'a>,
    arch: Arch,
    /// How many values a list with one for each layer has.
    n_layers: usize,
}

impl Keys<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.arch.name())
    }

    fn wrong(&self, what: &str) -> Error {
        Error::Model(format!("metadata of architecture '{}': {what}", self.arch.name()))
    }

    /// A count from 1 to `most`; a value for each layer is accepted if all are equal.
    fn optional(&self, key: &str, most: usize) -> Result<Option<usize>> {
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
            Some(value) if (1..=most).contains(value) => Ok(Some(*value)),
            _ => Err(self.wrong(&format!("key '{key}' is {values:?}, expected a number from 1 to {most}"))),
        }
    }

    fn count(&self, key: &str, most: usize) -> Result<usize> {
        self.optional(key, most)?.ok_or_else(|| self.wrong(&format!("key '{}' is missing", self.key(key))))
    }

    fn count_or(&self, key: &str, most: usize, default: usize) -> Result<usize> {
        Ok(self.optional(key, most)?.unwrap_or(default))
    }

    fn positive(&self, key: &str, default: Option<f32>) -> Result<f32> {
        let key = self.key(key);
        match self.metadata.float(&key)?.or(default) {
            Some(x) if x > 0.0 && x.is_finite() => Ok(x),
            Some(x) => Err(self.wrong(&format!("key '{key}' is {x}, expected a finite number above 0"))),
            None => Err(self.wrong(&format!("key '{key}' is missing"))),
        }
    }

    fn hidden_activation(&self) -> Result<Option<Activation>> {
        let key = self.key("hidden_activation");
        let Some(name) = self.metadata.str(&key)? else { return Ok(None) };
        Activation::ALL.into_iter().find(|known| known.name() == name).map(Some).ok_or_else(|| {
            Error::Unsupported(format!("metadata key '{key}' is '{name}'; this engine computes silu and relu2"))
        })
    }

    fn rope_factor(&self) -> Result<f32> {
        let key = self.key("rope.scaling.type");
        // As llama.cpp reads them: linear unless said otherwise, an old key, and 0 for no scaling.
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
                "metadata key '{key}' is '{other}'; this engine scales positions linearly or not at all"
            ))),
        }
    }

    fn refuse_foreign(&self) -> Result<()> {
        for (key, neutral) in FOREIGN_KEYS {
            let key = self.key(key);
            let changes = |value: &Value| !value.floats().is_some_and(|all| all.iter().all(|x| neutral.contains(x)));
            if let Some(value) = self.metadata.get(&key).filter(changes) {
                return Err(Error::Unsupported(format!(
                    "metadata key '{key}' is {value}, which changes the model in a way that this engine does not compute"
                )));
            }
        }
        Ok(())
    }
}
