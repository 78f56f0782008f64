//! The header of one GGUF file: version, metadata entries and the tensor directory, each field checked.

use std::collections::HashSet;

use super::reader::{Parse, Reader};
use super::sniff;
use super::value::{Value, ValueType};

/// The most metadata entries and the most tensors that are read: far more than any model has.
const MAX_ENTRIES: u64 = 1 << 20;
/// The fewest bytes of a metadata entry: an empty key (8), the type of the value (4) and a value of one byte.
const LEAST_METADATA_ENTRY: u64 = 13;
/// The fewest bytes of a tensor's entry: an empty name (8), no dimensions (4), the type id (4) and the offset (8).
const LEAST_TENSOR_ENTRY: u64 = 24;
/// The longest metadata key, by the specification of GGUF.
const MAX_KEY: usize = 65535;
/// The longest tensor name: `GGML_MAX_NAME`, less the terminating zero.
const MAX_NAME: usize = 63;
/// The alignment of files without the key `general.alignment`.
const DEFAULT_ALIGNMENT: usize = 32;

/// A metadata entry. Its value stays in the file.
#[derive(Debug)]
struct MetadataEntry {
    key: String,
    kind: ValueType,
    /// Position of the value in the file.
    value: usize,
}

/// A tensor as the directory describes it.
#[derive(Debug)]
pub(super) struct TensorEntry {
    pub name: String,
    pub shape: Vec<usize>,
    /// The type id, whose meaning depends on the program that wrote the file.
    pub id: u32,
    /// Offset of the tensor's bytes from the start of the data section.
    pub offset: u64,
}

/// A checked header. It holds the keys; the values stay in the file.
#[derive(Debug)]
pub(in crate::checkpoint) struct Header {
    pub version: u32,
    pub alignment: usize,
    /// Position of the data section in the file.
    pub data_start: usize,
    entries: Vec<MetadataEntry>,
}

impl Header {
    /// Reads the header of a file and its tensor directory.
    pub(super) fn parse(bytes: &[u8]) -> Parse<(Self, Vec<TensorEntry>)> {
        if !bytes.starts_with(b"GGUF") {
            return Err(sniff::describe(bytes));
        }
        let reader = &mut Reader::new(bytes, 4);
        let version = read_version(reader)?;
        let n_tensors = reader.count("tensors", LEAST_TENSOR_ENTRY, MAX_ENTRIES)?;
        let n_entries = reader.count("metadata entries", LEAST_METADATA_ENTRY, MAX_ENTRIES)?;
        let entries = (0..n_entries).map(|_| read_metadata_entry(reader)).collect::<Parse<Vec<_>>>()?;
        let mut seen = HashSet::new();
        if let Some(entry) = entries.iter().find(|entry| !seen.insert(&entry.key)) {
            return Err(format!("metadata key '{}' occurs twice, but keys must differ", entry.key));
        }
        let mut header = Self { version, alignment: DEFAULT_ALIGNMENT, data_start: 0, entries };
        if let Some(value) = header.get(bytes, "general.alignment") {
            header.alignment = read_alignment(value)?;
        }
        let tensors = (0..n_tensors).map(|_| read_tensor_entry(reader, header.alignment));
        let tensors = tensors.collect::<Parse<Vec<_>>>()?;
        header.data_start = reader
            .at
            .checked_next_multiple_of(header.alignment)
            .ok_or_else(|| format!("general.alignment is {}, more than memory can address", header.alignment))?;
        Ok((header, tensors))
    }

