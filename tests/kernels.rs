//! Every kernel gives the same bits on every instruction set of this processor, for every tail length and extreme
//! value; and the scalar kernels compute the right result.

use bitnet::codec::f16_to_f32;
use bitnet::error::Error;
use bitnet::kernel::attention::PAGE_LEN;
use bitnet::kernel::f16::to_f16;
use bitnet::kernel::packing::Packing;
use bitnet::kernel::ternary::{Activations, Layout, Ternary};
use bitnet::kernel::{Isa, Kernels, Team, kernels};
use bitnet::machine::memory::Arena;
use bitnet::machine::pool::Pool;
use proptest::prelude::*;
use std::ops::Range;

fn all() -> Vec<&'static Kernels> {
    Isa::available().into_iter().map(|isa| kernels(Some(isa.name())).expect("available")).collect()
}

fn scalar() -> &'static Kernels {
    kernels(Some("scalar")).expect("always available")
}

/// Deterministic floats of very different magnitudes, including zeros and subnormals.
fn floats(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    let value = |bits: u32, kind: u32| match kind % 16 {
        0 => 0.0,
        1 => -0.0,
        2 => f32::from_bits(bits & 0xfff), // subnormal
        3 => (bits % 200) as f32 - 99.5,
        4 => bits as f32 * 1e3,
        _ => (bits % 20_001) as f32 / 10_000.0 - 1.0,
    };
    (0..n).map(|_| value(next(), next())).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Runs `compute` with every instruction set and asserts that all give the same bits.
fn same_bits(what: &str, compute: impl Fn(&Kernels) -> Vec<f32>) {
    let want = bits(&compute(scalar()));
    for kernels in all() {
        assert_eq!(want, bits(&compute(kernels)), "{what}, {}", kernels.isa.name());
    }
}

fn in_team<R: Send>(threads: usize, kernels: &'static Kernels, job: impl FnOnce(&Team) -> R + Send) -> R {
    let threads = if cfg!(target_family = "wasm") { 1 } else { threads };
    Pool::new(threads).expect("threads").run(|workers| job(&Team::new(workers, kernels)))
}

const LENGTHS: [usize; 15] = [1, 2, 15, 16, 17, 31, 63, 64, 65, 100, 127, 128, 129, 400, 2560];

#[test]
fn rms_norm_is_equal_on_every_instruction_set() {
    for n in LENGTHS {
        let (x, gamma) = (floats(n, 1), floats(n, 2));
        same_bits(&format!("rms_norm of {n}"), |k| {
            let mut out = x.clone();
            k.rms_norm(&mut out, &gamma, 1e-5);
            out
        });
    }
}

#[test]
fn rms_norm_follows_its_formula() {
    let (x, gamma): (Vec<f32>, Vec<f32>) = ((0..100).map(|i| i as f32 * 0.1 - 3.0).collect(), vec![0.5; 100]);
    let mut out = x.clone();
    scalar().rms_norm(&mut out, &gamma, 1e-5);
    let mean = x.iter().map(|x| (*x as f64).powi(2)).sum::<f64>() / 100.0;
    for (x, y) in x.iter().zip(&out) {
        let want = *x as f64 / (mean + 1e-5).sqrt() * 0.5;
        assert!((want - *y as f64).abs() < 1e-6, "{want} {y}");
    }
}

#[test]
fn quantize_is_equal_on_every_instruction_set() {
    for n in LENGTHS {
        for scale in [1.0, 1e-8, 1e30] {
            let x: Vec<f32> = floats(n, 3).iter().map(|x| x * scale).collect();
            same_bits(&format!("quantize of {n}"), |k| {
                let mut q = vec![1i8; n.next_multiple_of(128)];
                let (s, sum) = k.quantize(&x, &mut q);
                assert_eq!(sum, q.iter().map(|q| *q as i32).sum::<i32>());
                assert!(q[n..].iter().all(|q| *q == 0) && q.iter().all(|q| *q >= -127));
                q.iter().map(|q| *q as f32).chain([s]).collect()
            });
        }
    }
}

#[test]
fn quantize_rounds_half_to_even_and_has_a_floor() {
    // The largest magnitude is 127, so s is 1 and each value is rounded unscaled.
    let x = [127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.499_999_97, 126.5, -127.0];
    let mut q = [0i8; 128];
    let (s, _) = scalar().quantize(&x, &mut q);
    assert_eq!(s, 1.0);
    assert_eq!(q[..10], [127, 0, 2, 2, 0, -2, -2, 0, 126, -127]);
    let (s, sum) = scalar().quantize(&[0.0; 5], &mut q);
    assert_eq!((s, sum), (127.0 / 1e-5, 0));
}

#[test]
fn dots_are_equal_and_right() {
    for n in LENGTHS {
        for tokens in [1, 2, 3, 4, 5, 9] {
            let row = floats(n, 4);
            let xs: Vec<Vec<f32>> = (0..tokens).map(|t| floats(n, 10 + t)).collect();
            let xs: Vec<&[f32]> = xs.iter().map(|x| &x[..]).collect();
            let halves: Vec<[u8; 2]> = row.iter().map(|x| to_f16(*x)).collect();
            let uppers: Vec<[u8; 2]> = row.iter().map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes()).collect();
            let bytes: Vec<[u8; 4]> = row.iter().map(|x| x.to_le_bytes()).collect();
            let each = |k: &Kernels| -> [Vec<f32>; 4] {
                let mut out: [Vec<f32>; 4] = std::array::from_fn(|_| vec![0.0; xs.len()]);
                k.dot_f16(&halves, &xs, &mut out[0]);
                k.dot_bf16(&uppers, &xs, &mut out[1]);
                k.dot_f32(&bytes, &xs, &mut out[2]);
                k.dot_floats(&row, &xs, &mut out[3]);
                out
            };
            same_bits(&format!("dots of {n} × {tokens}"), |k| each(k).concat());
            let [_, _, stored, dequantized] = each(scalar());
            assert_eq!(bits(&stored), bits(&dequantized));
            for (dot, x) in dequantized.iter().zip(&xs) {
                let terms = || row.iter().zip(*x).map(|(a, b)| *a as f64 * *b as f64);
                let (want, size) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
                assert!((want - *dot as f64).abs() <= size * 1e-6 + 1e-40, "{want} {dot}");
            }
        }
    }
}

