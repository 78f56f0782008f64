"""Output at a terminal: colours, and texts of strangers that can do it no harm.

Names and messages that may come from a file (metadata, receipts, paths, errors) are escaped wherever they are printed:
by `escape_line` and `two_columns` of `_format`. Whole texts (answers, prompts, template sources) are escaped at a
terminal only: a file or a pipe gets exactly the text.
"""

import os
import sys

from .._format import escape_text


def coloured(text: str, code: str) -> str:
    """The text in the colour of an ANSI code; plain if standard output is no terminal or NO_COLOR is set."""
    plain = os.environ.get("NO_COLOR") or not sys.stdout.isatty()
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"


def whole_text(text: str) -> str:
    """A text of a model, a template or a message for standard output: with `escape_text` if that is a terminal."""
    return escape_text(text) if sys.stdout.isatty() else text
