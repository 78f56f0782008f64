"""The command `bitnet`: one module for each of its commands.

A command's module has two functions. `add_parser(commands)` describes the command and its options; `run(options)`
executes it and returns its exit status, or None for 0. To add a command, write its module and name it in `_COMMANDS`.
"""

import io
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from .. import __version__
from ..errors import BitnetError
from ._errors import explain, in_flags
from ._parser import Parser, UsageError, parse

__all__ = ["main"]

_COMMANDS = ("chat", "run", "bench", "inspect", "tokenize", "template", "receipt", "doctor", "completion")
"""The command modules, in the order of `bitnet --help`."""

_FAILED = 2
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0: success. 1: a receipt is not valid or differs (`bitnet receipt`), or the model inside answers wrong (`bitnet
    doctor`). 2: an error. 130: Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        return _run(sys.argv[1:] if argv is None else argv)


def _run(argv: Sequence[str]) -> int:
    """Run the command that the arguments name, and return its exit status."""
    status: int | None = 0
    parser = None
    try:
        options = parse(build_parser(), argv)
        parser = options.parser
        status = options.run(options)
        if sys.stdout:  # None if it was closed before Python started
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe. Python flushes stdout once more at exit: give it somewhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except UsageError as error:
        print(error, file=sys.stderr)
        return _FAILED
    except (BitnetError, OSError) as error:
        print(f"bitnet: {explain(error, parser)}", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    return status or 0


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a Python warning as one line, without the place in the code that caused it."""
    print(f"bitnet: warning: {in_flags(str(message))}", file=sys.stderr)


def build_parser() -> Parser:
    """The parser of the whole command line."""
    top = Parser(
        prog="bitnet",
        description="Run ternary (BitNet) language models on this processor. A small model is in the package: try "
        "`bitnet chat`.",
        epilog="`bitnet COMMAND --help` describes a command. The environment variable BITNET_ISA chooses the "
        "instruction set of every command (default: the best one); NO_COLOR turns colours off.",
    )
    top.add_argument(
        "-V", "--version", action="version", version=f"bitnet {__version__}", help="print the version and exit"
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in _COMMANDS:
        import_module(f".{name}", __name__).add_parser(commands)
    return top
