//! Float kernels that work element by element, and RMSNorm and softmax. They are written on plain arrays, which the
//! compiler turns into vectors of each instruction set.

use super::dot::dot_tile;
use super::f16::f16_to_f32_portable;
use super::lanes::{
    DOT_LANES, Dequantized, F16Bytes, ROUNDING_MAGIC, SimdF32, VECTOR_LEN, round_to_i8, sum_by_halving,
};

#[inline(always)]
pub(super) fn f16_to_f32<L: SimdF32>(row: &[F16Bytes], out: &mut [f32]) {
    assert_eq!(row.len(), out.len());
    let ((rows, tail), (outs, rest)) = (row.as_chunks::<VECTOR_LEN>(), out.as_chunks_mut::<VECTOR_LEN>());
    for (row, out) in rows.iter().zip(outs) {
        // SAFETY: this copy of the code is compiled for `L` (`stamp_floats!`) and runs only where the processor has it.
        unsafe { L::store(L::f16_to_f32(row), out) };
    }
    let mut padded = [[0; 2]; VECTOR_LEN];
    padded[..tail.len()].copy_from_slice(tail);
    rest.copy_from_slice(&f16_to_f32_portable(&padded)[..tail.len()]);
}

#[inline(always)]
pub(super) fn rms_norm<L: SimdF32>(x: &mut [f32], gamma: &[f32], eps: f32) {
    assert!(x.len() == gamma.len());
    let squares = dot_tile::<L, Dequantized, 1>(x, [&*x])[0];
    let r = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    for (x, gamma) in x.iter_mut().zip(gamma) {
        *x = *x * r * gamma;
    }
}

#[inline(always)]
pub(super) fn quantize<L: SimdF32>(x: &[f32], q: &mut [i8]) -> (f32, i32) {
    assert!(x.len() <= q.len());
    // The bits of magnitudes have the order of the magnitudes, and NaN is the largest: it makes `s` NaN, and so every
    // output.
    let mut max = [0u32; VECTOR_LEN];
    let (blocks, tail) = x.as_chunks::<VECTOR_LEN>();
    for block in blocks {
        for l in 0..VECTOR_LEN {
            max[l] = max[l].max(block[l].abs().to_bits());
        }
    }
    let floor = 1e-5f32.to_bits();
    let amax = tail.iter().map(|x| x.abs().to_bits()).chain(max).fold(floor, u32::max);
    let s = 127.0 / f32::from_bits(amax);
    // Two loops: the compiler would make gathers of a single one.
    for (q, x) in q.iter_mut().zip(x) {
        *q = round_to_i8(x * s);
    }
    q[x.len()..].fill(0);
    let sum = q.iter().map(|q| *q as i32).sum();
    (s, sum)
}

/// `e^x`: Cody-Waite reduction and the degree-5 polynomial of Cephes' `expf`; 0 at or below -104.
///
/// Call it in a loop over a slice, which the compiler vectorises. A loop over an array of 16 it would unroll first, and
/// then gather the pieces of vectors.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const C: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let bounded = if x < -104.0 { -104.0 } else { x };
    let bounded = if bounded > 89.0 { 89.0 } else { bounded };
    let n = bounded.mul_add(std::f32::consts::LOG2_E, ROUNDING_MAGIC) - ROUNDING_MAGIC;
    let r = n.mul_add(-0.693_359_4, bounded);
    let r = n.mul_add(2.121_944_4e-4, r);
    let mut y = C[0];
    for c in &C[1..] {
        y = y.mul_add(r, *c);
    }
    let e = (y * r).mul_add(r, r) + 1.0;
    // Two factors, since 2^n itself may lie outside the normal range.
    let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
    let n = (n + ROUNDING_MAGIC).to_bits().wrapping_sub(ROUNDING_MAGIC.to_bits()) as i32;
    let e = e * power(n >> 1) * power(n - (n >> 1));
    if x <= -104.0 { 0.0 } else { e }
}

