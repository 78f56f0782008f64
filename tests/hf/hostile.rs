//! Broken and hostile directories: each is refused with a reason, at no cost.

use crate::builder::*;
use bitnet::checkpoint::Checkpoint;
use bitnet::engine::{Engine, Inspection, Options};
use serde_json::{Value, json};
use std::path::Path;

/// The message with which an engine refuses a directory.
fn engine_refusal(path: &Path) -> String {
    match Engine::open(path, Options { n_threads: Some(1), ..Options::default() }, &mut || false) {
        Ok(_) => panic!("{} opens", path.display()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn damaged_containers() {
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!("{{\"t\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}")
    };
    let one = entry("F32", "[1]", "[0,4]");
    let twice = format!("{},{}", &one[..one.len() - 1], &one[1..]);
    let huge = u64::MAX.to_le_bytes();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"abc".to_vec(), "its header is invalid"),
        (huge.to_vec(), "its header is invalid"),
        ([&huge[..], b"{}"].concat(), "its header is invalid"),
        (raw("[1]", b""), "does not begin with '{'"),
        (raw(" {}", b""), "does not begin with '{'"),
        (raw("{", b""), "its header is invalid"),
        (raw(&twice, &[0; 4]), "the tensor 't' occurs twice"),
        (raw(&entry("F13", "[1]", "[0,4]"), &[0; 4]), "unknown variant `F13`"),
        (raw(&one, &[0; 3]), "its header is invalid"),
        (raw(&one, &[0; 5]), "its header is invalid"),
        (raw(&entry("F32", "[2]", "[0,4]"), &[0; 4]), "its header is invalid"),
        (raw(&entry("F32", "[1]", "[4,8]"), &[0; 8]), "its header is invalid"),
        (raw(&entry("F32", "[1]", "[4,0]"), &[0; 4]), "its header is invalid"),
        (raw(&entry("F32", "[-1]", "[0,4]"), &[0; 4]), "its header is invalid"),
        (raw(&entry("U8", "[4294967296,4294967296,4]", "[0,4]"), &[0; 4]), "its header is invalid"),
        (raw(&entry("U8", "[0]", "[0,0]"), b""), "has a dimension of 0"),
        (raw(&entry("U8", "[1,1,1,1,1]", "[0,1]"), &[0]), "has 5 dimensions"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n".to_vec(), "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>".to_vec(), "is an HTML page"),
    ];
    let folder = Builder::packed().write("damaged");
    for (bytes, reason) in cases {
        std::fs::write(folder.join("model.safetensors"), &bytes).unwrap();
        let message = refusal(&folder);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        assert!(message.contains(reason) && message.contains("model.safetensors"), "{shown}: {message}");
    }
    std::fs::write(folder.join("model.safetensors"), b"").unwrap();
    assert!(refusal(&folder).contains("the file is empty"));
}

#[test]
fn every_cut_and_every_changed_byte_of_a_header_is_survived() {
    let folder = Builder::packed().write("changed");
    let whole = Builder::packed().weights();
    let header = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    for cut in (0..whole.len()).step_by(7) {
        std::fs::write(folder.join("model.safetensors"), &whole[..cut]).unwrap();
        assert!(Checkpoint::open(&folder).is_err(), "{cut} bytes");
    }
    for at in (0..header).step_by(3) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 7);
        std::fs::write(folder.join("model.safetensors"), &bytes).unwrap();
        if let Ok(engine) = Engine::open(&folder, Options { n_threads: Some(1), ..Options::default() }, &mut || false) {
            let _ = engine.logits(&[vec![0, 1]], &mut || false);
        }
    }
}

