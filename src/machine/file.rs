//! Atomic writing of files.

use crate::error::{Error, Result};
use std::fs::File;
use std::path::Path;

/// Writes a file atomically: `write` fills a temporary file in the same folder, which then replaces `path`, so that no
/// reader ever sees half of it. Creates missing folders. Only the owner may read the file unless `write` changes its
/// mode.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
    let io = |source| Error::Io { path: path.into(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(io)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    write(file.as_file_mut()).and_then(|()| file.as_file().sync_all()).map_err(io)?;
    file.persist(path).map(drop).map_err(|error| io(error.error))
}
