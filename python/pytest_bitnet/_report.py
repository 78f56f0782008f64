"""The report of a run: what its tests asked, their outcomes, and the comparison with committed digests."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ._case import transcript
from ._certificate import write_certificate
from ._digests import committed_form, differences, digests_text, read_digests
from ._evaluation import evaluation
from ._pages import html_page, markdown_page
from ._scores import Comparison, Document, groups, read_document, total

PROPERTY = "bitnet_case"
"""The user property that carries a test's questions and answers to the report, also from a pytest-xdist worker."""
MARKER = "bitnet_eval"
"""The user property that carries the arguments of a test's marker."""
SUFFIXES = (".json", ".md", ".html")
"""The kinds of reports that can be written, by the end of the file's name."""

LISTED = 10
"""The summary names at most this many cases that became better, and as many that became worse."""


def full_path(config: pytest.Config, path: str) -> Path:
    """A path from pytest's command line as an absolute path, even if a test has changed the directory."""
    return Path(os.path.abspath(config.invocation_params.dir / Path(path).expanduser()))


def option_path(config: pytest.Config, name: str) -> Path | None:
    """The absolute path that an option names, if it was given."""
    path: str | None = config.getoption(name)
    return full_path(config, path) if path else None


@dataclass
class Result:
    """The outcome of a test, and what it asked."""

    marked: dict[str, Any] | None = None
    """The arguments of the marker; None if the test is no evaluation case."""
    outcome: str = "unfinished"
    message: str = ""
    """Why it failed."""
    asked: dict[str, Any] | None = None
    committed: list[dict[str, Any]] = field(default_factory=list)
    """The answers to compare: those of the test itself, not those asked for while fixtures are torn down."""


