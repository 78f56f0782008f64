//! The output head: logits of the whole vocabulary, or of those tokens alone that the sampler can choose.
//!
//! Most samplers need the exact logits of few tokens. A copy of the matrix in 8 bits, half the bytes of f16 (or its
//! packed trits, see `grouped_head.rs`), gives an interval for every logit. The caller turns the intervals into a threshold, and only the rows whose upper bound
//! reaches it are computed exactly. The intervals hold the logit *as the exact path rounds it*:
//!
//! With w = ŵ + e (ŵ the 8-bit row) and x = x̂ + f (x̂ in up to 16 bits), |w·x - ŵ·x̂| ≤ |e||x| + |ŵ||f| by the
//! Cauchy-Schwarz inequality, and ŵ·x̂ is an integer times two steps. A dot in fixed order differs from w·x by at most
//! γ Σ|w||x| ≤ γ|w||x|, where γ = m·u / (1 - m·u) for m roundings (Higham, Accuracy and Stability of Numerical
//! Algorithms, section 3.1).

use super::finite::check_finite;
use super::grouped_head::GroupedHead;
use super::linear::Dense;
use super::row::{CandidateThreshold, LogitsFor};
use crate::error::Result;
use crate::kernel::Team;
use crate::kernel::quantized_head::{HEAD_STEP, HEAD_TOKENS, QuantizedToken};
use crate::machine::counters::WorkCounters;
use crate::machine::memory::{HugeBuf, try_zeroed};
use std::sync::OnceLock;
use std::time::Instant;

/// A small copy of the output head, and the choice of which logits to compute exactly.
pub struct Head {
    /// Whether the copy must not be made.
    exact: bool,
    copy: OnceLock<Option<Copy>>,
}

/// A copy of the matrix that gives bounds of the logits.
enum Copy {
    EightBit(QuantizedHead),
    /// Of a ternary matrix with a scale for each group of columns.
    Grouped(GroupedHead),
}

/// How many rows of the 8-bit copy one task computes.
const ROWS_PER_TASK: usize = 64;
/// Matrices below this size stay in the processor's cache; an 8-bit copy would not make them faster.
const MIN_BYTES: usize = 1 << 20;
/// The most columns that `quantize_row` takes, and with which its sums fit i32.
const MAX_COLS: usize = 1 << 17;
/// If more than 1/16 of the vocabulary are candidates, reading all rows in order is faster than gathering them.
const CANDIDATE_DIVISOR: usize = 16;

impl Head {
    /// A head that makes its 8-bit copy when it first needs it, or never if it is to be `exact`.
    pub fn new(exact: bool) -> Head {
        Head { exact, copy: OnceLock::new() }
    }

    /// Bytes of the copy; 0 while there is none.
    pub fn bytes(&self) -> usize {
        match self.copy.get().and_then(Option::as_ref) {
            None => 0,
            Some(Copy::EightBit(copy)) => copy.bytes(),
            Some(Copy::Grouped(copy)) => copy.bytes(),
        }
    }

    /// The logits of each token of `x`, as `needs` says: `vocab_size` floats a token. Counts itself in `work`, which
    /// has an item for each token; all tokens share the time.
    pub fn logits(
        &self,
        team: &Team,
        matrix: &Dense,
        x: &[f32],
        needs: &[LogitsFor],
        work: &mut [WorkCounters],
    ) -> Result<Vec<f32>> {
        let start = Instant::now();
        let (vocab, cols) = (matrix.rows(), matrix.cols());
        let mut logits = try_zeroed(needs.len().saturating_mul(vocab))?;
        let computed = self.candidates(team, matrix, x, needs, &mut logits)?;
        if computed.iter().all(Option::is_none) {
            matrix.matmul(team, x, &mut logits);
            check_logits(matrix, &logits, |i| i % vocab)?;
        } else {
            let rows = logits.chunks_mut(vocab).zip(x.chunks(cols)).zip(&computed);
            for ((logits, x), _) in rows.filter(|(_, computed)| computed.is_none()) {
                matrix.matmul(team, x, logits);
                check_logits(matrix, logits, |i| i)?;
            }
        }
        let head_ns = start.elapsed().as_nanos() as u64 / needs.len().max(1) as u64;
        for (work, computed) in work.iter_mut().zip(computed) {
            *work +=
                WorkCounters { head: 1, logits: computed.unwrap_or(vocab) as u64, head_ns, ..WorkCounters::default() };
        }
        Ok(logits)
    }

