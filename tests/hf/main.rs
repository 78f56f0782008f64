//! Hugging Face directories, built here file by file: what is read, and what is refused with a reason.

mod builder;
mod hostile;

use bitnet::checkpoint::gguf::TensorType;
use bitnet::checkpoint::{Checkpoint, fingerprint};
use bitnet::codec::{RowTrits, TensorRows};
use bitnet::engine::{ActQuant, Engine, Options};
use builder::*;
use serde_json::{Value, json};
use std::path::Path;

fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let tensor = checkpoint.tensor(name).unwrap_or_else(|| panic!("no tensor {name}"));
    let rows = TensorRows::of(checkpoint, tensor).unwrap();
    let mut values = vec![0.0; rows.rows() * rows.cols()];
    values.chunks_mut(rows.cols()).enumerate().for_each(|(row, values)| rows.dequantize(row, values));
    values
}

fn float(checkpoint: &Checkpoint, key: &str) -> f32 {
    checkpoint.metadata().float(key).unwrap().unwrap_or_else(|| panic!("no key {key}"))
}

fn logits(path: &Path) -> Vec<f32> {
    let options = Options { n_threads: Some(1), ..Options::default() };
    let engine = Engine::open(path, options, &mut || false).unwrap();
    engine.logits(&[vec![1, 2, 3]], &mut || false).unwrap().remove(0)
}

#[test]
fn packed_bytes_are_four_rows() {
    // The published example: the rows r, R + r, 2R + r and 3R + r are 1, 0, −1 and 1.
    assert_eq!(pack(&[1, 0, -1, 1], 4, 1), [134]);
    let checkpoint = Checkpoint::open(Builder::packed().write("packed")).unwrap();
    let tensor = checkpoint.tensor("blk.0.ffn_gate.weight").unwrap();
    assert_eq!((tensor.kind(), tensor.shape()), (TensorType::U8_TRITS, &[WIDTH, FFN][..]));
    let expected: Vec<f32> = trits(4, FFN * WIDTH).into_iter().map(|trit| f32::from(trit) * 0.25).collect();
    assert_eq!(values(&checkpoint, "blk.0.ffn_gate.weight"), expected);
    let rows = TensorRows::of(&checkpoint, tensor).unwrap();
    let mut found = vec![0; WIDTH];
    for row in 0..FFN {
        assert_eq!(rows.trits(row, &mut found).unwrap(), RowTrits::Scale(0.25));
        assert_eq!(found, trits(4, FFN * WIDTH)[row * WIDTH..][..WIDTH]);
        assert_eq!(rows.stored_scales(row), Some(vec![0.25]));
        rows.stored_trits(row, &mut found).unwrap();
        assert_eq!(found, trits(4, FFN * WIDTH)[row * WIDTH..][..WIDTH]);
    }
}

#[test]
fn the_linear_class_decides_whether_a_scale_divides() {
    for (class, scale) in [(json!(null), 0.25), (json!("bitlinear"), 0.25), (json!("autobitlinear"), 4.0)] {
        let quantization = json!({"quant_method": "bitnet", "linear_class": class});
        let path = Builder::packed().set("quantization_config", quantization).write("linear_class");
        let checkpoint = Checkpoint::open(path).unwrap();
        assert_eq!(checkpoint.tensor("blk.0.attn_q.weight").unwrap().scale(), Some(scale), "{class}");
    }
}

#[test]
fn trits_are_made_of_masters() {
    let online = json!({"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"});
    // The mean magnitude is 2, so that 1 and 3 are at a half: they round to 0 and to 2, which is cut to 1.
    let floats = [1.0, -1.0, 3.0, -3.0, 1.5, -1.5, 2.5, -2.5];
    let masters: Vec<f32> = floats.iter().cycle().take(WIDTH * WIDTH).copied().collect();
    for (dtype, data, kind) in
        [("BF16", bf16(&masters), TensorType::BF16_MASTER), ("F32", f32s(&masters), TensorType::F32_MASTER)]
    {
        let path = Builder::floats(online.clone())
            .without("q_proj")
            .tensor("model.layers.0.self_attn.q_proj.weight", dtype, &[WIDTH, WIDTH], data)
            .write("masters");
        let checkpoint = Checkpoint::open(path).unwrap();
        assert_eq!(checkpoint.tensor("blk.0.attn_q.weight").unwrap().kind(), kind);
        assert_eq!(values(&checkpoint, "blk.0.attn_q.weight")[..8], [0.0, 0.0, 2.0, -2.0, 2.0, -2.0, 2.0, -2.0]);
        assert_eq!(checkpoint.tensor("token_embd.weight").unwrap().kind(), TensorType::BF16, "not a projection");
    }
    let zeros = Builder::floats(online).without("q_proj").tensor(
        "model.layers.0.self_attn.q_proj.weight",
        "F32",
        &[WIDTH, WIDTH],
        f32s(&[0.0; WIDTH * WIDTH]),
    );
    let checkpoint = Checkpoint::open(zeros.write("masters_of_zeros")).unwrap();
    let rows = TensorRows::of(&checkpoint, checkpoint.tensor("blk.0.attn_q.weight").unwrap()).unwrap();
    assert_eq!(rows.trits(0, &mut [0; WIDTH]).unwrap(), RowTrits::Zero);
    assert_eq!(rows.stored_scales(0), Some(vec![1e-5]));
}

