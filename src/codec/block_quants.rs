//! Dequantizes the plain types and ggml's block types. Products and sums are those of gguf-py in the same order, each
//! rounded once, so that the values have the same bits.
//!
//! `bytes` are whole blocks and `out` their elements. All functions are inlined, so that a caller compiled for a wider
//! instruction set gets loops vectorized for it.

use super::f16_to_f32;

/// The first bytes by value. The compiler can't tell whether `bytes` and `out` overlap, so it would not vectorize loops
/// that read `bytes` directly.
#[inline(always)]
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    *bytes.first_chunk().expect("blocks are whole")
}

/// The f16 at byte `at` of a block, as f32.
#[inline(always)]
fn f16_at(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Values of N bytes each, without blocks.
#[inline(always)]
pub(super) fn plain<const N: usize>(bytes: &[u8], out: &mut [f32], dequantize: impl Fn([u8; N]) -> f32) {
    for (value, raw) in out.iter_mut().zip(bytes.as_chunks().0) {
        *value = dequantize(*raw);
    }
}

/// Block `f16 d; i8 q[32]`: d·q.
#[inline(always)]
pub(super) fn q8_0(bytes: &[u8], out: &mut [f32]) {
    for (values, block) in out.as_chunks_mut::<32>().0.iter_mut().zip(bytes.as_chunks::<34>().0) {
        let d = f16_at(block, 0);
        for (value, q) in values.iter_mut().zip(array::<32>(&block[2..])) {
            *value = d * f32::from(q as i8);
        }
    }
}

/// Block `f16 d; u8 q[16]`: d·(q − 8). The low nibbles are the first 16 elements.
#[inline(always)]
pub(super) fn q4_0(bytes: &[u8], out: &mut [f32]) {
    for (values, block) in out.as_chunks_mut::<32>().0.iter_mut().zip(bytes.as_chunks::<18>().0) {
        let d = f16_at(block, 0);
        let q = array::<16>(&block[2..]);
        for (half, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            for (value, q) in values.iter_mut().zip(q) {
                *value = d * f32::from((q >> (4 * half) & 15) as i8 - 8);
            }
        }
    }
}

/// Block `f16 d; u32 high; u8 q[16]`: d·(q − 16). `high` holds bit 4 of each element's q.
#[inline(always)]
pub(super) fn q5_0(bytes: &[u8], out: &mut [f32]) {
    for (values, block) in out.as_chunks_mut::<32>().0.iter_mut().zip(bytes.as_chunks::<22>().0) {
        let d = f16_at(block, 0);
        let high = u32::from_le_bytes(array(&block[2..]));
        let q = array::<16>(&block[6..]);
        for (half, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            for (j, (value, q)) in values.iter_mut().zip(q).enumerate() {
                let bit_4 = ((high >> (16 * half + j) & 1) << 4) as u8;
                *value = d * f32::from((q >> (4 * half) & 15 | bit_4) as i8 - 16);
            }
        }
    }
}

/// Pair `j` of the eight pairs of 6-bit scale and minimum in the 12 bytes `s` of a Q4_K or Q5_K block.
#[inline(always)]
fn scale_and_min(s: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (s[j] & 63, s[j + 4] & 63)
    } else {
        (s[j + 4] & 15 | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4)
    };
    (f32::from(scale), f32::from(min))
}

/// Block `f16 d, dmin; u8 s[12]; u8 q[128]`: d·scale·q − dmin·min, with a scale and a minimum for each group of 32
/// elements. Low nibbles come first.
#[inline(always)]
pub(super) fn q4_k(bytes: &[u8], out: &mut [f32]) {
    for (values, block) in out.as_chunks_mut::<256>().0.iter_mut().zip(bytes.as_chunks::<144>().0) {
        let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
        for (g, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, min) = scale_and_min(&block[4..16], g);
            let (scale, min) = (d * scale, dmin * min);
            for (value, q) in values.iter_mut().zip(array::<32>(&block[16 + 32 * (g / 2)..])) {
                *value = scale * f32::from(q >> (4 * (g % 2)) & 15) - min;
            }
        }
    }
}

/// Block as for Q4_K, with `u8 high[32]` before the codes. Its bit g is bit 4 of the codes of group g.
#[inline(always)]
pub(super) fn q5_k(bytes: &[u8], out: &mut [f32]) {
    for (values, block) in out.as_chunks_mut::<256>().0.iter_mut().zip(bytes.as_chunks::<176>().0) {
        let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
        let high = array::<32>(&block[16..]);
        for (g, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, min) = scale_and_min(&block[4..16], g);
            let (scale, min) = (d * scale, dmin * min);
            let q = array::<32>(&block[48 + 32 * (g / 2)..]);
            for ((value, q), high) in values.iter_mut().zip(q).zip(high) {
                *value = scale * f32::from(q >> (4 * (g % 2)) & 15 | (high >> g & 1) << 4) - min;
            }
        }
    }
}

/// Block `u8 low[128]; u8 high[64]; i8 scale[16]; f16 d`: d·scale·(q − 32), with a scale for each group of 16 elements.
/// Each half of the block has four parts of 32 elements; `low` and `high` hold the low 4 and the high 2 bits of q.
#[inline(always)]
pub(super) fn q6_k(bytes: &[u8], out: &mut [f32]) {
    for (values, block) in out.as_chunks_mut::<256>().0.iter_mut().zip(bytes.as_chunks::<210>().0) {
        let d = f16_at(block, 208);
        for (g, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = d * f32::from(block[192 + g] as i8);
            let (half, part, lane) = (g / 8, g / 2 % 4, 16 * (g % 2));
            let low = array::<16>(&block[64 * half + 32 * (part % 2) + lane..]);
            let high = array::<16>(&block[128 + 32 * half + lane..]);
            for ((value, low), high) in values.iter_mut().zip(low).zip(high) {
                let code = low >> (4 * (part / 2)) & 15 | (high >> (2 * part) & 3) << 4;
                *value = scale * f32::from(code as i8 - 32);
            }
        }
    }
}
