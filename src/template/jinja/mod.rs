//! Jinja2 3.1 for chat templates, as transformers sets it up.
#![allow(dead_code)]

mod format;
mod format_spec;
mod literal;
mod numbers;
mod percent;
mod str_call;
mod str_methods;
mod strftime;
mod text;
mod unicode;
