"""What the command `bitnet` accepts from the habit of other programs, and how its errors speak."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bitnet
from bitnet import cli, models
from bitnet.certificate import Certificate
from bitnet.cli import _habits, _options, _parser
from conftest import ROOT
from test_cli import run

MODEL = ROOT / "tests" / "fixtures" / "relu2-i2s.gguf"

COMMANDS = {name: parser for name, parser, _ in _parser.commands(cli.build_parser())}
CHAT = ["-t", "1", "-n", "8"]


class Done:
    """What a command printed, and its exit status."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


Command = Callable[..., Done]


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Command:
    """A function that runs the command in this process."""

    def call(*arguments: str | Path) -> Done:
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as error:
            status = int(error.code or 0)
        return Done(status, *capsys.readouterr())

    return call


def is_one_line(done: Done) -> None:
    """An error is one line that begins with the command's name and speaks no Python."""
    assert done.status == 2, done.err
    assert re.fullmatch(r"bitnet[^\n]*\n", done.err), done.err
    for python in ("Errno", "Path(", "Traceback", "None", "Some(", "os error", "Engine.", "from_pretrained"):
        assert python not in done.err, done.err


# -- Errors -----------------------------------------------------------------------------------------------------------


def options_with(test: Callable[[argparse.Action], bool]) -> list[tuple[str, str]]:
    """The options that pass a test, each with its command, by their first long name."""
    return [
        (name, next(text for text in action.option_strings if text.startswith("--")))
        for name, parser in COMMANDS.items()
        for action in parser._actions
        if action.option_strings and action.help != argparse.SUPPRESS and test(action)
    ]


PARSED = options_with(
    lambda action: bool(action.choices) or action.type not in (None, str, Path, _options.text_or_file)
)
NUMBERS = options_with(lambda action: action.type in (_options.whole, _options.number))
OUTSIDE = {
    "--ctx": ["0", "-1", "385", "9" * 30],
    "--sessions": ["0", "-1"],
    "--context": ["0", "-1", "385", "9" * 30],
    "--max-batch": ["0", "-1", "9" * 30],
    "--cache-bytes": ["-1", "9" * 30],
    "--processes": ["0", "-1", "2"],
    "--threads": ["0", "-1", "9" * 30],
    "--max-tokens": ["0", "-1", "9" * 30],
    "--temperature": ["-1", "nan", "inf"],
    "--top-k": ["-1", "9" * 30],
    "--top-p": ["-1", "0", "1.5", "nan"],
    "--min-p": ["-1", "1.5", "nan"],
    "--repetition-penalty": ["-1", "0", "inf"],
    "--repeat-last-n": ["-1", "9" * 30],
    "--presence-penalty": ["inf", "nan"],
    "--frequency-penalty": ["inf", "nan"],
    "--seed": ["-1", "9" * 30],
    "--port": ["-1", "65536"],
    "--max-running": ["0", "9" * 30],
    "--max-queue": ["-1", "9" * 30],
    "--timeout": ["-1", "nan", "inf"],
    "--grace": ["-1", "nan", "inf"],
    "--max-body": ["0", "9" * 30],
    "--receipts": ["-1", "9" * 30],
    "--share": ["-1", "1.1", "nan"],
    "--count": ["-1"],
}
"""Values that each option refuses."""
REQUIRED = {
    "run": ["-p", "hi"],
    "tokenize": ["hi"],
    "receipt replay": ["none.json"],
    "certificate verify": ["none.json"],
}


@pytest.mark.parametrize(("command", "option"), PARSED)
def test_a_value_of_the_wrong_kind_is_told_by_its_flag(here: Command, command: str, option: str) -> None:
    done = here(*command.split(), *REQUIRED.get(command, []), f"{option}=x y")
    is_one_line(done)
    assert done.err.startswith(f"bitnet {command}: ")
    assert option in done.err
    assert "'x y'" in done.err


