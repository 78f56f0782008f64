//! The tensor codecs, compared with values of gguf-py, published test vectors, and encoders written here from the
//! description of each format.

use bitnet::checkpoint::gguf::TensorType;
use bitnet::codec::{RowTrits, TensorRows, bf16_to_f32, f16_to_f32};
use proptest::prelude::*;

macro_rules! fixture {
    ($file:literal) => {
        include_bytes!(concat!("fixtures/codec/", $file)).as_slice()
    };
}

fn rows(kind: TensorType, rows: usize, cols: usize, bytes: &[u8]) -> TensorRows<'_> {
    TensorRows::new("t", kind, rows, cols, bytes).unwrap()
}

/// All trits of a tensor, and the result for each row.
fn all_trits(view: &TensorRows) -> (Vec<i8>, Vec<RowTrits>) {
    let mut trits = vec![0; view.rows() * view.cols()];
    let found = trits.chunks_mut(view.cols()).enumerate().map(|(row, out)| view.trits(row, out).unwrap());
    let found = found.collect();
    (trits, found)
}

fn all_values(view: &TensorRows) -> Vec<f32> {
    let mut values = vec![f32::NAN; view.rows() * view.cols()];
    values.chunks_mut(view.cols()).enumerate().for_each(|(row, out)| view.dequantize(row, out));
    values
}

/// The error of an invalid row, which must be the same from `trits` and from `check`.
fn fault(view: &TensorRows, row: usize) -> String {
    let message = view.trits(row, &mut vec![0; view.cols()]).unwrap_err().to_string();
    assert_eq!(view.check(row).unwrap_err().to_string(), message);
    message
}

// Halves ------------------------------------------------------------------------------------------------------------

#[test]
fn every_f16_converts_exactly() {
    for bits in 0..=u16::MAX {
        let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
        let magnitude = match exponent {
            0 => fraction * 2f64.powi(-24),
            31 if fraction == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
        };
        let expected = if bits & 0x8000 == 0 { magnitude } else { -magnitude };
        let found = f16_to_f32(bits);
        assert_eq!(f64::from(found).is_nan(), expected.is_nan(), "{bits:#06x}");
        assert_eq!(found.is_sign_negative(), bits & 0x8000 != 0, "{bits:#06x}");
        assert!(expected.is_nan() || f64::from(found) == expected, "{bits:#06x}: {found} is not {expected}");
    }
}

#[test]
fn bf16_is_the_upper_half() {
    assert_eq!(bf16_to_f32(0x3fc0), 1.5);
    assert_eq!(bf16_to_f32(0x8001).to_bits(), 0x8001_0000);
}

// Values of gguf-py -------------------------------------------------------------------------------------------------

#[test]
fn dequantized_values_are_the_bits_of_gguf_py() {
    let fixtures = [
        (TensorType::F16, fixture!("f16.bin"), fixture!("f16.f32")),
        (TensorType::BF16, fixture!("bf16.bin"), fixture!("bf16.f32")),
        (TensorType::Q8_0, fixture!("q8_0.bin"), fixture!("q8_0.f32")),
        (TensorType::Q4_0, fixture!("q4_0.bin"), fixture!("q4_0.f32")),
        (TensorType::Q5_0, fixture!("q5_0.bin"), fixture!("q5_0.f32")),
        (TensorType::Q4_K, fixture!("q4_k.bin"), fixture!("q4_k.f32")),
        (TensorType::Q5_K, fixture!("q5_k.bin"), fixture!("q5_k.f32")),
        (TensorType::Q6_K, fixture!("q6_k.bin"), fixture!("q6_k.f32")),
        (TensorType::TQ1_0, fixture!("tq1_0.bin"), fixture!("tq1_0.f32")),
        (TensorType::TQ2_0, fixture!("tq2_0.bin"), fixture!("tq2_0.f32")),
        (TensorType::F32, fixture!("q6_k.f32"), fixture!("q6_k.f32")),
    ];
    for (kind, bytes, expected) in fixtures {
        let expected: Vec<u32> = expected.as_chunks().0.iter().map(|raw| u32::from_le_bytes(*raw)).collect();
        let found: Vec<u32> = all_values(&rows(kind, 3, 512, bytes)).iter().map(|value| value.to_bits()).collect();
        assert_eq!(found, expected, "{kind}");
    }
}

