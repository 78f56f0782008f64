//! The pre-tokenizers of byte-level vocabularies, by the names that GGUF files give them (`tokenizer.ggml.pre`).

use crate::error::{Error, Result};

/// The rules of a pre-tokenizer.
pub(super) struct PreTokenizer {
    /// All names of these rules.
    names: &'static [&'static str],
    /// The patterns of successive splits.
    pub(super) patterns: &'static [&'static str],
    /// Whether a whole piece that is a token stays one, even if no merges produce it.
    pub(super) ignore_merges: bool,
    /// Whether the model expects BOS, if the file does not say.
    pub(super) add_bos: bool,
}

/// The pattern of Llama 3.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The pattern of Qwen2: as Llama 3's, but each digit is a piece.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The pattern of Qwen 3.5: as Qwen2's, but marks belong to the letters before them.
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The patterns of DeepSeek V3: groups of three digits, Chinese and Japanese, then words, punctuation and spaces.
const DEEPSEEK_V3: [&str; 3] = [
    r"\p{N}{1,3}",
    r"[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
    r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];
/// The pattern of GPT-2 (`encoder.py` of openai/gpt-2).
pub(super) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Chinese, Japanese and Korean characters, as the tokenizers of DeepSeek delimit them.
const DEEPSEEK_CJK: &str = r"[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+";
/// Cased letters as in the tokenizers of DeepSeek, which leave out newer and rarer scripts.
const DEEPSEEK_CASED: &str = concat!(
    r"\s?[[\p{Lu}\p{Ll}\p{Lt}]--[\u{560}-\u{588}\u{10c6}-\u{10ff}\u{1c80}-\u{1c8f}\u{2d00}-\u{2d2d}\u{a78f}-\u{ab68}",
    r"\u{10570}-\u{105bc}\u{16e40}-\u{1df2f}]]+"
);

/// Rules with the most common options.
const fn plain(names: &'static [&'static str], patterns: &'static [&'static str]) -> PreTokenizer {
    PreTokenizer { names, patterns, ignore_merges: false, add_bos: false }
}

const PRE_TOKENIZERS: [PreTokenizer; 10] = [
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "falcon_e", "pixtral", "lfm2"],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
    },
    plain(&["dbrx", "smaug-bpe", "chatglm-bpe", "glm4"], &[LLAMA3]),
    plain(&["qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan"], &[QWEN2]),
    plain(&["qwen35"], &[QWEN35]),
    plain(&["hunyuan-dense", "deepseek-v3"], &DEEPSEEK_V3),
    plain(&["gpt-2", "mpt", "olmo", "jais", "phi-2", "gigachat", "trillion", "exaone4"], &[GPT2]),
    plain(&["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"], &[r"\p{N}", GPT2]),
    plain(&["falcon"], &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]),
    plain(&["deepseek-coder"], &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, r"\p{N}"]),
    plain(
        &["deepseek-llm"],
        &[
            r"[\r\n]",
            DEEPSEEK_CASED,
            r"\s?[!-/:-~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}\u{2018}-\u{201f}\u{3000}-\u{3002}]+",
            r"\s+$",
            DEEPSEEK_CJK,
            r"\p{N}+",
        ],
    ),
];

/// The pre-tokenizer of this name.
pub(super) fn pre_tokenizer(name: &str) -> Result<&'static PreTokenizer> {
    PRE_TOKENIZERS.iter().find(|rules| rules.names.contains(&name)).ok_or_else(|| {
        let known = PRE_TOKENIZERS.iter().flat_map(|rules| rules.names).copied().collect::<Vec<_>>().join(", ");
        Error::Unsupported(format!(
            "pre-tokenizer '{name}' is not supported; give the name of one with the same rules as 'pre': {known}"
        ))
    })
}
