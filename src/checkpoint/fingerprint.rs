//! Fingerprints: BLAKE3 of a model's files, and of its tokenizer's metadata.

use super::{Checkpoint, Part};
use crate::error::Watch;
use std::fs::File;
use std::io::{Read, Seek};
use std::sync::Arc;

/// Bytes that are read at a time, and then hashed by all threads.
const CHUNK: usize = 16 << 20;

impl Checkpoint {
    /// The fingerprint of the tokenizer: BLAKE3, in hexadecimal, of the bytes of all metadata entries (key, type and
    /// value) whose keys begin with `tokenizer.` but not with `tokenizer.chat_template`, sorted by key.
    pub fn tokenizer_fingerprint(&self) -> String {
        let is_part = |key: &&str| key.starts_with("tokenizer.") && !key.starts_with("tokenizer.chat_template");
        let mut keys: Vec<&str> = self.header.keys().filter(is_part).collect();
        keys.sort_unstable();
        let mut hasher = blake3::Hasher::new();
        for entry in keys.into_iter().filter_map(|key| self.header.raw(self.parts[0].bytes(), key)) {
            hasher.update(entry);
        }
        hasher.finalize().to_hex().to_string()
    }

    /// The model's files, to be hashed. They stay the files that were opened, even if others take their names.
    pub fn files(&self) -> std::io::Result<Vec<HashedFile>> {
        let mapped = self.parts.iter().filter_map(|part| match part {
            Part::Mapped(map) => Some(map.file.try_clone()),
            Part::Read(_) | Part::Made(_) => None,
        });
        if let Some(directory) = &self.directory {
            return directory.files(mapped.collect::<std::io::Result<_>>()?);
        }
        let read = self.parts.iter().filter_map(|part| match part {
            Part::Read(bytes) => Some(Ok(Content::Bytes(bytes.clone()))),
            Part::Mapped(_) | Part::Made(_) => None,
        });
        let contents = read.chain(mapped.map(|file| file.map(Content::File)));
        contents.map(|content| Ok(HashedFile { name: None, content: content? })).collect()
    }
}

/// What a file holds.
#[derive(Debug)]
pub enum Content {
    /// To be read.
    File(File),
    /// Read already.
    Bytes(Arc<Vec<u8>>),
}

impl Content {
    fn len(&self) -> std::io::Result<u64> {
        match self {
            Content::File(file) => Ok(file.metadata()?.len()),
            Content::Bytes(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// Hands all bytes to `take`, chunk by chunk. Returns whether `watch` cancelled it.
    fn for_each_chunk(&self, watch: &mut Watch, mut take: impl FnMut(&[u8])) -> std::io::Result<bool> {
        match self {
            Content::Bytes(bytes) => Ok(bytes.chunks(CHUNK).any(|chunk| {
                take(chunk);
                watch()
            })),
            Content::File(file) => {
                let mut file = file;
                let mut buffer = Vec::with_capacity(CHUNK);
                file.rewind()?;
                loop {
                    buffer.clear();
                    if watch() {
                        return Ok(true);
                    }
                    if file.take(CHUNK as u64).read_to_end(&mut buffer)? == 0 {
                        return Ok(false);
                    }
                    take(&buffer);
                }
            }
        }
    }
}

/// A file that a fingerprint covers.
#[derive(Debug)]
pub struct HashedFile {
    /// Its name, if the name counts, too.
    pub name: Option<String>,
    /// What it holds.
    pub content: Content,
}

/// The fingerprint of a model: BLAKE3, in hexadecimal, of its files one after the other. In front of a file whose name
/// counts stand the length of the name and the length of the content (eight bytes each, little-endian) and the name.
///
/// The files are read and not mapped, so that hashing does not count towards the memory of the process. If the system
/// starts no threads for it, the caller hashes alone. None if `watch` cancels it.
pub fn fingerprint(files: &[HashedFile], threads: usize, watch: &mut Watch) -> std::io::Result<Option<String>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let mut hasher = blake3::Hasher::new();
    for HashedFile { name, content } in files {
        if let Some(name) = name {
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(&content.len()?.to_le_bytes());
            hasher.update(name.as_bytes());
        }
        let is_cancelled = content.for_each_chunk(watch, |chunk| match &pool {
            Ok(pool) => _ = pool.install(|| hasher.update_rayon(chunk)),
            Err(_) => _ = hasher.update(chunk),
        })?;
        if is_cancelled {
            return Ok(None);
        }
    }
    Ok(Some(hasher.finalize().to_hex().to_string()))
}
