//! The output head in 8 bits: bounds of the logits, or logits that are defined by it.
//!
//! With w = ŵ + e (ŵ the 8-bit row) and x = x̂ + f (x̂ in up to 16 bits), |w·x - ŵ·x̂| ≤ |e||x| + |ŵ||f| by the
//! Cauchy-Schwarz inequality, and ŵ·x̂ is an integer times two steps. A dot in fixed order differs from w·x by at most
//! γ Σ|w||x| ≤ γ|w||x|, where γ = m·u / (1 - m·u) for m roundings (Higham, Accuracy and Stability of Numerical
//! Algorithms, section 3.1). So the bounds hold the logit *as the exact path rounds it*.
//!
//! A screen with less work rules out most logits first ([`QuantizedHead::screen`]): for a single token the upper six bits
//! of the rows (`upper_head.rs`); for several, where bytes are multiplied faster than 16-bit integers, x in 8 bits. These
//! wider intervals contain the others, so they rule out no token that the others would not rule out.

use super::linear::Dense;
use super::upper_head::UpperHead;
use crate::error::Result;
use crate::kernel::quantized_head::{BYTE_STEP, HEAD_STEP, HEAD_TOKENS, QuantizedToken};
use crate::kernel::{Kernels, Team};
use crate::machine::buffer::Buffer;
use crate::machine::memory::HugeBuf;
use crate::machine::pool::OutputTile;
use crate::token::{TokenId, TokenSet};
use std::ops::Range;
use std::sync::OnceLock;

/// How many rows one task computes.
const ROWS_PER_TASK: usize = 64;

/// In how many rows one task looks for those whose bounds are wanted.
const ROWS_PER_SEARCH: usize = 1024;
/// From so many tokens on, multiplying takes longer than reading the copy, and their states are rounded to 8 bits first.
const MIN_BYTE_TOKENS: usize = 6;
/// Tokens whose error in 8 bits is larger than this, in units of the typical logit of a random row, |w||x|/√n, are not
/// screened: too few rows would be ruled out. Hidden states with single large values have such errors.
const MAX_SCREEN_ERROR: f64 = 1.5;

/// A matrix in 8 bits, with the step, the norm and the error that `quantize_row` returns for each row.
pub(super) struct QuantizedHead {
    q: Buffer<i8>,
    stride: usize,
    steps: Vec<f32>,
    norms: Vec<f32>,
    errors: Vec<f32>,
    /// Made by the first screen of a single token; `None` if the memory does not suffice.
    upper: OnceLock<Option<UpperHead>>,
}

/// A token's hidden state x as integers.
pub(super) struct QuantizedInput {
    q: Vec<i16>,
    token: QuantizedToken,
}

/// Hidden states for [`QuantizedHead::screen`].
pub(super) enum ScreenInputs {
    /// Of a single token, for the upper bits of the rows.
    Upper(QuantizedInput),
    /// Of several tokens.
    Bytes(Vec<ByteInput>),
}

/// A token's hidden state x as bytes.
pub(super) struct ByteInput {
    q: Vec<i8>,
    token: QuantizedToken,
}

impl QuantizedHead {
    /// The 8-bit copy of a matrix, whose pages leave the memory; `None` if a value is not finite.
    pub(super) fn new(team: &Team, matrix: &Dense) -> Result<Option<QuantizedHead>> {
        let dequantize = |row: usize, out: &mut [f32]| matrix.dequantize(team.kernels, row, out);
        QuantizedHead::from_rows(team, matrix.rows(), matrix.cols(), dequantize, |rows| matrix.release(rows))
    }

