//! The metadata keys of a model while its configuration is read.

use super::image::{Image, Setting};

/// What the parts of a configuration add to: metadata keys and computed tensors.
pub(super) struct Keys<'a> {
    /// The architecture, which is the prefix.
    pub arch: &'static str,
    pub image: &'a mut Image,
    /// Channels of a head.
    pub head_dim: u64,
    /// Channels of the residual stream.
    pub width: u64,
    pub heads: u64,
    pub layers: u64,
    /// Positions that the model was trained for.
    pub context: u64,
    /// The rotary base, which a family may change.
    pub theta: f64,
}

impl Keys<'_> {
    /// Sets a key under the architecture's prefix.
    pub fn set(&mut self, key: &str, value: Setting) {
        self.image.set(format!("{}.{key}", self.arch), value);
    }

    pub fn uint(&mut self, key: &str, value: u64) {
        self.set(key, Setting::Uint(value));
    }

    pub fn float(&mut self, key: &str, value: f64) {
        self.set(key, Setting::Float(value as f32));
    }

    pub fn str(&mut self, key: &str, value: &str) {
        self.set(key, Setting::Str(value.into()));
    }

    /// Adds a tensor that the configuration describes.
    pub fn add_vector(&mut self, name: &str, values: Vec<f32>) {
        self.image.add_vector(name, values);
    }
}
