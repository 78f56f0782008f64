//! Between Python and the core: the one place that releases the interpreter, and the one that converts errors.

use crate::decode::Watch;
use crate::error::{Error, Result};
use pyo3::exceptions::{PyOSError, PyOverflowError, PyTypeError};
use pyo3::import_exception;
use pyo3::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

import_exception!(bitnet.errors, BitnetError);
import_exception!(bitnet.errors, ModelNotFoundError);
import_exception!(bitnet.errors, ModelFileError);
import_exception!(bitnet.errors, UnsupportedModelError);
import_exception!(bitnet.errors, ModelError);
import_exception!(bitnet.errors, TemplateError);
import_exception!(bitnet.errors, ReceiptError);
import_exception!(bitnet.errors, ArgumentError);
import_exception!(bitnet.errors, ContextLengthError);
import_exception!(bitnet.errors, TokenIdError);
import_exception!(bitnet.errors, ClosedError);

impl From<Error> for PyErr {
    fn from(error: Error) -> PyErr {
        let message = error.to_string();
        match error {
            Error::NotFound { .. } => ModelNotFoundError::new_err(message),
            Error::Io { path, source } => match source.raw_os_error() {
                Some(code) => PyOSError::new_err((code, source.to_string(), path)),
                None => PyOSError::new_err(message),
            },
            Error::File { .. } => ModelFileError::new_err(message),
            Error::Unsupported(_) => UnsupportedModelError::new_err(message),
            Error::Model(_) => ModelError::new_err(message),
            Error::Template(_) => TemplateError::new_err(message),
            Error::Receipt { .. } => ReceiptError::new_err(message),
            Error::Argument(_) => ArgumentError::new_err(message),
            Error::Context { .. } => ContextLengthError::new_err(message),
            Error::TokenId { .. } => TokenIdError::new_err(message),
            Error::Closed => ClosedError::new_err(message),
            Error::Cancelled => BitnetError::new_err(message),
        }
    }
}

/// How often to look for signals at most.
const LOOK: Duration = Duration::from_millis(40);

/// Runs `work` without the interpreter. It is given a watch that looks for signals: Ctrl-C abandons the work and is
/// raised here. A panic, which is a fault of ours, becomes an error and not the end of the interpreter.
pub fn detached<T: Send>(py: Python<'_>, work: impl FnOnce(&mut Watch) -> Result<T> + Send) -> PyResult<T> {
    let (raised, result) = py.detach(|| {
        let mut raised = None;
        let mut looked = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| {
            work(&mut || {
                // Another thread may keep the interpreter for a while: short steps do not ask for it each time.
                if raised.is_none() && looked.elapsed() >= LOOK {
                    raised = Python::attach(|py| py.check_signals()).err();
                    looked = Instant::now();
                }
                raised.is_some()
            })
        }));
        (raised, result)
    });
    match (raised, result) {
        (Some(signal), _) => Err(signal),
        (None, Ok(result)) => Ok(result?),
        (None, Err(panic)) => {
            let what = panic.downcast_ref::<String>().map(String::as_str);
            let what = what.or(panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
            Err(BitnetError::new_err(format!("internal error, please report it: {what}")))
        }
    }
}

/// Token ids from a sequence of ints or a numpy array of integers.
pub fn token_ids(ids: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<i64>> {
    let wrong =
        |what: String| PyTypeError::new_err(format!("{name} must be a sequence of int, found {what}"));
    let type_name = |x: &Bound<'_, PyAny>| x.get_type().name().map(|n| n.to_string()).unwrap_or_default();
    let list = if ids.hasattr("tolist")? { ids.call_method0("tolist")? } else { ids.clone() };
    let items = list.try_iter().map_err(|_| wrong(type_name(ids)))?;
    items
        .enumerate()
        .map(|(i, item)| {
            let item = item?;
            item.extract::<i64>().map_err(|error| {
                if error.is_instance_of::<PyOverflowError>(ids.py()) {
                    TokenIdError::new_err(format!(
                        "token id {item} at position {i} is outside any vocabulary"
                    ))
                } else {
                    wrong(format!("{} at position {i}", type_name(&item)))
                }
            })
        })
        .collect()
}

/// An optional count that Python gives as an int of any sign.
pub fn count(value: Option<i64>, name: &str) -> Result<Option<usize>> {
    match value {
        None => Ok(None),
        Some(n) if n >= 1 => Ok(Some(n as usize)),
        Some(n) => Err(Error::Argument(format!("{name} is {n}, expected at least 1"))),
    }
}

/// One of some named choices.
pub fn choice<T>(value: &str, name: &str, choices: &[(&str, T)]) -> Result<T>
where
    T: Copy,
{
    choices.iter().find(|(choice, _)| *choice == value).map(|(_, value)| *value).ok_or_else(|| {
        let names = choices.iter().map(|(choice, _)| format!("{choice:?}")).collect::<Vec<_>>().join(", ");
        Error::Argument(format!("{name} is {value:?}, expected one of {names}"))
    })
}
