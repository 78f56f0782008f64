//! Ternary matrices in the layouts of [`super::packing`], and the linear layer over them (BitNet b1.58).

use super::look_ups::RowCodes;
use super::packing::{BASE3_WORDS, EXPANDED_WORDS, Packing, Word, encode_i2s};
pub use super::packing::{BLOCK, GROUP};
use super::prefetch::{prefetch, prefetch_to_write};
use super::ternary_dot::STRIP;
use super::{Kernels, Team};
use crate::error::{Error, Result};
use crate::machine::buffer::Buffer;
use crate::machine::memory::{Arena, HugeBuf, try_grow};
use std::ops::Range;
use std::sync::Mutex;

/// The largest number of tokens in one kernel call, unless the kernel is made for many.
pub const MAX_TILE_TOKENS: usize = 12;
/// The largest number of tokens in one call of a kernel that is made for many.
pub const MANY_TOKENS: usize = 128;

/// How many tokens ahead outputs are asked for before they are written.
const WRITES_AHEAD: usize = 16;
/// Floats in a cache line.
const LINE_FLOATS: usize = 16;

/// The weight that a trit +1 stands for.
#[derive(Clone)]
enum WeightScale {
    PerTensor(f32),
    PerRow(Vec<f32>),
}

/// The size of a ternary matrix, and how its trits are packed.
#[derive(Clone, Copy)]
pub struct Layout {
    /// How many trits a byte holds, and in which order.
    pub packing: Packing,
    /// Output features; padded to whole groups in memory.
    pub rows: usize,
    /// Input features; padded to whole blocks in memory.
    pub cols: usize,
}

/// A ternary matrix in the packed layout.
pub struct Ternary {
    words: Buffer<Word>,
    packing: Packing,
    rows: usize,
    cols: usize,
    scale: WeightScale,
    /// The scale before a factor was multiplied into it, if one was.
    unscaled: Option<WeightScale>,
}

/// int8 activations of some tokens, and for each token the two numbers that turn code sums back into floats.
#[derive(Default)]
pub struct Activations {
    q: Vec<i8>,
    stride: usize,
    cols: usize,
    /// For each token `s = 127 / max|x|`, and Σ q, which corrects for codes being trit + 1.
    scales: Vec<(f32, i32)>,
    /// Room for the codes of a matrix as look-ups read them, kept for the next product.
    pub(super) codes: Mutex<Vec<RowCodes>>,
}

impl Activations {
    /// Allocates `tokens` rows of `cols` values. For each row the caller stores what
    /// [`Kernels::quantize`](super::Kernels::quantize) writes and returns.
    pub fn rows(&mut self, tokens: usize, cols: usize) -> Result<impl Iterator<Item = (&mut [i8], &mut (f32, i32))>> {
        (self.stride, self.cols) = (Packing::Base3.padded(cols), cols);
        self.scales.resize(tokens, (0.0, 0));
        Ok(try_grow(&mut self.q, tokens * self.stride)?.chunks_mut(self.stride).zip(&mut self.scales))
    }

    /// The activations as floats again, `q / s`, with `cols` values a token.
    pub fn dequantize(&self) -> Vec<f32> {
        self.rows_and_scales().flat_map(|(q, s)| q.iter().map(move |q| *q as f32 / s)).collect()
    }

    /// For each token its values, and the scale `s` of them.
    pub fn rows_and_scales(&self) -> impl Iterator<Item = (&[i8], f32)> {
        self.q.chunks(self.stride).zip(&self.scales).map(|(q, (s, _))| (&q[..self.cols], *s))
    }

    /// How many values of the first token are not zero.
    pub fn count_nonzero(&self) -> usize {
        self.token(0).0.iter().filter(|q| **q != 0).count()
    }

    /// The values of a token, padded with zeros, and with them `s` and Σ q.
    pub(super) fn token(&self, token: usize) -> (&[i8], (f32, i32)) {
        (&self.q[token * self.stride..][..self.stride], self.scales[token])
    }

    fn tokens(&self) -> usize {
        self.scales.len()
    }
}

/// int8 activations of some tokens, padded to whole blocks.
#[derive(Clone, Copy)]
pub struct Tokens<'a> {
    q: &'a [i8],
    stride: usize,
    cols: usize,
}

