//! What distinguishes a model's graph from Llama's, as phrases for people.

use super::Model;
use super::arch::{HeadNorm, Scales};
use crate::ops::rope::{RopeScaling, Yarn};

impl Model {
    /// How the graph differs from Llama's; nothing if it does not.
    pub fn graph(&self) -> Vec<String> {
        let config = self.config();
        let (arch, block) = (config.arch, self.layers.first());
        let heads = match arch.head_norm {
            None => None,
            Some(HeadNorm::BeforeRope) => Some("queries and keys are normalized before the rotation".into()),
            Some(HeadNorm::AfterRope) => Some("queries and keys are normalized after the rotation".into()),
        };
        let sub_norms = arch.tensors.attn_sub_norm.map(|_| "norms before the projections o and down (SubLN)".into());
        let norm_in = self.norms_inputs().then(|| "a norm before every projection".into());
        let post_norms =
            arch.tensors.post_attn_norm.map(|_| "norms behind the attention and the feed-forward network".into());
        let biases = block.filter(|block| block.q.bias.is_some()).map(|_| "biases of queries, keys and values".into());
        let Scales { embedding, residual, logit } = config.scales;
        let scales = (config.scales != Scales::NONE)
            .then(|| format!("embeddings × {embedding}, branches × {residual}, logits / {logit}"));
        let window = config.window.as_ref().map(|window| {
            let local = window.layers.iter().filter(|is_local| **is_local).count();
            let (layers, size, base) = (config.n_layers, window.size, window.rope.base);
            format!("{local} of {layers} layers see the last {size} positions, with rope theta {base}")
        });
        let softcap = config.softcap.map(|cap| format!("logits between −{cap} and {cap}, by tanh"));
        let pooling = config.pooling.map(|pooling| format!("embedding model, pooling '{}'", pooling.name()));
        let all =
            [heads, sub_norms, norm_in, post_norms, biases, scales, self.rope_scaling(), window, softcap, pooling];
        all.into_iter().flatten().collect()
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
