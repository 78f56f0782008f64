//! A parser whose work ends, even where a grammar forces text without an end.
//!
//! llguidance collects the bytes that have to come next. A rule such as `start: /a+/ start`, or an expression that takes
//! what the next one needs, forces bytes for ever; no static check finds all of these. So a thread looks at the parsers
//! that are at work, and cancels one that is for too long: its answer ends with an error. Other work takes milliseconds
//! (the limits in `mod.rs`), so no other answer depends on the clock, unless the whole process is halted meanwhile.

use crate::machine::clock::Instant;
use llguidance::{CancellationHandle, Matcher};
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// The longest work of a parser.
const MOST: Duration = Duration::from_secs(5);
/// How often the thread looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// The time from which [`Work::since`] counts.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);
/// What parsers are doing.
static ALL: Mutex<Vec<Weak<Work>>> = Mutex::new(Vec::new());
/// The process whose thread looks at them: one that was forked off has none of its parent's threads.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// What a parser is doing.
struct Work {
    /// When its work began, in milliseconds, at least 1; 0 while it waits.
    since: AtomicU64,
    handle: CancellationHandle,
}

/// A matcher that is cancelled if a call of [`Watched::run`] takes too long.
pub(super) struct Watched {
    matcher: Matcher,
    work: Arc<Work>,
}

impl Watched {
    pub(super) fn new(matcher: Matcher) -> Watched {
        let matcher = matcher.into_cancellable();
        let handle = matcher.cancellation_handle().expect("it can be cancelled");
        let work = Arc::new(Work { since: AtomicU64::new(0), handle });
        // WebAssembly has no threads, and nobody who would look.
        if !cfg!(target_family = "wasm") {
            ALL.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&work));
            look_after_all();
        }
        Watched { matcher, work }
    }

    /// Lets the parser work.
    pub(super) fn run<T>(&mut self, work: impl FnOnce(&mut Matcher) -> T) -> T {
        self.work.since.store(1 + START.elapsed().as_millis() as u64, Relaxed);
        let done = work(&mut self.matcher);
        self.work.since.store(0, Relaxed);
        done
    }
}

impl Clone for Watched {
    fn clone(&self) -> Watched {
        Watched::new(self.matcher.clone())
    }
}

impl Deref for Watched {
    type Target = Matcher;

    fn deref(&self) -> &Matcher {
        &self.matcher
    }
}

/// Starts the thread, once in a process.
fn look_after_all() {
    if PROCESS.swap(std::process::id(), Relaxed) == std::process::id() {
        return;
    }
    let look = || loop {
        thread::sleep(INTERVAL);
        let now = START.elapsed().as_millis() as u64;
        ALL.lock().unwrap_or_else(PoisonError::into_inner).retain(|work| {
            let Some(work) = work.upgrade() else { return false };
            let since = work.since.load(Relaxed);
            if since > 0 && now.saturating_sub(since) > MOST.as_millis() as u64 {
                work.handle.cancel();
            }
            true
        });
    };
    // Without a thread, grammars work as long as they do.
    _ = thread::Builder::new().name("bitnet-grammars".into()).spawn(look);
}
