//! Ternary products of many tokens by look-ups, written once; an instruction set implements [`LookUps`].
//!
//! The activations of four columns have 3⁴ = 81 signed sums. For the `N` tokens of a register of int16 they are a table
//! of 81 registers, and the tables of 32 columns fit the nearest cache. The codes of four trits are then an address:
//! adding an operand in memory does 4·`N` multiply-adds. The tables serve all rows, so they are worth their making if
//! there are many.
//!
//! Inner loop, for a row, 32 columns and `N` tokens: 8 additions with an operand in memory; one load and one store of
//! the row's sums. Bound: the loads, 128·`N`/9 multiply-adds for each that the processor does in a cycle.
//!
//! All sums are exact: int16 holds those of 256 columns, 256·127 = 32,512, before they are added to others.

use super::grouped_dot::{GroupedRows, GroupedToken, MAX_PLANES};
use super::lanes::{SimdF32, slices};
use super::packing::{BLOCK, GROUP, TWO_BIT_WORDS, Word};
use crate::machine::buffer::Plain;
use crate::machine::memory::Zeroable;
use std::hint::black_box;
use std::ops::Range;

/// Signed sums of four activations.
const ENTRIES: usize = 81;
/// Tables that are in use at a time, one for each byte of a [`RowCodes`].
const TABLES: usize = size_of::<RowCodes>();
/// Columns whose sums are looked up at a time.
const STEP_COLS: usize = 4 * TABLES;
/// Steps of a block of 128 columns.
pub(super) const BLOCK_STEPS: usize = BLOCK / STEP_COLS;
/// Words of a group of 16 rows that hold the columns of a step.
const STEP_WORDS: usize = TWO_BIT_WORDS / BLOCK_STEPS;
/// Steps whose sums int16 holds, for activations from −127 to 127.
const STEPS_IN_I16: usize = 256 / STEP_COLS;

/// The codes of a row for the columns of a step: numbers below 81, whose digits to the base 3 are the codes of four
/// columns. Byte i has those of byte i of a two-bit row, the highest digit first.
#[derive(Clone, Copy, Default)]
pub struct RowCodes([u8; 8]);

// SAFETY: bytes, for which zero is a value.
unsafe impl Zeroable for RowCodes {}

/// The tables of a step.
type Tables<const N: usize> = [[[i16; N]; ENTRIES]; TABLES];

/// The operations of an instruction set on sums of `N` tokens, as many as one register of int16 holds.
///
/// # Safety
/// Every function may be called only where the processor has the implementor's instruction set.
pub(super) trait LookUps<const N: usize> {
    /// An int16 for each token: word 2·i belongs to token i, word 2·i + 1 to token N/2 + i.
    type Sums: Copy;
    /// An int32 for each token, in order.
    type Ints: Copy;

    /// Sums that are all zero.
    unsafe fn zero() -> Self::Sums;
    /// Reads sums.
    unsafe fn load(from: &[i16; N]) -> Self::Sums;
    /// Writes sums.
    unsafe fn store(sums: Self::Sums, to: &mut [i16; N]);
    /// `a + b`.
    unsafe fn add(a: Self::Sums, b: Self::Sums) -> Self::Sums;
    /// `a − b`.
    unsafe fn sub(a: Self::Sums, b: Self::Sums) -> Self::Sums;
    /// The activations of four columns, each as a value for each token; `quads` holds a dword for each token.
    unsafe fn columns(quads: &[[i8; 4]; N]) -> [Self::Sums; 4];
    /// Sums as int32.
    unsafe fn widen(sums: Self::Sums) -> Self::Ints;
    /// `to += sums`.
    unsafe fn add_to(sums: Self::Ints, to: &mut [i32; N]);
    /// `256·high + low`.
    unsafe fn join(high: Self::Ints, low: Self::Ints) -> Self::Ints;
    /// `y = fma(float(sums) · s, scale, y)`.
    unsafe fn fold(sums: Self::Ints, s: &[f32; N], scale: f32, y: &mut [f32; N]);
}

/// What becomes of the sums of a step's columns and those before it.
trait Ending<L: LookUps<N>, const N: usize> {
    /// Takes the sums of a row.
    ///
    /// # Safety
    /// The processor has the instruction set of `L`.
    unsafe fn take(&mut self, row: usize, sums: L::Sums, partial: &mut [i16; N]);
}

