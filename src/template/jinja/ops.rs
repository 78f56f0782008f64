//! The operators of Python on numbers, texts and lists.

use super::ast::{Comparison, Operator};
use super::compare;
use super::formatting;
use super::iterate::iterate;
use super::limits::{Res, fail};
use super::print;
use super::str_methods;
use super::value::{Machine, Source, Value, range_len};
use std::cmp::Ordering;

/// `a + b` and the other operators.
pub fn binary(m: &Machine, operator: Operator, a: &Value, b: &Value) -> Res<Value> {
    m.budget.work(1)?;
    match (operator, a, b) {
        (Operator::Add, Value::Text(a), Value::Text(b)) => {
            return m.concat([a, b]).map(Value::Text);
        }
        (Operator::Mod, Value::Text(_) | Value::Markup(_), _) => return formatting::percent(m, a, b),
        _ => {}
    }
    a.defined()?;
    b.defined()?;
    match operator {
        Operator::Add => match (a, b) {
            (Value::Markup(_), Value::Text(_) | Value::Markup(_)) | (Value::Text(_), Value::Markup(_)) => {
                return m.concat([&print::to_markup(m, a)?, &print::to_markup(m, b)?]).map(Value::Markup);
            }
            (Value::List(a), Value::List(b)) => {
                return m.gather(false, a.items.len() + b.items.len(), a.items.iter().chain(&b.items).cloned());
            }
            (Value::Tuple(a), Value::Tuple(b)) => {
                return m.gather(true, a.items.len() + b.items.len(), a.items.iter().chain(&b.items).cloned());
            }
            _ => {}
        },
        Operator::Mul => {
            if let Some(repeated) = match (a.as_int(), b.as_int()) {
                (_, Some(times)) => repeat(m, a, times)?,
                (Some(times), _) => repeat(m, b, times)?,
                _ => None,
            } {
                return Ok(repeated);
            }
        }
        _ => {}
    }
    let done = match (a.as_int(), b.as_int()) {
        (Some(a), Some(b)) => integers(operator, a, b)?,
        _ => match (as_float(a), as_float(b)) {
            (Some(a), Some(b)) => Some(floats(operator, a, b)?),
            _ => None,
        },
    };
    done.ok_or_else(|| format!("'{}' cannot combine {} and {}", sign(operator), a.kind(), b.kind()).into())
}

fn sign(operator: Operator) -> &'static str {
    match operator {
        Operator::Add => "+",
        Operator::Sub => "-",
        Operator::Mul => "*",
        Operator::Div => "/",
        Operator::FloorDiv => "//",
        Operator::Mod => "%",
        Operator::Pow => "**",
    }
}

/// A number as a float.
pub fn as_float(value: &Value) -> Option<f64> {
    match value {
        Value::Float(x) => Some(*x),
        _ => value.as_int().map(|n| n as f64),
    }
}

/// A text or list several times; None for other values.
fn repeat(m: &Machine, value: &Value, times: i128) -> Res<Option<Value>> {
    let copies = |len: usize| match usize::try_from(times.max(0)) {
        Ok(times) => len.saturating_mul(times),
        Err(_) if len == 0 => 0,
        Err(_) => usize::MAX,
    };
    Ok(Some(match value {
        Value::Text(text) | Value::Markup(text) => {
            m.budget.build(copies(text.size()))?;
            let repeated = str_methods::repeat(text, times, usize::MAX)?;
            if matches!(value, Value::Text(_)) { Value::Text(repeated) } else { Value::Markup(repeated) }
        }
        Value::List(list) | Value::Tuple(list) => {
            let count = copies(list.items.len());
            let items = list.items.iter().cycle().take(count).cloned();
            m.gather(matches!(value, Value::Tuple(_)), count, items)?
        }
        _ => return Ok(None),
    }))
}

fn too_large<T>() -> Res<T> {
    fail("an integer is too large; integers have at most 127 bits")
}

fn integers(operator: Operator, a: i128, b: i128) -> Res<Option<Value>> {
    /// Integers up to this size are floats exactly.
    const EXACT: u128 = 1 << 53;
    let done = match operator {
        Operator::Add => a.checked_add(b),
        Operator::Sub => a.checked_sub(b),
        Operator::Mul => a.checked_mul(b),
        Operator::Div | Operator::FloorDiv | Operator::Mod if b == 0 => return fail("division by zero"),
        Operator::Div => {
            if a.unsigned_abs() > EXACT || b.unsigned_abs() > EXACT {
                return fail("'/' of integers above 2**53 is not supported; use '//'");
            }
            return Ok(Some(Value::Float(a as f64 / b as f64)));
        }
        Operator::FloorDiv => a.checked_div_euclid(b).and_then(|_| {
            let (quotient, rest) = (a / b, a % b);
            quotient.checked_sub(i128::from(rest != 0 && (rest < 0) != (b < 0)))
        }),
        Operator::Mod => a.checked_rem(b).map(|rest| if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }),
        Operator::Pow if b < 0 => return Ok(Some(floats(operator, a as f64, b as f64)?)),
        Operator::Pow => match (a, u32::try_from(b)) {
            (0 | 1, _) => Some(if b == 0 { 1 } else { a }),
            (-1, _) => Some(if b % 2 == 0 { 1 } else { -1 }),
            (_, Ok(b)) => a.checked_pow(b),
            (_, Err(_)) => None,
        },
    };
    match done {
        Some(n) => Ok(Some(Value::Int(n))),
        None => too_large(),
    }
}

