//! What the metadata says of positions: the rotary embedding with its scaling, and the sliding window.

use super::keys::Keys;
use crate::checkpoint::gguf::Value;
use crate::error::Result;
use crate::ops::rope::{RopeParams, RopeScaling, Yarn};

/// The layers that see only the latest positions, as in Gemma.
#[derive(Clone, Debug)]
pub struct SlidingWindow {
    /// How many positions they see, their own included.
    pub size: usize,
    /// For each layer, whether it is one of them.
    pub layers: Vec<bool>,
    /// Their rotary embedding; the other layers have the model's.
    pub rope: RopeParams,
}

/// Every sixth layer sees all positions, unless the file says otherwise.
const WINDOW_PATTERN: usize = 6;
/// The base of the rotary frequencies of layers with a window, unless the file says otherwise.
const WINDOW_BASE: f32 = 10_000.0;

/// The rotary embedding. `context` is the number of positions that the model was trained for.
pub(super) fn rope(keys: &Keys, head_dim: usize, context: usize) -> Result<RopeParams> {
    let dim = keys.count_or("rope.dimension_count", 1 << 14, head_dim)?;
    if dim > head_dim || !dim.is_multiple_of(2) {
        return Err(
            keys.wrong(&format!("{dim} channels of a head rotate, expected an even number of at most {head_dim}"))
        );
    }
    let base = keys.positive_or("rope.freq_base", 10_000.0)?;
    Ok(RopeParams { style: keys.arch.rope_style, dim, base, scaling: scaling(keys, context)? })
}

/// As llama.cpp reads the keys, the type is linear unless stated.
fn scaling(keys: &Keys, context: usize) -> Result<RopeScaling> {
    let kind = keys.str("rope.scaling.type")?.unwrap_or("linear");
    let factor_key = "rope.scaling.attn_factor";
    let attn_factor = keys.positive_or(factor_key, 1.0)?;
    let original_context = || keys.count_or("rope.scaling.original_context_length", usize::MAX, context);
    match kind {
        "none" | "linear" if attn_factor != 1.0 => {
            let value = attn_factor.to_string();
            Err(keys.unsupported(factor_key, &value, "scales the attention with the types 'yarn' and 'longrope' only"))
        }
        "none" => Ok(RopeScaling::NONE),
        "linear" => Ok(RopeScaling::Linear { factor: linear_factor(keys)? }),
        "yarn" => yarn(keys, original_context()?, attn_factor),
        "longrope" => {
            let original_context = original_context()?;
            let stated = keys.optional_positive(factor_key)?;
            // As transformers computes it where the file does not state it.
            let growth = (context as f64 / original_context as f64).max(1.0);
            let computed = (1.0 + libm::log(growth) / libm::log(original_context as f64)).sqrt() as f32;
            let computed = if growth > 1.0 { computed } else { 1.0 };
            let magnitude = stated.unwrap_or(computed);
            if !magnitude.is_finite() {
                return Err(keys.wrong(&format!(
                    "key '{}' is {original_context}, expected more positions",
                    keys.key("rope.scaling.original_context_length")
                )));
            }
            Ok(RopeScaling::LongRope { original_context, magnitude })
        }
        other => {
            Err(keys.unsupported("rope.scaling.type", other, "knows the types 'none', 'linear', 'yarn' and 'longrope'"))
        }
    }
}

/// Files of 2023 hold the factor under another key, and 0 means no scaling.
fn linear_factor(keys: &Keys) -> Result<f32> {
    let given = |key: &&str| keys.metadata.get(&keys.key(key)).is_some();
    match ["rope.scaling.factor", "rope.scale_linear"].into_iter().find(given) {
        Some(key) if keys.metadata.float(&keys.key(key))? != Some(0.0) => keys.positive(key),
        _ => Ok(1.0),
    }
}

fn yarn(keys: &Keys, original_context: usize, attn_factor: f32) -> Result<RopeScaling> {
    let factor = keys.positive("rope.scaling.factor")?;
    let extrapolation_key = "rope.scaling.yarn_ext_factor";
    let extrapolation = keys.metadata.float(&keys.key(extrapolation_key))?.unwrap_or(1.0);
    if !(0.0..=1.0).contains(&extrapolation) {
        return Err(keys.wrong(&format!(
            "key '{}' is {extrapolation}, expected a number from 0 to 1",
            keys.key(extrapolation_key)
        )));
    }
    // Without extrapolation, llama.cpp leaves out this correction, too. Transformers has none for factors up to 1.
    let corrects = extrapolation > 0.0 && factor > 1.0;
    let by_factor = if corrects { (0.1 * libm::log(factor as f64) + 1.0) as f32 } else { 1.0 };
    let magnitude = keys.optional_positive("rope.scaling.yarn_attn_factor")?.unwrap_or(by_factor) * attn_factor;
    if !magnitude.is_finite() {
        return Err(keys.wrong(&format!(
            "keys '{}' and '{}' multiply to {magnitude}, expected a finite number",
            keys.key("rope.scaling.yarn_attn_factor"),
            keys.key("rope.scaling.attn_factor")
        )));
    }
    Ok(RopeScaling::Yarn(Yarn {
        factor,
        original_context,
        beta_fast: keys.positive_or("rope.scaling.yarn_beta_fast", 32.0)?,
        beta_slow: keys.positive_or("rope.scaling.yarn_beta_slow", 1.0)?,
        extrapolation,
        magnitude,
    }))
}

/// The sliding window, if the architecture and the file have one. The rotary embedding of its layers is not scaled.
pub(super) fn window(keys: &Keys, rope: &RopeParams) -> Result<Option<SlidingWindow>> {
    let key = "attention.sliding_window";
    let full_key = keys.key(key);
    let is_zero = |value: Value| value.as_int() == Some(0);
    if !keys.computes(key) || keys.metadata.get(&full_key).is_none_or(is_zero) {
        return Ok(None);
    }
    let size = keys.count(key, usize::MAX)?;
    let pattern_key = keys.key("attention.sliding_window_pattern");
    let layers = match keys.metadata.get(&pattern_key) {
        Some(Value::Array(pattern)) => {
            keys.check_layers(&pattern_key, pattern.len())?;
            let flags = pattern.iter().map(|value| match value {
                Value::Bool(has_window) => Some(has_window),
                other => other.as_int().map(|has_window| has_window != 0),
            });
            flags.collect::<Option<Vec<bool>>>().ok_or_else(|| {
                keys.wrong(&format!("key '{pattern_key}' holds something else than a bool for each layer"))
            })?
        }
        _ => {
            // The last layer of so many sees all positions; with 0, none does.
            let pattern = keys.metadata.uint(&pattern_key)?.unwrap_or(WINDOW_PATTERN);
            (1..=keys.n_layers).map(|layer| pattern == 0 || !layer.is_multiple_of(pattern)).collect()
        }
    };
    let base = keys.positive_or("rope.freq_base_swa", WINDOW_BASE)?;
    Ok(Some(SlidingWindow { size, layers, rope: RopeParams { base, scaling: RopeScaling::NONE, ..*rope } }))
}
