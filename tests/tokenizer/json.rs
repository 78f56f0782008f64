//! `tokenizer.json` files, compared with the ids of the `tokenizers` package (`fixtures/make_tokenizers.py`).

use crate::{fixture, ids_of, refusal};
use bitnet::tokenizer::{Detokenizer, Tokenizer};
use serde_json::{Value, json};
use std::path::PathBuf;

const MADE: [&str; 4] = ["bytes", "sentence", "metaspace", "falcon"];

fn made(name: &str) -> (PathBuf, Tokenizer) {
    let folder = fixture("tokenizers").join(name);
    let tokenizer = Tokenizer::open(&folder.join("tokenizer.json"), None).unwrap();
    (folder, tokenizer)
}

fn read(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The content of the first file with a change.
fn changed(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut file = read(fixture("tokenizers/bytes/tokenizer.json"));
    change(&mut file);
    file.to_string().into_bytes()
}

#[test]
fn the_ids_and_texts_are_those_of_the_tokenizers_package() {
    for name in MADE {
        let (folder, tokenizer) = made(name);
        let cases = read(folder.join("tokens.json"));
        assert!(cases.as_array().unwrap().len() > 150);
        for case in cases.as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let ids = tokenizer.encode(text, true);
            assert_eq!(ids, ids_of(&case["special"]), "{name}: {text:?}");
            assert_eq!(tokenizer.encode(text, false), ids_of(&case["plain"]), "{name}: {text:?} as plain text");
            assert_eq!(tokenizer.decode(&ids, true), case["decoded"].as_str().unwrap(), "{name}: {text:?}");
            let mut detokenizer = Detokenizer::new(true, true);
            let pieces: String = ids.iter().map(|id| detokenizer.push(&tokenizer, *id)).collect();
            assert_eq!(pieces + &detokenizer.flush(), case["decoded"].as_str().unwrap(), "{name}: {text:?}");
        }
    }
}

#[test]
fn bos_eos_and_stop_tokens_come_from_the_files_beside_it() {
    let of = |name| {
        let (_, t) = made(name);
        let texts = |ids: &[u32]| ids.iter().filter_map(|id| t.text_of(*id).map(str::to_string)).collect();
        let stops: Vec<String> = texts(&t.stop);
        (t.bos_text().map(str::to_string), t.eos_text().map(str::to_string), t.add_bos, stops)
    };
    let text = |text: &str| Some(text.to_string());
    let both = ["<|end|>", "<|eot_id|>"].map(String::from).to_vec();
    assert_eq!(of("bytes"), (text("<|begin|>"), text("<|end|>"), true, both));
    assert_eq!(of("sentence"), (text("<s>"), text("</s>"), true, vec!["</s>".into()]));
    assert_eq!(of("metaspace"), (text("<s>"), text("</s>"), false, vec!["</s>".into()]));
    assert_eq!(of("falcon"), (None, None, false, vec!["<|endoftext|>".into()]));
}

#[test]
fn a_file_alone_and_with_a_byte_order_mark_opens_too() {
    let folder = crate::builder::folder("tokenizer_alone");
    let plain = changed(|_| {});
    let path = crate::builder::write(folder.join("any.json"), [b"\xef\xbb\xbf", &plain[..]].concat());
    let tokenizer = Tokenizer::open(&path, None).unwrap();
    assert_eq!((tokenizer.bos_text(), tokenizer.add_bos), (Some("<|begin|>"), true));
    assert_eq!(tokenizer.eos, None);
    assert_eq!(tokenizer.pre, "tokenizer.json");
    assert_eq!(tokenizer.stop.len(), 2, "found by their texts");
}

#[test]
fn control_texts_are_those_of_special_tokens() {
    let (_, tokenizer) = made("bytes");
    assert_eq!(tokenizer.control_texts().collect::<Vec<_>>(), ["<|begin|>", "<|end|>", "<|eot_id|>"]);
    let (_, tokenizer) = made("sentence");
    assert_eq!(tokenizer.control_texts().collect::<Vec<_>>(), ["<unk>", "<s>", "</s>"]);
}

