//! Iteration over values, as Python's `iter`.

use super::limits::{Res, fail};
use super::text::Text;
use super::value::{Dict, List, Loop, LoopState, Machine, Source, Value, View, range_len};
use std::rc::Rc;

/// An iteration over a value.
pub enum Iter {
    Items(Rc<List>, usize),
    Entries(View, Rc<Dict>, usize),
    /// A text, and the byte of its next character.
    Chars(Text, usize),
    /// The next number, the step, and how many are left.
    Numbers(i128, i128, i128),
    Lazy(Rc<super::value::Lazy>),
    Loop(Rc<Loop>),
    Empty,
}

/// An iteration over the items of a value.
pub fn iterate(value: &Value) -> Res<Iter> {
    Ok(match value {
        Value::List(list) | Value::Tuple(list) => Iter::Items(list.clone(), 0),
        Value::Dict(dict) => Iter::Entries(View::Keys, dict.clone(), 0),
        Value::View(view, dict) => Iter::Entries(*view, dict.clone(), 0),
        Value::Text(text) | Value::Markup(text) => Iter::Chars(text.clone(), 0),
        Value::Range(range) => Iter::Numbers(range[0], range[2], range_len(range)),
        Value::Lazy(lazy) => Iter::Lazy(lazy.clone()),
        Value::Loop(looped) => Iter::Loop(looped.clone()),
        Value::Undefined(_) => Iter::Empty,
        _ => return fail(format!("{} is not iterable", name(value))),
    })
}

/// The value's type, or None by its name.
fn name(value: &Value) -> String {
    match value {
        Value::None => "None".into(),
        _ => format!("a value of type {}", value.kind()),
    }
}

impl Source for Iter {
    fn next(&mut self, m: &Machine) -> Res<Option<Value>> {
        m.budget.work(1)?;
        Ok(match self {
            Iter::Items(list, at) => {
                *at += 1;
                list.items.get(*at - 1).cloned()
            }
            Iter::Entries(view, dict, at) => {
                *at += 1;
                let entry = dict.entries.get(*at - 1);
                match (view, entry) {
                    (_, None) => None,
                    (View::Keys, Some((key, _))) => Some(key.clone()),
                    (View::Values, Some((_, value))) => Some(value.clone()),
                    (View::Items, Some((key, value))) => Some(m.tuple(vec![key.clone(), value.clone()])?),
                }
            }
            Iter::Chars(text, at) => match text.as_str()[*at..].chars().next() {
                None => None,
                Some(c) => {
                    let end = *at + c.len_utf8();
                    let part = m.text(text.slice(*at..end))?;
                    *at = end;
                    Some(part)
                }
            },
            Iter::Numbers(_, _, 0) => None,
            Iter::Numbers(next, step, left) => {
                let number = *next;
                *left -= 1;
                *next = next.saturating_add(*step);
                Some(Value::Int(number))
            }
            Iter::Lazy(lazy) => {
                let Ok(mut source) = lazy.source.try_borrow_mut() else {
                    return fail("a generator iterates over itself");
                };
                return m.deeper(|| source.next(m));
            }
            Iter::Loop(looped) => match looped.step(m)? {
                None => None,
                Some(item) => Some(m.tuple(vec![item, Value::Loop(looped.clone())])?),
            },
            Iter::Empty => None,
        })
    }
}

/// All items of a value.
pub fn collect(m: &Machine, value: &Value) -> Res<Vec<Value>> {
    if let Value::List(list) | Value::Tuple(list) = value {
        m.budget.items(list.items.len())?;
        return Ok(list.items.clone());
    }
    let mut items = iterate(value)?;
    let mut all = Vec::new();
    while let Some(item) = items.next(m)? {
        m.budget.items(1)?;
        all.push(item);
    }
    Ok(all)
}

/// A source of items that are there.
pub struct Ready(pub std::vec::IntoIter<Value>);

impl Source for Ready {
    fn next(&mut self, m: &Machine) -> Res<Option<Value>> {
        m.budget.work(1)?;
        Ok(self.0.next())
    }
}

impl LoopState {
    fn next(&mut self, m: &Machine) -> Res<Option<Value>> {
        self.items.as_mut().map_or(Ok(None), |items| items.next(m))
    }
}

impl Loop {
    /// The next item, which becomes the current one.
    pub fn step(&self, m: &Machine) -> Res<Option<Value>> {
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return fail("a loop iterates over itself");
        };
        let item = match state.ahead.pop_front() {
            Some(item) => Some(item),
            None => state.next(m)?,
        };
        if let Some(item) = &item {
            state.index0 += 1;
            state.before = state.current.replace(item.clone());
        }
        Ok(item)
    }

    /// The item after the current one.
    pub fn peek(&self, m: &Machine) -> Res<Option<Value>> {
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return fail("a loop iterates over itself");
        };
        if state.ahead.is_empty() {
            let next = state.next(m)?;
            state.ahead.extend(next);
        }
        Ok(state.ahead.front().cloned())
    }

    /// The number of all items.
    pub fn length(&self, m: &Machine) -> Res<i128> {
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return fail("a loop iterates over itself");
        };
        if let Some(length) = state.length {
            return Ok(length);
        }
        while let Some(item) = state.next(m)? {
            m.budget.items(1)?;
            state.ahead.push_back(item);
        }
        let length = state.index0 + 1 + state.ahead.len() as i128;
        state.length = Some(length);
        Ok(length)
    }
}
