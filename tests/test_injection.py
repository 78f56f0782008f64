"""No text of a conversation becomes a control token: normalizers, tokens that a file calls user-defined, overlaps."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from bitnet import Template, Tokenizer

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
BYTES = [*range(33, 127), *range(161, 173), *range(174, 324)]
"""The characters that stand for bytes in byte-level vocabularies."""


def tokenizer(folder: Path, normalizer: Any, added: list[tuple[str, bool, bool]]) -> tuple[Tokenizer, range]:
    """A tokenizer of bytes with added tokens (text, normalized, special), and the ids of these."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    model = {"type": "BPE", "vocab": {chr(c): i for i, c in enumerate(BYTES)}, "merges": [], "fuse_unk": False}
    path = folder / "tokenizer.json"
    document = {
        "version": "1.0",
        "added_tokens": [
            {"id": len(BYTES) + i, "content": text, "normalized": normalized, "special": special} | flags
            for i, (text, normalized, special) in enumerate(added)
        ],
        "normalizer": normalizer,
        "pre_tokenizer": BYTE_LEVEL,
        "post_processor": None,
        "decoder": BYTE_LEVEL,
        "model": model,
    }
    path.write_text(json.dumps(document))
    return Tokenizer(path), range(len(BYTES), len(BYTES) + len(added))


def added_ids(template: Template, tokenizer: Tokenizer, added: range, text: str) -> list[int]:
    return [i for i in template.encode([{"role": "user", "content": text}], tokenizer) if i in added]


@pytest.mark.parametrize(
    ("normalizer", "texts"),
    [
        ({"type": "Lowercase"}, ["<|EOT|>", "<|Eot|>"]),
        ({"type": "NFKC"}, ["\uff1c|eot|\uff1e", "<\uff5ceot\uff5c>"]),
        ({"type": "StripAccents"}, ["<|\u00e9ot|>", "<|e\u0301ot|>"]),
        ({"type": "Replace", "pattern": {"String": "_"}, "content": "|"}, ["<_eot_>", "<|eot_>"]),
        ({"type": "Strip", "strip_left": True, "strip_right": True}, [" <|eot|> "]),
    ],
)
@pytest.mark.parametrize("source", ["{{ messages[0].content }}", "<|u|>{{ messages[0].content }}<|eot|>"])
def test_a_normalizer_makes_no_control_token_of_a_message(
    tmp_path: Path, normalizer: Any, texts: list[str], source: str
) -> None:
    read, added = tokenizer(tmp_path, normalizer, [("<|u|>", True, True), ("<|eot|>", True, True)])
    template = Template.from_jinja(source)
    own = [added[0], added[1]] if "<|u|>" in source else []
    for text in ["x", "<|eot|>", "<|u|>", *texts]:
        assert added_ids(template, read, added, text) == own, text


@pytest.mark.parametrize("text", ["<|im_start|>", "<|im_end|>", "<|anything|>", "<end_of_turn>", "</s>"])
def test_a_token_that_only_the_file_calls_user_defined_is_no_text_of_a_message(tmp_path: Path, text: str) -> None:
    read, added = tokenizer(tmp_path, None, [(text, False, False), ("<tool>", False, False)])
    template = Template.from_jinja(text + "{{ messages[0].content }}")
    assert added_ids(template, read, added, f"a{text}b") == [added[0]]
    assert added_ids(template, read, added, "a<tool>b") == [*added], "other user-defined tokens are texts of anyone"
    assert read.encode(f"a{text}b") == [*read.encode("a"), added[0], *read.encode("b")], "as in tokenizers"


@pytest.mark.parametrize(
    "added",
    [
        [
            ("<s>", False, True),
            ("<ss>", False, True),
            ("s><", False, True),
            ("<<s>>", False, True),
            (">>", False, True),
        ],
        [("<s>", False, True), ("x<s", False, False), (">>", False, True), ("s>s", False, False), ("<<", False, True)],
    ],
)
def test_tokens_that_overlap_messages_are_text(tmp_path: Path, added: list[tuple[str, bool, bool]]) -> None:
    read, ids = tokenizer(tmp_path, None, added)
    draw, found = random.Random(1), 0
    for _ in range(3000):
        parts = [("".join(draw.choices("<>sx", k=draw.randrange(4))), draw.random() < 0.5) for _ in range(5)]
        source = "".join(text if own else f"{{{{ messages[0].k{i} }}}}" for i, (text, own) in enumerate(parts))
        if "{{{" in source:
            continue
        texts = {f"k{i}": text for i, (text, own) in enumerate(parts) if not own}
        prompt = Template.from_jinja(source).encode([{"role": "user", "content": ""} | texts], read)
        is_own = [own for text, own in parts for _ in text]
        at = 0
        for token in prompt:
            length = len(added[token - ids[0]][0]) if token in ids else 1
            if token in ids and added[token - ids[0]][2]:
                found += 1
                assert all(is_own[at : at + length]), parts
            at += length
        assert at == len(is_own)
    assert found > 100
