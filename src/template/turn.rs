//! The turns of a conversation.

use crate::error::{Error, Result};
use serde_json::{Value as Json, json};
use std::str::FromStr;

named! {
    /// The speaker of a turn. The names are those of templates and files.
    pub enum Role {
        /// Instructions for the model, before the conversation.
        System = "system",
        /// The person or program that asks.
        User = "user",
        /// The model: its earlier answers.
        Assistant = "assistant",
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChatTurn {
    /// Who speaks: system, user or assistant.
    pub role: Role,
    /// The text of the message.
    pub text: String,
    /// The thoughts that preceded an answer, if there were any.
    pub reasoning: Option<String>,
    /// Whether this is an answer that the user stopped.
    pub cancelled: bool,
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(name: &str) -> Result<Role> {
        Role::ALL.into_iter().find(|role| role.name() == name).ok_or_else(|| {
            let known = Role::ALL.map(Role::name).join(", ");
            Error::Argument(format!("role is {name:?}, expected one of {known}"))
        })
    }
}

impl ChatTurn {
    /// A turn without thoughts that is not cancelled.
    pub fn new(role: Role, text: impl Into<String>) -> ChatTurn {
        ChatTurn { role, text: text.into(), reasoning: None, cancelled: false }
    }

    /// The turn as a message with `role` and `content`, as templates see it. Thoughts are `reasoning_content`, by the
    /// name that templates know; the template decides whether they stay in the prompt.
    pub fn message(&self) -> Json {
        let mut message = json!({"role": self.role.name(), "content": self.text});
        if let Some(reasoning) = &self.reasoning {
            message["reasoning_content"] = reasoning.as_str().into();
        }
        message
    }
}
