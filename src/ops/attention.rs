//! The pages of the KV cache and the attention over them.
//!
//! A page holds 64 positions of all layers. Keys are stored `[channel][position]`, so that the lanes of q·k are keys;
//! values are stored `[position][channel]`, so that the lanes of p·v are channels. Both sums run in ascending order
//! over absolute positions, whatever the batch, the chunk or the threads.

use crate::error::Result;
use crate::kernel::attention::PAGE_LEN;
use crate::kernel::f16::to_f16;
use crate::kernel::lanes::{F16Bytes, F32Bytes};
use crate::kernel::{Kernels, Team};
use crate::machine::clock::Instant;
use crate::machine::counters::WorkCounters;
use crate::machine::memory::HugeBuf;
use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;

named! {
    /// How keys and values are stored.
    pub enum KvType {
        /// IEEE binary16, rounded to nearest even.
        F16 = "f16",
        /// IEEE binary32.
        F32 = "f32",
    }
}

impl KvType {
    /// Bytes of one stored element: 2 or 4.
    pub fn bytes(self) -> usize {
        match self {
            KvType::F16 => size_of::<F16Bytes>(),
            KvType::F32 => size_of::<F32Bytes>(),
        }
    }
}

/// The size of a page.
#[derive(Clone, Copy, Debug)]
pub struct PageShape {
    /// Layers of the model.
    pub n_layers: usize,
    /// Key/value heads of a layer.
    pub n_kv_heads: usize,
    /// Channels of a head, without the padding of stored values.
    pub head_dim: usize,
}

impl PageShape {
    /// Channels of a stored value: those of a head, padded to whole vectors.
    fn value_channels(&self) -> usize {
        self.head_dim.next_multiple_of(16)
    }

    fn head_len(&self) -> usize {
        PAGE_LEN * (self.head_dim + self.value_channels())
    }

    /// Elements of a page, padding included.
    pub fn elements(&self) -> usize {
        self.n_layers * self.n_kv_heads * self.head_len()
    }

    /// Where the keys of a head are in a page.
    fn keys(&self, layer: usize, head: usize) -> Range<usize> {
        let start = (layer * self.n_kv_heads + head) * self.head_len();
        start..start + PAGE_LEN * self.head_dim
    }

    /// Where the values of a head are in a page.
    fn values(&self, layer: usize, head: usize) -> Range<usize> {
        let start = self.keys(layer, head).end;
        start..start + PAGE_LEN * self.value_channels()
    }
}

/// Keys and values of 64 positions.
pub enum Page {
    /// Elements of IEEE binary16.
    F16(HugeBuf<F16Bytes>),
    /// Elements of IEEE binary32.
    F32(HugeBuf<F32Bytes>),
}

impl Page {
    /// A page of zeros, or an error if memory is lacking.
    pub fn new(shape: &PageShape, kv_type: KvType) -> Result<Page> {
        Ok(match kv_type {
            KvType::F16 => Page::F16(HugeBuf::try_zeroed(shape.elements())?),
            KvType::F32 => Page::F32(HugeBuf::try_zeroed(shape.elements())?),
        })
    }

    /// A page with the same contents.
    pub fn copy(&self) -> Result<Page> {
        Ok(match self {
            Page::F16(page) => Page::F16(page.try_clone()?),
            Page::F32(page) => Page::F32(page.try_clone()?),
        })
    }

    /// Its elements as stored, in the order of [`PageShape`].
    pub fn bytes(&self) -> &[u8] {
        match self {
            Page::F16(page) => page.as_flattened(),
            Page::F32(page) => page.as_flattened(),
        }
    }

    /// Its elements as stored, to be overwritten.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Page::F16(page) => page.as_flattened_mut(),
            Page::F32(page) => page.as_flattened_mut(),
        }
    }

    /// Stores the keys and values of one position (`slot` in this page) and layer, all heads one after the other.
    pub fn write(&mut self, shape: &PageShape, layer: usize, slot: usize, keys: &[f32], values: &[f32]) {
        match self {
            Page::F16(page) => write(page, shape, layer, slot, keys, values, to_f16),
            Page::F32(page) => write(page, shape, layer, slot, keys, values, f32::to_le_bytes),
        }
    }
}

