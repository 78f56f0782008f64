"""The command `bitnet` in a process of its own, the parsers, and the page docs/cli.md."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bitnet
from bitnet._gguf_writer import Tensor, Value, write_gguf
from bitnet._synthetic import Spec, metadata, tensors
from bitnet.cli import _options, _page
from conftest import ROOT, ModelMaker

MODEL = ROOT / "tests" / "fixtures" / "relu2-i2s.gguf"


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bitnet", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def test_standard_input_that_is_no_text_is_named() -> None:
    command = [sys.executable, "-m", "bitnet", "run", "-p", "-"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, input=b"a\xff", capture_output=True, env=environment)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert done.stderr.startswith(b"bitnet: standard input is not UTF-8 text")


def test_inspect_shows_the_verdicts() -> None:
    done = run("inspect", MODEL, "--tensors")
    assert done.returncode == 0
    for fact in (
        "bitnet-b1.58",
        "relu2",
        "int8 (every projection is ternary",
        "14 I2_S (61.9 kB)",
        "blk.1.ffn_down.weight",
    ):
        assert fact in done.stdout
    assert done.stderr == ""


def test_inspect_prints_one_screen() -> None:
    """Tensors, metadata and the card are printed on request; the last line says so."""
    done = run("inspect")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr, len(lines) <= 24) == (0, "", True)
    assert max(len(line) for line in lines if not line.startswith("file ")) <= 100
    for fact in ("name           Trit\n", "I2_S", "384 tokens", "gpt2, pre-tokenizer llama-bpe", "bitnet (from: gguf)"):
        assert fact in done.stdout
    assert lines[-1] == "more: --tensors, --metadata, --card"
    for option, word in (
        ("--tensors", "blk.4.ffn_up.weight"),
        ("--metadata", "training.steps"),
        ("--card", "## Scores"),
    ):
        assert word not in done.stdout
        more = run("inspect", option).stdout
        assert word in more
        assert more.startswith("\n".join(lines[:-2]))
        assert option not in more.splitlines()[-1]
    other = run("inspect", MODEL)
    assert other.stdout.endswith("more: --tensors, --metadata\n")
    assert "pre-tokenizer gpt-2 (the file names none)" in other.stdout
    refused = run("inspect", MODEL, "--card")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "no model card" in refused.stderr


def test_inspect_prints_json() -> None:
    model = json.loads(run("inspect", MODEL, "--json").stdout)
    assert model == json.loads(json.dumps(bitnet.inspect(MODEL, weights=True), default=os.fspath))
    assert model["config"]["width"] == 128
    assert len(model["tensors"]) == sum(t["tensors"] for t in model["types"].values())
    assert json.loads(run("inspect", "--json").stdout)["card"].startswith("# Trit")


def test_json_holds_values_as_they_are(tmp_path: Path) -> None:
    keys: dict[str, Value] = {"x.flag": True, "x.text": "ü\n" * 200, "x.list": [1, 2], "x.float": 1e-5}
    spec = Spec(layers=1, vocab_size=100)
    write_gguf(tmp_path / "m.gguf", metadata(spec) | keys, tensors(spec))
    found = {e["key"]: e for e in json.loads(run("inspect", tmp_path / "m.gguf", "--json").stdout)["metadata"]}
    assert {key: found[key]["value"] for key in keys} == keys
    assert found["bitnet-b1.58.block_count"]["value"] == 1
    assert found["x.list"]["count"] == 2
    tokens = found["tokenizer.ggml.tokens"]
    assert (tokens["count"], tokens["value"]) == (100, [f"<{i}>" for i in range(64)])


def without_tensors(path: Path) -> str:
    write_gguf(path, metadata(Spec()), [])
    return "token_embd.weight"


def of_another_architecture(path: Path) -> str:
    keys = {key.replace("bitnet-b1.58.", "qwen3."): value for key, value in metadata(Spec()).items()}
    write_gguf(path, keys | {"general.architecture": "qwen3"}, tensors(Spec()))
    return "architecture 'qwen3'"


def of_another_type(path: Path) -> str:
    first, *others = tensors(Spec())
    q2_k = Tensor(first.name, first.shape, 10, 84 * 1024, lambda: [bytes(84 * 1024)])
    write_gguf(path, metadata(Spec()), [q2_k, *others])
    return "Q2_K"


@pytest.mark.parametrize("make", [without_tensors, of_another_architecture, of_another_type])
def test_what_cannot_be_run_is_shown_all_the_same(tmp_path: Path, make: Callable[[Path], str]) -> None:
    path = tmp_path / "m.gguf"
    fact = make(path)
    done = run("inspect", path, "--tensors", "--metadata")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(f"cannot be run +{re.escape(str(path))}: .*{fact}", done.stdout)
    assert "block_count" in done.stdout
    assert ("blk.1.ffn_down.weight" in done.stdout) == (make is not without_tensors)
    model = json.loads(run("inspect", path, "--json").stdout)
    assert fact in model["error"]
    assert model["config"] is None
    assert ("Q2_K" in model["types"]) == (make is of_another_type)
    assert bitnet.inspect(MODEL)["error"] is None


def test_any_output_encoding_and_none(text_model: Path) -> None:
    write = ["tokenize", str(text_model), "naïve ✓"]
    done = run(*write, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\ufffd" in done.stdout
    closed = f"'{sys.executable}' -m bitnet tokenize '{text_model}' hello >&-"
    assert subprocess.run(["bash", "-c", closed], capture_output=True, text=True).stderr == ""


@pytest.mark.parametrize(("name", "word"), [("no-such.gguf", "no such file"), (str(ROOT / "README.md"), "text")])
def test_a_wrong_file_is_one_line_and_status_2(name: str, word: str) -> None:
    done = run("inspect", name)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert name in done.stderr
    assert word in done.stderr


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
    """Ctrl-C interrupts a long prefill (scalar kernels); the same engine then answers."""
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


SLOW = Spec("bitnet", 8, 1024, 4096, 16, 16, vocab_size=300, context=2048, linear="F32")


def test_ctrl_c_abandons_loading(model: ModelMaker) -> None:
    code = """
