"""`bitnet run`."""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .. import batch
from .._text_input import read_text
from ..errors import ArgumentError
from ._answer import print_answer
from ._options import (
    INSIDE,
    Commands,
    add_chat_options,
    add_command,
    add_engine_options,
    add_sampling_options,
    chosen_template,
    names_model,
    open_chat,
    open_engine,
    sampling,
)
from ._receipt_folder import add_receipt_dir, receipt_folder

_BAR = 24
"""Characters of the progress bar."""


def add_parser(commands: Commands) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands,
        "run",
        run,
        help="answer a message, continue a text, or answer a file of requests",
        description="Answer a message, or with -p continue a text. With --input and --output, answer a file of "
        "requests; a run that was stopped is resumed by the same command.",
    )
    add_engine_options(command)
    command.add_argument(
        "message",
        metavar="MESSAGE",
        nargs="?",
        help="a message that the model answers, in quotes: the same as --chat -p MESSAGE (default: standard input, "
        "unless it is a terminal)",
    )
    prompt = command.add_mutually_exclusive_group()
    prompt.add_argument(
        "-p", "--prompt", metavar="TEXT", help="a text that the model continues, or - to read it from standard input"
    )
    prompt.add_argument(
        "--input",
        type=Path,
        metavar="FILE",
        help="a file of requests, or - for standard input. Each line is a JSON object with a prompt or messages, and "
        "optionally an id and sampling parameters such as max_tokens, which override the options",
    )
    command.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="with --input: write one JSON answer per line; an existing file is resumed",
    )
    command.add_argument(
        "--chat",
        action="store_true",
        help="treat the text of -p, and prompts of --input, as a user's message and format it with the chat template "
        "(default: continue the text)",
    )
    add_chat_options(command)
    add_sampling_options(command)
    add_receipt_dir(command)


def run(options: argparse.Namespace) -> None:
    """Answer the prompt, or the file of requests."""
    if (options.input is None) != (options.output is None):
        raise ArgumentError("--input and --output need each other; give both")
    _settle_message(options)
    receipts = receipt_folder(options, "run")
    with open_engine(options) as engine:
        if options.input:
            counts = batch.run(
                engine,
                options.input,
                options.output,
                chat=options.chat,
                system=options.system,
                template=chosen_template(engine.template, options.template),
                enable_thinking=options.thinking,
                save=receipts.save if receipts else None,
                **sampling(options),
            )
            _show_progress(counts)
            return
        prompt = read_text("-") if options.prompt == "-" else options.prompt
        if not prompt and options.prompt == "-":
            raise ArgumentError("standard input is empty; give a message, or a text to continue with -p")
        if options.chat:
            answer = open_chat(engine, options).stream(prompt)
        else:
            answer = engine.stream(prompt, **sampling(options))
        print_answer(answer)
        if answer.reasoning and not answer.text:
            advice = "allow more tokens with -n, or keep the model from thinking with --no-thinking"
            print(f"bitnet: the answer ended inside its thoughts; {advice}", file=sys.stderr)
        if receipts and answer.receipt:
            receipts.save(answer.receipt)


def _settle_message(options: argparse.Namespace) -> None:
    """Set prompt and chat from MESSAGE, and decide whether a single argument is MODEL or MESSAGE.

    A single argument is a message if it has a space in it, unless it is the name of a model.
    """
    asked = options.prompt is not None or options.input is not None
    alone = options.message is None and not asked and options.model is not None
    if alone and not names_model(options.model):
        if any(map(str.isspace, options.model)):
            options.model, options.message = None, options.model
        elif not os.path.exists(options.model):
            raise ArgumentError(
                f"{options.model}: no such file; to send it as a message, write "
                f"`bitnet run {INSIDE} {shlex.quote(options.model)}`"
            )
    if options.message is not None and not asked and options.model and _is_word(options.model):
        raise ArgumentError(
            f"{options.model}: no such file; put quotes around a message of several words, such as "
            f'`bitnet run "{options.model} {options.message}"`'
        )
    if options.message is not None and asked:
        raise ArgumentError(f"found a message, {options.message!r}, beside -p or --input; give one of them")
    if options.prompt is not None and not options.chat:
        for name in ("system", "template", "thinking"):
            if getattr(options, name) is not None:
                raise ArgumentError(f"--{name} does not change how a text is continued; add --chat to have it answered")
    if not asked:
        if options.message is None and sys.stdin and sys.stdin.isatty():
            raise ArgumentError('give a message, such as `bitnet run "What is 2+2?"`, or a text to continue with -p')
        options.chat = True
        options.prompt = "-" if options.message is None else options.message


def _is_word(text: str) -> bool:
    """Whether a text cannot be meant as the path or the name of a model."""
    return not (names_model(text) or os.path.exists(text) or "/" in text or "." in text)


def _show_progress(counts: Iterator[tuple[int, int]]) -> None:
    """Consume the counts of `batch.run`, and draw a bar on standard error if that is a terminal."""
    at_terminal = sys.stderr and sys.stderr.isatty()
    start, resumed_at = time.monotonic(), None
    for done, total in counts:
        resumed_at = done if resumed_at is None else resumed_at
        if at_terminal:
            bar = "#" * (_BAR * done // max(total, 1))
            new = done - resumed_at
            speed = f", {new / (time.monotonic() - start):.1f} answers/s" if new else ""
            print(f"\r[{bar:<{_BAR}}] {done} of {total}{speed} ", end="", file=sys.stderr, flush=True)
    if at_terminal:
        print(file=sys.stderr)
