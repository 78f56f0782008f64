//! Starts threads. A system that refuses one, because of a limit on processes or no memory for a stack, is an error
//! that leaves everything as it was. Everything that needs a thread gets it here.

use crate::error::{Error, Result, Watch};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{Builder, JoinHandle, scope};
use std::time::Duration;

/// How often a watch is called.
const INTERVAL: Duration = Duration::from_millis(20);

/// Starts a thread that runs `work`.
pub fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    Builder::new().name(name.into()).spawn(work).map_err(|source| refused(name, source))
}

/// Runs `work` on a thread with a stack of `stack` bytes, and waits for its result. A panic goes on in the caller. The
/// flag that `work` takes is set once `watch` cancels it.
pub fn on_stack<T: Send>(
    name: &str,
    stack: usize,
    watch: &mut Watch,
    work: impl FnOnce(&Arc<AtomicBool>) -> T + Send,
) -> Result<T> {
    let builder = Builder::new().name(name.into()).stack_size(stack);
    let cancelled = Arc::new(AtomicBool::new(false));
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
