//! Zeroed memory for large matrices: from the system, which provides its pages when they are first touched; in
//! WebAssembly, which has no such call, from the allocator.

#[cfg(target_family = "wasm")]
pub(super) use allocated::Pages;
#[cfg(not(target_family = "wasm"))]
pub(super) use mapped::Pages;

#[cfg(not(target_family = "wasm"))]
mod mapped {
    use memmap2::{MmapOptions, MmapRaw};

    /// Memory of the system.
    pub struct Pages(MmapRaw);

    impl Pages {
        /// Zeros, on huge pages if wanted and possible; `None` without memory for them.
        pub fn new(len: usize, huge: bool) -> Option<Pages> {
            let map = MmapOptions::new().len(len).map_anon().ok()?;
            // Huge pages affect only the speed, so a system that refuses them is fine.
            #[cfg(all(target_os = "linux", not(miri)))]
            if huge {
                let _ = map.advise(memmap2::Advice::HugePage);
            }
            #[cfg(not(all(target_os = "linux", not(miri))))]
            let _ = huge;
            Some(Pages(map.into()))
        }

        /// The first byte.
        pub fn start(&self) -> *mut u8 {
            self.0.as_mut_ptr()
        }

        /// The number of bytes.
        pub fn len(&self) -> usize {
            self.0.len()
        }
    }
}

#[cfg(target_family = "wasm")]
mod allocated {
    use std::alloc::{Layout, alloc_zeroed, dealloc};

    /// The alignment that matrices need; the system's pages have more.
    const ALIGNMENT: usize = 64;

    /// Memory of the allocator.
    pub struct Pages {
        start: *mut u8,
        layout: Layout,
    }

    // SAFETY: it owns its memory, as a vector does.
    unsafe impl Send for Pages {}
    // SAFETY: shared, it gives away a pointer and a number; who follows the pointer answers for that.
    unsafe impl Sync for Pages {}

    impl Pages {
        /// Zeros; `None` without memory for them.
        pub fn new(len: usize, _huge: bool) -> Option<Pages> {
            let layout = Layout::from_size_align(len.max(1), ALIGNMENT).ok()?;
            // SAFETY: the size of the layout is not zero.
            let start = unsafe { alloc_zeroed(layout) };
            (!start.is_null()).then_some(Pages { start, layout })
        }

        /// The first byte.
        pub fn start(&self) -> *mut u8 {
            self.start
        }

        /// The number of bytes.
        pub fn len(&self) -> usize {
            self.layout.size()
        }
    }

    impl Drop for Pages {
        fn drop(&mut self) {
            // SAFETY: `new` allocated it with this layout.
            unsafe { dealloc(self.start, self.layout) };
        }
    }
}