fn write<T: Copy>(
    page: &mut [T],
    shape: &PageShape,
    layer: usize,
    slot: usize,
    keys: &[f32],
    values: &[f32],
    narrow: impl Fn(f32) -> T,
) {
    let heads = keys.chunks(shape.head_dim).zip(values.chunks(shape.head_dim));
    for (head, (key, value)) in heads.enumerate() {
        let column = page[shape.keys(layer, head)][slot..].iter_mut().step_by(PAGE_LEN);
        column.zip(key).for_each(|(stored, x)| *stored = narrow(*x));
        let row = &mut page[shape.values(layer, head)][slot * shape.value_channels()..];
        row.iter_mut().zip(value).for_each(|(stored, x)| *stored = narrow(*x));
    }
}

/// What one row of a batch attends to: the positions of its sequence up to its own.
pub struct AttentionRow<'a> {
    /// The pages of its sequence.
    pub pages: &'a [Arc<Page>],
    /// Absolute position in the sequence, from 0.
    pub position: usize,
}

/// One layer's attention for a batch.
pub struct AttentionBatch<'a> {
    /// The shape of all pages.
    pub shape: &'a PageShape,
    /// Index of the layer, from 0.
    pub layer: usize,
    /// How many positions a row sees at most, its own included; all without a window.
    pub window: Option<usize>,
    /// Multiplies the scores, 1/√head_dim in most models.
    pub scale: f32,
    /// The rows of the batch. Neighbours that follow each other in one sequence are computed together.
    pub rows: &'a [AttentionRow<'a>],
}

/// How many rows one task takes if they follow each other in one sequence: they share every read of a page.
const ATTENTION_TILE_ROWS: usize = 4;

/// Where each thread has more tasks than this, none is divided: they end at about the same time anyway.
const MAX_TASKS_PER_THREAD: usize = 8;
/// Fewer query vectors than this take as long: the task waits for the cache to be read.
const MIN_COST_VECTORS: usize = 4;
/// What dividing tasks costs, in multiply-adds of [`AttentionBatch::cost`]: two more loops of all threads, some
/// microseconds.
const DIVISION_COST: usize = 1 << 17;
/// Bytes that memory delivers at once.
const CACHE_LINE: usize = 64;

/// A part of a task that one thread computes in the first loop of [`AttentionBatch::attend_divided`].
struct Part<'a> {
    task: &'a Task,
    /// Compute only the scores with these pages; all of the task if there are none.
    pages: Option<&'a [Arc<Page>]>,
    /// The scores, `[vector][key]`, or the result of the task.
    result: Vec<f32>,
}

/// The estimated duration of tasks with these costs, the largest first, if `count` of them are divided among the threads,
/// in the unit of the costs. A key's values are in `lines` cache lines.
fn duration(costs: &[usize], count: usize, threads: usize, lines: usize) -> usize {
    let (divided, whole) = costs.split_at(count);
    // A thread that is free takes the largest task that is left.
    let mut busy = vec![0; threads];
    for cost in whole {
        *busy.iter_mut().min().expect("there is a thread") += cost;
    }
    let longest = busy.into_iter().max().unwrap_or_default();
    if count == 0 {
        return longest;
    }
    // The scores of divided tasks, half of their cost, fill what the others leave. Their weighted sums come after that.
    let all = whole.iter().sum::<usize>() + divided.iter().sum::<usize>() / 2;
    let lines_in_turn = lines_in_turn(count, lines_per_part(count, threads, lines), threads, lines);
    longest.max(all / threads) + divided[0] / 2 * lines_in_turn / lines + DIVISION_COST
}

/// How many cache lines of a key's values a part gets, if the values of `count` tasks are divided among the threads. If it
/// makes no difference, parts are large.
fn lines_per_part(count: usize, threads: usize, lines: usize) -> usize {
    (1..=lines).rev().min_by_key(|each| lines_in_turn(count, *each, threads, lines)).unwrap_or(lines)
}