/// Keeps the sums for the next step.
struct Keep;
/// Adds the sums to those in int32.
struct Total<'a, const N: usize>(&'a mut [[i32; N]]);

/// Adds the sums of a block of columns to outputs: `y = fma(float(sums) · s, scale, y)`.
struct Fold<'a, const N: usize, const BEFORE: usize> {
    /// The sums of the planes before the last, the highest first.
    before: [&'a [[i16; N]]; BEFORE],
    /// The step of each token's activations.
    s: &'a [f32; N],
    /// The scale of each row.
    scales: &'a [f32],
    y: &'a mut [[f32; N]],
}

impl<L: LookUps<N>, const N: usize> Ending<L, N> for Keep {
    #[inline(always)]
    unsafe fn take(&mut self, _: usize, sums: L::Sums, partial: &mut [i16; N]) {
        // SAFETY: the caller promises the instruction set.
        unsafe { L::store(sums, partial) }
    }
}

impl<L: LookUps<N>, const N: usize> Ending<L, N> for Total<'_, N> {
    #[inline(always)]
    unsafe fn take(&mut self, row: usize, sums: L::Sums, _: &mut [i16; N]) {
        // SAFETY: the caller promises the instruction set.
        unsafe { L::add_to(L::widen(sums), &mut self.0[row]) }
    }
}

impl<L: LookUps<N>, const N: usize, const BEFORE: usize> Ending<L, N> for Fold<'_, N, BEFORE> {
    #[inline(always)]
    unsafe fn take(&mut self, row: usize, sums: L::Sums, _: &mut [i16; N]) {
        // SAFETY: the caller promises the instruction set.
        unsafe {
            let mut trits = L::widen(sums);
            if BEFORE > 0 {
                let mut high = L::widen(L::load(&self.before[0][row]));
                for before in &self.before[1..] {
                    high = L::join(high, L::widen(L::load(&before[row])));
                }
                trits = L::join(high, trits);
            }
            L::fold(trits, self.s, self.scales[row], &mut self.y[row]);
        }
    }
}

/// Adds the sums of a step's columns to those of the steps before it, unless it is the `FIRST`.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
unsafe fn step<L: LookUps<N>, E: Ending<L, N>, const N: usize, const FIRST: bool>(
    codes: &[RowCodes],
    tables: &Tables<N>,
    partial: &mut [[i16; N]],
    mut ending: E,
) {
    let entries = tables.as_flattened().as_ptr();
    let shift = size_of::<[i16; N]>().trailing_zeros();
    for (row, (codes, partial)) in codes.iter().zip(partial).enumerate() {
        let word = u64::from_le_bytes(codes.0);
        // SAFETY: the caller promises the instruction set; a code is below 81 (`numbers`), so the entry lies in its
        // table.
        unsafe {
            let mut sums = if FIRST { L::zero() } else { L::load(partial) };
            for table in 0..TABLES {
                // A rotation puts a code where it is its entry's offset.
                let offset = word.rotate_right(8 * table as u32).rotate_left(shift) as usize & 0xff << shift;
                let entry = entries.add(ENTRIES * table).byte_add(offset);
                sums = L::add(sums, L::load(&*entry));
            }
            ending.take(row, sums, partial);
        }
    }
}

/// Makes the tables of step `at` for these tokens.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
unsafe fn make_tables<L: LookUps<N>, const N: usize>(q: &[&[i8]], at: usize, tables: &mut Tables<N>) {
    let first = at / BLOCK_STEPS * BLOCK + at % BLOCK_STEPS * (STEP_COLS / 4);
    let (left, right) = tables.split_at_mut(TABLES / 2);
    for (half, tables) in [left, right].into_iter().enumerate() {
        let mut quads = [[[0i8; 4]; N]; 4];
        for (token, q) in q.iter().enumerate() {
            for (digit, quads) in quads.iter_mut().enumerate() {
                quads[token] = *q[first + 32 * digit + 4 * half..].first_chunk().expect("a block has 128 columns");
            }
        }
        // SAFETY: the caller promises the instruction set.
        unsafe {
            let columns = [L::columns(&quads[0]), L::columns(&quads[1]), L::columns(&quads[2]), L::columns(&quads[3])];
            for (byte, table) in tables.iter_mut().enumerate() {
                let x = [columns[3][byte], columns[2][byte], columns[1][byte], columns[0][byte]];
                make_table::<L, N>(x, table);
            }
        }
    }
}

