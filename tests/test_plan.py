"""`bitnet plan` and `bitnet.sizing`: planned memory against what an engine takes, sums, limits, advice, errors."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

import bitnet
from bitnet import _machine, cli, sizing
from bitnet._sizing_advice import advice
from bitnet._synthetic import PRESETS, Spec
from conftest import ModelMaker, message_of
from test_cli import run

MODELS = {
    "one key head for each query head": Spec(heads=4, kv_heads=4),
    "grouped queries": Spec(heads=4, kv_heads=1),
    "delta nets": PRESETS["tiny-qwen35"],
    "a head with a copy": Spec(vocab_size=4096),
}
KV_TYPES: list[Literal["f16", "f32"]] = ["f16", "f32"]


@pytest.fixture(params=MODELS.values(), ids=MODELS.keys())
def spec(request: pytest.FixtureRequest) -> Spec:
    """One of the models."""
    found: Spec = request.param
    return found


# -- Memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kv_type", KV_TYPES)
def test_the_memory_is_what_an_engine_takes(model: ModelMaker, spec: Spec, kv_type: Literal["f16", "f32"]) -> None:
    """A session with a full context, by its receipt; the weights, by `Engine.memory`."""
    context = 200  # four pages, the last one not full; no mark at a multiple of 256
    planned = sizing.plan(model(spec), 3, context, kv_type=kv_type, n_threads=1)
    session = planned["session"]
    with bitnet.Engine(model(spec), n_ctx=context, kv_type=kv_type, n_threads=1) as engine:
        answer = engine.generate([7] * 150, max_tokens=context - 150, ignore_eos=True)
        assert answer.finish_reason == "length"
        assert answer.receipt is not None
        found = engine.memory
        own = found["packed_weights"] + found["head_copy"]
        copies = found["head_upper"] + found["neuron_copy"]
        sequence = answer.receipt.to_dict()["run"]["memory_bytes"] - own - copies
        assert planned["memory"]["weights"] + planned["memory"]["head_copies"] == own + found["head_upper"]
        assert planned["memory"]["shared_weights"] == engine.per_token["weight_bytes"] - own
        assert planned["per_token"] == engine.per_token
        if session["state_bytes"]:  # the state, and the one mark that is kept before the end of a prompt
            assert sequence == session["kv_bytes"] + 2 * session["state_bytes"]
            assert session["state_bytes"] <= session["mark_bytes"]
        else:
            assert sequence == session["bytes"] == session["kv_bytes"]
            assert found["kv_cache"] == session["kv_bytes"], "the prefix cache holds the same sequence"
    assert bool(session["state_bytes"]) == spec.graph.is_hybrid
    assert bool(planned["memory"]["head_copies"]) == (spec.vocab_size == 4096)


@pytest.mark.parametrize("kv_type", KV_TYPES)
def test_a_session_is_what_the_engine_reserves_for_one(
    model: ModelMaker, spec: Spec, kv_type: Literal["f16", "f32"]
) -> None:
    """By default the prefix cache has room for a whole sequence with all its marks, if that is more than 512 MiB."""
    long = 4_000_000
    spec = dataclasses.replace(spec, context=long)
    planned = sizing.plan(model(spec), 1, long - 1, kv_type=kv_type, n_threads=1)
    assert planned["session"]["bytes"] > 512 << 20
    assert planned["memory"]["prefix_caches"] == planned["session"]["bytes"]


def test_the_sums_add_up(model: ModelMaker, spec: Spec) -> None:
    planned = sizing.plan(model(spec), 9, 100, processes=3, cache_bytes=1 << 20, n_threads=1)
    alone = sizing.plan(model(spec), 3, 100, cache_bytes=1 << 20, n_threads=1)
    session, memory, of_one = planned["session"], planned["memory"], alone["memory"]
    assert session["bytes"] == sum(session[field.name] for field in dataclasses.fields(sizing.Session))
    parts = [field.name for field in dataclasses.fields(sizing.Memory)]
    assert memory["total"] == sum(memory[part] for part in parts)
    assert memory["prefix_caches"] == 3 << 20
    assert memory["shared_weights"] == of_one["shared_weights"]
    for part in ("weights", "head_copies", "sessions", "pass_buffers"):
        assert memory[part] == 3 * of_one[part], part
    if memory["available"] is not None:
        assert memory["fits"]
        more = memory["total"] + (planned["max_sessions"] - 9) * session["bytes"]
        assert more <= memory["available"] < more + session["bytes"]


def test_large_pages_and_states_fill_huge_pages() -> None:
    """Each page of 64 tokens and each state has memory of its own. Small ones take small pages."""
    mib = 1 << 20
    cost = {"kv_bytes": 5 * mib // 64, "state_bytes": 150 * mib + 1}
    with_huge, without = (sizing.Session.of(cost, 65, huge_pages) for huge_pages in (True, False))
    assert (without.kv_bytes, without.state_bytes, without.mark_bytes) == (10 * mib, 150 * mib + 1, 300 * mib + 2)
    assert without.padding_bytes == 0
    assert with_huge.bytes == 2 * 6 * mib + 3 * 152 * mib
    small = {"kv_bytes": mib // 64, "state_bytes": mib}
    assert sizing.Session.of(small, 65, True).padding_bytes == 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell how much memory is free")
def test_a_context_that_fits_is_found(model: ModelMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "_private_bytes", lambda: 0)  # it varies
    path, size = model(Spec()), 400
    asked = sizing.plan(path, 100, size, cache_bytes=0, n_threads=1)
    assert asked["max_context"] is None, "it fits as it is"
    fixed = asked["memory"]["total"] - asked["memory"]["sessions"]
    page = 64 * asked["per_token"]["kv_bytes"]
    free = fixed + 100 * 3 * page
    monkeypatch.setattr(sizing, "machine", lambda: dataclasses.replace(_machine.machine(), available=free))
    found = sizing.plan(path, 100, size, cache_bytes=0, n_threads=1)
    assert (found["memory"]["fits"], found["max_context"]) == (False, 192)
    assert found["max_sessions"] in range(300 // 7, 100)
    assert any("With a context of 192 tokens all 100 sessions fit." in sentence for sentence in found["advice"])
    monkeypatch.setattr(sizing, "machine", lambda: dataclasses.replace(_machine.machine(), available=0))
    nothing = sizing.plan(path, 100, size, cache_bytes=0, n_threads=1)
    assert (nothing["max_context"], nothing["max_sessions"]) == (None, 0)


def test_processes_share_a_packed_model(text_model: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    bitnet.pack(text_model, packed)
    memory = sizing.plan(packed, 4, processes=4, n_threads=1)["memory"]
    assert (memory["weights"], memory["head_copies"]) == (0, 0)
    with bitnet.Engine(packed) as engine:
        assert memory["shared_weights"] == engine.per_token["weight_bytes"]
    assert memory["shared_weights"] > 0


# -- Rates ------------------------------------------------------------------------------------------------------------

COST = {"ternary_macs": 100, "weight_bytes": 1000, "kv_bytes": 2, "state_bytes": 10}


def rates(most: int, processes: int = 1, depth: int = 0) -> list[dict[str, Any]]:
    """The limits on a machine that reads 10,000 bytes and does 4,000 multiply-adds a second."""
    return [sizing._rate(n, depth, processes, COST, 1e4, 4e3) for n in sizing._streams(most, processes)]


def test_the_rates_are_the_lower_of_two_limits() -> None:
    found = [(rate["streams"], rate["limited_by"]) for rate in rates(6)]
    assert found == [(1, "memory"), (2, "memory"), (4, "memory"), (6, "arithmetic")]
    assert rates(1)[0]["tokens_per_second"] == pytest.approx(1e4 / (1000 + 20))
    assert rates(1, depth=50)[0]["tokens_per_second"] == pytest.approx(1e4 / (1000 + 20 + 2 * 50))
    assert rates(6)[-1]["tokens_per_second"] == pytest.approx(4e3 / 100)
    for rate in rates(32, depth=9):
        assert rate["streams"] * rate["tokens_per_second_each"] == pytest.approx(rate["tokens_per_second"])


def test_each_process_reads_the_weights() -> None:
    found = rates(4, processes=2)
    assert [rate["streams"] for rate in found] == [1, 2, 4, 8]
    assert found[1]["tokens_per_second"] == pytest.approx(2 * 1e4 / (2 * 1000 + 2 * 20))
    assert found[1]["tokens_per_second"] < rates(2)[1]["tokens_per_second"]


def test_a_batch_is_no_larger_than_asked(model: ModelMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "processor_cache_bytes", lambda: 1)  # as if the weights did not fit into it
    planned = sizing.plan(model(Spec()), 5, 100, max_batch=4, n_threads=1)
    assert [(rate["streams"], rate["depth"]) for rate in planned["rates"]] == [
        (n, depth) for n in (1, 2, 4) for depth in (0, 100)
    ]
    assert planned["prompt_rate"] > 0
    few = sizing.plan(model(Spec()), 2, 100, max_batch=4, n_threads=1)
    assert [rate["streams"] for rate in few["rates"] if rate["depth"] == 0] == [1, 2]


# -- Advice -----------------------------------------------------------------------------------------------------------


def planned(fits: bool = True, **changes: Any) -> dict[str, Any]:
    """A plan made by hand, of ten sessions of 1 MB."""
    memory = {"weights": 0, "head_copies": 0, "prefix_caches": 0, "total": 10_000_000, "sessions": 9_000_000}
    memory |= {"available": 20_000_000 if fits else 6_000_000, "fits": fits} | changes.pop("memory", {})
    return {
        "sessions": 10,
        "session": {"bytes": 1_000_000, "kv_bytes": 1_000_000},
        "memory": memory,
        "max_sessions": 20 if fits else 4,
        "max_context": None if fits else 640,
        "per_token": {"weight_bytes": 850_000_000},
        "kv_type": "f16",
        "processes": 1,
        "max_batch": 32,
        "threads": 2,
        "cores": 2,
        "rates": None,
    } | changes


def test_what_does_not_fit_is_told_with_what_helps() -> None:
    assert advice(planned())[0] == "Memory is no limit: 20 sessions fit."
    told = advice(planned(fits=False))
    assert told[:3] == [
        "Memory is the limit: 4 MB too little. 4 sessions fit; each takes 1 MB.",
        "With a context of 640 tokens all 10 sessions fit.",
        "Or use 3 such machines: bitnet.ray (docs/ray.md) shares out the rows of a data set.",
    ]
    told = advice(planned(fits=False, max_sessions=0, max_context=None))
    assert "No sessions fit" in told[0]
    assert "machines" not in told[1]
    told = advice(planned(fits=False, kv_type="f32", memory={"prefix_caches": 1_000_000}))
    assert told[1] == "Use kv_type f16: it saves 5 MB, which is enough."
    assert told[2] == "Give the prefix cache less memory (cache_bytes): it may have 1 MB."
    told = advice(planned(fits=False, processes=4, memory={"weights": 4_000_000, "head_copies": 2_000_000}))
    assert "`bitnet pack`" in told[1]
    assert told[1].endswith("which saves 4.5 MB, which is enough.")
    assert "does not tell" in advice(planned(memory={"available": None, "fits": None}))[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"threads": 1}, "This machine has 2 cores"),
        ({"threads": 3}, "3 threads on 2 cores"),
        ({}, "All 2 cores are used"),
        ({"processes": 4}, "4 processes with 2 threads take turns"),
        ({"processes": 2}, "Each of the 2 processes reads the weights"),
        ({"rates": None}, "fit into the processor's cache"),
        ({"rates": rates(1)}, "One stream is limited by reading memory: 850 MB"),
        ({"rates": rates(6)}, "From 6 streams with short contexts on, arithmetic is the limit"),
        ({"rates": rates(4, depth=2000)}, "With 4 streams and full contexts, 94 % of reading"),
        ({"rates": rates(4), "max_batch": 4}, "4 streams decode at once; if all 10 do, 6 wait"),
    ],
)
def test_what_bounds_the_speed_is_told(changes: dict[str, Any], words: str) -> None:
    assert any(words in sentence for sentence in advice(planned(**changes)))


# -- The command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_the_plan(text_model: Path) -> None:
    arguments = ["plan", text_model, "--sessions", "10", "--context", "100", "--kv-type", "f32", "-t", "1"]
    done = run(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    expected = sizing.plan(text_model, 10, 100, kv_type="f32", n_threads=1)
    for key in ("model", "sessions", "context", "processes", "threads", "max_batch", "per_token", "session"):
        assert report[key] == expected[key], key
    assert report["context"] == 100
    assert report["session"]["kv_bytes"] == 128 * report["per_token"]["kv_bytes"], "two pages of 64 tokens"
    shown = run(*arguments)
    assert (shown.returncode, shown.stderr) == (0, "")
    for fact in ("10 sessions of 100 tokens each, KV cache f32; 1 process, 1 thread", "total", "sessions that fit"):
        assert fact in shown.stdout
    for sentence in report["advice"][1:]:  # the first has how many fit at that moment
        assert sentence in shown.stdout


def test_the_limits_are_not_called_measurements(
    model: ModelMaker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sizing, "processor_cache_bytes", lambda: 1)
    assert cli.main(["plan", str(model(Spec())), "-n", "3", "-t", "1"]) == 0
    shown = capsys.readouterr().out
    head, _, table = shown.partition("Limits of this machine in tokens/s, not measurements")
    assert "measured now" in head
    assert [line.split()[0] for line in table.splitlines()[3:6]] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope.gguf"], "bitnet: nope.gguf: no such file"),
        (["--sessions", "0"], "bitnet: --sessions is 0, expected at least 1"),
        (["--processes", "0"], "bitnet: --processes is 0, expected at least 1"),
        (["--processes", "3", "-n", "2"], "bitnet: --processes is 3, expected at most 2, the number of sessions"),
        (["--context", "385"], "bitnet: --context is 385, expected at most 384"),
        (["--ctx", "0"], "bitnet: --context is 0, expected at least 1"),
        (["--max-batch", "0"], "bitnet: --max-batch is 0, expected at least 1"),
        (["--threads", "0"], "bitnet: --threads is 0, expected at least 1"),
    ],
)
def test_errors_are_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", *arguments]) == 2
    told = capsys.readouterr().err
    assert told.startswith(words)
    assert told.count("\n") == 1


@pytest.mark.parametrize("call", [lambda: sizing.plan(sessions=0), lambda: sizing.plan(context=10_000)])
def test_errors_in_python(call: Callable[[], object]) -> None:
    assert "expected at " in message_of(bitnet.ArgumentError, call)


@pytest.mark.parametrize("name", ["sessions", "processes", "context"])
@pytest.mark.parametrize("value", ["1", 1.5, True])
def test_counts_are_ints(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"{name} must be an int, found {type(value).__name__}"):
        sizing.plan(**{name: value})
