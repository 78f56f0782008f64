//! The files of a directory: which of them hold the weights, which others decide the answer, and which are refused.

use super::super::gguf::sniff;
use super::super::{Content, HashedFile};
use crate::error::{Error, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

pub(super) const CONFIG: &str = "config.json";
pub(super) const POOLING: &str = "1_Pooling/config.json";
pub(super) const MODULES: &str = "modules.json";
const INDEX: &str = "model.safetensors.index.json";
const WEIGHTS: &str = "model.safetensors";
/// The other files that decide an answer: its template, its tokens, where it ends.
const COMPANIONS: [&str; 9] = [
    CONFIG,
    POOLING,
    INDEX,
    MODULES,
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
];
const TEMPLATES: &str = "additional_chat_templates";
/// Endings of pickled weights.
const PICKLES: [&str; 5] = [".bin", ".pt", ".pth", ".ckpt", ".pkl"];
/// The largest configuration or index that is read: far above any model's.
const MAX_JSON: u64 = 16 << 20;

/// A directory that was asked for.
#[derive(Clone, Debug)]
pub struct Place {
    /// The directory.
    pub folder: PathBuf,
    /// The file inside that was given in its place.
    pub file: Option<String>,
}

/// The directory that a path leads to: a directory, or the one of a `config.json` or a safetensors file. Nothing for
/// another file.
pub fn directory_of(path: &Path) -> Option<Place> {
    if path.is_dir() {
        return Some(Place { folder: path.into(), file: None });
    }
    let name = path.file_name()?.to_str()?;
    let is_part = name == CONFIG || name == INDEX || name.ends_with(".safetensors");
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    is_part.then(|| Place { folder: folder.into(), file: Some(name.into()) })
}

/// Checks that the files of a directory that decide an answer lie in it.
pub fn check_directory(folder: &Path) -> Result<()> {
    Directory::open(folder).map(drop)
}

/// The opened files of a directory beside its weights.
#[derive(Debug)]
pub struct Directory {
    pub(in crate::checkpoint) folder: PathBuf,
    /// The files by their names.
    companions: BTreeMap<String, File>,
    /// The names of the files of weights.
    pub(super) shards: Vec<String>,
    /// The projections that stay floats beside ternary ones, by their names in GGUF.
    pub(in crate::checkpoint) floats: BTreeSet<String>,
}

impl Directory {
    /// Opens those files that exist.
    pub(in crate::checkpoint) fn open(folder: &Path) -> Result<Directory> {
        let mut names: BTreeSet<String> = COMPANIONS.map(String::from).into();
        for entry in std::fs::read_dir(folder.join(TEMPLATES)).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().ok().filter(|name| name.ends_with(".jinja"));
            names.extend(name.map(|name| format!("{TEMPLATES}/{name}")));
        }
        let mut companions = BTreeMap::new();
        for name in names {
            let path = folder.join(&name);
            if let Some(facts) = facts(&path)? {
                if !facts.is_file() {
                    return Err(broken(&path, "is not a regular file"));
                }
                check_link(folder, &path)?;
                let file = File::open(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
                companions.insert(name, file);
            }
        }
        Ok(Directory { folder: folder.into(), companions, shards: Vec::new(), floats: BTreeSet::new() })
    }

    /// The content of a file in JSON, with the last of equal keys; nothing if there is no such file.
    pub(super) fn json(&self, name: &str) -> Result<Option<Value>> {
        let Some(mut file) = self.companions.get(name) else { return Ok(None) };
        let path = self.folder.join(name);
        let mut bytes = Vec::new();
        let read = file.rewind().and_then(|()| file.take(MAX_JSON + 1).read_to_end(&mut bytes));
        read.map_err(|source| Error::Io { path: path.clone(), source })?;
        if bytes.len() as u64 > MAX_JSON {
            return Err(broken(&path, &format!("has more than {} MiB, too many for such a file", MAX_JSON >> 20)));
        }
        if let Some(what) = sniff::other_file(&bytes) {
            return Err(broken(&path, what));
        }
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        serde_json::from_slice(text).map(Some).map_err(|error| broken(&path, &format!("is not JSON: {error}")))
    }

    /// The files that say how text becomes tokens and how a conversation becomes text, by their names.
    pub(in crate::checkpoint) fn texts(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let is_text = |name: &str| !matches!(name, POOLING | INDEX | MODULES);
        let names = self.companions.keys().filter(|name| is_text(name));
        let read = |name: &String| {
            let mut bytes = Vec::new();
            let mut file = &self.companions[name];
            let read = file.rewind().and_then(|()| file.read_to_end(&mut bytes));
            read.map_err(|source| Error::Io { path: self.folder.join(name), source })?;
            Ok((name.clone(), bytes))
        };
        names.map(read).collect()
    }

    /// Finds the files of weights. A file that was named counts alone, unless it belongs to an index.
    pub(super) fn find_weights(&mut self, named: Option<&str>) -> Result<Option<Index>> {
        let names = self.names()?;
        let named = named.filter(|name| name.ends_with(".safetensors"));
        let has = |name: &str| names.contains(name);
        let index = if self.companions.contains_key(INDEX) && !(named.is_none() && has(WEIGHTS)) {
            Some(self.index()?)
        } else {
            None
        };
        if let Some(index) = index.filter(|index| named.is_none_or(|named| index.shards.contains(named))) {
            self.shards = index.shards.iter().cloned().collect();
            return Ok(Some(index));
        }
        let found: Vec<&String> = names.iter().filter(|name| name.ends_with(".safetensors")).collect();
        let only = match (named, &found[..]) {
            (Some(named), _) => named.into(),
            (None, _) if has(WEIGHTS) => WEIGHTS.into(),
            (None, [only]) => (*only).clone(),
            (None, []) => return Err(self.without_weights(&names)),
            (None, several) => {
                return Err(broken(
                    &self.folder,
                    &format!(
                        "has {} safetensors files, but neither {WEIGHTS} nor {INDEX}; download the index, or give the \
                         path of the file that is the whole model",
                        several.len()
                    ),
                ));
            }
        };
        self.companions.remove(INDEX);
        self.shards = vec![only];
        Ok(None)
    }

    /// The index of the weights.
    fn index(&self) -> Result<Index> {
        let path = self.folder.join(INDEX);
        let json = self.json(INDEX)?.unwrap_or_default();
        let map = json["weight_map"].as_object().filter(|map| !map.is_empty());
        let map = map.ok_or_else(|| broken(&path, "has no 'weight_map', which says in which file each tensor is"))?;
        let mut shards = BTreeSet::new();
        let mut file_of = BTreeMap::new();
        for (tensor, file) in map {
            let name = file.as_str().filter(|name| is_plain(name)).ok_or_else(|| {
                let shown = super::settings::shown(file);
                broken(&path, &format!("'weight_map' gives the file {shown}, expected the name of a .safetensors file"))
            })?;
            shards.insert(name.to_string());
            file_of.insert(tensor.clone(), name.to_string());
        }
        Ok(Index { shards, file_of })
    }

    /// The path of a file of weights, which must be inside.
    pub(super) fn shard_path(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        if facts(&path)?.is_none() {
            let reason = format!("'{name}' is missing, which holds a part of the weights; download it");
            return Err(broken(&self.folder, &reason));
        }
        check_link(&self.folder, &path)?;
        Ok(path)
    }

    /// Why there are no weights.
    fn without_weights(&self, names: &BTreeSet<String>) -> Error {
        let ending = |ending: &str| names.iter().find(|name| name.to_ascii_lowercase().ends_with(ending));
        if let Some(gguf) = ending(".gguf") {
            return broken(
                &self.folder,
                &format!("has no safetensors files, but GGUF files; give the path of '{gguf}'"),
            );
        }
        match PICKLES.into_iter().find_map(ending) {
            Some(pickle) => Error::Unsupported(format!(
                "{}: the weights are in '{pickle}', a pickle, which runs code of its author's choice when it is opened, \
                 so this engine reads none; get the model as safetensors or GGUF, or convert it where you trust it: \
                 AutoModelForCausalLM.from_pretrained(…).save_pretrained(…, safe_serialization=True)",
                self.folder.display()
            )),
            None => broken(&self.folder, &format!("has no weights: neither {WEIGHTS} nor {INDEX}; download them")),
        }
    }

    /// The names in the directory.
    fn names(&self) -> Result<BTreeSet<String>> {
        let io = |source| Error::Io { path: self.folder.clone(), source };
        let entries = std::fs::read_dir(&self.folder).map_err(io)?;
        Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    /// All files with their names, in the order of their names; `weights` are those of `shards`.
    pub(in crate::checkpoint) fn files(&self, weights: Vec<File>) -> io::Result<Vec<HashedFile>> {
        let companions = self.companions.iter().map(|(name, file)| Ok((name.clone(), file.try_clone()?)));
        let mut files: BTreeMap<String, File> = companions.collect::<io::Result<_>>()?;
        files.extend(self.shards.iter().cloned().zip(weights));
        Ok(files
            .into_iter()
            .map(|(name, file)| HashedFile { name: Some(name), content: Content::File(file) })
            .collect())
    }

    /// The model's name: that of the directory, or of its repository in the cache of `huggingface_hub`.
    pub(in crate::checkpoint) fn name(&self) -> String {
        let real = std::fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone());
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match real.parent().filter(|parent| name(parent) == "snapshots").and_then(Path::parent) {
            Some(repository) => name(repository).rsplit("--").next().unwrap_or_default().into(),
            None => name(&real),
        }
    }

    /// Bytes of all files beside the weights.
    pub(in crate::checkpoint) fn companions_size(&self) -> u64 {
        self.companions.values().filter_map(|file| Some(file.metadata().ok()?.len())).sum()
    }
}

/// The files in which the tensors are.
#[derive(Debug)]
pub(super) struct Index {
    shards: BTreeSet<String>,
    /// The file of each tensor.
    pub file_of: BTreeMap<String, String>,
}

/// Whether a name is one of a file of weights, without any path.
fn is_plain(name: &str) -> bool {
    let is_safe = |c: char| !c.is_control() && !matches!(c, '/' | '\\' | ':');
    name.ends_with(".safetensors") && !name.starts_with('.') && name.chars().all(is_safe)
}

/// The facts about a file, links followed; nothing if it does not exist.
fn facts(path: &Path) -> Result<Option<std::fs::Metadata>> {
    match std::fs::metadata(path) {
        Ok(facts) => Ok(Some(facts)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(Error::Io { path: path.into(), source }),
    }
}

/// Refuses a link that leaves the directory, except to the files of the cache of `huggingface_hub`: there
/// `snapshots/REVISION` holds links to `blobs`.
fn check_link(folder: &Path, path: &Path) -> Result<()> {
    let real = |path: &Path| std::fs::canonicalize(path).map_err(|source| Error::Io { path: path.into(), source });
    let (own, target) = (real(folder)?, real(path)?);
    let is_blob = || {
        let snapshots = own.parent()?;
        let cache = snapshots.file_name().filter(|name| *name == "snapshots").and(snapshots.parent())?;
        Some(target.starts_with(cache.join("blobs")))
    };
    if target.starts_with(&own) || is_blob() == Some(true) {
        return Ok(());
    }
    let reason = format!("is a link that leaves the directory, to '{}'; put the file itself there", target.display());
    Err(broken(path, &reason))
}

fn broken(path: &Path, reason: &str) -> Error {
    Error::File { path: path.into(), reason: reason.into() }
}
