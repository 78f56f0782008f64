//! Vocabularies in GGUF files built here, for rules that real vocabularies do not exercise.

use crate::builder::{ARRAY, Builder, STR, array, folder, string, write};
use crate::{fixture, refusal};
use bitnet::checkpoint::gguf::Gguf;
use bitnet::tokenizer::{Tokenizer, bos_eos_texts};
use proptest::prelude::*;
use std::sync::LazyLock;

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER: i32 = 4;
const BYTE: i32 = 6;

const F32: u32 = 6;
const I32: u32 = 5;

fn strings(texts: &[impl AsRef<[u8]>]) -> Vec<u8> {
    array(STR, &texts.iter().map(string).collect::<Vec<_>>())
}

/// A file with a vocabulary of this kind. Each token has a text, a type and a score.
fn file(model: &str, tokens: &[(&str, i32, f32)]) -> Builder {
    let texts: Vec<&str> = tokens.iter().map(|token| token.0).collect();
    let types: Vec<Vec<u8>> = tokens.iter().map(|token| token.1.to_le_bytes().to_vec()).collect();
    let scores: Vec<Vec<u8>> = tokens.iter().map(|token| token.2.to_le_bytes().to_vec()).collect();
    Builder::new()
        .entry("tokenizer.ggml.model", STR, string(model))
        .entry("tokenizer.ggml.tokens", ARRAY, strings(&texts))
        .entry("tokenizer.ggml.token_type", ARRAY, array(I32, &types))
        .entry("tokenizer.ggml.scores", ARRAY, array(F32, &scores))
}

fn open(test: &str, file: &Builder) -> Tokenizer {
    Tokenizer::open(&write(folder(test).join("m.gguf"), file.build()), None).unwrap()
}

/// The texts of the ids of a text.
fn pieces<'a>(tokenizer: &'a Tokenizer, text: &str) -> Vec<&'a str> {
    tokenizer.encode(text, false).iter().map(|id| tokenizer.text_of(*id).unwrap()).collect()
}

#[test]
fn sentencepiece_merges_the_best_score_first_and_the_left_pair_on_a_tie() {
    let tokens = [
        ("<unk>", UNKNOWN, 0.0),
        ("a", NORMAL, -1.0),
        ("b", NORMAL, -1.0),
        ("c", NORMAL, -1.0),
        ("▁", NORMAL, -1.0),
        ("bc", NORMAL, -0.5),
        ("ab", NORMAL, -0.5),
        ("abc", NORMAL, 3.0),
        // The single characters of these are not tokens.
        ("éà", NORMAL, -0.0),
        ("àà", NORMAL, 0.0),
        // Merges could give this token, but text never becomes a control token.
        ("</s>", CONTROL, 0.0),
        ("</", NORMAL, 0.0),
        ("s>", NORMAL, 0.0),
    ];
    let tokenizer = open("spm_scores", &file("llama", &tokens).entry("tokenizer.ggml.add_space_prefix", 7, [0]));
    assert_eq!(pieces(&tokenizer, "abc"), ["abc"]);
    assert_eq!(pieces(&tokenizer, "abb"), ["ab", "b"]);
    assert_eq!(pieces(&tokenizer, "bcbc"), ["bc", "bc"]);
    assert_eq!(pieces(&tokenizer, "éààà"), ["éà", "àà"], "the left pair first on a tie");
    assert_eq!(pieces(&tokenizer, "aéa"), ["a", "<unk>", "a"]);
    assert_eq!(pieces(&tokenizer, "éé é"), ["<unk>", "▁", "<unk>"], "a run is one unknown token");
    assert_eq!(pieces(&tokenizer, "</s>"), ["</", "s>"]);
    assert_eq!(tokenizer.encode("</s>", true), [10]);
    assert_eq!((tokenizer.id_of("</s>"), tokenizer.id_of("ab"), tokenizer.id_of("")), (Some(10), Some(6), None));
}

#[test]
fn tokens_that_span_words_are_found() {
    let tokens = [("a", NORMAL, -1.0), ("▁", NORMAL, -2.0), ("a▁", NORMAL, -3.0), ("a▁a", NORMAL, -4.0)];
    let tokenizer = open("spm_words", &file("llama", &tokens).entry("tokenizer.ggml.add_space_prefix", 7, [0]));
    assert_eq!(pieces(&tokenizer, "a a a"), ["a▁", "a▁a"]);
}

