//! The minijinja environment of a template. It adds the functions that transformers gives its templates, and changes
//! what Jinja2 does differently.

use super::limits::{FUEL, MAX_DEPTH, check_time, refusal, too_deep};
use super::python::{self, Generator};
use super::source;
use jiff::Zoned;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Tuple, ValueKind, ValueOrKwargs, from_args};
use minijinja::{AutoEscape, Environment, Error, State, UndefinedBehavior, Value, filters, functions};

/// The name of the only template in the environment.
pub(super) const NAME: &str = "<template>";

/// An environment that holds the template.
pub(super) fn with_template(source: &str) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(method);
    environment.set_formatter(python::print);
    environment.set_fuel(Some(FUEL));
    // Jinja2 does not have these.
    ["split", "lines", "bool", "chain", "zip", "pprint"].iter().for_each(|name| environment.remove_filter(name));
    ["startingwith", "endingwith", "safe"].iter().for_each(|name| environment.remove_test(name));
    environment.remove_global("debug");
    add_functions(&mut environment);
    add_filters(&mut environment);
    set_clock(&mut environment, None);
    environment.add_template_owned(NAME, source::rewritten(source))?;
    Ok(environment)
}

/// Sets `strftime_now`, which formats a local time: `fixed`, or else the time of the call.
pub(super) fn set_clock(environment: &mut Environment<'static>, fixed: Option<DateTime>) {
    environment.add_function("strftime_now", move |format: &str| {
        let wrong = |error: jiff::Error| refusal(format!("strftime_now('{format}'): {error}"));
        let fixed = fixed.map(|time| time.to_zoned(TimeZone::system())).transpose().map_err(wrong)?;
        let now = fixed.unwrap_or_else(Zoned::now);
        jiff::fmt::strtime::format(format, &now).map_err(wrong)
    });
}