@pytest.mark.parametrize(("command", "option"), NUMBERS)
def test_a_value_out_of_range_is_told_by_its_flag(
    here: Command, command: str, option: str, tmp_path: Path, engine: Any
) -> None:
    receipt = engine.generate("hello", max_tokens=2).receipt.save(tmp_path / "receipt.json")
    required = {"run": ["-p", "hi"], "receipt replay": [receipt, "-m", engine.path]}
    required["pack"] = ["trit", tmp_path / "out"]
    certificate = Certificate.make({"answer": bitnet.Receipt.load(receipt)}, tmp_path / "receipts")
    required["certificate verify"] = [certificate.save(tmp_path / "certificate.json"), "-m", engine.path]
    for value in OUTSIDE[option]:
        done = here(*command.split(), *required.get(command, []), f"{option}={value}")
        is_one_line(done)
        assert done.err.startswith(f"bitnet: {option} is "), done.err


def test_every_number_has_values_that_it_refuses() -> None:
    assert {option for _, option in NUMBERS} == OUTSIDE.keys()


def test_an_empty_stop_string_is_told_by_its_flag(here: Command) -> None:
    done = here("run", "-p", "hi", "--stop", "")
    is_one_line(done)
    assert done.err.startswith("bitnet: --stop is an empty text")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["chat", "What is 2+2?"], '`bitnet chat` takes a model, not a message; use `bitnet run "What is 2+2?"`'),
        (["template"], "bitnet: give a message with --user TEXT or --messages FILE"),
        (["receipt"], "ACTION is missing; choose one of verify, replay, diff, redact, show"),
        (["completion"], "SHELL is missing; choose one of bash, zsh, fish"),
        (["run", "-c", "100000", "Hi there"], "the context length that the model was trained for"),
        (["ask", "hi"], 'use `bitnet run "QUESTION"`'),
    ],
)
def test_an_error_says_what_to_type(here: Command, arguments: list[str], words: str) -> None:
    done = here(*arguments)
    is_one_line(done)
    assert words in done.err


def test_a_guessed_template_is_told_with_the_option(here: Command, text_model: Path) -> None:
    assert here("template", str(text_model), "--user", "hi").err.endswith("; choose one with --template\n")


def test_a_full_context_names_the_flag(here: Command) -> None:
    done = here("run", "-c", "64", "-p", "1 " * 400)
    is_one_line(done)
    assert "use a larger --ctx" in done.err


@pytest.mark.parametrize(
    "command", ["chat", "run", "bench", "plan", "inspect", "tokenize", "template", "receipt replay"]
)
def test_a_model_that_is_not_there(here: Command, command: str, tmp_path: Path, engine: Any) -> None:
    """The error says which names a model can have."""
    receipt = engine.generate("hello", max_tokens=2).receipt.save(tmp_path / "receipt.json")
    more = {"run": ["-p", "hi"], "tokenize": ["hi"], "receipt replay": [receipt, "-m"]}
    arguments = more.get(command, [])
    last = command == "receipt replay"
    for name, hub in (("nope.gguf", "hf:OWNER/NAME"), ("microsoft/bitnet", "hf:microsoft/bitnet"), ("a/b.gguf", "hf:")):
        done = here(*command.split(), *(arguments if last else []), name, *([] if last else arguments))
        is_one_line(done)
        assert done.err.startswith(f"bitnet: {name}: no such file")
        assert hub in done.err
        assert "trit" in done.err
    (tmp_path / "some.gguf").write_bytes(b"")
    done = here(*command.split(), *(arguments if last else []), tmp_path, *([] if last else arguments))
    is_one_line(done)
    assert "is a folder; name a file in it: some.gguf" in done.err


@pytest.mark.parametrize("action", ["verify", "replay", "diff", "redact", "show"])
def test_a_receipt_that_is_not_there(here: Command, action: str) -> None:
    more = ["other.json"] if action in ("diff", "redact") else []
    done = here("receipt", action, "nope.json", *more)
    is_one_line(done)
    assert done.err == "bitnet: nope.json: No such file or directory\n"