#[test]
fn characters_without_a_token_become_bytes() {
    let mut tokens = vec![("<unk>".to_string(), UNKNOWN, 0.0), ("▁".to_string(), NORMAL, -1.0)];
    tokens.extend((0..256).map(|byte| (format!("<0x{byte:02X}>"), BYTE, 0.0)));
    tokens.push(("<|tool|>".into(), USER, -2.0));
    let tokens: Vec<(&str, i32, f32)> = tokens.iter().map(|(text, kind, score)| (&text[..], *kind, *score)).collect();
    let tokenizer = open("spm_bytes", &file("llama", &tokens));
    assert_eq!(pieces(&tokenizer, "é"), ["▁", "<0xC3>", "<0xA9>"]);
    assert_eq!(pieces(&tokenizer, "<|tool|> "), ["<|tool|>", "▁", "▁"]);
    for text in ["é", " \0 \u{10ffff}", "<0x41>", "\r\n▁", "x<|tool|>"] {
        let back = tokenizer.decode(&tokenizer.encode(text, false), true);
        assert_eq!(back, text.replace('▁', " "), "{text:?}");
    }
}

#[test]
fn a_stop_token_of_type_normal_becomes_a_control_token() {
    let tokens = [("a", NORMAL, 0.0), ("<|im_end|>", NORMAL, 0.0), ("</s>", NORMAL, 0.0), ("[PAD7]", USER, 0.0)];
    let tokenizer = open("marks", &file("gpt2", &tokens));
    assert_eq!(tokenizer.stop, [1], "but not </s>, which can be part of a text");
    assert_eq!(tokenizer.control_texts().collect::<Vec<_>>(), ["<|im_end|>"]);
    assert_eq!(tokenizer.encode("a<|im_end|>[PAD7]", true), [0, 1], "padding tokens never come out of text");
    assert_eq!(tokenizer.encode("a<|im_end|>a", false), [0, 0]);
}

#[test]
fn odd_vocabularies_open() {
    let odd = [b"a".as_slice(), b"a", b"", b"\xff\xfe", "\u{feff}\r\n".as_bytes(), b"\0"];
    let file = Builder::new()
        .entry("tokenizer.ggml.model", STR, string("gpt2"))
        .entry("tokenizer.ggml.tokens", ARRAY, strings(&odd))
        .entry(
            "tokenizer.ggml.merges",
            ARRAY,
            strings(&[b"a a".as_slice(), b"a", b" a", b"", b"\xff a", b"aaaa aaaa"]),
        );
    let tokenizer = open("odd", &file);
    assert_eq!(
        tokenizer.encode("aab", true),
        [0, 0],
        "the first of equal texts; characters without a token are left out"
    );
    assert_eq!((tokenizer.id_of("a"), tokenizer.text_of(1), tokenizer.vocab_size()), (Some(0), Some("a"), 6));
    assert_eq!(tokenizer.encode("", true), [0; 0]);
    assert_eq!(tokenizer.decode(&[1, 2, 3, 5, 6, u32::MAX], true), "a\u{fffd}\u{fffd}\0");
}

#[test]
fn a_guessed_pre_tokenizer_is_a_warning() {
    let tokens = [("a", NORMAL, 0.0), ("b", NORMAL, 1.0)];
    let named = |name: Option<&str>, pre: Option<&str>| {
        let mut made = file("gpt2", &tokens);
        if let Some(name) = name {
            made = made.entry("tokenizer.ggml.pre", STR, string(name));
        }
        let path = write(folder("guessed_pre").join("m.gguf"), made.build());
        let tokenizer = Tokenizer::open(&path, pre).unwrap();
        (tokenizer.pre, tokenizer.warning)
    };
    for name in [None, Some(""), Some("default")] {
        let (pre, warning) = named(name, None);
        let warning = warning.unwrap();
        assert_eq!(pre, "gpt-2");
        for part in ["'tokenizer.ggml.pre'", "'gpt-2' is a guess", "Convert the model again"] {
            assert!(warning.contains(part), "{warning}");
        }
        assert!(name.is_none_or(|name| warning.contains(&format!("'{name}'"))), "{warning}");
    }
    assert_eq!(named(Some("gpt-2"), None), ("gpt-2".into(), None));
    assert_eq!(named(None, Some("qwen2")), ("qwen2".into(), None));
    let known = [("a", NORMAL, 0.0), ("<|begin_of_text|>", CONTROL, 0.0)];
    let known = open("known_pre", &file("gpt2", &known));
    assert_eq!((known.pre.as_str(), known.warning), ("llama-bpe", None));
    assert_eq!(open("spm_warning", &file("llama", &tokens)).warning, None);
}

