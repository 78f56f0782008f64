"""`bitnet chat` and the receipts of commands. Behaviours 1 to 8 and 32."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import bitnet
from text_model import make_text_model

CHAT = ["-n", "6", "--template", "bitnet", "--temperature", "1", "--seed", "3", "-t", "1"]


def bitnet_command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "bitnet", *map(str, arguments)]


def talk(model: Path, lines: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
    command = bitnet_command("chat", model, *CHAT, *options)
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(command, input=lines, capture_output=True, text=True, encoding="utf-8", env=environment)


def complaints(done: subprocess.CompletedProcess[str]) -> str:
    """Standard error after the banner."""
    return done.stderr.split("/help lists the commands.\n\n", 1)[1]


@pytest.fixture
def expected(text_model: Path) -> Any:
    """A function that holds the same conversation in Python and returns the expected output."""

    def replies(*texts: str) -> str:
        with bitnet.Engine(text_model) as engine:
            chat = bitnet.ChatSession(engine, template="bitnet", max_tokens=6, temperature=1.0, seed=3)
            return "".join(chat.send(text).text + "\n" for text in texts)

    return replies


def test_it_answers_lines_and_ends_with_its_input(text_model: Path, expected: Any) -> None:
    """Behaviour 1: empty lines are ignored, and piped output has no control codes."""
    done = talk(text_model, "hello\n\n   \nworld\n")
    assert (done.returncode, done.stdout) == (0, expected("hello", "world"))
    assert "\x1b" not in done.stdout
    assert talk(text_model, "").returncode == 0


def test_it_says_what_it_opened(text_model: Path, tmp_path: Path) -> None:
    """Behaviour 8: through pipes, on standard error, not among the answers."""
    done = talk(text_model, "")
    assert done.stdout == ""
    assert str(text_model) in done.stderr
    assert "template  bitnet (from: argument)" in done.stderr
    own = subprocess.run(bitnet_command("chat", text_model), input="", capture_output=True, text=True)
    assert "template  raw (from: fallback)" in own.stderr
    assert "warning" in own.stderr
    source = tmp_path / "template.jinja"
    source.write_text("{{ messages[0]['content'] }}")
    assert "template  jinja (from: argument)" in talk(text_model, "", "--template", source).stderr
    unknown = talk(text_model, "", "--template", "llama9")
    assert unknown.returncode == 2
    assert "llama3-chat" in unknown.stderr


def test_commands_never_reach_the_model(text_model: Path, tmp_path: Path, expected: Any) -> None:
    """Behaviours 2, 3 and 6."""
    folder = tmp_path / "receipts"
    done = talk(text_model, "/help\n/nonsense\n/metrics\nhello\n/quit\nworld\n", "--receipt-dir", folder)
    assert done.returncode == 0
    commands = ("/help", "/clear", "/metrics", "/history", "/rewind", "/save", "/load", "/exit", "/quit")
    for command in (*commands, "Ctrl-C", "Ctrl-D", "Alt-Enter", "Up, Down"):
        assert command in done.stdout
    assert "/nonsense" in done.stderr
    assert done.stdout.endswith(expected("hello"))
    assert len(list(folder.iterdir())) == 2
    assert talk(text_model, "/exit\n").returncode == 0


def test_clear_gives_a_fresh_conversation(text_model: Path, expected: Any) -> None:
    """Behaviour 4."""
    assert talk(text_model, "hello\nworld\n/clear\nhello\n").stdout == expected("hello", "world") + expected("hello")


def test_metrics_are_shown(text_model: Path) -> None:
    """Behaviour 5."""
    shown = talk(text_model, "/metrics\nhello\n/metrics\n").stdout
    assert "exchanges  0" in shown
    assert "exchanges  1" in shown
    assert "0 prompt (0 reused), 0 generated" in shown
    assert "6 generated" in shown


def test_exchanges_are_taken_back(text_model: Path) -> None:
    done = talk(
        text_model,
        "one\ntwo\nthree\n/rewind\n/rewind x\n/rewind " + "9" * 5000 + "\n/rewind 1\n/history\n/rewind 9\n/history\n",
    )
    shown = [line for line in done.stdout.splitlines() if line.startswith("user:")]
    assert shown == ["user: one"] * 2
    assert "/rewind takes a number of exchanges, found 'x'" in done.stderr
    assert "9" in done.stderr.splitlines()[-1]


def test_the_history_is_shown(text_model: Path, expected: Any) -> None:
    """Behaviours 2 and 9: the history has turns, not commands."""
    done = talk(text_model, "/history\nhello\n/metrics\n/history\n")
    assert done.stdout.endswith(f"user: hello\nassistant: {expected('hello')}")
    assert done.stdout.count("user: ") == 1


def test_a_conversation_is_saved_and_goes_on(text_model: Path, tmp_path: Path, expected: Any) -> None:
    """Behaviour 11, from the command line: saving and loading, with the cache or without, changes no answer."""
    for option in ("", "--cache "):
        saved = tmp_path / f"a chat{option.strip()}"
        first = talk(text_model, f"hello\n/save {option}{saved}\nworld\n", "-s", "S")
        second = talk(text_model, f"never mind\n/load {saved}\nworld\n/history\n")
        assert (complaints(first), complaints(second)) == ("", "")
        world = first.stdout[len(talk(text_model, "hello\n", "-s", "S").stdout) :]
        assert second.stdout.startswith(expected("never mind") + world + "user: hello\n")
        with bitnet.Engine(text_model) as engine:
            loaded = bitnet.ChatSession.load(engine, saved)
            assert (loaded.system, loaded.template.origin) == ("S", "argument")
            assert bool(loaded.send("world").cached_tokens) == bool(option)


def test_a_file_that_cannot_be_loaded_or_saved_is_an_error(text_model: Path, tmp_path: Path, expected: Any) -> None:
    """Behaviour 6: after the error the conversation continues unchanged."""
    missing, folder = tmp_path / "missing", tmp_path
    done = talk(text_model, f"hello\n/load {missing}\n/load {text_model}\n/load\n/save\n/save {folder}\nworld\n")
    assert (done.returncode, done.stdout) == (0, expected("hello", "world"))
    lines = complaints(done).splitlines()
    assert len(lines) == 5
    for word, line in zip(("missing", "saved conversation", "/load", "/save", str(folder)), lines, strict=True):
        assert word in line


def test_pipes_load_no_line_editor(text_model: Path) -> None:
    """Behaviour 1."""
    code = (
        "import sys, bitnet.cli as c; s = c.main(sys.argv[1:]); sys.exit(s or any('prompt' in m for m in sys.modules))"
    )
    command = [sys.executable, "-c", code, "chat", text_model, *CHAT]
    assert subprocess.run(command, input="hello\n", capture_output=True, text=True).returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_stops_the_answer_and_at_the_prompt_leaves(tmp_path: Path) -> None:
    """Behaviour 7."""
    slow = tmp_path / "model.gguf"
    make_text_model(slow, context=4096)  # a long answer, which is still running when the signal arrives
    command = bitnet_command("chat", slow, "--template", "raw", "--stop", "never", "-t", "1")
    environment = {**os.environ, "BITNET_ISA": "scalar", "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(4):
            process.stderr.readline()
        process.stdin.write("hello " * 10 + "\n")
        process.stdin.flush()
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        process.stdin.write("/metrics\n")
        process.stdin.flush()
        for line in process.stdout:
            if line.startswith("decode"):
                break
        else:
            pytest.fail("it left at the first Ctrl-C")
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130


@pytest.mark.skipif(os.name != "posix", reason="uses a shell")
def test_a_closed_pipe_ends_it_quietly(text_model: Path) -> None:
    """Behaviour 1."""
    command = f"yes hello | {' '.join(bitnet_command('chat', text_model, *CHAT))} | head -n 5; exit ${{PIPESTATUS[1]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    # It may or may not fill the context before it notices that the pipe is closed.
    others = [line for line in complaints(done).splitlines() if "no longer fit into the context" not in line]
    assert (done.returncode, others) == (0, [])


def test_receipts_are_written_where_they_are_asked_for(text_model: Path, tmp_path: Path) -> None:
    """Behaviour 32."""
    folder = tmp_path / "new" / "receipts"
    before = set(tmp_path.rglob("*"))
    talk(text_model, "hello\n")
    assert set(tmp_path.rglob("*")) == before
    for option in ("--receipt-dir", "--emit-receipt-dir"):
        talk(text_model, "hello\nworld\nhello\n", option, folder)
    files = list(folder.iterdir())
    assert len(files) == 7
    # Two processes ran one after the other, so their time stamps differ; within one process the count decides.
    named = [re.fullmatch(r"chat-(\d{8}T.+)-\d+-(\d+)\.json", path.name) for path in files]
    newest = folder / max((name for name in named if name), key=lambda name: (name[1], int(name[2])))[0]
    assert (folder / "inference.json").read_bytes() == newest.read_bytes()
    with bitnet.Engine(text_model) as engine:
        for path in files:
            receipt = bitnet.Receipt.load(path)
            receipt.validate()
            assert engine.replay(receipt)


def test_a_folder_that_cannot_be_written_is_an_error(text_model: Path, tmp_path: Path) -> None:
    """Behaviour 32."""
    (tmp_path / "file").write_text("")
    done = talk(text_model, "hello\n", "--receipt-dir", tmp_path / "file")
    assert done.returncode == 2
    assert "file" in done.stderr


def test_an_answer_that_fails_leaves_the_conversation_going(text_model: Path, expected: Any) -> None:
    done = talk(text_model, "x" * 3000 + "\nhello\n")
    assert "context" in done.stderr
    assert (done.returncode, done.stdout) == (0, expected("hello"))


def test_a_full_context_is_told(text_model: Path) -> None:
    """Behaviour 27: a message says so, and the history keeps the turns that left the prompt."""
    done = talk(text_model, "".join(f"turn number {i}\n" for i in range(12)) + "/history\n", "-c", "128")
    assert re.search(r"the oldest \d+ turns no longer fit into the context", done.stderr)
    assert done.returncode == 0
    assert re.findall(r"(?m)^user: turn number (\d+)$", done.stdout) == [str(i) for i in range(12)]


def test_run_answers_a_prompt_through_the_template(text_model: Path, expected: Any, tmp_path: Path) -> None:
    """Behaviour 12: `bitnet run --chat` formats its prompt as `bitnet chat` does."""
    command = bitnet_command("run", text_model, "-p", "hello", "--chat", *CHAT, "--receipt-dir", tmp_path)
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.stdout == expected("hello")
    claim = json.loads((tmp_path / "inference.json").read_text())["claim"]
    assert claim["template"]["name"] == "bitnet"
    assert [path.name[:6] for path in tmp_path.glob("*-*.json")] == ["run-20"]
