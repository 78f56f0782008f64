//! The engine's threads: a leader that runs one job at a time, and helpers that share the loops of the job.
//!
//! A caller puts its job into the pool's slot and waits for the leader to run it; while it waits, it can check for
//! signals. The job runs parallel loops through its [`Workers`]: threads claim items in batches from a counter, so a
//! late helper costs nothing. Between loops helpers spin for a moment, then park.

use super::facts::process_id;
use super::float_control::IeeeGuard;
use super::thread::{HAS_THREADS, spawn};
use crate::error::{Error, Result};
use std::any::Any;
use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

/// Iterations of the spin loop before a helper parks: some tens of microseconds, longer than the serial part between
/// two loops of a forward pass.
const SPINS: u32 = 4_000;
/// More threads than any machine of today can use.
const MAX_THREADS: usize = 1024;
/// How often a waiting caller's `watch` is asked.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);

/// [`PoolState::loop_state`] holds the loop's number in the upper 32 bits, this flag while the loop accepts helpers,
/// and in the lower 31 bits the number of helpers inside.
const OPEN: u64 = 1 << 31;
/// The lowest bit of the loop's number.
const LOOP: u64 = 1 << 32;

type Task<'a> = dyn Fn(usize) + Sync + 'a;
type Job<'a> = dyn FnOnce(&Workers) + Send + 'a;
type Panic = Box<dyn Any + Send>;

/// Threads that belong to one engine.
pub struct Pool {
    state: Arc<PoolState>,
    threads: Vec<JoinHandle<()>>,
    /// The calling thread alone, for jobs that end before another thread would wake up.
    solo: Workers,
    /// The process that started the threads. A forked child has a copy of the pool, but no threads.
    process: u32,
}

/// The threads of a pool, as a job on the leader sees them.
pub struct Workers {
    state: Arc<PoolState>,
    helpers: Vec<Thread>,
}

/// The state that callers, leader and helpers share.
struct PoolState {
    size: usize,
    slot: Mutex<JobSlot>,
    /// Signals that a job was put into the slot, that it is done, or that the pool closes.
    slot_changed: Condvar,
    /// The callers that have or want the slot, in the order of their arrival; the first one has it. So a caller waits
    /// for one job of every other caller at most.
    queue: Mutex<Queue>,
    /// Signals that a caller left the queue.
    queue_moved: Condvar,
    /// Number, flag and helpers of the current loop; see [`OPEN`].
    loop_state: AtomicU64,
    /// The first item of the current loop that no thread has claimed.
    next_item: AtomicUsize,
    current_loop: UnsafeCell<Loop>,
    /// For each helper, whether it is parked or about to park.
    parked: Vec<AtomicBool>,
    /// The first panic of a helper in the current loop.
    helper_panic: Mutex<Option<Panic>>,
    closing: AtomicBool,
}

/// Callers by the numbers of their tickets.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<u64>,
    next_ticket: u64,
}

/// The one job that the leader runs, and how it ended.
#[derive(Default)]
struct JobSlot {
    job: Option<Box<Job<'static>>>,
    done: bool,
    panic: Option<Panic>,
}

/// The body of a parallel loop and its number of items.
struct Loop {
    task: Option<&'static Task<'static>>,
    items: usize,
}

// SAFETY: only `current_loop` is not `Sync` by itself. The leader alone writes it, while the loop is closed and no
// helper is inside (`loop_state`).
unsafe impl Sync for PoolState {}