#[test]
fn masters_and_packed_bytes_of_the_same_trits_give_the_same_logits() {
    let online = json!({"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"});
    let masters = Builder::floats(online).write("same_masters");
    let checkpoint = Checkpoint::open(&masters).unwrap();
    let offline = json!({"quant_method": "bitnet", "linear_class": "autobitlinear"});
    let mut packed = Builder::packed().without("weight_scale").set("quantization_config", offline);
    let names = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
    for ((module, ..), name) in PROJECTIONS.into_iter().zip(names) {
        let tensor = checkpoint.tensor(&format!("blk.0.{name}.weight")).unwrap();
        let mean = TensorRows::of(&checkpoint, tensor).unwrap().stored_scales(0).unwrap();
        packed = packed.tensor(&format!("model.layers.0.{module}.weight_scale"), "F32", &[1], f32s(&mean));
    }
    assert_eq!(logits(&masters), logits(&packed.write("same_packed")));
}

#[test]
fn modules_that_are_not_converted_stay_floats_and_read_floats() {
    let mut weights = [0.0; WIDTH * WIDTH];
    weights.iter_mut().enumerate().for_each(|(i, weight)| *weight = (i % 5) as f32 / 4.0 - 0.5);
    let module = "model.layers.0.self_attn.q_proj";
    let kept = |patterns: Value| {
        let quantization = json!({"quant_method": "bitnet", "modules_to_not_convert": patterns});
        let builder = Builder::packed().without(module).set("quantization_config", quantization);
        builder.tensor(&format!("{module}.weight"), "F32", &[WIDTH, WIDTH], f32s(&weights)).write("unconverted")
    };
    let found = logits(&kept(json!([module, "lm_head"])));
    assert_eq!(logits(&kept(json!(["q_proj"]))), found, "the end of a name");
    assert!(refusal(&kept(json!(["lm_head"]))).contains("promises packed bytes"));
    let open = |act_quant| {
        let options = Options { n_threads: Some(1), act_quant, ..Options::default() };
        Engine::open(&kept(json!(["q_proj"])), options, &mut || false).unwrap()
    };
    assert_eq!(open(None).act_quant(), ActQuant::Int8);
    // With float inputs everywhere, the other projections give other values, but near ones.
    let floats = open(Some(ActQuant::None)).logits(&[vec![1, 2, 3]], &mut || false).unwrap().concat();
    let most = found.iter().zip(&floats).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
    assert!(most > 0.0 && most < 0.2, "{most}");
}

#[test]
fn names_that_transformers_may_read_otherwise_are_refused() {
    let online = |patterns: Value| {
        json!({
            "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online",
            "modules_to_not_convert": patterns
        })
    };
    for pattern in ["model.layers.0.*", "down_proj$", "(q|k)_proj", "mlp", "layers.0.mlp."] {
        let folder = Builder::floats(online(json!([pattern]))).write("patterns");
        assert!(refusal(&folder).contains(pattern), "{pattern}");
    }
    for pattern in ["lm_head", "down_proj", "model.layers.0.mlp", ""] {
        assert!(Checkpoint::open(Builder::floats(online(json!([pattern]))).write("patterns")).is_ok(), "{pattern}");
    }
}