    /// Computes the tokens that need only candidates. Returns for each token how many logits were computed; `None` if
    /// it still needs all.
    fn candidates(
        &self,
        team: &Team,
        matrix: &Dense,
        x: &[f32],
        needs: &[LogitsFor],
        logits: &mut [f32],
    ) -> Result<Vec<Option<usize>>> {
        let (vocab, cols) = (matrix.rows(), matrix.cols());
        let row_of = |i: usize| &x[i * cols..][..cols];
        let mut computed = vec![None; needs.len()];
        let thresholds = needs.iter().enumerate().filter_map(|(i, needs)| match needs {
            LogitsFor::Candidates(threshold) => Some((i, *threshold)),
            _ => None,
        });
        let thresholds: Vec<(usize, &CandidateThreshold)> = thresholds.collect();
        if thresholds.is_empty() {
            return Ok(computed);
        }
        let Some(copy) = self.copy(team, matrix) else { return Ok(computed) };
        let mut bounds = try_zeroed(2 * thresholds.len() * vocab)?;
        let xs: Vec<&[f32]> = thresholds.iter().map(|(i, _)| row_of(*i)).collect();
        match copy {
            Copy::EightBit(copy) => copy.bounds(team, &xs, &mut bounds),
            Copy::Grouped(copy) => copy.bounds(team, &xs, &mut bounds)?,
        }
        for ((i, threshold), bounds) in thresholds.into_iter().zip(bounds.chunks_mut(2 * vocab)) {
            let (low, high) = bounds.split_at_mut(vocab);
            let Some(least) = threshold(low, high).filter(|least| !least.is_nan()) else { continue };
            let candidates: Vec<usize> = (0..vocab).filter(|id| high[*id] >= least).collect();
            if candidates.len() > vocab / CANDIDATE_DIVISOR {
                continue;
            }
            let values = matrix.dots(team, &candidates, row_of(i));
            check_logits(matrix, &values, |i| candidates[i])?;
            let logits = &mut logits[i * vocab..][..vocab];
            logits.fill(f32::NEG_INFINITY);
            candidates.iter().zip(values).for_each(|(id, value)| logits[*id] = value);
            computed[i] = Some(candidates.len());
        }
        Ok(computed)
    }

    /// The copy; `None` if it is turned off or would not pay.
    fn copy(&self, team: &Team, matrix: &Dense) -> Option<&Copy> {
        let make = || {
            let pays = !self.exact && matrix.bytes() >= MIN_BYTES && matrix.cols() <= MAX_COLS;
            let dequantize = |row: usize, out: &mut [f32]| matrix.dequantize(team.kernels, row, out);
            if !pays {
                return None;
            }
            if let Some(packed) = matrix.packed_in_groups(team) {
                return GroupedHead::new(team, matrix, packed).map(Copy::Grouped);
            }
            QuantizedHead::new(team, matrix.rows(), matrix.cols(), dequantize).map(Copy::EightBit)
        };
        self.copy.get_or_init(make).as_ref()
    }
}

/// Refuses logits that are not finite; `id(i)` is the token of logit i.
fn check_logits(matrix: &Dense, logits: &[f32], id: impl Fn(usize) -> usize) -> Result<()> {
    check_finite(logits, 1, |i, value| {
        format!("tensor '{}': row {} gives the logit {value}; the file is broken", matrix.name(), id(i))
    })
}