/// Locks a mutex whose data stays consistent when a thread panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// Starts `size` threads (at least one).
    pub fn new(size: usize) -> Result<Pool> {
        if size > MAX_THREADS {
            return Err(Error::Argument(format!("n_threads is {size}, expected at most {MAX_THREADS}")));
        }
        if !HAS_THREADS {
            let one = "this system starts no threads; give 1";
            return if size > 1 {
                Err(Error::Argument(format!("n_threads is {size}, but {one}")))
            } else {
                Ok(Pool::empty(1))
            };
        }
        let mut pool = Pool::empty(size.max(1));
        let state = pool.state.clone();
        let spawn = |name: String, run: Box<dyn FnOnce() + Send>| {
            spawn(&name, move || {
                let _ieee = IeeeGuard::new();
                run()
            })
        };
        for i in 0..state.parked.len() {
            let state = state.clone();
            pool.threads.push(spawn(format!("bitnet-{}", i + 1), Box::new(move || state.help(i)))?);
        }
        let workers = Workers { helpers: pool.threads.iter().map(|t| t.thread().clone()).collect(), state };
        pool.threads.push(spawn("bitnet-0".into(), Box::new(move || workers.lead()))?);
        Ok(pool)
    }

    /// A pool without threads of its own: its callers run their jobs themselves.
    fn empty(size: usize) -> Pool {
        let solo = Workers { state: Arc::new(PoolState::new(1)), helpers: Vec::new() };
        Pool { state: Arc::new(PoolState::new(size)), threads: Vec::new(), solo, process: process_id() }
    }

    /// The number of threads that compute.
    pub fn size(&self) -> usize {
        self.state.size
    }

    /// Whether the threads run in this process. In a process that was forked from theirs they do not.
    pub fn is_here(&self) -> bool {
        self.process == process_id()
    }

    /// Runs a small `job` on the calling thread alone.
    pub fn run_here<R>(&self, job: impl FnOnce(&Workers) -> R) -> R {
        let _ieee = IeeeGuard::new();
        job(&self.solo)
    }

    /// Runs `job` on the leader and waits for its result. Jobs of several callers run one after the other.
    pub fn run<R: Send>(&self, job: impl FnOnce(&Workers) -> R + Send) -> R {
        self.run_watched(job, || false).expect("the watch never gives up")
    }

    /// As `run`, but calls `watch` every 50 ms, and once when the slot is free for this caller's job. If `watch`
    /// returns true before the job has started, the job does not run and the result is `None`.
    pub fn run_watched<R: Send>(
        &self,
        job: impl FnOnce(&Workers) -> R + Send,
        mut watch: impl FnMut() -> bool,
    ) -> Option<R> {
        assert!(self.is_here(), "a forked process has no threads of its parent's pool");
        if self.threads.is_empty() {
            return if watch() { None } else { Some(self.run_here(job)) };
        }
        let _guard = self.state.take_slot(&mut watch)?;
        let mut result = None;
        let out = &mut result;
        let job: Box<Job<'_>> = Box::new(move |workers| *out = Some(job(workers)));
        // SAFETY: only the lifetime changes. This function neither returns nor unwinds (a panic of `watch` is caught)
        // before the leader has run and dropped the job.
        let job: Box<Job<'static>> = unsafe { std::mem::transmute(job) };
        let mut slot = lock(&self.state.slot);
        slot.job = Some(job);
        self.state.slot_changed.notify_all();
        let mut watch_panic = None;
        while !slot.done {
            let waited = self.state.slot_changed.wait_timeout(slot, WATCH_INTERVAL);
            let (locked, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            slot = locked;
            if timeout.timed_out() && !slot.done && watch_panic.is_none() {
                drop(slot);
                watch_panic = catch_unwind(AssertUnwindSafe(&mut watch)).err();
                slot = lock(&self.state.slot);
            }
        }
        slot.done = false;
        let panic = slot.panic.take().or(watch_panic);
        drop(slot);
        match panic {
            Some(panic) => resume_unwind(panic),
            None => Some(result.expect("the job ended without a panic")),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if !self.is_here() {
            return;
        }
        {
            let _slot = lock(&self.state.slot);
            self.state.closing.store(true, SeqCst);
            self.state.slot_changed.notify_all();
        }
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // Panics of jobs were passed to their callers.
            let _ = thread.join();
        }
    }
}

