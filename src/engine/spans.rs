//! Spans: which bytes of a prompt the template wrote, which come from a message, and which tokens they became.
//!
//! The conversation is rendered a second time with marks around the texts of its messages; the marks are noncharacters,
//! to which Unicode will never give a meaning. Where they come out, the messages' texts are. A template may trim a text
//! or test it. If marks around a text change the prompt, they go inside the white space at its ends; if that changes
//! the prompt too, the text stays unmarked and counts as the template's. So spans are a picture for people. Which text
//! the tokenizer must not read as control tokens is decided by `template::prompt` alone.

use super::Watch;
use crate::error::{Error, Result};
use crate::template::{Conversation, RenderedPrompt, Template};
use crate::token::TokenId;
use crate::tokenizer::Tokenizer;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

/// A stretch of a prompt that has one author.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The text of the stretch.
    pub text: String,
    /// The role of the message that it comes from; none if the template wrote it.
    pub role: Option<String>,
    /// The index of that message.
    pub message: Option<usize>,
    /// The first byte of the text in the prompt.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
    /// Whether the template changed the message's text in other ways than trimming it.
    pub rewritten: bool,
    /// The tokens that begin in it. None without a tokenizer, and where the tokens do not spell the prompt.
    pub token_ids: Option<Vec<TokenId>>,
}

/// Before a message's text. The index of the message in octal digits follows, then a second one.
const BEGIN: char = '\u{fdd0}';
/// After a message's text.
const END: char = '\u{fdd1}';
/// The octal digits 0 to 7.
const DIGITS: RangeInclusive<char> = '\u{fdd2}'..='\u{fdd9}';

/// The spans of a conversation's prompt, in order and without gaps; with a tokenizer also the tokens of each.
pub fn spans(
    template: &Template,
    conversation: &Conversation,
    tokenizer: Option<&Tokenizer>,
    watch: &mut Watch,
) -> Result<Vec<Span>> {
    let controls: Vec<&str> = tokenizer.into_iter().flat_map(Tokenizer::control_texts).collect();
    let prompt = template.prompt(conversation, &controls, watch)?;
    let mut spans = Vec::new();
    let mut at = 0;
    for (range, message) in message_ranges(template, conversation, &prompt.text, watch)? {
        spans.extend((at < range.start).then(|| span(&prompt.text, at..range.start, None)));
        at = range.end;
        spans.push(span(&prompt.text, range, Some((message, &conversation.messages[message]))));
    }
    spans.extend((at < prompt.text.len()).then(|| span(&prompt.text, at..prompt.text.len(), None)));
    if let Some(tokenizer) = tokenizer {
        add_tokens(tokenizer, &prompt, &mut spans, watch)?;
    }
    Ok(spans)
}

/// The span of a range; `of` is the message that it comes from, with its index.
fn span(prompt: &str, range: Range<usize>, of: Option<(usize, &Json)>) -> Span {
    let text = &prompt[range.clone()];
    let role = of.map(|(_, message)| message["role"].as_str().unwrap_or("message").to_string());
    let rewritten = of.is_some_and(|(_, message)| !texts(message).any(|given| given.trim() == text.trim()));
    let (start, end, message) = (range.start, range.end, of.map(|(i, _)| i));
    Span { text: text.into(), role, message, start, end, rewritten, token_ids: None }
}

/// The texts of a message: its content, or the texts of its content's parts.
fn texts(message: &Json) -> impl Iterator<Item = &str> {
    let content = &message["content"];
    let items = content.as_array().into_iter().flatten();
    content.as_str().into_iter().chain(items.filter_map(|item| item["text"].as_str()))
}

/// Where texts of messages stand in the prompt, each with the index of its message, as far as marks can show it.
fn message_ranges(
    template: &Template,
    conversation: &Conversation,
    text: &str,
    watch: &mut Watch,
) -> Result<Vec<(Range<usize>, usize)>> {
    let all = conversation.messages.as_array().map_or(0, Vec::len);
    // The messages to mark, each with whether its marks go inside the white space.
    let mut attempt = |marks: BTreeMap<usize, bool>| {
        match template.render_conversation(&with_marks(conversation, &marks), watch) {
            Ok(marked) => Ok(read_marks(&marked, text, all)),
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(_) => Ok(None), // the template does something else with marked texts
        }
    };
    for inside in [false, true] {
        if let Some(ranges) = attempt((0..all).map(|i| (i, inside)).collect())? {
            return Ok(ranges);
        }
    }
    let mut possible = BTreeMap::new();
    for i in 0..all {
        for inside in [false, true] {
            if attempt([(i, inside)].into())?.is_some() {
                possible.insert(i, inside);
                break;
            }
        }
    }
    Ok(attempt(possible)?.unwrap_or_default())
}

/// The conversation with marks around the texts of some messages, inside their white space where the map says so.
fn with_marks(conversation: &Conversation, marks: &BTreeMap<usize, bool>) -> Conversation {
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

/// The ranges between marks, each with the index of its message. None if the text without marks is not the prompt.
fn read_marks(marked: &str, text: &str, messages: usize) -> Option<Vec<(Range<usize>, usize)>> {
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

/// Gives each span the tokens that begin in it. If the tokens do not spell the prompt, only a BOS that the tokenizer
/// added gets a span.
fn add_tokens(tokenizer: &Tokenizer, prompt: &RenderedPrompt, spans: &mut Vec<Span>, watch: &mut Watch) -> Result<()> {
    let ids = tokenizer.encode_prompt(prompt, watch)?;
    let mut rest = prompt.text.as_bytes();
    let mut starts = Vec::with_capacity(ids.len());
    let mut in_front = 0;
    for (i, id) in ids.iter().enumerate() {
        let bytes = tokenizer.bytes_of(*id);
        starts.push(prompt.text.len() - rest.len());
        // SentencePiece puts a space before the first word.
        let spelled = [&bytes[..], bytes.strip_prefix(b" ").unwrap_or(&bytes)];
        match spelled.into_iter().find_map(|bytes| rest.strip_prefix(bytes)) {
            Some(after) => rest = after,
            // A BOS that the tokenizer added: the template did not write it, so it has a span of its own.
            None if i == 0 && Some(*id) == tokenizer.bos => {
                spans.insert(0, Span { token_ids: Some(vec![*id]), ..span("", 0..0, None) });
                in_front = 1;
            }
            None => return Ok(()),
        }
    }
    if rest.is_empty() {
        for span in spans.iter_mut().filter(|span| span.start < span.end) {
            let before = |end: usize| starts.partition_point(|start| *start < end).max(in_front);
            span.token_ids = Some(ids[before(span.start)..before(span.end)].to_vec());
        }
    }
    Ok(())
}
