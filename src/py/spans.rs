//! `bitnet.Span`: which bytes of a prompt the template wrote, which stand in a message, and which tokens they became.
//!
//! The conversation is rendered once more with marks, characters that have no meaning and never will, around the texts of
//! its messages; where they come out, the texts stand. A template may trim a text, or look at it: marks that would change
//! the prompt go inside of the white space at a text's ends, and else around fewer texts. So this is a picture for people;
//! what is plain text for the tokenizer is decided by `template::prompt` alone.

use crate::error::Result;
use crate::template::{Conversation, RenderedPrompt, Template};
use crate::tokenizer::Tokenizer;
use pyo3::prelude::*;
use pyo3::types::PyString;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

#[doc = doc!(Span)]
#[pyclass(frozen, get_all, eq, module = "bitnet")]
#[derive(Clone, PartialEq)]
pub struct Span {
    #[doc = doc!(Span.text)]
    text: String,
    #[doc = doc!(Span.role)]
    role: Option<String>,
    #[doc = doc!(Span.message)]
    message: Option<usize>,
    #[doc = doc!(Span.start)]
    start: usize,
    #[doc = doc!(Span.end)]
    end: usize,
    #[doc = doc!(Span.rewritten)]
    rewritten: bool,
    #[doc = doc!(Span.token_ids)]
    token_ids: Option<Vec<u32>>,
}

#[pymethods]
impl Span {
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let rewritten = if self.rewritten { ", rewritten" } else { "" };
        let (who, text) = (self.role.as_deref().unwrap_or("template"), PyString::new(py, &self.text).repr()?);
        Ok(format!("<Span {}..{} {who}{rewritten} {text}>", self.start, self.end))
    }
}

/// The begin of a text; the number of its message, in digits, and another follow.
const BEGIN: char = '\u{fdd0}';
const END: char = '\u{fdd1}';
/// The digits 0 to 7.
const DIGITS: RangeInclusive<char> = '\u{fdd2}'..='\u{fdd9}';

/// The stretches of a conversation's prompt in order; with a tokenizer also its tokens.
pub fn spans(template: &Template, conversation: &Conversation, tokenizer: Option<&Tokenizer>) -> Result<Vec<Span>> {
    let controls: Vec<&str> = tokenizer.into_iter().flat_map(Tokenizer::control_texts).collect();
    let prompt = template.prompt(conversation, &controls)?;
    let found = found(template, conversation, &prompt.text);
    let mut spans = Vec::new();
    let mut at = 0;
    for (range, message) in found {
        spans.extend((at < range.start).then(|| span(&prompt.text, at..range.start, None)));
        at = range.end;
        spans.push(span(&prompt.text, range, Some((message, &conversation.messages[message]))));
    }
    spans.extend((at < prompt.text.len()).then(|| span(&prompt.text, at..prompt.text.len(), None)));
    if let Some(tokenizer) = tokenizer {
        add_tokens(tokenizer, &prompt, &mut spans);
    }
    Ok(spans)
}

fn span(prompt: &str, range: Range<usize>, of: Option<(usize, &Json)>) -> Span {
    let text = &prompt[range.clone()];
    let role = of.map(|(_, message)| message["role"].as_str().unwrap_or("message").to_string());
    let rewritten = of.is_some_and(|(_, message)| !texts(message).any(|given| given.trim() == text.trim()));
    let (start, end, message) = (range.start, range.end, of.map(|(i, _)| i));
    Span { text: text.into(), role, message, start, end, rewritten, token_ids: None }
}

/// The texts of a message: its content, or those in the list that it is.
fn texts(message: &Json) -> impl Iterator<Item = &str> {
    let content = &message["content"];
    let items = content.as_array().into_iter().flatten();
    content.as_str().into_iter().chain(items.filter_map(|item| item["text"].as_str()))
}