/// Makes the table of four columns, that of the lowest digit first.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
unsafe fn make_table<L: LookUps<N>, const N: usize>(x: [L::Sums; 4], table: &mut [[i16; N]; ENTRIES]) {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        let zero = L::zero();
        let low = [L::sub(zero, x[0]), zero, x[0]];
        let second = [L::sub(zero, x[1]), zero, x[1]];
        let third = [L::sub(zero, x[2]), zero, x[2]];
        let fourth = [L::sub(zero, x[3]), zero, x[3]];
        let mut lower = [zero; 9];
        for i in 0..9 {
            lower[i] = L::add(second[i / 3], low[i % 3]);
        }
        for (i, entries) in table.as_chunks_mut::<9>().0.iter_mut().enumerate() {
            let upper = L::add(fourth[i / 3], third[i % 3]);
            for (entry, lower) in entries.iter_mut().zip(lower) {
                L::store(L::add(upper, lower), entry);
            }
        }
    }
}

/// Sums of trits and activations of some rows for up to `N` tokens, `[row][token]`, in the totals of the room.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
pub(super) unsafe fn sums<L: LookUps<N>, const N: usize>(rows: CodedRows, q: &[&[i8]], room: &mut Room) {
    assert!(q.len() <= N);
    let len = rows.range.len();
    let tables = as_tables(view(&mut room.tables, TABLES * ENTRIES * N));
    let partial = view(&mut room.partial, len * N).as_chunks_mut().0;
    let totals = view(&mut room.totals, len * N).as_chunks_mut().0;
    totals.fill([0; N]);
    let steps = rows.steps();
    for at in 0..steps {
        let codes = rows.step(at);
        let in_i16 = at % STEPS_IN_I16;
        // SAFETY: the caller promises the instruction set.
        unsafe {
            make_tables::<L, N>(q, at, tables);
            if in_i16 == 0 {
                step::<L, _, N, true>(codes, tables, partial, Keep);
            } else if in_i16 == STEPS_IN_I16 - 1 || at == steps - 1 {
                step::<L, _, N, false>(codes, tables, partial, Total(totals));
            } else {
                step::<L, _, N, false>(codes, tables, partial, Keep);
            }
        }
    }
}

/// Outputs of some rows of a grouped matrix for up to `N` tokens, `[row][token]`, in the totals of the room as floats.
/// `groups` are the packed rows, whose scales belong to whole blocks.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
pub(super) unsafe fn grouped<L: LookUps<N> + SimdF32, const N: usize>(
    rows: CodedRows,
    groups: &[GroupedRows],
    tokens: &[GroupedToken],
    room: &mut Room,
) {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        match tokens[0].n_planes {
            1 => grouped_in_planes::<L, N, 0>(rows, groups, tokens, room),
            2 => grouped_in_planes::<L, N, 1>(rows, groups, tokens, room),
            _ => grouped_in_planes::<L, N, 2>(rows, groups, tokens, room),
        }
    }
}

/// As [`grouped`], with `BEFORE` planes before the last.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
unsafe fn grouped_in_planes<L: LookUps<N> + SimdF32, const N: usize, const BEFORE: usize>(
    rows: CodedRows,
    groups: &[GroupedRows],
    tokens: &[GroupedToken],
    room: &mut Room,
) {
    let len = rows.range.len();
    assert!(tokens.len() <= N && len == groups.len() * GROUP && tokens.iter().all(|x| x.n_planes == BEFORE + 1));
    let tables = as_tables(view(&mut room.tables, TABLES * ENTRIES * N));
    let partial = view(&mut room.partial, (BEFORE + 1) * len * N).as_chunks_mut().0;
    let y = view(&mut room.totals, len * N).as_chunks_mut().0;
    y.fill([0.0; N]);
    let mut scales = vec![0f32; len];
    for block in 0..rows.steps() / BLOCK_STEPS {
        let mut s = [0f32; N];
        for (s, token) in s.iter_mut().zip(tokens) {
            *s = token.scales[block].s;
        }
        for (scales, group) in scales.as_chunks_mut().0.iter_mut().zip(groups) {
            // SAFETY: the caller promises the instruction set.
            unsafe { <L as SimdF32>::store(L::f16_to_f32(group.scales_of(block)), scales) }
        }
        for plane in 0..=BEFORE {
            let (before, own) = partial.split_at_mut(plane * len);
            let own = &mut own[..len];
            let mut q = [&[][..]; N];
            for (q, token) in q.iter_mut().zip(tokens) {
                *q = token.planes[MAX_PLANES - 1 - BEFORE + plane];
            }
            for at in 0..BLOCK_STEPS {
                let step_at = BLOCK_STEPS * block + at;
                let codes = rows.step(step_at);
                // SAFETY: the caller promises the instruction set.
                unsafe {
                    make_tables::<L, N>(&q[..tokens.len()], step_at, tables);
                    if at == 0 {
                        step::<L, _, N, true>(codes, tables, own, Keep);
                    } else if at < BLOCK_STEPS - 1 || plane < BEFORE {
                        step::<L, _, N, false>(codes, tables, own, Keep);
                    } else {
                        let before = slices(|plane| &before[plane * len..][..len]);
                        let fold = Fold::<N, BEFORE> { before, s: &s, scales: &scales, y };
                        step::<L, _, N, false>(codes, tables, own, fold);
                    }
                }
            }
        }
    }
}

