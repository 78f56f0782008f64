//! Schemas as llguidance gets them: bounds that it can hold, and nothing that takes too long.

use super::*;

#[test]
fn far_bounds_are_moved_and_inexact_numbers_refused() {
    let far = json!({"items": {"minimum": i64::MIN, "maximum": u64::MAX, "default": u64::MAX}, "enum": [0.1, 1]});
    let held = prepared(far).unwrap();
    assert!(prepared(json!({"enum": [1i64 << 62, -(1i64 << 62)]})).is_ok());
    assert_eq!(held["items"], json!({"minimum": -FARTHEST, "maximum": FARTHEST, "default": u64::MAX}));
    for wrong in [
        json!({"const": (1u64 << 53) + 1}),
        json!({"enum": [{"maximum": 1e300}]}),
        json!({"minimum": 1e19}),
        json!({"anyOf": [{"exclusiveMaximum": -1e19}]}),
        json!({"minimum": -(1i64 << 53) - 1}),
        json!({"const": i64::MIN}),
        json!({"enum": [[u64::MAX / 2 + 1]]}),
    ] {
        assert!(prepared(wrong.clone()).is_err(), "{wrong}");
        assert!(prepared_in(&format!("start: a | b\na: %json {wrong}\nb: \"x\"")).is_err(), "{wrong}");
    }
}

#[test]
fn what_takes_exponential_time_is_refused() {
    let all = |n: usize| json!({"items": {"allOf": vec![json!({"allOf": [{"pattern": "a"}, {}]}); n]}});
    assert!(prepared(all(7)).is_ok());
    assert!(prepared(all(8)).unwrap_err().contains("allOf joins 16 schemas"));
    let many = |n: usize| (0..n).map(|i| (format!("^{i}$"), json!({}))).collect::<serde_json::Map<_, _>>();
    assert!(prepared(json!({"patternProperties": many(128)})).is_ok());
    assert!(prepared(json!({"patternProperties": many(129)})).is_err());
    let joined = |n: usize| format!("start: \"R&D\\\"&\" A\nA: {}", vec!["/a/"; n + 1].join(" & "));
    assert!(prepared_in(&joined(14)).is_ok());
    assert!(prepared_in(&joined(15)).unwrap_err().contains("& 15 times"));
}

#[test]
fn schemas_in_a_grammar_are_found() {
    let moved = prepared_in("start: a b\na: %json { \"minimum\": -1e300 }\nb: %json {\"enum\": [1]}\n").unwrap();
    assert_eq!(moved, format!("start: a b\na: %json {{\"minimum\":-{FARTHEST}}}\nb: %json {{\"enum\":[1]}}\n"));
    for same in ["start: /%json/", "start: %json", "start: \"a\" # %json {", ""] {
        assert_eq!(prepared_in(same).unwrap(), same);
    }
}
