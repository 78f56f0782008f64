//! The ternary types with a scale for each block of a row, and IQ2_BN_R4: published bytes, and encoders written here
//! from the description of each format.

use bitnet::checkpoint::gguf::TensorType;
use bitnet::codec::{RowTrits, TensorRows, f16_to_f32};
use proptest::prelude::*;

/// The bits of 0.5 as f16.
const HALF: u16 = 0x3800;

/// Writes a block of trits and its scale.
type Encode = fn(&[i8], u16) -> Vec<u8>;
/// The trit nearest to a given one that a type can hold at this column.
type Holds = fn(usize, i8) -> i8;

/// The types whose rows are blocks, each with the trits that it can hold of any given ones.
const BLOCKS: [(TensorType, Encode, Holds); 6] = [
    (TensorType::Q2_0_G64, encode_q2, |_, trit| trit),
    (TensorType::Q2_0_G128, encode_q2, |_, trit| trit),
    (TensorType::PQ2_0, encode_q2, |_, trit| trit),
    (TensorType::PTQ1_0, encode_ptq1, |_, trit| trit),
    (TensorType::Q1_0, encode_q1, |_, trit| if trit < 0 { -1 } else { 1 }),
    (TensorType::STQ1_0, encode_stq1, |at, trit| match (at / 16 % 4, trit) {
        (lane, _) if lane == at % 16 % 4 => 0,
        (_, trit) => {
            if trit < 0 {
                -1
            } else {
                1
            }
        }
    }),
];

fn encode_q2(trits: &[i8], d: u16) -> Vec<u8> {
    let byte = |four: &[i8]| four.iter().rev().fold(0, |byte, trit| byte << 2 | (trit + 1) as u8);
    d.to_le_bytes().into_iter().chain(trits.chunks(4).map(byte)).collect()
}

fn encode_ptq1(trits: &[i8], d: u16) -> Vec<u8> {
    let byte = |digits: &mut dyn Iterator<Item = i8>| {
        let value = digits.zip([81, 27, 9, 3, 1]).map(|(trit, power)| (trit + 1) as u32 * power).sum::<u32>();
        (256 * value).div_ceil(243) as u8
    };
    let mut bytes: Vec<u8> = (0..16).map(|m| byte(&mut (0..5).map(|k| trits[16 * k + m]))).collect();
    bytes.extend((0..8).map(|m| byte(&mut (0..5).map(|k| trits[80 + 8 * k + m]))));
    bytes.extend((0..2).map(|m| byte(&mut (0..4).map(|k| trits[120 + 2 * k + m]))));
    bytes.extend(d.to_le_bytes());
    bytes
}

fn encode_q1(trits: &[i8], d: u16) -> Vec<u8> {
    let byte = |eight: &[i8]| eight.iter().rev().fold(0, |byte, trit| byte << 1 | u8::from(*trit > 0));
    d.to_le_bytes().into_iter().chain(trits.chunks(8).map(byte)).collect()
}

fn encode_stq1(trits: &[i8], d: u16) -> Vec<u8> {
    let mut bytes = [0; 42];
    for g in 0..64 {
        let lanes: Vec<i8> = (0..4).map(|p| trits[64 * (g / 16) + 16 * p + g % 16]).collect();
        let zero = lanes.iter().position(|trit| *trit == 0).expect("one lane is zero");
        let others: Vec<i8> = lanes.iter().copied().filter(|trit| *trit != 0).collect();
        let index = 4 * zero as u8 + u8::from(others[1] != others[0]) + 2 * u8::from(others[2] != others[0]);
        bytes[g / 2] |= index << (4 * (g % 2));
        bytes[32 + g / 8] |= u8::from(others[0] < 0) << (g % 8);
    }
    bytes[40..].copy_from_slice(&d.to_le_bytes());
    bytes.to_vec()
}

/// Encodes rows of IQ2_BN_R4, each with its scale.
fn encode_r4(trits: &[i8], cols: usize, scales: &[f32]) -> Vec<u8> {
    let mut out = Vec::new();
    for (four, scales) in trits.chunks(4 * cols).zip(scales.chunks(4)) {
        out.extend(scales.iter().flat_map(|scale| scale.to_le_bytes()));
        for block in 0..cols / 64 {
            let at = |r: usize, c: usize| (four[r * cols + 64 * block + c] + 1) as u8;
            let byte = |b: usize| (0..4).map(|s| at(b / 4 % 4, 16 * (b / 16) + b % 4 + 4 * s) << (2 * s)).sum::<u8>();
            out.extend((0..64).map(byte));
        }
    }
    out
}

fn view(kind: TensorType, rows: usize, cols: usize, bytes: &[u8]) -> TensorRows<'_> {
    TensorRows::new("t", kind, rows, cols, bytes).unwrap()
}

fn values(view: &TensorRows) -> Vec<f32> {
    let mut values = vec![f32::NAN; view.rows() * view.cols()];
    values.chunks_mut(view.cols()).enumerate().for_each(|(row, out)| view.dequantize(row, out));
    values
}

