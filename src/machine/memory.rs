//! Memory that is asked for, so that its lack is an error and not the end of the process.

use crate::error::{Error, Result};
use memmap2::{MmapOptions, MmapRaw};
use std::alloc::{Layout, alloc_zeroed};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

/// Room for `len` values; an error, and not the end of the process, where the machine has not so much memory.
pub fn try_with_capacity<T>(len: usize) -> Result<Vec<T>> {
    let mut try_with_capacity = Vec::new();
    match try_with_capacity.try_reserve_exact(len) {
        Ok(()) => Ok(try_with_capacity),
        Err(_) => Err(Error::Memory { bytes: len.saturating_mul(size_of::<T>()) }),
    }
}

/// Types of which zero bytes are a value, their default.
///
/// # Safety
/// Exactly that.
pub unsafe trait Zero: Copy {}
macro_rules! zero {
    ($($plain:ty)*) => {
        $(
            // SAFETY: numbers, and arrays of bytes.
            unsafe impl Zero for $plain {}
        )*
    };
}
zero!(f32 i8 u64 [u8; 2] [u8; 4]);

/// `len` try_zeroed, or an error as for [`try_with_capacity`]. The system hands out zero pages lazily, so that large ones are first touched
/// by the threads that fill them.
pub fn try_zeroed<T: Zero>(len: usize) -> Result<Vec<T>> {
    let error = || Error::Memory { bytes: len.saturating_mul(size_of::<T>()) };
    let layout = Layout::array::<T>(len).map_err(|_| error())?;
    if layout.size() == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the layout is not empty.
    let start = unsafe { alloc_zeroed(layout) }.cast::<T>();
    if start.is_null() {
        return Err(error());
    }
    // SAFETY: allocated as a vector of that capacity is, and zero bytes are values of `T`.
    Ok(unsafe { Vec::from_raw_parts(start, len, len) })
}

/// The first `len` values of a buffer that is kept from use to use, whatever they are; it grows as needed.
pub fn try_grow<T: Zero>(buffer: &mut Vec<T>, len: usize) -> Result<&mut [T]> {
    if buffer.len() < len {
        *buffer = try_zeroed(len)?;
    }
    Ok(&mut buffer[..len])
}

/// Zeros on huge pages, where the system has them: for matrices that are read from end to end again and again.
pub struct HugeBuf<T> {
    map: Arc<MmapRaw>,
    /// Their first byte in the map; no other `HugeBuf` has any of theirs.
    start: usize,
    len: usize,
    _of: PhantomData<T>,
}

/// Hands out [`HugeBuf`] of a model side by side: each by itself would have its ends on small pages.
#[derive(Default)]
pub struct Arena(Mutex<Option<(Arc<MmapRaw>, usize)>>);

/// A huge page, as large as any common one.
const HUGE: usize = 2 << 20;
/// What an arena asks the system for at once; what of it is never touched costs nothing.
const STRETCH: usize = 32 << 20;

impl Arena {
    /// `len` try_zeroed.
    pub fn zeroed<T: Zero>(&self, len: usize) -> Result<HugeBuf<T>> {
        let size = len.saturating_mul(size_of::<T>()).next_multiple_of(64);
        let mut stretch = self.0.lock().expect("nothing below panics");
        let (map, start) = match stretch.take().filter(|(map, used)| size <= map.len() - used) {
            Some(stretch) => stretch,
            None => map(size.max(STRETCH))?,
        };
        *stretch = Some((map.clone(), start + size));
        Ok(HugeBuf { map, start, len, _of: PhantomData })
    }
}

/// A fresh map with try_with_capacity for `size` bytes from the first huge page on, and where that is.
fn map(size: usize) -> Result<(Arc<MmapRaw>, usize)> {
    let len = size.saturating_add(HUGE);
    let map = MmapOptions::new().len(len).map_anon().map_err(|_| Error::Memory { bytes: size })?;
    // An advice that is not taken changes nothing but the speed.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    let start = map.as_ptr().align_offset(HUGE);
    Ok((Arc::new(map.into()), start))
}

impl<T: Zero> HugeBuf<T> {
    /// `len` try_zeroed.
    pub fn zeroed(len: usize) -> Result<HugeBuf<T>> {
        let (map, start) = map(len.saturating_mul(size_of::<T>()))?;
        Ok(HugeBuf { map, start, len, _of: PhantomData })
    }

    /// The same values once more.
    pub fn copy(&self) -> Result<HugeBuf<T>> {
        let mut copy = HugeBuf::zeroed(self.len)?;
        copy.copy_from_slice(self);
        Ok(copy)
    }
}

impl<T: Zero> Deref for HugeBuf<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: mapped for `len` elements from `start` on, aligned to 64 bytes; zero bytes are values of `T`; and nothing
        // but this value reads or writes them.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(self.start).cast(), self.len) }
    }
}

impl<T: Zero> DerefMut for HugeBuf<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and borrowed as a whole.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().add(self.start).cast(), self.len) }
    }
}
