//! I2_S, Microsoft's type: 2-bit codes of the whole tensor, flattened by rows, then one f32 scale. Blocks of codes
//! may straddle rows, so elements are addressed by their flat index.

use super::ternary::first_code_3;

/// How codes lie in the bytes. The file does not say; all have the same size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interleave {
    /// Blocks of 128 elements in 32 bytes: element j of a block is in byte j % 32 at shift 6 − 2·(j / 32).
    L128,
}

/// Elements and bytes of an L128 block.
const ELEMENTS: usize = 128;
const BYTES: usize = 32;
const SHIFTS: [u32; 4] = [6, 4, 2, 0];

impl Interleave {
    /// The trits from flat index `start` on. The invalid code 3 comes out as 2.
    pub(super) fn unpack(self, codes: &[u8], mut start: usize, mut out: &mut [i8]) {
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

    /// The flat index of the first code 3, which stands for nothing, in a tensor's codes.
    pub fn first_code_3(self, codes: &[u8]) -> Option<usize> {
        first_code_3(codes, BYTES, SHIFTS)
    }
}
