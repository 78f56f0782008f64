//! Products of many tokens by look-ups: which tokens go by them, and how threads share the work.

use super::grouped::{Grouped, GroupedActivations};
use super::grouped_dot::{GroupedRows, GroupedToken};
use super::look_ups::{BLOCK_STEPS, CodedRows, LookUpKernels, Room, RowCodes};
use super::packing::{BASE3_WORDS, BLOCK, EXPANDED_WORDS, GROUP, Packing, TWO_BIT_WORDS, Word};
use super::prefetch::prefetch;
use super::ternary::{Activations, Ternary};
use super::ternary_dot::STRIP;
use super::{Kernels, Team};
use crate::error::Result;
use crate::machine::buffer::Plain;
use crate::machine::memory::try_grow;
use std::cell::Cell;
use std::ops::Range;
use std::sync::PoisonError;

/// Fewer rows are faster by dots: the tables cost as much as the look-ups of some 160 rows.
const MIN_ROWS: usize = 256;
/// Fewer tokens are faster by dots: writing the codes takes as long as the dots of some five tokens.
const MIN_TOKENS: usize = 32;
/// The most rows of a task, so that their sums stay in the second cache.
const MAX_TASK_ROWS: usize = 2560;
/// The fewest rows of a task, if there are more.
const MIN_TASK_ROWS: usize = 512;
/// Tasks for each thread, lest threads wait for the last one.
const TASKS_PER_THREAD: usize = 4;
/// How many groups of rows ahead words are asked for.
const GROUPS_AHEAD: usize = 2;
/// The most tokens whose sums an instruction set looks up at once.
const MOST_TOKENS: usize = 32;

thread_local! {
    static ROOM: Cell<Room> = Cell::default();
}

/// The packed trits of a matrix, by groups of 16 rows.
struct Trits<'a> {
    words: &'a [Word],
    /// Words from one group to the next, and those of a group before its trits.
    group: usize,
    before: usize,
    /// Base3 blocks of 640 columns, before two-bit blocks of 128.
    base3_blocks: usize,
    /// Blocks of 128 columns in all.
    blocks: usize,
}

impl Ternary {
    /// The linear layer for the first tokens, as many as `out` has, by look-ups.
    pub(super) fn look_up(&self, team: &Team, kernels: &LookUpKernels, x: &Activations, out: &mut [f32]) -> Result<()> {
        let (words, blocks) = (self.words(), self.packing().padded(self.cols()) / BLOCK);
        let base3_blocks = if self.packing() == Packing::Base3 { blocks / 5 } else { 0 };
        let group = words.len() / self.rows().div_ceil(GROUP);
        let mut codes = x.codes.lock().unwrap_or_else(PoisonError::into_inner);
        let trits = Trits { words, group, before: 0, base3_blocks, blocks };
        let (codes, rows) = trits.codes(team, kernels, &mut codes)?;
        let tokens = out.len() / self.rows();
        let (ranges, task_rows) = kernels.tasks(team.size(), tokens, self.rows());
        team.for_each_tile(out, self.rows(), task_rows, &ranges, |tokens, first, out| {
            let mut room = ROOM.take();
            let q: Vec<&[i8]> = tokens.clone().map(|token| x.token(token).0).collect();
            let coded = CodedRows::new(codes, rows, first..(first + out.len()).next_multiple_of(GROUP));
            // SAFETY: the processor has the instruction set of the team's kernels; the kernel checks all lengths.
            unsafe { (kernels.sums)(coded, &q, &mut room) }
            let totals = room.totals::<i32>(out.len() * kernels.tokens);
            let mut by_token = [[0; STRIP]; MOST_TOKENS];
            for (part, sums) in totals.chunks(STRIP * kernels.tokens).enumerate() {
                let own = part * STRIP..out.len().min((part + 1) * STRIP);
                transpose(sums, kernels.tokens, &mut by_token);
                for (token, sums) in tokens.clone().zip(&by_token) {
                    let (s, _) = x.token(token).1;
                    self.scale_sums(team.kernels, first + own.start, sums, (s, 0), &mut out.token(token)[own.clone()]);
                }
            }
            ROOM.set(room);
        });
        Ok(())
    }
}

impl Grouped {
    /// The linear layer for the first tokens, as many as `out` has, by look-ups. Scales belong to whole blocks.
    pub(super) fn look_up(
        &self,
        team: &Team,
        kernels: &LookUpKernels,
        x: &GroupedActivations,
        out: &mut [f32],
    ) -> Result<()> {
        let (words, layout) = (self.words(), self.layout());
        let mut codes = x.codes.lock().unwrap_or_else(PoisonError::into_inner);
        let trits = Trits {
            words,
            group: layout.strip(),
            before: layout.scale_words(),
            base3_blocks: layout.base3_blocks(),
            blocks: layout.blocks(),
        };
        let (codes, rows) = trits.codes(team, kernels, &mut codes)?;
        let (all, n) = (x.tokens(), out.len() / self.rows());
        let (ranges, task_rows) = kernels.tasks(team.size(), n, self.rows());
        team.for_each_tile(out, self.rows(), task_rows, &ranges, |tokens, first, out| {
            let mut room = ROOM.take();
            let range = first..(first + out.len()).next_multiple_of(GROUP);
            let strips = &words[range.start / GROUP * layout.strip()..range.end / GROUP * layout.strip()];
            let groups: Vec<GroupedRows> = strips.chunks(layout.strip()).map(|strip| layout.view(strip)).collect();
            let x: Vec<GroupedToken> = tokens.clone().map(|token| all.token(token)).collect();
            // SAFETY: the processor has the instruction set of the team's kernels; the kernel checks all lengths.
            unsafe { (kernels.grouped)(CodedRows::new(codes, rows, range), &groups, &x, &mut room) }
            let totals = room.totals::<f32>(out.len() * kernels.tokens);
            let mut by_token = [[0.0; STRIP]; MOST_TOKENS];
            for (part, y) in totals.chunks(STRIP * kernels.tokens).enumerate() {
                let own = part * STRIP..out.len().min((part + 1) * STRIP);
                transpose(y, kernels.tokens, &mut by_token);
                for (token, y) in tokens.clone().zip(&by_token) {
                    self.scale_outputs(first + own.start, y, &mut out.token(token)[own.clone()]);
                }
            }
            ROOM.set(room);
        });
        Ok(())
    }
}

