"""Scores of evaluation cases, and the comparison of two runs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from math import comb, sqrt
from pathlib import Path
from typing import Any

Document = dict[str, dict[str, Any]]
"""A report: for each test its outcome, its answers and the arguments of its marker."""

APART = ("skipped", "xfailed", "xpassed")
"""Outcomes that are neither right nor wrong."""
NO_GROUP = "(no group)"


@dataclass(frozen=True)
class Score:
    """How many cases passed."""

    counts: Counter[str]
    """The number of cases with each outcome."""

    @property
    def passed(self) -> int:
        """The number of cases that passed."""
        return self.counts["passed"]

    @property
    def cases(self) -> int:
        """The number of cases that could pass."""
        return sum(count for outcome, count in self.counts.items() if outcome not in APART)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % confidence interval of the rate (Wilson's score interval); None without cases."""
        n, z = self.cases, 1.96
        if not n:
            return None
        rate = self.passed / n
        middle = rate + z * z / (2 * n)
        width = z * sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
        return max((middle - width) / (1 + z * z / n), 0), min((middle + width) / (1 + z * z / n), 1)

    def __str__(self) -> str:
        """`3 of 4`, and the outcomes that do not count."""
        apart = [f"{self.counts[word]} {word}" for word in APART if self.counts[word]]
        return ", ".join([f"{self.passed} of {self.cases}", *apart])


def total(document: Document) -> Score:
    """The score of all evaluation cases."""
    return Score(Counter(facts["outcome"] for facts in document.values() if facts.get("evaluation")))


def groups(document: Document) -> dict[str, Score]:
    """The score of each group, in the order of the tests; empty if no case names a group."""
    counts: dict[str, Counter[str]] = {}
    for facts in document.values():
        if facts.get("evaluation"):
            counts.setdefault(facts.get("group") or NO_GROUP, Counter())[facts["outcome"]] += 1
    return {} if counts.keys() <= {NO_GROUP} else {name: Score(found) for name, found in counts.items()}


def models(document: Document) -> str:
    """The names of the models that answered."""
    names = dict.fromkeys(facts["model"] for facts in document.values() if facts.get("model"))
    return ", ".join(names) or "no model"


@dataclass(frozen=True)
class Comparison:
    """What became of the cases of an earlier run. Cases count if they passed or failed in both runs."""

    name: str
    """The file of the earlier run."""
    before: Document
    after: Document
    better: list[str] = field(default_factory=list)
    worse: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    apart: list[str] = field(default_factory=list)
    """Cases that ran only once of the two times."""

    def __post_init__(self) -> None:
        """Sort the cases."""
        for test in self.after | self.before:
            facts = [run.get(test, {}) for run in (self.before, self.after)]
            if not any(one.get("evaluation") for one in facts):
                continue
            outcomes = [one.get("outcome", "skipped") for one in facts]
            was, now = (outcome == "passed" for outcome in outcomes)
            if any(outcome in APART for outcome in outcomes):
                self.apart.append(test)
            else:
                (self.same if was == now else self.better if now else self.worse).append(test)

    @property
    def p_value(self) -> float:
        """The chance of a difference this large, if neither model were better (two-sided sign test)."""
        n, least = len(self.better) + len(self.worse), min(len(self.better), len(self.worse))
        return min(1.0, float(2 * sum(comb(n, i) for i in range(least + 1)) / 2**n))

    def __str__(self) -> str:
        """One line with the counts."""
        counts = f"{len(self.better)} better, {len(self.worse)} worse, {len(self.same)} the same"
        apart = f", {len(self.apart)} not in both" if self.apart else ""
        return f"compared with {models(self.before)} ({self.name}): {counts}{apart}"


def read_document(file: Path) -> Document:
    """Read a report of an earlier run. Raises OSError or ValueError if there is none."""
    found = json.loads(file.read_text(encoding="utf-8"))
    if not (isinstance(found, dict) and all(map(_is_entry, found.values()))):
        raise ValueError("expected a report that --bitnet-report=FILE.json or --bitnet-receipts wrote")
    return found


def _is_entry(facts: Any) -> bool:
    """Whether this describes a test."""
    return isinstance(facts, dict) and isinstance(facts.get("outcome"), str) and isinstance(facts.get("answers"), list)


def percent(share: float) -> str:
    """Format a share: 93 %."""
    return f"{100 * share:.0f} %"
