//! Rotary position embedding (arXiv 2104.09864), as transformers computes it in float32.

use crate::error::{Error, Result};
use crate::kernel::Kernels;

/// Which channels turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// i and i + n/2 (transformers, "NEOX").
    Halves,
    /// 2i and 2i + 1 (llama files, whose Q and K rows are permuted to suit).
    Neighbours,
}

/// The angles of a model.
pub struct Rope {
    pairs: Pairs,
    /// One frequency for each pair of channels.
    inverse: Vec<f32>,
}

/// Cosines and sines of one batch, `pairs` of each a row.
pub struct Turns {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    /// `base^(-2i/n) / divisor_i` for the first `n` channels of a head; `factor` is that of linear scaling.
    pub fn new(pairs: Pairs, n: usize, base: f32, factor: f32, divisors: Option<&[f32]>) -> Result<Rope> {
        let inverse = (0..n / 2).map(|i| {
            let exponent = (2 * i) as f32 / n as f32;
            let plain = 1.0 / libm::pow(base as f64, exponent as f64) as f32;
            match plain / factor / divisors.map_or(1.0, |d| d[i]) {
                frequency if frequency > 0.0 && frequency.is_finite() => Ok(frequency),
                frequency => Err(Error::Model(format!(
                    "rotary frequency {i} is {frequency}, expected a finite number above 0; see rope.freq_base \
                     ({base}), the scaling factor ({factor}) and rope_freqs.weight, if the file has it"
                ))),
            }
        });
        Ok(Rope { pairs, inverse: inverse.collect::<Result<_>>()? })
    }

    /// The turns of a batch whose rows stand at `positions`.
    pub fn turns(&self, positions: impl Iterator<Item = usize>) -> Turns {
        let angles: Vec<f32> =
            positions.flat_map(|p| self.inverse.iter().map(move |inverse| p as f32 * inverse)).collect();
        Turns {
            cos: angles.iter().map(|a| libm::cosf(*a)).collect(),
            sin: angles.iter().map(|a| libm::sinf(*a)).collect(),
        }
    }

    /// Turns row `row`'s heads in place.
    pub fn apply(&self, kernels: &Kernels, turns: &Turns, row: usize, heads: &mut [f32], head_dim: usize) {
        let n = self.inverse.len();
        let (cos, sin) = (&turns.cos[row * n..][..n], &turns.sin[row * n..][..n]);
        for head in heads.chunks_mut(head_dim) {
            match self.pairs {
                Pairs::Halves => {
                    let (a, b) = head[..2 * n].split_at_mut(n);
                    kernels.turn(a, b, cos, sin);
                }
                Pairs::Neighbours => {
                    for ((pair, cos), sin) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
                        let [x, y] = *pair;
                        *pair = [x * cos - y * sin, y * cos + x * sin];
                    }
                }
            }
        }
    }
}
