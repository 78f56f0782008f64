//! Ternary matrices with a scale for each row and group of columns, and the linear layer over them.
//!
//! A group of 16 rows is a *strip* of words: first its scales, f16, `[group of columns][row]`; then its trits in the
//! layouts of [`super::packing`], base3 blocks of five column blocks as far as they go, and two-bit blocks.

use super::Team;
pub use super::grouped_dot::{BlockScale, GroupedRows, GroupedToken, GroupedTokens};
pub use super::grouped_input::{GroupedActivations, GroupedRow};
use super::lanes::F16Bytes;
use super::packing::{BASE3_WORDS, BLOCK, EXPANDED_WORDS, GROUP, Packing, TWO_BIT_WORDS, Word};
use super::prefetch::prefetch;
use super::ternary::{FirstError, MAX_TILE_TOKENS};
use super::ternary_dot::STRIP;
use crate::error::Error;
use crate::machine::buffer::Buffer;
use crate::machine::memory::Arena;

/// The size of a grouped ternary matrix, and how it is packed.
#[derive(Clone, Copy)]
pub struct GroupedLayout {
    /// Output features; padded to whole groups of 16 in memory.
    pub rows: usize,
    /// Input features; padded to whole blocks of 128 in memory.
    pub cols: usize,
    /// Columns that share a scale: 64 or 128.
    pub group: usize,
    /// Base3 if whole blocks of 640 columns are to be packed so.
    pub packing: Packing,
}

impl GroupedLayout {
    pub(super) fn blocks(&self) -> usize {
        self.cols.div_ceil(BLOCK)
    }

    pub(super) fn base3_blocks(&self) -> usize {
        if self.packing == Packing::Base3 { self.blocks() / 5 } else { 0 }
    }

    /// Scales of a row.
    fn groups(&self) -> usize {
        self.blocks() * (BLOCK / self.group)
    }

    pub(super) fn scale_words(&self) -> usize {
        self.groups().div_ceil(2)
    }

    /// Words of a strip.
    pub(super) fn strip(&self) -> usize {
        let base3 = self.base3_blocks();
        self.scale_words() + base3 * BASE3_WORDS + (self.blocks() - 5 * base3) * TWO_BIT_WORDS
    }

    /// What the kernels read of a strip.
    pub(super) fn view<'a>(&self, strip: &'a [Word]) -> GroupedRows<'a> {
        let (scales, words) = strip.split_at(self.scale_words());
        GroupedRows { scales, words, base3_blocks: self.base3_blocks(), halves: self.group < BLOCK }
    }

    /// Writes the scales and codes of a row into its strip. `bytes` are whole I2_S blocks.
    fn write_row(&self, strip: &mut [Word], row: usize, scales: &[F16Bytes], bytes: &[u8]) {
        let (scale_words, words) = strip.split_at_mut(self.scale_words());
        for (g, scale) in scales.iter().enumerate() {
            scale_words[g / 2].0[2 * (GROUP * (g % 2) + row)..][..2].copy_from_slice(scale);
        }
        let (base3, two_bit) = words.split_at_mut(self.base3_blocks() * BASE3_WORDS);
        let (of_base3, of_two_bit) = bytes.split_at(self.base3_blocks() * 5 * BLOCK / 4);
        Packing::Base3.write_row(base3, row, of_base3);
        Packing::TwoBit.write_row(two_bit, row, of_two_bit);
    }
}

/// A grouped ternary matrix in the packed layout.
pub struct Grouped {
    words: Buffer<Word>,
    layout: GroupedLayout,
    /// Multiplies the outputs of each row: 1, or a scale that f16 cannot hold.
    factors: Vec<f32>,
    /// The factors before another one was multiplied into them, if one was.
    unscaled: Option<Vec<f32>>,
}