#[test]
fn every_scale_is_checked() {
    let fixtures = [
        (TensorType::Q8_0, fixture!("q8_0.bin"), vec![0]),
        (TensorType::Q4_0, fixture!("q4_0.bin"), vec![0]),
        (TensorType::Q5_0, fixture!("q5_0.bin"), vec![0]),
        (TensorType::Q4_K, fixture!("q4_k.bin"), vec![0, 2]),
        (TensorType::Q5_K, fixture!("q5_k.bin"), vec![0, 2]),
        (TensorType::Q6_K, fixture!("q6_k.bin"), vec![208]),
        (TensorType::TQ1_0, fixture!("tq1_0.bin"), vec![52]),
    ];
    for (kind, bytes, scales) in fixtures {
        rows(kind, 3, 512, bytes).check(1).unwrap();
        for at in scales {
            let mut broken = bytes.to_vec();
            let block = bytes.len() / 3 + kind.block_bytes();
            broken[block + at..][..2].copy_from_slice(&0x7e00u16.to_le_bytes());
            let view = rows(kind, 3, 512, &broken);
            view.check(0).unwrap();
            let message = view.check(1).unwrap_err().to_string();
            assert!(message.contains("row 1, column") && message.contains("is NaN"), "{kind}: {message}");
        }
    }
}

#[test]
fn ternary_weights_in_q4_0_are_recognized() {
    let lossy = |codes: u8| {
        rows(TensorType::Q4_0, 1, 32, &[&HALF.to_le_bytes()[..], &[codes; 16]].concat()).is_lossy_ternary(0)
    };
    assert!(lossy(0xf0) && lossy(0xf8));
    assert!(!lossy(0x88) && !lossy(0xf7) && !lossy(0x3a));
}

// Encoders, written from the description of each format -------------------------------------------------------------

/// The published sequence of trits.
fn published_trits(count: usize) -> Vec<i8> {
    let step = |state: &mut u32| {
        *state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        Some((*state >> 24) as i32 % 3 - 1)
    };
    std::iter::repeat_n((), count).scan(1u32, |state, ()| step(state)).map(|trit| trit as i8).collect()
}

fn code(trit: i8) -> u8 {
    (trit + 1) as u8
}

/// A byte of base-3 digits, the most significant first. Missing digits are 0.
fn digit_byte(trits: impl IntoIterator<Item = i8>) -> u8 {
    let powers = [81, 27, 9, 3, 1];
    let value: u32 = trits.into_iter().zip(powers).map(|(trit, power)| u32::from(code(trit)) * power).sum();
    (256 * value).div_ceil(243) as u8
}

/// Encodes I2_S. `padding` fills the 28 bytes after the scale, whose content is undefined.
fn encode_i2s(trits: &[i8], scale: f32, padding: u8) -> Vec<u8> {
    let mut bytes = vec![0; trits.len() / 4];
    for (i, &trit) in trits.iter().enumerate() {
        let (block, j) = (i / 128, i % 128);
        bytes[32 * block + j % 32] |= code(trit) << (6 - 2 * (j / 32));
    }
    bytes.extend(scale.to_le_bytes());
    bytes.extend([padding; 28]);
    bytes
}

fn encode_tq2(trits: &[i8], d: u16) -> Vec<u8> {
    let block = |block: &[i8]| {
        let mut bytes = [0; 66];
        for (e, &trit) in block.iter().enumerate() {
            bytes[32 * (e / 128) + e % 32] |= code(trit) << (2 * (e / 32 % 4));
        }
        bytes[64..].copy_from_slice(&d.to_le_bytes());
        bytes
    };
    trits.chunks(256).flat_map(block).collect()
}

fn encode_tq1(trits: &[i8], d: u16) -> Vec<u8> {
    let block = |block: &[i8]| {
        let mut bytes = Vec::new();
        bytes.extend((0..32).map(|m| digit_byte((0..5).map(|n| block[32 * n + m]))));
        bytes.extend((0..16).map(|m| digit_byte((0..5).map(|n| block[160 + 16 * n + m]))));
        // The fifth digit is 0, the digit of −1.
        bytes.extend((0..4).map(|m| digit_byte((0..4).map(|n| block[240 + 4 * n + m]).chain([-1]))));
        bytes.extend(d.to_le_bytes());
        bytes
    };
    trits.chunks(256).flat_map(block).collect()
}

