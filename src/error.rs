//! The one error type of the core. Every message says what was found, what was expected and what to do.

use std::fmt::Display;
use std::path::{Path, PathBuf};

/// What can go wrong, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model's path does not exist.
    #[error("{path}: no such file; check the path (Engine.from_pretrained opens models of the Hugging Face Hub)")]
    NotFound {
        /// As given by the caller.
        path: PathBuf,
    },
    /// The operating system refused to open, map or read the file.
    #[error("{path}: {source}")]
    Io {
        /// As given by the caller.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not a GGUF file, or a broken one.
    #[error("{path}: {reason}")]
    File {
        /// As given by the caller.
        path: PathBuf,
        /// What was found, where, and what was expected.
        reason: String,
    },
    /// A sound file that this engine does not run.
    #[error("{0}")]
    Unsupported(String),
    /// Tensors or metadata contradict each other or the architecture.
    #[error("{0}")]
    Model(String),
    /// A chat template that cannot be used, or that refuses a conversation.
    #[error("{0}")]
    Template(String),
    /// A receipt whose figures do not agree, or that a replay contradicts.
    #[error("receipt, gate '{gate}': {what}")]
    Receipt {
        /// The first check that failed, by the path of its field.
        gate: String,
        /// What was found and what was expected.
        what: String,
    },
    /// An argument outside its range.
    #[error("{0}")]
    Argument(String),
    /// More positions than the context holds.
    #[error(
        "{needed} positions do not fit into the context of {n_ctx}; shorten the input or open the engine with a larger n_ctx"
    )]
    Context {
        /// Positions that the call would need in all.
        needed: usize,
        /// Positions that the engine was opened with.
        n_ctx: usize,
    },
    /// An id that the vocabulary does not have.
    #[error("token id {id} at position {position} is outside the vocabulary (0 to {})", n_vocab - 1)]
    TokenId {
        /// The id as given.
        id: i64,
        /// Its index in the input.
        position: usize,
        /// Size of the model's vocabulary.
        n_vocab: usize,
    },
    /// The machine does not give so much memory.
    #[error("{bytes} bytes of memory are not to be had; ask for less at once: fewer ids, a smaller n_batch or n_ctx")]
    Memory {
        /// What was asked for.
        bytes: usize,
    },
    /// The engine was closed before the call.
    #[error("the engine is closed; open a new one")]
    Closed,
    /// The caller's cancel flag was set; nothing was changed.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// The same error, with where it was found in front.
    pub fn at(self, place: impl Display) -> Error {
        match self {
            Error::Unsupported(message) => Error::Unsupported(format!("{place}: {message}")),
            Error::Model(message) => Error::Model(format!("{place}: {message}")),
            other => other,
        }
    }

    /// The same error, with the file that it speaks of, where the message does not name it yet.
    pub fn of_file(self, path: &Path) -> Error {
        if self.to_string().contains(&*path.to_string_lossy()) { self } else { self.at(path.display()) }
    }
}

/// Result with the core's error.
pub type Result<T> = std::result::Result<T, Error>;