impl<'a> Tokens<'a> {
    /// Whole rows of `stride` values, of which the first `cols` count.
    pub fn new(q: &'a [i8], stride: usize, cols: usize) -> Tokens<'a> {
        assert!(cols > 0 && cols <= stride && q.len().is_multiple_of(stride));
        Tokens { q, stride, cols }
    }

    /// The number of tokens.
    #[expect(clippy::len_without_is_empty, reason = "nothing asks whether it is empty")]
    pub fn len(&self) -> usize {
        self.q.len() / self.stride
    }

    /// The values that each token has.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// How far apart the tokens lie in [`Tokens::bytes`].
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The values of each token.
    pub fn rows(&self) -> impl Iterator<Item = &'a [i8]> {
        let cols = self.cols;
        self.q.chunks_exact(self.stride).map(move |row| &row[..cols])
    }

    /// The whole rows of the first `n` tokens.
    pub fn bytes(&self, n: usize) -> &'a [i8] {
        &self.q[..n * self.stride]
    }

    /// The tokens in this range.
    pub fn range(&self, tokens: Range<usize>) -> Tokens<'a> {
        Tokens { q: &self.q[tokens.start * self.stride..tokens.end * self.stride], ..*self }
    }
}

impl Ternary {
    /// Packs a matrix from its rows of trits: `read(row, out)` writes a row and returns its scale, or `None` if all
    /// trits are zero.
    ///
    /// Rows are read in parallel. If `read` fails for some of them, the error is that of the first.
    pub fn from_rows<E: From<Error> + Send>(
        team: &Team,
        arena: &Arena,
        layout: Layout,
        read: impl Fn(usize, &mut [i8]) -> std::result::Result<Option<f32>, E> + Sync,
    ) -> std::result::Result<Ternary, E> {
        let Layout { packing, rows, cols } = layout;
        let mut words = layout.try_words(arena)?;
        let mut scales = vec![None; rows];
        let failed = FirstError::new();
        team.for_each_pair(&mut words, packing.words(cols), &mut scales, GROUP, |group, words, scales| {
            let mut trits = vec![0i8; cols.next_multiple_of(BLOCK)];
            let mut bytes = vec![0u8; trits.len() / 4];
            for (r, scale) in scales.iter_mut().enumerate() {
                let row = group * GROUP + r;
                match read(row, &mut trits[..cols]) {
                    Ok(s) => *scale = s,
                    Err(e) => return failed.record(row, e),
                }
                encode_i2s(&trits, &mut bytes);
                packing.write_row(words, r, &bytes);
            }
        });
        failed.into_result()?;
        let first = scales.iter().flatten().next().copied().unwrap_or(0.0);
        let scale = if scales.iter().flatten().all(|s| *s == first) {
            WeightScale::PerTensor(first)
        } else {
            WeightScale::PerRow(scales.into_iter().map(|s| s.unwrap_or(0.0)).collect())
        };
        Ok(Ternary { words: Buffer::Owned(words), packing, rows, cols, scale, unscaled: None })
    }

