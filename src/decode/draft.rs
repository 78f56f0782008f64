//! What is known of a draft: the ids that an answer is said to have, and the choices of a step (`drafted.rs`).

use super::form::Form;
use super::token::Token;
use crate::error::Result;
use crate::token::{TokenId, TokenSet};
use std::sync::OnceLock;

/// The ids that an answer is said to have, and those of them that the step under way checks.
pub(super) struct Draft {
    /// All ids of the answer.
    pub ids: Vec<TokenId>,
    /// The most choices of a step: each has the logits of the whole vocabulary.
    pub most: usize,
    /// The choices of the step under way, in the order of their rows.
    pub choices: Vec<Choice>,
    /// How many of them are settled.
    pub settled: usize,
    /// How many positions of the sequence hold ids that are right: fewer than it has after a wrong id.
    pub right: usize,
    /// The form as it was before the step; `Generation::form` has read the ids of the choices.
    pub before: Option<Form>,
}

/// One id that a step chooses.
pub(super) struct Choice {
    /// The row of the step from whose logits it is chosen.
    pub row: usize,
    /// The ids that may be chosen; `None` if all may.
    pub allowed: Option<TokenSet>,
    /// The id that the draft says, and those that the form forces behind it; empty if the form has not read it.
    pub follow: Vec<TokenId>,
    /// The id that was chosen.
    pub picked: OnceLock<Result<Token>>,
}

impl Draft {
    /// A draft of which nothing is checked.
    pub fn new(ids: Vec<TokenId>, most: usize) -> Draft {
        Draft { ids, most: most.max(1), choices: Vec::new(), settled: 0, right: usize::MAX, before: None }
    }
}

impl Choice {
    /// Whether it is as the draft says, and the form has read it.
    pub fn agrees(&self, id: TokenId) -> bool {
        self.follow.first() == Some(&id)
    }
}
