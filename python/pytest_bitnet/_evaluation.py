"""The marker `bitnet_eval`: groups of evaluation cases, and cases that are repeated."""

from __future__ import annotations

import sys
from collections.abc import Generator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ._case import Case

NAME = "bitnet_eval"
CASE: pytest.StashKey[Case] = pytest.StashKey()
"""Where the fixture puts a test's case, for its repetitions."""
_RUNNING = pytest.StashKey[bool]()
_SHOWN = 3
"""Failed repetitions whose whole message is shown; of the others, the first line."""


@dataclass(frozen=True)
class Evaluation:
    """The arguments of the marker."""

    group: str | None = None
    """Group whose score the case counts for."""
    repeat: int = 1
    """How many times the test runs, with seeds 0, 1, …"""
    at_least: int | None = None
    """How many of these runs must pass; None: all."""

    def __post_init__(self) -> None:
        """Check the arguments. Raises ValueError."""
        if not (self.group is None or (isinstance(self.group, str) and self.group)):
            raise ValueError(f"group is a name; found {self.group!r}")
        if type(self.repeat) is not int or self.repeat < 1:
            raise ValueError(f"repeat is a number of runs, at least 1; found {self.repeat!r}")
        if self.at_least is not None and (type(self.at_least) is not int or not 1 <= self.at_least <= self.repeat):
            raise ValueError(f"at_least is a number of runs from 1 to repeat={self.repeat}; found {self.at_least!r}")

    @property
    def threshold(self) -> int:
        """The number of runs that must pass."""
        return self.repeat if self.at_least is None else self.at_least

    def facts(self) -> dict[str, Any]:
        """The arguments as a dict, which a pytest-xdist worker can send."""
        return asdict(self)


def evaluation(item: pytest.Item) -> Evaluation | None:
    """The marker of a test; None if it has none. Markers of a class or a module fill in what the test's own leaves out.

    Raises UsageError for an argument that the marker does not take.
    """
    markers = list(item.iter_markers(NAME))
    if not markers:
        return None
    arguments: dict[str, Any] = {}
    try:
        for marker in reversed(markers):
            if marker.args:
                raise ValueError(f"write its arguments as keywords; found {marker.args[0]!r}")
            arguments |= marker.kwargs
        if unknown := sorted(arguments.keys() - Evaluation.__annotations__.keys()):
            raise ValueError(f"no argument {unknown[0]!r}; the arguments are {', '.join(Evaluation.__annotations__)}")
        marked = Evaluation(**arguments)
        if marked.repeat > 1 and (not isinstance(item, pytest.Function) or _is_unittest(item)):
            raise ValueError("repeat works for test functions and for methods of plain classes only")
    except ValueError as error:
        raise pytest.UsageError(f"{item.nodeid}: @pytest.mark.{NAME}: {error}") from error
    return marked


def _is_unittest(item: pytest.Function) -> bool:
    """Whether a test is a method of a `unittest.TestCase`, which runs itself."""
    unittest = sys.modules.get("unittest")
    return unittest is not None and item.cls is not None and issubclass(item.cls, unittest.TestCase)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """Run a test that is to be repeated. Each run goes through this hook again, to whoever runs functions."""
    marked = evaluation(pyfuncitem)
    if marked is None or marked.repeat == 1 or pyfuncitem.stash.get(_RUNNING, False):
        return None
    pyfuncitem.stash[_RUNNING] = True
    try:
        _repeat(pyfuncitem, marked)
    finally:
        pyfuncitem.stash[_RUNNING] = False
    return True


def _repeat(item: pytest.Function, marked: Evaluation) -> None:
    """Run a test several times. Fails if too few runs pass, or if all runs were the same."""
    case = item.stash.get(CASE, None)
    if case is None:
        pytest.fail(f"{NAME}(repeat={marked.repeat}) needs a test that uses bitnet_case", pytrace=False)
    errors: dict[int, BaseException] = {}
    for run in range(marked.repeat):
        with case.run(run):
            try:
                item.ihook.pytest_pyfunc_call(pyfuncitem=item)
            except (Exception, pytest.fail.Exception) as error:
                errors[run] = error
            case.record["runs"].append(run not in errors)
    if case.runs_are_equal():
        why = "their answers depend on no seed: give a temperature above 0, and no seed"
        pytest.fail(f"all {marked.repeat} runs of this test asked and answered the same; {why}", pytrace=False)
    passed = marked.repeat - len(errors)
    if passed < marked.threshold:
        lines = [f"{passed} of {marked.repeat} runs passed, expected at least {marked.threshold}", *_messages(errors)]
        pytest.fail("\n".join(lines), pytrace=False)


def _messages(errors: dict[int, BaseException]) -> Generator[str, None, None]:
    """The messages of the runs that failed."""
    for place, (run, error) in enumerate(errors.items()):
        message = str(error) or "no message"
        if not isinstance(error, (AssertionError, pytest.fail.Exception)):
            message = f"{type(error).__name__}: {message}"
        lines = message.splitlines()[: None if place < _SHOWN else 1]
        yield f"  run {run}: " + "\n    ".join(lines)
