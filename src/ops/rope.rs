//! Rotary position embedding (RoFormer, arXiv 2104.09864, section 3.4), as transformers computes it in float32.

use crate::error::{Error, Result};
use crate::kernel::Team;

/// Which channels rotate together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// Channels i and i + n/2, as in transformers and GPT-NeoX.
    NeoX,
    /// Channels 2i and 2i + 1, as in the paper. GGUF files of llama models permute the rows of Q and K to match.
    Interleaved,
}

/// The rotation that a model's metadata describes.
#[derive(Clone, Copy, Debug)]
pub struct RopeParams {
    /// Which channels rotate together.
    pub style: RopeStyle,
    /// How many channels of a head rotate, from the first on.
    pub dim: usize,
    /// The base of the frequencies (theta).
    pub base: f32,
    /// How positions beyond the context of the first training are reached.
    pub scaling: RopeScaling,
}

/// How the frequencies are changed so that a model reads longer texts than in its first training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// All frequencies are divided by a factor, so that positions fall into the trained context (linear position
    /// interpolation, arXiv 2306.15595); 1 for none.
    Linear {
        /// The factor.
        factor: f32,
    },
    /// YaRN (arXiv 2309.00071): only low frequencies are divided, and cosines and sines grow by `magnitude`.
    Yarn(Yarn),
    /// LongRoPE (arXiv 2402.13753): each frequency has a divisor of its own.
    LongRope {
        /// The context of the first training. A configured context beyond it takes the long divisors.
        original_context: usize,
        /// Multiplies cosines and sines.
        magnitude: f32,
    },
}

/// The parameters of [`RopeScaling::Yarn`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// Divides low frequencies.
    pub factor: f32,
    /// The context of the first training, in positions.
    pub original_context: usize,
    /// Frequencies that turn at least so many times in the original context are kept.
    pub beta_fast: f32,
    /// Frequencies that turn at most so many times in the original context are divided by the whole factor.
    pub beta_slow: f32,
    /// The share of the kept frequency where it is kept; 1 by the paper.
    pub extrapolation: f32,
    /// Multiplies cosines and sines.
    pub magnitude: f32,
}

impl RopeScaling {
    /// No scaling.
    pub const NONE: RopeScaling = RopeScaling::Linear { factor: 1.0 };

    /// What multiplies cosines and sines.
    fn magnitude(&self) -> f32 {
        match self {
            RopeScaling::Linear { .. } => 1.0,
            RopeScaling::Yarn(Yarn { magnitude, .. }) | RopeScaling::LongRope { magnitude, .. } => *magnitude,
        }
    }
}

impl Yarn {
    /// The weight of the kept frequency of each of `n / 2` pairs: 1 above the ramp of the frequencies, 0 below it.
    /// The ramp reaches over the pairs that turn `beta_fast` to `beta_slow` times in the original context.
    fn kept(&self, n: usize, base: f32) -> impl Fn(usize) -> f32 + use<> {
        let pair_of_turns = |turns: f32| {
            let radians = self.original_context as f64 / (turns as f64 * 2.0 * std::f64::consts::PI);
            n as f64 * libm::log(radians) / (2.0 * libm::log(base as f64))
        };
        let low = libm::floor(pair_of_turns(self.beta_fast)).max(0.0);
        let high = libm::ceil(pair_of_turns(self.beta_slow)).min((n - 1) as f64);
        let (low, width) = (low as f32, (high - low).max(0.001) as f32);
        let extrapolation = self.extrapolation;
        move |i| (1.0 - ((i as f32 - low) / width).clamp(0.0, 1.0)) * extrapolation
    }
}

/// The frequencies of a model.
pub struct Rope {
    style: RopeStyle,
    head_dim: usize,
    /// One for each pair of channels, in radians a position.
    frequencies: Vec<f32>,
    /// Multiplies cosines and sines.
    magnitude: f32,
}

