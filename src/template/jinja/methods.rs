//! Calls the methods of values.

use super::compare;
use super::formatting;
use super::iterate::collect;
use super::limits::{Fault, Res, fail};
use super::print;
use super::str_call::{self, Answer, Arg};
use super::str_methods;
use super::text::Text;
use super::value::{Args, Machine, Value, View, required};

/// Calls a method of a value.
pub fn call_method(m: &Machine, value: &Value, name: &str, args: Args) -> Res<Value> {
    m.budget.work(1)?;
    match (value, name) {
        (Value::Text(_) | Value::Markup(_), "format" | "format_map") => formatting::format_method(m, value, name, args),
        (Value::Text(text), _) => text_method(m, text, name, args, false),
        (Value::Markup(text), _) => text_method(m, text, name, args, true),
        (Value::List(list) | Value::Tuple(list), "count") => {
            let [wanted] = args.bind(name, ["value"])?;
            let wanted = required(wanted, name, "value")?;
            let mut found = 0;
            for item in &list.items {
                found += i128::from(compare::same(item, &wanted) || compare::equal(m, item, &wanted)?);
            }
            Ok(Value::Int(found))
        }
        (Value::List(list) | Value::Tuple(list), "index") => {
            let [wanted, start, stop] = args.bind(name, ["value", "start", "stop"])?;
            let wanted = required(wanted, name, "value")?;
            let bound = |bound: Option<Value>| match bound {
                None => Ok(None),
                Some(bound) => bound.as_int().map(Some).ok_or("index: a bound is not an integer"),
            };
            let (start, stop) = (bound(start)?, bound(stop)?);
            for place in str_methods::Slice::new(list.items.len(), start, stop, None)?.items() {
                let item = &list.items[place];
                if compare::same(item, &wanted) || compare::equal(m, item, &wanted)? {
                    return Ok(Value::Int(place as i128));
                }
            }
            fail("index: the value is not in the list")
        }
        (Value::List(list), "copy") => {
            let [] = args.bind(name, [])?;
            m.gather(false, list.items.len(), list.items.iter().cloned())
        }
        (Value::Dict(dict), "get") => {
            let [key, default] = args.bind(name, ["key", "default"])?;
            let found = compare::find(m, dict, &required(key, name, "key")?)?;
            Ok(found.cloned().or(default).unwrap_or(Value::None))
        }
        (Value::Dict(dict), _) => {
            let [] = args.bind(name, [])?;
            Ok(match name {
                "items" => Value::View(View::Items, dict.clone()),
                "keys" => Value::View(View::Keys, dict.clone()),
                "values" => Value::View(View::Values, dict.clone()),
                _ => Value::Dict(dict.clone()),
            })
        }
        (Value::Float(x), "is_integer") => Ok(Value::Bool(x.is_finite() && x.fract() == 0.0)),
        (Value::Loop(looped), "cycle") => {
            let count = args.positional.len();
            if count == 0 || !args.named.is_empty() {
                return fail("loop.cycle needs items");
            }
            let index = usize::try_from(looped.state.borrow().index0).unwrap_or(0);
            Ok(args.positional[index % count].clone())
        }
        (Value::Loop(looped), "changed") => {
            let before = looped.state.borrow_mut().last_changed.take();
            let now = args.positional;
            let changed = match &before {
                Some(before) => {
                    before.len() != now.len() || {
                        let mut differs = false;
                        for (a, b) in before.iter().zip(&now) {
                            differs |= !compare::same(a, b) && !compare::equal(m, a, b)?;
                        }
                        differs
                    }
                }
                None => true,
            };
            looped.state.borrow_mut().last_changed = Some(now);
            Ok(Value::Bool(changed))
        }
        (Value::Cycler(cycler), "next") => {
            let position = cycler.position.get();
            cycler.position.set((position + 1) % cycler.items.items.len().max(1));
            Ok(cycler.items.items.get(position).cloned().unwrap_or(Value::None))
        }
        (Value::Cycler(cycler), "reset") => {
            cycler.position.set(0);
            Ok(Value::None)
        }
        _ => fail(format!("{} has no method '{name}'", value.kind())),
    }
}

/// The methods of Markup that escape their arguments.
const ESCAPING: [&str; 12] = [
    "replace",
    "ljust",
    "rjust",
    "center",
    "strip",
    "lstrip",
    "rstrip",
    "removeprefix",
    "removesuffix",
    "join",
    "zfill",
    "expandtabs",
];

/// Calls a method of a text. That of Markup is Markup again.
pub fn text_method(m: &Machine, text: &Text, name: &str, args: Args, is_markup: bool) -> Res<Value> {
    match name {
        "split" | "rsplit" | "find" | "rfind" | "index" | "rindex" | "startswith" | "endswith" | "strip" | "lstrip"
        | "rstrip" | "removeprefix" | "removesuffix" | "partition" | "rpartition" | "join" => {
            m.budget.scan(text.size())?
        }
        _ => m.budget.chars(text.size())?,
    }
    let escapes = is_markup && ESCAPING.contains(&name);
    let positional = args.positional.iter().map(|value| to_arg(m, value, name, escapes)).collect::<Res<Vec<_>>>()?;
    let named = args.named.iter().map(|(key, value)| Ok((key.as_str(), to_arg(m, value, name, escapes)?)));
    let named = named.collect::<Res<Vec<_>>>()?;
    let wrap = |text: Text| if is_markup { Value::Markup(text) } else { Value::Text(text) };
    let paid = |text: Text| m.budget.build(text.size() + 64).map(|()| wrap(text));
    let items = |items: Box<dyn Iterator<Item = Text>>| {
        let mut all = Vec::new();
        for item in items {
            m.budget.items(1)?;
            all.push(paid(item)?);
        }
        Ok::<_, Fault>(all)
    };
    match str_call::call(text, name, &positional, &named, m.budget.left())? {
        Answer::Text(text) => paid(text),
        Answer::Int(n) => Ok(Value::Int(n)),
        Answer::Bool(yes) => Ok(Value::Bool(yes)),
        Answer::Parts(parts) => m.tuple(parts.into_iter().map(wrap).collect()),
        Answer::Items(found) => m.list(items(found)?),
        Answer::ItemsFromRight(found) => {
            let mut all = items(found)?;
            all.reverse();
            m.list(all)
        }
    }
}

/// A value as an argument of a text's method.
fn to_arg(m: &Machine, value: &Value, method: &str, escapes: bool) -> Res<Arg> {
    m.budget.work(1)?;
    Ok(match value {
        Value::None => Arg::None,
        Value::Bool(yes) => Arg::Bool(*yes),
        Value::Int(n) => Arg::Int(*n),
        Value::Text(text) | Value::Markup(text) => {
            // A text is joined character by character.
            m.budget.work(match method {
                "join" => 8 * text.len(),
                "strip" | "lstrip" | "rstrip" => text.len(),
                _ => text.len() / 16,
            })?;
            let escapes = escapes && !matches!(value, Value::Markup(_));
            Arg::Text(if escapes { print::escape(m, text)? } else { text.clone() })
        }
        _ if method == "join" => {
            let items = collect(m, value)?;
            Arg::Items(items.iter().map(|item| to_arg(m, item, "", escapes)).collect::<Res<_>>()?)
        }
        Value::Tuple(list) if !method.is_empty() => {
            Arg::Tuple(list.items.iter().map(|item| to_arg(m, item, "", escapes)).collect::<Res<_>>()?)
        }
        other => Arg::Other(other.kind()),
    })
}
