//! Hints that load a cache line before it is needed.

/// Asks the processor to load a cache line. The address may lie anywhere, also outside every allocation.
#[inline(always)]
pub(super) fn prefetch<T>(at: *const T) {
    // SAFETY: a prefetch is a hint and never faults, whatever the address; SSE is part of every x86-64.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast())
    };
    // SAFETY: a prefetch is a hint and never faults, whatever the address.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) at, options(nostack, readonly))
    };
    _ = at; // other processors get no hint
}

/// Asks the processor for a cache line that is to be written. The address may lie anywhere, as with [`prefetch`].
#[inline(always)]
pub(super) fn prefetch_to_write<T>(at: *const T) {
    // SAFETY: a prefetch is a hint and never faults, whatever the address. Processors without the instruction ignore it
    // (Intel SDM, "PREFETCHW").
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, readonly))
    };
    // SAFETY: a prefetch is a hint and never faults, whatever the address.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{}]", in(reg) at, options(nostack, readonly))
    };
    _ = at; // as above
}

/// Asks for the address 4 KiB ahead in a stream of weights, about one memory latency of streaming; hardware
/// prefetchers stop at page boundaries.
#[inline(always)]
pub(super) fn prefetch_ahead<T>(at: &T) {
    prefetch((&raw const *at).wrapping_byte_add(4096))
}

/// Asks for the address 24 KiB ahead. The loop over grouped ternary weights takes longer for a line than others, and
/// reads at full speed only with more lines on their way.
#[inline(always)]
pub(super) fn prefetch_far<T>(at: &T) {
    prefetch((&raw const *at).wrapping_byte_add(24 << 10))
}
