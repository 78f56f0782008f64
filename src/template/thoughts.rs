//! Thoughts: models that think write `<think>…</think>` in front of their answer. Whether a model does, and whether the
//! prompt has begun the thoughts for it, is read off its template.

use super::{Conversation, RenderedPrompt, Template};
use crate::error::{Error, Result};
use serde_json::Value as Json;

/// Begins the thoughts.
pub const BEGIN: &str = "<think>";
/// Ends the thoughts.
pub const END: &str = "</think>";

/// How far the thoughts of an answer are where its prompt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThoughtState {
    /// The model decides whether it thinks first.
    NotBegun,
    /// The prompt ends inside the thoughts: it has begun them for the model.
    Begun,
    /// The prompt holds the thoughts already, as where it has closed empty ones to keep the model from thinking.
    Over,
}

impl Template {
    /// Whether answers to prompts of this template may have thoughts.
    pub fn thinks(&self) -> bool {
        self.source.contains(BEGIN) || self.source.contains(END)
    }

    /// Whether the source mentions a variable of this name.
    pub(super) fn mentions(&self, name: &str) -> bool {
        let joins = |c: char| c.is_alphanumeric() || c == '_';
        self.source.match_indices(name).any(|(at, _)| {
            let after = &self.source[at + name.len()..];
            !self.source[..at].ends_with(joins) && !after.starts_with(joins)
        })
    }

    /// Sets the variable `enable_thinking` of a conversation; `None` leaves the decision to the template. Fails if the
    /// template that renders the conversation does not read it, and would think or not regardless.
    pub fn set_thinking(&self, conversation: &mut Conversation, enable: Option<bool>) -> Result<()> {
        let Some(enable) = enable else { return Ok(()) };
        let template = self.for_conversation(conversation);
        template.check_thinking()?;
        conversation.variables.insert("enable_thinking".into(), enable.into());
        Ok(())
    }

    /// Fails if the source does not mention the variable `enable_thinking`.
    pub fn check_thinking(&self) -> Result<()> {
        if self.mentions("enable_thinking") {
            return Ok(());
        }
        let advice = match self.mentions("thinking") {
            true => "it reads the variable thinking, which chat_template_kwargs={\"thinking\": ...} sets",
            false => "leave it out",
        };
        Err(Error::Argument(format!(
            "enable_thinking is set, but the chat template does not read this variable, so it cannot turn thinking on \
             or off; {advice}"
        )))
    }

    /// How far the thoughts are at the end of a conversation's prompt; `None` if the template knows no thoughts.
    ///
    /// Only the end that the template wrote counts: a user may write about `<think>`. A final message that is continued
    /// counts as well, since it is the answer's beginning.
    pub fn thoughts_at_end(&self, conversation: &Conversation, prompt: &RenderedPrompt) -> Option<ThoughtState> {
        let template = self.for_conversation(conversation);
        if !template.thinks() {
            return None;
        }
        let continued = conversation.continue_final_message.then(|| last_text(conversation)).flatten();
        let state = continued.and_then(state_after).or_else(|| state_after(prompt.last_own_text()));
        Some(state.unwrap_or(ThoughtState::NotBegun))
    }
}

/// The state after a text, by its last mark; `None` if it has none.
fn state_after(text: &str) -> Option<ThoughtState> {
    match (text.rfind(BEGIN), text.rfind(END)) {
        (None, None) => None,
        (begin, end) if begin > end => Some(ThoughtState::Begun),
        _ => Some(ThoughtState::Over),
    }
}

/// The text of the last message.
fn last_text(conversation: &Conversation) -> Option<&str> {
    match conversation.messages.as_array()?.last()?.get("content")? {
        Json::Array(parts) => parts.iter().rev().find_map(|part| part["text"].as_str()),
        content => content.as_str(),
    }
}
