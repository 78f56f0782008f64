//! The loops over single neurons of a feed-forward network, written once on [`TernaryDot`].
//!
//! A neuron has its row of `up` and its column of `down` in lines of its own (`neurons.rs`). `up_rows` multiplies some
//! rows with one token. `down_columns` adds up some columns, each times its activation: it interleaves the bytes of four
//! columns, so that the dot product of four bytes adds up four neurons.
//!
//! Hardware prefetchers must not run on into the neighbours of a neuron, which nobody reads. They learn strides by the
//! address of the instruction, so each line of a neuron has a load and a prefetch instruction of its own, in irregular
//! order: `one_line` is inlined eight times, never called in a loop over lines.
//!
//! Inner loops count with indexes: adaptors of iterators may end up in other codegen units, where only LTO inlines them.

#![expect(clippy::needless_range_loop, reason = "inner loops count with indexes, see above")]

use super::packing::Word;
use super::prefetch::prefetch;
use super::ternary_dot::{PLANES, TernaryDot};

/// Bytes of a plane of a line: one column, or one row of `down`, in each.
pub(super) const PLANE: usize = size_of::<Word>();
/// Lines of a neuron that are taken together.
const EIGHT: usize = 8;
/// How many neurons ahead `up_rows` asks for memory.
const NEURONS_AHEAD: usize = 24;
/// Columns that `down_columns` takes together: with those that it asks for and the sums they fill most of the first
/// cache.
const COLUMNS: usize = 16;
/// How many columns ahead `down_columns` asks for memory.
const COLUMNS_AHEAD: usize = 2 * COLUMNS;
/// After so many columns 16-bit sums are added to 32-bit ones: a dot product adds at most two products of a code up to 2
/// and an activation up to 127 for each four columns, and 64 · 508 = 32,512.
const WIDEN_COLUMNS: usize = 4 * 64;

/// The lines of all neurons of a matrix.
#[derive(Clone, Copy)]
pub(super) struct NeuronLines<'a> {
    /// The lines, neuron by neuron.
    pub words: &'a [Word],
    /// How many lines a neuron has.
    pub per_neuron: usize,
}

impl<'a> NeuronLines<'a> {
    /// The lines of the neuron whose first line is `start`.
    #[inline(always)]
    fn at(self, start: usize) -> &'a [Word] {
        &self.words[start..][..self.per_neuron]
    }
}

/// See [`NeuronKernels::up_rows`].
type UpRowsKernel = unsafe fn(NeuronLines, &[usize], &[[i8; PLANE]], &mut [i32]);
/// See [`NeuronKernels::down_columns`].
type DownColumnsKernel = unsafe fn(NeuronLines, &[usize], &[i8], &[usize], &mut [[i32; PLANE]]);

/// The kernels for neurons in one packing.
#[derive(Clone, Copy)]
pub(super) struct NeuronKernels {
    /// Code sums of some neurons' rows of `up`, given by their first lines, for one token. The token lies as the planes
    /// of the lines do, one after the other.
    pub up_rows: UpRowsKernel,
    /// `Σ activation · code` over some neurons' columns of `down`, for some of their lines: `[line][plane][byte]`.
    pub down_columns: DownColumnsKernel,
}

/// See [`NeuronKernels::up_rows`].
#[inline(always)]
pub(super) fn up_rows<D: TernaryDot>(neurons: NeuronLines, starts: &[usize], x: &[[i8; PLANE]], sums: &mut [i32]) {
    assert!(starts.len() == sums.len() && x.len() == neurons.per_neuron * D::PLANES);
    for start in starts.iter().take(NEURONS_AHEAD) {
        neurons.at(*start).iter().for_each(|line| prefetch(line));
    }
    for (i, sum) in sums.iter_mut().enumerate() {
        let (row, next) = (neurons.at(starts[i]), neurons.at(*starts.get(i + NEURONS_AHEAD).unwrap_or(&starts[i])));
        // SAFETY: this copy of the code is compiled for `D` (`stamp_neurons!`) and runs only where the processor has it.
        unsafe {
            let mut acc = [D::zero(); PLANES];
            let (eights, rest) = row.as_chunks::<EIGHT>();
            let (next_eights, next_rest) = next.as_chunks::<EIGHT>();
            for c in 0..eights.len() {
                let x = &x[EIGHT * D::PLANES * c..][..EIGHT * D::PLANES];
                eight_lines::<D>(&mut acc, &eights[c], &next_eights[c], x);
            }
            eight_lines::<D>(&mut acc, rest, next_rest, &x[EIGHT * D::PLANES * eights.len()..]);
            let mut lanes = [0i32; 16];
            D::store(D::packed_sum(acc), &mut lanes[..D::ROWS]);
            *sum = total(&lanes);
        }
    }
}

