//! The error type of the core. Every message says what was found, what was expected and what to do about it, without
//! naming an interface: the Python classes and the command line add advice of their own.

use std::fmt::Display;
use std::path::{Path, PathBuf};

/// Called every few milliseconds while something computes; `true` cancels it, which gives [`Error::Cancelled`].
pub type Watch<'a> = dyn FnMut() -> bool + 'a;

/// Everything that can go wrong, one variant for each way a caller may react.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model's path does not exist.
    #[error("{path}: no such file; check the path")]
    NotFound {
        /// The path as the caller gave it.
        path: PathBuf,
    },
    /// The operating system refused to open, map, read or write the file.
    #[error("{path}: {source}")]
    Io {
        /// The path as the caller gave it.
        path: PathBuf,
        /// Why the operating system refused.
        source: std::io::Error,
    },
    /// The file is not a GGUF file, or it is damaged.
    #[error("{path}: {reason}")]
    File {
        /// The path as the caller gave it.
        path: PathBuf,
        /// What was found, where, and what was expected.
        reason: String,
    },
    /// A sound file that this engine cannot run.
    #[error("{0}")]
    Unsupported(String),
    /// Tensors or metadata that contradict each other or the architecture.
    #[error("{0}")]
    Model(String),
    /// A chat template that cannot be used, or that refuses a conversation.
    #[error("{0}")]
    Template(String),
    /// A receipt whose figures disagree, or that a replay contradicts.
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
    /// More tokens than the context holds.
    #[error("{needed} tokens do not fit into the context of {n_ctx}; {}", context_advice(*n_ctx, *model_max))]
    Context {
        /// Tokens that the call needs in all, those already in the context included.
        needed: usize,
        /// Tokens that the engine was opened for.
        n_ctx: usize,
        /// Tokens that the model was trained for, the largest `n_ctx` that it can be opened with.
        model_max: usize,
    },
    /// A token id that the vocabulary does not have.
    #[error("token id {id} at position {position} is outside the vocabulary (0 to {})", n_vocab - 1)]
    TokenId {
        /// The id as the caller gave it.
        id: i64,
        /// Its index in the input.
        position: usize,
        /// Number of tokens in the model's vocabulary.
        n_vocab: usize,
    },
    /// The system has not enough memory.
    #[error("could not allocate {bytes} bytes; use fewer ids, or a smaller n_batch or n_ctx")]
    Memory {
        /// Size of the allocation that failed.
        bytes: usize,
    },
    /// The system did not start a thread.
    #[error(
        "could not start the thread '{name}' ({reason}); close other programs, raise the limit on processes (ulimit \
         -u, or the container's pids limit), or use a smaller n_threads"
    )]
    Thread {
        /// The name of the thread.
        name: String,
        /// Why the system refused.
        reason: String,
    },
    /// The engine was closed before the call.
    #[error("the engine is closed; open a new one")]
    Closed,
    /// The caller's cancel flag was set; nothing was changed.
    #[error("cancelled")]
    Cancelled,
    /// A function of the caller has failed.
    #[error("{0}")]
    Callback(std::sync::Arc<dyn std::error::Error + Send + Sync>),
    /// Wraps an error whose variant has no text to prepend the place to. [`Error::kind`] gives that error.
    #[error("{place}: {error}")]
    At {
        /// A file, or an item of the input such as `sequences[1]`.
        place: String,
        /// What went wrong there.
        error: Box<Error>,
    },
}

fn context_advice(n_ctx: usize, model_max: usize) -> String {
    if n_ctx < model_max {
        format!("shorten the input, or open the engine with a larger n_ctx (at most {model_max} for this model)")
    } else {
        "shorten the input: the model was trained for no more".into()
    }
}

impl Error {
    /// The same error with the place where it was found in front of its message.
    pub fn at(self, place: impl Display) -> Error {
        let placed = |message: String| format!("{place}: {message}");
        match self {
            Error::Unsupported(message) => Error::Unsupported(placed(message)),
            Error::Model(message) => Error::Model(placed(message)),
            Error::Template(message) => Error::Template(placed(message)),
            Error::Argument(message) => Error::Argument(placed(message)),
            // These are about the engine or the call as a whole.
            Error::Closed | Error::Cancelled | Error::Callback(_) | Error::Thread { .. } => self,
            other => Error::At { place: place.to_string(), error: Box::new(other) },
        }
    }

    /// The same error with the file's path in front, unless it stands there already.
    pub fn of_file(self, path: &Path) -> Error {
        if self.to_string().starts_with(&format!("{}: ", path.display())) { self } else { self.at(path.display()) }
    }

    /// The error itself, without the places that [`Error::at`] put around it.
    pub fn kind(&self) -> &Error {
        if let Error::At { error, .. } = self { error.kind() } else { self }
    }
}

/// By hand, since `std::io::Error` cannot be cloned: its copy has the same code, kind and message.
impl Clone for Error {
    fn clone(&self) -> Error {
        match self {
            Error::NotFound { path } => Error::NotFound { path: path.clone() },
            Error::Io { path, source } => {
                let source = match source.raw_os_error() {
                    Some(code) => std::io::Error::from_raw_os_error(code),
                    None => std::io::Error::new(source.kind(), source.to_string()),
                };
                Error::Io { path: path.clone(), source }
            }
            Error::File { path, reason } => Error::File { path: path.clone(), reason: reason.clone() },
            Error::Unsupported(message) => Error::Unsupported(message.clone()),
            Error::Model(message) => Error::Model(message.clone()),
            Error::Template(message) => Error::Template(message.clone()),
            Error::Receipt { gate, what } => Error::Receipt { gate: gate.clone(), what: what.clone() },
            Error::Argument(message) => Error::Argument(message.clone()),
            &Error::Context { needed, n_ctx, model_max } => Error::Context { needed, n_ctx, model_max },
            &Error::TokenId { id, position, n_vocab } => Error::TokenId { id, position, n_vocab },
            &Error::Memory { bytes } => Error::Memory { bytes },
            Error::Thread { name, reason } => Error::Thread { name: name.clone(), reason: reason.clone() },
            Error::Closed => Error::Closed,
            Error::Cancelled => Error::Cancelled,
            Error::Callback(error) => Error::Callback(error.clone()),
            Error::At { place, error } => Error::At { place: place.clone(), error: error.clone() },
        }
    }
}

/// Result with the core's error.
pub type Result<T> = std::result::Result<T, Error>;
