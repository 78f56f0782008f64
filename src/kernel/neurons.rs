//! A copy of the feed-forward matrices `up` and `down` by neurons, for a single token of which many neurons are zero.
//!
//! Neuron n is row n of `up` and column n of `down`. In the copy, each of the two is a few whole lines of 64 bytes, so
//! that a pass reads the neurons that it needs, and nothing else. A row lies in its line as its dwords lie in the words
//! of a group ([`super::packing`]), one after the other.
//!
//! Neurons lie in shuffled order: neuron n at place n · step mod N, where step is about 0.618 · N and coprime to N. So
//! neighbours lie far apart, and hardware prefetchers that run on from one neuron do not read the next one, which is
//! often not needed.

use super::Team;
use super::neuron_dot::{NeuronLines, PLANE};
use super::packing::{BLOCK, EXPANDED_WORDS, GROUP, Packing, RUN, TWO_BIT_WORDS, Word};
use super::ternary::{Activations, Ternary};
use crate::error::Result;
use crate::machine::memory::{Arena, HugeBuf};
use std::ops::Range;

/// Columns of `down` that are worth a slice of their own.
const SLICE: usize = 64;
/// The most slices: their sums are added on one thread.
const MAX_SLICES: usize = 8;
/// The fewest neurons of a task of `up`.
const NEURONS_PER_TASK: usize = 64;
/// The order in which lines are read: see `neuron_dot.rs`.
const ORDER: [usize; 8] = [3, 6, 0, 5, 2, 7, 1, 4];

/// The rows of `up` and the columns of `down` of a feed-forward network, neuron by neuron.
pub struct Neurons {
    up: HugeBuf<Word>,
    down: HugeBuf<Word>,
    packing: Packing,
    hidden_size: usize,
    n_neurons: usize,
    /// Places from one neuron to the next.
    step: usize,
    /// The lines of a neuron in the order in which they are read.
    order: Vec<usize>,
    /// The largest scale of a row of `up`.
    largest_scale: f32,
}

/// Some neurons: their indexes, and their first lines.
#[derive(Default)]
struct List {
    neurons: Vec<usize>,
    starts: Vec<usize>,
}

impl Neurons {
    /// Copies the two matrices, in the packing that suits the kernels.
    pub fn new(team: &Team, arena: &Arena, up: &Ternary, down: &Ternary) -> Result<Neurons> {
        let (hidden_size, n_neurons) = (up.cols(), up.rows());
        assert!(down.rows() == hidden_size && down.cols() == n_neurons && n_neurons > 0);
        let packing = team.kernels.packing(hidden_size);
        let lines = packing.lines(hidden_size);
        let order = (0..lines).step_by(ORDER.len()).flat_map(|first| ORDER.map(|line| first + line));
        let mut neurons = Neurons {
            up: arena.try_zeroed(n_neurons * lines)?,
            down: arena.try_zeroed(n_neurons * lines)?,
            packing,
            hidden_size,
            n_neurons,
            step: step(n_neurons),
            order: order.filter(|line| *line < lines).collect(),
            largest_scale: up.largest_scale(),
        };
        let places = |place: usize| place * neurons.step % n_neurons;
        let places: Vec<usize> = (0..n_neurons).map(places).collect();
        copy_rows(team, up, packing, &mut by_neuron(&mut neurons.up, lines, &places));
        copy_columns(team, down, packing, &mut by_neuron(&mut neurons.down, lines, &places));
        Ok(neurons)
    }

