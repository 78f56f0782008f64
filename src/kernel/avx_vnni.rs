//! AVX2 with AVX-VNNI: the VEX-encoded `vpdpbusd`.
//!
//! Ternary inner loop, for half a word (8 rows × 16 columns) and one token: 4 `vpand` + 3 `vpsrld` shared by the
//! tokens of a tile; per token 4 `vpdpbusd` with a broadcast load each: 128 weights an instruction-quad.

use super::avx2::{Avx2, lane_sum};
use super::float::{slices, stamp_floats, with_float_kernels};
use super::ternary::{BLOCK, BLOCK_WORDS, STRIP, Sums, WORD_COLS, Word};
use super::{Isa, Kernels};
use std::arch::x86_64::*;
use std::hint::black_box;

with_float_kernels!(stamp_floats Avx2 "avx2,fma,f16c");

pub(super) static TABLE: Kernels =
    Kernels { isa: Isa::AvxVnni, ternary_sums: vex::ternary_sums, dots: vex::dots, floats: FLOATS };

/// The kernel's text, compiled for one encoding of the instruction.
macro_rules! encode {
    ($name:ident, $features:literal, $dpbusd:ident) => {
        mod $name {
            use super::*;

            #[target_feature(enable = $features)]
            pub fn ternary_sums(words: &[Word], tokens: &[&[i8]], sums: &mut Sums) {
                let per_group = tokens[0].len() / WORD_COLS;
                for (g, words) in words.chunks(per_group).enumerate() {
                    for half in 0..2 {
                        let first_row = 16 * g + 8 * half;
                        let mut t = 0;
                        while t + 6 <= tokens.len() {
                            tile::<6>(words, half, tokens[t..].first_chunk().expect("six"), &mut sums[t..], first_row);
                            t += 6;
                        }
                        while t < tokens.len() {
                            tile::<1>(words, half, &[tokens[t]], &mut sums[t..], first_row);
                            t += 1;
                        }
                    }
                }
            }

            #[inline]
            #[target_feature(enable = $features)]
            fn tile<const N: usize>(
                words: &[Word],
                half: usize,
                tokens: &[&[i8]; N],
                sums: &mut [[i32; STRIP]],
                first_row: usize,
            ) {
                let tokens: [&[[i8; BLOCK]]; N] = slices(|t| tokens[t].as_chunks().0);
                let mask = _mm256_set1_epi8(3);
                let mut acc = [[_mm256_setzero_si256(); 2]; N];
                for (b, block) in words.as_chunks::<BLOCK_WORDS>().0.iter().enumerate() {
                    for (w, word) in block.iter().enumerate() {
                        // SAFETY: a word is 64 bytes; `half` is 0 or 1.
                        let word = unsafe { _mm256_load_si256(word.0.as_ptr().cast::<__m256i>().add(half)) };
                        let planes = [
                            _mm256_and_si256(_mm256_srli_epi32(word, 6), mask),
                            _mm256_and_si256(_mm256_srli_epi32(word, 4), mask),
                            _mm256_and_si256(_mm256_srli_epi32(word, 2), mask),
                            _mm256_and_si256(word, mask),
                        ];
                        for (p, plane) in planes.iter().enumerate() {
                            for t in 0..N {
                                let q = tokens[t][b][32 * p + 4 * w..].first_chunk::<4>().expect("within the block");
                                let q = _mm256_set1_epi32(i32::from_le_bytes(q.map(|q| q as u8)));
                                acc[t][p % 2] = $dpbusd(acc[t][p % 2], *plane, q);
                            }
                        }
                    }
                }
                for t in 0..N {
                    let out: &mut [i32] = &mut sums[t][first_row..first_row + 8];
                    // SAFETY: eight sums are written to a slice of eight.
                    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm256_add_epi32(acc[t][0], acc[t][1])) };
                }
            }

            /// Twelve chains, more than the instruction's latency and ports can hold.
            #[target_feature(enable = $features)]
            pub fn dots(rounds: usize) -> u64 {
                let [a, b] = black_box([_mm256_set1_epi8(1); 2]);
                let mut acc = black_box([_mm256_setzero_si256(); 12]);
                for _ in 0..rounds {
                    for acc in &mut acc {
                        *acc = $dpbusd(*acc, a, b);
                    }
                }
                acc.into_iter().map(|acc| lane_sum(acc)).sum()
            }
        }
    };
}

encode!(vex, "avx2,avxvnni", _mm256_dpbusd_avx_epi32);

/// The same text in the EVEX encoding, so that a processor with AVX-512-VNNI alone can test it.
#[cfg(test)]
#[path = "../../tests/unit/avx_vnni.rs"]
mod tests;
