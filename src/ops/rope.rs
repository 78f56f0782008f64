//! Rotary position embedding (arXiv 2104.09864), as transformers computes it in float32.

use crate::error::{Error, Result};
use crate::kernel::Team;

/// Which channels rotate together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// i and i + n/2 (transformers, "NEOX").
    NeoX,
    /// 2i and 2i + 1 (llama files, whose Q and K rows are permuted to suit).
    Interleaved,
}

/// The angles of a model.
pub struct Rope {
    style: RopeStyle,
    /// One frequency for each pair of channels.
    inverse: Vec<f32>,
}

/// Cosines and sines of one batch, `pairs` of each a row.
pub struct CosSin {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    /// `base^(-2i/n) / divisor_i` for the first `n` channels of a head; `factor` is that of linear scaling.
    pub fn new(style: RopeStyle, n: usize, base: f32, factor: f32, divisors: Option<&[f32]>) -> Result<Rope> {
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
        Ok(Rope { style, inverse: inverse.collect::<Result<_>>()? })
    }

    /// The cos_sin of a batch whose rows stand at `positions`.
    pub fn cos_sin(&self, positions: impl Iterator<Item = usize>) -> CosSin {
        let angles: Vec<f32> =
            positions.flat_map(|p| self.inverse.iter().map(move |inverse| p as f32 * inverse)).collect();
        CosSin {
            cos: angles.iter().map(|a| libm::cosf(*a)).collect(),
            sin: angles.iter().map(|a| libm::sinf(*a)).collect(),
        }
    }

    /// CosSin row `row`'s heads in place.
    pub fn apply(&self, team: &Team, cos_sin: &CosSin, row: usize, heads: &mut [f32], head_dim: usize) {
        let n = self.inverse.len();
        let (cos, sin) = (&cos_sin.cos[row * n..][..n], &cos_sin.sin[row * n..][..n]);
        for head in heads.chunks_mut(head_dim) {
            match self.style {
                RopeStyle::NeoX => {
                    let (a, b) = head[..2 * n].split_at_mut(n);
                    team.kernels.rotate(a, b, cos, sin);
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
