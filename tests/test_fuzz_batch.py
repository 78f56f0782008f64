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
from mutations import other_bytes, other_value

REQUESTS = [
    {"prompt": "Hello", "max_tokens": 2, "stop": ["\n", "x"], "logit_bias": {"3": -1.5}},
    {"id": "b", "prompt": [1, 2, 3], "seed": 7, "temperature": 0.5, "top_k": 4, "max_tokens": 1, "min_p": 0.1},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}], "max_tokens": 1},
    {"id": None, "messages": [{"role": "user", "content": "Hi"}], "repetition_penalty": 1.1, "max_tokens": 1},
]


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
