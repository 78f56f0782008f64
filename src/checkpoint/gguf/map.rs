//! A file as bytes in memory, without reading it: the only place of this module that needs `unsafe`.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use crate::error::{Error, Result};

/// Granularity of `release`. Where the page size varies between systems, a multiple of all in use.
const PAGE: usize = if cfg!(target_arch = "x86_64") { 4096 } else { 65536 };

/// A read-only mapping of a whole file.
#[derive(Debug)]
pub(super) struct Map {
    pub bytes: memmap2::Mmap,
    pub file: File,
}

impl Map {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let io = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound { path: path.into() },
            _ => Error::Io { path: path.into(), source },
        };
        let broken = |reason: &str| Error::File { path: path.into(), reason: reason.into() };
        // Before opening: opening a named pipe would wait for its writer.
        let facts = std::fs::metadata(path).map_err(io)?;
        if facts.is_dir() {
            return Err(broken("is a directory; give the path of a .gguf file"));
        }
        if !facts.is_file() {
            return Err(broken("is not a regular file; give the path of a .gguf file"));
        }
        if facts.len() == 0 {
            return Err(broken("the file is empty; download it again"));
        }
        let file = File::open(path).map_err(io)?;
        // SAFETY: the mapping is read-only and private to this value. `Gguf::open` asks that nobody writes to
        // the file meanwhile, which no program that maps a model can prevent. If somebody does, we read other
        // bytes or are stopped by the system: every read is bounds-checked against the length mapped here.
        let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        Ok(Self { bytes, file })
    }

    /// Drops the pages that lie wholly inside `range` from memory; a later read loads them from the file again.
    #[cfg(unix)]
    pub(super) fn release(&self, range: &Range<usize>) {
        let start = range.start.next_multiple_of(PAGE);
        let end = range.end / PAGE * PAGE;
        if start < end && end <= self.bytes.len() {
            // SAFETY: the pages are those of a shared, read-only mapping of a file. They were never written, so
            // dropping them changes no byte that anyone can read. A failure would leave them resident: harmless.
            let _ =
                unsafe { self.bytes.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
        }
    }

    #[cfg(not(unix))]
    pub(super) fn release(&self, _range: &Range<usize>) {}
}
