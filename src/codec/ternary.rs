//! Ternary block types to f32: scale × trit. The trits lie in 2-bit codes (0, 1, 2 for −1, 0, +1) or in base 3.

use super::half::f16_to_f32;

/// The multipliers that bring base-3 digit 0 to 4, most significant first, to the top of a byte.
const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// The digit that `power` selects: bytes hold ⌈v·256/243⌉, so that multiplying shifts digits out at the top.
#[inline(always)]
fn digit(byte: u8, power: u8) -> f32 {
    f32::from(((u16::from(byte.wrapping_mul(power)) * 3) >> 8) as i8 - 1)
}

/// Digit n of byte m is element n·len + m.
#[inline(always)]
fn digits(bytes: &[u8], scale: f32, out: &mut [f32]) {
    for (lane, power) in out.chunks_exact_mut(bytes.len()).zip(POWERS) {
        for (value, &byte) in lane.iter_mut().zip(bytes) {
            *value = scale * digit(byte, power);
        }
    }
}

/// Code n of byte m, lowest bits first, is element n·len + m.
#[inline(always)]
fn codes(bytes: &[u8], scale: f32, out: &mut [f32]) {
    for (n, lane) in out.chunks_exact_mut(bytes.len()).enumerate() {
        for (value, &byte) in lane.iter_mut().zip(bytes) {
            *value = scale * f32::from((byte >> (2 * n) & 3) as i8 - 1);
        }
    }
}

/// `u8 q[48]; u8 q4[4]; f16 d`: five digits a byte in 32 and 16 lanes, then four digits a byte in 4 lanes.
#[inline(always)]
pub(super) fn tq1_0(bytes: &[u8], out: &mut [f32]) {
    for (values, block) in out.as_chunks_mut::<256>().0.iter_mut().zip(bytes.as_chunks::<54>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[52], block[53]]));
        digits(&block[..32], d, &mut values[..160]);
        digits(&block[32..48], d, &mut values[160..240]);
        digits(&block[48..52], d, &mut values[240..]);
    }
}

/// `u8 q[64]; f16 d`: two groups of 32 lanes.
#[inline(always)]
pub(super) fn tq2_0(bytes: &[u8], out: &mut [f32]) {
    for (values, block) in out.as_chunks_mut::<256>().0.iter_mut().zip(bytes.as_chunks::<66>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[64], block[65]]));
        codes(&block[..32], d, &mut values[..128]);
        codes(&block[32..64], d, &mut values[128..]);
    }
}

/// `u8 q[12]; u8 extra`, without a scale of its own: each 16 elements are three bytes of five digits and one digit
/// of `extra`. In the three bytes the first element is the least significant digit.
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

/// `u8 q[16]`, without a scale of its own: one group of 16 lanes.
#[inline(always)]
pub(super) fn iq2_bn(bytes: &[u8], scale: f32, out: &mut [f32]) {
    for (values, block) in out.as_chunks_mut::<64>().0.iter_mut().zip(bytes.as_chunks::<16>().0) {
        codes(block, scale, values);
    }
}

/// The first element whose 2-bit code is 3, which stands for nothing, in a stream of groups of `lanes` bytes:
/// element n·lanes + m of a group is in byte m at `shifts[n]`.
pub(super) fn first_code_3(codes: &[u8], lanes: usize, shifts: [u32; 4]) -> Option<usize> {
    let has_code_3 = |group: &[u8]| group.iter().fold(0, |seen, &byte| seen | byte & byte >> 1) & 0x55 != 0;
    let (at, group) = codes.chunks_exact(lanes).enumerate().find(|(_, group)| has_code_3(group))?;
    let element = (0..4 * lanes).find(|element| group[element % lanes] >> shifts[element / lanes] & 3 == 3)?;
    Some(4 * lanes * at + element)
}
