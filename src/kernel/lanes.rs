//! What the float kernels need of an instruction set ([`SimdF32`]) and of a stored type ([`Stored`]), and the sum in 64
//! lanes.
//!
//! The kernels are written once on these traits (`dot.rs`, `attention.rs`, `elementwise.rs`, `quantized_head.rs`) and
//! compiled once for each instruction set (`stamp_floats!` in `table.rs`).

/// Floats in one vector of [`SimdF32`].
pub(super) const VECTOR_LEN: usize = 16;
/// Partial sums of a dot product along K.
pub(super) const DOT_LANES: usize = 64;

/// The floats of one vector, in memory.
pub(super) type F32x16 = [f32; VECTOR_LEN];
/// An IEEE binary16 as its little-endian bytes.
pub type F16Bytes = [u8; 2];
/// A bfloat16 (the upper half of a binary32) as its little-endian bytes.
pub type Bf16Bytes = [u8; 2];
/// An IEEE binary32 as its little-endian bytes.
pub type F32Bytes = [u8; 4];

/// Vectors of 16 floats in the registers of an instruction set, for the inner loops that the compiler does not
/// vectorise reliably.
///
/// # Safety
/// Every function may be called only where the processor has the implementor's instruction set.
pub(super) trait SimdF32 {
    /// Whether 16 vectors of sums fit in the registers beside their operands (AVX-512); elsewhere four do.
    const WIDE_TILES: bool;
    /// 16 floats, in as many registers as the instruction set needs.
    type Vector: Copy;
    /// The same float 16 times.
    unsafe fn splat(x: f32) -> Self::Vector;
    /// Reads 16 floats.
    unsafe fn load(x: &F32x16) -> Self::Vector;
    /// Writes 16 floats.
    unsafe fn store(v: Self::Vector, out: &mut F32x16);
    /// `a · b + c` with one rounding.
    unsafe fn fma(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// Converts 16 halves to f32, exactly.
    unsafe fn f16_to_f32(h: &[F16Bytes; VECTOR_LEN]) -> Self::Vector;
    /// Converts 16 integers of magnitude up to 2²⁴, exactly.
    unsafe fn i32_to_f32(x: &[i32; VECTOR_LEN]) -> Self::Vector;
}

/// A type in which tensors and the KV cache store floats; it converts to f32 exactly.
pub(super) trait Stored {
    /// One element as it is stored, little-endian.
    type Bytes: Copy;
    /// Converts 16 elements to f32, exactly.
    ///
    /// # Safety
    /// The processor has the instruction set of `L`.
    unsafe fn to_f32<L: SimdF32>(x: &[Self::Bytes; VECTOR_LEN]) -> L::Vector;
}

/// IEEE binary16, little-endian.
pub(super) struct F16;
/// bfloat16, little-endian.
pub(super) struct Bf16;
/// IEEE binary32, little-endian, at any address.
pub(super) struct F32;
/// A row that was dequantized to f32 before.
pub(super) struct Dequantized;

impl Stored for F16 {
    type Bytes = F16Bytes;
    #[inline(always)]
    unsafe fn to_f32<L: SimdF32>(x: &[F16Bytes; VECTOR_LEN]) -> L::Vector {
        // SAFETY: the caller promises the instruction set of `L`.
        unsafe { L::f16_to_f32(x) }
    }
}
impl Stored for Bf16 {
    type Bytes = Bf16Bytes;
    #[inline(always)]
    unsafe fn to_f32<L: SimdF32>(x: &[Bf16Bytes; VECTOR_LEN]) -> L::Vector {
        // SAFETY: the caller promises the instruction set of `L`.
        unsafe { L::load(&x.map(|b| f32::from_bits((u16::from_le_bytes(b) as u32) << 16))) }
    }
}
impl Stored for F32 {
    type Bytes = F32Bytes;
    #[inline(always)]
    unsafe fn to_f32<L: SimdF32>(x: &[F32Bytes; VECTOR_LEN]) -> L::Vector {
        // SAFETY: the caller promises the instruction set of `L`.
        unsafe { L::load(&x.map(f32::from_le_bytes)) }
    }
}
impl Stored for Dequantized {
    type Bytes = f32;
    #[inline(always)]
    unsafe fn to_f32<L: SimdF32>(x: &F32x16) -> L::Vector {
        // SAFETY: the caller promises the instruction set of `L`.
        unsafe { L::load(x) }
    }
}

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
pub(super) fn sum_by_halving(lanes: [F32x16; DOT_LANES / VECTOR_LEN]) -> f32 {
    let mut sums = [0f32; DOT_LANES];
    for (sum, lane) in sums.as_chunks_mut::<VECTOR_LEN>().0.iter_mut().zip(&lanes) {
        *sum = *lane;
    }
    let mut n = DOT_LANES / 2;
    while n > 0 {
        for l in 0..n {
            sums[l] += sums[l + n];
        }
        n /= 2;
    }
    sums[0]
}

/// Adding 1.5·2²³ rounds a float of magnitude below 2²² to an integer, half to even, in its low bits.
pub(super) const ROUNDING_MAGIC: f32 = 12_582_912.0;

/// The integer nearest to `x`, half to even; `x` lies within -127 and 127.
#[inline(always)]
pub(super) fn round_to_i8(x: f32) -> i8 {
    (x + ROUNDING_MAGIC).to_bits().wrapping_sub(ROUNDING_MAGIC.to_bits()) as i8
}
