"""`bitnet template --show`: a prompt by who wrote which part of it."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from . import Span, Tokenizer

COLOURS = {None: "2", "system": "35", "user": "36", "assistant": "32"}
"""Of each role; of the template's own text."""


def coloured(text: str, code: str) -> str:
    """The text as it is, unless standard output is a terminal whose user wants colours."""
    plain = os.environ.get("NO_COLOR") or not sys.stdout.isatty()
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"


def picture(spans: Sequence[Span], tokenizer: Tokenizer | None) -> str:
    """A line for each span, and with a tokenizer one for each token that begins in it."""
    lines = []
    for span in spans:
        who = (span.role or "template") + (", rewritten" if span.rewritten else "")
        lines.append(f"{who:<10} {coloured(repr(span.text), COLOURS.get(span.role, '33'))}\n")
        if tokenizer:
            for token in span.token_ids or []:
                lines.append(f"{token:>10} {tokenizer.decode([token], skip_special_tokens=False)!r}\n")
    return "".join(lines)


def unseen(spans: Sequence[Span], messages: Sequence[dict[str, Any]]) -> list[int]:
    """The messages that have a text but no span: the template took it apart or left it out."""
    seen = {span.message for span in spans}
    return [i for i, message in enumerate(messages) if message.get("content") and i not in seen]