/// Where texts of messages stand in the prompt, each with its message, as far as marks show it.
fn found(template: &Template, conversation: &Conversation, text: &str) -> Vec<(Range<usize>, usize)> {
    let all = conversation.messages.as_array().map_or(0, Vec::len);
    // Whether the marks go inside of the white space, for each message that has any.
    let attempt = |marks: BTreeMap<usize, bool>| {
        let marked = template.render_conversation(&marked(conversation, &marks)).ok()?;
        read(&marked, text, all)
    };
    let everywhere = |inside: bool| attempt((0..all).map(|i| (i, inside)).collect());
    everywhere(false).or_else(|| everywhere(true)).unwrap_or_else(|| {
        let alone = |i: usize| [false, true].into_iter().find(|inside| attempt([(i, *inside)].into()).is_some());
        attempt((0..all).filter_map(|i| Some((i, alone(i)?))).collect()).unwrap_or_default()
    })
}

fn marked(conversation: &Conversation, marks: &BTreeMap<usize, bool>) -> Conversation {
    let mut conversation = conversation.clone();
    for (i, inside) in marks {
        let digit = |c: char| { DIGITS }.nth(c.to_digit(8).expect("an octal digit") as usize).expect("of eight");
        let number: String = format!("{i:o}").chars().map(digit).collect();
        let mark = |text: &mut Json| {
            let Some(all) = text.as_str() else { return };
            let (start, end) =
                if *inside { (all.len() - all.trim_start().len(), all.trim_end().len()) } else { (0, all.len()) };
            let (before, after) = (&all[..start], &all[end.max(start)..]);
            *text = format!("{before}{BEGIN}{number}{BEGIN}{}{END}{after}", &all[start..end.max(start)]).into();
        };
        match conversation.messages[*i].get_mut("content") {
            Some(Json::Array(items)) => items.iter_mut().filter_map(|item| item.get_mut("text")).for_each(mark),
            Some(content) => mark(content),
            None => {}
        }
    }
    conversation
}

/// The stretches between marks; None unless the rest is the prompt.
fn read(marked: &str, text: &str, messages: usize) -> Option<Vec<(Range<usize>, usize)>> {
    let mut plain = String::with_capacity(text.len());
    let mut found = Vec::new();
    let mut open = None;
    let mut chars = marked.chars();
    while let Some(c) = chars.next() {
        match c {
            BEGIN => {
                let mut number =
                    chars.by_ref().take_while(|c| *c != BEGIN).map(|c| { DIGITS }.position(|digit| digit == c));
                let message = number.try_fold(0usize, |n, digit| n.checked_mul(8)?.checked_add(digit?))?;
                open = Some((plain.len(), message));
            }
            END => {
                let closed = open.take().filter(|(start, _)| *start < plain.len());
                found.extend(closed.map(|(start, message)| (start..plain.len(), message)));
            }
            c => plain.push(c),
        }
    }
    (plain == text && found.iter().all(|(_, message)| *message < messages)).then_some(found)
}

/// Gives each span the tokens that begin in it; none at all where the tokens do not spell the prompt.
fn add_tokens(tokenizer: &Tokenizer, prompt: &RenderedPrompt, spans: &mut Vec<Span>) {
    let ids = tokenizer.encode_prompt(prompt);
    let mut rest = prompt.text.as_bytes();
    let mut starts = Vec::with_capacity(ids.len());
    let mut in_front = 0;
    for (i, id) in ids.iter().enumerate() {
        let bytes = tokenizer.bytes_of(*id);
        starts.push(prompt.text.len() - rest.len());
        // SentencePiece puts a space in front.
        let spelled = [&bytes[..], bytes.strip_prefix(b" ").unwrap_or(&bytes)];
        match spelled.into_iter().find_map(|bytes| rest.strip_prefix(bytes)) {
            Some(after) => rest = after,
            // The tokenizer put it in front.
            None if i == 0 && Some(*id) == tokenizer.bos => {
                spans.insert(0, Span { token_ids: Some(vec![*id]), ..span("", 0..0, None) });
                in_front = 1;
            }
            None => return,
        }
    }
    if rest.is_empty() {
        for span in spans.iter_mut().filter(|span| span.start < span.end) {
            let before = |end: usize| starts.partition_point(|start| *start < end).max(in_front);
            span.token_ids = Some(ids[before(span.start)..before(span.end)].to_vec());
        }
    }
}
