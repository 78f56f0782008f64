use super::*;
use serde_json::{Value as Json, json};

#[test]
fn literals_are_read_as_by_jinja2() {
    let cases: Json = serde_json::from_str(include_str!("../fixtures/python_literals.json")).expect("JSON");
    for case in cases.as_array().expect("cases") {
        let ours = match unescape(case[0].as_str().expect("a literal")) {
            Ok(text) => json!({"is": text}),
            Err(Fault::Raised(class, message)) => json!({"raises": [class, message]}),
            Err(other) => panic!("{other:?} of {case}"),
        };
        assert_eq!(ours, case[1], "{case}");
    }
}

#[test]
fn surrogates_are_refused_by_name() {
    let refused = unescape("\\ud83d\\ude00");
    assert!(matches!(refused, Err(Fault::Unsupported(why)) if why.contains("\\ud83d")));
}
