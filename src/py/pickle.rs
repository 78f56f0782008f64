//! What `pickle` and `copy` need: how an object is made again.

use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// The result of `__reduce__`: a callable, and the arguments that it is called with.
pub type Reduced<'py> = (Bound<'py, PyAny>, Bound<'py, PyTuple>);

/// An object whose class makes it again from these attributes, by its class method `_rebuild`.
pub fn by_fields<'py, T>(object: &Bound<'py, T>, names: &[&str]) -> PyResult<Reduced<'py>> {
    let object = object.as_any();
    let values = names.iter().map(|name| object.getattr(*name)).collect::<PyResult<Vec<_>>>()?;
    Ok((object.get_type().getattr("_rebuild")?, PyTuple::new(object.py(), values)?))
}

/// An object that a function of `bitnet._values` makes again.
pub fn by_function<'py>(
    py: Python<'py>,
    function: &str,
    arguments: impl IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error = PyErr>,
) -> PyResult<Reduced<'py>> {
    Ok((py.import("bitnet._values")?.getattr(function)?, arguments.into_pyobject(py)?))
}
