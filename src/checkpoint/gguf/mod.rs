//! The GGUF container: a mapped file, its metadata and its tensors. Nothing in the file is trusted. Every length, count
//! and offset is checked before use, and no allocation is larger than the file's own bytes justify.

mod directory;
mod extent;
mod header;
mod metadata;
mod packed;
mod packed_types;
mod reader;
mod resolve;
pub(super) mod sniff;
mod types;
mod value;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use super::Checkpoint as Gguf;
pub(super) use directory::sort_by_name;
pub use directory::{Tensor, TensorInfo};
pub(super) use header::Header;
pub use metadata::Metadata;
pub use packed::{ALIGNMENT, ContentHash, PREFIX, Packed};
pub use packed_types::PackedLayout;
pub use types::TensorType;
pub use value::{Array, Value, ValueType};
pub use writer::{HeaderWriter, Setting};

use super::map::Map;
use super::{Checkpoint, Listing, Part};
use crate::error::{Error, Result};
use packed::check_version;

/// One GGUF file after all checks: a whole model, or a part of a split model.
#[derive(Debug)]
pub struct ParsedGguf {
    pub(super) header: Header,
    pub(super) tensors: Vec<Tensor>,
    warnings: Vec<String>,
}

/// Checks the bytes of one GGUF file. `path` appears in errors only. Each part of a split model is checked by itself.
pub fn parse(bytes: &[u8], path: &Path) -> Result<ParsedGguf> {
    let broken = |reason| Error::File { path: path.into(), reason };
    let (header, entries) = Header::parse(bytes).map_err(broken)?;
    check_version(&Metadata { path, header: &header, bytes }, path)?;
    let (tensors, warnings) = directory::tensors(&header, &entries, bytes.len(), path)?;
    Ok(ParsedGguf { header, tensors, warnings })
}

impl ParsedGguf {
    /// The tensors in file order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }
}

/// Reads the header of a file, to be shown. It opens also for models that this engine cannot run.
pub(super) fn list(path: &Path) -> Result<Listing> {
    let map = Map::open(path)?;
    let broken = |reason| Error::File { path: path.into(), reason };
    let (header, entries) = Header::parse(&map.bytes).map_err(broken)?;
    let tensors = directory::list(&header, &entries, map.bytes.len());
    Ok(Listing { checkpoint: Checkpoint::new(path, vec![Part::Mapped(map)], header), tensors })
}

/// Opens a file, or all files of a split model, of which `path` is the first. The others must lie in the same folder.
pub(super) fn open(path: &Path) -> Result<Checkpoint> {
    let mut whole = first_part(path, Part::Mapped(Map::open(path)?))?;
    open_siblings(&mut whole)?;
    whole.sorted()
}

/// A model from the bytes of its only file.
pub(super) fn from_bytes(name: &Path, bytes: Arc<Vec<u8>>) -> Result<Checkpoint> {
    let whole = first_part(name, Part::Read(bytes))?;
    if !siblings(&whole)?.is_empty() {
        return Err(whole.broken("is one of several files of a model; give the bytes of a model in one file".into()));
    }
    whole.sorted()
}

/// The model with the tensors of its first file, which may be its only one.
fn first_part(path: &Path, part: Part) -> Result<Checkpoint> {
    let ParsedGguf { header, tensors, warnings } = parse(part.bytes(), path)?;
    let packed = Packed::read(&Metadata { path, header: &header, bytes: part.bytes() }, path)?;
    // In a packed file, words and the copy of the output head follow all else, of which few rows are read.
    let words = tensors.iter().filter(|tensor| tensor.kind().packed_layout().is_some());
    let start = words.map(|tensor| tensor.range.start).min();
    if let (Part::Mapped(map), Some(_), Some(start)) = (&part, &packed, start) {
        map.prefer_huge_pages(start);
    }
    let mut whole = Checkpoint::new(path, vec![part], header);
    (whole.tensors, whole.warnings, whole.packed) = (tensors, warnings, packed);
    let packed_type = whole.tensors.iter().find(|tensor| tensor.kind().packed_layout().is_some());
    if let (Some(tensor), None) = (packed_type, &whole.packed) {
        return Err(whole.broken(format!(
            "tensor '{}' has the type {} of packed models, but the keys of one are missing; pack the model again",
            tensor.name(),
            tensor.kind()
        )));
    }
    Ok(whole)
}

