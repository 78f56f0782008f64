"""A model that says what it is told to: after each token of its script comes the next one."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bitnet._gguf_writer import write_gguf
from bitnet._synthetic import Spec, metadata, tensors
from edited_model import floats
from text_model import CONTROL, spelled

WORDS = ["<think>", "</think>", "<|im_start|>", "<|im_end|>", "<tool_response>"]
"""Tokens that are added to the vocabulary. The two in the middle are control tokens."""
TOKENS = [spelled(byte) for byte in range(256)] + WORDS + CONTROL
_CONTROL = {"<|im_start|>", "<|im_end|>", *CONTROL}


def scripted_model(
    path: Path,
    *scripts: Sequence[str],
    template: str,
    context: int = 512,
    control: Sequence[str] = (),
    words: Sequence[str] = (),
) -> Path:
    """Write a model that continues each token of a script with the next one, whatever came before.

    Args:
        path: The file.
        scripts: Lists of tokens: single bytes, or words of the vocabulary. The last one ends the answer, if it is
            <|im_end|>. All scripts together must name one successor for each token.
        template: The source of its chat template.
        context: Positions that a sequence may have.
        control: Further words that are control tokens.
        words: Further tokens of the vocabulary.
    """
    tokens = [*TOKENS, *words]
    known = {*WORDS, *words}

    def _id(token: str) -> int:
        return tokens.index(token) if token in known else token.encode()[0]

    successors: dict[int, int] = {}
    for script in scripts:
        for token, following in pairwise(map(_id, script)):
            assert successors.setdefault(token, following) == following, f"{tokens[token]} has two successors"
    spec = Spec("llama", 1, 256, 256, 2, 1, vocab_size=len(tokens), context=context, untied=True, embedding="F32")
    # Embeddings so large that the layers add next to nothing to them: the logits depend on the last token only.
    embeddings = np.random.default_rng(1).choice([-1.0, 1.0], (len(tokens), spec.width)) * 1e4
    head = np.zeros_like(embeddings)
    for token, following in successors.items():
        head[following] += embeddings[token] / 1e4
    changed = {
        "token_embd.weight": floats("token_embd.weight", embeddings),
        "output.weight": floats("output.weight", head),
        "output_norm.weight": floats("output_norm.weight", np.ones(spec.width)),
    }
    kinds = [3 if token in _CONTROL or token in control else 4 if token in known else 1 for token in tokens]
    keys: dict[str, Any] = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.bos_token_id": TOKENS.index(CONTROL[0]),
        "tokenizer.ggml.eos_token_id": TOKENS.index("<|im_end|>"),
    }
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Path(folder) / "vocabulary.gguf"
        write_gguf(vocabulary, keys, [])
        made = [changed.get(tensor.name, tensor) for tensor in tensors(spec)]
        write_gguf(path, metadata(spec, vocabulary) | {"tokenizer.chat_template": template}, made)
    return path