/// Registers in the order of tables.
fn as_tables<const N: usize>(numbers: &mut [i16]) -> &mut Tables<N> {
    &mut numbers.as_chunks_mut().0.as_chunks_mut().0.as_chunks_mut().0[0]
}

/// Looks sums up in tables that stay in the nearest cache, `rounds` times those of 64 rows: the most that look-ups can
/// do. Returns the number of multiply-adds.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
pub(super) unsafe fn peak_macs<L: LookUps<N>, const N: usize>(rounds: usize) -> u64 {
    const ROWS: usize = 64;
    let mut room = Room::default();
    let tables = as_tables(view(&mut room.tables, TABLES * ENTRIES * N));
    let partial = view(&mut room.partial, ROWS * N).as_chunks_mut().0;
    let mut codes = [RowCodes([0; TABLES]); ROWS];
    for (i, code) in codes.iter_mut().flat_map(|codes| &mut codes.0).enumerate() {
        *code = (i * 37 % ENTRIES) as u8;
    }
    for _ in 0..rounds {
        // SAFETY: the caller promises the instruction set.
        unsafe { step::<L, _, N, false>(black_box(&codes), tables, partial, Keep) }
    }
    (rounds * ROWS * STEP_COLS * N) as u64
}

/// The codes of a matrix for each step of its columns, and some of its rows.
#[derive(Clone)]
pub(super) struct CodedRows<'a> {
    /// For each step the codes of all rows.
    codes: &'a [RowCodes],
    /// How many rows there are, padded to whole groups.
    rows: usize,
    range: Range<usize>,
}

impl<'a> CodedRows<'a> {
    pub(super) fn new(codes: &'a [RowCodes], rows: usize, range: Range<usize>) -> CodedRows<'a> {
        assert!(range.end <= rows && codes.len().is_multiple_of(rows * BLOCK_STEPS) && !codes.is_empty());
        CodedRows { codes, rows, range }
    }

    fn steps(&self) -> usize {
        self.codes.len() / self.rows
    }

    /// The codes of the rows for a step.
    fn step(&self, at: usize) -> &'a [RowCodes] {
        &self.codes[at * self.rows..][self.range.clone()]
    }
}

impl RowCodes {
    /// Whether each code is that of an entry of a table.
    #[cfg(test)]
    pub(super) fn is_valid(&self) -> bool {
        self.0.iter().all(|code| (*code as usize) < ENTRIES)
    }

    /// Writes the codes of a group of 16 rows for a block of columns: `out` has the codes of `rows` rows for each step,
    /// and `first` is the first row of the group.
    #[inline(always)]
    pub(super) fn write(words: &[Word; TWO_BIT_WORDS], out: &mut [RowCodes], rows: usize, first: usize) {
        for (step, words) in words.as_chunks::<STEP_WORDS>().0.iter().enumerate() {
            let out = &mut out[step * rows + first..][..GROUP];
            let [left, right] = [numbers(&words[0]), numbers(&words[1])];
            for (row, out) in out.iter_mut().enumerate() {
                out.0[..4].copy_from_slice(&left[4 * row..][..4]);
                out.0[4..].copy_from_slice(&right[4 * row..][..4]);
            }
        }
    }
}

