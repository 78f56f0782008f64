//! Packed tensors: the codec reads back what was packed, and words that lie in a file give the products of packed ones.

use bitnet::checkpoint::gguf::{PackedLayout, TensorType};
use bitnet::codec::{TensorRows, f16_to_f32};
use bitnet::error::Error;
use bitnet::kernel::f16::to_f16;
use bitnet::kernel::grouped::{Grouped, GroupedActivations, GroupedLayout};
use bitnet::kernel::packing::{Packing, Word};
use bitnet::kernel::ternary::{Activations, Layout, Ternary};
use bitnet::kernel::{Isa, Kernels, Team, kernels};
use bitnet::machine::buffer::{Buffer, Mapped, Owner};
use bitnet::machine::memory::Arena;
use bitnet::machine::pool::Pool;
use std::sync::Arc;

/// Rows and columns: around groups of 16 rows, blocks of 128 columns and of 640.
const SHAPES: [(usize, usize); 7] = [(1, 1), (15, 30), (16, 128), (17, 129), (40, 640), (33, 700), (5, 1290)];
const TOKENS: usize = 3;

fn trit(row: usize, col: usize) -> i8 {
    ((row * 7 + col * 5 + col / 3) % 3) as i8 - 1
}

fn all() -> Vec<&'static Kernels> {
    Isa::available().into_iter().map(|isa| kernels(Some(isa.name())).expect("available")).collect()
}

fn in_team<R: Send>(kernels: &'static Kernels, job: impl FnOnce(&Team) -> R + Send) -> R {
    Pool::new(1).expect("a thread").run(|workers| job(&Team::new(workers, kernels)))
}

/// The bytes as a file would hold them, at a multiple of 64.
fn mapped(bytes: &[u8]) -> Buffer<Word> {
    let mut memory = vec![0; bytes.len() + 64];
    let start = memory.as_ptr().align_offset(64);
    memory[start..][..bytes.len()].copy_from_slice(bytes);
    let owner: Owner = Arc::new(memory);
    Buffer::Mapped(Mapped::new(owner, start..start + bytes.len()).expect("aligned"))
}

fn bytes(words: &[Word]) -> Vec<u8> {
    words.iter().flat_map(|word| word.0).collect()
}

/// A packed tensor of these words and row scales.
fn tensor(words: &[Word], scales: &[f32]) -> Vec<u8> {
    [bytes(words), scales.iter().flat_map(|scale| scale.to_le_bytes()).collect()].concat()
}

fn x(cols: usize) -> Vec<f32> {
    (0..TOKENS * cols).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect()
}

fn product(team: &Team, matrix: &Ternary) -> Vec<u32> {
    let mut activations = Activations::default();
    let rows = activations.rows(TOKENS, matrix.cols()).expect("memory");
    for ((q, scale), x) in rows.zip(x(matrix.cols()).chunks(matrix.cols())) {
        *scale = team.kernels.quantize(x, q);
    }
    let mut out = vec![0.0; TOKENS * matrix.rows()];
    matrix.matmul(team, &activations, &mut out);
    out.iter().map(|value| value.to_bits()).collect()
}

/// The products of all tokens at once, and of the first one alone.
fn grouped_product(team: &Team, matrix: &Grouped) -> Vec<u32> {
    let mut all = Vec::new();
    for tokens in [TOKENS, 1] {
        let mut activations = GroupedActivations::default();
        let rows = activations.rows(tokens, matrix.cols(), 2).expect("memory");
        for (mut row, x) in rows.zip(x(matrix.cols()).chunks(matrix.cols())) {
            row.quantize(team.kernels, x);
        }
        let mut out = vec![0.0; tokens * matrix.rows()];
        matrix.matmul(team, &activations, &mut out);
        all.extend(out.iter().map(|value| value.to_bits()));
    }
    all
}

