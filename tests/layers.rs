//! The structure of the sources, read off them: a module uses only modules of lower layers, no two files import each
//! other, files stay short, and `unsafe` stays where `docs/architecture.md` allows it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every top-level module and its layer, as in `docs/architecture.md`.
const LAYERS: [(&str, u32); 19] = [
    ("error", 0),
    ("token", 0),
    ("machine", 1),
    ("checkpoint", 1),
    ("template", 2),
    ("sampler", 1),
    ("receipt", 2),
    ("kernel", 2),
    ("codec", 2),
    ("tokenizer", 3),
    ("ops", 3),
    ("model", 4),
    ("grammar", 4),
    ("decode", 5),
    ("engine", 6),
    ("chat", 7),
    ("py", 8),
    ("wasm", 8),
    ("lib", 9),
];
/// Lower layers that the Python classes may not use: engine and chat offer what they need.
const HIDDEN_FROM_PY: [&str; 3] = ["kernel", "model", "decode"];
const UNSAFE_ALLOWED: [&str; 4] = ["machine/", "kernel/", "checkpoint/map.rs", "wasm.rs"];
const FILE_LINES: usize = 600;

fn layer(module: &str) -> Option<u32> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// The code without comments.
fn code(source: &str) -> String {
    source.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// All paths that begin with `crate::` or `super::`, use trees expanded: `crate::a::{b, c::d}` gives two.
fn paths(source: &str) -> Vec<Vec<String>> {
    let source = code(source);
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in source.match_indices(start) {
            let before = source[..at].chars().next_back();
            if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                expand(&source[at..], Vec::new(), &mut found);
            }
        }
    }
    found
}

/// Reads one use tree from the start of `text`, and returns what follows it.
fn expand<'a>(text: &'a str, mut path: Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    let mut rest = text.trim_start();
    loop {
        if let Some(group) = rest.strip_prefix('{') {
            rest = group;
            loop {
                rest = expand(rest, path.clone(), found).trim_start();
                match rest.strip_prefix(',') {
                    Some(more) => rest = more.trim_start(),
                    None => break,
                }
                if rest.starts_with('}') {
                    break;
                }
            }
            return rest.strip_prefix('}').unwrap_or(rest);
        }
        let len = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, after) = rest.split_at(len);
        if !name.is_empty() {
            path.push(name.to_string());
        }
        match after.strip_prefix("::") {
            Some(more) if !name.is_empty() => rest = more.trim_start(),
            _ => {
                found.push(path);
                let alias = after.trim_start().strip_prefix("as ").map(str::trim_start);
                return alias
                    .map_or(after, |alias| alias.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'));
            }
        }
    }
}

/// The top-level modules that a source names by `crate::…`.
fn used(source: &str) -> BTreeSet<String> {
    paths(source).into_iter().filter(|path| path[0] == "crate").filter_map(|path| path.get(1).cloned()).collect()
}

/// What a file of `module` must not use.
fn violations(module: &str, source: &str) -> Vec<String> {
    let own = layer(module).unwrap_or_else(|| panic!("module '{module}' has no layer; give it one in this table"));
    let hidden = |other: &String| module == "py" && HIDDEN_FROM_PY.contains(&&**other);
    let allowed = |other: &String| other == module || (layer(other).is_some_and(|layer| layer < own) && !hidden(other));
    used(source).into_iter().filter(|other| !allowed(other)).collect()
}

/// A file's place in the tree of modules: `kernel/float.rs` and `kernel/mod.rs` are `[kernel, float]` and `[kernel]`.
fn module_path(path: &Path) -> Vec<String> {
    let names = path.with_extension("");
    let names = names.iter().map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name != "mod" && name != "lib").collect()
}

/// For each file the other files that it names. A module and the files inside it count as one: `mod.rs` declares them.
fn imports(sources: &[(PathBuf, String)]) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let files: BTreeSet<Vec<String>> = sources.iter().map(|(path, _)| module_path(path)).collect();
    let file_of = |mut path: Vec<String>| {
        while !path.is_empty() && !files.contains(&path) {
            path.pop();
        }
        path
    };
    let mut imports = BTreeMap::new();
    for (path, source) in sources {
        let own = module_path(path);
        let absolute = |path: Vec<String>| match path.iter().take_while(|name| *name == "super").count() {
            0 => path[1..].to_vec(),
            up => own[..own.len().saturating_sub(up)].iter().chain(&path[up..]).cloned().collect(),
        };
        let others = paths(source).into_iter().map(|path| file_of(absolute(path)));
        let apart = |other: &Vec<String>| !other.starts_with(&own) && !own.starts_with(other);
        imports.insert(own.clone(), others.filter(apart).collect());
    }
    imports
}

/// The files of a circle of imports, if there is one.
fn circle(imports: &BTreeMap<Vec<String>, BTreeSet<Vec<String>>>) -> Option<Vec<String>> {
    fn visit(
        file: &Vec<String>,
        imports: &BTreeMap<Vec<String>, BTreeSet<Vec<String>>>,
        open: &mut Vec<Vec<String>>,
        done: &mut BTreeSet<Vec<String>>,
    ) -> Option<Vec<String>> {
        if let Some(start) = open.iter().position(|other| other == file) {
            return Some(open[start..].iter().map(|file| file.join("::")).collect());
        }
        if !done.contains(file) {
            open.push(file.clone());
            for other in imports.get(file).into_iter().flatten() {
                if let Some(circle) = visit(other, imports, open, done) {
                    return Some(circle);
                }
            }
            open.pop();
            done.insert(file.clone());
        }
        None
    }
    let mut done = BTreeSet::new();
    imports.keys().find_map(|file| visit(file, imports, &mut Vec::new(), &mut done))
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
fn no_two_files_import_each_other() {
    assert_eq!(circle(&imports(&sources())), None, "these files import each other in a circle");
}

#[test]
fn files_stay_short() {
    for (path, source) in sources() {
        let lines = source.lines().count();
        assert!(lines <= FILE_LINES, "{} has {lines} lines; split it", path.display());
    }
}

#[test]
fn unsafe_stays_where_it_is_allowed() {
    for (path, source) in sources() {
        let path = path.to_string_lossy().replace('\\', "/");
        let has_unsafe = code(&source).split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
        let may = UNSAFE_ALLOWED.iter().any(|place| path.starts_with(place));
        assert!(may || !has_unsafe, "{path} holds unsafe code, which belongs in {UNSAFE_ALLOWED:?}");
    }
}

#[test]
fn the_checker_finds_what_it_looks_for() {
    let source =
        "use crate::{error::{Error, Result}, engine::Engine as E, py};\nfn f() { crate::py::x(); } // crate::chat::y";
    assert_eq!(used(source).into_iter().collect::<Vec<_>>(), ["engine", "error", "py"]);
    assert_eq!(violations("kernel", source), ["engine", "py"]);
    assert!(violations("engine", "use crate::engine::x; use crate::model::{self, Model};").is_empty());
    assert_eq!(violations("py", "use crate::model::Model; use crate::engine::Engine;"), ["model"]);

    let file = |path: &str, source: &str| (PathBuf::from(path), source.to_string());
    let mut house = vec![
        file("a/mod.rs", "mod b; mod c; use b::B; pub use c::C;"),
        file("a/b.rs", "use super::{A, c::C};"),
        file("a/c.rs", "use crate::error::Error;"),
        file("error.rs", ""),
    ];
    assert_eq!(circle(&imports(&house)), None);
    house[2].1 += "fn f() { super::b::g() }";
    assert_eq!(circle(&imports(&house)), Some(vec!["a::b".into(), "a::c".into()]));
}
