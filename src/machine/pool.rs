//! The engine's threads: a leader that runs one job at a time, and helpers that share its loops.
//!
//! A caller hands a job to the leader and waits, so that it can look after signals meanwhile. The job forks
//! through its [`Workers`]: items are claimed in batches from a counter, so a late helper costs nothing.
//! Helpers spin for a moment between loops, then park.

use crate::error::{Error, Result};
use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

/// Turns of the spin loop before a helper parks: some tens of microseconds, longer than the serial part between
/// two loops of a forward pass.
const SPINS: u32 = 4_000;
/// More threads than any machine of today has use for.
const MOST: usize = 1024;
/// How often a waiting caller looks up.
const WATCH: Duration = Duration::from_millis(50);

/// Set while a loop accepts helpers; above it the loop's number, below it how many helpers are inside.
const OPEN: u64 = 1 << 31;
const LOOP: u64 = 1 << 32;

type Task<'a> = dyn Fn(usize) + Sync + 'a;
type Job<'a> = dyn FnOnce(&Workers) + Send + 'a;
type Panic = Box<dyn Any + Send>;

/// Threads that belong to one engine.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// For jobs that are over before another thread would wake up.
    solo: Workers,
    /// A process that forks off this one has a copy of the pool, but none of its threads.
    process: u32,
}

/// The threads, seen from a job that runs on their leader.
pub struct Workers {
    shared: Arc<Shared>,
    helpers: Vec<Thread>,
}

struct Shared {
    size: usize,
    desk: Mutex<Desk>,
    changed: Condvar,
    /// Whether a caller's job is at the desk, and news that none is any more.
    taken: Mutex<bool>,
    free: Condvar,
    state: AtomicU64,
    next: AtomicUsize,
    current: UnsafeCell<Loop>,
    asleep: Vec<AtomicBool>,
    panic: Mutex<Option<Panic>>,
    closing: AtomicBool,
}

#[derive(Default)]
struct Desk {
    job: Option<Box<Job<'static>>>,
    done: bool,
    panic: Option<Panic>,
}

/// The loop under way.
struct Loop {
    task: Option<&'static Task<'static>>,
    items: usize,
}

// SAFETY: `work` is written by the leader alone, while the loop is closed and no helper is inside (`state`).
unsafe impl Sync for Shared {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// Starts `size` threads (at least one).
    pub fn new(size: usize) -> Result<Pool> {
        if size > MOST {
            return Err(Error::Argument(format!("n_threads is {size}, expected at most {MOST}")));
        }
        Pool::start(size).map_err(|source| {
            Error::Argument(format!("n_threads is {size}, but the system refuses so many threads: {source}"))
        })
    }

    fn start(size: usize) -> std::io::Result<Pool> {
        let shared = Arc::new(Shared::new(size.max(1)));
        let solo = Workers { shared: Arc::new(Shared::new(1)), helpers: Vec::new() };
        let mut pool = Pool { shared: shared.clone(), threads: Vec::new(), solo, process: std::process::id() };
        let spawn = |name: String, run: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name).spawn(move || {
                let _ieee = super::float_control::Ieee::new();
                run()
            })
        };
        for i in 0..shared.asleep.len() {
            let shared = shared.clone();
            pool.threads.push(spawn(format!("bitnet-{}", i + 1), Box::new(move || shared.help(i)))?);
        }
        let workers = Workers { helpers: pool.threads.iter().map(|t| t.thread().clone()).collect(), shared };
        pool.threads.push(spawn("bitnet-0".into(), Box::new(move || workers.lead()))?);
        Ok(pool)
    }

    /// How many threads compute.
    pub fn size(&self) -> usize {
        self.shared.size
    }

    /// Whether the threads are in this process, and not in one that forked it off.
    pub fn is_here(&self) -> bool {
        self.process == std::process::id()
    }

    /// Runs a small `job` on the calling thread alone.
    pub fn run_here<R>(&self, job: impl FnOnce(&Workers) -> R) -> R {
        let _ieee = super::float_control::Ieee::new();
        job(&self.solo)
    }

    /// Runs `job` on the leader and waits for it. Callers take turns.
    pub fn run<R: Send>(&self, job: impl FnOnce(&Workers) -> R + Send) -> R {
        self.run_watched(job, || false).expect("nobody gives up")
    }

    /// As `run`. `watch` is asked every 50 ms, and when it is this caller's turn: if it says yes before the job has begun,
    /// there is no result.
    pub fn run_watched<R: Send>(
        &self,
        job: impl FnOnce(&Workers) -> R + Send,
        mut watch: impl FnMut() -> bool,
    ) -> Option<R> {
        assert!(self.is_here(), "the threads stayed behind in the process that forked this one off");
        let _turn = self.shared.turn(&mut watch)?;
        let mut result = None;
        let slot = &mut result;
        let job: Box<Job<'_>> = Box::new(move |workers| *slot = Some(job(workers)));
        // SAFETY: only the lifetime changes. This function does not return, nor unwind (`watch` is caught), before
        // the leader has run and dropped the job.
        let job: Box<Job<'static>> = unsafe { std::mem::transmute(job) };
        let mut desk = lock(&self.shared.desk);
        desk.job = Some(job);
        self.shared.changed.notify_all();
        let mut watcher_panic = None;
        while !desk.done {
            let (d, timeout) = self.shared.changed.wait_timeout(desk, WATCH).unwrap_or_else(PoisonError::into_inner);
            desk = d;
            if timeout.timed_out() && !desk.done && watcher_panic.is_none() {
                drop(desk);
                watcher_panic = catch_unwind(AssertUnwindSafe(&mut watch)).err();
                desk = lock(&self.shared.desk);
            }
        }
        desk.done = false;
        let panic = desk.panic.take().or(watcher_panic);
        drop(desk);
        match panic {
            Some(panic) => resume_unwind(panic),
            None => Some(result.expect("the job ran to its end")),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if !self.is_here() {
            return;
        }
        {
            let _desk = lock(&self.shared.desk);
            self.shared.closing.store(true, SeqCst);
            self.shared.changed.notify_all();
        }
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // A thread that panicked has nothing left to say: its panic went to the caller of its job.
            let _ = thread.join();
        }
    }
}