/// GPT-2's printable stand-in for a byte.
fn spelled_byte(byte: u8) -> String {
    let is_printable = |byte: &u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut others = (0..=255).filter(|byte| !is_printable(byte));
    match others.position(|other| other == byte) {
        Some(at) => char::from_u32(256 + at as u32).unwrap().to_string(),
        None => char::from(byte).to_string(),
    }
}

/// The stand-ins for the bytes of a text.
fn spelled(text: &str) -> Vec<String> {
    text.bytes().map(spelled_byte).collect()
}

/// How a text is split, as Oniguruma splits it by the patterns of the families' `tokenizer.json` files. The vocabulary
/// can merge each piece into one token, and each piece with the next, which only the split prevents.
#[test]
fn texts_are_split_as_in_the_families_of_qwen_and_hunyuan() {
    let cases: [(&str, &[&str]); 6] = [
        ("qwen35", &["Hello", " e\u{301}t", " \u{301}x", " ", " ", "1", "2", "3", " don", "'t", "!\n\n", " ", " a"]),
        ("qwen35", &["x\u{94d}\u{937}", " \u{915}\u{93f}", " ", "4", "2"]),
        ("qwen35", &["_bar", " \u{4f60}\u{597d}abc", " \u{3001}.", "Net", "#x\u{301}", " «", "q", "»!!\r\n", " ", "7"]),
        ("hunyuan-dense", &["Hello", " e\u{301}t", "  ", "123", "45", " don", "'t", "!\n\n", " ", " a"]),
        ("hunyuan-dense", &["x\u{94d}\u{937}", " \u{915}\u{93f}", " ", "42"]),
        (
            "deepseek-v3",
            &[
                "foo",
                "_bar",
                " ",
                "\u{4f60}\u{597d}",
                "abc",
                " \u{3001}",
                "\u{30ff}\u{304b}",
                " .",
                "Net",
                "#x",
                "\u{301}",
            ],
        ),
    ];
    for (pre, expected) in cases {
        let mut tokens: Vec<String> = (0..=255).map(spelled_byte).collect();
        let mut merges = Vec::new();
        let mut merge = |left: &str, right: &str| {
            merges.push(format!("{left} {right}"));
            let joined = format!("{left}{right}");
            if !tokens.contains(&joined) {
                tokens.push(joined);
            }
        };
        for piece in expected {
            let bytes = spelled(piece);
            (1..bytes.len()).for_each(|n| merge(&bytes[..n].concat(), &bytes[n]));
        }
        let whole: Vec<String> = expected.iter().map(|piece| spelled(piece).concat()).collect();
        whole.windows(2).for_each(|pair| merge(&pair[0], &pair[1]));
        let tokens: Vec<(&str, i32, f32)> = tokens.iter().map(|text| (text.as_str(), NORMAL, 0.0)).collect();
        let made = file("gpt2", &tokens).entry("tokenizer.ggml.pre", STR, string(pre)).entry(
            "tokenizer.ggml.merges",
            ARRAY,
            strings(&merges),
        );
        let tokenizer = open("families", &made);
        let found = tokenizer.encode(&expected.concat(), false);
        let found: Vec<String> = found.iter().map(|id| tokenizer.decode(&[*id], false)).collect();
        assert_eq!(found, expected, "{pre}");
    }
}

#[test]
fn a_token_that_the_file_adds_at_the_end_is_known_and_a_warning() {
    let tokens = [("a", NORMAL, 0.0), ("</s>", CONTROL, 0.0), ("b", NORMAL, 1.0)];
    let tokenizer = open("suffix", &file("llama", &tokens).entry("tokenizer.ggml.add_eos_token", 7, [1]));
    assert_eq!(tokenizer.suffix, Some(1));
    assert!(tokenizer.warning.unwrap().contains("'</s>' (id 1) at the end"));
}

