//! The methods of Python's `str` on texts with origins.
//!
//! Positions count characters, as in Python. What can be longer than its arguments takes a limit on the size of the
//! result. Lists are iterators, so that the caller can charge each item before the next is made.

use super::text::{Fault, Text, TextBuilder};
use super::unicode::{
    ALPHABETIC, CharClass, DECIMAL, DIGIT, IDENTIFIER, IDENTIFIER_START, LOWER, NUMERIC, PRINTABLE, TITLE, UPPER,
    is_line_break, is_space,
};
use std::collections::HashSet;
use std::iter;
use std::ops::Range;

/// The bounds of a part, as Python's methods take them: from the end if negative, and cut to the text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// The first character; the first of the text if `None`.
    pub start: Option<i128>,
    /// The character after the last one; the end of the text if `None`.
    pub end: Option<i128>,
}

/// Which end of a text a method works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

/// The byte position of a character.
fn byte_at(text: &Text, chars: usize) -> usize {
    if text.count_chars() == text.len() {
        return chars.min(text.len()); // only ASCII
    }
    text.as_str().char_indices().nth(chars).map_or(text.len(), |(at, _)| at)
}

/// The part of a text between bounds, in bytes. Nothing, not even an empty text, is found between bounds that cross.
fn part(text: &Text, bounds: Bounds) -> Option<Range<usize>> {
    let len = text.count_chars() as i128;
    let from_end = |at: i128| if at < 0 { (at + len).max(0) } else { at };
    let start = from_end(bounds.start.unwrap_or(0));
    let end = from_end(bounds.end.unwrap_or(len)).min(len);
    (start <= end).then(|| byte_at(text, start as usize)..byte_at(text, end as usize))
}

/// `str.find` from the left, `str.rfind` from the right: the first character of `sub`.
pub fn find(text: &Text, sub: &Text, bounds: Bounds, side: Side) -> Option<usize> {
    let part = part(text, bounds)?;
    let (start, within) = (part.start, &text.as_str()[part]);
    let found = match side {
        Side::Left => within.find(sub.as_str()),
        Side::Right => within.rfind(sub.as_str()),
    };
    let end = start + found?;
    Some(if text.count_chars() == text.len() { end } else { text.as_str()[..end].chars().count() })
}

/// `str.count`
pub fn count(text: &Text, sub: &Text, bounds: Bounds) -> usize {
    part(text, bounds).map_or(0, |part| text.as_str()[part].matches(sub.as_str()).count())
}

/// `str.startswith` on the left, `str.endswith` on the right, for any of the texts that they look for.
pub fn has_affix<'a>(text: &Text, mut affixes: impl Iterator<Item = &'a Text>, bounds: Bounds, side: Side) -> bool {
    let Some(part) = part(text, bounds).map(|part| &text.as_str()[part]) else { return false };
    affixes.any(|affix| match side {
        Side::Left => part.starts_with(affix.as_str()),
        Side::Right => part.ends_with(affix.as_str()),
    })
}

/// `str.removeprefix` on the left, `str.removesuffix` on the right.
pub fn remove_affix(text: &Text, affix: &Text, side: Side) -> Text {
    if !has_affix(text, [affix].into_iter(), Bounds::default(), side) {
        return text.clone();
    }
    match side {
        Side::Left => text.slice(affix.len()..text.len()),
        Side::Right => text.slice(0..text.len() - affix.len()),
    }
}

/// `str.strip`, or `lstrip` and `rstrip` of one side only; white space if there are no characters given.
pub fn strip(text: &Text, chars: Option<&Text>, sides: &[Side]) -> Text {
    let mut ascii = 0u128;
    let mut others = HashSet::with_hasher(ahash::RandomState::new());
    for c in chars.map(Text::as_str).unwrap_or_default().chars() {
        if c.is_ascii() {
            ascii |= 1 << u32::from(c);
        } else {
            others.insert(c);
        }
    }
    let goes = |c: char| match (chars, c.is_ascii()) {
        (None, _) => is_space(c),
        (_, true) => ascii >> u32::from(c) & 1 == 1,
        (_, false) => others.contains(&c),
    };
    let mut rest = text.as_str();
    if sides.contains(&Side::Right) {
        rest = rest.trim_end_matches(goes);
    }
    let end = rest.len();
    if sides.contains(&Side::Left) {
        rest = rest.trim_start_matches(goes);
    }
    text.slice(end - rest.len()..end)
}

