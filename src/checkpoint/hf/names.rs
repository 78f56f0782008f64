//! The names of tensors: from those of transformers to those of GGUF.

/// The seven projections of a block, as transformers and as GGUF name them.
const PROJECTIONS: [(&str, &str); 7] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// The norms of a block.
const NORMS: [(&str, &str); 11] = [
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    // Microsoft's names, then 1bitLLM's.
    ("self_attn.attn_sub_norm", "attn_sub_norm"),
    ("self_attn.inner_attn_ln", "attn_sub_norm"),
    ("mlp.ffn_sub_norm", "ffn_sub_norm"),
    ("mlp.ffn_layernorm", "ffn_sub_norm"),
    // Qwen's and Gemma's names, then Hunyuan's.
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.query_layernorm", "attn_q_norm"),
    ("self_attn.key_layernorm", "attn_k_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];

/// Gemma's norms, where two of these names mean other norms.
const GEMMA_NORMS: [(&str, &str); 2] =
    [("post_attention_layernorm", "post_attention_norm"), ("pre_feedforward_layernorm", "ffn_norm")];

/// The tensors outside the blocks.
const OUTSIDE: [(&str, &str); 3] = [("embed_tokens", "token_embd"), ("norm", "output_norm"), ("lm_head", "output")];

/// What a tensor is for.
#[derive(Debug, PartialEq)]
pub(super) enum Role {
    /// The weights of a projection, by their name in GGUF.
    Projection(String),
    /// The scale of a projection's packed weights, by the name of those weights in GGUF.
    Scale(String),
    /// A norm of a block or of the output.
    Norm(String),
    /// The output head.
    Head(String),
    /// Another tensor that the model may use: the embedding, a bias.
    Other(String),
    /// A table that the model computes itself.
    Computed,
    /// Nothing that is known.
    Unknown,
}

/// The role of a tensor. `is_gemma` tells which of two meanings some norms have.
pub(super) fn role(name: &str, is_gemma: bool) -> Role {
    if name.ends_with("rotary_emb.inv_freq") {
        return Role::Computed;
    }
    let Some((module, what)) = module(name).rsplit_once('.') else { return Role::Unknown };
    let Some((layer, module)) = layer_of(module) else {
        return match (OUTSIDE.into_iter().find(|(hf, _)| *hf == module), what) {
            (Some(("norm", name)), "weight") => Role::Norm(format!("{name}.weight")),
            (Some(("lm_head", name)), "weight") => Role::Head(format!("{name}.weight")),
            (Some((_, name)), "weight") => Role::Other(format!("{name}.weight")),
            _ => Role::Unknown,
        };
    };
    let block = |name: &str, what: &str| format!("blk.{layer}.{name}.{what}");
    if let Some((projection, inner)) = PROJECTIONS.into_iter().find_map(|(hf, name)| {
        let inner = module.strip_prefix(hf)?;
        (inner.is_empty() || inner.starts_with('.')).then_some((name, inner))
    }) {
        return match (inner, what) {
            ("", "weight") => Role::Projection(block(projection, "weight")),
            ("", "weight_scale") => Role::Scale(block(projection, "weight")),
            ("", "bias") => Role::Other(block(projection, "bias")),
            (".norm" | ".rms_norm", "weight") => Role::Other(block(&format!("{projection}_norm_in"), "weight")),
            _ => Role::Unknown,
        };
    }
    let own = if is_gemma { &GEMMA_NORMS[..] } else { &[] };
    match own.iter().chain(&NORMS).find(|(hf, _)| *hf == module) {
        Some((_, name)) if what == "weight" => Role::Norm(block(name, "weight")),
        _ => Role::Unknown,
    }
}

/// A name without what stands in front of the text model's own: nothing for a model without a head, `model.`, or the
/// names of models that also read pictures.
pub(super) fn module(name: &str) -> &str {
    let prefixes = ["model.language_model.", "language_model.model.", "language_model.", "model."];
    prefixes.into_iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name)
}

/// The number of a block as the file writes it, and the rest of the name.
fn layer_of(module: &str) -> Option<(u32, &str)> {
    let (number, rest) = module.strip_prefix("layers.")?.split_once('.')?;
    let layer: u32 = number.parse().ok()?;
    (layer.to_string() == number).then_some((layer, rest))
}
