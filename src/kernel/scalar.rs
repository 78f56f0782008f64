//! Plain Rust, for any processor: the reference that every other instruction set must equal.

use super::f16::f16_to_f32_portable;
use super::grouped_dot::{GroupedKernels, GroupedRows, GroupedToken};
use super::isa::Isa;
use super::lanes::{F16Bytes, F32x16, SimdF32};
use super::neuron_dot::{NeuronKernels, NeuronLines, PLANE};
use super::packing::{BLOCK, GROUP, TWO_BIT_WORDS, WORD_COLS, Word};
use super::quantized_head::Int8Dot;
use super::table::{Kernels, stamp_floats};
use super::ternary_dot::{STRIP, TileSums};
use std::hint::black_box;

/// An array of 16 floats makes a vector. No function needs an instruction set, so all of them are safe to call.
struct Scalar;

stamp_floats! { lanes: Scalar }

pub(super) static TABLE: Kernels = Kernels {
    isa: Isa::Scalar,
    two_bit_sums,
    two_bit_neurons: NEURONS,
    base3: None,
    many: None,
    grouped: GROUPED,
    peak_macs,
    byte_dots: None,
    look_ups: &[],
    floats: FLOATS,
};

impl SimdF32 for Scalar {
    const WIDE_TILES: bool = false;
    type Vector = F32x16;
    #[inline(always)]
    unsafe fn splat(x: f32) -> F32x16 {
        [x; 16]
    }
    #[inline(always)]
    unsafe fn load(x: &F32x16) -> F32x16 {
        *x
    }
    #[inline(always)]
    unsafe fn store(v: F32x16, out: &mut F32x16) {
        *out = v;
    }
    #[inline(always)]
    unsafe fn fma(a: F32x16, b: F32x16, c: F32x16) -> F32x16 {
        std::array::from_fn(|l| a[l].mul_add(b[l], c[l]))
    }
    #[inline(always)]
    unsafe fn f16_to_f32(h: &[F16Bytes; 16]) -> F32x16 {
        f16_to_f32_portable(h)
    }
    #[inline(always)]
    unsafe fn i32_to_f32(x: &[i32; 16]) -> F32x16 {
        x.map(|x| x as f32)
    }
}

impl Int8Dot for Scalar {
    type Weights = [i8; 32];
    type Sums = i32;
    #[inline(always)]
    unsafe fn zero() -> i32 {
        0
    }
    #[inline(always)]
    unsafe fn i8_to_i16(w: &[i8; 32]) -> [i8; 32] {
        *w
    }
    #[inline(always)]
    unsafe fn madd(sums: i32, w: [i8; 32], x: &[i16; 32]) -> i32 {
        w.iter().zip(x).fold(sums, |sum, (w, x)| sum + *w as i32 * *x as i32)
    }
    #[inline(always)]
    unsafe fn total(sums: i32) -> i32 {
        sums
    }
}

fn two_bit_sums(words: &[Word], tokens: &[&[i8]], sums: &mut TileSums) {
    let per_group = tokens[0].len() / WORD_COLS;
    for (token, sums) in tokens.iter().zip(sums) {
        for (words, sums) in words.chunks(per_group).zip(sums.as_chunks_mut::<GROUP>().0) {
            *sums = [0; GROUP];
            for (i, word) in words.iter().enumerate() {
                let first = i / TWO_BIT_WORDS * BLOCK + 4 * (i % TWO_BIT_WORDS);
                for plane in 0..4 {
                    for j in 0..4 {
                        let q = token[first + 32 * plane + j] as i32;
                        for (r, sum) in sums.iter_mut().enumerate() {
                            *sum += (word.0[4 * r + j] >> (6 - 2 * plane) & 3) as i32 * q;
                        }
                    }
                }
            }
        }
    }
}

/// Neurons by plain loops over lines, planes and bytes.
const NEURONS: NeuronKernels = NeuronKernels { up_rows, down_columns };

