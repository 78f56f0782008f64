//! Byte-pair encoding: turns a piece of text into ids by merging neighbouring tokens.

use super::TokenKind;
use super::sentencepiece::SentencePiece;
use crate::error::{Error, Result};
use crate::token::TokenId;
use ahash::AHashMap;
use tokenizers::Model as _;
use tokenizers::models::bpe::{BPE, Merges};

/// The id of each text; the lowest id if several tokens have the same text.
pub(super) type IdsByText = AHashMap<String, TokenId>;

/// Byte-pair encoding in one of two orders.
pub(super) enum MergeModel {
    /// The vocabulary lists its merges, the first to apply first (GPT-2).
    ByRank(BPE),
    /// Every token has a score, and the merge that gives the best token comes first (SentencePiece).
    ByScore(SentencePiece),
}

/// Options of byte-pair encoding by rank.
#[derive(Default)]
pub(super) struct BpeOptions {
    /// Whether a whole piece that is a token stays one, even if no merges produce it.
    pub(super) ignore_merges: bool,
    /// Whether a character without a token becomes the tokens of its bytes.
    pub(super) byte_fallback: bool,
    /// The token for a character that has no other.
    pub(super) unknown: Option<String>,
    /// Whether a run of such characters becomes one unknown token.
    pub(super) fuse_unknown: bool,
}

/// The ids of the tokens of some kinds by their texts, without empty texts.
pub(super) fn ids_by_text(texts: &[String], kinds: &[TokenKind], wanted: impl Fn(TokenKind) -> bool) -> IdsByText {
    let mut ids = IdsByText::with_capacity(texts.len());
    for (id, (text, kind)) in texts.iter().zip(kinds).enumerate().rev() {
        if wanted(*kind) && !text.is_empty() {
            ids.insert(text.clone(), id as TokenId);
        }
    }
    ids
}

/// The two tokens of a merge such as `Ġ wor`. The first may begin with a space.
pub(super) fn merge_parts(merge: &str) -> Option<(&str, &str)> {
    let space = merge.bytes().skip(1).position(|byte| byte == b' ')? + 1;
    Some((&merge[..space], &merge[space + 1..]))
}

impl MergeModel {
    /// Byte-pair encoding with these tokens, in the order of `merges`. Merges that do not give a token are left out.
    pub(super) fn by_rank<'a>(
        tokens: impl Fn() -> IdsByText,
        merges: impl Iterator<Item = (&'a str, &'a str)> + Clone,
        options: &BpeOptions,
    ) -> Result<MergeModel> {
        let build = |tokens: IdsByText, merges: Merges| {
            let builder = BPE::builder()
                .vocab_and_merges(tokens, merges)
                // The library's cache belongs to the thread and outlives the tokenizer.
                .cache_capacity(0)
                .ignore_merges(options.ignore_merges)
                .byte_fallback(options.byte_fallback)
                .fuse_unk(options.fuse_unknown);
            match &options.unknown {
                Some(unknown) => builder.unk_token(unknown.clone()).build(),
                None => builder.build(),
            }
        };
        let ids = tokens();
        let longest = ids.keys().map(String::len).max().unwrap_or(0);
        let fitting = merges.filter(|(left, right)| left.len() + right.len() <= longest);
        let owned = |(left, right): (&str, &str)| (left.to_string(), right.to_string());
        // The library refuses merges that give no token. Only then are they searched for: doing so for every file would
        // add half to the time of loading.
        let model = build(ids, fitting.clone().map(owned).collect()).or_else(|_| {
            let ids = tokens();
            let known = fitting.filter(|(left, right)| {
                [*left, *right, &[*left, *right].concat()].iter().all(|text| ids.contains_key(*text))
            });
            let known = known.map(owned).collect();
            build(ids, known)
        });
        let refused = |error| Error::Model(format!("the merges do not fit the vocabulary: {error}"));
        Ok(MergeModel::ByRank(model.map_err(refused)?))
    }

    /// Appends the ids of a piece of text.
    pub(super) fn encode(&self, piece: &str, ids: &mut Vec<TokenId>) {
        match self {
            MergeModel::ByRank(model) => {
                let tokens = model.tokenize(piece).expect("only an unknown token outside the vocabulary is an error");
                ids.extend(tokens.iter().map(|token| token.id));
            }
            MergeModel::ByScore(model) => model.encode(piece, ids),
        }
    }

    /// The id of a token by its text.
    pub(super) fn id_of(&self, text: &str) -> Option<TokenId> {
        match self {
            MergeModel::ByRank(model) => model.token_to_id(text),
            MergeModel::ByScore(model) => model.id_of(text),
        }
    }
}
