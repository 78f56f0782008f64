//! Metadata values. Strings and arrays stay views of the file's bytes.

use std::fmt;

use super::reader::{Parse, Reader};

/// The most elements that an array may have, as in llama.cpp.
const MAX_ITEMS: u64 = 1 << 30;

/// How deep arrays may be nested: more than any file needs, few enough to read by recursion.
const MAX_DEPTH: usize = 64;

/// The most characters of a string that `Display` shows.
const SHOWN_CHARS: usize = 72;
/// The most items of an array that `Display` shows.
const SHOWN_ITEMS: usize = 6;

/// Declares the value types of GGUF in the order of their ids. Each line gives the variant with its content, the name,
/// and the fewest bytes that a value takes.
macro_rules! types {
    ($a:lifetime: $($Type:ident($content:ty) $name:literal $least:literal,)*) => {
        /// The type of a metadata value.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the variants are the type names of the GGUF specification")]
        pub enum ValueType {
            $($Type,)*
        }

        /// One metadata value. Strings are bytes: token strings in real files are not always UTF-8.
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[expect(missing_docs, reason = "the variants are the types of `ValueType`")]
        pub enum Value<$a> {
            $($Type($content),)*
        }

        impl ValueType {
            /// Each type with its name and the fewest bytes of a value.
            const ALL: [(Self, &'static str, u64); 13] = [$((Self::$Type, $name, $least)),*];
        }

        impl Value<'_> {
            /// The type that the file gives the value.
            pub fn kind(&self) -> ValueType {
                match self { $(Self::$Type(_) => ValueType::$Type),* }
            }
        }
    };
}

types! {
    'a:
    U8(u8) "u8" 1,
    I8(i8) "i8" 1,
    U16(u16) "u16" 2,
    I16(i16) "i16" 2,
    U32(u32) "u32" 4,
    I32(i32) "i32" 4,
    F32(f32) "f32" 4,
    Bool(bool) "bool" 1,
    Str(&'a [u8]) "str" 8,
    Array(Array<'a>) "array" 12,
    U64(u64) "u64" 8,
    I64(i64) "i64" 8,
    F64(f64) "f64" 8,
}

impl ValueType {
    /// The type with this id.
    pub(super) fn from_id(id: u32) -> Parse<Self> {
        let known = usize::try_from(id).ok().and_then(|id| Self::ALL.get(id));
        known.map(|entry| entry.0).ok_or_else(|| format!("value type {id} is unknown, expected 0 to 12"))
    }

    /// The name for people, such as `u32` or `str`.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    fn least_bytes(self) -> u64 {
        Self::ALL[self as usize].2
    }
}

impl<'a> Value<'a> {
    /// Reads a value and checks it, every element of an array included.
    pub(super) fn read(kind: ValueType, reader: &mut Reader<'a>) -> Parse<Self> {
        Self::read_nested(kind, reader, 0)
    }

    /// Reads a value that `depth` arrays contain.
    fn read_nested(kind: ValueType, reader: &mut Reader<'a>, depth: usize) -> Parse<Self> {
        Ok(match kind {
            ValueType::U8 => Self::U8(u8::from_le_bytes(reader.array()?)),
            ValueType::I8 => Self::I8(i8::from_le_bytes(reader.array()?)),
            ValueType::U16 => Self::U16(u16::from_le_bytes(reader.array()?)),
            ValueType::I16 => Self::I16(i16::from_le_bytes(reader.array()?)),
            ValueType::U32 => Self::U32(reader.u32()?),
            ValueType::I32 => Self::I32(i32::from_le_bytes(reader.array()?)),
            ValueType::F32 => Self::F32(f32::from_le_bytes(reader.array()?)),
            ValueType::Bool => match reader.array()? {
                [0] => Self::Bool(false),
                [1] => Self::Bool(true),
                [other] => return Err(format!("a bool is stored as {other}, expected 0 or 1")),
            },
            ValueType::Str => Self::Str(reader.string()?),
            ValueType::Array => Self::Array(Array::read(reader, depth + 1)?),
            ValueType::U64 => Self::U64(reader.u64()?),
            ValueType::I64 => Self::I64(i64::from_le_bytes(reader.array()?)),
            ValueType::F64 => Self::F64(f64::from_le_bytes(reader.array()?)),
        })
    }

    /// The name of the type; for an array the type of its elements with their number, such as `str[128256]`.
    pub fn type_name(&self) -> String {
        match self {
            Self::Array(array) => format!("{}[{}]", array.kind.name(), array.len),
            scalar => scalar.kind().name().to_owned(),
        }
    }

    /// The value of an integer of any width.
    pub fn as_int(&self) -> Option<i128> {
        match *self {
            Self::U8(value) => Some(value.into()),
            Self::I8(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::I16(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::I32(value) => Some(value.into()),
            Self::U64(value) => Some(value.into()),
            Self::I64(value) => Some(value.into()),
            _ => None,
        }
    }

    /// The value of a float of 32 or 64 bits as f32, which is enough for every key of a model.
    pub fn as_float(&self) -> Option<f32> {
        match *self {
            Self::F32(value) => Some(value),
            Self::F64(value) => Some(value as f32),
            _ => None,
        }
    }

    /// The bytes of a string, which need not be UTF-8.
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        if let Self::Str(bytes) = *self { Some(bytes) } else { None }
    }

    /// Numbers and bools of any type as floats: the elements of an array, or a scalar as its only element.
    pub fn floats(&self) -> Option<Vec<f32>> {
        let float = |value: Value| match value {
            Value::Bool(value) => Some(f32::from(value)),
            other => other.as_float().or_else(|| other.as_int().map(|int| int as f32)),
        };
        self.collect(float)
    }

    /// The converted elements of an array, or of a scalar as its only element; nothing if one cannot be converted.
    pub(super) fn collect<T>(&self, item: impl Fn(Value<'a>) -> Option<T>) -> Option<Vec<T>> {
        match *self {
            Self::Array(array) => array.iter().map(item).collect(),
            scalar => item(scalar).map(|only| vec![only]),
        }
    }
}

/// The value for people: long strings and arrays are cut, and control characters escaped.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Str(bytes) => {
                // A character takes at most four bytes; four more tell whether something is cut.
                let head = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * SHOWN_CHARS + 4)]);
                let shown: String = head.chars().take(SHOWN_CHARS).collect();
                let cut = if shown.len() < head.len() { "…" } else { "" };
                write!(f, "\"{}{cut}\"", shown.escape_debug())
            }
            Self::Array(array) => {
                let items: Vec<String> = array.iter().take(SHOWN_ITEMS).map(|item| item.to_string()).collect();
                write!(f, "[{}{}]", items.join(", "), if array.len > SHOWN_ITEMS { ", …" } else { "" })
            }
            Self::Bool(value) => write!(f, "{value}"),
            Self::F32(value) => write!(f, "{value:?}"),
            Self::F64(value) => write!(f, "{value:?}"),
            integer => write!(f, "{}", integer.as_int().unwrap_or_default()),
        }
    }
}

