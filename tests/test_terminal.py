"""`bitnet chat` at a terminal: line editing, colours, the status line, Ctrl-C. Behaviours 1, 3 and 7."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from conftest import ROOT
from scripted_model import scripted_model
from text_model import make_text_model

if sys.platform == "win32":
    pytest.skip("needs pseudo-terminals", allow_module_level=True)
import fcntl
import pty
import struct
import termios

PROMPT = "\x1b[?2004h"
"""The editor sends this (bracketed paste on) when it begins to read keys."""
READ = "\x1b[?2004l"
"""The editor sends this (bracketed paste off) when it has read an input."""
UP, ENTER, CTRL_C, CTRL_D = "\x1b[A", "\r", "\x03", "\x04"
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOURS = re.compile(r"\x1b\[[0-9;]*[1-9][0-9;]*m")


def pasted(text: str) -> str:
    return f"\x1b[200~{text}\x1b[201~"


class Terminal:
    """A `bitnet chat` process on a pseudo-terminal."""

    def __init__(self, folder: Path, *arguments: str | Path, **environment: str) -> None:
        self.keyboard, screen = pty.openpty()
        fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
        hidden = ("NO_COLOR", "BITNET_ISA")
        variables = {name: value for name, value in os.environ.items() if name not in hidden}
        variables |= {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "HOME": str(folder), "PYTHONIOENCODING": "utf-8"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bitnet", "chat", *map(str, arguments)],
            stdin=screen,
            stdout=screen,
            stderr=screen,
            cwd=folder,
            env=variables | environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(
                0, termios.TIOCSCTTY, 0
            ),  # its controlling terminal, so that Ctrl-C sends SIGINT
        )
        os.close(screen)
        self.shown = b""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.keyboard)

    def press(self, keys: str) -> None:
        os.write(self.keyboard, keys.encode())

    def until(self, done: str | re.Pattern[str]) -> str:
        """Wait until this appears. Return the output up to its end; the next call gets the rest."""
        pattern = re.compile(re.escape(done)) if isinstance(done, str) else done
        deadline = time.monotonic() + 60
        while True:
            text = self.shown.decode("utf-8", "ignore")
            if found := pattern.search(text):
                self.shown = text[found.end() :].encode()
                return text[: found.end()]
            ready, _, _ = select.select([self.keyboard], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{done!r} was not shown, but {text!r}"
            try:
                self.shown += os.read(self.keyboard, 65536)
            except OSError:  # Linux raises this when the process has closed its side
                pytest.fail(f"it left before {done!r} was shown: {text!r}")

    def say(self, text: str) -> str:
        """Type an input, and return the output until the next prompt."""
        self.press(text + ENTER)
        self.until(READ)
        return self.until(PROMPT)

    def leaves_with(self) -> int:
        return self.process.wait(timeout=60)


CHAT = ["-n", "4", "--template", "raw", "-t", "1", "--stop", "never"]


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answers are long enough to be interrupted."""
    path = tmp_path_factory.mktemp("slow") / "model.gguf"
    make_text_model(path, context=4096)
    return path


def test_each_answer_has_a_status_line(text_model: Path, tmp_path: Path) -> None:
    """Behaviour 1: the line is for terminals only; the second answer reuses the first prompt."""
    with Terminal(tmp_path, text_model, *CHAT) as terminal:
        banner = terminal.until(PROMPT)
        assert str(text_model) in banner
        rate = r"[0-9]+\.[0-9] tokens/s"
        for reused in ("0", "[1-9][0-9]*"):
            shown = terminal.say("hello")
            line = rf"\[prompt [0-9]+ tokens, {reused} reused, {rate}; answer 4 tokens, {rate}; length\]"
            assert re.search(line, shown), shown
            assert COLOURS.search(shown)
        terminal.press("/exit" + ENTER)
        assert terminal.leaves_with() == 0
    assert list(tmp_path.iterdir()) == []


def test_no_colour_where_none_is_wanted(text_model: Path, tmp_path: Path) -> None:
    with Terminal(tmp_path, text_model, *CHAT, NO_COLOR="1") as terminal:
        shown = terminal.until(PROMPT) + terminal.say("hello") + terminal.say("/metrics")
        assert "answer 4 tokens" in shown
        assert not COLOURS.search(shown), shown
        terminal.press(CTRL_D)
        assert terminal.leaves_with() == 0


def test_lines_are_edited_and_remembered(text_model: Path, tmp_path: Path) -> None:
    """Pasted lines stay one input; Alt-Enter adds a line; Up recalls inputs, also from the file of --history."""
    (tmp_path / "home").mkdir()
    inputs = tmp_path / "inputs"
    with Terminal(tmp_path / "home", text_model, *CHAT, "--history", inputs) as terminal:
        terminal.until(PROMPT)
        terminal.say(pasted("one\ntwo"))
        terminal.say("threee\x7f")
        terminal.say("four\x1b\rfive")
        terminal.say(UP + UP + UP + " again")  # Up moves through the two lines of the last input first
        shown = CODES.sub("", terminal.say("/history")).replace("\r", "")
        assert re.findall(r"(?m)^user: (.*\n?.*)", shown)[0] == "one\ntwo"
        assert "user: three\n" in shown
        assert "user: four\nfive\n" in shown
        assert "user: three again\n" in shown
        terminal.press(CTRL_D)
        assert terminal.leaves_with() == 0
    assert "+one\n+two\n" in inputs.read_text("utf-8")
    with Terminal(tmp_path / "home", text_model, *CHAT, "--history", inputs) as terminal:
        terminal.until(PROMPT)
        terminal.press(UP + UP + ENTER)
        terminal.until("three again")
        terminal.until("answer 4 tokens")
    assert list((tmp_path / "home").iterdir()) == []


