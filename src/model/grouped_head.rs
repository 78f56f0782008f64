//! Bounds of the logits of a ternary output head with a scale for each group of columns: its packed trits, a fifth of
//! the bytes of an 8-bit copy, times the hidden state in 16 bits.
//!
//! With x = x̂ + f (x̂ the rounded state), the product ŷ of the packed matrix and the logit differ by at most
//! |w|·(|f| + γ₁|x| + γ₂|x̂|): by the Cauchy-Schwarz inequality for f, and by the roundings of the logit's dot (γ₁) and
//! of ŷ (γ₂), each at most γ Σ|w||x| ≤ γ|w||x|.

use super::linear::Dense;
use crate::error::Result;
use crate::kernel::Team;
use crate::kernel::grouped::{Grouped, GroupedActivations};
use crate::machine::memory::{try_with_capacity, try_zeroed};

/// How many logits one task bounds.
const LOGITS_PER_TASK: usize = 1024;
/// Below this product of norms no partial sum of a dot leaves the range of f32.
const MAX_NORM_PRODUCT: f64 = 1e37;
/// The planes of a state in 16 bits.
const PLANES: usize = 2;

/// A packed output head.
pub(super) struct GroupedHead {
    matrix: Grouped,
    /// Upper bounds of the Euclidean norms of its rows.
    norms: Vec<f32>,
}

impl GroupedHead {
    /// `matrix` holds the rows of `dense`. `None` if a value is not finite.
    pub(super) fn new(team: &Team, dense: &Dense, matrix: Grouped) -> Option<GroupedHead> {
        let norm = |row: usize| {
            let mut values = vec![0f32; dense.cols()];
            dense.dequantize(team.kernels, row, &mut values);
            norm(&values) as f32 * (1.0 + 1e-6)
        };
        Self::with_norms(team, matrix, norm)
    }

    /// A copy with the norms of its rows that was made before; `None` if the sizes do not fit.
    pub(super) fn from_stored(matrix: Grouped, norms: Vec<f32>) -> Option<GroupedHead> {
        (norms.len() == matrix.rows()).then_some(GroupedHead { matrix, norms })
    }

    /// The packed trits.
    pub(super) fn matrix(&self) -> &Grouped {
        &self.matrix
    }

    /// Upper bounds of the norms of its rows.
    pub(super) fn norms(&self) -> &[f32] {
        &self.norms
    }

    /// The bytes that are in memory of its own, not in a mapped file.
    pub(super) fn owned_bytes(&self) -> usize {
        self.matrix.owned_bytes() + size_of_val(&*self.norms)
    }

    fn with_norms(team: &Team, matrix: Grouped, norm: impl Fn(usize) -> f32 + Sync) -> Option<GroupedHead> {
        let mut norms = vec![0f32; matrix.rows()];
        team.for_each_chunk(&mut norms, LOGITS_PER_TASK, |task, norms| {
            norms.iter_mut().enumerate().for_each(|(i, out)| *out = norm(LOGITS_PER_TASK * task + i));
        });
        norms.iter().all(|norm| norm.is_finite()).then_some(GroupedHead { matrix, norms })
    }

    pub(super) fn bytes(&self) -> usize {
        self.matrix.bytes() + size_of_val(&*self.norms)
    }

    /// Writes, for each of `xs`, the lower bounds of all its logits and then the upper bounds.
    pub(super) fn bounds(&self, team: &Team, xs: &[&[f32]], out: &mut [f32]) -> Result<()> {
        let (rows, cols) = (self.matrix.rows(), self.matrix.cols());
        let mut rounded = GroupedActivations::default();
        for (mut row, x) in rounded.rows(xs.len(), cols, PLANES)?.zip(xs) {
            row.quantize(team.kernels, x);
        }
        let mut tokens = try_with_capacity(xs.len())?;
        tokens.extend(xs.iter().enumerate().map(|(t, x)| TokenError::new(x, &rounded.dequantized(t))));
        let mut products = try_zeroed(xs.len() * rows)?;
        self.matrix.matmul(team, &rounded, &mut products);
        team.for_each_rows(out, rows, LOGITS_PER_TASK, |first, out| {
            for (t, token) in tokens.iter().enumerate() {
                for i in 0..out.len() {
                    let (low, high) = token.bounds(products[t * rows + first + i], self.norms[first + i]);
                    out.token(2 * t)[i] = low;
                    out.token(2 * t + 1)[i] = high;
                }
            }
        });
        Ok(())
    }
}

/// What the bounds of a token's logits depend on, beside the product and the row's norm.
struct TokenError {
    /// An upper bound of |x|.
    norm: f64,
    /// |f| + γ₁|x| + γ₂|x̂|.
    radius: f64,
}

impl TokenError {
    fn new(x: &[f32], rounded: &[f64]) -> TokenError {
        let f: Vec<f64> = x.iter().zip(rounded).map(|(x, rounded)| *x as f64 - rounded).collect();
        let root = |squares: f64| squares.sqrt() * (1.0 + 1e-9) + 1e-36;
        let (norm, error) = (root(squares(x.iter().map(|x| *x as f64))), root(squares(f.into_iter())));
        // Roundings of the dot: the fused multiply-adds of one of 64 lanes, six halvings, and two spare ones. Of the
        // product: for each group of at least 64 columns an fma, one product of its sum, and two spare ones.
        let gamma = |roundings: usize| 1.01 * roundings as f64 * 2f64.powi(-24);
        let roundings = x.len().div_ceil(64);
        let radius = error + gamma(roundings + 8) * norm + gamma(roundings + 4) * (norm + error);
        TokenError { norm, radius }
    }

    fn bounds(&self, product: f32, norm: f32) -> (f32, f32) {
        let (center, norm) = (product as f64, norm as f64);
        if !(norm * self.norm < MAX_NORM_PRODUCT && product.is_finite()) {
            return (f32::NEG_INFINITY, f32::INFINITY);
        }
        // Widened by more than underflow and the rounding of these lines, the final one to f32, can amount to.
        let radius = norm * self.radius * (1.0 + 3e-7) + center.abs() * 3e-7 + 1e-36;
        ((center - radius) as f32, (center + radius) as f32)
    }
}

fn squares(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum()
}

fn norm(values: &[f32]) -> f64 {
    squares(values.iter().map(|value| *value as f64)).sqrt()
}

#[cfg(test)]
#[path = "../../tests/unit/grouped_head.rs"]
mod tests;
