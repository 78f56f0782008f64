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
from bitnet._gguf_writer import write_gguf
from bitnet._synthetic import Spec, metadata, tensors
from bitnet.models import inside
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
    commands = ("/help", "/clear", "/metrics", "/history", "/rewind", "/save", "/load", "/exit", "/quit", "/retry")
    for command in (*commands, "/system", "/model", "Tab", "Ctrl-C", "Ctrl-D", "Alt-Enter", "Up, Down"):
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
        assert complaints(first) == f"saved: 1 exchange, in {saved}\n"
        assert complaints(second) == "loaded: 1 exchange\n"
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


def test_every_command_says_a_word(text_model: Path, tmp_path: Path) -> None:
    """Through pipes on standard error: standard output has the answers, and what a command was asked to show."""
    saved = tmp_path / "chat.json"
    lines = [
        "/history",
        "hello",
        "/clear",
        "hello",
        "/rewind",
        f"/save {saved}",
        f"/load {saved}",
        "/system S",
        "/retry",
    ]
    for i, words in enumerate(
        (
            "no turns yet",
            "",
            "all turns are forgotten",
            "",
            "taken back: 1 exchange; 0 exchanges left",
            f"saved: 0 exchanges, in {saved}",
            "loaded: 0 exchanges",
            "the system prompt is set; it holds from the next answer on",
            "bitnet: /retry: there is no message to answer again",
        )
    ):
        said = complaints(talk(text_model, "".join(line + "\n" for line in lines[: i + 1]))).splitlines()
        assert words == "" or said[-1] == words


def test_the_last_message_is_answered_again(text_model: Path, expected: Any) -> None:
    """With a fixed seed the answer is the same, and the history has it once."""
    done = talk(text_model, "hello\nworld\n/retry\n/history\n")
    hello, world = expected("hello"), expected("hello", "world").removeprefix(expected("hello"))
    assert done.stdout == f"{hello}{world}{world}user: hello\nassistant: {hello}user: world\nassistant: {world}"
    assert complaints(done) == ""
    greedy = talk(text_model, "hello\n/retry\n", "--temperature", "0")
    assert "at temperature 0 the answer is the same" in complaints(greedy)
    half = len(greedy.stdout) // 2
    assert greedy.stdout[:half] == greedy.stdout[half:]


def test_the_system_prompt_is_set(text_model: Path) -> None:
    """The turns stay; the next answer is the one that a conversation with this system prompt gives."""
    done = talk(text_model, "/system\nhello\n/system Be brief.\n/system\nworld\n/history\n")
    with bitnet.Engine(text_model) as engine:
        chat = bitnet.ChatSession(engine, template="bitnet", max_tokens=6, temperature=1.0, seed=3)
        hello = chat.send("hello").text
        document = json.loads(chat.to_json()) | {"system": "Be brief."}
        world = bitnet.ChatSession.from_json(engine, json.dumps(document)).send("world").text
    assert done.stdout == (
        f"there is no system prompt\n{hello}\nBe brief.\n{world}\n"
        f"user: hello\nassistant: {hello}\nuser: world\nassistant: {world}\n"
    )


def test_another_model_is_opened(text_model: Path, tmp_path: Path, expected: Any) -> None:
    """The conversation starts again with the same options. A model that cannot be opened changes nothing."""
    done = talk(text_model, f"hello\n/model nope.gguf\n/model\nworld\n/model {text_model}\nhello\n/model trit\n")
    assert done.stdout == expected("hello", "world") + expected("hello")
    said = complaints(done)
    assert said.startswith("bitnet: nope.gguf: no such file; give the path of a GGUF file, hf:OWNER/NAME")
    assert "bitnet: /model needs the name of a model" in said
    assert said.endswith("Try: What is 345+678? | how many r's in strawberry | My name is Ann.\n")
    done = talk(inside(), f"/model {text_model}\n/metrics\n", "-c", "300")
    assert "--ctx is 300, expected at most 256, the context length that the model was trained for" in complaints(done)
    assert "exchanges  0" in done.stdout


def test_the_welcome_says_what_the_model_can_do(tmp_path: Path) -> None:
    """From the metadata of the file: name and description, without control characters."""
    own = subprocess.run(bitnet_command("chat"), input="", capture_output=True, text=True).stderr.splitlines()
    assert own[0] == "Trit: A tiny BitNet b1.58 model for short chats with sums, letters and memory."
    assert own[3].startswith("Try: What is 345+678?")
    spec = Spec(layers=1, vocab_size=300)
    keys = {"general.name": "A\x1b[31m model", "general.description": "of\nmany lines " + "x" * 300}
    write_gguf(tmp_path / "m.gguf", metadata(spec) | keys, tensors(spec))
    other = subprocess.run(bitnet_command("chat", tmp_path / "m.gguf"), input="", capture_output=True, text=True)
    line = other.stderr.splitlines()[0]
    assert line.startswith("A[31m model: of many lines xxx")
    assert len(line) < 220
    assert "Try:" not in other.stderr


def test_commands_of_other_programs(expected: Any, text_model: Path) -> None:
    done = talk(text_model, "/set system S\n/system\nhello\n/reset\n/?\n/metric\n/etc is a folder\n/bye\nworld\n")
    assert done.stdout.startswith("S\n")
    assert "/help" in done.stdout
    assert "world" not in done.stdout
    said = complaints(done)
    assert "all turns are forgotten" in said
    assert "there is no command /metric; did you mean /metrics?" in said
    assert "there is no command /etc; /help lists the commands; a message begins with a space" in said
