//! The tile registers of AMX, which a process has to ask the system for.

use std::sync::OnceLock;

/// Whether the processor multiplies tiles of 8-bit integers and the system lets this process use them. Asks the system
/// once.
///
/// Linux saves tile registers, 8 KiB a thread, only for processes that ask (Documentation/arch/x86/xstate.rst). It
/// refuses where a thread's stack for signals is too small to save them.
pub fn has_tiles() -> bool {
    static HAS_TILES: OnceLock<bool> = OnceLock::new();
    *HAS_TILES.get_or_init(|| processor_has_tiles() && system_allows_tiles())
}

/// By CPUID: AMX-TILE and AMX-INT8 are bits 24 and 25 of EDX in leaf 7.
fn processor_has_tiles() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        const BOTH: u32 = 3 << 24;
        __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & BOTH == BOTH
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Asks Linux for the permission: `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`.
fn system_allows_tiles() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        const ARCH_PRCTL: isize = 158;
        const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
        const XFEATURE_XTILEDATA: usize = 18;
        let result: isize;
        // SAFETY: the system call takes two numbers and changes no memory of the process.
        unsafe {
            std::arch::asm!(
                "syscall",
                inout("rax") ARCH_PRCTL => result,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") XFEATURE_XTILEDATA,
                out("rcx") _,
                out("r11") _,
                options(nostack),
            )
        };
        result == 0
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    false
}
