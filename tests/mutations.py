"""Changes to documents and bytes, drawn at random: what parsers of strangers' files must bear."""

from __future__ import annotations

import random
from typing import Any

VALUES = (None, True, -1, 2**63, 2**200, 0.5, 1e308, "", "\ud800", "x" * 1000, "\x1b[2J\n", [], [[]], {}, {"a": {}})
TOKENS = (b"\xff", b"\0", b'"', b"{", b"[" * 2000, b"NaN", b"1e999", b"\\ud800", b"\r", b"\n\n", b"\xef\xbb\xbf", b",")
MORE_VALUES = (0, 1, 2**31, 2**53, -(2**63), 1e-320, -0.0, "\0", "..", "a\0b", "/", "é" * 300, "a", [0], [None] * 50)


def other_value(draw: random.Random, value: Any, values: tuple[Any, ...] = VALUES) -> Any:
    """A copy in which one value, somewhere inside, is another."""
    if isinstance(value, (dict, list)) and value and draw.random() < 0.8:
        copy: Any = value.copy()
        key = draw.choice(list(value) if isinstance(value, dict) else range(len(value)))
        copy[key] = other_value(draw, value[key], values)
        return copy
    return draw.choice(values)


def other_bytes(draw: random.Random, data: bytes) -> bytes:
    """A copy that is cut, repeated, or has bytes that mean something to a parser."""
    at, end = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    return draw.choice(
        (data[:at], data[:at] + data[end:], data[:end] + data[at:], data[:at] + draw.choice(TOKENS) + data[at:])
    )


def other_document(draw: random.Random, value: Any) -> Any:
    """A copy with one to three changes of any kind: other, missing, additional, moved and deeply nested values."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        value = _changed(draw, value)
    return value


def _changed(draw: random.Random, value: Any) -> Any:
    if isinstance(value, (dict, list)) and value and draw.random() < 0.75:
        copy: Any = value.copy()
        key = draw.choice(list(value) if isinstance(value, dict) else range(len(value)))
        copy[key] = _changed(draw, value[key])
        return copy
    kind = draw.choice(("value", "value", "value", "missing", "more", "nested", "own"))
    if isinstance(value, (dict, list)) and value and kind in ("missing", "more", "own"):
        copy = value.copy()
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = draw.choice(keys)
        if kind == "missing":
            del copy[key]
        elif kind == "own":  # the value of another member
            copy[key] = value[draw.choice(keys)]
        elif isinstance(value, dict):
            copy[draw.choice(("", "a", "\ud800", "\0", "n", "type", "name"))] = draw.choice(VALUES)
        else:
            copy.insert(draw.randrange(len(copy) + 1), draw.choice([*VALUES, *value]))
        return copy
    if kind == "nested":
        for _ in range(draw.choice((1, 90, 300, 450))):
            value = [value] if draw.random() < 0.5 else {"a": value}
        return value
    if kind == "own" and isinstance(value, str):
        at, end = sorted(draw.randrange(len(value) + 1) for _ in range(2))
        other = value[:at] + draw.choice("0f7\0\ud800/.") * (end - at) + value[end:]
        return draw.choice((value[:at] + value[end:], value[:end] + value[at:], value * draw.choice((2, 500)), other))
    if kind == "own" and isinstance(value, (int, float)):
        return draw.choice((-value, value + 1, value * 1000, float(value), str(value)))
    return draw.choice((*VALUES, *MORE_VALUES))