#[test]
fn scores_and_mixes_are_equal_on_every_instruction_set() {
    for channels in [2, 16, 36, 64, 100, 128, 256] {
        for vectors in [1, 2, 3, 4, 5, 8, 9, 13, 16] {
            let q = floats(vectors * channels, 5);
            let keys = floats(channels * PAGE_LEN, 6);
            let half_keys: Vec<[u8; 2]> = keys.iter().map(|x| to_f16(*x)).collect();
            let full_keys: Vec<[u8; 4]> = keys.iter().map(|x| x.to_le_bytes()).collect();
            let stride = 2 * PAGE_LEN;
            same_bits(&format!("scores, {channels} channels, {vectors} vectors"), |k| {
                let mut half = vec![7.0; vectors * stride];
                let mut full = half.clone();
                k.scores_f16(&q, &half_keys, &half_keys, &mut half, stride);
                k.scores_f32(&q, &full_keys, &full_keys, &mut full[PAGE_LEN..], stride);
                [half, full].concat()
            });
            let padded = channels.next_multiple_of(16);
            let p: Vec<f32> = floats(vectors * stride, 7).iter().map(|p| p.abs()).collect();
            let values = floats(PAGE_LEN * padded, 8);
            let half_values: Vec<[u8; 2]> = values.iter().map(|x| to_f16(*x)).collect();
            let full_values: Vec<[u8; 4]> = values.iter().map(|x| x.to_le_bytes()).collect();
            for keys in [0..1, 0..15, 3..5, 0..63, 63..64, 0..64] {
                let mix = |k: &Kernels, columns: Range<usize>| {
                    let of = (padded, columns.clone());
                    let initial = floats(vectors * padded, 9);
                    let initial = initial.chunks(padded).flat_map(|vector| &vector[columns.clone()]).copied();
                    let mut half: Vec<f32> = initial.collect();
                    let mut full = half.clone();
                    let (p, all) = (&p[..], keys.clone());
                    k.weighted_sum_f16(p, stride, all.clone(), &half_values, &half_values, &mut half, of.clone());
                    k.weighted_sum_f32(&p[PAGE_LEN..], stride, all, &full_values, &full_values, &mut full, of);
                    [half, full].concat()
                };
                same_bits(&format!("mix of {keys:?}, {channels} channels, {vectors} vectors"), |k| mix(k, 0..padded));
                // Columns have the bits that they have among all.
                let all = mix(scalar(), 0..padded);
                for columns in [0..padded.min(32), padded - 16..padded, padded / 32 * 16..padded] {
                    let want = all.chunks(padded).flat_map(|vector| &vector[columns.clone()]).copied();
                    let want = bits(&want.collect::<Vec<f32>>());
                    for k in self::all() {
                        assert_eq!(want, bits(&mix(k, columns.clone())), "columns {columns:?} of {padded}");
                    }
                }
            }
        }
    }
}

