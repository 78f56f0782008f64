//! The tensors of a directory by GGUF's names, with the type that each has for this engine.

use super::super::gguf::{Tensor, TensorType};
use super::super::map::Map;
use super::super::{bf16_to_f32, f16_to_f32};
use super::config::Config;
use super::directory::Index;
use super::names::{Role, role};
use super::quantization::Stored;
use super::safetensors::Entry;
use crate::error::{Error, Result};
use safetensors::Dtype;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A file of weights.
pub(super) struct Shard {
    pub map: Map,
    pub entries: Vec<Entry>,
}

/// Checks that each tensor is in the file that the index gives, and in no other.
pub(super) fn check_index(folder: &Path, index: &Index, names: &[String], shards: &[Shard]) -> Result<()> {
    let broken = |reason: String| Err(Error::File { path: folder.into(), reason });
    let mut left: BTreeMap<&str, &str> = index.file_of.iter().map(|(name, file)| (&**name, &**file)).collect();
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (file, shard) in names.iter().zip(shards) {
        for Entry { name, .. } in &shard.entries {
            if let Some(other) = seen.insert(name, file) {
                return broken(format!("tensor '{name}' is in two files, '{other}' and '{file}'; download them again"));
            }
            match index.file_of.get(name) {
                Some(expected) if expected == file => _ = left.remove(&**name),
                Some(expected) => {
                    return broken(format!(
                        "tensor '{name}' is in '{file}', but the index says '{expected}'; download the files again"
                    ));
                }
                None => return broken(format!("tensor '{name}' in '{file}' is not in the index; download it again")),
            }
        }
    }
    match left.into_iter().next() {
        None => Ok(()),
        Some((name, file)) => {
            broken(format!("tensor '{name}' is missing in '{file}', where the index says it is; download it again"))
        }
    }
}

/// The tensors of the files, and the names of those projections that stay floats beside others that are ternary. Norms
/// to which the architecture adds 1 are computed and added to the image. Part 0 of the model is the image, part i + 1 is
/// file i.
pub(super) fn assign(shards: &[Shard], config: &mut Config) -> Result<(Vec<Tensor>, BTreeSet<String>)> {
    let is_gemma = config.family.arch == "gemma3";
    let all =
        || shards.iter().zip(1..).flat_map(|(shard, part)| shard.entries.iter().map(move |entry| (shard, part, entry)));
    let mut scales = BTreeMap::new();
    let mut has_head = false;
    check_norms(config, all().any(|(_, _, entry)| is_norm_in(&role(&entry.name, is_gemma))))?;
    for (shard, _, entry) in all() {
        match role(&entry.name, is_gemma) {
            Role::Scale(name) => _ = scales.insert(name, (entry, scale(shard, entry)?)),
            Role::Head(_) => has_head = true,
            _ => {}
        }
    }
    if !config.tied && config.has_head && !has_head {
        return Err(Error::Model(
            "tensor 'lm_head.weight' is missing, which a model needs whose tie_word_embeddings is false; the files are \
             incomplete: download them again"
                .into(),
        ));
    }
    let mut tensors = Vec::new();
    let (mut biases, mut floats) = (BTreeSet::new(), BTreeSet::new());
    for (shard, part, entry) in all() {
        let (name, kind) = match role(&entry.name, is_gemma) {
            Role::Computed | Role::Scale(_) => continue,
            // Transformers reads the embedding in place of such a head.
            Role::Head(_) if config.tied => continue,
            Role::Norm(name) if is_gemma => {
                config.image.add_vector(short(name)?, plus_one(shard, entry)?);
                continue;
            }
            Role::Projection(name) => {
                let stored = config.quantization.of_module(entry.name.trim_end_matches(".weight"))?;
                let kind = projection_type(entry, stored, config)?;
                if stored == Stored::Floats {
                    floats.insert(name.clone());
                }
                if kind == TensorType::U8_TRITS {
                    let scale = scales.remove(&name).ok_or_else(|| {
                        let module = entry.name.trim_end_matches(".weight");
                        Error::Model(format!("tensor '{module}.weight_scale' is missing; the files are incomplete"))
                    })?;
                    let tensor = tensor(part, entry, name, kind);
                    tensor.keep_scale(used_scale(stored, scale)?);
                    tensors.push(tensor);
                    continue;
                }
                (name, kind)
            }
            Role::Norm(name) | Role::Head(name) | Role::Other(name) => (name, plain_type(entry)?),
            Role::Unknown => (entry.name.clone(), plain_type(entry)?),
        };
        if name.ends_with(".bias") {
            biases.insert(name.clone());
        }
        tensors.push(tensor(part, entry, name, kind));
    }
    if let Some((_, (entry, _))) = scales.into_iter().next() {
        return Err(Error::Model(format!("tensor '{}' is the scale of no packed weights", entry.name)));
    }
    check_biases(config, &biases)?;
    // Without any ternary projection, the values decide as in a GGUF file.
    if !tensors.iter().any(|tensor| tensor.kind() == TensorType::U8_TRITS || tensor.kind().is_master()) {
        floats.clear();
    }
    Ok((tensors, floats))
}

