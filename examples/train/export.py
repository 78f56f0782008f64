"""Convert a checkpoint to a GGUF file: I2_S projections, float16 embedding, tokenizer, template.

python examples/train/export.py RUN MODEL.gguf [--scores scores.json]
python examples/train/export.py RUN golden.json --golden      # reference logits of fixed prompts, for a test
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bitnet
import data
from bitnet import _tensor_types as tt
from bitnet._gguf_writer import Tensor, Value, write_gguf
from model import BitLinear, BitNet, Config, ternary

ARCH = "bitnet-b1.58"
NAME = "Trit"
GOLDEN_TEXTS = [
    "User: What is 2+2?<|eot_id|>Assistant: ",
    "User: What is 27+45?<|eot_id|>Assistant: 27+45: 7+5=12, 2+4+1=7, so 72.<|eot_id|>"
    "User: and doubled?<|eot_id|>Assistant: ",
    "System: Be brief.<|eot_id|>User: My name is Ada.<|eot_id|>Assistant: Nice to meet you, Ada!<|eot_id|>"
    "User: Spell stone<|eot_id|>Assistant: s-t-o-n-e.<|eot_id|>User: What is my name?<|eot_id|>Assistant: ",
]


def load(run: Path) -> tuple[BitNet, dict[str, Any]]:
    """Load a checkpoint; return the model in float32 on the CPU, and the checkpoint."""
    state = torch.load(run / "checkpoint.pt", map_location="cpu")
    model = BitNet(Config(**state["config"])).eval()
    model.load_state_dict(state["model"])
    return model, state


def metadata(c: Config, tokens: list[str], state: dict[str, Any], scores: dict[str, Any] | None) -> dict[str, Value]:
    """Return the metadata: shape, tokenizer, and the origin of the model."""
    shape: dict[str, Value] = {
        "vocab_size": c.vocab,
        "context_length": c.context,
        "embedding_length": c.width,
        "block_count": c.layers,
        "feed_forward_length": c.ffn,
        "attention.head_count": c.heads,
        "attention.head_count_kv": c.kv_heads,
        "attention.layer_norm_rms_epsilon": c.eps,
        "rope.dimension_count": c.head_dim,
        "rope.freq_base": c.rope_theta,
    }
    git = ["git", "-C", str(Path(__file__).parent), "log", "-1", "--format=%H", "--", "."]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    provenance: dict[str, Value] = {
        "general.name": NAME,
        "general.license": "MIT OR Apache-2.0",
        "general.description": "A tiny BitNet b1.58 model for short chats with sums, letters and memory.",
        "general.tags": ["bitnet", "ternary", "arithmetic"],
        "general.languages": ["en"],
        "training.recipe": "examples/train/README.md",
        "training.commit": commit or "unknown",
        "training.steps": state["step"],
        "training.options": json.dumps(state["options"]),
    }
    if scores:
        provenance["training.scores"] = json.dumps(scores)
    own = {f"{ARCH}.{key}": value for key, value in shape.items()}
    return {"general.architecture": ARCH} | provenance | own | data.tokenizer_metadata(tokens)


def tensors(model: BitNet) -> list[Tensor]:
    """Return every tensor. The names of the PyTorch modules are those of GGUF files."""
    out = []
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None:
            continue
        weight = weight.detach()
        if isinstance(module, BitLinear):
            trits, scale = ternary(weight)
            raw = tt.encode_i2_s(trits.to(torch.int8).numpy(), float(scale)).tobytes()
            kind = "I2_S"
        elif weight.ndim == 2:
            kind, raw = "F16", weight.half().numpy().tobytes()
        else:
            kind, raw = "F32", weight.float().numpy().astype("<f4").tobytes()
        out.append(Tensor(f"{name}.weight", tuple(weight.shape), tt.TYPES[kind][0], len(raw), lambda raw=raw: [raw]))
    return out


@torch.no_grad()
def golden(model: BitNet, tokenizer: bitnet.Tokenizer) -> dict[str, Any]:
    """Return the float32 logits of PyTorch for the fixed prompts, and its greedy answers."""
    prompts = []
    for text in GOLDEN_TEXTS:
        ids = tokenizer.encode(data.BOS + text, parse_special=True)
        logits = model(torch.tensor([ids]))[0].numpy()
        said = list(ids)
        while said[-1] not in tokenizer.stop_token_ids and len(said) < model.config.context:
            said.append(int(model(torch.tensor([said]))[0, -1].argmax()))
        best = np.argsort(-logits, axis=1)[:, :8]
        prompts.append(
            {
                "text": text,
                "ids": ids,
                "spread": float(logits.std()),
                "last": [round(float(x), 6) for x in logits[-1]],  # all logits of the last position
                "best": best.tolist(),  # the eight best ids of every position, and their logits
                "values": [[round(float(x), 6) for x in row] for row in np.take_along_axis(logits, best, 1)],
                "answer": tokenizer.decode(said[len(ids) :]),
            }
        )
    return {"prompts": prompts}


def main() -> None:
    """Export what the command line asks for."""
    parser = argparse.ArgumentParser(description="Export a trained model.")
    parser.add_argument("run", type=Path, help="folder of the training")
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("--scores", type=Path, metavar="FILE", help="add the scores of this file (score.py --json)")
    parser.add_argument("--golden", action="store_true", help="write reference logits instead of the model")
    options = parser.parse_args()
    model, state = load(options.run)
    if options.golden:
        found = golden(model, bitnet.Tokenizer(options.run / "tokenizer.gguf"))
        options.out.write_text(json.dumps(found) + "\n")
        return
    tokenizer = bitnet.Tokenizer(options.run / "tokenizer.gguf")
    tokens = [tokenizer.id_to_token(i) or "" for i in range(tokenizer.vocab_size)]
    scores = json.loads(options.scores.read_text()) if options.scores else None
    write_gguf(options.out, metadata(model.config, tokens, state, scores), tensors(model))
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB, step {state['step']}")


if __name__ == "__main__":
    main()
