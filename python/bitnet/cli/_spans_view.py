"""A prompt as lines of text that show who wrote each part: `bitnet template --show`."""

from collections.abc import Sequence
from typing import Any

from .. import Span, Tokenizer
from .._format import escape_line
from ._terminal import coloured

_COLOURS = {None: "2", "system": "35", "user": "36", "assistant": "32"}
"""ANSI codes by role; None is the template's own text."""
_OTHER_ROLE = "33"


def spans_view(spans: Sequence[Span], tokenizer: Tokenizer | None) -> str:
    """One line for each span; with a tokenizer, also one for each token that begins in the span."""
    lines = []
    for span in spans:
        who = escape_line(span.role or "template") + (", rewritten" if span.rewritten else "")
        lines.append(f"{who:<10} {coloured(repr(span.text), _COLOURS.get(span.role, _OTHER_ROLE))}\n")
        if tokenizer:
            for token in span.token_ids or []:
                lines.append(f"{token:>10} {tokenizer.decode([token], skip_special_tokens=False)!r}\n")
    return "".join(lines)


def unseen_messages(spans: Sequence[Span], messages: Sequence[dict[str, Any]]) -> list[int]:
    """Indices of messages whose text is in no span, because the template left it out or changed it beyond tracing."""
    seen = {span.message for span in spans}
    return [i for i, message in enumerate(messages) if message.get("content") and i not in seen]
