"""Changed batch files: requests and answers of others. Each is answered or refused with an ArgumentError.

The other parsers are fuzzed in Rust (`make fuzz`, `fuzz.rs`).
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from bitnet import ArgumentError, batch

REQUESTS = [
    {"prompt": "Hello", "max_tokens": 2, "stop": ["\n", "x"], "logit_bias": {"3": -1.5}},
    {"id": "b", "prompt": [1, 2, 3], "seed": 7, "temperature": 0.5, "top_k": 4, "max_tokens": 1, "min_p": 0.1},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}], "max_tokens": 1},
    {"id": None, "messages": [{"role": "user", "content": "Hi"}], "repetition_penalty": 1.1, "max_tokens": 1},
]
VALUES = (None, True, -1, 2**63, 2**200, 0.5, 1e308, "", "\ud800", "x" * 1000, "\x1b[2J\n", [], [[]], {}, {"a": {}})
TOKENS = (b"\xff", b"\0", b'"', b"{", b"[" * 2000, b"NaN", b"1e999", b"\\ud800", b"\r", b"\n\n", b"\xef\xbb\xbf", b",")


def other_value(draw: random.Random, value: Any) -> Any:
    """A copy in which one value, somewhere inside, is another."""
    if isinstance(value, (dict, list)) and value and draw.random() < 0.8:
        copy: Any = value.copy()
        key = draw.choice(list(value) if isinstance(value, dict) else range(len(value)))
        copy[key] = other_value(draw, value[key])
        return copy
    return draw.choice(VALUES)


def other_bytes(draw: random.Random, data: bytes) -> bytes:
    """A copy that is cut, repeated, or has bytes that mean something to a parser."""
    at, end = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    return draw.choice(
        (data[:at], data[:at] + data[end:], data[:end] + data[at:], data[:at] + draw.choice(TOKENS) + data[at:])
    )


def run(engine: Any, source: Path, target: Path) -> bool:
    """Whether the requests were accepted."""
    start = time.monotonic()
    try:
        for _ in batch.run(engine, source, target, max_tokens=1, template="instruct"):
            pass
    except ArgumentError:
        return False
    finally:
        assert time.monotonic() - start < 5
    return True


@pytest.mark.parametrize("seed", range(4))
def test_changed_requests(tmp_path: Path, engine: Any, seed: int) -> None:
    draw = random.Random(seed)
    accepted = 0
    for i in range(150):
        requests = [other_value(draw, request) if draw.random() < 0.5 else request for request in REQUESTS]
        data = b"".join(json.dumps(request).encode() + b"\n" for request in requests)
        if draw.random() < 0.5:
            data = other_bytes(draw, data)
        (tmp_path / "requests").write_bytes(data)
        target = tmp_path / str(i)
        if run(engine, tmp_path / "requests", target):
            accepted += 1
            whole = target.read_bytes()
            assert all(json.loads(line)["index"] == n for n, line in enumerate(whole.splitlines()))
            assert run(engine, tmp_path / "requests", target) and target.read_bytes() == whole
    assert 5 < accepted < 145


@pytest.mark.parametrize("seed", range(2))
def test_changed_answers(tmp_path: Path, engine: Any, seed: int) -> None:
    """Resuming either completes the file or leaves it as it was."""
    draw = random.Random(seed)
    source, target = tmp_path / "requests", tmp_path / "answers"
    source.write_text("".join(json.dumps(request) + "\n" for request in REQUESTS))
    assert run(engine, source, target)
    whole = target.read_bytes()
    for _ in range(150):
        changed = other_bytes(draw, whole)
        target.write_bytes(changed)
        if not run(engine, source, target):
            assert target.read_bytes() == changed
        else:
            assert target.read_bytes().count(b"\n") == len(REQUESTS)