fn encode_iq1(trits: &[i8], cols: usize, scale: u16) -> Vec<u8> {
    let block = |block: &[i8]| {
        let mut bytes = Vec::new();
        for group in block.chunks(16) {
            bytes.extend(group[..15].chunks(5).map(|five| digit_byte(five.iter().rev().copied())));
        }
        bytes.push(digit_byte([-1, block[63], block[47], block[31], block[15]]));
        bytes
    };
    let row = |row: &[i8]| [scale.to_le_bytes().to_vec(), row.chunks(64).flat_map(block).collect()].concat();
    trits.chunks(cols).flat_map(row).collect()
}

fn encode_iq2(trits: &[i8], cols: usize, scale: f32) -> Vec<u8> {
    let block = |block: &[i8]| {
        let mut bytes = [0; 16];
        for (j, &trit) in block.iter().enumerate() {
            bytes[j % 16] |= code(trit) << (2 * (j / 16));
        }
        bytes
    };
    let row = |row: &[i8]| [scale.to_le_bytes().to_vec(), row.chunks(64).flat_map(block).collect()].concat();
    trits.chunks(cols).flat_map(row).collect()
}

/// The bits of 0.5 as f16.
const HALF: u16 = 0x3800;

#[test]
fn published_vectors_encode_and_decode() {
    let trits = published_trits(512);
    assert_eq!(trits[..16], [-1, 0, -1, -1, -1, 0, -1, 0, 0, 0, 0, -1, 0, 0, -1, 1]);
    let vectors = [
        (TensorType::I2_S, 4, 128, fixture!("vector_i2_s.bin"), encode_i2s(&trits, 0.5, 0)),
        (TensorType::TQ1_0, 1, 256, fixture!("vector_tq1_0.bin"), encode_tq1(&trits[..256], HALF)),
        (TensorType::TQ2_0, 1, 256, fixture!("vector_tq2_0.bin"), encode_tq2(&trits[..256], HALF)),
        (TensorType::IQ1_BN, 1, 128, fixture!("vector_iq1_bn.bin"), encode_iq1(&trits[..128], 128, HALF)),
        (TensorType::IQ2_BN, 1, 128, fixture!("vector_iq2_bn.bin"), encode_iq2(&trits[..128], 128, 0.5)),
    ];
    for (kind, n, cols, published, encoded) in vectors {
        assert_eq!(published, encoded, "{kind}");
        let view = rows(kind, n, cols, published);
        let (found, scales) = all_trits(&view);
        assert_eq!(found, trits[..n * cols], "{kind}");
        assert_eq!(scales, vec![RowTrits::Scale(0.5); n], "{kind}");
        let expected: Vec<f32> = found.iter().map(|&trit| 0.5 * f32::from(trit)).collect();
        assert_eq!(all_values(&view), expected, "{kind}");
    }
}

/// A number of rows, a number of columns (a multiple of `step`), and trits for them.
fn matrices(step: usize, max_rows: usize, max_steps: usize) -> impl Strategy<Value = (usize, usize, Vec<i8>)> {
    (1..=max_rows, 1..=max_steps).prop_flat_map(move |(rows, steps)| {
        let cols = step * steps;
        proptest::collection::vec(-1i8..=1, rows * cols).prop_map(move |trits| (rows, cols, trits))
    })
}

fn assert_ternary(kind: TensorType, (n, cols): (usize, usize), trits: &[i8], scale: f32, bytes: &[u8]) {
    let view = rows(kind, n, cols, bytes);
    let expected = trits.chunks(cols).map(|row| match row.iter().any(|&trit| trit != 0) {
        true => RowTrits::Scale(scale),
        false => RowTrits::Zero,
    });
    assert_eq!(all_trits(&view), (trits.to_vec(), expected.collect()), "{kind} {n}x{cols}");
    let values: Vec<f32> = trits.iter().map(|&trit| scale * f32::from(trit)).collect();
    assert_eq!(all_values(&view), values, "{kind} {n}x{cols}");
    if view.stored_scales(0).is_some() {
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
        let stored: Vec<f32> = (0..n).flat_map(|row| stored(&view, row).1).collect();
        assert_eq!(bits(&stored), bits(&all_values(&view)), "{kind} {n}x{cols}");
    }
    assert_eq!(view.is_zero(), is_zero_by_value(&view), "{kind} {n}x{cols}");
}

