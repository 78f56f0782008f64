//! Errors keep their kind and their place on the way to the caller, and their advice is right.

use bitnet::engine::{Engine, Options};
use bitnet::error::Error;
use bitnet::tokenizer::Tokenizer;
use std::path::{Path, PathBuf};

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/relu2-i2s.gguf")
}

/// A copy of the fixture in which `from` is replaced by `to`, of the same length.
fn changed(name: &str, from: &[u8], to: &[u8]) -> PathBuf {
    let mut bytes = std::fs::read(fixture()).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn open(path: &Path, n_ctx: Option<usize>) -> Engine {
    Engine::open(path, Options { n_ctx, n_threads: Some(1), ..Options::default() }, &mut || false).unwrap()
}

/// One error of each kind, apart from `At`.
fn errors() -> Vec<Error> {
    let path = || PathBuf::from("m.gguf");
    let text = || "what was found".to_string();
    vec![
        Error::NotFound { path: path() },
        Error::Io { path: path(), source: std::io::Error::from_raw_os_error(13) },
        Error::Io { path: path(), source: std::io::Error::other("text of another library") },
        Error::File { path: path(), reason: text() },
        Error::Unsupported(text()),
        Error::Model(text()),
        Error::Template(text()),
        Error::Receipt { gate: "run.ids".into(), what: text() },
        Error::Argument(text()),
        Error::Context { needed: 70, n_ctx: 64, model_max: 64 },
        Error::TokenId { id: 99, position: 3, n_vocab: 40 },
        Error::Memory { bytes: 123 },
        Error::Closed,
        Error::Cancelled,
    ]
}

fn is_same_kind(a: &Error, b: &Error) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

#[test]
fn a_place_is_put_in_front_and_the_kind_stays() {
    for error in errors() {
        let message = error.to_string();
        let placed = error.clone().at("row 1").at("sequences[2]");
        assert!(is_same_kind(placed.kind(), &error), "{placed:?}");
        let expected = match error {
            Error::Closed | Error::Cancelled => message,
            _ => format!("sequences[2]: row 1: {message}"),
        };
        assert_eq!(placed.to_string(), expected);
    }
}

#[test]
fn a_file_is_named_once() {
    let path = Path::new("m.gguf");
    for error in errors() {
        let placed = error.clone().of_file(path).of_file(path).to_string();
        let times = usize::from(!matches!(error, Error::Closed | Error::Cancelled));
        assert_eq!(placed.matches("m.gguf").count(), times, "{placed}");
    }
}

/// A short name may occur in any message.
#[test]
fn a_file_is_named_although_the_message_contains_its_name() {
    let error = Error::Model("the model has no tokenizer".into()).of_file(Path::new("model"));
    assert_eq!(error.to_string(), "model: the model has no tokenizer");
}

#[test]
fn a_copy_of_an_error_is_the_same() {
    for error in errors() {
        let (copy, placed) = (error.clone(), error.clone().at("there"));
        assert_eq!(format!("{copy}"), format!("{error}"));
        assert!(is_same_kind(&copy, &error));
        assert_eq!(placed.clone().to_string(), placed.to_string());
        if let (Error::Io { source: a, .. }, Error::Io { source: b, .. }) = (&copy, &error) {
            assert_eq!((a.raw_os_error(), a.kind()), (b.raw_os_error(), b.kind()));
        }
    }
}

#[test]
fn a_larger_context_is_advised_only_if_the_model_allows_it() {
    let message = |n_ctx: Option<usize>| {
        let engine = open(&fixture(), n_ctx);
        let error = engine.logits(&[vec![1; 1000]], &mut || false).unwrap_err();
        assert!(matches!(error.kind(), Error::Context { needed: 1000, .. }), "{error:?}");
        (error.to_string(), engine.config().context)
    };
    let (whole, context) = message(None);
    assert!(whole.contains(&format!("1000 tokens do not fit into the context of {context}; ")), "{whole}");
    assert!(whole.contains("shorten the input") && !whole.contains("larger n_ctx"), "{whole}");
    let (part, context) = message(Some(16));
    assert!(part.contains(&format!("larger n_ctx (at most {context} for this model)")), "{part}");
}

/// The engine builds its tokenizer on another thread and keeps the error.
#[test]
fn a_tokenizer_is_refused_alike_alone_and_in_an_engine() {
    let key = b"tokenizer.ggml.model\x08\0\0\0\x04\0\0\0\0\0\0\0";
    let unsupported = changed("unsupported.gguf", &[&key[..], b"gpt2"].concat(), &[&key[..], b"bert"].concat());
    let missing = changed("missing.gguf", b"tokenizer.ggml.tokens", b"tokenizer.ggml.nothing"[..21].as_ref());
    for (path, kind) in [(unsupported, Error::Unsupported(String::new())), (missing, Error::Model(String::new()))] {
        let alone = Tokenizer::open(&path, None).err().unwrap();
        assert!(is_same_kind(alone.kind(), &kind), "{alone:?}");
        assert!(alone.to_string().starts_with(&format!("{}: ", path.display())), "{alone}");
        let engine = open(&path, None);
        for _ in 0..2 {
            let inside = engine.tokenizer().err().unwrap();
            assert!(is_same_kind(inside.kind(), &kind), "{inside:?}");
            assert_eq!(inside.to_string(), alone.to_string());
        }
    }
}

#[test]
fn the_core_names_no_interface() {
    let missing = Tokenizer::open(Path::new("no-such.gguf"), None).err().unwrap();
    assert_eq!(missing.to_string(), "no-such.gguf: no such file; check the path");
}
