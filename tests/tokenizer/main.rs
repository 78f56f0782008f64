//! Tokenizers of model files: real vocabularies if they are at hand, and vocabularies built here.

#[path = "../gguf/builder.rs"]
#[allow(dead_code, reason = "these tests use only a part of it")]
mod builder;
mod json;
mod made;

use bitnet::checkpoint::gguf::Gguf;
use bitnet::tokenizer::{Detokenizer, Tokenizer};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The folder of vocabularies and expected ids from other programs, if it is at hand.
fn parity() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/parity");
    let folder = std::env::var_os("BITNET_PARITY").map_or(beside, PathBuf::from);
    folder.is_dir().then_some(folder)
}

fn open(path: PathBuf) -> Tokenizer {
    let gguf = Gguf::open(&path).unwrap_or_else(|error| panic!("{error}"));
    Tokenizer::from_gguf(&gguf, None).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn refusal(path: &Path, pre: Option<&str>) -> String {
    Tokenizer::open(path, pre).err().expect("the file should be refused").to_string()
}

fn ids_of(list: &Value) -> Vec<u32> {
    list.as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// Every vocabulary with texts and ids beside it, except for kinds that this engine does not support.
fn vocabularies() -> impl Iterator<Item = (String, Tokenizer, PathBuf)> {
    let folder = parity().and_then(|folder| std::fs::read_dir(folder.join("vocab")).ok());
    folder.into_iter().flatten().filter_map(|entry| {
        let path = entry.expect("an entry").path();
        let name = path.file_name()?.to_str()?.strip_prefix("ggml-vocab-")?.strip_suffix(".gguf")?.to_string();
        let known = path.with_extension("gguf.out").is_file() && !name.starts_with("bert");
        known.then(|| (name, open(path.clone()), path))
    })
}

#[test]
fn real_vocabularies_give_the_ids_of_llama_cpp() {
    for (name, tokenizer, path) in vocabularies() {
        let read = |suffix: &str| {
            std::fs::read_to_string(format!("{}.{suffix}", path.display())).expect("beside the vocabulary")
        };
        let (texts, ids) = (read("inp"), read("out"));
        let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
        let lines: Vec<&str> = ids.lines().collect();
        assert!(lines.len() > 40 && texts.len() >= lines.len(), "{name}: {} and {}", texts.len(), lines.len());
        for (text, line) in texts.iter().zip(&lines) {
            let want: Vec<u32> = line.split_whitespace().map(|id| id.parse().expect("an id")).collect();
            assert_eq!(tokenizer.encode(text, false), want, "{name}: {text:?}");
        }
    }
}

#[test]
fn decoding_gives_the_text_back_at_once_and_one_id_at_a_time() {
    let texts =
        ["Hello  world", " leading", "naïve 🙂👩‍👩‍👧‍👦 日本語\n\n\ttabs", "\u{0}\u{1}\u{7f}", "a", "½ ² ﬁ", "    four\r\n"];
    for (name, tokenizer, _) in vocabularies() {
        for text in texts {
            let ids = tokenizer.encode(text, false);
            assert_eq!(tokenizer.decode(&ids, true), text, "{name}");
            let mut detokenizer = Detokenizer::new(true, true);
            let mut pieces: Vec<String> = ids.iter().map(|id| detokenizer.push(&tokenizer, *id)).collect();
            assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')), "{name}: {pieces:?}");
            pieces.push(detokenizer.flush());
            assert_eq!(pieces.concat(), text, "{name}");
        }
    }
}

#[test]
fn an_incomplete_character_is_held_back_and_replaced_at_the_end() {
    for (name, tokenizer, _) in vocabularies().filter(|(.., tokenizer, _)| tokenizer.pre != "spm") {
        let byte = |text: &str| tokenizer.id_of(text).expect("every byte is a token");
        // The first two bytes of U+1F642 (f0 9f 99 82) as GPT-2 spells them.
        let (first, second) = (byte("ð"), byte("Ł"));
        let mut detokenizer = Detokenizer::new(true, true);
        assert_eq!(detokenizer.push(&tokenizer, first), "", "{name}");
        assert_eq!(detokenizer.push(&tokenizer, second), "", "{name}");
        assert_eq!(detokenizer.push(&tokenizer, byte("a")), "\u{fffd}a", "{name}");
        assert_eq!(detokenizer.push(&tokenizer, first), "");
        assert_eq!(detokenizer.flush(), "\u{fffd}");
    }
}

#[test]
fn control_tokens_come_out_of_text_only_when_asked() {
    for (name, tokenizer, _) in vocabularies() {
        let control: Vec<u32> = (0..tokenizer.vocab_size() as u32).filter(|id| tokenizer.is_control(*id)).collect();
        assert!(!control.is_empty(), "{name}");
        for id in control.iter().copied().take(20) {
            let text = format!("a{}b", tokenizer.text_of(id).expect("in the vocabulary"));
            assert!(!tokenizer.encode(&text, false).contains(&id), "{name}: {text}");
            assert!(tokenizer.encode(&text, true).contains(&id), "{name}: {text}");
        }
        let mark = tokenizer.text_of(control[0]).expect("in the vocabulary").to_string();
        let mixed = tokenizer.encode_parts(&[(&mark, true), (&mark, false)], &mut || false).expect("ids");
        assert_eq!(mixed.iter().filter(|id| **id == control[0]).count(), 1, "{name}: {mixed:?}");
    }
}

#[test]
fn a_megabyte_of_anything_is_encoded() {
    for (name, tokenizer, _) in vocabularies() {
        for unit in [" ", "a", "🙂", "\n", "1", ".", "a b ", "<"] {
            let text = unit.repeat((1 << 20) / unit.len());
            let start = std::time::Instant::now();
            let ids = tokenizer.encode(&text, false);
            println!("{name} {unit:?}: {} ids in {:?}", ids.len(), start.elapsed());
            assert_eq!(tokenizer.decode(&ids, true), text, "{name} {unit:?}");
        }
    }
}

#[test]
fn the_last_space_before_a_word_is_its_own_however_many_there_are() {
    for (name, tokenizer, _) in vocabularies().filter(|(name, ..)| name == "gpt-2" || name == "llama-bpe") {
        for unit in [" ", "\t", "\u{a0}"] {
            let spaces = unit.repeat(1_200_000);
            let (end, _) = spaces.char_indices().next_back().expect("it is not empty");
            let mut want = tokenizer.encode(&spaces[..end], false);
            want.extend(tokenizer.encode(&format!("{unit}word, 12"), false));
            assert!(tokenizer.encode(&format!("{spaces}word, 12"), false) == want, "{name} {unit:?}");
        }
    }
}

#[test]
fn vocabularies_name_their_pre_tokenizers() {
    for (name, tokenizer, _) in vocabularies() {
        let sentence_piece = ["llama-spm", "phi-3"].contains(&name.as_str());
        assert_eq!(tokenizer.pre, if sentence_piece { "spm" } else { &name });
    }
}

/// Compares with the ids that `tokenizers` or `sentencepiece` gave for a model of the parity folder.
fn assert_goldens(tokenizer: &Tokenizer, model: &Path) {
    let cases = std::fs::read_to_string(model.join("tokens.json")).expect("beside the model");
    let cases: Value = serde_json::from_str(&cases).expect("JSON");
    for case in cases.as_array().expect("a list") {
        let text = case["text"].as_str().expect("a text");
        let parse_special = case["specials_parsed"].as_bool().expect("a bool");
        assert_eq!(tokenizer.encode(text, parse_special), ids_of(&case["ids"]), "{model:?}: {text:?}");
    }
}

#[test]
fn parity_models_give_their_makers_ids() {
    let Some(folder) = parity() else { return };
    for (model, file) in [("relu2", "relu2-I2_S"), ("silu400", "silu400-I2_S"), ("llama", "llama-I2_S")] {
        let path = folder.join(model).join(format!("{file}.gguf"));
        if path.is_file() {
            assert_goldens(&open(path), &folder.join(model));
        }
    }
}

#[test]
fn a_model_without_merges_still_encodes_what_it_can_and_refuses_unknown_pre() {
    let path = fixture("relu2-i2s.gguf");
    let gguf = Gguf::open(&path).expect("a fixture");
    let tokenizer = Tokenizer::from_gguf(&gguf, None).expect("a vocabulary");
    assert_eq!(tokenizer.vocab_size(), 96);
    assert_eq!(tokenizer.text_of(3), Some("<3>"));
    let message = Tokenizer::from_gguf(&gguf, Some("klingon")).err().expect("refused").to_string();
    assert!(message.contains("klingon") && message.contains("llama-bpe"), "{message}");
}
