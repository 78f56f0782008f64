"""`bitnet chat`."""

import argparse
import os
from pathlib import Path

from .. import ChatSession
from ..errors import ArgumentError
from ._errors import explain
from ._options import (
    Commands,
    add_chat_options,
    add_command,
    add_engine_options,
    add_option,
    add_sampling_options,
    names_model,
    open_chat,
    open_engine,
)
from ._receipt_folder import add_receipt_dir, receipt_folder
from ._repl import Repl


def add_parser(commands: Commands) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands,
        "chat",
        run,
        help="chat with a model",
        description="Chat with a model. At a terminal, /help lists the commands and keys. Through pipes, each line of "
        "standard input is a message, and standard output has the answers and the output of commands such as /history.",
    )
    add_engine_options(command)
    add_chat_options(command)
    add_sampling_options(command)
    add_receipt_dir(command)
    add_option(
        command,
        "--hide-thinking",
        action="store_true",
        help="at a terminal: do not show what the model thinks before it answers (default: show it dimmed)",
    )
    command.add_argument(
        "--history",
        type=Path,
        metavar="FILE",
        help="at a terminal: keep what you type in this file, for the Up key in later sessions (default: keep nothing)",
    )


def run(options: argparse.Namespace) -> None:
    """Open the model and hold the conversation."""
    name = options.model or ""
    if any(map(str.isspace, name)) and not names_model(name) and not os.path.exists(name):
        raise ArgumentError(f'`bitnet chat` takes a model, not a message; use `bitnet run "{name}"`')
    receipts = receipt_folder(options, "chat")

    def open_model(name: str | None) -> ChatSession:
        engine = open_engine(argparse.Namespace(**{**vars(options), "model": name}))
        return open_chat(engine, options)

    repl = Repl(
        open_model(options.model),
        receipts,
        options.history,
        open_model=open_model,
        explain=lambda error: explain(error, options.parser),
        show_thoughts=not options.hide_thinking,
    )
    try:
        repl.run()
    finally:
        repl.chat.engine.close()
