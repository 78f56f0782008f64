"""`bitnet bench`, and `benches/against.py` with a fake peer."""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bitnet
from bitnet import bench, cli
from conftest import ROOT

MODEL = ROOT / "tests" / "fixtures" / "relu2-i2s.gguf"
SHORT = ["-p", "20", "-n", "4", "-r", "2"]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)


def test_every_combination_is_measured() -> None:
    isas = list(dict.fromkeys([bitnet.isas()[0], bitnet.isas()[-1]]))
    lists = ["-t", "1,2,1", "-d", "70,0", "-b", "1,3", "--kv-type", "f16,f32", "--isa", ",".join(isas)]
    done = run("-m", "bitnet", "bench", MODEL, *SHORT, *lists, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["version"] == bitnet.__version__
    assert report["model"] == {"path": str(MODEL), "bytes": MODEL.stat().st_size}
    found = [(run["threads"], run["isa"], run["kv_type"]) for run in report["runs"]]
    assert found == [(n, isa, kv) for n in (1, 2) for isa in isas for kv in ("f16", "f32")]
    for measured in report["runs"]:
        tests = [(test["test"], test["tokens"], test["depth"], test["batch"]) for test in measured["tests"]]
        assert tests == [("prefill", 20, 0, 1), *(("decode", 4, depth, b) for depth in (0, 70) for b in (1, 3))]
        rates = [test["tokens_per_second"] for test in measured["tests"]]
        machine = [measured["read_bytes_per_second"], measured["multiply_adds_per_second"]]
        for spread in [*rates, *machine, measured["open_to_first_token_seconds"]]:
            assert 0 < spread["min"] <= spread["median"] <= spread["max"]
        if sys.platform == "linux":
            assert measured["peak_memory_over_file"] > 0


def test_shares_are_of_the_lower_limit() -> None:
    plan = bench.Plan(str(MODEL), prompt=20, tokens=4, depths=[0, 70], batches=[1, 3], repeats=1)
    measured = bench.measure(plan, 1, None, "f32")
    with bitnet.Engine(MODEL, kv_type="f32") as engine:
        cost = engine.per_token
        assert measured["isa"] == engine.isa
    arithmetic = measured["multiply_adds_per_second"]["median"] / cost["ternary_macs"]
    look_ups = measured["looked_up_per_second"]["median"] / cost["ternary_macs"]
    for test in measured["tests"]:
        memory = measured["read_bytes_per_second"]["median"] / (
            cost["weight_bytes"] / test["batch"] + cost["kv_bytes"] * (test["depth"] + 2) + 2 * cost["state_bytes"]
        )
        limit = (look_ups or arithmetic) if test["test"] == "prefill" else min(arithmetic, memory)
        assert test["limit"] == pytest.approx(limit)
        assert test["limited_by"] == {arithmetic: "arithmetic", look_ups: "look-ups"}.get(limit, "memory")
        assert test["share_of_limit"] == pytest.approx(test["tokens_per_second"]["median"] / limit)


def test_a_pause_never_passes_for_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake engine takes a second per token, and pauses in the calls with these numbers."""

    class Slow:
        now, call = 0.0, 0

        def generate_tokens(self, prompts: list[list[int]], max_tokens: int) -> None:
            self.call += 1
            self.now += max_tokens + pauses.get(self.call, 0)

    for pauses in [{call: 4.0} for call in range(1, 10)] + [{1: 4.0, 3: 4.0}, {1: 9.0, 3: 9.0, 5: 2.0}]:
        machine: Any = Slow()
        monkeypatch.setattr(bench.time, "perf_counter", lambda machine=machine: machine.now)
        seconds = bench.step_seconds([bench.time_decode(machine, [[0]], 8) for _ in range(3)])
        assert min(seconds) == 8, pauses
        assert statistics.median(seconds) == 8, pauses


def test_the_model_inside_as_a_table() -> None:
    done = run("-m", "bitnet", "bench", *SHORT, "-t", "1", "-d", "0,30", "-b", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "trit.gguf" in done.stdout
    for line in ("threads 1, ", "prefill 20 ", "decode 4, batch 2 ", "decode 4 at depth 30, batch 2 "):
        assert any(shown.startswith(line) for shown in done.stdout.splitlines()), line


def test_bare() -> None:
    """The defaults are cut to the context of the model, and the figures that say nothing of it are left out."""
    done = run("-m", "bitnet", "bench")
    assert done.returncode == 0
    assert done.stderr == "bitnet: the model has a context of 384 tokens: --prompt 384 in place of 512\n"
    lines = done.stdout.splitlines()
    cores = bitnet.processor()["cores"]
    assert [line.split(",")[0] for line in lines if line.startswith("threads ")] == [
        f"threads {n}" for n in dict.fromkeys([1, cores])
    ]
    rates = [line.split() for line in lines if line.startswith(("prefill 384 ", "decode 128 "))]
    assert all(len(words) == 3 and float(words[2]) > 0 for words in rates)
    assert len(rates) == 2 * len({1, cores})
    assert "fit into the processor's cache" in done.stdout
    for figure in ("GB/s", "times the file", "%"):
        assert figure not in done.stdout


def test_a_model_that_does_not_fit_the_cache_has_limits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "cache_bytes", lambda: 1)
    assert cli.main(["bench", str(MODEL), *SHORT, "-t", "1"]) == 0
    shown = capsys.readouterr().out
    for figure in ("GB/s", "share of the limit", "% ("):
        assert figure in shown
    assert "cache," not in shown


def test_tests_are_cut_to_the_context() -> None:
    done = run("-m", "bitnet", "bench", "-p", "999", "-n", "999", "-d", "0,300", "-r", "1", "-t", "1", "--json")
    assert done.stderr.endswith(": --prompt 384 in place of 999, --tokens 83 in place of 999\n")
    tests = json.loads(done.stdout)["runs"][0]["tests"]
    assert [(test["tokens"], test["depth"]) for test in tests] == [(384, 0), (83, 0), (83, 300)]


def test_each_combination_is_printed_as_soon_as_it_is_measured() -> None:
    command = [sys.executable, "-m", "bitnet", "bench", *SHORT, "-t", "1,2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = next(line for line in process.stdout if line.startswith("decode"))
        assert first
        assert process.poll() is None, "the second one is still measured"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-t", "0"], ["--threads", "'0'", "at least 1"]),
        (["-d", "1,-2"], ["--depth", "'-2'", "at least 0"]),
        (["-b", "1,,2"], ["--batch", "''"]),
        (["--isa", "abacus"], ["--isa", "'abacus'", bitnet.isas()[0]]),
        (["--kv-type", "f16,q8"], ["--kv-type", "'q8'", "f16, f32"]),
        (["-d", "100000"], ["--depth 100000", "a context of 384 tokens"]),
        (["no-such.gguf"], ["no such file"]),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], words: list[str]) -> None:
    done = run("-m", "bitnet", "bench", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert all(word in done.stderr for word in words)
    assert "Traceback" not in done.stderr


# -- Against a peer ---------------------------------------------------------------------------------------------------

PEER = """
import json, os, sys
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
with open(sys.argv[1], "a") as calls:
    print(json.dumps(options), file=calls)
n = sum(1 for _ in open(sys.argv[1]))
threads = int(options["-t"]) + int(os.environ.get("MORE_THREADS", "0"))
tests = [(int(options["-p"]), 0, 100.0 * n), (0, int(options["-n"]), 10.0 * n)]
print(json.dumps([dict(n_prompt=p, n_gen=g, n_threads=threads, avg_ts=ts) for p, g, ts in tests]))
"""


def against(tmp_path: Path, peer: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "peer.py").write_text(PEER)
    options = ["--ours", str(MODEL), "--peer", peer, "-p", "20", "-n", "4", "-t", "1,2", "--rounds", "3"]
    return run(ROOT / "benches" / "against.py", *options)


def test_against_a_peer(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    done = against(tmp_path, shlex.join([sys.executable, str(tmp_path / "peer.py"), str(calls)]))
    assert done.returncode == 0, done.stderr
    asked = [json.loads(line) for line in calls.read_text().splitlines()]
    assert asked == [{"-o": "json", "-p": "20", "-n": "4", "-t": n, "-r": "1"} for n in "111222"]
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [row[:3] for row in rows] == [[n, *test] for n in "12" for test in (["prefill", "20"], ["decode", "4"])]
    # The fake peer's rates grow with each call: factors 1 to 3 on one thread, 4 to 6 on two.
    assert [float(row[4]) for row in rows] == [200, 20, 500, 50]
    for row in rows:
        assert float(row[5]) == pytest.approx(float(row[3]) / float(row[4]), rel=0.01, abs=0.005)


BATCHED = """
import sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
prompt, tokens, batch = options["-npp"], options["-ntg"], options["-npl"]
print("llama: a line of the log | with bars")
print("|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |")
print(f"| {prompt} | {tokens} | {batch} | 1 | 0.5 | 1.0 | 0.5 | {100 * int(batch) + int(prompt)} | 1.0 | 1.0 |")
"""


def test_against_a_peer_in_batches_and_at_depth(tmp_path: Path) -> None:
    (tmp_path / "peer.py").write_text(BATCHED)
    peer = shlex.join([sys.executable, str(tmp_path / "peer.py")])
    options = [
        "--ours",
        str(MODEL),
        "--batched",
        peer,
        "-d",
        "0,30",
        "-b",
        "1,2",
        "-n",
        "4",
        "-t",
        "1",
        "--rounds",
        "1",
    ]
    done = run(ROOT / "benches" / "against.py", *options)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [" ".join(row[:-3]) for row in rows] == [
        f"1 decode 4 at depth {depth}, batch {batch}" for depth in (0, 30) for batch in (1, 2)
    ]
    assert [float(row[-2]) for row in rows] == [101, 201, 131, 231]
    assert all(float(row[-3]) > 0 for row in rows)


def test_a_peer_is_asked_for() -> None:
    done = run(ROOT / "benches" / "against.py", "--ours", str(MODEL))
    assert done.returncode == 2
    assert "give --peer, --batched or both" in done.stderr


@pytest.mark.parametrize(
    ("peer", "words"),
    [
        (f"{sys.executable} -c 'raise SystemExit(3)'", "ended with status 3"),
        (f"{sys.executable} -c 'print(1, 2)'", "printed no JSON"),
        (f"{sys.executable} -c 'print([])'", "found nothing"),
    ],
)
def test_a_peer_that_fails_is_named(tmp_path: Path, peer: str, words: str) -> None:
    done = against(tmp_path, peer)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_peer_with_other_threads_is_no_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "MORE_THREADS", "7")
    done = against(tmp_path, shlex.join([sys.executable, str(tmp_path / "peer.py"), str(tmp_path / "calls")]))
    assert "ran 8 threads where -t asked for 1" in done.stderr