#[test]
fn norms_before_projections_are_as_the_configuration_says() {
    let quantization = |stated: bool| json!({"quant_method": "bitnet", "use_rms_norm": stated});
    assert!(
        refusal(&Builder::packed().set("quantization_config", quantization(true)).write("norms")).contains("no norms")
    );
    let with_norms = |mut builder: Builder| {
        for (name, _, cols) in builder::PROJECTIONS {
            let name = format!("model.layers.0.{name}.norm.weight");
            builder = builder.tensor(&name, "BF16", &[cols], bf16(&vec![1.0; cols]));
        }
        builder.set("model_type", json!("qwen3"))
    };
    let stated = with_norms(Builder::packed()).set("quantization_config", quantization(false)).write("norms");
    assert!(refusal(&stated).contains("such norms"));
    // Without a quantization_config, floats with such norms are masters.
    let checkpoint = Checkpoint::open(with_norms(Builder::floats(json!(null))).write("norms")).unwrap();
    assert_eq!(checkpoint.tensor("blk.0.ffn_up.weight").unwrap().kind(), TensorType::BF16_MASTER);
    let plain = Checkpoint::open(Builder::floats(json!(null)).write("no norms")).unwrap();
    assert_eq!(plain.tensor("blk.0.ffn_up.weight").unwrap().kind(), TensorType::BF16);
}