impl Kernels {
    /// The look-ups by which the first of so many tokens go, and how many of them do, if any.
    pub(super) fn tokens_to_look_up(&self, tokens: usize, rows: usize) -> Option<(&'static LookUpKernels, usize)> {
        if tokens < MIN_TOKENS || rows < MIN_ROWS {
            return None;
        }
        let look_ups = self.look_ups()?;
        let looked_up = look_ups.take(tokens);
        (looked_up > 0).then_some((look_ups, looked_up))
    }
}

impl LookUpKernels {
    /// How many of `tokens` are computed by look-ups: whole registers, and a last one that is at least two thirds full.
    fn take(&self, tokens: usize) -> usize {
        let rest = tokens % self.tokens;
        if 3 * rest >= 2 * self.tokens { tokens } else { tokens - rest }
    }

    /// How a product of `tokens` tokens and `rows` rows is divided: the tokens and the number of rows of a task.
    fn tasks(&self, threads: usize, tokens: usize, rows: usize) -> (Vec<Range<usize>>, usize) {
        let ranges: Vec<_> =
            (0..tokens).step_by(self.tokens).map(|first| first..tokens.min(first + self.tokens)).collect();
        let for_threads = (TASKS_PER_THREAD * threads).div_ceil(ranges.len()).min(rows.div_ceil(MIN_TASK_ROWS));
        let parts = rows.div_ceil(MAX_TASK_ROWS).max(for_threads);
        (ranges, rows.div_ceil(parts).next_multiple_of(STRIP))
    }
}

impl Trits<'_> {
    /// Writes the codes of all rows for each step of the columns. Returns them and the number of rows, which is padded.
    fn codes<'a>(
        &self,
        team: &Team,
        kernels: &LookUpKernels,
        codes: &'a mut Vec<RowCodes>,
    ) -> Result<(&'a [RowCodes], usize)> {
        let rows = self.words.len() / self.group * GROUP;
        let of_block = BLOCK_STEPS * rows;
        let codes = try_grow(codes, self.blocks * of_block)?;
        let (of_base3, of_two_bit) = codes.split_at_mut(5 * self.base3_blocks * of_block);
        team.for_each_chunk(of_base3, 5 * of_block, |block, codes| {
            let mut two_bit = [Word([0; 64]); EXPANDED_WORDS];
            self.for_each_group(block * BASE3_WORDS, BASE3_WORDS, |first, words| {
                team.kernels.base3_to_two_bit(words, &mut two_bit);
                for (words, codes) in two_bit.as_chunks().0.iter().zip(codes.chunks_mut(of_block)) {
                    // SAFETY: the processor has the instruction set of the team's kernels; the kernel checks all
                    // lengths.
                    unsafe { (kernels.write_codes)(words, codes, rows, first) }
                }
            });
        });
        team.for_each_chunk(of_two_bit, of_block, |block, codes| {
            let at = self.base3_blocks * BASE3_WORDS + block * TWO_BIT_WORDS;
            self.for_each_group(at, TWO_BIT_WORDS, |first, words| {
                let words = words.first_chunk().expect("a block of words");
                // SAFETY: as above.
                unsafe { (kernels.write_codes)(words, codes, rows, first) }
            });
        });
        Ok((codes, rows))
    }

    /// Calls `f(first row, words)` for each group of rows, with `len` of its words from word `at` on.
    fn for_each_group(&self, at: usize, len: usize, mut f: impl FnMut(usize, &[Word])) {
        for (group, words) in self.words.chunks(self.group).enumerate() {
            let words = &words[self.before + at..][..len];
            for word in words {
                prefetch((&raw const *word).wrapping_add(GROUPS_AHEAD * self.group));
            }
            f(group * GROUP, words);
        }
    }
}

/// Writes the numbers of a strip, `[row][token]` with `tokens` tokens, as `[token][row]`.
fn transpose<T: Plain>(numbers: &[T], tokens: usize, by_token: &mut [[T; STRIP]; MOST_TOKENS]) {
    for (row, numbers) in numbers.chunks(tokens).enumerate() {
        for (of_token, number) in by_token.iter_mut().zip(numbers) {
            of_token[row] = *number;
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/look_ups.rs"]
mod tests;
