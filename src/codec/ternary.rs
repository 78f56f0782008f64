//! Decodes the ternary block types. Trits are stored as 2-bit codes (0, 1, 2 for −1, 0, +1), or five to a byte as digits
//! of base 3. `value` makes what the caller wants of a scale and a trit: their product, or the trit alone.

use super::f16_to_f32;

/// The multipliers that bring base-3 digits 0 to 4, the most significant first, to the top of a byte.
const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// The trit of the most significant digit of a byte, which holds ⌈v·256/243⌉, where v is the number of five digits.
/// The digit is ⌊3·byte / 256⌋; compared and not computed, since compilers make vectors of comparisons of bytes.
#[inline(always)]
fn top_digit(byte: u8) -> i8 {
    i8::from(byte >= 86) + i8::from(byte >= 171) - 1
}

/// The trit of the digit that `power` selects: multiplying by 3 moves the most significant digit out at the top.
#[inline(always)]
fn digit(byte: u8, power: u8) -> i8 {
    top_digit(byte.wrapping_mul(power))
}

/// Decodes base-3 digits of `N` bytes: digit n of byte m is element n·N + m.
#[inline(always)]
fn digits<T, const N: usize>(bytes: &[u8], scale: f32, out: &mut [T], value: impl Fn(f32, i8) -> T) {
    let mut left: [u8; N] = *bytes.first_chunk().expect("the block has the bytes");
    for lane in out.as_chunks_mut::<N>().0 {
        for (out, byte) in lane.iter_mut().zip(&mut left) {
            *out = value(scale, top_digit(*byte));
            *byte = byte.wrapping_add(byte.wrapping_add(*byte));
        }
    }
}

/// Decodes 2-bit codes: code n of byte m, lowest bits first, is element n·len + m.
#[inline(always)]
fn codes<T>(bytes: &[u8], scale: f32, out: &mut [T], value: impl Fn(f32, i8) -> T) {
    for (n, lane) in out.chunks_exact_mut(bytes.len()).enumerate() {
        for (out, &byte) in lane.iter_mut().zip(bytes) {
            *out = value(scale, (byte >> (2 * n) & 3) as i8 - 1);
        }
    }
}

/// Block `u8 q[48]; u8 q4[4]; f16 d`: five digits a byte in groups of 32 and 16 bytes, then four digits a byte in a
/// group of 4 bytes.
#[inline(always)]
pub(super) fn tq1_0<T>(bytes: &[u8], out: &mut [T], value: impl Fn(f32, i8) -> T + Copy) {
    for (values, block) in out.as_chunks_mut::<256>().0.iter_mut().zip(bytes.as_chunks::<54>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[52], block[53]]));
        digits::<T, 32>(&block[..32], d, &mut values[..160], value);
        digits::<T, 16>(&block[32..48], d, &mut values[160..240], value);
        digits::<T, 4>(&block[48..52], d, &mut values[240..], value);
    }
}

/// Block `u8 q[64]; f16 d`: codes in two groups of 32 bytes.
#[inline(always)]
pub(super) fn tq2_0<T>(bytes: &[u8], out: &mut [T], value: impl Fn(f32, i8) -> T + Copy) {
    for (values, block) in out.as_chunks_mut::<256>().0.iter_mut().zip(bytes.as_chunks::<66>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[64], block[65]]));
        codes(&block[..32], d, &mut values[..128], value);
        codes(&block[32..64], d, &mut values[128..], value);
    }
}

/// Block `u8 q[12]; u8 extra`, with the row's scale. Each 16 elements are three bytes of five digits, the least
/// significant digit first, and one digit of `extra`.
#[inline(always)]
pub(super) fn iq1_bn<T>(bytes: &[u8], scale: f32, out: &mut [T], value: impl Fn(f32, i8) -> T + Copy) {
    for (values, block) in out.as_chunks_mut::<64>().0.iter_mut().zip(bytes.as_chunks::<13>().0) {
        for (g, group) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            for (j, out) in group[..15].iter_mut().enumerate() {
                *out = value(scale, digit(block[3 * g + j / 5], POWERS[4 - j % 5]));
            }
            group[15] = value(scale, digit(block[12], POWERS[4 - g]));
        }
    }
}

/// A row of four that IQ2_BN_R4 stores together, with its scale. A block has `u8 q[64]`: bytes 16·l + 4·row to
/// 16·l + 4·row + 3 hold columns 16·l to 16·l + 15 of the row, codes as in [`codes`].
#[inline(always)]
pub(super) fn iq2_bn_r4<T>(bytes: &[u8], row: usize, scale: f32, out: &mut [T], value: impl Fn(f32, i8) -> T + Copy) {
    for (values, block) in out.as_chunks_mut::<64>().0.iter_mut().zip(bytes.as_chunks::<64>().0) {
        for (values, lane) in values.as_chunks_mut::<16>().0.iter_mut().zip(block.as_chunks::<16>().0) {
            codes(&lane[4 * row..][..4], scale, values, value);
        }
    }
}

