//! The upper six bits of the output head's copy in 8 bits: they rule out most logits of a single token with three quarters
//! of the bytes.

use crate::error::Result;
use crate::kernel::Team;
use crate::kernel::head_upper::{UPPER_BYTES, UPPER_STEP, upper_bits};
use crate::machine::memory::HugeBuf;
use std::ops::Range;

/// How many rows one task reads.
const ROWS_PER_TASK: usize = 64;

/// The upper bits of 8-bit rows, and how far each row is from them.
pub(super) struct UpperHead {
    bits: HugeBuf<u8>,
    bytes_per_row: usize,
    errors: Vec<f32>,
}

impl UpperHead {
    /// The upper bits of rows of `stride` integers, whose steps and errors are given.
    pub(super) fn new(team: &Team, q: &[i8], stride: usize, steps: &[f32], errors: &[f32]) -> Result<UpperHead> {
        let bytes_per_row = UpperHead::stride(stride) / UPPER_STEP * UPPER_BYTES;
        let mut bits = HugeBuf::try_zeroed(steps.len().saturating_mul(bytes_per_row))?;
        let mut upper_errors = vec![0f32; steps.len()];
        let (own, tasks) = (&mut bits[..], ROWS_PER_TASK * bytes_per_row);
        team.for_each_pair(&mut upper_errors, ROWS_PER_TASK, own, tasks, |task, upper_errors, bits| {
            let rows = (task * ROWS_PER_TASK..).zip(bits.chunks_mut(bytes_per_row)).zip(upper_errors);
            for ((row, bits), upper_error) in rows {
                let squares = upper_bits(&q[row * stride..][..stride], bits);
                // More than the root and the sum lose in f32.
                *upper_error = errors[row] + steps[row] * (squares as f32).sqrt() * (0.5 * 1.001);
            }
        });
        Ok(UpperHead { bits, bytes_per_row, errors: upper_errors })
    }

    /// The columns of rows that have so many in the 8-bit copy.
    pub(super) fn stride(stride: usize) -> usize {
        stride.next_multiple_of(UPPER_STEP)
    }

    /// For each row at least its error in the 8-bit copy, and the norm of what the upper bits leave out of that.
    pub(super) fn errors(&self) -> &[f32] {
        &self.errors
    }

    /// The dots of some rows with x, as `Kernels::dots_upper` defines them.
    pub(super) fn dots(&self, team: &Team, rows: Range<usize>, x: &[i16], out: &mut [i32]) {
        team.kernels.dots_upper(&self.bits[rows.start * self.bytes_per_row..rows.end * self.bytes_per_row], x, out);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bits.len() + size_of_val(&*self.errors)
    }
}
