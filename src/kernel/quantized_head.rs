//! The 8-bit copy of the output head: rows rounded to int8, their integer dots, and bounds of the exact logits that
//! follow from these dots (see `model/head.rs`).
//!
//! Inner loop of `dot_i8`, for 32 weights on AVX-512: one `vpmovsxbw` shared by the tokens; per token one `vpmaddwd`
//! with a memory operand and one `vpaddd`. Every product and sum is an exact integer, so the order does not matter.

use super::lanes::{SimdF32, VECTOR_LEN, round_to_i8, slices};
use super::prefetch::{prefetch, prefetch_ahead};

/// Weights in one step of [`dot_i8`]; rows are padded with zeros to whole steps.
pub const HEAD_STEP: usize = 32;
/// The number of tokens for which [`dot_i8`] is fastest: they share one pass over a row.
pub const HEAD_TOKENS: usize = 4;
/// A row whose largest magnitude is below this is stored as zeros: its squares would leave the range of f32.
const MIN_AMAX: f32 = 1e-12;

/// Dots of int8 weights and int16 activations in an instruction set, 32 at a time.
///
/// # Safety
/// Every function may be called only where the processor has the implementor's instruction set.
pub(super) trait Int8Dot {
    /// 32 weights as int16, in registers.
    type Weights: Copy;
    /// Partial sums of products, in registers.
    type Sums: Copy;
    /// Sums that are all zero.
    unsafe fn zero() -> Self::Sums;
    /// Reads 32 weights and converts them to int16.
    unsafe fn i8_to_i16(w: &[i8; HEAD_STEP]) -> Self::Weights;
    /// Adds 32 products of weights and activations to the sums, exactly.
    unsafe fn madd(sums: Self::Sums, w: Self::Weights, x: &[i16; HEAD_STEP]) -> Self::Sums;
    /// Adds up the partial sums.
    unsafe fn total(sums: Self::Sums) -> i32;
}

/// Dots of a row with `N` tokens, which share one pass over it. Returns `N`.
#[inline(always)]
fn dots<L: Int8Dot, const N: usize>(row: &[i8], xs: &[&[i16]], out: &mut [i32]) -> usize {
    let row = row.as_chunks::<HEAD_STEP>().0;
    let xs: [&[[i16; HEAD_STEP]]; N] = slices(|t| &xs[t].as_chunks().0[..row.len()]);
    // SAFETY: this copy of the code is compiled for `L` (`stamp_floats!`) and runs only where the processor has it.
    unsafe {
        let mut acc = [L::zero(); N];
        for (i, w) in row.iter().enumerate() {
            prefetch_ahead(w);
            let w = L::i8_to_i16(w);
            for t in 0..N {
                acc[t] = L::madd(acc[t], w, &xs[t][i]);
            }
        }
        for t in 0..N {
            out[t] = L::total(acc[t]);
        }
    }
    N
}

#[inline(always)]
pub(super) fn dot_i8<L: Int8Dot>(row: &[i8], xs: &[&[i16]], out: &mut [i32]) {
    assert!(xs.len() == out.len() && xs.iter().all(|x| x.len() == row.len()));
    let mut t = 0;
    while t < xs.len() {
        let (xs, out) = (&xs[t..], &mut out[t..]);
        t += match xs.len() {
            HEAD_TOKENS.. => dots::<L, HEAD_TOKENS>(row, xs, out),
            2.. => dots::<L, 2>(row, xs, out),
            _ => dots::<L, 1>(row, xs, out),
        };
    }
}

/// Weights in one step of [`byte_dots`].
pub const BYTE_STEP: usize = 64;
/// The rows of a tile of [`byte_dots`].
const TILE_ROWS: usize = 4;

/// Dots of int8 weights and int8 activations in an instruction set that multiplies unsigned with signed bytes, 64 at a
/// time.
///
/// # Safety
/// Every function may be called only where the processor has the implementor's instruction set.
pub(super) trait ByteDot {
    /// 64 weights plus 128, in registers.
    type Weights: Copy;
    /// Partial sums of products, in registers.
    type Sums: Copy;
    /// Sums that are all zero.
    unsafe fn zero() -> Self::Sums;
    /// Reads 64 weights and adds 128 to each, which makes them unsigned.
    unsafe fn load(w: &[i8; BYTE_STEP]) -> Self::Weights;
    /// Adds 64 products to the sums, modulo 2³².
    unsafe fn dot(sums: Self::Sums, w: Self::Weights, x: &[i8; BYTE_STEP]) -> Self::Sums;
    /// Adds up four groups of partial sums, modulo 2³².
    unsafe fn totals(sums: [Self::Sums; 4]) -> [i32; 4];
}

