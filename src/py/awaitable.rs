//! What Python awaits: steps on threads beside the event loop, which never waits for them.

use super::convert::{BitnetError, caught};
use crate::decode::Watch;
use pyo3::IntoPyObject;
use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyTuple};
use pyo3_async_runtimes::TaskLocals;
use pyo3_async_runtimes::generic::{ContextExt, Runtime, future_into_py};
use pyo3_async_runtimes::tokio::{get_runtime, init};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use tokio::task::{JoinError, JoinHandle};

/// Whether somebody still waits for the work.
pub type Wanted = Arc<AtomicBool>;
type Start = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// Work that begins when it is awaited; `bitnet._async` does so.
#[pyclass(frozen, module = "bitnet")]
struct Work {
    start: Mutex<Option<Start>>,
    wanted: Wanted,
}

#[pymethods]
impl Work {
    /// Begins, and returns the running event loop's future of result and error, of which one is None.
    fn start(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        set_up(py)?;
        let start = self.start.lock().unwrap_or_else(PoisonError::into_inner).take();
        start.map(|start| start(py)).transpose()
    }

    /// Abandons the step under way; nothing once the work is over.
    fn abandon(&self) {
        self.wanted.store(false, Relaxed);
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// A coroutine that gives what `work` gives. Nothing is done before it is awaited.
pub fn awaitable<'py, T, F>(py: Python<'py>, name: &str, work: impl FnOnce(Wanted) -> F) -> PyResult<Bound<'py, PyAny>>
where
    T: for<'a> IntoPyObject<'a> + Send + 'static,
    F: Future<Output = PyResult<T>> + Send + 'static,
{
    let wanted = Wanted::new(true.into());
    let future = work(wanted.clone());
    let future = async { Ok(future.await.map_or_else(|error| (None, Some(error)), |value| (Some(value), None))) };
    let start: Start = Box::new(move |py| Ok(future_into_py::<Beside, _, _>(py, future)?.unbind()));
    let work = Work { start: Mutex::new(Some(start)), wanted };
    let coroutine = py.import("bitnet._async")?.call_method1("result", (work,))?;
    coroutine.setattr("__qualname__", name)?; // for the warning about one that is never awaited
    Ok(coroutine)
}

/// Runs a step on a thread where it may take its time; it is abandoned once nobody wants it.
pub async fn step<T: Send + 'static>(
    wanted: &Wanted,
    work: impl FnOnce(&mut Watch) -> PyResult<T> + Send + 'static,
) -> PyResult<T> {
    let wanted = wanted.clone();
    let run = move || caught(|| work(&mut || !wanted.load(Relaxed) || LEAVING.load(Relaxed)));
    let done = get_runtime().spawn_blocking(run).await;
    if LEAVING.load(Relaxed) {
        return Err(PySystemExit::new_err("Python ends")); // which ends the thread of an event loop without a word
    }
    done.map_err(|error| BitnetError::new_err(error.to_string()))?
}

/// Prepares the threads, which start with the first step: one that hands out, and as many as steps are under way.
fn set_up(py: Python<'_>) -> PyResult<()> {
    static PROCESS: OnceLock<u32> = OnceLock::new();
    let own = std::process::id();
    let mut first = false;
    let process = *PROCESS.get_or_init(|| {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("bitnet-await");
        init(builder);
        first = true;
        own
    });
    if first {
        let leave =
            PyCFunction::new_closure(py, None, None, move |args: &Bound<'_, PyTuple>, _| leave(args.py(), own))?;
        py.import("atexit")?.call_method1("register", (leave,))?;
    }
    if process == own {
        return Ok(());
    }
    let stayed =
        "the threads that `await` needs stayed in the process that forked this one off; start processes by 'spawn'";
    Err(BitnetError::new_err(stayed))
}

/// Whether Python ends.
static LEAVING: AtomicBool = AtomicBool::new(false);

/// Before Python ends: abandons every step, and waits until the threads hold nothing of it.
fn leave(py: Python<'_>, process: u32) {
    if process == std::process::id() {
        LEAVING.store(true, Relaxed);
        let end = Instant::now() + Duration::from_secs(10);
        py.detach(|| {
            while AT_WORK.load(SeqCst) > 0 && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }
}

/// What the threads are at: a thread that still wants the interpreter when Python ends would take the process down.
static AT_WORK: AtomicUsize = AtomicUsize::new(0);

/// Counts itself in [`AT_WORK`].
struct Counted;

impl Counted {
    fn new() -> Counted {
        AT_WORK.fetch_add(1, SeqCst);
        Counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        AT_WORK.fetch_sub(1, SeqCst);
    }
}

/// The runtime of `pyo3_async_runtimes::tokio`, with everything counted that it is at.
struct Beside;

impl Runtime for Beside {
    type JoinError = JoinError;
    type JoinHandle = JoinHandle<()>;

    fn spawn<F: Future<Output = ()> + Send + 'static>(future: F) -> JoinHandle<()> {
        let counted = Counted::new();
        get_runtime().spawn(async move {
            future.await;
            drop(counted);
        })
    }

    fn spawn_blocking<F: FnOnce() + Send + 'static>(work: F) -> JoinHandle<()> {
        let counted = Counted::new();
        get_runtime().spawn_blocking(move || {
            work();
            drop(counted);
        })
    }
}

/// No task asks for its event loop again, so none is kept with it.
impl ContextExt for Beside {
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
