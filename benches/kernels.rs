//! Times the kernels at the shapes of BitNet b1.58 2B-4T, on one thread, for every instruction set of this processor.

use bitnet::error::Error;
use bitnet::kernel::f16::to_f16;
use bitnet::kernel::head_upper::{UPPER_BYTES, UPPER_STEP};
use bitnet::kernel::packing::Packing;
use bitnet::kernel::ternary::{Activations, Layout, Ternary};
use bitnet::kernel::{Isa, Kernels, Team, kernels};
use bitnet::machine::counters::WorkCounters;
use bitnet::machine::memory::{Arena, HugeBuf};
use bitnet::machine::pool::Pool;
use bitnet::ops::attention::{AttentionBatch, AttentionRow, KvType, Page, PageShape, attention};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const HIDDEN_SIZE: usize = 2560;
const INTERMEDIATE_SIZE: usize = 6912;
const N_HEADS: usize = 20;
const SHAPE: PageShape = PageShape { n_layers: 1, n_kv_heads: 5, head_dim: 128 };

/// Floats between -1 and 1.
fn floats(n: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Times `job` with every instruction set, on a thread of a pool, as an engine runs it.
fn on_every_isa(group: &mut BenchmarkGroup<WallTime>, what: &str, pool: &Pool, job: impl Fn(&Team) + Sync) {
    for isa in Isa::available() {
        let kernels = kernels(Some(isa.name())).expect("available");
        group.bench_function(format!("{what}/{}", isa.name()), |bencher| {
            bencher.iter(|| pool.run(|workers| job(&Team::new(workers, kernels))));
        });
    }
}

/// Quantizes rows of `cols` floats to int8 activations.
fn quantized(kernels: &Kernels, x: &[f32], cols: usize) -> Activations {
    let mut activations = Activations::default();
    for (x, (q, scale)) in x.chunks(cols).zip(activations.rows(x.len() / cols, cols).expect("memory")) {
        *scale = kernels.quantize(x, q);
    }
    activations
}

/// The largest projection, in multiply-adds per second.
fn ternary(criterion: &mut Criterion) {
    let pool = Pool::new(1).expect("a thread");
    let trits: Vec<i8> = floats(HIDDEN_SIZE).iter().map(|x| (x * 1.5).round() as i8).collect();
    let read = |row: usize, out: &mut [i8]| {
        out.copy_from_slice(&trits);
        out.rotate_left(row % HIDDEN_SIZE);
        Ok::<_, Error>(Some(1.0))
    };
    let mut group = criterion.benchmark_group("ternary 6912x2560");
    group.sampling_mode(SamplingMode::Flat);
    for packing in Packing::ALL {
        let matrix = pool.run(|workers| {
            let team = Team::new(workers, kernels(None).expect("available"));
            let layout = Layout { packing, rows: INTERMEDIATE_SIZE, cols: HIDDEN_SIZE };
            Ternary::from_rows(&team, &Arena::default(), layout, read)
        });
        let matrix = matrix.expect("memory");
        for tokens in [1, 128] {
            let x = floats(tokens * HIDDEN_SIZE);
            group.throughput(Throughput::Elements((tokens * INTERMEDIATE_SIZE * HIDDEN_SIZE) as u64));
            on_every_isa(&mut group, &format!("{packing:?}, {tokens} tokens"), &pool, |team| {
                let activations = quantized(team.kernels, &x, HIDDEN_SIZE);
                let mut out = vec![0f32; tokens * INTERMEDIATE_SIZE];
                matrix.matmul(team, &activations, &mut out);
                black_box(out);
            });
        }
    }
}

/// Rows of an output head, in bytes of weights per second.
fn dense(criterion: &mut Criterion) {
    const ROWS: usize = 1024;
    let pool = Pool::new(1).expect("a thread");
    let weights: Vec<[u8; 2]> = floats(ROWS * HIDDEN_SIZE).into_iter().map(to_f16).collect();
    let mut group = criterion.benchmark_group("f16 rows 1024x2560");
    group.throughput(Throughput::Bytes(2 * (ROWS * HIDDEN_SIZE) as u64));
    for tokens in [1, 8] {
        let x = floats(tokens * HIDDEN_SIZE);
        let x: Vec<&[f32]> = x.chunks(HIDDEN_SIZE).collect();
        on_every_isa(&mut group, &format!("{tokens} tokens"), &pool, |team| {
            let mut dots = vec![0f32; tokens];
            for row in weights.chunks(HIDDEN_SIZE) {
                team.kernels.dot_f16(row, &x, &mut dots);
                black_box(&mut dots);
            }
        });
    }
}

/// The attention of one token in one layer, in bytes of keys and values per second.
fn attention_step(criterion: &mut Criterion) {
    let pool = Pool::new(1).expect("a thread");
    let q = floats(N_HEADS * SHAPE.head_dim);
    let row = floats(SHAPE.n_kv_heads * SHAPE.head_dim);
    let mut group = criterion.benchmark_group("attention");
    for depth in [512, 2048] {
        let mut pages = Vec::new();
        for _ in 0..depth / 64 {
            let mut page = Page::new(&SHAPE, KvType::F16).expect("memory");
            (0..64).for_each(|slot| page.write(&SHAPE, 0, slot, &row, &row));
            pages.push(Arc::new(page));
        }
        group.throughput(Throughput::Bytes(pages.iter().map(|page| page.bytes().len() as u64).sum()));
        on_every_isa(&mut group, &format!("depth {depth}"), &pool, |team| {
            let mut out = vec![0f32; q.len()];
            let rows = [AttentionRow { pages: &pages, position: depth - 1 }];
            let batch = AttentionBatch { shape: &SHAPE, layer: 0, window: None, scale: 0.088, rows: &rows };
            attention(team, &batch, &q, &mut out, &mut WorkCounters::default());
            black_box(out);
        });
    }
}

/// One token's dots with rows of an output head, in weights per second: all eight bits, and the upper six.
fn quantized_head(criterion: &mut Criterion) {
    const ROWS: usize = 1 << 16; // more than caches hold
    const STRIPE: usize = 64;
    let x: Vec<i16> = floats(HIDDEN_SIZE).iter().map(|x| (x * 3000.0) as i16).collect();
    let mut bytes = HugeBuf::<i8>::try_zeroed(ROWS * HIDDEN_SIZE).expect("memory");
    let mut upper = HugeBuf::<u8>::try_zeroed(ROWS * HIDDEN_SIZE / UPPER_STEP * UPPER_BYTES).expect("memory");
    bytes.fill(1); // pages of zeros could be one page
    upper.fill(1);
    let mut group = criterion.benchmark_group("output head 65536x2560");
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements((ROWS * HIDDEN_SIZE) as u64));
    for threads in [1, 2] {
        let pool = Pool::new(threads).expect("threads");
        let mut dots = vec![0i32; ROWS];
        let dots = Mutex::new(&mut dots);
        on_every_isa(&mut group, &format!("8 bits, {threads} threads"), &pool, |team| {
            team.for_each_chunk(&mut dots.lock().expect("whole"), STRIPE, |stripe, dots| {
                let rows = bytes[stripe * STRIPE * HIDDEN_SIZE..].chunks(HIDDEN_SIZE);
                for (dot, row) in dots.chunks_mut(1).zip(rows) {
                    team.kernels.dot_i8(row, &[&x], dot);
                }
            });
        });
        on_every_isa(&mut group, &format!("6 bits, {threads} threads"), &pool, |team| {
            let stripe_bytes = STRIPE * HIDDEN_SIZE / UPPER_STEP * UPPER_BYTES;
            team.for_each_chunk(&mut dots.lock().expect("whole"), STRIPE, |stripe, dots| {
                team.kernels.dots_upper(&upper[stripe * stripe_bytes..][..stripe_bytes], &x, dots);
            });
        });
    }
}

criterion_group! {
    name = all;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = ternary, dense, quantized_head, attention_step
}
criterion_main!(all);
