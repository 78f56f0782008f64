//! Fingerprints: BLAKE3 of a model's files, and of its tokenizer's metadata.

use super::{Checkpoint, Part};
use crate::error::Watch;
use std::fs::File;
use std::io::{Read, Seek};

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
            Part::Made(_) => None,
        });
        match &self.directory {
            None => mapped.map(|file| Ok(HashedFile { name: None, file: file? })).collect(),
            Some(directory) => directory.files(mapped.collect::<std::io::Result<_>>()?),
        }
    }
}

/// A file that a fingerprint covers.
#[derive(Debug)]
pub struct HashedFile {
    /// Its name, if the name counts, too.
    pub name: Option<String>,
    /// Its content.
    pub file: File,
}

/// The fingerprint of a model: BLAKE3, in hexadecimal, of its files one after the other. In front of a file whose name
/// counts stand the length of the name and the length of the content (eight bytes each, little-endian) and the name.
///
/// The files are read and not mapped, so that hashing does not count towards the memory of the process. If the system
/// starts no threads for it, the caller hashes alone. None if `watch` cancels it.
pub fn fingerprint(files: &[HashedFile], threads: usize, watch: &mut Watch) -> std::io::Result<Option<String>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let mut hasher = blake3::Hasher::new();
    let mut buffer = Vec::with_capacity(CHUNK);
    for HashedFile { name, file } in files {
        if let Some(name) = name {
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(&file.metadata()?.len().to_le_bytes());
            hasher.update(name.as_bytes());
        }
        let mut file = file;
        file.rewind()?;
        loop {
            buffer.clear();
            if watch() {
                return Ok(None);
            }
            if file.take(CHUNK as u64).read_to_end(&mut buffer)? == 0 {
                break;
            }
            match &pool {
                Ok(pool) => _ = pool.install(|| hasher.update_rayon(&buffer)),
                Err(_) => _ = hasher.update(&buffer),
            }
        }
    }
    Ok(Some(hasher.finalize().to_hex().to_string()))
}
