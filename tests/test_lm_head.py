"""Choosing by bounds of the logits (`lm_head="auto"`) gives the ids that all exact logits give (`"exact"`); the 8-bit
head (`"int8"`) gives logits of its own."""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

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


def write_model(folder: Path, kind: str) -> Path:
    spec = dataclasses.replace(SPEC, output=kind)
    found = {t.name: t for t in tensors(spec)} | {"output.weight": head(kind)}
    write_gguf(folder / "model.gguf", metadata(spec), [*found.values()])
    return folder / "model.gguf"


@pytest.fixture(scope="module", params=["F16", "Q6_K", "F32"])
def engines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Any]]:
    path = write_model(tmp_path_factory.mktemp("head"), request.param)
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
    assert auto.memory["head_upper"] > 0 == exact.memory["head_upper"]


@pytest.mark.parametrize("n_prompts", range(1, 10))
def test_a_batch_computes_the_logits_that_each_row_computes_alone(engines: list[Any], n_prompts: int) -> None:
    """Instruction sets find candidates in different ways, some by a screen in 8 bits, with equal ids and counts."""
    exact, auto = engines
    prompts = [[5 + i, 6, 2000 + 7 * i] for i in range(n_prompts)]
    for seed in range(3):
        all_samplings = list(samplings(150))
        random.Random(10 * n_prompts + seed).shuffle(all_samplings)
        params = [bitnet.SamplingParams(max_tokens=4, ignore_eos=True, **s) for s in all_samplings[:n_prompts]]
        want = exact.generate(prompts, params)
        alone = [auto.generate(prompt, p) for prompt, p in zip(prompts, params, strict=True)]
        counts = [answer.receipt.to_dict()["run"]["work"]["logits"] for answer in alone]
        for isa in bitnet.isas():
            with bitnet.Engine(auto.path, isa=isa, n_threads=2) as engine:
                got = engine.generate(prompts, params)
            assert [answer.token_ids for answer in got] == [answer.token_ids for answer in want], isa
            assert [answer.receipt.to_dict()["run"]["work"]["logits"] for answer in got] == counts, isa


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


