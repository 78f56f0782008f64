//! Model files: mapped, validated, and read as metadata and tensors by their canonical names.

pub mod gguf;
