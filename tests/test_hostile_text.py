"""Texts of strangers at a terminal, odd files in place of regular ones, closed and full standard streams."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest

import bitnet
from bitnet import _display
from bitnet._format import escape_line, escape_text, two_columns
from bitnet._gguf_writer import Tensor, write_gguf
from bitnet._synthetic import Spec, metadata, tensors
from test_cli import run

EVIL = "x\x1b]0;title\x07\x1b[2J\x9b31m\x7f\u202ebidi\u2066\u2028\r\nother.json: valid\n"
"""Commands of a terminal, C1, marks of writing direction, and a line that looks like one of ours."""
FORGED = "other.json: valid"


def is_clean(text: str) -> None:
    """There is nothing that commands a terminal, and no line that a stranger wrote."""
    bad = [char for char in text if char != "\n" and unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp", "Cs")]
    assert not bad, text
    assert not any(line.strip().startswith(FORGED) for line in text.splitlines()), text


def test_every_control_character_is_escaped() -> None:
    for code in range(0x110000):
        char = chr(code)
        kind = unicodedata.category(char)
        if kind in ("Cc", "Zl", "Zp", "Cs") or unicodedata.bidirectional(char) in BIDI:
            assert escape_line(char) != char
            assert (escape_text(char) == char) == (char in "\n\t")
        elif kind != "Cf":  # such as the joiners in emoji, which a text needs
            assert escape_text(char) == char
    assert escape_line(EVIL) == r"x\x1b]0;title\x07\x1b[2J\x9b31m\x7f\u202ebidi\u2066\u2028\r\nother.json: valid\n"
    assert escape_text("a\tb\n\u200dc\x1b") == "a\tb\n\u200dc\\x1b"
    assert escape_line("Grüße, 世界 🙂") == "Grüße, 世界 🙂"
    is_clean(two_columns({EVIL: EVIL}))
    assert two_columns({"a": "x\ny\x1b", "bc": "x\ny\x1b"}, texts=["a"]) == "a   x\n    y\\x1b\nbc  x\\ny\\x1b"
    assert two_columns({"\x1b": 1, "\\x1b": 2}).count("\n") == 1, "two names stay two rows"


BIDI = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A model that runs, whose every text is hostile."""
    spec = Spec("bitnet-b1.58", 1, 128, 192, 2, 1, vocab_size=40, context=64)
    keys = metadata(spec) | {f"general.{name}": EVIL for name in ("name", "description", "license")}
    keys |= {EVIL: EVIL, "list": [EVIL], "tokenizer.chat_template": f"{EVIL}{{{{ messages[0].content }}}}"}
    keys |= {"tokenizer.ggml.model": EVIL}
    extra = Tensor(EVIL, (4,), 0, 16, lambda: [bytes(16)])
    path = tmp_path / f"{'m' * 3}\n{FORGED}.gguf"
    write_gguf(path, keys, [*tensors(spec), extra])
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "MODEL", "--tensors", "--metadata"],
        ["tokenize", "MODEL", EVIL],
        ["run", "MODEL", "-p", EVIL],
        ["run", "MODEL", EVIL],
        ["chat", "MODEL"],
        ["template", "MODEL", "--user", EVIL, "--show"],
        ["receipt", "replay", "MODEL"],
        ["receipt", "verify", "MODEL"],
        ["bench", "MODEL", "-p", "1", "-n", "1", "-r", "1"],
        ["run", "--stop", EVIL, EVIL, EVIL, EVIL],
        ["run", "-p", "x", "--input", EVIL],
        ["inspect", EVIL],
        ["template", "--template", EVIL],
        ["template", "--messages", EVIL],
        [EVIL],
        ["run", f"--{EVIL}"],
        ["receipt", "show", EVIL],
        ["receipt", "redact", EVIL, EVIL],
        ["tokenize", "trit", EVIL],
    ],
    ids=lambda arguments: " ".join(arguments)[:24].encode("unicode_escape").decode(),
)
def test_no_command_prints_what_strangers_wrote_raw(hostile: Path, arguments: list[str]) -> None:
    """Names, metadata, errors: also where the output is no terminal, since a line could be forged."""
    command = [sys.executable, "-m", "bitnet", *(str(hostile) if word == "MODEL" else word for word in arguments)]
    done = subprocess.run(command, capture_output=True, input=b"/model " + EVIL[:-20].encode() + b"\n")
    assert b"Traceback" not in done.stderr
    assert done.stdout + done.stderr
    is_clean(done.stdout.decode())
    is_clean(done.stderr.decode())


