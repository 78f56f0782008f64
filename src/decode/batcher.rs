//! Continuous batching: steps that wait when the engine becomes free go into one pass, whoever asked for them.
//!
//! There is no thread for this. A caller puts its steps into the queue. If nobody computes, it computes the next pass
//! itself, with rows of all steps that wait; else it waits until its step is done or the engine is free (flat
//! combining). An answer has the same bits whatever stands beside it in a pass (`docs/numerics.md`).

use super::job::{Done, Job};
use super::pace::Returning;
use super::pass::pass;
use super::schedule::{Costs, Limits, Waiting, plan};
use super::step::{Step, Task};
use super::{Runtime, Watch, share};
use crate::error::Error;
use crate::machine::clock::Instant;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a waiting caller's watch is asked.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);

/// The cost of another row, in times of a pass of one, before it was measured.
const FIRST_ROW_COST: f64 = 0.25;

/// The queue of an engine.
#[derive(Default)]
pub struct Batcher {
    queue: Mutex<Queue>,
    /// Wakes the caller that is about to compute a pass: a step has come.
    arrived: Condvar,
    /// Wakes the callers that wait: a pass has ended.
    ended: Condvar,
    /// [`Batcher::row_cost`] as bits; 0 while unknown.
    row_cost: AtomicU64,
}

#[derive(Default)]
struct Queue {
    /// Steps that wait, in the order in which they came.
    waiting: Vec<Job>,
    /// Steps that are done and wait for their callers.
    finished: Vec<Job>,
    /// Whether a caller is computing a pass.
    is_running: bool,
    /// Callers who have given up while their steps were computed.
    cancelled: Vec<u64>,
    next_number: u64,
    /// Callers that went away without their steps.
    gone: Vec<u64>,
    returning: Returning,
    costs: Costs,
    had_prompts: bool,
    /// Passes so far, and the steps in all of them.
    passes: (u64, u64),
}

/// The steps of one caller. Dropping it withdraws those that are left.
pub struct Steps {
    runtime: Arc<Runtime>,
    client: Option<u64>,
    new: Vec<(usize, Step)>,
    /// How many are in the queue.
    queued: usize,
    /// Rows of all steps under way.
    rows: usize,
}

impl Batcher {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cost of another row beside the answers of the last pass, in times of what one of them costs without it.
    pub(super) fn row_cost(&self) -> f64 {
        match self.row_cost.load(Relaxed) {
            0 => FIRST_ROW_COST,
            bits => f64::from_bits(bits),
        }
    }

    /// Says that an answer will not come back for another step.
    pub(super) fn forget(&self, answer: u64) {
        self.lock().returning.forget(answer);
    }

    /// Passes so far, the steps in all of them, and what the queue holds: steps, and notes of callers who left.
    pub fn counts(&self) -> (u64, u64, usize) {
        let queue = self.lock();
        let held = queue.waiting.len() + queue.finished.len() + queue.cancelled.len() + queue.gone.len();
        (queue.passes.0, queue.passes.1, held)
    }
}

impl Queue {
    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn add(&mut self, client: u64, key: usize, mut step: Step, now: Instant) {
        if let Task::Token(generation) = &mut step.task {
            self.returning.come_back(&mut generation.pace, now);
        }
        let number = self.number();
        self.waiting.push(Job::new(number, client, key, step, now));
    }

    /// Takes the finished steps of a caller out of the queue.
    fn take_finished(&mut self, client: u64) -> Vec<Done> {
        let done: Vec<Job> = self.finished.extract_if(.., |job| job.client == client).collect();
        done.into_iter().map(Job::done).collect()
    }

    /// Takes all steps of a caller that are not in a pass out of the queue.
    fn withdraw(&mut self, client: u64) -> Vec<Done> {
        let mut done = self.take_finished(client);
        let waiting: Vec<Job> = self.waiting.extract_if(.., |job| job.client == client).collect();
        waiting.iter().for_each(|job| share::release(job.number, &mut self.waiting));
        done.extend(waiting.into_iter().map(Job::cancelled));
        done
    }