#[test]
fn elementwise_kernels_are_equal_on_every_instruction_set() {
    for n in LENGTHS {
        let (x, y) = (floats(n, 20), floats(n, 21));
        let sums: Vec<i32> = x.iter().map(|x| (x.clamp(-99.0, 99.0) * 1e4) as i32).collect();
        same_bits(&format!("elementwise, {n}"), |k| {
            let mut all = [x.clone(), x.clone(), x.clone(), y.clone(), y.clone(), y.clone()];
            k.add(&mut all[0], &y);
            k.relu2_mul(&mut all[1], &y);
            let [_, _, a, b, c, d] = &mut all[..] else { unreachable!() };
            k.rotate(a, b, &y, &x);
            k.scale_sums(&sums, 77, 0.3, c);
            k.scale_rows(&sums, -5, &x, 0.7, d);
            let halves: Vec<[u8; 2]> = x.iter().map(|x| to_f16(*x)).collect();
            let mut floats = vec![0.0; n];
            k.f16_to_f32(&halves, &mut floats);
            let want: Vec<f32> = halves.iter().map(|h| f16_to_f32(u16::from_le_bytes(*h))).collect();
            assert_eq!(bits(&floats), bits(&want));
            all.concat()
        });
    }
}

#[test]
fn int8_dots_are_exact() {
    for n in [32, 64, 96, 2560] {
        let row: Vec<i8> = floats(n, 22).iter().map(|x| (x * 127.0).clamp(-127.0, 127.0) as i8).collect();
        let most = (i32::MAX as usize / (127 * n)).min(32_767) as f32;
        let xs: Vec<Vec<i16>> = (0..9)
            .map(|t| floats(n, 30 + t).iter().map(|x| (x * most).clamp(-most, most) as i16).collect())
            .chain([vec![most as i16; n], vec![-most as i16; n]])
            .collect();
        for tokens in 1..=xs.len() {
            let xs: Vec<&[i16]> = xs.iter().rev().take(tokens).map(|x| &x[..]).collect();
            let dot = |x: &&[i16]| x.iter().zip(&row).map(|(x, w)| *x as i32 * *w as i32).sum::<i32>();
            let want: Vec<i32> = xs.iter().map(dot).collect();
            for kernels in all() {
                let mut got = vec![0; tokens];
                kernels.dot_i8(&row, &xs, &mut got);
                assert_eq!(want, got, "{n} {tokens} {}", kernels.isa.name());
            }
        }
    }
}

