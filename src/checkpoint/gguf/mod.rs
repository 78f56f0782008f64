//! The GGUF container: a mapped file, its metadata and its tensors. Nothing in the file is trusted. Every length, count
//! and offset is checked before use, and no allocation is larger than the file's own bytes justify.

mod directory;
mod extent;
mod fingerprint;
mod header;
mod map;
mod metadata;
mod reader;
mod resolve;
mod sniff;
mod types;
mod value;

use std::path::{Path, PathBuf};

pub use directory::{Tensor, TensorInfo};
pub use fingerprint::fingerprint;
pub use metadata::Metadata;
pub use types::TensorType;
pub use value::{Array, Value, ValueType};

use crate::error::{Error, Result};
use header::Header;
use map::Map;

/// One GGUF file after all checks: a whole model, or a part of a split model.
#[derive(Debug)]
pub struct ParsedGguf {
    header: Header,
    tensors: Vec<Tensor>,
    warnings: Vec<String>,
}

/// Checks the bytes of one GGUF file. `path` appears in errors only. Each part of a split model is checked by itself.
pub fn parse(bytes: &[u8], path: &Path) -> Result<ParsedGguf> {
    let broken = |reason| Error::File { path: path.into(), reason };
    let (header, entries) = Header::parse(bytes).map_err(broken)?;
    if let Some(key) = header.keys().find(|key| key.starts_with("prism.hadamard.")) {
        return Err(Error::Unsupported(format!(
            "{}: metadata key '{key}' says that the weights are rotated (Bonsai 2), which this engine does not \
             support; get a model without prism.hadamard keys",
            path.display()
        )));
    }
    let (tensors, warnings) = directory::tensors(&header, &entries, bytes.len(), path)?;
    Ok(ParsedGguf { header, tensors, warnings })
}

impl ParsedGguf {
    /// The tensors in file order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }
}

/// The header of one GGUF file, to be shown. It opens also for models that this engine cannot run.
#[derive(Debug)]
pub struct GgufHeader {
    path: PathBuf,
    map: Map,
    header: Header,
    /// The tensors that the file lists, in its order.
    pub tensors: Vec<TensorInfo>,
}

impl GgufHeader {
    /// Reads the header of a file.
    pub fn open(path: &Path) -> Result<Self> {
        let map = Map::open(path)?;
        let broken = |reason| Error::File { path: path.into(), reason };
        let (header, entries) = Header::parse(&map.bytes).map_err(broken)?;
        let tensors = directory::list(&header, &entries, map.bytes.len());
        Ok(Self { path: path.into(), map, header, tensors })
    }

    /// The metadata: facts about the model, its tokenizer and its chat template, by key.
    pub fn metadata(&self) -> Metadata<'_> {
        Metadata { path: &self.path, header: &self.header, bytes: &self.map.bytes }
    }

    /// The version of the GGUF format.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// Size of the file in bytes.
    pub fn file_size(&self) -> u64 {
        self.map.bytes.len() as u64
    }
}

/// An open model file, or all files of a split model.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    maps: Vec<Map>,
    /// The header of the first file, the only one with the model's metadata.
    header: Header,
    tensors: Vec<Tensor>,
    /// Indices of `tensors` in the order of their names.
    by_name: Vec<usize>,
    warnings: Vec<String>,
}

