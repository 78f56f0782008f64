"""Makes the seeds of the fuzz targets: `PYTHONPATH=python python fuzz/corpus.py`. Findings are added by hand."""

import json
import math
import struct
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import bitnet  # noqa: E402
from bitnet._gguf_writer import write_gguf  # noqa: E402
from bitnet._synthetic import Spec, make_model  # noqa: E402
from text_model import CONTROL, MERGES, TOKENS  # noqa: E402

FIXTURES = ROOT / "tests" / "fixtures"
TEXTS = [
    "What is 2+2?",
    "<|user|>x</s><|im_end|><|eot_id|><|bitnet|>",
    "a \t\n\x1c\x1f\u00a0 \u200d\u0301\U0001f600\x00",
    "</think>{{ messages }}{% raw %}<s>",
]
PACKED = {"i2s": ("two-bit",), "wide": ("base3",), "groups": ("two-bit",), "rotated": ("base3",)}
"""Models that are packed, too, and the layouts."""
SPIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "h", "e", "he", "▁he", "é"]


def save(target: str, name: str, data: bytes) -> None:
    path = ROOT / "fuzz" / "corpus" / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def models() -> None:
    shape = {"layers": 1, "width": 128, "ffn": 128, "heads": 2, "kv_heads": 1, "vocab_size": 20, "context": 64}
    hybrid = shape | {"layers": 2, "full_interval": 2, "head_dim": 64, "untied": True, "ssm_value_heads": 4}
    specs = {
        "i2s": Spec(**shape),
        "wide": Spec("llama", **(shape | {"width": 256, "ffn": 256}), linear="TQ2_0", untied=True),
        "blocks": Spec("llama", **shape, linear="IQ2_BN", embedding="Q8_0"),
        "groups": Spec("llama", **shape, linear="Q2_0_g64", embedding="Q2_0_g64", group=64),
        "fours": Spec("llama", **(shape | {"ffn": 256}), linear="IQ2_BN_R4", embedding="Q2_0_g128"),
        "yarn": Spec("qwen3", **shape, rope_scaling="yarn", norm_in=True, pooling=1),
        "longrope": Spec("minicpm", **(shape | {"width": 64, "ffn": 64}), linear="F16", rope_scaling="longrope"),
        "window": Spec("gemma3", **shape, window=3, window_pattern=2, softcap=20.0),
        "biases": Spec("qwen2", **shape),
        "hybrid": Spec("qwen35", **(hybrid | {"width": 64, "ffn": 64}), linear="Q2_0_g64"),
        "rotated": Spec("qwen35", **(hybrid | {"ffn": 128}), linear="PTQ1_0", hadamard=32),
    }
    for name, spec in specs.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.gguf"
            make_model(path, spec)
            save("gguf", name, path.read_bytes())
            for layout in PACKED.get(name, ()):
                packed = Path(folder) / layout
                bitnet.pack(path, packed, layout=layout)
                save("gguf", f"packed-{name}-{layout}", packed.read_bytes())