#[test]
fn byte_dots_are_exact() {
    for (n, rows) in [(64, 1), (64, 9), (128, 4), (2560, 7), (1 << 17, 5)] {
        let byte = |x: &f32| (x * 127.0).clamp(-127.0, 127.0) as i8;
        let mut matrix: Vec<i8> = floats(n * rows, 22).iter().map(byte).collect();
        matrix[..n].fill(-127);
        matrix[n * (rows - 1)..].fill(127);
        let tokens = (0..7).map(|t| floats(n, 30 + t).iter().map(byte).collect());
        let tokens: Vec<Vec<i8>> = tokens.chain([vec![127; n], vec![-127; n]]).collect();
        for count in 1..=tokens.len() {
            let xs: Vec<&[i8]> = tokens.iter().rev().take(count).map(|x| &x[..]).collect();
            let dot = |x: &[i8], row: &[i8]| x.iter().zip(row).map(|(x, w)| *x as i32 * *w as i32).sum::<i32>();
            let want: Vec<i32> = xs.iter().flat_map(|x| matrix.chunks(n).map(|row| dot(x, row))).collect();
            for kernels in all() {
                let mut got = vec![0; want.len()];
                if kernels.byte_dots(&matrix, &xs, &mut got) {
                    assert_eq!(want, got, "{n} {rows} {count} {}", kernels.isa.name());
                }
            }
        }
    }
}

#[test]
fn softmax_is_equal_and_right() {
    for n in [1, 2, 63, 64, 65, 200, 1000] {
        let s: Vec<f32> = floats(n, 10).iter().map(|x| x.clamp(-200.0, 200.0)).collect();
        let compute = |k: &Kernels| {
            let mut p = s.clone();
            p.resize(n.next_multiple_of(PAGE_LEN), f32::NAN);
            let sum = k.softmax(&mut p, n, 0.125);
            p.push(sum);
            p
        };
        same_bits(&format!("softmax of {n}"), compute);
        let p = compute(scalar());
        let max = s.iter().fold(f32::MIN, |m, x| m.max(x * 0.125));
        for (p, s) in p.iter().zip(&s) {
            let want = ((s * 0.125 - max) as f64).exp();
            assert!((want - *p as f64).abs() <= want * 2e-7 + 1e-45, "{want} {p}");
        }
        assert!(p[n..p.len() - 1].iter().all(|p| *p == 0.0));
        let sum: f64 = p[..n].iter().map(|p| *p as f64).sum();
        assert!((sum - p[p.len() - 1] as f64).abs() < 1e-5 * sum);
    }
}

#[test]
fn silu_is_equal_and_right() {
    let gate: Vec<f32> = (-12_000..12_000).map(|i| i as f32 * 0.01).chain([0.0, -0.0, 1e30, -1e30]).collect();
    for n in [1, 15, 16, 17, gate.len()] {
        let up = vec![1.5; n];
        let compute = |k: &Kernels| {
            let mut out = gate[..n].to_vec();
            k.silu_mul(&mut out, &up);
            out
        };
        same_bits(&format!("silu of {n}"), compute);
        for (y, x) in compute(scalar()).iter().zip(&gate) {
            let want = *x as f64 / (1.0 + (-*x as f64).exp()) * 1.5;
            assert!((want - *y as f64).abs() <= want.abs() * 5e-7 + 1e-36, "silu({x}): {want} {y}");
        }
    }
}

#[test]
fn gelu_tanh_is_equal_and_right() {
    let gate: Vec<f32> = (-12_000..12_000).map(|i| i as f32 * 0.01).chain([0.0, -0.0, 1e30, -1e30]).collect();
    for n in [1, 15, 16, 17, gate.len()] {
        let up = vec![1.5; n];
        let compute = |k: &Kernels| {
            let mut out = gate[..n].to_vec();
            k.gelu_tanh_mul(&mut out, &up);
            out
        };
        same_bits(&format!("gelu_tanh of {n}"), compute);
        for (y, x) in compute(scalar()).iter().zip(&gate) {
            let x = *x as f64;
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            // As tanh near -1 loses digits, the quotient of exponentials. Its argument 2u takes four roundings and two
            // rounded constants, and an error of it is a relative one of the result.
            let want = x / (1.0 + (-2.0 * u).exp()) * 1.5;
            let allowed = want.abs() * (5e-7 + 2.0 * u.abs().min(90.0) * 6.0 * 2f64.powi(-24)) + 1e-36;
            assert!((want - *y as f64).abs() <= allowed, "gelu({x}): {want} {y}");
        }
    }
}

