"""`bitnet pack`."""

import argparse
import os
import sys

from .. import check_packed, pack
from .._format import byte_size, escape_line, two_columns
from ._options import MODEL, Commands, add_command, add_option, model_path, whole


def add_parser(commands: Commands) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands,
        "pack",
        run,
        help="write a model so that it opens in milliseconds and processes share it",
        description="Write a model in the layout that the engine computes with. Such a file opens in milliseconds, and "
        "processes on one machine hold its weights in memory once. Its answers and the digests of its receipts are "
        "those of MODEL.",
    )
    command.add_argument("model", metavar="MODEL", nargs="?", help=MODEL)
    command.add_argument("out", metavar="OUT", nargs="?", help="the file to write")
    command.add_argument(
        "--layout",
        choices=("auto", "two-bit", "base3"),
        default="auto",
        help="four trits in a byte, or five where rows are long enough; every processor reads both (default: auto, the "
        "faster one on this processor)",
    )
    command.add_argument("--force", action="store_true", help="replace OUT if it exists")
    command.add_argument(
        "--check",
        metavar="PACKED",
        help="write nothing: check that this packed file is whole and, if MODEL is given, that it is MODEL packed",
    )
    help = "number of threads (default: one for each core that this process may use)"
    add_option(command, "-t", "--threads", type=whole, metavar="N", help=help)


def run(options: argparse.Namespace) -> None:
    """Pack a model, or check a packed file."""
    if options.check is not None:
        if options.out is not None:
            options.parser.error("--check takes no OUT; give the packed file and, if you have it, the model")
        _check(options)
        return
    if options.out is None:
        options.parser.error("MODEL and OUT are required: the model, and the file to write")
    path = model_path(options.model)
    _say(f"packing {path} …")
    made = pack(path, options.out, layout=options.layout, force=options.force, n_threads=options.threads)
    print(
        two_columns(
            {
                "packed": f"{made['path']} ({made['layout']}, {byte_size(made['bytes'])})",
                "model": f"{made['model_file']} ({byte_size(made['model_bytes'])})",
                "fingerprint": made["fingerprint"],
            }
        )
    )


def _check(options: argparse.Namespace) -> None:
    """Check a packed file, and say what was proven."""
    model = None if options.model is None else model_path(options.model)
    if model is not None:
        _say(f"packing {model} again …")
    found = check_packed(options.check, model, n_threads=options.threads)
    name = escape_line(found["model_file"])
    told = f"it says that it is {name} (fingerprint {found['fingerprint']}); give that model to prove it"
    proven = f"it is {escape_line(os.fspath(model or ''))} packed; the fingerprint is {found['fingerprint']}"
    print(f"{escape_line(str(found['path']))} is whole; {told if model is None else proven}")


def _say(text: str) -> None:
    """Say on standard error what takes long, if somebody is looking."""
    if sys.stderr.isatty():
        print(escape_line(text), file=sys.stderr, flush=True)
