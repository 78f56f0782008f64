//! From `config.json` to the metadata that a converter to GGUF would have written.

use super::image::{Image, Setting};
use super::keys::Keys;
use super::quantization::Quantization;
use super::rope;
use super::settings::{Settings, shown};
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};
use std::path::Path;

/// A kind of model that transformers knows, with the values of settings that a `config.json` leaves out.
#[derive(Debug)]
pub(super) struct Family {
    /// The setting `model_type`.
    model_type: &'static str,
    /// The architecture of GGUF.
    pub arch: &'static str,
    /// Key/value heads; as many as query heads without a number.
    kv_heads: Option<u64>,
    /// Channels of a head; the width divided by the heads without a number.
    head_dim: Option<u64>,
    /// The base of the rotary frequencies.
    pub theta: f64,
    /// Added to the mean square in a norm.
    eps: f64,
    /// Whether the output head is the embedding.
    tied: bool,
    /// The setting that names the activation, and its value.
    act: (&'static str, &'static str),
    /// Positions.
    pub context: u64,
    /// The settings that state whether projections have a bias: of the attention, of the feed-forward network.
    biases: [Option<&'static str>; 2],
    /// Adds the settings of this kind alone.
    own: fn(&Settings, &mut Keys) -> Result<()>,
}

/// Llama, from which the others differ.
const LLAMA: Family = Family {
    model_type: "llama",
    arch: "llama",
    kv_heads: None,
    head_dim: None,
    theta: 10_000.0,
    eps: 1e-6,
    tied: false,
    act: ("hidden_act", "silu"),
    context: 2048,
    biases: [Some("attention_bias"), Some("mlp_bias")],
    own: |_, _| Ok(()),
};

/// Every kind of model whose directories this engine opens.
static FAMILIES: [Family; 7] = [
    LLAMA,
    Family {
        model_type: "bitnet",
        arch: "bitnet-b1.58",
        kv_heads: Some(5),
        theta: 500_000.0,
        eps: 1e-5,
        act: ("hidden_act", "relu2"),
        biases: [Some("attention_bias"), None],
        ..LLAMA
    },
    Family { model_type: "qwen2", arch: "qwen2", kv_heads: Some(32), context: 32_768, biases: [None, None], ..LLAMA },
    Family {
        model_type: "qwen3",
        arch: "qwen3",
        kv_heads: Some(32),
        head_dim: Some(128),
        context: 32_768,
        biases: [Some("attention_bias"), None],
        ..LLAMA
    },
    Family {
        model_type: "gemma3_text",
        arch: "gemma3",
        kv_heads: Some(4),
        head_dim: Some(256),
        theta: 1_000_000.0,
        tied: true,
        act: ("hidden_activation", "gelu_pytorch_tanh"),
        context: 131_072,
        biases: [Some("attention_bias"), None],
        own: gemma,
        ..LLAMA
    },
    Family { model_type: "minicpm", arch: "minicpm", tied: true, own: minicpm, ..LLAMA },
    Family {
        model_type: "hunyuan_v1_dense",
        arch: "hunyuan-dense",
        eps: 1e-5,
        biases: [Some("attention_bias"), None],
        own: hunyuan,
        ..LLAMA
    },
];

/// 1bitLLM's models, which call themselves `llama`.
static ONE_BIT_LLM: Family = Family { arch: "bitnet", own: one_bit_llm, ..LLAMA };
/// What 1bitLLM's models have as architecture.
const ONE_BIT_LLM_CLASS: &str = "BitnetForCausalLM";

/// What a `config.json` says.
#[derive(Debug)]
pub(super) struct Config {
    pub family: &'static Family,
    /// The metadata, and vectors that the configuration describes.
    pub image: Image,
    pub quantization: Quantization,
    /// Whether the embedding is also the output head, whatever else the file holds.
    pub tied: bool,
    /// Whether the file has a model with an output head, by the name of its class.
    pub has_head: bool,
    /// Transformer blocks.
    pub layers: u64,
    /// Whether the projections of the attention and of the feed-forward network must have a bias; `None` if the
    /// architecture decides.
    pub biases: [Option<bool>; 2],
    pub warnings: Vec<String>,
}

/// Reads the settings. `name` is the model's, for people; `pooling` is the content of `1_Pooling/config.json`.
pub(super) fn read(path: &Path, map: &Map<String, Value>, name: &str, pooling: Option<&Value>) -> Result<Config> {
    let settings = Settings::new(path, "", map);
    let classes = settings.strings("architectures")?.unwrap_or_default();
    let family = family_of(&settings, &classes)?;
    let tied = settings.bool("tie_word_embeddings")?.unwrap_or(family.tied);
    let mut image = Image::default();
    image.set("general.architecture", Setting::Str(family.arch.into()));
    image.set("general.name", Setting::Str(name.into()));
    let (width, heads) = (settings.required("hidden_size")?, settings.required("num_attention_heads")?);
    let quotient = width.checked_div(heads).ok_or_else(|| settings.wrong("num_attention_heads", "0", "at least 1"))?;
    let head_dim = settings.uint("head_dim")?.or(family.head_dim).unwrap_or(quotient);
    let (layers, context) = (settings.required("num_hidden_layers")?, settings.uint("max_position_embeddings")?);
    let context = context.unwrap_or(family.context);
    let arch = family.arch;
    let mut keys = Keys { arch, image: &mut image, head_dim, width, heads, layers, context, theta: family.theta };
    keys.uint("block_count", layers);
    keys.uint("context_length", context);
    keys.uint("embedding_length", width);
    keys.uint("feed_forward_length", settings.required("intermediate_size")?);
    keys.uint("attention.head_count", heads);
    keys.uint("attention.head_count_kv", settings.uint("num_key_value_heads")?.or(family.kv_heads).unwrap_or(heads));
    keys.uint("attention.key_length", head_dim);
    keys.uint("attention.value_length", head_dim);
    keys.uint("vocab_size", settings.required("vocab_size")?);
    let eps = settings.number("rms_norm_eps")?.unwrap_or(family.eps);
    keys.float("attention.layer_norm_rms_epsilon", eps);
    let (key, default) = family.act;
    keys.str("hidden_activation", activation(settings.str(key)?.unwrap_or(default)));
    rope::read(&settings, &mut keys)?;
    if family.arch != "gemma3" {
        full_attention(&settings, &keys)?;
    }
    (family.own)(&settings, &mut keys)?;
    let (pooling_key, pooling) = ("pooling_type", pooling.map(|value| pooling_type(path, value)).transpose()?);
    pooling.into_iter().for_each(|kind| keys.uint(pooling_key, kind));
    let bias = |key: &'static str| Ok(Some(settings.bool(key)?.unwrap_or(false)));
    let [attention, mlp] = family.biases.map(|key| key.map_or(Ok(None), bias));
    let biases = [attention?, mlp?];
    let has_class = |class: &str| classes.contains(&class);
    let (quantization, mut warnings) =
        Quantization::read(&settings, family.arch.starts_with("bitnet"), has_class(ONE_BIT_LLM_CLASS), eps)?;
    warnings.extend(settings.refuse_others(false)?);
    let has_head = classes.is_empty() || classes.iter().any(|class| class.ends_with("ForCausalLM"));
    Ok(Config { family, image, quantization, tied, has_head, layers, biases, warnings })
}

fn family_of(settings: &Settings, classes: &[&str]) -> Result<&'static Family> {
    let Some(found) = settings.str("model_type")? else {
        let reason = "'model_type' is missing, so this is not the configuration of a model".into();
        return Err(Error::File { path: settings.path.into(), reason });
    };
    let family = FAMILIES.iter().find(|family| family.model_type == found);
    let family = family.ok_or_else(|| {
        let known = FAMILIES.each_ref().map(|family| family.model_type).join(", ");
        settings.unsupported("model_type", &shown(&found.into()), &format!("opens directories of: {known}"))
    })?;
    let is_one_bit_llm = family.arch == "llama" && classes.contains(&ONE_BIT_LLM_CLASS);
    Ok(if is_one_bit_llm { &ONE_BIT_LLM } else { family })
}

