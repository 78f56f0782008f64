"""Models of many shapes and types, made on the fly, against the numpy reference of their graphs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitnet
from bitnet._gguf_writer import Tensor, write_gguf
from bitnet._synthetic import INEXACT_TYPES, LINEAR_TYPES, Spec, metadata, tensors
from bitnet._tensor_types import FLOAT, TYPES, encode_f32, encode_i2_s
from closeness import EXACT, FLIPPED, ROUNDED, distances
from conftest import ModelMaker
from reference import Reference

SMALL = Spec(width=256, ffn=512, vocab_size=101)
UNKNOWN_TO_REFERENCE = ("I2_S", "IQ1_BN", "IQ2_BN", "IQ2_BN_R4")

SHAPES = {
    "2b-4t-like": SMALL,
    "bitnet-25-untied": dataclasses.replace(SMALL, arch="bitnet-25", untied=True),
    "bitnet-silu": dataclasses.replace(SMALL, arch="bitnet", rope_theta=1e4),
    "llama": dataclasses.replace(SMALL, arch="llama", eps=1e-6, rope_theta=1000042.0, untied=True),
    "llama-tied": dataclasses.replace(SMALL, arch="llama"),
    "heads-of-100": Spec("bitnet", 2, 400, 1088, 4, 4, vocab_size=96, rope_theta=1e4),
    "heads-of-36": Spec("bitnet", 2, 144, 208, 4, 2, vocab_size=97),
    "heads-of-256": Spec("llama", 1, 512, 640, 2, 1, vocab_size=64, untied=True),
    "i2s-rows-across-blocks": Spec("bitnet-b1.58", 3, 80, 208, 4, 2, vocab_size=67),
    "one-layer-one-head": Spec("bitnet-b1.58", 1, 64, 128, 1, 1, vocab_size=48),
    "multi-query": Spec("llama", 2, 192, 320, 6, 1, vocab_size=48),
    "three-to-one": Spec("bitnet", 2, 192, 320, 6, 2, vocab_size=48),
    "as-many-kv-heads": Spec("bitnet-b1.58", 2, 192, 320, 6, 6, vocab_size=48),
    "attention-wider-than-model": Spec("llama", 2, 128, 256, 6, 2, 48, vocab_size=48, untied=True),
    "attention-narrower-than-model": Spec("bitnet", 2, 256, 256, 2, 1, 64, vocab_size=48),
    "long-rows": Spec("bitnet-b1.58", 1, 64, 23040, 2, 1, vocab_size=48),
    "1bitllm-as-b1.58": Spec("bitnet-b1.58", 1, 64, 128, 1, 1, vocab_size=32002, rope_theta=1e4),
    "1bitllm-as-25": Spec("bitnet-25", 1, 64, 128, 1, 1, vocab_size=32002, rope_theta=1e4),
    "a-vocabulary-beside-1bitllm": Spec("bitnet-b1.58", 1, 64, 128, 1, 1, vocab_size=32003),
    "nothing-aligned": Spec("bitnet-b1.58", 2, 30, 50, 3, 1, vocab_size=33, linear="F32"),
    "nothing-aligned-dense": Spec("llama", 2, 42, 77, 3, 3, vocab_size=7, linear="F16", shards=2, untied=True),
    "width-72": Spec("bitnet", 2, 72, 100, 2, 2, vocab_size=50, linear="F16"),
}
QWEN3 = Spec("qwen3", 2, 256, 512, 2, 1, 64, vocab_size=101, rope_theta=1e6, eps=1e-6)
GEMMA3 = Spec("gemma3", 4, 128, 256, 4, 2, 48, vocab_size=101, rope_theta=1e6, window=7, window_pattern=3)
MINICPM = Spec("minicpm", 3, 192, 320, 4, 2, vocab_size=101, rope_theta=1e4, untied=True)
FAMILIES = {
    "qwen2": dataclasses.replace(SMALL, arch="qwen2"),
    "qwen3": QWEN3,
    "qwen3-yarn": dataclasses.replace(QWEN3, context=120, rope_scaling="yarn", rope_factor=3.0),
    "qwen3-yarn-untied": dataclasses.replace(QWEN3, context=64, rope_scaling="yarn", rope_factor=8.0, untied=True),
    "qwen3-linear": dataclasses.replace(QWEN3, rope_scaling="linear", rope_factor=2.0),
    "qwen3-norm-in": dataclasses.replace(QWEN3, norm_in=True, pooling=1),
    "minicpm": MINICPM,
    "minicpm-longrope-long": dataclasses.replace(MINICPM, context=96, rope_scaling="longrope"),
    "minicpm-longrope-short": dataclasses.replace(MINICPM, context=96, rope_scaling="longrope", original_context=96),
    "gemma3": GEMMA3,
    "gemma3-window-1": dataclasses.replace(GEMMA3, window=1, window_pattern=2),
    "gemma3-all-windows": dataclasses.replace(GEMMA3, window=3, window_pattern=0),
    "gemma3-no-window": dataclasses.replace(GEMMA3, window=0),
    "gemma3-norm-in": dataclasses.replace(GEMMA3, norm_in=True, pooling=3),
    "gemma3-softcap": dataclasses.replace(GEMMA3, softcap=15.0, untied=True),
    "gemma3-27b": dataclasses.replace(GEMMA3, layers=62, width=32, ffn=32, heads=2, kv_heads=1, head_dim=8),
    "hunyuan-dense": dataclasses.replace(SMALL, arch="hunyuan-dense"),
}
# The same with float activations, as models with several scales in a matrix run.
FAMILIES |= {f"{k}-dense": dataclasses.replace(s, linear="F16", shards=2) for k, s in FAMILIES.items()}
LINEARS = {
    f"{kind}-{arch}": dataclasses.replace(SMALL, arch=arch, linear=kind)
    for kind in LINEAR_TYPES
    if kind not in INEXACT_TYPES  # tests/test_families.py has models of them
    for arch in ("bitnet-b1.58", "llama")
}
EMBEDDINGS = {
    f"{kind}-embedding": dataclasses.replace(SMALL, layers=1, embedding=kind, vocab_size=83) for kind in FLOAT
} | {
    f"{kind}-output": dataclasses.replace(SMALL, arch="llama", layers=1, untied=True, output=kind, vocab_size=83)
    for kind in FLOAT
}
# Several magnitudes in a tensor take activations of 16 bits, but for the types that hold one scale per row.
SHARDED = {
    f"{kind}-shards": dataclasses.replace(SMALL, linear=kind, shards=3)
    for kind in ("TQ1_0", "TQ2_0", "F16", "F32", "BF16", "Q8_0", "IQ1_BN", "IQ2_BN", "IQ2_BN_R4", "Q2_0_g128")
}
# A scale for each row and group of columns.
GROUPED = {
    f"{kind}-groups-of-{group}": dataclasses.replace(SMALL, arch="llama", linear=kind, group=group)
    for kind, group in [
        ("TQ1_0", 256), ("TQ2_0", 256), ("Q2_0_g64", 64), ("Q2_0_g64", 128), ("Q2_0_g128", 128), ("PQ2_0", 128),
        ("PTQ1_0", 128), ("F16", 128), ("F32", 128), ("BF16", 256),
    ]
} | {"long-rows-in-groups": Spec("llama", 1, 640, 1408, 5, 5, vocab_size=48, linear="PTQ1_0", group=128)}  # fmt: skip


WEIGHTS_ONLY = ("Q2_0_g64", "Q2_0_g128", "PQ2_0", "PTQ1_0", "Q1_0", "STQ1_0")


def act_quant(spec: Spec) -> str:
    """Which activations the design gives a model: int8 for one magnitude per tensor (or per row of IQ*_BN), but for
    types in which models trained on floats are published."""
    one_scale = spec.shards == 1 and spec.group is None
    of_floats = spec.linear in WEIGHTS_ONLY and not (spec.graph.sub_norms or spec.norm_in)
    return "int8" if (one_scale or spec.linear.startswith("IQ")) and not of_floats else "int16"


def reference_of(model: ModelMaker, spec: Spec) -> Reference:
    """The reference on the same file, or on the same model in F32 where it does not know the type."""
    is_unknown = spec.linear in UNKNOWN_TO_REFERENCE
    return Reference.open(model(dataclasses.replace(spec, linear="F32") if is_unknown else spec))


def assert_close(engine: Any, reference: Reference, quant: str) -> None:
    """Short prompts: equal up to rounding noise, but for one flip; a longer one: within what flips may do."""
    rng = np.random.default_rng(engine.n_vocab)
    exact = []
    for n in (1, 1, 1, 2, 4, 30):
        ids = [int(i) for i in rng.integers(0, engine.n_vocab, n)]
        expected = reference.logits(ids, "int8" if quant == "int8" else "none")
        found = engine.logits(ids)
        assert found.dtype == np.float32
        distance = distances(found, expected, float(expected.std()))
        most = {"int8": FLIPPED, "int16": ROUNDED, "none": EXACT}[quant]
        assert distance.max() < most, f"{n} tokens, position {distance.argmax()}"
        exact.append(bool((distance < max(EXACT, most if quant == "int16" else 0)).all()))
    assert sum(exact[:5]) >= 4, exact


MODELS = SHAPES | FAMILIES | LINEARS | EMBEDDINGS | SHARDED | GROUPED


@pytest.mark.parametrize("spec", [pytest.param(spec, id=name) for name, spec in MODELS.items()])
def test_graph(model: ModelMaker, spec: Spec) -> None:
    """Logits, and the choices that the file leaves to the engine."""
    reference = reference_of(model, spec)
    with bitnet.Engine(model(spec), kv_type="f32") as engine:
        assert engine.arch == spec.arch
        assert engine.n_vocab == spec.vocab_size
        assert engine.ffn_act == reference.ffn_act
        assert engine.act_quant == act_quant(spec)
        assert_close(engine, reference, act_quant(spec))


@pytest.mark.parametrize("arch", ["bitnet-b1.58", "llama"])
@pytest.mark.parametrize("linear", ["I2_S", "TQ1_0", "IQ2_BN", "F16"])
def test_float_activations_on_request(model: ModelMaker, arch: str, linear: str) -> None:
    """A model trained without activation quantization, run so whatever its weights look like."""
    spec = dataclasses.replace(SMALL, arch=arch, linear=linear)
    with bitnet.Engine(model(spec), kv_type="f32", act_quant="none") as engine:
        assert engine.act_quant == "none"
        assert_close(engine, reference_of(model, spec), "none")


@pytest.mark.parametrize(("arch", "act"), [("bitnet-b1.58", "silu"), ("bitnet", "relu2"), ("llama", "relu2")])
def test_other_ffn_activation(model: ModelMaker, tmp_path: Path, arch: str, act: Any) -> None:
    """The argument and the metadata key decide against the architecture's own, and give the same bits."""
    spec = dataclasses.replace(SMALL, arch=arch, layers=1, linear="F32")
    reference = reference_of(model, spec)
    assert reference.ffn_act != act
    key = {f"{arch}.hidden_activation": act}
    with bitnet.Engine(model(spec), kv_type="f32", ffn_act=act) as engine:
        assert engine.ffn_act == act
        assert_close(engine, dataclasses.replace(reference, config=reference.config | key), "int8")
        by_argument = engine.logits([1, 2, 3])
    write_gguf(tmp_path / "stated.gguf", metadata(spec) | key, tensors(spec))
    with bitnet.Engine(tmp_path / "stated.gguf", kv_type="f32") as engine:
        assert engine.ffn_act == act
        assert np.array_equal(engine.logits([1, 2, 3]), by_argument)


