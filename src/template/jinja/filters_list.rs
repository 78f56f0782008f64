//! Jinja2's filters on lists and dicts.

use super::ast::Operator;
use super::attribute;
use super::compare;
use super::iterate::{Iter, Ready, collect, iterate};
use super::limits::{Res, fail};
use super::ops;
use super::print;
use super::str_methods::{self, Side};
use super::text::{Text, TextBuilder};
use super::unicode::{Case, change_case};
use super::value::{Args, Dict, List, Machine, Source, Value, View, required};
use std::cmp::Ordering;
use std::rc::Rc;

/// A path of attributes: the filters' argument `attribute`.
#[derive(Clone)]
pub struct Path {
    parts: Rc<[Value]>,
    default: Option<Value>,
    ignores_case: bool,
}

impl Path {
    /// The path of an attribute such as `function.name` or `0`. None is the item itself.
    pub fn new(m: &Machine, attribute: Option<Value>, default: Option<Value>, ignores_case: bool) -> Res<Path> {
        let parts = match attribute {
            None | Some(Value::None) => Rc::new([]),
            Some(Value::Text(text) | Value::Markup(text)) => path(m, &text)?,
            Some(other) => Rc::new([other]),
        };
        let default = default.filter(|default| !matches!(default, Value::None));
        Ok(Path { parts, default, ignores_case })
    }

    /// What the path leads to from an item.
    pub fn of(&self, m: &Machine, item: &Value) -> Res<Value> {
        let mut value = item.clone();
        for part in &*self.parts {
            value = attribute::item(m, &value, part)?;
            if let (Value::Undefined(_), Some(default)) = (&value, &self.default) {
                value = default.clone();
            }
        }
        self.folded(m, value)
    }

    fn folded(&self, m: &Machine, value: Value) -> Res<Value> {
        match (&value, self.ignores_case) {
            (Value::Text(text) | Value::Markup(text), true) => {
                m.budget.chars(text.len()).and_then(|()| m.text(change_case(text, Case::Lower, m.budget.left())?))
            }
            _ => Ok(value),
        }
    }
}

/// The names and indices of a path, each paid for before it is made.
fn path(m: &Machine, text: &Text) -> Res<Rc<[Value]>> {
    let part = |part: Text| match part.as_str().parse() {
        Ok(n) if part.as_str().bytes().all(|b| b.is_ascii_digit()) => Ok(Value::Int(n)),
        _ => m.text(part),
    };
    let parts = pieces(m, text, ".")?;
    Ok(parts.into_iter().map(part).collect::<Res<Vec<_>>>()?.into())
}

/// The pieces between separators, each paid for before the next is made.
fn pieces(m: &Machine, text: &Text, separator: &str) -> Res<Vec<Text>> {
    m.budget.chars(text.len())?;
    let mut pieces = Vec::new();
    for piece in str_methods::split(text, Some(&Text::own(separator)), -1, Side::Left)? {
        m.budget.items(4)?;
        pieces.push(piece);
    }
    Ok(pieces)
}

fn is_true(value: Option<Value>) -> bool {
    value.is_some_and(|value| value.is_true())
}

/// Python's `reverse` of a sort, which must be a bool or an integer.
fn reversed(value: Option<Value>) -> Res<bool> {
    match value {
        None => Ok(false),
        Some(value) => match value.as_int() {
            Some(n) => Ok(n != 0),
            None => fail(format!("reverse is a {}, expected true or false", value.kind())),
        },
    }
}

/// `sort(reverse=False, case_sensitive=False, attribute=None)`
pub fn sort(m: &Machine, value: &Value, args: Args) -> Res<Value> {
    let [reverse, case_sensitive, attribute] = args.bind("sort", ["reverse", "case_sensitive", "attribute"])?;
    let folds = !is_true(case_sensitive);
    let paths: Vec<Path> = match attribute {
        Some(Value::Text(text) | Value::Markup(text)) => {
            let parts = pieces(m, &text, ",")?.into_iter();
            parts.map(|part| Path::new(m, Some(Value::Text(part)), None, folds)).collect::<Res<_>>()?
        }
        other => vec![Path::new(m, other, None, folds)?],
    };
    let mut keyed = Vec::new();
    for item in collect(m, value)? {
        // A key is a list even of one path: equal items of lists are not compared by '<', which undefined ones refuse.
        let key = m.list(paths.iter().map(|path| path.of(m, &item)).collect::<Res<_>>()?)?;
        keyed.push((key, item));
    }
    m.list(compare::sort(m, keyed, reversed(reverse)?)?)
}

