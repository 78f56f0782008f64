//! Jinja2 3.1 for chat templates, as transformers sets it up.
#![allow(dead_code)]

mod numbers;
mod str_call;
mod str_methods;
mod text;
mod unicode;
