//! How fast this processor multiplies and adds integers.

use super::Kernels;
use crate::error::Result;
use crate::machine::pool::Pool;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Multiply-adds a second that `threads` threads reach in registers alone, by the instruction set's integer dot product:
/// the best of three passes.
pub fn dot_peak(threads: usize, kernels: &Kernels) -> Result<f64> {
    /// Shares of a pass that each thread claims on the average, so that one that is late is not waited for.
    const SHARES: usize = 16;
    const SHARE: Duration = Duration::from_millis(1);
    let pool = Pool::new(threads)?;
    let rounds = || {
        let mut rounds = 1;
        loop {
            let start = Instant::now();
            kernels.peak_macs(rounds);
            if start.elapsed() >= SHARE {
                return rounds;
            }
            rounds *= 2;
        }
    };
    let rounds = pool.run(|_| rounds());
    let pass = || {
        let done = AtomicU64::new(0);
        let start = Instant::now();
        let share = |_| _ = done.fetch_add(kernels.peak_macs(rounds), Relaxed);
        pool.run(|team| team.for_each(threads * SHARES, share));
        done.into_inner() as f64 / start.elapsed().as_secs_f64()
    };
    Ok((0..3).map(|_| pass()).fold(0.0, f64::max))
}