impl Workers {
    /// The main loop of the leader: runs the jobs in the slot until the pool closes.
    fn lead(&self) {
        let state = &self.state;
        let mut slot = lock(&state.slot);
        loop {
            if let Some(job) = slot.job.take() {
                drop(slot);
                let panic = catch_unwind(AssertUnwindSafe(|| job(self))).err();
                slot = lock(&state.slot);
                slot.panic = panic;
                slot.done = true;
                state.slot_changed.notify_all();
            } else if state.closing.load(SeqCst) {
                return;
            } else {
                slot = state.slot_changed.wait(slot).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// The number of threads that share the loops.
    pub fn size(&self) -> usize {
        self.state.size
    }

    /// Calls `f` once for every item, in any order, on any of the threads.
    ///
    /// # Panics
    /// If a task of a parallel loop calls it. Nor may a job hand its `Workers` to threads of its own that open loops at
    /// once: the check does not catch every such race.
    pub fn for_each(&self, items: usize, f: impl Fn(usize) + Sync) {
        if self.helpers.is_empty() || items < 2 {
            return (0..items).for_each(f);
        }
        let state = &*self.state;
        // A task must not open a loop: helpers read the current one. `OPEN` or a count of helpers says that one runs.
        let running = state.loop_state.load(Acquire) & (LOOP - 1) != 0;
        assert!(!running, "a task of a parallel loop cannot start another loop");
        let task: &Task<'_> = &f;
        // SAFETY: only the lifetime changes; `f` outlives the loop, which is closed and empty when this returns.
        let task: &'static Task<'static> = unsafe { std::mem::transmute(task) };
        // SAFETY: by the assertion above the loop is closed and counts no helper. Helpers read `current_loop` only
        // after they are counted in an open loop, and the leader alone opens loops.
        unsafe { *state.current_loop.get() = Loop { task: Some(task), items } };
        state.next_item.store(0, Relaxed);
        let number = (state.loop_state.load(Relaxed) / LOOP).wrapping_add(1);
        state.loop_state.store(number.wrapping_mul(LOOP) | OPEN, SeqCst);
        for (parked, helper) in state.parked.iter().zip(&self.helpers) {
            if parked.load(SeqCst) {
                helper.unpark();
            }
        }
        let panic = catch_unwind(AssertUnwindSafe(|| state.run_items(task, items))).err();
        if panic.is_some() {
            state.next_item.store(items, Relaxed);
        }
        state.loop_state.fetch_and(!OPEN, SeqCst);
        let mut spins = 0u32;
        while state.loop_state.load(Acquire) & (OPEN - 1) != 0 {
            spins += 1;
            if spins.is_multiple_of(1024) { thread::yield_now() } else { std::hint::spin_loop() }
        }
        // Taken even if the leader panicked, too: it must not surface in the next loop.
        let helper_panic = lock(&state.helper_panic).take();
        if let Some(panic) = panic.or(helper_panic) {
            resume_unwind(panic);
        }
    }

    /// Calls `f(i, chunk)` for every chunk of `len` elements of `data`; the last may be shorter.
    pub fn for_each_chunk<T: Send>(&self, data: &mut [T], len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        let data = DisjointSlice::new(data);
        self.for_each(data.len.div_ceil(len), |i| {
            // SAFETY: the chunks of different items do not overlap, and each item is claimed once.
            f(i, unsafe { data.part(i * len, len) })
        });
    }

    /// Calls `f(i, a_chunk, b_chunk)` for the chunks of two slices that have the same number of chunks.
    pub fn for_each_pair<A: Send, B: Send>(
        &self,
        a: &mut [A],
        a_len: usize,
        b: &mut [B],
        b_len: usize,
        f: impl Fn(usize, &mut [A], &mut [B]) + Sync,
    ) {
        let (a, b) = (DisjointSlice::new(a), DisjointSlice::new(b));
        let items = a.len.div_ceil(a_len);
        assert_eq!(items, b.len.div_ceil(b_len));
        self.for_each(items, |i| {
            // SAFETY: the chunks of different items do not overlap, and each item is claimed once.
            unsafe { f(i, a.part(i * a_len, a_len), b.part(i * b_len, b_len)) }
        });
    }

    /// Fills `out[token][row]`, `step` rows at a time: `f(first, tile)` computes the rows from `first` on for every
    /// token, and writes them to `tile`.
    pub fn for_each_rows(&self, out: &mut [f32], rows: usize, step: usize, f: impl Fn(usize, &mut OutputTile) + Sync) {
        let all = 0..out.len() / rows;
        self.for_each_tile(out, rows, step, &[all], |_, first, tile| f(first, tile));
    }

    /// As `for_each_rows`, for each of some ascending ranges of tokens: `f(tokens, first, tile)`.
    pub fn for_each_tile(
        &self,
        out: &mut [f32],
        rows: usize,
        step: usize,
        tokens: &[Range<usize>],
        f: impl Fn(Range<usize>, usize, &mut OutputTile) + Sync,
    ) {
        assert!(tokens.windows(2).all(|pair| pair[0].end <= pair[1].start));
        let (out, ranges) = (DisjointSlice::new(out), rows.div_ceil(step));
        self.for_each(tokens.len() * ranges, |i| {
            let (tokens, first) = (tokens[i / ranges].clone(), i % ranges * step);
            let len = step.min(rows - first);
            f(tokens.clone(), first, &mut OutputTile { out: &out, tokens, rows, first, len })
        });
    }
}

/// A range of rows of `out[token][row]` for a range of tokens, which one task fills.
pub struct OutputTile<'a> {
    out: &'a DisjointSlice<'a, f32>,
    tokens: Range<usize>,
    rows: usize,
    first: usize,
    len: usize,
}

impl OutputTile<'_> {
    /// The number of rows in the range.
    #[expect(clippy::len_without_is_empty, reason = "nothing asks whether it is empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The output of one token of the range, for the range of rows.
    pub fn token(&mut self, token: usize) -> &mut [f32] {
        assert!(self.tokens.contains(&token));
        // SAFETY: ranges of rows do not overlap, nor do ranges of tokens; each pair is claimed once; and `self` is
        // borrowed mutably for as long as the slice.
        unsafe { self.out.part(token * self.rows + self.first, self.len) }
    }
}

impl PoolState {
    fn new(size: usize) -> PoolState {
        PoolState {
            size,
            slot: Mutex::default(),
            slot_changed: Condvar::new(),
            queue: Mutex::default(),
            queue_moved: Condvar::new(),
            loop_state: AtomicU64::new(0),
            next_item: AtomicUsize::new(0),
            current_loop: UnsafeCell::new(Loop { task: None, items: 0 }),
            parked: (1..size).map(|_| AtomicBool::new(false)).collect(),
            helper_panic: Mutex::default(),
            closing: AtomicBool::new(false),
        }
    }

