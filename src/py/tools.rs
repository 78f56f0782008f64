//! Tool calls as OpenAI's API has them: the dicts of calls, and the argument `tool_choice`.

use super::convert::type_name;
use crate::engine::ToolCall as CoreCall;
use crate::template::ToolChoice;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

/// A call; in Python a dict.
#[derive(Clone, PartialEq, IntoPyObject, FromPyObject)]
#[pyo3(from_item_all)]
pub struct ToolCall {
    id: String,
    r#type: String,
    function: Function,
}

#[derive(Clone, PartialEq, IntoPyObject, FromPyObject)]
#[pyo3(from_item_all)]
struct Function {
    name: String,
    arguments: String,
}

impl From<CoreCall> for ToolCall {
    fn from(call: CoreCall) -> ToolCall {
        let function = Function { name: call.call.name, arguments: call.call.arguments };
        ToolCall { id: call.id, r#type: "function".into(), function }
    }
}

/// Calls as attributes have them: None without any.
pub fn tool_calls(calls: Vec<CoreCall>) -> Option<Vec<ToolCall>> {
    Some(calls.into_iter().map(ToolCall::from).collect()).filter(|calls: &Vec<ToolCall>| !calls.is_empty())
}

/// Calls in a `repr`; nothing if there are none.
pub fn tool_calls_repr(py: Python<'_>, calls: Option<&Vec<ToolCall>>) -> PyResult<String> {
    let Some(calls) = calls else { return Ok(String::new()) };
    Ok(format!(", tool_calls={}", calls.clone().into_pyobject(py)?.repr()?))
}

/// The argument `tool_choice`: a text, or OpenAI's dict that names a function.
pub fn tool_choice(choice: &Bound<'_, PyAny>) -> PyResult<ToolChoice> {
    if let Ok(text) = choice.cast::<PyString>() {
        return Ok(match text.to_str()? {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "required" => ToolChoice::Required,
            name => ToolChoice::Named(name.into()),
        });
    }
    let name = |choice: &Bound<'_, PyDict>| {
        let function = choice.get_item("function")?.map_or_else(|| choice.get_item("name"), |found| Ok(Some(found)))?;
        let Some(function) = function else { return Ok(None) };
        let name = function.cast::<PyDict>().map_or(Ok(Some(function.clone())), |inner| inner.get_item("name"))?;
        Ok::<_, PyErr>(name.and_then(|name| name.extract::<String>().ok()))
    };
    let form = "'auto', 'none', 'required', the name of a function, or {'type': 'function', 'function': {'name': ...}}";
    let found = match choice.cast::<PyDict>() {
        Ok(dict) => match name(dict)? {
            Some(name) => return Ok(ToolChoice::Named(name)),
            None => choice.repr()?.to_string(),
        },
        Err(_) => type_name(choice),
    };
    Err(PyTypeError::new_err(format!("tool_choice is {found}, expected {form}")))
}