#[test]
fn softcap_is_equal_and_right() {
    let logits: Vec<f32> = (-12_000..12_000).map(|i| i as f32 * 0.02).chain([0.0, -0.0, 1e30, -1e30, 1e-30]).collect();
    for (n, cap) in [(1, 30.0), (15, 30.0), (16, 1e-3), (17, 1e5), (logits.len(), 30.0)] {
        let compute = |k: &Kernels| {
            let mut out = logits[..n].to_vec();
            k.softcap(&mut out, cap);
            out
        };
        same_bits(&format!("softcap of {n}"), compute);
        for (y, x) in compute(scalar()).iter().zip(&logits) {
            let want = cap as f64 * (*x as f64 / cap as f64).tanh();
            assert!((want - *y as f64).abs() <= want.abs() * 4e-7, "softcap({x}): {want} {y}");
            assert!(*x == 0.0 || x.is_sign_negative() == y.is_sign_negative());
        }
    }
}

#[test]
fn f16_rounds_to_nearest_even_and_converts_back() {
    for half in 0..=u16::MAX {
        let x = f16_to_f32(half);
        if x.is_nan() {
            assert!(f16_to_f32(u16::from_le_bytes(to_f16(x))).is_nan());
            continue;
        }
        assert_eq!(u16::from_le_bytes(to_f16(x)), half, "{x}");
        let next = f16_to_f32(half.wrapping_add(1));
        if half & 0x7fff < 0x7bff {
            let middle = ((x as f64 + next as f64) / 2.0) as f32;
            let even = if half & 1 == 0 { half } else { half + 1 };
            assert_eq!(u16::from_le_bytes(to_f16(middle)), even, "between {x} and {next}");
        }
    }
    assert_eq!(u16::from_le_bytes(to_f16(65519.9)), 0x7bff);
    assert_eq!(u16::from_le_bytes(to_f16(65520.0)), 0x7c00);
    assert_eq!(u16::from_le_bytes(to_f16(f32::from_bits(1))), 0);
}

/// Quantizes rows of `cols` floats to int8 activations.
fn quantized(kernels: &Kernels, x: &[f32], cols: usize) -> Activations {
    let mut activations = Activations::default();
    for (x, (q, scale)) in x.chunks(cols).zip(activations.rows(x.len() / cols, cols).expect("memory")) {
        *scale = kernels.quantize(x, q);
    }
    activations
}

