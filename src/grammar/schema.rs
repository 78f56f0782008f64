//! A JSON Schema as llguidance gets it: with the layout that answers have, and with numbers that it can hold.

use serde_json::{Value as Json, json};

/// Keywords whose value is the least number, and those whose value is the largest one.
const LEAST: [&str; 2] = ["minimum", "exclusiveMinimum"];
const LARGEST: [&str; 2] = ["maximum", "exclusiveMaximum"];
/// Keywords whose values are JSON of the answer.
const VALUES: [&str; 2] = ["const", "enum"];
/// Keywords that say nothing of what is allowed.
const NOTES: [&str; 3] = ["default", "examples", "x-guidance"];
/// Bounds beyond this one and its negative are moved to it. It is exact as f64, and far enough from the ends of i64, at
/// which llguidance fails.
const FARTHEST: i64 = 1_000_000_000_000_000_000;
/// The largest `multipleOf`, as its remainders are the states of an automaton.
const MOST_STEP: f64 = 10_000.0;

/// The schema with the layout of JSON that answers have: that of Python's `json.dumps`, on one line. White space that the
/// model could choose would have to be computed token by token. `x-guidance` in the schema overrides it.
pub(super) fn prepared(schema: Json) -> Result<Json, String> {
    let mut schema = match schema {
        Json::Bool(true) => json!({}),
        schema => schema,
    };
    if !schema.is_object() {
        return Err("expected a JSON object, the schema".into());
    }
    hold_numbers(&mut schema)?;
    let layout = json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
    schema.as_object_mut().into_iter().for_each(|fields| _ = fields.entry("x-guidance").or_insert(layout.clone()));
    Ok(schema)
}

/// Moves far bounds, and refuses numbers that would become others, as llguidance computes with f64.
fn hold_numbers(schema: &mut Json) -> Result<(), String> {
    match schema {
        Json::Array(items) => items.iter_mut().try_for_each(hold_numbers),
        Json::Object(fields) => fields.iter_mut().try_for_each(|(key, value)| {
            let key = key.as_str();
            let far = FARTHEST as f64;
            match value.as_f64() {
                _ if NOTES.contains(&key) => {}
                Some(bound) if LEAST.contains(&key) && bound < -far => *value = (-FARTHEST).into(),
                Some(bound) if LARGEST.contains(&key) && bound > far => *value = FARTHEST.into(),
                Some(bound) if LEAST.contains(&key) && bound > far || LARGEST.contains(&key) && bound < -far => {
                    return Err(format!("{key} is {value}, expected a number from -{FARTHEST} to {FARTHEST}"));
                }
                Some(step) if key == "multipleOf" && digits(step) > MOST_STEP => {
                    return Err(format!(
                        "multipleOf is {value}, expected at most {MOST_STEP} without its decimal point"
                    ));
                }
                Some(_) => check_exact(value)?,
                None if VALUES.contains(&key) => check_exact(value)?,
                None => hold_numbers(value)?,
            }
            Ok(())
        }),
        _ => Ok(()),
    }
}

/// A number without its decimal point, and without the zeros at its end.
fn digits(number: f64) -> f64 {
    let written = format!("{:e}", number.abs());
    let digits: String =
        written.split('e').next().into_iter().flat_map(str::chars).filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(f64::INFINITY)
}

/// Refuses a value with a number that has no exact f64.
fn check_exact(value: &Json) -> Result<(), String> {
    let is_exact = match value {
        Json::Array(items) => return items.iter().try_for_each(check_exact),
        Json::Object(fields) => return fields.values().try_for_each(check_exact),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(exact), _, Some(held)) => held as i128 == i128::from(exact),
            (_, Some(exact), Some(held)) => held as i128 == i128::from(exact),
            // An integer that is too large for both, or a number with an exponent: one cannot tell.
            (_, _, held) => held.is_some_and(|held| held.abs() < 2f64.powi(53)),
        },
        _ => true,
    };
    if is_exact { Ok(()) } else { Err(format!("the number {value} is too large to be exact; give it as a text")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_bounds_are_moved_and_inexact_numbers_refused() {
        let far = json!({"items": {"minimum": i64::MIN, "maximum": u64::MAX, "default": u64::MAX}, "enum": [0.1, 1]});
        let held = prepared(far).unwrap();
        assert_eq!(held["items"], json!({"minimum": -FARTHEST, "maximum": FARTHEST, "default": u64::MAX}));
        for wrong in [
            json!({"const": (1u64 << 53) + 1}),
            json!({"enum": [{"maximum": 1e300}]}),
            json!({"minimum": 1e19}),
            json!({"anyOf": [{"exclusiveMaximum": -1e19}]}),
            json!({"minimum": -(1i64 << 53) - 1}),
        ] {
            assert!(prepared(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
