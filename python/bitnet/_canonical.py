"""Canonical JSON (RFC 8785), and the hash of a tree of lines (RFC 6962): what certificates hash."""

import hashlib
import json
import math
import re
from collections.abc import Iterable
from typing import Any

_LARGEST = 2**53 - 1
"""The largest whole number that every reader of JSON takes exactly."""
_DEEPEST = 100
"""Levels of nesting that a value may have: no document of this package comes near, and Python's stack holds more."""


def canonical(value: Any) -> bytes:
    """A value as the bytes of its canonical JSON (RFC 8785, JCS).

    Raises ValueError for what has no such form: a number that is not finite, a whole number beyond ±(2^53 - 1), a lone
    surrogate, a key that is no text, or another type; and for what is nested more than 100 levels deep.
    """
    return _canonical(value, _DEEPEST).encode()


def _canonical(value: Any, levels: int) -> str:
    if levels < 0:
        raise _too_deep()
    if isinstance(value, str):
        # Python escapes what RFC 8785 escapes, in the same way.
        return json.dumps(value, ensure_ascii=False)
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int):
        if abs(value) > _LARGEST:
            raise ValueError(f"{value} is beyond 2^53 - 1, so not every reader of JSON takes it exactly")
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(_canonical(item, levels - 1) for item in value)}]"
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("the keys of a JSON object are texts")
        # The order is that of UTF-16 code units.
        keys = sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))
        return "{" + ",".join(f"{_canonical(key, 0)}:{_canonical(value[key], levels - 1)}" for key in keys) + "}"
    raise ValueError(f"a {type(value).__name__} has no form in JSON")


def _number(value: float) -> str:
    """A binary64 number as ECMAScript writes it (Number::toString): the shortest digits that give it back."""
    if not math.isfinite(value):
        raise ValueError(f"{value} has no form in JSON")
    if value == 0:
        return "0"  # also for -0
    found = re.fullmatch(r"(-?)(\d+)(?:\.(\d+))?(?:e([+-]\d+))?", repr(value))
    assert found
    sign, whole, fraction, exponent = found[1], found[2], found[3] or "", int(found[4] or 0)
    digits = (whole + fraction).lstrip("0")
    # The value is 0.DIGITS times ten to the power of `point`.
    point = len(whole) + exponent - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if 0 < point <= 21:
        digits = digits.ljust(point, "0")
        return sign + digits[:point] + ("." + digits[point:] if digits[point:] else "")
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    mantissa = digits[0] + ("." + digits[1:] if digits[1:] else "")
    return f"{sign}{mantissa}e{point - 1:+d}"


def parse(text: str) -> Any:
    """The value of a JSON text, nested at most 100 levels deep, so that it is safe to walk through it by recursion.

    Raises ValueError for another text, and for an object that has a key twice.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse)
    except RecursionError:
        raise _too_deep() from None
    level = [value]
    for _ in range(_DEEPEST + 1):
        level = [below for item in level if isinstance(item, (dict, list)) for below in _items(item)]
        if not level:
            return value
    raise _too_deep()


def _items(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _too_deep() -> ValueError:
    return ValueError(f"it is nested more than {_DEEPEST} levels deep")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has a key twice")
    return found


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of a leaf (RFC 6962, section 2.1). The byte in front keeps leaves and inner nodes apart."""
    return hashlib.sha256(b"\0" + leaf).digest()


def tree_hash(leaves: Iterable[bytes]) -> str:
    """The Merkle tree hash of leaves in this order (RFC 6962, section 2.1, SHA-256), in hexadecimal."""
    # Complete subtrees from the left, each with its height; two of one height become one that is higher. What remains
    # at the end is joined from the right, which gives the split at the largest power of two.
    pending: list[tuple[int, bytes]] = []
    for leaf in leaves:
        height, node = 0, leaf_hash(leaf)
        while pending and pending[-1][0] == height:
            node = _inner(pending.pop()[1], node)
            height += 1
        pending.append((height, node))
    if not pending:
        return hashlib.sha256().hexdigest()
    _, root = pending.pop()
    while pending:
        root = _inner(pending.pop()[1], root)
    return root.hex()


def _inner(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()
