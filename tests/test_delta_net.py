"""Models with gated delta nets (architecture `qwen35`) against the numpy reference, and keys that must be refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitnet
from bitnet._gguf_writer import Value, write_gguf
from bitnet._synthetic import PRESETS, Spec, metadata, tensors
from closeness import EXACT, distances
from conftest import ROOT, ModelMaker
from reference import Reference
from test_reference import reference_of

FIXTURES = ROOT / "tests" / "fixtures"
# What activations of 16 bits may do here, in units of the spread: the memories of small random nets magnify it.
ROUNDED = 5e-3
LENGTHS = (1, 2, 3, 5, 70, 150)  # less and more than the convolution sees, and more than a chunk of prefill

TINY = PRESETS["tiny-qwen35"]
# Float weights, so that no width must fit a block.
ODD = Spec(
    "qwen35", 5, 72, 100, 3, 1, 40, 101, 512, 1e7, 1e-6, True, "F16", "F16", shards=2,
    full_interval=2, ssm_key_heads=3, ssm_head_dim=20, rope_dim=14,
)  # fmt: skip
ROTATED = Spec(
    "qwen35", 3, 256, 384, 3, 3, 128, 99, 512, 1e7, 1e-6, True, "PTQ1_0", "PTQ1_0", group=128,
    full_interval=2, rope_dim=32, hadamard=64,
)  # fmt: skip
ROTATED = dataclasses.replace(ROTATED, ssm_value_heads=8, ssm_head_dim=48)  # 384 channels, four heads for each key

SPECS = {
    "tiny": TINY,
    "tied": dataclasses.replace(TINY, untied=False),
    "types-of-bonsai": dataclasses.replace(TINY, embedding="Q2_0_g128", ssm_gates="Q2_0_g128"),
    "gates-in-bf16": dataclasses.replace(TINY, ssm_gates="BF16"),
    "one-scale": dataclasses.replace(TINY, linear="I2_S", group=None),
    "odd": ODD,
    "a-key-head-for-each-value-head": dataclasses.replace(ODD, ssm_value_heads=3),
    "one-head": dataclasses.replace(ODD, ssm_key_heads=1, ssm_value_heads=1),
    "heads-of-six-channels": dataclasses.replace(ODD, ssm_head_dim=6),
    "a-convolution-of-two": dataclasses.replace(ODD, ssm_conv=2),
    "all-channels-rotate": dataclasses.replace(ODD, rope_dim=None),
    "only-attention": dataclasses.replace(ODD, layers=2, full_interval=1),
    "only-delta-nets": dataclasses.replace(ODD, layers=3, full_interval=4),
    "rotated": ROTATED,
    "rotated-whole-rows": dataclasses.replace(ROTATED, width=128, ffn=128, heads=1, kv_heads=1, ssm_head_dim=16,
                                              hadamard=128),
    "rotated-ungrouped": dataclasses.replace(ROTATED, gdn_v_grouped=False),
    "rotated-other-types": dataclasses.replace(ROTATED, linear="Q2_0_g64", group=64, embedding="F16", output="Q8_0",
                                               ssm_gates="F32"),
    "rotated-floats": dataclasses.replace(ROTATED, linear="F16", embedding="F32", group=None, shards=2),
}  # fmt: skip


def ids_for(engine: Any, n: int) -> list[int]:
    """Random ids of the model's vocabulary."""
    return [int(i) for i in np.random.default_rng(n).integers(0, engine.n_vocab, n)]


def assert_as_reference(path: Path, reference: Reference, **options: Any) -> None:
    """Float activations differ by rounding noise only."""
    with bitnet.Engine(path, kv_type="f32", act_quant="none", **options) as engine:
        for n in LENGTHS:
            expected = reference.logits(ids_for(engine, n), "none")
            distance = distances(engine.logits(ids_for(engine, n)), expected, float(expected.std()))
            assert distance.max() < EXACT, (n, distance.argmax(), distance.max())


def write(path: Path, spec: Spec, changes: dict[str, Value | None]) -> Path:
    """A model with some metadata changed (None: left out)."""
    keys = {key: value for key, value in (metadata(spec) | changes).items() if value is not None}
    write_gguf(path, keys, tensors(spec))
    return path


