//! The layers of the house, read off the sources: a module uses only modules of lower numbers, files stay short,
//! and `unsafe` stays in the rooms that `docs/architecture.md` gives it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const LAYERS: [(&str, u32); 15] = [
    ("error", 0),
    ("gguf", 1),
    ("template", 1),
    ("sampler", 1),
    ("receipt", 1),
    ("kernel", 1),
    ("codec", 2),
    ("tokenizer", 2),
    ("ops", 2),
    ("model", 3),
    ("decode", 4),
    ("engine", 5),
    ("chat", 6),
    ("py", 7),
    ("lib", 8),
];
const UNSAFE_ROOMS: [&str; 3] = ["kernel/", "gguf/map.rs", "py/"];
const FILE_LINES: usize = 600;
const CORE_LINES: usize = 12_000;

fn layer(module: &str) -> Option<u32> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// The code without comments.
fn code(source: &str) -> String {
    source.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// The top-level modules that a source names by `crate::…`, grouped imports included.
fn used(source: &str) -> BTreeSet<String> {
    let source = code(source);
    let mut modules = BTreeSet::new();
    for rest in source.split("crate::").skip(1) {
        let name = |s: &str| s.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        if let Some(group) = rest.trim_start().strip_prefix('{') {
            let mut depth = 0;
            let mut start = 0;
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    ',' if depth == 0 => {
                        modules.insert(name(&group[start..i]));
                        start = i + 1;
                    }
                    '}' if depth == 0 => {
                        modules.insert(name(&group[start..i]));
                        break;
                    }
                    '}' => depth -= 1,
                    _ => {}
                }
            }
        } else {
            modules.insert(name(rest));
        }
    }
    modules.remove("");
    modules
}

/// What a file of `module` must not use.
fn violations(module: &str, source: &str) -> Vec<String> {
    let own = layer(module).unwrap_or_else(|| panic!("module '{module}' has no layer; give it one in this table"));
    let allowed = |other: &String| other == module || layer(other).is_some_and(|layer| layer < own);
    used(source).into_iter().filter(|other| !allowed(other)).collect()
}

fn sources() -> Vec<(PathBuf, String)> {
    fn visit(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                visit(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push((path.clone(), fs::read_to_string(&path).expect("a source")));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    visit(&root, &mut found);
    let relative = |path: PathBuf| path.strip_prefix(&root).expect("below src").to_path_buf();
    found.into_iter().map(|(path, source)| (relative(path), source)).collect()
}

fn module_of(path: &Path) -> String {
    let first = path.iter().next().expect("a name").to_string_lossy();
    first.trim_end_matches(".rs").to_string()
}

#[test]
fn modules_use_only_lower_layers() {
    for (path, source) in sources() {
        let bad = violations(&module_of(&path), &source);
        assert!(bad.is_empty(), "{} uses {bad:?}, which its layer may not", path.display());
    }
}

#[test]
fn files_stay_short() {
    let lines: Vec<(PathBuf, usize)> = sources().into_iter().map(|(p, s)| (p, s.lines().count())).collect();
    for (path, lines) in &lines {
        assert!(*lines <= FILE_LINES, "{} has {lines} lines; split it", path.display());
    }
    // The core is what is built and tested without Python.
    let core = lines.iter().filter(|(path, _)| module_of(path) != "py");
    let all: usize = core.map(|(_, lines)| lines).sum();
    assert!(all <= CORE_LINES, "the core has {all} lines");
}

#[test]
fn unsafe_stays_in_its_rooms() {
    for (path, source) in sources() {
        let path = path.to_string_lossy().replace('\\', "/");
        let has_unsafe = code(&source).split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
        let may = UNSAFE_ROOMS.iter().any(|room| path.starts_with(room));
        assert!(may || !has_unsafe, "{path} holds unsafe code, which belongs in {UNSAFE_ROOMS:?}");
    }
}

#[test]
fn the_checker_sees_a_circle() {
    let source = "use crate::{error::{Error, Result}, engine::Engine};\nfn f() { crate::py::x(); } // crate::chat::y";
    assert_eq!(used(source).into_iter().collect::<Vec<_>>(), ["engine", "error", "py"]);
    assert_eq!(violations("kernel", source), ["engine", "py"]);
    assert!(violations("engine", "use crate::engine::x; use crate::model::{self, Model};").is_empty());
}
