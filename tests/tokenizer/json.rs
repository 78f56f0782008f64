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

/// A file of `kinds.json`: the base with other parts. Of the model only options are replaced.
fn composed(base: &Value, parts: &Value) -> Value {
    let mut file = base.clone();
    for (key, part) in parts.as_object().unwrap() {
        if key == "model" {
            part.as_object().unwrap().iter().for_each(|(option, value)| file["model"][option] = value.clone());
        } else {
            file[key] = part.clone();
        }
    }
    file
}

/// The ids with what the file adds at both ends.
fn with_ends(tokenizer: &Tokenizer, ids: Vec<u32>) -> Vec<u32> {
    tokenizer.bos.filter(|_| tokenizer.add_bos).into_iter().chain(ids).chain(tokenizer.suffix).collect()
}

/// Every kind of part with every option, and random combinations. `BITNET_TOKENIZER_KINDS` names another such file, of
/// which combinations may be refused.
#[test]
fn all_kinds_of_parts_do_what_the_tokenizers_package_does() {
    let other = std::env::var_os("BITNET_TOKENIZER_KINDS").map(PathBuf::from);
    let folder = crate::builder::folder("tokenizer_kinds");
    let (mut opened, mut refused) = (0, Vec::new());
    for file in read(other.clone().unwrap_or(fixture("tokenizers/kinds.json"))).as_array().unwrap() {
        for case in file["cases"].as_array().unwrap() {
            let parts = &case["parts"];
            let bytes = composed(&file["base"], parts).to_string();
            let tokenizer = match Tokenizer::open(&crate::builder::write(folder.join("tokenizer.json"), bytes), None) {
                Ok(tokenizer) => tokenizer,
                Err(error) => {
                    refused.push(error.to_string());
                    continue;
                }
            };
            opened += 1;
            for row in case["texts"].as_array().unwrap() {
                let text = row[0].as_str().unwrap();
                let ids = tokenizer.encode(text, true);
                assert_eq!(ids, ids_of(&row[1]), "{parts}: {text:?}");
                let (plain, theirs) = (tokenizer.encode(text, false), ids_of(&row[2]));
                if theirs.iter().any(|id| tokenizer.is_control(*id)) {
                    // With `ignore_merges` the package lets a piece that is a control token's text become that token.
                    assert!(!plain.iter().any(|id| tokenizer.is_control(*id)), "{parts}: {text:?} as plain text");
                } else {
                    assert_eq!(plain, theirs, "{parts}: {text:?} as plain text");
                }
                assert_eq!(with_ends(&tokenizer, ids), ids_of(&row[3]), "{parts}: {text:?} with both ends");
                let parts: Vec<(&str, bool)> = text.split_inclusive('e').map(|part| (part, true)).collect();
                assert_eq!(
                    tokenizer.encode_parts(&parts, &mut || false).expect("ids"),
                    ids_of(&row[1]),
                    "{parts:?} in parts"
                );
            }
            for row in case["decoded"].as_array().unwrap() {
                let ids = ids_of(&row[0]);
                assert_eq!(tokenizer.decode(&ids, false), row[2].as_str().unwrap(), "{parts}: {ids:?}");
                // The package shows a special token if a normalizer changes its text; older versions do not.
                let shows = tokenizer.decode(&ids, true) == row[1].as_str().unwrap();
                let changed = ids.iter().any(|id| tokenizer.is_control(*id)) && !parts["normalizer"].is_null();
                assert!(shows || changed, "{parts}: {ids:?} {:?} {}", tokenizer.decode(&ids, true), row[1]);
            }
        }
    }
    println!("{opened} opened, {} refused", refused.len());
    if other.is_none() {
        assert_eq!((opened > 250, refused), (true, Vec::new()));
    } else {
        refused.sort();
        refused.dedup();
        refused.iter().for_each(|refusal| println!("{refusal}"));
    }
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
    refuse("model: 'Unigram'", &|file| file["model"]["type"] = json!("Unigram"));
    refuse("'WordPiece'", &|file| file["model"] = json!({"type": "WordPiece", "vocab": {}}));
    refuse("'WordLevel'", &|file| file["model"] = json!({"type": "WordLevel", "vocab": {}}));
    for (key, value) in
        [("dropout", json!(0.1)), ("continuing_subword_prefix", json!("##")), ("end_of_word_suffix", json!("</w>"))]
    {
        refuse(key, &|file| file["model"][key] = value.clone());
    }
    for normalizer in [
        json!({"type": "Precompiled", "precompiled_charsmap": ""}),
        json!({"type": "Replace", "pattern": {"Regex": "a"}, "content": ""}),
        json!({"type": "Replace", "pattern": {"String": ""}, "content": "b"}),
        json!({"type": "ByteLevel"}),
        json!({"type": "Strip"}),
        json!({"type": "Unheard"}),
    ] {
        let expected = format!("normalizer: '{}'", normalizer["type"].as_str().unwrap());
        refuse(&expected, &|file| file["normalizer"] = normalizer.clone());
        let inside = json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, normalizer]});
        refuse(&expected, &|file| file["normalizer"] = inside.clone());
    }
    for pre_tokenizer in [
        json!({"type": "UnicodeScripts"}),
        json!({"type": "FixedLength", "length": 5}),
        json!({"type": "CharDelimiterSplit", "delimiter": "ab"}),
        json!({"type": "Split", "pattern": {"String": "a"}, "behavior": "Odd", "invert": false}),
        json!({"type": "Split", "pattern": {"String": ""}, "behavior": "Isolated", "invert": false}),
        json!({"type": "Split", "pattern": {"Regex": "a*"}, "behavior": "Isolated", "invert": false}),
        json!({"type": "Metaspace", "replacement": "__", "prepend_scheme": "always", "split": true}),
        json!({"type": "Metaspace", "replacement": "_", "prepend_scheme": "sometimes", "split": true}),
    ] {
        let expected = format!("pre_tokenizer: '{}'", pre_tokenizer["type"].as_str().unwrap());
        refuse(&expected, &|file| file["pre_tokenizer"] = pre_tokenizer.clone());
    }
    refuse("'first'", &|file| {
        file["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"})
    });
    for decoder in [
        Value::Null,
        json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        json!({"type": "CTC"}),
        json!({"type": "BPEDecoder", "suffix": "</w>"}),
        json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}),
        json!({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]}),
        json!({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 0, "stop": 1}]}),
        json!({"type": "Sequence", "decoders": [{"type": "ByteLevel"}, {"type": "ByteFallback"}]}),
    ] {
        refuse("decoder: ", &|file| file["decoder"] = decoder.clone());
    }
    let tokens = json!({"<|begin|>": {"id": "<|begin|>", "ids": [420, 421], "tokens": ["a", "b"]}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let begin = json!({"SpecialToken": {"id": "<|begin|>", "type_id": 0}});
    for (single, special_tokens) in [
        (json!([begin, begin, text]), Value::Null),
        (json!([text, text]), Value::Null),
        (json!([begin]), Value::Null),
        (json!([begin, text]), tokens),
    ] {
        refuse("post_processor: 'TemplateProcessing'", &|file| {
            file["post_processor"]["single"] = single.clone();
            if !special_tokens.is_null() {
                file["post_processor"]["special_tokens"] = special_tokens.clone();
            }
        });
    }
    refuse("post_processor: 'TemplateProcessing'", &|file| {
        let template = file["post_processor"].clone();
        file["post_processor"] = json!({"type": "Sequence", "processors": [template, template]});
    });
    refuse("post_processor: 'Odd'", &|file| file["post_processor"] = json!({"type": "Odd"}));
    for pattern in [
        "a(?=x)",
        r"\bx",
        "(?i)x",
        "(?i:x)",
        "(?<a>b)",
        r"(a)\1",
        "[[:alpha:]]",
        "a++",
        "a{2}+",
        "a{2}?",
        "a{,2}",
        "x^",
        r"\h",
        r"\p{Greek}",
        r"\p{^L}",
        r"\G",
        r"\R",
        r"[a&&b]",
        "[]a]",
        "(?>a)",
        "(?m:.)",
        "a{3,2}",
        r"\xe9",
        "{",
    ] {
        refuse(pattern, &|file| file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!(pattern));
    }
    refuse("normalized text", &|file| {
        file["normalizer"] = json!({"type": "Lowercase"});
        for (token, text) in [(0, "tok"), (1, "TOK")] {
            let token = &mut file["added_tokens"][token];
            (token["content"], token["normalized"]) = (json!(text), json!(true));
        }
    });
}

#[test]
fn what_is_not_applied_is_a_warning() {
    let folder = crate::builder::folder("tokenizer_warned");
    let warning = |change: &dyn Fn(&mut Value)| {
        let path = crate::builder::write(folder.join("tokenizer.json"), changed(change));
        Tokenizer::open(&path, None).unwrap().warning
    };
    assert_eq!(warning(&|_| ()), None);
    let ends = json!({"type": "RobertaProcessing", "cls": ["<|begin|>", 420], "sep": ["<|end|>", 421]});
    let warned = warning(&|file| file["post_processor"] = ends.clone()).unwrap();
    assert!(warned.contains("'<|end|>' (id 421)"), "{warned}");
    let warned = warning(&|file| file["truncation"] = json!({"max_length": 3})).unwrap();
    assert!(warned.contains("'truncation'"), "{warned}");
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
    for id in [4_000_000_000_u64, u64::MAX, 1 << 22, 70_000] {
        let far = |file: &mut Value| file["model"]["vocab"]["!"] = json!(id);
        refuse(&format!("has the id {id}"), &changed(far));
    }
    refuse("is there twice", &changed(|file| file["added_tokens"][1] = file["added_tokens"][0].clone()));
    refuse("has the id 7, expected 420", &changed(|file| file["added_tokens"][0]["id"] = json!(7)));
    refuse("has the id -1", &changed(|file| file["model"]["vocab"]["!"] = json!(-1)));
    refuse("same id 3", &changed(|file| file["model"]["vocab"]["!"] = json!(3)));
    refuse(
        "which no token has",
        &changed(|file| {
            file["post_processor"] = json!({"type": "BertProcessing", "cls": ["a", 9999], "sep": ["b", 1]});
        }),
    );
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
