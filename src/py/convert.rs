//! Conversion between Python and the core. The only place that releases the GIL, and the only one that converts errors.

use crate::engine::{Engine, TextOrIds, Watch};
use crate::error::{self, Error};
use crate::token::TokenId;
use pyo3::exceptions::{PyOSError, PyOverflowError, PyTypeError};
use pyo3::import_exception;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PySequence, PyString};
use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
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
import_exception!(bitnet.errors, OutOfMemoryError);
import_exception!(bitnet.errors, ClosedError);
import_exception!(bitnet.errors, BitnetWarning);

/// What a Python user can do about a path that does not exist.
const HUB_ADVICE: &str = "; Engine.from_pretrained(\"owner/name\") opens a model from the Hugging Face Hub";

impl From<Error> for PyErr {
    fn from(error: Error) -> PyErr {
        let message = error.to_string();
        match error.kind() {
            Error::NotFound { .. } => ModelNotFoundError::new_err(message + HUB_ADVICE),
            Error::Io { path, source } => match source.raw_os_error() {
                Some(code) => PyOSError::new_err((code, source.to_string(), path.clone())),
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
            Error::Memory { .. } => OutOfMemoryError::new_err(message),
            Error::Closed => ClosedError::new_err(message),
            Error::Callback(error) => match error.downcast_ref::<PyErr>() {
                Some(error) => Python::attach(|py| error.clone_ref(py)),
                None => BitnetError::new_err(message),
            },
            // `kind` never returns an `At`.
            Error::Thread { .. } | Error::Cancelled | Error::At { .. } => BitnetError::new_err(message),
        }
    }
}

/// The shortest time between two checks for signals.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(40);

/// Runs `work` without the GIL. The watch that it gets checks for signals: Ctrl-C abandons the work, and
/// KeyboardInterrupt is raised here.
pub fn detached<T: Send>(py: Python<'_>, work: impl FnOnce(&mut Watch) -> error::Result<T> + Send) -> PyResult<T> {
    let (raised, result) = py.detach(|| {
        let mut raised = None;
        let mut looked = Instant::now();
        let result = caught(|| {
            work(&mut || {
                // Another thread may hold the GIL for a while, so a short step does not ask for it.
                if raised.is_none() && looked.elapsed() >= SIGNAL_INTERVAL {
                    raised = Python::attach(|py| py.check_signals()).err();
                    looked = Instant::now();
                }
                raised.is_some()
            })
        });
        (raised, result)
    });
    match raised {
        Some(signal) => Err(signal),
        None => result,
    }
}

/// A value that is dropped without the GIL: its drop waits for another thread's pass, whose watch asks for the GIL.
pub struct DroppedDetached<T: Send>(Option<T>);

impl<T: Send> DroppedDetached<T> {
    /// Holds the value, which the caller drops while attached.
    pub fn new(value: T) -> DroppedDetached<T> {
        DroppedDetached(Some(value))
    }

    /// The value.
    pub fn get(&mut self) -> &mut T {
        self.0.as_mut().expect("it is taken only at the end")
    }

    /// The value, to be used up.
    pub fn into_inner(mut self) -> T {
        self.0.take().expect("it is taken only at the end")
    }
}

impl<T: Send> Drop for DroppedDetached<T> {
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            Python::attach(|py| py.detach(|| drop(value)));
        }
    }
}

