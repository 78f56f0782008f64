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
    /// Divides the frequencies, so that positions beyond the trained context fall into it (linear position
    /// interpolation, arXiv 2306.15595); 1 for none.
    pub factor: f32,
}

/// The frequencies of a model.
pub struct Rope {
    style: RopeStyle,
    head_dim: usize,
    /// One for each pair of channels, in radians a position.
    frequencies: Vec<f32>,
}

/// Cosines and sines of one batch: for each row one of each for every pair of channels.
pub struct CosSin {
    rows: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    /// Frequency i is `base^(-2i / dim) / factor / divisors[i]`. The divisors are a tensor of Llama 3.1 and later
    /// (`rope_freqs.weight`), which scales low frequencies more than high ones.
    pub fn new(params: &RopeParams, head_dim: usize, divisors: Option<&[f32]>) -> Result<Rope> {
        let RopeParams { style, dim, base, factor } = *params;
        let frequencies = (0..dim / 2).map(|i| {
            let exponent = (2 * i) as f32 / dim as f32;
            let unscaled = 1.0 / libm::pow(base as f64, exponent as f64) as f32;
            match unscaled / factor / divisors.map_or(1.0, |d| d[i]) {
                frequency if frequency > 0.0 && frequency.is_finite() => Ok(frequency),
                frequency => Err(Error::Model(format!(
                    "rotary frequency {i} is {frequency}, expected a finite number above 0; it follows from \
                     rope.freq_base ({base}), the scaling factor ({factor}) and the tensor rope_freqs.weight, if there \
                     is one"
                ))),
            }
        });
        Ok(Rope { style, head_dim, frequencies: frequencies.collect::<Result<_>>()? })
    }

    /// Cosines and sines for rows at these positions.
    pub fn cos_sin(&self, positions: impl Iterator<Item = usize>) -> CosSin {
        let angles: Vec<f32> =
            positions.flat_map(|p| self.frequencies.iter().map(move |frequency| p as f32 * frequency)).collect();
        CosSin {
            rows: angles.len() / self.frequencies.len(),
            cos: angles.iter().map(|a| libm::cosf(*a)).collect(),
            sin: angles.iter().map(|a| libm::sinf(*a)).collect(),
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
