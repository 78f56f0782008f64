//! The float code, written once on fixed-size lane arrays and compiled per instruction set by [`stamp_floats`].
//!
//! The order of every sum is part of the numerical contract (`docs/numerics.md`): a dot along K keeps 64 lanes
//! (lane = k mod 64, ascending) and combines them by halving; attention keeps one key or one channel a lane and
//! sums in ascending order. Multiply-adds are fused, everywhere; Rust never contracts or reorders what is written.

#![expect(clippy::needless_range_loop, reason = "groups, tokens and lanes index several arrays at once")]

/// Floats in one step of the vectorised loops.
const STEP: usize = 16;
/// Partial sums of a dot product along K.
const LANES: usize = 64;
/// Keys in one page of the key/value cache, and in one block of the attention's walk.
pub const PAGE: usize = 64;

use super::coarse::COARSE_STEP;
pub(super) use super::coarse::{coarsen, dot_i8};

type Lane = [f32; STEP];
/// An IEEE binary16 as its little-endian bytes.
pub type F16Bytes = [u8; 2];
/// An IEEE binary32 as its little-endian bytes.
pub type F32Bytes = [u8; 4];

/// What an instruction set does in its own way.
pub(super) trait Lanes {
    /// Rows of x that share one pass over a row of weights, by the number of vector registers.
    const TOKENS: usize;
    /// 16 floats in registers, for the inner loops that the compiler does not vectorise reliably.
    type V: Copy;
    /// Sixteen times the same.
    ///
    /// # Safety
    /// Here and below: the processor has the instruction set that the implementor stands for.
    unsafe fn splat(x: f32) -> Self::V;
    /// From memory.
    unsafe fn load(x: &Lane) -> Self::V;
    /// To memory.
    unsafe fn store(v: Self::V, out: &mut Lane);
    /// `a · b + c` with one rounding.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Widens 16 halves, exactly.
    unsafe fn widen_f16(h: &[F16Bytes; STEP]) -> Self::V;
    /// 32 weights of 16 bits in registers, and the sums of their products.
    type W: Copy;
    /// Sums of products; see `W`.
    type I: Copy;
    /// No sum yet.
    unsafe fn zero() -> Self::I;
    /// Widens 32 weights.
    unsafe fn widen_i8(w: &[i8; COARSE_STEP]) -> Self::W;
    /// Adds 32 products.
    unsafe fn madd(sums: Self::I, w: Self::W, x: &[i16; COARSE_STEP]) -> Self::I;
    /// Adds the sums.
    unsafe fn sum(sums: Self::I) -> i32;
}

/// A stored element that widens to f32, exactly.
pub(super) trait Stored {
    /// Its bytes in memory.
    type Bytes: Copy;
    /// Widens 16 of them.
    ///
    /// # Safety
    /// That of [`Lanes`].
    unsafe fn widen<L: Lanes>(x: &[Self::Bytes; STEP]) -> L::V;
}

/// IEEE binary16 in memory.
pub(super) struct F16;
/// The upper half of a binary32, in memory.
pub(super) struct Bf16;
/// IEEE binary32 in memory.
pub(super) struct F32;
/// A row that was widened before.
pub(super) struct Widened;

impl Stored for F16 {
    type Bytes = F16Bytes;
    #[inline(always)]
    unsafe fn widen<L: Lanes>(x: &[F16Bytes; STEP]) -> L::V {
        // SAFETY: the caller's promise.
        unsafe { L::widen_f16(x) }
    }
}
impl Stored for Bf16 {
    type Bytes = F16Bytes;
    #[inline(always)]
    unsafe fn widen<L: Lanes>(x: &[F16Bytes; STEP]) -> L::V {
        // SAFETY: the caller's promise.
        unsafe { L::load(&x.map(|b| f32::from_bits((u16::from_le_bytes(b) as u32) << 16))) }
    }
}
impl Stored for F32 {
    type Bytes = F32Bytes;
    #[inline(always)]
    unsafe fn widen<L: Lanes>(x: &[F32Bytes; STEP]) -> L::V {
        // SAFETY: the caller's promise.
        unsafe { L::load(&x.map(f32::from_le_bytes)) }
    }
}
impl Stored for Widened {
    type Bytes = f32;
    #[inline(always)]
    unsafe fn widen<L: Lanes>(x: &Lane) -> L::V {
        // SAFETY: the caller's promise.
        unsafe { L::load(x) }
    }
}

