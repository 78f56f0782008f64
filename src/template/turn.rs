//! The turns of a conversation.

use crate::error::{Error, Result};
use serde_json::{Value as Json, json};
use std::str::FromStr;

named! {
    /// Who speaks, as templates and files name it.
    pub enum Role {
        /// Whoever sets the rules.
        System = "system",
        /// Whoever asks.
        User = "user",
        /// The model.
        Assistant = "assistant",
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChatTurn {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub text: String,
    /// Whether it is an answer that its user stopped.
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
    /// A whole turn.
    pub fn new(role: Role, text: impl Into<String>) -> ChatTurn {
        ChatTurn { role, text: text.into(), cancelled: false }
    }

    /// The turn as templates see it.
    pub fn message(&self) -> Json {
        json!({"role": self.role.name(), "content": self.text})
    }
}
