//! I2_S, Microsoft's type: 2-bit codes of the whole tensor, flattened by rows, then one f32 scale. Blocks of codes
//! may straddle rows, so elements are addressed by their flat index.

/// Elements and bytes of a block: element j is in byte j % 32 at shift 6 − 2·(j / 32).
const ELEMENTS: usize = 128;
const BYTES: usize = 32;
const SHIFTS: [u32; 4] = [6, 4, 2, 0];

/// The trits from flat index `start` on. The invalid code 3 comes out as 2.
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