def test_errors_of_templates_are_escaped(hostile: Path, tmp_path: Path) -> None:
    source = tmp_path / "template.jinja"
    source.write_text(f"{{{{ raise_exception({json.dumps(EVIL)}) }}}}")
    done = run("template", source, "--user", "hi")
    assert done.returncode == 2
    assert "title" in done.stderr
    is_clean(done.stderr)
    assert json.loads(run("inspect", hostile, "--json").stdout)["metadata"], "JSON stays JSON"


def test_receipts_forge_no_line(engine: Any, tmp_path: Path) -> None:
    receipt = engine.generate("hello", max_tokens=2).receipt
    for block, name in [("claim", "finish_reason"), ("claim", "previous"), ("environment", "os"), ("run", "isa")]:
        document = receipt.to_dict()
        document[block][name] = EVIL
        document["environment"][EVIL] = EVIL
        document["model_info"]["file"] = EVIL
        document["digest"] = bitnet.Receipt.from_json(json.dumps(document)).digest
        path = tmp_path / f"a\n{FORGED}"
        path.write_text(json.dumps(document))
        honest = receipt.save(tmp_path / "honest.json")
        for action in (["verify"], ["show"], ["replay", "-m", str(engine.path)], ["diff", str(honest)]):
            done = run("receipt", *action, path)
            assert "Traceback" not in done.stderr
            is_clean(done.stdout)
            is_clean(done.stderr)
        loaded = bitnet.Receipt.load(path)
        assert "\x1b" not in _display.text(loaded)


if sys.platform == "win32":
    pytest.skip("the rest needs pseudo-terminals, pipes with names and sh", allow_module_level=True)
import pty  # noqa: E402


def at_terminal(*arguments: str | Path, keys: bytes = b"") -> str:
    """What a command writes to a pseudo-terminal, without carriage returns."""
    keyboard, screen = pty.openpty()
    command = [sys.executable, "-m", "bitnet", *map(str, arguments)]
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=screen, stderr=screen, env=environment)
    os.close(screen)
    assert process.stdin
    process.stdin.write(keys)
    process.stdin.close()
    shown = b""
    while True:
        try:
            read = os.read(keyboard, 65536)
        except OSError:  # Linux raises this at the end
            break
        if not read:
            break
        shown += read
    os.close(keyboard)
    assert process.wait() == 0, shown
    return shown.decode().replace("\r\n", "\n")


def test_an_answer_is_escaped_at_a_terminal_and_exact_in_a_pipe(text_model: Path) -> None:
    """The random model writes any byte."""
    options = ["-p", "hello", "-n", "200", "--temperature", "2", "--seed", "1", "--ignore-eos", "-t", "1"]
    with bitnet.Engine(text_model, n_threads=1) as engine:
        text = engine.generate("hello", max_tokens=200, temperature=2.0, seed=1, ignore_eos=True).text
    assert re.search("[\0-\x08\x0e-\x1f]", text)
    command = [sys.executable, "-m", "bitnet", "run", str(text_model), *options]
    assert subprocess.run(command, capture_output=True, check=True).stdout == text.encode() + b"\n"
    assert at_terminal("run", text_model, *options) == escape_text(text) + "\n"


def test_whole_texts_are_escaped_at_a_terminal(text_model: Path, tmp_path: Path) -> None:
    """Prompts, sources of templates, and what the chat's commands print."""
    source = tmp_path / "template.jinja"
    source.write_text(EVIL + "{{ messages[0].content }}")
    for option in ([], ["--source"], ["--show"]):
        assert "\x1b" not in at_terminal("template", source, "--user", "hi\x1b[2J", *option)
        assert ("\x1b" in run("template", source, "--user", "hi", *option).stdout) == (option != ["--show"])
    keys = f"hi\x1b[2J\x9b31m\n/history\n/system x\x1b[2J\n/system\n/\x1b[2J\n/load {EVIL[:20]}".encode()
    shown = at_terminal("chat", text_model, "-n", "20", "--temperature", "2", "--ignore-eos", keys=keys)
    assert "user: hi\\x1b[2J\\x9b31m\n" in shown
    assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f]", shown)


