//! Model files: mapped into memory, validated, and read as metadata and named tensors. A [`Checkpoint`] is what the
//! layers above read; its readers are `gguf/` and `hf/` (directories of the Hugging Face Hub), which give both the same
//! names: those of GGUF.

mod fingerprint;
pub mod gguf;
mod half;
mod hf;
mod map;

pub use fingerprint::{Content, HashedFile, fingerprint};
pub use half::{bf16_to_f32, f16_to_f32};
pub use hf::{Place, check_directory, directory_of};

use crate::error::{Error, Result};
pub use gguf::{ALIGNMENT, ContentHash, PREFIX, Packed};
use gguf::{Header, Metadata, Tensor, TensorInfo};
use hf::Directory;
use map::Map;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open model: a GGUF file, all files of a split one, or a directory of the Hugging Face Hub.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    /// Where the bytes of the tensors are. The first part is a GGUF file, which also holds the metadata.
    parts: Vec<Part>,
    /// The header of the first part.
    header: Header,
    tensors: Vec<Tensor>,
    /// Indices of `tensors` in the order of their names.
    by_name: Vec<usize>,
    warnings: Vec<String>,
    /// What only a directory has.
    directory: Option<Directory>,
    /// What only a packed model has.
    packed: Option<Packed>,
}

/// Bytes that hold tensors.
#[derive(Debug)]
enum Part {
    /// A file.
    Mapped(Map),
    /// A file whose bytes the caller has read.
    Read(Arc<Vec<u8>>),
    /// A GGUF file that exists in memory only: what a converter would have made of a directory's `config.json`.
    Made(Vec<u8>),
}

impl Part {
    fn bytes(&self) -> &[u8] {
        match self {
            Part::Mapped(map) => &map.bytes,
            Part::Read(bytes) => bytes,
            Part::Made(bytes) => bytes,
        }
    }
}

/// What a model lists, to be shown. It opens also for models that this engine cannot run.
#[derive(Debug)]
pub struct Listing {
    /// The metadata, without tensors.
    pub checkpoint: Checkpoint,
    /// The tensors, in the order of the files.
    pub tensors: Vec<TensorInfo>,
}

impl Listing {
    /// Reads the headers of a model's files.
    pub fn open(path: &Path) -> Result<Listing> {
        match directory_of(path) {
            Some(place) => hf::list(&place),
            None => gguf::list(path),
        }
    }
}

impl Checkpoint {
    /// Maps the files of a model and checks them. Nobody may write to them while the model is open.
    ///
    /// `path` is a GGUF file (of a split model the first one, `…-00001-of-0000N.gguf`, with the others in the same
    /// folder), a directory with `config.json` and safetensors files, or one of those files.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint> {
        let path = path.as_ref();
        match directory_of(path) {
            Some(place) => hf::open(&place),
            None => gguf::open(path),
        }
    }

    /// A model from the bytes of its GGUF file, for systems without files. `name` appears in errors and receipts. A model
    /// in several files is an error.
    pub fn from_bytes(name: &str, bytes: Arc<Vec<u8>>) -> Result<Checkpoint> {
        gguf::from_bytes(Path::new(name), bytes)
    }

    /// Opens a model for its metadata alone, without tensors: their bytes may be missing, and their types may be ones
    /// that this engine does not run.
    pub fn open_metadata(path: impl AsRef<Path>) -> Result<Checkpoint> {
        let path = path.as_ref();
        match directory_of(path) {
            Some(place) => hf::open_metadata(&place),
            None => gguf::open_metadata(path),
        }
    }

    /// A model without tensors.
    fn new(path: &Path, parts: Vec<Part>, header: Header) -> Checkpoint {
        let (tensors, by_name, warnings) = (Vec::new(), Vec::new(), Vec::new());
        Checkpoint { path: path.into(), parts, header, tensors, by_name, warnings, directory: None, packed: None }
    }

    /// The same with its tensors in the order of their names; an error if two have the same name.
    fn sorted(mut self) -> Result<Checkpoint> {
        self.by_name = gguf::sort_by_name(&self.tensors).map_err(|reason| self.broken(reason))?;
        Ok(self)
    }

    fn broken(&self, reason: String) -> Error {
        Error::File { path: self.path.clone(), reason }
    }

    /// The metadata: facts about the model, its tokenizer and its chat template, by key.
    pub fn metadata(&self) -> Metadata<'_> {
        Metadata { path: &self.path, header: &self.header, bytes: self.parts[0].bytes() }
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
        &self.parts[tensor.part].bytes()[tensor.range.clone()]
    }

    /// Drops the pages of some bytes of a tensor from memory. Reading them again loads them from the file.
    pub fn release(&self, tensor: &Tensor, bytes: Range<usize>) {
        assert!(bytes.end <= tensor.size());
        if let Part::Mapped(map) = &self.parts[tensor.part] {
            map.release(tensor.range.start + bytes.start..tensor.range.start + bytes.end);
        }
    }

    /// Whether the rows of queries and keys are in the order of transformers, in which channels that rotate together
    /// are half a head apart. Converters to GGUF change the order for some architectures.
    pub fn is_unpermuted(&self) -> bool {
        self.directory.is_some() || self.packed.as_ref().is_some_and(|packed| packed.is_unpermuted)
    }

    /// The names of the projections that the model's makers left as floats beside ternary ones. They read float inputs.
    pub fn float_projections(&self) -> impl Iterator<Item = &str> {
        let packed = self.packed.iter().flat_map(|packed| &packed.float_projections);
        self.directory.iter().flat_map(|directory| &directory.floats).chain(packed).map(String::as_str)
    }

    /// The name for people: that of the file, or of the directory.
    pub fn name(&self) -> String {
        match &self.directory {
            Some(directory) => directory.name(),
            None => self.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        }
    }

    /// The directory, or the folder of a GGUF file.
    pub fn folder(&self) -> &Path {
        let folder = self.directory.as_ref().map(|directory| &*directory.folder);
        folder.or(self.path.parent()).unwrap_or(Path::new(""))
    }

    /// The files beside the weights that say how text becomes tokens and how a conversation becomes text, with their
    /// names: of a directory, or beside a GGUF file that has no tokenizer inside.
    pub(crate) fn companions(&self) -> Result<Vec<(String, Vec<u8>)>> {
        if let Some(directory) = &self.directory {
            return directory.texts();
        }
        let has_tokenizer = ["tokenizer.ggml.tokens", "tokenizer.huggingface.json"];
        let is_alone = matches!(self.parts[0], Part::Read(_)); // beside bytes there are no files
        if is_alone || has_tokenizer.iter().any(|key| self.header.get(self.parts[0].bytes(), key).is_some()) {
            return Ok(Vec::new());
        }
        let folder = Some(self.folder()).filter(|folder| !folder.as_os_str().is_empty());
        Directory::open(folder.unwrap_or(Path::new(".")))?.texts()
    }

    /// Oddities of the files that do not prevent their use.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The path as given to `open`; the directory if a file inside one was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version of the GGUF format; nothing for a directory.
    pub fn version(&self) -> Option<u32> {
        self.directory.is_none().then_some(self.header.version)
    }

    /// Size of all files together, in bytes.
    pub fn file_size(&self) -> u64 {
        let files = self.parts.iter().filter(|part| !matches!(part, Part::Made(_)));
        files.map(|part| part.bytes().len() as u64).sum::<u64>()
            + self.directory.as_ref().map_or(0, Directory::companions_size)
    }
}
