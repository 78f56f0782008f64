//! Conversion between f32 and f16 without instructions for it.

use super::lanes::{F16Bytes, F32x16, VECTOR_LEN};

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

/// Converts 16 halves, exactly: the bits move to their places in an f32, whose exponent an exact multiplication
/// corrects.
#[inline(always)]
pub(super) fn f16_to_f32_portable(h: &[F16Bytes; VECTOR_LEN]) -> F32x16 {
    let mut out = [0f32; VECTOR_LEN];
    for l in 0..VECTOR_LEN {
        let h = u16::from_le_bytes(h[l]) as u32;
        let scaled = f32::from_bits((h & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
        let special = if h & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
        out[l] = f32::from_bits(scaled.to_bits() | special | (h & 0x8000) << 16);
    }
    out
}
