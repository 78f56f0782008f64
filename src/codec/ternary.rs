//! Dequantizes the ternary block types: scale × trit. Trits are stored as 2-bit codes (0, 1, 2 for −1, 0, +1), or five
//! to a byte as digits of base 3.

use super::half::f16_to_f32;

/// The multipliers that bring base-3 digits 0 to 4, the most significant first, to the top of a byte.
const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// The trit of the digit that `power` selects. A byte holds ⌈v·256/243⌉, where v is the number of five digits:
/// multiplying by 3 moves the most significant digit out at the top.
#[inline(always)]
fn digit(byte: u8, power: u8) -> f32 {
    f32::from(((u16::from(byte.wrapping_mul(power)) * 3) >> 8) as i8 - 1)
}

/// Dequantizes base-3 digits: digit n of byte m is element n·len + m.
#[inline(always)]
fn digits(bytes: &[u8], scale: f32, out: &mut [f32]) {
    for (lane, power) in out.chunks_exact_mut(bytes.len()).zip(POWERS) {
        for (value, &byte) in lane.iter_mut().zip(bytes) {
            *value = scale * digit(byte, power);
        }
    }
}

/// Dequantizes 2-bit codes: code n of byte m, lowest bits first, is element n·len + m.
#[inline(always)]
fn codes(bytes: &[u8], scale: f32, out: &mut [f32]) {
    for (n, lane) in out.chunks_exact_mut(bytes.len()).enumerate() {
        for (value, &byte) in lane.iter_mut().zip(bytes) {
            *value = scale * f32::from((byte >> (2 * n) & 3) as i8 - 1);
        }
    }
}

/// Block `u8 q[48]; u8 q4[4]; f16 d`: five digits a byte in groups of 32 and 16 bytes, then four digits a byte in a
/// group of 4 bytes.
#[inline(always)]
pub(super) fn tq1_0(bytes: &[u8], out: &mut [f32]) {
    for (values, block) in out.as_chunks_mut::<256>().0.iter_mut().zip(bytes.as_chunks::<54>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[52], block[53]]));
        digits(&block[..32], d, &mut values[..160]);
        digits(&block[32..48], d, &mut values[160..240]);
        digits(&block[48..52], d, &mut values[240..]);
    }
}

/// Block `u8 q[64]; f16 d`: codes in two groups of 32 bytes.
#[inline(always)]
pub(super) fn tq2_0(bytes: &[u8], out: &mut [f32]) {
    for (values, block) in out.as_chunks_mut::<256>().0.iter_mut().zip(bytes.as_chunks::<66>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[64], block[65]]));
        codes(&block[..32], d, &mut values[..128]);
        codes(&block[32..64], d, &mut values[128..]);
    }
}

/// Block `u8 q[12]; u8 extra`, with the row's scale. Each 16 elements are three bytes of five digits, the least
/// significant digit first, and one digit of `extra`.
#[inline(always)]
pub(super) fn iq1_bn(bytes: &[u8], scale: f32, out: &mut [f32]) {
    for (values, block) in out.as_chunks_mut::<64>().0.iter_mut().zip(bytes.as_chunks::<13>().0) {
        for (g, group) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            for (j, value) in group[..15].iter_mut().enumerate() {
                *value = scale * digit(block[3 * g + j / 5], POWERS[4 - j % 5]);
            }
            group[15] = scale * digit(block[12], POWERS[4 - g]);
        }
    }
}

/// Block `u8 q[16]`, with the row's scale: codes in one group of 16 bytes.
#[inline(always)]
pub(super) fn iq2_bn(bytes: &[u8], scale: f32, out: &mut [f32]) {
    for (values, block) in out.as_chunks_mut::<64>().0.iter_mut().zip(bytes.as_chunks::<16>().0) {
        codes(block, scale, values);
    }
}

/// The index of the first element with the invalid code 3. Codes come in groups of `lanes` bytes: element
/// n·lanes + m of a group is in byte m, at `shifts[n]`.
pub(super) fn first_code_3(codes: &[u8], lanes: usize, shifts: [u32; 4]) -> Option<usize> {
    let has_code_3 = |group: &[u8]| group.iter().fold(0, |seen, &byte| seen | byte & byte >> 1) & 0x55 != 0;
    let (at, group) = codes.chunks_exact(lanes).enumerate().find(|(_, group)| has_code_3(group))?;
    let element = (0..4 * lanes).find(|element| group[element % lanes] >> shifts[element / lanes] & 3 == 3)?;
    Some(4 * lanes * at + element)
}
