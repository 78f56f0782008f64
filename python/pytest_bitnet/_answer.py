"""An answer of a model, to assert about."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

    from bitnet import Completion

_NOT_TEXT = (int, float, complex, bytes, list, tuple, dict, set)
"""Values that somebody may mean as an answer, though an answer is never equal to one."""

_NUMBER = re.compile(
    r"(?:(?<![\w.)])[+-])?"  # a sign after a digit, a letter or a parenthesis is an operator
    r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+|(?<!\w)(?=\.[0-9]))"  # with commas, without, or from the point
    r"(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
)


class Answer(str):
    """An answer to assert about. It is its text: `answer == "4"`, `"4" in answer`, `re.search(pattern, answer)`.

    The message of a failure has prompt, answer and the receipt's digest. Each `must_…` returns the answer, so that they
    can be chained: `answer.must_contain("4").must_not_contain("5")`.
    """

    prompt: str
    completion: Completion

    def __new__(cls, prompt: str, completion: Completion) -> Self:
        """The answer `completion` to a prompt."""
        answer = super().__new__(cls, completion.text)
        answer.prompt, answer.completion = prompt, completion
        return answer

    def __reduce__(self) -> tuple[type[Answer], tuple[str, Completion]]:
        """For `pickle` and `copy`."""
        return Answer, (self.prompt, self.completion)

    def __repr__(self) -> str:
        """Text, prompt and digest."""
        return f"Answer({self.text!r}, prompt={self.prompt!r}, digest={self.digest!r})"

    def __eq__(self, other: object) -> bool:
        """Compare the texts. Raises TypeError for a number or a list, which an answer is never equal to."""
        if isinstance(other, _NOT_TEXT):
            raise TypeError(f"an answer compares with text, found the {type(other).__name__} {other!r}")
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        """The opposite of `==`."""
        return not self == other

    __hash__ = str.__hash__

    @property
    def text(self) -> str:
        """The text of the answer."""
        return self.completion.text

    @property
    def reasoning(self) -> str | None:
        """What the model thought before the answer; None if it did not."""
        return getattr(self.completion, "reasoning", None)  # a stand-in for a completion may have text alone

    @property
    def digest(self) -> str | None:
        """The digest of the answer's receipt."""
        return self.completion.receipt.digest if self.completion.receipt else None

    @property
    def number(self) -> int | float | None:
        """The last number in the answer, as decimal digits: -3, 1,234 or 2.5e6. None if there is no number."""
        found = _NUMBER.findall(self.text.replace("\u2212", "-"))
        if not found:
            return None
        digits = found[-1].replace(",", "")
        whole = digits.lstrip("+-").isdigit() and len(digits) < 4000  # Python refuses to convert more digits to an int
        return int(digits) if whole else float(digits)

    @property
    def json(self) -> Any:
        """The value of an answer that is JSON. Raises ValueError if it is not."""
        return json.loads(self.text, parse_constant=_refuse_constant)

    def must_be(self, text: str) -> Self:
        """Fail unless the answer is exactly this text."""
        __tracebackhide__ = True
        return self._check(self.text == _some(text, empty=True), f"to be {text!r}")

    def must_contain(self, text: str) -> Self:
        """Fail unless the answer contains this text."""
        __tracebackhide__ = True
        return self._check(_some(text) in self.text, f"to contain {text!r}")

    def must_not_contain(self, text: str) -> Self:
        """Fail if the answer contains this text."""
        __tracebackhide__ = True
        return self._check(_some(text) not in self.text, f"not to contain {text!r}")

    def must_match(self, pattern: str) -> Self:
        """Fail unless this regular expression matches somewhere in the answer."""
        __tracebackhide__ = True
        return self._check(re.search(pattern, self.text) is not None, f"to match {pattern!r}")

    def must_not_match(self, pattern: str) -> Self:
        """Fail if this regular expression matches somewhere in the answer."""
        __tracebackhide__ = True
        return self._check(re.search(pattern, self.text) is None, f"not to match {pattern!r}")

    def must_give_number(self, value: float, tolerance: float = 0) -> Self:
        """Fail unless the last number in the answer is this one, give or take the tolerance."""
        __tracebackhide__ = True
        number = self.number
        expected = f"to give the number {value!r}" + (f" ± {tolerance!r}" if tolerance else "")
        return self._check(number is not None and abs(number - value) <= tolerance, f"{expected}, found {number}")

    def must_be_json(self, expected: Any = ...) -> Self:
        """Fail unless the answer is JSON and nothing else.

        expected: The value that it must have. Default: any value, which `json` then returns.
        """
        __tracebackhide__ = True
        try:
            found = self.json
        except ValueError as error:
            return self._check(False, f"to be JSON ({error})")
        if expected is ...:
            return self
        value = json.loads(json.dumps(expected, allow_nan=False))
        return self._check(_same_json(found, value), f"to be JSON of the value {expected!r}")

    def explained(self) -> list[str]:
        """Lines that say which answer this is, for the message of a failure."""
        thoughts = [] if self.reasoning is None else [f"thought {self.reasoning!r}"]
        return [f"prompt  {self.prompt!r}", *thoughts, f"answer  {self.text!r}", f"digest  {self.digest}"]

    def _check(self, right: bool, expected: str) -> Self:
        __tracebackhide__ = True
        if not right:
            raise AssertionError("\n  ".join([f"expected the answer {expected}", *self.explained()]))
        return self


def _some(text: str, empty: bool = False) -> str:
    """The text to look for. Raises if the outcome would not depend on the answer."""
    if not isinstance(text, str):
        raise TypeError(f"expected a text to compare the answer with, found the {type(text).__name__} {text!r}")
    if not (text or empty):
        raise ValueError("every answer contains the empty text; use must_be('') for an empty answer")
    return text


def _refuse_constant(name: str) -> None:
    """Python's parser accepts NaN and Infinity, which are not JSON."""
    raise ValueError(f"{name} is not JSON")


def _same_json(a: Any, b: Any) -> bool:
    """Whether two parsed values are the same JSON: unlike in Python, true is not 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same_json(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same_json, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)