    /// Takes the steps of the next pass out of the queue, each with its number of rows.
    fn pick(&mut self, limits: Limits) -> Vec<(Job, usize)> {
        share::look(&mut self.waiting);
        let ready = |job: &&mut Job| job.follows.is_none();
        let waiting = self.waiting.iter_mut().filter(ready).map(|job| Waiting {
            client: job.client,
            decodes: job.step.decodes(limits.decode_rows),
            rows: job.step.pending().len(),
        });
        let waiting: Vec<Waiting> = waiting.collect();
        let limits = Limits { is_awaited: self.returning.any(), prompts_first: !self.had_prompts, ..limits };
        let mut rows = plan(&waiting, limits, &self.costs).into_iter();
        let mut picked = Vec::new();
        let jobs = std::mem::take(&mut self.waiting);
        for job in jobs {
            match if job.follows.is_none() { rows.next().unwrap_or(0) } else { 0 } {
                0 => self.waiting.push(job),
                rows => picked.push((job, rows)),
            }
        }
        self.had_prompts = picked.iter().any(|(job, _)| !job.step.decodes(limits.decode_rows));
        picked
    }

    /// Takes the steps of a pass back.
    fn put_back(&mut self, jobs: Vec<Job>, now: Instant) {
        let is_gone = |job: &Job| self.gone.contains(&job.client);
        let (gone, jobs): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(is_gone);
        for job in gone {
            let entry = self.gone.iter().position(|client| *client == job.client);
            entry.map(|entry| self.gone.swap_remove(entry));
            share::release(job.number, &mut self.waiting);
        }
        for mut job in jobs {
            share::hand_over(&job, &mut self.waiting);
            let is_done = job.result.is_err() || job.step.pending().is_empty();
            if job.result.is_ok() {
                job.spent += now - job.since;
                job.since = now;
            }
            if !is_done && !self.cancelled.contains(&job.client) {
                self.waiting.push(job);
                continue;
            }
            if !is_done {
                job.result = Err(Error::Cancelled); // else the next pass may take it before its caller wakes up
            }
            share::release(job.number, &mut self.waiting);
            if let Task::Token(generation) = &mut job.step.task
                && job.result.is_ok()
                && !generation.is_ending()
            {
                self.returning.leave(&mut generation.pace, now);
            }
            self.finished.push(job);
        }
    }
}

impl Steps {
    /// No steps yet.
    pub fn new(runtime: &Arc<Runtime>) -> Steps {
        Steps { runtime: runtime.clone(), client: None, new: Vec::new(), queued: 0, rows: 0 }
    }

    /// Adds a step; `key` tells it apart from the caller's others.
    pub fn add(&mut self, key: usize, step: Step) {
        self.rows += step.pending().len();
        self.new.push((key, step));
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.queued + self.new.len()
    }

    /// The rows that the steps under way took when they were added.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until at least one step has ended. Once `watch` cancels, all of them end, with [`Error::Cancelled`] where the
    /// pass under way has not ended them.
    pub fn wait(&mut self, watch: &mut Watch) -> Vec<Done> {
        if self.is_empty() {
            return Vec::new();
        }
        let done = match self.runtime.check_process() {
            Ok(()) => {
                let is_cancelled = watch();
                self.wait_in_queue(is_cancelled, watch)
            }
            Err(error) => {
                self.queued = 0; // those stayed in the other process
                let new = std::mem::take(&mut self.new).into_iter();
                new.map(|(key, step)| Done::refused(key, step, error.clone())).collect()
            }
        };
        self.rows -= done.iter().map(|done| done.rows).sum::<usize>();
        done
    }

    /// Ends all steps: those that the pass under way does not end with [`Error::Cancelled`].
    pub fn cancel(&mut self) -> Vec<Done> {
        self.wait(&mut || true)
    }

