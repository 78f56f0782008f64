//! The output head: logits of every id, or of those alone that a choice can fall on.
//!
//! Most choices need the exact logits of few ids. A copy of the matrix in 8 bits, half of the bytes of f16, gives an
//! interval for every logit; the caller says from where on an upper bound matters, and the exact rows decide. The
//! intervals hold the logit *as the exact path computes it*:
//!
//! With w = ŵ + e (ŵ the 8-bit row) and x = x̂ + f (x̂ in up to 16 bits), |w·x - ŵ·x̂| ≤ |e||x| + |ŵ||f| by Cauchy and
//! Schwarz, and ŵ·x̂ is an integer times two steps. A dot in fixed order differs from w·x by at most γ Σ|w||x| ≤ γ|w||x|,
//! where γ = m·u / (1 - m·u) for m roundings (Higham, Accuracy and Stability of Numerical Algorithms, 3.1).

use super::forward::check_finite;
use super::linear::Dense;
use crate::error::Result;
use crate::kernel::Team;
use crate::kernel::quantized_head::{HEAD_STEP, HEAD_TOKENS, QuantizedToken};
use crate::machine::memory::{HugeBuf, try_zeroed};
use std::sync::OnceLock;

/// Adjusts the lower and upper bounds of all logits as the choice will adjust the logits, and returns the least adjusted
/// upper bound that can win; nothing if every logit is needed. The adjustment must be monotone.
pub type CandidateThreshold<'a> = dyn Fn(&mut [f32], &mut [f32]) -> Option<f32> + Sync + 'a;

/// Which logits of a row are wanted.
#[derive(Clone, Copy)]
pub enum LogitsFor<'a> {
    /// None.
    None,
    /// Of every id.
    All,
    /// Of the ids that a choice can fall on; of others minus infinity may stand.
    Candidates(&'a CandidateThreshold<'a>),
    /// None, but the state that the head would read, `width` floats; all rows of a pass that want anything want it.
    Hidden,
}

impl LogitsFor<'_> {
    /// Whether it is anything.
    pub fn any(&self) -> bool {
        !matches!(self, LogitsFor::None)
    }
}

/// The head of a model.
pub struct Head {
    /// Whether the copy may be made.
    copies: bool,
    copy: OnceLock<Option<QuantizedHead>>,
}

/// Rows of the copy that one task computes.
const STEP: usize = 64;
/// Matrices below this stay in the processor's cache and gain nothing.
const LEAST_BYTES: usize = 1 << 20;
/// `quantize_row` takes rows up to this, and their sums stay within i32.
const MOST_COLUMNS: usize = 1 << 17;
/// Of more ids than this fraction the exact rows are read in order.
const MOST_LIKELY: usize = 16;

impl Head {
    /// A head that may make its copy when it first needs it, or never.
    pub fn new(copies: bool) -> Head {
        Head { copies, copy: OnceLock::new() }
    }

    /// Bytes of the copy.
    pub fn bytes(&self) -> usize {
        self.copy.get().and_then(Option::as_ref).map_or(0, QuantizedHead::bytes)
    }

    /// The logits of the rows `x`, `vocab` floats each, as `wanted` says for each row, and how many were computed exactly.
    pub fn logits<'a>(
        &self,
        team: &Team,
        matrix: &Dense,
        x: &[f32],
        wanted: &[LogitsFor<'a>],
    ) -> Result<(Vec<f32>, Vec<usize>)> {
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let mut logits = try_zeroed(wanted.len().saturating_mul(rows))?;
        let mut exact = vec![rows; wanted.len()];
        let broken = |id: usize, value: f32| {
            format!("tensor '{}': row {id} gives the logit {value}; the file is broken", matrix.name())
        };
        let choice = |(i, wanted): (usize, &LogitsFor<'a>)| match wanted {
            LogitsFor::Candidates(choice) => Some((i, *choice)),
            _ => None,
        };
        let choices: Vec<(usize, &CandidateThreshold)> = wanted.iter().enumerate().filter_map(choice).collect();
        let copy = if choices.is_empty() { None } else { self.copy(team, matrix) };
        let mut full: Vec<bool> = vec![true; wanted.len()];
        if let Some(copy) = copy {
            let some: Vec<&[f32]> = choices.iter().map(|(i, _)| &x[i * cols..][..cols]).collect();
            let mut bounds = try_zeroed(2 * some.len() * rows)?;
            copy.bounds(team, &some, &mut bounds);
            for ((i, choice), bounds) in choices.iter().zip(bounds.chunks_mut(2 * rows)) {
                let (low, high) = bounds.split_at_mut(rows);
                let Some(least) = choice(low, high).filter(|least| !least.is_nan()) else { continue };
                let likely: Vec<usize> = (0..rows).filter(|id| high[*id] >= least).collect();
                if likely.len() > rows / MOST_LIKELY {
                    continue;
                }
                let row = &mut logits[i * rows..][..rows];
                row.fill(f32::NEG_INFINITY);
                let values = matrix.dots(team, &likely, &x[i * cols..][..cols]);
                check_finite(&values, 1, |i, value| broken(likely[i], value))?;
                likely.iter().zip(values).for_each(|(id, value)| row[*id] = value);
                (exact[*i], full[*i]) = (likely.len(), false);
            }
        }
        if full.iter().all(|full| *full) {
            matrix.matmul(team, x, &mut logits);
            check_finite(&logits, 1, |i, value| broken(i % rows, value))?;
        } else {
            for i in (0..wanted.len()).filter(|i| full[*i]) {
                let row = &mut logits[i * rows..][..rows];
                matrix.matmul(team, &x[i * cols..][..cols], row);
                check_finite(row, 1, broken)?;
            }
        }
        Ok((logits, exact))
    }