/// The activation by the name in GGUF. Another one is refused by its own name when the metadata are read.
fn activation(name: &str) -> &str {
    match name {
        "swish" => "silu",
        "gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" => "gelu_tanh",
        other => other,
    }
}

/// Refuses a window. Qwen's files state one that is turned off.
fn full_attention(settings: &Settings, keys: &Keys) -> Result<()> {
    let layer_types = settings.strings("layer_types")?;
    if let Some(kind) = layer_types.iter().flatten().find(|kind| **kind != "full_attention") {
        return Err(settings.unsupported("layer_types", &shown(&(*kind).into()), "computes full attention here"));
    }
    let (window, first) = (settings.uint("sliding_window")?, settings.uint("max_window_layers")?);
    let is_on = settings.bool("use_sliding_window")?.unwrap_or(!keys.arch.starts_with("qwen"));
    if let Some(window) = window.filter(|_| is_on)
        && layer_types.is_none()
        && first.is_none_or(|first| first < keys.layers)
    {
        return Err(settings.unsupported("sliding_window", &window.to_string(), "computes full attention here"));
    }
    Ok(())
}

/// Gemma's window, its scale of scores and its bounds of values.
fn gemma(settings: &Settings, keys: &mut Keys) -> Result<()> {
    let window = settings.uint("sliding_window")?.unwrap_or(4096);
    let pattern = settings.uint("sliding_window_pattern")?.or(settings.uint("_sliding_window_pattern")?);
    keys.uint("attention.sliding_window", window);
    match settings.strings("layer_types")? {
        Some(kinds) => {
            let has_window = |kind: &&str| match *kind {
                "sliding_attention" => Ok(true),
                "full_attention" => Ok(false),
                other => Err(settings.unsupported("layer_types", &shown(&other.into()), "computes windows of Gemma")),
            };
            let layers = kinds.iter().map(has_window).collect::<Result<Vec<bool>>>()?;
            keys.set("attention.sliding_window_pattern", Setting::Bools(layers));
        }
        None => keys.uint("attention.sliding_window_pattern", pattern.unwrap_or(6)),
    }
    // Gemma 3 27B alone divides by the root of the width of a head as if the heads made up the whole width.
    let usual = if keys.layers == 62 { keys.width / keys.heads } else { keys.head_dim };
    let scalar = settings.number("query_pre_attn_scalar")?.unwrap_or(256.0);
    if !(scalar > 0.0 && scalar.is_finite()) {
        return Err(settings.unsupported(
            "query_pre_attn_scalar",
            &scalar.to_string(),
            "divides scores by its square root",
        ));
    }
    if scalar != usual as f64 {
        keys.float("attention.scale", 1.0 / scalar.sqrt());
    }
    for (key, setting) in [
        ("attn_logit_softcapping", settings.number("attn_logit_softcapping")?),
        ("final_logit_softcapping", settings.number("final_logit_softcapping")?),
    ] {
        setting.into_iter().for_each(|cap| keys.float(key, cap));
    }
    settings.get("hidden_act"); // an older name, which transformers does not read
    settings.expect("use_bidirectional_attention", &[json!(false)])
}

