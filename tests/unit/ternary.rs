use super::super::{Isa, kernels};
use super::*;

/// Compares `kernels` with scalar: every tail of tokens, both strip sizes, several depths, extreme values.
pub(in super::super) fn equals_scalar(kernels: &Kernels) {
    let scalar = super::super::kernels(Some("scalar")).expect("always there");
    let mut state = 1u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    for groups in 1..=2 {
        for blocks in [1, 2, 3, 7, 54] {
            for kind in 0..4 {
                let mut code = || match kind {
                    0 => 0xaa, // every trit +1
                    1 => 0,    // every trit -1
                    _ => (0..4).fold(0, |b, _| b << 2 | (random() % 3) as u8),
                };
                let words: Vec<Word> =
                    (0..groups * blocks * BLOCK_WORDS).map(|_| Word(std::array::from_fn(|_| code()))).collect();
                let q: Vec<Vec<i8>> = (0..TILE)
                    .map(|_| {
                        let mut value = || match kind {
                            0 => 127,
                            1 => -127,
                            2 => [-127, 127][random() as usize % 2],
                            _ => (random() % 255) as i8,
                        };
                        (0..blocks * BLOCK).map(|_| value().max(-127)).collect()
                    })
                    .collect();
                for n in 1..=TILE {
                    let tokens: Vec<&[i8]> = q.iter().take(n).map(|q| &q[..]).collect();
                    let (mut want, mut got) = ([[0; STRIP]; TILE], [[0; STRIP]; TILE]);
                    scalar.ternary_sums(&words, &tokens, &mut want);
                    kernels.ternary_sums(&words, &tokens, &mut got);
                    for t in 0..n {
                        let rows = groups * GROUP;
                        assert_eq!(want[t][..rows], got[t][..rows], "{groups} {blocks} {kind} {n} {t}");
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