/// `dictsort(case_sensitive=False, by='key', reverse=False)`
pub fn dictsort(m: &Machine, value: &Value, args: Args) -> Res<Value> {
    let [case_sensitive, by, reverse] = args.bind("dictsort", ["case_sensitive", "by", "reverse"])?;
    let place = match by.as_ref().map(Value::as_text) {
        None => 0,
        Some(Some(by)) if by.as_str() == "key" => 0,
        Some(Some(by)) if by.as_str() == "value" => 1,
        _ => return fail("dictsort: 'by' must be 'key' or 'value'"),
    };
    let Value::Dict(dict) = value.defined()? else {
        return fail(format!("dictsort needs a dict, found a {}", value.kind()));
    };
    let path = Path { parts: Rc::new([Value::Int(place)]), default: None, ignores_case: !is_true(case_sensitive) };
    let mut keyed = Vec::new();
    for (key, value) in &dict.entries {
        let item = m.tuple(vec![key.clone(), value.clone()])?;
        keyed.push((path.of(m, &item)?, item));
    }
    m.list(compare::sort(m, keyed, reversed(reverse)?)?)
}

/// `groupby(attribute, default=None, case_sensitive=False)`
pub fn groupby(m: &Machine, value: &Value, args: Args) -> Res<Value> {
    let [attribute, default, case_sensitive] = args.bind("groupby", ["attribute", "default", "case_sensitive"])?;
    let attribute = Some(required(attribute, "groupby", "attribute")?);
    let exact = Path::new(m, attribute, default, false)?;
    let path = Path { ignores_case: !is_true(case_sensitive), ..exact.clone() };
    let mut keyed = Vec::new();
    for item in collect(m, value)? {
        keyed.push((path.of(m, &item)?, item));
    }
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for item in compare::sort(m, keyed, false)? {
        let key = path.of(m, &item)?;
        match groups.last_mut() {
            Some((known, items)) if compare::equal(m, known, &key)? => items.push(item),
            _ => groups.push((key, vec![item])),
        }
    }
    let group = |(_, items): (Value, Vec<Value>)| {
        let grouper = exact.of(m, &items[0])?;
        let pair = m.sequence(vec![grouper, m.list(items)?])?;
        Ok(Value::Tuple(Rc::new(List { is_group: true, ..pair })))
    };
    m.list(groups.into_iter().map(group).collect::<Res<_>>()?)
}

