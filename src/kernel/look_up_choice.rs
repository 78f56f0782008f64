//! Whether look-ups are faster than dots on this processor, and which: measured once.
//!
//! It depends on how many loads of a register a processor does in a cycle, how many dots, and on the size of its nearest
//! cache. The choice changes no bit of an output.

use super::Kernels;
use super::isa::Isa;
use super::look_ups::{BLOCK_STEPS, CodedRows, LookUpKernels, Room, RowCodes};
use super::packing::{BLOCK, GROUP, Packing, TWO_BIT_WORDS, Word};
use super::ternary::Tokens;
use super::ternary_dot::STRIP;
use crate::machine::clock::Instant;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// The size of the product that is measured: a small part of a model's, so that it takes a fraction of a millisecond.
const ROWS: usize = 1024;
const COLS: usize = 640;
const TOKENS: usize = 32;
/// Each way is measured so often, in turn; its least time counts.
const ROUNDS: usize = 7;
/// Look-ups are chosen if they take less than this share of the time of dots: they need more memory.
const GAIN: f64 = 0.95;

impl Kernels {
    /// The look-ups that are fastest on this processor, if they are faster than dots. The first call measures them.
    ///
    /// No lock is held meanwhile, which a process that forks off could not open: threads that come first at once all
    /// measure, and one of them decides.
    pub(super) fn look_ups(&self) -> Option<&'static LookUpKernels> {
        /// For each instruction set 0 before it is measured, 1 for dots, or 2 + the place of the chosen look-ups.
        static CHOSEN: [AtomicUsize; Isa::ALL.len()] = [const { AtomicUsize::new(0) }; Isa::ALL.len()];
        if self.look_ups.is_empty() {
            return None;
        }
        let chosen = &CHOSEN[self.isa as usize];
        if chosen.load(Relaxed) == 0 {
            let found = self.measure().map_or(1, |place| 2 + place);
            _ = chosen.compare_exchange(0, found, Relaxed, Relaxed);
        }
        self.look_ups.get(chosen.load(Relaxed).wrapping_sub(2))
    }

    /// How many tokens the chosen look-ups take at once; 0 if products of many tokens go by dots.
    pub fn tokens_looked_up(&self) -> usize {
        self.look_ups().map_or(0, |look_ups| look_ups.tokens)
    }

    /// Measures the chosen look-ups in the nearest cache: looks sums up `rounds` times, and returns the number of
    /// multiply-adds that they stand for; 0 if products of many tokens go by dots.
    pub fn look_up_macs(&self, rounds: usize) -> u64 {
        // SAFETY: only those that the processor can run are chosen.
        self.look_ups().map_or(0, |look_ups| unsafe { (look_ups.peak_macs)(rounds) })
    }

    /// The ways of looking sums up that this processor can run: all of the table, or none.
    pub(super) fn runnable_look_ups(&self) -> impl Iterator<Item = &'static LookUpKernels> {
        self.look_ups.iter().filter(|_| has_rotations())
    }

    /// The place of the fastest look-ups among those of the table, if they are faster than dots.
    fn measure(&self) -> Option<usize> {
        let words = vec![Word([0x55; 64]); ROWS / GROUP * Packing::TwoBit.words(COLS)];
        let q = vec![1i8; TOKENS * COLS];
        let codes = vec![RowCodes::default(); COLS / BLOCK * BLOCK_STEPS * ROWS];
        let mut room = Room::default();
        let mut dots = Duration::MAX;
        let mut least = vec![Duration::MAX; self.runnable_look_ups().count()];
        for _ in 0..ROUNDS {
            dots = dots.min(self.time_dots(&words, &q));
            for (least, way) in least.iter_mut().zip(self.runnable_look_ups()) {
                *least = (*least).min(time_look_ups(way, &codes, &q, &mut room));
            }
        }
        let (best, least) = least.into_iter().enumerate().min_by_key(|(_, least)| *least)?;
        (least < dots.mul_f64(GAIN)).then_some(best)
    }

    fn time_dots(&self, words: &[Word], q: &[i8]) -> Duration {
        let per_call = self.tokens_per_call(TOKENS);
        let mut sums = vec![[0; STRIP]; per_call];
        let tokens = Tokens::new(q, COLS, COLS);
        let start = Instant::now();
        for strip in words.chunks(STRIP / GROUP * COLS / BLOCK * TWO_BIT_WORDS) {
            for first in (0..TOKENS).step_by(per_call) {
                let tokens = tokens.range(first..TOKENS.min(first + per_call));
                self.ternary_sums(Packing::TwoBit, strip, tokens, &mut sums);
            }
        }
        start.elapsed()
    }
}

fn time_look_ups(way: &LookUpKernels, codes: &[RowCodes], q: &[i8], room: &mut Room) -> Duration {
    let tokens: Vec<&[i8]> = q.chunks(COLS).collect();
    let start = Instant::now();
    for tokens in tokens.chunks(way.tokens) {
        // SAFETY: the processor has the instruction set, since there are such kernels and `has_rotations`; the kernel
        // checks all lengths.
        unsafe { (way.sums)(CodedRows::new(codes, ROWS, 0..ROWS), tokens, room) }
    }
    start.elapsed()
}

/// Whether the processor has BMI2, which look-ups take for granted beside the instruction set of their kernels.
fn has_rotations() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("bmi2");
    #[cfg(not(target_arch = "x86_64"))]
    true
}
