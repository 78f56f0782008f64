//! Takes an answer apart as it grows: the thoughts between `<think>` and `</think>`, and the answer behind them.
//!
//! As templates read an answer, the thoughts have no newlines at their edges, and the answer none at its start. A
//! `</think>` that nothing opened ends thoughts all the same: everything before it was thought. Thoughts that never end
//! are all there is; then the answer is empty.

use crate::template::ThoughtState;
use crate::template::thoughts::{BEGIN, END};

/// What a piece of text adds.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Split {
    /// Text of the thoughts.
    pub(super) reasoning: String,
    /// Text of the answer.
    pub(super) text: String,
    /// Whether the answer so far turned out to be thoughts. Then `reasoning` follows them.
    pub(super) all_thought: bool,
}

impl Split {
    /// Adds to the thoughts and the answer so far.
    pub(super) fn add_to(&self, reasoning: &mut String, text: &mut String) {
        if self.all_thought {
            let thought = std::mem::take(text) + &self.reasoning;
            *reasoning = thought.trim_matches('\n').to_string();
        } else {
            reasoning.push_str(&self.reasoning);
        }
        text.push_str(&self.text);
    }
}

/// Splits one answer.
pub(super) struct ThoughtSplitter {
    place: Place,
    /// Text that cannot be told apart yet.
    held: String,
}

/// Where the end of the text so far is.
#[derive(Clone, Copy)]
enum Place {
    /// Nothing but white space so far. `over`: thoughts came before, in the prompt.
    Start { over: bool },
    /// In the thoughts. `empty`: nothing but newlines in them so far.
    Thoughts { empty: bool },
    /// Behind the thoughts, with nothing but newlines so far.
    Behind,
    /// In the answer. `over`: thoughts came before, or are never looked for.
    Answer { over: bool },
}

impl ThoughtSplitter {
    /// `state` is that at the prompt's end. Without one, all text is the answer.
    pub(super) fn new(state: Option<ThoughtState>) -> ThoughtSplitter {
        let place = match state {
            None => Place::Answer { over: true },
            Some(ThoughtState::NotBegun) => Place::Start { over: false },
            Some(ThoughtState::Begun) => Place::Thoughts { empty: true },
            Some(ThoughtState::Over) => Place::Start { over: true },
        };
        ThoughtSplitter { place, held: String::new() }
    }

    /// Whether a control token with this text is a mark that is looked for.
    pub(super) fn reads(&self, control: &str) -> bool {
        !matches!(self.place, Place::Answer { over: true }) && (control == BEGIN || control == END)
    }

    /// Adds text. `last`: no more text follows.
    pub(super) fn push(&mut self, more: &str, last: bool) -> Split {
        self.held.push_str(more);
        let mut split = Split::default();
        while self.step(&mut split) {}
        if last {
            let rest = std::mem::take(&mut self.held);
            match self.place {
                Place::Thoughts { empty } => {
                    let rest = rest.trim_end_matches('\n');
                    split.reasoning += if empty { rest.trim_start_matches('\n') } else { rest };
                }
                _ => split.text += &rest,
            }
        }
        split
    }

    /// Moves what is certain of the held text into `split`. Returns whether the text goes on in another place.
    fn step(&mut self, split: &mut Split) -> bool {
        match self.place {
            Place::Start { over } => {
                let start = self.held.len() - self.held.trim_start().len();
                let rest = &self.held[start..];
                if rest.starts_with(BEGIN) {
                    self.held.drain(..start + BEGIN.len());
                    self.place = Place::Thoughts { empty: true };
                    return true;
                }
                let undecided = BEGIN.starts_with(rest);
                if !undecided {
                    self.place = Place::Answer { over };
                }
                !undecided
            }
            Place::Thoughts { empty } => {
                let end = self.held.find(END);
                let certain = &self.held[..end.unwrap_or(self.held.len() - unfinished(&self.held))];
                let certain = certain.trim_end_matches('\n');
                let shown = if empty { certain.trim_start_matches('\n') } else { certain };
                split.reasoning += shown;
                let (empty, certain) = (empty && shown.is_empty(), certain.len());
                self.held.drain(..end.map_or(certain, |end| end + END.len()));
                self.place = if end.is_some() { Place::Behind } else { Place::Thoughts { empty } };
                end.is_some()
            }
            Place::Behind => {
                let newlines = self.held.len() - self.held.trim_start_matches('\n').len();
                self.held.drain(..newlines);
                let begins = !self.held.is_empty();
                if begins {
                    self.place = Place::Answer { over: true };
                }
                begins
            }
            Place::Answer { over: true } => {
                split.text += &std::mem::take(&mut self.held);
                false
            }
            Place::Answer { over: false } => match self.held.find(END) {
                Some(end) => {
                    // What this push added to the answer was thought, too.
                    split.reasoning = std::mem::take(&mut split.text) + &self.held[..end];
                    split.all_thought = true;
                    self.held.drain(..end + END.len());
                    self.place = Place::Behind;
                    true
                }
                None => {
                    let certain = self.held.len() - unfinished(&self.held);
                    split.text.extend(self.held.drain(..certain));
                    false
                }
            },
        }
    }
}

/// Length of the longest end of a text that may be the start of [`END`].
fn unfinished(text: &str) -> usize {
    (1..END.len()).rev().find(|len| text.ends_with(&END[..*len])).unwrap_or(0)
}

#[cfg(test)]
#[path = "../../tests/unit/thoughts.rs"]
mod tests;