/// The trits of a row as a ternary type stores them, and these times their scales.
fn stored(view: &TensorRows, row: usize) -> (Vec<i8>, Vec<f32>) {
    let mut trits = vec![0; view.cols()];
    view.stored_trits(row, &mut trits).unwrap();
    let scales = view.stored_scales(row).unwrap();
    let groups = trits.chunks(view.cols() / scales.len()).zip(&scales);
    let values = groups.flat_map(|(trits, scale)| trits.iter().map(move |trit| scale * f32::from(*trit))).collect();
    (trits, values)
}

/// What [`TensorRows::is_zero`] tells, without its shortcuts.
fn is_zero_by_value(view: &TensorRows) -> bool {
    match view.i2s() {
        Some(_) => (0..view.rows()).all(|row| stored(view, row).0.iter().all(|trit| *trit == 0)),
        None => all_values(view).iter().all(|value| *value == 0.0),
    }
}

proptest! {
    /// Rows of 32 or more columns, so that blocks of 128 elements run over row ends.
    #[test]
    fn i2s_round_trip((n, cols, trits) in matrices(32, 3, 20), scale in 1e-6f32..100.0, padding in any::<u8>()) {
        let trits = trits.repeat(4);
        assert_ternary(TensorType::I2_S, (4 * n, cols), &trits, scale, &encode_i2s(&trits, scale, padding));
    }

    #[test]
    fn tq_round_trip((n, cols, trits) in matrices(256, 3, 3), d in 1u16..0x7c00) {
        let (shape, scale) = ((n, cols), f16_to_f32(d));
        assert_ternary(TensorType::TQ1_0, shape, &trits, scale, &encode_tq1(&trits, d));
        assert_ternary(TensorType::TQ2_0, shape, &trits, scale, &encode_tq2(&trits, d));
    }

    #[test]
    fn iq_round_trip((n, cols, trits) in matrices(64, 4, 10), d in 1u16..0x7c00) {
        let (shape, scale) = ((n, cols), f16_to_f32(d));
        assert_ternary(TensorType::IQ1_BN, shape, &trits, scale, &encode_iq1(&trits, cols, d));
        assert_ternary(TensorType::IQ2_BN, shape, &trits, scale, &encode_iq2(&trits, cols, scale));
    }

    /// Ternary weights that were converted to a plain type or Q8_0 keep their trits.
    #[test]
    fn republished_round_trip((n, cols, trits) in matrices(32, 3, 20), d in 1u16..0x7c00) {
        let scale = f16_to_f32(d);
        let f32s: Vec<u8> = trits.iter().flat_map(|&trit| (scale * f32::from(trit)).to_le_bytes()).collect();
        assert_ternary(TensorType::F32, (n, cols), &trits, scale, &f32s);
        let sign = |trit: i8| if trit < 0 { 0x8000 } else { 0 };
        let halves = |bits: u16| -> Vec<u8> {
            trits.iter().flat_map(|&trit| (if trit == 0 { 0 } else { bits | sign(trit) }).to_le_bytes()).collect()
        };
        assert_ternary(TensorType::F16, (n, cols), &trits, scale, &halves(d));
        assert_ternary(TensorType::BF16, (n, cols), &trits, bf16_to_f32(d), &halves(d));
        // As quantizers write Q8_0: a block of zeros has the scale 0, any other reaches ±127.
        let block = |block: &[i8]| -> Vec<u8> {
            let d = if block.iter().all(|&trit| trit == 0) { 0 } else { d };
            d.to_le_bytes().into_iter().chain(block.iter().map(|&trit| (127 * trit) as u8)).collect()
        };
        let q8: Vec<u8> = trits.chunks(32).flat_map(block).collect();
        assert_ternary(TensorType::Q8_0, (n, cols), &trits, 127.0 * scale, &q8);
    }

    #[test]
    fn the_error_names_the_first_code_3(
        mut codes in proptest::collection::vec(0u8..3, 512),
        at in proptest::option::of((0usize..512, 0usize..512)),
    ) {
        let mut threes: Vec<usize> = at.into_iter().flat_map(|(a, b)| [a, b]).collect();
        threes.iter().for_each(|&at| codes[at] = 3);
        threes.sort_unstable();
        let trits: Vec<i8> = codes.iter().map(|&code| code as i8 - 1).collect();
        for (kind, bytes) in [
            (TensorType::I2_S, encode_i2s(&trits, 1.0, 0)),
            (TensorType::TQ2_0, encode_tq2(&trits, HALF)),
            (TensorType::IQ2_BN, encode_iq2(&trits, 512, 1.0)),
        ] {
            let view = rows(kind, 1, 512, &bytes);
            match threes.first() {
                None => prop_assert!(view.trits(0, &mut [0; 512]).is_ok()),
                Some(at) => {
                    let found = fault(&view, 0);
                    prop_assert!(found.contains(&format!("column {} holds the code 3", at)), "{}", found);
                }
            }
        }
    }
}