/// `min` and `max` with `(case_sensitive=False, attribute=None)`: the first item of that order.
pub fn extreme(m: &Machine, value: &Value, args: Args, wanted: Ordering) -> Res<Value> {
    let [case_sensitive, attribute] = args.bind("min and max", ["case_sensitive", "attribute"])?;
    let path = Path::new(m, attribute, None, !is_true(case_sensitive))?;
    let mut items = iterate(value)?;
    let mut best: Option<(Value, Value)> = None;
    while let Some(item) = items.next(m)? {
        let key = path.of(m, &item)?;
        let better = match &best {
            None => true,
            Some((known, _)) => compare::order(m, &key, known)? == Some(wanted),
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or_else(|| Value::undefined("the sequence was empty"), |(_, item)| item))
}

/// `sum(attribute=None, start=0)`
pub fn sum(m: &Machine, value: &Value, args: Args) -> Res<Value> {
    let [attribute, start] = args.bind("sum", ["attribute", "start"])?;
    let path = Path::new(m, attribute, None, false)?;
    let mut total = start.unwrap_or(Value::Int(0));
    if total.as_text().is_some() {
        return fail("sum cannot add texts; use join");
    }
    let mut items = iterate(value)?;
    while let Some(item) = items.next(m)? {
        total = ops::binary(m, Operator::Add, &total, &path.of(m, &item)?)?;
    }
    Ok(total)
}

/// `join(d='', attribute=None)`
pub fn join(m: &Machine, value: &Value, args: Args) -> Res<Value> {
    let [separator, attribute] = args.bind("join", ["d", "attribute"])?;
    let separator = separator.map_or(Ok(Text::default()), |separator| print::to_text(m, &separator))?;
    let path = Path::new(m, attribute, None, false)?;
    let mut items = iterate(value)?;
    let mut out = TextBuilder::default();
    let mut is_first = true;
    while let Some(item) = items.next(m)? {
        let text = print::to_text(m, &path.of(m, &item)?)?;
        m.budget.build(separator.size() + text.size())?;
        if !is_first {
            out.push(&separator);
        }
        is_first = false;
        out.push(&text);
    }
    Ok(Value::Text(out.finish()))
}

/// `first` and `last`
pub fn first(m: &Machine, value: &Value) -> Res<Value> {
    Ok(iterate(value)?.next(m)?.unwrap_or_else(|| Value::undefined("no first item, the sequence was empty")))
}

/// `last`
pub fn last(m: &Machine, value: &Value) -> Res<Value> {
    match attribute::reversed(m, value)? {
        Some(items) => {
            let last = items.into_iter().next();
            Ok(last.unwrap_or_else(|| Value::undefined("no last item, the sequence was empty")))
        }
        None => fail(format!("last: a {} has no last item; add '| list' to a generator", value.kind())),
    }
}

/// `reverse`
pub fn reverse(m: &Machine, value: &Value) -> Res<Value> {
    match value {
        Value::Text(text) | Value::Markup(text) => {
            m.budget.chars(text.size())?;
            let reversed = str_methods::slice(text, None, None, Some(-1))?;
            m.budget.build(reversed.size())?;
            Ok(if matches!(value, Value::Text(_)) { Value::Text(reversed) } else { Value::Markup(reversed) })
        }
        _ => match attribute::reversed(m, value)? {
            Some(items) => m.lazy([value].into_iter(), Ready(items.into_iter())),
            None => {
                let mut items = collect(m, value)?;
                items.reverse();
                m.list(items)
            }
        },
    }
}

/// A generator whose items are computed when the first is asked for.
struct Deferred<F>(Option<F>, Ready);

impl<F: FnOnce(&Machine) -> Res<Vec<Value>>> Source for Deferred<F> {
    fn next(&mut self, m: &Machine) -> Res<Option<Value>> {
        if let Some(compute) = self.0.take() {
            self.1 = Ready(compute(m)?.into_iter());
        }
        self.1.next(m)
    }
}

fn deferred(m: &Machine, holds: &[&Value], compute: impl FnOnce(&Machine) -> Res<Vec<Value>> + 'static) -> Res<Value> {
    m.lazy(holds.iter().copied(), Deferred(Some(compute), Ready(Vec::new().into_iter())))
}

/// `items`
pub fn items(m: &Machine, value: &Value) -> Res<Value> {
    let value = value.clone();
    deferred(m, &[&value.clone()], move |m| match &value {
        Value::Undefined(_) => Ok(Vec::new()),
        Value::Dict(dict) => collect(m, &Value::View(View::Items, dict.clone())),
        _ => fail("items needs a dict"),
    })
}

/// `unique(case_sensitive=False, attribute=None)`
pub fn unique(m: &Machine, value: &Value, args: Args) -> Res<Value> {
    let [case_sensitive, attribute] = args.bind("unique", ["case_sensitive", "attribute"])?;
    let path = Path::new(m, attribute, None, !is_true(case_sensitive))?;
    let value = value.clone();
    deferred(m, &[&value.clone()], move |m| {
        let (mut seen, mut kept) = (Dict::empty(), Vec::new());
        for item in collect(m, &value)? {
            let key = path.of(m, &item)?;
            if compare::find(m, &seen, &key)?.is_none() {
                compare::insert(m, &mut seen, key, Value::None)?;
                kept.push(item);
            }
        }
        Ok(kept)
    })
}

/// `batch(linecount, fill_with=None)`
pub fn batch(m: &Machine, value: &Value, args: Args) -> Res<Value> {
    let [count, fill] = args.bind("batch", ["linecount", "fill_with"])?;
    let (value, count) = (value.clone(), required(count, "batch", "linecount")?);
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    deferred(m, &[&value.clone(), &fill.clone().unwrap_or(Value::None)], move |m| {
        let (mut rows, mut row) = (Vec::new(), Vec::new());
        for item in collect(m, &value)? {
            if compare::equal(m, &Value::Int(row.len() as i128), &count)? {
                rows.push(m.list(std::mem::take(&mut row))?);
            }
            row.push(item);
        }
        if !row.is_empty() {
            if let Some(fill) = fill {
                let len = row.len() as i128;
                let missing = match (&count, count.as_int()) {
                    (_, Some(count)) => usize::try_from(count.saturating_sub(len)).unwrap_or(0),
                    (Value::Float(x), _) if *x <= len as f64 => 0,
                    _ => return fail(format!("batch: linecount is a {}, expected an integer", count.kind())),
                };
                m.budget.items(missing)?;
                row.extend(std::iter::repeat_n(fill, missing));
            }
            rows.push(m.list(row)?);
        }
        Ok(rows)
    })
}

/// `slice(slices, fill_with=None)`
pub fn slice(m: &Machine, value: &Value, args: Args) -> Res<Value> {
    let [slices, fill] = args.bind("slice", ["slices", "fill_with"])?;
    let (value, slices) = (value.clone(), required(slices, "slice", "slices")?);
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    deferred(m, &[&value.clone(), &fill.clone().unwrap_or(Value::None)], move |m| {
        let items = collect(m, &value)?;
        let slices = match slices.as_int() {
            Some(0) | None => return fail("slice: the number of slices must be an integer above 0"),
            Some(slices) => usize::try_from(slices).unwrap_or(0),
        };
        m.budget.items(slices)?;
        let (each, extra) = (items.len() / slices.max(1), items.len() % slices.max(1));
        let (mut rows, mut start) = (Vec::new(), 0);
        for row in 0..slices {
            let end = start + each + usize::from(row < extra);
            let mut part = items[start..end].to_vec();
            part.extend(fill.clone().filter(|_| row >= extra));
            rows.push(m.list(part)?);
            start = end;
        }
        Ok(rows)
    })
}

/// What `map`, `select` and their relatives do with each item.
enum Step {
    /// `map(attribute=…)`
    Attribute(Path),
    /// `map('filter', …)`
    Filter(Text, Vec<Value>, Vec<(Text, Value)>),
    /// Keep the items whose attribute passes a test, or fails it.
    Choose { path: Option<Path>, test: Option<Text>, args: Vec<Value>, named: Vec<(Text, Value)>, keep: bool },
}

struct Mapped {
    /// The value before its first item is asked for.
    value: Option<Value>,
    items: Iter,
    /// Prepares the step; an error appears with the first item.
    step: Res<Step>,
}

impl Source for Mapped {
    fn next(&mut self, m: &Machine) -> Res<Option<Value>> {
        if let Some(value) = self.value.take()
            && value.is_true()
        {
            if let Err(fault) = &self.step {
                return fail(fault.0.clone());
            }
            self.items = iterate(&value)?;
        }
        let Ok(step) = &self.step else { return Ok(None) };
        while let Some(item) = self.items.next(m)? {
            match step {
                Step::Attribute(path) => return path.of(m, &item).map(Some),
                Step::Filter(name, args, named) => {
                    m.budget.work(args.len() + named.len())?;
                    let args = Args { positional: args.clone(), named: named.clone() };
                    return (m.hooks.filter)(m, name.as_str(), item, args).map(Some);
                }
                Step::Choose { path, test, args, named, keep } => {
                    let tested = match path {
                        Some(path) => path.of(m, &item)?,
                        None => item.clone(),
                    };
                    let passes = match test {
                        Some(test) => {
                            m.budget.work(args.len() + named.len())?;
                            let args = Args { positional: args.clone(), named: named.clone() };
                            (m.hooks.test)(m, test.as_str(), &tested, args)?
                        }
                        None => tested.is_true(),
                    };
                    if passes == *keep {
                        return Ok(Some(item));
                    }
                }
            }
        }
        Ok(None)
    }
}

fn mapped(m: &Machine, value: &Value, holds: &[Value], step: Res<Step>) -> Res<Value> {
    let source = Mapped { value: Some(value.clone()), items: Iter::Empty, step };
    m.lazy([value].into_iter().chain(holds), source)
}

/// The arguments that a generator keeps.
fn all_of(m: &Machine, args: &Args) -> Res<Vec<Value>> {
    m.budget.items(3 * (args.positional.len() + args.named.len()))?;
    Ok(args.positional.iter().chain(args.named.iter().map(|(_, value)| value)).cloned().collect())
}

/// `map(attribute=…, default=…)` or `map('filter', …)`
pub fn map(m: &Machine, value: &Value, args: Args) -> Res<Value> {
    let holds = all_of(m, &args)?;
    let is_attribute = args.positional.is_empty() && args.named.iter().any(|(name, _)| name.as_str() == "attribute");
    let step = if is_attribute {
        args.bind("map", ["attribute", "default"])
            .and_then(|[attribute, default]| Path::new(m, attribute, default, false).map(Step::Attribute))
    } else {
        let mut positional = args.positional.into_iter();
        match positional.next() {
            Some(Value::Text(name) | Value::Markup(name)) => Ok(Step::Filter(name, positional.collect(), args.named)),
            _ => fail("map needs the name of a filter, or attribute=…"),
        }
    };
    mapped(m, value, &holds, step)
}

/// `select`, `reject`, `selectattr` and `rejectattr`
pub fn choose(m: &Machine, value: &Value, args: Args, has_attribute: bool, keep: bool) -> Res<Value> {
    let holds = all_of(m, &args)?;
    let mut positional = args.positional.into_iter();
    let path = if has_attribute { positional.next() } else { None };
    let path = path.map(|path| Path::new(m, Some(path), None, false)).transpose()?;
    let step = match (has_attribute && path.is_none(), positional.next()) {
        (true, _) => fail("selectattr and rejectattr need the name of an attribute"),
        (_, None) => Ok(Step::Choose { path, test: None, args: Vec::new(), named: Vec::new(), keep }),
        (_, Some(Value::Text(test) | Value::Markup(test))) => {
            Ok(Step::Choose { path, test: Some(test), args: positional.collect(), named: args.named, keep })
        }
        (_, Some(other)) => fail(format!("the name of a test is a {}, expected a text", other.kind())),
    };
    mapped(m, value, &holds, step)
}