    /// Waits until all callers that came before have left the slot, and takes it; `None` if `give_up` returns true
    /// first.
    fn take_slot(&self, give_up: &mut impl FnMut() -> bool) -> Option<Ticket<'_>> {
        let ticket = Ticket::new(self);
        loop {
            let others_first = |queue: &mut Queue| queue.waiting.front() != Some(&ticket.number);
            let waited = self.queue_moved.wait_timeout_while(lock(&self.queue), WATCH_INTERVAL, others_first);
            let timed_out = waited.unwrap_or_else(PoisonError::into_inner).1.timed_out();
            if give_up() {
                return None;
            }
            if !timed_out {
                return Some(ticket);
            }
        }
    }

    /// Claims and runs items until none are left, in ever smaller batches, so that all threads end together.
    fn run_items(&self, task: &Task<'_>, items: usize) {
        let mut first = self.next_item.load(Relaxed);
        while first < items {
            let batch = ((items - first) / (self.size * 4)).max(1);
            match self.next_item.compare_exchange_weak(first, first + batch, Relaxed, Relaxed) {
                Ok(_) => {
                    (first..first + batch).for_each(task);
                    first = self.next_item.load(Relaxed);
                }
                Err(now) => first = now,
            }
        }
    }

    /// The main loop of helper `i`: joins each loop that opens, until the pool closes.
    fn help(&self, i: usize) {
        let mut last = 0;
        let mut spins = 0;
        loop {
            let state = self.loop_state.load(SeqCst);
            if state & OPEN != 0 && state / LOOP != last {
                if self.loop_state.compare_exchange_weak(state, state + 1, Acquire, Relaxed).is_ok() {
                    last = state / LOOP;
                    self.join_loop();
                    spins = 0;
                }
            } else if self.closing.load(Relaxed) {
                return;
            } else if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                self.parked[i].store(true, SeqCst);
                let state = self.loop_state.load(SeqCst);
                if (state & OPEN == 0 || state / LOOP == last) && !self.closing.load(SeqCst) {
                    thread::park();
                }
                self.parked[i].store(false, SeqCst);
                spins = 0;
            }
        }
    }

    /// Runs items of the current loop, in which `loop_state` already counts this helper, and leaves the loop.
    fn join_loop(&self) {
        // SAFETY: `loop_state` counts this helper, and the leader does not write `current_loop` before it has left.
        let Loop { task, items } = unsafe { &*self.current_loop.get() };
        let task = task.expect("an open loop has a task");
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.run_items(task, *items))) {
            self.next_item.store(*items, Relaxed);
            lock(&self.helper_panic).get_or_insert(panic);
        }
        self.loop_state.fetch_sub(1, Release);
    }
}

/// A caller's place in the queue for the slot. Dropping it leaves the queue.
struct Ticket<'a> {
    state: &'a PoolState,
    number: u64,
}

impl<'a> Ticket<'a> {
    /// Joins the end of the queue.
    fn new(state: &'a PoolState) -> Ticket<'a> {
        let mut queue = lock(&state.queue);
        let number = queue.next_ticket;
        queue.next_ticket += 1;
        queue.waiting.push_back(number);
        Ticket { state, number }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        lock(&self.state.queue).waiting.retain(|number| *number != self.number);
        self.state.queue_moved.notify_all();
    }
}

/// A slice whose disjoint parts are written by different threads.
struct DisjointSlice<'a, T> {
    start: *mut T,
    len: usize,
    _slice: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for a `&mut [T]`, and by the contract of `part` each element is reached by one thread at a time.
unsafe impl<T: Send> Sync for DisjointSlice<'_, T> {}

impl<'a, T> DisjointSlice<'a, T> {
    fn new(slice: &'a mut [T]) -> Self {
        DisjointSlice { start: slice.as_mut_ptr(), len: slice.len(), _slice: std::marker::PhantomData }
    }

    /// The elements from `first` on, `len` of them or up to the end.
    ///
    /// # Safety
    /// No other part that is alive overlaps this one.
    #[allow(clippy::mut_from_ref)]
    unsafe fn part(&self, first: usize, len: usize) -> &mut [T] {
        assert!(first <= self.len);
        // SAFETY: the bounds lie within the slice, and the caller promises that no other part overlaps.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(first), len.min(self.len - first)) }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/pool.rs"]
mod tests;
