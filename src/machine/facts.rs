//! The processor's name, and how many cores this process may use.

/// The name that the processor reports, such as "AMD EPYC 9554"; where it reports none, the architecture.
pub fn processor_name() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::__cpuid;
        // Three leaves of 16 bytes hold the name; leaf 0x8000_0000 says whether they exist.
        if __cpuid(0x8000_0000).eax >= 0x8000_0004 {
            let leaves = (0x8000_0002u32..=0x8000_0004).map(__cpuid);
            let registers = leaves.flat_map(|r| [r.eax, r.ebx, r.ecx, r.edx]);
            let bytes: Vec<u8> = registers.flat_map(u32::to_le_bytes).take_while(|b| *b != 0).collect();
            return String::from_utf8_lossy(&bytes).trim().to_string();
        }
    }
    std::env::consts::ARCH.to_string()
}

/// The number of cores that this process may use, by its affinity and its container's limit.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}
