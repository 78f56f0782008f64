//! A string that knows where each of its characters came from, so that text of messages never acts as text of the
//! template.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::iter;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Why an operation has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The result would be larger than the caller allows.
    TooLong,
    /// The exception that Python raises: its class and its message.
    Raised(&'static str, String),
    /// Python has a result, but this engine does not compute it.
    Unsupported(String),
}

impl Fault {
    /// A `TypeError` of Python.
    pub fn type_error(message: impl Into<String>) -> Fault {
        Fault::Raised("TypeError", message.into())
    }

    /// A `ValueError` of Python.
    pub fn value_error(message: impl Into<String>) -> Fault {
        Fault::Raised("ValueError", message.into())
    }
}

/// A string of a template, with the origin of each character: the template's own source, or data (a message, a tool, a
/// variable). Two strings are equal if their characters are; the origin does not count.
#[derive(Clone, Debug, Default)]
pub struct Text(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    text: String,
    /// The bytes that came from data: ascending ranges, neither empty nor adjacent.
    data: Vec<Range<usize>>,
    /// The number of characters, counted once.
    chars: OnceLock<usize>,
}

impl Text {
    /// A string whose characters are all the template's own.
    pub fn own(text: impl Into<String>) -> Text {
        Text::new(text.into(), Vec::new())
    }

    /// A string whose characters are all data.
    pub fn data(text: impl Into<String>) -> Text {
        let text = text.into();
        let whole = 0..text.len();
        Text::new(text, if whole.is_empty() { Vec::new() } else { vec![whole] })
    }

    fn new(text: String, data: Vec<Range<usize>>) -> Text {
        Text(Arc::new(Inner { text, data, chars: OnceLock::new() }))
    }

    /// The characters.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.0.text.len()
    }

    /// The length in characters, as Python counts it.
    pub fn count_chars(&self) -> usize {
        *self.0.chars.get_or_init(|| self.0.text.chars().count())
    }

    /// The bytes of memory that the characters and their origins take.
    pub fn size(&self) -> usize {
        size(self.len(), self.0.data.len())
    }

    /// Whether there are no characters.
    pub fn is_empty(&self) -> bool {
        self.0.text.is_empty()
    }

    /// The bytes that came from data: ascending ranges, neither empty nor adjacent.
    pub fn data_ranges(&self) -> &[Range<usize>] {
        &self.0.data
    }

    /// Whether any character came from data.
    pub fn has_data(&self) -> bool {
        !self.0.data.is_empty()
    }

    /// The part between two byte positions.
    pub fn slice(&self, range: Range<usize>) -> Text {
        if range == (0..self.len()) {
            return self.clone();
        }
        let mut part = TextBuilder::default();
        part.push_slice(self, range);
        part.finish()
    }

    /// All texts in a row.
    pub fn concat<'a>(texts: impl Iterator<Item = &'a Text>) -> Text {
        let mut whole = TextBuilder::default();
        texts.for_each(|text| whole.push(text));
        whole.finish()
    }

    /// The characters, each with whether it is data.
    pub fn chars(&self) -> impl Iterator<Item = (char, bool)> {
        self.runs(0..self.len()).flat_map(|(run, is_data)| run.chars().map(move |c| (c, is_data)))
    }

    /// The longest parts of one origin between two byte positions, each with whether it is data.
    pub fn runs(&self, range: Range<usize>) -> impl Iterator<Item = (&str, bool)> {
        let mut ranges = self.data_ranges()[self.first_data_after(range.start)..].iter();
        let mut next = ranges.next();
        let mut at = range.start;
        iter::from_fn(move || {
            if at >= range.end {
                return None;
            }
            let (end, is_data) = match next {
                Some(data) if data.start <= at => {
                    let end = data.end;
                    next = ranges.next();
                    (end, true)
                }
                Some(data) => (data.start, false),
                None => (range.end, false),
            };
            let run = &self.as_str()[at..end.min(range.end)];
            at = end;
            Some((run, is_data))
        })
    }

    /// Whether the byte at a position came from data.
    pub fn is_data_at(&self, at: usize) -> bool {
        self.data_ranges().get(self.first_data_after(at)).is_some_and(|data| data.start <= at)
    }

    /// The index of the first range of data that ends after a position.
    fn first_data_after(&self, at: usize) -> usize {
        self.data_ranges().partition_point(|data| data.end <= at)
    }
}

