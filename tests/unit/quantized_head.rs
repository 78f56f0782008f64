use super::*;
use crate::kernel::{Isa, Team, kernels};
use crate::machine::pool::Pool;
use proptest::prelude::*;

/// A vector of some kind, the hard ones among them.
fn vector(kind: u8, seed: u32, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    let mut of = |scale: f32| (0..n).map(|_| next() * scale).collect::<Vec<f32>>();
    match kind % 9 {
        0 => vec![0.0; n],
        1 => of(1e-41), // subnormal
        2 => of(1e-13),
        3 => of(1e15),
        4 => of(1e17),
        5 => (0..n).map(|k| if k == n / 2 { 1000.0 } else { 1e-3 }).collect(), // a spike
        6 => (0..n).map(|k| if k % 2 == 0 { 1.0 } else { -1.0 }).collect(),    // sums that cancel
        7 => vec![0.5 / 127.0 * 3.0; n],                                       // halfway between steps
        _ => of(1.0),
    }
}

proptest! {
    #[test]
    fn the_exact_logit_lies_between_its_bounds(
        n in 1usize..300, rows in prop::collection::vec((any::<u8>(), any::<u32>()), 1..20),
        xs in prop::collection::vec((any::<u8>(), any::<u32>()), 1..6),
    ) {
        let rows: Vec<Vec<f32>> = rows.iter().map(|(kind, seed)| vector(*kind, *seed, n)).collect();
        let mut xs: Vec<Vec<f32>> = xs.iter().map(|(kind, seed)| vector(*kind, *seed, n)).collect();
        xs[0].iter_mut().for_each(|x| *x *= 1e20); // beyond the range of f32, with the largest rows
        let xs: Vec<&[f32]> = xs.iter().map(|x| &x[..]).collect();
        let pool = Pool::new(1).expect("a thread");
        let mut all: Vec<Vec<u32>> = Vec::new();
        for isa in Isa::available() {
            let kernels = kernels(Some(isa.name())).expect("available");
            let mut bounds = vec![0f32; 2 * rows.len() * xs.len()];
            pool.run(|workers| {
                let team = Team::new(workers, kernels);
                let dequantize = |row: usize, out: &mut [f32]| out.copy_from_slice(&rows[row]);
                let copy = QuantizedHead::from_rows(&team, rows.len(), n, dequantize, |_| {}).expect("memory").expect("finite");
                copy.bounds(&team, &xs, None, &mut bounds);
            });
            for (bounds, x) in bounds.chunks(2 * rows.len()).zip(&xs) {
                let (low, high) = bounds.split_at(rows.len());
                for ((row, low), high) in rows.iter().zip(low).zip(high) {
                    let mut logit = [0f32];
                    kernels.dot_f32(&row.iter().map(|w| w.to_le_bytes()).collect::<Vec<_>>(), &[x], &mut logit);
                    // What is not finite is refused, wherever it stands.
                    let holds = (*low..=*high).contains(&logit[0]) || (logit[0].is_nan() && *high == f32::INFINITY);
                    prop_assert!(holds, "{low} {} {high}, {}", logit[0], isa.name());
                }
            }
            all.push(bounds.iter().map(|bound| bound.to_bits()).collect());
        }
        prop_assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "they differ between instruction sets");
    }
}

proptest! {
    /// With the screen, the candidates and their number stay those of the usual bounds.
    #[test]
    fn screening_keeps_the_bounds_inside(
        n in prop_oneof![1usize..300, Just(640 - 3)], rows in prop::collection::vec((any::<u8>(), any::<u32>()), 1..70),
        xs in prop::collection::vec((any::<u8>(), any::<u32>()), 1..10), every in 1usize..5,
    ) {
        let rows: Vec<Vec<f32>> = rows.iter().map(|(kind, seed)| vector(*kind, *seed, n)).collect();
        let mut xs: Vec<Vec<f32>> = xs.iter().map(|(kind, seed)| vector(*kind, *seed, n)).collect();
        xs[0].iter_mut().for_each(|x| *x *= 1e20);
        let xs: Vec<&[f32]> = xs.iter().map(|x| &x[..]).collect();
        let pool = Pool::new(2).expect("threads");
        let mut all: Vec<Vec<u32>> = Vec::new();
        for isa in Isa::available() {
            let kernels = kernels(Some(isa.name())).expect("available");
            let mut bounds = vec![0f32; 2 * rows.len() * xs.len()];
            let mut by_upper = bounds.clone();
            let some: Vec<usize> = (0..rows.len()).step_by(every).collect();
            let (of, by_bytes) = pool.run(|workers| {
                let team = Team::new(workers, kernels);
                let dequantize = |row: usize, out: &mut [f32]| out.copy_from_slice(&rows[row]);
                let copy = QuantizedHead::from_rows(&team, rows.len(), n, dequantize, |_| {}).expect("memory").expect("finite");
                copy.bounds(&team, &xs, None, &mut bounds);
                for (x, by_upper) in xs.iter().zip(by_upper.chunks_mut(2 * rows.len())) {
                    let (input, served) = copy.screen_inputs(&team, &[x]).expect("there is memory");
                    assert!(served == [true] && matches!(input, ScreenInputs::Upper(_)));
                    copy.screen(&team, &input, by_upper);
                }
                let has_bytes = copy.stride.is_multiple_of(BYTE_STEP) && kernels.byte_dots(&[], &[], &mut []);
                let by_bytes = has_bytes.then(|| {
                    let inputs = xs.iter().map(|x| ByteInput::new(x, copy.stride)).collect();
                    let mut out = vec![0f32; 2 * rows.len() * xs.len()];
                    copy.screen(&team, &ScreenInputs::Bytes(inputs), &mut out);
                    out
                });
                (copy.bounds_of(&team, &xs, &vec![&some[..]; xs.len()]), by_bytes)
            });
            for (bounds, [of_low, of_high]) in bounds.chunks(2 * rows.len()).zip(&of) {
                let (low, high) = bounds.split_at(rows.len());
                for (i, row) in some.iter().enumerate() {
                    prop_assert_eq!(low[*row].to_bits(), of_low[i].to_bits());
                    prop_assert_eq!(high[*row].to_bits(), of_high[i].to_bits());
                }
            }
            for wide in [Some(&by_upper), by_bytes.as_ref()].into_iter().flatten() {
                for (bounds, wide) in bounds.chunks(2 * rows.len()).zip(wide.chunks(2 * rows.len())) {
                    let ((low, high), (wide_low, wide_high)) = (bounds.split_at(rows.len()), wide.split_at(rows.len()));
                    for row in 0..rows.len() {
                        prop_assert!(wide_low[row] <= low[row] && high[row] <= wide_high[row], "row {row}");
                    }
                }
            }
            all.push(by_upper.iter().map(|bound| bound.to_bits()).collect());
        }
        prop_assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "they differ between instruction sets");
    }
}
