//! AVX2 with AVX-VNNI: the VEX-encoded `vpdpbusd`.
//!
//! Ternary inner loop, for half a word (8 rows × 16 columns), 128 weights:
//!
//! | | shared by a tile's tokens | per token |
//! |---|---|---|
//! | one token | 4 `vpand`, no shifts: the sums of the higher planes are shifted back at the end | 4 × (`vpbroadcastd`, `vpdpbusd`), two halves sharing each broadcast |
//! | several | 4 `vpand`, 3 `vpsrld` | 4 × (`vpbroadcastd`, `vpdpbusd`) |
//!
//! Bound: 4 `vpdpbusd` for 128 multiply-adds a token, one or two a cycle.

use super::avx2::Avx2;
use super::float::{stamp_floats, with_float_kernels};
use super::packing::Word;
use super::sums::{PLANES, TernaryDot, stamp_sums};
use super::{Isa, Kernels, promised};
use std::arch::x86_64::*;

with_float_kernels!(stamp_floats Avx2 "avx2,fma,f16c");
stamp_sums!(Vnni<false>, "avx2,avxvnni", 4, 2);

pub(super) static TABLE: Kernels =
    Kernels { isa: Isa::AvxVnni, two_bit_sums: sums, base3: None, peak_macs, floats: FLOATS };

/// The same steps in the EVEX encoding let a processor with AVX-512-VNNI alone test them.
struct Vnni<const EVEX: bool>;

impl<const EVEX: bool> TernaryDot for Vnni<EVEX> {
    const ROWS: usize = 8;
    const CHAINS: usize = 4;
    type Part = __m256i;
    type Bytes = __m256i;
    type Sum = __m256i;
    promised! {
        fn zero() -> __m256i { _mm256_setzero_si256() }
        fn load(word: &Word, part: usize) -> __m256i { Avx2::load(word, part) }
        fn codes(part: __m256i) -> [__m256i; PLANES] { Avx2::codes(part) }
        fn splat(q: [i8; 4]) -> __m256i { <Avx2 as TernaryDot>::splat(q) }
        fn dot(sum: __m256i, codes: __m256i, q: __m256i) -> __m256i {
            if EVEX { _mm256_dpbusd_epi32(sum, codes, q) } else { _mm256_dpbusd_avx_epi32(sum, codes, q) }
        }
        /// Codes are masked in place, so plane p counts 4^(3-p)-fold; 2·64·4·127 a step leaves i32 ample room.
        fn packed_dot(sums: &mut [__m256i; PLANES], part: __m256i, q: [__m256i; PLANES]) {
            for (p, mask) in [0xc0u8, 0x30, 0x0c, 0x03].into_iter().enumerate() {
                sums[p] = Self::dot(sums[p], _mm256_and_si256(part, _mm256_set1_epi8(mask as i8)), q[p]);
            }
        }
        fn packed_sum(sums: [__m256i; PLANES]) -> __m256i {
            let high = _mm256_add_epi32(_mm256_srai_epi32(sums[0], 6), _mm256_srai_epi32(sums[1], 4));
            _mm256_add_epi32(high, _mm256_add_epi32(_mm256_srai_epi32(sums[2], 2), sums[3]))
        }
        fn store(sum: __m256i, out: &mut [i32]) { <Avx2 as TernaryDot>::store([sum; 2], out) }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/avx_vnni.rs"]
mod tests;
