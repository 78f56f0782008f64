"""A pytest plugin for evaluation cases. It imports `bitnet` only when a test uses one of its fixtures.

It is a package of its own, because pytest loads it at every start, and importing any module of `bitnet` loads the
engine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ._answer import Answer
from ._report import PROPERTY, Report, digest_key, full_path, option_path

if TYPE_CHECKING:
    from bitnet import ChatSession, Engine


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's options."""
    group = parser.getgroup("bitnet", "evaluation cases for language models")
    group.addoption(
        "--bitnet-model",
        metavar="MODEL",
        help="model of the fixture bitnet_engine: a GGUF file, or hf:OWNER/NAME for a model of the Hugging Face Hub "
        "(default: Trit, the model in the package)",
    )
    group.addoption(
        "--bitnet-receipts",
        metavar="DIR",
        help="write a receipt of each answer, and report.json with all outcomes, into DIR (default: write nothing)",
    )
    group.addoption(
        "--bitnet-digests",
        metavar="FILE",
        help="fail tests whose answers do not have the digests that FILE holds (default: compare nothing)",
    )
    group.addoption(
        "--bitnet-update-digests",
        action="store_true",
        help="write the digests of the tests that pass into the FILE of --bitnet-digests, instead of comparing them",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and the report."""
    config.addinivalue_line("markers", "bitnet_eval: an evaluation case; the summary counts the cases that passed")
    if config.getoption("--bitnet-update-digests") and not config.getoption("--bitnet-digests"):
        raise pytest.UsageError("--bitnet-update-digests needs --bitnet-digests FILE, the file to write")
    config.pluginmanager.register(Report(config), "bitnet-report")


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Explain a failed comparison of an answer by its prompt, text and digest."""
    answers = [side for side in (left, right) if isinstance(side, Answer)]
    if not answers:
        return None
    shown = (repr(side.text) if isinstance(side, Answer) else repr(side) for side in (left, right))
    return [f" {op} ".join(shown), *(line for answer in answers for line in answer.explained())]


@pytest.fixture(scope="session")
def bitnet_engine(pytestconfig: pytest.Config) -> Iterator[Engine]:
    """An engine for the whole run, with the model of `--bitnet-model`, or else the model in the package."""
    from bitnet import Engine
    from bitnet.hub import local

    model: str | None = pytestconfig.getoption("--bitnet-model")
    with Engine(full_path(pytestconfig, local(model)) if model else None) as engine:
        yield engine


@pytest.fixture
def bitnet_case(bitnet_engine: Engine, request: pytest.FixtureRequest) -> Case:
    """Asks the engine questions. Keeps the answers for the report and for the comparison of digests."""
    case = Case(bitnet_engine, request.node.nodeid, option_path(request.config, "--bitnet-receipts"))
    asked: dict[str, Any] = {"answers": case.answers}
    if file := option_path(request.config, "--bitnet-digests"):
        asked["key"] = digest_key(request.node, file)
    request.node.user_properties.append((PROPERTY, asked))
    return case


@dataclass(eq=False)
class Case:
    """The answers of one test. Sampling uses seed 0 unless a seed is given, so that every run has the same digests."""

    engine: Engine
    nodeid: str
    folder: Path | None
    """Where receipts are written, if they are."""
    answers: list[dict[str, Any]] = field(default_factory=list)

    def chat(self, system: str | None = None, **sampling: Any) -> Chat:
        """Start a conversation."""
        from bitnet import ChatSession

        return Chat(self, ChatSession(self.engine, system, **{"seed": 0, **sampling}))

    def ask(self, text: str, system: str | None = None, **sampling: Any) -> Answer:
        """Ask a single question in a conversation of its own."""
        return self.chat(system, **sampling).ask(text)

    def complete(self, prompt: str, **sampling: Any) -> Answer:
        """Continue a text, without a chat template."""
        return self.keep(Answer(prompt, self.engine.generate(prompt, **{"seed": 0, **sampling})))

    def keep(self, answer: Answer) -> Answer:
        """Add an answer to the report, and write its receipt if there is a folder for it."""
        facts = {"prompt": answer.prompt, "answer": answer.text, "digest": answer.digest}
        if self.folder and answer.completion.receipt:
            # The test's name, cut to what any file system takes; the hash keeps two tests apart.
            plain = re.sub(r"[^\w.-]+", "-", self.nodeid, flags=re.ASCII)[:100]
            own = hashlib.sha256(self.nodeid.encode()).hexdigest()[:8]
            path = self.folder / f"{plain}-{own}-{len(self.answers)}.json"
            facts["receipt"] = answer.completion.receipt.save(path).name
        self.answers.append(facts)
        return answer


@dataclass(frozen=True, eq=False)
class Chat:
    """A conversation in a test."""

    case: Case
    session: ChatSession

    def ask(self, text: str, **sampling: Any) -> Answer:
        """Ask the next question of the conversation."""
        return self.case.keep(Answer(text, self.session.send(text, **sampling)))