/// How many lines the busiest thread computes one after the other.
fn lines_in_turn(count: usize, each: usize, threads: usize, lines: usize) -> usize {
    (count * lines.div_ceil(each)).div_ceil(threads) * each
}

/// Rows that follow each other in one sequence, and a key/value head: one task computes all query heads that share it.
#[derive(Clone)]
struct Task {
    rows: Range<usize>,
    head: usize,
}

/// Scaled dot-product attention with grouped queries (arXiv 1706.03762, section 3.2; arXiv 2305.13245):
/// `out[row] = softmax(q·kᵀ · scale)·v` for every row and query head, where query head h reads key/value head
/// h / (n_heads / n_kv_heads). Counts itself in `work`.
pub fn attention(team: &Team, batch: &AttentionBatch, q: &[f32], out: &mut [f32], work: &mut WorkCounters) {
    let start = Instant::now();
    let AttentionBatch { shape, rows, .. } = batch;
    // The channels of the query heads that share a key/value head.
    let width = q.len() / rows.len() / shape.n_kv_heads;
    let tiles = batch.tiles();
    match batch.divided(&tiles, team.size(), width / shape.head_dim) {
        Some((tasks, count)) => batch.attend_divided(team, &tasks, count, q, out),
        None => team.for_each_tile(out, shape.n_kv_heads * width, width, &tiles, |tile, first, out| {
            let task = Task { rows: tile.clone(), head: first / width };
            let attended = batch.attend(team.kernels, &task, q);
            tile.zip(attended.chunks(width)).for_each(|(row, attended)| out.token(row).copy_from_slice(attended));
        }),
    }
    work.attention += rows.len() as u64;
    work.attention_ns += start.elapsed().as_nanos() as u64;
}

/// The attention weights behind [`attention`], `softmax(q·kᵀ · scale)`: for every row and query head those of `n`
/// positions. Positions that the row does not see are not written.
pub fn attention_weights(team: &Team, batch: &AttentionBatch, q: &[f32], n: usize, out: &mut [f32]) {
    let (rows, head_dim) = (batch.rows, batch.shape.head_dim);
    let n_heads = q.len() / rows.len() / head_dim;
    let heads_per_kv_head = n_heads / batch.shape.n_kv_heads;
    team.for_each_chunk(out, n_heads * n, |row, out| {
        let (seen, page) = (batch.seen(row), batch.first_page(row) * PAGE_LEN);
        let queries = q[row * n_heads * head_dim..].chunks(heads_per_kv_head * head_dim);
        for (head, (q, out)) in queries.zip(out.chunks_mut(heads_per_kv_head * n)).enumerate() {
            let (p, sums) = batch.softmax(team.kernels, &Task { rows: row..row + 1, head }, q);
            let weights = out.chunks_mut(n).zip(p.chunks(p.len() / heads_per_kv_head)).zip(sums);
            weights.for_each(|((out, p), sum)| {
                let p = &p[seen.start - page..];
                out[seen.clone()].iter_mut().zip(p).for_each(|(out, p)| *out = p / sum);
            });
        }
    });
}

impl<'a> AttentionBatch<'a> {
    /// The positions that a row attends to.
    fn seen(&self, row: usize) -> Range<usize> {
        let end = self.rows[row].position + 1;
        end.saturating_sub(self.window.unwrap_or(end))..end
    }

    /// The index of the first page that a row attends to.
    fn first_page(&self, row: usize) -> usize {
        self.seen(row).start / PAGE_LEN
    }

    /// Cuts the batch into ranges of rows that follow each other in one sequence.
    fn tiles(&self) -> Vec<Range<usize>> {
        let follows =
            |a: &AttentionRow, b: &AttentionRow| std::ptr::eq(a.pages, b.pages) && a.position + 1 == b.position;
        let mut first = 0;
        let mut tiles = Vec::new();
        for run in self.rows.chunk_by(follows) {
            tiles.extend(
                (0..run.len())
                    .step_by(ATTENTION_TILE_ROWS)
                    .map(|i| first + i..first + run.len().min(i + ATTENTION_TILE_ROWS)),
            );
            first += run.len();
        }
        tiles
    }

