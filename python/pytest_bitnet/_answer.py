"""An answer of a model, to assert about."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitnet import Completion

_NOT_TEXT = (int, float, complex, bytes, list, tuple, dict, set)
"""Values that somebody may mean as an answer, though an answer is never equal to one."""


@dataclass(frozen=True, eq=False, repr=False)
class Answer:
    """An answer to assert about. It compares as its text: `assert answer == "4"`, `"4" in answer`, `not answer`.

    The message of a failure has prompt, answer and the receipt's digest.
    """

    prompt: str
    completion: Completion

    def __str__(self) -> str:
        """The text of the answer."""
        return self.text

    def __repr__(self) -> str:
        """Text, prompt and digest."""
        return f"Answer({self.text!r}, prompt={self.prompt!r}, digest={self.digest!r})"

    def __eq__(self, other: object) -> bool:
        """Compare the text with a text, or with the text of another answer. Raises TypeError for a number or a list."""
        if isinstance(other, _NOT_TEXT):
            raise TypeError(f"an answer compares with text, found the {type(other).__name__} {other!r}")
        if isinstance(other, Answer):
            other = other.text
        return self.text == other if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        """The hash of the text, which an answer is equal to."""
        return hash(self.text)

    def __bool__(self) -> bool:
        """Whether there is any text."""
        return bool(self.text)

    def __contains__(self, text: str) -> bool:
        """Whether the answer's text contains this text."""
        return text in self.text

    @property
    def text(self) -> str:
        """The text of the answer."""
        return self.completion.text

    @property
    def digest(self) -> str | None:
        """The digest of the answer's receipt."""
        return self.completion.receipt.digest if self.completion.receipt else None

    def must_be(self, text: str) -> None:
        """Fail unless the answer is exactly this text."""
        __tracebackhide__ = True
        self._check(self.text == text, f"to be {text!r}")

    def must_contain(self, text: str) -> None:
        """Fail unless the answer contains this text."""
        __tracebackhide__ = True
        self._check(text in self.text, f"to contain {text!r}")

    def must_match(self, pattern: str) -> None:
        """Fail unless this regular expression matches somewhere in the answer."""
        __tracebackhide__ = True
        self._check(re.search(pattern, self.text) is not None, f"to match {pattern!r}")

    def explained(self) -> list[str]:
        """Lines that say which answer this is, for the message of a failure."""
        return [f"prompt  {self.prompt!r}", f"answer  {self.text!r}", f"digest  {self.digest}"]

    def _check(self, right: bool, expected: str) -> None:
        __tracebackhide__ = True
        if not right:
            raise AssertionError("\n  ".join([f"expected the answer {expected}", *self.explained()]))
