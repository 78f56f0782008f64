"""`bitnet run --input --output`: a file of requests, answered a line each, also after a kill."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bitnet
from bitnet import ArgumentError, ChatSession, ChatTurn, Engine
from bitnet.batch import run
from conftest import ROOT

REQUESTS: list[dict[str, Any]] = [
    {"prompt": "2+2="},
    {"prompt": [5, 6, 7], "id": "ids", "max_tokens": 3},
    {"messages": [{"role": "user", "content": "What is 2+2?"}], "id": "chat"},
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is 2+2?"},
            {"role": "assistant", "content": "2+2=4."},
            {"role": "user", "content": "add 5 to that"},
        ],
        "temperature": 0.5,
        "seed": 7,
    },
    {"prompt": [5] * 100_000},
]


def write(path: Path, requests: list[Any]) -> Path:
    path.write_text("".join(json.dumps(request) + "\n" for request in requests), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def command(source: Path, target: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "bitnet", "run", "--input", str(source), "--output", str(target), *options]


def test_every_line_is_answered_as_the_engine_answers_it(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.jsonl", REQUESTS), tmp_path / "out.jsonl"
    done = subprocess.run(command(source, target, "-n", "12", "--seed", "1"), capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    with Engine() as engine:
        talk = ChatSession(engine, "Be brief.", max_tokens=12, seed=1)
        document = json.loads(talk.to_json())
        document["turns"] = REQUESTS[3]["messages"][1:3]
        talk = ChatSession.from_json(engine, json.dumps(document))
        assert talk.history == [ChatTurn("user", "What is 2+2?"), ChatTurn("assistant", "2+2=4.")]
        expected = [
            engine.generate("2+2=", max_tokens=12, seed=1),
            engine.generate([5, 6, 7], max_tokens=3, seed=1),
            ChatSession(engine, max_tokens=12, seed=1).send("What is 2+2?"),
            talk.send("add 5 to that", temperature=0.5, seed=7),
        ]
    answers = read(target)
    assert [(a["index"], a["id"]) for a in answers] == [(0, 0), (1, "ids"), (2, "chat"), (3, 3), (4, 4)]
    for answer, reply in zip(answers, expected, strict=False):
        for name in ("text", "finish_reason", "prompt_tokens", "completion_tokens"):
            assert answer[name] == getattr(reply, name)
        assert answer["digest"] == reply.receipt.digest
    assert "context" in answers[4]["error"]
    assert "text" not in answers[4]


def test_chat_options_and_receipts(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.jsonl", [{"prompt": "What is 2+2?"}]), tmp_path / "out.jsonl"
    options = ["--chat", "-s", "Be brief.", "--receipt-dir", str(tmp_path / "receipts")]
    subprocess.run(command(source, target, *options), check=True)
    receipt = bitnet.Receipt.load(tmp_path / "receipts" / "inference.json")
    assert receipt.to_dict()["claim"]["system"] == "Be brief."
    assert read(target)[0]["digest"] == receipt.digest
    assert read(target)[0]["text"] == "2+2=4."


def test_the_call_in_the_docs_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [example] = re.findall(r"```python\n(.+?)```", (ROOT / "docs" / "batch.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    write(Path("requests.jsonl"), REQUESTS[:2])
    exec(example, {})
    assert [answer["id"] for answer in read(Path("answers.jsonl"))] == [0, "ids"]


def test_it_goes_on_after_a_kill(tmp_path: Path) -> None:
    """Killed in the middle by SIGKILL, any number of times: in the end the file is that of a run without kills."""
    requests = [{"prompt": f"{i}+{i}=", "max_tokens": 200, "ignore_eos": True, "seed": i} for i in range(40)]
    source, target, whole = write(tmp_path / "in.jsonl", requests), tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    subprocess.run(command(source, whole), check=True)
    kept = b""
    for _ in range(3):
        with subprocess.Popen(command(source, target)) as process:
            while process.poll() is None and (not target.exists() or target.stat().st_size <= len(kept) + 500):
                pass
            process.send_signal(signal.SIGKILL)
        assert target.read_bytes().startswith(kept)
        kept = target.read_bytes()
    assert kept.count(b"\n") < 40, "the kills came too late to show anything"
    subprocess.run(command(source, target), check=True)
    assert target.read_bytes() == whole.read_bytes()
    subprocess.run(command(source, target), check=True)
    assert target.read_bytes() == whole.read_bytes(), "a finished file stays as it is"


def test_a_torn_line_is_dropped(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.jsonl", REQUESTS[:3]), tmp_path / "out.jsonl"
    with Engine() as engine:
        assert list(run(engine, source, target, max_tokens=8, seed=1)) == [(0, 3), (1, 3), (2, 3), (3, 3)]
        whole = target.read_bytes()
        # One answer is marked, to see that it is not computed again.
        first, rest = whole.split(b"\n", 1)
        marked = first.replace(b'"text": "', b'"text": "kept ')
        for cut in (len(marked), len(marked) + 1, len(marked) + 30, len(marked) + len(rest)):
            target.write_bytes((marked + b"\n" + rest)[:cut])
            list(run(engine, source, target, max_tokens=8, seed=1))
            assert target.read_bytes() == (whole if cut == len(marked) else marked + b"\n" + rest)


def another_request(source: Path, target: Path) -> dict[str, Any]:
    write(source, [REQUESTS[1], REQUESTS[0]])
    return {"max_tokens": 4}


def other_sampling(source: Path, target: Path) -> dict[str, Any]:
    return {"max_tokens": 5}


def fewer_requests(source: Path, target: Path) -> dict[str, Any]:
    write(source, REQUESTS[:1])
    return {"max_tokens": 4}


def another_file(source: Path, target: Path) -> dict[str, Any]:
    target.write_text("precious\n")
    return {"max_tokens": 4}


@pytest.mark.parametrize("change", [another_request, other_sampling, fewer_requests, another_file])
def test_the_output_of_something_else_is_refused(tmp_path: Path, change: Callable[..., dict[str, Any]]) -> None:
    source, target = write(tmp_path / "in.jsonl", REQUESTS[:2]), tmp_path / "out.jsonl"
    with Engine() as engine:
        list(run(engine, source, target, max_tokens=4))
        options = change(source, target)
        before = target.read_bytes()
        with pytest.raises(ArgumentError, match="name another output"):
            list(run(engine, source, target, **options))
        assert target.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "fact"),
    [
        ("nonsense", "line 2 is not JSON"),
        ("[1]", 'either "prompt" or "messages"'),
        ('{"prompt": "a", "messages": []}', 'either "prompt" or "messages"'),
        ('{"prompt": 5}', "neither a text nor a list of ids"),
        ('{"messages": []}', "the last a user's"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "the last a user's"),
        ('{"messages": [{"role": "user"}]}', '"role" and "content"'),
        ('{"prompt": "a", "heat": 1}', "'heat' is not a sampling parameter"),
        ('{"prompt": "a", "top_p": 7}', "line 2: top_p"),
    ],
)
def test_a_wrong_request_is_named_before_anything_is_computed(tmp_path: Path, line: str, fact: str) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "a"}\n' + line + "\n")
    with Engine() as engine, pytest.raises(ArgumentError) as raised:
        list(run(engine, source, tmp_path / "out.jsonl"))
    assert fact in str(raised.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_input_and_output_go_together(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bitnet", "run", "--input", "x"], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (2, "bitnet: --input and --output go together\n")


def test_a_bar_at_a_terminal(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", REQUESTS[:2])
    ours, theirs = pty.openpty()
    subprocess.run(command(source, tmp_path / "out.jsonl", "-n", "2"), check=True, stderr=theirs)
    os.close(theirs)
    shown = os.read(ours, 4096).decode()
    os.close(ours)
    assert f"[{' ' * 24}] 0 of 2" in shown
    assert f"[{'#' * 24}] 2 of 2" in shown
