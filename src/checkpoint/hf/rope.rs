//! The rotary position embedding as transformers configures it.

use super::keys::Keys;
use super::settings::{Settings, shown};
use crate::error::Result;
use std::f64::consts::PI;

/// Reads `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before), and sets the keys.
pub(super) fn read(settings: &Settings, keys: &mut Keys) -> Result<()> {
    let mut own = settings.map("rope_parameters", "rope_parameters.")?;
    let old = settings.map("rope_scaling", "rope_scaling.")?;
    // Gemma has one for each kind of layer.
    let local = own.as_ref().map(|own| own.map("sliding_attention", "rope_parameters.sliding_attention."));
    let local = local.transpose()?.flatten();
    let full = own.as_ref().map(|own| own.map("full_attention", "rope_parameters.full_attention."));
    if let (Some(full), Some(both)) = (full.transpose()?.flatten(), &own) {
        both.refuse_others(true)?;
        own = Some(full);
    }
    if let Some(key) = own.as_ref().zip(old.as_ref()).and_then(|(own, old)| old.differs_from(own)) {
        return Err(settings.wrong(
            "rope_scaling",
            &format!("another one in '{key}' than rope_parameters"),
            "the same",
        ));
    }
    let is_gemma = settings.str("model_type")? == Some("gemma3_text");
    if is_gemma {
        let base = settings.number("rope_local_base_freq")?;
        let own_base = match &local {
            Some(local) => {
                let kind = kind_of(local)?;
                if kind != "default" {
                    return Err(local.unsupported("rope_type", &shown(&kind.into()), "scales no windows"));
                }
                let base = local.number("rope_theta")?;
                local.refuse_others(true)?;
                base
            }
            None => None,
        };
        keys.float("rope.freq_base_swa", own_base.or(base).unwrap_or(10_000.0));
    } else if local.is_some() {
        return Err(settings.unsupported("rope_parameters", "one for windows", "has windows for Gemma alone"));
    }
    let stated = own.as_ref().map(|own| own.number("rope_theta")).transpose()?.flatten();
    let theta = stated.or(settings.number("rope_theta")?).unwrap_or(keys.theta);
    let rotated = own.as_ref().map(|own| own.number("partial_rotary_factor")).transpose()?.flatten();
    let rotated = rotated.or(settings.number("partial_rotary_factor")?).unwrap_or(1.0);
    if !(rotated > 0.0 && rotated <= 1.0) {
        return Err(settings.wrong("partial_rotary_factor", &rotated.to_string(), "a number above 0, at most 1"));
    }
    let dim = (keys.head_dim as f64 * rotated) as u64;
    keys.uint("rope.dimension_count", dim);
    let scaling = own.or(old);
    keys.theta = theta;
    let scaled = match &scaling {
        Some(scaling) => scale(settings, scaling, dim, keys),
        None => Ok(()),
    };
    scaled?;
    let theta = keys.theta;
    keys.float("rope.freq_base", theta);
    Ok(())
}

/// The name of the scaling; transformers prefers the newer key.
fn kind_of<'a>(scaling: &Settings<'a>) -> Result<&'a str> {
    let old = scaling.str("type")?;
    Ok(scaling.str("rope_type")?.or(old).unwrap_or("default"))
}

