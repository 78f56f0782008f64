//! Rows in 8 bits, with what bounds the distance to the rows that they stand for (see `model/head.rs`).
//!
//! Inner loop of `dot_i8`, for 32 weights on AVX-512: `vpmovsxbw` shared by the tokens; for each `vpmaddwd` with memory
//! operand and `vpaddd`. Every product and sum is an exact integer, so the order does not matter.

use super::elementwise::ROUND;
use super::float::{Lanes, ahead, prefetch, slices};

/// Weights in one step of [`dot_i8`]; rows are filled up with zeros to whole steps.
pub const HEAD_STEP: usize = 32;
/// Tokens that best share one pass over a row.
pub const HEAD_TOKENS: usize = 4;
/// Rows whose largest magnitude is below this are taken as zero: their squares would leave the range of f32.
const LEAST: f32 = 1e-12;

/// `N` tokens that share one pass over a row; gives `N`.
#[inline(always)]
fn dots<L: Lanes, const N: usize>(row: &[i8], xs: &[&[i16]], out: &mut [i32]) -> usize {
    let row = row.as_chunks::<HEAD_STEP>().0;
    let xs: [&[[i16; HEAD_STEP]]; N] = slices(|t| &xs[t].as_chunks().0[..row.len()]);
    // SAFETY: as in `float::dot_tile`: this copy of the code runs only where the processor has `L`.
    unsafe {
        let mut acc = [L::zero(); N];
        for (i, w) in row.iter().enumerate() {
            prefetch(ahead(w));
            let w = L::i8_to_i16(w);
            for t in 0..N {
                acc[t] = L::madd(acc[t], w, &xs[t][i]);
            }
        }
        for t in 0..N {
            out[t] = L::sum(acc[t]);
        }
    }
    N
}

#[inline(always)]
pub(super) fn dot_i8<L: Lanes>(row: &[i8], xs: &[&[i16]], out: &mut [i32]) {
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

#[inline(always)]
pub(super) fn quantize_row<L: Lanes>(row: &[f32], q: &mut [i8]) -> (f32, f32, f32) {
    assert!(row.len() <= q.len());
    let (steps, tail) = row.as_chunks::<16>();
    let mut max = [0u32; 16];
    let mut squares = [0f32; 16];
    for x in steps {
        for l in 0..16 {
            max[l] = max[l].max(x[l].abs().to_bits());
            squares[l] = x[l].mul_add(x[l], squares[l]);
        }
    }
    let amax = f32::from_bits(tail.iter().map(|x| x.abs().to_bits()).chain(max).fold(0, u32::max));
    q.fill(0);
    if !amax.is_finite() {
        return (0.0, f32::INFINITY, f32::INFINITY);
    }
    if amax < LEAST {
        let norm = amax * (row.len() as f32).sqrt() * SLACK + TINY;
        return (0.0, norm, norm);
    }
    let (inverse, step) = (127.0 / amax, amax / 127.0);
    // Plain loops, one for each result: as one, the compiler makes gathers of them.
    for (q, x) in q.iter_mut().zip(row) {
        *q = (x * inverse + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i8;
    }
    let mut errors = [0f32; 16];
    let (coarse, coarse_tail) = q[..row.len()].as_chunks::<16>();
    for (x, q) in steps.iter().zip(coarse) {
        for l in 0..16 {
            let rest = (q[l] as f32).mul_add(-step, x[l]);
            errors[l] = rest.mul_add(rest, errors[l]);
        }
    }
    for (l, (x, q)) in tail.iter().zip(coarse_tail).enumerate() {
        let rest = (*q as f32).mul_add(-step, *x);
        (squares[l], errors[l]) = (x.mul_add(*x, squares[l]), rest.mul_add(rest, errors[l]));
    }
    let root = |sums: [f32; 16]| sums.iter().sum::<f32>().sqrt() * SLACK + TINY;
    (step, root(squares), root(errors))
}

/// More than what rounding can take from a root of a sum of squares of up to 2^17 elements.
const SLACK: f32 = 1.002;
/// More than what squares below the range of f32 can take from it.
const TINY: f32 = 1e-16;

/// What the bounds of a token's logits depend on besides the rows.
#[derive(Clone, Copy)]
pub struct QuantizedToken {
    /// The step of its x.
    pub step: f64,
    /// Upper bounds of `|x|`, and of the distance of the integers to it.
    pub norm: f64,
    /// See `norm`.
    pub error: f64,
    /// The relative error of a dot in fixed order.
    pub gamma: f64,
}

/// Below this product of norms no partial sum leaves the range of f32.
const MOST_PRODUCT: f64 = 1e37;

#[inline(always)]
pub(super) fn logit_bounds<L: Lanes>(
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
        let middle = steps[i] as f64 * x.step * dots[i] as f64;
        let radius = error * x.norm + (norm + error) * x.error + x.gamma * norm * x.norm;
        // Outwards: more than the roundings of these few lines, to f32 at last, and than sums below its range.
        let radius = radius * (1.0 + 3e-7) + middle.abs() * 3e-7 + 1e-36;
        let known = norm * x.norm < MOST_PRODUCT;
        low[i] = if known { (middle - radius) as f32 } else { f32::NEG_INFINITY };
        high[i] = if known { (middle + radius) as f32 } else { f32::INFINITY };
    }
}