    /// Reads all rows in parallel, and tells of those that are `done`.
    fn from_rows(
        team: &Team,
        count: usize,
        cols: usize,
        dequantize: impl Fn(usize, &mut [f32]) + Sync,
        done: impl Fn(Range<usize>) + Sync,
    ) -> Result<Option<QuantizedHead>> {
        let stride = cols.next_multiple_of(HEAD_STEP);
        let mut q = HugeBuf::try_zeroed(count.saturating_mul(stride))?;
        let (mut steps, mut norms, mut errors) = (vec![0f32; count], vec![0f32; count], vec![0f32; count]);
        let facts =
            steps.chunks_mut(ROWS_PER_TASK).zip(norms.chunks_mut(ROWS_PER_TASK)).zip(errors.chunks_mut(ROWS_PER_TASK));
        let mut tasks: Vec<_> = q.chunks_mut(stride * ROWS_PER_TASK).zip(facts).collect();
        team.for_each_chunk(&mut tasks, 1, |task, tasks| {
            let mut dequantized = vec![0f32; cols];
            let first = task * ROWS_PER_TASK;
            for (q, ((steps, norms), errors)) in tasks {
                for (r, q) in q.chunks_mut(stride).enumerate() {
                    dequantize(first + r, &mut dequantized);
                    (steps[r], norms[r], errors[r]) = team.kernels.quantize_row(&dequantized, q);
                }
                done(first..first + steps.len());
            }
        });
        let finite = errors.iter().all(|error| error.is_finite());
        Ok(finite.then_some(QuantizedHead {
            q: Buffer::Owned(q),
            stride,
            steps,
            norms,
            errors,
            upper: OnceLock::new(),
        }))
    }

    /// A copy of a matrix with so many columns that was made before. `facts` are the steps, norms and errors of its
    /// rows. `None` if the sizes do not fit.
    pub(super) fn from_stored(cols: usize, q: Buffer<i8>, facts: [Vec<f32>; 3]) -> Option<QuantizedHead> {
        let [steps, norms, errors] = facts;
        let stride = cols.next_multiple_of(HEAD_STEP);
        let fits = [steps.len(), norms.len(), errors.len()].iter().all(|len| len * stride == q.len());
        fits.then_some(QuantizedHead { q, stride, steps, norms, errors, upper: OnceLock::new() })
    }

    /// The integers, row by row of [`QuantizedHead::stride`] columns.
    pub(super) fn integers(&self) -> &[i8] {
        &self.q
    }

    /// The number of its rows.
    pub(super) fn rows(&self) -> usize {
        self.steps.len()
    }

    /// The columns of the copy.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// The steps, norms and errors of its rows.
    pub(super) fn facts(&self) -> [&[f32]; 3] {
        [&self.steps, &self.norms, &self.errors]
    }

    /// The bytes that are in memory of its own, not in a mapped file.
    pub(super) fn owned_bytes(&self) -> usize {
        self.q.owned_bytes() + 3 * size_of_val(&*self.steps)
    }

