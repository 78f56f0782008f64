//! The fast Walsh-Hadamard transform of blocks of activations, in Sylvester's order, with signs before it.
//!
//! Stages run by ascending distance of their pairs: 1, 2, 4, … A stage replaces each pair (a, b) by (a + b, a − b), each
//! rounded once, so its bits do not depend on how many pairs an instruction takes.

use super::lanes::{F32x16, SimdF32, VECTOR_LEN};

/// `H` is the distance of pairs inside a vector: constant, so that the compiler makes one shuffle of the indices.
#[inline(always)]
fn stage_in_vector<const H: usize>(x: &mut F32x16) {
    let (mut other, mut out) = ([0f32; VECTOR_LEN], [0f32; VECTOR_LEN]);
    for l in 0..VECTOR_LEN {
        other[l] = x[l ^ H];
    }
    for l in 0..VECTOR_LEN {
        // The negation is exact, so this is a + b and a − b.
        out[l] = if l & H == 0 { other[l] + x[l] } else { other[l] - x[l] };
    }
    *x = out;
}

/// One stage over pairs that lie `distance` apart.
#[inline(always)]
fn stage(x: &mut [f32], distance: usize) {
    for pairs in x.chunks_mut(2 * distance) {
        let (a, b) = pairs.split_at_mut(distance);
        for (a, b) in a.iter_mut().zip(b) {
            (*a, *b) = (*a + *b, *a - *b);
        }
    }
}

#[inline(always)]
pub(super) fn hadamard<L: SimdF32>(x: &mut [f32], signs: &[f32], block: usize) {
    assert!(block.is_power_of_two() && x.len().is_multiple_of(block) && signs.len() == x.len());
    let factor = (1.0 / (block as f64).sqrt()) as f32;
    for (x, signs) in x.chunks_mut(block).zip(signs.chunks(block)) {
        for (x, sign) in x.iter_mut().zip(signs) {
            *x *= sign;
        }
        let mut distance = 1;
        if block >= VECTOR_LEN {
            for vector in x.as_chunks_mut::<VECTOR_LEN>().0 {
                stage_in_vector::<1>(vector);
                stage_in_vector::<2>(vector);
                stage_in_vector::<4>(vector);
                stage_in_vector::<8>(vector);
            }
            distance = VECTOR_LEN;
        }
        while distance < block {
            stage(x, distance);
            distance *= 2;
        }
        for x in x.iter_mut() {
            *x *= factor;
        }
    }
}
