"""The package: its names, its version, its examples."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bitnet
from conftest import ROOT

MODEL = ROOT / "tests" / "fixtures" / "llama-iq2bn.gguf"


def test_every_public_name_is_there() -> None:
    assert sorted(bitnet.__all__) == bitnet.__all__
    assert all(hasattr(bitnet, name) for name in bitnet.__all__)


def test_the_version_is_cargos() -> None:
    manifest = (ROOT / "Cargo.toml").read_text()
    found = re.search(r'^version = "(.+)"', manifest, re.MULTILINE)
    assert found
    assert bitnet.__version__ == found.group(1)


def test_memory_is_the_sum_of_the_tensors() -> None:
    """The packed projections take two bits a weight; the rest is read where it lies in the file."""
    path = ROOT / "tests" / "fixtures" / "relu2-i2s.gguf"
    with bitnet.Engine(path) as engine:
        before = engine.memory
        weights = sum(t["shape"][0] * t["shape"][1] for t in bitnet.inspect(path)["tensors"] if t["type"] == "I2_S")
        # Rows are filled up to 16, columns to 128.
        assert weights // 4 <= before["packed_weights"] <= weights // 4 * 2
        assert before["mapped_weights"] == 96 * 128 * 2
        assert before["file"] == path.stat().st_size
        assert before["kv_cache"] == 0
        engine.prefill([1, 2, 3])
        # One page: 64 positions, keys and values of 64 channels as f16, one head, two layers.
        assert engine.memory["kv_cache"] == 64 * 2 * 64 * 2 * 2


def test_what_a_token_costs() -> None:
    path = ROOT / "tests" / "fixtures" / "relu2-i2s.gguf"
    with bitnet.Engine(path) as engine, bitnet.Engine(path, kv_type="f32", act_quant="none") as dense:
        tensors = bitnet.inspect(path)["tensors"]
        weights = sum(t["shape"][0] * t["shape"][1] for t in tensors if t["type"] == "I2_S")
        memory = engine.memory
        assert engine.per_token == {
            "ternary_macs": weights,
            "weight_bytes": memory["packed_weights"] + memory["mapped_weights"],
            "kv_bytes": 2 * 64 * 2 * 2,  # keys and values of 64 channels as f16, one head, two layers
        }
        assert dense.per_token["ternary_macs"] == 0
        assert dense.per_token["kv_bytes"] == 2 * engine.per_token["kv_bytes"]


def test_the_peak_of_the_dot_product() -> None:
    peaks = [bitnet.dot_peak(1, isa) for isa in bitnet.isas()]
    assert peaks[0] > 1e7
    assert bitnet.dot_peak(1) > peaks[0] or len(peaks) == 1, "vectors do more than plain code"
    with pytest.raises(bitnet.ArgumentError, match="unknown instruction set"):
        bitnet.dot_peak(1, "abacus")


def test_the_examples_run(text_model: Path) -> None:
    for name, arguments, shown in [
        ("logits.py", [MODEL, "1", "2"], "Prefill(tokens=2"),
        ("chat.py", [text_model, "hello"], "replayed: True\nagain: True\n"),
        ("chat.py", [], "replayed: True\nagain: True\n"),
        ("templates.py", [], "user      'What is <|eot_id|>?'"),
        ("receipts.py", [], "replayed with the prompt: True"),
    ]:
        example = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
        done = subprocess.run(
            example, capture_output=True, text=True, encoding="utf-8", env={**os.environ, "PYTHONUTF8": "1"}
        )
        assert done.returncode == 0, done.stderr
        assert shown in done.stdout
