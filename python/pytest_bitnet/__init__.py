"""A pytest plugin for evaluation cases. It imports `bitnet` only where a test uses one of its fixtures.

A package of its own: pytest loads it at every start, and loading a module of `bitnet` loads the engine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bitnet import ChatSession, Completion, Engine

CASES = pytest.StashKey["Case"]()
PROPERTY = "bitnet"
"""The name under which an answer's facts travel to the report, also from a worker of pytest-xdist."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("bitnet", "ternary language models")
    group.addoption("--bitnet-model", metavar="FILE", help="the model of bitnet_engine (default: that in the package)")
    group.addoption("--bitnet-receipts", type=Path, metavar="DIR", help="write receipts and a report.json into DIR")
    group.addoption("--bitnet-digests", type=Path, metavar="FILE", help="fail where digests are not those of FILE")
    group.addoption("--bitnet-update-digests", action="store_true", help="write them into FILE instead")


def pytest_configure(config: pytest.Config) -> None:
    """The marker, and the report."""
    config.addinivalue_line("markers", "bitnet_eval: an evaluation case; the summary counts those that passed")
    if config.getoption("--bitnet-update-digests") and not config.getoption("--bitnet-digests"):
        raise pytest.UsageError("--bitnet-update-digests takes the file from --bitnet-digests FILE")
    config.pluginmanager.register(Report(config), "bitnet-report")


@pytest.fixture(scope="session")
def bitnet_engine(pytestconfig: pytest.Config) -> Iterator[Engine]:
    """An engine for the whole run: of `--bitnet-model`, else of the model inside the package."""
    from bitnet import Engine

    with Engine(pytestconfig.getoption("--bitnet-model")) as engine:
        yield engine


@pytest.fixture
def bitnet_case(bitnet_engine: Engine, request: pytest.FixtureRequest) -> Case:
    """Asks the engine, and keeps the answers' receipts for the report and the comparison of digests."""
    case = Case(bitnet_engine, request.node, request.config.getoption("--bitnet-receipts"))
    request.node.stash[CASES] = case
    return case


@dataclass(frozen=True)
class Answer:
    """An answer that can be asserted about: what fails shows prompt, answer and the receipt's digest."""

    prompt: str
    completion: Completion

    @property
    def text(self) -> str:
        """Its text."""
        return self.completion.text

    @property
    def digest(self) -> str | None:
        """Its receipt's."""
        return self.completion.receipt.digest if self.completion.receipt else None

    def must_be(self, text: str) -> None:
        """Fail unless it is this text."""
        __tracebackhide__ = True
        self._check(self.text == text, f"to be {text!r}")

    def must_contain(self, text: str) -> None:
        """Fail unless it has this text in it."""
        __tracebackhide__ = True
        self._check(text in self.text, f"to contain {text!r}")

    def must_match(self, pattern: str) -> None:
        """Fail unless the regular expression is found in it."""
        __tracebackhide__ = True
        self._check(re.search(pattern, self.text) is not None, f"to match {pattern!r}")

    def _check(self, right: bool, expected: str) -> None:
        __tracebackhide__ = True
        if not right:
            shown = f"expected the answer {expected}\n  prompt  {self.prompt!r}\n  answer  {self.text!r}"
            raise AssertionError(f"{shown}\n  digest  {self.digest}")


@dataclass
class Case:
    """A test's answers. Without a seed they are sampled with seed 0, so that a digest is the same in every run."""

    engine: Engine
    item: pytest.Item
    folder: Path | None
    digests: list[str | None] = field(default_factory=list)

    def chat(self, system: str | None = None, **sampling: Any) -> Chat:
        """A conversation that has not begun."""
        from bitnet import ChatSession

        return Chat(self, ChatSession(self.engine, system, **{"seed": 0, **sampling}))

    def ask(self, text: str, system: str | None = None, **sampling: Any) -> Answer:
        """The answer to a single question."""
        return self.chat(system, **sampling).ask(text)

    def complete(self, prompt: str, **sampling: Any) -> Answer:
        """What continues a text."""
        return self.keep(Answer(prompt, self.engine.generate(prompt, **{"seed": 0, **sampling})))

    def keep(self, answer: Answer) -> Answer:
        """Take it into the report."""
        facts = {"prompt": answer.prompt, "answer": answer.text, "digest": answer.digest}
        if self.folder and answer.completion.receipt:
            name = re.sub(r"[^\w.-]+", "-", self.item.nodeid) + f"-{len(self.digests)}.json"
            facts["receipt"] = answer.completion.receipt.save(self.folder / name).name
        self.digests.append(answer.digest)
        self.item.user_properties.append((PROPERTY, facts))
        return answer


@dataclass(frozen=True)
class Chat:
    """A conversation of a test."""

    case: Case
    session: ChatSession

    def ask(self, text: str, **sampling: Any) -> Answer:
        """The answer to the next question."""
        return self.case.keep(Answer(text, self.session.send(text, **sampling)))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Compare the digests of a test that passed with those that are committed."""
    result = yield
    case = pyfuncitem.stash.get(CASES, None)
    path: Path | None = pyfuncitem.config.getoption("--bitnet-digests")
    if case is None or path is None or pyfuncitem.config.getoption("--bitnet-update-digests"):
        return result
    expected = committed(path).get(pyfuncitem.nodeid)
    if expected is None:
        pytest.fail(f"{path} has no digests of this test; add them by --bitnet-update-digests", pytrace=False)
    if expected != case.digests:
        answers = [facts for name, facts in pyfuncitem.user_properties if name == PROPERTY]
        shown = [f"  prompt {facts['prompt']!r}, answer {facts['answer']!r}, {facts['digest']}" for facts in answers]  # type: ignore[index]
        lines = [f"the answers are not those of {path}; found", *shown, "expected", *(f"  {one}" for one in expected)]
        pytest.fail("\n".join(lines), pytrace=False)
    return result


def committed(path: Path) -> dict[str, list[str | None]]:
    """The digests of a file, by test."""
    digests: dict[str, list[str | None]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return digests


class Report:
    """What the tests of a run asked, by test; with pytest-xdist it is written where the workers' results arrive."""

    def __init__(self, config: pytest.Config) -> None:
        """Nothing has run yet."""
        self.config = config
        self.tests: dict[str, dict[str, Any]] = {}
        self.marked: list[bool] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a test in."""
        if report.when != "call":
            return
        answers = [facts for name, facts in report.user_properties if name == PROPERTY]
        marked = "bitnet_eval" in report.keywords
        if marked:
            self.marked.append(report.passed)
        if answers:
            self.tests[report.nodeid] = {"outcome": report.outcome, "evaluation": marked, "answers": answers}

    def pytest_sessionfinish(self) -> None:
        """Write what was asked for."""
        if hasattr(self.config, "workerinput"):
            return
        folder: Path | None = self.config.getoption("--bitnet-receipts")
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            write(folder / "report.json", self.tests)
        path: Path | None = self.config.getoption("--bitnet-digests")
        if path and self.config.getoption("--bitnet-update-digests"):
            passed = {test: facts for test, facts in self.tests.items() if facts["outcome"] == "passed"}
            new = {test: [answer["digest"] for answer in facts["answers"]] for test, facts in passed.items()}
            write(path, dict(sorted({**committed(path), **new}.items())))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """How many evaluation cases passed, if there were any."""
        if self.marked:
            terminalreporter.write_line(f"bitnet: {sum(self.marked)} of {len(self.marked)} evaluation cases passed")


def write(path: Path, document: Any) -> None:
    """Write it as JSON."""
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