/// The sum of the lanes, by halving.
#[inline(always)]
fn total(lanes: &[i32; 16]) -> i32 {
    let mut lanes = *lanes;
    let mut half = 8;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Adds the dots of up to eight lines, and asks for as many of a later neuron.
///
/// # Safety
/// The processor has the instruction set of `D`.
#[inline(always)]
unsafe fn eight_lines<D: TernaryDot>(acc: &mut [D::Sum; PLANES], row: &[Word], next: &[Word], x: &[[i8; PLANE]]) {
    // SAFETY: the caller promises the instruction set of `D`.
    unsafe {
        one_line::<D, 3>(acc, row, next, x);
        one_line::<D, 6>(acc, row, next, x);
        one_line::<D, 0>(acc, row, next, x);
        one_line::<D, 5>(acc, row, next, x);
        widen::<D>(acc);
        one_line::<D, 2>(acc, row, next, x);
        one_line::<D, 7>(acc, row, next, x);
        one_line::<D, 1>(acc, row, next, x);
        one_line::<D, 4>(acc, row, next, x);
        widen::<D>(acc);
    }
}

/// Adds the dots of line `LINE`, if there is one, and asks for the same line of a later neuron.
///
/// # Safety
/// As for `eight_lines`.
#[inline(always)]
unsafe fn one_line<D: TernaryDot, const LINE: usize>(
    acc: &mut [D::Sum; PLANES],
    row: &[Word],
    next: &[Word],
    x: &[[i8; PLANE]],
) {
    if LINE >= row.len() {
        return;
    }
    prefetch(&next[LINE]);
    let planes = &x[LINE * D::PLANES..][..D::PLANES];
    for part in 0..16 / D::ROWS {
        // SAFETY: the caller promises the instruction set of `D`.
        unsafe {
            let mut q = [D::splat([0; 4]); PLANES];
            for p in 0..D::PLANES {
                q[p] = D::bytes(&planes[p], part);
            }
            D::packed_dot(acc, D::load(&row[LINE], part), q);
        }
    }
}

/// Adds 16-bit sums to 32-bit ones. The former hold eight calls of `packed_dot` with parts of 8 or 16 rows, and 16 with
/// parts of 4, which are those of four lines.
///
/// # Safety
/// As for `eight_lines`.
#[inline(always)]
unsafe fn widen<D: TernaryDot>(acc: &mut [D::Sum; PLANES]) {
    for a in 0..D::ACCUMULATORS {
        // SAFETY: the caller promises the instruction set of `D`.
        acc[a] = unsafe { D::widen(acc[a]) };
    }
}

/// Sums of one half of a part: those of all planes for each of two registers.
type HalfSums<D> = [[<D as TernaryDot>::Sum; PLANES]; 2];

/// See [`NeuronKernels::down_columns`].
#[inline(always)]
pub(super) fn down_columns<D: TernaryDot>(
    neurons: NeuronLines,
    starts: &[usize],
    q: &[i8],
    lines: &[usize],
    sums: &mut [[i32; PLANE]],
) {
    let parts = 16 / D::ROWS;
    assert!(starts.len() == q.len() && sums.len() == lines.len() * D::PLANES);
    assert!(lines.iter().all(|line| *line < neurons.per_neuron));
    // SAFETY: this copy of the code is compiled for `D` (`stamp_neurons!`) and runs only where the processor has it.
    let mut acc: Vec<HalfSums<D>> = vec![[[unsafe { D::zero() }; PLANES]; 2]; lines.len() * parts * 2];
    for start in starts.iter().take(COLUMNS_AHEAD) {
        let column = neurons.at(*start);
        lines.iter().for_each(|line| prefetch(&column[*line]));
    }
    for (block, (columns, q)) in starts.chunks(COLUMNS).zip(q.chunks(COLUMNS)).enumerate() {
        // The last block may be smaller: then some columns are added with the factor 0.
        let (mut firsts, mut factors) = ([columns[0]; COLUMNS], [0i8; COLUMNS]);
        firsts[..columns.len()].copy_from_slice(columns);
        factors[..q.len()].copy_from_slice(q);
        let later = starts.get(COLUMNS * block + COLUMNS_AHEAD..).unwrap_or(&[]);
        let mut asker = Asker { neurons, starts: &later[..later.len().min(COLUMNS)], lines, next: 0 };
        let mut all_lines = [neurons.words; COLUMNS];
        for c in 0..COLUMNS {
            all_lines[c] = neurons.at(firsts[c]);
        }
        let quads = q.len().div_ceil(4);
        for l in 0..lines.len() {
            let mut columns = [&neurons.words[0]; COLUMNS];
            for c in 0..COLUMNS {
                // SAFETY: each column has `per_neuron` lines, and `line` is less by the assertion above.
                columns[c] = unsafe { all_lines[c].get_unchecked(lines[l]) };
            }
            for part in 0..parts {
                let of_part = &mut acc[2 * (parts * l + part)..][..2];
                // SAFETY: the processor has the instruction set, as above.
                unsafe {
                    half::<D, false>(&mut of_part[0], &columns, &factors, quads, part, &mut asker);
                    half::<D, true>(&mut of_part[1], &columns, &factors, quads, part, &mut asker);
                }
            }
        }
        if (block + 1) % (WIDEN_COLUMNS / COLUMNS) == 0 {
            widen_all::<D>(&mut acc);
        }
    }
    widen_all::<D>(&mut acc);
    for (acc, sums) in acc.chunks(2 * parts).zip(sums.chunks_mut(D::PLANES)) {
        for (h, half) in acc.iter().enumerate() {
            for (o, planes) in half.iter().enumerate() {
                // SAFETY: the processor has the instruction set, as above.
                let planes = unsafe { D::plane_sums(*planes) };
                for (sum, sums) in planes.iter().zip(sums.iter_mut()) {
                    let mut lanes = [0i32; 16];
                    // SAFETY: the processor has the instruction set, as above.
                    unsafe { D::store(*sum, &mut lanes[..D::ROWS]) };
                    // The order of `TernaryDot::interleave`.
                    for (k, four) in lanes[..D::ROWS].as_chunks::<4>().0.iter().enumerate() {
                        let byte = 4 * D::ROWS * (h / 2) + 16 * k + 8 * (h % 2) + 4 * o;
                        sums[byte..byte + 4].copy_from_slice(four);
                    }
                }
            }
        }
    }
}

/// Adds one half of a part of one line of sixteen columns, each times its factor; `quads` times four columns count.
///
/// The sums of half a part stay in registers, those of a whole one would not.
///
/// # Safety
/// The processor has the instruction set of `D`.
#[inline(always)]
unsafe fn half<D: TernaryDot, const HIGH: bool>(
    acc: &mut HalfSums<D>,
    columns: &[&Word; COLUMNS],
    factors: &[i8; COLUMNS],
    quads: usize,
    part: usize,
    asker: &mut Asker,
) {
    let mut sums = *acc;
    let (columns, factors) = (columns.as_chunks::<4>().0, factors.as_chunks::<4>().0);
    for quad in 0..quads.min(COLUMNS / 4) {
        // A line has 4 · 2 · 16 / ROWS such steps, in which the lines of as many later columns are asked for; asked for
        // in larger lots, they would hold up the work.
        for _ in 0..(D::ROWS / 8).max(1) {
            asker.ask();
        }
        // SAFETY: the caller promises the instruction set of `D`.
        unsafe {
            let factor = D::splat(factors[quad]);
            let [low, high] = D::interleave::<HIGH>(columns[quad], part);
            D::planes_dot(&mut sums[0], low, factor);
            D::planes_dot(&mut sums[1], high, factor);
        }
    }
    *acc = sums;
}

/// Adds 16-bit sums to 32-bit ones.
#[inline(always)]
fn widen_all<D: TernaryDot>(acc: &mut [HalfSums<D>]) {
    for half in acc {
        for o in 0..2 {
            for p in 0..PLANES {
                // SAFETY: this copy of the code is compiled for `D` (`stamp_neurons!`) and runs only where the processor
                // has it.
                half[o][p] = unsafe { D::widen(half[o][p]) };
            }
        }
    }
}

/// Asks for some lines of some columns, one after the other.
struct Asker<'a> {
    neurons: NeuronLines<'a>,
    /// The first lines of the columns that are still to be asked for.
    starts: &'a [usize],
    lines: &'a [usize],
    /// The index of the next line of the first of these columns.
    next: usize,
}

