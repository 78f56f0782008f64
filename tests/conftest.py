"""Shared ground of the Python tests: the model maker on the path, and models made once per run."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benches"), str(ROOT / "tests")]

from gguf_writer import write_gguf  # noqa: E402
from make_model import Spec, make_model  # noqa: E402

ModelMaker = Callable[[Spec], Path]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelMaker:
    """`model(spec)` gives the path of that model; it is made once, whichever worker asks first."""
    # Workers of pytest-xdist have neighbouring base folders: their parent is shared by all of one run.
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "models"
    folder.mkdir(exist_ok=True)

    def make(spec: Spec) -> Path:
        path = folder / f"{hashlib.sha256(repr(spec).encode()).hexdigest()[:16]}.gguf"
        if not path.exists():
            unfinished = path.with_suffix(f".{os.getpid()}")
            make_model(unfinished, spec)
            unfinished.replace(path)
        return path

    return make


MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld", "Ã ©"]
CONTROL = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]


def spelled(byte: int) -> str:
    """GPT-2's printable stand-in of a byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return chr(byte) if byte in printable else chr(256 + others.index(byte))


TOKENS = [spelled(byte) for byte in range(256)] + [merge.replace(" ", "") for merge in MERGES] + CONTROL
EOT = TOKENS.index("<|eot_id|>")


@pytest.fixture(scope="session")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model with a byte-level vocabulary."""
    folder = tmp_path_factory.mktemp("text")
    keys: dict[str, Any] = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [1] * (len(TOKENS) - 3) + [3] * 3,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": TOKENS.index(CONTROL[0]),
        "tokenizer.ggml.eos_token_id": TOKENS.index(CONTROL[1]),
    }
    write_gguf(folder / "vocab.gguf", keys, [])
    spec = Spec("llama", 2, 128, 192, 2, 1, vocab_size=len(TOKENS), context=256, untied=True)
    make_model(folder / "model.gguf", spec, folder / "vocab.gguf")
    return folder / "model.gguf"
