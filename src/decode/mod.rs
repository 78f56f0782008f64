//! Sequences of ids and generations: ids in, logits and ids out. Knows no text.

mod batcher;
mod draft;
mod drafted;
mod form;
mod generation;
mod job;
mod lookup;
mod pace;
mod pass;
mod prefix_cache;
mod schedule;
mod sequence;
mod share;
mod step;
mod token;

pub use crate::error::Watch;
pub use batcher::{Batcher, Steps};
pub use generation::{ChangeLogits, Generation, Guessing, Times};
pub use job::Done;
pub use prefix_cache::PrefixCache;
pub use sequence::Sequence;
use sequence::common;
pub use step::{Extension, Likelihood, Output, Step, Task, TokenScore};
pub use token::{Finish, Token};

use crate::error::{Error, Result};
use crate::kernel::Kernels;
use crate::machine::pool::Pool;
use crate::model::{Model, Scratch};
use crate::token::TokenId;
use std::sync::{Arc, Mutex};

/// The most logits of one step that checks a draft.
const DRAFT_LOGITS: usize = 16 << 20;

/// A model with the threads and kernels that compute it.
pub struct Runtime {
    /// The loaded model; all sequences share it.
    pub model: Model,
    /// The kernels of the engine's instruction set.
    pub kernels: &'static Kernels,
    /// The engine's threads, which run one pass at a time.
    pub pool: Pool,
    /// The most positions that one sequence may have.
    pub n_ctx: usize,
    /// The most rows of one forward pass.
    pub n_batch: usize,
    /// The most rows of a pass that decode: how many answers advance together.
    pub max_batch: usize,
    /// Buffers for one pass; a pass that finds them in use allocates its own.
    pub scratch: Mutex<Scratch>,
    /// The steps that wait for a pass.
    pub batcher: Batcher,
}

impl Runtime {
    /// Checks that ids from `position` on fit the context and are in the vocabulary.
    pub fn check_ids(&self, ids: &[TokenId], position: usize) -> Result<()> {
        if position + ids.len() > self.n_ctx {
            return Err(self.context_error(position + ids.len()));
        }
        self.check_vocabulary(ids)
    }

    fn context_error(&self, needed: usize) -> Error {
        Error::Context { needed, n_ctx: self.n_ctx, model_max: self.model.config().context }
    }

    /// Checks that ids, however many, are in the vocabulary.
    pub fn check_vocabulary(&self, ids: &[TokenId]) -> Result<()> {
        let n_vocab = self.model.config().vocab_size;
        match ids.iter().position(|id| *id as usize >= n_vocab) {
            Some(position) => Err(Error::TokenId { id: ids[position].into(), position, n_vocab }),
            None => Ok(()),
        }
    }

    /// Checks that the engine's threads run in this process.
    fn check_process(&self) -> Result<()> {
        if self.pool.is_here() {
            return Ok(());
        }
        Err(Error::Argument(
            "the engine was opened in the process that forked this one off, where its threads stayed; open an engine in \
             this process, or start processes by 'spawn'"
                .into(),
        ))
    }

    /// Computes a step, together with those of other callers.
    pub fn run(self: &Arc<Self>, step: Step, watch: &mut Watch) -> Done {
        let mut steps = Steps::new(self);
        steps.add(0, step);
        steps.wait(watch).pop().expect("the step that was added")
    }

    /// Appends ids to a sequence, and returns what was collected. An error keeps the passes before it.
    pub fn extend(
        self: &Arc<Self>,
        sequence: &mut Sequence,
        extension: Extension,
        watch: &mut Watch,
    ) -> Result<Output> {
        if extension.is_empty() {
            return Ok(extension.output);
        }
        let empty = sequence.new_like();
        let done = self.run(Step::extend(std::mem::replace(sequence, empty), extension), watch);
        *sequence = done.step.sequence;
        let Task::Extend(extension) = done.step.task else { unreachable!("the task that was given") };
        done.result.map(|()| extension.output)
    }

    /// The next token of an answer; `None` once it has ended. After an error it can be called again.
    pub fn next(
        self: &Arc<Self>,
        sequence: &mut Sequence,
        generation: &mut Generation,
        watch: &mut Watch,
    ) -> Result<Option<Token>> {
        if generation.needs_step() {
            let empty = sequence.new_like();
            let step = Step::token(std::mem::replace(sequence, empty), std::mem::take(generation), self.guessing());
            let done = self.run(step, watch);
            *sequence = done.step.sequence;
            let Task::Token(taken) = done.step.task else { unreachable!("the task that was given") };
            *generation = *taken;
            done.result?;
        }
        Ok(generation.take())
    }

    /// How many ids of a draft one step may check: as many as 64 MiB of logits are.
    pub fn draft_rows(&self) -> usize {
        (DRAFT_LOGITS / self.model.config().vocab_size).clamp(1, self.n_batch)
    }

    /// How steps may guess ids; `None` for models whose sequences cannot drop the last positions again.
    pub fn guessing(&self) -> Option<Guessing> {
        let rows = self.max_batch.min(self.n_batch);
        (self.model.state_bytes() == 0).then(|| Guessing { rows, row_cost: self.batcher.row_cost() })
    }

    /// Says that an answer takes no further step, although its last one did not end it.
    pub fn forget(&self, generation: &Generation) {
        if self.pool.is_here() {
            self.batcher.forget(generation.pace.id);
        }
    }
}
