//! The machine: its processor, its float control word, its limits.

use super::Kernels;
use super::memory::Pages;
use super::pool::Pool;
use crate::error::Result;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The processor's name as it gives it, or the architecture's.
pub fn processor_name() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::__cpuid;
        let leaf = |n| __cpuid(n);
        if leaf(0x8000_0000).eax >= 0x8000_0004 {
            let registers = (0x8000_0002u32..=0x8000_0004).map(leaf).flat_map(|r| [r.eax, r.ebx, r.ecx, r.edx]);
            let bytes: Vec<u8> = registers.flat_map(u32::to_le_bytes).take_while(|b| *b != 0).collect();
            return String::from_utf8_lossy(&bytes).trim().to_string();
        }
    }
    std::env::consts::ARCH.to_string()
}

/// Processors that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// IEEE arithmetic on the calling thread until it is dropped: round to nearest, no flush to zero, exceptions masked.
///
/// A new thread inherits the control word of its parent, which a host program may have changed.
pub(super) struct Ieee(u64);

impl Ieee {
    pub(super) fn new() -> Ieee {
        let before = control();
        #[cfg(target_arch = "x86_64")]
        set_control(0x1f80);
        #[cfg(target_arch = "aarch64")]
        set_control(0);
        Ieee(before)
    }
}

impl Drop for Ieee {
    fn drop(&mut self) {
        set_control(self.0);
    }
}

fn control() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        let mut word = 0u32;
        // SAFETY: the word is stored where it is expected.
        unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut word, options(nostack)) };
        word as u64
    }
    #[cfg(target_arch = "aarch64")]
    {
        let word: u64;
        // SAFETY: a register is read.
        unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) word, options(nomem, nostack)) };
        word
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    0
}

fn set_control(word: u64) {
    #[cfg(target_arch = "x86_64")]
    {
        let word = word as u32;
        // SAFETY: either the state that the compiler assumes anyway, or the one that was there before.
        unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &word, options(nostack, readonly)) };
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("msr fpcr, {}", in(reg) word, options(nomem, nostack))
    };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = word;
}

/// Bytes a second that `threads` threads read from a buffer of `bytes`, the best of three passes.
pub fn read_bandwidth(threads: usize, bytes: usize) -> Result<f64> {
    const CHUNK: usize = 1 << 17;
    let pool = Pool::new(threads)?;
    let mut buffer = Pages::<u64>::zeros((bytes / 8).next_multiple_of(CHUNK))?;
    let pass = |buffer: &mut [u64]| {
        let start = Instant::now();
        pool.run(|team| {
            team.for_each(buffer.len() / CHUNK, |i| {
                let sum = buffer[i * CHUNK..][..CHUNK].iter().fold(0u64, |s, x| s ^ x);
                std::hint::black_box(sum);
            })
        });
        (buffer.len() * 8) as f64 / start.elapsed().as_secs_f64()
    };
    pool.run(|team| team.for_each_chunk(&mut buffer, CHUNK, |i, chunk| chunk.fill(i as u64)));
    Ok((0..3).map(|_| pass(&mut buffer)).fold(0.0, f64::max))
}

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
            kernels.dots(rounds);
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
        let share = |_| _ = done.fetch_add(kernels.dots(rounds), Relaxed);
        pool.run(|team| team.for_each(threads * SHARES, share));
        done.into_inner() as f64 / start.elapsed().as_secs_f64()
    };
    Ok((0..3).map(|_| pass()).fold(0.0, f64::max))
}
