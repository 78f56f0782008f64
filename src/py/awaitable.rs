//! The asyncio bridge: coroutines whose work runs on threads beside the event loop, which never waits for them.

use super::convert::{BitnetError, caught};
use crate::engine::Watch;
use crate::machine::thread::spawn;
use pyo3::IntoPyObject;
use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyCFunction, PyTuple};
use pyo3_async_runtimes::TaskLocals;
use pyo3_async_runtimes::generic::{ContextExt, Runtime, future_into_py};
use pyo3_async_runtimes::tokio::{get_runtime, init_with_runtime};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use tokio::task::{JoinError, JoinHandle, block_in_place};

/// Set once nobody waits for the result any more. The step under way then stops early.
pub type Abandoned = Arc<AtomicBool>;
/// A thread without work ends after so long.
const IDLE: Duration = Duration::from_secs(1);

type Start = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// The work of one coroutine. `bitnet._async` starts it when the coroutine is awaited.
#[pyclass(frozen, module = "bitnet")]
struct PendingCall {
    start: Mutex<Option<Start>>,
    abandoned: Abandoned,
}

#[pymethods]
impl PendingCall {
    /// Starts the work. Returns a future of the running event loop, whose result is a pair of value and error, one of
    /// them None.
    fn start(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        set_up(py)?;
        let start = self.start.lock().unwrap_or_else(PoisonError::into_inner).take();
        start.map(|start| start(py)).transpose()
    }

    /// Abandons the step under way. Does nothing once the work is over.
    fn abandon(&self) {
        self.abandoned.store(true, Relaxed);
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// A coroutine that returns the result of `work`, which starts only when the coroutine is awaited.
pub fn awaitable<'py, T, F>(
    py: Python<'py>,
    name: &str,
    work: impl FnOnce(Abandoned) -> F,
) -> PyResult<Bound<'py, PyAny>>
where
    T: for<'a> IntoPyObject<'a> + Send + 'static,
    F: Future<Output = PyResult<T>> + Send + 'static,
{
    let abandoned = Abandoned::default();
    let future = work(abandoned.clone());
    let future = async { Ok(future.await.map_or_else(|error| (None, Some(error)), |value| (Some(value), None))) };
    let start: Start = Box::new(move |py| Ok(future_into_py::<CountedTokio, _, _>(py, future)?.unbind()));
    let call = PendingCall { start: Mutex::new(Some(start)), abandoned };
    let coroutine = py.import("bitnet._async")?.call_method1("result", (call,))?;
    coroutine.setattr("__qualname__", name)?; // Python's warning about a coroutine that was never awaited names it
    Ok(coroutine)
}

/// Runs a step, in which the thread may block. The step's watch tells it to stop once it is abandoned.
///
/// The step runs on the thread that polls it, and another thread takes over the other tasks. If the system refuses that
/// thread, the other tasks run after the step; `spawn_blocking` would wait for a thread for ever.
pub async fn step<T: Send + 'static>(
    abandoned: &Abandoned,
    work: impl FnOnce(&mut Watch) -> PyResult<T> + Send + 'static,
) -> PyResult<T> {
    let done = block_in_place(|| caught(|| work(&mut || abandoned.load(Relaxed) || EXITING.load(Relaxed))));
    if EXITING.load(Relaxed) {
        return Err(PySystemExit::new_err("Python ends")); // ends the thread of an event loop without a traceback
    }
    done
}

/// Starts tokio's first thread at the first call. An error in a process that was forked off later, and where the system
/// refuses the thread; then the next call tries again.
fn set_up(py: Python<'_>) -> PyResult<()> {
    static PROCESS: Mutex<Option<u32>> = Mutex::new(None);
    let own = std::process::id();
    let mut process = PROCESS.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
    if process.is_none() {
        // Tokio panics where it gets no thread, so ask first.
        let _ = spawn("bitnet-await", || ())?.join();
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("bitnet-await").thread_keep_alive(IDLE);
        let runtime = caught(|| builder.build())?;
        init_with_runtime(Box::leak(Box::new(runtime))).expect("nobody else sets it");
        *process = Some(own);
        let callback =
            PyCFunction::new_closure(py, None, None, move |args: &Bound<'_, PyTuple>, _| at_exit(args.py(), own))?;
        py.import("atexit")?.call_method1("register", (callback,))?;
    }
    if *process == Some(own) {
        return Ok(());
    }
    let stayed =
        "`await` does not work in a forked process, whose threads stayed in its parent; start processes by 'spawn'";
    Err(BitnetError::new_err(stayed))
}

/// Whether Python is exiting.
static EXITING: AtomicBool = AtomicBool::new(false);

/// Before Python exits: abandons every step and waits until no task runs any more.
fn at_exit(py: Python<'_>, process: u32) {
    if process == std::process::id() {
        EXITING.store(true, Relaxed);
        let end = Instant::now() + Duration::from_secs(10);
        py.detach(|| {
            while RUNNING_TASKS.load(SeqCst) > 0 && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }
}

/// Tasks on tokio's threads. A thread that asks for the GIL after Python has exited would crash the process.
static RUNNING_TASKS: AtomicUsize = AtomicUsize::new(0);

/// Counts one task in [`RUNNING_TASKS`] while it lives.
struct RunningTask;

impl RunningTask {
    fn new() -> RunningTask {
        RUNNING_TASKS.fetch_add(1, SeqCst);
        RunningTask
    }
}

impl Drop for RunningTask {
    fn drop(&mut self) {
        RUNNING_TASKS.fetch_sub(1, SeqCst);
    }
}

/// The runtime of `pyo3_async_runtimes::tokio`, with its tasks counted.
struct CountedTokio;

impl Runtime for CountedTokio {
    type JoinError = JoinError;
    type JoinHandle = JoinHandle<()>;

    fn spawn<F: Future<Output = ()> + Send + 'static>(future: F) -> JoinHandle<()> {
        let running = RunningTask::new();
        get_runtime().spawn(async move {
            future.await;
            drop(running);
        })
    }

    fn spawn_blocking<F: FnOnce() + Send + 'static>(work: F) -> JoinHandle<()> {
        let running = RunningTask::new();
        get_runtime().spawn_blocking(move || {
            work();
            drop(running);
        })
    }
}

/// Our tasks never ask which event loop they belong to, so nothing is stored for them.
impl ContextExt for CountedTokio {
    fn scope<F, R>(_: TaskLocals, future: F) -> Pin<Box<dyn Future<Output = R> + Send>>
    where
        F: Future<Output = R> + Send + 'static,
    {
        Box::pin(future)
    }

    fn get_task_locals() -> Option<TaskLocals> {
        None
    }
}
