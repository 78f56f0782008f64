"""Text for people: sizes, times, rates, tables. The command line and the notebook views share these."""

import json
from collections.abc import Mapping
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


def two_columns(rows: Mapping[str, Any]) -> str:
    """Format names and values as lines. A value of several lines stays in its column."""
    width = max(map(len, rows), default=0)
    indent = "\n" + " " * (width + 2)
    return "\n".join(f"{name:<{width}}  {str(value).replace(chr(10), indent)}" for name, value in rows.items())