    /// Packs the code stream of an I2_S tensor whose rows are whole blocks. Code 3 is invalid: `invalid(row)` gives the
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
        let mut words = layout.try_words(arena)?;
        let failed = FirstError::new();
        team.for_each_chunk(&mut words, packing.words(cols), |group, words| {
            let rows = codes.chunks(cols / 4).skip(group * GROUP).take(GROUP);
            for (r, row) in rows.enumerate() {
                if row.iter().fold(0, |threes, b| threes | b & b >> 1 & 0x55) != 0 {
                    return failed.record(group, group * GROUP + r);
                }
                packing.write_row(words, r, row);
            }
        });
        failed.into_result().map_err(invalid)?;
        let scale = WeightScale::PerTensor(scale);
        Ok(Ternary { words: Buffer::Owned(words), packing, rows, cols, scale, unscaled: None })
    }

    /// A matrix of words that were packed before, with the scale of each row; `None` if they do not fit the layout.
    pub fn from_words(layout: Layout, words: Buffer<Word>, scales: Vec<f32>) -> Option<Ternary> {
        let Layout { packing, rows, cols } = layout;
        if words.len() != layout.words() || scales.len() != rows {
            return None;
        }
        let first = *scales.first()?;
        let same = scales.iter().all(|scale| scale.to_bits() == first.to_bits());
        let scale = if same { WeightScale::PerTensor(first) } else { WeightScale::PerRow(scales) };
        Some(Ternary { words, packing, rows, cols, scale, unscaled: None })
    }

    /// The packed words, group by group of rows.
    pub fn words(&self) -> &[Word] {
        &self.words
    }

    /// How its trits are packed.
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// The scale of each row, without the factor of [`Ternary::scale_by`].
    pub fn scales(&self) -> Vec<f32> {
        match self.unscaled.as_ref().unwrap_or(&self.scale) {
            WeightScale::PerTensor(scale) => vec![*scale; self.rows],
            WeightScale::PerRow(scales) => scales.clone(),
        }
    }

    /// The bytes of its words that are in memory of their own, not in a mapped file.
    pub fn owned_bytes(&self) -> usize {
        self.words.owned_bytes()
    }

    /// Multiplies the scale of every row by `factor`.
    pub fn scale_by(&mut self, factor: f32) {
        if factor == 1.0 {
            return;
        }
        self.unscaled = Some(self.scale.clone());
        match &mut self.scale {
            WeightScale::PerTensor(s) => *s *= factor,
            WeightScale::PerRow(rows) => rows.iter_mut().for_each(|s| *s *= factor),
        }
    }

    /// Two different scales of its rows, if its rows have different scales. Rows of zeros have none.
    pub fn row_scales(&self) -> Option<(f32, f32)> {
        match &self.scale {
            WeightScale::PerTensor(_) => None,
            WeightScale::PerRow(rows) => {
                let mut scales = rows.iter().copied().filter(|s| *s != 0.0);
                let first = scales.next()?;
                Some((first, scales.find(|s| *s != first)?))
            }
        }
    }

    /// The number of output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The bytes of the packed words.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    /// The linear layer: `out[token][row] = (Σ trit·q) · (scale / s)`, where the sum is an exact integer. Codes are
    /// trit + 1, so Σ trit·q = Σ code·q − Σ q.
    pub fn matmul(&self, team: &Team, x: &Activations, out: &mut [f32]) {
        assert!(x.cols == self.cols && out.len() == x.tokens() * self.rows);
        let mut by_dots = 0..x.tokens();
        if let Some((look_ups, looked_up)) = team.kernels.tokens_to_look_up(x.tokens(), self.rows) {
            // Without memory for the codes all go by dots.
            if self.look_up(team, look_ups, x, &mut out[..looked_up * self.rows]).is_ok() {
                by_dots.start = looked_up;
            }
        }
        if !by_dots.is_empty() {
            let first = by_dots.start * self.rows;
            self.matmul_by_dots(team, x, by_dots, &mut out[first..]);
        }
    }

    /// The linear layer for some tokens, by dots of codes and activations. A strip of rows is one task: it computes the
    /// sums of its codes with tiles of tokens.
    fn matmul_by_dots(&self, team: &Team, x: &Activations, range: Range<usize>, out: &mut [f32]) {
        let all_words = self.words(); // once: a mapped buffer checks its place
        let group_words = all_words.len() / self.rows.div_ceil(GROUP);
        // Rows of activations are padded for base3, the longer of the two paddings.
        let padded = self.packing.padded(self.cols);
        let tokens = Tokens::new(&x.q[range.start * x.stride..range.end * x.stride], x.stride, padded);
        let (n, per_call) = (tokens.len(), team.kernels.tokens_per_call(tokens.len()));
        team.for_each_rows(out, self.rows, STRIP, |first, out| {
            let groups = out.len().div_ceil(GROUP);
            let (words, rest) = all_words[first / GROUP * group_words..].split_at(groups * group_words);
            // For several tiles base3 is unpacked once, not in every tile. Each tile prefetches an equal share of the
            // next strip, which the unpacking loop has not touched. A kernel for many tokens does both itself.
            let (mut packing, mut two_bit) = (self.packing, Vec::new());
            if packing == Packing::Base3 && per_call == MAX_TILE_TOKENS && n > MAX_TILE_TOKENS {
                two_bit = vec![Word([0; 64]); words.len() / BASE3_WORDS * EXPANDED_WORDS];
                team.kernels.base3_to_two_bit(words, &mut two_bit);
                packing = Packing::TwoBit;
            }
            let next_strip = if two_bit.is_empty() { &[] } else { &rest[..rest.len().min(words.len())] };
            let mut shares = next_strip.chunks(words.len().div_ceil(n.div_ceil(MAX_TILE_TOKENS)));
            let words = if two_bit.is_empty() { words } else { &two_bit };
            let (mut few, mut many) = ([[0i32; STRIP]; MAX_TILE_TOKENS], Vec::new());
            let sums = if per_call == MAX_TILE_TOKENS {
                &mut few[..]
            } else {
                many.resize(per_call.min(n), [0i32; STRIP]);
                &mut many
            };
            for first_token in (0..n).step_by(per_call) {
                let tokens = tokens.range(first_token..n.min(first_token + per_call));
                shares.next().into_iter().flatten().for_each(|word| prefetch(word));
                team.kernels.ternary_sums(packing, words, tokens, sums);
                for (t, sums) in sums.iter().take(tokens.len()).enumerate() {
                    let token = first_token + t;
                    // The outputs of many tokens do not fit in the near caches, and tokens lie far apart.
                    if token + WRITES_AHEAD < n {
                        for line in out.token(token + WRITES_AHEAD).chunks(LINE_FLOATS) {
                            prefetch_to_write(line.as_ptr());
                        }
                    }
                    self.scale_sums(team.kernels, first, sums, x.scales[range.start + token], out.token(token));
                }
            }
        });
    }

    /// The outputs of rows from `first` on: `(code sum − Σ q) · (scale / s)`.
    pub(super) fn scale_sums(
        &self,
        kernels: &Kernels,
        first: usize,
        sums: &[i32],
        (s, q_sum): (f32, i32),
        out: &mut [f32],
    ) {
        match &self.scale {
            WeightScale::PerTensor(scale) => kernels.scale_sums(sums, q_sum, scale / s, out),
            WeightScale::PerRow(scales) => kernels.scale_rows(sums, q_sum, &scales[first..], s, out),
        }
    }

    /// The factor `scale / s` of a row.
    pub(super) fn factor(&self, row: usize, s: f32) -> f32 {
        match &self.scale {
            WeightScale::PerTensor(scale) => scale / s,
            WeightScale::PerRow(scales) => scales[row] / s,
        }
    }

    /// The largest magnitude of a scale; infinite if one is not a number.
    pub(super) fn largest_scale(&self) -> f32 {
        let scales = match &self.scale {
            WeightScale::PerTensor(scale) => std::slice::from_ref(scale),
            WeightScale::PerRow(scales) => scales,
        };
        let size = |scale: &f32| if scale.is_nan() { f32::INFINITY } else { scale.abs() };
        scales.iter().map(size).fold(0.0, f32::max)
    }

    /// The words of a group of 16 rows.
    pub(super) fn group_words(&self, group: usize) -> &[Word] {
        let words = self.packing.words(self.cols);
        &self.words()[group * words..][..words]
    }
}

impl Layout {
    /// The words of the matrix, all zero.
    fn try_words(&self, arena: &Arena) -> Result<HugeBuf<Word>> {
        arena.try_zeroed(self.words())
    }

    /// How many words the matrix takes.
    fn words(&self) -> usize {
        self.rows.div_ceil(GROUP) * self.packing.words(self.cols)
    }
}

/// Keeps the error with the lowest index of those that parallel tasks record.
pub(super) struct FirstError<E>(Mutex<Option<(usize, E)>>);

impl<E> FirstError<E> {
    pub(super) fn new() -> Self {
        FirstError(Mutex::new(None))
    }

    pub(super) fn record(&self, index: usize, error: E) {
        let mut first = self.0.lock().expect("no task panics while it holds the lock");
        if first.as_ref().is_none_or(|(i, _)| index < *i) {
            *first = Some((index, error));
        }
    }

    pub(super) fn into_result(self) -> std::result::Result<(), E> {
        match self.0.into_inner().expect("no task panics while it holds the lock") {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ternary.rs"]
pub(super) mod tests;