/// The list of float kernels; `$then!` receives `[extra…]` and the signatures.
macro_rules! with_float_kernels {
    ($then:ident $($extra:tt)*) => {
        $then! {
            [$($extra)*]
            /// `out = x / sqrt(mean(x²) + eps) · gamma`, normalised first, as transformers does.
            fn rms_norm(x: &[f32], gamma: &[f32], eps: f32, out: &mut [f32]);
            /// Per-token absmax int8 (BitNet b1.58, arXiv 2402.17764): `s = 127 / max(|x|max, 1e-5)`,
            /// `q = round_half_even(x·s)`; fills `q` up with zeros; returns `(s, sum of q)`.
            fn quantize(x: &[f32], q: &mut [i8]) -> (f32, i32);
            /// Dot of one row, stored as f16, with each of `xs`.
            fn dot_f16(row: &[F16Bytes], xs: &[&[f32]], out: &mut [f32]);
            /// Dot of one row, stored as bf16, with each of `xs`.
            fn dot_bf16(row: &[F16Bytes], xs: &[&[f32]], out: &mut [f32]);
            /// Dot of one row, stored as f32, with each of `xs`.
            fn dot_f32(row: &[F32Bytes], xs: &[&[f32]], out: &mut [f32]);
            /// Dot of one row, widened before, with each of `xs`.
            fn dot_widened(row: &[f32], xs: &[&[f32]], out: &mut [f32]);
            /// `out[v][key] = q[v] · k[key]` for a page of keys stored `[channel][key]`; `out` has `stride` a vector.
            fn scores_f16(q: &[f32], keys: &[F16Bytes], out: &mut [f32], stride: usize);
            /// As `scores_f16`, of a page stored as f32.
            fn scores_f32(q: &[f32], keys: &[F32Bytes], out: &mut [f32], stride: usize);
            /// `acc[v] += Σ p[v][key] · value[key]` over the first `n` keys of a page stored `[key][channel]`;
            /// `p` has `stride` a vector, `acc` and the values a multiple of 16 channels.
            fn mix_f16(p: &[f32], stride: usize, n: usize, values: &[F16Bytes], acc: &mut [f32], channels: usize);
            /// As `mix_f16`, of a page stored as f32.
            fn mix_f32(p: &[f32], stride: usize, n: usize, values: &[F32Bytes], acc: &mut [f32], channels: usize);
            /// `s = exp(s·scale - max)` over the first `n`, zero after them; returns the sum. Whole pages.
            fn softmax(s: &mut [f32], n: usize, scale: f32) -> f32;
            /// Halves as floats.
            fn widen_f16(row: &[F16Bytes], out: &mut [f32]);
            /// `gate = silu(gate) · up`.
            fn silu_mul(gate: &mut [f32], up: &[f32]);
            /// A row in 8 bits, `step · q`; returns `step` and upper bounds of `|row|` and of `|row - step · q|`, Euclidean
            /// norms, which are infinite if a value is not finite. Fills `q` up with zeros. Rows of at most 2^17 columns.
            fn coarsen(row: &[f32], q: &mut [i8]) -> (f32, f32, f32);
            /// Exact dot of one 8-bit row with each of `xs`, if no sum of magnitudes leaves i32; whole steps of 32 columns.
            fn dot_i8(row: &[i8], xs: &[&[i16]], out: &mut [i32]);
        }
    };
}
pub(super) use with_float_kernels;

