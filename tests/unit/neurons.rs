use super::super::{Isa, Kernels, kernels};
use super::*;
use crate::kernel::ternary::Layout;
use crate::machine::pool::Pool;

/// Numbers that are the same in each run.
struct Random(u32);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) % n
    }
}

fn in_team<R: Send>(threads: usize, kernels: &'static Kernels, job: impl FnOnce(&Team) -> R + Send) -> R {
    Pool::new(threads).expect("threads").run(|workers| job(&Team::new(workers, kernels)))
}

/// A matrix of trits, with a scale for each row or one for all.
fn matrix(
    packing: Packing,
    rows: usize,
    cols: usize,
    by_row: bool,
    trit: impl Fn(usize, usize) -> i8 + Sync,
) -> Ternary {
    let scalar = kernels(Some("scalar")).expect("always there");
    in_team(1, scalar, |team| {
        let layout = Layout { packing, rows, cols };
        Ternary::from_rows(team, &Arena::default(), layout, |row, trits| {
            trits.iter_mut().enumerate().for_each(|(col, out)| *out = trit(row, col));
            Ok::<_, crate::error::Error>(Some(if by_row { 0.25 + row as f32 / 64.0 } else { 0.75 }))
        })
        .expect("memory")
    })
}

fn token(values: &[i8]) -> Activations {
    let mut x = Activations::default();
    for (q, scale) in x.rows(1, values.len()).expect("memory") {
        q[..values.len()].copy_from_slice(values);
        q[values.len()..].fill(0);
        *scale = (3.0, values.iter().map(|q| *q as i32).sum());
    }
    x
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn matmul(team: &Team, matrix: &Ternary, x: &[i8]) -> Vec<f32> {
    let mut out = vec![0.0; matrix.rows()];
    matrix.matmul(team, &token(x), &mut out);
    out
}

/// Compares both layers with whole ones: `x` goes into `up`, `q` into `down`, and those rows of `up` are wanted whose
/// `q` is not 0.
fn check(team: &Team, what: &str, neurons: &Neurons, [up, down]: [&Ternary; 2], x: &[i8], q: &[i8]) {
    let mut out = vec![1.0; up.rows()];
    neurons.up(team, up, &token(x), |neuron| q[neuron] != 0, &mut out);
    let mut want = matmul(team, up, x);
    want.iter_mut().zip(q).filter(|(_, q)| **q == 0).for_each(|(want, _)| *want = 0.0);
    assert_eq!(bits(&want), bits(&out), "up, {what}");
    let mut out = vec![1.0; down.rows()];
    let q_token = token(q);
    neurons.down(team, down, &q_token, q_token.count_nonzero(), &mut out);
    assert_eq!(bits(&matmul(team, down, q)), bits(&out), "down, {what}");
}

/// Random and extreme trits and activations, in widths that do and do not fill lines and blocks.
pub(in super::super) fn equals_matmul(kernels: &'static Kernels) {
    let mut random = Random(1);
    for (i, (hidden, n)) in
        [(1, 1), (31, 2), (128, 65), (257, 300), (640, 641), (1000, 130), (2561, 1300)].into_iter().enumerate()
    {
        for kind in 0..4 {
            let seed = random.below(1 << 20) as usize;
            let trit = |row: usize, col: usize| match kind {
                0 => 1,
                1 => -1,
                _ => (Random((row * 7919 + col + seed) as u32).below(3 * 1024) / 1024) as i8 - 1,
            };
            // The copy does not depend on how the matrices are packed.
            let packings = [Packing::ALL[i % 2], Packing::ALL[(i + kind) % 2]];
            let up = matrix(packings[0], n, hidden, kind % 2 == 1, trit);
            let down = matrix(packings[1], hidden, n, kind % 2 == 0, trit);
            let mut value = || match kind {
                0 => 127,
                1 => -127,
                2 => [-127, 127][random.below(2) as usize],
                _ => (random.below(255) as i32 - 127) as i8,
            };
            let x: Vec<i8> = (0..hidden).map(|_| value()).collect();
            let q: Vec<i8> = (0..n).map(|_| value()).collect();
            for threads in [1, 1 + (i + kind) % 5] {
                in_team(threads, kernels, |team| {
                    let neurons = Neurons::new(team, &Arena::default(), &up, &down).expect("memory");
                    for tenths in [0, 2, 4, 10] {
                        let mut kept = Random(seed as u32);
                        let mut keep = |q: &i8| if kept.below(10) < tenths { *q } else { 0 };
                        let q: Vec<i8> = q.iter().map(&mut keep).collect();
                        let what = format!("{}, {hidden} × {n}, {kind}, {threads} threads", kernels.isa.name());
                        check(team, &what, &neurons, [&up, &down], &x, &q);
                    }
                });
            }
        }
    }
}

#[test]
fn neurons_give_what_whole_matrices_give() {
    for isa in Isa::available() {
        equals_matmul(kernels(Some(isa.name())).expect("available"));
    }
}

#[test]
fn lists_of_every_length_are_added() {
    let trit = |row: usize, col: usize| ((row * 31 + col * 17) % 3) as i8 - 1;
    let (up, down) = (matrix(Packing::TwoBit, 200, 700, false, trit), matrix(Packing::TwoBit, 700, 200, false, trit));
    let x: Vec<i8> = (0..700).map(|i| (i % 255) as i8).collect();
    for isa in Isa::available() {
        let kernels = kernels(Some(isa.name())).expect("available");
        for threads in 1..=5 {
            in_team(threads, kernels, |team| {
                let neurons = Neurons::new(team, &Arena::default(), &up, &down).expect("memory");
                for count in (0..=70).chain([199, 200]) {
                    let of = |i: usize| if i * 61 % 200 < count { 1 + (i % 127) as i8 } else { 0 };
                    let q: Vec<i8> = (0..200).map(of).collect();
                    check(team, &format!("{}, {count}", isa.name()), &neurons, [&up, &down], &x, &q);
                }
            });
        }
    }
}

#[test]
fn outputs_that_could_be_infinite_are_not_skipped() {
    let scalar = kernels(Some("scalar")).expect("always there");
    let down = matrix(Packing::TwoBit, 256, 64, false, |_, _| 1);
    in_team(1, scalar, |team| {
        let finite = |factor: f32, s: f32| {
            let mut up = matrix(Packing::TwoBit, 64, 256, true, |_, _| 1);
            up.scale_by(factor);
            let neurons = Neurons::new(team, &Arena::default(), &up, &down).expect("memory");
            let mut x = token(&[0; 256]);
            x.rows(1, 256).expect("memory").for_each(|(_, scale)| *scale = (s, 0));
            neurons.gives_finite(&x)
        };
        assert!(finite(1.0, 1.0) && finite(-1.0, 1e-30) && finite(0.0, 1.0));
        assert!(!finite(1.0, 0.0) && !finite(1.0, f32::NAN) && !finite(f32::NAN, 1.0) && !finite(f32::INFINITY, 1.0));
        assert!(!finite(1e38, 1.0) && !finite(-1.0, 1e-38) && !finite(0.0, 0.0));
    });
}

#[test]
fn every_neuron_has_a_place_of_its_own() {
    for n in (1..300).chain([6912, 8192, 9216]) {
        let mut taken = vec![false; n];
        (0..n).for_each(|neuron| taken[neuron * step(n) % n] = true);
        assert!(taken.iter().all(|taken| *taken), "{n}");
    }
}