    /// The bytes of a copy.
    pub(super) fn bytes_of(rows: usize, cols: usize) -> usize {
        rows * (cols.next_multiple_of(HEAD_STEP) + 3 * size_of::<f32>())
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.q) + 3 * size_of_val(&*self.steps)
    }

    /// The bytes of its upper bits; 0 while there are none.
    pub(super) fn upper_bytes(&self) -> usize {
        self.upper.get().and_then(Option::as_ref).map_or(0, UpperHead::bytes)
    }

    /// Writes the logits of each of `xs`, as this copy defines them: the integer dot times both steps, in f64, rounded
    /// to f32 once. A state that is not finite gives logits that are not either.
    pub(super) fn logits(&self, team: &Team, xs: &[&[f32]], wanted: Option<&TokenSet>, out: &mut [f32]) {
        self.dots(team, xs, wanted, out, |rows, dots, inputs, out| {
            for (t, (dots, input)) in dots.chunks(rows.len()).zip(inputs).enumerate() {
                let step = if input.token.norm.is_finite() { input.token.step } else { f64::NAN };
                for ((out, row_step), dot) in out.token(t).iter_mut().zip(&self.steps[rows.clone()]).zip(dots) {
                    *out = (*row_step as f64 * step * *dot as f64) as f32;
                }
            }
        });
    }

    /// Writes, for each of `xs`, the lower bounds of all its logits and then the upper bounds.
    pub(super) fn bounds(&self, team: &Team, xs: &[&[f32]], wanted: Option<&TokenSet>, out: &mut [f32]) {
        self.dots(team, xs, wanted, out, |rows, dots, inputs, out| {
            self.write_bounds(team, (rows, &self.errors), dots, inputs.iter().map(|input| input.token), out);
        });
    }

    /// Writes the bounds of some rows that follow from `dots[token][row]` and from the errors of all rows.
    fn write_bounds(
        &self,
        team: &Team,
        (rows, errors): (Range<usize>, &[f32]),
        dots: &[i32],
        tokens: impl Iterator<Item = QuantizedToken>,
        out: &mut OutputTile,
    ) {
        let n = rows.len();
        let facts = [&self.steps[rows.clone()], &self.norms[rows.clone()], &errors[rows]];
        let (mut low, mut high) = ([0f32; ROWS_PER_TASK], [0f32; ROWS_PER_TASK]);
        for (t, (dots, token)) in dots.chunks(n).zip(tokens).enumerate() {
            let (low, high) = (&mut low[..n], &mut high[..n]);
            team.kernels.logit_bounds(dots, facts, token, low, high);
            out.token(2 * t).copy_from_slice(low);
            out.token(2 * t + 1).copy_from_slice(high);
        }
    }

    /// The states `xs` for [`QuantizedHead::screen`], and which of them it serves: not those of which it would rule out few
    /// rows. `None` if no screen is faster than [`QuantizedHead::bounds`] for so many tokens.
    pub(super) fn screen_inputs(&self, team: &Team, xs: &[&[f32]]) -> Option<(ScreenInputs, Vec<bool>)> {
        if let [x] = xs {
            self.upper(team)?;
            let input = QuantizedInput::for_upper(x, UpperHead::stride(self.stride));
            return Some((ScreenInputs::Upper(input), vec![true]));
        }
        let is_faster = self.stride.is_multiple_of(BYTE_STEP) && team.kernels.byte_dots(&[], &[], &mut []);
        if xs.len() < MIN_BYTE_TOKENS || !is_faster {
            return None;
        }
        let inputs: Vec<ByteInput> = xs.iter().map(|x| ByteInput::new(x, self.stride)).collect();
        let is_precise = |(input, x): (&ByteInput, &&[f32])| {
            let QuantizedToken { norm, error, .. } = input.token;
            error * (x.len() as f64).sqrt() <= MAX_SCREEN_ERROR * norm
        };
        let served: Vec<bool> = inputs.iter().zip(xs).map(is_precise).collect();
        let inputs: Vec<ByteInput> =
            inputs.into_iter().zip(&served).filter_map(|(input, served)| served.then_some(input)).collect();
        (inputs.len() >= MIN_BYTE_TOKENS).then_some((ScreenInputs::Bytes(inputs), served))
    }

    fn upper(&self, team: &Team) -> Option<&UpperHead> {
        let make = || UpperHead::new(team, self.integers(), self.stride, &self.steps, &self.errors).ok();
        self.upper.get_or_init(make).as_ref()
    }

    /// As [`QuantizedHead::bounds`], with less work: every interval contains that of `bounds`.
    pub(super) fn screen(&self, team: &Team, inputs: &ScreenInputs, out: &mut [f32]) {
        match inputs {
            ScreenInputs::Upper(input) => self.screen_upper(team, input, out),
            ScreenInputs::Bytes(inputs) => self.screen_bytes(team, inputs, out),
        }
    }

    fn screen_upper(&self, team: &Team, input: &QuantizedInput, out: &mut [f32]) {
        let upper = self.upper(team).expect("`screen_inputs` has made it");
        team.for_each_rows(out, self.steps.len(), ROWS_PER_TASK, |first, out| {
            let own = first..first + out.len();
            let mut dots = [0i32; ROWS_PER_TASK];
            let dots = &mut dots[..own.len()];
            upper.dots(team, own.clone(), &input.q, dots);
            self.write_bounds(team, (own, upper.errors()), dots, [input.token].into_iter(), out);
        });
    }

    fn screen_bytes(&self, team: &Team, inputs: &[ByteInput], out: &mut [f32]) {
        let tokens: Vec<&[i8]> = inputs.iter().map(|input| &input.q[..]).collect();
        let q = self.integers(); // once: a mapped buffer checks its place
        team.for_each_rows(out, self.steps.len(), ROWS_PER_TASK, |first, out| {
            let own = first..first + out.len();
            let mut dots = vec![0i32; tokens.len() * own.len()];
            let done = team.kernels.byte_dots(&q[own.start * self.stride..own.end * self.stride], &tokens, &mut dots);
            assert!(done, "`screen_inputs` has asked for it");
            self.write_bounds(team, (own, &self.errors), &dots, inputs.iter().map(|input| input.token), out);
        });
    }

    /// The bounds that [`QuantizedHead::bounds`] gives, for each of `xs` those of some rows, in ascending order: lower
    /// ones, and upper ones.
    pub(super) fn bounds_of(&self, team: &Team, xs: &[&[f32]], rows: &[&[usize]]) -> Vec<[Vec<f32>; 2]> {
        let inputs: Vec<QuantizedInput> = xs.iter().map(|x| QuantizedInput::new(x, self.stride)).collect();
        let firsts = (0..self.steps.len()).step_by(ROWS_PER_SEARCH);
        // The tokens follow each other in each range of rows, so that a row is in the cache for the others.
        let mut tasks: Vec<(usize, Vec<[Vec<f32>; 2]>)> = firsts.map(|first| (first, Vec::new())).collect();
        team.for_each_chunk(&mut tasks, 1, |_, tasks| {
            for (first, bounds) in tasks {
                let of_token = |(input, rows): (&QuantizedInput, &&[usize])| {
                    let at = |row: usize| rows.partition_point(|id| *id < row);
                    self.bounds_of_rows(team.kernels, input, &rows[at(*first)..at(*first + ROWS_PER_SEARCH)])
                };
                bounds.extend(inputs.iter().zip(rows).map(of_token));
            }
        });
        let mut all: Vec<[Vec<f32>; 2]> = vec![Default::default(); xs.len()];
        for (_, bounds) in tasks {
            for (all, [low, high]) in all.iter_mut().zip(bounds) {
                all[0].extend(low);
                all[1].extend(high);
            }
        }
        all
    }

    fn bounds_of_rows(&self, kernels: &Kernels, input: &QuantizedInput, rows: &[usize]) -> [Vec<f32>; 2] {
        let mut dots = vec![0i32; rows.len()];
        let q = self.integers();
        for (row, dot) in rows.iter().zip(dots.chunks_mut(1)) {
            kernels.dot_i8(&q[row * self.stride..][..self.stride], &[&input.q], dot);
        }
        let of = |facts: &[f32]| rows.iter().map(|row| facts[*row]).collect::<Vec<f32>>();
        let [steps, norms, errors] = self.facts().map(of);
        let (mut low, mut high) = (vec![0f32; rows.len()], vec![0f32; rows.len()]);
        kernels.logit_bounds(&dots, [&steps, &norms, &errors], input.token, &mut low, &mut high);
        [low, high]
    }

    /// Passes the integer dots of some rows to `write`: rows, `dots[token][row]`, tokens, and their part of `out`. Rows that
    /// are not `wanted` are not read; their dots are 0.
    fn dots(
        &self,
        team: &Team,
        xs: &[&[f32]],
        wanted: Option<&TokenSet>,
        out: &mut [f32],
        write: impl Fn(Range<usize>, &[i32], &[QuantizedInput], &mut OutputTile) + Sync,
    ) {
        let inputs: Vec<QuantizedInput> = xs.iter().map(|x| QuantizedInput::new(x, self.stride)).collect();
        let tokens: Vec<&[i16]> = inputs.iter().map(|input| &input.q[..]).collect();
        let q = self.integers(); // once: a mapped buffer checks its place
        team.for_each_rows(out, self.steps.len(), ROWS_PER_TASK, |first, out| {
            let own = first..first + out.len();
            let mut dots = [0i32; HEAD_TOKENS];
            let mut all = vec![0i32; tokens.len() * own.len()];
            // Few enough tokens to stay in the nearest cache, together with a row.
            for (tokens, all) in tokens.chunks(HEAD_TOKENS).zip(all.chunks_mut(HEAD_TOKENS * own.len())) {
                for (i, row) in own.clone().enumerate() {
                    if wanted.is_some_and(|wanted| !wanted.contains(row as TokenId)) {
                        continue;
                    }
                    let dots = &mut dots[..tokens.len()];
                    team.kernels.dot_i8(&q[row * self.stride..][..self.stride], tokens, dots);
                    dots.iter().enumerate().for_each(|(t, dot)| all[t * own.len() + i] = *dot);
                }
            }
            write(own, &all, &inputs, out);
        });
    }
}

