//! The float code, written once on fixed-size lane arrays and compiled per instruction set by [`stamp_floats`].
//!
//! The order of every sum is part of the numerical contract (`docs/numerics.md`): a dot along K keeps 64 lanes
//! (lane = k mod 64, ascending) and combines them by halving; attention keeps one key or one channel a lane and
//! sums in ascending order. Multiply-adds are fused, everywhere; Rust never contracts or reorders what is written.

#![expect(clippy::needless_range_loop, reason = "groups, tokens and lanes index several arrays at once")]

/// Floats in one step of the vectorised loops.
pub(super) const STEP: usize = 16;
/// Partial sums of a dot product along K.
pub(super) const LANES: usize = 64;
/// Keys in one page of the key/value cache, and in one block of the attention's walk.
pub const PAGE: usize = 64;

pub(super) use super::elementwise::{
    add, f16_to_f32, quantize, relu2_mul, rms_norm, rotate, scale_rows, scale_sums, silu_mul, softmax,
};
use super::quantized_head::HEAD_STEP;
pub(super) use super::quantized_head::{dot_i8, logit_bounds, quantize_row};
use std::ops::Range;

pub(super) type Lane = [f32; STEP];
/// An IEEE binary16 as its little-endian bytes.
pub type F16Bytes = [u8; 2];
/// An IEEE binary32 as its little-endian bytes.
pub type F32Bytes = [u8; 4];

/// What an instruction set does in its own way.
pub(super) trait Lanes {
    /// Whether there are 32 registers of 16 floats, enough for sixteen sums at once; else four are.
    const MANY: bool;
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
    unsafe fn f16_to_f32(h: &[F16Bytes; STEP]) -> Self::V;
    /// 32 weights of 16 bits in registers, and the sums of their products.
    type W: Copy;
    /// Sums of products; see `W`.
    type I: Copy;
    /// No sum yet.
    unsafe fn zero() -> Self::I;
    /// Widens 32 weights.
    unsafe fn i8_to_i16(w: &[i8; HEAD_STEP]) -> Self::W;
    /// Adds 32 products.
    unsafe fn madd(sums: Self::I, w: Self::W, x: &[i16; HEAD_STEP]) -> Self::I;
    /// Adds the sums.
    unsafe fn sum(sums: Self::I) -> i32;
}

/// Asks for a cache line, which may lie anywhere.
#[inline(always)]
pub(super) fn prefetch<T>(at: *const T) {
    // SAFETY: a hint, which never faults; SSE is part of every x86-64.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast())
    };
    // SAFETY: the same.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) at, options(nostack, readonly))
    };
}

/// What lies 4 KiB further on in a stream, about as much as memory delivers before it answers. A stream that is read more
/// slowly than that, or across pages, is not seen coming by the processor alone.
#[inline(always)]
pub(super) fn ahead<T>(at: &T) -> *const T {
    (&raw const *at).wrapping_byte_add(4096)
}

/// A stored element that widens to f32, exactly.
pub(super) trait Stored {
    /// Its bytes in memory.
    type Bytes: Copy;
    /// Widens 16 of them.
    ///
    /// # Safety
    /// That of [`Lanes`].
    unsafe fn to_f32<L: Lanes>(x: &[Self::Bytes; STEP]) -> L::V;
}

/// IEEE binary16 in memory.
pub(super) struct F16;
/// The upper half of a binary32, in memory.
pub(super) struct Bf16;
/// IEEE binary32 in memory.
pub(super) struct F32;
/// A row that was widened before.
pub(super) struct Floats;

impl Stored for F16 {
    type Bytes = F16Bytes;
    #[inline(always)]
    unsafe fn to_f32<L: Lanes>(x: &[F16Bytes; STEP]) -> L::V {
        // SAFETY: the caller's promise.
        unsafe { L::f16_to_f32(x) }
    }
}
impl Stored for Bf16 {
    type Bytes = F16Bytes;
    #[inline(always)]
    unsafe fn to_f32<L: Lanes>(x: &[F16Bytes; STEP]) -> L::V {
        // SAFETY: the caller's promise.
        unsafe { L::load(&x.map(|b| f32::from_bits((u16::from_le_bytes(b) as u32) << 16))) }
    }
}
impl Stored for F32 {
    type Bytes = F32Bytes;
    #[inline(always)]
    unsafe fn to_f32<L: Lanes>(x: &[F32Bytes; STEP]) -> L::V {
        // SAFETY: the caller's promise.
        unsafe { L::load(&x.map(f32::from_le_bytes)) }
    }
}
impl Stored for Floats {
    type Bytes = f32;
    #[inline(always)]
    unsafe fn to_f32<L: Lanes>(x: &Lane) -> L::V {
        // SAFETY: the caller's promise.
        unsafe { L::load(x) }
    }
}