/// `FLOATS`, the table entries of one instruction set: this file compiled with its target features.
macro_rules! stamp_floats {
    ([$lanes:ident] $($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?;)*) => {
        const FLOATS: $crate::kernel::FloatKernels = $crate::kernel::FloatKernels {
            $($name: $crate::kernel::float::$name::<$lanes>,)*
        };
    };
    ([$lanes:ident $features:literal]
        $($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?;)*) => {
        mod floats {
            use super::$lanes;
            use $crate::kernel::float::{self, F16Bytes, F32Bytes};
            $(
                #[target_feature(enable = $features)]
                pub fn $name($($arg: $ty),*) $(-> $ret)? {
                    float::$name::<$lanes>($($arg),*)
                }
            )*
        }
        const FLOATS: $crate::kernel::FloatKernels =
            $crate::kernel::FloatKernels { $($name: floats::$name,)* };
    };
}
pub(super) use stamp_floats;

/// Adds 64 partial sums by halving: lane l takes lane l + n/2, until one is left.
#[inline(always)]
fn halve(lanes: [Lane; LANES / STEP]) -> f32 {
    let mut sums = [0f32; LANES];
    for (sum, lane) in sums.as_chunks_mut::<STEP>().0.iter_mut().zip(&lanes) {
        *sum = *lane;
    }
    let mut n = LANES / 2;
    while n > 0 {
        for l in 0..n {
            sums[l] += sums[l + n];
        }
        n /= 2;
    }
    sums[0]
}

#[inline(always)]
fn dot_tile<L: Lanes, S: Stored, const N: usize>(row: &[S::Bytes], xs: [&[f32]; N]) -> [f32; N] {
    const GROUPS: usize = LANES / STEP;
    let (blocks, tail) = row.as_chunks::<LANES>();
    let x_blocks = xs.map(|x| &x.as_chunks::<LANES>().0[..blocks.len()]);
    let mut sums = [[[0f32; STEP]; GROUPS]; N];
    // SAFETY: `L` is the instruction set that this copy of the code is compiled for, which `stamp_floats` alone
    // decides, and `Kernels` runs it only where the processor has it.
    unsafe {
        let mut acc = [[L::splat(0.0); GROUPS]; N];
        for (b, block) in blocks.iter().enumerate() {
            for g in 0..GROUPS {
                let w = S::widen::<L>(&block.as_chunks().0[g]);
                for t in 0..N {
                    acc[t][g] = L::fma(w, L::load(&x_blocks[t][b].as_chunks().0[g]), acc[t][g]);
                }
            }
        }
        for t in 0..N {
            for g in 0..GROUPS {
                L::store(acc[t][g], &mut sums[t][g]);
            }
        }
    }
    if let Some(first) = tail.first() {
        let mut padded = [*first; LANES];
        padded[..tail.len()].copy_from_slice(tail);
        let mut w = [[0f32; STEP]; GROUPS];
        for (w, group) in w.iter_mut().zip(padded.as_chunks().0) {
            // SAFETY: as above.
            unsafe { L::store(S::widen::<L>(group), w) };
        }
        for (sums, x) in sums.iter_mut().zip(xs) {
            let lanes = sums.as_flattened_mut().iter_mut().zip(w.as_flattened());
            for ((sum, w), x) in lanes.zip(&x[blocks.len() * LANES..]) {
                *sum = w.mul_add(*x, *sum);
            }
        }
    }
    sums.map(halve)
}

#[inline(always)]
fn dot<L: Lanes, S: Stored>(row: &[S::Bytes], xs: &[&[f32]], out: &mut [f32]) {
    assert!(xs.len() == out.len() && xs.iter().all(|x| x.len() == row.len()));
    let mut t = 0;
    if L::TOKENS == 4 {
        while t + 4 <= xs.len() {
            let tile = dot_tile::<L, S, 4>(row, [xs[t], xs[t + 1], xs[t + 2], xs[t + 3]]);
            out[t..t + 4].copy_from_slice(&tile);
            t += 4;
        }
    }
    for t in t..xs.len() {
        out[t] = dot_tile::<L, S, 1>(row, [xs[t]])[0];
    }
}

