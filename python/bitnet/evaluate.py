"""How often a model answers held-out problems exactly as it should.

    python -m bitnet.evaluate MODEL PROBLEMS [--json SCORES]

PROBLEMS holds a conversation a line, as JSON: the skill that it tests, digits of its largest number (0: does not
matter), how it asks (alone, after other turns, in a held-out wording), and turns of what the user says and what the
answer should be. The model's own answers make the history; the last one is scored, by the whole text.
"""

import argparse
import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from . import ChatSession, Engine

Problem = dict[str, Any]
Counts = dict[str, list[int]]  # group -> [right, asked]
LONGEST = 200
"""Tokens of an answer at most: more than any right one has."""


def problems(path: Path) -> Iterator[Problem]:
    """The problems of a file, which may be compressed by gzip."""
    raw = path.read_bytes()
    text = gzip.decompress(raw) if path.suffix == ".gz" else raw
    for line in text.decode().splitlines():
        problem: Problem = json.loads(line)
        yield problem


def converse(engine: Engine, users: Iterable[str]) -> list[str]:
    """What the model answers, turn after turn."""
    chat = ChatSession(engine)
    return [chat.send(user).text for user in users]


def evaluate(engine: Engine, asked: Iterable[Problem]) -> tuple[dict[str, Counts], list[Problem]]:
    """Right answers by skill, by skill and way of asking, by operation and digits; and the problems that went wrong."""
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
    """The scores as Markdown: a row for each skill, with a column for each way of asking."""
    ways = list(dict.fromkeys(group.split(", ")[1] for group in scores["how"]))
    lines = ["| skill | all | " + " | ".join(ways) + " |", "|---" * (len(ways) + 2) + "|"]
    for skill, count in scores["skill"].items():
        cells = [percent(scores["how"].get(f"{skill}, {way}")) for way in ways]
        lines.append(f"| {skill} | {percent(count)} | {' | '.join(cells)} |")
    lines += ["", "| operation | right |", "|---|---|"]
    lines += [f"| {group} | {percent(count)} |" for group, count in sorted(scores["digits"].items())]
    return "\n".join(lines)


def percent(count: list[int] | None) -> str:
    """A share, with its counts."""
    return "" if count is None else f"{100 * count[0] / count[1]:.1f} % ({count[0]}/{count[1]})"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bitnet.evaluate", description="Score a model on held-out problems."
    )
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("problems", metavar="PROBLEMS", type=Path, help="a .jsonl file, or .jsonl.gz")
    parser.add_argument("--json", type=Path, help="write the scores to this file, too")
    parser.add_argument("--wrong", type=Path, help="write the problems that went wrong, with what was said")
    parser.add_argument("--every", type=int, default=1, help="score only every n-th problem")
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
