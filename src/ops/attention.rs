//! The key/value pages and the attention over them.
//!
//! A page holds 64 positions of all layers. Keys lie `[channel][position]`, so that the lanes of q·k are keys;
//! values lie `[position][channel]`, so that the lanes of p·v are channels. Both sums run in ascending order over
//! absolute positions, whatever the batch, the chunk or the threads.

use crate::error::Result;
use crate::kernel::Team;
use crate::kernel::attention::PAGE;
use crate::kernel::f16::to_f16;
use crate::kernel::lanes::{F16Bytes, F32Bytes};
use crate::machine::memory::HugeBuf;
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
    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            KvType::F16 => size_of::<F16Bytes>(),
            KvType::F32 => size_of::<F32Bytes>(),
        }
    }
}

/// The measures of a page.
#[derive(Clone, Copy, Debug)]
pub struct PageShape {
    /// Layers of the model.
    pub n_layers: usize,
    /// Key/value heads of a layer.
    pub n_kv_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
}

impl PageShape {
    /// Values are stored with their channels filled up to whole vectors.
    fn value_channels(&self) -> usize {
        self.head_dim.next_multiple_of(16)
    }

    fn head_len(&self) -> usize {
        PAGE * (self.head_dim + self.value_channels())
    }

    /// Elements of a page.
    pub fn elements(&self) -> usize {
        self.n_layers * self.n_kv_heads * self.head_len()
    }

    fn keys(&self, layer: usize, head: usize) -> Range<usize> {
        let start = (layer * self.n_kv_heads + head) * self.head_len();
        start..start + PAGE * self.head_dim
    }

    fn values(&self, layer: usize, head: usize) -> Range<usize> {
        let start = self.keys(layer, head).end;
        start..start + PAGE * self.value_channels()
    }
}

/// Keys and values of 64 positions.
pub enum Page {
    /// Stored as f16.
    F16(HugeBuf<F16Bytes>),
    /// Stored as f32.
    F32(HugeBuf<F32Bytes>),
}

impl Page {
    /// A page of zeros.
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

    /// Its contents.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Page::F16(page) => page.as_flattened(),
            Page::F32(page) => page.as_flattened(),
        }
    }

    /// Its contents, to be replaced.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Page::F16(page) => page.as_flattened_mut(),
            Page::F32(page) => page.as_flattened_mut(),
        }
    }

    /// Stores one position's keys and values of a layer, all heads one after the other.
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
        let column = page[shape.keys(layer, head)][slot..].iter_mut().step_by(PAGE);
        column.zip(key).for_each(|(stored, x)| *stored = narrow(*x));
        let row = &mut page[shape.values(layer, head)][slot * shape.value_channels()..];
        row.iter_mut().zip(value).for_each(|(stored, x)| *stored = narrow(*x));
    }
}

/// Where one row of a batch looks: all positions up to its own, itself included.
pub struct AttentionRow<'a> {
    /// The pages of its sequence.
    pub pages: &'a [Arc<Page>],
    /// Its position.
    pub position: usize,
}

/// Rows that one task takes together, if they stand one after the other in one sequence: they share every read of a page.
const TILE: usize = 4;

/// `out[row] = softmax(q·kᵀ/√head_dim)·v` for every row and head; query head h reads key/value head h / (heads / kv_heads).
pub fn attention(team: &Team, shape: &PageShape, layer: usize, rows_seen: &[AttentionRow], q: &[f32], out: &mut [f32]) {
    let width = q.len() / rows_seen.len() / shape.n_kv_heads;
    let follows = |a: &AttentionRow, b: &AttentionRow| std::ptr::eq(a.pages, b.pages) && a.position + 1 == b.position;
    let mut first = 0;
    let mut tiles = Vec::new();
    for run in rows_seen.chunk_by(follows) {
        tiles.extend((0..run.len()).step_by(TILE).map(|i| first + i..first + run.len().min(i + TILE)));
        first += run.len();
    }
    team.for_each_tile(out, shape.n_kv_heads * width, width, &tiles, |rows, first, out| {
        let mut own = Vec::with_capacity(rows.len() * width);
        rows.clone().for_each(|row| own.extend_from_slice(&q[row * shape.n_kv_heads * width + first..][..width]));
        let mixed = attend(team, shape, layer, first / width, &rows_seen[rows.clone()], &own);
        rows.zip(mixed.chunks(width)).for_each(|(row, mixed)| out.token(row).copy_from_slice(mixed));
    });
}

/// The query heads that share a key/value head, for rows that follow each other: `[row][head][channel]`.
fn attend(
    team: &Team,
    shape: &PageShape,
    layer: usize,
    head: usize,
    rows_seen: &[AttentionRow],
    q: &[f32],
) -> Vec<f32> {
    let seen = |row: usize| rows_seen[row].position + 1;
    let pages = &rows_seen[0].pages[..seen(rows_seen.len() - 1).div_ceil(PAGE)];
    let stride = pages.len() * PAGE;
    let vectors = q.len() / shape.head_dim;
    let group = vectors / rows_seen.len();
    let mut p = vec![0f32; vectors * stride];
    for (i, page) in pages.iter().enumerate() {
        let (keys, p) = (shape.keys(layer, head), &mut p[i * PAGE..]);
        match (&**page, &**pages.get(i + 1).unwrap_or(page)) {
            (Page::F16(page), Page::F16(next)) => {
                team.kernels.scores_f16(q, &page[keys.clone()], &next[keys], p, stride);
            }
            (Page::F32(page), Page::F32(next)) => {
                team.kernels.scores_f32(q, &page[keys.clone()], &next[keys], p, stride);
            }
            _ => unreachable!("the pages of a cache are of one type"),
        }
    }
    let scale = (1.0 / (shape.head_dim as f64).sqrt()) as f32;
    let sums: Vec<f32> =
        p.chunks_mut(stride).enumerate().map(|(v, p)| team.kernels.softmax(p, seen(v / group), scale)).collect();
    let channels = shape.value_channels();
    let mut mixed = vec![0f32; vectors * channels];
    for (i, page) in pages.iter().enumerate() {
        let values = shape.values(layer, head);
        let mut mix = |keys: Range<usize>, rows: Range<usize>| {
            let vectors = rows.start * group..rows.end * group;
            let p = &p[vectors.start * stride + i * PAGE..];
            let acc = &mut mixed[vectors.start * channels..vectors.end * channels];
            let values = values.clone();
            match (&**page, &**pages.get(i + 1).unwrap_or(page)) {
                (Page::F16(page), Page::F16(next)) => {
                    team.kernels.mix_f16(p, stride, keys, &page[values.clone()], &next[values], acc, channels);
                }
                (Page::F32(page), Page::F32(next)) => {
                    team.kernels.mix_f32(p, stride, keys, &page[values.clone()], &next[values], acc, channels);
                }
                _ => unreachable!("the pages of a cache are of one type"),
            }
        };
        // What every row sees, then what the later ones see beyond it.
        let inside = |row: usize| seen(row).saturating_sub(i * PAGE).min(PAGE);
        mix(0..inside(0), 0..rows_seen.len());
        (1..rows_seen.len())
            .filter(|row| inside(*row) > inside(0))
            .for_each(|row| mix(inside(0)..inside(row), row..row + 1));
    }
    let mut out = Vec::with_capacity(q.len());
    for (mixed, sum) in mixed.chunks(channels).zip(&sums) {
        out.extend(mixed[..shape.head_dim].iter().map(|x| x / sum));
    }
    out
}
