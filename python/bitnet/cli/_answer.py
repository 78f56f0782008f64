"""How commands print an answer while it is computed."""

import sys

from .. import Stream
from ._terminal import coloured, whole_text

_DIM = "2"
"""Dimmed, as an ANSI code."""


def print_answer(pieces: Stream, *, colour: str | None = None, thoughts: bool = True) -> None:
    """Print an answer piece by piece, and then end the line. At a terminal, the thoughts before it come first, dimmed.

    A file or a pipe gets the answer alone.
    colour: the colour of the answer at a terminal, as an ANSI code.
    thoughts: whether a terminal shows the thoughts; otherwise one line says that the model thinks.
    """
    at_terminal = sys.stdout.isatty()
    thinking = False
    shown = 0
    for piece in pieces:
        if at_terminal and shown and len(pieces.text) < shown + len(piece.text):
            # A mark has ended thoughts that nothing had begun: what was printed were thoughts.
            print(coloured("\n(the lines above were thoughts)\n", _DIM))
            shown = 0
        shown += len(piece.text)
        if piece.reasoning and at_terminal:
            if not thinking:
                print(coloured("thinking ...", _DIM), end="\n" if thoughts else "", flush=True)
                thinking = True
            if thoughts:
                print(coloured(whole_text(piece.reasoning), _DIM), end="", flush=True)
        if piece.text:
            if thinking:
                print("\n\n", end="")
                thinking = False
            text = whole_text(piece.text)
            print(coloured(text, colour) if colour else text, end="", flush=True)
    print(flush=True)
