"""`bitnet run`."""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .. import batch
from .._text_input import read_text
from ..errors import ArgumentError
from ._options import (
    Commands,
    add_chat_options,
    add_command,
    add_engine_options,
    add_sampling_options,
    chosen_template,
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
        help="continue a prompt, answer a question, or answer a file of requests",
        description="Continue a prompt; with --chat, answer it as a user's message. With --input and --output, answer "
        "a file of requests; a run that was stopped is resumed by the same command.",
    )
    add_engine_options(command)
    prompt = command.add_mutually_exclusive_group(required=True)
    prompt.add_argument("-p", "--prompt", metavar="TEXT", help="the prompt, or - to read it from standard input")
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
        help="treat the prompt as a user's message and format it with the chat template (default: continue the text)",
    )
    add_chat_options(command)
    add_sampling_options(command)
    add_receipt_dir(command)


def run(options: argparse.Namespace) -> None:
    """Answer the prompt, or the file of requests."""
    if (options.input is None) != (options.output is None):
        raise ArgumentError("--input and --output need each other; give both")
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
                save=receipts.save if receipts else None,
                **sampling(options),
            )
            _show_progress(counts)
            return
        prompt = read_text("-") if options.prompt == "-" else options.prompt
        if options.chat:
            answer = open_chat(engine, options).stream(prompt)
        else:
            answer = engine.stream(prompt, **sampling(options))
        for piece in answer:
            print(piece.text, end="", flush=True)
        print()
        if receipts and answer.receipt:
            receipts.save(answer.receipt)


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