/// `str.partition` at the first separator, `str.rpartition` at the last: the text before it, it, and the text after it.
pub fn partition(text: &Text, separator: &Text, side: Side) -> Result<[Text; 3], Fault> {
    let whole = text.as_str();
    let found = match side {
        _ if separator.is_empty() => return Err(empty_separator()),
        Side::Left => whole.find(separator.as_str()),
        Side::Right => whole.rfind(separator.as_str()),
    };
    Ok(match (found, side) {
        (Some(start), _) => {
            let end = start + separator.len();
            [text.slice(0..start), text.slice(start..end), text.slice(end..text.len())]
        }
        (None, Side::Left) => [text.clone(), Text::default(), Text::default()],
        (None, Side::Right) => [Text::default(), Text::default(), text.clone()],
    })
}

fn empty_separator() -> Fault {
    Fault::value_error("empty separator")
}

/// `str.split` at a separator, or at white space if there is none. From the right (`str.rsplit`), **the last piece
/// comes first**. A negative number of splits is any number.
pub fn split(
    text: &Text,
    separator: Option<&Text>,
    max_splits: i128,
    side: Side,
) -> Result<impl Iterator<Item = Text> + use<>, Fault> {
    if separator.is_some_and(Text::is_empty) {
        return Err(empty_separator());
    }
    let separator = separator.cloned();
    let text = text.clone();
    let mut left = if max_splits < 0 { i128::MAX } else { max_splits };
    let mut rest = Some(0..text.len());
    let next = move || {
        let mut range = rest.take()?;
        if separator.is_none() {
            range = trimmed(text.as_str(), range, side);
            if range.is_empty() {
                return None;
            }
        }
        let within = &text.as_str()[range.clone()];
        let cut = match &separator {
            _ if left == 0 => None,
            Some(separator) => match side {
                Side::Left => within.find(separator.as_str()),
                Side::Right => within.rfind(separator.as_str()),
            }
            .map(|at| at..at + separator.len()),
            None => match side {
                Side::Left => within.char_indices().find(|&(_, c)| is_space(c)),
                Side::Right => within.char_indices().rfind(|&(_, c)| is_space(c)),
            }
            .map(|(at, c)| at..at + c.len_utf8()),
        };
        left -= 1;
        let Some(cut) = cut else {
            return Some(text.slice(range));
        };
        let (before, after) = (range.start..range.start + cut.start, range.start + cut.end..range.end);
        let (piece, others) = if side == Side::Left { (before, after) } else { (after, before) };
        rest = Some(others);
        Some(text.slice(piece))
    };
    Ok(iter::from_fn(next))
}

/// A range without the white space at one side.
fn trimmed(text: &str, range: Range<usize>, side: Side) -> Range<usize> {
    let part = &text[range.clone()];
    match side {
        Side::Left => range.end - part.trim_start_matches(is_space).len()..range.end,
        Side::Right => range.start..range.start + part.trim_end_matches(is_space).len(),
    }
}

/// `str.splitlines`
pub fn split_lines(text: &Text, keep_ends: bool) -> impl Iterator<Item = Text> + use<> {
    let text = text.clone();
    let mut at = 0;
    iter::from_fn(move || {
        let rest = &text.as_str()[at..];
        if rest.is_empty() {
            return None;
        }
        let (end, next) = match rest.char_indices().find(|&(_, c)| is_line_break(c)) {
            Some((end, '\r')) if rest[end + 1..].starts_with('\n') => (end, end + 2),
            Some((end, c)) => (end, end + c.len_utf8()),
            None => (rest.len(), rest.len()),
        };
        let line = text.slice(at..at + if keep_ends { next } else { end });
        at += next;
        Some(line)
    })
}

/// `str.replace`; a negative number of replacements is any number. The new text keeps its own origin.
pub fn replace(text: &Text, old: &Text, new: &Text, max_count: i128, limit: usize) -> Result<Text, Fault> {
    let count = usize::try_from(if max_count < 0 { i128::MAX } else { max_count }).unwrap_or(usize::MAX);
    let mut out = TextBuilder::limited(limit);
    let mut done = 0;
    for (at, found) in text.as_str().match_indices(old.as_str()).take(count) {
        out.push_slice(text, done..at);
        out.push(new);
        done = at + found.len();
    }
    out.push_slice(text, done..text.len());
    out.finish_within()
}

