//! Takes the calls of tools out of an answer as it grows, behind the thoughts.
//!
//! Text that may belong to a call is held back until that is decided. A complete call is handed out and is not in the
//! text, nor is the white space in front of it. What only looked like a call is text.

use crate::template::{CallFormat, CallReader, FoundCall, Reading};

/// A call of a tool in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// Names the call in the messages that follow: nine letters and digits, the form that Mistral's templates require.
    pub id: String,
    /// The function and its arguments.
    pub call: FoundCall,
}

/// What a piece of text adds.
#[derive(Debug, Default, PartialEq)]
pub(super) struct CallSplit {
    /// Text of the answer.
    pub(super) text: String,
    /// Calls that are complete now.
    pub(super) calls: Vec<FoundCall>,
}

/// Splits one answer.
pub(super) struct CallSplitter {
    /// Without one, all text is the answer.
    reader: Option<CallReader>,
    place: Place,
    /// Text that might be the beginning of a call, held back until that is clear.
    held: String,
    /// Whether there was a call.
    has_called: bool,
}

/// What the text that was decided ends with.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Start,
    Text,
    Call,
}

impl CallSplitter {
    pub(super) fn new(reader: Option<CallReader>) -> CallSplitter {
        CallSplitter { reader, place: Place::Start, held: String::new(), has_called: false }
    }

    /// Whether a control token with this text is a mark that is looked for.
    pub(super) fn reads(&self, control: &str) -> bool {
        self.reader.as_ref().is_some_and(|reader| reader.format.reads(control))
    }

    /// The text that is held back, which turned out to be something else than the answer.
    pub(super) fn take_held(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Adds text. `last`: no more text follows.
    pub(super) fn push(&mut self, more: &str, last: bool) -> CallSplit {
        let mut split = CallSplit::default();
        let Some(reader) = self.reader.take() else {
            split.text += more;
            return split;
        };
        self.held.push_str(more);
        while self.step(&reader, last, &mut split) {}
        self.reader = Some(reader);
        split
    }

    /// Moves what is certain of the held text into `split`. Returns whether more of it may be.
    fn step(&mut self, reader: &CallReader, last: bool, split: &mut CallSplit) -> bool {
        let Some(start) = self.begin_of_call(reader.format) else {
            let undecided = if last { 0 } else { self.undecided(reader.format) };
            let certain = self.held.len() - undecided;
            // White space behind the last call belongs to it.
            if last && self.place == Place::Call && self.behind_gap(reader.format).is_empty() {
                self.held.clear();
            }
            self.release(certain.min(self.held.len()), split);
            return false;
        };
        match reader.read(&self.held[start..], last) {
            Reading::Undecided => {
                self.release_before(start, reader.format, split);
                false
            }
            Reading::Text => {
                self.release(reader.format.mark().map_or(self.held.len(), |mark| start + mark.len()), split);
                true
            }
            Reading::Calls(calls, len) => {
                let end = self.held.len() - (start + len);
                self.release_before(start, reader.format, split);
                self.held.drain(..self.held.len() - end);
                let most = if reader.parallel { calls.len() } else { usize::from(!self.has_called) };
                split.calls.extend(calls.into_iter().take(most));
                (self.place, self.has_called) = (Place::Call, true);
                true
            }
        }
    }

    /// Where the held text has something that may be a call.
    fn begin_of_call(&self, format: CallFormat) -> Option<usize> {
        match format.mark() {
            Some(mark) => self.held.find(mark),
            None if self.place == Place::Text => None,
            None => Some(self.held.len() - self.behind_gap(format).len()).filter(|start| *start < self.held.len()),
        }
    }

    /// The held text behind what may separate it from a call before.
    fn behind_gap(&self, format: CallFormat) -> &str {
        let separates = self.place == Place::Call && format.mark().is_none();
        self.held.trim_start_matches(|c: char| c.is_whitespace() || separates && c == ';')
    }

    /// How many bytes at the end of the held text, which has no call, may be the start of one, with the white space in
    /// front of them.
    fn undecided(&self, format: CallFormat) -> usize {
        let Some(mark) = format.mark() else {
            return if self.place == Place::Text { 0 } else { self.held.len() };
        };
        let part = (1..mark.len()).rev().find(|len| self.held.ends_with(&mark[..*len])).unwrap_or(0);
        self.held.len() - self.held[..self.held.len() - part].trim_end().len()
    }

    /// Releases the text in front of a call, which begins at `start`, but not the white space directly in front of it. A
    /// call without a mark has nothing but a separator in front.
    fn release_before(&mut self, start: usize, format: CallFormat, split: &mut CallSplit) {
        if format.mark().is_some() {
            self.release(self.held[..start].trim_end().len(), split);
        }
    }

    /// Moves the first bytes of the held text into the answer.
    fn release(&mut self, bytes: usize, split: &mut CallSplit) {
        if bytes > 0 {
            split.text.extend(self.held.drain(..bytes));
            self.place = Place::Text;
        }
    }
}

/// The id of call `index` of an answer. It depends on the seed and on where the answer begins, so a replay with the same
/// seed gives the same ids, and the answers of a conversation different ones.
pub(super) fn call_id(seed: u64, prompt_tokens: usize, index: usize) -> String {
    let mut key = [0; 24];
    for (place, number) in key.chunks_mut(8).zip([seed, prompt_tokens as u64, index as u64]) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    let digits: Vec<char> = ('0'..='9').chain('A'..='Z').chain('a'..='z').collect();
    blake3::hash(&key).as_bytes()[..9].iter().map(|byte| digits[usize::from(*byte) % digits.len()]).collect()
}

#[cfg(test)]
#[path = "../../tests/unit/tool_calls.rs"]
mod tests;