/// Dots of four rows with `N` tokens, `[token][row]`, too large by 128 times the sums of the tokens' activations.
///
/// Inner loop, for 64 columns on AVX-512-VNNI: four loads and `vpxord` of weights; per token four `vpdpbusd`, which share
/// its load. With four tokens the 16 chains of sums keep the multipliers busy.
#[inline(always)]
fn byte_tile<D: ByteDot, const N: usize>(rows: [&[i8]; TILE_ROWS], xs: &[&[i8]]) -> [[i32; TILE_ROWS]; N] {
    let rows: [&[[i8; BYTE_STEP]]; TILE_ROWS] = slices(|r| rows[r].as_chunks().0);
    let steps = rows[0].len();
    let rows: [&[[i8; BYTE_STEP]]; TILE_ROWS] = slices(|r| &rows[r][..steps]);
    let xs: [&[[i8; BYTE_STEP]]; N] = slices(|t| &xs[t].as_chunks().0[..steps]);
    let mut totals = [[0; TILE_ROWS]; N];
    // SAFETY: this copy of the code is compiled for `D` and runs only where the processor has it.
    unsafe {
        let mut acc = [[D::zero(); TILE_ROWS]; N];
        for i in 0..steps {
            let mut w = [D::load(&rows[0][i]); TILE_ROWS];
            for r in 0..TILE_ROWS {
                w[r] = D::load(&rows[r][i]);
                // The same column two tiles further on.
                prefetch((&raw const rows[r][i]).wrapping_add(2 * TILE_ROWS * steps));
            }
            for t in 0..N {
                for r in 0..TILE_ROWS {
                    acc[t][r] = D::dot(acc[t][r], w[r], &xs[t][i]);
                }
            }
        }
        for t in 0..N {
            totals[t] = D::totals(acc[t]);
        }
    }
    totals
}

/// Dots of `rows` with each of `xs`, `[token][row]`.
#[inline(always)]
pub(super) fn byte_dots<D: ByteDot>(rows: &[i8], xs: &[&[i8]], out: &mut [i32]) {
    let cols = xs[0].len();
    let n = rows.len() / cols;
    assert!(cols.is_multiple_of(BYTE_STEP) && xs.iter().all(|x| x.len() == cols));
    assert!(n > 0 && rows.len() == n * cols && out.len() == n * xs.len());
    let zeros = [0i8; BYTE_STEP];
    let mut first = 0;
    while first < n {
        // The last tile repeats its last row.
        let tile: [&[i8]; TILE_ROWS] = slices(|r| &rows[(first + r).min(n - 1) * cols..][..cols]);
        let kept = (n - first).min(TILE_ROWS);
        let mut put = |t: usize, totals: &[[i32; TILE_ROWS]]| {
            for (t, totals) in (t..).zip(totals) {
                out[t * n + first..][..kept].copy_from_slice(&totals[..kept]);
            }
        };
        let mut t = 0;
        while t < xs.len() {
            let xs = &xs[t..];
            t += match xs.len() {
                4.. => {
                    put(t, &byte_tile::<D, 4>(tile, xs));
                    4
                }
                2.. => {
                    put(t, &byte_tile::<D, 2>(tile, xs));
                    2
                }
                _ => {
                    put(t, &byte_tile::<D, 1>(tile, xs));
                    1
                }
            };
        }
        first += TILE_ROWS;
    }
    for (out, x) in out.chunks_mut(n).zip(xs) {
        // 128 times the sum of x: the dot with weights of zero, to which 128 was added.
        // SAFETY: this copy of the code is compiled for `D` and runs only where the processor has it.
        let excess = unsafe {
            let mut sums = D::zero();
            for x in x.as_chunks().0 {
                sums = D::dot(sums, D::load(&zeros), x);
            }
            D::totals([sums; 4])[0]
        };
        out.iter_mut().for_each(|dot| *dot = dot.wrapping_sub(excess));
    }
}

