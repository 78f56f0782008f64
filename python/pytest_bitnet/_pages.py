"""The report of a run as a Markdown file, or as an HTML page that needs no other file."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from ._case import transcript
from ._scores import Comparison, Document, Score, groups, models, percent, total

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
body { color: #222; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .2rem .8rem; border-bottom: 1px solid #8886; text-align: left; vertical-align: top; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #8882; padding: .6rem; }
summary { cursor: pointer; overflow-wrap: anywhere; }
.passed { color: #177a35; } .failed, .error { color: #b3261e; }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #181818; }
  .passed { color: #6c9; } .failed, .error { color: #f88; }
}
"""

Table = list[list[str]]
"""Rows of cells; the first row has the titles."""


def markdown_page(document: Document, comparison: Comparison | None) -> str:
    """The report as Markdown."""
    parts = [
        f"# Evaluation of {_plain(models(document))}",
        _plain(_summary(document)),
        _markdown_table(_scores(document)),
    ]
    if comparison:
        parts += [f"## Comparison with {_plain(models(comparison.before))}", _plain(_verdict(comparison))]
        parts += [_markdown_table(_group_changes(comparison)), _markdown_table(_case_changes(comparison))]
    parts += ["## Cases"]
    for test, facts in document.items():
        parts += [f"### {_plain(test)}: {facts['outcome']}", *map(_fenced, _details(facts))]
    return "\n\n".join(part for part in parts if part) + "\n"


def html_page(document: Document, comparison: Comparison | None) -> str:
    """The report as an HTML page. All texts are escaped; failed cases are open."""
    title = escape(f"Evaluation of {models(document)}")
    parts = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>',
        f"<h1>{title}</h1>\n<p>{escape(_summary(document))}</p>",
        _html_table(_scores(document)),
    ]
    if comparison:
        parts += [f"<h2>Comparison with {escape(models(comparison.before))}</h2>"]
        parts += [f"<p>{escape(_verdict(comparison))}</p>"]
        parts += [_html_table(_group_changes(comparison)), _html_table(_case_changes(comparison))]
    parts += ["<h2>Cases</h2>"]
    for test, facts in document.items():
        outcome, opened = escape(facts["outcome"]), " open" * (facts["outcome"] in ("failed", "error"))
        parts += [f'<details{opened}><summary><b class="{outcome}">{outcome}</b> {escape(test)}</summary>']
        parts += [f"<pre>{escape(text)}</pre>" for text in _details(facts)] + ["</details>"]
    return "\n".join(part for part in [*parts, "</body></html>"] if part) + "\n"


def _summary(document: Document) -> str:
    """The score of the whole run in a sentence."""
    score = total(document)
    if not score.counts:
        return "No test is marked bitnet_eval, so there is no score."
    return f"Passed: {score}{_rate(score)}."


def _rate(score: Score) -> str:
    """The rate of a score with its confidence interval, to stand behind it."""
    if score.interval is None:
        return ""
    low, high = map(percent, score.interval)
    return f" ({percent(score.passed / score.cases)}; 95 % interval {low} to {high})"


def _scores(document: Document) -> Table:
    """The score of each group."""
    found = groups(document)
    rows = [[name, str(score), _rate(score).strip(" ()")] for name, score in found.items()]
    return [["group", "passed", "rate"], *rows] if found else []


def _verdict(comparison: Comparison) -> str:
    """The result of a comparison in a sentence or two."""
    counts = str(comparison)
    return f"{counts[0].upper()}{counts[1:]}. Sign test: p = {comparison.p_value:.2g}."


def _group_changes(comparison: Comparison) -> Table:
    """The scores of both runs."""
    runs = (comparison.before, comparison.after)
    found = [groups(run) for run in runs]
    rows = [[name, *(str(one[name]) if name in one else "none" for one in found)] for name in found[0] | found[1]]
    return [["group", *map(models, runs)], *rows, ["all", *(str(total(run)) for run in runs)]]


def _case_changes(comparison: Comparison) -> Table:
    """The cases that became better or worse, with the answers that differ."""
    changed = [("better", test) for test in comparison.better] + [("worse", test) for test in comparison.worse]
    runs = (comparison.before, comparison.after)
    rows = [[word, test, *(_given(run[test]) for run in runs)] for word, test in changed]
    return [["change", "case", *map(models, runs)], *rows] if rows else []


def _given(facts: dict[str, Any]) -> str:
    """The answers of a case, or how many of its runs passed."""
    if facts.get("runs"):
        return f"{sum(facts['runs'])} of {len(facts['runs'])} runs"
    return "\n".join(answer["answer"] for answer in facts["answers"])


def _details(facts: dict[str, Any]) -> list[str]:
    """The texts below a case: its runs, why it failed, what was asked, the digests."""
    runs = facts.get("runs")
    digests = "\n".join(f"{answer['digest']} {answer.get('receipt', '')}".rstrip() for answer in facts["answers"])
    texts = [f"{sum(runs)} of {len(runs)} runs passed" if runs else "", facts.get("message") or ""]
    return [text for text in (*texts, transcript(facts["answers"]), digests) if text]


def _plain(text: str) -> str:
    """A text on one line in which Markdown finds no marks."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&!])", r"\\\1", " ".join(text.split()))


def _fenced(text: str) -> str:
    """A text as a code block of Markdown, with a fence that does not occur in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _markdown_table(table: Table) -> str:
    """A table in Markdown; nothing if there are no rows."""
    rows = ["| " + " | ".join(_plain(cell) for cell in row) + " |" for row in table]
    return "\n".join([*rows[:1], "|---" * len(table[0]) + "|", *rows[1:]]) if table else ""


def _html_table(table: Table) -> str:
    """A table in HTML; nothing if there are no rows."""
    rows = [
        "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"
        for tag, row in zip(["th", *["td"] * len(table)], table, strict=False)
    ]
    return "\n".join(["<table>", *rows, "</table>"]) if table else ""
