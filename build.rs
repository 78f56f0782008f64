//! Hands the docstrings of the stubs to the Python face, where `doc!(Engine.prefill)` is the one of `Engine.prefill`: what
//! editors show and what `help()` shows are one text.

use std::{env, fs, path::Path};

const STUBS: &str = "python/bitnet/_core.pyi";
const QUOTES: &str = "\"\"\"";

fn main() {
    println!("cargo::rerun-if-changed={STUBS}");
    let stubs = fs::read_to_string(STUBS).expect("the stubs");
    let out = env::var_os("OUT_DIR").expect("set by cargo");
    fs::write(Path::new(&out).join("doc.rs"), rules(&stubs)).expect("a file in OUT_DIR");
}

/// The macro, with a rule for each class, method and function that has a docstring.
fn rules(stubs: &str) -> String {
    let mut rules = String::from("macro_rules! doc {\n");
    let (mut class, mut name) = (String::new(), None);
    let mut lines = stubs.lines();
    while let Some(line) = lines.next() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        if let Some(rest) = code.strip_prefix("class ") {
            class = identifier(rest);
            name = Some(class.clone());
        } else if let Some(rest) = code.strip_prefix("def ") {
            let own = identifier(rest);
            name = Some(if indent == 0 { own } else { format!("{class}.{own}") });
        } else if let (Some(first), Some(name)) =
            (code.strip_prefix(QUOTES), name.take_if(|_| code.starts_with(QUOTES)))
        {
            let mut text = first.to_string();
            while !text.ends_with(QUOTES) {
                let next = lines.next().expect("the end of a docstring");
                text = format!("{text}\n{}", next.get(indent..).unwrap_or_default());
            }
            rules += &format!("    ({name}) => {{ {:?} }};\n", text.trim_end_matches(QUOTES).trim_end());
        }
    }
    rules + "}\n"
}

fn identifier(code: &str) -> String {
    code.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}