#[inline(always)]
pub(super) fn quantize_row<L: SimdF32>(row: &[f32], q: &mut [i8]) -> (f32, f32, f32) {
    assert!(row.len() <= q.len());
    let (blocks, tail) = row.as_chunks::<VECTOR_LEN>();
    let mut max = [0u32; VECTOR_LEN];
    let mut squares = [0f32; VECTOR_LEN];
    for x in blocks {
        for l in 0..VECTOR_LEN {
            max[l] = max[l].max(x[l].abs().to_bits());
            squares[l] = x[l].mul_add(x[l], squares[l]);
        }
    }
    let amax = f32::from_bits(tail.iter().map(|x| x.abs().to_bits()).chain(max).fold(0, u32::max));
    q.fill(0);
    if !amax.is_finite() {
        return (0.0, f32::INFINITY, f32::INFINITY);
    }
    if amax < MIN_AMAX {
        let norm = amax * (row.len() as f32).sqrt() * ROUNDING_SLACK + UNDERFLOW_SLACK;
        return (0.0, norm, norm);
    }
    let (inverse, step) = (127.0 / amax, amax / 127.0);
    // A loop for each result: the compiler would make gathers of a single one.
    for (q, x) in q.iter_mut().zip(row) {
        *q = round_to_i8(x * inverse);
    }
    let mut errors = [0f32; VECTOR_LEN];
    let (q_blocks, q_tail) = q[..row.len()].as_chunks::<VECTOR_LEN>();
    for (x, q) in blocks.iter().zip(q_blocks) {
        for l in 0..VECTOR_LEN {
            let rest = (q[l] as f32).mul_add(-step, x[l]);
            errors[l] = rest.mul_add(rest, errors[l]);
        }
    }
    for (l, (x, q)) in tail.iter().zip(q_tail).enumerate() {
        let rest = (*q as f32).mul_add(-step, *x);
        (squares[l], errors[l]) = (x.mul_add(*x, squares[l]), rest.mul_add(rest, errors[l]));
    }
    let root = |sums: [f32; VECTOR_LEN]| sums.iter().sum::<f32>().sqrt() * ROUNDING_SLACK + UNDERFLOW_SLACK;
    (step, root(squares), root(errors))
}

/// Makes the root of a sum of up to 2^17 squares an upper bound: more than rounding can take from it.
const ROUNDING_SLACK: f32 = 1.002;
/// More than squares that underflow can take from it.
const UNDERFLOW_SLACK: f32 = 1e-16;

/// A token's hidden state x, rounded to integers: the figures on which the bounds of its logits depend.
#[derive(Clone, Copy)]
pub struct QuantizedToken {
    /// x is about `step` times the integers.
    pub step: f64,
    /// An upper bound of the Euclidean norm `|x|`.
    pub norm: f64,
    /// An upper bound of the norm of `x - step · integers`.
    pub error: f64,
    /// An upper bound of the relative rounding error of a float dot in the fixed order.
    pub gamma: f64,
}

/// Below this product of norms no partial sum of a dot leaves the range of f32.
const MAX_NORM_PRODUCT: f64 = 1e37;

#[inline(always)]
pub(super) fn logit_bounds<L: SimdF32>(
    dots: &[i32],
    rows: [&[f32]; 3],
    x: QuantizedToken,
    low: &mut [f32],
    high: &mut [f32],
) {
    let n = dots.len();
    assert!(rows.iter().all(|part| part.len() == n) && low.len() == n && high.len() == n);
    let [steps, norms, errors] = rows;
    for i in 0..n {
        let (norm, error) = (norms[i] as f64, errors[i] as f64);
        let center = steps[i] as f64 * x.step * dots[i] as f64;
        // Cauchy-Schwarz for what the integers leave out of the row and of x, and the rounding of the exact logit.
        let radius = error * x.norm + (norm + error) * x.error + x.gamma * norm * x.norm;
        // Widened by more than underflow and the rounding of these lines, the final one to f32, can amount to.
        let radius = radius * (1.0 + 3e-7) + center.abs() * 3e-7 + 1e-36;
        let finite = norm * x.norm < MAX_NORM_PRODUCT;
        low[i] = if finite { (center - radius) as f32 } else { f32::NEG_INFINITY };
        high[i] = if finite { (center + radius) as f32 } else { f32::INFINITY };
    }
}
