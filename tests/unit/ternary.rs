use super::super::packing::{Packing, TWO_BIT_OF_BASE3};
use super::super::{Isa, Kernels, kernels};
use super::*;

/// More tokens than two tiles of any kernel.
const MOST: usize = 37;

/// Compares `kernels` with scalar: every tail of tokens, both strip sizes, several depths, extreme values.
pub(in super::super) fn equals_scalar(kernels: &Kernels) {
    let scalar = super::super::kernels(Some("scalar")).expect("always there");
    let mut state = 1u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    for (groups, packing) in [(1, Packing::TwoBit), (2, Packing::TwoBit), (1, Packing::Base3), (2, Packing::Base3)] {
        for blocks in [1, 2, 3, 7, 54] {
            for kind in 0..4 {
                let cols = packing.padded(1) * blocks;
                let mut code = || match (kind, packing) {
                    (0, Packing::TwoBit) => 0xaa, // every trit +1
                    (0, Packing::Base3) => 242,
                    (1, _) => 0, // every trit -1
                    (_, Packing::TwoBit) => TWO_BIT_OF_BASE3[random() as usize % 81],
                    (_, Packing::Base3) => (random() % 243) as u8,
                };
                let words: Vec<Word> =
                    (0..groups * packing.words(cols)).map(|_| Word(std::array::from_fn(|_| code()))).collect();
                let value = |random: u32| match kind {
                    0 => 127,
                    1 => -127,
                    2 => [-127, 127][random as usize % 2],
                    _ => ((random % 255) as i8).max(-127),
                };
                let stride = cols + BLOCK;
                let q: Vec<i8> = (0..MOST * stride).map(|_| value(random())).collect();
                let tokens = Tokens::new(&q, stride, cols);
                let mut want = vec![[0; STRIP]; MOST];
                for (first, want) in (0..MOST).step_by(MAX_TILE_TOKENS).zip(want.chunks_mut(MAX_TILE_TOKENS)) {
                    let tokens = tokens.range(first..MOST.min(first + MAX_TILE_TOKENS));
                    scalar.ternary_sums(packing, &words, tokens, want);
                }
                for n in (1..=MOST).filter(|n| *n == kernels.tokens_per_call(*n).min(*n)) {
                    let mut got = vec![[0; STRIP]; n];
                    kernels.ternary_sums(packing, &words, tokens.range(0..n), &mut got);
                    for t in 0..n {
                        let rows = groups * GROUP;
                        assert_eq!(want[t][..rows], got[t][..rows], "{packing:?} {groups} {blocks} {kind} {n} {t}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_instruction_set_equals_scalar() {
    for isa in Isa::available() {
        equals_scalar(kernels(Some(isa.name())).expect("available"));
    }
}

#[test]
fn base3_words_unpack_to_the_two_bit_words_of_the_same_rows() {
    let cols = 3 * Packing::Base3.padded(1);
    let bytes: Vec<u8> = (0..cols / 4).map(|i| TWO_BIT_OF_BASE3[i * 37 % 81]).collect();
    let pack = |packing: Packing| {
        let mut words = vec![Word([0; 64]); packing.words(cols)];
        (0..GROUP).for_each(|row| packing.write_row(&mut words, row, &[&bytes[row..], &bytes[..row]].concat()));
        words
    };
    for isa in Isa::available() {
        let mut two_bit = vec![Word([1; 64]); Packing::TwoBit.words(cols)];
        kernels(Some(isa.name())).expect("available").base3_to_two_bit(&pack(Packing::Base3), &mut two_bit);
        assert!(two_bit.iter().zip(pack(Packing::TwoBit)).all(|(a, b)| a.0 == b.0), "{}", isa.name());
    }
}
