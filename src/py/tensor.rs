//! `bitnet.Tensor`: a tensor of a model as numpy arrays.

use super::convert::{ArgumentError, detached};
use super::pickle::Reduced;
use crate::engine::{Engine, TensorValues};
use numpy::{PyArray1, PyArray2, PyArrayDyn, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

#[doc = doc!(Tensor)]
#[pyclass(frozen, module = "bitnet")]
pub struct Tensor {
    #[doc = doc!(Tensor.name)]
    #[pyo3(get)]
    name: String,
    #[doc = doc!(Tensor.type)]
    #[pyo3(get)]
    r#type: String,
    #[doc = doc!(Tensor.shape)]
    #[pyo3(get)]
    shape: Py<PyTuple>,
    #[doc = doc!(Tensor.trits)]
    #[pyo3(get)]
    trits: Option<Py<PyArray2<i8>>>,
    #[doc = doc!(Tensor.scales)]
    #[pyo3(get)]
    scales: Option<Py<PyArray2<f32>>>,
    /// The values of a tensor that is not ternary.
    floats: Option<Py<PyArrayDyn<f32>>>,
}

#[pymethods]
impl Tensor {
    #[classmethod]
    fn _rebuild(
        _cls: &Bound<'_, PyType>,
        name: String,
        r#type: String,
        shape: Py<PyTuple>,
        trits: Option<Py<PyArray2<i8>>>,
        scales: Option<Py<PyArray2<f32>>>,
        floats: Option<Py<PyArrayDyn<f32>>>,
    ) -> Tensor {
        Tensor { name, r#type, shape, trits, scales, floats }
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        let (py, tensor) = (slf.py(), slf.get());
        let arrays = (tensor.trits.as_ref(), tensor.scales.as_ref(), tensor.floats.as_ref());
        let arguments = (tensor.name.as_str(), tensor.r#type.as_str(), &tensor.shape, arrays.0, arrays.1, arrays.2);
        Ok((slf.get_type().getattr("_rebuild")?, arguments.into_pyobject(py)?))
    }

    #[doc = doc!(Tensor.to_float)]
    fn to_float<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (Some(trits), Some(scales)) = (&self.trits, &self.scales) else {
            return Ok(self.floats.as_ref().expect("either trits or floats").bind(py).as_any().clone());
        };
        // numpy multiplies without the GIL: [rows, groups, columns of a group] by [rows or 1, groups, 1].
        let groups = scales.bind(py).dims()[1];
        let trits = trits.bind(py).call_method1("reshape", (-1, groups, trits.bind(py).dims()[1] / groups))?;
        let scales = scales.bind(py).call_method1("reshape", (-1, groups, 1))?;
        trits.mul(scales)?.call_method1("reshape", (&self.shape,))
    }

    #[pyo3(signature = (dtype=None, copy=None))]
    fn __array__<'py>(
        &self,
        py: Python<'py>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let values = self.to_float(py)?;
        match dtype {
            None if copy != Some(true) => Ok(values),
            None => values.call_method0("copy"),
            Some(dtype) => values.call_method1("astype", (dtype,)),
        }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let ternary = if self.trits.is_some() { " ternary" } else { "" };
        Ok(format!("<Tensor {} {} {}{ternary}>", self.name, self.r#type, self.shape.bind(py).repr()?))
    }
}

/// `Engine.tensor_names`, in the order of the file.
pub fn names(engine: &Engine) -> Vec<String> {
    engine.gguf().tensors().iter().map(|tensor| tensor.name().into()).collect()
}

/// `Engine.tensor`.
pub fn tensor(py: Python<'_>, engine: &Engine, name: &str) -> PyResult<Tensor> {
    let Some(found) = engine.gguf().tensor(name) else { return Err(unknown(py, engine, name)?) };
    let values = detached(py, |watch| engine.tensor(found, watch))?;
    // A file lists the fastest dimension first, numpy the slowest.
    let dims: Vec<usize> = found.shape().iter().rev().copied().collect();
    let (mut trits_and_scales, mut floats) = ((None, None), None);
    match values {
        TensorValues::Floats(values) => floats = Some(PyArray1::from_vec(py, values).reshape(&dims[..])?.unbind()),
        TensorValues::Ternary { trits, scales, scales_per_row } => {
            let groups = [scales.len() / scales_per_row, scales_per_row];
            let trits = PyArray1::from_vec(py, trits).reshape([found.rows(), found.cols()])?;
            trits_and_scales = (Some(trits.unbind()), Some(PyArray1::from_vec(py, scales).reshape(groups)?.unbind()));
        }
    }
    let (trits, scales) = trits_and_scales;
    let shape = PyTuple::new(py, dims)?.unbind();
    Ok(Tensor { name: name.into(), r#type: found.kind().name().into(), shape, trits, scales, floats })
}

/// The error about a tensor that the model does not have. It lists names that look alike.
fn unknown(py: Python<'_>, engine: &Engine, name: &str) -> PyResult<PyErr> {
    let close = py.import("difflib")?.call_method1("get_close_matches", (name, names(engine), 5, 0.5))?;
    let close = close.extract::<Vec<String>>()?.join(", ");
    let advice = if close.is_empty() { "tensor_names lists all".into() } else { format!("did you mean {close}?") };
    Ok(ArgumentError::new_err(format!("the model has no tensor {name:?}; {advice}")))
}
