"""Text for people: sizes, times, rates, tables. The command line and the notebook views share these."""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any


def byte_size(count: float) -> str:
    """Format a number of bytes with three digits and a decimal unit: 1.08 MB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def milliseconds(seconds: float) -> str:
    """Format a time that is given in seconds: 12.345 ms."""
    return f"{seconds * 1e3:.3f} ms"


def rate(tokens_per_second: float) -> str:
    """Format a rate: 61.2 tokens/s."""
    return f"{tokens_per_second:.1f} tokens/s"


def token_counts(prompt: float, cached: float, generated: float) -> str:
    """Format the token counts of an answer, or their sums over a conversation."""
    return f"{prompt:.0f} prompt ({cached:.0f} reused), {generated:.0f} generated"


def one_line(value: Any, limit: int) -> str:
    """Format a value as JSON on one line of at most `limit` characters; a longer one is cut and ends with "…"."""
    line = json.dumps(value, ensure_ascii=False)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def plain_line(text: str, limit: int) -> str:
    """The beginning of a text that a stranger wrote: one line without control characters, at most `limit` long."""
    line = "".join(char for char in " ".join(text.split()) if char.isprintable())
    return line if len(line) <= limit else line[: limit - 1] + "…"


_CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that command a terminal, or change the order of what it shows: C0 but tab and newline, DEL, C1, line and
paragraph separators, the marks of writing direction, surrogates."""


def escape_text(text: str) -> str:
    """A text of a stranger, such as a model's answer, that can do nothing to a terminal but add lines to it.

    Tabs and newlines stay. Other control characters, and those that change the direction of writing, become Python
    escapes such as \\x1b and \\u202e.
    """
    return _CONTROLS.sub(lambda found: _escaped(found[0]), text)


def escape_line(text: str) -> str:
    """A name or a message of a stranger as part of a line: everything that cannot be seen becomes a Python escape, also
    tabs and line breaks, so that it cannot forge another line."""
    return text if text.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    """A character as a Python escape."""
    return char.encode("unicode_escape").decode()


def two_columns(rows: Mapping[str, Any], texts: Collection[str] = ()) -> str:
    """Format names and values as lines. Those values whose names are in `texts` may have several, which stay in their
    column. Everything else that cannot be seen is escaped."""
    cells = [
        (escape_line(name), escape_text(str(value)) if name in texts else escape_line(str(value)))
        for name, value in rows.items()
    ]
    width = max((len(name) for name, _ in cells), default=0)
    indent = "\n" + " " * (width + 2)
    return "\n".join(f"{name:<{width}}  {value.replace(chr(10), indent)}" for name, value in cells)