#[inline(always)]
pub(super) fn softmax<L: SimdF32>(s: &mut [f32], n: usize, scale: f32) -> f32 {
    s[n..].fill(f32::NEG_INFINITY);
    let blocks = s.as_chunks_mut::<DOT_LANES>().0;
    let mut max = [f32::NEG_INFINITY; DOT_LANES];
    for block in blocks.iter_mut() {
        for l in 0..DOT_LANES {
            block[l] *= scale;
            max[l] = if block[l] > max[l] { block[l] } else { max[l] };
        }
    }
    let max = max.into_iter().fold(f32::NEG_INFINITY, |m, x| if x > m { x } else { m });
    let mut sums = [[0f32; VECTOR_LEN]; DOT_LANES / VECTOR_LEN];
    for x in s.iter_mut() {
        *x = exp(*x - max);
    }
    for block in s.as_chunks::<DOT_LANES>().0 {
        for (group, sum) in block.as_chunks::<VECTOR_LEN>().0.iter().zip(&mut sums) {
            for l in 0..VECTOR_LEN {
                sum[l] += group[l];
            }
        }
    }
    sum_by_halving(sums)
}

#[inline(always)]
pub(super) fn silu_mul<L: SimdF32>(gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len());
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

/// `(1 + tanh(u)) / 2` is `1 / (1 + e^-2u)`, which loses no digits where tanh is near −1.
#[inline(always)]
pub(super) fn gelu_tanh_mul<L: SimdF32>(gate: &mut [f32], up: &[f32]) {
    const MINUS_2_ROOT_2_OVER_PI: f32 = -1.595_769;
    assert_eq!(gate.len(), up.len());
    for (gate, up) in gate.iter_mut().zip(up) {
        let x = *gate;
        let u = MINUS_2_ROOT_2_OVER_PI * (x * x * x).mul_add(0.044_715, x);
        *gate = x / (1.0 + exp(u)) * up;
    }
}

/// Hyperbolic tangent by Cephes' `tanhf`: a polynomial of `z²` below 0.625, and `1 - 2 / (e^2z + 1)` from there on.
#[inline(always)]
pub(super) fn softcap<L: SimdF32>(x: &mut [f32], cap: f32) {
    const C: [f32; 5] = [-5.704_988_7e-3, 2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1];
    for x in x.iter_mut() {
        let z = *x / cap;
        let mut p = C[0];
        for c in &C[1..] {
            p = p.mul_add(z * z, *c);
        }
        let small = (p * (z * z)).mul_add(z, z);
        let large = (1.0 - 2.0 / (exp(2.0 * z.abs()) + 1.0)).copysign(z);
        *x = cap * if z.abs() < 0.625 { small } else { large };
    }
}

#[inline(always)]
pub(super) fn relu2_mul<L: SimdF32>(gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len());
    for (gate, up) in gate.iter_mut().zip(up) {
        let relu = if *gate < 0.0 { 0.0 } else { *gate };
        *gate = relu * relu * up;
    }
}

#[inline(always)]
pub(super) fn add<L: SimdF32>(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

#[inline(always)]
pub(super) fn rotate<L: SimdF32>(a: &mut [f32], b: &mut [f32], cos: &[f32], sin: &[f32]) {
    let n = a.len();
    assert!(b.len() == n && cos.len() == n && sin.len() == n);
    for i in 0..n {
        let (x, y) = (a[i], b[i]);
        a[i] = x * cos[i] - y * sin[i];
        b[i] = y * cos[i] + x * sin[i];
    }
}

#[inline(always)]
pub(super) fn scale_sums<L: SimdF32>(sums: &[i32], q_sum: i32, factor: f32, out: &mut [f32]) {
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = (sum - q_sum) as f32 * factor;
    }
}

#[inline(always)]
pub(super) fn scale_rows<L: SimdF32>(sums: &[i32], q_sum: i32, scales: &[f32], s: f32, out: &mut [f32]) {
    for ((out, sum), scale) in out.iter_mut().zip(sums).zip(scales) {
        *out = (sum - q_sum) as f32 * (scale / s);
    }
}