def test_a_file_for_inputs_that_cannot_be_written_is_an_error(text_model: Path, tmp_path: Path) -> None:
    with Terminal(tmp_path, text_model, *CHAT, "--history", tmp_path / "none" / "inputs") as terminal:
        terminal.until(re.compile("bitnet: .*inputs: No such file or directory"))
        assert terminal.leaves_with() == 2


def test_ctrl_c_stops_the_answer_and_at_the_prompt_leaves(slow_model: Path, tmp_path: Path) -> None:
    """Behaviour 7, with the keys of a terminal."""
    arguments: list[Any] = [slow_model, "--template", "raw", "--stop", "never", "-t", "1"]
    with Terminal(tmp_path, *arguments, BITNET_ISA="scalar") as terminal:
        terminal.until(PROMPT)
        terminal.press("hello" + ENTER)
        terminal.until(READ)
        terminal.until(re.compile(r"(\x1b\[[0-9;?]*[A-Za-z]|\s)*[^\x1b\s]"))  # the answer has begun
        terminal.press(CTRL_C)
        assert "cancelled]" in terminal.until(PROMPT)
        assert "assistant (stopped): " in terminal.say("/history")
        # Computing this prompt takes longer than the sleep, so Ctrl-C arrives before the answer begins.
        terminal.press(pasted("hello " * 2000) + ENTER)
        terminal.until(READ)
        time.sleep(0.1)
        terminal.press(CTRL_C)
        terminal.until(PROMPT)
        assert "exchanges  " in terminal.say("/metrics")
        terminal.press(CTRL_C)
        assert terminal.leaves_with() == 130


def test_tab_completes_commands_and_files(text_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a-chat.json").write_text("")
    with Terminal(tmp_path, text_model, *CHAT) as terminal:
        terminal.until(PROMPT)
        terminal.press("/met\t")
        terminal.until("rics")
        terminal.press(ENTER)
        assert "exchanges  0" in terminal.until(re.compile("decode .*"))
        terminal.until(PROMPT)
        terminal.press("/load a-\t")
        terminal.until("chat.json")
        terminal.press(ENTER)
        assert "bitnet: " in terminal.until(re.compile("bitnet: .*saved conversation"))
        terminal.until(PROMPT)
        terminal.press("met\t" + ENTER)  # a message is not completed
        terminal.until("answer 4 tokens")


def test_answers_are_coloured(text_model: Path, tmp_path: Path) -> None:
    with Terminal(tmp_path, text_model, *CHAT) as terminal:
        terminal.until(PROMPT)
        shown = terminal.say("hello")
        assert "\x1b[36m" in shown.partition("[prompt")[0]


def test_the_readmes_transcript_is_a_real_one(tmp_path: Path) -> None:
    """But for the path of the model and the rates of the machine."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [transcript] = re.findall(r"```\n\$ bitnet chat\n(.+?)> /exit\n```", readme, re.DOTALL)

    def comparable(text: str) -> str:
        text = CODES.sub("", text).replace("\r", "")
        return re.sub(
            r"[\d.]+ tokens/s", "N tokens/s", re.sub(r"(?m)^(model +).*/bitnet/", r"\1…/bitnet/", text)
        ).strip()

    start, *exchanges = transcript.split("> ")
    with Terminal(tmp_path) as terminal:
        assert comparable(terminal.until(PROMPT)) == comparable(start)
        for exchange in exchanges:
            line, _, answer = exchange.partition("\n")
            assert comparable(terminal.say(line)) == comparable(answer)


@pytest.mark.parametrize("hidden", [False, True])
def test_thoughts_are_shown_dimmed_before_the_answer(tmp_path: Path, hidden: bool) -> None:
    prompt = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}{# <think> #}"
    script = ["\n", "<think>", *"hm?", "</think>", *"42", "<|im_end|>"]
    model = scripted_model(tmp_path / "thinks.gguf", script, template=prompt)
    with Terminal(tmp_path, model, *["--hide-thinking"] * hidden) as terminal:
        terminal.until(PROMPT)
        shown = terminal.say("x").replace("\r", "")
        thoughts = "" if hidden else "\n\x1b[2mh\x1b[0m\x1b[2mm\x1b[0m\x1b[2m?\x1b[0m"
        assert f"\x1b[2mthinking ...\x1b[0m{thoughts}\n\n\x1b[36m4\x1b[0m\x1b[36m2\x1b[0m\n" in shown
        assert "are hidden at a terminal" in terminal.say("/thinking hide")
        assert "hm?" not in CODES.sub("", terminal.say("x"))
        assert "are shown at a terminal" in terminal.say("/thinking show")
        assert "hm?" in CODES.sub("", terminal.say("x"))
