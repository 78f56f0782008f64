//! The floating-point control word of a thread: rounding, subnormals, exceptions.

/// While it lives, the calling thread computes by IEEE 754: it rounds to nearest, keeps subnormals and masks
/// exceptions.
///
/// A new thread inherits the control word of its parent, which a host program may have changed.
pub(super) struct IeeeGuard {
    before: u64,
}

impl IeeeGuard {
    /// Sets the control word; dropping the guard restores the one before.
    pub(super) fn new() -> IeeeGuard {
        let before = control();
        #[cfg(target_arch = "x86_64")]
        set_control(0x1f80);
        #[cfg(target_arch = "aarch64")]
        set_control(0);
        IeeeGuard { before }
    }
}

impl Drop for IeeeGuard {
    fn drop(&mut self) {
        set_control(self.before);
    }
}

fn control() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        let mut word = 0u32;
        // SAFETY: the instruction writes 32 bits, to `word`.
        unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut word, options(nostack)) };
        word as u64
    }
    #[cfg(target_arch = "aarch64")]
    {
        let word: u64;
        // SAFETY: the instruction only reads a register.
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
        // SAFETY: the word is the state that the compiler assumes anyway, or the one that was there before.
        unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &word, options(nostack, readonly)) };
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the word is the state that the compiler assumes anyway, or the one that was there before.
    unsafe {
        std::arch::asm!("msr fpcr, {}", in(reg) word, options(nomem, nostack))
    };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = word;
}
