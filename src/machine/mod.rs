//! The machine: threads, memory, the processor, and counters of the work done on it. Knows no kernels and no models.

pub mod bandwidth;
pub mod buffer;
pub mod counters;
pub mod facts;
pub mod file;
mod float_control;
pub mod memory;
pub mod pool;
pub mod thread;
pub mod tiles;
