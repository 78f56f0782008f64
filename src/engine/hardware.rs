//! What this processor can run, and how fast.

use crate::error::Result;
use crate::kernel::{Isa, kernels, peak};

/// The names of the instruction sets that this processor can run, the best one last.
pub fn isas() -> Vec<&'static str> {
    Isa::available().into_iter().map(Isa::name).collect()
}

/// Multiply-adds per second that `threads` threads reach in registers with the int8 dot product of an instruction set
/// (default: the best one).
pub fn dot_peak(threads: usize, isa: Option<&str>) -> Result<f64> {
    peak::dot_peak(threads, kernels(isa)?)
}

/// Multiply-adds per second for which look-ups in the nearest cache stand, on `threads` threads; 0 where products of many
/// tokens go by dots.
pub fn look_up_peak(threads: usize, isa: Option<&str>) -> Result<f64> {
    peak::look_up_peak(threads, kernels(isa)?)
}