/// The numbers to the base 3 for the two-bit bytes of a word. A damaged file may have codes of 3: the number is below 81
/// all the same.
#[inline(always)]
fn numbers(word: &Word) -> [u8; 64] {
    let mut numbers = word.0;
    for number in &mut numbers {
        let digits = *number;
        let upper = 3 * (digits >> 6) + (digits >> 4 & 3);
        let lower = 3 * (digits >> 2 & 3) + (digits & 3);
        *number = (9 * upper + lower).min(ENTRIES as u8 - 1);
    }
    numbers
}

/// What a thread computes with: tables, and the sums of some rows. It is kept for the next product.
#[derive(Default)]
pub(super) struct Room {
    tables: Vec<Word>,
    partial: Vec<Word>,
    /// The sums of rows for the tokens of a register, `[row][token]`.
    totals: Vec<Word>,
}

impl Room {
    /// The first `len` sums, or outputs, of the last product, `[row][token]`.
    pub(super) fn totals<T: Plain>(&mut self, len: usize) -> &[T] {
        view(&mut self.totals, len)
    }
}

/// The first `len` numbers of a buffer of whole cache lines; it grows as needed. The numbers are those of the last use,
/// or zero.
fn view<T: Plain>(lines: &mut Vec<Word>, len: usize) -> &mut [T] {
    let words = (len * size_of::<T>()).div_ceil(size_of::<Word>());
    lines.resize(lines.len().max(words), Word([0; 64]));
    // SAFETY: every bit pattern is a value of `T`.
    let (before, numbers, _) = unsafe { lines.align_to_mut::<T>() };
    assert!(before.is_empty());
    &mut numbers[..len]
}

/// The look-ups of an instruction set.
#[derive(Clone, Copy)]
pub(super) struct LookUpKernels {
    /// The tokens whose sums are looked up at once.
    pub(super) tokens: usize,
    /// See [`RowCodes::write`].
    pub(super) write_codes: unsafe fn(&[Word; TWO_BIT_WORDS], &mut [RowCodes], usize, usize),
    /// See [`sums`].
    pub(super) sums: unsafe fn(CodedRows, &[&[i8]], &mut Room),
    /// See [`grouped`].
    pub(super) grouped: unsafe fn(CodedRows, &[GroupedRows], &[GroupedToken], &mut Room),
    /// See [`peak_macs`].
    pub(super) peak_macs: unsafe fn(usize) -> u64,
}

/// `LOOK_UPS`, the look-ups of an instruction set: the loops compiled for `lanes`, registers of `tokens` sums, with
/// `features`.
macro_rules! stamp_look_ups {
    (lanes: $lanes:ident, features: $features:literal, tokens: $tokens:literal) => {
        pub(super) mod look_ups {
            use super::$lanes;
            use $crate::kernel::grouped_dot::{GroupedRows, GroupedToken};
            use $crate::kernel::look_ups::{self as loops, CodedRows, LookUpKernels, Room, RowCodes};
            use $crate::kernel::packing::{TWO_BIT_WORDS, Word};

            #[target_feature(enable = $features)]
            fn write_codes(words: &[Word; TWO_BIT_WORDS], out: &mut [RowCodes], rows: usize, first: usize) {
                RowCodes::write(words, out, rows, first);
            }

            #[target_feature(enable = $features)]
            fn sums(rows: CodedRows, q: &[&[i8]], room: &mut Room) {
                // SAFETY: these features are the instruction set of the lanes, here and below.
                unsafe { loops::sums::<$lanes, $tokens>(rows, q, room) }
            }

            #[target_feature(enable = $features)]
            fn grouped(rows: CodedRows, groups: &[GroupedRows], tokens: &[GroupedToken], room: &mut Room) {
                // SAFETY: as above.
                unsafe { loops::grouped::<$lanes, $tokens>(rows, groups, tokens, room) }
            }

            #[target_feature(enable = $features)]
            fn peak_macs(rounds: usize) -> u64 {
                // SAFETY: as above.
                unsafe { loops::peak_macs::<$lanes, $tokens>(rounds) }
            }

            pub(in $crate::kernel) const KERNELS: LookUpKernels =
                LookUpKernels { tokens: $tokens, write_codes, sums, grouped, peak_macs };
        }
    };
}
pub(super) use stamp_look_ups;
