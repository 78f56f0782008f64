//! Rendered prompts that know which control tokens the template wrote. A message may contain the text of a control
//! token, too; the tokenizer must not recognize it there.
//!
//! The template engine knows of every character whether the template or a message wrote it. A control token is
//! recognized only where the template wrote all of its characters. Wherever else its text stands, it is text.

use super::jinja::Text;
use super::{Conversation, Template};
use crate::error::{Error, Result, Watch};
use aho_corasick::{AhoCorasick, MatchKind};
use std::ops::Range;

/// The text of a rendered conversation, with the places where control tokens are not recognized.
#[derive(Clone, Debug, PartialEq)]
pub struct RenderedPrompt {
    /// The text as [`Template::render`] gives it.
    pub text: String,
    /// Ranges of the text in which control tokens are not recognized. They are ascending and do not overlap.
    plain: Vec<Range<usize>>,
    /// Ranges of the text that come from the conversation, ascending and apart from each other.
    data: Vec<Range<usize>>,
}

impl RenderedPrompt {
    /// The text in parts, each with whether control tokens are recognized in it, for `Tokenizer::encode_parts`.
    pub fn parts(&self) -> Vec<(&str, bool)> {
        let mut parts = Vec::new();
        let mut start = 0;
        for plain in &self.plain {
            parts.push((&self.text[start..plain.start], true));
            parts.push((&self.text[plain.clone()], false));
            start = plain.end;
        }
        parts.push((&self.text[start..], true));
        parts.retain(|(text, _)| !text.is_empty());
        parts
    }
}

impl RenderedPrompt {
    /// The ranges of the text that come from the conversation, ascending and apart from each other.
    pub fn data(&self) -> &[Range<usize>] {
        &self.data
    }

    /// The last part of the text that the template wrote: its end, unless a message stands there.
    pub fn last_own_text(&self) -> &str {
        let mut end = self.text.len();
        for data in self.data.iter().rev() {
            if data.end < end {
                return &self.text[data.end..end];
            }
            end = data.start;
        }
        &self.text[..end]
    }
}

impl Template {
    /// The prompt of a conversation. `controls` are the texts of the vocabulary's control tokens.
    pub fn prompt(&self, conversation: &Conversation, controls: &[&str], watch: &mut Watch) -> Result<RenderedPrompt> {
        let text = self.text_of(conversation, watch)?;
        let plain = plain(&text, controls)?;
        Ok(RenderedPrompt { text: text.as_str().to_string(), plain, data: text.data_ranges().to_vec() })
    }
}

/// The ranges in which the text of a control token is not recognized, because a message wrote a part of it.
///
/// Tokens are searched as the tokenizer does it, the leftmost and then the longest. A token that the template wrote
/// stays one, even if it overlaps a longer one that continues in a message.
fn plain(text: &Text, controls: &[&str]) -> Result<Vec<Range<usize>>> {
    let controls = controls.iter().filter(|control| !control.is_empty());
    let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(controls);
    let finder = finder.map_err(|error| Error::Template(error.to_string()))?;
    let whole = text.as_str();
    let find =
        |range: Range<usize>| finder.find(aho_corasick::Input::new(whole).range(range)).map(|found| found.range());
    let mut own = own_runs(text).flat_map(|run| {
        let mut at = run.start;
        std::iter::from_fn(move || {
            let found = find(at..run.end)?;
            at = found.end;
            Some(found)
        })
    });
    let mut next_own = own.next();
    let (mut plain, mut at) = (Vec::<Range<usize>>::new(), 0);
    while let Some(found) = find(at..whole.len()) {
        while next_own.as_ref().is_some_and(|own| own.start < found.start) {
            next_own = own.next();
        }
        // A token of the template that starts here stays; what is left of the longer one is plain.
        let start = match &next_own {
            Some(own_here) if own_here.start == found.start => own_here.end,
            _ => found.start,
        };
        if start > found.start {
            next_own = own.next();
        }
        at = match &next_own {
            Some(own) if own.start < found.end => own.start.max(start),
            _ => found.end,
        };
        if start < at {
            match plain.last_mut() {
                Some(last) if last.end == start => last.end = at,
                _ => plain.push(start..at),
            }
        }
    }
    Ok(plain)
}

/// The parts of a text that the template wrote.
fn own_runs(text: &Text) -> impl Iterator<Item = Range<usize>> {
    let ends = text.data_ranges().iter().map(|data| data.start).chain([text.as_str().len()]);
    let starts = [0].into_iter().chain(text.data_ranges().iter().map(|data| data.end));
    starts.zip(ends).map(|(start, end)| start..end).filter(|run| !run.is_empty())
}