/// A matrix in 8 bits, with the step, the norm and the error that `quantize_row` returns for each row.
struct QuantizedHead {
    q: HugeBuf<i8>,
    stride: usize,
    steps: Vec<f32>,
    norms: Vec<f32>,
    errors: Vec<f32>,
}

/// A token's hidden state x as integers.
struct QuantizedInput {
    q: Vec<i16>,
    token: QuantizedToken,
}

impl QuantizedHead {
    /// The 8-bit copy of a matrix; `None` if the memory is lacking or a value is not finite.
    fn new(
        team: &Team,
        count: usize,
        cols: usize,
        dequantize: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Option<QuantizedHead> {
        let stride = cols.next_multiple_of(HEAD_STEP);
        let mut q = HugeBuf::try_zeroed(count.checked_mul(stride)?).ok()?;
        let (mut steps, mut norms, mut errors) = (vec![0f32; count], vec![0f32; count], vec![0f32; count]);
        let facts =
            steps.chunks_mut(ROWS_PER_TASK).zip(norms.chunks_mut(ROWS_PER_TASK)).zip(errors.chunks_mut(ROWS_PER_TASK));
        let mut tasks: Vec<_> = q.chunks_mut(stride * ROWS_PER_TASK).zip(facts).collect();
        team.for_each_chunk(&mut tasks, 1, |task, tasks| {
            let mut dequantized = vec![0f32; cols];
            for (q, ((steps, norms), errors)) in tasks {
                for (r, q) in q.chunks_mut(stride).enumerate() {
                    dequantize(task * ROWS_PER_TASK + r, &mut dequantized);
                    (steps[r], norms[r], errors[r]) = team.kernels.quantize_row(&dequantized, q);
                }
            }
        });
        errors.iter().all(|error| error.is_finite()).then_some(QuantizedHead { q, stride, steps, norms, errors })
    }

    fn bytes(&self) -> usize {
        self.q.len() + 3 * size_of_val(&*self.steps)
    }

    /// Writes, for each of `xs`, the lower bounds of all its logits and then the upper bounds.
    fn bounds(&self, team: &Team, xs: &[&[f32]], out: &mut [f32]) {
        let inputs: Vec<QuantizedInput> = xs.iter().map(|x| QuantizedInput::new(x, self.stride)).collect();
        let tokens: Vec<&[i16]> = inputs.iter().map(|input| &input.q[..]).collect();
        team.for_each_rows(out, self.steps.len(), ROWS_PER_TASK, |first, out| {
            let own = first..first + out.len();
            let mut dots = [0i32; HEAD_TOKENS];
            let mut all = vec![0i32; tokens.len() * own.len()];
            // Few enough tokens to stay in the nearest cache, together with a row.
            for (tokens, all) in tokens.chunks(HEAD_TOKENS).zip(all.chunks_mut(HEAD_TOKENS * own.len())) {
                for (i, row) in own.clone().enumerate() {
                    let dots = &mut dots[..tokens.len()];
                    team.kernels.dot_i8(&self.q[row * self.stride..][..self.stride], tokens, dots);
                    dots.iter().enumerate().for_each(|(t, dot)| all[t * own.len() + i] = *dot);
                }
            }
            let rows = [&self.steps[own.clone()], &self.norms[own.clone()], &self.errors[own.clone()]];
            let (mut low, mut high) = ([0f32; ROWS_PER_TASK], [0f32; ROWS_PER_TASK]);
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
        // No integer is larger, so that the sum fits i32 whatever the 8-bit row holds.
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
        // Roundings of a dot: the fused multiply-adds of one of 64 lanes, six halvings, and two spare ones.
        let roundings = x.len().div_ceil(64) + 8;
        let gamma = 1.01 * roundings as f64 * 2f64.powi(-24);
        QuantizedInput { q, token: QuantizedToken { step, norm: root(squares), error: root(errors), gamma } }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/head.rs"]
mod tests;
