//! `bitnet.Trace`: what a model computes on its way to the logits, as numpy arrays.

use super::convert::{detached, text_or_ids, type_name};
use super::pickle::{Reduced, by_fields};
use crate::engine::{self, Engine, InputTrace};
use crate::error::Error;
use crate::token::TokenId;
use numpy::{Element, PyArray1, PyArray2, PyArray3, PyArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString, PyType};

#[doc = doc!(Trace)]
#[pyclass(frozen, get_all, module = "bitnet")]
pub struct Trace {
    #[doc = doc!(Trace.token_ids)]
    token_ids: Vec<TokenId>,
    #[doc = doc!(Trace.layers)]
    layers: Py<PyDict>,
    #[doc = doc!(Trace.hidden)]
    hidden: Py<PyArray2<f32>>,
    #[doc = doc!(Trace.logits)]
    logits: Py<PyArray2<f32>>,
}

#[doc = doc!(LayerTrace)]
#[pyclass(frozen, get_all, module = "bitnet")]
pub struct LayerTrace {
    #[doc = doc!(LayerTrace.layer)]
    layer: usize,
    #[doc = doc!(LayerTrace.hidden)]
    hidden: Py<PyArray2<f32>>,
    #[doc = doc!(LayerTrace.attention)]
    attention: Py<PyArray3<f32>>,
    #[doc = doc!(LayerTrace.ffn)]
    ffn: Py<PyArray2<f32>>,
    #[doc = doc!(LayerTrace.projections)]
    projections: Py<PyDict>,
}

#[doc = doc!(ProjectionTrace)]
#[pyclass(frozen, module = "bitnet")]
pub struct ProjectionTrace {
    #[doc = doc!(ProjectionTrace.tensor)]
    #[pyo3(get)]
    tensor: String,
    input: Input,
    #[doc = doc!(ProjectionTrace.output)]
    #[pyo3(get)]
    output: Py<PyArray2<f32>>,
}

/// What a projection reads, one row a position.
enum Input {
    Floats(Py<PyArray2<f32>>),
    Int8 { q: Py<PyArray2<i8>>, scales: Py<PyArray1<f32>> },
}

impl Input {
    fn new(py: Python<'_>, input: InputTrace, n: usize) -> PyResult<Input> {
        Ok(if input.scales.is_empty() {
            Input::Floats(matrix(py, input.floats, n)?)
        } else {
            Input::Int8 { q: matrix(py, input.int8, n)?, scales: PyArray1::from_vec(py, input.scales).unbind() }
        })
    }

    fn clone_ref(&self, py: Python<'_>) -> Input {
        match self {
            Input::Floats(x) => Input::Floats(x.clone_ref(py)),
            Input::Int8 { q, scales } => Input::Int8 { q: q.clone_ref(py), scales: scales.clone_ref(py) },
        }
    }
}

#[pymethods]
impl Trace {
    #[classmethod]
    fn _rebuild(
        _cls: &Bound<'_, PyType>,
        token_ids: Vec<TokenId>,
        layers: Py<PyDict>,
        hidden: Py<PyArray2<f32>>,
        logits: Py<PyArray2<f32>>,
    ) -> Trace {
        Trace { token_ids, layers, hidden, logits }
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        by_fields(slf, &["token_ids", "layers", "hidden", "logits"])
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("<Trace {} tokens, {} layers>", self.token_ids.len(), self.layers.bind(py).len())
    }
}

#[pymethods]
impl LayerTrace {
    #[classmethod]
    fn _rebuild(
        _cls: &Bound<'_, PyType>,
        layer: usize,
        hidden: Py<PyArray2<f32>>,
        attention: Py<PyArray3<f32>>,
        ffn: Py<PyArray2<f32>>,
        projections: Py<PyDict>,
    ) -> LayerTrace {
        LayerTrace { layer, hidden, attention, ffn, projections }
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        by_fields(slf, &["layer", "hidden", "attention", "ffn", "projections"])
    }

    fn __repr__(&self) -> String {
        format!("<LayerTrace {}>", self.layer)
    }
}

#[pymethods]
impl ProjectionTrace {
    #[classmethod]
    fn _rebuild(
        _cls: &Bound<'_, PyType>,
        tensor: String,
        floats: Option<Py<PyArray2<f32>>>,
        q: Option<Py<PyArray2<i8>>>,
        scales: Option<Py<PyArray1<f32>>>,
        output: Py<PyArray2<f32>>,
    ) -> PyResult<ProjectionTrace> {
        let input = match (floats, q, scales) {
            (Some(x), ..) => Input::Floats(x),
            (None, Some(q), Some(scales)) => Input::Int8 { q, scales },
            _ => return Err(PyTypeError::new_err("a ProjectionTrace needs an input")),
        };
        Ok(ProjectionTrace { tensor, input, output })
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        let trace = slf.get();
        let (floats, q, scales) = match &trace.input {
            Input::Floats(x) => (Some(x), None, None),
            Input::Int8 { q, scales } => (None, Some(q), Some(scales)),
        };
        let arguments = (trace.tensor.as_str(), floats, q, scales, &trace.output).into_pyobject(slf.py())?;
        Ok((slf.get_type().getattr("_rebuild")?, arguments))
    }

