//! Memory that is asked for, so that its lack is an error and not the end of the process.

use crate::error::{Error, Result};
use memmap2::{MmapMut, MmapOptions};
use std::alloc::{Layout, alloc_zeroed};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// Room for `len` values; an error, and not the end of the process, where the machine has not so much memory.
pub fn room<T>(len: usize) -> Result<Vec<T>> {
    let mut room = Vec::new();
    match room.try_reserve_exact(len) {
        Ok(()) => Ok(room),
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

/// `len` zeros, or an error as for [`room`]. The system hands out zero pages lazily, so that large ones are first touched
/// by the threads that fill them.
pub fn zeros<T: Zero>(len: usize) -> Result<Vec<T>> {
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
pub fn grow<T: Zero>(buffer: &mut Vec<T>, len: usize) -> Result<&mut [T]> {
    if buffer.len() < len {
        *buffer = zeros(len)?;
    }
    Ok(&mut buffer[..len])
}

/// Zeros on huge pages, where the system has them: for matrices that are read from end to end again and again.
pub struct Pages<T> {
    bytes: MmapMut,
    len: usize,
    _of: PhantomData<T>,
}

impl<T: Zero> Pages<T> {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Result<Pages<T>> {
        let size = len.saturating_mul(size_of::<T>());
        let bytes = MmapOptions::new().len(size.max(1)).map_anon().map_err(|_| Error::Memory { bytes: size })?;
        // An advice that is not taken changes nothing but the speed.
        #[cfg(target_os = "linux")]
        let _ = bytes.advise(memmap2::Advice::HugePage);
        Ok(Pages { bytes, len, _of: PhantomData })
    }

    /// The same values once more.
    pub fn copy(&self) -> Result<Pages<T>> {
        let mut copy = Pages::zeros(self.len)?;
        copy.copy_from_slice(self);
        Ok(copy)
    }
}

impl<T: Zero> Deref for Pages<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: mapped for `len` elements, aligned to a page, and zero bytes are values of `T`.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr().cast(), self.len) }
    }
}

impl<T: Zero> DerefMut for Pages<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and borrowed as a whole.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_mut_ptr().cast(), self.len) }
    }
}