/// Runs `work`. A panic, which is always a bug in this package, becomes a BitnetError and does not end the process.
pub fn caught<T, E: Into<PyErr>>(work: impl FnOnce() -> Result<T, E>) -> PyResult<T> {
    catch_unwind(AssertUnwindSafe(work)).map_or_else(
        |panic| {
            let what = panic.downcast_ref::<String>().map(String::as_str);
            let what = what.or(panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
            Err(BitnetError::new_err(format!("internal error, please report it: {what}")))
        },
        |result| result.map_err(E::into),
    )
}

/// Gives a BitnetWarning, at the innermost line of Python that is not part of this package. Fails if the user turned
/// warnings into errors.
pub fn warn(py: Python<'_>, text: &str) -> PyResult<()> {
    let is_own = |frame: &Bound<'_, PyAny>| {
        let module = frame.getattr("f_globals").and_then(|globals| globals.get_item("__name__"));
        module.is_ok_and(|name| matches!(name.to_string().split('.').next(), Some("bitnet" | "pytest_bitnet")))
    };
    // A thread of the asyncio bridge has no Python frame.
    let mut frame = py.import("sys")?.call_method0("_getframe").ok();
    let mut level = 1;
    while let Some(outer) = frame.filter(is_own) {
        frame = outer.getattr("f_back").ok().filter(|frame| !frame.is_none());
        level += 1;
    }
    PyErr::warn(py, &py.get_type::<BitnetWarning>(), &CString::new(text.replace('\0', "\u{fffd}"))?, level)
}

/// The path of a model: str, bytes or an object with `__fspath__`; `trit` for the model inside the package, or
/// `hf:owner/name[@revision][/file]`.
pub fn model_path(path: &Bound<'_, PyAny>) -> PyResult<PathBuf> {
    let text = path.py().import("os")?.call_method1("fsdecode", (path,));
    let text = text.map_err(|error| named(error, "path", path.py()))?;
    path.py().import("bitnet.hub")?.call_method1("local", (text,))?.extract()
}

/// The name of a value's type, for error messages.
pub fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map(|name| name.to_string()).unwrap_or_default()
}

/// A str as UTF-8. Raises ArgumentError for a lone surrogate, which UTF-8 cannot express.
pub fn unicode(text: &Bound<'_, PyAny>, name: &str) -> PyResult<String> {
    let Ok(text) = text.cast::<PyString>() else {
        return Err(PyTypeError::new_err(format!("{name} must be a str, found {}", type_name(text))));
    };
    let surrogate =
        |_| ArgumentError::new_err(format!("{name} holds a lone surrogate, which is no character; remove it"));
    text.extract().map_err(surrogate)
}

