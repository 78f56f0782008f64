//! Measures how fast this processor multiplies and adds.

use super::Kernels;
use crate::error::Result;
use crate::machine::clock::Instant;
use crate::machine::pool::Pool;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The multiply-adds per second that `threads` threads reach with the instruction set's integer dot product in
/// registers alone: the best of three passes. It is the upper limit of kernels that multiply.
pub fn dot_peak(threads: usize, kernels: &Kernels) -> Result<f64> {
    Ok(peak(&Pool::new(threads)?, threads, |rounds| kernels.peak_macs(rounds)))
}

/// The multiply-adds per second that `threads` threads reach by looking sums up in tables in the nearest cache: the best
/// of three passes. It is the upper limit of products of many tokens where they are looked up; 0 where they are not.
pub fn look_up_peak(threads: usize, kernels: &Kernels) -> Result<f64> {
    let pool = Pool::new(threads)?; // a wrong number of threads is an error everywhere
    let looked_up = kernels.tokens_looked_up() > 0;
    Ok(if looked_up { peak(&pool, threads, |rounds| kernels.look_up_macs(rounds)) } else { 0.0 })
}

/// Multiply-adds per second of `macs(rounds)`, which returns their number, on the `threads` threads of a pool.
fn peak(pool: &Pool, threads: usize, macs: impl Fn(usize) -> u64 + Sync) -> f64 {
    /// Items that each thread claims on average in a pass: many, so that the pass hardly waits for a late thread.
    const ITEMS_PER_THREAD: usize = 16;
    const ITEM_TIME: Duration = Duration::from_millis(1);
    let calibrate = || {
        let mut rounds = 1;
        loop {
            let start = Instant::now();
            macs(rounds);
            if start.elapsed() >= ITEM_TIME {
                return rounds;
            }
            rounds *= 2;
        }
    };
    let rounds = pool.run(|_| calibrate());
    let pass = || {
        let all = AtomicU64::new(0);
        let start = Instant::now();
        let item = |_| _ = all.fetch_add(macs(rounds), Relaxed);
        pool.run(|workers| workers.for_each(threads * ITEMS_PER_THREAD, item));
        all.into_inner() as f64 / start.elapsed().as_secs_f64()
    };
    (0..3).map(|_| pass()).fold(0.0, f64::max)
}
