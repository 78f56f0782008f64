//! Equality, order and hashes of values as in Python, and the look-up in dicts. Every step is paid for, so a value that
//! shares its parts many times over cannot be walked for ever.

use super::limits::{Res, fail};
use super::value::{Dict, Machine, Value, View, nesting, range_len};
use ahash::RandomState;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::OnceLock;

/// Dicts with more entries have an index.
const FEW: usize = 8;

/// Python's `==`.
pub fn equal(m: &Machine, a: &Value, b: &Value) -> Res<bool> {
    m.budget.work(1)?;
    Ok(match (a, b) {
        (Value::Text(a) | Value::Markup(a), Value::Text(b) | Value::Markup(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            m.budget.scan(a.len())?;
            a == b
        }
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            Rc::ptr_eq(a, b) || (a.items.len() == b.items.len() && all_equal(m, &a.items, &b.items)?)
        }
        (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b) || same_entries(m, a, b)?,
        (Value::View(View::Keys, a), Value::View(View::Keys, b)) => {
            a.entries.len() == b.entries.len() && {
                for (key, _) in &a.entries {
                    if find(m, b, key)?.is_none() {
                        return Ok(false);
                    }
                }
                true
            }
        }
        (Value::View(View::Items, a), Value::View(View::Items, b)) => same_entries(m, a, b)?,
        (Value::Range(a), Value::Range(b)) => {
            let len = range_len(a);
            len == range_len(b) && (len == 0 || (a[0] == b[0] && (len == 1 || a[2] == b[2])))
        }
        (Value::Lazy(a), Value::Lazy(b)) => Rc::ptr_eq(a, b),
        (Value::Namespace(a), Value::Namespace(b)) => Rc::ptr_eq(a, b),
        (Value::Macro(a), Value::Macro(b)) => Rc::ptr_eq(a, b),
        (Value::Loop(a), Value::Loop(b)) => Rc::ptr_eq(a, b),
        (Value::Cycler(a), Value::Cycler(b)) => Rc::ptr_eq(a, b),
        (Value::Joiner(a), Value::Joiner(b)) => Rc::ptr_eq(a, b),
        (Value::Function(a), Value::Function(b)) => a == b,
        (Value::Method(a), Value::Method(b)) => a.1 == b.1 && same(&a.0, &b.0),
        _ => numbers(a, b).is_some_and(|order| order == Some(Ordering::Equal)),
    })
}

/// Whether two values are the same object, as far as that can be known; equal texts and numbers are not told apart.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::None, Value::None) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (Value::Text(a), Value::Text(b)) | (Value::Markup(a), Value::Markup(b)) => std::ptr::eq(a.as_str(), b.as_str()),
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => Rc::ptr_eq(a, b),
        (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b),
        (Value::Range(a), Value::Range(b)) => Rc::ptr_eq(a, b),
        (Value::Undefined(a), Value::Undefined(b)) => Rc::ptr_eq(a, b),
        (Value::Lazy(a), Value::Lazy(b)) => Rc::ptr_eq(a, b),
        (Value::Namespace(a), Value::Namespace(b)) => Rc::ptr_eq(a, b),
        (Value::Macro(a), Value::Macro(b)) => Rc::ptr_eq(a, b),
        (Value::Loop(a), Value::Loop(b)) => Rc::ptr_eq(a, b),
        (Value::Cycler(a), Value::Cycler(b)) => Rc::ptr_eq(a, b),
        (Value::Joiner(a), Value::Joiner(b)) => Rc::ptr_eq(a, b),
        (Value::Function(a), Value::Function(b)) => a == b,
        _ => false,
    }
}

