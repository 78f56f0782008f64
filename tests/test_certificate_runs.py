"""Certificates of whole runs, by lm-evaluation-harness and pytest: one root, however a run was computed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import bitnet
from bitnet.certificate import Certificate
from test_certificate import lines_of, write_lines

pytest_plugins = ["pytester"]

# -- lm-evaluation-harness --------------------------------------------------------------------------------------------

EVALUATE = """
import json, pathlib, sys
import lm_eval
from bitnet.lm_eval import BitnetLM

folder, records, options = pathlib.Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
tasks = []
common = {"dataset_path": "json", "test_split": "test",
          "dataset_kwargs": {"data_files": {"test": str(folder / "sums.json")}}, "doc_to_text": "{{question}}"}
exact = {"doc_to_target": "{{answer}}", "metric_list": [{"metric": "exact_match"}], "output_type": "generate_until"}
drawn = {"until": ["."], "do_sample": True, "temperature": 0.9, "max_gen_toks": 5}
own = {
    "choices": {"output_type": "multiple_choice", "doc_to_choice": ["4", "5", "6"], "doc_to_target": "{{index}}",
                "metric_list": [{"metric": "acc"}]},
    "pages": {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{page}}",
              "metric_list": [{"metric": "bits_per_byte"}]},
    "greedy": exact | {"generation_kwargs": {"until": [",", "."], "do_sample": False, "max_gen_toks": 12}},
    "drawn": exact | {"repeats": 2, "generation_kwargs": drawn},
}
for name, definition in own.items():
    tasks.append(str(folder / f"{name}.yaml"))
    pathlib.Path(tasks[-1]).write_text(json.dumps({"task": name, **common, **definition}))
model = BitnetLM(receipts=records, **options)
results = lm_eval.simple_evaluate(model, tasks=tasks, bootstrap_iters=0)
certificate = model.certificate(results)
certificate.save(pathlib.Path(records) / "certificate.json")
print(certificate.root, certificate.count)
"""


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set for the tasks."""
    folder = tmp_path_factory.mktemp("sums")
    rows = [
        {"question": f"{a}+{b}=", "answer": str(a + b), "index": a + b - 4, "page": f"{a}+{b}={a + b}. " * 60}
        for a, b in [(2, 2), (2, 3), (3, 3), (1, 3)]
    ]
    (folder / "sums.json").write_text("\n".join(map(json.dumps, rows)))
    return folder


