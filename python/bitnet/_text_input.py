"""Text from files and from standard input."""

import os
from pathlib import Path

from .errors import ArgumentError


def read_text(source: str | os.PathLike[str]) -> str:
    """The whole text of a file with its line ends as they are, or of standard input if `source` is "-".

    Raises ArgumentError if it is not UTF-8, OSError if it cannot be read.
    """
    piped = str(source) == "-"
    try:
        if not piped:
            return Path(source).read_bytes().decode()
        with open(0, "rb", closefd=False) as file:
            return file.read().decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        name = "standard input" if piped else source
        raise ArgumentError(f"{name} is not UTF-8 text: {error}") from error