#[inline(always)]
pub(super) fn dot_f16<L: Lanes>(row: &[F16Bytes], xs: &[&[f32]], out: &mut [f32]) {
    dot::<L, F16>(row, xs, out)
}
#[inline(always)]
pub(super) fn dot_bf16<L: Lanes>(row: &[F16Bytes], xs: &[&[f32]], out: &mut [f32]) {
    dot::<L, Bf16>(row, xs, out)
}
#[inline(always)]
pub(super) fn dot_f32<L: Lanes>(row: &[F32Bytes], xs: &[&[f32]], out: &mut [f32]) {
    dot::<L, F32>(row, xs, out)
}
#[inline(always)]
pub(super) fn dot_widened<L: Lanes>(row: &[f32], xs: &[&[f32]], out: &mut [f32]) {
    dot::<L, Widened>(row, xs, out)
}

#[inline(always)]
pub(super) fn widen_f16<L: Lanes>(row: &[F16Bytes], out: &mut [f32]) {
    assert_eq!(row.len(), out.len());
    let ((rows, tail), (outs, rest)) = (row.as_chunks::<STEP>(), out.as_chunks_mut::<STEP>());
    for (row, out) in rows.iter().zip(outs) {
        // SAFETY: as in `dot_tile`.
        unsafe { L::store(L::widen_f16(row), out) };
    }
    let mut padded = [[0; 2]; STEP];
    padded[..tail.len()].copy_from_slice(tail);
    rest.copy_from_slice(&widen_f16_plain(&padded)[..tail.len()]);
}

#[inline(always)]
pub(super) fn rms_norm<L: Lanes>(x: &[f32], gamma: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == gamma.len() && x.len() == out.len());
    let squares = dot_tile::<L, Widened, 1>(x, [x])[0];
    let r = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    for ((out, x), gamma) in out.iter_mut().zip(x).zip(gamma) {
        *out = x * r * gamma;
    }
}

/// Adding 1.5·2²³ rounds a float of magnitude below 2²² to an integer, half to even, in its low bits.
pub(super) const ROUND: f32 = 12_582_912.0;