/// The list of float kernels; `$then!` receives `[extra…]` and the signatures.
macro_rules! with_float_kernels {
    ($then:ident $($extra:tt)*) => {
        $then! {
            [$($extra)*]
            /// `x = x / sqrt(mean(x²) + eps) · gamma` (RMSNorm, arXiv 1910.07467), normalised first, as transformers does.
            fn rms_norm(x: &mut [f32], gamma: &[f32], eps: f32);
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
            fn dot_floats(row: &[f32], xs: &[&[f32]], out: &mut [f32]);
            /// `out[v][key] = q[v] · k[key]` for a page of keys stored `[channel][key]`; `out` has `stride` a vector. `next`
            /// is the page after it, which is asked for.
            fn scores_f16(q: &[f32], keys: &[F16Bytes], next: &[F16Bytes], out: &mut [f32], stride: usize);
            /// As `scores_f16`, of a page stored as f32.
            fn scores_f32(q: &[f32], keys: &[F32Bytes], next: &[F32Bytes], out: &mut [f32], stride: usize);
            /// `acc[v] += Σ p[v][key] · value[key]` over some keys of a page stored `[key][channel]`, ascending; `p` has
            /// `stride` a vector, `acc` and the values a multiple of 16 channels.
            fn mix_f16(
                p: &[f32], stride: usize, keys: Range<usize>, values: &[F16Bytes], next: &[F16Bytes], acc: &mut [f32],
                channels: usize,
            );
            /// As `mix_f16`, of a page stored as f32.
            fn mix_f32(
                p: &[f32], stride: usize, keys: Range<usize>, values: &[F32Bytes], next: &[F32Bytes], acc: &mut [f32],
                channels: usize,
            );
            /// `s = exp(s·scale - max)` over the first `n`, zero after them; returns the sum. Whole pages.
            fn softmax(s: &mut [f32], n: usize, scale: f32) -> f32;
            /// Halves as floats.
            fn f16_to_f32(row: &[F16Bytes], out: &mut [f32]);
            /// `gate = silu(gate) · up`.
            fn silu_mul(gate: &mut [f32], up: &[f32]);
            /// `gate = max(gate, 0)² · up`, the activation of BitNet b1.58 2B-4T.
            fn relu2_mul(gate: &mut [f32], up: &[f32]);
            /// `x += y`.
            fn add(x: &mut [f32], y: &[f32]);
            /// `(a, b) = (a·cos − b·sin, b·cos + a·sin)`.
            fn rotate(a: &mut [f32], b: &mut [f32], cos: &[f32], sin: &[f32]);
            /// `out = float(sum − less) · factor`.
            fn scale_sums(sums: &[i32], less: i32, factor: f32, out: &mut [f32]);
            /// `out = float(sum − less) · (scale / s)`.
            fn scale_rows(sums: &[i32], less: i32, scales: &[f32], s: f32, out: &mut [f32]);
            /// A row in 8 bits, `step · q`; returns `step` and upper bounds of `|row|` and of `|row - step · q|`, Euclidean
            /// norms, which are infinite if a value is not finite. Fills `q` up with zeros. Rows of at most 2^17 columns.
            fn quantize_row(row: &[f32], q: &mut [i8]) -> (f32, f32, f32);
            /// Exact dot of one 8-bit row with each of `xs`, if no sum of magnitudes leaves i32; whole steps of 32 columns.
            fn dot_i8(row: &[i8], xs: &[&[i16]], out: &mut [i32]);
            /// Bounds of the logits of some rows, from their `dot_i8` with a token and their steps, norms and errors.
            fn logit_bounds(dots: &[i32], rows: [&[f32]; 3], x: QuantizedToken, low: &mut [f32], high: &mut [f32]);
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
            use std::ops::Range;
            use $crate::kernel::quantized_head::QuantizedToken;
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

/// An array of slices. `array::from_fn` and `map` would be calls, since they lack the target features of their callers.
#[inline(always)]
pub(super) fn slices<'a, T, const N: usize>(of: impl Fn(usize) -> &'a [T]) -> [&'a [T]; N] {
    let mut all: [&[T]; N] = [&[]; N];
    for (i, slice) in all.iter_mut().enumerate() {
        *slice = of(i);
    }
    all
}

/// Adds 64 partial sums by halving: lane l takes lane l + n/2, until one is left.
#[inline(always)]
pub(super) fn halve(lanes: [Lane; LANES / STEP]) -> f32 {
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
pub(super) fn dot_tile<L: Lanes, S: Stored, const N: usize>(row: &[S::Bytes], xs: [&[f32]; N]) -> [f32; N] {
    const GROUPS: usize = LANES / STEP;
    let (blocks, tail) = row.as_chunks::<LANES>();
    let x_blocks: [&[[f32; LANES]]; N] = slices(|t| &xs[t].as_chunks::<LANES>().0[..blocks.len()]);
    let mut sums = [[[0f32; STEP]; GROUPS]; N];
    // SAFETY: `L` is the instruction set that this copy of the code is compiled for, which `stamp_floats` alone
    // decides, and `Kernels` runs it only where the processor has it.
    unsafe {
        let mut acc = [[L::splat(0.0); GROUPS]; N];
        for (b, block) in blocks.iter().enumerate() {
            prefetch(ahead(block));
            for g in 0..GROUPS {
                let w = S::to_f32::<L>(&block.as_chunks().0[g]);
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
            unsafe { L::store(S::to_f32::<L>(group), w) };
        }
        for (sums, x) in sums.iter_mut().zip(xs) {
            let lanes = sums.as_flattened_mut().iter_mut().zip(w.as_flattened());
            for ((sum, w), x) in lanes.zip(&x[blocks.len() * LANES..]) {
                *sum = w.mul_add(*x, *sum);
            }
        }
    }
    let mut dots = [0f32; N];
    for (dot, sums) in dots.iter_mut().zip(sums) {
        *dot = halve(sums);
    }
    dots
}

#[inline(always)]
fn dot<L: Lanes, S: Stored>(row: &[S::Bytes], xs: &[&[f32]], out: &mut [f32]) {
    assert!(xs.len() == out.len() && xs.iter().all(|x| x.len() == row.len()));
    let mut t = 0;
    if L::MANY {
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
pub(super) fn dot_floats<L: Lanes>(row: &[f32], xs: &[&[f32]], out: &mut [f32]) {
    dot::<L, Floats>(row, xs, out)
}

/// `N` vectors against `P` parts of a page's keys.
#[inline(always)]
fn scores_tile<L: Lanes, S: Stored, const N: usize, const P: usize>(
    q: &[f32],
    keys: &[[S::Bytes; PAGE]],
    next: &[[S::Bytes; PAGE]],
    out: &mut [f32],
    stride: usize,
) {
    let channels = keys.len();
    let q: [&[f32]; N] = slices(|v| &q[v * channels..][..channels]);
    for parts in 0..PAGE / STEP / P {
        // SAFETY: as in `dot_tile`.
        unsafe {
            let mut acc = [[L::splat(0.0); P]; N];
            for (d, channel) in keys.iter().enumerate() {
                let mut k = [L::splat(0.0); P];
                for p in 0..P {
                    // Every second line of f16 twice, which costs little.
                    prefetch(&raw const next[d][(parts * P + p) * STEP]);
                    k[p] = S::to_f32::<L>(&channel.as_chunks().0[parts * P + p]);
                }
                for v in 0..N {
                    let q = L::splat(q[v][d]);
                    for p in 0..P {
                        acc[v][p] = L::fma(q, k[p], acc[v][p]);
                    }
                }
            }
            for v in 0..N {
                let out = out[v * stride..v * stride + PAGE].as_chunks_mut().0;
                for p in 0..P {
                    L::store(acc[v][p], &mut out[parts * P + p]);
                }
            }
        }
    }
}

#[inline(always)]
fn scores<L: Lanes, S: Stored>(q: &[f32], keys: &[S::Bytes], next: &[S::Bytes], out: &mut [f32], stride: usize) {
    let (keys, next) = (keys.as_chunks::<PAGE>().0, next.as_chunks::<PAGE>().0);
    assert_eq!(keys.len(), next.len());
    let channels = keys.len();
    let n = q.len() / channels;
    let mut v = 0;
    while L::MANY && v + 8 <= n {
        scores_tile::<L, S, 8, 2>(&q[v * channels..], keys, next, &mut out[v * stride..], stride);
        v += 8;
    }
    while v + 4 <= n {
        if L::MANY {
            scores_tile::<L, S, 4, 4>(&q[v * channels..], keys, next, &mut out[v * stride..], stride);
        } else {
            scores_tile::<L, S, 4, 1>(&q[v * channels..], keys, next, &mut out[v * stride..], stride);
        }
        v += 4;
    }
    while v < n {
        scores_tile::<L, S, 1, 4>(&q[v * channels..], keys, next, &mut out[v * stride..], stride);
        v += 1;
    }
}

#[inline(always)]
pub(super) fn scores_f16<L: Lanes>(q: &[f32], keys: &[F16Bytes], next: &[F16Bytes], out: &mut [f32], stride: usize) {
    scores::<L, F16>(q, keys, next, out, stride)
}
#[inline(always)]
pub(super) fn scores_f32<L: Lanes>(q: &[f32], keys: &[F32Bytes], next: &[F32Bytes], out: &mut [f32], stride: usize) {
    scores::<L, F32>(q, keys, next, out, stride)
}

/// `N` vectors of weights against `P` steps of channels, from channel `c` on.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn mix_tile<L: Lanes, S: Stored, const N: usize, const P: usize>(
    p: &[f32],
    stride: usize,
    keys: Range<usize>,
    values: &[S::Bytes],
    next: &[S::Bytes],
    acc: &mut [f32],
    channels: usize,
    c: usize,
) {
    let p: [&[f32]; N] = slices(|v| &p[v * stride..][..keys.end]);
    let steps = "whole steps of channels";
    // SAFETY: as in `dot_tile`.
    unsafe {
        let mut sums = [[L::splat(0.0); P]; N];
        for v in 0..N {
            for s in 0..P {
                sums[v][s] = L::load(acc[v * channels + c + s * STEP..].first_chunk().expect(steps));
            }
        }
        for key in keys {
            let mut value = [L::splat(0.0); P];
            for s in 0..P {
                let at = key * channels + c + s * STEP;
                prefetch(&raw const next[at]);
                let stored = values[at..].first_chunk().expect("a whole page");
                value[s] = S::to_f32::<L>(stored);
            }
            for v in 0..N {
                let weight = L::splat(p[v][key]);
                for s in 0..P {
                    sums[v][s] = L::fma(weight, value[s], sums[v][s]);
                }
            }
        }
        for v in 0..N {
            for s in 0..P {
                let out = acc[v * channels + c + s * STEP..].first_chunk_mut().expect(steps);
                L::store(sums[v][s], out);
            }
        }
    }
}

/// All channels for `N` vectors, `P` steps at a time.
#[inline(always)]
fn mix_vectors<L: Lanes, S: Stored, const N: usize, const P: usize>(
    p: &[f32],
    stride: usize,
    keys: Range<usize>,
    values: &[S::Bytes],
    next: &[S::Bytes],
    acc: &mut [f32],
    channels: usize,
) {
    let mut c = 0;
    while c + P * STEP <= channels {
        mix_tile::<L, S, N, P>(p, stride, keys.clone(), values, next, acc, channels, c);
        c += P * STEP;
    }
    while c < channels {
        mix_tile::<L, S, N, 1>(p, stride, keys.clone(), values, next, acc, channels, c);
        c += STEP;
    }
}

#[inline(always)]
fn mix<L: Lanes, S: Stored>(
    p: &[f32],
    stride: usize,
    keys: Range<usize>,
    values: &[S::Bytes],
    next: &[S::Bytes],
    acc: &mut [f32],
    channels: usize,
) {
    let vectors = acc.len() / channels;
    let mut v = 0;
    while v < vectors {
        let (p, acc, keys) = (&p[v * stride..], &mut acc[v * channels..], keys.clone());
        v += match vectors - v {
            8.. if L::MANY => {
                mix_vectors::<L, S, 8, 2>(p, stride, keys, values, next, acc, channels);
                8
            }
            4.. if L::MANY => {
                mix_vectors::<L, S, 4, 4>(p, stride, keys, values, next, acc, channels);
                4
            }
            4.. => {
                mix_vectors::<L, S, 4, 1>(p, stride, keys, values, next, acc, channels);
                4
            }
            _ => {
                mix_vectors::<L, S, 1, 4>(p, stride, keys, values, next, acc, channels);
                1
            }
        };
    }
}

#[inline(always)]
pub(super) fn mix_f16<L: Lanes>(
    p: &[f32],
    stride: usize,
    keys: Range<usize>,
    values: &[F16Bytes],
    next: &[F16Bytes],
    acc: &mut [f32],
    channels: usize,
) {
    mix::<L, F16>(p, stride, keys, values, next, acc, channels)
}
#[inline(always)]
pub(super) fn mix_f32<L: Lanes>(
    p: &[f32],
    stride: usize,
    keys: Range<usize>,
    values: &[F32Bytes],
    next: &[F32Bytes],
    acc: &mut [f32],
    channels: usize,
) {
    mix::<L, F32>(p, stride, keys, values, next, acc, channels)
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
pub fn f16_to_f32_portable(h: &[F16Bytes; STEP]) -> Lane {
    let mut out = [0f32; STEP];
    for l in 0..STEP {
        let h = u16::from_le_bytes(h[l]) as u32;
        let scaled = f32::from_bits((h & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
        let special = if h & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
        out[l] = f32::from_bits(scaled.to_bits() | special | (h & 0x8000) << 16);
    }
    out
}