/// An array of scalars, strings or arrays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    kind: ValueType,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// Reads the array at nesting depth `depth`, which is 1 for one that no other array contains.
    fn read(reader: &mut Reader<'a>, depth: usize) -> Parse<Self> {
        if depth > MAX_DEPTH {
            return Err(format!("holds arrays nested more than {MAX_DEPTH} deep"));
        }
        let kind = ValueType::from_id(reader.u32()?)?;
        let len = reader.count("array elements", kind.least_bytes(), MAX_ITEMS)?;
        let mut after = reader.clone();
        if matches!(kind, ValueType::Str | ValueType::Bool | ValueType::Array) {
            for _ in 0..len {
                Value::read_nested(kind, &mut after, depth)?;
            }
        } else {
            after.take(len * kind.least_bytes())?;
        }
        let bytes = reader.take((after.at - reader.at) as u64)?;
        Ok(Self { kind, len: len as usize, bytes })
    }

    /// The type of the elements.
    pub fn kind(&self) -> ValueType {
        self.kind
    }

    /// The number of elements, as the file states it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Value<'a>> + Clone + use<'a> {
        let (kind, mut reader) = (self.kind, Reader::new(self.bytes, 0));
        // The elements were checked on opening, but somebody may have written to the file since.
        (0..self.len).map(move |_| Value::read(kind, &mut reader).unwrap_or(Value::Str(b"")))
    }
}
