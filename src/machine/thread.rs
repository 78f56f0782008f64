//! Starts threads. A system that refuses one, because of a limit on processes or no memory for a stack, is an error
//! that leaves everything as it was. Everything that needs a thread gets it here.

use crate::error::{Error, Result};
use std::panic::resume_unwind;
use std::thread::{Builder, JoinHandle, scope};

/// Starts a thread that runs `work`.
pub fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    Builder::new().name(name.into()).spawn(work).map_err(|source| refused(name, source))
}

/// Runs `work` on a thread with a stack of `stack` bytes, and waits for its result. A panic goes on in the caller.
pub fn on_stack<T: Send>(name: &str, stack: usize, work: impl FnOnce() -> T + Send) -> Result<T> {
    let builder = Builder::new().name(name.into()).stack_size(stack);
    scope(|scope| {
        let thread = builder.spawn_scoped(scope, work).map_err(|source| refused(name, source))?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

fn refused(name: &str, source: std::io::Error) -> Error {
    Error::Thread { name: name.into(), reason: source.to_string() }
}

#[cfg(test)]
#[path = "../../tests/unit/thread.rs"]
mod tests;
