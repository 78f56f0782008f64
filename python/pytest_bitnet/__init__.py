"""A pytest plugin for evaluation cases. It imports `bitnet` only where a test uses one of its fixtures.

A package of its own: pytest loads it at every start, and loading a module of `bitnet` loads the engine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ._report import PROPERTY, Report, key, option, whole

if TYPE_CHECKING:
    from bitnet import ChatSession, Completion, Engine


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("bitnet", "ternary language models")
    model = "the model of bitnet_engine: a GGUF file, or hf:owner/name (default: the model inside)"
    group.addoption("--bitnet-model", metavar="MODEL", help=model)
    group.addoption("--bitnet-receipts", metavar="DIR", help="write receipts and a report.json into DIR")
    group.addoption("--bitnet-digests", metavar="FILE", help="fail where digests are not those of FILE")
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
    from bitnet.hub import local

    model: str | None = pytestconfig.getoption("--bitnet-model")
    with Engine(whole(pytestconfig, local(model)) if model else None) as engine:
        yield engine


@pytest.fixture
def bitnet_case(bitnet_engine: Engine, request: pytest.FixtureRequest) -> Case:
    """Asks the engine, and keeps the answers' receipts for the report and the comparison of digests."""
    case = Case(bitnet_engine, request.node.nodeid, option(request.config, "--bitnet-receipts"))
    asked: dict[str, Any] = {"answers": case.answers}
    if file := option(request.config, "--bitnet-digests"):
        asked["key"] = key(request.node, file)
    request.node.user_properties.append((PROPERTY, asked))
    return case


@dataclass(frozen=True)
class Answer:
    """An answer that can be asserted about: what fails shows prompt, answer and the receipt's digest."""

    prompt: str
    completion: Completion

    def __contains__(self, text: str) -> bool:
        """Whether its text has this one in it."""
        return text in self.text

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
    nodeid: str
    folder: Path | None
    answers: list[dict[str, Any]] = field(default_factory=list)

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
            # Short enough for any file system, and no other test's.
            plain = re.sub(r"[^\w.-]+", "-", self.nodeid, flags=re.ASCII)[:100]
            own = hashlib.sha256(self.nodeid.encode()).hexdigest()[:8]
            path = self.folder / f"{plain}-{own}-{len(self.answers)}.json"
            facts["receipt"] = answer.completion.receipt.save(path).name
        self.answers.append(facts)
        return answer


@dataclass(frozen=True)
class Chat:
    """A conversation of a test."""

    case: Case
    session: ChatSession

    def ask(self, text: str, **sampling: Any) -> Answer:
        """The answer to the next question."""
        return self.case.keep(Answer(text, self.session.send(text, **sampling)))