impl Asker<'_> {
    #[inline(always)]
    fn ask(&mut self) {
        let Some((start, rest)) = self.starts.split_first() else { return };
        prefetch(self.neurons.words.as_ptr().wrapping_add(start + self.lines[self.next]));
        self.next += 1;
        if self.next == self.lines.len() {
            (self.next, self.starts) = (0, rest);
        }
    }
}

/// The loops compiled for one [`TernaryDot`] with its target features: a module `$name` with the constant `KERNELS`.
macro_rules! stamp_neurons {
    ($name:ident, dot: $dot:ty, features: $features:literal $(,)?) => {
        pub(in $crate::kernel) mod $name {
            use super::*;
            use $crate::kernel::neuron_dot::{NeuronKernels, NeuronLines, PLANE};

            pub(in $crate::kernel) const KERNELS: NeuronKernels = NeuronKernels { up_rows, down_columns };

            #[target_feature(enable = $features)]
            fn up_rows(neurons: NeuronLines, starts: &[usize], x: &[[i8; PLANE]], sums: &mut [i32]) {
                $crate::kernel::neuron_dot::up_rows::<$dot>(neurons, starts, x, sums);
            }

            #[target_feature(enable = $features)]
            fn down_columns(
                neurons: NeuronLines,
                starts: &[usize],
                q: &[i8],
                lines: &[usize],
                sums: &mut [[i32; PLANE]],
            ) {
                $crate::kernel::neuron_dot::down_columns::<$dot>(neurons, starts, q, lines, sums);
            }
        }
    };
}
pub(super) use stamp_neurons;
