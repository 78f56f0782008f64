//! A JSON Schema as llguidance gets it: with the layout that answers have, and with numbers that it can hold.

use serde_json::{Value as Json, json};

/// Keywords whose value is the least number, and those whose value is the largest one.
const LEAST: [&str; 2] = ["minimum", "exclusiveMinimum"];
const LARGEST: [&str; 2] = ["maximum", "exclusiveMaximum"];
/// Begins a schema in a grammar.
const JSON: &str = "%json";
/// Keywords whose values are JSON of the answer.
const VALUES: [&str; 2] = ["const", "enum"];
/// Keywords that say nothing of what is allowed.
const NOTES: [&str; 3] = ["default", "examples", "x-guidance"];
/// Bounds beyond this one and its negative are moved to it. It is exact as f64, and far enough from the ends of i64, at
/// which llguidance fails.
const FARTHEST: i64 = 1_000_000_000_000_000_000;
/// The largest `multipleOf`, as its remainders are the states of an automaton.
const MOST_STEP: f64 = 10_000.0;
/// The most schemas or expressions that are joined. The time to find out whether any text fits them all may double with
/// each: 16 patterns take 0.1 s, 20 take 3 s.
const MOST_JOINED: usize = 14;
/// The most patterns of properties. Each is compared with each: 200 take 0.8 s.
const MOST_PATTERNS: usize = 128;

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

/// A grammar in Lark's notation whose schemas (`%json {…}`) hold numbers as those of [`prepared`] do. Their layout is what
/// they say.
pub(super) fn prepared_in(grammar: &str) -> Result<String, String> {
    let (mut text, mut rest, mut joined) = (String::new(), grammar, 0);
    while let Some((before, after)) = rest.split_once(JSON) {
        joined += joins(before);
        text.push_str(before);
        text.push_str(JSON);
        let mut values = serde_json::Deserializer::from_str(after).into_iter::<Json>();
        rest = after;
        // What is no JSON, llguidance refuses.
        if let Some(Ok(mut schema)) = values.next() {
            hold_numbers(&mut schema)?;
            text.push(' ');
            text.push_str(&schema.to_string());
            rest = &after[values.byte_offset()..];
        }
    }
    joined += joins(rest);
    if joined > MOST_JOINED {
        return Err(format!("it joins by & {joined} times, expected at most {MOST_JOINED}: each may double the time"));
    }
    Ok(text + rest)
}

/// How many signs & a part of a grammar has, apart from those in its strings.
fn joins(grammar: &str) -> usize {
    let (mut count, mut inside, mut escaped) = (0, false, false);
    for c in grammar.chars() {
        match c {
            _ if std::mem::take(&mut escaped) => {}
            '\\' => escaped = true,
            '"' => inside = !inside,
            '\n' => inside = false,
            '&' if !inside => count += 1,
            _ => {}
        }
    }
    count
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
                _ if key == "allOf" && joined(value) > MOST_JOINED => {
                    let n = joined(value);
                    return Err(format!(
                        "allOf joins {n} schemas, expected at most {MOST_JOINED}: each may double the time"
                    ));
                }
                _ if key == "patternProperties" && value.as_object().is_some_and(|all| all.len() > MOST_PATTERNS) => {
                    let n = value.as_object().map_or(0, serde_json::Map::len);
                    return Err(format!("patternProperties has {n} patterns, expected at most {MOST_PATTERNS}"));
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

/// How many schemas an `allOf` joins, with those inside its members.
fn joined(all: &Json) -> usize {
    let own = |member: &Json| member.get("allOf").map_or(1, joined);
    all.as_array().map_or(0, |members| members.iter().map(own).sum())
}

/// A number without its decimal point, and without the zeros at its end.
fn digits(number: f64) -> f64 {
    let written = format!("{:e}", number.abs());
    let digits: String =
        written.split('e').next().into_iter().flat_map(str::chars).filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(f64::INFINITY)
}

/// Refuses a value with a number that has no exact f64, or that is not inside i64: llguidance makes an i64 of each whole
/// number, and negates it. The least one overflowed its stack, and those beyond the largest became it.
fn check_exact(value: &Json) -> Result<(), String> {
    let is_exact = match value {
        Json::Array(items) => return items.iter().try_for_each(check_exact),
        Json::Object(fields) => return fields.values().try_for_each(check_exact),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(exact), Some(held)) => exact != i64::MIN && held as i128 == i128::from(exact),
            // An integer that is too large for i64, or a number with an exponent: one cannot tell.
            (_, held) => held.is_some_and(|held| held.abs() < 2f64.powi(53)),
        },
        _ => true,
    };
    if is_exact { Ok(()) } else { Err(format!("the number {value} is too large to be exact; give it as a text")) }
}

#[cfg(test)]
#[path = "../../tests/unit/schema.rs"]
mod tests;