/// `str.join`
pub fn join(separator: &Text, items: impl Iterator<Item = Text>, limit: usize) -> Result<Text, Fault> {
    let mut out = TextBuilder::limited(limit);
    for (n, item) in items.enumerate() {
        if n > 0 {
            out.push(separator);
        }
        out.push(&item);
    }
    out.finish_within()
}

/// `text * count`
pub fn repeat(text: &Text, count: i128, limit: usize) -> Result<Text, Fault> {
    let mut out = TextBuilder::limited(limit);
    out.push_repeated(text, usize::try_from(count.max(0)).unwrap_or(usize::MAX));
    out.finish_within()
}

/// Where a padded text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
    Center,
}

/// `str.ljust`, `rjust` and `center`, by where the text stands; `fill` is one character.
pub fn pad(text: &Text, width: i128, fill: &Text, align: Align, limit: usize) -> Result<Text, Fault> {
    let missing = width.saturating_sub(text.count_chars() as i128).max(0);
    let left = match align {
        Align::Left => 0,
        Align::Right => missing,
        Align::Center => missing / 2 + (missing & width & 1), // the odd one is on the left if the width is odd
    };
    pad_by(text, left, missing - left, fill, limit)
}

/// A text with a number of fill characters on each side.
pub fn pad_by(text: &Text, left: i128, right: i128, fill: &Text, limit: usize) -> Result<Text, Fault> {
    let times = |count: i128| usize::try_from(count).unwrap_or(usize::MAX);
    let mut out = TextBuilder::limited(limit);
    out.push_repeated(fill, times(left));
    out.push(text);
    out.push_repeated(fill, times(right));
    out.finish_within()
}

/// `str.zfill`
pub fn zero_fill(text: &Text, width: i128, limit: usize) -> Result<Text, Fault> {
    let sign = usize::from(text.as_str().starts_with(['+', '-']));
    let zeros = width.saturating_sub(text.count_chars() as i128).max(0);
    let mut out = TextBuilder::limited(limit);
    out.push_slice(text, 0..sign);
    out.push_repeated(&Text::own("0"), usize::try_from(zeros).unwrap_or(usize::MAX));
    out.push_slice(text, sign..text.len());
    out.finish_within()
}

/// `str.expandtabs`; the spaces have the origin of their tab.
pub fn expand_tabs(text: &Text, tab_size: i128, limit: usize) -> Result<Text, Fault> {
    let tab_size = usize::try_from(tab_size.max(0)).unwrap_or(usize::MAX);
    let mut out = TextBuilder::limited(limit);
    let mut column = 0usize;
    for (c, is_data) in text.chars() {
        match c {
            '\t' if tab_size > 0 => {
                let spaces = tab_size - column % tab_size;
                out.push_repeated(&if is_data { Text::data(" ") } else { Text::own(" ") }, spaces);
                column = column.saturating_add(spaces);
            }
            '\t' => {}
            '\n' | '\r' => {
                column = 0;
                out.push_char(c, is_data);
            }
            c => {
                column = column.saturating_add(1);
                out.push_char(c, is_data);
            }
        }
    }
    out.finish_within()
}

/// The items that a slice `[start:stop:step]` takes from a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    first: i64,
    step: i64,
    /// The number of items.
    pub count: usize,
}

impl Slice {
    /// The slice of a sequence of `len` items, its bounds cut to the sequence as in Python.
    pub fn new(len: usize, start: Option<i128>, stop: Option<i128>, step: Option<i128>) -> Result<Slice, Fault> {
        let len = i64::try_from(len).map_err(|_| Fault::TooLong)?;
        let longest = i128::from(i64::MAX);
        let step = step.unwrap_or(1).clamp(-longest, longest) as i64;
        if step == 0 {
            return Err(Fault::value_error("slice step cannot be zero"));
        }
        // Positions lie within the sequence, or just before its start for a slice that runs backwards.
        let (lowest, highest) = if step < 0 { (-1, len - 1) } else { (0, len) };
        let place = |at: i128| {
            let at = if at < 0 { at.saturating_add(len.into()) } else { at };
            at.clamp(lowest.into(), highest.into()) as i64
        };
        let first = start.map_or(if step < 0 { highest } else { lowest }, place);
        let stop = stop.map_or(if step < 0 { lowest } else { highest }, place);
        let span = if step < 0 { first - stop } else { stop - first };
        let count = if span <= 0 { 0 } else { (span - 1) / step.abs() + 1 };
        Ok(Slice { first, step, count: count as usize })
    }

