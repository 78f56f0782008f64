//! `bitnet.SamplingParams`, and the same parameters as flat keywords. The list of parameters is in `sampler/params.rs`.

use super::convert::{ArgumentError, choice, count, named, refuse_bool, token_ids, type_name, unicode};
use super::hints;
use super::pickle::{Reduced, by_function};
use crate::receipt::Sampling;
use crate::sampler::{
    Choices, PARAMETERS, Rules, SamplingParams as Core, SchemaText, Speculate, decimal, sampling_parameters,
};
use crate::token::TokenId;
use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use pyo3::{BoundObject, IntoPyObject};
use std::sync::Arc;

/// Sampling parameters, and what only Python can do with an answer.
#[derive(Clone, Default, PartialEq)]
pub struct Params {
    pub core: Core,
    pub hooks: Hooks,
}

/// What only Python can do with an answer.
#[derive(Clone, Default)]
pub struct Hooks {
    /// The class that `json_schema` was made of, and that JSON answers become.
    pub model: Option<Arc<Py<PyAny>>>,
    /// The function given as `logits_processor`, called with ids and logits.
    pub processor: Option<Arc<Py<PyAny>>>,
}

impl PartialEq for Hooks {
    fn eq(&self, other: &Hooks) -> bool {
        let same = |a: &Option<Arc<Py<PyAny>>>, b: &Option<Arc<Py<PyAny>>>| match (a, b) {
            (Some(a), Some(b)) => a.is(&**b),
            (a, b) => a.is_none() && b.is_none(),
        };
        same(&self.model, &other.model) && same(&self.processor, &other.processor)
    }
}

/// A type that sampling parameters have, as Python sees it.
trait Keyword: Sized {
    /// The type of the keyword, as the stubs write it.
    const TYPE: &'static str;
    /// The value of the keyword `name`.
    fn from_python(value: &Bound<'_, PyAny>, name: &str, rules: &Rules) -> PyResult<Self>;
    /// The value that the getter returns.
    fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>>;
}

/// Converts to the Python type that fits a Rust type.
fn plain<'py, T: IntoPyObject<'py>>(value: T, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
    value.into_pyobject(py).map(|object| object.into_any().into_bound()).map_err(Into::into)
}

impl Keyword for f32 {
    const TYPE: &'static str = "float";

    fn from_python(value: &Bound<'_, PyAny>, name: &str, _: &Rules) -> PyResult<f32> {
        refuse_bool(value, name, "a float")?;
        value.extract()
    }

    fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(decimal(*self), py)
    }
}

impl Keyword for usize {
    const TYPE: &'static str = "int";

    fn from_python(value: &Bound<'_, PyAny>, name: &str, rules: &Rules) -> PyResult<usize> {
        count(value, name, rules.least.max(0.0) as i64)
    }

    fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(*self, py)
    }
}

impl Keyword for Option<usize> {
    const TYPE: &'static str = "int | None";

    fn from_python(value: &Bound<'_, PyAny>, name: &str, rules: &Rules) -> PyResult<Option<usize>> {
        if value.is_none() { Ok(None) } else { usize::from_python(value, name, rules).map(Some) }
    }

    fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(*self, py)
    }
}

impl Keyword for Option<u64> {
    const TYPE: &'static str = "int | None";

    fn from_python(value: &Bound<'_, PyAny>, name: &str, _: &Rules) -> PyResult<Option<u64>> {
        refuse_bool(value, name, "an int")?;
        value.extract().map_err(|error: PyErr| {
            if error.is_instance_of::<PyOverflowError>(value.py()) {
                ArgumentError::new_err(format!("{name} is {value}, expected 0 to {}", u64::MAX))
            } else {
                error
            }
        })
    }

    fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(*self, py)
    }
}

impl Keyword for Option<Speculate> {
    const TYPE: &'static str = "Literal['lookup'] | None";

    fn from_python(value: &Bound<'_, PyAny>, name: &str, _: &Rules) -> PyResult<Option<Speculate>> {
        let known = Speculate::ALL.map(|kind| (kind.name(), kind));
        if value.is_none() { Ok(None) } else { Ok(Some(choice(&unicode(value, name)?, name, &known)?)) }
    }

    fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(self.map(Speculate::name), py)
    }
}

impl Keyword for Option<String> {
    const TYPE: &'static str = "str | None";

    fn from_python(value: &Bound<'_, PyAny>, name: &str, _: &Rules) -> PyResult<Option<String>> {
        if value.is_none() { Ok(None) } else { unicode(value, name).map(Some) }
    }

    fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(self, py)
    }
}

