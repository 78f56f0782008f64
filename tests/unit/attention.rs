use super::*;
use crate::kernel::{Isa, kernels};
use crate::machine::pool::Pool;

/// Deterministic floats from -1 to 1.
fn floats(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// The pages of a sequence of so many positions.
fn pages(shape: &PageShape, kv_type: KvType, positions: usize, seed: u32) -> Vec<Arc<Page>> {
    let width = shape.n_kv_heads * shape.head_dim;
    let mut pages = Vec::new();
    for (i, first) in (0..positions).step_by(PAGE_LEN).enumerate() {
        let mut page = Page::new(shape, kv_type).expect("memory");
        for slot in 0..PAGE_LEN.min(positions - first) {
            let [keys, values] = [0, 1].map(|n| floats(width, seed + 1000 * (i * PAGE_LEN + slot) as u32 + n));
            (0..shape.n_layers).for_each(|layer| page.write(shape, layer, slot, &keys, &values));
        }
        pages.push(Arc::new(page));
    }
    pages
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn in_team<R: Send>(threads: usize, isa: &str, job: impl FnOnce(&Team) -> R + Send) -> R {
    let kernels = kernels(Some(isa)).expect("available");
    Pool::new(threads).expect("threads").run(|workers| job(&Team::new(workers, kernels)))
}

/// Attention of one thread, which divides nothing, and of some threads that divide `count` tasks.
fn both(
    batch: &AttentionBatch,
    q: &[f32],
    threads: usize,
    isa: &str,
    counts: impl Fn(usize) -> Vec<usize> + Sync,
) -> (Vec<u32>, Vec<(usize, Vec<u32>)>) {
    let mut want = vec![0f32; q.len()];
    in_team(1, isa, |team| attention(team, batch, q, &mut want, &mut WorkCounters::default()));
    let divided = in_team(threads, isa, |team| {
        let heads = 0..batch.shape.n_kv_heads;
        let of_tile = |rows: Range<usize>| heads.clone().map(move |head| Task { rows: rows.clone(), head });
        let tasks: Vec<Task> = batch.tiles().into_iter().flat_map(of_tile).collect();
        let compute = |count| {
            let mut out = vec![f32::NAN; q.len()];
            batch.attend_divided(team, &tasks, count, q, &mut out);
            (count, bits(&out))
        };
        counts(tasks.len()).into_iter().map(compute).collect()
    });
    (bits(&want), divided)
}

#[test]
fn a_divided_row_has_the_bits_of_one_thread() {
    for (kv_type, head_dim, n_kv_heads, heads_per_kv_head) in
        [(KvType::F16, 128, 5, 4), (KvType::F32, 64, 2, 1), (KvType::F16, 40, 3, 9), (KvType::F32, 20, 1, 8)]
    {
        let shape = PageShape { n_layers: 2, n_kv_heads, head_dim };
        let pages = pages(&shape, kv_type, 321, 7);
        let q = floats(n_kv_heads * heads_per_kv_head * head_dim, 5);
        for len in [1, 2, 63, 64, 65, 128, 129, 200, 321] {
            for window in [None, Some(1), Some(64), Some(100)] {
                let rows = [AttentionRow { pages: &pages, position: len - 1 }];
                let batch = AttentionBatch { shape: &shape, layer: 1, window, scale: 0.3, rows: &rows };
                for threads in 1..=8 {
                    let (want, divided) = both(&batch, &q, threads, "scalar", |tasks| vec![1, tasks]);
                    for (count, got) in divided {
                        assert!(want == got, "{kv_type:?}, {len} positions, {window:?}, {threads} threads, {count}");
                    }
                }
            }
        }
    }
}

#[test]
fn divided_rows_of_several_sequences_have_the_bits_of_one_thread() {
    let shape = PageShape { n_layers: 1, n_kv_heads: 3, head_dim: 48 };
    for kv_type in [KvType::F16, KvType::F32] {
        let sequences = [300, 10, 130].map(|len| pages(&shape, kv_type, len, len as u32));
        // A decode step, six rows that follow each other over the edge of a page, and rows of a third sequence.
        let positions =
            [(1, 9), (0, 189), (0, 190), (0, 191), (0, 192), (0, 193), (0, 194), (2, 63), (2, 64), (2, 129)];
        let rows = positions.map(|(sequence, position)| AttentionRow { pages: &sequences[sequence], position });
        let q = floats(rows.len() * 3 * 4 * shape.head_dim, 3);
        for window in [None, Some(2), Some(65), Some(150)] {
            let batch = AttentionBatch { shape: &shape, layer: 0, window, scale: 0.2, rows: &rows };
            for isa in Isa::available() {
                for threads in [2, 3, 5] {
                    let (want, divided) = both(&batch, &q, threads, isa.name(), |tasks| (0..=tasks).collect());
                    for (count, got) in divided {
                        assert!(want == got, "{kv_type:?}, {window:?}, {} {threads} threads, {count}", isa.name());
                    }
                }
            }
        }
    }
}

#[test]
fn a_deep_row_is_divided_and_a_short_one_is_not() {
    let shape = PageShape { n_layers: 1, n_kv_heads: 5, head_dim: 128 };
    let pages = pages(&shape, KvType::F16, 2048, 1);
    let q = floats(20 * 128, 2);
    let mut work = WorkCounters::default();
    let row = |position| AttentionRow { pages: &pages, position };
    let divided = |rows: &[AttentionRow], threads| {
        let batch = AttentionBatch { shape: &shape, layer: 0, window: None, scale: 0.1, rows };
        batch.divided(&batch.tiles(), threads, 4).map(|(_, count)| count)
    };
    let rows = [row(2047)];
    let batch = AttentionBatch { shape: &shape, layer: 0, window: None, scale: 0.1, rows: &rows };
    let mut want = vec![0f32; q.len()];
    in_team(1, "scalar", |team| attention(team, &batch, &q, &mut want, &mut work));
    for (threads, count) in [(1, None), (2, Some(1)), (4, Some(1)), (5, None), (8, Some(5))] {
        assert_eq!(divided(&rows, threads), count, "{threads} threads");
        let mut got = vec![0f32; q.len()];
        in_team(threads, "scalar", |team| attention(team, &batch, &q, &mut got, &mut work));
        assert!(bits(&want) == bits(&got), "{threads} threads");
    }
    assert_eq!(divided(&[row(100)], 2), None);
    assert_eq!(divided(&[row(2047), row(2047)], 2), None, "ten tasks are five for each thread");
    assert_eq!(divided(&[row(2047), row(100), row(100)], 2), Some(1), "short tasks do not fill the gap");
    let prompt: Vec<AttentionRow> = (1900..2000).map(row).collect();
    assert_eq!(divided(&prompt, 2), None);
}

#[test]
fn parts_of_values_are_whole_cache_lines_and_leave_no_thread_idle() {
    assert_eq!(lines_per_part(1, 2, 4), 2);
    assert_eq!(lines_per_part(1, 4, 4), 1);
    assert_eq!(lines_per_part(2, 2, 4), 4, "a task for each thread");
    assert_eq!(lines_per_part(5, 8, 4), 1);
    assert_eq!(lines_per_part(1, 8, 3), 1, "more threads than lines");
    assert_eq!(lines_per_part(1, 2, 1), 1);
}