    /// The value of a key. `bytes` is the file that the header was read from.
    pub(in crate::checkpoint) fn get<'a>(&self, bytes: &'a [u8], key: &str) -> Option<Value<'a>> {
        self.entries.iter().find(|entry| entry.key == key)?.read(bytes)
    }

    /// The bytes of an entry, which hold its key, type and value. `bytes` is the file that the header was read from.
    pub(in crate::checkpoint) fn raw<'a>(&self, bytes: &'a [u8], key: &str) -> Option<&'a [u8]> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        let mut reader = Reader::new(bytes, entry.value);
        Value::read(entry.kind, &mut reader).ok()?;
        // Before the value lie the key's length (8 bytes), the key and the type (4 bytes).
        bytes.get(entry.value - 12 - key.len()..reader.at)
    }

    /// The metadata keys in file order.
    pub(in crate::checkpoint) fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| &*entry.key)
    }

    /// Metadata keys and values in file order.
    pub(in crate::checkpoint) fn iter<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        self.entries.iter().filter_map(|entry| Some((&*entry.key, entry.read(bytes)?)))
    }
}

impl MetadataEntry {
    fn read<'a>(&self, bytes: &'a [u8]) -> Option<Value<'a>> {
        Value::read(self.kind, &mut Reader::new(bytes, self.value)).ok()
    }
}

fn read_version(reader: &mut Reader) -> Parse<u32> {
    match reader.u32()? {
        version @ 2..=3 => Ok(version),
        1 => Err("is GGUF version 1 of August 2023, expected version 2 or 3; get a newer file".into()),
        version if version != 0 && version & 0xffff == 0 => {
            Err("is a big-endian GGUF file; get the little-endian one".into())
        }
        version => Err(format!("is GGUF version {version}, expected version 2 or 3")),
    }
}

fn read_name<'a>(reader: &mut Reader<'a>, what: &str, most: usize) -> Parse<&'a str> {
    let start = reader.at;
    let name = reader.string()?;
    if name.is_empty() || name.len() > most {
        return Err(format!("the {what} at byte {start} has {} bytes, expected 1 to {most}", name.len()));
    }
    std::str::from_utf8(name).map_err(|_| format!("the {what} at byte {start} is not UTF-8"))
}

fn read_metadata_entry(reader: &mut Reader) -> Parse<MetadataEntry> {
    let key = read_name(reader, "metadata key", MAX_KEY)?;
    let fault = |fault| format!("metadata key '{key}': {fault}");
    let kind = reader.u32().and_then(ValueType::from_id).map_err(fault)?;
    let value = reader.at;
    Value::read(kind, reader).map_err(fault)?;
    Ok(MetadataEntry { key: key.to_owned(), kind, value })
}

fn read_alignment(value: Value) -> Parse<usize> {
    let alignment = value.as_int().and_then(|int| u32::try_from(int).ok()).map(|int| int as usize);
    alignment.filter(|alignment| alignment.is_power_of_two()).ok_or_else(|| {
        format!("general.alignment is {value} ({}), expected a power of two in a u32", value.type_name())
    })
}

fn read_tensor_entry(reader: &mut Reader, alignment: usize) -> Parse<TensorEntry> {
    let name = read_name(reader, "tensor name", MAX_NAME)?;
    let fault = |fault| format!("tensor '{name}': {fault}");
    let n_dims = reader.u32().map_err(fault)?;
    if n_dims > 4 {
        return Err(fault(format!("has {n_dims} dimensions, expected at most 4")));
    }
    let mut shape = Vec::with_capacity(n_dims as usize);
    let mut elements = 1usize;
    for _ in 0..n_dims {
        let dim = reader.u64().map_err(fault)?;
        let usable = usize::try_from(dim).ok().filter(|&dim| dim > 0 && dim <= isize::MAX as usize);
        let dim = usable.ok_or_else(|| fault(format!("has a dimension of {dim}, expected 1 to 2^63 - 1")))?;
        shape.push(dim);
        elements = elements
            .checked_mul(dim)
            .filter(|&elements| elements <= isize::MAX as usize)
            .ok_or_else(|| fault(format!("its shape {shape:?} has more elements than memory can address")))?;
    }
    let id = reader.u32().map_err(fault)?;
    let offset = reader.u64().map_err(fault)?;
    if offset % alignment as u64 != 0 {
        return Err(fault(format!("its offset {offset} is not a multiple of the file's alignment of {alignment}")));
    }
    Ok(TensorEntry { name: name.to_owned(), shape, id, offset })
}