    /// Bytes of the copy.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.up) + size_of_val(&*self.down)
    }

    /// Whether every output of `up` is finite for this token, whatever the trits are. A sum of products is at most
    /// 127 · columns; twice that leaves room for its rounding.
    pub fn gives_finite(&self, x: &Activations) -> bool {
        let (_, (s, _)) = x.token(0);
        let factor = self.largest_scale / s;
        factor.is_finite() && 2.0 * 127.0 * self.hidden_size as f64 * factor as f64 <= f32::MAX as f64
    }

    /// The linear layer `up` for one token, but only those outputs that are `wanted`; the others are +0.
    pub fn up(
        &self,
        team: &Team,
        up: &Ternary,
        x: &Activations,
        wanted: impl Fn(usize) -> bool + Sync,
        out: &mut [f32],
    ) {
        assert_eq!(out.len(), self.n_neurons);
        let (q, (s, q_sum)) = x.token(0);
        let planes = self.planes_of(q);
        let per_task = self.n_neurons.div_ceil(4 * team.size()).max(NEURONS_PER_TASK);
        team.for_each_chunk(out, per_task, |task, out| {
            let first = task * per_task;
            let List { neurons, starts } = self.list(first..first + out.len(), &wanted);
            let mut sums = vec![0; starts.len()];
            team.kernels.up_rows(self.packing, self.lines(&self.up), &starts, &planes, &mut sums);
            out.fill(0.0);
            for (neuron, sum) in neurons.into_iter().zip(sums) {
                out[neuron - first] = (sum - q_sum) as f32 * up.factor(neuron, s);
            }
        });
    }

    /// The linear layer `down` for one token; reads the columns of activations that are not zero, of which there are
    /// `count`. A task takes a slice of the neurons and some of the lines.
    pub fn down(&self, team: &Team, down: &Ternary, x: &Activations, count: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.hidden_size);
        let (q, scale) = x.token(0);
        let n_slices = (count / SLICE).clamp(1, MAX_SLICES.min(team.size()));
        let per_slice = self.n_neurons.div_ceil(n_slices);
        let groups = self.order.len().min(team.size() / n_slices).max(1);
        let per_group = self.order.len().div_ceil(groups);
        let (groups, planes) = (self.order.len().div_ceil(per_group), self.packing.planes());
        let mut parts = vec![[0i32; PLANE]; n_slices * groups * per_group * planes];
        team.for_each_chunk(&mut parts, per_group * planes, |task, sums| {
            let first = (task / groups * per_slice).min(self.n_neurons);
            let slice = first..(first + per_slice).min(self.n_neurons);
            let lines = &self.order[task % groups * per_group..];
            let lines = &lines[..lines.len().min(per_group)];
            let List { neurons, starts } = self.list(slice, |neuron| q[neuron] != 0);
            let factors: Vec<i8> = neurons.into_iter().map(|neuron| q[neuron]).collect();
            let sums = &mut sums[..lines.len() * planes];
            team.kernels.down_columns(self.packing, self.lines(&self.down), (&starts, &factors), lines, sums);
        });
        // The slices' sums, in the order of the rows.
        let mut sums = vec![0i32; self.packing.padded(self.hidden_size).next_multiple_of(2 * BLOCK)];
        for slice in parts.chunks(groups * per_group * planes) {
            for (line, parts) in self.order.iter().zip(slice.chunks(planes)) {
                for (plane, part) in parts.iter().enumerate() {
                    for (half, part) in part.chunks(RUN).enumerate() {
                        let sums = &mut sums[self.packing.run(*line, plane, half)..][..RUN];
                        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
                    }
                }
            }
        }
        down.scale_sums(team.kernels, 0, &sums[..self.hidden_size.next_multiple_of(GROUP)], scale, out);
    }

    fn lines<'a>(&self, words: &'a [Word]) -> NeuronLines<'a> {
        NeuronLines { words, per_neuron: self.order.len() }
    }

    /// Lists the neurons of a range that are wanted.
    fn list(&self, range: Range<usize>, wanted: impl Fn(usize) -> bool) -> List {
        // Without a branch, which would be mispredicted for every other neuron.
        let (mut neurons, mut starts) = (vec![0; range.len()], vec![0; range.len()]);
        let (mut n, mut place) = (0, range.start * self.step % self.n_neurons);
        for neuron in range {
            (neurons[n], starts[n]) = (neuron, place * self.order.len());
            n += usize::from(wanted(neuron));
            place += self.step;
            place -= if place >= self.n_neurons { self.n_neurons } else { 0 };
        }
        neurons.truncate(n);
        starts.truncate(n);
        List { neurons, starts }
    }

    /// A token in the order of the planes of a neuron's lines.
    fn planes_of(&self, q: &[i8]) -> Vec<[i8; PLANE]> {
        let planes = self.packing.planes();
        let mut all = vec![[0; PLANE]; self.order.len() * planes];
        for (i, out) in all.iter_mut().enumerate() {
            for (half, out) in out.chunks_mut(RUN).enumerate() {
                // A line may be longer than the row.
                if let Some(q) = q.get(self.packing.run(i / planes, i % planes, half)..) {
                    let len = q.len().min(RUN);
                    out[..len].copy_from_slice(&q[..len]);
                }
            }
        }
        all
    }
}