def test_what_decides_the_ffn_activation(tmp_path: Path) -> None:
    """The argument, then the file's key, then the size; a key that means nothing is refused unless it is overridden."""
    spec = SHAPES["1bitllm-as-b1.58"]
    path = tmp_path / "model.gguf"

    def opened(act: Any = None, **keys: Any) -> str:
        found = metadata(spec) | {f"{spec.arch}.{key}": value for key, value in keys.items()}
        write_gguf(path, {key: value for key, value in found.items() if value is not None}, tensors(spec))
        with bitnet.Engine(path, ffn_act=act) as engine:
            return engine.ffn_act

    assert opened() == "silu"
    assert opened(vocab_size=None) == "silu", "the embedding tells the size, too"
    assert opened(hidden_activation="relu2") == "relu2"
    assert opened("relu2", hidden_activation="silu") == "relu2"
    assert opened("relu2", hidden_activation="gelu") == "relu2"
    with pytest.raises(bitnet.UnsupportedModelError, match="gelu"):
        opened(hidden_activation="gelu")


@pytest.mark.parametrize("isa", bitnet.isas())
@pytest.mark.parametrize("sign", [1, -1])
def test_largest_sums(tmp_path: Path, isa: str, sign: int) -> None:
    """All weights and all activations of one sign, on the longest rows known: no accumulator may overflow."""
    spec = Spec("bitnet-b1.58", 1, 128, 23040, 2, 1, vocab_size=8)
    scale = 2.0**-10

    def extreme(tensor: Tensor, linear: str) -> Tensor:
        if tensor.name == "token_embd.weight":
            rows = np.repeat(np.arange(-3.5, 4, dtype=np.float16), spec.width)
            return dataclasses.replace(tensor, chunks=lambda: [rows.tobytes()])
        if "norm" in tensor.name:
            return dataclasses.replace(tensor, chunks=lambda: [np.ones(tensor.shape, np.float32).tobytes()])
        trits = np.full(tensor.shape, sign, np.int8)
        if "ffn_down" in tensor.name:
            trits[1::2] = 0  # so that the size of the other channels shows behind the final norm
        data = encode_i2_s(trits, scale) if linear == "I2_S" else encode_f32(trits * np.float32(scale))
        return dataclasses.replace(tensor, type_id=TYPES[linear][0], nbytes=data.size, chunks=lambda: [data.tobytes()])

    for linear in ("I2_S", "F32"):
        write_gguf(tmp_path / f"{linear}.gguf", metadata(spec), [extreme(t, linear) for t in tensors(spec)])
    reference = Reference.open(tmp_path / "F32.gguf")
    with bitnet.Engine(tmp_path / "I2_S.gguf", kv_type="f32", isa=isa) as engine:
        for token in range(spec.vocab_size):
            expected = reference.logits([token], "int8")
            assert distances(engine.logits([token]), expected, float(expected.std())).max() < EXACT