def test_a_receipt_is_judged_without_rust(here: Command, engine: Any, tmp_path: Path) -> None:
    path = engine.generate("hello", max_tokens=3, ignore_eos=True).receipt.save(tmp_path / "receipt.json")
    for at_most, told in ((9, "max_tokens 9"), (None, "max_tokens none")):
        document = json.loads(path.read_text())
        document["claim"]["sampling"]["max_tokens"] = at_most
        path.write_text(json.dumps(document))
        for action in ("verify", "show"):
            done = here("receipt", action, path)
            assert done.status == 1
            assert told in done.out
            assert "Some" not in done.out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"role": "user"', "is not a JSON list of messages"),
        ('{"role": "user", "content": "hi"}', "is not a JSON list of messages"),
        ("5", "is not a JSON list of messages"),
        ('["hi"]', 'messages[0] is "hi", expected an object'),
        ('[{"role": "user", "content": "hi"}, [5]]', "messages[1] is [5], expected an object"),
    ],
)
def test_messages_that_are_none(here: Command, tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "messages.json"
    path.write_text(text)
    done = here("template", "--messages", path)
    is_one_line(done)
    assert done.err.startswith(f"bitnet: --messages {path}")
    assert words in done.err


@pytest.mark.parametrize("command", [["chat"], ["template"], ["run", "--chat", "-p", "hi"]])
def test_a_template_that_is_not_there(here: Command, command: list[str]) -> None:
    done = here(*command, "--template", "nope")
    is_one_line(done)
    assert done.err.startswith("bitnet: --template nope: no such file, and no template of this name; choose")


@pytest.mark.parametrize("option", ["--system", "--template"])
def test_an_option_without_effect_is_refused(here: Command, option: str) -> None:
    done = here("run", "-p", "hi", option, "raw")
    is_one_line(done)
    assert f"{option} does not change how a text is continued; add --chat" in done.err
    assert here("run", "hi there", option, "raw", *CHAT).status == 0


def test_an_empty_standard_input_is_told() -> None:
    for arguments in ([], ["-p", "-"]):
        command = [sys.executable, "-m", "bitnet", "run", *arguments]
        done = subprocess.run(command, input="", capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("bitnet: standard input is empty")


def test_warnings_are_lines(here: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning that the package gives in Python is a line on standard error, without a place in the code."""

    def inspect(path: object, weights: bool) -> object:
        warnings.warn("the projections are all zero", UserWarning, stacklevel=1)
        return bitnet.inspect(MODEL)

    monkeypatch.setattr("bitnet.cli.inspect.inspect", inspect)
    done = here("inspect")
    assert (done.status, done.err) == (0, "bitnet: warning: the projections are all zero\n")


# -- Habits -----------------------------------------------------------------------------------------------------------


def test_bitnet_alone_prints_its_help(here: Command) -> None:
    done = here()
    assert (done.status, done.err) == (0, "")
    assert all(name.split()[0] in done.out for name in COMMANDS)
    assert here("help").out == done.out
    assert here("help", "run").out == here("run", "--help").out


@pytest.mark.parametrize(("option", "alias"), [(o, a) for o, aliases in _habits.ALIASES.items() for a in aliases])
def test_other_spellings_do_the_same(option: str, alias: str) -> None:
    """They are accepted by every command that has the option, and no help shows them."""
    values = {"--template": "raw", "--system": "S", "--stop": "never"}
    found = 0
    for name, parser in COMMANDS.items():
        if option not in parser._option_string_actions or parser._option_string_actions[option].type not in TYPES:
            continue
        found += 1
        required = REQUIRED.get(name, [])
        value = values.get(option, "1")
        wanted, given = (vars(parser.parse_args([*required, flag, value])) for flag in (option, alias))
        assert given == wanted, name
        assert alias not in re.findall(r"-[\w-]+", parser.format_help())
    assert found


TYPES = (None, str, _options.text_or_file, _options.whole, _options.number)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--max_tokens 4", "did you mean --max-tokens?"),
        ("--temprature 1", "did you mean --temperature?"),
        ("-temp 1", "did you mean --temp?"),
        ("--max 4", "did you mean --max-tokens?"),
        ("--seeds=4", "did you mean --seed?"),
        ("--tokens 4", "--max-tokens"),
        ("-ngl 99", "processor only"),
        ("--n-gpu-layers 99", "processor only"),
        ("-f prompt.txt", "bitnet run -p - < FILE"),
        ("--file prompt.txt", "bitnet run -p - < FILE"),
        ("--json", "--receipt-dir"),
        ("-cnv", "bitnet chat"),
        ("--hf-repo a/b", "hf:OWNER/NAME"),
        ("--num-beams 4", "--temperature"),
        ("--history x", "it is an option of `bitnet chat`"),
        ("--depth 4", "it is an option of `bitnet bench`"),
        ("--gibberish", "unknown option --gibberish"),
    ],
)
def test_an_option_of_another_program_is_told_what_it_is_here(here: Command, typed: str, meant: str) -> None:
    done = here("run", "-p", "hi", *typed.split())
    is_one_line(done)
    assert meant in done.err
    assert typed.split("=")[0].split()[0] in done.err


@pytest.mark.parametrize("option", sorted(_habits.HINTS))
def test_a_hint_is_for_an_option_that_does_not_exist(here: Command, option: str) -> None:
    done = here("inspect", option)
    if option not in COMMANDS["inspect"]._option_string_actions:
        is_one_line(done)
        assert option in done.err
    names = {flag for parser in COMMANDS.values() for flag in parser._option_string_actions}
    hint = _habits.HINTS[option]
    assert all(flag in {*names, "--cache"} for flag in re.findall(r"--[a-z][a-z-]+", hint)), "it names our options"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("list", "trit"),
        ("pull microsoft/bitnet", "hf:OWNER/NAME"),
        ("server --port 1", "bitnet serve"),
        ("show trit", "bitnet inspect"),
        ("chatt", "did you mean chat?"),
        ("foo", "the commands are chat, run"),
        ("-m model.gguf -p hi", "bitnet run -m"),
        ("--temp 0.5", "bitnet run --temp"),
    ],
)
def test_a_command_of_another_program_is_told_what_it_is_here(here: Command, typed: str, meant: str) -> None:
    done = here(*typed.split())
    is_one_line(done)
    assert meant in done.err


def test_no_hint_is_for_a_command_that_exists() -> None:
    assert not _habits.COMMANDS.keys() & {name.split()[0] for name in COMMANDS}


def test_a_value_that_begins_with_a_dash(here: Command) -> None:
    done = here("run", "-p", "--list")
    is_one_line(done)
    assert "--prompt=VALUE" in done.err
    assert here("run", "--prompt=--list", *CHAT).status == 0


def test_arguments_in_any_order(here: Command) -> None:
    """argparse alone settles optional arguments too early."""
    whole = here("tokenize", MODEL, "a<|eot_id|>", "--ids", "--parse-special").out
    assert whole
    assert here("tokenize", MODEL, "--ids", "a<|eot_id|>", "--parse-special").out == whole
    assert here("tokenize", "--ids", MODEL, "--parse-special", "a<|eot_id|>").out == whole
    assert here("tokenize", "-m", MODEL, "--ids", "--parse-special", "a<|eot_id|>").out == whole
    done = here("tokenize", MODEL, "two", "words")
    is_one_line(done)
    assert "quotes" in done.err


# -- The model inside -------------------------------------------------------------------------------------------------


def test_the_model_inside_has_a_name(here: Command, tmp_path: Path) -> None:
    path = models.inside()
    ask = ["run", "--chat", "-p", "What is 2+2?", "--receipt-dir", tmp_path]
    assert here(*ask).out == here("run", "trit", *ask[1:]).out == here("run", "-m", "trit", *ask[1:]).out == "2+2=4.\n"
    receipt = tmp_path / "inference.json"
    for arguments in (["inspect"], ["tokenize", "hi"], ["template", "--user", "hi"], ["receipt", "replay", receipt]):
        named = [*arguments[:1], "trit", *arguments[1:]]
        given = [*arguments[:1], path, *arguments[1:]]
        if arguments[0] == "receipt":
            named, given = [*arguments, "-m", "trit"], [*arguments, "-m", path]
        plain = here(*arguments)
        assert plain.status == 0
        assert plain.out == here(*named).out == here(*given).out


def test_a_single_argument_of_tokenize_is_the_text(here: Command) -> None:
    assert "'h'" in here("tokenize", "hi").out
    for model in ("trit", "hf:a/b", MODEL, "nope.gguf"):
        done = here("tokenize", model)
        is_one_line(done)
        assert "is a model; give the text after it" in done.err


# -- `bitnet run` with a message --------------------------------------------------------------------------------------

QUESTION = "What is 2+2?"


def test_a_message_is_answered(here: Command) -> None:
    for arguments in (
        [QUESTION],
        ["trit", QUESTION],
        ["-m", "trit", QUESTION],
        ["-t", "1", "trit", "-n", "9", QUESTION],
        ["--chat", QUESTION],
    ):
        done = here("run", *arguments)
        assert (done.status, done.out, done.err) == (0, "2+2=4.\n", ""), arguments
    for model in ([], ["trit"]):
        command = [sys.executable, "-m", "bitnet", "run", *model]
        piped = subprocess.run(command, input=QUESTION + "\n", capture_output=True, text=True)
        assert (piped.returncode, piped.stdout, piped.stderr) == (0, "2+2=4.\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hello"], "to send it as a message, write `bitnet run trit hello`"),
        (["hello", "there"], 'put quotes around a message of several words, such as `bitnet run "hello there"`'),
        (["nope.gguf", "hello"], "nope.gguf: no such file"),
        (["trit", "hello", "-p", "there"], "give one of them"),
        (["hello there", "-p", "more"], "hello there: no such file"),
    ],
)
def test_a_message_that_cannot_be_told_from_a_model_is_refused(here: Command, arguments: list[str], words: str) -> None:
    done = here("run", *arguments)
    is_one_line(done)
    assert words in done.err


def test_a_raw_continuation_of_a_chat_model_says_so(text_model: Path) -> None:
    """Once, on standard error; the answer is not changed. Not for a model without a template, nor with --chat."""
    done = run("run", "-p", "1, 2, 3,", *CHAT)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "the text is continued as it is" in done.stderr
    assert "--chat" in done.stderr
    engine = bitnet.Engine(n_threads=1)
    assert done.stdout == engine.generate("1, 2, 3,", max_tokens=8).text + "\n"
    assert run("run", "-p", QUESTION, "--chat", *CHAT).stderr == ""
    assert run("run", text_model, "-p", "hello", *CHAT).stderr == ""


# -- JSON -------------------------------------------------------------------------------------------------------------


def test_receipts_are_judged_in_json(here: Command, engine: Any, tmp_path: Path) -> None:
    chat: Any = bitnet.ChatSession(engine, template="bitnet", max_tokens=4, ignore_eos=True)
    first, second = (chat.send(text).receipt.save(tmp_path / f"{text}.json") for text in ("one", "two"))
    digests = [receipt.digest for receipt in chat.receipts]
    damaged = tmp_path / "damaged.json"
    damaged.write_text(first.read_text().replace("f16", "f32"))
    found = json.loads(here("receipt", "verify", "--json", first, second, damaged).out)
    assert [entry["valid"] for entry in found] == [True, True, False]
    assert found[1] == {
        "file": str(second),
        "valid": True,
        "digest": digests[1],
        "previous": digests[0],
        "previous_file": str(first),
        "previous_missing": False,
        "previous_differs": [],
        "told": ["claim", "run", "timestamp", "environment", "model_info", "test_results"],
    }
    assert "gate" in found[2]["error"]

    done = here("receipt", "replay", first, "--json", damaged, "-m", engine.path)
    assert done.status == 1
    found = {entry["file"]: entry for entry in json.loads(done.out)}
    assert {"claim.system", "run", "timestamp"} <= {*found[str(first)].pop("told")}
    assert found[str(first)] | {"isa": ""} == {
        "file": str(first),
        "valid": True,
        "same": True,
        "difference": None,
        "ids": 4,
        "isa": "",
        "threads": bitnet.processor()["cores"],
    }
    assert found[str(damaged)]["valid"] is False

    done = here("receipt", "diff", first, "--json", second)
    assert done.status == 1
    found = json.loads(done.out)
    assert found["same_claims"] is False
    assert {"path": "claim.previous", "first": None, "second": digests[0]} in found["differences"]
    assert json.loads(here("receipt", "diff", first, first, "--json").out) == {"same_claims": True, "differences": []}


# -- Completion -------------------------------------------------------------------------------------------------------


def completed(*words: str, folder: Path) -> list[str]:
    """What bash suggests for the last word."""
    script = """
source <("$1" -m bitnet completion bash)
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
_bitnet
printf '%s\\n' "${COMPREPLY[@]}"
"""
    command = ["bash", "-c", script, "bash", sys.executable, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes(tmp_path: Path) -> None:
    (tmp_path / "a model.gguf").write_text("")
    for words, suggested in (
        (["bitnet", "ch"], ["chat"]),
        (["bitnet", "receipt", "re"], ["replay", "redact"]),
        (["bitnet", "chat", "--te"], ["--template", "--temperature"]),
        (["bitnet", "chat", "--kv-type", ""], ["f16", "f32"]),
        (["bitnet", "chat", "-n", ""], [""]),
        (["bitnet", "inspect", ""], ["trit", "a model.gguf"]),
        (["bitnet", "receipt", "replay", "--model", "a"], ["a model.gguf"]),
        (["bitnet", "completion", ""], ["bash", "zsh", "fish"]),
    ):
        assert completed(*words, folder=tmp_path) == suggested, words
    for name, parser in COMMANDS.items():
        shown = [text for a in parser._actions if a.help != argparse.SUPPRESS for text in a.option_strings]
        assert completed("bitnet", *name.split(), "--", folder=tmp_path) == [s for s in shown if s.startswith("--")]


@pytest.mark.skipif(not shutil.which("fish"), reason="needs fish")
def test_fish_completes(tmp_path: Path) -> None:
    script = tmp_path / "bitnet.fish"
    script.write_text(run("completion", "fish").stdout)
    for typed, suggested in (
        ("bitnet ch", ["chat"]),
        ("bitnet receipt re", ["redact", "replay"]),
        ("bitnet chat --te", ["--temperature", "--template"]),
        ("bitnet chat --kv-type ", ["f16", "f32"]),
        ("bitnet receipt replay --mo", ["--model"]),
    ):
        command = ["fish", "--no-config", "-c", f"source {script}; complete -C '{typed}'"]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HOME": str(tmp_path)})
        assert [line.split("\t")[0] for line in done.stdout.splitlines()] == suggested, done.stderr


@pytest.mark.skipif(not shutil.which("zsh"), reason="needs zsh")
def test_zsh_takes_the_script(tmp_path: Path) -> None:
    script = f"autoload -U compinit; compinit -u -D; eval \"$('{sys.executable}' -m bitnet completion zsh)\"; "
    done = subprocess.run(["zsh", "-fc", script + "print $_comps[bitnet]"], capture_output=True, text=True)
    assert (done.stderr, "_bitnet" in done.stdout) == ("", True)
