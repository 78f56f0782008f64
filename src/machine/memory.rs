//! Fallible allocation: running out of memory is an `Error`, never an abort. Large matrices go on huge pages.

use super::pages::Pages;
use crate::error::{Error, Result};
use std::alloc::{Layout, alloc_zeroed};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

/// An empty vector with capacity for `len` values.
pub fn try_with_capacity<T>(len: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    match values.try_reserve_exact(len) {
        Ok(()) => Ok(values),
        Err(_) => Err(Error::Memory { bytes: len.saturating_mul(size_of::<T>()) }),
    }
}

/// Types for which zero bytes are a valid value.
///
/// # Safety
/// A value whose bytes are all zero is valid.
pub unsafe trait Zeroable: Copy {}
macro_rules! zeroable {
    ($($plain:ty)*) => {
        $(
            // SAFETY: every bit pattern of a number, and of an array of bytes, is valid.
            unsafe impl Zeroable for $plain {}
        )*
    };
}
zeroable!(u8 f32 i8 i16 i32 u64 [u8; 2] [u8; 4]);

/// A vector of `len` zeros. The system provides the pages of a large one lazily, so each page is first touched by the
/// thread that fills it.
pub fn try_zeroed<T: Zeroable>(len: usize) -> Result<Vec<T>> {
    let error = || Error::Memory { bytes: len.saturating_mul(size_of::<T>()) };
    let layout = Layout::array::<T>(len).map_err(|_| error())?;
    if layout.size() == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the size of the layout is not zero.
    let start = unsafe { alloc_zeroed(layout) }.cast::<T>();
    if start.is_null() {
        return Err(error());
    }
    // SAFETY: the global allocator made it with the layout of a vector of that capacity, and zero bytes are values of
    // `T`.
    Ok(unsafe { Vec::from_raw_parts(start, len, len) })
}

/// The first `len` values of a buffer that is reused; it grows as needed. The values are those of the last use, or
/// zero.
pub fn try_grow<T: Zeroable>(buffer: &mut Vec<T>, len: usize) -> Result<&mut [T]> {
    if buffer.len() < len {
        *buffer = try_zeroed(len)?;
    }
    Ok(&mut buffer[..len])
}

/// A buffer on huge pages, where the system has them, for matrices that are read from end to end again and again. It
/// starts as zeros.
pub struct HugeBuf<T> {
    map: Arc<Pages>,
    /// Offset of the first byte in the map. The bytes of different buffers in one map do not overlap.
    start: usize,
    len: usize,
    _of: PhantomData<T>,
}

/// Allocates the [`HugeBuf`]s of a model side by side: separate maps would have small pages at their ends, or huge ones
/// that are half empty.
#[derive(Default)]
pub struct Arena(Mutex<ArenaMaps>);

#[derive(Default)]
struct ArenaMaps {
    /// The last map, and how many of its bytes are used.
    last: Option<(Arc<Pages>, usize)>,
    /// Bytes of all maps.
    total: usize,
}

/// The size of a huge page: the largest common one.
const HUGE_PAGE: usize = 2 << 20;
/// The bytes that an arena maps at once, at first and at most: each map is as large as those before it together. Pages
/// that are never touched cost nothing, but in WebAssembly all are.
const ARENA_MAPS: [usize; 2] = if cfg!(target_family = "wasm") { [1 << 20, 32 << 20] } else { [32 << 20, 512 << 20] };

impl Arena {
    /// A buffer of `len` zeros.
    pub fn try_zeroed<T: Zeroable>(&self, len: usize) -> Result<HugeBuf<T>> {
        let size = len.checked_mul(size_of::<T>()).and_then(|size| size.checked_next_multiple_of(64));
        let size = size.ok_or(Error::Memory { bytes: usize::MAX })?;
        let mut maps = self.0.lock().expect("the code below does not panic");
        let (map, start) = match maps.last.take().filter(|(map, used)| size <= map.len() - used) {
            Some(last) => last,
            None => {
                let [first, most] = ARENA_MAPS;
                let new = try_map(size.max(maps.total.clamp(first, most)))?;
                maps.total += new.0.len();
                new
            }
        };
        maps.last = Some((map.clone(), start + size));
        Ok(HugeBuf { map, start, len, _of: PhantomData })
    }
}

/// A new map with room for `size` bytes from the first boundary of a huge page on, and the offset of that boundary. What
/// does not fill a huge page takes small ones.
fn try_map(size: usize) -> Result<(Arc<Pages>, usize)> {
    let map = |len, huge| Pages::new(len, huge).map(Arc::new).ok_or(Error::Memory { bytes: size });
    if size < HUGE_PAGE || cfg!(target_family = "wasm") {
        return Ok((map(size.max(1), false)?, 0));
    }
    let map = map(size.saturating_add(HUGE_PAGE), true)?;
    let start = map.start().align_offset(HUGE_PAGE);
    Ok((map, start))
}

impl<T: Zeroable> HugeBuf<T> {
    /// A buffer of `len` zeros with a map of its own.
    pub fn try_zeroed(len: usize) -> Result<HugeBuf<T>> {
        let (map, start) = try_map(len.saturating_mul(size_of::<T>()))?;
        Ok(HugeBuf { map, start, len, _of: PhantomData })
    }

    /// A copy with a map of its own.
    pub fn try_clone(&self) -> Result<HugeBuf<T>> {
        let mut copy = HugeBuf::try_zeroed(self.len)?;
        copy.copy_from_slice(self);
        Ok(copy)
    }
}

impl<T: Zeroable> Deref for HugeBuf<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: the map holds `len` elements from `start` on, which is a multiple of 64 and so aligned for `T`; it
        // began as zeros, which are values of `T`; and no other buffer reads or writes these bytes.
        unsafe { std::slice::from_raw_parts(self.map.start().add(self.start).cast(), self.len) }
    }
}

impl<T: Zeroable> DerefMut for HugeBuf<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`; and the buffer is borrowed mutably for as long as the slice.
        unsafe { std::slice::from_raw_parts_mut(self.map.start().add(self.start).cast(), self.len) }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/memory.rs"]
mod tests;
