//! What distinguishes a model's graph from Llama's, as phrases for people.

use super::arch::{HeadNorm, Scales};
use super::{Block, Model};
use crate::ops::rope::{RopeScaling, Yarn};

impl Model {
    /// How the graph differs from Llama's; nothing if it does not.
    pub fn graph(&self) -> Vec<String> {
        let config = self.config();
        let (arch, attention) = (config.arch, self.layers.iter().find_map(Block::attention));
        let heads = match arch.head_norm {
            None => None,
            Some(HeadNorm::BeforeRope) => Some("queries and keys are normalized before the rotation".into()),
            Some(HeadNorm::AfterRope) => Some("queries and keys are normalized after the rotation".into()),
        };
        let sub_norms = arch.tensors.attn_sub_norm.map(|_| "norms before the projections o and down (SubLN)".into());
        let norm_in = self.norms_inputs().then(|| "a norm before every projection".into());
        let post_norms =
            arch.tensors.post_attn_norm.map(|_| "norms behind the attention and the feed-forward network".into());
        let biases = attention
            .filter(|attention| attention.q.bias.is_some())
            .map(|_| "biases of queries, keys and values".into());
        let Scales { embedding, residual, logit } = config.scales;
        let scales = (config.scales != Scales::NONE)
            .then(|| format!("embeddings × {embedding}, branches × {residual}, logits / {logit}"));
        let window = config.window.as_ref().map(|window| {
            let local = window.layers.iter().filter(|is_local| **is_local).count();
            let (layers, size, base) = (config.n_layers, window.size, window.rope.base);
            format!("{local} of {layers} layers see the last {size} positions, with rope theta {base}")
        });
        let nets = config.delta_nets.as_ref().map(|nets| {
            let (count, layers) = (config.n_layers - config.n_attention_layers(), config.n_layers);
            let (keys, values, dim) = (nets.n_key_heads, nets.n_value_heads, nets.head_dim);
            format!(
                "{count} of {layers} layers are gated delta nets with {keys} key heads and {values} value heads of {dim} \
                 channels; the others gate their attention's output"
            )
        });
        let rotated = self.layers.iter().flat_map(Block::linears).any(|linear| linear.rotation.is_some());
        let rotated = rotated.then(|| "weights are stored rotated (signs and Walsh-Hadamard transforms)".into());
        let predicts = Some(config.n_prediction_layers).filter(|count| *count > 0);
        let predicts = predicts.map(|count| format!("{count} blocks that predict several tokens at once are not used"));
        let softcap = config.softcap.map(|cap| format!("logits between −{cap} and {cap}, by tanh"));
        let pooling = config.pooling.map(|pooling| format!("embedding model, pooling '{}'", pooling.name()));
        let of_layers = [nets, heads, sub_norms, norm_in, post_norms, biases, scales, self.rope_scaling(), window];
        of_layers.into_iter().chain([rotated, predicts, softcap, pooling]).flatten().collect()
    }

    /// How the rotary frequencies are scaled, if they are.
    fn rope_scaling(&self) -> Option<String> {
        match self.config().rope.scaling {
            RopeScaling::NONE => None,
            RopeScaling::Linear { factor } => Some(format!("linear rope scaling by {factor}")),
            RopeScaling::Yarn(Yarn { factor, original_context, magnitude, .. }) => Some(format!(
                "YaRN rope scaling by {factor} from {original_context} positions, cosines and sines × {magnitude}"
            )),
            RopeScaling::LongRope { original_context, magnitude } => Some(format!(
                "LongRoPE: the long divisors if n_ctx exceeds {original_context}, cosines and sines × {magnitude}"
            )),
        }
    }
}
