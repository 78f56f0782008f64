"""What looks wrong in a model but runs: `Engine.warnings`, `inspect`, Python's and the command's warnings."""

from __future__ import annotations

import inspect as source
import json
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
from bitnet._synthetic import INEXACT_TYPES, LINEAR_TYPES, Spec, tensors
from conftest import ModelMaker
from edited_model import damaged, floats, plain, ternary

EXACT_TYPES = [kind for kind in LINEAR_TYPES if kind not in INEXACT_TYPES]
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


PROJECTIONS = [t for t in tensors(SPEC) if t.name.startswith("blk.") and "norm" not in t.name]


def some_trits(shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(0).integers(-1, 2, shape).astype(np.int8)


def of_model(folder: Path, *others: Any, **options: Any) -> list[str]:
    """The warnings of a model with other tensors, which `Engine` and `inspect` give alike."""
    path = damaged(folder, SPEC, LAST, 0, b"", *others)
    listed = opened(path, **options)
    assert options or bitnet.inspect(path)["warnings"] == listed
    return listed


@pytest.mark.parametrize("act_quant", ["auto", "none"])
@pytest.mark.parametrize("kind", EXACT_TYPES)
def test_reciprocal_scales_are_warned_of_in_every_type(tmp_path: Path, kind: str, act_quant: str) -> None:
    def of(scale: float) -> list[str]:
        return of_model(tmp_path, ternary(LAST, kind, some_trits((256, 256)), scale), act_quant=act_quant)

    [warning] = of(64.0)
    assert "scales outside the range of trained models (above 0, at most 10): 1, the first being 6" in warning
    assert f"'{LAST}' of type {kind}; the converter may have stored the reciprocal" in warning
    assert of(0.0625) == of(8.0) == []


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0", "IQ1_BN", "IQ2_BN"])
def test_negative_scales_are_warned_of(tmp_path: Path, kind: str) -> None:
    [warning] = of_model(tmp_path, ternary(LAST, kind, some_trits((256, 256)), -0.5))
    assert "the first being -0.5 of" in warning


@pytest.mark.parametrize("kind", ["I2_S", "TQ2_0", "F16"])
@pytest.mark.parametrize(
    ("stored", "factor", "warned"), [(1, 50, True), (50, 0.02, False), (1, -1, True), (1, 0, True)]
)
def test_the_scale_in_a_tensor_of_its_own_counts(
    tmp_path: Path, kind: str, stored: float, factor: float, warned: bool
) -> None:
    others = [ternary(LAST, kind, some_trits((256, 256)), stored), floats(LAST.replace(".weight", ".scale"), [factor])]
    assert len(of_model(tmp_path, *others)) == warned


def test_a_row_of_zeros_does_not_hide_a_scale(tmp_path: Path) -> None:
    trits = some_trits((256, 256))
    trits[:3] = 0
    assert "first being 64 of" in of_model(tmp_path, ternary(LAST, "F16", trits, 64.0))[0]
    blocks = np.stack([np.zeros(256), np.full(256, 0.5)] * 128)[:, 0]
    assert of_model(tmp_path, ternary(LAST, "TQ2_0", trits, blocks)) == [], "a block of zeros may have the scale 0"


@pytest.mark.parametrize("kind", ["I2_S", "TQ1_0", "F32"])
def test_lost_scales_are_warned_of(tmp_path: Path, kind: str) -> None:
    """A converter that loses the scales loses all of them."""
    ones = [ternary(t.name, kind, some_trits(t.shape), 1.0) for t in PROJECTIONS]
    [warning] = of_model(tmp_path, *ones)
    assert "every projection has the scale 1" in warning
    assert of_model(tmp_path, *ones[1:]) == []
    factor = [floats(t.name.replace(".weight", ".scale"), [0.5]) for t in PROJECTIONS]
    assert of_model(tmp_path, *ones, *factor) == []


@pytest.mark.parametrize("kind", [*EXACT_TYPES, "Q4_0", "Q6_K"])
def test_weights_that_are_all_zero_are_warned_of(tmp_path: Path, kind: str) -> None:
    """As in an upload of a published model, whose feed-forward networks were zero."""
    names = [f"blk.{layer}.ffn_{which}.weight" for layer in (0, 1) for which in ("gate", "up", "down")]
    nothing = np.zeros((256, 256), np.int8)
    [warning] = of_model(tmp_path, *(ternary(name, kind, nothing, 0.5) for name in names))
    assert "all weights are zero in 6 tensors, the first being 'blk.0.ffn_gate.weight'" in warning
    nothing[-1, -1] = 1
    assert of_model(tmp_path, ternary(LAST, kind, nothing, 0.5)) == []


def test_other_tensors_of_zeros(tmp_path: Path) -> None:
    """The embedding and norms are warned of; a bias may be zero."""
    embedding = plain("token_embd.weight", (40, 256), 1, bytes(40 * 256 * 2))
    for other in (embedding, floats("output_norm.weight", np.zeros(256)), floats("blk.0.ffn_norm.weight", [0] * 256)):
        [warning] = of_model(tmp_path, other)
        assert f"zero in tensor '{other.name}';" in warning
    assert of_model(tmp_path, floats("blk.0.attn_q.bias", np.zeros(256))) == []


@pytest.mark.parametrize("kind", EXACT_TYPES)
def test_inspect_counts_zeros_when_asked(tmp_path: Path, kind: str) -> None:
    trits = some_trits((256, 256))
    path = damaged(tmp_path, SPEC, LAST, 0, b"", ternary(LAST, kind, trits, 0.5))
    found = {tensor["name"]: tensor["zeros"] for tensor in bitnet.inspect(path, weights=True)["tensors"]}
    assert found[LAST] == np.mean(trits == 0)
    ternary_names = {tensor.name for tensor in PROJECTIONS}
    assert {name for name, zeros in found.items() if zeros is not None} == ternary_names
    assert all(0.3 < found[name] < 0.45 for name in ternary_names)
    assert {tensor["zeros"] for tensor in bitnet.inspect(path)["tensors"]} == {None}


def test_the_command_shows_the_share_of_zeros(tmp_path: Path) -> None:
    path = damaged(tmp_path, SPEC, LAST, 0, b"", ternary(LAST, "I2_S", np.zeros((256, 256)), 0.5))
    command = [sys.executable, "-m", "bitnet", "inspect", str(path)]
    shown = subprocess.run([*command, "--tensors"], capture_output=True, text=True, encoding="utf-8").stdout
    assert "warning: all weights are zero in tensor" in shown
    [line] = [line for line in shown.splitlines() if LAST in line and "warning" not in line]
    assert line.endswith("100.0 % zeros")
    document = json.loads(subprocess.run([*command, "--json"], capture_output=True, encoding="utf-8").stdout)
    assert [tensor["zeros"] for tensor in document["tensors"] if tensor["name"] == LAST] == [1.0]


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
