"""What looks wrong in a model but runs: `Engine.warnings`, `inspect`, Python's and the command's warnings."""

from __future__ import annotations

import inspect as source
import os
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitnet
from bitnet import _tensor_types as tt
from bitnet._synthetic import Spec
from conftest import ModelMaker
from edited_model import damaged, plain

SPEC = Spec("bitnet-b1.58", 2, 256, 256, 4, 2, vocab_size=40, context=256)
LAST = "blk.1.ffn_down.weight"


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A model whose last I2_S tensor has the scale 100."""
    return damaged(tmp_path, SPEC, LAST, -32, struct.pack("<f", 100.0))


def opened(path: Path, **options: Any) -> list[str]:
    """The warnings that opening a model gives, which are those that it lists."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with bitnet.Engine(path, **options) as engine:
            listed = engine.warnings
    assert all(warning.category is bitnet.BitnetWarning for warning in caught)
    assert [str(warning.message) for warning in caught] == listed
    return listed


def test_a_warning_is_listed_and_given_at_the_users_line(odd: Path) -> None:
    [listed] = opened(odd)
    assert bitnet.inspect(odd)["warnings"] == [listed]
    with pytest.warns(bitnet.BitnetWarning) as caught:
        line = source.currentframe().f_lineno + 1  # type: ignore[union-attr]
        bitnet.Engine(odd)
    assert [(warning.filename, warning.lineno) for warning in caught] == [(__file__, line)]


def test_a_sound_model_gives_none(model: ModelMaker) -> None:
    assert opened(model(SPEC)) == []
    with bitnet.Engine() as engine:
        assert engine.warnings == []


def test_warnings_can_be_errors(odd: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", bitnet.BitnetWarning)
        with pytest.raises(bitnet.BitnetWarning, match=LAST):
            bitnet.Engine(odd)
    assert issubclass(bitnet.BitnetWarning, UserWarning)


def test_the_command_prints_one_line(odd: Path) -> None:
    command = [sys.executable, "-m", "bitnet", "run", str(odd), "-p", "x", "--max-tokens", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONUTF8": "1"})
    lines = [line for line in done.stderr.splitlines() if line.startswith("bitnet: warning: ")]
    assert len(lines) == 1, done.stderr
    assert "blk.1.ffn_down.weight" in lines[0]
    assert "Warning" not in done.stderr


# -- Weights that look wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, -1.0, 100.0])
def test_odd_scales_are_warned_of(tmp_path: Path, scale: float) -> None:
    [warning] = bitnet.inspect(damaged(tmp_path, SPEC, LAST, -32, struct.pack("<f", scale)))["warnings"]
    assert LAST in warning
    assert f"1, the first being {scale:g} " in warning


def test_lossy_ternary_weights_are_warned_of(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(-1, 2, (SPEC.width, SPEC.width)).astype(np.float32)
    lossy = plain(LAST, x.shape, tt.TYPES["Q4_0"][0], tt.encode_q4_0(x).tobytes())
    [warning] = bitnet.inspect(damaged(tmp_path, SPEC, LAST, 0, b"", lossy))["warnings"]
    assert LAST in warning
    assert "7/8" in warning
    other = plain(LAST, x.shape, tt.TYPES["Q4_0"][0], tt.encode_q4_0(x + np.arange(256) / 99).tobytes())
    assert bitnet.inspect(damaged(tmp_path, SPEC, LAST, 0, b"", other))["warnings"] == []
