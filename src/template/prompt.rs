//! Prompts for a tokenizer: which stretches hold the template's own control tokens, and which hold text of users that
//! only looks like one.
//!
//! The template is rendered twice: once as it is, and once with a mark (a character that occurs nowhere in it) inside
//! everything in the messages that reads as a control token, or begins one that the next text could complete. Where the
//! marks come out is text of users. Both renderings must be the same but for the marks. A template may look at such
//! a text itself, as at `</think>`; then that one is left to the template. So is a text that completes what the template
//! began, as a role between `<|` and `|>`.

use super::{Conversation, Template};
use crate::error::{Error, Result};
use aho_corasick::AhoCorasick;
use serde_json::{Map, Value as Json};
use std::collections::BTreeSet;
use std::ops::Range;

/// A rendered conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// What `Template::render` gives.
    pub text: String,
    /// Stretches in which control tokens are not recognised, ascending and apart.
    plain: Vec<Range<usize>>,
}

impl Prompt {
    /// The text in parts, each with whether control tokens are recognised in it, as `Tokenizer::encode_parts` takes them.
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

impl Template {
    /// The prompt of a conversation; `controls` are the texts of the vocabulary's control tokens.
    pub fn prompt(&self, conversation: &Conversation, controls: &[&str]) -> Result<Prompt> {
        let text = self.render_conversation(conversation)?;
        let marker = Marker::new(controls, conversation, &self.source)?;
        let all = marker.present(conversation);
        if let Some(plain) = self.plain(conversation, &marker, &all, &text) {
            return Ok(Prompt { text, plain });
        }
        let one_by_one = |control: &usize| self.plain(conversation, &marker, &[*control].into(), &text).is_some();
        let kept: BTreeSet<usize> = all.into_iter().filter(one_by_one).collect();
        let plain = self.plain(conversation, &marker, &kept, &text).unwrap_or_default();
        Ok(Prompt { text, plain })
    }

    /// The stretches that users wrote as control tokens of this choice; None if marking them changes the prompt.
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
        let marked = self.render_conversation(&marker.mark(conversation, chosen)).ok()?;
        let (mut unmarked, mut plain) = (String::with_capacity(marked.len()), Vec::<Range<usize>>::new());
        for (i, piece) in marked.split(marker.mark).enumerate() {
            if i > 0 {
                let start = unmarked.chars().next_back().map_or(0, |c| unmarked.len() - c.len_utf8());
                // Where the mark lies, the text that was marked may have been completed.
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

/// Marks control texts in what users wrote.
struct Marker<'a> {
    controls: Vec<&'a str>,
    /// The same with their case folded, since a template may change the case of a text.
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
        // Unicode has no meaning for these and never will.
        let mark = ('\u{fdd0}'..='\u{fdef}').find(|c| !used.contains(c));
        let mark = mark.ok_or_else(|| Error::Template("the messages hold all noncharacters of Unicode".into()))?;
        Ok(Marker { controls, folded, finder, mark })
    }

    /// Where marks go in a text, each with its control token: behind the first character of a control text, and of an
    /// end that begins one.
    fn places(&self, text: &str) -> Vec<(usize, usize)> {
        let mut folded = String::with_capacity(text.len());
        // Where each character begins, in `folded` and in `text`.
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

    /// The control tokens that the conversation holds, or begins.
    fn present(&self, conversation: &Conversation) -> BTreeSet<usize> {
        let mut present = BTreeSet::new();
        let mut collect = |text: &str| present.extend(self.places(text).into_iter().map(|(_, control)| control));
        visit(&conversation.messages, &mut collect);
        visit(&conversation.tools, &mut collect);
        present
    }

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

    /// The length of the longest control text that begins a text.
    fn longest(&self, text: &str) -> Option<usize> {
        self.controls.iter().filter(|control| text.starts_with(**control)).map(|control| control.len()).max()
    }
}

/// Shows every text in a value.
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

/// The value with every text changed.
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

/// A character as all its cases are compared.
fn without_case(c: char) -> char {
    let upper = c.to_uppercase().next().unwrap_or(c);
    upper.to_lowercase().next().unwrap_or(upper)
}
