//! Atomic writing of files, and safe opening. Everything that the package saves goes through here.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Who may read a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Its owner only.
    Owner,
    /// Those whom the process's umask lets read new files.
    Everyone,
}

/// Ends the name of a temporary file.
const SUFFIX: &str = ".tmp";
/// Random letters and digits before it.
const RANDOM: usize = 6;
/// The most bytes of the file's name that the temporary file's begins with.
const MAX_PREFIX: usize = 200;
/// The most links to links that are followed, as many as Linux follows.
const MAX_LINKS: usize = 40;

/// Writes a file atomically: `write` fills a temporary file in the same folder, which then replaces `path`, so that no
/// reader ever sees half of it. Creates missing folders.
///
/// A symbolic link stays: the file that it points to is replaced. A device, pipe or folder is an error. Temporary files
/// that killed processes left of the same file are removed.
pub fn write_atomically(path: &Path, readers: Readers, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let io = |source| Error::Io { path: path.into(), source };
    let target = target_of(path).map_err(io)?;
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(io)?;
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    // A name may have 255 bytes, and the temporary file's is longer.
    let prefix = format!(".{}.", &name[..name.floor_char_boundary(MAX_PREFIX)]);
    remove_abandoned(folder, &prefix);
    let mut file = temporary(folder, &prefix, readers).map_err(io)?;
    // A file that everyone may read keeps the permissions that its owner gave it.
    if readers == Readers::Everyone
        && let Ok(old) = std::fs::metadata(&target)
    {
        file.as_file().set_permissions(old.permissions()).map_err(io)?;
    }
    write(file.as_file_mut()).and_then(|()| file.as_file().sync_all()).map_err(io)?;
    file.persist(&target).map(drop).map_err(|error| io(error.error))
}

/// Opens a file to read it whole. A device or a pipe is an error: opening a pipe waits for a writer, and a device may
/// never end.
pub fn open(path: &Path) -> io::Result<File> {
    let found = std::fs::metadata(path)?;
    // The system itself refuses to read a folder, and has an error of its own for it.
    if !found.is_file() && !found.is_dir() { Err(not_a_file("a device or a pipe")) } else { File::open(path) }
}

/// Reads a whole file that [`open`] opens.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The error for what stands where a file was expected.
fn not_a_file(kind: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("is {kind}; give the path of a file"))
}

/// The file that a path leads to, which need not exist.
fn target_of(path: &Path) -> io::Result<PathBuf> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            Err(not_a_file(if found.is_dir() { "a folder" } else { "a device or a pipe" }))
        }
        // A missing file, or a link to one: the link's target is made.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut target = path.to_path_buf();
            for _ in 0..MAX_LINKS {
                let Ok(link) = std::fs::read_link(&target) else { return Ok(target) };
                target = target.parent().unwrap_or(Path::new("")).join(link);
            }
            Err(error)
        }
        _ => std::fs::canonicalize(path),
    }
}

/// A new temporary file, which this process holds locked as long as it is open.
fn temporary(folder: &Path, prefix: &str, readers: Readers) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).rand_bytes(RANDOM).suffix(SUFFIX);
    #[cfg(unix)]
    if readers == Readers::Everyone {
        // The system takes away what the umask forbids.
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    }
    #[cfg(not(unix))]
    let _ = readers; // a new file has the permissions of its folder
    loop {
        let file = builder.tempfile_in(folder)?;
        // Without locks on this file system nobody removes the file either.
        let locked = file.as_file().try_lock();
        // Another process may have taken it for an abandoned one before it was locked.
        if locked.is_err() || file.path().exists() {
            return Ok(file);
        }
    }
}

/// Removes temporary files that nobody has locked: their processes were killed.
fn remove_abandoned(folder: &Path, prefix: &str) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let random = name.to_str().and_then(|name| name.strip_prefix(prefix)?.strip_suffix(SUFFIX));
        let is_ours = random.is_some_and(|r| r.len() == RANDOM && r.bytes().all(|byte| byte.is_ascii_alphanumeric()))
            && entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_ours && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = std::fs::remove_file(entry.path()); // it costs space only
        }
    }
}