/// A number near 0.618 · n that has no factor in common with n.
fn step(n: usize) -> usize {
    let coprime = |step: &usize| {
        let (mut a, mut b) = (n, *step);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a == 1
    };
    (n * 618 / 1000..).find(coprime).expect("n + 1 has no factor in common with n")
}

/// The lines of each neuron.
fn by_neuron<'a>(words: &'a mut [Word], lines: usize, places: &[usize]) -> Vec<&'a mut [Word]> {
    let mut by_place: Vec<Option<&mut [Word]>> = words.chunks_mut(lines).map(Some).collect();
    places.iter().map(|place| by_place[*place].take().expect("each place has one neuron")).collect()
}

/// Writes the rows of a matrix to the neurons' lines.
fn copy_rows(team: &Team, up: &Ternary, packing: Packing, by_neuron: &mut [&mut [Word]]) {
    team.for_each_chunk(by_neuron, GROUP, |group, neurons| {
        let words = two_bit(team, up.packing(), up.group_words(group));
        let mut bytes = vec![0u8; 4 * words.len()];
        for (row, lines) in neurons.iter_mut().enumerate() {
            for (dword, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(&words) {
                dword.copy_from_slice(&word.0[4 * row..][..4]);
            }
            write(packing, lines, &mut bytes);
        }
    });
}

/// Writes the columns of a matrix to the neurons' lines.
fn copy_columns(team: &Team, down: &Ternary, packing: Packing, by_neuron: &mut [&mut [Word]]) {
    let (cols, block_words) = (down.packing().padded(1), down.packing().words(1));
    let (groups, column_bytes) = (down.rows().div_ceil(GROUP), down.rows().div_ceil(BLOCK) * BLOCK / 4);
    team.for_each_chunk(by_neuron, cols, |block, neurons| {
        let mut columns = vec![0u8; cols * column_bytes];
        // A block of 128 rows is eight groups.
        for (first, rows) in (0..groups).step_by(TWO_BIT_WORDS).zip((0..).step_by(BLOCK / 4)) {
            let words = |group| match first + group {
                group if group < groups => {
                    two_bit(team, down.packing(), &down.group_words(group)[block * block_words..][..block_words])
                }
                _ => vec![Word([0; 64]); cols / GROUP],
            };
            let words: [Vec<Word>; 8] = std::array::from_fn(words);
            let four = |half: usize, w: usize| std::array::from_fn(|k| &words[2 * k + half][w]);
            for w in 0..cols / GROUP {
                for half in 0..2 {
                    for (plane, codes) in transpose(four(half, w)).iter().enumerate() {
                        for j in 0..4 {
                            let column = BLOCK * (w / TWO_BIT_WORDS) + RUN * plane + 4 * (w % TWO_BIT_WORDS) + j;
                            let out = &mut columns[column * column_bytes + rows + GROUP * half..][..GROUP];
                            for (r, out) in out.iter_mut().enumerate() {
                                *out = codes[4 * r + j];
                            }
                        }
                    }
                }
            }
        }
        for (lines, column) in neurons.iter_mut().zip(columns.chunks_mut(column_bytes)) {
            write(packing, lines, column);
        }
    });
}

/// Words of whole blocks as two-bit words.
fn two_bit(team: &Team, packing: Packing, words: &[Word]) -> Vec<Word> {
    match packing {
        Packing::TwoBit => words.to_vec(),
        Packing::Base3 => {
            let mut two_bit = vec![Word([0; 64]); words.len() / Packing::Base3.words(1) * EXPANDED_WORDS];
            team.kernels.base3_to_two_bit(words, &mut two_bit);
            two_bit
        }
    }
}

/// Transposes the codes of four words: place p of the bytes of word k becomes place k of those of word p.
fn transpose(words: [&Word; 4]) -> [[u8; 64]; 4] {
    let mut out = [[0u8; 64]; 4];
    for (p, out) in out.iter_mut().enumerate() {
        for (k, word) in words.iter().enumerate() {
            for (out, byte) in out.iter_mut().zip(&word.0) {
                *out |= (byte >> (6 - 2 * p) & 3) << (6 - 2 * k);
            }
        }
    }
    out
}

/// Writes a neuron. Code 3, which only damaged files have, becomes 2.
fn write(packing: Packing, lines: &mut [Word], bytes: &mut [u8]) {
    bytes.iter_mut().for_each(|byte| *byte &= !(*byte & *byte >> 1 & 0x55));
    packing.write_lines(lines, bytes);
}

#[cfg(test)]
#[path = "../../tests/unit/neurons.rs"]
pub(super) mod tests;