fn all_equal(m: &Machine, a: &[Value], b: &[Value]) -> Res<bool> {
    for (a, b) in a.iter().zip(b) {
        m.budget.work(1)?;
        if !same(a, b) && !equal(m, a, b)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn same_entries(m: &Machine, a: &Dict, b: &Dict) -> Res<bool> {
    if a.entries.len() != b.entries.len() {
        return Ok(false);
    }
    for (key, value) in &a.entries {
        match find(m, b, key)? {
            Some(other) if same(value, other) || equal(m, value, other)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// The order of two numbers; None if one is not a number, or is NaN.
fn numbers(a: &Value, b: &Value) -> Option<Option<Ordering>> {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => Some(a.partial_cmp(b)),
        (Value::Float(a), b) => Some(int_and_float(b.as_int()?, *a).map(Ordering::reverse)),
        (a, Value::Float(b)) => Some(int_and_float(a.as_int()?, *b)),
        (a, b) => Some(Some(a.as_int()?.cmp(&b.as_int()?))),
    }
}

/// The exact order of an integer and a float.
fn int_and_float(n: i128, x: f64) -> Option<Ordering> {
    if x.is_nan() {
        return None;
    }
    if x >= 2f64.powi(127) {
        return Some(Ordering::Less);
    }
    if x < -(2f64.powi(127)) {
        return Some(Ordering::Greater);
    }
    let whole = x.floor();
    Some(n.cmp(&(whole as i128)).then(if x > whole { Ordering::Less } else { Ordering::Equal }))
}

/// Python's `<` and its relatives: the order of two values, or None if a NaN is compared.
pub fn order(m: &Machine, a: &Value, b: &Value) -> Res<Option<Ordering>> {
    m.budget.work(1)?;
    a.defined()?;
    b.defined()?;
    match (a, b) {
        (Value::Text(a) | Value::Markup(a), Value::Text(b) | Value::Markup(b)) => {
            m.budget.scan(a.len().min(b.len()))?;
            Ok(Some(a.cmp(b)))
        }
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            for (x, y) in a.items.iter().zip(&b.items) {
                m.budget.work(1)?;
                if !same(x, y) && !equal(m, x, y)? {
                    return order(m, x, y);
                }
            }
            Ok(Some(a.items.len().cmp(&b.items.len())))
        }
        (Value::View(..), Value::View(..)) => fail("comparing views of dicts with '<' is not supported"),
        _ => match numbers(a, b) {
            Some(order) => Ok(order),
            None => fail(format!("'<' cannot compare {} and {}", a.kind(), b.kind())),
        },
    }
}

/// Sorts items by their keys, stably; the items keep their order if the keys are equal.
pub fn sort(m: &Machine, keyed: Vec<(Value, Value)>, reverse: bool) -> Res<Vec<Value>> {
    m.budget.items(keyed.len())?;
    let mut sorted = keyed;
    if reverse {
        sorted.reverse();
    }
    let mut width = 1;
    while width < sorted.len() {
        let mut merged = Vec::with_capacity(sorted.len());
        let mut rest = sorted.into_iter().peekable();
        while rest.peek().is_some() {
            let left: Vec<_> = rest.by_ref().take(width).collect();
            let right: Vec<_> = rest.by_ref().take(width).collect();
            merge(m, left, right, &mut merged)?;
        }
        sorted = merged;
        width *= 2;
    }
    if reverse {
        sorted.reverse();
    }
    Ok(sorted.into_iter().map(|(_, item)| item).collect())
}

fn merge(
    m: &Machine,
    left: Vec<(Value, Value)>,
    right: Vec<(Value, Value)>,
    merged: &mut Vec<(Value, Value)>,
) -> Res<()> {
    let mut right = right.into_iter().peekable();
    for item in left {
        while let Some(next) = right.peek() {
            if order(m, &next.0, &item.0)? != Some(Ordering::Less) {
                break;
            }
            merged.extend(right.next());
        }
        merged.push(item);
    }
    merged.extend(right);
    Ok(())
}

/// The hash of a value that can be a key.
pub fn hash(m: &Machine, value: &Value) -> Res<u64> {
    m.budget.work(1)?;
    let mut hasher = state().build_hasher();
    match value {
        Value::Text(text) | Value::Markup(text) => {
            m.budget.scan(text.len())?;
            return Ok(hash_text(text.as_str()));
        }
        Value::Undefined(_) => 1u8.hash(&mut hasher),
        Value::None => 2u8.hash(&mut hasher),
        Value::Float(x) if x.fract() == 0.0 && x.abs() < 2f64.powi(126) => (*x as i128).hash(&mut hasher),
        Value::Float(x) => x.to_bits().hash(&mut hasher),
        Value::Tuple(list) => {
            for item in &list.items {
                hash(m, item)?.hash(&mut hasher);
            }
        }
        Value::Range(_) | Value::Lazy(_) | Value::Namespace(_) | Value::Macro(_) | Value::Loop(_) => {
            3u8.hash(&mut hasher);
        }
        Value::Cycler(_) | Value::Joiner(_) | Value::Method(_) | Value::Function(_) => 4u8.hash(&mut hasher),
        _ => match value.as_int() {
            Some(n) => n.hash(&mut hasher),
            None => return fail(format!("a {} cannot be a key", value.kind())),
        },
    }
    Ok(hasher.finish())
}

fn hash_text(text: &str) -> u64 {
    state().hash_one(text)
}

fn state() -> &'static RandomState {
    static STATE: OnceLock<RandomState> = OnceLock::new();
    STATE.get_or_init(RandomState::new)
}

/// The value of a key in a dict. An error if the key cannot be hashed.
pub fn find<'a>(m: &Machine, dict: &'a Dict, key: &Value) -> Res<Option<&'a Value>> {
    Ok(place(m, dict, key)?.map(|place| &dict.entries[place].1))
}

