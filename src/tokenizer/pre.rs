//! Pre-tokenizers of byte-level vocabularies: how a text is split before byte-pair encoding.

use crate::error::{Error, Result};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;

/// A class of pre-tokenizers.
pub(super) struct Class {
    names: &'static [&'static str],
    /// Successive splits.
    patterns: &'static [&'static str],
    /// Whether a whole piece that is a token is taken as it is, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// Whether BOS is expected where the file does not say.
    pub(super) add_bos: bool,
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

const CLASSES: [Class; 5] = [
    Class {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "falcon_e"],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
    },
    Class { names: &["dbrx", "smaug-bpe"], patterns: &[LLAMA3], ignore_merges: false, add_bos: false },
    Class { names: &["qwen2", "deepseek-r1-qwen"], patterns: &[QWEN2], ignore_merges: false, add_bos: false },
    Class {
        names: &["gpt-2", "mpt", "olmo", "jais", "phi-2"],
        patterns: &[GPT2],
        ignore_merges: false,
        add_bos: false,
    },
    Class {
        names: &["falcon"],
        patterns: &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
        ignore_merges: false,
        add_bos: false,
    },
];

/// The class of a name.
pub(super) fn class(name: &str) -> Result<&'static Class> {
    CLASSES.iter().find(|class| class.names.contains(&name)).ok_or_else(|| {
        let known = CLASSES.iter().flat_map(|class| class.names).copied().collect::<Vec<_>>().join(", ");
        Error::Unsupported(format!(
            "pre-tokenizer '{name}' is not known; this engine has: {known}; choose one by pre="
        ))
    })
}

impl Class {
    /// Its splits, then bytes as printable characters.
    pub(super) fn pre_tokenizer(&self) -> PreTokenizerWrapper {
        let split = |pattern: &&str| {
            let pattern = SplitPattern::Regex(pattern.to_string());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
            PreTokenizerWrapper::Split(split.expect("a pattern of ours compiles"))
        };
        let mut steps: Vec<PreTokenizerWrapper> = self.patterns.iter().map(split).collect();
        steps.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, false, false)));
        PreTokenizerWrapper::Sequence(Sequence::new(steps))
    }
}
