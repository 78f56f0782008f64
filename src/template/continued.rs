//! Prompts that end inside their final message, so that the model continues it.
//!
//! As transformers' `apply_chat_template` does for `continue_final_message`, a tag is appended to the final message, and
//! the prompt is cut off at the tag.

use super::jinja::Text;
use super::{Conversation, Template};
use crate::error::{Error, Result, Watch};
use serde_json::Value as Json;

/// The space at the end shows whether the template trims messages.
const TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

impl Template {
    /// The prompt of a conversation, and which of its characters come from messages. All methods that render call this
    /// one.
    pub(super) fn text_of(&self, conversation: &Conversation, watch: &mut Watch) -> Result<Text> {
        let template = self.for_conversation(conversation);
        let Some(tagged) = tagged(conversation)? else { return template.render_whole(conversation, watch) };
        let text = template.render_whole(&tagged, watch)?;
        Ok(text.slice(0..end(text.as_str())?))
    }
}

/// The conversation with the tag at the end of its final message; None if the message is not to be continued.
fn tagged(conversation: &Conversation) -> Result<Option<Conversation>> {
    if !conversation.continue_final_message {
        return Ok(None);
    }
    if conversation.add_generation_prompt {
        let both = "add_generation_prompt begins a new answer and continue_final_message continues the last message; \
                    set only one of them";
        return Err(Error::Argument(both.into()));
    }
    let mut tagged = conversation.clone();
    let content = tagged.messages.as_array_mut().and_then(|all| all.last_mut()?.get_mut("content"));
    let text = match content {
        Some(Json::Array(parts)) => parts.iter_mut().rev().find_map(|part| part.get_mut("text")),
        content => content,
    };
    let Some(Json::String(text)) = text else {
        let none = "continue_final_message is set, but the final message has no text in its 'content'";
        return Err(Error::Template(none.into()));
    };
    text.push_str(TAG);
    Ok(Some(tagged))
}

/// Where the final message of a rendered conversation ends.
fn end(text: &str) -> Result<usize> {
    let Some(tag) = text.rfind(TAG.trim_end()) else {
        let missing = "continue_final_message is set, but the final message does not appear in the prompt; the chat \
                       template may remove parts of it";
        return Err(Error::Template(missing.into()));
    };
    // A template that trims the message would have trimmed the spaces before the tag.
    let kept = text[tag..].starts_with(TAG);
    Ok(if kept { tag } else { text[..tag].trim_end().len() })
}
