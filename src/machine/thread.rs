//! Starts threads. A system that refuses one, because of a limit on processes or no memory for a stack, is an error
//! that leaves everything as it was. Everything that needs a thread gets it here.

use crate::error::{Error, Result, Watch};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{Builder, JoinHandle, scope};
use std::time::Duration;

/// Whether the system starts threads. WebAssembly does not: there work is done at once, by its caller.
pub const HAS_THREADS: bool = !cfg!(target_family = "wasm");

/// How often a watch is called.
const INTERVAL: Duration = Duration::from_millis(20);

/// Starts a thread that runs `work`.
pub fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    Builder::new().name(name.into()).spawn(work).map_err(|source| refused(name, source))
}

/// Work beside its caller. Without threads it is done before the caller goes on.
pub enum Background<T> {
    /// On a thread of its own.
    Running(JoinHandle<T>),
    /// Done already.
    Done(T),
}

impl<T: Send + 'static> Background<T> {
    /// Starts `work`.
    pub fn start(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<Background<T>> {
        if HAS_THREADS { spawn(name, work).map(Background::Running) } else { Ok(Background::Done(work())) }
    }

    /// Whether `join` need not wait.
    pub fn is_finished(&self) -> bool {
        match self {
            Background::Running(thread) => thread.is_finished(),
            Background::Done(_) => true,
        }
    }

    /// Waits for the result; an error if the work panicked.
    pub fn join(self) -> std::thread::Result<T> {
        match self {
            Background::Running(thread) => thread.join(),
            Background::Done(result) => Ok(result),
        }
    }
}

/// Runs `work` on a thread with a stack of `stack` bytes, and waits for its result. A panic goes on in the caller. The
/// flag that `work` takes is set once `watch` cancels it. Without threads, `work` runs on the stack of the caller, and
/// nothing cancels it.
pub fn on_stack<T: Send>(
    name: &str,
    stack: usize,
    watch: &mut Watch,
    work: impl FnOnce(&Arc<AtomicBool>) -> T + Send,
) -> Result<T> {
    let cancelled = Arc::new(AtomicBool::new(false));
    if !HAS_THREADS {
        return Ok(work(&cancelled));
    }
    let builder = Builder::new().name(name.into()).stack_size(stack);
    let (running, ended) = channel::<()>();
    scope(|scope| {
        let run = || {
            let _running = running; // dropped at the end, which ends the wait below
            work(&cancelled)
        };
        let thread = builder.spawn_scoped(scope, run).map_err(|source| refused(name, source))?;
        while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
            cancelled.fetch_or(watch(), Relaxed);
        }
        let done = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        if cancelled.load(Relaxed) { Err(Error::Cancelled) } else { Ok(done) }
    })
}

fn refused(name: &str, source: std::io::Error) -> Error {
    Error::Thread { name: name.into(), reason: source.to_string() }
}

#[cfg(test)]
#[path = "../../tests/unit/thread.rs"]
mod tests;