#[test]
fn matrices_with_row_scales_are_read_back_and_mapped() {
    for (packing, (rows, cols)) in Packing::ALL.into_iter().flat_map(|packing| SHAPES.map(|shape| (packing, shape))) {
        let layout = Layout { packing, rows, cols };
        let scale = |row: usize| 0.5 + row as f32;
        for kernels in all() {
            let packed = in_team(kernels, |team| {
                Ternary::from_rows::<Error>(team, &Arena::default(), layout, |row, out| {
                    out.iter_mut().enumerate().for_each(|(col, out)| *out = trit(row, col));
                    Ok(Some(scale(row)))
                })
                .unwrap_or_else(|error| panic!("{error}"))
            });
            let stored = tensor(packed.words(), &packed.scales());
            let kind = PackedLayout { group: None, base3: packing == Packing::Base3 };
            let kind = TensorType::of_packed_layout(kind).expect("a type");
            let view = TensorRows::new("w", kind, rows, cols, &stored).expect("the size of the words");
            for row in 0..rows {
                let mut values = vec![0.0; cols];
                view.dequantize(row, &mut values);
                let want: Vec<f32> = (0..cols).map(|col| scale(row) * f32::from(trit(row, col))).collect();
                assert_eq!(values, want, "{kind}, row {row} of {rows} x {cols}");
                view.check(row).expect("valid");
            }
            let words = mapped(&bytes(packed.words()));
            let again = Ternary::from_words(layout, words, packed.scales()).expect("fits");
            assert_eq!((again.bytes(), again.owned_bytes()), (packed.bytes(), 0));
            let products = in_team(kernels, |team| [&packed, &again].map(|matrix| product(team, matrix)));
            assert_eq!(products[0], products[1], "{kind}, {rows} x {cols}, {}", kernels.isa.name());
        }
    }
}

#[test]
fn matrices_with_group_scales_are_read_back_and_mapped() {
    for (packing, (rows, cols)) in Packing::ALL.into_iter().flat_map(|packing| SHAPES.map(|shape| (packing, shape))) {
        for group in [64, 128] {
            let layout = GroupedLayout { rows, cols, group, packing };
            let scale = |row: usize, group: usize| f16_to_f32(to_half(row, group));
            let factor = |row: usize| 1.0 + (row % 3) as f32;
            let kind = PackedLayout { group: Some(group), base3: packing == Packing::Base3 };
            let kind = TensorType::of_packed_layout(kind).expect("a type");
            let mut of_first = None;
            for kernels in all() {
                let packed = in_team(kernels, |team| pack_grouped(team, layout, factor));
                let stored = tensor(packed.words(), packed.factors());
                let view = TensorRows::new("w", kind, rows, cols, &stored).expect("the size of the words");
                for row in 0..rows {
                    let mut values = vec![0.0; cols];
                    view.dequantize(row, &mut values);
                    let value = |col: usize| scale(row, col / group) * factor(row) * f32::from(trit(row, col));
                    assert_eq!(
                        values,
                        (0..cols).map(value).collect::<Vec<f32>>(),
                        "{kind}, row {row} of {rows} x {cols}"
                    );
                }
                let words = mapped(&bytes(packed.words()));
                let again = Grouped::from_words(layout, words, packed.factors().to_vec()).expect("fits");
                assert_eq!(again.owned_bytes(), 0);
                let products = in_team(kernels, |team| [&packed, &again].map(|matrix| grouped_product(team, matrix)));
                assert_eq!(products[0], products[1], "{kind}, {rows} x {cols}, {}", kernels.isa.name());
                // Every instruction set reads every layout, with the same bits.
                assert_eq!(*of_first.get_or_insert(products[0].clone()), products[0], "{}", kernels.isa.name());
            }
        }
    }
}

/// The bits of a scale that f16 holds.
fn to_half(row: usize, group: usize) -> u16 {
    u16::from_le_bytes(to_f16(0.25 * (1 + (row + group) % 7) as f32))
}

