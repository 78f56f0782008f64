//! The Python classes: module `bitnet._core`. Classes, conversion and the asyncio bridge only; logic is in
//! `engine` and `chat`.

include!(concat!(env!("OUT_DIR"), "/doc.rs")); // `doc!` gives the docstrings of the stubs

mod answers;
mod arrays;
mod awaitable;
mod chat;
mod completion;
mod convert;
mod engine;
mod generate;
mod hints;
mod inspect;
mod messages;
mod notebook;
mod pack;
mod parsed;
mod pickle;
mod prefill;
mod processor;
mod receipt;
mod replay;
mod sampling;
mod spans;
mod stream;
mod template;
mod tensor;
mod texts;
mod together;
mod tokenizer;
mod tools;
mod trace;
mod turn;

use pyo3::prelude::*;

/// The compiled half of the package; import `bitnet` instead.
#[pymodule]
mod _core {
    #[pymodule_export]
    use super::arrays::Scores;
    #[pymodule_export]
    use super::chat::ChatSession;
    #[pymodule_export]
    use super::completion::{Completion, Logprob, Piece};
    #[pymodule_export]
    use super::engine::Engine;
    #[pymodule_export]
    use super::inspect::{dot_peak, inspect, isas, look_up_peak, processor, read_bandwidth};
    #[pymodule_export]
    use super::pack::{check_packed, pack};
    #[pymodule_export]
    use super::prefill::Prefill;
    #[pymodule_export]
    use super::receipt::Receipt;
    #[pymodule_export]
    use super::sampling::SamplingParams;
    #[pymodule_export]
    use super::spans::Span;
    #[pymodule_export]
    use super::stream::Stream;
    #[pymodule_export]
    use super::template::Template;
    #[pymodule_export]
    use super::tensor::Tensor;
    #[pymodule_export]
    use super::tokenizer::Tokenizer;
    #[pymodule_export]
    use super::trace::{LayerTrace, ProjectionTrace, Trace};
    #[pymodule_export]
    use super::turn::ChatTurn;

    use super::sampling::{_sampling_parameters, _sampling_schema};
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // Private: `setattr` leaves them out of `__all__`.
        module.setattr("_Together", module.py().get_type::<super::together::Together>())?;
        module.setattr("_sampling_parameters", wrap_pyfunction!(_sampling_parameters, module)?)?;
        module.setattr("_sampling_schema", wrap_pyfunction!(_sampling_schema, module)?)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