/// Sets the keys of a scaling.
fn scale(settings: &Settings, scaling: &Settings, dim: u64, keys: &mut Keys) -> Result<()> {
    let positive = |key: &'static str| match scaling.number(key)? {
        Some(x) if !(x > 0.0 && x <= f64::from(f32::MAX)) => {
            Err(scaling.wrong(key, &x.to_string(), "a number above 0"))
        }
        found => Ok(found),
    };
    let need = |key: &'static str| positive(key)?.ok_or_else(|| scaling.wrong(key, "missing", "a number above 0"));
    let outside = settings.uint("original_max_position_embeddings")?;
    let original = scaling.uint("original_max_position_embeddings")?.or(outside);
    match kind_of(scaling)? {
        "default" => {}
        "linear" => {
            keys.str("rope.scaling.type", "linear");
            keys.float("rope.scaling.factor", need("factor")?);
        }
        "yarn" => {
            let growth = original.map(|original| keys.context as f64 / original as f64);
            let factor = match (positive("factor")?, growth) {
                (Some(factor), _) | (None, Some(factor)) => factor,
                (None, None) => need("factor")?,
            };
            keys.str("rope.scaling.type", "yarn");
            keys.float("rope.scaling.factor", factor);
            keys.uint("rope.scaling.original_context_length", original.unwrap_or(keys.context));
            for (key, value) in [
                ("rope.scaling.yarn_attn_factor", positive("attention_factor")?),
                ("rope.scaling.yarn_beta_fast", positive("beta_fast")?),
                ("rope.scaling.yarn_beta_slow", positive("beta_slow")?),
            ] {
                value.into_iter().for_each(|value| keys.float(key, value));
            }
            scaling.expect("truncate", &[true.into()])?;
        }
        "longrope" => long_rope(scaling, original, positive("factor")?, positive("attention_factor")?, keys)?,
        "llama3" => {
            let original = original.map_or_else(|| need("original_max_position_embeddings"), |n| Ok(n as f64))?;
            let (factor, low, high) = (need("factor")?, need("low_freq_factor")?, need("high_freq_factor")?);
            if high <= low {
                let expected = format!("a number above low_freq_factor, {low}");
                return Err(scaling.wrong("high_freq_factor", &high.to_string(), &expected));
            }
            let divisors = llama3_divisors(keys.theta, dim, [factor, low, high, original]);
            if !divisors.is_empty() {
                keys.add_vector("rope_freqs.weight", divisors);
            }
        }
        // Hunyuan's models state the result of this scaling at their full length as a constant.
        "dynamic" if scaling.has("alpha") => {
            let (alpha, dim) = (need("alpha")?, dim as f64);
            keys.theta *= libm::pow(alpha, dim / (dim - 2.0));
            for key in ["factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"] {
                scaling.get(key); // transformers does not read them with alpha
            }
        }
        other => {
            let known = "scales as: default, linear, yarn, longrope, llama3, and dynamic with an alpha";
            return Err(scaling.unsupported("rope_type", &shown(&other.into()), known));
        }
    }
    scaling.refuse_others(true).map(drop)
}

/// LongRoPE: divisors for each frequency, up to the original context and beyond it.
fn long_rope(
    scaling: &Settings,
    original: Option<u64>,
    factor: Option<f64>,
    attention_factor: Option<f64>,
    keys: &mut Keys,
) -> Result<()> {
    let missing = |key: &str| scaling.wrong(key, "missing", "a list of a divisor for each frequency");
    for (key, name) in [("short_factor", "rope_factors_short.weight"), ("long_factor", "rope_factors_long.weight")] {
        let divisors = scaling.numbers(key)?.filter(|divisors| !divisors.is_empty()).ok_or_else(|| missing(key))?;
        keys.add_vector(name, divisors.into_iter().map(|divisor| divisor as f32).collect());
    }
    let growth = match original {
        Some(0) => return Err(scaling.wrong("original_max_position_embeddings", "0", "at least 1")),
        Some(original) => keys.context as f64 / original as f64,
        None => factor.unwrap_or(1.0),
    };
    let original = original.unwrap_or(keys.context);
    let computed = if growth <= 1.0 { 1.0 } else { (1.0 + libm::log(growth) / libm::log(original as f64)).sqrt() };
    keys.str("rope.scaling.type", "longrope");
    keys.uint("rope.scaling.original_context_length", original);
    keys.float("rope.scaling.attn_factor", attention_factor.unwrap_or(computed));
    Ok(())
}

/// The divisors of Llama 3.1: low frequencies are divided by the factor, high ones stay, between them it is blended.
fn llama3_divisors(theta: f64, dim: u64, [factor, low, high, original]: [f64; 4]) -> Vec<f32> {
    let divisor = |i: u64| {
        let wavelength = 2.0 * PI * libm::pow(theta, (2 * i) as f64 / dim as f64);
        if wavelength < original / high {
            1.0
        } else if wavelength > original / low {
            factor
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    (0..(dim / 2).min(1 << 13)).map(|i| divisor(i) as f32).collect()
}
