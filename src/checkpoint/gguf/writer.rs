//! Writes the header of a GGUF file: metadata entries and the tensor directory. The tensors' bytes follow it.

use super::value::ValueType;

/// The metadata entries and the tensors of a file that is to be written. Keys and names must differ.
pub struct HeaderWriter {
    alignment: usize,
    n_entries: u64,
    entries: Vec<u8>,
    n_tensors: u64,
    directory: Vec<u8>,
    /// Bytes of the tensors so far, padding between them included.
    data: usize,
}

impl HeaderWriter {
    /// A file whose tensors begin at multiples of `alignment`, a power of two. If it is not 32, the caller adds the key
    /// `general.alignment`.
    pub fn new(alignment: usize) -> HeaderWriter {
        HeaderWriter { alignment, n_entries: 0, entries: Vec::new(), n_tensors: 0, directory: Vec::new(), data: 0 }
    }

    /// Adds an entry as another file holds it: key, type and value.
    pub fn raw(&mut self, entry: &[u8]) {
        self.n_entries += 1;
        self.entries.extend(entry);
    }

    /// Adds an entry.
    pub fn entry(&mut self, key: &str, value: &Setting) {
        self.n_entries += 1;
        push_str(&mut self.entries, key.as_bytes());
        value.push(&mut self.entries);
    }

    /// Adds a tensor of `size` bytes; `id` is that of its type.
    pub fn tensor(&mut self, name: &str, shape: &[usize], id: u32, size: usize) {
        self.n_tensors += 1;
        self.data = self.data.next_multiple_of(self.alignment);
        push_str(&mut self.directory, name.as_bytes());
        self.directory.extend((shape.len() as u32).to_le_bytes());
        shape.iter().for_each(|dim| self.directory.extend((*dim as u64).to_le_bytes()));
        self.directory.extend(id.to_le_bytes());
        self.directory.extend((self.data as u64).to_le_bytes());
        self.data += size;
    }

    /// The header, padded to where the first tensor begins.
    pub fn into_bytes(self) -> Vec<u8> {
        let mut bytes = [&b"GGUF"[..], &3u32.to_le_bytes()].concat();
        bytes.extend(self.n_tensors.to_le_bytes());
        bytes.extend(self.n_entries.to_le_bytes());
        bytes.extend(self.entries);
        bytes.extend(self.directory);
        bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        bytes
    }
}

/// A metadata value to be written.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the variants are types of the GGUF specification")]
pub enum Setting {
    U32(u32),
    Uint(u64),
    Float(f32),
    Bool(bool),
    Str(String),
    Bytes(Vec<u8>),
    Bools(Vec<bool>),
    Strs(Vec<String>),
}

impl Setting {
    /// Appends the id of the type, then the value.
    fn push(&self, bytes: &mut Vec<u8>) {
        let kind = match self {
            Setting::U32(_) => ValueType::U32,
            Setting::Uint(_) => ValueType::U64,
            Setting::Float(_) => ValueType::F32,
            Setting::Bool(_) => ValueType::Bool,
            Setting::Str(_) | Setting::Bytes(_) => ValueType::Str,
            Setting::Bools(_) | Setting::Strs(_) => ValueType::Array,
        };
        bytes.extend((kind as u32).to_le_bytes());
        match self {
            Setting::U32(value) => bytes.extend(value.to_le_bytes()),
            Setting::Uint(value) => bytes.extend(value.to_le_bytes()),
            Setting::Float(value) => bytes.extend(value.to_le_bytes()),
            Setting::Bool(value) => bytes.push(u8::from(*value)),
            Setting::Str(text) => push_str(bytes, text.as_bytes()),
            Setting::Bytes(text) => push_str(bytes, text),
            Setting::Bools(values) => {
                push_array(bytes, ValueType::Bool, values.len());
                bytes.extend(values.iter().map(|value| u8::from(*value)));
            }
            Setting::Strs(values) => {
                push_array(bytes, ValueType::Str, values.len());
                values.iter().for_each(|value| push_str(bytes, value.as_bytes()));
            }
        }
    }
}

/// The type and the number of an array's elements.
fn push_array(bytes: &mut Vec<u8>, kind: ValueType, len: usize) {
    bytes.extend((kind as u32).to_le_bytes());
    bytes.extend((len as u64).to_le_bytes());
}

fn push_str(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text);
}