fn place(m: &Machine, dict: &Dict, key: &Value) -> Res<Option<usize>> {
    let hash = hash(m, key)?;
    let Some(index) = &dict.index else {
        for (place, (known, _)) in dict.entries.iter().enumerate() {
            if same(known, key) || equal(m, known, key)? {
                return Ok(Some(place));
            }
        }
        return Ok(None);
    };
    for place in index.get(&hash).into_iter().flatten() {
        let known = &dict.entries[*place as usize].0;
        if same(known, key) || equal(m, known, key)? {
            return Ok(Some(*place as usize));
        }
    }
    Ok(None)
}

/// The value of a name in a dict.
pub fn find_name<'a>(m: &Machine, dict: &'a Dict, name: &str) -> Res<Option<&'a Value>> {
    m.budget.scan(name.len())?;
    let is_name = |key: &Value| key.as_text().is_some_and(|text| text.as_str() == name);
    Ok(match &dict.index {
        None => dict.entries.iter().find(|(key, _)| is_name(key)).map(|(_, value)| value),
        Some(index) => {
            let places = index.get(&hash_text(name)).into_iter().flatten();
            places.map(|place| &dict.entries[*place as usize]).find(|(key, _)| is_name(key)).map(|(_, value)| value)
        }
    })
}

/// Sets the value of a key. The dict's depth is that of its deepest value.
pub fn insert(m: &Machine, dict: &mut Dict, key: Value, value: Value) -> Res<()> {
    m.budget.items(2)?;
    dict.depth = dict.depth.max(nesting([&key, &value].into_iter())?);
    match place(m, dict, &key)? {
        Some(place) => dict.entries[place].1 = value,
        None => {
            if let Some(index) = &mut dict.index {
                index.entry(hash(m, &key)?).or_default().push(dict.entries.len() as u32);
            }
            dict.entries.push((key, value));
            if dict.entries.len() > FEW {
                m.budget.items(3)?; // the index
            }
            if dict.index.is_none() && dict.entries.len() > FEW {
                let mut index: HashMap<u64, Vec<u32>> = HashMap::new();
                for (place, (key, _)) in dict.entries.iter().enumerate() {
                    index.entry(hash(m, key)?).or_default().push(place as u32);
                }
                dict.index = Some(index);
            }
        }
    }
    Ok(())
}