impl Workers {
    fn lead(&self) {
        let shared = &self.shared;
        let mut desk = lock(&shared.desk);
        loop {
            if let Some(job) = desk.job.take() {
                drop(desk);
                let panic = catch_unwind(AssertUnwindSafe(|| job(self))).err();
                desk = lock(&shared.desk);
                desk.panic = panic;
                desk.done = true;
                shared.changed.notify_all();
            } else if shared.closing.load(SeqCst) {
                return;
            } else {
                desk = shared.changed.wait(desk).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// How many threads share the loops.
    pub fn size(&self) -> usize {
        self.shared.size
    }

    /// Calls `f` for every item, in any order, on any of the threads.
    pub fn for_each(&self, items: usize, f: impl Fn(usize) + Sync) {
        if self.helpers.is_empty() || items < 2 {
            return (0..items).for_each(f);
        }
        let shared = &*self.shared;
        let task: &Task<'_> = &f;
        // SAFETY: only the lifetime changes; `f` outlives the loop, which is closed and empty when this returns.
        let task: &'static Task<'static> = unsafe { std::mem::transmute(task) };
        // SAFETY: the loop is closed and no helper is inside, so nobody reads `work`.
        unsafe { *shared.current.get() = Loop { task: Some(task), items } };
        shared.next.store(0, Relaxed);
        let number = (shared.state.load(Relaxed) / LOOP).wrapping_add(1);
        shared.state.store(number.wrapping_mul(LOOP) | OPEN, SeqCst);
        for (asleep, helper) in shared.asleep.iter().zip(&self.helpers) {
            if asleep.load(SeqCst) {
                helper.unpark();
            }
        }
        let panic = catch_unwind(AssertUnwindSafe(|| shared.claim(task, items))).err();
        if panic.is_some() {
            shared.next.store(items, Relaxed);
        }
        shared.state.fetch_and(!OPEN, SeqCst);
        let mut spins = 0u32;
        while shared.state.load(Acquire) & (OPEN - 1) != 0 {
            spins += 1;
            if spins.is_multiple_of(1024) { thread::yield_now() } else { std::hint::spin_loop() }
        }
        if let Some(panic) = panic.or_else(|| lock(&shared.panic).take()) {
            resume_unwind(panic);
        }
    }

    /// Calls `f(i, chunk)` for every chunk of `data`.
    pub fn for_each_chunk<T: Send>(&self, data: &mut [T], len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        let data = Parts::new(data);
        self.for_each(data.len.div_ceil(len), |i| {
            // SAFETY: chunks do not overlap, and each index is claimed once.
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
        let (a, b) = (Parts::new(a), Parts::new(b));
        let items = a.len.div_ceil(a_len);
        assert_eq!(items, b.len.div_ceil(b_len));
        self.for_each(items, |i| {
            // SAFETY: chunks do not overlap, and each index is claimed once.
            unsafe { f(i, a.part(i * a_len, a_len), b.part(i * b_len, b_len)) }
        });
    }

    /// Fills `out[token][row]` by ranges of rows: `f(first, columns)` computes those that `columns` gives for each token.
    pub fn for_each_rows(&self, out: &mut [f32], rows: usize, step: usize, f: impl Fn(usize, &mut Columns) + Sync) {
        let all = 0..out.len() / rows;
        self.for_each_tile(out, rows, step, &[all], |_, first, columns| f(first, columns));
    }

    /// As `for_each_rows`, for ascending ranges of tokens: `f(tokens, first, columns)`.
    pub fn for_each_tile(
        &self,
        out: &mut [f32],
        rows: usize,
        step: usize,
        tokens: &[Range<usize>],
        f: impl Fn(Range<usize>, usize, &mut Columns) + Sync,
    ) {
        assert!(tokens.windows(2).all(|pair| pair[0].end <= pair[1].start));
        let (out, ranges) = (Parts::new(out), rows.div_ceil(step));
        self.for_each(tokens.len() * ranges, |i| {
            let (tokens, first) = (tokens[i / ranges].clone(), i % ranges * step);
            let len = step.min(rows - first);
            f(tokens.clone(), first, &mut Columns { out: &out, tokens, rows, first, len })
        });
    }
}

/// A range of rows of `out[token][row]` for a range of tokens, which one task fills.
pub struct Columns<'a> {
    out: &'a Parts<'a, f32>,
    tokens: Range<usize>,
    rows: usize,
    first: usize,
    len: usize,
}

impl Columns<'_> {
    /// Rows in the range.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The range of rows for one token of the range of tokens.
    pub fn token(&mut self, token: usize) -> &mut [f32] {
        assert!(self.tokens.contains(&token));
        // SAFETY: ranges do not overlap, each pair of them is claimed once, and `self` is borrowed meanwhile.
        unsafe { self.out.part(token * self.rows + self.first, self.len) }
    }
}

impl Shared {
    fn new(size: usize) -> Shared {
        Shared {
            size,
            desk: Mutex::default(),
            changed: Condvar::new(),
            taken: Mutex::default(),
            free: Condvar::new(),
            state: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            current: UnsafeCell::new(Loop { task: None, items: 0 }),
            asleep: (1..size).map(|_| AtomicBool::new(false)).collect(),
            panic: Mutex::default(),
            closing: AtomicBool::new(false),
        }
    }

    /// Waits until no other caller's job is at the desk, or `give_up` says yes.
    fn turn(&self, give_up: &mut impl FnMut() -> bool) -> Option<Turn<'_>> {
        loop {
            let waited = self.free.wait_timeout_while(lock(&self.taken), WATCH, |taken| *taken);
            let (mut taken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if !timeout.timed_out() {
                *taken = true;
                break;
            }
            drop(taken);
            if give_up() {
                return None;
            }
        }
        let turn = Turn(self);
        (!give_up()).then_some(turn)
    }

    /// Works on the loop until its items are claimed: by ever smaller batches, so that all threads end together.
    fn claim(&self, task: &Task<'_>, items: usize) {
        let mut first = self.next.load(Relaxed);
        while first < items {
            let batch = ((items - first) / (self.size * 4)).max(1);
            match self.next.compare_exchange_weak(first, first + batch, Relaxed, Relaxed) {
                Ok(_) => {
                    (first..first + batch).for_each(task);
                    first = self.next.load(Relaxed);
                }
                Err(now) => first = now,
            }
        }
    }

    /// The life of helper `i`.
    fn help(&self, i: usize) {
        let mut last = 0;
        let mut spins = 0;
        loop {
            let state = self.state.load(SeqCst);
            if state & OPEN != 0 && state / LOOP != last {
                if self.state.compare_exchange_weak(state, state + 1, Acquire, Relaxed).is_ok() {
                    last = state / LOOP;
                    self.join();
                    spins = 0;
                }
            } else if self.closing.load(Relaxed) {
                return;
            } else if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                self.asleep[i].store(true, SeqCst);
                let state = self.state.load(SeqCst);
                if (state & OPEN == 0 || state / LOOP == last) && !self.closing.load(SeqCst) {
                    thread::park();
                }
                self.asleep[i].store(false, SeqCst);
                spins = 0;
            }
        }
    }

    /// A helper inside an open loop.
    fn join(&self) {
        // SAFETY: this helper is counted in `state`, and the leader does not write `work` before it has left.
        let Loop { task, items } = unsafe { &*self.current.get() };
        let task = task.expect("an open loop has a task");
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.claim(task, *items))) {
            self.next.store(*items, Relaxed);
            lock(&self.panic).get_or_insert(panic);
        }
        self.state.fetch_sub(1, Release);
    }
}

/// Held by the caller whose job is at the desk.
struct Turn<'a>(&'a Shared);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.0.taken) = false;
        self.0.free.notify_one();
    }
}

/// A slice whose parts are written by different threads.
struct Parts<'a, T> {
    start: *mut T,
    len: usize,
    _slice: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: it is a `&mut [T]` whose parts go to threads, each part to one.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    fn new(slice: &'a mut [T]) -> Self {
        Parts { start: slice.as_mut_ptr(), len: slice.len(), _slice: std::marker::PhantomData }
    }

    /// The part from `first`, `len` long or up to the end.
    ///
    /// # Safety
    /// No other part that is alive overlaps it.
    #[allow(clippy::mut_from_ref)]
    unsafe fn part(&self, first: usize, len: usize) -> &mut [T] {
        assert!(first <= self.len);
        // SAFETY: within the slice, and unique by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(first), len.min(self.len - first)) }
    }
}
