//! Builds Hugging Face directories file by file, so that every part can be wrong.

use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

use bitnet::checkpoint::Checkpoint;

/// A tensor of a safetensors file.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

/// A directory under construction: a config, and the tensors of each file of weights.
#[derive(Clone)]
pub struct Builder {
    pub config: Map<String, Value>,
    pub tensors: Vec<Tensor>,
    /// Spaces behind the header, which move the data to any alignment.
    pub spaces: usize,
}

pub const WIDTH: usize = 8;
pub const FFN: usize = 12;
pub const VOCAB: usize = 16;

/// bfloat16 bytes; the values must be exact.
pub fn bf16(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes()).collect()
}

pub fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Packs rows of trits as transformers does: byte row r holds the rows r, R + r, 2R + r and 3R + r.
pub fn pack(trits: &[i8], rows: usize, cols: usize) -> Vec<u8> {
    let byte_rows = rows / 4;
    let code = |row: usize, col: usize| (trits[row * cols + col] + 1) as u8;
    let byte = |r: usize, col| (0..4).map(|i| code(i * byte_rows + r, col) << (2 * i)).sum();
    (0..byte_rows).flat_map(|r| (0..cols).map(move |col| (r, col))).map(|(r, col)| byte(r, col)).collect()
}

/// Trits of every value, different for each seed.
pub fn trits(seed: usize, count: usize) -> Vec<i8> {
    (0..count).map(|i| ((i * 7 + i / 3 + seed) % 3) as i8 - 1).collect()
}

/// The projections of a block with their rows and columns: one head of 8 channels.
pub const PROJECTIONS: [(&str, usize, usize); 7] = [
    ("self_attn.q_proj", WIDTH, WIDTH),
    ("self_attn.k_proj", WIDTH, WIDTH),
    ("self_attn.v_proj", WIDTH, WIDTH),
    ("self_attn.o_proj", WIDTH, WIDTH),
    ("mlp.gate_proj", FFN, WIDTH),
    ("mlp.up_proj", FFN, WIDTH),
    ("mlp.down_proj", WIDTH, FFN),
];

impl Builder {
    /// A Llama of one block, packed, whose weights are divided by their scales.
    pub fn packed() -> Builder {
        let mut builder = Builder::bare(json!({"quant_method": "bitnet"}));
        for (seed, (name, rows, cols)) in PROJECTIONS.into_iter().enumerate() {
            let module = format!("model.layers.0.{name}");
            builder = builder
                .tensor(
                    &format!("{module}.weight"),
                    "U8",
                    &[rows / 4, cols],
                    pack(&trits(seed, rows * cols), rows, cols),
                )
                .tensor(&format!("{module}.weight_scale"), "F32", &[1], f32s(&[4.0]));
        }
        builder
    }

    /// The same model as floats.
    pub fn floats(quantization: Value) -> Builder {
        let mut builder = Builder::bare(quantization);
        for (seed, (name, rows, cols)) in PROJECTIONS.into_iter().enumerate() {
            let values: Vec<f32> = trits(seed, rows * cols).into_iter().map(f32::from).collect();
            builder = builder.tensor(&format!("model.layers.0.{name}.weight"), "BF16", &[rows, cols], bf16(&values));
        }
        builder
    }

    /// The tensors beside the projections.
    fn bare(quantization: Value) -> Builder {
        let config = json!({
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": WIDTH,
            "intermediate_size": FFN,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "vocab_size": VOCAB,
            "max_position_embeddings": 64,
            "tie_word_embeddings": true,
            "quantization_config": quantization,
        });
        let Value::Object(config) = config else { unreachable!("an object") };
        let ones = |n| bf16(&vec![1.0; n]);
        let embedding: Vec<f32> = (0..VOCAB * WIDTH).map(|i| (i % 13) as f32 / 8.0 - 0.75).collect();
        Builder { config, tensors: Vec::new(), spaces: 0 }
            .tensor("model.embed_tokens.weight", "BF16", &[VOCAB, WIDTH], bf16(&embedding))
            .tensor("model.norm.weight", "BF16", &[WIDTH], ones(WIDTH))
            .tensor("model.layers.0.input_layernorm.weight", "BF16", &[WIDTH], ones(WIDTH))
            .tensor("model.layers.0.post_attention_layernorm.weight", "BF16", &[WIDTH], ones(WIDTH))
    }

    pub fn tensor(mut self, name: &str, dtype: &'static str, shape: &[usize], data: Vec<u8>) -> Builder {
        self.tensors.push(Tensor { name: name.into(), dtype, shape: shape.into(), data });
        self
    }

    /// Without the tensors whose names contain `part`.
    pub fn without(mut self, part: &str) -> Builder {
        self.tensors.retain(|tensor| !tensor.name.contains(part));
        self
    }

    /// With another value of a setting.
    pub fn set(mut self, key: &str, value: Value) -> Builder {
        self.config.insert(key.into(), value);
        self
    }

    /// The bytes of one file with all tensors.
    pub fn weights(&self) -> Vec<u8> {
        container(&self.tensors, self.spaces)
    }

    /// Writes the directory with one file of weights.
    pub fn write(&self, name: &str) -> PathBuf {
        let folder = folder(name);
        std::fs::write(folder.join("config.json"), Value::Object(self.config.clone()).to_string()).unwrap();
        std::fs::write(folder.join("model.safetensors"), self.weights()).unwrap();
        folder
    }
}

/// A safetensors file of these tensors.
pub fn container(tensors: &[Tensor], spaces: usize) -> Vec<u8> {
    let mut header = Map::new();
    let mut at = 0;
    for Tensor { name, dtype, shape, data } in tensors {
        let end = at + data.len();
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [at, end]}));
        at = end;
    }
    let data: Vec<u8> = tensors.iter().flat_map(|tensor| tensor.data.clone()).collect();
    raw(&(Value::Object(header).to_string() + &" ".repeat(spaces)), &data)
}

/// A safetensors file of this header.
pub fn raw(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// An empty folder for a test.
pub fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hf").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The message with which a path is refused.
pub fn refusal(path: &Path) -> String {
    match Checkpoint::open(path) {
        Ok(_) => panic!("{} opens", path.display()),
        Err(error) => error.to_string(),
    }
}
