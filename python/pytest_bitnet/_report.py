"""The report of a run: what its tests asked, their outcomes, and the comparison with committed digests."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PROPERTY = "bitnet_case"
"""The user property that carries a test's questions and answers to the report, also from a pytest-xdist worker."""
Digests = dict[str, list[str | None]]
"""For each test the digests of its answers, as a file of digests holds them."""


def full_path(config: pytest.Config, path: str) -> Path:
    """A path from pytest's command line as an absolute path, even if a test has changed the directory."""
    return Path(os.path.abspath(config.invocation_params.dir / Path(path).expanduser()))


def option_path(config: pytest.Config, name: str) -> Path | None:
    """The absolute path that an option names, if it was given."""
    path: str | None = config.getoption(name)
    return full_path(config, path) if path else None


def digest_key(item: pytest.Item, file: Path) -> str:
    """A test's name in a file of digests. Its path is relative to that file, so it does not depend on pytest's root."""
    path = os.path.relpath(item.path.parent.resolve() / item.path.name, file.parent.resolve())
    return Path(path).as_posix() + "".join(item.nodeid.partition("::")[1:])


@dataclass
class Result:
    """The outcome of a test, and what it asked."""

    evaluation: bool = False
    outcome: str = "unfinished"
    asked: dict[str, Any] | None = None
    digests: list[str | None] = field(default_factory=list)
    """The digests to compare: those of the test itself, not those of answers while fixtures are torn down."""


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
        self.update: bool = config.getoption("--bitnet-update-digests")
        if self.folder:
            make_folder(self.folder, "--bitnet-receipts")
        if self.file and self.update:
            make_folder(self.file.parent, "--bitnet-digests")
        self.committed = read_digests(self.file, self.update) if self.file else {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Forget what a test asked before, if it is run again."""
        item.user_properties[:] = [entry for entry in item.user_properties if entry[0] != PROPERTY]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        """After a test has passed, compare its digests with the committed ones."""
        yield
        asked = asked_by(item.user_properties)
        if asked is None or self.file is None or self.update:
            return
        found = digests(asked)
        expected = self.committed.get(asked["key"])
        if expected is None:
            # A test marked xfail has no committed digests; a failure for lack of them would count as the expected one.
            if found and not item.get_closest_marker("xfail"):
                message = f"{self.file.name} has no digests of this test; add them with --bitnet-update-digests"
                pytest.fail(message, pytrace=False)
        elif expected != found:
            lines = [f"the digests differ from those in {self.file.name}; found"]
            lines += [
                f"  prompt {one['prompt']!r}, answer {one['answer']!r}, {one['digest']}" for one in asked["answers"]
            ]
            pytest.fail("\n".join([*lines, "expected", *(f"  {one}" for one in expected)]), pytrace=False)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record a phase of a test: setup, call or teardown."""
        if hasattr(report, "context"):  # a subtest: it does not count by itself, but its failure is its test's
            if report.failed:
                self.failed_subtests.add(report.nodeid)
            return
        if report.when == "setup":
            self.results[report.nodeid] = Result(evaluation="bitnet_eval" in report.keywords)
        result = self.results[report.nodeid]
        result.outcome = outcome(report) or result.outcome
        if report.when == "call" and report.nodeid in self.failed_subtests:
            self.failed_subtests.remove(report.nodeid)
            result.outcome = "failed"
        if asked := asked_by(report.user_properties):
            result.asked = asked
            if report.when == "call":
                result.digests = digests(asked)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Write the files at the end, even after an interruption; not if no tests run, nor in a pytest-xdist worker."""
        try:
            return (yield)
        finally:
            shows = any(self.config.getoption(name, False) for name in ("collectonly", "setuponly"))
            if not (shows or hasattr(self.config, "workerinput")):
                self.write()

    def write(self) -> None:
        """Write the report and the digests of the tests that passed, as the options ask."""
        if self.folder:
            report = {
                test: {
                    "outcome": result.outcome,
                    "evaluation": result.evaluation,
                    "answers": result.asked["answers"] if result.asked else [],
                }
                for test, result in self.results.items()
                if result.evaluation or result.asked
            }
            write_json(self.folder / "report.json", report)
        if self.file and self.update:
            new = dict(self.committed)
            for result in self.results.values():
                if result.asked and result.outcome == "passed":
                    new[result.asked["key"]] = result.digests
            write_json(self.file, {test: found for test, found in sorted(new.items()) if found})

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print how many evaluation cases passed, if there were any, and how many were skipped or marked xfail."""
        counts = Counter(result.outcome for result in self.results.values() if result.evaluation)
        if counts:
            apart = {word: counts.pop(word) for word in ("skipped", "xfailed", "xpassed") if word in counts}
            line = f"bitnet: {counts['passed']} of {sum(counts.values())} evaluation cases passed"
            terminalreporter.write_line(", ".join([line, *(f"{count} {word}" for word, count in apart.items())]))


def asked_by(user_properties: Iterable[tuple[str, Any]]) -> dict[str, Any] | None:
    """What a test asked, from its user properties; None if it did not use `bitnet_case`."""
    return next((asked for name, asked in user_properties if name == PROPERTY), None)


def digests(asked: dict[str, Any]) -> list[str | None]:
    """The digests of a test's answers."""
    return [answer["digest"] for answer in asked["answers"]]


def outcome(report: pytest.TestReport) -> str | None:
    """The outcome of a test in pytest's words; None for a phase that does not decide it."""
    if report.failed:
        return "error" if report.when in ("setup", "teardown") else "failed"
    if report.when == "teardown" or (report.when == "setup" and report.passed):
        return None
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    return report.outcome


def read_digests(file: Path, update: bool) -> Digests:
    """Read a file of digests. An update opens it for writing, so that an error shows before the tests run."""
    if not (update or file.exists()):
        return {}
    try:
        existed = file.exists()
        with file.open("a+" if update else "r", encoding="utf-8") as opened:
            opened.seek(0)
            text = opened.read() or "{}"
        if not existed:
            file.unlink()
        found: Digests = json.loads(text)
        if not (isinstance(found, dict) and all(isinstance(one, list) for one in found.values())):
            raise ValueError(f"found {text[:40].strip()!r}, expected an object with a list of digests for each test")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        do = "correct it, or move it away and write a new one with --bitnet-update-digests"
        raise pytest.UsageError(f"--bitnet-digests: {file} is not a file of digests ({why}); {do}") from error
    return found


def make_folder(folder: Path, option: str) -> None:
    """Make a folder for an option's files. Raises UsageError if that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"{option}: {folder} cannot be a folder ({error.strerror})"
        message = f"{what}; choose another, or move away what is there"
        raise pytest.UsageError(message) from error


def write_json(path: Path, document: Any) -> None:
    """Write a document as JSON."""
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