fn up_rows(neurons: NeuronLines, starts: &[usize], x: &[[i8; PLANE]], sums: &mut [i32]) {
    assert!(starts.len() == sums.len() && x.len() == 4 * neurons.per_neuron);
    for (start, sum) in starts.iter().zip(sums) {
        *sum = 0;
        for (line, x) in neurons.words[*start..][..neurons.per_neuron].iter().zip(x.as_chunks::<4>().0) {
            for (plane, x) in x.iter().enumerate() {
                let products = line.0.iter().zip(x).map(|(byte, x)| (byte >> (6 - 2 * plane) & 3) as i32 * *x as i32);
                *sum += products.sum::<i32>();
            }
        }
    }
}

fn down_columns(neurons: NeuronLines, starts: &[usize], q: &[i8], lines: &[usize], sums: &mut [[i32; PLANE]]) {
    assert!(starts.len() == q.len() && sums.len() == 4 * lines.len());
    sums.fill([0; PLANE]);
    for (start, q) in starts.iter().zip(q) {
        let column = &neurons.words[*start..][..neurons.per_neuron];
        for (line, sums) in lines.iter().zip(sums.as_chunks_mut::<4>().0) {
            for (plane, sums) in sums.iter_mut().enumerate() {
                for (byte, sum) in column[*line].0.iter().zip(sums) {
                    *sum += (byte >> (6 - 2 * plane) & 3) as i32 * *q as i32;
                }
            }
        }
    }
}

/// Grouped rows by plain loops over rows and columns.
const GROUPED: GroupedKernels = GroupedKernels { one: grouped_one, tile: grouped_tile, many: None };

fn grouped_one(rows: &GroupedRows, x: GroupedToken, y: &mut F32x16) {
    assert_eq!(rows.base3_blocks, 0, "only VBMI packs base3");
    let groups = if rows.halves { 2 } else { 1 };
    let planes = x.planes.map(|plane| plane.as_chunks::<BLOCK>().0);
    *y = [0.0; GROUP];
    for (block, words) in rows.words.as_chunks::<TWO_BIT_WORDS>().0.iter().enumerate() {
        for group in 0..groups {
            let columns = BLOCK / groups * group..BLOCK / groups * (group + 1);
            let scales = f16_to_f32_portable(rows.scales_of(groups * block + group));
            for (r, (y, scale)) in y.iter_mut().zip(scales).enumerate() {
                let trit = |c: usize| (words[c % 32 / 4].0[4 * r + c % 4] >> (6 - 2 * (c / 32)) & 3) as i32 - 1;
                let byte = |plane: &[[i8; BLOCK]], c: usize| plane.get(block).map_or(0, |block| block[c] as i32);
                let integer = |c: usize| planes.iter().fold(0, |sum, plane| 256 * sum + byte(plane, c));
                let sum: i32 = columns.clone().map(|c| trit(c) * integer(c)).sum();
                *y = (sum as f32 * x.scales[block].s).mul_add(scale, *y);
            }
        }
    }
}

fn grouped_tile(rows: &[GroupedRows], tokens: &[GroupedToken], y: &mut [[f32; STRIP]]) {
    for (x, y) in tokens.iter().zip(y) {
        for (rows, y) in rows.iter().zip(y.as_chunks_mut().0) {
            grouped_one(rows, *x, y);
        }
    }
}

/// The multiply-adds of a plain loop as the compiler vectorises it; one token a round.
fn peak_macs(rounds: usize) -> u64 {
    let codes = black_box([1u8; GROUP]);
    let mut sums = [0i32; GROUP];
    for _ in 0..rounds {
        // Opaque in each iteration: the compiler must not move the products out of the loop.
        let q = black_box(1i8) as i32;
        for (sum, code) in sums.iter_mut().zip(codes) {
            *sum += (code & 3) as i32 * q;
        }
    }
    sums.into_iter().map(|sum| sum as u64).sum()
}
