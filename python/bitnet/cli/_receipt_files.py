"""What the actions of `bitnet receipt` share: the files, whether they are valid, how lists differ."""

from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from .. import Receipt
from .._format import escape_line
from ..errors import ArgumentError, ReceiptError
from ._errors import explain

NOT_VALID = 1
"""The exit status if a receipt is not valid, a replay differs, or two claims differ."""

TOLD_WITHOUT_REPLAY = ["claim", "run", "timestamp", "environment", "model_info", "test_results"]
"""What a receipt only tells as long as nobody replays it: everything."""


class Checked(NamedTuple):
    """A file, and the receipt in it."""

    path: str
    receipt: Receipt | None
    """None if it is not valid."""
    error: str | None
    """Why it is not valid."""


def check(path: str) -> Checked:
    """Load a receipt and validate it."""
    try:
        receipt = Receipt.load(path)
        receipt.validate()
    except ReceiptError as error:
        # The report begins with the path.
        return Checked(path, None, explain(error).removeprefix(f"{escape_line(path)}: "))
    return Checked(path, receipt, None)


def in_folders(paths: list[str]) -> list[str]:
    """The paths, with those of its `*.json` files in place of each folder."""
    files: list[str] = []
    for path in paths:
        if not Path(path).is_dir():
            files.append(path)
        elif inside := sorted(str(file) for file in Path(path).glob("*.json") if file.is_file()):
            files += inside
        else:
            raise ArgumentError(f"{path}: the folder holds no receipts, which are files named *.json")
    return files


def first_difference(one: list[Any], other: list[Any]) -> str:
    """Describe where two lists begin to differ."""
    pairs = enumerate(zip_longest(one, other, fillvalue="nothing"))
    at, (a, b) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
    return f"index {at} on: {a} | {b}"
