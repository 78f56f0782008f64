//! Typed access to the metadata of a file.

use std::path::Path;

use super::header::Header;
use super::value::{Value, ValueType};
use crate::error::{Error, Result};

/// The metadata of a model. In a split model the first file holds it.
#[derive(Clone, Copy, Debug)]
pub struct Metadata<'a> {
    pub(in crate::checkpoint) path: &'a Path,
    pub(in crate::checkpoint) header: &'a Header,
    pub(in crate::checkpoint) bytes: &'a [u8],
}

impl<'a> Metadata<'a> {
    /// The value of a key, with the type that the file gives it.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.header.get(self.bytes, key)
    }

    /// Keys and values in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> + use<'a> {
        self.header.iter(self.bytes)
    }

    /// A non-negative integer of any width.
    pub fn uint(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a non-negative integer", to_usize)
    }

    /// A float of 32 or 64 bits.
    pub fn float(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "a float", |value| value.as_float())
    }

    /// A value of type bool; integers do not count as one.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a bool", |value| if let Value::Bool(value) = value { Some(value) } else { None })
    }

    /// A string in UTF-8.
    pub fn str(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a string in UTF-8", |value| std::str::from_utf8(value.as_bytes()?).ok())
    }

    /// Non-negative integers of any width: an array, or a scalar as its only element.
    pub fn uints(&self, key: &str) -> Result<Option<Vec<usize>>> {
        self.typed(key, "non-negative integers", |value| value.collect(to_usize))
    }

    /// Integers of any width: an array, or a scalar as its only element.
    pub fn ints(&self, key: &str) -> Result<Option<Vec<i64>>> {
        let to_i64 = |value: Value| value.as_int().and_then(|int| i64::try_from(int).ok());
        self.typed(key, "integers", |value| value.collect(to_i64))
    }

    /// Floats of 32 or 64 bits: an array, or a scalar as its only element.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.typed(key, "floats", |value| value.collect(|item| item.as_float()))
    }

    /// An array of strings, which are views of the file and need not be UTF-8.
    pub fn strings(&self, key: &str) -> Result<Option<impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a>>> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Array(array) if array.kind() == ValueType::Str => {
                Some(array.iter().map(|item| item.as_bytes().unwrap_or_default()))
            }
            _ => None,
        })
    }

    /// A converted value; nothing if the key is missing, an error if the value has another type.
    fn typed<T>(&self, key: &str, expected: &str, convert: impl FnOnce(Value<'a>) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| Error::File {
            path: self.path.into(),
            reason: format!("metadata key '{key}' is {value} of type {}, expected {expected}", value.type_name()),
        })
    }
}

fn to_usize(value: Value) -> Option<usize> {
    value.as_int().and_then(|int| usize::try_from(int).ok())
}