#[test]
fn the_pooling_of_an_embedding_model() {
    let folder = Builder::packed().write("pooling");
    std::fs::create_dir_all(folder.join("1_Pooling")).unwrap();
    for (content, stated) in [
        (r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#, Some(2)),
        (r#"{"pooling_mode": "lasttoken"}"#, Some(3)),
        (r#"{"pooling_mode": "mean"}"#, Some(1)),
        (r#"{"pooling_mode": "max"}"#, None),
        (r#"{"pooling_mode": ["mean", "cls"]}"#, None),
        (r#"{"pooling_mode_mean_tokens": true, "pooling_mode_lasttoken": true}"#, None),
        ("{}", None),
    ] {
        std::fs::write(folder.join("1_Pooling/config.json"), content).unwrap();
        match stated {
            Some(kind) => {
                let checkpoint = Checkpoint::open(&folder).unwrap();
                assert_eq!(checkpoint.metadata().uint("llama.pooling_type").unwrap(), Some(kind), "{content}");
            }
            None => assert!(refusal(&folder).contains("1_Pooling"), "{content}"),
        }
    }
    std::fs::remove_dir_all(folder.join("1_Pooling")).unwrap();
    for (kind, known) in [("Transformer", true), ("Normalize", true), ("Dense", false)] {
        let module = json!([{"idx": 0, "type": format!("sentence_transformers.models.{kind}")}]);
        std::fs::write(folder.join("modules.json"), module.to_string()).unwrap();
        assert_eq!(Checkpoint::open(&folder).is_ok(), known, "{kind}");
    }
}

#[cfg(unix)]
#[test]
fn a_link_that_leaves_the_directory_is_refused_by_tokenizer_and_template() {
    let folder = Builder::packed().write("links");
    std::fs::write(folder.join("tokenizer.json"), "{}").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.join("chat_template.jinja")).unwrap();
    let leaves = |error: bitnet::error::Error| error.to_string().contains("chat_template.jinja");
    assert!(bitnet::tokenizer::Tokenizer::open(&folder, None).is_err_and(leaves));
    assert!(bitnet::engine::template_of_file(&folder, None).is_err_and(leaves));
}

#[test]
fn unaligned_bytes_give_the_same_logits() {
    let aligned = logits(&Builder::packed().write("aligned"));
    for spaces in 1..4 {
        let builder = Builder { spaces, ..Builder::packed() };
        assert_eq!(logits(&builder.write("unaligned")), aligned, "{spaces} spaces");
    }
}

#[test]
fn a_directory_opens_by_several_paths() {
    let folder = Builder::packed().write("paths");
    for path in ["", "config.json", "model.safetensors"] {
        let checkpoint = Checkpoint::open(folder.join(path)).unwrap();
        assert_eq!(checkpoint.folder().join(""), folder.join(""), "{path}");
        assert_eq!(checkpoint.version(), None);
        assert_eq!(checkpoint.metadata().str("general.name").unwrap(), Some("paths"));
    }
    // Several files without an index: one is named.
    std::fs::rename(folder.join("model.safetensors"), folder.join("a.safetensors")).unwrap();
    assert!(Checkpoint::open(&folder).is_ok(), "the only one");
    std::fs::write(folder.join("b.safetensors"), Builder::packed().weights()).unwrap();
    assert!(refusal(&folder).contains("has 2 safetensors files"));
    let named = Checkpoint::open(folder.join("b.safetensors")).unwrap();
    assert_eq!(named.path(), folder.join("b.safetensors"));
}

#[test]
fn settings_that_are_left_out_are_those_of_transformers() {
    let config = |kind: &str| {
        let builder = Builder::floats(json!(null)).set("model_type", json!(kind)).set("num_attention_heads", json!(2));
        let builder = builder.set("rms_norm_eps", Value::Null);
        Checkpoint::open_metadata(builder.write(&format!("default_{kind}"))).unwrap()
    };
    for (kind, arch, head_dim, kv_heads, theta, eps) in [
        ("llama", "llama", 4, 2, 1e4, 1e-6),
        ("bitnet", "bitnet-b1.58", 4, 5, 5e5, 1e-5),
        ("qwen2", "qwen2", 4, 32, 1e4, 1e-6),
        ("qwen3", "qwen3", 128, 32, 1e4, 1e-6),
        ("gemma3_text", "gemma3", 256, 4, 1e6, 1e-6),
        ("minicpm", "minicpm", 4, 2, 1e4, 1e-6),
        ("hunyuan_v1_dense", "hunyuan-dense", 4, 2, 1e4, 1e-5),
    ] {
        let checkpoint = config(kind);
        let key = |key: &str| format!("{arch}.{key}");
        let uint = |name: &str| checkpoint.metadata().uint(&key(name)).unwrap();
        assert_eq!(checkpoint.metadata().str("general.architecture").unwrap(), Some(arch));
        assert_eq!(uint("attention.key_length"), Some(head_dim), "{kind}");
        assert_eq!(uint("attention.head_count_kv"), Some(kv_heads), "{kind}");
        assert_eq!(float(&checkpoint, &key("rope.freq_base")), theta, "{kind}");
        assert_eq!(float(&checkpoint, &key("attention.layer_norm_rms_epsilon")), eps, "{kind}");
    }
}

#[test]
fn rotary_settings_of_both_versions_of_transformers() {
    // Windows refuses to write over a file that is open and mapped.
    let read = |folder: &str, key: &str, value: Value| {
        let builder = Builder::floats(json!(null)).set("rope_theta", json!(5e5)).set(key, value);
        Checkpoint::open(builder.write(folder)).unwrap()
    };
    let old = read("rope linear", "rope_scaling", json!({"type": "linear", "factor": 4}));
    assert_eq!(float(&old, "llama.rope.freq_base"), 5e5);
    assert_eq!(float(&old, "llama.rope.scaling.factor"), 4.0);
    let new = read(
        "rope yarn",
        "rope_parameters",
        json!({"rope_theta": 7e5, "rope_type": "yarn", "factor": 4.0,
        "original_max_position_embeddings": 16, "attention_factor": 1.5}),
    );
    assert_eq!(float(&new, "llama.rope.freq_base"), 7e5);
    assert_eq!(float(&new, "llama.rope.scaling.yarn_attn_factor"), 1.5);
    assert_eq!(new.metadata().str("llama.rope.scaling.type").unwrap(), Some("yarn"));
    let llama = read(
        "rope llama3",
        "rope_scaling",
        json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}),
    );
    // By transformers' formula: wavelengths 2π·θ^(2i/8) of 6.3, 167, 4443 and 118,150, against 2048 and 8192.
    let smooth = (8192.0 / (2.0 * std::f64::consts::PI * 5e5f64.sqrt()) - 1.0) / 3.0;
    let blended = (1.0 / ((1.0 - smooth) / 8.0 + smooth)) as f32;
    assert_eq!(values(&llama, "rope_freqs.weight"), [1.0, 1.0, blended, 8.0]);
    let long = json!({"type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [2, 2, 3, 4],
        "original_max_position_embeddings": 16});
    let long = read("rope longrope", "rope_scaling", long);
    assert_eq!(values(&long, "rope_factors_long.weight"), [2.0, 2.0, 3.0, 4.0]);
    let magnitude = (1.0 + 4f64.ln() / 16f64.ln()).sqrt() as f32;
    assert_eq!(float(&long, "llama.rope.scaling.attn_factor"), magnitude);
}

#[test]
fn the_last_of_equal_settings_counts() {
    let folder = Builder::packed().write("twice");
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let twice = text.replacen('{', "{\"rope_theta\": 1.0, ", 1).replacen(
        "\"hidden_size\"",
        "\"rope_theta\": 3.0, \"hidden_size\"",
        1,
    );
    std::fs::write(folder.join("config.json"), twice).unwrap();
    assert_eq!(float(&Checkpoint::open(&folder).unwrap(), "llama.rope.freq_base"), 3.0);
}

#[test]
fn gemmas_norms_get_one_more() {
    let names =
        ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"];
    let mut builder = Builder::floats(json!(null)).without("layernorm").without("model.norm");
    for (i, name) in names.into_iter().enumerate() {
        let name = format!("model.layers.0.{name}.weight");
        builder = builder.tensor(&name, "BF16", &[WIDTH], bf16(&[i as f32 * 0.5; WIDTH]));
    }
    for name in ["q_norm", "k_norm"] {
        let name = format!("model.layers.0.self_attn.{name}.weight");
        builder = builder.tensor(&name, "F32", &[WIDTH], f32s(&[1e-9; WIDTH]));
    }
    let builder = builder
        .tensor("model.norm.weight", "BF16", &[WIDTH], bf16(&[-0.5; WIDTH]))
        .set("model_type", json!("gemma3_text"))
        .set("head_dim", json!(WIDTH))
        .set("query_pre_attn_scalar", json!(WIDTH))
        .set("num_key_value_heads", json!(1));
    let folder = builder.write("gemma");
    let checkpoint = Checkpoint::open(&folder).unwrap();
    for (name, value) in [
        ("output_norm", 0.5),
        ("blk.0.attn_norm", 1.0),
        ("blk.0.post_attention_norm", 1.5),
        ("blk.0.ffn_norm", 2.0),
        ("blk.0.post_ffw_norm", 2.5),
        ("blk.0.attn_q_norm", 1.0),
    ] {
        assert_eq!(values(&checkpoint, &format!("{name}.weight")), [value; WIDTH], "{name}");
    }
    let usual = logits(&folder);
    assert!(usual.iter().all(|logit| logit.is_finite()));
    // Scores are divided by the root of any number: by twice as much is as with queries of half the length.
    let scaled = builder.clone().set("query_pre_attn_scalar", json!(4 * WIDTH)).write("gemma_scaled");
    let halved = builder.without("q_norm").tensor(
        "model.layers.0.self_attn.q_norm.weight",
        "F32",
        &[WIDTH],
        f32s(&[-0.5; WIDTH]),
    );
    assert_ne!(logits(&scaled), usual);
    assert_eq!(logits(&scaled), logits(&halved.write("gemma_halved")));
}

#[test]
fn the_head_follows_tie_word_embeddings() {
    let head = f32s(&[0.5; VOCAB * WIDTH]);
    let with_head = Builder::packed().tensor("lm_head.weight", "F32", &[VOCAB, WIDTH], head);
    let tied = Checkpoint::open(with_head.write("tied")).unwrap();
    assert!(tied.tensor("output.weight").is_none(), "transformers ties the head, whatever the file holds");
    let untied = with_head.set("tie_word_embeddings", json!(false));
    assert!(Checkpoint::open(untied.write("untied")).unwrap().tensor("output.weight").is_some());
    let missing = Builder::packed().set("tie_word_embeddings", json!(false)).write("no_head");
    assert!(refusal(&missing).contains("tensor 'lm_head.weight' is missing"));
    let no_head =
        Builder::packed().set("tie_word_embeddings", json!(false)).set("architectures", json!(["LlamaModel"]));
    assert!(Checkpoint::open(no_head.write("model_alone")).is_ok());
}

#[test]
fn the_fingerprint_covers_names_and_contents() {
    let folder = Builder::packed().write("fingerprint");
    let hash = |path: &Path| {
        let files = Checkpoint::open(path).unwrap().files().unwrap();
        fingerprint(&files, 1, &mut || false).unwrap().unwrap()
    };
    let mut expected = blake3::Hasher::new();
    for name in ["config.json", "model.safetensors"] {
        let content = std::fs::read(folder.join(name)).unwrap();
        expected.update(&(name.len() as u64).to_le_bytes()).update(&(content.len() as u64).to_le_bytes());
        expected.update(name.as_bytes()).update(&content);
    }
    let first = hash(&folder);
    assert_eq!(first, expected.finalize().to_hex().to_string());
    let mut seen = vec![first];
    for (name, content) in [
        ("generation_config.json", "{}"),
        ("tokenizer.json", "{}"),
        ("tokenizer_config.json", "{}"),
        ("chat_template.jinja", "{{ 1 }}"),
        ("chat_template.jinja", "{{ 2 }}"),
        ("additional_chat_templates/tool_use.jinja", "{{ 3 }}"),
        ("chat_template.json", "{}"),
        ("1_Pooling/config.json", r#"{"pooling_mode": "mean"}"#),
        ("modules.json", "[]"),
    ] {
        std::fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        std::fs::write(folder.join(name), content).unwrap();
        let hash = hash(&folder);
        assert!(!seen.contains(&hash), "{name} counts");
        seen.push(hash);
    }
    std::fs::write(folder.join("README.md"), "About").unwrap();
    assert_eq!(&hash(&folder), seen.last().unwrap(), "other files do not count");
}
