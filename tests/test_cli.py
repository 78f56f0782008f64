"""The command `bitnet`, run as its users run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bitnet
from conftest import ROOT

MODEL = ROOT / "tests" / "fixtures" / "relu2-i2s.gguf"


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bitnet", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def test_inspect_shows_the_verdicts() -> None:
    done = run("inspect", MODEL, "--tensors")
    assert done.returncode == 0
    for fact in ("bitnet-b1.58", "relu2", "int8 (every projection is ternary", "I2_S  14", "blk.1.ffn_down.weight"):
        assert fact in done.stdout
    assert done.stderr == ""


def test_inspect_prints_json() -> None:
    model = json.loads(run("inspect", MODEL, "--json").stdout)
    assert model == json.loads(json.dumps(bitnet.inspect(MODEL), default=os.fspath))
    assert model["config"]["width"] == 128
    assert len(model["tensors"]) == sum(t["tensors"] for t in model["types"].values())


@pytest.mark.parametrize(("name", "word"), [("no-such.gguf", "no such file"), (str(ROOT / "README.md"), "text")])
def test_a_wrong_file_is_one_line_and_status_2(name: str, word: str) -> None:
    done = run("inspect", name)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert name in done.stderr
    assert word in done.stderr


def test_doctor_names_what_the_engine_would_use() -> None:
    report = json.loads(run("doctor", "--json").stdout)
    assert report["instruction_sets"] == bitnet.isas()
    assert report["chosen"] == os.environ.get("BITNET_ISA", bitnet.isas()[-1])
    assert all(rate > 0 for rate in report["read_gb_per_s"].values())
    assert "scalar (by BITNET_ISA)" in run("doctor", BITNET_ISA="scalar").stdout


def test_the_environment_chooses_the_instruction_set() -> None:
    code = "import bitnet, sys; print(bitnet.Engine(sys.argv[1]).isa)"
    environment = {**os.environ, "BITNET_ISA": "scalar"}
    done = subprocess.run([sys.executable, "-c", code, MODEL], capture_output=True, text=True, env=environment)
    assert done.stdout == "scalar\n"


def test_a_reader_that_leaves_ends_it_quietly() -> None:
    command = f"'{sys.executable}' -m bitnet inspect '{MODEL}' --json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout == "0\n"
    assert done.stderr == ""


def test_ctrl_c_abandons_a_prefill_and_the_engine_lives_on() -> None:
    """A prompt that takes long (scalar kernels) is interrupted from outside; the same engine then answers."""
    code = """
import sys, time, bitnet
engine = bitnet.Engine(sys.argv[1], isa="scalar", n_threads=1, n_ctx=512)
ids = list(range(90)) * 5
print("ready", flush=True)
caught = False
while not caught:
    try:
        engine.logits(ids)
    except KeyboardInterrupt:
        caught = True
print(len(engine.generate_tokens([1, 2, 3], max_tokens=4)))
"""
    command = [sys.executable, "-c", code, MODEL]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert out == "4\n", err


def test_version() -> None:
    assert run("--version").stdout == f"bitnet {bitnet.__version__}\n"
