"""A small random model with a byte-level vocabulary, for tests that need texts.

python tests/text_model.py model.gguf
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

from bitnet._gguf_writer import write_gguf
from bitnet._synthetic import Spec, make_model

MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld", "Ã ©"]
CONTROL = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]


def spelled(byte: int) -> str:
    """GPT-2's printable stand-in of a byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return chr(byte) if byte in printable else chr(256 + others.index(byte))


TOKENS = [spelled(byte) for byte in range(256)] + [merge.replace(" ", "") for merge in MERGES] + CONTROL
EOT = TOKENS.index("<|eot_id|>")


def make_text_model(path: Path, context: int = 256, spec: Spec | None = None) -> None:
    """Write it; with a `spec`, a model of that shape but for its vocabulary and context."""
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
    spec = spec or Spec("llama", 2, 128, 192, 2, 1, untied=True)
    spec = dataclasses.replace(spec, vocab_size=len(TOKENS), context=context)
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Path(folder) / "vocabulary.gguf"
        write_gguf(vocabulary, keys, [])
        make_model(path, spec, vocabulary)


if __name__ == "__main__":
    make_text_model(Path(sys.argv[1]))