fn size(len: usize, ranges: usize) -> usize {
    len.saturating_add(ranges.saturating_mul(size_of::<Range<usize>>()))
}

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Text) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Text) -> Ordering {
        self.as_str().cmp(other.as_str()) // the order of UTF-8 is that of code points, which is Python's
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

/// Builds a text from parts.
///
/// A limited builder takes parts until the text would be larger than its limit, and then none: memory stays bounded,
/// and [`TextBuilder::finish_within`] returns the error.
#[derive(Debug)]
pub struct TextBuilder {
    text: String,
    data: Vec<Range<usize>>,
    limit: usize,
    is_full: bool,
}

impl Default for TextBuilder {
    fn default() -> TextBuilder {
        TextBuilder::limited(usize::MAX)
    }
}

impl TextBuilder {
    /// A builder of texts whose [`Text::size`] is at most `limit` bytes.
    pub fn limited(limit: usize) -> TextBuilder {
        TextBuilder { text: String::new(), data: Vec::new(), limit, is_full: false }
    }

    /// Appends a text with its origins.
    pub fn push(&mut self, text: &Text) {
        self.push_slice(text, 0..text.len());
    }

    /// Appends a part of a text with its origins.
    pub fn push_slice(&mut self, text: &Text, range: Range<usize>) {
        if self.is_full {
            return;
        }
        let data = text.data_ranges()[text.first_data_after(range.start)..].iter();
        let data = data.take_while(|data| data.start < range.end);
        if !self.has_room(range.len(), data.clone().count(), text.is_data_at(range.start)) {
            return;
        }
        let base = self.text.len();
        self.text.push_str(&text.as_str()[range.clone()]);
        for data in data {
            let (start, end) = (data.start.max(range.start), data.end.min(range.end));
            self.mark(base + (start - range.start)..base + (end - range.start));
        }
    }

    /// Appends characters of the template's own.
    pub fn push_own(&mut self, text: &str) {
        self.push_from(text, false);
    }

    /// Appends characters that were computed from a text: they are data if any character of it is.
    pub fn push_like(&mut self, text: &str, source: &Text) {
        self.push_from(text, source.has_data());
    }

    /// Appends characters of one origin.
    pub fn push_from(&mut self, text: &str, is_data: bool) {
        if self.has_room(text.len(), is_data.into(), is_data) {
            let start = self.text.len();
            self.text.push_str(text);
            if is_data {
                self.mark(start..self.text.len());
            }
        }
    }

    /// Appends a character.
    pub fn push_char(&mut self, c: char, is_data: bool) {
        self.push_from(c.encode_utf8(&mut [0; 4]), is_data);
    }

    /// Appends a text several times.
    pub fn push_repeated(&mut self, text: &Text, count: usize) {
        let times = |n: usize| n.saturating_mul(count);
        let starts_in_data = text.is_data_at(0);
        let merges = starts_in_data && text.is_data_at(text.len().saturating_sub(1));
        let ranges = times(text.data_ranges().len()) - if merges { count.saturating_sub(1) } else { 0 };
        if self.has_room(times(text.len()), ranges, starts_in_data) {
            (0..count).for_each(|_| self.push(text));
        }
    }

    /// Whether there is nothing yet.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The bytes of memory that the characters and their origins take so far.
    pub fn size(&self) -> usize {
        size(self.text.len(), self.data.len())
    }

    /// How much larger the text may still become; an error if something did not fit.
    pub fn room(&self) -> Result<usize, Fault> {
        if self.is_full { Err(Fault::TooLong) } else { Ok(self.limit.saturating_sub(self.size())) }
    }

    /// The text of a builder without a limit.
    pub fn finish(self) -> Text {
        debug_assert!(!self.is_full, "a limited builder ends with finish_within");
        self.fitted()
    }

    /// The text, unless it is larger than the limit.
    pub fn finish_within(self) -> Result<Text, Fault> {
        if self.is_full { Err(Fault::TooLong) } else { Ok(self.fitted()) }
    }

    /// The text, without memory that it does not need.
    fn fitted(mut self) -> Text {
        self.text.shrink_to_fit();
        self.data.shrink_to_fit();
        Text::new(self.text, self.data)
    }

    /// Whether bytes with so many ranges of data still fit; if not, the builder takes nothing more.
    fn has_room(&mut self, bytes: usize, ranges: usize, starts_in_data: bool) -> bool {
        let merges = starts_in_data && self.data.last().is_some_and(|last| last.end == self.text.len());
        let ranges = self.data.len().saturating_add(ranges).saturating_sub(merges.into());
        self.is_full |= bytes > 0 && size(self.text.len().saturating_add(bytes), ranges) > self.limit;
        !self.is_full && bytes > 0
    }

    /// Notes that a range at the end is data.
    fn mark(&mut self, range: Range<usize>) {
        match self.data.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.data.push(range),
        }
    }
}

#[cfg(test)]
#[path = "../../../tests/unit/jinja_text.rs"]
mod tests;
