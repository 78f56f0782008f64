//! One id of an answer, and why an answer ends.

use crate::token::TokenId;

named! {
    /// Why a generation ended.
    pub enum Finish {
        /// A stop id or a stop string was generated.
        Stop = "stop",
        /// `max_tokens` ids were generated.
        Length = "length",
        /// The sequence fills the context.
        Context = "context",
        /// The caller cancelled it before it had ended.
        Cancelled = "cancelled",
    }
}

/// One generated id and what was requested about it.
pub struct Token {
    /// The id.
    pub id: TokenId,
    /// Whether it is part of the text: a stop id is not.
    pub is_text: bool,
    /// If requested: its log-probability, and the most likely ids with theirs.
    pub logprobs: Option<(f64, Vec<(TokenId, f64)>)>,
    /// Why the generation ends with this id, if it does.
    pub finish: Option<Finish>,
}

impl Token {
    /// An id that no logits belong to.
    pub(super) fn text(id: TokenId, finish: Option<Finish>) -> Token {
        Token { id, is_text: true, logprobs: None, finish }
    }
}
