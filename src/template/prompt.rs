//! Rendered prompts that know which control tokens the template wrote. A message may contain the text of a control
//! token, too; the tokenizer must not recognize it there.
//!
//! To tell them apart, the conversation is rendered a second time with marked messages. The mark is a character that
//! occurs nowhere else. It is inserted into every text of a control token, and into every beginning of one at the end
//! of a message, which the following text could complete. A control token at a mark in the result is text of a message.
//! Both renderings must be equal apart from the marks.
//!
//! If marking a control token changes the result, the template itself looks for that token, as for `</think>`, or
//! completes it, as a role between `<|` and `|>`. That token is then recognized wherever it occurs.

use super::{Conversation, Template};
use crate::error::{Error, Result};
use aho_corasick::AhoCorasick;
use serde_json::{Map, Value as Json};
use std::collections::BTreeSet;
use std::ops::Range;

/// The text of a rendered conversation, with the places where control tokens are not recognized.
#[derive(Clone, Debug, PartialEq)]
pub struct RenderedPrompt {
    /// The text as [`Template::render`] gives it.
    pub text: String,
    /// Ranges of the text in which control tokens are not recognized. They are ascending and do not overlap.
    plain: Vec<Range<usize>>,
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

    /// Keeps the first `end` bytes of the text.
    pub(super) fn truncate(&mut self, end: usize) {
        self.text.truncate(end);
        self.plain.retain_mut(|range| {
            range.end = range.end.min(end);
            range.start < range.end
        });
    }
}

impl Template {
    /// The prompt of a conversation to the end of its final message, or beyond.
    pub(super) fn whole_prompt(&self, conversation: &Conversation, controls: &[&str]) -> Result<RenderedPrompt> {
        let text = self.render_whole(conversation)?;
        let marker = Marker::new(controls, conversation, &self.source)?;
        let all = marker.present(conversation);
        if let Some(plain) = self.plain(conversation, &marker, &all, &text) {
            return Ok(RenderedPrompt { text, plain });
        }
        let one_by_one = |control: &usize| self.plain(conversation, &marker, &[*control].into(), &text).is_some();
        let kept: BTreeSet<usize> = all.into_iter().filter(one_by_one).collect();
        let plain = self.plain(conversation, &marker, &kept, &text).unwrap_or_default();
        Ok(RenderedPrompt { text, plain })
    }

    /// The ranges in which messages contain a control token of those `chosen`. None if marking them changes the prompt.
    fn plain(
        &self,
        conversation: &Conversation,
        marker: &Marker,
        chosen: &BTreeSet<usize>,
        text: &str,
    ) -> Option<Vec<Range<usize>>> {
        if chosen.is_empty() {
            return Some(Vec::new());
        }
        let marked = self.render_whole(&marker.mark(conversation, chosen)).ok()?;
        let (mut unmarked, mut plain) = (String::with_capacity(marked.len()), Vec::<Range<usize>>::new());
        for (i, piece) in marked.split(marker.mark).enumerate() {
            if i > 0 {
                let start = unmarked.chars().next_back().map_or(0, |c| unmarked.len() - c.len_utf8());
                // The mark stands behind the first character of a possible control token. It is one only if the text
                // behind the mark completes it.
                if let Some(len) = text.get(start..).and_then(|rest| marker.longest(rest)) {
                    match plain.last_mut() {
                        Some(last) if start <= last.end => last.end = last.end.max(start + len),
                        _ => plain.push(start..start + len),
                    }
                }
            }
            unmarked.push_str(piece);
        }
        (unmarked == text).then_some(plain)
    }
}

/// Marks the texts of control tokens in messages.
struct Marker<'a> {
    /// The texts of the control tokens.
    controls: Vec<&'a str>,
    /// The same texts without case, because a template may change the case of a message.
    folded: Vec<String>,
    finder: AhoCorasick,
    mark: char,
}

