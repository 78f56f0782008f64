//! Builds GGUF files byte by byte, and asserts what the parser makes of them.

use std::path::{Path, PathBuf};

use bitnet::checkpoint::gguf::{self, Gguf};

// Value types of the format.
pub const U8: u32 = 0;
pub const U32: u32 = 4;
pub const BOOL: u32 = 7;
pub const STR: u32 = 8;
pub const ARRAY: u32 = 9;

/// A GGUF file under construction. Every part can be given as raw bytes, so that it may be invalid.
#[derive(Clone)]
pub struct Builder {
    pub version: u32,
    pub alignment: usize,
    pub entries: Vec<Vec<u8>>,
    pub infos: Vec<Vec<u8>>,
    pub data: Vec<u8>,
}

pub fn string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

pub fn array(kind: u32, items: &[Vec<u8>]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &(items.len() as u64).to_le_bytes(), &items.concat()].concat()
}

impl Builder {
    pub fn new() -> Self {
        Self { version: 3, alignment: 32, entries: Vec::new(), infos: Vec::new(), data: Vec::new() }
    }

    pub fn entry(mut self, key: impl AsRef<[u8]>, kind: u32, value: impl AsRef<[u8]>) -> Self {
        self.entries.push([&string(key)[..], &kind.to_le_bytes(), value.as_ref()].concat());
        self
    }

    pub fn uint(self, key: &str, value: u32) -> Self {
        self.entry(key, U32, value.to_le_bytes())
    }

    pub fn align(mut self, alignment: u32) -> Self {
        self.alignment = alignment as usize;
        self.uint("general.alignment", alignment)
    }

    /// Adds a tensor's entry to the directory, without data.
    pub fn info(mut self, name: impl AsRef<[u8]>, dims: &[u64], id: u32, offset: u64) -> Self {
        let dims: Vec<u8> = [(dims.len() as u32).to_le_bytes().to_vec()]
            .into_iter()
            .chain(dims.iter().map(|dim| dim.to_le_bytes().to_vec()))
            .flatten()
            .collect();
        self.infos.push([string(name), dims, id.to_le_bytes().to_vec(), offset.to_le_bytes().to_vec()].concat());
        self
    }

    /// Adds a tensor with `size` bytes of data, and padding.
    pub fn tensor(self, name: &str, dims: &[u64], id: u32, size: usize) -> Self {
        let offset = self.data.len() as u64;
        let mut next = self.info(name, dims, id, offset);
        next.data.extend((0..size).map(|index| (index % 251) as u8));
        next.data.resize(next.data.len().next_multiple_of(next.alignment), 0);
        next
    }

    pub fn header(&self) -> Vec<u8> {
        let counts = [self.infos.len() as u64, self.entries.len() as u64].map(u64::to_le_bytes).concat();
        let mut bytes = [b"GGUF", &self.version.to_le_bytes()[..], &counts].concat();
        bytes.extend(self.entries.concat());
        bytes.extend(self.infos.concat());
        bytes
    }

    pub fn build(&self) -> Vec<u8> {
        let mut bytes = self.header();
        bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        bytes.extend(&self.data);
        bytes
    }
}

pub fn sample() -> Builder {
    Builder::new()
        .entry("general.architecture", STR, string("bitnet-b1.58"))
        .uint("bitnet-b1.58.block_count", 30)
        .entry("heads", ARRAY, array(U32, &[8u32, 4].map(|n| n.to_le_bytes().to_vec())))
        .entry("eps", 6, 1e-5f32.to_le_bytes())
        .entry("wide", 12, 0.25f64.to_le_bytes())
        .entry("flag", BOOL, [1])
        .entry("negative", 5, (-7i32).to_le_bytes())
        .entry("tokens", ARRAY, array(STR, &[string("a"), string([0xff, 0xfe]), string("")]))
        .tensor("norm", &[5], 0, 20)
        .tensor("embd", &[32, 3], 8, 102)
        .tensor("proj", &[192, 4], 36, 224)
}

pub fn refusal(bytes: &[u8]) -> String {
    gguf::parse(bytes, Path::new("m.gguf")).expect_err("the file should be refused").to_string()
}

pub fn assert_refused(file: &Builder, expected: &str) {
    let message = refusal(&file.build());
    assert!(message.contains(expected), "'{message}' does not contain '{expected}'");
    assert!(message.starts_with("m.gguf: "), "'{message}' does not name the file");
}

pub fn accepted(file: &Builder) -> gguf::ParsedGguf {
    gguf::parse(&file.build(), Path::new("m.gguf")).unwrap()
}

/// An empty folder for the files of one test.
pub fn folder(test: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gguf").join(test);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

pub fn write(path: PathBuf, bytes: impl AsRef<[u8]>) -> PathBuf {
    std::fs::write(&path, bytes).unwrap();
    path
}

pub fn open_refusal(path: &Path) -> String {
    Gguf::open(path).expect_err("the file should be refused").to_string()
}