import bitnet, signal, sys, time
# The clock of the process's own work: it stands still while other processes have the processor.
start = time.process_time()
bitnet.Engine(sys.argv[1], n_threads=1).close()
whole = time.process_time() - start
signal.signal(signal.SIGPROF, signal.default_int_handler)
signal.setitimer(signal.ITIMER_PROF, whole / 10)
start = time.process_time()
try:
    bitnet.Engine(sys.argv[1], n_threads=1)
    print("loaded")
except KeyboardInterrupt:
    print("interrupted", time.process_time() - start < 0.8 * whole)
"""
    done = subprocess.run([sys.executable, "-c", code, model(SLOW)], capture_output=True, text=True)
    assert done.stdout == "interrupted True\n", done.stderr


def test_an_abandoned_prefill_leaves_the_cache_as_it_was(model: ModelMaker) -> None:
    code = """
import bitnet, os, signal, sys, threading
engine = bitnet.Engine(sys.argv[1], isa="scalar")
prompt = list(range(100))
want = engine.generate_tokens(prompt, max_tokens=3)
engine.clear_cache()
engine.prefill(prompt)
for common in (0, 50, 64, 100):
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        engine.prefill(prompt[:common] + [7] * 1900)
        print("done")
    except KeyboardInterrupt:
        print(engine.cached_tokens, engine.prefill(prompt).cached_tokens)