#[inline(always)]
pub(super) fn quantize<L: Lanes>(x: &[f32], q: &mut [i8]) -> (f32, i32) {
    assert!(x.len() <= q.len());
    // Magnitudes are ordered as their bits are, and NaN is the largest: it makes `s` NaN, and so every output.
    let mut max = [0u32; STEP];
    let (blocks, tail) = x.as_chunks::<STEP>();
    for block in blocks {
        for l in 0..STEP {
            max[l] = max[l].max(block[l].abs().to_bits());
        }
    }
    let least = 1e-5f32.to_bits();
    let amax = tail.iter().map(|x| x.abs().to_bits()).chain(max).fold(least, u32::max);
    let s = 127.0 / f32::from_bits(amax);
    let mut sum = 0i32;
    for (q, x) in q.iter_mut().zip(x) {
        let rounded = (x * s + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i8;
        *q = rounded;
        sum += rounded as i32;
    }
    q[x.len()..].fill(0);
    (s, sum)
}

#[inline(always)]
fn scores_tile<L: Lanes, S: Stored, const N: usize>(
    q: &[f32],
    keys: &[[S::Bytes; PAGE]],
    out: &mut [f32],
    stride: usize,
) {
    let channels = keys.len();
    let q: [&[f32]; N] = std::array::from_fn(|v| &q[v * channels..][..channels]);
    for part in 0..PAGE / STEP {
        // SAFETY: as in `dot_tile`.
        unsafe {
            let mut acc = [L::splat(0.0); N];
            for (d, channel) in keys.iter().enumerate() {
                let k = S::widen::<L>(&channel.as_chunks().0[part]);
                for v in 0..N {
                    acc[v] = L::fma(L::splat(q[v][d]), k, acc[v]);
                }
            }
            for v in 0..N {
                L::store(acc[v], &mut out[v * stride..v * stride + PAGE].as_chunks_mut().0[part]);
            }
        }
    }
}

#[inline(always)]
fn scores<L: Lanes, S: Stored>(q: &[f32], keys: &[S::Bytes], out: &mut [f32], stride: usize) {
    let keys = keys.as_chunks::<PAGE>().0;
    let channels = keys.len();
    let n = q.len() / channels;
    let mut v = 0;
    while v + 4 <= n {
        scores_tile::<L, S, 4>(&q[v * channels..], keys, &mut out[v * stride..], stride);
        v += 4;
    }
    while v < n {
        scores_tile::<L, S, 1>(&q[v * channels..], keys, &mut out[v * stride..], stride);
        v += 1;
    }
}

#[inline(always)]
pub(super) fn scores_f16<L: Lanes>(q: &[f32], keys: &[F16Bytes], out: &mut [f32], stride: usize) {
    scores::<L, F16>(q, keys, out, stride)
}
#[inline(always)]
pub(super) fn scores_f32<L: Lanes>(q: &[f32], keys: &[F32Bytes], out: &mut [f32], stride: usize) {
    scores::<L, F32>(q, keys, out, stride)
}

#[inline(always)]
fn mix_tile<L: Lanes, S: Stored, const N: usize>(
    p: &[f32],
    stride: usize,
    n: usize,
    values: &[S::Bytes],
    acc: &mut [f32],
    channels: usize,
) {
    let p: [&[f32]; N] = std::array::from_fn(|v| &p[v * stride..][..n]);
    for c in (0..channels).step_by(STEP) {
        // SAFETY: as in `dot_tile`.
        unsafe {
            let mut sums = [L::splat(0.0); N];
            for v in 0..N {
                sums[v] = L::load(acc[v * channels + c..].first_chunk().expect("whole steps of channels"));
            }
            for key in 0..n {
                let value = S::widen::<L>(values[key * channels + c..].first_chunk().expect("a whole page"));
                for v in 0..N {
                    sums[v] = L::fma(L::splat(p[v][key]), value, sums[v]);
                }
            }
            for v in 0..N {
                let out = acc[v * channels + c..].first_chunk_mut().expect("whole steps of channels");
                L::store(sums[v], out);
            }
        }
    }
}

#[inline(always)]
fn mix<L: Lanes, S: Stored>(
    p: &[f32],
    stride: usize,
    n: usize,
    values: &[S::Bytes],
    acc: &mut [f32],
    channels: usize,
) {
    let vectors = acc.len() / channels;
    let mut v = 0;
    while v + 4 <= vectors {
        mix_tile::<L, S, 4>(&p[v * stride..], stride, n, values, &mut acc[v * channels..], channels);
        v += 4;
    }
    while v < vectors {
        mix_tile::<L, S, 1>(&p[v * stride..], stride, n, values, &mut acc[v * channels..], channels);
        v += 1;
    }
}

#[inline(always)]
pub(super) fn mix_f16<L: Lanes>(
    p: &[f32],
    stride: usize,
    n: usize,
    values: &[F16Bytes],
    acc: &mut [f32],
    channels: usize,
) {
    mix::<L, F16>(p, stride, n, values, acc, channels)
}
#[inline(always)]
pub(super) fn mix_f32<L: Lanes>(
    p: &[f32],
    stride: usize,
    n: usize,
    values: &[F32Bytes],
    acc: &mut [f32],
    channels: usize,
) {
    mix::<L, F32>(p, stride, n, values, acc, channels)
}

/// `e^x` of 16 lanes: Cody-Waite reduction and the degree-5 polynomial of Cephes' `expf`; 0 below -104.
#[inline(always)]
fn exp(x: Lane) -> Lane {
    const C: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let (mut n, mut r, mut y) = ([0f32; STEP], [0f32; STEP], [C[0]; STEP]);
    for l in 0..STEP {
        let x = if x[l] < -104.0 { -104.0 } else { x[l] };
        let x = if x > 89.0 { 89.0 } else { x };
        n[l] = x.mul_add(std::f32::consts::LOG2_E, ROUND) - ROUND;
        r[l] = n[l].mul_add(-0.693_359_4, x);
        r[l] = n[l].mul_add(2.121_944_4e-4, r[l]);
    }
    for c in &C[1..] {
        for l in 0..STEP {
            y[l] = y[l].mul_add(r[l], *c);
        }
    }
    let mut out = [0f32; STEP];
    for l in 0..STEP {
        let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
        let e = (y[l] * r[l]).mul_add(r[l], r[l]) + 1.0;
        // Two factors, since 2^n itself may lie outside the normal range.
        let n = (n[l] + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
        let e = e * power(n >> 1) * power(n - (n >> 1));
        out[l] = if x[l] <= -104.0 { 0.0 } else { e };
    }
    out
}

#[inline(always)]
pub(super) fn softmax<L: Lanes>(s: &mut [f32], n: usize, scale: f32) -> f32 {
    s[n..].fill(f32::NEG_INFINITY);
    let blocks = s.as_chunks_mut::<LANES>().0;
    let mut max = [f32::NEG_INFINITY; LANES];
    for block in blocks.iter_mut() {
        for l in 0..LANES {
            block[l] *= scale;
            max[l] = if block[l] > max[l] { block[l] } else { max[l] };
        }
    }
    let max = max.into_iter().fold(f32::NEG_INFINITY, |m, x| if x > m { x } else { m });
    let mut sums = [[0f32; STEP]; LANES / STEP];
    for block in blocks {
        for (group, sum) in block.as_chunks_mut::<STEP>().0.iter_mut().zip(&mut sums) {
            *group = exp(group.map(|x| x - max));
            for l in 0..STEP {
                sum[l] += group[l];
            }
        }
    }
    halve(sums)
}

#[inline(always)]
pub(super) fn silu_mul<L: Lanes>(gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len());
    for (gate, up) in gate.chunks_mut(STEP).zip(up.chunks(STEP)) {
        let mut x = [0f32; STEP];
        x[..gate.len()].copy_from_slice(gate);
        let e = exp(x.map(|x| -x));
        for (l, (gate, up)) in gate.iter_mut().zip(up).enumerate() {
            *gate = x[l] / (1.0 + e[l]) * up;
        }
    }
}

/// Rounds to the nearest half, ties to even.
pub fn to_f16(x: f32) -> F16Bytes {
    let bits = x.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    let half = if magnitude > 0x7f80_0000 {
        0x7e00
    } else if magnitude >= 0x477f_f000 {
        0x7c00 // rounds to 2^16 or more
    } else if magnitude < 0x3880_0000 {
        // Subnormal: adding 0.5 puts the unit in the last place of a half, 2^-24, at the last bit of the sum.
        ((f32::from_bits(magnitude) + 0.5).to_bits() - 0x3f00_0000) as u16
    } else {
        ((magnitude - 0x3800_0000 + 0xfff + (magnitude >> 13 & 1)) >> 13) as u16
    };
    (sign | half).to_le_bytes()
}

/// Widens 16 halves without instructions for it: the exponent is moved by an exact multiplication.
#[inline(always)]
pub fn widen_f16_plain(h: &[F16Bytes; STEP]) -> Lane {
    let mut out = [0f32; STEP];
    for l in 0..STEP {
        let h = u16::from_le_bytes(h[l]) as u32;
        let scaled = f32::from_bits((h & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
        let special = if h & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
        out[l] = f32::from_bits(scaled.to_bits() | special | (h & 0x8000) << 16);
    }
    out
}
