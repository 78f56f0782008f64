"""Markdown files: no line of text over 100 columns, every relative link names a file of the repository, and
`tests/README.md` has a line for every test file; the README's figures of speed are the recorded ones.
"""

from __future__ import annotations

import csv
import re
import subprocess
from itertools import groupby
from pathlib import Path

import pytest

from conftest import ROOT

COLUMNS = 100
LINK = re.compile(r"\]\(([^)\s]+)\)")


def tracked(*patterns: str) -> list[str]:
    """The tracked files that match, as paths from the root."""
    names = ["git", "ls-files", "-z", "--", *patterns]
    listed = subprocess.run(names, cwd=ROOT, check=True, capture_output=True, text=True, encoding="utf-8").stdout
    return [name for name in listed.split("\0") if name]


def prose(text: str) -> list[tuple[int, str]]:
    """The numbered lines of a Markdown text that are outside code blocks."""
    inside = False
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            inside = not inside
        elif not inside:
            lines.append((number, line))
    return lines


def too_long(text: str) -> list[int]:
    """The numbers of the lines with more than 100 columns. A row of a table cannot be broken, so it may be longer."""
    return [number for number, line in prose(text) if len(line) > COLUMNS and not line.startswith("|")]


def broken(text: str, folder: Path) -> list[str]:
    """The relative links that lead nowhere from this folder."""
    links = [link.partition("#")[0] for _, line in prose(text) for link in LINK.findall(line)]
    return [link for link in links if link and "://" not in link and not (folder / link).exists()]


@pytest.mark.parametrize("name", tracked("*.md"))
def test_lines_and_links(name: str) -> None:
    path = ROOT / name
    text = path.read_text(encoding="utf-8")
    assert too_long(text) == []
    assert broken(text, path.parent) == []


def test_every_test_file_has_a_line() -> None:
    listed = re.findall(r"^\| `([^`]+\.(?:py|rs))` \|", (ROOT / "tests" / "README.md").read_text("utf-8"), re.MULTILINE)
    elsewhere = ("tests/data/", "tests/fixtures/")
    files = [name for name in tracked("tests/*.py", "tests/*.rs") if not name.startswith(elsewhere)]
    assert sorted(f"tests/{name}" for name in listed if not name.startswith("data/")) == sorted(files)


def test_the_speed_in_the_readme_is_that_of_the_record() -> None:
    with (ROOT / "benches" / "speed.csv").open(newline="", encoding="utf-8") as file:
        record = list(csv.DictReader(file))
    readme, page = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/performance.md"))
    assert all(row[end] in page for row in record for end in ("lowest", "highest"))
    for (test, threads), rows in groupby(record, lambda row: (row["test"], row["threads"])):
        engines, middles = zip(
            *((row["engine"], float(row["lowest"]) + float(row["highest"])) for row in rows), strict=True
        )
        assert engines == ("bitnet", "ik_llama.cpp", "bitnet.cpp", "limit")
        figures = " | ".join(f"{twice / 2:.0f}" for twice in middles)
        assert re.search(rf"^\| {test} \d+ \| {threads} \| {re.escape(figures)} \|$", readme, re.MULTILINE)


def test_the_checks_find_what_they_look_for() -> None:
    long = "x" * (COLUMNS + 1)
    assert too_long(f"{long}\n| {long} |\n```\n{long}\n```\n{long}") == [1, 6]
    text = "[a](conftest.py) [b](no-such.md#part)\n```\n[c](neither.md)\n```\n[d](https://example.org) [e](#part)"
    assert broken(text, ROOT / "tests") == ["no-such.md"]