/// Work that grows with the square of these numbers would take minutes.
#[test]
fn hundreds_of_thousands_of_control_tokens_are_no_burden() {
    let equal: Vec<(&str, i32, f32)> = vec![("<|x|>", CONTROL, 0.0); 500_000];
    let tokenizer = open("equal_controls", &file("gpt2", &equal));
    assert_eq!(tokenizer.control_texts().collect::<Vec<_>>(), ["<|x|>"]);
    assert_eq!(tokenizer.control_ids("<|x|>").len(), 500_000);
    assert_eq!(tokenizer.encode(&"<|x|>".repeat(80_000), true), vec![0; 80_000]);
    assert_eq!(tokenizer.encode(&"<|x|>".repeat(80_000), false), [0; 0]);
    let parts: Vec<(&str, bool)> = (0..80_000).map(|i| ("<|x|>", i % 2 == 0)).collect();
    assert_eq!(tokenizer.encode_parts(&parts, &mut || false).expect("ids"), vec![0; 40_000]);

    let texts: Vec<String> = (0..200_000).map(|i| format!("<|control_token_{i:010}|>")).collect();
    let different: Vec<(&str, i32, f32)> = texts.iter().map(|text| (&text[..], CONTROL, 0.0)).collect();
    let path = write(folder("different_controls").join("m.gguf"), file("gpt2", &different).build());
    let message = refusal(&path, None);
    assert!(message.contains("the texts of the 200000 special tokens have"), "{message}");
    let tokenizer = open("many_controls", &file("gpt2", &different[..100_000]));
    assert_eq!(tokenizer.encode(&texts[..90_000].concat(), true), (0..90_000).collect::<Vec<u32>>());
}

#[test]
fn tokens_of_absurd_length_cost_no_more_than_their_bytes() {
    let long = "ab".repeat(20 << 20);
    for model in ["gpt2", "llama"] {
        let tokens = [("a", NORMAL, 0.0), ("b", NORMAL, 1.0), (&long[..], NORMAL, 2.0)];
        let tokenizer = open("long_token", &file(model, &tokens).entry("tokenizer.ggml.add_space_prefix", 7, [0]));
        assert_eq!(tokenizer.encode("abba", false), [0, 1, 1, 0]);
        assert_eq!(tokenizer.decode(&[2], true).len(), long.len());
        let path = write(
            folder("long_control").join("m.gguf"),
            file(model, &[("a", NORMAL, 0.0), (&long, CONTROL, 1.0)]).build(),
        );
        assert!(refusal(&path, None).contains("the texts of the 1 special tokens have"));
    }
}

#[test]
fn encoding_can_be_cancelled() {
    let tokenizer = open("cancelled", &file("gpt2", &[("a", NORMAL, 0.0)]));
    let text = "a ".repeat(100_000);
    let mut calls = 0;
    let mut watch = || {
        calls += 1;
        calls == 3
    };
    let error = tokenizer.encode_watched(&text, false, false, &mut watch).unwrap_err();
    assert_eq!((error.to_string(), calls), ("cancelled".into(), 3));
    assert_eq!(tokenizer.encode_watched(&text, false, false, &mut || false).unwrap().len(), 100_000);
}

/// A template that is read without a tokenizer has the same texts. Only SentencePiece has fallbacks.
#[test]
fn bos_and_eos_are_known_without_the_tokenizer() {
    let tokens = [("<s>", CONTROL, 0.0), ("</s>", CONTROL, 0.0), ("a", NORMAL, 1.0), ("b", NORMAL, 2.0)];
    for (model, bos, expected) in [
        ("llama", None, (Some("<s>"), Some("</s>"))),
        ("llama", Some(2_u32), (Some("a"), Some("</s>"))),
        ("gpt2", None, (None, None)),
        ("gpt2", Some(3), (Some("b"), None)),
    ] {
        let mut made = file(model, &tokens);
        if let Some(id) = bos {
            made = made.entry("tokenizer.ggml.bos_token_id", 4, id.to_le_bytes());
        }
        let path = write(folder("bos_eos").join("m.gguf"), made.build());
        let tokenizer = Tokenizer::open(&path, None).unwrap();
        assert_eq!((tokenizer.bos_text(), tokenizer.eos_text()), expected);
        let (bos, eos) = bos_eos_texts(&Gguf::open(&path).unwrap()).unwrap();
        assert_eq!((bos.as_deref(), eos.as_deref()), expected);
    }
    let bad = file("llama", &tokens).entry("tokenizer.ggml.bos_token_id", 4, 4_u32.to_le_bytes());
    let path = write(folder("bos_eos").join("bad.gguf"), bad.build());
    let message = bos_eos_texts(&Gguf::open(&path).unwrap()).unwrap_err().to_string();
    assert!(message.starts_with(&format!("{}: ", path.display())) && message.contains("is 4, expected"), "{message}");
}

