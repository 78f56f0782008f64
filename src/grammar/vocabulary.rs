//! A tokenizer as llguidance sees it: the bytes of each token, and the usual tokens of a text.

use crate::token::TokenId;
use crate::tokenizer::Tokenizer;
use llguidance::toktrie::{INVALID_TOKEN, TokRxInfo, TokTrie, TokenizerEnv};
use std::sync::Arc;

/// A vocabulary as a tree of bytes.
pub(super) struct Vocabulary {
    tokenizer: Arc<Tokenizer>,
    tree: TokTrie,
}

impl Vocabulary {
    /// The vocabulary of a model with logits of `n_vocab` tokens.
    pub fn new(tokenizer: Arc<Tokenizer>, n_vocab: usize) -> Vocabulary {
        // Control tokens are no text. A grammar names them by a mark in front of their spelling.
        let marked = |id: TokenId| {
            let spelling = tokenizer.text_of(id).filter(|_| tokenizer.is_control(id)).unwrap_or_default();
            if spelling.is_empty() {
                Vec::new()
            } else {
                [&[TokTrie::SPECIAL_TOKEN_MARKER], spelling.as_bytes()].concat()
            }
        };
        let bytes = |id: TokenId| tokenizer.bytes_in_text(id).unwrap_or_else(|| marked(id));
        let words: Vec<Vec<u8>> = (0..n_vocab as TokenId).map(bytes).collect();
        // Which ids end an answer depends on the request, so the tree knows none.
        let tree = TokTrie::from(&TokRxInfo::new(n_vocab as u32, INVALID_TOKEN), &words);
        Vocabulary { tokenizer, tree }
    }
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.tree
    }

    /// The tokens that the model was trained to see for these bytes inside a text. Where the tokenizer changes a text,
    /// such as by Unicode normalization, the longest tokens that fit.
    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let ids = self.tree.tokenize_with_greedy_fallback(bytes, |text| self.tokenizer.encode_inside(text));
        let n_vocab = self.tree.vocab_size() as TokenId;
        if ids.iter().all(|id| *id < n_vocab) && self.tree.decode_raw(&ids) == bytes {
            ids
        } else {
            self.tree.greedy_tokenize(bytes)
        }
    }
}
