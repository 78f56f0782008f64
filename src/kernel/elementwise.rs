//! Float kernels that work element by element, and RMSNorm and softmax. They are written on plain arrays, which the
//! compiler turns into vectors of each instruction set.

use super::dot::dot_tile;
use super::f16::f16_to_f32_portable;
use super::lanes::{
    DOT_LANES, Dequantized, F16Bytes, F32x16, ROUNDING_MAGIC, SimdF32, VECTOR_LEN, round_to_i8, sum_by_halving,
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

/// `e^x` of 16 floats: Cody-Waite reduction and the degree-5 polynomial of Cephes' `expf`; 0 at or below -104.
#[inline(always)]
pub(super) fn exp(x: F32x16) -> F32x16 {
    const C: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let (mut n, mut r, mut y) = ([0f32; VECTOR_LEN], [0f32; VECTOR_LEN], [C[0]; VECTOR_LEN]);
    for l in 0..VECTOR_LEN {
        let x = if x[l] < -104.0 { -104.0 } else { x[l] };
        let x = if x > 89.0 { 89.0 } else { x };
        n[l] = x.mul_add(std::f32::consts::LOG2_E, ROUNDING_MAGIC) - ROUNDING_MAGIC;
        r[l] = n[l].mul_add(-0.693_359_4, x);
        r[l] = n[l].mul_add(2.121_944_4e-4, r[l]);
    }
    for c in &C[1..] {
        for l in 0..VECTOR_LEN {
            y[l] = y[l].mul_add(r[l], *c);
        }
    }
    let mut out = [0f32; VECTOR_LEN];
    for l in 0..VECTOR_LEN {
        let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
        let e = (y[l] * r[l]).mul_add(r[l], r[l]) + 1.0;
        // Two factors, since 2^n itself may lie outside the normal range.
        let n = (n[l] + ROUNDING_MAGIC).to_bits().wrapping_sub(ROUNDING_MAGIC.to_bits()) as i32;
        let e = e * power(n >> 1) * power(n - (n >> 1));
        out[l] = if x[l] <= -104.0 { 0.0 } else { e };
    }
    out
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
    for block in blocks {
        for (group, sum) in block.as_chunks_mut::<VECTOR_LEN>().0.iter_mut().zip(&mut sums) {
            *group = exp(group.map(|x| x - max));
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
    for (gate, up) in gate.chunks_mut(VECTOR_LEN).zip(up.chunks(VECTOR_LEN)) {
        let mut x = [0f32; VECTOR_LEN];
        x[..gate.len()].copy_from_slice(gate);
        let e = exp(x.map(|x| -x));
        for (l, (gate, up)) in gate.iter_mut().zip(up).enumerate() {
            *gate = x[l] / (1.0 + e[l]) * up;
        }
    }
}

/// `(1 + tanh(u)) / 2` is `1 / (1 + e^-2u)`, which loses no digits where tanh is near −1.
#[inline(always)]
pub(super) fn gelu_tanh_mul<L: SimdF32>(gate: &mut [f32], up: &[f32]) {
    const MINUS_2_ROOT_2_OVER_PI: f32 = -1.595_769;
    assert_eq!(gate.len(), up.len());
    for (gate, up) in gate.chunks_mut(VECTOR_LEN).zip(up.chunks(VECTOR_LEN)) {
        let mut x = [0f32; VECTOR_LEN];
        x[..gate.len()].copy_from_slice(gate);
        let mut u = [0f32; VECTOR_LEN];
        for l in 0..VECTOR_LEN {
            u[l] = MINUS_2_ROOT_2_OVER_PI * (x[l] * x[l] * x[l]).mul_add(0.044_715, x[l]);
        }
        let e = exp(u);
        for (l, (gate, up)) in gate.iter_mut().zip(up).enumerate() {
            *gate = x[l] / (1.0 + e[l]) * up;
        }
    }
}

/// Hyperbolic tangent by Cephes' `tanhf`: a polynomial of `z²` below 0.625, and `1 - 2 / (e^2z + 1)` from there on.
#[inline(always)]
pub(super) fn softcap<L: SimdF32>(x: &mut [f32], cap: f32) {
    const C: [f32; 5] = [-5.704_988_7e-3, 2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1];
    for x in x.chunks_mut(VECTOR_LEN) {
        let mut z = [0f32; VECTOR_LEN];
        z.iter_mut().zip(&*x).for_each(|(z, x)| *z = x / cap);
        let (e, mut p) = (exp(z.map(|z| 2.0 * z.abs())), [C[0]; VECTOR_LEN]);
        for c in &C[1..] {
            for l in 0..VECTOR_LEN {
                p[l] = p[l].mul_add(z[l] * z[l], *c);
            }
        }
        for (l, x) in x.iter_mut().enumerate() {
            let small = (p[l] * (z[l] * z[l])).mul_add(z[l], z[l]);
            let large = (1.0 - 2.0 / (e[l] + 1.0)).copysign(z[l]);
            *x = cap * if z[l].abs() < 0.625 { small } else { large };
        }
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
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
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
    out.iter_mut().zip(sums).for_each(|(out, sum)| *out = (sum - q_sum) as f32 * factor);
}

#[inline(always)]
pub(super) fn scale_rows<L: SimdF32>(sums: &[i32], q_sum: i32, scales: &[f32], s: f32, out: &mut [f32]) {
    let rows = out.iter_mut().zip(sums).zip(scales);
    rows.for_each(|((out, sum), scale)| *out = (sum - q_sum) as f32 * (scale / s));
}