#[test]
fn i2s_blocks_run_over_row_ends() {
    let trits = published_trits(4 * 192);
    assert_ternary(TensorType::I2_S, (4, 192), &trits, 0.75, &encode_i2s(&trits, 0.75, 0xff));
}

// Rows that are not ternary or not valid ----------------------------------------------------------------------------

#[test]
fn signs_of_scales_go_into_the_trits() {
    let trits = published_trits(256);
    let negated: Vec<i8> = trits.iter().map(|trit| -trit).collect();
    let minus_half = HALF | 0x8000;
    assert_ternary(TensorType::I2_S, (2, 128), &negated, 0.5, &encode_i2s(&trits, -0.5, 0));
    assert_ternary(TensorType::TQ1_0, (1, 256), &negated, 0.5, &encode_tq1(&trits, minus_half));
    assert_ternary(TensorType::TQ2_0, (1, 256), &negated, 0.5, &encode_tq2(&trits, minus_half));
    assert_ternary(TensorType::IQ1_BN, (2, 128), &negated, 0.5, &encode_iq1(&trits, 128, minus_half));
    assert_ternary(TensorType::IQ2_BN, (2, 128), &negated, 0.5, &encode_iq2(&trits, 128, -0.5));
}

#[test]
fn a_scale_of_zero_makes_zeros() {
    let (trits, zeros) = (published_trits(256), vec![0; 256]);
    for scale in [0.0, -0.0] {
        assert_ternary(TensorType::I2_S, (2, 128), &zeros, 1.0, &encode_i2s(&trits, scale, 0xff));
    }
    assert_ternary(TensorType::TQ1_0, (1, 256), &zeros, 1.0, &encode_tq1(&trits, 0));
    let bytes = encode_iq2(&trits, 128, 0.0);
    assert_ternary(TensorType::IQ2_BN, (2, 128), &zeros, 1.0, &bytes);
    assert_eq!(stored(&rows(TensorType::IQ2_BN, 2, 128, &bytes), 1).0, trits[128..], "its codes are still there");
}

#[test]
fn only_the_last_value_keeps_a_tensor_from_being_zero() {
    let mut trits = vec![0; 512];
    for last in [0, 1] {
        trits[511] = last;
        let views = [
            (TensorType::I2_S, encode_i2s(&trits, 0.5, 0xff)),
            (TensorType::TQ1_0, [&encode_tq1(&trits[..256], HALF)[..], &encode_tq1(&trits[256..], HALF)].concat()),
            (TensorType::IQ1_BN, encode_iq1(&trits, 256, HALF)),
            (TensorType::F32, trits.iter().flat_map(|trit| f32::from(*trit).to_le_bytes()).collect()),
        ];
        for (kind, bytes) in views {
            assert_eq!(rows(kind, 2, 256, &bytes).is_zero(), last == 0, "{kind}");
        }
    }
    assert!(rows(TensorType::F32, 2, 256, &[0; 2048]).stored_scales(0).is_none());
}

#[test]
fn blocks_of_zeros_do_not_affect_the_scale() {
    let (trits, zeros) = (published_trits(256), [0; 256]);
    // In order: zeros with another scale, any codes with the scale 0, and a block with both signs.
    let blocks = [encode_tq2(&zeros, 0x4400), encode_tq2(&trits, 0), encode_tq2(&trits, HALF)].concat();
    let expected = [zeros.to_vec(), zeros.to_vec(), trits].concat();
    assert_ternary(TensorType::TQ2_0, (1, 768), &expected, 0.5, &blocks);
}

