"""Choosing by bounds of the logits (`lm_head="auto"`) gives the ids that all exact logits give (`"exact"`)."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitnet
from bitnet import _tensor_types as tt
from bitnet._gguf_writer import Tensor, write_gguf
from bitnet._synthetic import Spec, make_model, metadata, tensors

SPEC = Spec("bitnet-b1.58", 1, 256, 256, 4, 2, vocab_size=6000, context=256, seed=3, untied=True)


def head(kind: str, name: str = "output.weight") -> Tensor:
    """Rows that are hard to tell apart: equal ones, ones that differ in their last bit, steep, flat and empty ones."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((SPEC.vocab_size, SPEC.width)).astype(np.float32) * 0.02
    x[1000:2000] = x[:1000]
    x[2000:2100] = x[:100] * np.float32(1 + 2**-9)
    x[2100:2200] = 0
    x[2200:2300, ::2] *= 1e-6
    x[2300, 7] = 3.0
    x[2400:2500] = x[50]
    data = tt.FLOAT[kind](x) if kind in tt.FLOAT else b""
    data = bytes(np.asarray(data).tobytes())
    return Tensor(name, x.shape, tt.TYPES[kind][0], len(data), lambda: [data])


@pytest.fixture(scope="module", params=["F16", "Q6_K", "F32"])
def engines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Any]]:
    path: Path = tmp_path_factory.mktemp("head") / "model.gguf"
    spec = dataclasses.replace(SPEC, output=request.param)
    found = {t.name: t for t in tensors(spec)} | {"output.weight": head(request.param)}
    write_gguf(path, metadata(spec), [*found.values()])
    engines = [bitnet.Engine(path, lm_head=lm_head, n_threads=2) for lm_head in ("exact", "auto")]
    yield engines
    for engine in engines:
        engine.close()


def samplings(n: int) -> Iterator[dict[str, Any]]:
    rng = random.Random(5)
    yield {}
    for _ in range(n):
        yield {
            "temperature": rng.choice([0.0, 1e-3, 0.7, 1.0, 5.0]),
            "top_k": rng.choice([0, 1, 2, 40, 5999, 7000]),
            "top_p": rng.choice([1.0, 0.9, 0.1]),
            "min_p": rng.choice([0.0, 0.05, 0.5, 1.0]),
            "repetition_penalty": rng.choice([1.0, 1.3, 0.5]),
            "presence_penalty": rng.choice([0.0, 0.4, -0.4]),
            "frequency_penalty": rng.choice([0.0, 0.2]),
            "logit_bias": rng.choice([{}, {7: 2.0, 1007: 2.0}, {3: float("-inf")}, {2150: float("inf")}]),
            "seed": rng.randrange(1000),
        }


def test_the_ids_are_those_of_the_exact_head(engines: list[Any]) -> None:
    exact, auto = engines
    prompt, fewer = [5, 6, 2000, 2401], 0
    for sampling in samplings(150):
        want, got = (e.generate(prompt, max_tokens=8, ignore_eos=True, **sampling) for e in engines)
        assert want.token_ids == got.token_ids, sampling
        counts = [answer.receipt.to_dict()["run"]["work"]["logits"] for answer in (want, got)]
        assert counts[0] == 8 * SPEC.vocab_size
        fewer += counts[1] < counts[0]
        got.receipt.validate()
        assert exact.replay(got.receipt) and auto.replay(want.receipt)
    assert fewer > 50
    assert auto.memory["head_copy"] > 0 == exact.memory["head_copy"]


@pytest.mark.parametrize("arch", ["minicpm", "gemma3"])
def test_scaled_and_capped_logits(tmp_path: Path, arch: str) -> None:
    """Scaled states have bounds as others have; a softcap does without the copy."""
    spec = dataclasses.replace(SPEC, arch=arch, softcap=0.1 if arch == "gemma3" else 0.0)
    found = {t.name: t for t in tensors(spec)} | {"output.weight": head("F16")}
    path = tmp_path / "model.gguf"
    write_gguf(path, metadata(spec) | {"minicpm.logit_scale": 3.0}, [*found.values()])
    with bitnet.Engine(path, lm_head="exact") as exact, bitnet.Engine(path) as auto:
        for sampling in samplings(40):
            want, got = (e.generate([5, 6, 2000], max_tokens=5, ignore_eos=True, **sampling) for e in (exact, auto))
            assert want.token_ids == got.token_ids, sampling
        assert (auto.memory["head_copy"] > 0) == (arch == "minicpm")
        assert abs(auto.logits([5, 6])).max() > 0
        if arch == "gemma3":
            assert abs(auto.logits([5, 6])).max() <= np.float32(0.1)


@pytest.mark.parametrize("kind", ["Q2_0_g64", "Q2_0_g128", "PTQ1_0", "TQ2_0"])
def test_a_ternary_head_is_bounded_by_its_trits(tmp_path: Path, kind: str) -> None:
    spec = dataclasses.replace(SPEC, arch="llama", vocab_size=24000, linear=kind, output=kind, group=256)
    make_model(tmp_path / "model.gguf", spec)
    with bitnet.Engine(tmp_path / "model.gguf", lm_head="exact") as exact, bitnet.Engine(exact.path) as auto:
        fewer = 0
        for sampling in samplings(40):
            want, got = (e.generate([5, 6, 2000], max_tokens=5, ignore_eos=True, **sampling) for e in (exact, auto))
            assert want.token_ids == got.token_ids, sampling
            fewer += got.receipt.to_dict()["run"]["work"]["logits"] < 5 * spec.vocab_size // 16
        assert fewer > 15
        assert 0 < auto.memory["head_copy"] < spec.vocab_size * spec.width / 2, "less than 4 bits a weight"


def test_reported_logprobs_and_logits_need_every_logit(engines: list[Any]) -> None:
    exact, auto = engines
    assert exact.logits([1, 2, 3]).tobytes() == auto.logits([1, 2, 3]).tobytes()
    want, got = (e.generate([1, 2, 3], max_tokens=3, logprobs=4) for e in engines)
    assert repr(want.logprobs) == repr(got.logprobs)
    assert got.receipt.to_dict()["run"]["work"]["logits"] == 3 * SPEC.vocab_size


def test_a_row_that_is_no_number_is_found_as_before(tmp_path: Path) -> None:
    """A head with such a row has no copy: every logit is computed, and the error names the row."""
    tensor = head("F16")
    data = bytearray(b"".join(tensor.chunks()))
    data[2 * 77 * SPEC.width : 2 * 77 * SPEC.width + 2] = b"\x00\x7e"
    found = {t.name: t for t in tensors(SPEC)} | {
        "output.weight": Tensor("output.weight", tensor.shape, tensor.type_id, len(data), lambda: [bytes(data)])
    }
    path = tmp_path / "model.gguf"
    write_gguf(path, metadata(SPEC), [*found.values()])
    with bitnet.Engine(path) as engine, pytest.raises(bitnet.ModelError, match=r"output\.weight.*row 77"):
        engine.generate_tokens([1, 2], max_tokens=2)


def test_lm_head_takes_two_names(engines: list[Any]) -> None:
    with pytest.raises(bitnet.ArgumentError, match="lm_head"):
        bitnet.Engine(engines[0].path, lm_head="fast")
