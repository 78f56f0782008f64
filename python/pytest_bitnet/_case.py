"""The fixture's object: it asks the engine, and keeps what was asked and answered."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._answer import Answer
from ._digests import claimed

if TYPE_CHECKING:
    from bitnet import ChatSession, Completion, Engine

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that a terminal obeys, but for tabs and line ends."""


@dataclass(eq=False, repr=False)
class Case:
    """The answers of one test.

    Sampling uses seed 0 unless a seed is given, so that every run has the same digests. A repeated test uses the number
    of the repetition.
    """

    engine: Engine
    nodeid: str
    folder: Path | None
    """Where receipts are written, if they are."""
    claims: bool
    """Whether to keep what each digest is computed from, to compare it with committed digests."""
    record: dict[str, Any] = field(default_factory=dict)
    """What the report gets of this test."""
    seed: int = 0
    conversations: int = 0
    current_run: int | None = None
    seeds: list[int | None] = field(default_factory=list)
    """The seed of each answer; None if nothing was drawn."""

    def __post_init__(self) -> None:
        """Begin the record."""
        self.record |= {"model": self.engine.path.name, "answers": [], "runs": []}

    def __repr__(self) -> str:
        """The test, and how many answers it has."""
        return f"<Case {self.nodeid}, {len(self.answers)} answers>"

    @property
    def answers(self) -> list[dict[str, Any]]:
        """The facts about each answer so far."""
        answers: list[dict[str, Any]] = self.record["answers"]
        return answers

    def chat(self, system: str | None = None, **sampling: Any) -> Chat:
        """Start a conversation."""
        from bitnet import ChatSession

        self.conversations += 1
        return Chat(self, ChatSession(self.engine, system, **{"seed": self.seed, **sampling}), self.conversations)

    def ask(self, text: str, system: str | None = None, **sampling: Any) -> Answer:
        """Ask a single question in a conversation of its own."""
        return self.chat(system, **sampling).ask(text)

    def ask_all(self, texts: Iterable[str], system: str | None = None, **sampling: Any) -> list[Answer]:
        """Ask questions, each in a conversation of its own; they are answered in shared forward passes."""
        from bitnet import _core

        if isinstance(texts, str):
            raise TypeError("ask_all takes a list of questions, not a text; ask(text) asks one")
        asked = [(text, self.chat(system, **sampling)) for text in texts]
        completions = _core._Together(chat.session.stream(text) for text, chat in asked)
        pairs = zip(asked, completions, strict=True)
        return [self.keep(text, completion, **chat.facts()) for (text, chat), completion in pairs]

    def complete(self, prompt: str, **sampling: Any) -> Answer:
        """Continue a text, without a chat template."""
        return self.keep(prompt, self.engine.generate(prompt, **{"seed": self.seed, **sampling}))

    @contextmanager
    def run(self, number: int) -> Generator[None, None, None]:
        """One run of a test that is repeated; its number is the seed."""
        before, self.seed, self.current_run = self.seed, number, number
        try:
            yield
        finally:
            self.seed, self.current_run = before, None

    def runs_are_equal(self) -> bool:
        """Whether all runs asked and answered the same, and chance had no part in it."""
        runs: dict[int, list[tuple[Any, ...]]] = {number: [] for number in range(len(self.record["runs"]))}
        for facts, seed in zip(self.answers, self.seeds, strict=True):
            if "run" in facts:
                runs[facts["run"]].append((facts["prompt"], facts["answer"], seed))
        first = runs[0]
        return bool(first) and all(run == first for run in runs.values())

    def keep(self, prompt: str, completion: Completion, **facts: Any) -> Answer:
        """Add an answer to the record, with these facts; write its receipt if there is a folder for it."""
        answer, receipt = Answer(prompt, completion), completion.receipt
        facts |= {"prompt": prompt, "answer": answer.text, "digest": answer.digest}
        if answer.reasoning is not None:
            facts["reasoning"] = answer.reasoning
        if self.current_run is not None:
            facts["run"] = self.current_run
        drawn = receipt is not None and receipt.to_dict()["claim"]["sampling"]["temperature"] > 0
        self.seeds.append(completion.seed if drawn else None)
        if self.claims and receipt:
            facts["claim"] = claimed(receipt)
        if self.folder and receipt:
            # The test's name, cut to what any file system takes; the hash keeps two tests apart.
            plain = re.sub(r"[^\w.-]+", "-", self.nodeid, flags=re.ASCII)[:100]
            own = hashlib.sha256(self.nodeid.encode()).hexdigest()[:8]
            path = self.folder / f"{plain}-{own}-{len(self.answers)}.json"
            facts["receipt"] = receipt.save(path).name
        self.answers.append(facts)
        return answer


@dataclass(frozen=True, eq=False)
class Chat:
    """A conversation in a test."""

    case: Case
    session: ChatSession
    number: int
    """Tells the conversations of a test apart."""

    def ask(self, text: str, **sampling: Any) -> Answer:
        """Ask the next question of the conversation."""
        return self.case.keep(text, self.session.send(text, **sampling), **self.facts())

    def facts(self) -> dict[str, Any]:
        """What the report says of each answer of the conversation."""
        return {"conversation": self.number, "system": self.session.system}


def transcript(answers: list[dict[str, Any]]) -> str:
    """All conversations of a test, and its continuations of texts, for people."""
    parts: dict[Any, list[str]] = {}
    for place, facts in enumerate(answers):
        number = facts.get("conversation")
        names = ("user", "assistant") if number else ("prompt", "answer")
        title = [f"conversation {number}" if number else "continuation"]
        if "run" in facts:
            title.insert(0, f"run {facts['run']}")
        if facts.get("system") is not None:
            title.append(f"system {facts['system']!r}")
        lines = parts.setdefault(number or f"continuation {place}", [", ".join(title)])
        for name, text in zip(names, (facts["prompt"], facts["answer"]), strict=True):
            shown = _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)
            lines.append(f"  {name:<9}  " + shown.replace("\n", "\n" + " " * 13))
    return "\n".join(line for lines in parts.values() for line in lines)