impl Keyword for Option<Choices> {
    const TYPE: &'static str = "str | Sequence[str] | None";

    fn from_python(value: &Bound<'_, PyAny>, name: &str, rules: &Rules) -> PyResult<Option<Choices>> {
        if value.is_none() { Ok(None) } else { Vec::<String>::from_python(value, name, rules).map(Choices).map(Some) }
    }

    fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(self.as_ref().map(|choices| &choices.0), py)
    }
}

impl Keyword for Option<SchemaText> {
    const TYPE: &'static str = "_Schema | None";

    fn from_python(value: &Bound<'_, PyAny>, name: &str, _: &Rules) -> PyResult<Option<SchemaText>> {
        if value.is_none() {
            return Ok(None);
        }
        let text = value.py().import("bitnet._schema")?.call_method1("text_of", (value,))?;
        Ok(Some(SchemaText(unicode(&text, name)?)))
    }

    fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(self.as_ref().map(|schema| &schema.0), py)
    }
}

impl Keyword for bool {
    const TYPE: &'static str = "bool";

    fn from_python(value: &Bound<'_, PyAny>, _: &str, _: &Rules) -> PyResult<bool> {
        value.extract()
    }

    fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(*self, py)
    }
}

impl Keyword for Vec<String> {
    const TYPE: &'static str = "str | Sequence[str] | None";

    fn from_python(value: &Bound<'_, PyAny>, name: &str, _: &Rules) -> PyResult<Vec<String>> {
        if value.is_instance_of::<PyString>() {
            Ok(vec![unicode(value, name)?])
        } else if value.is_none() {
            Ok(Vec::new())
        } else {
            value.try_iter()?.map(|text| unicode(&text?, name)).collect()
        }
    }

    fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(self, py)
    }
}

impl Keyword for Vec<TokenId> {
    const TYPE: &'static str = "_TokenIds";

    fn from_python(value: &Bound<'_, PyAny>, name: &str, _: &Rules) -> PyResult<Vec<TokenId>> {
        // An id that no vocabulary has never comes up.
        Ok(token_ids(value, name)?.into_iter().filter_map(|id| TokenId::try_from(id).ok()).collect())
    }

    fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(self, py)
    }
}

impl Keyword for Vec<(TokenId, f32)> {
    const TYPE: &'static str = "dict[int, float]";

    fn from_python(value: &Bound<'_, PyAny>, name: &str, _: &Rules) -> PyResult<Vec<(TokenId, f32)>> {
        let dict = value.cast::<PyDict>()?;
        if let Some(key) = dict.keys().iter().find(|key| key.is_instance_of::<PyString>()) {
            let wrong = format!("{name} has the key {} of type str, expected token ids (int)", key.repr()?);
            return Err(PyTypeError::new_err(wrong));
        }
        let ids = token_ids(dict.keys().as_any(), name)?;
        let mut entries = Vec::with_capacity(ids.len());
        for (id, bias) in ids.into_iter().zip(dict.values()) {
            let bias: f64 = bias.extract()?;
            if bias.is_finite() && (bias as f32).is_infinite() {
                return Err(ArgumentError::new_err(format!("{name} is {bias}, more than a float32 holds")));
            }
            let no_id = |_| ArgumentError::new_err(format!("{name} has the id {id}, expected 0 to {}", TokenId::MAX));
            entries.push((TokenId::try_from(id).map_err(no_id)?, bias as f32));
        }
        entries.sort_unstable_by_key(|(id, _)| *id);
        Ok(entries)
    }

    fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let dict = PyDict::new(py);
        self.iter().try_for_each(|(id, bias)| dict.set_item(id, decimal(*bias)))?;
        Ok(dict.into_any())
    }
}

/// `params` and keywords, as every call that samples takes them.
pub fn params(params: Option<&SamplingParams>, keywords: Option<&Bound<'_, PyDict>>) -> PyResult<Params> {
    params_over(&Params::default(), params, keywords)
}

/// `params`, or else `base`, with the changes that the keywords make.
pub fn params_over(
    base: &Params,
    params: Option<&SamplingParams>,
    keywords: Option<&Bound<'_, PyDict>>,
) -> PyResult<Params> {
    let base = params.map_or(base, |params| &params.all).clone();
    keywords.map_or(Ok(base.clone()), |keywords| changed(base, keywords))
}

