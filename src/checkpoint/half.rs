//! Converts 16-bit floats to f32. Every conversion is exact.

/// IEEE binary16 to f32. Subnormals, infinities and the payload of a NaN are kept.
///
/// It computes the result for normal, subnormal and special values and selects one, so that a loop over many values has
/// no branches. No operation meets a subnormal f32, which many processors handle slowly.
#[inline(always)]
pub fn f16_to_f32(half: u16) -> f32 {
    const REBIAS: u32 = (127 - 15) << 23;
    const LEAST_NORMAL: u32 = REBIAS + (1 << 23);
    let sign = u32::from(half & 0x8000) << 16;
    let magnitude = u32::from(half & 0x7fff) << 13;
    let normal = magnitude + REBIAS;
    // (2^-14 + fraction) − 2^-14: the subtraction normalizes the fraction.
    let subnormal = (f32::from_bits(magnitude + LEAST_NORMAL) - f32::from_bits(LEAST_NORMAL)).to_bits();
    let special = magnitude | 0x7f80_0000;
    let finite = if half & 0x7c00 == 0 { subnormal } else { normal };
    f32::from_bits(sign | if half & 0x7c00 == 0x7c00 { special } else { finite })
}

/// bfloat16 to f32: its bits are the upper half of the f32.
#[inline(always)]
pub fn bf16_to_f32(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}
