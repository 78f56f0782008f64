//! Matrices in memory of their own, or in place in a mapped file, so that processes share them.

use super::memory::{HugeBuf, Zeroable};
use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Types for which any bytes are a valid value.
///
/// # Safety
/// Every bit pattern is a value, and the type has no padding.
pub unsafe trait Plain: Zeroable {}
macro_rules! plain {
    ($($number:ty)*) => {
        $(
            // SAFETY: every bit pattern of a number is valid.
            unsafe impl Plain for $number {}
        )*
    };
}
plain!(i8 i16 i32 f32);

/// Whatever keeps bytes in memory and at their place, such as an open model.
pub type Owner = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A read-only matrix.
pub enum Buffer<T> {
    /// In memory of its own.
    Owned(HugeBuf<T>),
    /// In memory of another owner.
    Mapped(Mapped<T>),
}

/// A part of another owner's bytes as values.
pub struct Mapped<T> {
    owner: Owner,
    range: Range<usize>,
    _of: PhantomData<T>,
}

impl<T: Plain> Mapped<T> {
    /// The bytes `range` of the owner; `None` unless it has them and they are whole, aligned values.
    pub fn new(owner: Owner, range: Range<usize>) -> Option<Mapped<T>> {
        let mapped = Mapped { owner, range, _of: PhantomData };
        mapped.get().is_some().then_some(mapped)
    }

    fn get(&self) -> Option<&[T]> {
        let bytes = (*self.owner).as_ref().get(self.range.clone())?;
        // SAFETY: every bit pattern is a value of `T`; the slice borrows `self`, which keeps the owner.
        let (before, values, after) = unsafe { bytes.align_to::<T>() };
        (before.is_empty() && after.is_empty()).then_some(values)
    }
}

impl<T: Plain> Buffer<T> {
    /// Bytes in memory of its own; 0 if another owner has them.
    pub fn owned_bytes(&self) -> usize {
        if let Buffer::Owned(own) = self { size_of_val(&**own) } else { 0 }
    }
}

impl<T: Plain> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match self {
            Buffer::Owned(own) => own,
            Buffer::Mapped(mapped) => mapped.get().expect("`new` checked it, and the owner's bytes stay in place"),
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/buffer.rs"]
mod tests;