impl Gguf {
    /// Maps a file and checks it. Nobody may write to the file while it is open.
    ///
    /// For a split model give the first file, `…-00001-of-0000N.gguf`. The others must lie in the same folder.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let map = Map::open(path)?;
        let ParsedGguf { header, tensors, warnings } = parse(&map.bytes, path)?;
        let maps = vec![map];
        let mut gguf = Self { path: path.into(), maps, header, tensors, by_name: Vec::new(), warnings };
        gguf.open_siblings()?;
        gguf.by_name = directory::sort_by_name(&gguf.tensors).map_err(|reason| gguf.broken(reason))?;
        Ok(gguf)
    }

    /// Opens a file for its metadata alone, without tensors: their bytes may be missing, and their types may be ones
    /// that this engine does not run. Of a split model give the first file, which holds the metadata.
    pub fn open_metadata(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let map = Map::open(path)?;
        let broken = |reason| Error::File { path: path.into(), reason };
        let (header, _) = Header::parse(&map.bytes).map_err(broken)?;
        let (maps, tensors, by_name, warnings) = (vec![map], Vec::new(), Vec::new(), Vec::new());
        let gguf = Self { path: path.into(), maps, header, tensors, by_name, warnings };
        gguf.siblings()?;
        Ok(gguf)
    }

    /// The paths of the other files of a split model, in order; none if the model is one file. An error if this is not
    /// the first file.
    fn siblings(&self) -> Result<Vec<PathBuf>> {
        let metadata = self.metadata();
        let count = metadata.uint("split.count")?.unwrap_or(1);
        if count <= 1 {
            return Ok(Vec::new());
        }
        let number = metadata.uint("split.no")?;
        let path = &self.path;
        let prefix = split_prefix(path, count).ok_or_else(|| {
            self.broken(format!(
                "is a part of a model in {count} files, but its name does not end in \
                 '-00001-of-{count:05}.gguf'; restore the original names"
            ))
        })?;
        let part = |index| path.with_file_name(format!("{prefix}-{:05}-of-{count:05}.gguf", index + 1));
        let first = part(0);
        if number != Some(0) || first != *path {
            let first = first.display();
            return Err(self.broken(format!("is not the first file of a split model; open '{first}' instead")));
        }
        Ok((1..count).map(part).collect())
    }

    /// Opens the other files if this is the first file of a split model.
    fn open_siblings(&mut self) -> Result<()> {
        let siblings = self.siblings()?;
        if siblings.is_empty() {
            return Ok(());
        }
        let total = self.metadata().uint("split.tensors.count")?;
        let count = siblings.len() + 1;
        for (path, index) in siblings.iter().zip(1..) {
            self.open_sibling(path, index, count)?;
        }
        match total {
            Some(total) if total != self.tensors.len() => Err(self.broken(format!(
                "the {count} files hold {} tensors, but split.tensors.count says {total}; a file belongs to another \
                 model: download them again",
                self.tensors.len()
            ))),
            _ => Ok(()),
        }
    }

    /// Opens file `index` of a split model (counted from 0) and takes over its tensors.
    fn open_sibling(&mut self, path: &Path, index: usize, count: usize) -> Result<()> {
        let map = Map::open(path).map_err(|fault| match fault {
            Error::NotFound { path } => self.broken(format!(
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
        tensors.iter_mut().for_each(|tensor| tensor.shard = index);
        self.tensors.extend(tensors);
        self.warnings.extend(warnings);
        self.maps.push(map);
        Ok(())
    }

    fn broken(&self, reason: String) -> Error {
        Error::File { path: self.path.clone(), reason }
    }

    /// The metadata: facts about the model, its tokenizer and its chat template, by key.
    pub fn metadata(&self) -> Metadata<'_> {
        Metadata { path: &self.path, header: &self.header, bytes: &self.maps[0].bytes }
    }

    /// The tensors of all files, in file order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor with this name, if the model has it.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        let at = self.by_name.binary_search_by_key(&name, |&index| self.tensors[index].name()).ok()?;
        Some(&self.tensors[self.by_name[at]])
    }

    /// The encoded bytes of one of this model's tensors, without padding.
    pub fn bytes(&self, tensor: &Tensor) -> &[u8] {
        &self.maps[tensor.shard].bytes[tensor.range.clone()]
    }

    /// Drops a tensor's pages from memory. Reading the tensor again loads them from the file.
    pub fn release(&self, tensor: &Tensor) {
        self.maps[tensor.shard].release(&tensor.range);
    }

    /// Oddities of the file that do not prevent its use.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The path as given to `open`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version of the GGUF format.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// Size of all files together, in bytes.
    pub fn file_size(&self) -> u64 {
        self.maps.iter().map(|map| map.bytes.len() as u64).sum()
    }
}

/// The common beginning of the names of a split model's files; none if this name is not that of one of `count` files.
fn split_prefix(path: &Path, count: usize) -> Option<&str> {
    let (rest, total) = path.file_name()?.to_str()?.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (prefix, number) = rest.rsplit_once('-')?;
    let has_digits = number.len() == 5 && number.bytes().all(|byte| byte.is_ascii_digit());
    (has_digits && count < 100_000 && total == format!("{count:05}")).then_some(prefix)
}
