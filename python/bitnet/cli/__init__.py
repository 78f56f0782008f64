"""The command `bitnet`: one module for each of its commands.

A command's module has two functions. `add_parser(commands)` describes the command and its options; `run(options)`
executes it and returns its exit status, or None for 0. To add a command, write its module and name it in `_COMMANDS`.
"""

import io
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, TextIO

from .. import __version__
from .._format import escape_line
from ..errors import BitnetError
from ._errors import explain, in_flags
from ._parser import Parser, UsageError, parse

__all__ = ["main"]

_COMMANDS = (
    "chat",
    "run",
    "serve",
    "bench",
    "plan",
    "inspect",
    "pack",
    "tokenize",
    "template",
    "receipt",
    "certificate",
    "doctor",
    "completion",
)
"""The command modules, in the order of `bitnet --help`."""

_FAILED = 2
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0: success. 1: a receipt is not valid or differs (`bitnet receipt`, `bitnet certificate`), or the model inside
    answers wrong (`bitnet doctor`). 2: an error. 130: Ctrl-C.
    """
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            _discard_unwritable(sys.stdout)
            _discard_unwritable(sys.stderr)


def _open_closed_streams() -> None:
    """Open standard streams that were closed before Python started, as the null device.

    The next file that is opened, such as the model, would take the number of a closed one, and be read or written in
    its place.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def _discard_unwritable(stream: TextIO) -> None:
    """Write what a stream still holds; if that fails, give it somewhere to write, since Python tries again at exit."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run(argv: Sequence[str]) -> int:
    """Run the command that the arguments name, and return its exit status."""
    status: int | None = 0
    parser = None
    try:
        try:
            options = parse(build_parser(), argv)
            parser = options.parser
            status = options.run(options)
        finally:
            sys.stdout.flush()  # after --help too, which ends by SystemExit: output that is lost is an error
    except BrokenPipeError:
        pass  # the reader has seen enough
    except UsageError as error:
        _complain(escape_line(str(error)))
        return _FAILED
    except (BitnetError, OSError) as error:
        _complain(f"bitnet: {explain(error, parser)}")
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    return status or 0


def _complain(line: str) -> None:
    """Print an error. If standard error cannot be written, the exit status alone tells of it."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


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