fn pack_grouped(team: &Team, layout: GroupedLayout, factor: impl Fn(usize) -> f32 + Sync) -> Grouped {
    let (cols, group) = (layout.cols, layout.group);
    let read = |row: usize, bytes: &mut [u8], scales: &mut [[u8; 2]]| {
        let code = |col: usize| if col < cols { (trit(row, col) + 1) as u8 } else { 1 };
        for (i, byte) in bytes.iter_mut().enumerate() {
            let first = i / 32 * 128 + i % 32;
            *byte = (0..4).fold(0, |byte, plane| byte << 2 | code(first + 32 * plane));
        }
        let stored = scales.iter_mut().enumerate().take(cols.div_ceil(group));
        stored.for_each(|(g, scale)| *scale = to_half(row, g).to_le_bytes());
        Ok::<f32, Error>(factor(row))
    };
    Grouped::from_rows(team, &Arena::default(), layout, read).unwrap_or_else(|error| panic!("{error}"))
}

/// Damaged words give some numbers: no instruction set reads outside of its buffers or panics.
#[test]
fn any_bytes_can_be_multiplied() {
    for (packing, (rows, cols)) in Packing::ALL.into_iter().flat_map(|packing| SHAPES.map(|shape| (packing, shape))) {
        let group = 64;
        let layout = Layout { packing, rows, cols };
        let grouped = GroupedLayout { rows, cols, group, packing };
        let base3 = packing == Packing::Base3;
        for fill in [255u8, 243, 0xaa] {
            let size = |group| PackedLayout { group, base3 }.word_bytes(rows, cols).expect("small");
            for kernels in all() {
                let words = mapped(&vec![fill; size(None)]);
                let matrix = Ternary::from_words(layout, words, vec![1.0; rows]).expect("fits");
                let words = mapped(&vec![fill; size(Some(group))]);
                let blocks = Grouped::from_words(grouped, words, vec![1.0; rows]).expect("fits");
                in_team(kernels, |team| {
                    assert_eq!(product(team, &matrix).len(), TOKENS * rows);
                    assert_eq!(grouped_product(team, &blocks).len(), (TOKENS + 1) * rows);
                });
            }
        }
    }
}

#[test]
fn words_of_another_size_are_refused() {
    let layout = Layout { packing: Packing::TwoBit, rows: 17, cols: 129 };
    assert!(Ternary::from_words(layout, mapped(&[0; 31 * 64]), vec![1.0; 17]).is_none());
    assert!(Ternary::from_words(layout, mapped(&[0; 32 * 64]), vec![1.0; 16]).is_none());
    assert!(Ternary::from_words(layout, mapped(&[0; 32 * 64]), vec![1.0; 17]).is_some());
    let layout = GroupedLayout { packing: Packing::TwoBit, rows: 17, cols: 129, group: 128 };
    assert!(Grouped::from_words(layout, mapped(&[0; 32 * 64]), vec![1.0; 17]).is_none());
    assert!(Grouped::from_words(layout, mapped(&[0; 34 * 64]), vec![1.0; 17]).is_some());
    assert!(Grouped::from_words(GroupedLayout { group: 32, ..layout }, mapped(&[0; 34 * 64]), vec![1.0; 17]).is_none());
}

#[test]
fn invalid_codes_are_found_where_the_codec_reads_them() {
    for (kind, byte) in [(TensorType::TWO_BIT, 0b01_01_01_11), (TensorType::BASE3, 243)] {
        let layout = kind.packed_layout().expect("packed");
        let mut stored = vec![0; layout.word_bytes(2, 700).expect("small") + 8];
        let view = TensorRows::new("w", kind, 2, 700, &stored).expect("the size");
        view.check(1).expect("codes of zero");
        stored[4 + 1] = byte; // of row 1
        let view = TensorRows::new("w", kind, 2, 700, &stored).expect("the size");
        view.check(0).expect("the other row");
        let error = view.check(1).expect_err("code 3").to_string();
        assert!(error.contains("row 1, column") && error.contains("code 3"), "{error}");
        let error = view.stored_trits(1, &mut [0; 700]).expect_err("code 3").to_string();
        assert!(error.contains("code 3"), "{error}");
    }
}