/// MiniCPM's three constants.
fn minicpm(settings: &Settings, keys: &mut Keys) -> Result<()> {
    let number = |key| Ok(settings.number(key)?.unwrap_or(1.0));
    let (embedding, depth, base): (f64, f64, f64) =
        (number("scale_emb")?, number("scale_depth")?, number("dim_model_base")?);
    keys.float("embedding_scale", embedding);
    keys.float("residual_scale", depth / (keys.layers as f64).sqrt());
    keys.float("logit_scale", keys.width as f64 / base);
    Ok(())
}

/// Settings of Hunyuan that say what its graph is anyway.
fn hunyuan(settings: &Settings, keys: &mut Keys) -> Result<()> {
    settings.expect("use_qk_norm", &[json!(true)])?;
    settings.expect("use_rotary_pos_emb", &[json!(true)])?;
    settings.expect("norm_type", &[json!("rms")])?;
    settings.expect("num_experts", &[json!(0), json!(1)])?;
    settings.expect("num_shared_expert", &[json!(0), json!(1)])?;
    for key in ["moe_topk", "cla_share_factor", "enable_lm_head_fp32", "num_media_embeds"] {
        settings.get(key); // of models with experts, or of no effect in float32
    }
    settings.expect("attention_head_dim", &[json!(keys.head_dim)])
}

/// The bits for which 1bitLLM's models were trained.
fn one_bit_llm(settings: &Settings, _: &mut Keys) -> Result<()> {
    settings.expect("weight_bits", &[json!(1)])?;
    settings.expect("input_bits", &[json!(8)])
}

/// The pooling of an embedding model by llama.cpp's number, as sentence-transformers stores it.
fn pooling_type(path: &Path, value: &Value) -> Result<u64> {
    let modes = ["mean_tokens", "cls_token", "lasttoken"];
    // Newer versions name one mode.
    let named = match value["pooling_mode"].as_str() {
        Some("mean") => Some("mean_tokens"),
        Some("cls") => Some("cls_token"),
        other => other,
    };
    let on = |mode: &str| value[format!("pooling_mode_{mode}")] == true || named == Some(mode);
    let others = ["max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens"].into_iter().find(|mode| on(mode));
    let found: Vec<u64> = modes.iter().zip(1..).filter(|(mode, _)| on(mode)).map(|(_, number)| number).collect();
    match (&found[..], others) {
        ([only], None) => Ok(*only),
        _ => Err(Error::Unsupported(format!(
            "{}: 1_Pooling/config.json asks for a pooling that is not supported; this engine has one of: mean, cls, \
             last",
            path.display()
        ))),
    }
}