/// The error of a row, which must be the same from `trits` and from `check`.
fn fault(view: &TensorRows, row: usize) -> String {
    let message = view.trits(row, &mut vec![0; view.cols()]).unwrap_err().to_string();
    assert_eq!(view.check(row).unwrap_err().to_string(), message);
    message
}

#[test]
fn published_bytes_decode() {
    let cycle = |first: i8, n: usize| (0..n).map(|i| (i as i8 + first) % 3 - 1).collect::<Vec<i8>>();
    let bytes = |text: &str| -> Vec<u8> {
        text.split(' ').map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal")).collect()
    };
    let codes = "24 49 92 ".repeat(11);
    let cases = [
        (TensorType::Q2_0_G64, cycle(0, 64), bytes(&format!("00 38 {}", &codes[..47]))),
        (TensorType::Q2_0_G128, cycle(0, 128), bytes(&format!("00 38 {}", &codes[..95]))),
        (TensorType::PQ2_0, cycle(0, 128), bytes(&format!("00 38 {}", &codes[..95]))),
        (
            TensorType::PTQ1_0,
            cycle(0, 128),
            bytes("31 94 bb 31 94 bb 31 94 bb 31 94 bb 31 94 bb 31 cf 45 6c cf 45 6c cf 45 43 6c 00 38"),
        ),
    ];
    for (kind, trits, bytes) in cases {
        let expected: Vec<f32> = trits.iter().map(|trit| 0.5 * f32::from(*trit)).collect();
        assert_eq!(values(&view(kind, 1, trits.len(), &bytes)), expected, "{kind}");
    }
    // Signs −, +, +, −, …
    let signs = [&[0x00, 0x38][..], &[0xb6, 0x6d, 0xdb].repeat(6)[..16]].concat();
    let expected: Vec<f32> = (0..128).map(|i| if i % 3 == 0 { -0.5 } else { 0.5 }).collect();
    assert_eq!(values(&view(TensorType::Q1_0, 1, 128, &signs)), expected);
    // Groups 0 and 1, whose lanes are 16 elements apart.
    let mut sparse = vec![0; 42];
    (sparse[0], sparse[32], sparse[41]) = (0x53, 1, 0x38);
    let found = values(&view(TensorType::STQ1_0, 1, 256, &sparse));
    assert_eq!([found[0], found[16], found[32], found[48]], [0.0, -0.5, 0.5, 0.5]);
    assert_eq!([found[1], found[17], found[33], found[49]], [0.5, 0.0, -0.5, 0.5]);
    // Trits (row + column) % 3 − 1 of four rows.
    let rows: Vec<i8> = (0..4).flat_map(|r| cycle(r, 64)).collect();
    let four = [&[0, 0, 0, 0x3f].repeat(4)[..], &[0x24, 0x49, 0x92].repeat(22)[..64]].concat();
    let expected: Vec<f32> = rows.iter().map(|trit| 0.5 * f32::from(*trit)).collect();
    assert_eq!(values(&view(TensorType::IQ2_BN_R4, 4, 64, &four)), expected);
    assert_eq!(encode_r4(&rows, 64, &[0.5; 4]), four);
}

/// Trits of `rows` × `blocks` blocks of 256 columns, and bits of finite scales, one for every 64 columns.
fn matrices() -> impl Strategy<Value = (usize, usize, Vec<i8>, Vec<u16>)> {
    (1..=3usize, 1..=3usize).prop_flat_map(|(rows, blocks)| {
        let n = rows * blocks * 256;
        let trits = proptest::collection::vec(-1i8..=1, n);
        let scales = proptest::collection::vec((0u16..0x7c00, any::<bool>()), n / 64);
        (trits, scales).prop_map(move |(trits, scales)| {
            (rows, 256 * blocks, trits, scales.iter().map(|(d, negative)| d | u16::from(*negative) << 15).collect())
        })
    })
}