    /// The pages that a task reads, from its first row's first page on.
    fn pages(&self, task: &Task) -> &'a [Arc<Page>] {
        let Range { start, end } = task.rows;
        &self.rows[start].pages[self.first_page(start)..self.seen(end - 1).end.div_ceil(PAGE_LEN)]
    }

    /// The query vectors of a task, `[row][query head][channel]`.
    fn queries(&self, task: &Task, q: &[f32]) -> Vec<f32> {
        let stride = q.len() / self.rows.len();
        let width = stride / self.shape.n_kv_heads;
        task.rows.clone().flat_map(|row| &q[row * stride + task.head * width..][..width]).copied().collect()
    }

    /// The scores q·k of the query vectors of a task with the keys of some of its pages, `[vector][key]`.
    fn scores(&self, kernels: &Kernels, task: &Task, q: &[f32], pages: &[Arc<Page>]) -> Vec<f32> {
        let stride = pages.len() * PAGE_LEN;
        let mut scores = vec![0f32; q.len() / self.shape.head_dim * stride];
        for (i, page) in pages.iter().enumerate() {
            let (keys, scores) = (self.shape.keys(self.layer, task.head), &mut scores[i * PAGE_LEN..]);
            match (&**page, &**pages.get(i + 1).unwrap_or(page)) {
                (Page::F16(page), Page::F16(next)) => {
                    kernels.scores_f16(q, &page[keys.clone()], &next[keys], scores, stride);
                }
                (Page::F32(page), Page::F32(next)) => {
                    kernels.scores_f32(q, &page[keys.clone()], &next[keys], scores, stride);
                }
                _ => unreachable!("the pages of a cache are of one type"),
            }
        }
        scores
    }

    /// In place: the softmax of a row's scores with the keys of whole pages, from the page at position `before` on, not
    /// yet divided by its sum, which is returned. Positions that the row does not see get 0.
    fn softmax_row(&self, kernels: &Kernels, row: usize, before: usize, scores: &mut [f32]) -> f32 {
        let seen = self.seen(row);
        scores[..seen.start - before].fill(f32::NEG_INFINITY);
        kernels.softmax(scores, seen.end - before, self.scale)
    }

    /// The softmax of the scores of all query vectors of a task, not yet divided by its sum, and these sums. Vectors are
    /// whole pages long, from the task's first page on.
    fn softmax(&self, kernels: &Kernels, task: &Task, q: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let pages = self.pages(task);
        let before = self.first_page(task.rows.start) * PAGE_LEN;
        let heads_per_kv_head = q.len() / self.shape.head_dim / task.rows.len();
        let mut p = self.scores(kernels, task, q, pages);
        let vectors = p.chunks_mut(pages.len() * PAGE_LEN).enumerate();
        let sums = vectors.map(|(v, p)| self.softmax_row(kernels, task.rows.start + v / heads_per_kv_head, before, p));
        let sums = sums.collect();
        (p, sums)
    }

    /// The values of a task weighted by the softmax `p` and divided by its sums, `[vector][channel]`, in some channels.
    fn weighted_sum(
        &self,
        kernels: &Kernels,
        task: &Task,
        (p, sums): (&[f32], &[f32]),
        columns: Range<usize>,
    ) -> Vec<f32> {
        let AttentionBatch { shape, layer, .. } = *self;
        let (vectors, stride) = (sums.len(), p.len() / sums.len());
        let heads_per_kv_head = vectors / task.rows.len();
        let (channels, width) = (shape.value_channels(), columns.len());
        let mut weighted = vec![0f32; vectors * width];
        let pages = self.pages(task);
        let first_page = self.first_page(task.rows.start);
        for (i, page) in pages.iter().enumerate() {
            let values = shape.values(layer, task.head);
            let mut add_values = |keys: Range<usize>, rows: Range<usize>| {
                if keys.is_empty() {
                    return;
                }
                let vectors = rows.start * heads_per_kv_head..rows.end * heads_per_kv_head;
                let p = &p[vectors.start * stride + i * PAGE_LEN..];
                let acc = &mut weighted[vectors.start * width..vectors.end * width];
                let (values, of) = (values.clone(), (channels, columns.clone()));
                match (&**page, &**pages.get(i + 1).unwrap_or(page)) {
                    (Page::F16(page), Page::F16(next)) => {
                        kernels.weighted_sum_f16(p, stride, keys, &page[values.clone()], &next[values], acc, of);
                    }
                    (Page::F32(page), Page::F32(next)) => {
                        kernels.weighted_sum_f32(p, stride, keys, &page[values.clone()], &next[values], acc, of);
                    }
                    _ => unreachable!("the pages of a cache are of one type"),
                }
            };
            // Each row adds the positions that it sees in ascending order: those before the ones that all rows see, then
            // these, with every read shared, then those after them.
            let start = (first_page + i) * PAGE_LEN;
            let inside = |row: usize| {
                let seen = self.seen(task.rows.start + row);
                seen.start.saturating_sub(start).min(PAGE_LEN)..seen.end.saturating_sub(start).min(PAGE_LEN)
            };
            let mut shared = inside(task.rows.len() - 1).start..inside(0).end;
            if shared.is_empty() {
                shared = PAGE_LEN..PAGE_LEN;
            }
            for row in 0..task.rows.len() {
                let seen = inside(row);
                add_values(seen.start..seen.end.min(shared.start), row..row + 1);
            }
            add_values(shared.clone(), 0..task.rows.len());
            for row in 0..task.rows.len() {
                let seen = inside(row);
                add_values(seen.start.max(shared.end)..seen.end, row..row + 1);
            }
        }
        let kept = width - columns.end.saturating_sub(shape.head_dim);
        let mut out = Vec::with_capacity(vectors * kept);
        for (weighted, sum) in weighted.chunks(width).zip(sums) {
            out.extend(weighted[..kept].iter().map(|x| x / sum));
        }
        out
    }

    /// All query heads of a task, `[row][query head][channel]`.
    fn attend(&self, kernels: &Kernels, task: &Task, q: &[f32]) -> Vec<f32> {
        let (p, sums) = self.softmax(kernels, task, &self.queries(task, q));
        self.weighted_sum(kernels, task, (&p, &sums), 0..self.shape.value_channels())
    }

    /// The tasks of a batch, the largest first, and how many of them to divide among the threads; `None` to divide none.
    fn divided(&self, tiles: &[Range<usize>], threads: usize, heads_per_kv_head: usize) -> Option<(Vec<Task>, usize)> {
        let heads = self.shape.n_kv_heads;
        if threads == 1 || tiles.len() * heads > threads * MAX_TASKS_PER_THREAD {
            return None;
        }
        let tasks = tiles.iter().flat_map(|rows| (0..heads).map(|head| Task { rows: rows.clone(), head }));
        let mut tasks: Vec<Task> = tasks.collect();
        tasks.sort_by_key(|task| Reverse(self.cost(task, heads_per_kv_head)));
        let costs: Vec<usize> = tasks.iter().map(|task| self.cost(task, heads_per_kv_head)).collect();
        let lines = self.shape.value_channels().div_ceil(self.channels_per_line());
        let count = (0..=threads.min(tasks.len())).min_by_key(|count| duration(&costs, *count, threads, lines))?;
        (count > 0).then_some((tasks, count))
    }

    /// Multiply-adds of the scores of a task; its weighted sums take as many.
    fn cost(&self, task: &Task, heads_per_kv_head: usize) -> usize {
        let vectors = task.rows.len() * heads_per_kv_head;
        self.pages(task).len() * PAGE_LEN * self.shape.head_dim * vectors.max(MIN_COST_VECTORS)
    }

    /// How many channels of values a cache line holds.
    fn channels_per_line(&self) -> usize {
        match *self.rows[0].pages[0] {
            Page::F16(_) => CACHE_LINE / size_of::<F16Bytes>(),
            Page::F32(_) => CACHE_LINE / size_of::<F32Bytes>(),
        }
    }

    /// The attention of all tasks, of which the first `count` are divided among the threads: first their scores by pages,
    /// then the softmax by query vectors, then the weighted sums by channels. This cuts no sum, so the bits are those of
    /// [`AttentionBatch::attend`].
    fn attend_divided(&self, team: &Team, tasks: &[Task], count: usize, q: &[f32], out: &mut [f32]) {
        let (divided, whole) = tasks.split_at(count);
        let heads_per_kv_head = q.len() / self.rows.len() / self.shape.n_kv_heads / self.shape.head_dim;

        // Whole tasks, the largest first. The scores of the divided ones then fill what these leave.
        let mut parts: Vec<Part> = whole.iter().map(|task| Part { task, pages: None, result: Vec::new() }).collect();
        for task in divided {
            let pages = self.pages(task);
            let pages = pages.chunks(pages.len().div_ceil(team.size()));
            parts.extend(pages.map(|pages| Part { task, pages: Some(pages), result: Vec::new() }));
        }
        team.for_each_chunk(&mut parts, 1, |_, parts| {
            for Part { task, pages, result } in parts {
                *result = match pages {
                    None => self.attend(team.kernels, task, q),
                    Some(pages) => self.scores(team.kernels, task, &self.queries(task, q), pages),
                };
            }
        });
        let scores = parts.split_off(whole.len());
        parts.iter().for_each(|part| self.put(part.task, 0, &part.result, out));

        // The softmax of each query vector of the divided tasks, whose scores are put together.
        let mut softmax: Vec<(Vec<f32>, Vec<f32>)> = Vec::with_capacity(count);
        for task in divided {
            let vectors = task.rows.len() * heads_per_kv_head;
            softmax.push((vec![0f32; vectors * self.pages(task).len() * PAGE_LEN], vec![0f32; vectors]));
        }
        let mut vectors = Vec::new();
        for (task, (p, sums)) in divided.iter().zip(&mut softmax) {
            let stride = p.len() / sums.len();
            let of_task = p.chunks_mut(stride).zip(sums).enumerate();
            vectors.extend(of_task.map(|(v, (p, sum))| (task, v, p, sum)));
        }
        team.for_each_chunk(&mut vectors, 1, |_, vectors| {
            for (task, v, p, sum) in vectors {
                let mut rest = &mut **p;
                for part in scores.iter().filter(|part| std::ptr::eq(part.task, *task)) {
                    let keys = part.result.len() / (task.rows.len() * heads_per_kv_head);
                    rest.split_off_mut(..keys)
                        .expect("all parts of a vector")
                        .copy_from_slice(&part.result[*v * keys..][..keys]);
                }
                let before = self.first_page(task.rows.start) * PAGE_LEN;
                **sum = self.softmax_row(team.kernels, task.rows.start + *v / heads_per_kv_head, before, p);
            }
        });

        // The values, weighted by the softmax. Each part reads whole cache lines.
        let (channels, per_line) = (self.shape.value_channels(), self.channels_per_line());
        let step = per_line * lines_per_part(count, team.size(), channels.div_ceil(per_line));
        let mut sums: Vec<(usize, usize, Vec<f32>)> = Vec::new();
        for task in 0..count {
            sums.extend((0..channels).step_by(step).map(|first| (task, first, Vec::new())));
        }
        team.for_each_chunk(&mut sums, 1, |_, sums| {
            for (task, first, result) in sums {
                let (p, sums) = &softmax[*task];
                let columns = *first..channels.min(*first + step);
                *result = self.weighted_sum(team.kernels, &divided[*task], (p, sums), columns);
            }
        });
        sums.iter().for_each(|(task, first, result)| self.put(&divided[*task], *first, result, out));
    }

    /// Copies the result of a task, or of its channels from `first` on, to its place in the output.
    fn put(&self, task: &Task, first: usize, result: &[f32], out: &mut [f32]) {
        let (stride, head_dim) = (out.len() / self.rows.len(), self.shape.head_dim);
        let width = stride / self.shape.n_kv_heads;
        let heads_per_kv_head = width / head_dim;
        let columns = result.len() / (task.rows.len() * heads_per_kv_head);
        for (v, result) in result.chunks(columns).enumerate() {
            let (row, head) = (task.rows.start + v / heads_per_kv_head, v % heads_per_kv_head);
            out[row * stride + task.head * width + head * head_dim + first..][..columns].copy_from_slice(result);
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/attention.rs"]
mod tests;