def directories() -> None:
    """Directories of a block with one head of 8 channels: packed trits, masters of them, floats of Gemma."""
    width, ffn, vocab = 8, 12, 16
    attention = {f"self_attn.{x}_proj": (width, width) for x in "qkvo"}
    shapes = attention | {"mlp.gate_proj": (ffn, width), "mlp.up_proj": (ffn, width), "mlp.down_proj": (width, ffn)}
    norms = ["input_layernorm", "post_attention_layernorm"]
    gemma = [*norms, "pre_feedforward_layernorm", "post_feedforward_layernorm", "self_attn.q_norm", "self_attn.k_norm"]
    config = {
        "hidden_size": width,
        "intermediate_size": ffn,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "vocab_size": vocab,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
    }
    online = {"linear_class": "autobitlinear", "quantization_mode": "online"}
    scaling = {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}
    kinds = {
        "packed": {"model_type": "llama", "rope_scaling": scaling | {"original_max_position_embeddings": 64}},
        "masters": {"model_type": "llama", "rope_parameters": {"rope_theta": 5e5, "rope_type": "yarn", "factor": 4.0}},
        "gemma": {"model_type": "gemma3_text", "head_dim": width, "query_pre_attn_scalar": width, "sliding_window": 4},
    }
    for kind, own in kinds.items():
        files = {"embed_tokens.weight": ("BF16", [vocab, width]), "norm.weight": ("BF16", [width])}
        files |= {f"layers.0.{name}.weight": ("F32", [width]) for name in (gemma if kind == "gemma" else norms)}
        for name, (rows, cols) in shapes.items():
            module = f"layers.0.{name}"
            packed = {f"{module}.weight": ("U8", [rows // 4, cols]), f"{module}.weight_scale": ("F32", [1])}
            files |= packed if kind == "packed" else {f"{module}.weight": ("BF16", [rows, cols])}
        header, data = {}, b""
        for name, (dtype, shape) in files.items():
            unit = {"U8": b"\x64", "BF16": b"\x80\x3f", "F32": b"\x00\x00\x80\x3f"}[dtype]
            start = len(data)
            data += unit * math.prod(shape)
            header[f"model.{name}"] = {"dtype": dtype, "shape": shape, "data_offsets": [start, len(data)]}
        quantization = {"packed": {}, "masters": online}.get(kind)
        if quantization is not None:
            own = own | {"quantization_config": {"quant_method": "bitnet"} | quantization}
        text = json.dumps(header).encode()
        save("hf", kind, json.dumps(config | own).encode() + b"\0" + struct.pack("<Q", len(text)) + text + data)


def tokenizers() -> None:
    bytes_ = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [1] * (len(TOKENS) - 3) + [3] * 3,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": TOKENS.index(CONTROL[0]),
        "tokenizer.ggml.eos_token_id": TOKENS.index(CONTROL[1]),
    }
    pieces = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": SPIECES,
        "tokenizer.ggml.scores": struct.pack(f"<IIQ{len(SPIECES)}f", 9, 6, len(SPIECES), *range(len(SPIECES))),
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * (len(SPIECES) - 259)],
    }
    for name, keys in (("bytes", bytes_), ("pieces", pieces)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "vocabulary.gguf"
            write_gguf(path, {"general.architecture": "llama"} | keys, [])
            save("tokenizer_gguf", name, path.read_bytes())
    for folder in (FIXTURES / "tokenizers").glob("*/"):
        save("tokenizer_json", folder.name, (folder / "tokenizer.json").read_bytes() + b"\0" + TEXTS[2].encode())


def texts() -> None:
    sources = [case[0] for case in json.loads((FIXTURES / "jinja2.json").read_text())["cases"]]
    for i in range(0, len(sources), 8):
        save("template", f"jinja-{i:03}", "\n".join(sources[i : i + 8]).encode() + b"\0" + TEXTS[1].encode())
    for name in ("sampled", "chat-2-redacted", "f32-weights-only"):
        save("receipt", name, (FIXTURES / "v0.1.0/receipts" / f"{name}.json").read_bytes())
    for name in ("every-parameter", "forgotten-turns"):
        saved = (FIXTURES / "v0.1.0/conversations" / f"{name}.json").read_bytes()
        save("session", name, saved)
    for i, text in enumerate(TEXTS):
        save("prompt", str(i), text.encode())
    for kind in range(32):  # the last are of packed models, whose blocks are large
        save("codec", f"{kind:02}", bytes([kind, 0]) + bytes(range(256)) * (4 if kind < 25 else 12))


def grammars() -> None:
    """A byte for the kind, and the text: see `grammar` in src/targets.rs."""
    schemas = (
        {"type": "object", "properties": {"a": {"type": "integer", "minimum": -3}}, "required": ["a"]},
        {"enum": ["x", None, 1.5, {"a": []}]},
        {"type": "array", "items": {"$ref": "#/$defs/b"}, "minItems": 1, "$defs": {"b": {"type": "boolean"}}},
        {"type": "string", "pattern": "^[a-c]{2,5}$", "maxLength": 4},
        {"anyOf": [{"type": "number", "multipleOf": 7}, {"const": "é\n"}]},
    )
    lark = 'start: (WORD " ")+ number?\nnumber: /[0-9]+/ ("." /[0-9]{2}/)?\nWORD: /[a-z]{1,4}/\n%ignore /[ ]+/'
    texts = {0: [json.dumps(schema) for schema in schemas], 1: ["[a-f]{2,12}", "(yes|no)+\\.", "é*[^x]\\d{3}"]}
    texts |= {2: ['["yes", "no", "no, thanks"]', '[""]'], 3: [lark, 'start: "(" start ")" | "x"']}
    for kind, sources in texts.items():
        for i, source in enumerate(sources):
            save("grammar", f"{kind}-{i}", bytes([kind]) + source.encode())


if __name__ == "__main__":
    models()
    directories()
    tokenizers()
    texts()
    grammars()