@pytest.mark.parametrize("spec", [pytest.param(spec, id=name) for name, spec in SPECS.items()])
def test_graph(model: ModelMaker, spec: Spec) -> None:
    assert_as_reference(model(spec), reference_of(model, spec))


@pytest.mark.parametrize("name", ["qwen35-hybrid", "qwen35-hadamard"])
def test_committed_models(name: str) -> None:
    path = FIXTURES / f"{name}.gguf"
    assert_as_reference(path, Reference.open(path))


@pytest.mark.parametrize(
    "spec", [pytest.param(SPECS[name], id=name) for name in ("tiny", "types-of-bonsai", "rotated")]
)
def test_rounded_activations(model: ModelMaker, spec: Spec) -> None:
    """By default 24 bits, which are as close as floats; 16 bits on request."""
    reference = reference_of(model, spec)
    for act_quant, most in (("auto", EXACT), ("int16", ROUNDED)):
        with bitnet.Engine(model(spec), kv_type="f32", act_quant=act_quant) as engine:
            assert engine.arch == "qwen35"
            assert engine.act_quant == ("int24" if act_quant == "auto" else act_quant)
            for n in LENGTHS:
                expected = reference.logits(ids_for(engine, n), "none")
                distance = distances(engine.logits(ids_for(engine, n)), expected, float(expected.std()))
                assert distance.max() < most, (n, distance.argmax(), distance.max())


def test_which_layers_are_attention(tmp_path: Path) -> None:
    """The array decides; without it the interval, which is 4 where the file does not say."""
    array, interval = "qwen35.attention.recurrent_layers", "qwen35.full_attention_interval"
    for changes in ({array: None}, {interval: None}, {interval: 3}):
        path = write(tmp_path / "m.gguf", ODD, changes)
        assert_as_reference(path, Reference.open(path))
    spec = dataclasses.replace(ODD, layers=4, full_interval=4)
    path = write(tmp_path / "m.gguf", spec, {array: None, interval: None})
    assert_as_reference(path, Reference.open(path))


def test_rotated_weights_without_signs(tmp_path: Path) -> None:
    """A file may rotate without flipping signs first."""
    prefix = "prism.hadamard."
    changes = {f"{prefix}sign_mode": "identity", f"{prefix}sign_widths": None, f"{prefix}sign_values": None}
    path = write(tmp_path / "m.gguf", ROTATED, changes)
    assert_as_reference(path, Reference.open(path))


REFUSED = (bitnet.ModelError, bitnet.UnsupportedModelError)
ROTATION = {key: value for key, value in metadata(ROTATED).items() if key.startswith("prism.hadamard.")}
NAMES: Any = ROTATION["prism.hadamard.weight_names"]
SIGNS: Any = ROTATION["prism.hadamard.sign_values"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", None),
        ("version", 3),
        ("block_size", None),
        ("block_size", 0),
        ("block_size", 96),
        ("block_size", 1024),
        ("transform", "discrete-cosine"),
        ("axis", "output-first-dimension"),
        ("sign_mode", "random"),
        ("sign_widths", [256]),
        ("sign_values", SIGNS[:-1]),
        ("sign_values", [0, *SIGNS[1:]]),
        ("sign_values", [2, *SIGNS[1:]]),
        ("weight_names", [*NAMES, "blk.0.ssm_alpha.weight"]),
        ("weight_names", [*NAMES, "blk.0.no_such.weight"]),
        ("inverse_weight_names", ["output.weight"]),
        ("unheard_of", 1),
    ],
    ids=lambda x: str(x)[:25],
)
def test_a_rotation_that_is_not_understood_is_refused(tmp_path: Path, key: str, value: Value | None) -> None:
    """Such a file must never run unrotated: its answers would be noise."""
    path = write(tmp_path / "m.gguf", ROTATED, {f"prism.hadamard.{key}": value})
    with pytest.raises(REFUSED, match=r"prism\.hadamard\."):
        bitnet.Engine(path)


def test_one_key_of_a_rotation_is_enough_to_be_refused(tmp_path: Path) -> None:
    for key, value in ROTATION.items():
        path = write(tmp_path / "m.gguf", TINY, {key: value})
        with pytest.raises(REFUSED, match=r"prism\.hadamard\."):
            bitnet.Engine(path)