fn floats(operator: Operator, a: f64, b: f64) -> Res<Value> {
    Ok(Value::Float(match operator {
        Operator::Add => a + b,
        Operator::Sub => a - b,
        Operator::Mul => a * b,
        Operator::Div | Operator::FloorDiv | Operator::Mod if b == 0.0 => return fail("division by zero"),
        Operator::Div => a / b,
        Operator::FloorDiv => floor_divide(a, b).0,
        Operator::Mod => floor_divide(a, b).1,
        Operator::Pow if a == 0.0 && b < 0.0 => return fail("0 cannot be raised to a negative power"),
        Operator::Pow if a < 0.0 && a.is_finite() && b.is_finite() && b.fract() != 0.0 => {
            return fail("complex numbers are not supported");
        }
        Operator::Pow => {
            let power = a.powf(b);
            if power.is_infinite() && a.is_finite() && b.is_finite() {
                return fail("the result of '**' is too large");
            }
            power
        }
    }))
}

/// The quotient, rounded down, and the remainder, which has the sign of `b`, as CPython computes them.
fn floor_divide(a: f64, b: f64) -> (f64, f64) {
    let mut rest = a % b;
    let mut quotient = (a - rest) / b;
    if rest != 0.0 {
        if (b < 0.0) != (rest < 0.0) {
            rest += b;
            quotient -= 1.0;
        }
    } else {
        rest = 0f64.copysign(b);
    }
    let floored = if quotient != 0.0 {
        let floor = quotient.floor();
        if quotient - floor > 0.5 { floor + 1.0 } else { floor }
    } else {
        0f64.copysign(a / b)
    };
    (floored, rest)
}

/// `-a` and `+a`
pub fn signed(is_minus: bool, value: &Value) -> Res<Value> {
    match value.defined()? {
        Value::Float(x) => Ok(Value::Float(if is_minus { -x } else { *x })),
        other => match (other.as_int(), is_minus) {
            (Some(n), true) => n.checked_neg().map_or_else(too_large, |n| Ok(Value::Int(n))),
            (Some(n), false) => Ok(Value::Int(n)),
            (None, _) => fail(format!("a {} has no sign", other.kind())),
        },
    }
}

/// `a < b` and the other comparisons.
pub fn compare(m: &Machine, comparison: Comparison, a: &Value, b: &Value) -> Res<bool> {
    let ordered = |expected: fn(Ordering) -> bool| Ok(compare::order(m, a, b)?.is_some_and(expected));
    match comparison {
        Comparison::Eq => compare::equal(m, a, b),
        Comparison::Ne => Ok(!compare::equal(m, a, b)?),
        Comparison::Lt => ordered(Ordering::is_lt),
        Comparison::Le => ordered(Ordering::is_le),
        Comparison::Gt => ordered(Ordering::is_gt),
        Comparison::Ge => ordered(Ordering::is_ge),
        Comparison::In => contains(m, b, a),
        Comparison::NotIn => Ok(!contains(m, b, a)?),
    }
}

/// Whether a container has an item: a text a part, a dict a key.
pub fn contains(m: &Machine, container: &Value, item: &Value) -> Res<bool> {
    match (container, item) {
        (Value::Text(whole) | Value::Markup(whole), Value::Text(part) | Value::Markup(part)) => {
            m.budget.scan(whole.len() + part.len())?;
            Ok(whole.as_str().contains(part.as_str()))
        }
        (Value::Text(_) | Value::Markup(_), _) => fail(format!("'in' a text needs a text, found a {}", item.kind())),
        (Value::Dict(dict) | Value::View(super::value::View::Keys, dict), _) => {
            Ok(compare::find(m, dict, item)?.is_some())
        }
        (Value::Range(range), _) if item.as_int().is_some() => {
            let (Some(n), [start, _, step]) = (item.as_int(), **range) else { return Ok(false) };
            let steps = (n - start) / step;
            Ok((n - start) % step == 0 && (0..range_len(range)).contains(&steps))
        }
        _ => {
            let mut items = iterate(container)?;
            while let Some(other) = items.next(m)? {
                if compare::same(&other, item) || compare::equal(m, &other, item)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

/// `value[start:stop:step]`
pub fn slice(m: &Machine, value: &Value, bounds: [Option<Value>; 3]) -> Res<Value> {
    value.defined()?;
    let mut places = [None; 3];
    for (place, bound) in places.iter_mut().zip(&bounds) {
        *place = match bound {
            None | Some(Value::None) => None,
            Some(bound) => match bound.as_int() {
                Some(n) => Some(n),
                None => return fail(format!("a bound of a slice is a {}, expected an integer", bound.kind())),
            },
        };
    }
    let [start, stop, step] = places;
    match value {
        Value::Text(text) => {
            m.budget.scan(text.len())?;
            m.text(str_methods::slice(text, start, stop, step)?)
        }
        Value::Markup(text) => {
            m.budget.build(text.size())?;
            Ok(Value::Markup(str_methods::slice(text, start, stop, step)?))
        }
        Value::List(list) | Value::Tuple(list) => {
            let chosen = str_methods::Slice::new(list.items.len(), start, stop, step)?.items();
            let items = chosen.clone().map(|place| list.items[place].clone());
            m.gather(matches!(value, Value::Tuple(_)), chosen.len(), items)
        }
        Value::Range(range) => {
            let len = usize::try_from(range_len(range)).unwrap_or(usize::MAX);
            let chosen = str_methods::Slice::new(len, start, stop, step)?;
            let [first, _, stride] = **range;
            let count = chosen.count as i128;
            let begin = first + stride * chosen.items().next().unwrap_or(0) as i128;
            let stride = stride * step.unwrap_or(1);
            if count == 0 {
                return fail("an empty slice of a range is not supported");
            }
            m.budget.items(2)?;
            Ok(Value::Range(std::rc::Rc::new([begin, begin + stride * count, stride])))
        }
        _ => fail(format!("a {} cannot be sliced", value.kind())),
    }
}
