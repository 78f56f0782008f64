"""Score a chat model on held-out problems: how often is its answer exactly the right one?

    python examples/train/score.py MODEL PROBLEMS [--json SCORES]

PROBLEMS is a file with one JSON object per line:
    skill   what the problem tests, such as "add"
    digits  number of digits of its largest number; 0 if that does not matter
    how     how it is asked: "single", "multi" (after other turns) or "unseen wording" (which training never had)
    turns   pairs of what the user says and what the answer should be
The model's own answers form the conversation. Only the last answer is scored, and its whole text has to match.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bitnet import ChatSession, Engine

Problem = dict[str, Any]
Counts = dict[str, list[int]]
"""For each group of problems: how many were answered right, and how many were asked."""


def problems(path: Path) -> Iterator[Problem]:
    """Read the problems of a file; a name that ends with .gz means that it is compressed by gzip."""
    raw = path.read_bytes()
    text = gzip.decompress(raw) if path.suffix == ".gz" else raw
    for line in text.decode().splitlines():
        problem: Problem = json.loads(line)
        yield problem


def converse(engine: Engine, users: Iterable[str]) -> list[str]:
    """Hold a conversation with these user turns and return the model's answers."""
    chat = ChatSession(engine)
    return [chat.send(user).text for user in users]


def evaluate(engine: Engine, asked: Iterable[Problem]) -> tuple[dict[str, Counts], list[Problem]]:
    """Ask every problem. Returns the scores, and the problems that were answered wrong.

    The scores are grouped by skill ("skill"), by skill and way of asking ("how"), and by operation and number of
    digits ("digits").
    """
    scores: dict[str, Counts] = {"skill": {}, "how": {}, "digits": {}}
    wrong = []
    for problem in asked:
        answers = converse(engine, (user for user, _ in problem["turns"]))
        right = answers[-1] == problem["turns"][-1][1]
        if not right:
            wrong.append(problem | {"said": answers})
        groups = {"skill": problem["skill"], "how": f"{problem['skill']}, {problem['how']}"}
        if problem["digits"]:
            groups["digits"] = f"{problem['skill']}, {problem['digits']} digits"
        for kind, group in groups.items():
            count = scores[kind].setdefault(group, [0, 0])
            count[0] += right
            count[1] += 1
    return scores, wrong


def table(scores: dict[str, Counts]) -> str:
    """Format the scores as Markdown: one row per skill, one column per way of asking; then one row per operation."""
    ways = list(dict.fromkeys(group.split(", ")[1] for group in scores["how"]))
    lines = ["| skill | all | " + " | ".join(ways) + " |", "|---" * (len(ways) + 2) + "|"]
    for skill, count in scores["skill"].items():
        cells = [percent(scores["how"].get(f"{skill}, {way}")) for way in ways]
        lines.append(f"| {skill} | {percent(count)} | {' | '.join(cells)} |")
    lines += ["", "| operation | right |", "|---|---|"]
    lines += [f"| {group} | {percent(count)} |" for group, count in sorted(scores["digits"].items())]
    return "\n".join(lines)


def percent(count: list[int] | None) -> str:
    """Format [right, asked] as a percentage with both counts; empty for None."""
    return "" if count is None else f"{100 * count[0] / count[1]:.1f} % ({count[0]}/{count[1]})"


def main() -> None:
    """Score the model that the command line names, and print the table."""
    parser = argparse.ArgumentParser(description="Score a model on held-out problems.")
    parser.add_argument("model", metavar="MODEL", help="a GGUF file")
    parser.add_argument("problems", metavar="PROBLEMS", type=Path, help="a .jsonl or .jsonl.gz file of problems")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the scores into FILE, as JSON")
    parser.add_argument(
        "--wrong", type=Path, metavar="FILE", help="also write the problems that were answered wrong into FILE"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="ask only every N-th problem (default: 1)")
    options = parser.parse_args()
    with Engine(options.model) as engine:
        scores, wrong = evaluate(engine, list(problems(options.problems))[:: options.every])
    print(table(scores))
    if options.json:
        options.json.write_text(json.dumps(scores, indent=1) + "\n")
    if options.wrong:
        options.wrong.write_text("".join(json.dumps(problem, ensure_ascii=False) + "\n" for problem in wrong))


if __name__ == "__main__":
    main()
