//! A GGUF file in memory: the metadata that a converter would have written, and the tensors that it would have computed.
//! So one parser, one reader of the configuration and one set of checks serve both kinds of model.

use super::super::gguf::HeaderWriter;
pub(super) use super::super::gguf::Setting;

/// The alignment of files that do not state one.
const ALIGNMENT: usize = 32;
/// The type id of F32 tensors.
const F32: u32 = 0;

/// The content of the file.
#[derive(Debug, Default)]
pub(super) struct Image {
    keys: Vec<(String, Setting)>,
    vectors: Vec<(String, Vec<f32>)>,
}

impl Image {
    /// Adds a metadata entry; each key only once.
    pub fn set(&mut self, key: impl Into<String>, value: Setting) {
        self.keys.push((key.into(), value));
    }

    /// Adds a vector in F32, which must not be empty. The name has at most 63 bytes.
    pub fn add_vector(&mut self, name: impl Into<String>, values: Vec<f32>) {
        self.vectors.push((name.into(), values));
    }

    /// The bytes of the file.
    pub fn into_bytes(self) -> Vec<u8> {
        let mut header = HeaderWriter::new(ALIGNMENT);
        self.keys.iter().for_each(|(key, value)| header.entry(key, value));
        for (name, values) in &self.vectors {
            header.tensor(name, &[values.len()], F32, 4 * values.len());
        }
        let mut bytes = header.into_bytes();
        for (_, values) in self.vectors {
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
            bytes.extend(values.into_iter().flat_map(f32::to_le_bytes));
        }
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }
}
