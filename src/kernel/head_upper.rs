//! The upper six bits of the output head's 8-bit rows, which rule out most logits of one token with three quarters of the
//! bytes.
//!
//! A weight is q = 4h + l, with h from -32 to 31 and l from 0 to 3. A row of these bits stands for 4h + 1.5, so no weight is
//! off by more than 1.5 steps. The integer dots here are those of 8h + 3, twice that.
//!
//! In memory a step of 128 weights has 96 bytes. Of the first 64, byte j holds the lower four bits of h + 32 for the weights
//! j and 64 + j; of the other 32, byte j holds the upper two bits for the weights j, 32 + j, 64 + j, 96 + j.

use super::prefetch::prefetch_ahead;
use super::quantized_head::{HEAD_STEP, Int8Dot};

/// Weights in one step; rows are padded to whole steps.
pub const UPPER_STEP: usize = 128;
/// Bytes of a step.
pub const UPPER_BYTES: usize = 96;
/// Bytes of the lower four bits of a step.
const NIBBLES: usize = 64;
/// Bytes of the upper two bits of a step.
const TOPS: usize = 32;

/// h + 32 of the weights of a step.
#[inline(always)]
fn codes(upper: &[u8; UPPER_BYTES]) -> [u8; UPPER_STEP] {
    let mut codes = [0u8; UPPER_STEP];
    for j in 0..NIBBLES {
        (codes[j], codes[NIBBLES + j]) = (upper[j] & 15, upper[j] >> 4);
    }
    for j in 0..TOPS {
        let tops = upper[NIBBLES + j];
        codes[j] |= (tops << 4) & 0x30;
        codes[TOPS + j] |= (tops << 2) & 0x30;
        codes[2 * TOPS + j] |= tops & 0x30;
        codes[3 * TOPS + j] |= (tops >> 2) & 0x30;
    }
    codes
}

/// Writes the upper bits of a row, padded with zeros, and returns the sum of `(2l - 3)²` of its weights: four times the
/// squared error of its upper bits, in steps.
pub fn upper_bits(row: &[i8], upper: &mut [u8]) -> u32 {
    assert_eq!(row.len().div_ceil(UPPER_STEP) * UPPER_BYTES, upper.len());
    for (row, upper) in row.chunks(UPPER_STEP).zip(upper.as_chunks_mut::<UPPER_BYTES>().0) {
        let mut codes = [0x20u8; UPPER_STEP];
        for (code, q) in codes.iter_mut().zip(row) {
            *code = ((q >> 2) as u8 & 0x3f) ^ 0x20;
        }
        for j in 0..NIBBLES {
            upper[j] = codes[j] & 15 | codes[NIBBLES + j] << 4;
        }
        let tops = codes.map(|code| code >> 4);
        for j in 0..TOPS {
            upper[NIBBLES + j] = tops[j] | tops[TOPS + j] << 2 | tops[2 * TOPS + j] << 4 | tops[3 * TOPS + j] << 6;
        }
    }
    row.iter().map(|q| if matches!(q & 3, 0 | 3) { 9 } else { 1 }).sum()
}

/// Dots of the upper bits of rows with x, for which see the table of kernels.
#[inline(always)]
pub(super) fn dots_upper<L: Int8Dot>(upper: &[u8], x: &[i16], out: &mut [i32]) {
    let x = x.as_chunks::<UPPER_STEP>().0;
    let rows = upper.as_chunks::<UPPER_BYTES>().0.chunks_exact(x.len());
    assert!(rows.len() == out.len() && !x.is_empty());
    let sum: i32 = x.iter().flatten().map(|x| *x as i32).sum();
    for (row, out) in rows.zip(out) {
        // SAFETY: this copy of the code is compiled for `L` (`stamp_floats!`) and runs only where the processor has it.
        let dot = unsafe {
            let mut sums = [L::zero(); 2];
            for (upper, x) in row.iter().zip(x) {
                prefetch_ahead(upper);
                prefetch_ahead(&upper[64]);
                let codes = codes(upper).map(|code| code as i8);
                for (i, (codes, x)) in codes.as_chunks::<HEAD_STEP>().0.iter().zip(x.as_chunks().0).enumerate() {
                    sums[i % 2] = L::madd(sums[i % 2], L::i8_to_i16(codes), x);
                }
            }
            L::total(sums[0]).wrapping_add(L::total(sums[1]))
        };
        // 8(code - 32) + 3 for each weight.
        *out = dot.wrapping_mul(8).wrapping_sub(sum.wrapping_mul(253));
    }
}