/// Adds functions and tests of transformers and Jinja2, and the functions that `source::rewritten` inserts.
fn add_functions(environment: &mut Environment<'static>) {
    environment.add_function("raise_exception", |message: Value| -> Result<Value, Error> {
        Err(refusal(python::to_text(&message)?))
    });
    environment.add_function("namespace", |state: &mut State, values: Rest<ValueOrKwargs>| {
        let values = values.into_values();
        values.iter().try_for_each(|value| measure(state, value, 1))?;
        Value::from_function(functions::namespace).call(state, &values)
    });
    environment.add_function("__add", |state: &mut State, terms: Rest<Value>| {
        let mut terms = terms.0.into_iter();
        let first = terms.next().unwrap_or_default();
        terms.try_fold(first, |sum, term| add(state, sum, term))
    });
    environment
        .add_function("__join", |parts: Rest<Value>| parts.iter().map(python::to_text).collect::<Result<String, _>>());
    for (name, depth) in [("__hold", 0), ("__keep", 1)] {
        environment.add_function(name, move |state: &mut State, value: Value| {
            let is_lazy = value.kind() == ValueKind::Iterable && python::is_list(&value) && !value.is_tuple();
            let value = if is_lazy { state.apply_filter("list", &[value])? } else { value };
            measure(state, &value, depth).map(|()| value)
        });
    }
    environment.add_function("__walk", |state: &mut State, value: Value| {
        // If the loop takes too long, an item is replaced by an error, which ends it.
        let items: Vec<Value> = state.apply_filter("list", &[value])?.try_iter()?.collect();
        let walk = move || items.clone().into_iter().map(|item| check_time().map_or_else(Value::from, |()| item));
        Ok::<_, Error>(Value::make_iterable(walk))
    });
    environment.add_test("iterable", |value: Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_test("sequence", |value: Value| {
        let other = matches!(value.kind(), ValueKind::Map | ValueKind::String | ValueKind::Undefined);
        other || python::is_list(&value)
    });
}

/// An error for values that minijinja would recurse into too deeply: nested lists and dicts, and a namespace inside
/// another value, which may contain itself.
fn measure(state: &State, value: &Value, depth: usize) -> Result<(), Error> {
    state.consume_fuel(1)?;
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    if value.as_object().is_some_and(|object| object.type_name().ends_with("Namespace")) {
        return if depth > 0 { Err(refusal("a namespace cannot be stored inside another value")) } else { Ok(()) };
    }
    let is_map = value.kind() == ValueKind::Map;
    if !is_map && !python::is_list(value) {
        return Ok(());
    }
    value.try_iter()?.checked().try_for_each(|item| {
        let item = item?;
        measure(state, &if is_map { value.get_item(&item)? } else { item }, depth + 1)
    })
}

/// Python's `+`: numbers add, strings and lists concatenate.
fn add(state: &mut State, a: Value, b: Value) -> Result<Value, Error> {
    let is_number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    if let (Some(left), Some(right)) = (a.as_str(), b.as_str()) {
        // As in Python, Markup escapes the text that is added to it.
        return Ok(match (a.is_safe(), b.is_safe()) {
            (false, false) => Value::from([left, right].concat()),
            (true, false) => Value::from_safe_string(left.to_string() + &python::escaped(right)),
            (false, true) => Value::from_safe_string(python::escaped(left) + right),
            (true, true) => Value::from_safe_string([left, right].concat()),
        });
    }
    if python::is_list(&a) && python::is_list(&b) && a.is_tuple() == b.is_tuple() {
        let items = a.try_iter()?.checked().chain(b.try_iter()?.checked()).collect::<Result<Vec<_>, _>>()?;
        return Ok(if a.is_tuple() { Tuple::from(items).into() } else { items.into() });
    }
    if is_number(&a) && is_number(&b) {
        return state.apply_filter("sum", &[vec![a, b].into()]);
    }
    Err(refusal(format!("'+' cannot add {} and {}", a.kind(), b.kind())))
}

/// Adds filters of transformers and Jinja2 that minijinja lacks or defines differently.
fn add_filters(environment: &mut Environment<'static>) {
    let of = |value: Value, rest: Rest<ValueOrKwargs>| [vec![value], rest.into_values()].concat();
    environment.add_filter("tojson", python::tojson);
    environment.add_filter("safe", |value: Value| python::to_text(&value).map(Value::from_safe_string));
    let escaped = |value: &Value| python::to_text(value).map(|text| Value::from_safe_string(python::escaped(&text)));
    let escape = move |value: Value| if value.is_safe() { Ok(value) } else { escaped(&value) };
    environment.add_filter("escape", escape);
    environment.add_filter("e", escape);
    environment.add_filter("indent", indent);
    // These convert a value that is not a text as Python's `str` does.
    for (name, filter) in [
        ("string", Value::from_function(filters::string)),
        ("trim", Value::from_function(trim)),
        ("upper", Value::from_function(filters::upper)),
        ("lower", Value::from_function(filters::lower)),
        ("title", Value::from_function(filters::title)),
        ("capitalize", Value::from_function(filters::capitalize)),
    ] {
        environment.add_filter(name, move |state: &mut State, value: Value, rest: Rest<ValueOrKwargs>| {
            let text = if value.as_str().is_some() { value } else { python::to_text(&value)?.into() };
            filter.call(state, &of(text, rest))
        });
    }
    // Filters over lists, and whether they are lazy in Jinja2: lazy ones return a generator.
    for (name, filter, lazy) in [
        ("join", Value::from_function(filters::join), false),
        ("list", Value::from_function(filters::list), false),
        ("sort", Value::from_function(filters::sort), false),
        ("first", Value::from_function(filters::first), false),
        ("map", Value::from_function(filters::map), true),
        ("select", Value::from_function(filters::select), true),
        ("reject", Value::from_function(filters::reject), true),
        ("selectattr", Value::from_function(filters::selectattr), true),
        ("rejectattr", Value::from_function(filters::rejectattr), true),
        ("unique", Value::from_function(filters::unique), true),
        ("batch", Value::from_function(filters::batch), true),
        ("slice", Value::from_function(filters::slice), true),
    ] {
        environment.add_filter(name, move |state: &mut State, value: Value, rest: Rest<ValueOrKwargs>| {
            if value.is_none() && !lazy {
                return Err(refusal("None is not iterable"));
            }
            let given = filter.call(state, &of(value, rest))?;
            if lazy { Generator::of(&given) } else { Ok(given) }
        });
    }
}

/// Jinja2's `indent(width=4, first=False, blank=False)`. Unlike minijinja's it keeps a newline at the end.
fn indent(state: &mut State, text: &str, options: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let options = options.into_values();
    let (width, first, blank, named): (Option<usize>, Option<bool>, Option<bool>, Kwargs) = from_args(&options)?;
    let width = width.or(named.get("width")?).unwrap_or(4);
    let first = first.or(named.get("first")?).unwrap_or(false);
    let blank = blank.or(named.get("blank")?).unwrap_or(false);
    named.assert_all_used()?;
    state.consume_fuel((text.split('\n').count() as u64).saturating_mul(width as u64) / 64)?;
    let indents = |i: usize, line: &str| if i == 0 { first } else { blank || !line.is_empty() };
    let margin = |i: usize, line: &str| " ".repeat(if indents(i, line) { width } else { 0 });
    let lines = text.split('\n').enumerate().map(|(i, line)| margin(i, line) + line);
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// The methods of Python's strings, lists and dicts.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let known = minijinja_contrib::pycompat::unknown_method_callback;
    let list = |parts: &[&str]| parts.iter().copied().map(Value::from).collect::<Vec<_>>();
    Ok(match (value.as_str(), name) {
        (None, "index") if python::is_list(value) => {
            let (wanted,): (&Value,) = from_args(args)?;
            let place = value.try_iter()?.position(|item| item == *wanted);
            place.ok_or_else(|| refusal("index: the value is not in the list"))?.into()
        }
        (Some(text), "removeprefix") => text.strip_prefix(from_args::<(&str,)>(args)?.0).unwrap_or(text).into(),
        (Some(text), "removesuffix") => text.strip_suffix(from_args::<(&str,)>(args)?.0).unwrap_or(text).into(),
        (Some(text), "partition" | "rpartition") => {
            let (mark,): (&str,) = from_args(args)?;
            let parts = match name {
                "partition" => text.split_once(mark).map_or([text, "", ""], |(a, b)| [a, mark, b]),
                _ => text.rsplit_once(mark).map_or(["", "", text], |(a, b)| [a, mark, b]),
            };
            Tuple::from(list(&parts)).into()
        }
        (Some(text), "rsplit") => {
            let (mark, most): (&str, Option<usize>) = from_args(args)?;
            let mut parts: Vec<&str> = text.rsplitn(most.map_or(usize::MAX, |most| most + 1), mark).collect();
            parts.reverse();
            list(&parts).into()
        }
        (Some(text), "strip") if args.is_empty() => text.trim_matches(is_space).into(),
        (Some(text), "lstrip") if args.is_empty() => text.trim_start_matches(is_space).into(),
        (Some(text), "rstrip") if args.is_empty() => text.trim_end_matches(is_space).into(),
        (Some(text), "split") if args.is_empty() => {
            list(&text.split(is_space).filter(|part| !part.is_empty()).collect::<Vec<_>>()).into()
        }
        (Some(_), "index" | "rindex") => {
            let place = known(state, value, if name == "index" { "find" } else { "rfind" }, args)?;
            if place == Value::from(-1) {
                return Err(refusal(format!("{name}: the substring is not in the text")));
            }
            place
        }
        (Some(text), "title") => {
            let mut inside = false;
            let titled = text.chars().flat_map(|c| {
                let cased: Vec<char> = if inside { c.to_lowercase().collect() } else { c.to_uppercase().collect() };
                inside = c.is_lowercase() || c.is_uppercase();
                cased
            });
            titled.collect::<String>().into()
        }
        // Padding to a width costs no fuel, so the width is limited.
        (Some(text), "format") if text.split('{').any(|part| part.split('}').next().is_some_and(is_wide)) => {
            return Err(refusal("format: a width may have at most four digits"));
        }
        _ => known(state, value, name, args)?,
    })
}

/// Whether Python counts a character as white space: Unicode's, and four separators more.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Python's `strip`. The result of Markup is Markup.
fn trim(value: Value, characters: Option<&str>) -> Value {
    let cut = |c: char| characters.map_or_else(|| is_space(c), |characters| characters.contains(c));
    let trimmed = value.as_str().unwrap_or_default().trim_matches(cut);
    if value.is_safe() { Value::from_safe_string(trimmed.into()) } else { trimmed.into() }
}

/// Whether a replacement field has a width of more than four digits, or takes its width from the arguments.
fn is_wide(field: &str) -> bool {
    field.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > 4) || field.ends_with([':', '<', '>', '^'])
}
