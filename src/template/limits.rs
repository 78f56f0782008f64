//! The limits of a rendering. Templates come from files of strangers, so their size, steps, time, depth and texts are
//! bounded.

use minijinja::{Error, ErrorKind};
use std::time::{Duration, Instant};

/// The longest source in bytes. Parsing recurses, so this bounds its depth as well.
pub(super) const MAX_SOURCE: usize = 128 << 10;
/// Bytes of the stack of a rendering's thread. Memory is taken only as far as the stack grows. It is large because
/// minijinja parses, compares and drops nested values recursively.
pub(super) const STACK: usize = 256 << 20;
/// The most steps of one rendering, in minijinja's units. A step can produce at most 64 bytes.
pub(super) const FUEL: u64 = 6_000_000;
/// The longest text in bytes.
pub(super) const MAX_BYTES: usize = 16 << 20;
/// The most lists and dicts inside one another.
pub(super) const MAX_DEPTH: usize = 128;
/// The longest time of one rendering. Fuel is not enough, because minijinja charges none for comparing long texts.
const MAX_TIME: Duration = Duration::from_secs(5);

/// The error for something that a template may not do.
pub(super) fn refusal(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.into())
}

/// The error for values that are nested too deeply.
pub(super) fn too_deep() -> Error {
    refusal(format!("values are nested too deeply, expected at most {MAX_DEPTH} lists and dicts inside one another"))
}

/// An error if the rendering on this thread takes too long. Each rendering has a thread of its own, whose clock starts
/// with the first check.
pub(super) fn check_time() -> Result<(), Error> {
    thread_local!(static START: Instant = Instant::now());
    let late = || refusal(format!("rendering takes longer than {} s", MAX_TIME.as_secs()));
    if START.with(Instant::elapsed) > MAX_TIME { Err(late()) } else { Ok(()) }
}