/// Opens a file for its metadata alone, without tensors: their bytes may be missing, and their types may be ones that
/// this engine does not run. Of a split model give the first file, which holds the metadata.
pub(super) fn open_metadata(path: &Path) -> Result<Checkpoint> {
    let map = Map::open(path)?;
    let broken = |reason| Error::File { path: path.into(), reason };
    let (header, _) = Header::parse(&map.bytes).map_err(broken)?;
    let mut whole = Checkpoint::new(path, vec![Part::Mapped(map)], header);
    check_version(&whole.metadata(), path)?;
    whole.packed = Packed::read(&whole.metadata(), path)?;
    siblings(&whole)?;
    Ok(whole)
}

/// The paths of the other files of a split model, in order; none if the model is one file. An error if this is not the
/// first file.
fn siblings(whole: &Checkpoint) -> Result<Vec<PathBuf>> {
    let metadata = whole.metadata();
    let count = metadata.uint("split.count")?.unwrap_or(1);
    if count <= 1 {
        return Ok(Vec::new());
    }
    let number = metadata.uint("split.no")?;
    let path = &whole.path;
    let prefix = split_prefix(path, count).ok_or_else(|| {
        whole.broken(format!(
            "is a part of a model in {count} files, but its name does not end in \
             '-00001-of-{count:05}.gguf'; restore the original names"
        ))
    })?;
    let part = |index| path.with_file_name(format!("{prefix}-{:05}-of-{count:05}.gguf", index + 1));
    let first = part(0);
    if number != Some(0) || first != *path {
        let first = first.display();
        return Err(whole.broken(format!("is not the first file of a split model; open '{first}' instead")));
    }
    Ok((1..count).map(part).collect())
}

/// Opens the other files if this is the first file of a split model.
fn open_siblings(whole: &mut Checkpoint) -> Result<()> {
    let siblings = siblings(whole)?;
    if siblings.is_empty() {
        return Ok(());
    }
    let total = whole.metadata().uint("split.tensors.count")?;
    let count = siblings.len() + 1;
    for (path, index) in siblings.iter().zip(1..) {
        open_sibling(whole, path, index, count)?;
    }
    match total {
        Some(total) if total != whole.tensors.len() => Err(whole.broken(format!(
            "the {count} files hold {} tensors, but split.tensors.count says {total}; a file belongs to another \
             model: download them again",
            whole.tensors.len()
        ))),
        _ => Ok(()),
    }
}

/// Opens file `index` of a split model (counted from 0) and takes over its tensors.
fn open_sibling(whole: &mut Checkpoint, path: &Path, index: usize, count: usize) -> Result<()> {
    let map = Map::open(path).map_err(|fault| match fault {
        Error::NotFound { path } => whole.broken(format!(
            "file {} of {count} is missing: '{}'; put all files into one folder",
            index + 1,
            path.display()
        )),
        other => other,
    })?;
    let ParsedGguf { header, mut tensors, warnings } = parse(&map.bytes, path)?;
    let metadata = Metadata { path, header: &header, bytes: &map.bytes };
    let found = (metadata.uint("split.no")?, metadata.uint("split.count")?);
    if found != (Some(index), Some(count)) {
        let shown = |value: Option<usize>| value.map_or("nothing".into(), |value| value.to_string());
        let reason = format!(
            "should be file {index} (counted from 0) of {count}, but its keys split.no and split.count say {} \
             and {}; it belongs to another model, or was renamed",
            shown(found.0),
            shown(found.1)
        );
        return Err(Error::File { path: path.into(), reason });
    }
    tensors.iter_mut().for_each(|tensor| tensor.part = index);
    whole.tensors.extend(tensors);
    whole.warnings.extend(warnings);
    whole.parts.push(Part::Mapped(map));
    Ok(())
}

/// The common beginning of the names of a split model's files; none if this name is not that of one of `count` files.
fn split_prefix(path: &Path, count: usize) -> Option<&str> {
    let (rest, total) = path.file_name()?.to_str()?.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (prefix, number) = rest.rsplit_once('-')?;
    let has_digits = number.len() == 5 && number.bytes().all(|byte| byte.is_ascii_digit());
    (has_digits && count < 100_000 && total == format!("{count:05}")).then_some(prefix)
}