impl Grouped {
    /// Packs a matrix from its rows: `read(row, bytes, scales)` writes a row's codes as I2_S blocks and its scales, and
    /// returns the factor of the row.
    ///
    /// Rows are read in parallel. If `read` fails for some of them, the error is that of the first.
    pub fn from_rows<E: From<Error> + Send>(
        team: &Team,
        arena: &Arena,
        layout: GroupedLayout,
        read: impl Fn(usize, &mut [u8], &mut [F16Bytes]) -> std::result::Result<f32, E> + Sync,
    ) -> std::result::Result<Grouped, E> {
        assert!(matches!(layout.group, 64 | BLOCK));
        let mut words = arena.try_zeroed(layout.rows.div_ceil(GROUP) * layout.strip())?;
        let mut factors = vec![1.0; layout.rows];
        let failed = FirstError::new();
        team.for_each_pair(&mut words, layout.strip(), &mut factors, GROUP, |strip, words, factors| {
            let mut bytes = vec![0u8; layout.blocks() * BLOCK / 4];
            let mut scales = vec![[0; 2]; layout.groups()];
            for (r, factor) in factors.iter_mut().enumerate() {
                let row = strip * GROUP + r;
                match read(row, &mut bytes, &mut scales) {
                    Ok(found) => *factor = found,
                    Err(error) => return failed.record(row, error),
                }
                layout.write_row(words, r, &scales, &bytes);
            }
        });
        failed.into_result()?;
        Ok(Grouped { words: Buffer::Owned(words), layout, factors, unscaled: None })
    }

    /// A matrix of words that were packed before, with the factor of each row; `None` if they do not fit the layout.
    pub fn from_words(layout: GroupedLayout, words: Buffer<Word>, factors: Vec<f32>) -> Option<Grouped> {
        let fits = matches!(layout.group, 64 | BLOCK)
            && words.len() == layout.rows.div_ceil(GROUP) * layout.strip()
            && factors.len() == layout.rows;
        fits.then_some(Grouped { words, layout, factors, unscaled: None })
    }

    /// The packed words with the scales of the groups, strip by strip.
    pub fn words(&self) -> &[Word] {
        &self.words
    }

    /// Its size, and how it is packed.
    pub fn layout(&self) -> GroupedLayout {
        self.layout
    }

    /// The factor of each row, without that of [`Grouped::scale_by`].
    pub fn factors(&self) -> &[f32] {
        self.unscaled.as_ref().unwrap_or(&self.factors)
    }

    /// The bytes of its words that are in memory of their own, not in a mapped file.
    pub fn owned_bytes(&self) -> usize {
        self.words.owned_bytes()
    }

    /// Multiplies every output by `factor`.
    pub fn scale_by(&mut self, factor: f32) {
        if factor == 1.0 {
            return;
        }
        self.unscaled = Some(self.factors.clone());
        self.factors.iter_mut().for_each(|own| *own *= factor);
    }

    /// The number of output features.
    pub fn rows(&self) -> usize {
        self.layout.rows
    }

    /// The number of input features.
    pub fn cols(&self) -> usize {
        self.layout.cols
    }

    /// The bytes of the packed words.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    /// The linear layer: `out[token][row] = factor · Σ (float(Σ trit·X) · s) · scale`, the outer sum over groups in
    /// ascending order, by fma.
    pub fn matmul(&self, team: &Team, x: &GroupedActivations, out: &mut [f32]) {
        let tokens = x.tokens();
        assert!(x.blocks() == self.layout.blocks() && out.len() == tokens.len() * self.layout.rows);
        let mut by_dots = 0..tokens.len();
        let to_look_up = team.kernels.tokens_to_look_up(tokens.len(), self.layout.rows);
        if let Some((look_ups, looked_up)) = to_look_up.filter(|_| self.layout.group == BLOCK) {
            // Without memory for the codes all go by dots.
            if self.look_up(team, look_ups, x, &mut out[..looked_up * self.layout.rows]).is_ok() {
                by_dots.start = looked_up;
            }
        }
        if !by_dots.is_empty() {
            self.matmul_by_dots(team, tokens.range(by_dots.clone()), &mut out[by_dots.start * self.layout.rows..]);
        }
    }

