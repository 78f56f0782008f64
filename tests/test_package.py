"""The package: its names, its version, its silence, its examples."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bitnet
from conftest import ROOT


def test_every_public_name_is_there() -> None:
    assert sorted(bitnet.__all__) == bitnet.__all__
    assert all(hasattr(bitnet, name) for name in bitnet.__all__)


def test_the_version_is_cargos() -> None:
    manifest = (ROOT / "Cargo.toml").read_text()
    found = re.search(r'^version = "(.+)"', manifest, re.MULTILINE)
    assert found
    assert bitnet.__version__ == found.group(1)


def test_memory_is_the_sum_of_the_tensors() -> None:
    """Packed projections take two bits per weight; all other tensors are read from the mapped file."""
    path = ROOT / "tests" / "fixtures" / "relu2-i2s.gguf"
    with bitnet.Engine(path) as engine:
        before = engine.memory
        weights = sum(t["shape"][0] * t["shape"][1] for t in bitnet.inspect(path)["tensors"] if t["type"] == "I2_S")
        # Rows are padded to multiples of 16, columns to multiples of 128.
        assert weights // 4 <= before["packed_weights"] <= weights // 4 * 2
        assert before["mapped_weights"] == 96 * 128 * 2
        assert before["file"] == path.stat().st_size
        assert before["kv_cache"] == 0
        engine.prefill([1, 2, 3])
        # One page: 64 positions, keys and values of 64 channels as f16, one head, two layers.
        assert engine.memory["kv_cache"] == 64 * 2 * 64 * 2 * 2


def test_what_a_token_costs() -> None:
    path = ROOT / "tests" / "fixtures" / "relu2-i2s.gguf"
    with bitnet.Engine(path) as engine, bitnet.Engine(path, kv_type="f32", act_quant="none") as dense:
        tensors = bitnet.inspect(path)["tensors"]
        weights = sum(t["shape"][0] * t["shape"][1] for t in tensors if t["type"] == "I2_S")
        memory = engine.memory
        assert engine.per_token == {
            "ternary_macs": weights,
            "weight_bytes": memory["packed_weights"] + memory["mapped_weights"],
            "kv_bytes": 2 * 64 * 2 * 2,  # keys and values of 64 channels as f16, one head, two layers
            "state_bytes": 0,
        }
        assert dense.per_token["ternary_macs"] == 0
        assert dense.per_token["kv_bytes"] == 2 * engine.per_token["kv_bytes"]


def test_the_peak_of_the_dot_product() -> None:
    peaks = [bitnet.dot_peak(1, isa) for isa in bitnet.isas()]
    assert peaks[0] > 1e7
    assert bitnet.dot_peak(1) > peaks[0] or len(peaks) == 1, "vectors do more than plain code"
    with pytest.raises(bitnet.ArgumentError, match="unknown instruction set"):
        bitnet.dot_peak(1, "abacus")


def test_the_peak_of_look_ups() -> None:
    """Look-ups are reported where they are chosen, and are then no slower than dots; scalar kernels have none."""
    assert bitnet.look_up_peak(1, "scalar") == 0.0
    for isa in bitnet.isas():
        rate = bitnet.look_up_peak(1, isa)
        assert rate == 0.0 or rate > 1e9
        assert (rate > 0.0) == (bitnet.look_up_peak(1, isa) > 0.0), "the choice is made once in a process"
    with pytest.raises(bitnet.ArgumentError, match="unknown instruction set"):
        bitnet.look_up_peak(1, "abacus")


QUIET = """
import asyncio, copy, json, logging, pickle, pathlib, sys, bitnet
logging.getLogger("asyncio").setLevel(logging.ERROR)  # in dev mode it reports slow callbacks: those of a busy machine
folder = pathlib.Path(sys.argv[1])
with bitnet.Engine() as engine:
    engine.logits([1, 2]), engine.logits_batch([[1], [2, 3]]), engine.prefill([1, 2]), engine.generate_tokens([1], 2)
    engine.encode("2+2="), engine.decode([5]), engine.tokenizer, engine.memory, engine.per_token
    hello, asked = engine.encode("Hello"), [{"role": "user", "content": "What is 2+2?"}]
    reply = engine.generate(hello, max_tokens=4, logprobs=2, temperature=1.0)
    pickle.loads(pickle.dumps([engine, reply, engine.template])), copy.deepcopy(reply.receipt)
    engine.chat([asked, asked], n=2), engine.count_tokens(asked), asyncio.run(engine.achat(asked))
    bitnet.Receipt.load(reply.receipt.save(folder / "receipt.json")).validate()
    assert engine.replay(reply.receipt)
    dropped = engine.stream(hello)
    next(dropped)
    del dropped
    chat = bitnet.ChatSession(engine, "Be brief.")
    chat.send("What is 2+2?")
    chat.save(folder / "talk.chat", cache=True)
    bitnet.ChatSession.load(engine, folder / "talk.chat").fork().send("What is 3+3?")
    chat.rewind(1)
    engine.template.spans([bitnet.ChatTurn("user", "Hi")], tokenizer=engine.tokenizer)
    asyncio.run(engine.agenerate(hello, max_tokens=2))
    try:
        engine.generate(hello, top_p=2)
    except bitnet.ArgumentError:
        pass
