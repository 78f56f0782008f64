//! Packed models, which `bitnet pack` writes: a GGUF file whose projections lie as the kernels read them, with all that
//! a model needs, and what its keys `bitnet_pack.*` say of the model that was packed.

use super::super::Checkpoint;
use super::{HeaderWriter, Metadata, Setting};
use crate::error::{Error, Result};
use std::ops::Range;
use std::path::Path;

/// Our metadata keys, and the names of tensors that the packed model does not have, begin with this.
pub const PREFIX: &str = "bitnet_pack.";
/// The version of the format. Readers of another version refuse a file; see [`check_version`].
const VERSION: u32 = 1;
/// Tensors begin at multiples of this, as kernels read whole words of 64 bytes.
pub const ALIGNMENT: usize = 64;
/// Keys of the model that do not hold for the packed file: it is one file with an alignment of its own.
const DROPPED: [&str; 4] = ["general.alignment", "split.no", "split.count", "split.tensors.count"];
/// A hash in hexadecimal.
const HASH_LEN: usize = 64;
/// Stands in place of the hash while the file is hashed.
const NO_HASH: [u8; HASH_LEN] = [b'0'; HASH_LEN];

/// What a packed file tells of the model that was packed.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    /// The fingerprint of the model that was packed.
    pub fingerprint: String,
    /// The name of its file or directory.
    pub file: String,
    /// The size of its files in bytes.
    pub bytes: u64,
    /// The packing that was asked for.
    pub layout: String,
    /// Whether the rows of queries and keys are in the order of transformers; see [`Checkpoint::is_unpermuted`].
    pub is_unpermuted: bool,
    /// See [`Checkpoint::float_projections`].
    pub float_projections: Vec<String>,
    /// What looked wrong in its files and weights.
    pub warnings: Vec<String>,
}

/// Refuses a packed file of another version than this engine reads. It is checked before anything else in the file.
pub(super) fn check_version(metadata: &Metadata, path: &Path) -> Result<()> {
    match metadata.uint(&key("version"))? {
        None => Ok(()),
        Some(version) if version == VERSION as usize => Ok(()),
        Some(version) => Err(Error::Unsupported(format!(
            "{}: is a packed model of format version {version}, but this version of the engine reads {VERSION}; pack the \
             original model again",
            path.display()
        ))),
    }
}

impl Packed {
    /// What the metadata tells; `None` of a model that is not packed.
    pub(super) fn read(metadata: &Metadata, path: &Path) -> Result<Option<Packed>> {
        if metadata.get(&key("version")).is_none() {
            return Ok(None);
        }
        let broken = |name: &str, expected: &str| Error::File {
            path: path.into(),
            reason: format!("key '{}' of a packed model is missing or not {expected}; pack the model again", key(name)),
        };
        let text = |name: &str| {
            let text = metadata.str(&key(name))?.ok_or_else(|| broken(name, "a text"))?;
            Ok::<_, Error>(text.to_string())
        };
        let texts = |name: &str| {
            let texts = metadata.strings(&key(name))?.ok_or_else(|| broken(name, "a list of texts"))?;
            Ok::<_, Error>(texts.map(|text| String::from_utf8_lossy(text).into_owned()).collect())
        };
        let fingerprint = text("fingerprint")?;
        if !is_hash(fingerprint.as_bytes()) {
            return Err(broken("fingerprint", "a hash"));
        }
        Ok(Some(Packed {
            fingerprint,
            file: text("file")?,
            bytes: metadata.uint(&key("bytes"))?.ok_or_else(|| broken("bytes", "a number"))? as u64,
            layout: text("layout")?,
            is_unpermuted: metadata.bool(&key("unpermuted"))?.ok_or_else(|| broken("unpermuted", "a bool"))?,
            float_projections: texts("float_projections")?,
            warnings: texts("warnings")?,
        }))
    }