#[test]
fn settings_that_cannot_be_right() {
    let cases: Vec<(&str, Value, &str)> = vec![
        ("model_type", json!(null), "'model_type' is missing"),
        ("model_type", json!("mamba"), "'model_type' is \"mamba\"; this engine opens directories of: llama, bitnet"),
        ("hidden_size", json!(null), "'hidden_size' is missing"),
        ("hidden_size", json!("8"), "'hidden_size' is \"8\", expected a whole number"),
        ("hidden_size", json!(-8), "'hidden_size' is -8, expected a whole number"),
        ("hidden_size", json!(8.5), "'hidden_size' is 8.5, expected a whole number"),
        ("num_attention_heads", json!(0), "'num_attention_heads' is 0"),
        ("num_hidden_layers", json!(u64::MAX), "block_count"),
        ("rope_theta", json!([]), "'rope_theta' is [], expected a number"),
        ("rope_theta", json!(1e300), "rope.freq_base"),
        ("rope_theta", json!(-1), "rope.freq_base"),
        ("rms_norm_eps", json!(0), "layer_norm_rms_epsilon"),
        ("rope_scaling", json!({"type": "spiral", "factor": 2}), "'rope_scaling.rope_type' is \"spiral\""),
        ("rope_scaling", json!({"type": "linear"}), "'rope_scaling.factor' is missing"),
        ("rope_scaling", json!({"type": "linear", "factor": 0}), "'rope_scaling.factor' is 0"),
        ("rope_scaling", json!({"type": "linear", "factor": 2, "twist": 3}), "'rope_scaling.twist' is 3"),
        ("rope_scaling", json!({"type": "dynamic", "factor": 2}), "'rope_scaling.rope_type' is \"dynamic\""),
        ("rope_scaling", json!({"type": "longrope", "short_factor": []}), "'rope_scaling.short_factor' is missing"),
        (
            "rope_scaling",
            json!({"type": "longrope", "short_factor": [1, 1], "long_factor": [1, 1]}),
            "rope_factors_short",
        ),
        ("rope_scaling", json!({"type": "yarn", "factor": 2, "mscale": 0.7}), "'rope_scaling.mscale' is 0.7"),
        (
            "rope_scaling",
            json!({"type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4,
                "original_max_position_embeddings": 16}),
            "'rope_scaling.high_freq_factor' is 4",
        ),
        ("partial_rotary_factor", json!(1.5), "'partial_rotary_factor' is 1.5"),
        ("hidden_act", json!("gelu"), "'gelu'"),
        ("num_local_experts", json!(8), "'num_local_experts' is 8; this engine does not know this setting"),
        ("embedding_multiplier", json!(12.0), "'embedding_multiplier' is 12.0"),
        ("sliding_window", json!(4), "'sliding_window' is 4"),
        ("layer_types", json!(["sliding_attention"]), "'layer_types' is \"sliding_attention\""),
        ("attention_bias", json!(true), "there are 0 tensors 'attn_….bias'"),
        ("head_dim", json!(6), "attn_q"),
        ("vocab_size", json!(17), "token_embd"),
        ("quantization_config", json!({"quant_method": "gptq"}), "'quantization_config.quant_method' is \"gptq\""),
        ("quantization_config", json!({"quant_method": "bitnet", "bits": 4}), "'quantization_config.bits' is 4"),
        ("quantization_config", json!(null), "no quantization_config, which says what they mean"),
        (
            "quantization_config",
            json!({"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}),
            "quantization_config promises floats",
        ),
        (
            "quantization_config",
            json!({"quant_method": "bitnet", "linear_class": "trilinear"}),
            "'quantization_config.linear_class' is \"trilinear\"",
        ),
    ];
    for (key, value, reason) in cases {
        let message = engine_refusal(&Builder::packed().set(key, value.clone()).write("settings"));
        assert!(message.contains(reason), "{key} = {value}: {message}");
    }
    // Neither of these changes what is computed.
    for (key, value) in [
        ("num_local_experts", json!(0)),
        ("embedding_multiplier", json!(1.0)),
        ("rope_scaling", json!(null)),
        ("sliding_window", json!(null)),
        ("_name_or_path", json!("/home/somebody")),
        ("a_note", json!("of the makers")),
    ] {
        Checkpoint::open(Builder::packed().set(key, value).write("harmless")).unwrap_or_else(|e| panic!("{key}: {e}"));
    }
    let noted = Checkpoint::open(Builder::packed().set("a_note", json!("of the makers")).write("harmless")).unwrap();
    assert!(noted.warnings()[0].contains("a_note"));
}

#[test]
fn files_that_are_no_configuration() {
    let folder = Builder::packed().write("no_configuration");
    for (text, reason) in [
        ("", "is not JSON"),
        ("[]", "is not a JSON object"),
        ("{\"a\": NaN}", "is not JSON"),
        ("version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ] {
        std::fs::write(folder.join("config.json"), text).unwrap();
        assert!(refusal(&folder).contains(reason), "{text}: {}", refusal(&folder));
    }
    let nested = "[".repeat(100_000);
    std::fs::write(folder.join("config.json"), nested).unwrap();
    assert!(refusal(&folder).contains("is not JSON"));
    std::fs::remove_file(folder.join("config.json")).unwrap();
    assert!(refusal(&folder).contains("is a directory without config.json"));
}

#[test]
fn tensors_that_cannot_be_right() {
    let q = "model.layers.0.self_attn.q_proj";
    let (weight, scale) = (format!("{q}.weight"), format!("{q}.weight_scale"));
    let packed = || Builder::packed().without(q);
    let bytes = pack(&trits(0, WIDTH * WIDTH), WIDTH, WIDTH);
    let cases: Vec<(Builder, &str)> = vec![
        (Builder::packed().without(&scale), "q_proj.weight_scale' is missing"),
        (packed().tensor(&scale, "F32", &[1], f32s(&[1.0])), "is the scale of no packed weights"),
        (
            packed().tensor(&weight, "U8", &[2, WIDTH], bytes.clone()).tensor(&scale, "F32", &[2], f32s(&[1.0; 2])),
            "has 2 values, but this engine has one scale",
        ),
        (
            packed().tensor(&weight, "U8", &[2, WIDTH], bytes.clone()).tensor(&scale, "F32", &[1], f32s(&[0.0])),
            "makes no finite scale",
        ),
        (
            packed().tensor(&weight, "U8", &[2, WIDTH], bytes.clone()).tensor(&scale, "F32", &[1], f32s(&[f32::NAN])),
            "is NaN, expected a finite number",
        ),
        (
            packed().tensor(&weight, "U8", &[2, WIDTH], vec![0xff; 16]).tensor(&scale, "F32", &[1], f32s(&[1.0])),
            "holds the code 3",
        ),
        (
            packed().tensor(&weight, "U8", &[3, WIDTH], vec![0x55; 24]).tensor(&scale, "F32", &[1], f32s(&[1.0])),
            "has the shape [8, 12], expected [8, 8]",
        ),
        (packed().tensor(&weight, "BF16", &[WIDTH, WIDTH], vec![0; 128]), "promises packed bytes (U8)"),
        (
            Builder::packed().without("embed").tensor("model.embed_tokens.weight", "I64", &[1], vec![0; 8]),
            "the type I64",
        ),
        (Builder::packed().tensor("model.layers.0.mlp.router.weight", "F32", &[1], vec![0; 4]), "is not part of"),
        (Builder::packed().tensor("norm.weight", "F32", &[WIDTH], vec![0; 32]), "occurs twice"),
        (Builder::packed().tensor(&format!("{q}.bias"), "F32", &[WIDTH], vec![0; 32]), "says that there is none"),
        (Builder::packed().without("model.norm"), "output_norm.weight' is missing"),
    ];
    for (builder, reason) in cases {
        let message = engine_refusal(&builder.write("tensors"));
        assert!(message.contains(reason), "{reason}: {message}");
    }
    let online = json!({"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"});
    let infinite = Builder::floats(online).without(q).tensor(
        &weight,
        "F32",
        &[WIDTH, WIDTH],
        f32s(&[f32::INFINITY; WIDTH * WIDTH]),
    );
    let message = engine_refusal(&infinite.write("tensors"));
    assert!(message.contains("row 0, column 0 is inf"), "{message}");
}

/// Writes a model in two files with an index.
fn sharded(name: &str, index: impl Fn(&str) -> Value) -> std::path::PathBuf {
    let builder = Builder::packed();
    let folder = builder.write(name);
    std::fs::remove_file(folder.join("model.safetensors")).unwrap();
    let (first, second) = builder.tensors.split_at(9);
    std::fs::write(folder.join("a.safetensors"), container(first, 0)).unwrap();
    std::fs::write(folder.join("b.safetensors"), container(second, 0)).unwrap();
    let file = |i| if i < 9 { "a.safetensors" } else { "b.safetensors" };
    let map = builder.tensors.iter().enumerate().map(|(i, tensor)| (tensor.name.clone(), index(file(i))));
    let map: serde_json::Map<String, Value> = map.collect();
    std::fs::write(folder.join("model.safetensors.index.json"), json!({"weight_map": map}).to_string()).unwrap();
    folder
}

#[test]
fn an_index_names_files_inside() {
    let folder = sharded("index", |file| json!(file));
    for path in ["", "config.json", "a.safetensors", "model.safetensors.index.json"] {
        assert!(Checkpoint::open(folder.join(path)).is_ok(), "{path}");
    }
    for name in [
        json!("../b.safetensors"),
        json!("c:\\b.safetensors"),
        json!("/b.safetensors"),
        json!("b.bin"),
        json!(1),
        json!(".."),
    ] {
        let folder = sharded("index_names", |file| if file == "b.safetensors" { name.clone() } else { json!(file) });
        assert!(refusal(&folder).contains("expected the name of a .safetensors file"), "{name}");
    }
    let folder = sharded("index_swapped", |file| json!(if file == "a.safetensors" { "b.safetensors" } else { file }));
    assert!(refusal(&folder).contains("is missing in 'b.safetensors'"), "{}", refusal(&folder));
    let folder = sharded("index_missing", |file| json!(file));
    std::fs::remove_file(folder.join("b.safetensors")).unwrap();
    assert!(refusal(&folder).contains("'b.safetensors' is missing"));
    let folder = sharded("index_twice", |file| json!(file));
    std::fs::copy(folder.join("a.safetensors"), folder.join("b.safetensors")).unwrap();
    assert!(refusal(&folder).contains("is in two files, 'a.safetensors' and 'b.safetensors'"));
    std::fs::write(folder.join("model.safetensors.index.json"), "{}").unwrap();
    assert!(refusal(&folder).contains("has no 'weight_map'"));
}

#[test]
fn pickles_are_refused_with_the_reason() {
    for name in ["pytorch_model.bin", "model.pt", "pytorch_model-00001-of-00002.bin"] {
        let folder = Builder::packed().write("pickles");
        std::fs::rename(folder.join("model.safetensors"), folder.join(name)).unwrap();
        let message = refusal(&folder);
        assert!(message.contains(name) && message.contains("a pickle, which runs code"), "{message}");
        assert!(Inspection::open(&folder, &mut || false).unwrap().model().is_err());
    }
    let folder = Builder::packed().write("nothing");
    std::fs::remove_file(folder.join("model.safetensors")).unwrap();
    assert!(refusal(&folder).contains("has no weights"));
    std::fs::write(folder.join("model.gguf"), "GGUF").unwrap();
    assert!(refusal(&folder).contains("give the path of 'model.gguf'"));
}

#[cfg(unix)]
#[test]
fn links_stay_inside() {
    use std::os::unix::fs::symlink;
    let outside = Builder::packed().write("links_outside");
    for name in ["model.safetensors", "config.json", "tokenizer.json"] {
        let folder = Builder::packed().write("links");
        let _ = std::fs::remove_file(folder.join(name));
        std::fs::write(outside.join("tokenizer.json"), "{}").unwrap();
        symlink(outside.join(name), folder.join(name)).unwrap();
        assert!(refusal(&folder).contains("is a link that leaves the directory"), "{name}: {}", refusal(&folder));
    }
    // The cache of huggingface_hub: a snapshot links to the blobs of its repository.
    let repository = folder("models--owner--name");
    let snapshot = repository.join("snapshots").join("0123abc");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::rename(&outside, repository.join("blobs")).unwrap();
    for name in ["config.json", "model.safetensors"] {
        symlink(Path::new("../../blobs").join(name), snapshot.join(name)).unwrap();
    }
    let checkpoint = Checkpoint::open(&snapshot).unwrap();
    assert_eq!(checkpoint.metadata().str("general.name").unwrap(), Some("name"));
}

#[test]
fn refused_directories_are_listed() {
    let folder = Builder::packed().set("model_type", json!("mamba")).write("listed");
    let inspection = Inspection::open(&folder, &mut || false).unwrap();
    assert!(inspection.model().is_err());
    assert_eq!(inspection.metadata().str("general.architecture").unwrap(), Some("mamba"));
    assert_eq!(inspection.types()["U8"].tensors, 7);
}
