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
use crate::machine::counters::WorkCounters;
use crate::machine::memory::HugeBuf;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

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

/// Scaled dot-product attention with grouped queries (arXiv 1706.03762, section 3.2; arXiv 2305.13245):
/// `out[row] = softmax(q·kᵀ · scale)·v` for every row and query head, where query head h reads key/value head
/// h / (n_heads / n_kv_heads). Counts itself in `work`.
pub fn attention(team: &Team, batch: &AttentionBatch, q: &[f32], out: &mut [f32], work: &mut WorkCounters) {
    let start = Instant::now();
    let AttentionBatch { shape, rows, .. } = batch;
    // The channels of the query heads that share a key/value head.
    let width = q.len() / rows.len() / shape.n_kv_heads;
    let follows = |a: &AttentionRow, b: &AttentionRow| std::ptr::eq(a.pages, b.pages) && a.position + 1 == b.position;
    let mut first = 0;
    let mut tiles = Vec::new();
    for run in rows.chunk_by(follows) {
        tiles.extend(
            (0..run.len())
                .step_by(ATTENTION_TILE_ROWS)
                .map(|i| first + i..first + run.len().min(i + ATTENTION_TILE_ROWS)),
        );
        first += run.len();
    }
    team.for_each_tile(out, shape.n_kv_heads * width, width, &tiles, |tile, first, out| {
        let mut queries = Vec::with_capacity(tile.len() * width);
        tile.clone().for_each(|row| queries.extend_from_slice(&q[row * shape.n_kv_heads * width + first..][..width]));
        let attended = batch.attend(team.kernels, tile.clone(), first / width, &queries);
        tile.zip(attended.chunks(width)).for_each(|(row, attended)| out.token(row).copy_from_slice(attended));
    });
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
            let (p, sums) = batch.softmax(team.kernels, row..row + 1, head, q);
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

    /// The pages that rows which follow each other attend to, from the first row's first page on.
    fn pages(&self, tile: &Range<usize>) -> &'a [Arc<Page>] {
        &self.rows[tile.start].pages[self.first_page(tile.start)..self.seen(tile.end - 1).end.div_ceil(PAGE_LEN)]
    }

    /// The softmax of the scores of all query vectors, not yet divided by its sum, and these sums. Positions that a row
    /// does not see get 0. Vectors are whole pages long, from the tile's first page on.
    fn softmax(&self, kernels: &Kernels, tile: Range<usize>, head: usize, q: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let AttentionBatch { shape, layer, scale, .. } = *self;
        let pages = self.pages(&tile);
        let before = self.first_page(tile.start) * PAGE_LEN;
        let stride = pages.len() * PAGE_LEN;
        let vectors = q.len() / shape.head_dim;
        let heads_per_kv_head = vectors / tile.len();

        // Scores q·k of every query with the keys of every page.
        let mut p = vec![0f32; vectors * stride];
        for (i, page) in pages.iter().enumerate() {
            let (keys, p) = (shape.keys(layer, head), &mut p[i * PAGE_LEN..]);
            match (&**page, &**pages.get(i + 1).unwrap_or(page)) {
                (Page::F16(page), Page::F16(next)) => {
                    kernels.scores_f16(q, &page[keys.clone()], &next[keys], p, stride);
                }
                (Page::F32(page), Page::F32(next)) => {
                    kernels.scores_f32(q, &page[keys.clone()], &next[keys], p, stride);
                }
                _ => unreachable!("the pages of a cache are of one type"),
            }
        }

        let sums = p.chunks_mut(stride).enumerate().map(|(v, p)| {
            let seen = self.seen(tile.start + v / heads_per_kv_head);
            p[..seen.start - before].fill(f32::NEG_INFINITY);
            kernels.softmax(p, seen.end - before, scale)
        });
        let sums: Vec<f32> = sums.collect();
        (p, sums)
    }

    /// The query heads that share key/value head `head`, for rows that follow each other; `q` and the result are
    /// `[row][query head][channel]`.
    fn attend(&self, kernels: &Kernels, tile: Range<usize>, head: usize, q: &[f32]) -> Vec<f32> {
        let AttentionBatch { shape, layer, .. } = *self;
        let (p, sums) = self.softmax(kernels, tile.clone(), head, q);
        let (vectors, stride) = (sums.len(), p.len() / sums.len());
        let heads_per_kv_head = vectors / tile.len();

        // The values, weighted by the softmax.
        let channels = shape.value_channels();
        let mut weighted = vec![0f32; vectors * channels];
        let pages = self.pages(&tile);
        let first_page = self.first_page(tile.start);
        for (i, page) in pages.iter().enumerate() {
            let values = shape.values(layer, head);
            let mut add_values = |keys: Range<usize>, rows: Range<usize>| {
                if keys.is_empty() {
                    return;
                }
                let vectors = rows.start * heads_per_kv_head..rows.end * heads_per_kv_head;
                let p = &p[vectors.start * stride + i * PAGE_LEN..];
                let acc = &mut weighted[vectors.start * channels..vectors.end * channels];
                let values = values.clone();
                match (&**page, &**pages.get(i + 1).unwrap_or(page)) {
                    (Page::F16(page), Page::F16(next)) => {
                        kernels.weighted_sum_f16(p, stride, keys, &page[values.clone()], &next[values], acc, channels);
                    }
                    (Page::F32(page), Page::F32(next)) => {
                        kernels.weighted_sum_f32(p, stride, keys, &page[values.clone()], &next[values], acc, channels);
                    }
                    _ => unreachable!("the pages of a cache are of one type"),
                }
            };
            // Each row adds the positions that it sees in ascending order: those before the ones that all rows see, then
            // these, with every read shared, then those after them.
            let start = (first_page + i) * PAGE_LEN;
            let inside = |row: usize| {
                let seen = self.seen(tile.start + row);
                seen.start.saturating_sub(start).min(PAGE_LEN)..seen.end.saturating_sub(start).min(PAGE_LEN)
            };
            let mut shared = inside(tile.len() - 1).start..inside(0).end;
            if shared.is_empty() {
                shared = PAGE_LEN..PAGE_LEN;
            }
            for row in 0..tile.len() {
                let seen = inside(row);
                add_values(seen.start..seen.end.min(shared.start), row..row + 1);
            }
            add_values(shared.clone(), 0..tile.len());
            for row in 0..tile.len() {
                let seen = inside(row);
                add_values(seen.start.max(shared.end)..seen.end, row..row + 1);
            }
        }
        let mut out = Vec::with_capacity(q.len());
        for (weighted, sum) in weighted.chunks(channels).zip(&sums) {
            out.extend(weighted[..shape.head_dim].iter().map(|x| x / sum));
        }
        out
    }
}
