//! What the metadata says of gated delta nets (arXiv 2412.06464), which stand in place of the attention in most layers
//! of a hybrid model.

use super::keys::Keys;
use crate::checkpoint::gguf::Value;
use crate::error::Result;

/// The layers that are gated delta nets, and their sizes.
#[derive(Clone, Debug)]
pub struct DeltaNets {
    /// For each layer, whether it is one of them.
    pub layers: Vec<bool>,
    /// Heads of queries and keys.
    pub n_key_heads: usize,
    /// Heads of values, each with a state of its own; value head h reads key head h mod `n_key_heads`.
    pub n_value_heads: usize,
    /// Channels of a head, of keys as of values.
    pub head_dim: usize,
    /// Positions that the convolution sees, its own included.
    pub conv: usize,
}

/// Every fourth layer has attention, unless the file says otherwise.
const FULL_ATTENTION_INTERVAL: usize = 4;
/// More positions than any known convolution sees.
const MAX_CONV: usize = 16;

impl DeltaNets {
    /// Channels of all value heads.
    pub fn value_dim(&self) -> usize {
        self.n_value_heads * self.head_dim
    }

    /// Channels of the convolution: queries, keys, values.
    pub fn channels(&self) -> usize {
        2 * self.n_key_heads * self.head_dim + self.value_dim()
    }
}

/// How many of the blocks are behind the layers: they predict several tokens at once.
pub(super) fn prediction_layers(keys: &Keys, n_blocks: usize) -> Result<usize> {
    let key = keys.key("nextn_predict_layers");
    let count = if keys.arch.hybrid { keys.metadata.uint(&key)?.unwrap_or(0) } else { 0 };
    if count < n_blocks {
        return Ok(count);
    }
    Err(keys.wrong(&format!("key '{key}' is {count}, expected fewer than the {n_blocks} blocks")))
}

/// The gated delta nets of a hybrid model.
pub(super) fn delta_nets(keys: &Keys, n_layers: usize) -> Result<Option<DeltaNets>> {
    if !keys.arch.hybrid {
        return Ok(None);
    }
    let head_dim = keys.count("ssm.state_size", 1 << 10)?;
    let n_key_heads = keys.count("ssm.group_count", 1 << 10)?;
    let n_value_heads = keys.count("ssm.time_step_rank", 1 << 10)?;
    let inner = keys.count("ssm.inner_size", 1 << 20)?;
    if !n_value_heads.is_multiple_of(n_key_heads) || inner != n_value_heads * head_dim {
        return Err(keys.wrong(&format!(
            "a gated delta net has {n_key_heads} key heads, {n_value_heads} value heads of {head_dim} channels and \
             {inner} channels in all; expected a multiple of the key heads, and as many channels as the heads have"
        )));
    }
    let conv = keys.count("ssm.conv_kernel", MAX_CONV)?;
    let layers = layers(keys)?[..n_layers].to_vec();
    Ok(Some(DeltaNets { layers, n_key_heads, n_value_heads, head_dim, conv }))
}

/// For each block, whether it is a gated delta net.
fn layers(keys: &Keys) -> Result<Vec<bool>> {
    let key = keys.key("attention.recurrent_layers");
    match keys.metadata.get(&key) {
        Some(Value::Array(flags)) => {
            keys.check_layers(&key, flags.len())?;
            let flag = |value: Value| if let Value::Bool(flag) = value { Some(flag) } else { None };
            let flags = flags.iter().map(flag).collect::<Option<Vec<bool>>>();
            flags.ok_or_else(|| keys.wrong(&format!("key '{key}' holds something else than a bool for each layer")))
        }
        Some(other) => Err(keys.wrong(&format!("key '{key}' is {other}, expected a bool for each layer"))),
        None => {
            let interval = keys.count_or("full_attention_interval", 1024, FULL_ATTENTION_INTERVAL)?;
            Ok((1..=keys.n_layers).map(|layer| !layer.is_multiple_of(interval)).collect())
        }
    }
}