# -- Odd files --------------------------------------------------------------------------------------------------------

OPEN = """
import sys
from pathlib import Path
import bitnet
engine = bitnet.Engine(sys.argv[2])
pipe = sys.argv[1]
for call in (
    bitnet.Receipt.load,
    lambda path: bitnet.ChatSession.load(engine, path),
    bitnet.Engine,
    bitnet.Tokenizer,
    bitnet.Template.from_model,
    bitnet.inspect,
):
    try:
        call(pipe)
        print("no error")
    except (OSError, ValueError) as error:
        print(type(error).__name__, error)
"""


def test_what_is_no_regular_file_is_refused(text_model: Path, tmp_path: Path) -> None:
    """Opening a pipe with a name would wait for a writer, and a device may never end."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), Path("/dev/null")):
        command = [sys.executable, "-c", OPEN, str(path), str(text_model)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert len(lines) == 6
        assert all(str(path) in line and re.search("device|regular file", line) for line in lines), done.stdout


@pytest.mark.parametrize("name", ["tokenizer_config.json", "generation_config.json", "chat_template.jinja"])
def test_pipes_beside_a_tokenizer_are_not_waited_for(tmp_path: Path, name: str) -> None:
    tokenizer = Path(__file__).parent / "fixtures" / "tokenizers" / "bytes" / "tokenizer.json"
    (tmp_path / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    os.mkfifo(tmp_path / name)
    for what in ("Tokenizer", "Template.from_model"):
        command = [sys.executable, "-c", f"import bitnet; bitnet.{what}({str(tmp_path / 'tokenizer.json')!r})"]
        subprocess.run(command, capture_output=True, timeout=60)


@pytest.mark.parametrize("command", ["inspect", "tokenize", "template", "receipt verify", "receipt show"])
def test_commands_do_not_wait_for_a_pipe(tmp_path: Path, command: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    words = [*command.split(), str(pipe), *(["text"] if command == "tokenize" else [])]
    if command == "template":  # a source may come through a pipe: it gets all of it
        done = subprocess.run(
            [
                "bash",
                "-c",
                '"$@" <(printf "%s" "{{ messages[0].content }}!") --user hi',
                "-",
                *python(),
                "template",
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.stdout, done.stderr) == ("hi!", "")
        return
    done = subprocess.run([*python(), *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith(f"bitnet: {pipe}: is ")


def python() -> list[str]:
    return [sys.executable, "-m", "bitnet"]


# -- Standard streams -------------------------------------------------------------------------------------------------

COMMANDS = [
    "inspect",
    "run trit hello -n 2",
    "chat",
    "tokenize hello",
    "template --user hi",
    "receipt verify x",
    "--help",
]


def shell(command: str, redirections: str) -> subprocess.CompletedProcess[str]:
    line = f'exec "{sys.executable}" -m bitnet {command} {redirections}'
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_traceback(command: str, closed: str) -> None:
    done = shell(command, f"{closed} {'' if '<' in closed else '</dev/null'}")
    assert done.returncode == (2 if command == "receipt verify x" else 0)
    assert "Traceback" not in done.stderr + done.stdout
    assert "Exception" not in done.stderr + done.stdout
    assert ("x: No such file" in done.stderr) == (command == "receipt verify x" and "2>&-" not in closed)
    assert not done.stdout or ">&-" not in closed.replace("2>&-", "")
    assert "bitnet: " not in done.stdout, "errors do not go to standard output"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", [*COMMANDS[:-2], "--help", "--version", "receipt verify x"])
def test_a_full_disk_is_an_error_of_one_line(command: str) -> None:
    done = shell(command, ">/dev/full </dev/null")
    if command in ("chat", "receipt verify x"):  # nothing, or nothing else, to write
        return
    assert (done.returncode, done.stderr) == (2, "bitnet: No space left on device\n")
    assert shell(command, ">/dev/full 2>/dev/full </dev/null").returncode == 2


def test_a_closed_standard_input_is_empty(tmp_path: Path) -> None:
    """It is not the model, which would get the number of the closed one."""
    output = tmp_path / "answers"
    done = shell(f"run --input - --output {output}", "<&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert output.read_text() == ""
    done = shell("run -p -", "<&-")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "bitnet: standard input is empty; give a message, or a text to continue with -p\n"
