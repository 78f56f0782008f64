//! Many independent steps of one caller, computed in shared passes.

use super::{Engine, Watch};
use crate::decode::{Step, Steps};
use crate::error::Result;

/// Bytes of recurrent states that the sequences of one caller may take together.
const MAX_STATE_BYTES: usize = 1 << 30;

impl Engine {
    /// How many sequences one caller should have in work at once.
    pub fn max_together(&self) -> usize {
        let most = MAX_STATE_BYTES / self.runtime.model.state_bytes().max(1);
        self.max_batch().min(most).max(1)
    }

    /// Computes `count` steps, as many at once as fill passes; `take` gets each when it has ended. The first error ends
    /// all.
    pub(super) fn run_all(
        &self,
        count: usize,
        mut make: impl FnMut(usize) -> Result<Step>,
        mut take: impl FnMut(usize, Step),
        watch: &mut Watch,
    ) -> Result<()> {
        let mut steps = Steps::new(&self.runtime);
        let most = self.max_together();
        let mut next = 0;
        loop {
            while next < count && steps.len() < most && steps.rows() < 2 * self.n_batch() {
                let step = make(next)?;
                if step.is_empty() {
                    take(next, step)
                } else {
                    steps.add(next, step)
                }
                next += 1;
            }
            if steps.is_empty() {
                return Ok(());
            }
            for done in steps.wait(watch) {
                done.result?;
                take(done.key, done.step);
            }
        }
    }
}
