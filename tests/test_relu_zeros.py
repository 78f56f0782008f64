"""Zeros of relu² that are not read: the same bits as whole matrices, counts, and where nothing is skipped."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import bitnet
from bitnet._synthetic import Spec, make_model

SPEC = Spec("bitnet-b1.58", 2, 768, 1536, 4, 2, vocab_size=300, relu_zeros=0.6)
IDS = [i * 37 % 300 for i in range(20)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zeros") / "model.gguf"
    make_model(path, SPEC)
    return path


def rows_read(engine: bitnet.Engine, tokens: int = 8) -> tuple[float, float]:
    """The shares of the rows of up and of the columns of down that passes of one row read."""
    receipt = engine.generate([5], max_tokens=tokens, ignore_eos=True).receipt
    assert receipt is not None
    receipt.validate()
    run = receipt.to_dict()["run"]
    assert run["work"]["ffn_neurons"] == SPEC.layers * SPEC.ffn * tokens
    return run["ffn_up_share"], run["ffn_down_share"]


@pytest.mark.parametrize("isa", bitnet.isas())
def test_single_rows_have_the_bits_of_whole_passes(path: Path, isa: str) -> None:
    """A pass of one row skips zeros, a pass of all rows reads everything."""
    with bitnet.Engine(path, isa=isa, n_threads=1) as engine:
        whole = engine.logits(IDS)
        assert engine.memory["neuron_copy"] == 0
    for n_threads in (1, 3):
        with bitnet.Engine(path, isa=isa, n_threads=n_threads, n_batch=1) as engine:
            alone = engine.logits(IDS)
            assert engine.memory["neuron_copy"] > 0
        assert np.array_equal(whole.view(np.uint32), alone.view(np.uint32))


def test_the_shares_are_those_that_the_model_was_made_with(path: Path) -> None:
    found = set()
    for isa in bitnet.isas():
        for n_threads in (1, 2):
            with bitnet.Engine(path, isa=isa, n_threads=n_threads) as engine:
                found.add(rows_read(engine))
    ((up, down),) = found
    assert abs(up - 0.4) < 0.03
    assert 0.15 < down < 0.3


def test_batches_and_prompts_read_everything(path: Path) -> None:
    with bitnet.Engine(path) as engine:
        receipt = engine.generate(IDS, max_tokens=1).receipt
        assert receipt is not None
        assert engine.memory["neuron_copy"] == 0
        run = receipt.to_dict()["run"]
        assert (run["ffn_up_share"], run["ffn_down_share"]) == (1.0, 1.0)
        answers = engine.generate([[5], [6]], max_tokens=8, ignore_eos=True)
        for answer in answers:
            assert answer.receipt is not None
            answer.receipt.validate()


def test_a_trace_shows_every_neuron(path: Path) -> None:
    with bitnet.Engine(path, n_batch=1) as engine:
        assert (engine.trace(IDS[:3]).layers[0].projections["ffn_up"].output != 0).mean() > 0.9
        assert engine.memory["neuron_copy"] == 0


@pytest.mark.parametrize(
    "fields",
    [{"width": 256}, {"ffn": 512}, {"arch": "bitnet", "relu_zeros": None}],
    ids=["short rows", "few rows", "silu"],
)
def test_other_models_have_no_such_counts(tmp_path: Path, fields: dict[str, object]) -> None:
    make_model(tmp_path / "model.gguf", dataclasses.replace(SPEC, **fields))  # type: ignore[arg-type]
    with bitnet.Engine(tmp_path / "model.gguf") as engine:
        receipt = engine.generate([5], max_tokens=3, ignore_eos=True).receipt
        assert receipt is not None
        run = receipt.to_dict()["run"]
        assert not any(name.startswith("ffn") for name in [*run, *run["work"]])
        assert engine.memory["neuron_copy"] == 0


def test_many_active_gates_are_read_whole(tmp_path: Path) -> None:
    make_model(tmp_path / "model.gguf", dataclasses.replace(SPEC, relu_zeros=0.1))
    with bitnet.Engine(tmp_path / "model.gguf") as engine:
        up, down = rows_read(engine)
    assert up == 1.0
    assert 0.5 < down <= 1.0


def test_altered_counts_fail_a_gate(path: Path) -> None:
    with bitnet.Engine(path) as engine:
        receipt = engine.generate([5], max_tokens=4, ignore_eos=True).receipt
    assert receipt is not None
    document = receipt.to_dict()
    neurons = document["run"]["work"]["ffn_neurons"]
    for name, value, gate in (
        ("ffn_neurons", neurons + 1, "run.work.ffn_neurons"),
        ("ffn_neurons", 2 * neurons, "run.ffn_down_share"),
        ("ffn_up_rows", neurons + 1, "run.work.ffn_up_rows"),
        ("ffn_down_columns", neurons + 1, "run.work.ffn_down_columns"),
        ("ffn_up_rows", 1, "run.ffn_up_share"),
        ("ffn_down_columns", 1, "run.ffn_down_share"),
    ):
        altered = receipt.to_dict()
        altered["run"]["work"][name] = value
        with pytest.raises(bitnet.ReceiptError, match=gate.replace(".", r"\.")):
            bitnet.Receipt.from_json(json.dumps(altered)).validate()
