//! Jinja2 3.1 for chat templates, as transformers sets it up.
#![allow(dead_code)]

mod text;
mod unicode;
