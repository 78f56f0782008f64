use super::super::{Isa, kernels};
use super::*;
use crate::kernel::grouped::GroupedLayout;
use crate::kernel::lanes::F16Bytes;
use crate::kernel::ternary::Layout;
use crate::machine::memory::Arena;
use crate::machine::pool::Pool;

/// Rows × columns: less than a strip; whole strips; tails of rows, of groups and of blocks; more than a task; sums that
/// fill an int16 several times.
const SHAPES: [(usize, usize); 8] =
    [(1, 1), (16, 128), (32, 256), (47, 130), (64, 640), (300, 1300), (2_600, 128), (40, 6_912)];

/// Numbers that are the same in each run.
struct Random(u32);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) % n
    }

    /// An activation: the largest, the smallest, both, or any.
    fn int8(&mut self, kind: usize) -> i8 {
        match kind {
            0 => 127,
            1 => -127,
            2 => [-127, 127][self.below(2) as usize],
            _ => self.below(255) as i8 ^ i8::MIN,
        }
        .max(-127)
    }

    fn trit(&mut self, kind: usize) -> i8 {
        match kind {
            0 => 1,
            1 => -1,
            _ => self.below(3) as i8 - 1,
        }
    }
}

fn in_team<R: Send>(threads: usize, isa: Isa, job: impl FnOnce(&Team) -> R + Send) -> R {
    let kernels = kernels(Some(isa.name())).expect("available");
    Pool::new(threads).expect("threads").run(|workers| job(&Team::new(workers, kernels)))
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Calls `f` with each way of looking sums up that this processor can run.
fn for_each_way(f: impl Fn(Isa, &'static LookUpKernels)) {
    for isa in Isa::available() {
        for way in kernels(Some(isa.name())).expect("available").runnable_look_ups() {
            f(isa, way);
        }
    }
}

/// Whether this processor has no look-ups, so that scalar products need not be computed for a comparison.
fn has_no_way() -> bool {
    let all = Isa::available();
    all.iter().all(|isa| kernels(Some(isa.name())).expect("available").runnable_look_ups().next().is_none())
}

#[test]
fn sums_that_are_looked_up_equal_scalar_dots() {
    if has_no_way() {
        return;
    }
    for (rows, cols) in SHAPES {
        for (kind, packing) in (0..4).flat_map(|kind| Packing::ALL.map(|packing| (kind, packing))) {
            let mut random = Random((rows * cols + kind) as u32);
            let trits: Vec<i8> = (0..rows * cols).map(|_| random.trit(kind)).collect();
            let matrix = in_team(1, Isa::Scalar, |team| {
                Ternary::from_rows(team, &Arena::default(), Layout { packing, rows, cols }, |row, out| {
                    out.copy_from_slice(&trits[row * cols..][..cols]);
                    Ok::<_, crate::error::Error>(Some(if kind == 2 { 0.25 + row as f32 / 64.0 } else { 0.75 }))
                })
                .expect("memory")
            });
            for tokens in [1, 15, 16, 17, 33, 65] {
                let mut x = Activations::default();
                for (t, (q, scale)) in x.rows(tokens, cols).expect("memory").enumerate() {
                    q.fill(0);
                    q[..cols].iter_mut().for_each(|q| *q = random.int8(kind));
                    *scale = (3.0 + t as f32, q.iter().map(|q| *q as i32).sum());
                }
                let mut want = vec![f32::NAN; tokens * rows];
                in_team(1, Isa::Scalar, |team| matrix.matmul(team, &x, &mut want));
                for_each_way(|isa, way| {
                    let mut found = vec![f32::NAN; tokens * rows];
                    let threads = 1 + tokens % 3;
                    in_team(threads, isa, |team| matrix.look_up(team, way, &x, &mut found)).expect("memory");
                    let what = format!("{} by {}, {rows} × {cols}, {kind}, {tokens} tokens", isa.name(), way.tokens);
                    assert_eq!(bits(&want), bits(&found), "{what} {packing:?}");
                });
            }
        }
    }
}

#[test]
fn grouped_outputs_that_are_looked_up_equal_scalar_ones() {
    if has_no_way() {
        return;
    }
    for (rows, cols) in SHAPES {
        for (planes, packing) in (1..=3).flat_map(|planes| Packing::ALL.map(|packing| (planes, packing))) {
            let mut random = Random((rows * cols + planes) as u32);
            let kind = planes; // all −1, or any
            let layout = GroupedLayout { rows, cols, group: BLOCK, packing };
            let bytes: Vec<u8> = (0..rows * cols.div_ceil(BLOCK) * BLOCK / 4)
                .map(|_| (0..4).fold(0, |byte, _| byte << 2 | (random.trit(kind) + 1) as u8))
                .collect();
            let scales: Vec<F16Bytes> = (0..rows * cols.div_ceil(BLOCK))
                .map(|_| [random.below(256) as u8, random.below(0x7c) as u8 | (random.below(2) as u8) << 7])
                .collect();
            let matrix = in_team(1, Isa::Scalar, |team| {
                Grouped::from_rows(team, &Arena::default(), layout, |row, out, out_scales| {
                    let (bytes_of_row, scales_of_row) = (out.len(), out_scales.len());
                    out.copy_from_slice(&bytes[row * bytes_of_row..][..bytes_of_row]);
                    out_scales.copy_from_slice(&scales[row * scales_of_row..][..scales_of_row]);
                    Ok::<_, crate::error::Error>(0.5 + row as f32)
                })
                .expect("memory")
            });
            for tokens in [1, 16, 40] {
                let mut x = GroupedActivations::default();
                let scalar = kernels(Some("scalar")).expect("always there");
                for mut row in x.rows(tokens, cols, planes).expect("memory") {
                    let values: Vec<f32> = (0..cols).map(|_| random.below(2_000) as f32 / 7.0 - 140.0).collect();
                    row.quantize(scalar, &values);
                }
                let mut want = vec![f32::NAN; tokens * rows];
                in_team(1, Isa::Scalar, |team| matrix.matmul(team, &x, &mut want));
                for_each_way(|isa, way| {
                    let mut found = vec![f32::NAN; tokens * rows];
                    let threads = 1 + tokens % 3;
                    in_team(threads, isa, |team| matrix.look_up(team, way, &x, &mut found)).expect("memory");
                    let what = format!("{} by {}, {rows} × {cols}, {planes} planes", isa.name(), way.tokens);
                    assert_eq!(bits(&want), bits(&found), "{what}, {tokens} tokens {packing:?}");
                });
            }
        }
    }
}

#[test]
fn codes_of_damaged_words_stay_below_the_entries_of_a_table() {
    let words = [Word([0xff; 64]); TWO_BIT_WORDS];
    for_each_way(|_, way| {
        let mut codes = [RowCodes::default(); BLOCK_STEPS * GROUP];
        // SAFETY: the processor can run it.
        unsafe { (way.write_codes)(&words, &mut codes, GROUP, 0) };
        assert!(codes.iter().all(|codes| codes.is_valid()));
    });
}

#[test]
fn the_peak_counts_its_multiply_adds() {
    for_each_way(|_, way| {
        // SAFETY: the processor can run it.
        assert_eq!(unsafe { (way.peak_macs)(10) }, 10 * 64 * 32 * way.tokens as u64);
    });
}

#[test]
fn a_last_register_that_is_hardly_full_goes_by_dots() {
    for_each_way(|_, way| {
        let n = way.tokens;
        assert_eq!(way.take(n - 1), n - 1);
        assert_eq!(way.take(n / 2), 0);
        assert_eq!(way.take(2 * n + 1), 2 * n);
    });
    for isa in Isa::available() {
        let kernels = kernels(Some(isa.name())).expect("available");
        assert!(kernels.tokens_to_look_up(31, 4096).is_none() && kernels.tokens_to_look_up(512, 16).is_none());
    }
}
