//! Measures how fast this machine reads memory.

use super::clock::Instant;
use super::memory::HugeBuf;
use super::pool::Pool;
use crate::error::Result;

/// The bytes per second that `threads` threads read from a buffer of `bytes`: the best of three passes.
pub fn read_bandwidth(threads: usize, bytes: usize) -> Result<f64> {
    const CHUNK: usize = 1 << 17;
    let pool = Pool::new(threads)?;
    let mut buffer = HugeBuf::<u64>::try_zeroed((bytes / 8).next_multiple_of(CHUNK))?;
    pool.run(|workers| workers.for_each_chunk(&mut buffer, CHUNK, |i, chunk| chunk.fill(i as u64)));
    let pass = || {
        let start = Instant::now();
        pool.run(|workers| {
            workers.for_each(buffer.len() / CHUNK, |i| {
                let sum = buffer[i * CHUNK..][..CHUNK].iter().fold(0u64, |s, x| s ^ x);
                std::hint::black_box(sum);
            })
        });
        (buffer.len() * 8) as f64 / start.elapsed().as_secs_f64()
    };
    Ok((0..3).map(|_| pass()).fold(0.0, f64::max))
}