#[test]
fn unsupported_components_are_refused_by_name() {
    let folder = crate::builder::folder("tokenizer_refused");
    let refuse = |expected: &str, change: &dyn Fn(&mut Value)| {
        let path = crate::builder::write(folder.join("tokenizer.json"), changed(change));
        let message = refusal(&path, None);
        assert!(message.contains(expected), "'{message}' does not contain '{expected}'");
        assert!(message.contains("this engine has"), "{message}");
        assert!(message.starts_with(&path.display().to_string()), "{message}");
    };
    refuse("'Unigram'", &|file| file["model"]["type"] = json!("Unigram"));
    refuse("'WordPiece'", &|file| file["model"] = json!({"type": "WordPiece", "vocab": {}}));
    refuse("'Lowercase'", &|file| file["normalizer"] = json!({"type": "Lowercase"}));
    refuse("'Precompiled'", &|file| {
        file["normalizer"] = json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Precompiled"}]});
    });
    refuse("'BertPreTokenizer'", &|file| file["pre_tokenizer"] = json!({"type": "BertPreTokenizer"}));
    refuse("'ByteLevel'", &|file| {
        file["pre_tokenizer"] = json!({"type": "ByteLevel", "add_prefix_space": true});
    });
    refuse("neither as bytes nor", &|file| file["pre_tokenizer"] = Value::Null);
    refuse("(?=x)", &|file| {
        file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!("a(?=x)");
    });
    refuse("dropout", &|file| file["model"]["dropout"] = json!(0.1));
    refuse("single words", &|file| file["added_tokens"][0]["single_word"] = json!(true));
    refuse("several tokens", &|file| {
        let single = file["post_processor"]["single"].as_array_mut().unwrap();
        single.insert(0, single[0].clone());
    });
}

#[test]
fn invalid_files_are_errors() {
    let folder = crate::builder::folder("tokenizer_broken");
    let refuse = |expected: &str, bytes: &[u8]| {
        let message = refusal(&crate::builder::write(folder.join("tokenizer.json"), bytes), None);
        assert!(message.contains(expected), "'{message}' does not contain '{expected}'");
    };
    refuse("is not JSON", b"{");
    refuse("is not JSON", "{\"a\":".repeat(100_000).as_bytes());
    refuse("model", b"{}");
    refuse("has the id 4000000000", &changed(|file| file["model"]["vocab"]["x"] = json!(4_000_000_000_u32)));
    refuse("has the id -1", &changed(|file| file["model"]["vocab"]["x"] = json!(-1)));
    refuse("same id 3", &changed(|file| file["model"]["vocab"]["xyz"] = json!(3)));
    refuse("is not a pair", &changed(|file| file["model"]["merges"][0] = json!("ab")));
    let path = crate::builder::write(folder.join("tokenizer.json"), changed(|_| {}));
    crate::builder::write(folder.join("tokenizer_config.json"), b"[");
    assert!(refusal(&path, None).contains("tokenizer_config.json: is not JSON"));
    std::fs::remove_file(folder.join("tokenizer_config.json")).unwrap();
    assert!(refusal(&path, Some("gpt-2")).contains("leave out 'pre'"));
}

#[test]
fn merges_that_give_no_token_are_left_out() {
    let folder = crate::builder::folder("tokenizer_merges");
    let longer = "a".repeat(5000);
    let bytes = changed(|file| {
        let merges = file["model"]["merges"].as_array_mut().unwrap();
        merges.insert(0, json!(["h", "z"]));
        merges.insert(0, json!([longer, longer]));
    });
    let tokenizer = Tokenizer::open(&crate::builder::write(folder.join("tokenizer.json"), bytes), None).unwrap();
    let (_, sound) = made("bytes");
    for text in ["hz the licence", &longer] {
        assert_eq!(tokenizer.encode(text, false), sound.encode(text, false));
    }
}

/// Tokenizers of published models, if they are at hand.
#[test]
fn the_parity_models_give_their_goldens() {
    let models = crate::parity().into_iter().flat_map(|folder| ["relu2", "llama"].map(|name| folder.join(name)));
    for model in models.filter(|model| model.join("tokenizer.json").is_file()) {
        let tokenizer = Tokenizer::open(&model.join("tokenizer.json"), None).unwrap();
        crate::assert_goldens(&tokenizer, &model);
    }
}
