//! The processor's name, how many cores this process may use, and the memory that it takes.

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

/// The number of this process. In WebAssembly, which has no processes, it is 0.
pub fn process_id() -> u32 {
    if cfg!(target_family = "wasm") { 0 } else { std::process::id() }
}

/// The number of cores that this process may use, by its affinity and its container's limit.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Memory that the process takes at this moment, in bytes.
#[derive(Clone, Copy, Default)]
pub struct Resident {
    /// All pages that are in memory.
    pub bytes: u64,
    /// Those of mapped files; the system can drop them.
    pub of_files: u64,
}

/// The memory of this process, by Linux's `/proc/self/status` (proc_pid_status(5)); zeros on other systems.
pub fn resident() -> Resident {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    Resident { bytes: kib("VmRSS") << 10, of_files: kib("RssFile") << 10 }
}
