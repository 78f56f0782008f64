//! What turns a piece of text into ids.

use super::Kind;
use super::scores::Scores;
use crate::error::{Error, Result};
use ahash::AHashMap;
use tokenizers::Model as _;
use tokenizers::models::bpe::{BPE, Merges};

/// The first id of each text.
pub(super) type Ids = AHashMap<String, u32>;

/// Byte-pair encoding, by one order of merging or the other.
pub(super) enum Model {
    /// Merges have ranks.
    Ranks(BPE),
    /// Tokens have scores.
    Scores(Scores),
}

/// How byte-pair encoding by ranks treats pieces and characters that are tokens, or not.
#[derive(Default)]
pub(super) struct Rules {
    /// A whole piece that is a token is taken as it is, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// A character that is no token becomes its bytes' tokens.
    pub(super) byte_fallback: bool,
    /// What else a character becomes that is no token, and whether a run of them becomes one.
    pub(super) unknown: Option<String>,
    pub(super) fuse_unknown: bool,
}

/// The ids of the texts of some kinds: of equal texts the first.
pub(super) fn ids(texts: &[String], kinds: &[Kind], wanted: impl Fn(Kind) -> bool) -> Ids {
    let mut ids = Ids::with_capacity(texts.len());
    for (id, (text, kind)) in texts.iter().zip(kinds).enumerate().rev() {
        if wanted(*kind) && !text.is_empty() {
            ids.insert(text.clone(), id as u32);
        }
    }
    ids
}

/// The parts of a merge such as `Ġ wor`.
pub(super) fn parts(merge: &str) -> Option<(&str, &str)> {
    let space = merge.bytes().skip(1).position(|byte| byte == b' ')? + 1;
    Some((&merge[..space], &merge[space + 1..]))
}

impl Model {
    /// Byte-pair encoding of tokens that texts can become, in the order of `merges`. Such as make no token never apply.
    pub(super) fn ranks<'a>(
        tokens: impl Fn() -> Ids,
        merges: impl Iterator<Item = (&'a str, &'a str)> + Clone,
        rules: &Rules,
    ) -> Result<Model> {
        let build = |tokens: Ids, merges: Merges| {
            let builder = BPE::builder()
                .vocab_and_merges(tokens, merges)
                // The library's cache belongs to the thread, and stays when the tokenizer goes.
                .cache_capacity(0)
                .ignore_merges(rules.ignore_merges)
                .byte_fallback(rules.byte_fallback)
                .fuse_unk(rules.fuse_unknown);
            match &rules.unknown {
                Some(unknown) => builder.unk_token(unknown.clone()).build(),
                None => builder.build(),
            }
        };
        let ids = tokens();
        let longest = ids.keys().map(String::len).max().unwrap_or(0);
        let fitting = merges.filter(|(left, right)| left.len() + right.len() <= longest);
        let owned = |(left, right): (&str, &str)| (left.to_string(), right.to_string());
        // Looking for such merges beforehand would take half as long as all the rest.
        let model = build(ids, fitting.clone().map(owned).collect()).or_else(|_| {
            let ids = tokens();
            let known = fitting.filter(|(left, right)| {
                [*left, *right, &[*left, *right].concat()].iter().all(|text| ids.contains_key(*text))
            });
            let known = known.map(owned).collect();
            build(ids, known)
        });
        let refused = |error| Error::Model(format!("the vocabulary's merges do not fit together: {error}"));
        Ok(Model::Ranks(model.map_err(refused)?))
    }

    pub(super) fn encode(&self, piece: &str, ids: &mut Vec<u32>) {
        match self {
            Model::Ranks(model) => {
                let tokens = model.tokenize(piece).expect("it only fails without its unknown token");
                ids.extend(tokens.iter().map(|token| token.id));
            }
            Model::Scores(scores) => scores.encode(piece, ids),
        }
    }

    /// The id of a token that a text can become.
    pub(super) fn id_of(&self, text: &str) -> Option<u32> {
        match self {
            Model::Ranks(model) => model.token_to_id(text),
            Model::Scores(scores) => scores.id_of(text),
        }
    }
}
