//! The machine: threads, memory, the processor, and counters of the work done on it. Knows no kernels and no models.

pub mod bandwidth;
pub mod buffer;
pub mod clock;
pub mod counters;
pub mod facts;
pub mod file;
mod float_control;
pub mod memory;
mod pages;
pub mod pool;
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
mod random;
pub mod thread;
pub mod tiles;