/// Block `f16 d; u8 q[N/4]` of N elements: four codes a byte, neighbours side by side, lowest bits first.
#[inline(always)]
pub(super) fn q2_0<T, const ELEMENTS: usize>(bytes: &[u8], out: &mut [T], value: impl Fn(f32, i8) -> T + Copy) {
    let blocks = bytes.chunks_exact(2 + ELEMENTS / 4);
    for (values, block) in out.as_chunks_mut::<ELEMENTS>().0.iter_mut().zip(blocks) {
        let d = f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
        for (values, byte) in values.as_chunks_mut::<4>().0.iter_mut().zip(&block[2..]) {
            codes(std::slice::from_ref(byte), d, values, value);
        }
    }
}

/// Block `u8 a[16]; u8 b[8]; u8 c[2]; f16 d`: five digits a byte in groups of 16 and 8 bytes, then four digits a byte.
#[inline(always)]
pub(super) fn ptq1_0<T>(bytes: &[u8], out: &mut [T], value: impl Fn(f32, i8) -> T + Copy) {
    for (values, block) in out.as_chunks_mut::<128>().0.iter_mut().zip(bytes.as_chunks::<28>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[26], block[27]]));
        // The digits of all bytes at once, which makes whole vectors; then each group takes its own.
        let mut left = [0u8; 32];
        left[..26].copy_from_slice(&block[..26]);
        for n in 0..5 {
            let mut trits = [0i8; 32];
            for (trit, byte) in trits.iter_mut().zip(&mut left) {
                *trit = top_digit(*byte);
                *byte = byte.wrapping_add(byte.wrapping_add(*byte));
            }
            let groups = [(16 * n, 0..16), (80 + 8 * n, 16..24), (120 + 2 * n, 24..if n < 4 { 26 } else { 24 })];
            for (at, of_group) in groups {
                let trits = &trits[of_group];
                values[at..][..trits.len()].iter_mut().zip(trits).for_each(|(out, trit)| *out = value(d, *trit));
            }
        }
    }
}

/// Block `f16 d; u8 signs[16]`: +d where a bit is set, −d elsewhere, lowest bits first.
#[inline(always)]
pub(super) fn q1_0<T>(bytes: &[u8], out: &mut [T], value: impl Fn(f32, i8) -> T + Copy) {
    for (values, block) in out.as_chunks_mut::<128>().0.iter_mut().zip(bytes.as_chunks::<18>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
        for (values, byte) in values.as_chunks_mut::<8>().0.iter_mut().zip(&block[2..]) {
            for (j, out) in values.iter_mut().enumerate() {
                *out = value(d, 2 * (byte >> j & 1) as i8 - 1);
            }
        }
    }
}

/// Block `u8 q[32]; u8 signs[8]; f16 d` of 64 groups of four, of which three are not zero. Group g has the nibble g of
/// `q` and the bit g of `signs`; its elements are 64·(g / 16) + g % 16 + 16·lane. A nibble is 4·(the lane that is zero)
/// and two signs, of the second and of the third other lane; the bit negates all.
#[inline(always)]
pub(super) fn stq1_0<T>(bytes: &[u8], out: &mut [T], value: impl Fn(f32, i8) -> T + Copy) {
    for (values, block) in out.as_chunks_mut::<256>().0.iter_mut().zip(bytes.as_chunks::<42>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[40], block[41]]));
        for g in 0..64 {
            let nibble = block[g / 2] >> (4 * (g % 2)) & 15;
            let negative = block[32 + g / 8] >> (g % 8) & 1;
            let signs = [negative, negative ^ nibble & 1, negative ^ nibble >> 1 & 1];
            let mut trits = signs.into_iter().map(|sign| 1 - 2 * sign as i8);
            for lane in 0..4 {
                let trit = if lane == usize::from(nibble >> 2) { 0 } else { trits.next().unwrap_or(0) };
                values[64 * (g / 16) + 16 * lane + g % 16] = value(d, trit);
            }
        }
    }
}

/// Block `u8 q[16]`, with the row's scale: codes in one group of 16 bytes.
#[inline(always)]
pub(super) fn iq2_bn<T>(bytes: &[u8], scale: f32, out: &mut [T], value: impl Fn(f32, i8) -> T + Copy) {
    for (values, block) in out.as_chunks_mut::<64>().0.iter_mut().zip(bytes.as_chunks::<16>().0) {
        codes(block, scale, values, value);
    }
}

/// The index of the first element with the invalid code 3. Codes come in groups of `lanes` bytes: element
/// n·lanes + m of a group is in byte m, at `shifts[n]`.
pub(super) fn first_code_3(codes: &[u8], lanes: usize, shifts: [u32; 4]) -> Option<usize> {
    let has_code_3 = |group: &[u8]| group.iter().fold(0, |seen, &byte| seen | byte & byte >> 1) & 0x55 != 0;
    // Whole first: many short groups would be slow.
    if !has_code_3(codes) {
        return None;
    }
    let (at, group) = codes.chunks_exact(lanes).enumerate().find(|(_, group)| has_code_3(group))?;
    let element = (0..4 * lanes).find(|element| group[element % lanes] >> shifts[element / lanes] & 3 == 3)?;
    Some(4 * lanes * at + element)
}
