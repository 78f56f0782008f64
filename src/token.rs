//! The type of token ids, which every layer shares.

/// The id of a token: its index in the model's vocabulary.
pub type TokenId = u32;
