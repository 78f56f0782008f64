use super::*;
use serde_json::{Value as Json, json};

fn fixture() -> Json {
    serde_json::from_str(include_str!("../fixtures/python_numbers.json")).expect("JSON")
}

fn outcome(result: Result<String, Fault>) -> Json {
    match result {
        Ok(value) => json!({"is": value}),
        Err(Fault::Raised(class, message)) => json!({"raises": [class, message]}),
        Err(other) => panic!("{other:?}"),
    }
}

fn float(json: &Json) -> f64 {
    json.as_str().expect("a float").parse().expect("a float")
}

#[test]
fn int_and_float_read_what_python_reads() {
    let cases = fixture();
    for case in cases["int"].as_array().expect("cases") {
        let [text, base, expected] = [&case[0], &case[1], &case[2]];
        let text = Text::own(text.as_str().expect("a text"));
        let ours = parse_int(&text, base.as_i64().expect("a base").into()).map(|number| number.to_string());
        assert_eq!(&outcome(ours), expected, "{case}");
    }
    for case in cases["float"].as_array().expect("cases") {
        let ours = parse_float(&Text::own(case[0].as_str().expect("a text"))).map(float_repr);
        assert_eq!(outcome(ours), case[1], "{case}");
    }
    let huge = Text::own("9".repeat(100));
    assert!(matches!(parse_int(&huge, 10), Err(Fault::Unsupported(why)) if why.contains("128 bits")));
    assert!(matches!(float_to_int(1e300), Err(Fault::Unsupported(_))));
}

#[test]
fn rounding_is_pythons() {
    let cases = fixture();
    for case in cases["round"].as_array().expect("cases") {
        let x = float(&case[0]);
        let ours = match case[1].as_i64() {
            Some(digits) => round_float(x, digits.into()).map(float_repr),
            None => round_to_int(x).map(|number| number.to_string()),
        };
        assert_eq!(outcome(ours), case[2], "{case}");
    }
    for case in cases["round_int"].as_array().expect("cases") {
        let n = case[0].as_str().and_then(|n| n.parse().ok()).expect("an integer");
        let ours = round_int(n, case[1].as_i64().expect("digits").into()).expect("small");
        assert_eq!(ours.to_string(), case[2].as_str().expect("an integer"), "{case}");
    }
}

#[test]
fn repr_of_floats_is_pythons() {
    for case in fixture()["repr"].as_array().expect("cases") {
        let bits = case[0].as_str().and_then(|bits| u64::from_str_radix(bits, 16).ok()).expect("the bits");
        assert_eq!(float_repr(f64::from_bits(bits)), case[1].as_str().expect("a text"));
    }
}
