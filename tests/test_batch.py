"""`bitnet run --input --output`: answering a file of requests, and resuming after a kill."""

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

import numpy as np
import pytest

import bitnet
from bitnet import ArgumentError, ChatSession, ChatTurn, Engine, SamplingParams
from bitnet.batch import _Request, run
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
    assert (done.stdout, done.returncode) == ("", 0)
    assert re.fullmatch(r"bitnet: warning: the text is continued as it is, .* add --chat .*\n", done.stderr)
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
    """After any number of kills (SIGKILL), the finished file equals that of a run without kills."""
    requests = [{"prompt": f"{i}+{i}=", "max_tokens": 20 + i % 80, "ignore_eos": True, "seed": i} for i in range(400)]
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
    assert kept.count(b"\n") < 400, "the kills came too late to show anything"
    subprocess.run(command(source, target), check=True)
    assert target.read_bytes() == whole.read_bytes()
    subprocess.run(command(source, target), check=True)
    assert target.read_bytes() == whole.read_bytes(), "a finished file stays as it is"


def test_a_torn_line_is_dropped(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.jsonl", REQUESTS[:3]), tmp_path / "out.jsonl"
    with Engine() as engine:
        assert list(run(engine, source, target, max_tokens=8, seed=1)) == [(0, 3), (1, 3), (2, 3), (3, 3)]
        whole = target.read_bytes()
        # Mark one answer: if the mark stays, it was not computed again.
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


def notes_without_a_newline(source: Path, target: Path) -> dict[str, Any]:
    target.write_text("precious")
    return {"max_tokens": 4}


def notes_after_an_answer(source: Path, target: Path) -> dict[str, Any]:
    target.write_bytes(target.read_bytes().splitlines(keepends=True)[0] + b"precious")
    return {"max_tokens": 4}


def notes_after_the_last_answer(source: Path, target: Path) -> dict[str, Any]:
    target.write_bytes(target.read_bytes() + b"{")
    return {"max_tokens": 4}


def the_torn_line_of_another_run(source: Path, target: Path) -> dict[str, Any]:
    target.write_bytes(target.read_bytes().split(b"\n")[0][:-20])
    return {"max_tokens": 5}


def a_line_torn_and_written_over(source: Path, target: Path) -> dict[str, Any]:
    first, second, _ = target.read_bytes().split(b"\n")
    target.write_bytes(first + b"\n" + second[:-20] + second + b"\n")
    return {"max_tokens": 4}


@pytest.mark.parametrize(
    "change",
    [
        another_request,
        other_sampling,
        fewer_requests,
        another_file,
        notes_without_a_newline,
        notes_after_an_answer,
        notes_after_the_last_answer,
        the_torn_line_of_another_run,
        a_line_torn_and_written_over,
    ],
)
def test_the_output_of_something_else_is_refused(tmp_path: Path, change: Callable[..., dict[str, Any]]) -> None:
    source, target = write(tmp_path / "in.jsonl", REQUESTS[:2]), tmp_path / "out.jsonl"
    with Engine() as engine:
        list(run(engine, source, target, max_tokens=4))
        options = change(source, target)
        before = target.read_bytes()
        with pytest.raises(ArgumentError, match="name another output"):
            list(run(engine, source, target, **options))
        assert target.read_bytes() == before


def test_the_input_is_no_output(tmp_path: Path) -> None:
    """Also under another name, and without a final newline."""
    source, link = tmp_path / "in.jsonl", tmp_path / "link.jsonl"
    source.write_text('{"prompt": "2+2="}')
    link.symlink_to(source)
    for target in (source, link):
        done = subprocess.run(command(source, target), capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (
            2,
            f"bitnet: {target} is the input file itself; name another output\n",
        )
        assert source.read_text() == '{"prompt": "2+2="}'


def test_the_output_is_a_regular_file(tmp_path: Path) -> None:
    """Devices and pipes cannot be resumed, and reading them may never end."""
    source, pipe = write(tmp_path / "in.jsonl", REQUESTS[:1]), tmp_path / "pipe"
    os.mkfifo(pipe)
    with Engine() as engine:
        for target in (Path(os.devnull), pipe, tmp_path):
            with pytest.raises(ArgumentError, match="must be a regular file"):
                list(run(engine, source, target))
    done = subprocess.run(command(source, Path("/dev/stdout")), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")


def test_two_runs_do_not_write_the_same_file(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.jsonl", REQUESTS[:2]), tmp_path / "out.jsonl"
    with Engine() as engine:
        first = run(engine, source, target, max_tokens=4)
        assert next(first) == (0, 2)
        done = subprocess.run(command(source, target, "-n", "4"), capture_output=True, text=True)
        assert (done.returncode, "another process is writing this file" in done.stderr) == (2, True)
        assert list(first) == [(1, 2), (2, 2)]
        assert list(run(engine, source, target, max_tokens=4)) == [(2, 2)]


def test_a_full_disk_costs_no_answer(tmp_path: Path) -> None:
    """The run fails with whole lines in the file, and resumes once there is space."""
    source, target, whole = write(tmp_path / "in.jsonl", REQUESTS[:4]), tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    subprocess.run(command(source, whole, "-n", "8", "--seed", "1"), check=True)
    ask = command(source, target, "-n", "8", "--seed", "1")
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({whole.stat().st_size - 10},) * 2)"
    limited = f"import resource, sys, bitnet.cli; {limit}; sys.exit(bitnet.cli.main())"
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", limited, *ask[3:]], capture_output=True, text=True)
        assert done.returncode == 2
        assert str(target) in done.stderr
        assert len([line for line in done.stderr.splitlines() if "warning" not in line]) == 1
        assert target.read_bytes() == b"".join(whole.read_bytes().splitlines(keepends=True)[:3])
    subprocess.run(ask, check=True)
    assert target.read_bytes() == whole.read_bytes()


def test_what_decides_the_answers_is_the_same_after_a_kill(tmp_path: Path) -> None:
    """Settings that change answers are refused; threads and instruction set may differ."""
    source, target = write(tmp_path / "in.jsonl", REQUESTS[:2]), tmp_path / "out.jsonl"
    with Engine() as engine:
        list(run(engine, source, target, max_tokens=4))
    before = target.read_bytes()
    changes: list[dict[str, Any]] = [{"n_ctx": 64}, {"kv_type": "f32"}, {"act_quant": "none"}, {"ffn_act": "silu"}]
    for change in changes:
        with Engine(**change) as engine, pytest.raises(ArgumentError, match="name another output"):
            list(run(engine, source, target, max_tokens=4))
        assert target.read_bytes() == before
    with Engine(n_threads=1, isa="scalar", n_batch=8, lm_head="exact") as engine:
        assert list(run(engine, source, target, max_tokens=4)) == [(2, 2)]
        own = engine.template
        for template in (bitnet.Template.named("raw"), bitnet.Template.from_jinja(own.source, "<s>", own.eos_token)):
            with pytest.raises(ArgumentError, match="name another output"):
                list(run(engine, source, target, template=template, max_tokens=4))


def test_the_same_request_in_other_words_is_the_same(tmp_path: Path) -> None:
    """Options in the request or in the call, as keywords or as SamplingParams, as Python or numpy numbers."""
    source, target = (
        write(tmp_path / "in.jsonl", [{"prompt": "2+2=", "max_tokens": 4, "seed": 3}]),
        tmp_path / "o.jsonl",
    )
    with Engine() as engine:
        list(run(engine, source, target))
        write(source, [{"seed": 3, "prompt": "2+2="}])
        options: list[dict[str, Any]] = [
            {"max_tokens": 4},
            {"max_tokens": np.int64(4), "seed": np.int32(3), "temperature": np.float32(0)},
            {"params": SamplingParams(max_tokens=4, seed=9)},
        ]
        for option in options:
            assert list(run(engine, str(source), str(target), **option)) == [(1, 1)]


def test_a_request_changes_some_of_the_options(tmp_path: Path) -> None:
    params = SamplingParams(max_tokens=6, temperature=0.7, seed=3, logit_bias={5: -1.5}, stop=["="])
    source, target = write(tmp_path / "in.jsonl", [{"prompt": "2+2=", "seed": 4}]), tmp_path / "out.jsonl"
    with Engine() as engine:
        list(run(engine, source, target, params=params))
        expected = engine.generate("2+2=", max_tokens=6, temperature=0.7, seed=4, logit_bias={5: -1.5}, stop=["="])
    assert expected.receipt is not None
    assert read(target)[0]["digest"] == expected.receipt.digest


def test_a_bias_has_texts_as_keys(tmp_path: Path) -> None:
    """JSON objects have texts as keys."""
    source = write(tmp_path / "in.jsonl", [{"prompt": "2+2=", "logit_bias": {"5": 100}, "max_tokens": 3}])
    with Engine() as engine:
        list(run(engine, source, tmp_path / "out.jsonl"))
        expected = engine.generate("2+2=", logit_bias={5: 100.0}, max_tokens=3).text
    assert read(tmp_path / "out.jsonl")[0]["text"] == expected


def test_the_name_of_a_template(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.jsonl", [{"prompt": "2+2="}]), tmp_path / "out.jsonl"
    with Engine() as engine:
        list(bitnet.batch.run(engine, source, target, chat=True, template="raw", max_tokens=8))
        assert read(target)[0]["text"] == ChatSession(engine, template="raw", max_tokens=8).send("2+2=").text


@pytest.mark.parametrize("options", [{"temperature": -1}, {"heat": 1}, {"template": "nope"}, {"system": 5}])
def test_options_are_checked_though_nothing_is_asked(tmp_path: Path, options: dict[str, Any]) -> None:
    source = write(tmp_path / "in.jsonl", [])
    with Engine() as engine, pytest.raises((TypeError, ValueError)):
        list(run(engine, source, tmp_path / "out.jsonl", **options))
    assert not (tmp_path / "out.jsonl").exists()


def test_a_failure_that_passes_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers before the failure stay, and the next run resumes."""
    source, target = write(tmp_path / "in.jsonl", REQUESTS[:3]), tmp_path / "out.jsonl"
    engine = Engine()
    answers = run(engine, source, target, max_tokens=4)
    assert [next(answers), next(answers)] == [(0, 3), (1, 3)]
    answers.close()
    engine.close()
    with pytest.raises(bitnet.ClosedError):
        list(run(engine, source, target, max_tokens=4))
    with Engine() as engine:
        for error in (bitnet.OutOfMemoryError("none left"), bitnet.BitnetError("internal error")):
            monkeypatch.setattr(_Request, "stream", lambda *_, error=error: (_ for _ in ()).throw(error))
            with pytest.raises(type(error)):
                list(run(engine, source, target, max_tokens=4))
            monkeypatch.undo()
        assert next(run(engine, source, target, max_tokens=4)) == (1, 3)
        list(run(engine, source, target, max_tokens=4))
    assert ["text" in answer for answer in read(target)] == [True, True, True]


def test_standard_input(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    ask = [sys.executable, "-m", "bitnet", "run", "--input", "-", "--output", str(target), "-n", "4"]
    subprocess.run(ask, input=b'{"prompt": "2+2="}\n{"prompt": "3+3="}\n', check=True)
    whole = target.read_bytes()
    assert whole.count(b"\n") == 2
    subprocess.run(ask, input=b'{"prompt": "2+2="}\n{"prompt": "3+3="}\n', check=True)
    assert target.read_bytes() == whole
    done = subprocess.run(ask, input=b"nonsense", capture_output=True)
    assert (done.returncode, done.stderr.startswith(b"bitnet: standard input, line 1 is not JSON")) == (2, True)


def test_any_character_in_a_text_or_an_id(tmp_path: Path) -> None:
    """Line separators such as U+2028 are written escaped, since some readers would split the line there."""
    requests = [{"prompt": "a\u2028b", "id": "\u2028\u0085ü😀", "max_tokens": 2}, {"prompt": [], "id": "x"}]
    source, target = write(tmp_path / "in.jsonl", requests), tmp_path / "out.jsonl"
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "batch.py", source, target],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    answers = read(target)
    assert [answer["id"] for answer in answers] == ["\u2028\u0085ü😀", "x"]
    assert answers[1]["error"] in done.stdout
    assert target.read_bytes().isascii()


@pytest.mark.parametrize(
    ("line", "fact"),
    [
        ("nonsense", "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is nested too deeply"),
        ('{"prompt": "a", "id": NaN}', "line 2 is not JSON"),
        ('{"prompt": "\\ud800 x"}', "line 2 holds a lone surrogate"),
        ('{"prompt": "a", "id": "\\ud800"}', "line 2 holds a lone surrogate"),
        ('{"prompt": "a", "stop": ["\\ud800"]}', "line 2 holds a lone surrogate"),
        ('{"prompt": "a", "seed": -1}', "line 2: seed"),
        ('{"prompt": "a", "temperature": "hot"}', "line 2: temperature"),
        ('{"prompt": "a", "logit_bias": {"x": 1}}', "line 2: logit_bias"),
        ('{"prompt": "a", "logit_bias": {"-1": 1}}', "line 2: logit_bias"),
        ('{"prompt": "a", "logit_bias": [5]}', "line 2: logit_bias"),
        ('{"prompt": null}', '"prompt" is null'),
        ('{"messages": null}', '"messages" is null'),
        ('{"messages": [{"role": "user", "content": ["x"]}]}', 'messages[0]["content"] is ["x"], expected a text'),
        ('{"messages": [{"role": "user", "content": "x", "name": "y"}]}', '"role" and "content"'),
        ("[1]", 'either "prompt" or "messages"'),
        ('{"prompt": "a", "messages": []}', 'either "prompt" or "messages"'),
        ('{"prompt": 5}', "expected a text or a list of token ids"),
        ('{"messages": []}', "the last to be user"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "the last to be user"),
        ('{"messages": [{"role": "user"}]}', '"role" and "content"'),
        ('{"prompt": "a", "heat": 1}', "line 2: heat is not a sampling parameter"),
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
    assert (done.returncode, done.stderr) == (2, "bitnet: --input and --output need each other; give both\n")


def test_a_bar_at_a_terminal(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", REQUESTS[:2])
    ours, theirs = pty.openpty()
    subprocess.run(command(source, tmp_path / "out.jsonl", "-n", "2"), check=True, stderr=theirs)
    os.close(theirs)
    shown = os.read(ours, 4096).decode()
    os.close(ours)
    assert f"[{' ' * 24}] 0 of 2" in shown
    assert f"[{'#' * 24}] 2 of 2" in shown


def test_a_templates_stopped_clock_stays_stopped(tmp_path: Path) -> None:
    dated = "{{ strftime_now('%d %b %Y') }} {% for message in messages %}{{ message['content'] }}{% endfor %}"
    template = bitnet.Template.from_jinja(dated).at("2020-01-01T00:00:00")
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"messages": [{"role": "user", "content": "2+2="}]}\n')
    with Engine() as engine:
        list(run(engine, source, target, template=template, max_tokens=4, seed=1))
        expected = ChatSession(engine, template=template, max_tokens=4, seed=1).send("2+2=").receipt
    assert expected is not None
    assert json.loads(target.read_text())["digest"] == expected.digest


def test_guesses_do_not_change_what_is_finished(tmp_path: Path) -> None:
    """Speculation changes no answer, so a run that is resumed may begin or end to use it."""
    source, target = write(tmp_path / "in.jsonl", REQUESTS[:3]), tmp_path / "out.jsonl"
    with Engine() as engine:
        list(run(engine, source, target, max_tokens=8, seed=1))
        whole = target.read_bytes()
        target.write_bytes(whole[: whole.index(b"\n") + 1])
        list(run(engine, source, target, max_tokens=8, seed=1, speculate="lookup"))
    assert target.read_bytes() == whole
