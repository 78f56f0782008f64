//! Ternary matrices: the packed layout that every instruction set reads, and the linear layer over it.
//!
//! A *word* of 64 bytes holds 16 rows × 16 columns at 2 bits: dword r belongs to row r of the group; its byte j
//! holds four columns, at shifts 6, 4, 2, 0 those of column 32·0, 32·1, 32·2, 32·3 + 4·w + j of a 128-column
//! block, where w (0 to 7) is the word's place in the block. Codes are trit + 1. A group's words follow each
//! other along K; columns are padded to whole blocks and rows to whole groups.
//!
//! One word meets four dwords of activations, each broadcast to all rows: one dot-product instruction per code
//! plane. Within a block a row's 32 bytes are those of the I2_S format, so packing I2_S only transposes dwords.

use super::Kernels;
use super::memory::{Pages, Zero, grow};
use super::pool::Team;
use crate::error::Result;
use std::sync::Mutex;

/// Rows in a group.
pub const GROUP: usize = 16;
/// Columns in a block.
pub const BLOCK: usize = 128;
/// Columns in a word.
pub const WORD_COLS: usize = 16;
/// Words in a block of one group.
pub const BLOCK_WORDS: usize = BLOCK / WORD_COLS;
/// Rows that one kernel call computes at most: two groups.
pub const STRIP: usize = 2 * GROUP;
/// Tokens that one kernel call takes at most.
pub const TILE: usize = 12;

/// 16 rows × 16 columns of codes.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Word(pub [u8; 64]);

// SAFETY: bytes.
unsafe impl Zero for Word {}

/// Code sums (Σ code·q, not yet less Σ q) of a strip: `[token][row]`.
pub type Sums = [[i32; STRIP]; TILE];

/// The factor of a trit.
pub enum Scale {
    /// One for the whole matrix.
    Tensor(f32),
    /// One for each row.
    Rows(Vec<f32>),
}

/// A ternary matrix in the packed layout.
pub struct Ternary {
    words: Pages<Word>,
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
    /// Room for `tokens` rows of `cols` values: for each what [`Kernels::quantize`] fills and returns.
    pub fn rows(&mut self, tokens: usize, cols: usize) -> Result<impl Iterator<Item = (&mut [i8], &mut (f32, i32))>> {
        (self.stride, self.cols) = (cols.next_multiple_of(BLOCK), cols);
        self.scales.resize(tokens, (0.0, 0));
        Ok(grow(&mut self.q, tokens * self.stride)?.chunks_mut(self.stride).zip(&mut self.scales))
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
    /// Rows are read in parallel; the inner error is the refusal of the first row that `read` refuses.
    pub fn from_rows<E: Send>(
        team: &Team,
        rows: usize,
        cols: usize,
        read: impl Fn(usize, &mut [i8]) -> std::result::Result<Option<f32>, E> + Sync,
    ) -> Result<std::result::Result<Ternary, E>> {
        let blocks = cols.div_ceil(BLOCK);
        let mut words = room_for(rows, blocks)?;
        let mut scales = vec![None; rows];
        let refused = First::new();
        team.for_each_pair(&mut words, blocks * BLOCK_WORDS, &mut scales, GROUP, |group, words, scales| {
            let mut trits = vec![0i8; blocks * BLOCK];
            for (r, scale) in scales.iter_mut().enumerate() {
                let row = group * GROUP + r;
                match read(row, &mut trits[..cols]) {
                    Ok(s) => *scale = s,
                    Err(e) => return refused.offer(row, e),
                }
                for (words, trits) in words.chunks_mut(BLOCK_WORDS).zip(trits.as_chunks::<BLOCK>().0) {
                    let code = |k: usize| (trits[k] + 1) as u8;
                    place(
                        words,
                        r,
                        &std::array::from_fn(|i| code(i) << 6 | code(32 + i) << 4 | code(64 + i) << 2 | code(96 + i)),
                    );
                }
            }
        });
        if let Err(refusal) = refused.into_result() {
            return Ok(Err(refusal));
        }
        let some = scales.iter().flatten().next().copied().unwrap_or(0.0);
        let scale = if scales.iter().flatten().all(|s| *s == some) {
            Scale::Tensor(some)
        } else {
            Scale::Rows(scales.into_iter().map(|s| s.unwrap_or(0.0)).collect())
        };
        Ok(Ok(Ternary { words, rows, cols, scale }))
    }

    /// Packs the code stream of an I2_S tensor whose rows are whole blocks; the inner error is the first row with a
    /// code 3.
    pub fn from_i2s(
        team: &Team,
        rows: usize,
        cols: usize,
        codes: &[u8],
        scale: f32,
    ) -> Result<std::result::Result<Ternary, usize>> {
        assert!(cols.is_multiple_of(BLOCK) && codes.len() == rows * cols / 4);
        let blocks = cols / BLOCK;
        let mut words = room_for(rows, blocks)?;
        let refused = First::new();
        team.for_each_chunk(&mut words, blocks * BLOCK_WORDS, |group, words| {
            let rows = codes.chunks(cols / 4).skip(group * GROUP).take(GROUP);
            for (r, row) in rows.enumerate() {
                let mut threes = 0;
                for (words, bytes) in words.chunks_mut(BLOCK_WORDS).zip(row.as_chunks::<32>().0) {
                    threes |= bytes.iter().fold(0, |t, b| t | b & b >> 1 & 0x55);
                    place(words, r, bytes);
                }
                if threes != 0 {
                    return refused.offer(group, group * GROUP + r);
                }
            }
        });
        Ok(refused.into_result().map(|()| Ternary { words, rows, cols, scale: Scale::Tensor(scale) }))
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
    pub fn matmul(&self, kernels: &Kernels, team: &Team, x: &Activations, out: &mut [f32]) {
        assert!(x.cols == self.cols && out.len() == x.tokens() * self.rows);
        let group_words = self.words.len() / self.rows.div_ceil(GROUP);
        let tokens: Vec<&[i8]> = x.q.chunks(x.stride).take(x.tokens()).collect();
        team.for_each_rows(out, self.rows, STRIP, |first, out| {
            let groups = out.len().div_ceil(GROUP);
            let words = &self.words[first / GROUP * group_words..][..groups * group_words];
            let mut sums = [[0i32; STRIP]; TILE];
            for (tile, tokens) in tokens.chunks(TILE).enumerate() {
                kernels.ternary_sums(words, tokens, &mut sums);
                for (t, sums) in sums.iter().take(tokens.len()).enumerate() {
                    let token = tile * TILE + t;
                    let (s, sum) = x.scales[token];
                    let out = out.token(token);
                    match &self.scale {
                        Scale::Tensor(scale) => kernels.scale_sums(sums, sum, scale / s, out),
                        Scale::Rows(scales) => kernels.scale_rows(sums, sum, &scales[first..], s, out),
                    }
                }
            }
        });
    }
}

fn room_for(rows: usize, blocks: usize) -> Result<Pages<Word>> {
    Pages::zeros(rows.div_ceil(GROUP) * blocks * BLOCK_WORDS)
}

/// Puts one row's 32 bytes of a block into the block's words.
fn place(words: &mut [Word], row: usize, bytes: &[u8; 32]) {
    for (word, dword) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        word.0[4 * row..4 * row + 4].copy_from_slice(dword);
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
