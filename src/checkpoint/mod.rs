//! Model files: mapped into memory, validated, and read as metadata and named tensors.

pub mod gguf;
