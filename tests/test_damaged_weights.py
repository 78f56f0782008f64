"""Weights that are no numbers, or too large ones: an error that names the tensor, never logits that mean nothing."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitnet
from bitnet import _tensor_types as tt
from bitnet._gguf_writer import Tensor
from bitnet._synthetic import Spec
from edited_model import damaged, floats, plain

BASE = Spec("bitnet-b1.58", 2, 256, 256, 4, 2, vocab_size=40, context=256)
NAN_F32, NAN_F16 = struct.pack("<f", float("nan")), struct.pack("<e", float("nan"))
LAST = "blk.1.ffn_down.weight"


def not_ternary(name: str) -> Tensor:
    """What makes a model dense."""
    x = np.random.default_rng(0).standard_normal((BASE.width, BASE.width)).astype(np.float32)
    return plain(name, x.shape, tt.TYPES["F16"][0], tt.encode_f16(x).tobytes())


DAMAGE = {
    "I2_S code": ("I2_S", 5, b"\xff", "code 3"),
    "TQ2_0 code": ("TQ2_0", 5, b"\xff", "code 3"),
    "IQ2_BN code": ("IQ2_BN", 6, b"\xff", "code 3"),
    "TQ2_0 scale": ("TQ2_0", 64, NAN_F16, "NaN"),
    "TQ1_0 scale": ("TQ1_0", 52, NAN_F16, "NaN"),
    "IQ1_BN scale": ("IQ1_BN", 0, NAN_F16, "NaN"),
    "IQ2_BN scale": ("IQ2_BN", 0, NAN_F32, "NaN"),
    "Q8_0 scale": ("Q8_0", 0, NAN_F16, "NaN"),
    "F16": ("F16", 10, NAN_F16, "NaN"),
    "BF16": ("BF16", 10, b"\x80\x7f", "inf"),
    "F32": ("F32", 12, NAN_F32, "NaN"),
}


@pytest.mark.parametrize("dense_by", ["int8", "none", "another tensor"])
@pytest.mark.parametrize(("linear", "at", "data", "fact"), DAMAGE.values(), ids=DAMAGE.keys())
def test_every_projection_is_checked(
    tmp_path: Path, linear: str, at: int, data: bytes, fact: str, dense_by: Any
) -> None:
    """Whatever the projections become, and though the damage lies in the last of them."""
    others = [not_ternary("blk.0.attn_q.weight")] if dense_by == "another tensor" else []
    path = damaged(tmp_path, dataclasses.replace(BASE, linear=linear), LAST, at, data, *others)
    act_quant = "auto" if others else dense_by
    with pytest.raises(bitnet.ModelError) as caught:
        bitnet.Engine(path, act_quant=act_quant)
    assert str(path) in str(caught.value)
    assert LAST in str(caught.value)
    assert fact in str(caught.value)


@pytest.mark.parametrize(
    ("embedding", "at"), [("F16", 512), ("F32", 1024), ("Q8_0", 272), ("Q6_K", 418)], ids=lambda x: str(x)
)
def test_the_embedding_is_checked_where_it_is_read(tmp_path: Path, embedding: str, at: int) -> None:
    """Row 1 as input, and as an output where the head is tied to it."""
    data = NAN_F32 if embedding == "F32" else NAN_F16
    name = "token_embd.weight"
    for untied in (False, True):
        spec = dataclasses.replace(BASE, embedding=embedding, untied=untied)
        with bitnet.Engine(damaged(tmp_path, spec, name, at, data)) as engine:
            for call in (engine.logits, engine.prefill, engine.generate_tokens):
                with pytest.raises(bitnet.ModelError, match=r"token_embd.weight': row 1 holds NaN"):
                    call([0, 2, 1, 3])
            assert engine.cached_tokens == 0
            if untied:
                assert np.isfinite(engine.logits([0, 2, 3])).all()
            else:
                with pytest.raises(bitnet.ModelError, match=r"token_embd.weight': row 1 gives the logit NaN"):
                    engine.logits([0, 2, 3])


NORM = "blk.0.attn_norm.weight"


@pytest.mark.parametrize("act_quant", ["auto", "none"])
@pytest.mark.parametrize("name", [NORM, "blk.1.attn_sub_norm.weight", "blk.1.ffn_sub_norm.weight"])
def test_overflow_is_not_hidden_by_rounding(tmp_path: Path, name: str, act_quant: Any) -> None:
    path = damaged(tmp_path, BASE, name, 0, b"", floats(name, np.full(BASE.width, 3e38)))
    with bitnet.Engine(path, act_quant=act_quant) as engine:
        for call in (engine.logits, engine.prefill):
            with pytest.raises(bitnet.ModelError, match=r"position 0.*out of range"):
                call([1, 2])


def test_a_scale_that_overflows(tmp_path: Path) -> None:
    path = damaged(tmp_path, BASE, "blk.1.attn_k.weight", -32, struct.pack("<f", 3e38))
    with pytest.warns(bitnet.BitnetWarning, match=r"3e\+?38|300000000"):
        engine = bitnet.Engine(path)
    with engine, pytest.raises(bitnet.ModelError, match="position"):
        engine.logits([1, 2])


@pytest.mark.parametrize(
    ("divisors", "keys"),
    [(np.zeros(32), {}), (np.full(32, -1.0), {}), (np.full(32, np.nan), {}), (None, {"rope__freq_base": 1e-40})],
    ids=["zero", "negative", "nan", "base"],
)
def test_rotary_frequencies_are_numbers(tmp_path: Path, divisors: Any, keys: Any) -> None:
    spec = dataclasses.replace(BASE, arch="llama")
    others = [] if divisors is None else [floats("rope_freqs.weight", divisors)]
    with pytest.raises(bitnet.ModelError, match=r"rope_freqs\.weight"):
        bitnet.Engine(damaged(tmp_path, spec, NORM, 0, b"", *others, **keys))
