//! One forward pass of several steps, and what becomes of its outputs.

use super::job::Job;
use super::schedule::Limits;
use super::step::{Collecting, output_len, split};
use super::{Runtime, Sequence, Step, Watch};
use crate::error::{Error, Result};
use crate::kernel::Team;
use crate::machine::pool::Workers;
use crate::model::{KvCache, LogitsFor, Outputs, Row, Trace};
use crate::token::TokenId;
use std::sync::atomic::{AtomicBool, Ordering};

/// A pass that reads fewer bytes of weights than this, counted once a row, runs on the caller's thread: it ends before
/// other threads would wake up.
const SMALL_PASS: usize = 4 << 20;

/// Computes some rows of each job, and notes whose failed. `give_up` is asked every 50 ms and ends the pass.
pub(super) fn pass(runtime: &Runtime, jobs: &mut [(Job, usize)], give_up: &mut Watch) {
    let Err(error) = compute(runtime, jobs, give_up) else { return };
    if matches!(error, Error::Cancelled) || jobs.len() == 1 {
        jobs.iter_mut().for_each(|(job, _)| job.result = Err(error.clone()));
        return;
    }
    // The fault of one of them must not be that of the others, so that each gets a pass of its own.
    for i in 0..jobs.len() {
        let alone = &mut jobs[i..i + 1];
        if let Err(error) = compute(runtime, alone, give_up) {
            alone[0].0.result = Err(error);
        }
    }
}

fn compute(runtime: &Runtime, jobs: &mut [(Job, usize)], give_up: &mut Watch) -> Result<()> {
    let n_rows = jobs.iter().map(|(_, rows)| rows).sum();
    let counts: Vec<usize> = jobs.iter().map(|(_, rows)| *rows).collect();
    let (mut sequences, mut tasks, mut results) = (Vec::new(), Vec::new(), Vec::new());
    for (Job { step: Step { sequence, task }, result, .. }, rows) in jobs {
        runtime.check_context(sequence.ids().len() + *rows)?;
        sequences.push(sequence);
        tasks.push(task);
        results.push(result);
    }
    let computed: Vec<usize> = sequences.iter().map(|sequence| sequence.ids().len()).collect();
    let config = runtime.model.config();
    run(runtime, n_rows, give_up, |team, cancel| {
        let (mut outputs, ids, lens) = {
            let thresholds = tasks.iter().zip(&computed).zip(&counts).map(|((task, at), n)| task.thresholds(*at, *n));
            let thresholds: Vec<_> = thresholds.collect();
            let rows = tasks.iter().enumerate().map(|(i, task)| task.rows(computed[i], i, counts[i], &thresholds[i]));
            let rows: Vec<Vec<Row>> = rows.map(Iterator::collect).collect();
            let lens = rows.iter().map(|rows| output_len(rows, config.vocab_size, config.hidden_size));
            let lens: Vec<(usize, usize)> = lens.collect();
            let rows = rows.concat();
            let ids: Vec<TokenId> = rows.iter().map(|row| row.id).collect();
            (forward(runtime, team, &mut sequences, &rows, None, cancel)?, ids, lens)
        };
        let mut ids = &ids[..];
        let mut left: Vec<Collecting> = Vec::new();
        let parts = sequences.iter_mut().zip(&mut tasks).zip(split(&mut outputs, &lens)).zip(&counts).zip(&mut results);
        for ((((sequence, task), outputs), n), result) in parts {
            let (own, rest) = ids.split_at(*n);
            sequence.ids.extend_from_slice(own);
            ids = rest;
            left.extend(task.collect(*n, outputs, config.vocab_size, result));
        }
        team.for_each_chunk(&mut left, 1, |_, left| left[0].run());
        drop(left);
        for ((sequence, task), result) in sequences.iter().zip(tasks).zip(results) {
            *result = std::mem::replace(result, Ok(())).and_then(|()| task.settle(sequence.ids.len()));
        }
        Ok(())
    })
}

/// Runs a job of `n_rows` rows on the engine's threads, or a small one on the caller's. Cancelled by `watch`.
fn run<T: Send>(
    runtime: &Runtime,
    n_rows: usize,
    watch: &mut Watch,
    job: impl FnOnce(&Team, &AtomicBool) -> Result<T> + Send,
) -> Result<T> {
    let cancel = AtomicBool::new(false);
    let job = |workers: &Workers| job(&Team::new(workers, runtime.kernels), &cancel);
    let done = if n_rows * runtime.model.weight_bytes() < SMALL_PASS {
        runtime.pool.run_here(job)
    } else {
        let look = || cancel.fetch_or(watch(), Ordering::Relaxed) || cancel.load(Ordering::Relaxed);
        runtime.pool.run_watched(job, look).unwrap_or(Err(Error::Cancelled))
    };
    done.map_err(|error| error.of_file(runtime.model.gguf().path()))
}

fn forward(
    runtime: &Runtime,
    team: &Team,
    sequences: &mut [&mut Sequence],
    rows: &[Row],
    trace: Option<&mut Trace>,
    cancel: &AtomicBool,
) -> Result<Outputs> {
    let mut caches: Vec<&mut KvCache> = sequences.iter_mut().map(|sequence| &mut sequence.cache).collect();
    let mut own = Default::default();
    let mut kept = runtime.scratch.try_lock();
    let scratch = kept.as_deref_mut().unwrap_or(&mut own);
    runtime.model.forward(team, &mut caches, rows, scratch, trace, cancel)
}

impl Runtime {
    /// The limits of a pass.
    pub(super) fn limits(&self) -> Limits {
        let decode_rows = self.max_batch.min(self.n_batch);
        Limits { rows: self.n_batch, decode_rows, is_awaited: false, prompts_first: false }
    }

    fn check_context(&self, len: usize) -> Result<()> {
        if len > self.n_ctx { Err(self.context_error(len)) } else { Ok(()) }
    }

    /// The logits after every id of a new sequence. Records what the passes compute.
    pub fn traced(
        &self,
        mut sequence: Sequence,
        ids: &[TokenId],
        trace: &mut Trace,
        watch: &mut Watch,
    ) -> Result<Vec<f32>> {
        self.check_process()?;
        let mut logits = Vec::new();
        for ids in ids.chunks(self.n_batch) {
            if watch() {
                return Err(Error::Cancelled);
            }
            let rows: Vec<Row> = ids.iter().map(|id| Row { sequence: 0, id: *id, logits: LogitsFor::All }).collect();
            let outputs = run(self, rows.len(), watch, |team, cancel| {
                forward(self, team, &mut [&mut sequence], &rows, Some(trace), cancel)
            })?;
            sequence.ids.extend_from_slice(ids);
            logits.extend(outputs.logits);
        }
        Ok(logits)
    }
}