impl<'a> Marker<'a> {
    fn new(controls: &[&'a str], conversation: &Conversation, source: &str) -> Result<Marker<'a>> {
        let controls: Vec<&str> = controls.iter().copied().filter(|control| !control.is_empty()).collect();
        let folded: Vec<String> = controls.iter().map(|control| control.chars().map(without_case).collect()).collect();
        let finder = AhoCorasick::new(&folded).map_err(|error| Error::Template(error.to_string()))?;
        let mut used = BTreeSet::from_iter(source.chars());
        let mut collect = |text: &str| used.extend(text.chars());
        let Conversation { messages, tools, variables, .. } = conversation;
        [messages, tools].into_iter().chain(variables.values()).for_each(|value| visit(value, &mut collect));
        // Unicode guarantees that these noncharacters never get a meaning.
        let mark = ('\u{fdd0}'..='\u{fdef}').find(|c| !used.contains(c));
        let mark = mark.ok_or_else(|| {
            Error::Template(
                "the messages contain all 32 noncharacters U+FDD0 to U+FDEF, which are not text; remove one".into(),
            )
        })?;
        Ok(Marker { controls, folded, finder, mark })
    }

    /// The places for marks in a text, each with the index of its control token: behind the first character of every
    /// control token, and of every beginning of one at the end of the text.
    fn places(&self, text: &str) -> Vec<(usize, usize)> {
        let mut folded = String::with_capacity(text.len());
        // The start of each character in `folded` and in `text`.
        let mut begins = Vec::with_capacity(text.len() + 1);
        for (at, c) in text.char_indices() {
            begins.push((folded.len(), at));
            folded.push(without_case(c));
        }
        begins.push((folded.len(), text.len()));
        let behind_first = |start: usize| begins[begins.partition_point(|(at, _)| *at <= start)].1;
        let found = self.finder.find_overlapping_iter(&folded);
        let mut places: Vec<(usize, usize)> =
            found.map(|found| (behind_first(found.start()), found.pattern().as_usize())).collect();
        let trimmed = folded.trim_end();
        for (number, control) in self.folded.iter().enumerate() {
            let begun = control.char_indices().skip(1).filter(|(at, _)| trimmed.ends_with(&control[..*at]));
            places.extend(begun.map(|(at, _)| (behind_first(trimmed.len() - at), number)));
        }
        places
    }

    /// The control tokens that the texts of a conversation contain, or end with the beginning of.
    fn present(&self, conversation: &Conversation) -> BTreeSet<usize> {
        let mut present = BTreeSet::new();
        let mut collect = |text: &str| present.extend(self.places(text).into_iter().map(|(_, control)| control));
        visit(&conversation.messages, &mut collect);
        visit(&conversation.tools, &mut collect);
        present
    }

    /// The conversation with marks for the control tokens of those `chosen`.
    fn mark(&self, conversation: &Conversation, chosen: &BTreeSet<usize>) -> Conversation {
        let mark = |text: &str| {
            let places = self.places(text).into_iter().filter(|(_, control)| chosen.contains(control));
            let places: BTreeSet<usize> = places.map(|(place, _)| place).collect();
            let mut marked = text.to_string();
            for place in places.into_iter().rev() {
                marked.insert(place, self.mark);
            }
            marked
        };
        Conversation {
            messages: map_texts(&conversation.messages, &mark),
            tools: map_texts(&conversation.tools, &mark),
            ..conversation.clone()
        }
    }

    /// The length of the longest control token that a text begins with.
    fn longest(&self, text: &str) -> Option<usize> {
        self.controls.iter().filter(|control| text.starts_with(**control)).map(|control| control.len()).max()
    }
}

/// Calls `look` with every text in a value, keys included.
fn visit(value: &Json, look: &mut impl FnMut(&str)) {
    match value {
        Json::String(text) => look(text),
        Json::Array(items) => items.iter().for_each(|item| visit(item, look)),
        Json::Object(items) => items.iter().for_each(|(key, item)| {
            look(key);
            visit(item, look);
        }),
        _ => {}
    }
}

/// A copy of the value with every text changed, keys included.
fn map_texts(value: &Json, change: &impl Fn(&str) -> String) -> Json {
    match value {
        Json::String(text) => change(text).into(),
        Json::Array(items) => items.iter().map(|item| map_texts(item, change)).collect(),
        Json::Object(items) => {
            items.iter().map(|(key, item)| (change(key), map_texts(item, change))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

/// A character without case: the same for all characters that a change of case can turn into each other.
fn without_case(c: char) -> char {
    let upper = c.to_uppercase().next().unwrap_or(c);
    upper.to_lowercase().next().unwrap_or(upper)
}
