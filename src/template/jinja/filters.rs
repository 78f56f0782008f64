//! Jinja2's filters by their names.

use super::attribute;
use super::expression::unknown;
use super::filters_list as lists;
use super::filters_text as texts;
use super::formatting;
use super::iterate::collect;
use super::json;
use super::limits::{Res, fail};
use super::print;
use super::value::{Args, Machine, Value, required};
use std::cmp::Ordering;

/// The filters that exist.
const NAMES: [&str; 51] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "wordcount",
    "xmlattr",
    "pprint",
];
/// Filters of Jinja2 that a template may name, but not run.
const REFUSED: [&str; 4] = ["pprint", "random", "urlize", "wordwrap"];

/// Whether Jinja2 has a filter of this name.
pub fn is_known(name: &str) -> bool {
    NAMES.contains(&name) || REFUSED.contains(&name)
}

/// `value | name(args)`
pub fn apply(m: &Machine, name: &str, value: Value, args: Args) -> Res<Value> {
    m.budget.work(1)?;
    let none = |args: Args| -> Res<()> { args.bind(name, []).map(|[]| ()) };
    match name {
        "attr" => {
            let [attribute] = args.bind(name, ["name"])?;
            let (Value::Text(attribute) | Value::Markup(attribute)) = required(attribute, name, "name")? else {
                return fail("attr needs the name of an attribute");
            };
            Ok(attribute::own(m, &value, &attribute)?.unwrap_or_else(|| value.no_attribute(attribute)))
        }
        "default" | "d" => {
            let [default, boolean] = args.bind(name, ["default_value", "boolean"])?;
            let boolean = boolean.is_some_and(|boolean| boolean.is_true());
            let replaces = matches!(value, Value::Undefined(_)) || (boolean && !value.is_true());
            match (replaces, default) {
                (false, _) => Ok(value),
                (true, Some(default)) => Ok(default),
                (true, None) => m.own(""),
            }
        }
        "tojson" => json::tojson(m, &value, args),
        "trim" => {
            let [chars] = args.bind(name, ["chars"])?;
            texts::method(m, &value, "strip", Args::of(chars.into_iter().collect()))
        }
        "capitalize" | "lower" | "upper" => texts::plain_method(m, &value, name, args),
        "center" => {
            let [width] = args.bind(name, ["width"])?;
            texts::method(m, &value, name, Args::of(vec![width.unwrap_or(Value::Int(80))]))
        }
        "string" => {
            none(args)?;
            match value {
                Value::Markup(_) => Ok(value),
                value => Ok(Value::Text(print::to_text(m, &value)?)),
            }
        }
        "safe" => {
            none(args)?;
            Ok(Value::Markup(print::to_text(m, &value)?))
        }
        "e" | "escape" => {
            none(args)?;
            Ok(Value::Markup(print::to_markup(m, &value)?))
        }
        "forceescape" => {
            none(args)?;
            Ok(Value::Markup(print::escape(m, &print::to_text(m, &value)?)?))
        }
        "list" => {
            none(args)?;
            let items = collect(m, &value)?;
            m.list(items)
        }
        "first" => none(args).and_then(|()| lists::first(m, &value)),
        "last" => none(args).and_then(|()| lists::last(m, &value)),
        "reverse" => none(args).and_then(|()| lists::reverse(m, &value)),
        "items" => none(args).and_then(|()| lists::items(m, &value)),
        "count" | "length" => none(args).and_then(|()| texts::count(m, &value)),
        "title" => none(args).and_then(|()| texts::title(m, &value)),
        "abs" => none(args).and_then(|()| texts::abs(&value)),
        "wordcount" => none(args).and_then(|()| texts::wordcount(m, &value)),
        "striptags" => none(args).and_then(|()| texts::striptags(m, &value)),
        "urlencode" => none(args).and_then(|()| texts::urlencode(m, &value)),
        "replace" => texts::replace(m, &value, args),
        "indent" => texts::indent(m, &value, args),
        "truncate" => texts::truncate(m, &value, args),
        "int" => texts::int(m, &value, args),
        "float" => texts::float(m, &value, args),
        "round" => texts::round(m, &value, args),
        "filesizeformat" => texts::filesizeformat(m, &value, args),
        "xmlattr" => texts::xmlattr(m, &value, args),
        "format" => formatting::format_filter(m, &value, args),
        "sort" => lists::sort(m, &value, args),
        "dictsort" => lists::dictsort(m, &value, args),
        "groupby" => lists::groupby(m, &value, args),
        "min" => lists::extreme(m, &value, args, Ordering::Less),
        "max" => lists::extreme(m, &value, args, Ordering::Greater),
        "sum" => lists::sum(m, &value, args),
        "join" => lists::join(m, &value, args),
        "unique" => lists::unique(m, &value, args),
        "batch" => lists::batch(m, &value, args),
        "slice" => lists::slice(m, &value, args),
        "map" => lists::map(m, &value, args),
        "select" => lists::choose(m, &value, args, false, true),
        "reject" => lists::choose(m, &value, args, false, false),
        "selectattr" => lists::choose(m, &value, args, true, true),
        "rejectattr" => lists::choose(m, &value, args, true, false),
        _ if REFUSED.contains(&name) => fail(format!("the filter '{name}' is not supported")),
        _ => Err(unknown(name, true)),
    }
}