    /// A header with the metadata of the model that is packed, and these facts. Files that lie beside the model go
    /// inside.
    pub fn header(&self, model: &Checkpoint) -> Result<HeaderWriter> {
        let mut header = HeaderWriter::new(ALIGNMENT);
        let bytes = model.parts[0].bytes();
        for key in model.header.keys().filter(|key| !DROPPED.contains(key)) {
            model.header.raw(bytes, key).into_iter().for_each(|entry| header.raw(entry));
        }
        header.entry("general.alignment", &Setting::U32(ALIGNMENT as u32));
        let mut own = |name: &str, value: Setting| header.entry(&key(name), &value);
        own("version", Setting::U32(VERSION));
        own("fingerprint", Setting::Str(self.fingerprint.clone()));
        own("file", Setting::Str(self.file.clone()));
        own("bytes", Setting::Uint(self.bytes));
        own("layout", Setting::Str(self.layout.clone()));
        own("unpermuted", Setting::Bool(self.is_unpermuted));
        own("float_projections", Setting::Strs(self.float_projections.clone()));
        own("warnings", Setting::Strs(self.warnings.clone()));
        for (name, content) in model.companions()? {
            own(&format!("beside.{name}"), Setting::Bytes(content));
        }
        own("content", Setting::Bytes(NO_HASH.into()));
        Ok(header)
    }
}

/// The hash of a packed file's content: of all its bytes, with zeros in place of the hash itself.
pub struct ContentHash {
    hasher: blake3::Hasher,
    /// Where the hash is to be written.
    field: Range<usize>,
}

impl ContentHash {
    /// Begins with the header of a file that is written.
    pub fn of_header(header: &[u8]) -> ContentHash {
        // The entry of the hash is the last one with this key; texts of the model before it may look like it.
        let entry = [key("content").as_bytes(), &8u32.to_le_bytes(), &(HASH_LEN as u64).to_le_bytes()].concat();
        let found = header.windows(entry.len()).rposition(|window| window == entry);
        let start = found.expect("`Packed::header` wrote it") + entry.len();
        let mut hasher = blake3::Hasher::new();
        hasher.update(header);
        ContentHash { hasher, field: start..start + HASH_LEN }
    }

    /// Adds bytes that follow.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update_rayon(bytes);
    }

    /// The hash, and where it belongs.
    pub fn finish(self) -> (String, Range<usize>) {
        (self.hasher.finalize().to_hex().to_string(), self.field)
    }
}

impl Checkpoint {
    /// What a packed file tells of the model that was packed; nothing if this is a model itself.
    pub fn packed(&self) -> Option<&Packed> {
        self.packed.as_ref()
    }

    /// The content of a file that lay beside the packed model.
    pub fn packed_beside(&self, name: &str) -> Option<&[u8]> {
        self.packed.as_ref()?;
        self.header.get(self.parts[0].bytes(), &key(&format!("beside.{name}")))?.as_bytes()
    }

    /// The names of the files in a folder that lay beside the packed model.
    pub fn packed_names(&self, folder: &str) -> impl Iterator<Item = &str> {
        let prefix = key(&format!("beside.{folder}/"));
        self.header.keys().filter_map(move |key| key.strip_prefix(&*prefix))
    }

    /// Compares a packed file with the hash of its content. Returns the hash. `None` if `look` cancels it.
    pub fn check_content(&self, mut look: impl FnMut() -> bool) -> Result<Option<String>> {
        const CHUNK: usize = 16 << 20;
        let bytes = self.parts[0].bytes();
        let stored = self.header.get(bytes, &key("content")).and_then(|value| value.as_bytes());
        let Some(stored) = stored.filter(|hash| is_hash(hash)) else {
            return Err(self
                .broken(format!("key '{}' is not a hash; the file is damaged: pack the model again", key("content"))));
        };
        let start = stored.as_ptr() as usize - bytes.as_ptr() as usize;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes[..start]);
        hasher.update(&NO_HASH);
        for part in bytes[start + HASH_LEN..].chunks(CHUNK) {
            if look() {
                return Ok(None);
            }
            hasher.update_rayon(part);
        }
        let found = hasher.finalize().to_hex().to_string();
        if found.as_bytes() == stored {
            return Ok(Some(found));
        }
        Err(self.broken(format!(
            "its content has the hash {found}, but the file says {}; it is damaged: pack the model again",
            String::from_utf8_lossy(stored)
        )))
    }
}

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn is_hash(text: &[u8]) -> bool {
    text.len() == HASH_LEN && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