/// Cosines and sines of one batch: for each row one of each for every pair of channels.
pub struct CosSin {
    rows: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    /// Frequency i is `base^(-2i / dim)`, scaled. The divisors are a tensor of Llama 3.1 and later (`rope_freqs.weight`),
    /// which scales low frequencies more than high ones, or one of the two of LongRoPE.
    pub fn new(params: &RopeParams, head_dim: usize, divisors: Option<&[f32]>) -> Result<Rope> {
        let RopeParams { style, dim, base, scaling } = *params;
        let kept = if let RopeScaling::Yarn(yarn) = scaling { Some(yarn.kept(dim, base)) } else { None };
        let frequencies = (0..dim / 2).map(|i| {
            let exponent = (2 * i) as f32 / dim as f32;
            let period = libm::pow(base as f64, exponent as f64) as f32;
            let divisor = divisors.map_or(1.0, |d| d[i]);
            let frequency = match (scaling, &kept) {
                (RopeScaling::Yarn(yarn), Some(kept)) => {
                    let kept = kept(i);
                    (1.0 / (yarn.factor * period) * (1.0 - kept) + 1.0 / period * kept) / divisor
                }
                (RopeScaling::LongRope { .. }, _) => 1.0 / (divisor * period),
                (RopeScaling::Linear { factor }, _) => 1.0 / period / factor / divisor,
                (RopeScaling::Yarn(_), None) => unreachable!("made above"),
            };
            if frequency > 0.0 && frequency.is_finite() {
                return Ok(frequency);
            }
            Err(Error::Model(format!(
                "rotary frequency {i} is {frequency}, expected a finite number above 0; it follows from the keys \
                 rope.freq_base ({base}) and rope.scaling.*, and from the tensor rope_freqs.weight or rope_factors_*.weight, \
                 if there is one"
            )))
        });
        let frequencies = frequencies.collect::<Result<_>>()?;
        Ok(Rope { style, head_dim, frequencies, magnitude: scaling.magnitude() })
    }

    /// Cosines and sines for rows at these positions.
    pub fn cos_sin(&self, positions: impl Iterator<Item = usize>) -> CosSin {
        let angles: Vec<f32> =
            positions.flat_map(|p| self.frequencies.iter().map(move |frequency| p as f32 * frequency)).collect();
        CosSin {
            rows: angles.len() / self.frequencies.len(),
            cos: angles.iter().map(|a| libm::cosf(*a) * self.magnitude).collect(),
            sin: angles.iter().map(|a| libm::sinf(*a) * self.magnitude).collect(),
        }
    }

    /// Rotates every head of the batch's queries and keys.
    pub fn rotate(&self, team: &Team, cos_sin: &CosSin, q: &mut [f32], k: &mut [f32]) {
        let (q_width, k_width) = (q.len() / cos_sin.rows, k.len() / cos_sin.rows);
        team.for_each_pair(q, q_width, k, k_width, |row, q, k| {
            self.rotate_heads(team, cos_sin, row, q);
            self.rotate_heads(team, cos_sin, row, k);
        });
    }

    /// `(x, y)` becomes `(x cos a - y sin a, y cos a + x sin a)` for every pair of channels of row `row`'s heads.
    fn rotate_heads(&self, team: &Team, cos_sin: &CosSin, row: usize, heads: &mut [f32]) {
        let n = self.frequencies.len();
        let (cos, sin) = (&cos_sin.cos[row * n..][..n], &cos_sin.sin[row * n..][..n]);
        for head in heads.chunks_mut(self.head_dim) {
            match self.style {
                RopeStyle::NeoX => {
                    let (x, y) = head[..2 * n].split_at_mut(n);
                    team.kernels.rotate(x, y, cos, sin);
                }
                RopeStyle::Interleaved => {
                    for ((pair, cos), sin) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
                        let [x, y] = *pair;
                        *pair = [x * cos - y * sin, y * cos + x * sin];
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/rope.rs"]
mod tests;