open_at_the_end = bitnet.Engine().stream(hello)
next(open_at_the_end)
bitnet.inspect(engine.path), bitnet.processor(), bitnet.isas(), bitnet.receipt_schema()
"""


def test_nothing_is_printed_with_every_warning_an_error(tmp_path: Path) -> None:
    strict = [sys.executable, "-X", "dev", "-W", "error"]
    requests, answers = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    requests.write_text('{"messages": [{"role": "user", "content": "2+2="}]}\n')
    for command in (
        ["-c", QUIET, str(tmp_path)],
        ["-m", "bitnet", "run", "--input", str(requests), "--output", str(answers)],
        ["-m", "bitnet", "template", str(bitnet.Engine().path), "--user", "Hi"],
        ["-m", "bitnet", "tokenize", str(bitnet.Engine().path), "Hi"],
        ["-m", "bitnet", "chat"],
        ["-m", "bitnet", "plan"],
        ["-m", "bitnet", "inspect"],
        ["-m", "bitnet", "completion", "bash"],
        ["-m", "bitnet", "receipt", "verify", str(tmp_path / "receipt.json")],
    ):
        done = subprocess.run([*strict, *command], input="", capture_output=True, text=True, encoding="utf-8")
        # Through pipes, `bitnet chat` prints its banner on standard error.
        said = re.sub(r"Trit: .+\nmodel .+\ntemplate .+\nTry: .+\n/help lists the commands\.\n\n", "", done.stderr)
        assert (said, done.returncode) == ("", 0), command


EXAMPLES = {
    "asynchronous.py": "cancelled: True\n2+2=4.\n",
    "batch.py": "7 '7+7=14.'",
    "chat.py": "replayed: True\nagain: True\n",
    "choices.py": "right: 5 of 5",
    "logits.py": "Prefill(tokens=1",
    "receipts.py": "replayed with the prompt: True",
    "repl.py": "> 2+2=4.\n[7 tokens] ",
    "samplings.py": "greedy  64 of 64 right",
    "stream.py": "ended by 'stop'",
    "templates.py": "user      'What is <|eot_id|>?'",
    "threads.py": "the same alone: True",
}


def test_every_example_is_run() -> None:
    """`test_ray.py` runs that with Ray, on its cluster."""
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == {*EXAMPLES, "ray_data.py"}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_the_examples_run_as_they_are(name: str, tmp_path: Path) -> None:
    path = ROOT / "examples" / name
    assert len(path.read_text(encoding="utf-8").splitlines()) < 40
    assert EXAMPLES[name] in example(path, tmp_path)


def test_the_readmes_example_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [(lines, shown)] = re.findall(r"```python\n(.+?)```\nprints:\n```\n(.+?)```", readme, re.DOTALL)
    exec(compile(lines, "README.md", "exec"), {})
    assert capsys.readouterr().out == shown


def test_an_example_runs_on_another_model(text_model: Path, tmp_path: Path) -> None:
    assert EXAMPLES["chat.py"] in example(ROOT / "examples" / "chat.py", tmp_path, text_model, "hello")


def test_a_chat_in_twelve_lines(tmp_path: Path) -> None:
    """The example reads inputs, executes commands or streams answers, writes receipts, and ends at /exit."""
    path = ROOT / "examples" / "repl.py"
    code = path.read_text(encoding="utf-8").split('"""')[2]
    assert len([line for line in code.splitlines() if line.strip()]) == 12
    lines = "What is 2+2?", "What about 3+3?", "/metrics", "/help", "/clear", "What is 3+4?"
    shown = example(path, tmp_path, input="\n".join(lines))
    answers = "2+2=4.", "3+3=6.", "{'exchanges': 2, ", "/help /clear", "None", "3+4=7."
    for line, answer in zip(shown.split("> ")[1:-1], answers, strict=True):
        assert line.startswith(answer)
    files = re.findall(r"^\[\d+ tokens\] (.+)$", shown, re.MULTILINE)
    first, second, after_clear = (bitnet.Receipt.load(tmp_path / file) for file in files)
    assert second.to_dict()["claim"]["previous"] == first.digest
    assert after_clear.to_dict()["claim"]["previous"] is None
    assert second.cached_tokens > 0
    assert bitnet.Engine().replay(second)


def example(path: Path, folder: Path, *arguments: str | Path, input: str = "What is 2+2?\n/metrics\n/exit\n") -> str:
    """Run an example in this folder with warnings as errors, and return its output."""
    command = [sys.executable, "-X", "dev", "-W", "error", str(path), *map(str, arguments)]
    done = subprocess.run(
        command,
        input=input,
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return done.stdout
