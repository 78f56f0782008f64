//! The container safetensors: the length of a header, the header in JSON, and the bytes of the tensors without gaps.

use super::super::gguf::sniff;
use safetensors::{Dtype, SafeTensors};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

/// A tensor as the header lists it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The name, such as `model.norm.weight`.
    pub name: String,
    /// How its elements are stored.
    pub dtype: Dtype,
    /// The dimensions, the contiguous one last.
    pub shape: Vec<usize>,
    /// Its bytes in the file.
    pub range: Range<usize>,
}

/// The most dimensions of a tensor, as in GGUF.
const MAX_DIMS: usize = 4;

/// The tensors of a file, in the order of their bytes, or why it is no safetensors file.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Entry>, String> {
    if let Some(what) = sniff::other_file(bytes) {
        return Err(what.into());
    }
    if bytes.get(8).is_some_and(|first| *first != b'{') {
        return Err("is not a safetensors file: its header does not begin with '{'; download it again".into());
    }
    let damaged = |error: &dyn fmt::Display| format!("its header is invalid: {error}; download the file again");
    let (length, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| damaged(&error))?;
    let data_start = 8 + length;
    check_keys(&bytes[8..data_start]).map_err(|error| damaged(&error))?;
    let mut entries = Vec::new();
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else { continue };
        let (dtype, shape) = (info.dtype, info.shape.clone());
        if shape.len() > MAX_DIMS {
            return Err(format!("tensor '{name}' has {} dimensions, expected at most {MAX_DIMS}", shape.len()));
        }
        if shape.contains(&0) {
            return Err(format!("tensor '{name}' has a dimension of 0, expected at least 1; the file is damaged"));
        }
        let (start, end) = info.data_offsets;
        entries.push(Entry { name, dtype, shape, range: data_start + start..data_start + end });
    }
    Ok(entries)
}

/// An error if a name occurs twice in a header: readers would disagree about which counts.
fn check_keys(header: &[u8]) -> Result<(), serde_json::Error> {
    struct Keys;
    impl<'de> Visitor<'de> for Keys {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("tensors by name")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            let mut seen = HashSet::new();
            while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
                if let Some(name) = seen.replace(name) {
                    return Err(serde::de::Error::custom(format!("the tensor '{name}' occurs twice")));
                }
            }
            Ok(())
        }
    }
    serde_json::Deserializer::from_slice(header).deserialize_map(Keys)
}