/// Ints from a sequence or an integer array, not yet checked against any vocabulary.
pub fn token_ids(ids: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<i64>> {
    ints(ids, name, "a sequence of int")
}

/// Those of the ints that can be a token id. For uses where an id outside the vocabulary means nothing.
pub fn possible_ids(ids: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<TokenId>> {
    Ok(token_ids(ids, name)?.into_iter().filter_map(|id| TokenId::try_from(id).ok()).collect())
}

/// Token ids of an engine's vocabulary.
pub fn engine_ids(ids: &Bound<'_, PyAny>, name: &str, engine: &Engine) -> PyResult<Vec<TokenId>> {
    Ok(to_token_ids(&token_ids(ids, name)?, engine.n_vocab())?)
}

/// A prompt: a str, or token ids of an engine's vocabulary.
pub fn text_or_ids(prompt: &Bound<'_, PyAny>, name: &str, engine: &Engine) -> PyResult<TextOrIds> {
    if prompt.is_instance_of::<PyString>() {
        return Ok(TextOrIds::Text(unicode(prompt, name)?));
    }
    let ids = ints(prompt, name, "a text or a sequence of int")?;
    Ok(TextOrIds::Ids(to_token_ids(&ids, engine.n_vocab())?))
}

/// The token ids of several sequences, which begin at `position`, converted by `convert` and checked. An error names
/// the sequence: `name[2]: …`.
pub fn checked_sequences<'py>(
    py: Python<'py>,
    engine: &Engine,
    sequences: impl IntoIterator<Item = Bound<'py, PyAny>>,
    position: usize,
    name: &str,
    convert: impl Fn(&Bound<'py, PyAny>, &str) -> PyResult<Vec<TokenId>>,
) -> PyResult<Vec<Vec<TokenId>>> {
    let one = |(i, sequence): (usize, Bound<'py, PyAny>)| {
        let name = format!("{name}[{i}]");
        let checked = convert(&sequence, &name).and_then(|ids| {
            engine.check_ids(&ids, position)?;
            Ok(ids)
        });
        checked.map_err(|error| {
            let is_about_ids =
                error.is_instance_of::<TokenIdError>(py) || error.is_instance_of::<ContextLengthError>(py);
            if is_about_ids { named(error, &name, py) } else { error }
        })
    };
    sequences.into_iter().enumerate().map(one).collect()
}

/// The ids as [`TokenId`]. Ids outside the vocabulary are refused here already, so that the error names the first of
/// them even if a later one does not fit the type.
/// The ints as ids below `n_vocab`; an error for the first that is none.
pub fn to_token_ids(ids: &[i64], n_vocab: usize) -> error::Result<Vec<TokenId>> {
    let one = |(position, id): (usize, &i64)| match TokenId::try_from(*id) {
        Ok(small) if (small as usize) < n_vocab => Ok(small),
        _ => Err(Error::TokenId { id: *id, position, n_vocab }),
    };
    ids.iter().enumerate().map(one).collect()
}

fn ints(ids: &Bound<'_, PyAny>, name: &str, expected: &str) -> PyResult<Vec<i64>> {
    let wrong = |what: String| PyTypeError::new_err(format!("{name} must be {expected}, found {what}"));
    let is_bytes = ids.is_instance_of::<PyBytes>() || ids.is_instance_of::<PyByteArray>();
    if is_bytes || !(ids.cast::<PySequence>().is_ok() || ids.hasattr("__array__")?) {
        return Err(wrong(type_name(ids)));
    }
    let items = ids.try_iter().map_err(|_| wrong(type_name(ids)))?;
    items
        .enumerate()
        .map(|(i, item)| {
            let item = item?;
            if item.is_instance_of::<PyBool>() {
                return Err(wrong(format!("bool at position {i}")));
            }
            item.extract::<i64>().map_err(|error| {
                if error.is_instance_of::<PyOverflowError>(ids.py()) {
                    TokenIdError::new_err(format!("token id {item} at position {i} is outside any vocabulary"))
                } else {
                    wrong(format!("{} at position {i}", type_name(&item)))
                }
            })
        })
        .collect()
}

/// The exception with the argument's name in front of its message, unless the message begins with it.
pub fn named(error: PyErr, name: &str, py: Python<'_>) -> PyErr {
    let message = error.value(py).to_string();
    if message.starts_with(name) { error } else { PyErr::from_type(error.get_type(py), format!("{name}: {message}")) }
}

/// Fails for a bool, which Python counts among the ints: it was meant for a parameter of another library.
pub fn refuse_bool(value: &Bound<'_, PyAny>, name: &str, expected: &str) -> PyResult<()> {
    if value.is_instance_of::<PyBool>() {
        return Err(PyTypeError::new_err(format!("{name} must be {expected}, found bool")));
    }
    Ok(())
}

/// A Python int as a count of at least `least`.
pub fn count(value: &Bound<'_, PyAny>, name: &str, least: i64) -> PyResult<usize> {
    let wrong = || Error::Argument(format!("{name} is {value}, expected {least} to {}", i64::MAX));
    refuse_bool(value, name, "an int")?;
    match value.extract::<i64>() {
        Ok(n) if n >= least => Ok(n as usize),
        Ok(n) => Err(Error::Argument(format!("{name} is {n}, expected at least {least}")).into()),
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => Err(wrong().into()),
        Err(_) => Err(PyTypeError::new_err(format!("{name} must be an int, found {}", type_name(value)))),
    }
}

/// A count of at least 1, or `None`.
pub fn optional_count(value: Option<&Bound<'_, PyAny>>, name: &str) -> PyResult<Option<usize>> {
    value.map(|value| count(value, name, 1)).transpose()
}

/// The value of a choice, given by its name.
pub fn choice<T>(value: &str, name: &str, choices: &[(&str, T)]) -> error::Result<T>
where
    T: Copy,
{
    choices.iter().find(|(choice, _)| *choice == value).map(|(_, value)| *value).ok_or_else(|| {
        let names = choices.iter().map(|(choice, _)| format!("{choice:?}")).collect::<Vec<_>>().join(", ");
        Error::Argument(format!("{name} is {value:?}, expected one of {names}"))
    })
}