    /// The copy; nothing where there is to be none.
    fn copy(&self, team: &Team, matrix: &Dense) -> Option<&QuantizedHead> {
        let make = || {
            let worth = self.copies && matrix.bytes() >= LEAST_BYTES && matrix.cols() <= MOST_COLUMNS;
            let dequantize = |row: usize, out: &mut [f32]| matrix.dequantize(team, row, out);
            if worth { QuantizedHead::new(team, matrix.rows(), matrix.cols(), dequantize) } else { None }
        };
        self.copy.get_or_init(make).as_ref()
    }
}

/// A matrix in 8 bits, with what `quantize_row` says of each row.
struct QuantizedHead {
    q: HugeBuf<i8>,
    stride: usize,
    steps: Vec<f32>,
    norms: Vec<f32>,
    errors: Vec<f32>,
}

/// A token's x as integers.
struct QuantizedInput {
    q: Vec<i16>,
    token: QuantizedToken,
}

impl QuantizedHead {
    /// The copy of a matrix; nothing if there is no memory for it or a value is not finite.
    fn new(
        team: &Team,
        count: usize,
        cols: usize,
        dequantize: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Option<QuantizedHead> {
        let stride = cols.next_multiple_of(HEAD_STEP);
        let mut q = HugeBuf::try_zeroed(count.checked_mul(stride)?).ok()?;
        let (mut steps, mut norms, mut errors) = (vec![0f32; count], vec![0f32; count], vec![0f32; count]);
        let facts = steps.chunks_mut(STEP).zip(norms.chunks_mut(STEP)).zip(errors.chunks_mut(STEP));
        let mut tasks: Vec<_> = q.chunks_mut(stride * STEP).zip(facts).collect();
        team.for_each_chunk(&mut tasks, 1, |task, tasks| {
            let mut dequantized = vec![0f32; cols];
            for (q, ((steps, norms), errors)) in tasks {
                for (r, q) in q.chunks_mut(stride).enumerate() {
                    dequantize(task * STEP + r, &mut dequantized);
                    (steps[r], norms[r], errors[r]) = team.kernels.quantize_row(&dequantized, q);
                }
            }
        });
        errors.iter().all(|error| error.is_finite()).then_some(QuantizedHead { q, stride, steps, norms, errors })
    }

    fn bytes(&self) -> usize {
        self.q.len() + 3 * size_of_val(&*self.steps)
    }

    /// For each of `xs` the lower bounds of all its logits, then the upper bounds.
    fn bounds(&self, team: &Team, xs: &[&[f32]], out: &mut [f32]) {
        let inputs: Vec<QuantizedInput> = xs.iter().map(|x| QuantizedInput::new(x, self.stride)).collect();
        let tokens: Vec<&[i16]> = inputs.iter().map(|input| &input.q[..]).collect();
        team.for_each_rows(out, self.steps.len(), STEP, |first, out| {
            let own = first..first + out.len();
            let mut dots = [0i32; HEAD_TOKENS];
            let mut all = vec![0i32; tokens.len() * own.len()];
            // So few tokens that they stay in the nearest cache, together with a row.
            for (tokens, all) in tokens.chunks(HEAD_TOKENS).zip(all.chunks_mut(HEAD_TOKENS * own.len())) {
                for (i, row) in own.clone().enumerate() {
                    let dots = &mut dots[..tokens.len()];
                    team.kernels.dot_i8(&self.q[row * self.stride..][..self.stride], tokens, dots);
                    dots.iter().enumerate().for_each(|(t, dot)| all[t * own.len() + i] = *dot);
                }
            }
            let rows = [&self.steps[own.clone()], &self.norms[own.clone()], &self.errors[own.clone()]];
            let (mut low, mut high) = ([0f32; STEP], [0f32; STEP]);
            for (t, (dots, input)) in all.chunks(own.len()).zip(&inputs).enumerate() {
                let (low, high) = (&mut low[..own.len()], &mut high[..own.len()]);
                team.kernels.logit_bounds(dots, rows, input.token, low, high);
                out.token(2 * t).copy_from_slice(low);
                out.token(2 * t + 1).copy_from_slice(high);
            }
        });
    }
}

impl QuantizedInput {
    fn new(x: &[f32], stride: usize) -> QuantizedInput {
        // Whatever the 8-bit row holds, the sum stays within i32.
        let most = ((i32::MAX as usize / (127 * stride)) as f64).min(i16::MAX as f64);
        let max = x.iter().fold(0f64, |max, x| max.max(x.abs() as f64)).max(1e-30);
        let step = max / most;
        let mut q = vec![0i16; stride];
        let (mut squares, mut errors) = (0f64, 0f64);
        for (q, x) in q.iter_mut().zip(x) {
            let x = *x as f64;
            *q = (x / step).round() as i16;
            squares += x * x;
            errors += (x - *q as f64 * step).powi(2);
        }
        let root = |squares: f64| squares.sqrt() * (1.0 + 1e-9) + 1e-36;
        // Roundings of a dot: 64 lanes of fused multiply-adds, six halvings; and some for the norms.
        let roundings = x.len().div_ceil(64) + 8;
        let gamma = 1.01 * roundings as f64 * 2f64.powi(-24);
        QuantizedInput { q, token: QuantizedToken { step, norm: root(squares), error: root(errors), gamma } }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/head.rs"]
mod tests;