/// Whether a tensor is the norm before a projection.
fn is_norm_in(role: &Role) -> bool {
    matches!(role, Role::Other(name) if name.ends_with("_norm_in.weight"))
}

/// Checks what the configuration says of norms before the projections. Models with such norms were trained with ternary
/// weights, so that plain floats are masters.
fn check_norms(config: &mut Config, there: bool) -> Result<()> {
    let quantization = &mut config.quantization;
    if quantization.norm_in.is_some_and(|stated| stated != there) {
        return Err(Error::Model(format!(
            "config.json: use_rms_norm is {}, but the files have {} norms before the projections; they contradict each \
             other",
            !there,
            if there { "such" } else { "no" }
        )));
    }
    if there && !quantization.stated && quantization.stored == Stored::Floats {
        quantization.stored = Stored::Masters;
        config.warnings.push(
            "config.json has no quantization_config; as there are norms before the projections, the weights are taken for \
             floats of which trits are to be made"
                .into(),
        );
    }
    Ok(())
}

fn tensor(part: usize, entry: &Entry, name: String, kind: TensorType) -> Tensor {
    let mut shape: Vec<usize> = entry.shape.iter().rev().copied().collect();
    if kind == TensorType::U8_TRITS {
        shape[1] *= 4; // four rows in each row of bytes; the bytes of the file bound it
    }
    Tensor::new(name, shape, kind, (part, entry.range.clone()))
}

/// GGUF's limit for names of tensors; ours are far shorter, unless the number of a block is absurd.
fn short(name: String) -> Result<String> {
    if name.len() <= 63 { Ok(name) } else { Err(Error::Model(format!("tensor '{name}' has too long a name"))) }
}

/// The type of a tensor that is stored as it is.
fn plain_type(entry: &Entry) -> Result<TensorType> {
    match entry.dtype {
        Dtype::F32 => Ok(TensorType::F32),
        Dtype::F16 => Ok(TensorType::F16),
        Dtype::BF16 => Ok(TensorType::BF16),
        other => Err(Error::Unsupported(format!(
            "tensor '{}' has the type {other}, expected F32, F16 or BF16, or packed U8 for a projection of a BitNet model",
            entry.name
        ))),
    }
}

/// The type of a projection's weights.
fn projection_type(entry: &Entry, stored: Stored, config: &Config) -> Result<TensorType> {
    let name = &entry.name;
    match (entry.dtype, stored) {
        (Dtype::U8, _) if !config.quantization.stated => Err(Error::Unsupported(format!(
            "tensor '{name}' holds bytes, but config.json has no quantization_config, which says what they mean; take it \
             from the model's page (quant_method 'bitnet', with its linear_class)"
        ))),
        (Dtype::U8, Stored::Multiplied | Stored::Divided) if entry.shape.len() == 2 => Ok(TensorType::U8_TRITS),
        (Dtype::U8, _) => Err(Error::Unsupported(format!(
            "tensor '{name}' holds bytes, where quantization_config promises floats; the files contradict each other"
        ))),
        (_, Stored::Floats) => plain_type(entry),
        (_, Stored::Divided) if config.quantization.online => master_type(entry),
        (_, Stored::Masters) => master_type(entry),
        (dtype, Stored::Multiplied | Stored::Divided) => Err(Error::Unsupported(format!(
            "tensor '{name}' has the type {dtype}, where quantization_config promises packed bytes (U8); the files \
             contradict each other"
        ))),
    }
}