print(engine.generate_tokens(prompt, max_tokens=3) == want)
"""
    done = subprocess.run([sys.executable, "-c", code, model(SLOW)], capture_output=True, text=True)
    assert done.stdout == "100 100\n" * 4 + "True\n", done.stderr


def test_version() -> None:
    assert run("--version").stdout == f"bitnet {bitnet.__version__}\n"


def test_the_page_of_the_docs_is_up_to_date() -> None:
    """If this fails: python -m bitnet.cli._page > docs/cli.md"""
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == _page.page()


def test_the_page_shows_every_command_and_option() -> None:
    page = _page.page()
    assert max(map(len, page.splitlines())) <= 100
    for command in ("chat", "run", "bench", "plan", "inspect", "tokenize", "template", "receipt replay", "doctor"):
        _, _, section = page.partition(f"\n## `bitnet {command}`\n")
        section, _, _ = section.partition("\n## ")
        shown = run(*command.split(), "--help").stdout
        flags = set(re.findall(r"(?m)^  (?:-\w(?: [A-Z]+)?, )?(--[\w-]+)", shown)) - {"--help"}
        assert flags
        assert all(flag in section for flag in flags), command


WITHOUT_AN_OPTION = {
    "logit_bias",  # a table from id to bias, too long for an option
    "stop_token_ids",  # ids depend on the model's vocabulary; --stop takes texts
    "logprobs",  # the commands print texts only
    "logits_processor",  # a function
}
"""Keywords of SamplingParams without an option. Python takes them, and so do files of requests (--input)."""


def test_every_sampling_parameter_has_an_option_with_the_same_default() -> None:
    keywords = inspect.signature(bitnet.SamplingParams).parameters
    assert {option.name for option in _options.SAMPLING_OPTIONS} == keywords.keys() - WITHOUT_AN_OPTION
    assert keywords.keys() >= WITHOUT_AN_OPTION
    command = argparse.ArgumentParser()
    _options.add_sampling_options(command)
    given = _options.sampling(command.parse_args([]))
    assert bitnet.SamplingParams(**given) == bitnet.SamplingParams()
    for option in _options.SAMPLING_OPTIONS:
        if isinstance(given[option.name], (int, float)) and option.type:
            said, _, _ = option.default.partition(",")
            assert float(said) == given[option.name], option.name


def test_sampling_options_take_their_values(text_model: Path, tmp_path: Path) -> None:
    values: dict[str, tuple[list[str], Any]] = {
        "max_tokens": (["5"], 5),
        "temperature": (["0.5"], 0.5),
        "top_k": (["9"], 9),
        "top_p": (["0.75"], 0.75),
        "min_p": (["0.25"], 0.25),
        "repetition_penalty": (["1.5"], 1.5),
        "repeat_last_n": (["7"], 7),
        "presence_penalty": (["0.5"], 0.5),
        "frequency_penalty": (["0.125"], 0.125),
        "seed": (["3"], 3),
        "stop": (["never", "--stop", "ever"], ["never", "ever"]),
        "ignore_eos": ([], True),
        "speculate": (["lookup"], "lookup"),
    }
    forms = {"json_schema": '{"type": "integer"}', "regex": "[0-9]+", "choice": ["a", "b"], "grammar": 'start: "a"'}
    options = {option.name for option in _options.SAMPLING_OPTIONS}
    assert values.keys() | forms.keys() == options
    given = [text for name, (texts, _) in values.items() for text in (f"--{name.replace('_', '-')}", *texts)]
    expected = {name: value for name, (_, value) in values.items()}
    command = argparse.ArgumentParser()
    _options.add_sampling_options(command)
    parsed = _options.sampling(command.parse_args(given))
    assert {name: value for name, value in parsed.items() if name not in forms} == expected
    for name, value in forms.items():
        flag = f"--{name.replace('_', '-')}"
        texts = value if isinstance(value, list) else [value]
        parsed = _options.sampling(command.parse_args([text for one in texts for text in (flag, one)]))
        assert parsed[name] == value
        if name in ("json_schema", "grammar"):
            (tmp_path / name).write_text(value)
            assert _options.sampling(command.parse_args([flag, str(tmp_path / name)]))[name] == value
            missing = run("run", "trit", "hello", flag, tmp_path / "missing.txt")
            assert (missing.returncode, "missing.txt: no such file" in missing.stderr) == (2, True)
    done = run("run", text_model, "-p", "hello", "--receipt-dir", tmp_path, *given)
    assert (done.returncode, done.stderr) == (0, "")
    claimed = bitnet.Receipt.load(tmp_path / "inference.json").to_dict()["claim"]["sampling"]
    del expected["ignore_eos"]  # the claim holds the resulting stop ids instead
    del expected["speculate"]  # it does not change the answer
    assert {name: claimed[name] for name in expected} == expected
