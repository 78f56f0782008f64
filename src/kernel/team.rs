//! What an operation computes with: the threads of a job, and the kernels that each of them runs.

use super::Kernels;
use crate::machine::pool::Workers;
use std::ops::Deref;

/// The threads of a job (through [`Deref`]: its `for_each` loops) with the kernels of the engine's instruction set.
#[derive(Clone, Copy)]
pub struct Team<'a> {
    workers: &'a Workers,
    /// The kernels that every thread runs.
    pub kernels: &'static Kernels,
}

impl<'a> Team<'a> {
    /// `workers` are those that [`Pool::run`](crate::machine::pool::Pool::run) hands to a job.
    pub fn new(workers: &'a Workers, kernels: &'static Kernels) -> Team<'a> {
        Team { workers, kernels }
    }
}

impl Deref for Team<'_> {
    type Target = Workers;
    fn deref(&self) -> &Workers {
        self.workers
    }
}
