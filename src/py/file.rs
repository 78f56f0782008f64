//! Writing files.

use crate::error::{Error, Result};
use std::fs::File;
use std::path::Path;

/// Writes a file that appears as a whole or not at all, for its owner alone unless `write` says otherwise; makes the
/// folders that are missing.
pub fn write_whole(path: &Path, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
    let io = |source| Error::Io { path: path.into(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(io)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    write(file.as_file_mut()).and_then(|()| file.as_file().sync_all()).map_err(io)?;
    file.persist(path).map(drop).map_err(|error| io(error.error))
}
