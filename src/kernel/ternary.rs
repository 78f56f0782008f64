//! Ternary matrices in the layouts of [`super::packing`], and the linear layer over them.
//!
//! One word meets dwords of activations, each broadcast to all rows: one dot-product instruction per code plane.

use super::Team;
use super::float::prefetch;
use super::packing::{BASE3_WORDS, EXPANDED_WORDS, Packing, Word};
pub use super::packing::{BLOCK, GROUP};
use crate::error::{Error, Result};
use crate::machine::memory::{Arena, HugeBuf, try_grow};
use std::sync::Mutex;

/// Rows that one kernel call computes at most: two groups.
pub const STRIP: usize = 2 * GROUP;
/// Tokens that one kernel call takes at most.
pub const TILE: usize = 12;

/// Code sums (Σ code·q, not yet less Σ q) of a strip: `[token][row]`.
pub type Sums = [[i32; STRIP]];

/// The factor of a trit.
pub enum Scale {
    /// One for the whole matrix.
    Tensor(f32),
    /// One for each row.
    Rows(Vec<f32>),
}

/// The size of a ternary matrix, and how its trits are packed.
#[derive(Clone, Copy)]
pub struct Layout {
    /// How many trits a byte holds, and in which order.
    pub packing: Packing,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
}

/// A ternary matrix in the packed layout.
pub struct Ternary {
    words: HugeBuf<Word>,
    packing: Packing,
    rows: usize,
    cols: usize,
    scale: Scale,
}

/// int8 activations of some tokens, with what turns their sums back into floats.
#[derive(Default)]
pub struct Activations {
    q: Vec<i8>,
    stride: usize,
    cols: usize,
    /// `127 / |x|max` and the sum of q, for each token.
    scales: Vec<(f32, i32)>,
}

impl Activations {
    /// Room for `tokens` rows of `cols` values: for each what [`Kernels::quantize`](super::Kernels::quantize) fills and
    /// returns.
    pub fn rows(&mut self, tokens: usize, cols: usize) -> Result<impl Iterator<Item = (&mut [i8], &mut (f32, i32))>> {
        (self.stride, self.cols) = (Packing::Base3.padded(cols), cols);
        self.scales.resize(tokens, (0.0, 0));
        Ok(try_grow(&mut self.q, tokens * self.stride)?.chunks_mut(self.stride).zip(&mut self.scales))
    }

    /// The quantised values as floats again, `q / s`, `cols` a token.
    pub fn dequantize(&self) -> Vec<f32> {
        let tokens = self.q.chunks(self.stride).zip(&self.scales);
        tokens.flat_map(|(q, (s, _))| q[..self.cols].iter().map(move |q| *q as f32 / s)).collect()
    }

    fn tokens(&self) -> usize {
        self.scales.len()
    }
}

impl Ternary {
    /// Packs a matrix from its rows of trits; `read(row, out)` writes a row and returns its scale, if it is not zero.
    ///
    /// Threads share the rows; if `read` refuses some, the error is that of the first of them.
    pub fn from_rows<E: From<Error> + Send>(
        team: &Team,
        arena: &Arena,
        layout: Layout,
        read: impl Fn(usize, &mut [i8]) -> std::result::Result<Option<f32>, E> + Sync,
    ) -> std::result::Result<Ternary, E> {
        let Layout { packing, rows, cols } = layout;
        let mut words = layout.allocate(arena)?;
        let mut scales = vec![None; rows];
        let refused = First::new();
        team.for_each_pair(&mut words, packing.words(cols), &mut scales, GROUP, |group, words, scales| {
            let mut trits = vec![0i8; cols.next_multiple_of(BLOCK)];
            let mut bytes = vec![0u8; trits.len() / 4];
            for (r, scale) in scales.iter_mut().enumerate() {
                let row = group * GROUP + r;
                match read(row, &mut trits[..cols]) {
                    Ok(s) => *scale = s,
                    Err(e) => return refused.offer(row, e),
                }
                for (bytes, trits) in bytes.as_chunks_mut::<32>().0.iter_mut().zip(trits.as_chunks::<BLOCK>().0) {
                    let code = |k: usize| (trits[k] + 1) as u8;
                    for (i, byte) in bytes.iter_mut().enumerate() {
                        *byte = code(i) << 6 | code(32 + i) << 4 | code(64 + i) << 2 | code(96 + i);
                    }
                }
                packing.place(words, r, &bytes);
            }
        });
        refused.into_result()?;
        let some = scales.iter().flatten().next().copied().unwrap_or(0.0);
        let scale = if scales.iter().flatten().all(|s| *s == some) {
            Scale::Tensor(some)
        } else {
            Scale::Rows(scales.into_iter().map(|s| s.unwrap_or(0.0)).collect())
        };
        Ok(Ternary { words, packing, rows, cols, scale })
    }

