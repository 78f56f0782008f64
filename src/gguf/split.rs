//! The names of the files of a split model: `<prefix>-00001-of-00003.gguf`.

use std::path::{Path, PathBuf};

/// A path of a split set, taken apart.
pub(super) struct SplitName<'a> {
    path: &'a Path,
    prefix: &'a str,
    count: usize,
}

impl<'a> SplitName<'a> {
    /// None if the file is not named as a part of a split set.
    pub(super) fn of(path: &'a Path) -> Option<Self> {
        let stem = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let five_digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        if !five_digits(number) || !five_digits(count) {
            return None;
        }
        Some(Self { path, prefix, count: count.parse().ok()? })
    }

    /// How many files the name speaks of.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The path of the file with this index, which counts from 0; the names count from 1.
    pub(super) fn sibling(&self, index: usize) -> PathBuf {
        self.path.with_file_name(format!("{}-{:05}-of-{:05}.gguf", self.prefix, index + 1, self.count))
    }
}
