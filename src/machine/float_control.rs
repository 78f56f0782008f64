//! The floating-point control word of a thread: rounding, subnormals, exceptions.

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