    #[doc = doc!(ProjectionTrace.x)]
    #[getter]
    fn x<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match &self.input {
            Input::Floats(x) => Ok(x.bind(py).as_any().clone()),
            Input::Int8 { q, scales } => q.bind(py).div(scales.bind(py).call_method1("reshape", (-1, 1))?),
        }
    }

    #[doc = doc!(ProjectionTrace.x_int8)]
    #[getter]
    fn x_int8(&self) -> Option<&Py<PyArray2<i8>>> {
        if let Input::Int8 { q, .. } = &self.input { Some(q) } else { None }
    }

    #[doc = doc!(ProjectionTrace.x_scale)]
    #[getter]
    fn x_scale(&self) -> Option<&Py<PyArray1<f32>>> {
        if let Input::Int8 { scales, .. } = &self.input { Some(scales) } else { None }
    }

    fn __repr__(&self) -> String {
        format!("<ProjectionTrace {}>", self.tensor)
    }
}

/// `Engine.trace`.
pub fn trace(
    py: Python<'_>,
    engine: &Engine,
    prompt: &Bound<'_, PyAny>,
    layers: Option<&Bound<'_, PyAny>>,
) -> PyResult<Trace> {
    let prompt = text_or_ids(prompt, "prompt", engine)?;
    let layers = chosen(layers, engine.config().n_layers)?;
    let (token_ids, trace) = detached(py, |watch| {
        let ids = engine.ids_of(prompt, watch)?;
        let trace = engine.trace(&ids, &layers, watch)?;
        Ok((ids, trace))
    })?;
    let n = token_ids.len();
    let traced = PyDict::new(py);
    for layer in trace.layers {
        traced.set_item(layer.layer, layer_trace(py, layer, n)?)?;
    }
    let (hidden, logits) = (matrix(py, trace.hidden, n)?, matrix(py, trace.logits, n)?);
    Ok(Trace { token_ids, layers: traced.unbind(), hidden, logits })
}

fn layer_trace(py: Python<'_>, trace: engine::LayerTrace, n: usize) -> PyResult<LayerTrace> {
    // A gated delta net has no attention weights: no heads.
    let n_heads = trace.attention.len() / n / n;
    let attention = PyArray1::from_vec(py, trace.attention).reshape([n, n_heads, n])?.permute(Some([1, 0, 2]))?;
    let inputs = trace.inputs.into_iter().map(|input| Input::new(py, input, n)).collect::<PyResult<Vec<Input>>>()?;
    let projections = PyDict::new(py);
    for engine::ProjectionTrace { name, input, output } in trace.projections {
        let projection = ProjectionTrace {
            tensor: format!("blk.{}.{name}.weight", trace.layer),
            input: inputs[input].clone_ref(py),
            output: matrix(py, output, n)?,
        };
        projections.set_item(name, projection)?;
    }
    Ok(LayerTrace {
        layer: trace.layer,
        hidden: matrix(py, trace.hidden, n)?,
        attention: attention.unbind(),
        ffn: matrix(py, trace.ffn, n)?,
        projections: projections.unbind(),
    })
}

/// An array of `n` rows.
fn matrix<T: Element>(py: Python<'_>, values: Vec<T>, n: usize) -> PyResult<Py<PyArray2<T>>> {
    let width = values.len() / n;
    Ok(PyArray1::from_vec(py, values).reshape([n, width])?.unbind())
}

/// The chosen layers, each once, in ascending order: all, one, or several. Negative numbers count from the end.
fn chosen(layers: Option<&Bound<'_, PyAny>>, n_layers: usize) -> PyResult<Vec<usize>> {
    let Some(layers) = layers else { return Ok((0..n_layers).collect()) };
    if layers.hasattr("__index__")? && !layers.hasattr("__len__")? {
        return Ok(vec![layer_index(layers, n_layers)?]);
    }
    if layers.is_instance_of::<PyString>() {
        return Err(no_layers(layers));
    }
    let items = layers.try_iter().map_err(|_| no_layers(layers))?;
    let mut chosen = items.map(|item| layer_index(&item?, n_layers)).collect::<PyResult<Vec<usize>>>()?;
    chosen.sort_unstable();
    chosen.dedup();
    Ok(chosen)
}

fn layer_index(layer: &Bound<'_, PyAny>, n_layers: usize) -> PyResult<usize> {
    if layer.is_instance_of::<PyBool>() || !layer.hasattr("__index__")? {
        return Err(no_layers(layer));
    }
    // What i64 does not hold is out of range, too.
    let index = layer.extract::<i64>().map_or(i64::MAX, |n| if n < 0 { n + n_layers as i64 } else { n });
    usize::try_from(index).ok().filter(|index| *index < n_layers).ok_or_else(|| {
        let last = n_layers - 1;
        Error::Argument(format!("layers: the model has no layer {layer}, expected 0 to {last}, or -1 for the last"))
            .into()
    })
}

fn no_layers(found: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!("layers must be an int or a sequence of int, found {}", type_name(found)))
}