proptest! {
    #[test]
    fn blocks_round_trip((rows, cols, trits, scales) in matrices()) {
        for (kind, encode, holds) in BLOCKS {
            let size = kind.block_elements();
            let trits: Vec<i8> = trits.iter().enumerate().map(|(i, trit)| holds(i % cols, *trit)).collect();
            let scales: Vec<u16> = scales.iter().copied().step_by(size / 64).collect();
            let bytes: Vec<u8> = trits.chunks(size).zip(&scales).flat_map(|(trits, d)| encode(trits, *d)).collect();
            let tensor = view(kind, rows, cols, &bytes);
            let scales: Vec<f32> = scales.iter().map(|d| f16_to_f32(*d)).collect();
            let expected: Vec<f32> =
                trits.chunks(size).zip(&scales).flat_map(|(t, d)| t.iter().map(move |t| d * f32::from(*t))).collect();
            prop_assert_eq!(values(&tensor), expected.clone());
            for row in 0..rows {
                tensor.check(row).unwrap();
                let mut found = vec![0; cols];
                tensor.stored_trits(row, &mut found).unwrap();
                prop_assert_eq!(&found, &trits[row * cols..][..cols]);
                prop_assert_eq!(tensor.stored_scales(row).unwrap(), &scales[row * cols / size..][..cols / size]);
                let values = &expected[row * cols..][..cols];
                let largest = values.iter().fold(0f32, |most, value| most.max(value.abs()));
                let one = values.iter().all(|value| *value == 0.0 || value.abs() == largest);
                match tensor.trits(row, &mut found).unwrap() {
                    RowTrits::Zero => prop_assert!(largest == 0.0),
                    RowTrits::Scale(scale) => prop_assert!(one && scale == largest),
                    RowTrits::Mixed(..) => prop_assert!(!one),
                }
            }
            prop_assert_eq!(tensor.is_zero(), expected.iter().all(|value| *value == 0.0));
        }
    }

    #[test]
    fn rows_in_fours_round_trip((rows, cols, trits, scales) in matrices()) {
        let (rows, trits) = (4 * rows, trits.repeat(4));
        let scales: Vec<f32> = scales.iter().cycle().take(rows).map(|d| 3.1 * f16_to_f32(*d)).collect();
        let bytes = encode_r4(&trits, cols, &scales);
        let tensor = view(TensorType::IQ2_BN_R4, rows, cols, &bytes);
        for (row, (trits, scale)) in trits.chunks(cols).zip(&scales).enumerate() {
            let expected: Vec<f32> = trits.iter().map(|trit| scale * f32::from(*trit)).collect();
            let (mut found, mut out) = (vec![0; cols], vec![0.0; cols]);
            tensor.dequantize(row, &mut out);
            prop_assert_eq!(out, expected);
            tensor.check(row).unwrap();
            tensor.stored_trits(row, &mut found).unwrap();
            prop_assert_eq!(&found, trits);
            prop_assert_eq!(tensor.stored_scales(row).unwrap(), vec![*scale]);
        }
    }

    #[test]
    fn the_error_names_the_first_code_3(at in proptest::collection::vec(0usize..512, 1..3), row in 0usize..4) {
        let first = *at.iter().min().expect("one");
        let codes = |elements: usize| -> Vec<u8> {
            let mut bytes: Vec<u8> = vec![0; 512 / elements * (2 + elements / 4)];
            for at in &at {
                bytes[at / elements * (2 + elements / 4) + 2 + at % elements / 4] |= 3 << (2 * (at % 4));
            }
            bytes
        };
        let said = format!("row 0, column {first} holds the code 3");
        for (kind, bytes) in [
            (TensorType::Q2_0_G64, codes(64)),
            (TensorType::Q2_0_G128, codes(128)),
            (TensorType::PQ2_0, codes(128)),
        ] {
            let found = fault(&view(kind, 1, 512, &bytes), 0);
            prop_assert!(found.contains(&said), "{found}");
        }
        let mut four = encode_r4(&[0; 2048], 512, &[1.0; 4]);
        for at in &at {
            four[16 + at / 16 * 16 + 4 * row + at % 4] |= 3 << (2 * (at % 16 / 4));
        }
        let tensor = view(TensorType::IQ2_BN_R4, 4, 512, &four);
        let found = fault(&tensor, row);
        prop_assert!(found.contains(&format!("row {row}, column {first} holds the code 3")), "{found}");
        prop_assert!((0..4).filter(|other| *other != row).all(|other| tensor.check(other).is_ok()));
    }
}

#[test]
fn scales_that_are_not_finite_are_errors() {
    for (half, single) in [(0x7c00, f32::INFINITY), (0xfc00, f32::NEG_INFINITY), (0x7e00, f32::NAN)] {
        for (kind, encode, holds) in BLOCKS {
            let trits: Vec<i8> = (0..512).map(|at| holds(at, 1)).collect();
            let blocks = trits.chunks(kind.block_elements());
            let last = 512 / kind.block_elements() - 1;
            let bytes: Vec<u8> =
                blocks.enumerate().flat_map(|(i, t)| encode(t, [HALF, half][usize::from(i == last)])).collect();
            let message = fault(&view(kind, 1, 512, &bytes), 0);
            assert!(message.contains(&format!("tensor 't' of type {kind}: row 0, column")), "{message}");
        }
        let four = encode_r4(&[1; 256], 64, &[1.0, 1.0, single, 1.0]);
        let tensor = view(TensorType::IQ2_BN_R4, 4, 64, &four);
        assert!(tensor.check(1).is_ok() && tensor.check(3).is_ok());
        assert!(fault(&tensor, 2).contains("row 2, column 0 is"));
    }
}

#[test]
fn rows_come_in_fours() {
    let message = TensorRows::new("t", TensorType::IQ2_BN_R4, 6, 64, &[0; 160]).unwrap_err().to_string();
    assert!(message.contains("6 rows are not a multiple of 4, which IQ2_BN_R4 stores together"), "{message}");
}