fn pack(team: &Team, packing: Packing, trits: &[i8], rows: usize, cols: usize, scales: &[f32]) -> Ternary {
    let packed = Ternary::from_rows(team, &Arena::default(), Layout { packing, rows, cols }, |row, out| {
        out.copy_from_slice(&trits[row * cols..][..cols]);
        Ok::<_, Error>(Some(scales[row % scales.len()]))
    });
    packed.unwrap_or_else(|error| panic!("{error}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 40 } else { 80 }))]

    #[test]
    fn ternary_matmul_is_the_exact_integer_sum(
        rows in 1usize..100,
        cols in 1usize..1400,
        tokens in 1usize..27,
        threads in 1usize..4,
        by_row: bool,
        seed: u32,
    ) {
        let trits: Vec<i8> = floats(rows * cols, seed).iter().map(|x| ((x.to_bits() >> 7) % 3) as i8 - 1).collect();
        let x = floats(tokens * cols, seed ^ 1);
        let scales = if by_row { vec![0.5, 0.25, 3.0] } else { vec![0.37] };
        for (kernels, packing) in all().into_iter().flat_map(|kernels| Packing::ALL.map(|packing| (kernels, packing))) {
            let (got, q) = in_team(threads, kernels, |team| {
                let weights = pack(team, packing, &trits, rows, cols, &scales);
                let activations = quantized(kernels, &x, cols);
                let mut out = vec![f32::NAN; tokens * rows];
                weights.matmul(team, &activations, &mut out);
                (out, activations)
            });
            drop(q);
            for t in 0..tokens {
                let mut q = vec![0i8; cols.next_multiple_of(128)];
                let (s, _) = kernels.quantize(&x[t * cols..][..cols], &mut q);
                for r in 0..rows {
                    let sum: i64 = (0..cols).map(|k| trits[r * cols + k] as i64 * q[k] as i64).sum();
                    let want = sum as f32 * (scales[r % scales.len()] / s);
                    let isa = kernels.isa.name();
                    let got = got[t * rows + r];
                    prop_assert_eq!(want.to_bits(), got.to_bits(), "{} {:?} token {} row {}", isa, packing, t, r);
                }
            }
        }
    }
}

#[test]
fn packing_i2s_equals_packing_its_trits_and_finds_code_three() {
    let (rows, cols) = (37, 896);
    let codes: Vec<u8> = (0..rows * cols / 4).map(|i| [0x00, 0x19, 0x66, 0xa5, 0x82, 0x55][i * 7 % 6]).collect();
    let trit = |r: usize, k: usize| {
        let flat = r * cols + k;
        (codes[flat / 128 * 32 + flat % 32] >> (6 - 2 * (flat % 128 / 32)) & 3) as i8 - 1
    };
    let trits: Vec<i8> = (0..rows * cols).map(|i| trit(i / cols, i % cols)).collect();
    let x = floats(3 * cols, 11);
    in_team(2, scalar(), |team| {
        let i2s = |packing, codes: &[u8]| {
            let invalid = |row: usize| Error::Model(format!("row {row}"));
            Ternary::from_i2s(team, &Arena::default(), Layout { packing, rows, cols }, codes, 0.7, invalid)
        };
        let outputs = Packing::ALL.map(|packing| {
            [
                i2s(packing, &codes).unwrap_or_else(|error| panic!("{error}")),
                pack(team, packing, &trits, rows, cols, &[0.7]),
            ]
            .map(|weights| {
                let activations = quantized(scalar(), &x, cols);
                let mut out = vec![0.0; 3 * rows];
                weights.matmul(team, &activations, &mut out);
                bits(&out)
            })
        });
        assert!(outputs.as_flattened().iter().all(|output| *output == outputs[0][0]));
        let mut broken = codes.clone();
        broken[30 * cols / 4 + 5] = 0x0c;
        broken[33 * cols / 4] = 0xc0;
        for packing in Packing::ALL {
            assert!(matches!(i2s(packing, &broken), Err(Error::Model(row)) if row == "row 30"));
        }
    });
}

#[test]
fn an_unavailable_instruction_set_is_refused_with_the_available_ones() {
    let missing = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    for name in [missing, "sse9"] {
        let message = kernels(Some(name)).err().expect("refused").to_string();
        assert!(message.contains(name) && message.contains("scalar"), "{message}");
    }
}

#[test]
fn values_that_are_not_finite_propagate() {
    for kernels in all() {
        for (bad, at) in [(f32::NAN, 3), (f32::INFINITY, 200), (-f32::NAN, 299)] {
            let mut x = floats(300, 1);
            x[at] = bad;
            let mut y = [0f32];
            in_team(1, kernels, |team| {
                let ternary = pack(team, Packing::TwoBit, &[1; 300], 1, 300, &[1.0]);
                ternary.matmul(team, &quantized(kernels, &x, 300), &mut y);
            });
            assert!(!y[0].is_finite(), "{} in int8 activations", kernels.isa.name());
        }
        let mut scores = vec![1f32; PAGE_LEN];
        scores[7] = f32::NAN;
        assert!(kernels.softmax(&mut scores, PAGE_LEN, 1.0).is_nan(), "{} in softmax", kernels.isa.name());
        let mut gate = vec![f32::NAN; 1];
        kernels.silu_mul(&mut gate, &[0.0]);
        assert!(gate[0].is_nan());
        gate[0] = f32::NAN;
        kernels.relu2_mul(&mut gate, &[1.0]);
        assert!(gate[0].is_nan());
        kernels.gelu_tanh_mul(&mut gate, &[1.0]);
        assert!(gate[0].is_nan());
        kernels.softcap(&mut gate, 30.0);
        assert!(gate[0].is_nan());
    }
}

#[test]
fn too_many_threads_are_refused() {
    for size in [1025, usize::MAX] {
        let message = Pool::new(size).err().expect("refused").to_string();
        assert!(message.contains(&size.to_string()) && message.contains("1024"), "{message}");
    }
}

#[test]
fn a_panic_in_a_loop_reaches_the_caller_and_the_pool_stays_usable() {
    let pool = Pool::new(3).expect("threads");
    for _ in 0..20 {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(|team| team.for_each(100, |i| assert_ne!(i, 57)));
        }));
        assert!(result.is_err());
        let sum = std::sync::atomic::AtomicUsize::new(0);
        pool.run(|team| {
            team.for_each(1000, |i| {
                sum.fetch_add(i, std::sync::atomic::Ordering::Relaxed);
            })
        });
        assert_eq!(sum.into_inner(), 499_500);
    }
}