fn changed(mut params: Params, keywords: &Bound<'_, PyDict>) -> PyResult<Params> {
    for (name, value) in keywords {
        let name: String = name.extract()?;
        if name == "logits_processor" {
            params.hooks.processor = processor(value)?;
            continue;
        }
        if name == "json_schema" {
            let model = value.py().import("bitnet._schema")?.call_method1("model_of", (&value,))?;
            params.hooks.model = (!model.is_none()).then(|| Arc::new(model.unbind()));
        }
        set(&mut params.core, &name, &value).map_err(|error| {
            if error.is_instance_of::<PyTypeError>(value.py()) { named(error, &name, value.py()) } else { error }
        })?;
    }
    params.core.validate()?;
    Ok(params)
}

/// The argument `logits_processor`.
fn processor(value: Bound<'_, PyAny>) -> PyResult<Option<Arc<Py<PyAny>>>> {
    if value.is_none() {
        return Ok(None);
    }
    if !value.is_callable() {
        let found = type_name(&value);
        return Err(PyTypeError::new_err(format!("logits_processor must be a function (ids, logits), found {found}")));
    }
    Ok(Some(Arc::new(value.unbind())))
}

/// Defines the class, with a getter for each parameter of the list.
macro_rules! define_class {
    ($($(#[doc = $help:literal])+ $name:ident: $Type:ty = $default:tt, $rules:expr;)+) => {
        // CPython reads the signature from the start of a class's documentation, up to "--" and an empty line.
        #[doc = concat!("SamplingParams(*", $(", ", stringify!($name), "=", stringify!($default),)+ ", logits_processor=None)\n--\n")]
        #[doc = doc!(SamplingParams)]
        #[pyclass(frozen, eq, module = "bitnet")]
        #[derive(PartialEq, Clone)]
        pub struct SamplingParams {
            pub all: Params,
        }

        #[pymethods]
        impl SamplingParams {
            #[new]
            #[pyo3(signature = (**keywords), text_signature = None)]
            fn new(keywords: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
                Ok(SamplingParams { all: params(None, keywords)? })
            }

            $(
                #[doc = doc!(SamplingParams.$name)]
                #[getter]
                fn $name<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                    self.all.core.$name.to_python(py)
                }
            )+

            #[doc = doc!(SamplingParams.logits_processor)]
            #[getter]
            fn logits_processor(&self, py: Python<'_>) -> Option<Py<PyAny>> {
                self.all.hooks.processor.as_ref().map(|processor| processor.clone_ref(py))
            }

            fn __hash__(slf: &Bound<'_, Self>) -> PyResult<isize> {
                slf.repr()?.hash()
            }

            fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
                let keywords = PyDict::new(slf.py());
                let Params { core, hooks } = &slf.get().all;
                for (parameter, _) in core.written() {
                    keywords.set_item(parameter.name, slf.getattr(parameter.name)?)?;
                }
                for (name, hook) in [("json_schema", &hooks.model), ("logits_processor", &hooks.processor)] {
                    hook.as_ref().map_or(Ok(()), |hook| keywords.set_item(name, hook.clone_ref(slf.py())))?;
                }
                by_function(slf.py(), "sampling_params", (keywords,))
            }

            /// Files of batch answers hold a hash of this text. It lists later parameters only where they differ from
            /// their default, so that an old file can be resumed.
            fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
                let shown = slf.get().all.core.written();
                let processor = slf.get().all.hooks.processor.as_ref().map(|_| "logits_processor");
                let shown = shown.iter().map(|(parameter, _)| parameter.name).chain(processor);
                let shown = shown.map(|name| Ok(format!("{name}={}", slf.getattr(name)?.repr()?)));
                Ok(format!("SamplingParams({})", shown.collect::<PyResult<Vec<_>>>()?.join(", ")))
            }
        }

        /// Sets the parameter `name`.
        fn set(core: &mut Core, name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
            match name {
                $(stringify!($name) => core.$name = Keyword::from_python(value, name, &$rules)?,)+
                _ => return Err(hints::sampling_keyword(value.py(), name)),
            }
            Ok(())
        }

        /// The types of the parameters, as the stubs write them.
        const TYPES: &[&str] = &[$(<$Type as Keyword>::TYPE,)+];
    };
}
sampling_parameters!(define_class);

#[doc = doc!(_sampling_parameters)]
#[pyfunction]
pub fn _sampling_parameters() -> Vec<(&'static str, &'static str, &'static str, &'static str, Option<&'static str>)> {
    let all = PARAMETERS.iter().zip(TYPES);
    all.map(|(p, kind)| (p.name, *kind, p.default, p.help(), p.rules.since)).collect()
}

#[doc = doc!(_sampling_schema)]
#[pyfunction]
pub fn _sampling_schema() -> String {
    Sampling::schema().to_string()
}
