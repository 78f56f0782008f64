//! The limits of a rendering. Templates come from files of strangers, so their size, depth, work and memory are
//! bounded.
//!
//! Work and memory are budgets that grow with the size of the input. Everything that walks, copies, compares or builds
//! values pays for it before it does it. So a list that contains itself a thousand times over, or a loop without an
//! end, ends in an error soon. Memory that becomes free is not given back to the budget.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The longest source in bytes.
pub const MAX_SOURCE: usize = 128 << 10;
/// The deepest nesting of brackets and blocks in a source.
pub const MAX_NESTING: usize = 100;
/// The most lists, dicts and generators inside one another. Values are compared, printed and freed recursively.
pub const MAX_DEPTH: u32 = 128;
/// The most calls of the evaluator inside one another.
pub const MAX_CALLS: u32 = 1500;
/// Bytes of the stack of a rendering's thread. Memory is taken only as far as the stack grows.
pub const STACK: usize = 64 << 20;
/// The most items of a range, as in Jinja2's sandbox.
pub const MAX_RANGE: i128 = 100_000;

/// Steps that every rendering may take.
const WORK: u64 = 6_000_000;
/// Steps for each byte of the input.
const WORK_PER_BYTE: u64 = 24;
/// Bytes that every rendering may build.
const MEMORY: u64 = 40 << 20;
/// Bytes for each byte of the input.
const MEMORY_PER_BYTE: u64 = 256;
/// Bytes that are copied, compared or searched in one step.
const BYTES_PER_STEP: usize = 16;
/// Bytes of an item of a list.
pub const ITEM: usize = 32;
/// Variables that are looked at in one step.
const VARIABLES_PER_STEP: usize = 32;
/// Bytes of characters that are looked at one by one in one step.
const CHARS_PER_STEP: usize = 2;

/// Why a template fails, without its line.
#[derive(Debug)]
pub struct Fault(pub String);

/// The result of anything that a template does.
pub type Res<T> = Result<T, Fault>;

impl<T: Into<String>> From<T> for Fault {
    fn from(what: T) -> Fault {
        Fault(what.into())
    }
}

/// A text of any length as an error shows it.
pub fn brief(text: &str) -> String {
    const SHOWN: usize = 200;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// An error with this text.
pub fn fail<T>(what: impl Into<String>) -> Res<T> {
    Err(Fault(what.into()))
}

/// What one rendering may still use.
#[derive(Debug)]
pub struct Budget {
    cancelled: Arc<AtomicBool>,
    work: Cell<u64>,
    memory: Cell<u64>,
}

impl Budget {
    /// The budget of a rendering whose source, messages and other values have this many bytes. It is used up once
    /// `cancelled` is set.
    pub fn new(input: usize, cancelled: Arc<AtomicBool>) -> Budget {
        let scaled = |base: u64, each: u64| base.saturating_add(each.saturating_mul(input as u64));
        Budget::of(scaled(WORK, WORK_PER_BYTE), scaled(MEMORY, MEMORY_PER_BYTE), cancelled)
    }

    /// A budget of so many steps and bytes.
    pub fn of(work: u64, memory: u64, cancelled: Arc<AtomicBool>) -> Budget {
        Budget { cancelled, work: Cell::new(work), memory: Cell::new(memory) }
    }

    /// Pays for steps.
    pub fn work(&self, steps: usize) -> Res<()> {
        match self.work.get().checked_sub(steps as u64) {
            Some(_) if self.cancelled.load(Relaxed) => fail("rendering was cancelled"),
            Some(left) => {
                self.work.set(left);
                Ok(())
            }
            None => fail("rendering takes too many steps, as in an endless loop"),
        }
    }

    /// Pays for looking at so many variables, to find one.
    pub fn variables(&self, count: usize) -> Res<()> {
        self.work(count / VARIABLES_PER_STEP)
    }

    /// Pays for comparing or searching this many bytes.
    pub fn scan(&self, bytes: usize) -> Res<()> {
        self.work(1 + bytes / BYTES_PER_STEP)
    }

    /// Pays for looking at the characters of a text of this many bytes.
    pub fn chars(&self, bytes: usize) -> Res<()> {
        self.work(1 + bytes / CHARS_PER_STEP)
    }

    /// Pays for building a text of this many bytes.
    pub fn build(&self, bytes: usize) -> Res<()> {
        self.scan(bytes)?;
        self.take(bytes)
    }

    /// Pays for a list of this many items.
    pub fn items(&self, count: usize) -> Res<()> {
        self.work(1 + count)?;
        self.take(count.saturating_mul(ITEM))
    }

    /// The bytes that a text may still have, to be asked before a long one is built.
    pub fn left(&self) -> usize {
        let by_work = self.work.get().saturating_mul(BYTES_PER_STEP as u64);
        usize::try_from(self.memory.get().min(by_work)).unwrap_or(usize::MAX)
    }

    fn take(&self, bytes: usize) -> Res<()> {
        match self.memory.get().checked_sub(bytes as u64) {
            Some(left) => {
                self.memory.set(left);
                Ok(())
            }
            None => fail("the template builds texts and lists that are too long"),
        }
    }
}

impl From<super::text::Fault> for Fault {
    fn from(fault: super::text::Fault) -> Fault {
        use super::text::Fault as TextFault;
        match fault {
            TextFault::TooLong => Fault("the template builds texts and lists that are too long".into()),
            TextFault::Raised(_, what) | TextFault::Unsupported(what) => Fault(what),
        }
    }
}