/// The type of floats of which trits are to be made.
fn master_type(entry: &Entry) -> Result<TensorType> {
    Ok(match plain_type(entry)? {
        TensorType::F32 => TensorType::F32_MASTER,
        TensorType::F16 => TensorType::F16_MASTER,
        _ => TensorType::BF16_MASTER,
    })
}

/// What a trit is multiplied by. 1/scale is rounded to f32.
fn used_scale(stored: Stored, (entry, scale): (&Entry, f32)) -> Result<f32> {
    let used = if stored == Stored::Divided { 1.0 / scale } else { scale };
    if used.is_finite() {
        return Ok(used);
    }
    Err(Error::Model(format!("tensor '{}' is {scale}, which makes no finite scale; the file is damaged", entry.name)))
}

/// The number in a tensor of one element.
fn scale(shard: &Shard, entry: &Entry) -> Result<f32> {
    let values = floats(shard, entry)?;
    match values[..] {
        [only] if only.is_finite() => Ok(only),
        [only] => Err(Error::Model(format!("tensor '{}' is {only}, expected a finite number", entry.name))),
        _ => Err(Error::Unsupported(format!(
            "tensor '{}' has {} values, but this engine has one scale for a tensor",
            entry.name,
            values.len()
        ))),
    }
}

/// The values of a small tensor.
fn floats(shard: &Shard, entry: &Entry) -> Result<Vec<f32>> {
    let bytes = &shard.map.bytes[entry.range.clone()];
    Ok(match plain_type(entry)? {
        TensorType::F32 => bytes.as_chunks().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect(),
        TensorType::F16 => bytes.as_chunks().0.iter().map(|raw| f16_to_f32(u16::from_le_bytes(*raw))).collect(),
        _ => bytes.as_chunks().0.iter().map(|raw| bf16_to_f32(u16::from_le_bytes(*raw))).collect(),
    })
}

/// A norm as GGUF files of Gemma have it: 1 + w, computed in f32 as transformers does.
fn plus_one(shard: &Shard, entry: &Entry) -> Result<Vec<f32>> {
    if entry.shape.len() != 1 {
        return Err(Error::Model(format!("tensor '{}' has {} dimensions, expected 1", entry.name, entry.shape.len())));
    }
    Ok(floats(shard, entry)?.into_iter().map(|weight| 1.0 + weight).collect())
}

/// Refuses biases that the configuration denies, and the lack of those that it states.
fn check_biases(config: &Config, found: &BTreeSet<String>) -> Result<()> {
    for (states, (part, in_block)) in config.biases.iter().zip([("attn_", 4), ("ffn_", 3)]) {
        let is_part = |name: &&String| name.split('.').nth(2).is_some_and(|name| name.starts_with(part));
        let (bias, count) = (found.iter().find(is_part), found.iter().filter(is_part).count() as u64);
        match (states, bias) {
            (Some(false), Some(bias)) => {
                return Err(Error::Model(format!(
                    "tensor '{bias}' is a bias, but config.json says that there is none; the files contradict each other"
                )));
            }
            (Some(true), _) if Some(count) != config.layers.checked_mul(in_block) => {
                return Err(Error::Model(format!(
                    "config.json says that projections have a bias, {in_block} in each of {} layers, but there are \
                     {count} tensors '{part}….bias'; the files are incomplete",
                    config.layers
                )));
            }
            _ => {}
        }
    }
    Ok(())
}