impl QuantizedInput {
    fn new(x: &[f32], stride: usize) -> QuantizedInput {
        // No integer is larger, so that the sum fits i32 whatever the 8-bit row holds.
        QuantizedInput::in_range(x, stride, i32::MAX as usize / (127 * stride))
    }

    /// x for the upper bits, whose dots are twice as large. The bounds contain those of [`QuantizedInput::new`].
    ///
    /// With ŵ = w̌ + d, w̌ from the upper bits, and x = x̂ + f for `new` and x̌ + g here, the centers ŵ·x̂ and w̌·x̌ differ by
    /// at most |ŵ|(|f| + |g|) + |d|(|x| + |g|), where |ŵ| ≤ |w| + |e|. The radius of `new` contains |e||x| + (|w| + |e|)|f|.
    /// With |e| + |d| in place of |e| and |g| + 2|f| in place of |f| it is larger by that. The factors exceed what roundings
    /// can take.
    fn for_upper(x: &[f32], stride: usize) -> QuantizedInput {
        let exact = QuantizedInput::new(x, x.len().next_multiple_of(HEAD_STEP)).token;
        let QuantizedInput { q, token } = QuantizedInput::in_range(x, stride, i32::MAX as usize / (2 * 127 * stride));
        let error = (token.error + 2.0 * exact.error) * (1.0 + 1e-6) + exact.norm * 1e-9;
        QuantizedInput { q, token: QuantizedToken { step: token.step / 2.0, error, ..exact } }
    }