#[test]
fn a_pre_tokenizer_for_sentencepiece_is_refused() {
    let path = folder("spm_pre").join("m.gguf");
    let path = write(path, file("llama", &[("a", NORMAL, 0.0), ("b", NORMAL, 1.0)]).build());
    assert!(refusal(&path, Some("qwen2")).contains("leave out 'pre'"));
    let path = write(path, file("bert", &[("a", NORMAL, 0.0)]).build());
    let message = refusal(&path, None);
    assert!(message.contains("'bert'") && message.contains("this engine has gpt2"), "{message}");
}

#[test]
fn a_model_file_takes_the_tokenizer_json_inside_it_or_beside_it() {
    let json = fixture("tokenizers/bytes/tokenizer.json");
    let folder = folder("beside");
    let bare = write(folder.join("m.gguf"), Builder::new().build());
    let message = refusal(&bare, None);
    assert!(message.contains("tokenizer.ggml.model") && message.contains("tokenizer.json"), "{message}");

    std::fs::copy(&json, folder.join("tokenizer.json")).unwrap();
    write(folder.join("generation_config.json"), r#"{"eos_token_id": 3}"#);
    let beside = Tokenizer::from_gguf(&Gguf::open(&bare).unwrap(), None).unwrap();
    let alone = Tokenizer::open(&json, None).unwrap();
    assert_eq!(beside.encode("the licence", false), alone.encode("the licence", false));
    assert_eq!(beside.eos, Some(3));
    write(folder.join("tokenizer.json"), "{}");
    assert!(refusal(&bare, None).contains("tokenizer.json"));

    let own = file("gpt2", &[("a", NORMAL, 0.0)]);
    assert_eq!(open("own", &own).vocab_size(), 1, "the tokenizer inside the file comes first");
    let inside = own
        .entry("tokenizer.huggingface.json", STR, string(std::fs::read(&json).unwrap()))
        .uint("tokenizer.ggml.eos_token_id", 5)
        .entry("tokenizer.ggml.add_bos_token", 7, [0]);
    let inside = open("inside", &inside);
    assert_eq!(inside.encode("the licence", false), alone.encode("the licence", false));
    assert_eq!((inside.eos, inside.add_bos, inside.bos), (Some(5), false, alone.bos));
}

static MADE: LazyLock<[Tokenizer; 2]> = LazyLock::new(|| {
    ["falcon", "sentence"]
        .map(|name| Tokenizer::open(&fixture("tokenizers").join(name).join("tokenizer.json"), None).unwrap())
});

/// A piece of text that exercises the edges of some rule.
fn tricky() -> impl Strategy<Value = String> {
    let units = [" ", "\n", "\r\n", "\t", "a", "é", "1", "'s", "<|endoftext|>", "</s>", "\u{a0}", "🙂", "\0", "<0x41>"];
    prop_oneof![any::<String>(), (prop::sample::select(units.to_vec()), 1..9_usize).prop_map(|(u, n)| u.repeat(n))]
}

proptest! {
    #[test]
    fn any_text_round_trips(parts in prop::collection::vec(tricky(), 0..8)) {
        let text = parts.concat();
        let [bytes, sentence] = &*MADE;
        prop_assert_eq!(bytes.decode(&bytes.encode(&text, false), false), text.clone());
        // SentencePiece spells U+2581 and the space alike.
        prop_assert_eq!(sentence.decode(&sentence.encode(&text, false), false), text.replace('▁', " "));
    }

    #[test]
    fn parts_that_are_plain_are_encoded_as_one_text(parts in prop::collection::vec(tricky(), 0..5)) {
        let plain: Vec<(&str, bool)> = parts.iter().map(|part| (part.as_str(), false)).collect();
        for tokenizer in &*MADE {
            prop_assert_eq!(tokenizer.encode_parts(&plain, &mut || false).expect("ids"), tokenizer.encode(&parts.concat(), false));
        }
    }
}

#[test]
fn every_character_of_unicode_round_trips() {
    let all: String = ('\0'..=char::MAX).filter(|c| *c != '▁').collect();
    for tokenizer in &*MADE {
        assert!(tokenizer.decode(&tokenizer.encode(&all, false), false) == all, "{}", tokenizer.pre);
    }
}
