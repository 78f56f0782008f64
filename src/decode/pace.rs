//! How quickly answers come back for their next step. The engine waits a moment for those that come back quickly, so
//! that they share a pass again.

use crate::machine::clock::Instant;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The pace of one answer.
#[derive(Default)]
pub(super) struct Pace {
    /// Tells answers apart.
    pub id: u64,
    /// When its last step ended.
    ended: Option<Instant>,
    /// Whether it came back late after its last step.
    is_late: bool,
}

impl Pace {
    /// The pace of a new answer: of an unknown one the best is assumed.
    pub fn new() -> Pace {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Pace { id: NEXT.fetch_add(1, Relaxed), ..Pace::default() }
    }
}

/// Answers that have got an id and have not come back for the next one.
#[derive(Default)]
pub(super) struct Returning {
    answers: Vec<Away>,
    /// The time of the last pass.
    pass: Duration,
    /// When it ended.
    ended: Option<Instant>,
}

struct Away {
    id: u64,
    since: Instant,
    is_late: bool,
}

/// The share of a pass that answers are waited for after it.
const WAIT_SHARE: u32 = 4;
/// They are never waited for longer than this.
const MAX_WAIT: Duration = Duration::from_millis(20);
/// An answer that stays away for this long, or for this many passes, is no longer counted as under way.
const AWAY: (Duration, u32) = (Duration::from_secs(1), 8);

impl Returning {
    /// Notes that a pass has ended after `pass`.
    pub fn end_pass(&mut self, now: Instant, pass: Duration) {
        (self.pass, self.ended) = (pass, Some(now));
        let most = AWAY.0.max(pass * AWAY.1);
        self.answers.retain(|away| now - away.since < most);
    }

    /// Notes that an answer has left with an id, and will want another.
    pub fn leave(&mut self, pace: &mut Pace, now: Instant) {
        pace.ended = Some(now);
        self.answers.push(Away { id: pace.id, since: now, is_late: pace.is_late });
    }

    /// Notes that an answer has come back.
    pub fn come_back(&mut self, pace: &mut Pace, now: Instant) {
        self.forget(pace.id);
        if let Some(ended) = pace.ended.take() {
            pace.is_late = now - ended > self.patience();
        }
    }

    /// Notes that an answer will not come back.
    pub fn forget(&mut self, id: u64) {
        self.answers.retain(|away| away.id != id);
    }

    /// Whether answers are under way that do not wait for a pass at this moment.
    pub fn any(&self) -> bool {
        !self.answers.is_empty()
    }

    fn patience(&self) -> Duration {
        (self.pass / WAIT_SHARE).min(MAX_WAIT)
    }

    /// How long to wait for answers that left with the last pass and may be back in a moment; `None` if there are none.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        let ended = self.ended?;
        let expected = self.answers.iter().any(|away| away.since == ended && !away.is_late);
        (ended + self.patience()).checked_duration_since(now).filter(|left| expected && !left.is_zero())
    }
}
