"""What is kept of a run: what its tests asked, what became of them, and the digests that are committed."""

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
"""The name under which what a test asked travels to the report, also from a worker of pytest-xdist."""
Digests = dict[str, list[str | None]]
"""Of each test's answers, as they are committed."""


def whole(config: pytest.Config, path: str) -> Path:
    """A path that was given to pytest, whatever directory a test has changed to."""
    return Path(os.path.abspath(config.invocation_params.dir / Path(path).expanduser()))


def option(config: pytest.Config, name: str) -> Path | None:
    """The whole path that an option names."""
    path: str | None = config.getoption(name)
    return whole(config, path) if path else None


def key(item: pytest.Item, file: Path) -> str:
    """A test's name in a file of digests: its path from there, whatever pytest takes for the root, and the rest."""
    path = os.path.relpath(item.path.parent.resolve() / item.path.name, file.parent.resolve())
    return Path(path).as_posix() + "".join(item.nodeid.partition("::")[1:])


@dataclass
class Result:
    """What became of a test, and what it asked."""

    evaluation: bool = False
    outcome: str = "unfinished"
    asked: dict[str, Any] | None = None
    digests: list[str | None] = field(default_factory=list)
    """Those that are compared: not of what is asked while its fixtures are torn down."""


class Report:
    """What the tests of a run asked, by test; with pytest-xdist it is written where the workers' results arrive."""

    def __init__(self, config: pytest.Config) -> None:
        """Nothing has run yet. Raises UsageError for files that cannot be what the options ask for."""
        self.config = config
        self.results: defaultdict[str, Result] = defaultdict(Result)
        self.failed_subtests: set[str] = set()
        """The tests whose own reports are still to come."""
        self.folder = option(config, "--bitnet-receipts")
        self.file = option(config, "--bitnet-digests")
        self.update: bool = config.getoption("--bitnet-update-digests")
        if self.folder:
            make_folder(self.folder, "--bitnet-receipts")
        if self.file and self.update:
            make_folder(self.file.parent, "--bitnet-digests")
        self.committed = committed(self.file, self.update) if self.file else {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Forget what a test asked that is run again."""
        item.user_properties[:] = [entry for entry in item.user_properties if entry[0] != PROPERTY]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        """Compare the digests of a test that passed with those that are committed."""
        yield
        asked = asked_by(item.user_properties)
        if asked is None or self.file is None or self.update:
            return
        found = digests(asked)
        expected = self.committed.get(asked["key"])
        if expected is None:
            # Of a test marked xfail none are written; that they are missing would count as the failure it expects.
            if found and not item.get_closest_marker("xfail"):
                message = f"{self.file.name} has no digests of this test; add them by --bitnet-update-digests"
                pytest.fail(message, pytrace=False)
        elif expected != found:
            lines = [f"the answers are not those of {self.file.name}; found"]
            lines += [
                f"  prompt {one['prompt']!r}, answer {one['answer']!r}, {one['digest']}" for one in asked["answers"]
            ]
            pytest.fail("\n".join([*lines, "expected", *(f"  {one}" for one in expected)]), pytrace=False)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a phase of a test in."""
        if hasattr(report, "context"):  # of a subtest, which is no case, but fails its test
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
        """Write what was asked for, if tests are run here or in workers, also if they are interrupted."""
        try:
            return (yield)
        finally:
            shows = any(self.config.getoption(name, False) for name in ("collectonly", "setuponly"))
            if not (shows or hasattr(self.config, "workerinput")):
                self.write()

    def write(self) -> None:
        """Write the report, and the digests of the tests that passed."""
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
            write(self.folder / "report.json", report)
        if self.file and self.update:
            new = dict(self.committed)
            for result in self.results.values():
                if result.asked and result.outcome == "passed":
                    new[result.asked["key"]] = result.digests
            write(self.file, {test: found for test, found in sorted(new.items()) if found})

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """How many evaluation cases passed, if there were any, and how many neither passed nor failed."""
        counts = Counter(result.outcome for result in self.results.values() if result.evaluation)
        if counts:
            apart = {word: counts.pop(word) for word in ("skipped", "xfailed", "xpassed") if word in counts}
            line = f"bitnet: {counts['passed']} of {sum(counts.values())} evaluation cases passed"
            terminalreporter.write_line(", ".join([line, *(f"{count} {word}" for word, count in apart.items())]))


def asked_by(user_properties: Iterable[tuple[str, Any]]) -> dict[str, Any] | None:
    """What a test asked; None if it did not use `bitnet_case`."""
    return next((asked for name, asked in user_properties if name == PROPERTY), None)


def digests(asked: dict[str, Any]) -> list[str | None]:
    """Those of its answers."""
    return [answer["digest"] for answer in asked["answers"]]


def outcome(report: pytest.TestReport) -> str | None:
    """Of a test, in pytest's words; None for a phase that does not settle it."""
    if report.failed:
        return "error" if report.when in ("setup", "teardown") else "failed"
    if report.when == "teardown" or (report.when == "setup" and report.passed):
        return None
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    return report.outcome


def committed(file: Path, update: bool) -> Digests:
    """The digests of a file. An update opens it for writing, so that what cannot be written shows before the run."""
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
        do = "correct it, or move it away and write it anew by --bitnet-update-digests"
        raise pytest.UsageError(f"--bitnet-digests: {file} is no file of digests ({why}); {do}") from error
    return found


def make_folder(folder: Path, option: str) -> None:
    """Make the folder that an option needs."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{option}: {folder} cannot be a folder ({error.strerror}); give another, or make way for it"
        raise pytest.UsageError(message) from error


def write(path: Path, document: Any) -> None:
    """Write it as JSON."""
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