    /// The positions of the items.
    pub fn items(self) -> impl ExactSizeIterator<Item = usize> + Clone {
        (0..self.count).map(move |n| (self.first + n as i64 * self.step) as usize)
    }
}

/// `text[start:stop:step]`
pub fn slice(text: &Text, start: Option<i128>, stop: Option<i128>, step: Option<i128>) -> Result<Text, Fault> {
    let Slice { first, step, count } = Slice::new(text.count_chars(), start, stop, step)?;
    if count == 0 {
        return Ok(Text::default());
    }
    let start = byte_at(text, first as usize);
    let rest = &text.as_str()[start..];
    let mut out = TextBuilder::default();
    let mut push = |at: usize, c: char| out.push_char(c, text.is_data_at(at));
    match step {
        1 => return Ok(text.slice(start..start + rest.char_indices().nth(count).map_or(rest.len(), |(at, _)| at))),
        2.. => rest.char_indices().step_by(step as usize).take(count).for_each(|(at, c)| push(start + at, c)),
        _ => {
            let end = start + rest.chars().next().map_or(0, char::len_utf8);
            let back = text.as_str()[..end].char_indices().rev();
            back.step_by(step.unsigned_abs() as usize).take(count).for_each(|(at, c)| push(at, c));
        }
    }
    Ok(out.finish())
}

/// `text[index]`
pub fn char_at(text: &Text, index: i128) -> Option<Text> {
    let len = text.count_chars() as i128;
    let index = if index < 0 { index + len } else { index };
    if !(0..len).contains(&index) {
        return None;
    }
    let start = byte_at(text, index as usize);
    let len = text.as_str()[start..].chars().next().map_or(0, char::len_utf8);
    Some(text.slice(start..start + len))
}

/// `str.isalpha` and the others that ask for one class of every character; false for an empty text.
fn all_in(text: &Text, class: &CharClass) -> bool {
    !text.is_empty() && text.as_str().chars().all(|c| class.contains(c))
}

/// The answer of a method that asks what kind of text this is, such as `isalpha`; `None` if there is no such method.
pub fn is_of_kind(text: &Text, method: &str) -> Option<bool> {
    let whole = text.as_str();
    Some(match method {
        "isalpha" => all_in(text, &ALPHABETIC),
        "isdecimal" => all_in(text, &DECIMAL),
        "isdigit" => all_in(text, &DIGIT),
        "isnumeric" => all_in(text, &NUMERIC),
        // Decimal digits and digits are numeric.
        "isalnum" => !text.is_empty() && whole.chars().all(|c| ALPHABETIC.contains(c) || NUMERIC.contains(c)),
        "isspace" => !text.is_empty() && whole.chars().all(is_space),
        "isprintable" => whole.chars().all(|c| PRINTABLE.contains(c)),
        "isascii" => whole.is_ascii(),
        "isidentifier" => {
            let mut chars = whole.chars();
            chars.next().is_some_and(|c| IDENTIFIER_START.contains(c)) && chars.all(|c| IDENTIFIER.contains(c))
        }
        "islower" => {
            whole.chars().any(|c| LOWER.contains(c)) && !whole.chars().any(|c| UPPER.contains(c) || TITLE.contains(c))
        }
        "isupper" => {
            whole.chars().any(|c| UPPER.contains(c)) && !whole.chars().any(|c| LOWER.contains(c) || TITLE.contains(c))
        }
        "istitle" => is_title(whole),
        _ => return None,
    })
}

/// Whether each word begins with an upper-case or title-case letter, and has no other.
fn is_title(text: &str) -> bool {
    let mut in_word = false;
    let mut any = false;
    for c in text.chars() {
        let begins = UPPER.contains(c) || TITLE.contains(c);
        let continues = !begins && LOWER.contains(c);
        if (begins && in_word) || (continues && !in_word) {
            return false;
        }
        in_word = begins || continues;
        any |= in_word;
    }
    any
}