def start(sums: Path, records: Path, **options: Any) -> subprocess.Popen[str]:
    env = os.environ | {"HF_HOME": str(sums / "home"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [sys.executable, "-c", EVALUATE, str(sums), str(records), json.dumps(options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=sums)


def evaluate(sums: Path, records: Path, **options: Any) -> list[str]:
    process = start(sums, records, **options)
    out, error = process.communicate()
    assert process.returncode == 0, error
    return out.splitlines()[-1].split()


def test_one_root_for_instruction_sets_threads_batches_and_a_run_that_was_stopped(sums: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install --group test")
    isas = bitnet.isas()
    root, count = evaluate(sums, tmp_path / "a", n_threads=1, isa=isas[0])
    # 4 documents: 3 choices each, 2 windows of a page, a greedy answer, 2 drawn ones.
    assert count == str(4 * (3 + 2 + 1 + 2))
    assert evaluate(sums, tmp_path / "b", n_threads=2, isa=isas[-1], max_batch=1, n_batch=7) == [root, count]

    # What a killed process leaves: some whole records, and a torn one.
    whole = (tmp_path / "a" / "receipts.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "receipts.jsonl").write_bytes(b"".join(whole[:17]) + whole[17][:50])
    assert evaluate(sums, tmp_path / "c", n_threads=2, max_batch=3) == [root, count]
    resumed = (tmp_path / "c" / "receipts.jsonl").read_bytes().splitlines(keepends=True)
    assert (resumed[:17], len(resumed)) == (whole[:17], int(count)), (
        "what is there is neither computed nor written again"
    )

    # Records that are no answers to these requests are not taken: another prompt, other sampling, an altered text.
    records = [json.loads(line) for line in whole]
    answers = [one for one in records if "receipt" in one]
    answers[0]["text"] = "5"
    answers[1]["receipt"], answers[2]["receipt"] = answers[2]["receipt"], answers[1]["receipt"]
    scores = [one for one in records if "score" in one]
    scores[0]["score"], scores[1]["score"] = scores[1]["score"], scores[0]["score"]
    scores[2]["score"]["claim"]["logprob"] = "bf800000"
    (tmp_path / "d").mkdir()
    write_lines(tmp_path / "d" / "receipts.jsonl", records)
    assert evaluate(sums, tmp_path / "d", n_threads=1) == [root, count]
    assert len(lines_of(tmp_path / "d" / "receipts.jsonl")) == int(count) + 6

    # The harness's own command, on a copy of the folder: nothing is computed, the results are.
    shutil.copytree(tmp_path / "a", tmp_path / "e")
    command = [sys.executable, "-m", "bitnet.lm_eval", "run", "--model", "bitnet", "--model_args"]
    command += [f"receipts={tmp_path / 'e'},n_threads=1", "--certificate", str(tmp_path / "e" / "certificate.json")]
    command += ["--tasks", ",".join(str(sums / f"{name}.yaml") for name in ("choices", "pages", "greedy", "drawn"))]
    env = os.environ | {"HF_HOME": str(sums / "home"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Certificate.load(tmp_path / "e" / "certificate.json").root == root
    assert (tmp_path / "e" / "receipts.jsonl").read_bytes() == b"".join(whole)

    results = [Certificate.load(tmp_path / run / "certificate.json").results for run in "abcd"]
    assert results[0] == results[1] == results[2] == results[3]
    found = Certificate.load(tmp_path / "d" / "certificate.json").verify(engine=bitnet.Engine(n_threads=2))
    assert (found.problems, found.replayed) == ([], int(count))


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_a_process_that_is_killed_goes_on(sums: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install --group test")
    process = start(sums, tmp_path, n_threads=1, isa="scalar", max_batch=1)
    records = tmp_path / "receipts.jsonl"
    deadline = time.monotonic() + 120
    while not (records.exists() and records.stat().st_size):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    root = evaluate(sums, tmp_path, n_threads=2)[0]
    assert root == evaluate(sums, tmp_path / "whole", n_threads=2)[0]


# -- The pytest plugin ------------------------------------------------------------------------------------------------

SUITE = """
import pytest

@pytest.mark.bitnet_eval(group="sums")
def test_right(bitnet_case):
    bitnet_case.ask("What is 2+2?").must_be("2+2=4.")
    chat = bitnet_case.chat(max_tokens=8)
    chat.ask("What is 2+3?")
    chat.ask("add 1 to that")

@pytest.mark.bitnet_eval
def test_wrong(bitnet_case):
    assert bitnet_case.ask("What is 3+4?", max_tokens=2, temperature=0.8) == "never"
"""


def run_suite(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Run the suite with the plugin, also where the package is not installed."""
    installed = any(one.name == "bitnet" for one in entry_points(group="pytest11"))
    return pytester.runpytest_subprocess(*(() if installed else ("-p", "pytest_bitnet")), *options)


def test_the_plugin_writes_a_certificate(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_suite=SUITE)
    roots = []
    for number, options in enumerate([(), ("-n", "2"), ("test_suite.py::test_wrong", "test_suite.py::test_right")]):
        file = pytester.path / f"{number}.json"
        chosen = ("--bitnet-receipts", f"receipts{number}", f"--bitnet-certificate={file.name}")
        done = run_suite(pytester, *chosen, *options)
        done.assert_outcomes(passed=1, failed=1)
        certificate = Certificate.load(file)
        roots.append(certificate.root)
        done.stdout.fnmatch_lines([f"bitnet: {number}.json certifies 4 receipts, root {certificate.root}"])
        found = certificate.verify(engine=bitnet.Engine(n_threads=1))
        assert (found.problems, found.replayed) == ([], 4)
        nothing = {"skipped": 0, "xfailed": 0, "xpassed": 0}
        assert certificate.results["cases"] == {"passed": 1, "cases": 2, **nothing}
        assert certificate.results["groups"]["sums"] == {"passed": 1, "cases": 1, **nothing}
        outcomes = {"test_suite.py::test_right": "passed", "test_suite.py::test_wrong": "failed"}
        assert certificate.results["outcomes"] == outcomes
    assert len(set(roots)) == 1


def test_the_plugin_says_why_there_is_no_certificate(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_suite="def test_nothing():\n    pass\n")
    done = run_suite(pytester, "--bitnet-certificate=c.json")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*--bitnet-certificate needs --bitnet-receipts DIR*"])
    done = run_suite(pytester, "--bitnet-certificate=c.json", "--bitnet-receipts=r")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(["bitnet: no certificate: there are no receipts to certify"])
    assert not (pytester.path / "c.json").exists()
