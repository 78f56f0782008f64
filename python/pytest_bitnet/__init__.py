"""A pytest plugin for evaluation cases. It imports `bitnet` only when a test uses one of its fixtures.

It is a package of its own, because pytest loads it at every start, and importing any module of `bitnet` loads the
engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from ._answer import Answer
from ._case import Case, Chat
from ._digests import digest_key
from ._evaluation import CASE
from ._evaluation import pytest_pyfunc_call as pytest_pyfunc_call  # a hook
from ._report import PROPERTY, Report, full_path, option_path

if TYPE_CHECKING:
    from bitnet import Engine

__all__ = ["Answer", "Case", "Chat", "bitnet_case", "bitnet_engine"]


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
        "--bitnet-report",
        metavar="FILE",
        action="append",
        default=[],
        help="write a report of the evaluation cases, of the kind that FILE ends in: .md, .html or .json; may be given "
        "several times (default: write nothing)",
    )
    group.addoption(
        "--bitnet-compare",
        metavar="FILE",
        help="compare the outcomes with those of an earlier run, such as one with another model; FILE is its report, "
        "a .json file of --bitnet-report (default: compare nothing)",
    )
    group.addoption(
        "--bitnet-receipts",
        metavar="DIR",
        help="write a receipt of each answer, and report.json with all outcomes, into DIR (default: write nothing)",
    )
    group.addoption(
        "--bitnet-certificate",
        metavar="FILE",
        help="write a certificate of the run into FILE: one digest for all receipts, and the outcomes; needs "
        "--bitnet-receipts (default: write nothing)",
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
    config.addinivalue_line(
        "markers",
        "bitnet_eval(group=None, repeat=1, at_least=None): an evaluation case; the summary counts those that passed, "
        "in all and by group. With repeat, the test runs that many times, and at_least of them must pass",
    )
    if config.getoption("--bitnet-update-digests") and not config.getoption("--bitnet-digests"):
        raise pytest.UsageError("--bitnet-update-digests needs --bitnet-digests FILE, the file to write")
    if config.getoption("--bitnet-certificate") and not config.getoption("--bitnet-receipts"):
        raise pytest.UsageError("--bitnet-certificate needs --bitnet-receipts DIR, the folder of the receipts")
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
    file = option_path(request.config, "--bitnet-digests")
    folder = option_path(request.config, "--bitnet-receipts")
    case = Case(bitnet_engine, request.node.nodeid, folder, claims=file is not None)
    if file:
        case.record["key"] = digest_key(request.node, file)
    request.node.user_properties.append((PROPERTY, case.record))
    request.node.stash[CASE] = case
    return case