#[test]
fn a_caller_whose_watch_gives_up_leaves_the_queue() {
    let pool = Pool::new(1).expect("threads");
    let (begun, end) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pool.run(|_| {
                begun.wait();
                end.wait();
            })
        });
        begun.wait();
        // The running job ends when this caller has given up, or after a minute.
        let (gave_up, told) = std::sync::mpsc::channel();
        let pool = &pool;
        scope.spawn(move || gave_up.send(pool.run_watched(|_| 1, || true)));
        let answer = told.recv_timeout(std::time::Duration::from_secs(60));
        end.wait();
        assert_eq!(answer, Ok(None));
    });
    assert_eq!(pool.run_watched(|_| 2, || true), None, "the watch is asked when the slot is free");
    assert_eq!(pool.run_watched(|_| 3, || false), Some(3));
}

#[test]
fn jobs_of_many_callers_run_one_after_the_other() {
    let pool = Pool::new(2).expect("threads");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 1..200usize {
                    let mut data = vec![0usize; n];
                    pool.run(|team| team.for_each_chunk(&mut data, 3, |i, c| c.fill(i + 1)));
                    assert!(data.iter().enumerate().all(|(i, v)| *v == i / 3 + 1));
                }
            });
        }
    });
}

#[test]
fn peak_macs_returns_the_number_of_multiply_adds() {
    // Multiply-adds a round: 128 columns × tokens × rows of a tile.
    let macs = |isa: &str| match isa {
        "scalar" => 16,
        "avx2" => 128 * 4 * 8,
        "avx-vnni" => 128 * 4 * 16,
        "avx512" => 128 * 8 * 16,
        "avx512-vnni" => 128 * 12 * 32,
        "amx" => 128 * 32 * 32,
        "neon" | "neon-dot" | "simd128" => 128 * 4 * 4,
        "neon-i8mm" => 128 * 8 * 8,
        other => panic!("no figure for {other}"),
    };
    for kernels in all() {
        let isa = kernels.isa.name();
        for rounds in [0, 1, 2, 1000, 1 << 16] {
            assert_eq!(kernels.peak_macs(rounds), rounds as u64 * macs(isa), "{isa}, {rounds} rounds");
        }
    }
}
