use super::*;
use crate::codec::f16_to_f32;
use crate::error::Error;
use crate::kernel::grouped::GroupedLayout;
use crate::kernel::{Isa, kernels};
use crate::machine::memory::Arena;
use crate::machine::pool::Pool;
use proptest::prelude::*;

/// Values of some kind, the hard ones among them.
fn vector(kind: u8, seed: u32, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    let mut of = |scale: f32| (0..n).map(|_| next() * scale).collect::<Vec<f32>>();
    match kind % 8 {
        0 => vec![0.0; n],
        1 => of(1e-41), // subnormal
        2 => of(1e-33),
        3 => of(1e15),
        4 => of(1e36), // with large scales beyond the range of f32
        5 => (0..n).map(|k| if k == n / 2 { 1000.0 } else { 1e-3 }).collect(), // a spike
        6 => (0..n).map(|k| if k % 2 == 0 { 1.0 } else { -1.0 }).collect(), // sums that cancel
        _ => of(1.0),
    }
}

proptest! {
    #[test]
    fn the_exact_logit_lies_between_its_bounds(
        n in 1usize..900, group in 0usize..2, rows in prop::collection::vec((any::<u8>(), any::<u32>()), 1..20),
        xs in prop::collection::vec((any::<u8>(), any::<u32>()), 1..6), scales in prop::collection::vec(0u16..0x7c00, 16),
    ) {
        let group = [64, 128][group];
        let trits: Vec<Vec<i8>> = rows.iter().map(|(kind, seed)| {
            let values = vector(*kind | 7, *seed, n);
            values.iter().map(|x| i8::from(*x > 0.3) - i8::from(*x < -0.3)).collect()
        }).collect();
        let scale = |row: usize, c: usize| scales[(row + c / group) % scales.len()];
        let xs: Vec<Vec<f32>> = xs.iter().map(|(kind, seed)| vector(*kind, *seed, n)).collect();
        let xs: Vec<&[f32]> = xs.iter().map(|x| &x[..]).collect();
        let values = |row: usize| -> Vec<f32> {
            (0..n).map(|c| f16_to_f32(scale(row, c)) * f32::from(trits[row][c])).collect()
        };
        let pool = Pool::new(1).expect("a thread");
        let mut all: Vec<Vec<u32>> = Vec::new();
        for isa in Isa::available() {
            let kernels = kernels(Some(isa.name())).expect("available");
            let mut bounds = vec![0f32; 2 * rows.len() * xs.len()];
            pool.run(|workers| {
                let team = Team::new(workers, kernels);
                let layout = GroupedLayout { rows: rows.len(), cols: n, group, packing: kernels.grouped_packing() };
                let packed = Grouped::from_rows::<Error>(&team, &Arena::default(), layout, |row, bytes, out| {
                    let mut padded = trits[row].clone();
                    padded.resize(bytes.len() * 4, 0);
                    crate::kernel::packing::encode_i2s(&padded, bytes);
                    out.iter_mut().enumerate().for_each(|(g, out)| *out = scale(row, g * group).to_le_bytes());
                    Ok(1.0)
                });
                let norm = |row: usize| norm(&values(row)) as f32 * (1.0 + 1e-6);
                let head = GroupedHead::with_norms(&team, packed.expect("memory"), norm).expect("finite");
                head.bounds(&team, &xs, &mut bounds).expect("memory");
            });
            for (bounds, x) in bounds.chunks(2 * rows.len()).zip(&xs) {
                let (low, high) = bounds.split_at(rows.len());
                for (row, (low, high)) in low.iter().zip(high).enumerate() {
                    let mut logit = [0f32];
                    kernels.dot_floats(&values(row), &[x], &mut logit);
                    // What is not finite is refused, wherever it stands.
                    let holds = (*low..=*high).contains(&logit[0]) || (!logit[0].is_finite() && *high == f32::INFINITY);
                    prop_assert!(holds, "{low} {} {high}, {}", logit[0], isa.name());
                    let size = norm(&values(row)) * norm(x);
                    let tiny = size < 1e-25 || norm(x) < 1e-25;
                    let narrow = high - low <= (4e-4 * size) as f32 || size > 1e36 || tiny;
                    prop_assert!(narrow, "{low} to {high} for {size}");
                }
            }
            all.push(bounds.iter().map(|bound| bound.to_bits()).collect());
        }
        prop_assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "they differ between instruction sets");
    }
}