class Report:
    """The results of a run's tests. With pytest-xdist, the process that gathers the workers' results writes it."""

    def __init__(self, config: pytest.Config) -> None:
        """Prepare folders and files before the first test. Raises UsageError if an option names an unusable one."""
        self.config = config
        self.results: defaultdict[str, Result] = defaultdict(Result)
        self.failed_subtests: set[str] = set()
        """Tests with a failed subtest whose own report has not come yet."""
        self.folder = option_path(config, "--bitnet-receipts")
        self.file = option_path(config, "--bitnet-digests")
        self.pages = [full_path(config, path) for path in config.getoption("--bitnet-report")]
        self.certificate = option_path(config, "--bitnet-certificate")
        self.certified = ""
        """What the summary says about the certificate."""
        self.update: bool = config.getoption("--bitnet-update-digests")
        if self.folder:
            make_folder(self.folder, "--bitnet-receipts")
        if self.file and self.update:
            make_folder(self.file.parent, "--bitnet-digests")
        if self.certificate:
            make_folder(self.certificate.parent, "--bitnet-certificate")
        for page in self.pages:
            if page.suffix not in SUFFIXES:
                what = f"--bitnet-report: {page} has none of the endings {', '.join(SUFFIXES)}"
                raise pytest.UsageError(f"{what}, which say what kind of report to write")
            make_folder(page.parent, "--bitnet-report")
        self.committed = read_digests(self.file, self.update) if self.file else {}
        self.earlier: Document | None = None
        self.earlier_file = option_path(config, "--bitnet-compare")
        if self.earlier_file:
            try:
                self.earlier = read_document(self.earlier_file)
            except (OSError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) else error
                raise pytest.UsageError(f"--bitnet-compare: cannot read {self.earlier_file} ({why})") from error

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Check the arguments of all markers before the first test runs."""
        for item in items:
            evaluation(item)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Say how the test is marked. Forget what it asked before, if it is run again."""
        item.user_properties[:] = [entry for entry in item.user_properties if entry[0] not in (PROPERTY, MARKER)]
        if marked := evaluation(item):
            item.user_properties.append((MARKER, marked.facts()))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        """After a test has passed, compare its digests with the committed ones."""
        yield
        asked = sent(item.user_properties, PROPERTY)
        if asked is None or self.file is None or self.update:
            return
        committed = self.committed.get(asked["key"])
        if committed is None:
            # A test marked xfail has no committed digests; a failure for lack of them would count as the expected one.
            if asked["answers"] and not item.get_closest_marker("xfail"):
                message = f"{self.file.name} has no digests of this test; add them with --bitnet-update-digests"
                pytest.fail(message, pytrace=False)
        elif lines := differences(committed, asked["answers"]):
            title = f"the answers differ from those in {self.file.name}"
            pytest.fail("\n  ".join([title, *lines]), pytrace=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add what a failed test asked to the sections of its report."""
        report = yield
        asked = sent(item.user_properties, PROPERTY)
        if report.failed and asked and asked["answers"]:
            report.sections.append(("bitnet: what this test asked", transcript(asked["answers"])))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record a phase of a test: setup, call or teardown."""
        if hasattr(report, "context"):  # a subtest: it does not count by itself, but its failure is its test's
            if report.failed:
                self.failed_subtests.add(report.nodeid)
                self.results[report.nodeid].message += message(report)
            return
        if report.when == "setup":
            self.results[report.nodeid] = Result(sent(report.user_properties, MARKER))
        result = self.results[report.nodeid]
        result.outcome = outcome(report) or result.outcome
        if report.failed:
            result.message += message(report)
        if report.when == "call" and report.nodeid in self.failed_subtests:
            self.failed_subtests.remove(report.nodeid)
            result.outcome = "failed"
        if asked := sent(report.user_properties, PROPERTY):
            result.asked = asked
            if report.when == "call":
                result.committed = committed_form(asked["answers"])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Write the files at the end, even after an interruption; not if no tests run, nor in a pytest-xdist worker."""
        try:
            return (yield)
        finally:
            shows = any(self.config.getoption(name, False) for name in ("collectonly", "setuponly"))
            if not (shows or hasattr(self.config, "workerinput")):
                self.write()

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Let the run fail if its certificate could not be written."""
        if self.certificate and self.certified and not self.certificate.exists():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def document(self) -> Document:
        """The report as it is written: the evaluation cases, and the other tests that asked something."""
        return {
            test: {
                "outcome": result.outcome,
                "evaluation": result.marked is not None,
                "group": (result.marked or {}).get("group"),
                "model": result.asked["model"] if result.asked else None,
                "runs": result.asked["runs"] if result.asked else [],
                "message": result.message,
                "answers": [
                    {name: value for name, value in answer.items() if name != "claim"}
                    for answer in (result.asked["answers"] if result.asked else [])
                ],
            }
            for test, result in self.results.items()
            if result.marked is not None or result.asked
        }

    def comparison(self) -> Comparison | None:
        """The comparison with an earlier run, if one is asked for."""
        if self.earlier is None or self.earlier_file is None:
            return None
        return Comparison(self.earlier_file.name, self.earlier, self.document())

    def write(self) -> None:
        """Write the reports and the digests of the tests that passed, as the options ask."""
        document = self.document()
        as_json = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        if self.folder:
            write_text(self.folder / "report.json", as_json)
        if self.folder and self.certificate:
            self.certified = write_certificate(self.certificate, self.folder, document)
        for page in self.pages:
            if page.suffix == ".json":
                write_text(page, as_json)
            else:
                write_text(page, (html_page if page.suffix == ".html" else markdown_page)(document, self.comparison()))
        if self.file and self.update:
            new = dict(self.committed)
            for result in self.results.values():
                if result.asked and result.outcome == "passed":
                    new[result.asked["key"]] = result.committed
            write_text(self.file, digests_text(new))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print how many evaluation cases passed, in all and in each group, and the comparison with an earlier run."""
        document = self.document()
        score, found = total(document), groups(document)
        if score.counts:
            passed, apart = f"{score.passed} of {score.cases} evaluation cases passed", str(score).partition(", ")
            terminalreporter.write_line(f"bitnet: {passed}" + "".join(apart[1:]))
        width = max(map(len, found), default=0)
        for name, one in found.items():
            terminalreporter.write_line(f"  {name:<{width}}  {one}")
        if self.certified:
            terminalreporter.write_line(f"bitnet: {self.certified}")
        if comparison := self.comparison():
            terminalreporter.write_line(f"bitnet: {comparison}")
            for word, tests in (("better", comparison.better), ("worse", comparison.worse)):
                for test in tests[:LISTED]:
                    terminalreporter.write_line(f"  {word:<6}  {test}")
                if len(tests) > LISTED:
                    terminalreporter.write_line(f"  {word:<6}  and {len(tests) - LISTED} others")


def sent(user_properties: Iterable[tuple[str, Any]], name: str) -> dict[str, Any] | None:
    """What a test sent to the report under this name, if anything."""
    return next((value for key, value in user_properties if key == name), None)


def outcome(report: pytest.TestReport) -> str | None:
    """The outcome of a test in pytest's words; None for a phase that does not decide it."""
    if report.failed:
        return "error" if report.when in ("setup", "teardown") else "failed"
    if report.when == "teardown" or (report.when == "setup" and report.passed):
        return None
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    return report.outcome


def message(report: pytest.TestReport) -> str:
    """Why a test failed, without the traceback if there is a message."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return (crash.message if crash else str(report.longrepr)) + "\n"


def make_folder(folder: Path, option: str) -> None:
    """Make a folder for an option's files. Raises UsageError if that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"{option}: {folder} cannot be a folder ({error.strerror})"
        message = f"{what}; choose another, or move away what is there"
        raise pytest.UsageError(message) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file with the line ends of every system."""
    path.write_text(text, encoding="utf-8", newline="\n")
