//! A GGUF file in memory: the metadata that a converter would have written, and the tensors that it would have computed.
//! So one parser, one reader of the configuration and one set of checks serve both kinds of model.

/// The alignment of files that do not state one.
const ALIGNMENT: usize = 32;
/// The type id of F32 tensors.
const F32: u32 = 0;

/// A metadata value.
#[derive(Clone, Debug)]
pub(super) enum Setting {
    Uint(u64),
    Float(f32),
    Str(String),
    Bools(Vec<bool>),
}

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
        let mut bytes = [&b"GGUF"[..], &3u32.to_le_bytes()].concat();
        bytes.extend((self.vectors.len() as u64).to_le_bytes());
        bytes.extend((self.keys.len() as u64).to_le_bytes());
        for (key, value) in self.keys {
            push_str(&mut bytes, &key);
            value.push(&mut bytes);
        }
        let mut offset = 0;
        for (name, values) in &self.vectors {
            push_str(&mut bytes, name);
            bytes.extend(1u32.to_le_bytes());
            bytes.extend((values.len() as u64).to_le_bytes());
            bytes.extend(F32.to_le_bytes());
            bytes.extend((offset as u64).to_le_bytes());
            offset += (4 * values.len()).next_multiple_of(ALIGNMENT);
        }
        for (_, values) in self.vectors {
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
            bytes.extend(values.into_iter().flat_map(f32::to_le_bytes));
        }
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }
}

impl Setting {
    /// Appends the id of the type, then the value.
    fn push(self, bytes: &mut Vec<u8>) {
        let id: u32 = match self {
            Setting::Float(_) => 6,
            Setting::Str(_) => 8,
            Setting::Bools(_) => 9,
            Setting::Uint(_) => 10,
        };
        bytes.extend(id.to_le_bytes());
        match self {
            Setting::Uint(value) => bytes.extend(value.to_le_bytes()),
            Setting::Float(value) => bytes.extend(value.to_le_bytes()),
            Setting::Str(value) => push_str(bytes, &value),
            Setting::Bools(values) => {
                bytes.extend(7u32.to_le_bytes());
                bytes.extend((values.len() as u64).to_le_bytes());
                bytes.extend(values.into_iter().map(u8::from));
            }
        }
    }
}

fn push_str(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}
