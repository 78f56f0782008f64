//! Answers that one caller has computed together: each pass advances all of them.

use super::shared_stream::{Next, SharedStream};
use crate::decode::Steps;
use crate::engine::{Engine, Piece, Watch};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Answers under way. Dropping it ends them.
pub struct Together {
    steps: Steps,
    live: BTreeMap<usize, Arc<SharedStream>>,
    /// Those that have ended or failed, and were not returned yet.
    ended: VecDeque<(usize, Result<()>)>,
}

impl Together {
    /// No answers yet.
    pub fn new(engine: &Engine) -> Together {
        Together { steps: Steps::new(engine.runtime()), live: BTreeMap::new(), ended: VecDeque::new() }
    }

    /// How many answers are under way.
    #[expect(clippy::len_without_is_empty, reason = "nothing asks whether it is empty")]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Adds an answer; `key` tells it apart from the others. `take` gets its pieces that are ready. An error if somebody
    /// else is pulling it.
    pub fn add(&mut self, key: usize, stream: Arc<SharedStream>, take: &mut dyn FnMut(usize, Piece)) -> Result<()> {
        stream.claim()?;
        self.live.insert(key, stream);
        self.advance(key, take);
        Ok(())
    }

    /// Goes on until an answer has ended or failed, and returns its key; `None` if no answers are left. `take` gets all
    /// pieces on the way.
    pub fn next(&mut self, watch: &mut Watch, take: &mut dyn FnMut(usize, Piece)) -> Option<(usize, Result<()>)> {
        while self.ended.is_empty() && !self.live.is_empty() {
            let done = self.steps.wait(watch);
            if done.is_empty() {
                let key = *self.live.keys().next().expect("some are under way");
                let other = "the answers were begun in the process that forked this one off; begin them here";
                self.ended.push_back((key, Err(Error::Argument(other.into()))));
            }
            for done in done {
                let key = done.key;
                match self.live[&key].end_step(done) {
                    Ok(()) => self.advance(key, take),
                    Err(error) => self.ended.push_back((key, Err(error))),
                }
            }
        }
        let ended = self.ended.pop_front();
        if let Some(stream) = ended.as_ref().and_then(|(key, _)| self.live.remove(key)) {
            stream.release();
        }
        ended
    }

    /// Takes the pieces of an answer that are ready, and asks for its next step.
    fn advance(&mut self, key: usize, take: &mut dyn FnMut(usize, Piece)) {
        loop {
            match self.live[&key].poll() {
                Next::Piece(piece) => take(key, piece),
                Next::Step(step) => return self.steps.add(key, *step),
                Next::Ended => return self.ended.push_back((key, Ok(()))),
            }
        }
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        for done in self.steps.cancel() {
            let _ = self.live[&done.key].end_step(done);
        }
        for stream in self.live.values() {
            stream.release();
            stream.cancel();
        }
    }
}
