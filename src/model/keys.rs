//! Typed and checked access to the metadata under the architecture's prefix.

use super::arch::Arch;
use crate::checkpoint::gguf::{Metadata, Value};
use crate::error::{Error, Result};

/// Keys (behind the architecture's prefix) that change the graph in ways that this engine does not compute, or computes
/// for those architectures alone that list them ([`Arch::keys`]), and the values at which they change nothing. A bool
/// is 0 or 1; every item of a list must be neutral.
const FOREIGN_KEYS: [(&str, &[f32]); 13] = [
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
    ("rope.scaling.yarn_log_multiplier", &[0.0]),
    ("use_parallel_residual", &[0.0]),
];

/// The metadata under the architecture's prefix.
pub(super) struct Keys<'a> {
    pub metadata: Metadata<'a>,
    pub arch: &'static Arch,
    /// The length that a list of one value a layer must have.
    pub n_layers: usize,
}

impl<'a> Keys<'a> {
    /// The whole key.
    pub fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.arch.name)
    }

    /// The error for metadata that contradict themselves.
    pub fn wrong(&self, what: &str) -> Error {
        Error::Model(format!("metadata of architecture '{}': {what}", self.arch.name))
    }

    /// The error for a value that this engine does not compute.
    pub fn unsupported(&self, key: &str, value: &str, known: &str) -> Error {
        Error::Unsupported(format!("metadata key '{}' is '{value}'; this engine {known}", self.key(key)))
    }

    /// A number from 1 to `max`, or a list of one number a layer if all are equal.
    pub fn optional(&self, key: &str, max: usize) -> Result<Option<usize>> {
        let key = self.key(key);
        let Some(values) = self.metadata.uints(&key)? else { return Ok(None) };
        if let Some(Value::Array(list)) = self.metadata.get(&key) {
            self.check_layers(&key, list.len())?;
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

    /// An error unless a list has a value for each layer.
    pub fn check_layers(&self, key: &str, found: usize) -> Result<()> {
        if found == self.n_layers {
            return Ok(());
        }
        Err(self.wrong(&format!("key '{key}' lists {found} values for {} layers", self.n_layers)))
    }

    /// A required number from 1 to `max`.
    pub fn count(&self, key: &str, max: usize) -> Result<usize> {
        self.optional(key, max)?.ok_or_else(|| self.missing(key))
    }

    /// A number from 1 to `max`, or the default.
    pub fn count_or(&self, key: &str, max: usize, default: usize) -> Result<usize> {
        Ok(self.optional(key, max)?.unwrap_or(default))
    }

    /// The error for a required key that is missing.
    pub fn missing(&self, key: &str) -> Error {
        self.wrong(&format!("key '{}' is missing", self.key(key)))
    }

    /// A finite number above 0, if the key is there.
    pub fn optional_positive(&self, key: &str) -> Result<Option<f32>> {
        let key = self.key(key);
        match self.metadata.float(&key)? {
            Some(x) if !(x > 0.0 && x.is_finite()) => {
                Err(self.wrong(&format!("key '{key}' is {x}, expected a finite number above 0")))
            }
            found => Ok(found),
        }
    }

    /// A required finite number above 0.
    pub fn positive(&self, key: &str) -> Result<f32> {
        self.optional_positive(key)?.ok_or_else(|| self.missing(key))
    }

    /// A finite number above 0, or the default.
    pub fn positive_or(&self, key: &str, default: f32) -> Result<f32> {
        Ok(self.optional_positive(key)?.unwrap_or(default))
    }

    /// A text, if the key is there.
    pub fn str(&self, key: &str) -> Result<Option<&'a str>> {
        self.metadata.str(&self.key(key))
    }

    /// Whether the graph of this architecture has what this key states.
    pub fn computes(&self, key: &str) -> bool {
        self.arch.keys.contains(&key)
    }

    /// Refuses a file with one of the [`FOREIGN_KEYS`] in effect.
    pub fn refuse_foreign(&self) -> Result<()> {
        for (key, neutral) in FOREIGN_KEYS.into_iter().filter(|(key, _)| !self.computes(key)) {
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
