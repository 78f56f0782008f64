//! Plain and classic block types to f32. Each product and sum is the one that gguf-py computes, in its order and
//! rounded once each, so that the values are the same bits.
//!
//! `bytes` are whole blocks, `out` their elements. Everything inlines: a caller that is compiled for a wider
//! instruction set gets these loops vectorised for it.

use super::half::{bf16_to_f32, f16_to_f32};

#[inline(always)]
fn f16_at(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

#[inline(always)]
pub(super) fn f32(bytes: &[u8], out: &mut [f32]) {
    for (value, raw) in out.iter_mut().zip(bytes.as_chunks().0) {
        *value = f32::from_le_bytes(*raw);
    }
}

#[inline(always)]
pub(super) fn f16(bytes: &[u8], out: &mut [f32]) {
    for (value, raw) in out.iter_mut().zip(bytes.as_chunks().0) {
        *value = f16_to_f32(u16::from_le_bytes(*raw));
    }
}

#[inline(always)]
pub(super) fn bf16(bytes: &[u8], out: &mut [f32]) {
    for (value, raw) in out.iter_mut().zip(bytes.as_chunks().0) {
        *value = bf16_to_f32(u16::from_le_bytes(*raw));
    }
}

/// `f16 d; i8 q[32]`: d·q.
#[inline(always)]
pub(super) fn q8_0(bytes: &[u8], out: &mut [f32]) {
    for (values, block) in out.as_chunks_mut::<32>().0.iter_mut().zip(bytes.as_chunks::<34>().0) {
        let d = f16_at(block, 0);
        let codes: &[u8; 32] = block.last_chunk().expect("shorter than the block");
        for (value, &q) in values.iter_mut().zip(codes) {
            *value = d * f32::from(q as i8);
        }
    }
}

/// `f16 d; u8 q[16]`: d·(q − 8); the low nibbles are the first half.
#[inline(always)]
pub(super) fn q4_0(bytes: &[u8], out: &mut [f32]) {
    for (values, block) in out.as_chunks_mut::<32>().0.iter_mut().zip(bytes.as_chunks::<18>().0) {
        let d = f16_at(block, 0);
        for (j, &q) in block[2..].iter().enumerate() {
            values[j] = d * f32::from((q & 15) as i8 - 8);
            values[j + 16] = d * f32::from((q >> 4) as i8 - 8);
        }
    }
}

/// `f16 d; u32 high; u8 q[16]`: d·(q − 16); `high` holds bit 4 of each element.
#[inline(always)]
pub(super) fn q5_0(bytes: &[u8], out: &mut [f32]) {
    for (values, block) in out.as_chunks_mut::<32>().0.iter_mut().zip(bytes.as_chunks::<22>().0) {
        let d = f16_at(block, 0);
        let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
        for (j, &q) in block[6..].iter().enumerate() {
            let bit = |at: usize| ((high >> at & 1) << 4) as u8;
            values[j] = d * f32::from((q & 15 | bit(j)) as i8 - 16);
            values[j + 16] = d * f32::from((q >> 4 | bit(j + 16)) as i8 - 16);
        }
    }
}

/// The eight pairs of 6-bit scale and minimum in the 12 bytes of a Q4_K or Q5_K block.
#[inline(always)]
fn scale_and_min(s: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (s[j] & 63, s[j + 4] & 63)
    } else {
        (s[j + 4] & 15 | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4)
    };
    (f32::from(scale), f32::from(min))
}

/// `f16 d, dmin; u8 s[12]; u8 q[128]`: d·scale·q − dmin·min, in groups of 32; low nibbles first.
#[inline(always)]
pub(super) fn q4_k(bytes: &[u8], out: &mut [f32]) {
    for (values, block) in out.as_chunks_mut::<256>().0.iter_mut().zip(bytes.as_chunks::<144>().0) {
        let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
        for (j, group) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, min) = scale_and_min(&block[4..16], j);
            let (scale, min) = (d * scale, dmin * min);
            let codes = &block[16 + 32 * (j / 2)..][..32];
            for (value, &q) in group.iter_mut().zip(codes) {
                *value = scale * f32::from(q >> (4 * (j % 2)) & 15) - min;
            }
        }
    }
}

/// As Q4_K, with `u8 high[32]` before the codes: its bit j is bit 4 of the elements of group j.
#[inline(always)]
pub(super) fn q5_k(bytes: &[u8], out: &mut [f32]) {
    for (values, block) in out.as_chunks_mut::<256>().0.iter_mut().zip(bytes.as_chunks::<176>().0) {
        let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
        let high = &block[16..48];
        for (j, group) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, min) = scale_and_min(&block[4..16], j);
            let (scale, min) = (d * scale, dmin * min);
            let codes = &block[48 + 32 * (j / 2)..][..32];
            for ((value, &q), &high) in group.iter_mut().zip(codes).zip(high) {
                let code = q >> (4 * (j % 2)) & 15 | (high >> j & 1) << 4;
                *value = scale * f32::from(code) - min;
            }
        }
    }
}

/// `u8 low[128]; u8 high[64]; i8 scale[16]; f16 d`: d·scale·(q − 32), in halves of four quarters of 32.
#[inline(always)]
pub(super) fn q6_k(bytes: &[u8], out: &mut [f32]) {
    for (values, block) in out.as_chunks_mut::<256>().0.iter_mut().zip(bytes.as_chunks::<210>().0) {
        let d = f16_at(block, 208);
        let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
        for (half, values) in values.as_chunks_mut::<128>().0.iter_mut().enumerate() {
            let (low, high) = (&low[64 * half..][..64], &high[32 * half..][..32]);
            for (part, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let low = &low[32 * (part % 2)..][..32];
                let mut codes = [0; 32];
                for ((code, &low), &high) in codes.iter_mut().zip(low).zip(high) {
                    *code = low >> (4 * (part / 2)) & 15 | (high >> (2 * part) & 3) << 4;
                }
                for (j, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                    let scale = d * f32::from(scales[8 * half + 2 * part + j] as i8);
                    for (value, &code) in values.iter_mut().zip(&codes[16 * j..]) {
                        *value = scale * f32::from(code as i8 - 32);
                    }
                }
            }
        }
    }
}