    /// Packs the code stream of an I2_S tensor whose rows are whole blocks. Code 3 means nothing: `invalid(row)` is the
    /// error for the first row that holds one.
    pub fn from_i2s(
        team: &Team,
        arena: &Arena,
        layout: Layout,
        codes: &[u8],
        scale: f32,
        invalid: impl Fn(usize) -> Error,
    ) -> Result<Ternary> {
        let Layout { packing, rows, cols } = layout;
        assert!(cols.is_multiple_of(BLOCK) && codes.len() == rows * cols / 4);
        let mut words = layout.allocate(arena)?;
        let refused = First::new();
        team.for_each_chunk(&mut words, packing.words(cols), |group, words| {
            let rows = codes.chunks(cols / 4).skip(group * GROUP).take(GROUP);
            for (r, row) in rows.enumerate() {
                if row.iter().fold(0, |threes, b| threes | b & b >> 1 & 0x55) != 0 {
                    return refused.offer(group, group * GROUP + r);
                }
                packing.place(words, r, row);
            }
        });
        refused.into_result().map_err(invalid)?;
        Ok(Ternary { words, packing, rows, cols, scale: Scale::Tensor(scale) })
    }

    /// Multiplies the factor of every row by `factor`.
    pub fn scale_by(&mut self, factor: f32) {
        match &mut self.scale {
            Scale::Tensor(s) => *s *= factor,
            Scale::Rows(rows) => rows.iter_mut().for_each(|s| *s *= factor),
        }
    }

    /// Two different scales of its rows, if there are any.
    pub fn row_scales(&self) -> Option<(f32, f32)> {
        match &self.scale {
            Scale::Tensor(_) => None,
            Scale::Rows(rows) => {
                let mut some = rows.iter().copied().filter(|s| *s != 0.0);
                let first = some.next()?;
                Some((first, some.find(|s| *s != first)?))
            }
        }
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    /// `out[token][row] = (Σ trit·q) · (scale / s)`, the sum an exact integer.
    pub fn matmul(&self, team: &Team, x: &Activations, out: &mut [f32]) {
        assert!(x.cols == self.cols && out.len() == x.tokens() * self.rows);
        let group_words = self.words.len() / self.rows.div_ceil(GROUP);
        // Rows of activations are as long as either packing needs.
        let padded = self.packing.padded(self.cols);
        let tokens: Vec<&[i8]> = x.q.chunks(x.stride).take(x.tokens()).map(|q| &q[..padded]).collect();
        team.for_each_rows(out, self.rows, STRIP, |first, out| {
            let groups = out.len().div_ceil(GROUP);
            let (words, rest) = self.words[first / GROUP * group_words..].split_at(groups * group_words);
            // Unpacking five codes a byte again for every tile is slower than doing it once. Meanwhile the next strip comes.
            let (mut packing, mut fours) = (self.packing, Vec::new());
            if packing == Packing::Base3 && tokens.len() > TILE {
                fours = vec![Word([0; 64]); words.len() / BASE3_WORDS * EXPANDED_WORDS];
                team.kernels.expand(words, &mut fours);
                packing = Packing::TwoBit;
            }
            let next = if fours.is_empty() { &[] } else { &rest[..rest.len().min(words.len())] };
            let mut next = next.chunks(words.len().div_ceil(tokens.len().div_ceil(TILE)));
            let words = if fours.is_empty() { words } else { &fours };
            let mut sums = [[0i32; STRIP]; TILE];
            for (tile, tokens) in tokens.chunks(TILE).enumerate() {
                next.next().into_iter().flatten().for_each(|word| prefetch(word));
                team.kernels.ternary_sums(packing, words, tokens, &mut sums);
                for (t, sums) in sums.iter().take(tokens.len()).enumerate() {
                    let token = tile * TILE + t;
                    let (s, sum) = x.scales[token];
                    let out = out.token(token);
                    match &self.scale {
                        Scale::Tensor(scale) => team.kernels.scale_sums(sums, sum, scale / s, out),
                        Scale::Rows(scales) => team.kernels.scale_rows(sums, sum, &scales[first..], s, out),
                    }
                }
            }
        });
    }
}

impl Layout {
    fn allocate(&self, arena: &Arena) -> Result<HugeBuf<Word>> {
        arena.zeroed(self.rows.div_ceil(GROUP) * self.packing.words(self.cols))
    }
}

/// The error of the lowest index among those that parallel tasks offer.
struct First<E>(Mutex<Option<(usize, E)>>);

impl<E> First<E> {
    fn new() -> Self {
        First(Mutex::new(None))
    }

    fn offer(&self, index: usize, error: E) {
        let mut first = self.0.lock().expect("no task panics while it holds this");
        if first.as_ref().is_none_or(|(i, _)| index < *i) {
            *first = Some((index, error));
        }
    }

    fn into_result(self) -> std::result::Result<(), E> {
        match self.0.into_inner().expect("as above") {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ternary.rs"]
pub(super) mod tests;
