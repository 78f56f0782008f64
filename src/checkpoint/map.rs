//! Maps a file into memory. It is the only file of this module that needs `unsafe`.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use crate::error::{Error, Result};

/// Granularity of `release`: the page size on x86-64; elsewhere a multiple of every page size in use.
#[cfg(unix)]
const OS_PAGE: usize = if cfg!(target_arch = "x86_64") { 4096 } else { 65536 };

/// A read-only mapping of a whole file.
#[derive(Debug)]
pub(super) struct Map {
    /// The file's content, mapped read-only.
    pub bytes: memmap2::Mmap,
    /// The open file. It stays this file even if another takes its name.
    pub file: File,
}

impl Map {
    /// Maps a regular file that is not empty.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let io = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound { path: path.into() },
            _ => Error::Io { path: path.into(), source },
        };
        let broken = |reason: &str| Error::File { path: path.into(), reason: reason.into() };
        // Checked before opening, because opening a named pipe waits for a writer.
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
        // SAFETY: the mapping is read-only and only this value holds it. `Gguf::open` documents that nobody may write
        // to the file while it is mapped; no program that maps a file can enforce that. If somebody does write, reads
        // return other bytes, or the system stops the process where the file became shorter. No read leaves the
        // mapping: all are bounds-checked against the length mapped here.
        let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        Ok(Self { bytes, file })
    }

    /// Asks for huge pages from byte `start` on, for weights that are read from end to end again and again. Few systems
    /// have them for files; the others do without.
    pub(super) fn prefer_huge_pages(&self, start: usize) {
        #[cfg(target_os = "linux")]
        let _ = self.bytes.advise_range(memmap2::Advice::HugePage, start, self.bytes.len() - start);
        #[cfg(not(target_os = "linux"))]
        let _ = start;
    }

    /// Drops the pages that lie entirely inside `range` from memory. A later read loads them from the file again.
    #[cfg(unix)]
    pub(super) fn release(&self, range: Range<usize>) {
        let start = range.start.next_multiple_of(OS_PAGE);
        let end = range.end / OS_PAGE * OS_PAGE;
        if start < end && end <= self.bytes.len() {
            // SAFETY: the range lies inside the mapping, by the check above. The mapping is read-only and backed by a
            // file, so its pages were never written: dropping them changes no byte that anyone can read. On failure
            // they stay in memory, which does no harm.
            let _ =
                unsafe { self.bytes.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
        }
    }

    /// Does nothing: this system has no call for it.
    #[cfg(not(unix))]
    pub(super) fn release(&self, _range: Range<usize>) {}
}
