//! The gated activation of the feed-forward network: `act(gate) · up` (GLU variants, arXiv 2002.05202).

use crate::kernel::Kernels;

named! {
    /// The activation function of the feed-forward network.
    pub enum Activation {
        /// `x · sigmoid(x) = x / (1 + e^-x)` (SiLU or swish, arXiv 1702.03118).
        Silu = "silu",
        /// `max(x, 0)²` (squared ReLU, arXiv 2109.08668).
        Relu2 = "relu2",
        /// `x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³)))`, the approximation of GELU (arXiv 1606.08415) that Gemma uses.
        GeluTanh = "gelu_tanh",
    }
}

impl Activation {
    /// `gate = act(gate) · up`, element by element.
    pub fn apply(self, kernels: &Kernels, gate: &mut [f32], up: &[f32]) {
        match self {
            Activation::Silu => kernels.silu_mul(gate, up),
            Activation::Relu2 => kernels.relu2_mul(gate, up),
            Activation::GeluTanh => kernels.gelu_tanh_mul(gate, up),
        }
    }
}
