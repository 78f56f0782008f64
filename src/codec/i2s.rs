//! I2_S, the tensor type of Microsoft's BitNet models: 2-bit codes of the tensor, flattened row by row, then one f32
//! scale. A block of codes may run over a row's end, so elements are addressed by their index in the flattened tensor.

/// Elements of a block. Element j is in byte j % 32, at shift 6 − 2·(j / 32).
const ELEMENTS: usize = 128;
/// Bytes of a block of 128 codes, 2 bits each.
const BYTES: usize = 32;
/// The shift of each quarter of a block.
const SHIFTS: [u32; 4] = [6, 4, 2, 0];

/// Writes the trits from flat index `start` on to `out`. The invalid code 3 becomes 2.
pub(super) fn unpack(codes: &[u8], mut start: usize, mut out: &mut [i8]) {
    while !out.is_empty() {
        let skip = start % ELEMENTS;
        let block = &codes[start / ELEMENTS * BYTES..][..BYTES];
        let mut trits = [0; ELEMENTS];
        for (lane, shift) in trits.as_chunks_mut::<BYTES>().0.iter_mut().zip(SHIFTS) {
            for (trit, &byte) in lane.iter_mut().zip(block) {
                *trit = (byte >> shift & 3) as i8 - 1;
            }
        }
        let (now, later) = out.split_at_mut(out.len().min(ELEMENTS - skip));
        now.copy_from_slice(&trits[skip..][..now.len()]);
        start += now.len();
        out = later;
    }
}