#[test]
fn several_magnitudes_are_not_ternary() {
    let trits = published_trits(256);
    let blocks = [encode_tq1(&trits, HALF), encode_tq1(&trits, 0x4400)].concat();
    let mut out = vec![0; 512];
    assert_eq!(rows(TensorType::TQ1_0, 1, 512, &blocks).trits(0, &mut out).unwrap(), RowTrits::Mixed(0.5, 4.0));
    // The second row alone is ternary.
    let view = rows(TensorType::TQ1_0, 2, 256, &blocks);
    assert_eq!(view.trits(1, &mut out[..256]).unwrap(), RowTrits::Scale(4.0));
    assert_eq!(out[..256], trits);
    // Q4_0 stores −1 and +1 as −8/8 and +7/8.
    let q4 = [HALF.to_le_bytes().to_vec(), vec![0xf0; 16]].concat();
    assert_eq!(rows(TensorType::Q4_0, 1, 32, &q4).trits(0, &mut out[..32]).unwrap(), RowTrits::Mixed(4.0, 3.5));
}

#[test]
fn code_3_is_an_error_that_says_where() {
    let trits = published_trits(4 * 192);
    let mut bytes = encode_i2s(&trits, 1.0, 0);
    let at = 2 * 192 + 100;
    bytes[32 * (at / 128) + at % 32] |= 3 << (6 - 2 * (at % 128 / 32));
    let view = rows(TensorType::I2_S, 4, 192, &bytes);
    assert!(fault(&view, 2).contains("tensor 't' of type I2_S: row 2, column 100 holds the code 3"));
    assert!(view.trits(1, &mut [0; 192]).is_ok());

    let mut bytes = encode_tq2(&published_trits(512), HALF);
    bytes[66 + 32 + 5] |= 3 << 4;
    assert!(fault(&rows(TensorType::TQ2_0, 1, 512, &bytes), 0).contains("row 0, column 453 holds"));
    assert!(fault(&rows(TensorType::TQ2_0, 2, 256, &bytes), 1).contains("row 1, column 197 holds"));

    let mut bytes = encode_iq2(&published_trits(256), 128, 1.0);
    bytes[36 + 4 + 16 + 2] |= 3 << 6;
    assert!(fault(&rows(TensorType::IQ2_BN, 2, 128, &bytes), 1).contains("row 1, column 114 holds"));
}

#[test]
fn scales_that_are_not_finite_are_errors() {
    let trits = published_trits(256);
    for (half, single) in [(0x7c00, f32::INFINITY), (0xfc00, f32::NEG_INFINITY), (0x7e00, f32::NAN)] {
        let bytes = encode_i2s(&trits, single, 0);
        let refusal = TensorRows::new("t", TensorType::I2_S, 2, 128, &bytes).unwrap_err().to_string();
        assert!(refusal.contains("tensor 't' of type I2_S: its scale is"), "{refusal}");
        let sound = encode_tq1(&trits, HALF);
        let cases = [
            (TensorType::TQ1_0, 512, [sound, encode_tq1(&trits, half)].concat()),
            (TensorType::TQ1_0, 256, encode_tq1(&trits, half)),
            (TensorType::TQ2_0, 256, encode_tq2(&trits, half)),
            (TensorType::TQ2_0, 256, encode_tq2(&[0; 256], half)),
            (TensorType::IQ1_BN, 256, encode_iq1(&trits, 256, half)),
            (TensorType::IQ2_BN, 256, encode_iq2(&trits, 256, single)),
            (TensorType::Q8_0, 32, [half.to_le_bytes().to_vec(), vec![127; 32]].concat()),
            (TensorType::F32, 1, single.to_le_bytes().to_vec()),
            (TensorType::F16, 2, [HALF.to_le_bytes(), half.to_le_bytes()].concat()),
        ];
        for (kind, cols, bytes) in cases {
            let message = fault(&rows(kind, 1, cols, &bytes), 0);
            assert!(message.contains(&format!("tensor 't' of type {kind}: row 0, column")), "{message}");
        }
    }
}

#[test]
fn sizes_are_checked() {
    let refusal = |kind, n, cols, bytes| TensorRows::new("t", kind, n, cols, bytes).unwrap_err().to_string();
    let message = refusal(TensorType::TQ2_0, 2, 256, &[0; 131]);
    assert!(message.contains("2 rows of 256 columns take 132 bytes, but there are 131"), "{message}");
    let message = refusal(TensorType::Q8_0, 1, 33, &[0; 64]);
    assert!(message.contains("33 columns are not a multiple of 32"), "{message}");
    let message = refusal(TensorType::I2_S, 3, 96, &[0; 104]);
    assert!(message.contains("288 elements are not a multiple of 128"), "{message}");
    let message = refusal(TensorType::F32, usize::MAX, 4, &[]);
    assert!(message.contains("more than memory can address"), "{message}");
}
