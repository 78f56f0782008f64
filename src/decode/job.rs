//! A step on its way through the queue.

use super::step::{Step, Task};
use crate::error::{Error, Result};
use crate::machine::clock::Instant;
use std::time::Duration;

/// A step in the queue.
pub(super) struct Job {
    /// Tells jobs apart.
    pub number: u64,
    /// Who asked for it.
    pub client: u64,
    key: usize,
    /// The rows that it took when it was added.
    rows: usize,
    /// The step itself.
    pub step: Step,
    /// The time from when it came to the end of its last pass, and where the rest begins.
    pub spent: Duration,
    pub since: Instant,
    /// The job whose prompt begins alike, and the length of what they share: this one waits until that is computed.
    pub follows: Option<(u64, usize)>,
    /// Whether it has looked for such a job.
    pub has_looked: bool,
    /// Why it has failed, if it has.
    pub result: Result<()>,
}

/// A step that has ended.
pub struct Done {
    /// The number that the caller gave it.
    pub key: usize,
    /// The step, with what it has computed; after an error with what was computed before.
    pub step: Step,
    /// Whether it has succeeded.
    pub result: Result<()>,
    /// The rows that it took when it was added.
    pub(super) rows: usize,
}

impl Job {
    /// A step that has just come.
    pub fn new(number: u64, client: u64, key: usize, step: Step, now: Instant) -> Job {
        let rows = step.pending().len();
        let (spent, result) = (Duration::ZERO, Ok(()));
        Job { number, client, key, rows, step, spent, since: now, follows: None, has_looked: false, result }
    }

    /// Ends it before it is done.
    pub fn cancelled(self) -> Done {
        Job { result: Err(Error::Cancelled), ..self }.done()
    }

    /// Ends it.
    pub fn done(mut self) -> Done {
        self.step.end();
        if let Task::Token(generation) = &mut self.step.task {
            generation.count(self.spent);
        }
        Done { key: self.key, rows: self.rows, step: self.step, result: self.result }
    }
}

impl Done {
    /// A step that never came into the queue.
    pub(super) fn refused(key: usize, step: Step, error: Error) -> Done {
        Done { key, rows: step.pending().len(), step, result: Err(error) }
    }
}