    /// x in `stride` integers of magnitudes up to `most`.
    fn in_range(x: &[f32], stride: usize, most: usize) -> QuantizedInput {
        let most = (most as f64).min(i16::MAX as f64);
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
        // Roundings of a dot: the fused multiply-adds of one of 64 lanes, six halvings, and two spare ones.
        let roundings = x.len().div_ceil(64) + 8;
        let gamma = 1.01 * roundings as f64 * 2f64.powi(-24);
        QuantizedInput { q, token: QuantizedToken { step, norm: root(squares), error: root(errors), gamma } }
    }
}

/// An upper bound of the root of a sum of squares in f64.
fn root(squares: f64) -> f64 {
    squares.sqrt() * (1.0 + 1e-9) + 1e-36
}

impl ByteInput {
    /// x in bytes, with an error so large that the bounds contain those of [`QuantizedInput`].
    ///
    /// With x = x̂ + f in 16 bits and x = x̌ + g in 8 bits, the centers ŵ·x̂ and ŵ·x̌ of both intervals differ by at most
    /// |ŵ|(|f| + |g|), where |ŵ| ≤ |w| + |e|. The radius contains the error |f| as (|w| + |e|)|f|. With |g| + 2|f| in
    /// place of |f| it is larger by (|w| + |e|)(|g| + |f|), so the interval reaches as far as the other on both sides. The
    /// factors and |x|·1e-9 exceed what the roundings in f64 can take from that; the final rounding to f32 is monotone.
    fn new(x: &[f32], stride: usize) -> ByteInput {
        let exact = QuantizedInput::new(x, stride).token;
        let max = x.iter().fold(0f64, |max, x| max.max(x.abs() as f64)).max(1e-30);
        let step = max / i8::MAX as f64;
        let mut q = vec![0i8; stride];
        let mut errors = 0f64;
        for (q, x) in q.iter_mut().zip(x) {
            let x = *x as f64;
            *q = (x / step).round() as i8;
            errors += (x - *q as f64 * step).powi(2);
        }
        let error = (root(errors) + 2.0 * exact.error) * (1.0 + 1e-6) + exact.norm * 1e-9;
        ByteInput { q, token: QuantizedToken { step, error, ..exact } }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/quantized_head.rs"]
mod tests;
