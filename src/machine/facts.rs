//! What this machine is: its processor and how many cores this process may use.

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
