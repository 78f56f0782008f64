"""Colours at a terminal."""

import os
import sys


def coloured(text: str, code: str) -> str:
    """The text in the colour of an ANSI code; plain if standard output is no terminal or NO_COLOR is set."""
    plain = os.environ.get("NO_COLOR") or not sys.stdout.isatty()
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"