    /// The linear layer by dots of codes and activations, a strip of rows a task.
    fn matmul_by_dots(&self, team: &Team, tokens: GroupedTokens, out: &mut [f32]) {
        let (all_words, strip) = (self.words(), self.layout.strip()); // once: a mapped buffer checks its place
        team.for_each_rows(out, self.layout.rows, STRIP, |first, out| {
            let n = out.len().div_ceil(GROUP);
            let (words, rest) = all_words[first / GROUP * strip..].split_at(n * strip);
            let rows: Vec<GroupedRows> = words.chunks(strip).map(|strip| self.layout.view(strip)).collect();
            let mut y = [[0f32; STRIP]; MAX_TILE_TOKENS];
            // Without kernels for base3 its blocks are expanded first, also for one token.
            let reads_base3 = team.kernels.reads_base3() || self.layout.base3_blocks() == 0;
            if tokens.len() == 1 && reads_base3 {
                for (rows, y) in rows.iter().zip(y[0].as_chunks_mut::<GROUP>().0) {
                    team.kernels.grouped_one(rows, tokens.token(0), y);
                }
                self.scale_outputs(first, &y[0], out.token(0));
                return;
            }
            let mut two_bit = Vec::new();
            let has_many = team.kernels.has_grouped_many(tokens.len());
            let rows = if has_many && reads_base3 { rows } else { self.two_bit(team, &rows, &mut two_bit) };
            if has_many {
                let mut y = vec![[0f32; STRIP]; tokens.len()];
                team.kernels.grouped_many(&rows, tokens, &mut y);
                y.iter().enumerate().for_each(|(t, y)| self.scale_outputs(first, y, out.token(t)));
                return;
            }
            // Each tile prefetches an equal share of the next strips.
            let next = &rest[..rest.len().min(words.len())];
            let mut shares = next.chunks(words.len().div_ceil(tokens.len().div_ceil(MAX_TILE_TOKENS)));
            let all: Vec<GroupedToken> = (0..tokens.len()).map(|t| tokens.token(t)).collect();
            for (tile, tokens) in all.chunks(MAX_TILE_TOKENS).enumerate() {
                shares.next().into_iter().flatten().for_each(|word| prefetch(word));
                team.kernels.grouped_tile(&rows, tokens, &mut y);
                for (t, y) in y.iter().enumerate().take(tokens.len()) {
                    self.scale_outputs(first, y, out.token(tile * MAX_TILE_TOKENS + t));
                }
            }
        });
    }

    /// `out = y · factor` for rows from `first` on.
    pub(super) fn scale_outputs(&self, first: usize, y: &[f32], out: &mut [f32]) {
        for ((out, y), factor) in out.iter_mut().zip(y).zip(&self.factors[first..]) {
            *out = y * factor;
        }
    }

    /// Rows whose base3 blocks are expanded to two-bit blocks in `buffer`, once for all tokens.
    fn two_bit<'a>(&self, team: &Team, rows: &[GroupedRows<'a>], buffer: &'a mut Vec<Word>) -> Vec<GroupedRows<'a>> {
        let base3 = self.layout.base3_blocks();
        if base3 == 0 {
            return rows.to_vec();
        }
        let words = self.layout.blocks() * TWO_BIT_WORDS;
        buffer.resize(rows.len() * words, Word([0; 64]));
        for (rows, out) in rows.iter().zip(buffer.chunks_mut(words)) {
            let (of_base3, rest) = out.split_at_mut(base3 * EXPANDED_WORDS);
            let (packed, two_bit) = rows.words.split_at(base3 * BASE3_WORDS);
            team.kernels.base3_to_two_bit(packed, of_base3);
            rest.copy_from_slice(two_bit);
        }
        let expanded = |(rows, words): (&GroupedRows<'a>, &'a [Word])| GroupedRows { words, base3_blocks: 0, ..*rows };
        rows.iter().zip(buffer.chunks(words)).map(expanded).collect()
    }
}

impl super::Kernels {
    /// Whether there are kernels that read base3 words without expanding them first.
    fn reads_base3(&self) -> bool {
        self.base3.is_some()
    }

    /// The packing of a grouped matrix that is fastest.
    pub fn grouped_packing(&self) -> Packing {
        if self.base3.is_some() { Packing::Base3 } else { Packing::TwoBit }
    }
}