    fn wait_in_queue(&mut self, mut is_cancelled: bool, watch: &mut Watch) -> Vec<Done> {
        let runtime = self.runtime.clone();
        let batcher = &runtime.batcher;
        let mut queue = batcher.lock();
        let client = *self.client.get_or_insert_with(|| queue.number());
        let now = Instant::now();
        self.queued += self.new.len();
        for (key, step) in self.new.drain(..) {
            queue.add(client, key, step, now);
        }
        if queue.is_running {
            batcher.arrived.notify_one();
        }
        // A cancelled caller collects its steps over several rounds: some may be in a pass of somebody else.
        let mut done = Vec::new();
        let mut asked = Instant::now();
        loop {
            // By the clock: with short passes of other callers the wait below never takes long.
            if !is_cancelled && asked.elapsed() >= WATCH_INTERVAL {
                drop(queue);
                is_cancelled = watch();
                asked = Instant::now();
                queue = batcher.lock();
            }
            done.extend(if is_cancelled { queue.withdraw(client) } else { queue.take_finished(client) });
            if !done.is_empty() && (!is_cancelled || done.len() == self.queued) {
                break;
            }
            if !queue.is_running {
                queue = compute(&runtime, queue, client, &mut is_cancelled, watch);
                continue;
            }
            if is_cancelled && !queue.cancelled.contains(&client) {
                queue.cancelled.push(client);
            }
            queue = batcher.ended.wait_timeout(queue, WATCH_INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.cancelled.retain(|cancelled| *cancelled != client);
        self.queued -= done.len();
        done
    }
}

/// Computes one pass of the steps that wait.
fn compute<'q>(
    runtime: &'q Runtime,
    mut queue: MutexGuard<'q, Queue>,
    client: u64,
    is_cancelled: &mut bool,
    watch: &mut Watch,
) -> MutexGuard<'q, Queue> {
    let batcher = &runtime.batcher;
    queue.is_running = true;
    let limits = runtime.limits();
    while queue.waiting.iter().filter(|job| job.step.decodes(limits.decode_rows)).count() < limits.decode_rows
        && let Some(wait) = queue.returning.wait(Instant::now())
    {
        queue = batcher.arrived.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0;
    }
    let mut picked = queue.pick(limits);
    queue.is_running = !picked.is_empty(); // a bug must not make the others wait for ever
    drop(queue);
    assert!(!picked.is_empty(), "a pass has at least one row");
    let decodes: Vec<bool> = picked.iter().map(|(job, _)| job.step.decodes(limits.decode_rows)).collect();
    let clients: Vec<u64> = picked.iter().map(|(job, _)| job.client).collect();
    let mut give_up = || {
        *is_cancelled = *is_cancelled || watch();
        let mut queue = batcher.lock();
        if *is_cancelled && !queue.cancelled.contains(&client) {
            queue.cancelled.push(client);
        }
        clients.iter().all(|client| queue.cancelled.contains(client) || queue.gone.contains(client))
    };
    let start = Instant::now();
    let panic = catch_unwind(AssertUnwindSafe(|| pass(runtime, &mut picked, &mut give_up))).err();
    let now = Instant::now();
    let mut queue = batcher.lock();
    queue.is_running = false;
    queue.passes = (queue.passes.0 + 1, queue.passes.1 + picked.len() as u64);
    if panic.is_some() {
        for (job, _) in &mut picked {
            job.result = Err(Error::Model("a pass that computed several steps at once has failed".into()));
        }
    } else if picked.iter().all(|(job, _)| job.result.is_ok()) {
        let rows = |kind| picked.iter().zip(&decodes).filter(|(_, d)| **d == kind).map(|((_, rows), _)| rows).sum();
        let answers = decodes.iter().filter(|decodes| **decodes).count();
        queue.costs.note(rows(true), rows(false), now - start);
        if let Some(cost) = queue.costs.row_cost(answers) {
            batcher.row_cost.store(cost.to_bits(), Relaxed);
        }
    }
    queue.returning.end_pass(now, now - start);
    queue.put_back(picked.into_iter().map(|(job, _)| job).collect(), now);
    batcher.ended.notify_all();
    if let Some(panic) = panic {
        drop(queue);
        resume_unwind(panic);
    }
    queue
}

impl Drop for Steps {
    fn drop(&mut self) {
        // In a process that was forked off, another thread may have held the lock at that moment.
        let is_queued = self.queued > 0 && self.runtime.pool.is_here();
        let Some(client) = self.client.filter(|_| is_queued) else { return };
        let mut queue = self.runtime.batcher.lock();
        let left = self.queued - queue.withdraw(client).len();
        queue.gone.extend(std::iter::repeat_n(client, left));
    }
}
