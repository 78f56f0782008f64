//! The functions that every template has: those of Jinja2, and those that transformers adds.

use super::compare;
use super::iterate::collect;
use super::limits::{MAX_RANGE, Res, fail};
use super::print;
use super::strftime;
use super::text::Text;
use super::value::{Args, Cycler, Dict, Kept, Machine, Namespace, Value, range_len, required};
use crate::machine::clock;
use jiff::tz::TimeZone;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The functions' names.
const NAMES: [&str; 8] =
    ["range", "dict", "lipsum", "cycler", "joiner", "namespace", "raise_exception", "strftime_now"];

/// The function of this name.
pub fn find(name: &str) -> Option<Value> {
    NAMES.into_iter().find(|known| *known == name).map(Value::Function)
}

/// Calls a function.
pub fn call(m: &Machine, name: &str, args: Args) -> Res<Value> {
    m.budget.work(1)?;
    match name {
        "range" => range(m, args),
        "dict" => Ok(Value::Dict(Rc::new(dict(m, name, args)?))),
        "namespace" => {
            let namespace = Rc::new(Namespace { attributes: RefCell::new(dict(m, name, args)?) });
            m.keep(Kept::Namespace(namespace.clone()))?;
            Ok(Value::Namespace(namespace))
        }
        "cycler" => {
            if args.positional.is_empty() || !args.named.is_empty() {
                return fail("cycler needs items");
            }
            let items = Rc::new(m.sequence(args.positional)?);
            Ok(Value::Cycler(Rc::new(Cycler { items, position: Cell::new(0) })))
        }
        "joiner" => {
            let [separator] = args.bind(name, ["sep"])?;
            let separator = separator.unwrap_or_else(|| Value::Text(Text::own(", ")));
            super::value::nesting([&separator].into_iter())?;
            Ok(Value::Joiner(Rc::new((separator, Cell::new(false)))))
        }
        "raise_exception" => {
            let [message] = args.bind(name, ["message"])?;
            fail(print::to_text(m, &required(message, name, "message")?)?.as_str())
        }
        "strftime_now" => {
            let [format] = args.bind(name, ["format"])?;
            let format = required(format, name, "format")?;
            let Some(format) = format.as_text() else {
                return fail(format!("strftime_now needs a text, found a {}", format.kind()));
            };
            // A directive of two characters may print a whole date; to ask for the time is not free, either.
            m.budget.work(16 + format.len().saturating_mul(8))?;
            m.budget.build(format.size().saturating_mul(8))?;
            let fixed = m.clock.map(|time| time.to_zoned(TimeZone::system())).transpose();
            let fixed = fixed.map_err(|error| format!("strftime_now: the fixed time is not a time here: {error}"))?;
            let now = fixed.unwrap_or_else(clock::local);
            m.text(strftime::strftime(format, &now, m.budget.left())?)
        }
        _ => fail(format!("the function '{name}' is not supported")),
    }
}

fn range(m: &Machine, args: Args) -> Res<Value> {
    m.budget.items(2)?;
    if !args.named.is_empty() {
        return fail("range takes no named arguments");
    }
    let number = |value: &Value| match value.defined()?.as_int() {
        Some(n) => Ok(n),
        None => fail(format!("range needs integers, found a {}", value.kind())),
    };
    let range = match &args.positional[..] {
        [stop] => [0, number(stop)?, 1],
        [start, stop] => [number(start)?, number(stop)?, 1],
        [start, stop, step] => [number(start)?, number(stop)?, number(step)?],
        other => return fail(format!("range takes 1 to 3 arguments, found {}", other.len())),
    };
    if range[2] == 0 {
        return fail("range: the step cannot be 0");
    }
    if range_len(&range) > MAX_RANGE {
        return fail(format!("range is too long; ranges have at most {MAX_RANGE} items"));
    }
    Ok(Value::Range(Rc::new(range)))
}

/// Python's `dict(mapping or pairs, name=value, …)`.
fn dict(m: &Machine, function: &str, args: Args) -> Res<Dict> {
    let mut dict = Dict::empty();
    if args.positional.len() > 1 {
        return fail(format!("{function} takes one positional argument at most"));
    }
    match args.positional.first() {
        None => {}
        Some(Value::Dict(other)) => {
            for (key, value) in &other.entries {
                compare::insert(m, &mut dict, key.clone(), value.clone())?;
            }
        }
        Some(pairs) => {
            for pair in collect(m, pairs)? {
                let pair = collect(m, &pair)?;
                let [key, value] = &pair[..] else {
                    return fail(format!("{function} needs pairs of a key and a value"));
                };
                compare::insert(m, &mut dict, key.clone(), value.clone())?;
            }
        }
    }
    for (name, value) in args.named {
        compare::insert(m, &mut dict, Value::Text(name), value)?;
    }
    Ok(dict)
}