def int8_logits(head: np.ndarray[Any, Any], hidden: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The logits of `lm_head="int8"` as docs/numerics.md defines them, in plain numpy."""
    amax = np.abs(head).max(axis=1, keepdims=True)
    zero = amax < np.float32(1e-12)
    inverse = np.where(zero, np.float32(0), np.float32(127) / np.where(zero, np.float32(1), amax))
    rows = np.rint(head * inverse).astype(np.int64)
    row_steps = np.where(zero, np.float32(0), amax / np.float32(127)).astype(np.float64)
    stride = -(-head.shape[1] // 32) * 32
    most = min((2**31 - 1) // (127 * stride), 2**15 - 1)
    steps = np.maximum(np.abs(hidden.astype(np.float64)).max(axis=1, keepdims=True), 1e-30) / most
    scaled = hidden.astype(np.float64) / steps
    integers = (np.sign(scaled) * np.floor(np.abs(scaled) + 0.5)).astype(np.int64)
    return ((row_steps.T * steps) * (integers @ rows.T)).astype(np.float32)


@pytest.mark.parametrize("kind", ["F16", "F32"])
def test_the_8_bit_head_defines_its_own_logits(tmp_path: Path, kind: str) -> None:
    path, prompt = write_model(tmp_path, kind), [5, 6, 2000, 2401, 17]
    with bitnet.Engine(path, lm_head="exact") as exact:
        trace, stored = exact.trace(prompt), exact.tensor("output.weight").to_float()
    with bitnet.Engine(path, lm_head="int8", n_threads=1, n_batch=2) as engine:
        logits = engine.logits(prompt)
        assert logits.tobytes() == int8_logits(stored, trace.hidden).tobytes()
        assert 0 < np.abs(logits - trace.logits).max() < 0.02 * np.ptp(trace.logits)
        greedy = engine.generate(prompt, max_tokens=1)
        assert greedy.token_ids == [int(logits[-1].argmax())]
        assert engine.memory["head_copy"] == SPEC.vocab_size * (SPEC.width + 12)
        for isa in bitnet.isas():
            with bitnet.Engine(path, lm_head="int8", isa=isa, n_threads=2) as other:
                assert other.logits(prompt).tobytes() == logits.tobytes()
                assert other.replay(greedy.receipt)


def test_the_8_bit_head_stands_in_the_claim(tmp_path: Path) -> None:
    path = write_model(tmp_path, "F16")
    with bitnet.Engine(path, lm_head="int8") as engine, bitnet.Engine(path) as auto:
        receipt = engine.generate([5, 6], max_tokens=3).receipt
        assert receipt.to_dict()["claim"]["lm_head"] == "int8"
        Draft202012Validator(bitnet.receipt_schema()).validate(receipt.to_dict())
        exact = auto.generate([5, 6], max_tokens=3).receipt
        assert "lm_head" not in exact.to_dict()["claim"]
        for replayed, other in ((exact, engine), (receipt, auto)):
            with pytest.raises(bitnet.ReceiptError, match=r"'claim\.lm_head': it is '(exact|int8)', but"):
                other.replay(replayed)


def test_a_claim_has_one_form(tmp_path: Path) -> None:
    """Fields that are left out in the usual case are not there with the usual value."""
    path = write_model(tmp_path, "F16")
    with bitnet.Engine(path) as engine:
        document = engine.generate([5, 6], max_tokens=2).receipt.to_dict()
    for name, value in [("lm_head", "exact"), ("lm_head", "auto"), ("act_block", 64), ("act_block", 128)]:
        claim = document["claim"] | {name: value} | ({"act_quant": "int16"} if value == 128 else {})
        with pytest.raises(bitnet.ReceiptError, match=rf"'claim\.{name}': it is"):
            bitnet.Receipt.from_json(json.dumps(document | {"claim": claim})).validate()


@pytest.mark.parametrize("kind", ["Q4_0", "Q6_K", "Q2_0_g64"])
def test_an_8_bit_head_that_is_no_smaller_is_refused(tmp_path: Path, kind: str) -> None:
    make_model(tmp_path / "model.gguf", dataclasses.replace(SPEC, arch="llama", output=kind))
    with pytest.raises(bitnet.ArgumentError, match=rf"lm_head is 'int8'.*'output.weight', whose type {kind[:4]}"):
        bitnet.Engine(tmp_path / "model.gguf", lm_head="int8")


def test_an_8_bit_head_with_a_row_that_is_no_number_is_refused(tmp_path: Path) -> None:
    tensor = head("F16")
    data = bytearray(b"".join(tensor.chunks()))
    data[2 * 77 * SPEC.width : 2 * 77 * SPEC.width + 2] = b"\x00\x7e"
    found = {t.name: t for t in tensors(SPEC)} | {
        "output.weight": Tensor("output.weight", tensor.shape, tensor.type_id, len(data), lambda: [bytes(data)])
    }
    write_gguf(tmp_path / "model.gguf", metadata(SPEC), [*found.values()])
    with pytest.raises(bitnet.ModelError, match=r"output\.weight.*not finite"):
        bitnet.Engine(tmp_path / "model.gguf", lm_head="int8")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells it")
def test_the_stored_head_leaves_the_memory(tmp_path: Path) -> None:
    """With the 8-bit copy, exact or not, the pages of the stored head are dropped."""
    spec = dataclasses.replace(SPEC, vocab_size=60000, output="F32")
    make_model(tmp_path / "model.gguf", spec)
    stored, of_files = 4 * spec.vocab_size * spec.width, {}
    for lm_head in ("auto", "int8", "exact"):
        code = f"""
import bitnet
engine = bitnet.Engine({str(tmp_path / "model.gguf")!r}, lm_head={lm_head!r})
engine.generate([1, 2], max_tokens=2, ignore_eos=True)
memory = engine.memory
print(memory["resident"], memory["resident_file"])
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        resident, of_files[lm_head] = map(int, done.stdout.split())
        assert resident > of_files[lm_head] > 0
    assert of_files["exact"] > stored
    assert all(of_files["exact"] - of_files[lm_head] > 0.8 * stored for lm_head in ("auto", "int8")), of_files


def test_lm_head_takes_three_names(engines: list[Any]) -> None:
    with pytest.raises(bitnet.ArgumentError, match="lm_head"):
        bitnet.Engine(engines[0].path, lm_head="fast")
