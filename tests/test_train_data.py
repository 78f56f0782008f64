"""What the model in the package is trained on: right answers, and no problem that it is tested with."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bitnet
from conftest import ROOT

sys.path.insert(0, str(ROOT / "examples" / "train"))

import arithmetic
import data
from score import problems

HELD_OUT = ROOT / "tests" / "data" / "heldout.jsonl.gz"
STEP = re.compile(r"(?<![\d+*-])(\d+)([-+*])(\d+)=(-?\d+)")
WHOLE = re.compile(r"(\d+)([-+*])(\d+): [^.]*so (-?\d+)\.")


@pytest.fixture(scope="module")
def trained() -> list[Any]:
    """The turns of some training conversations."""
    return [turn for i in range(3000) for turn in data.conversation(random.Random(f"leak {i}"))[1]]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> bitnet.Tokenizer:
    return data.make_tokenizer(tmp_path_factory.mktemp("data") / "tokenizer.gguf", seed=1)


def equations(answer: str) -> Iterator[tuple[int, str, int, int]]:
    """Every sum, difference or product of two numbers in an answer, steps included."""
    for a, sign, b, result in WHOLE.findall(answer) + STEP.findall(answer):
        yield int(a), sign, int(b), int(result)


def test_every_equation_is_right(trained: list[Any]) -> None:
    found = [equation for turn in trained for equation in equations(turn.answer)]
    assert len(found) > 3000
    for a, sign, b, result in found:
        assert result == {"+": a + b, "-": a - b, "*": a * b}[sign]


def test_no_held_out_problem_is_trained_on(trained: list[Any]) -> None:
    """Neither as a question nor as a step of another answer."""
    keys = {arithmetic.key_of(a, sign, b) for turn in trained for a, sign, b, _ in equations(turn.answer)} - {None}
    for turn in trained:
        if turn.skill in ("spell", "reverse"):
            keys.add(f"{turn.skill} {turn.answer.split(':')[0].removeprefix('The word ').lower()}")
    keys -= {f"{skill} {word}" for skill in ("spell", "reverse") for word in data.wordings.WORDS["whole"]}  # by heart
    assert len(keys) > 1500
    assert not [key for key in keys if key and arithmetic.held_out(key)]


def test_the_tests_ask_held_out_problems() -> None:
    """Each scored sum, difference and product is either held out or a fact that everything else is made of."""
    asked = [p for p in problems(HELD_OUT) if p["skill"] in ("add", "subtract", "multiply")]
    assert len(asked) > 500
    for problem in asked:
        a, sign, b, _ = next(equations(problem["turns"][-1][1]))
        key = arithmetic.key_of(a, sign, b)
        assert key is None or arithmetic.held_out(key)


def test_held_out_wordings_are_not_trained_on() -> None:
    for skill, wordings in data.wordings.UNSEEN.items():
        assert not set(wordings) & set(data.wordings.SEEN[skill])


def test_ids_are_those_of_the_rendered_text(tokenizer: bitnet.Tokenizer) -> None:
    """What a chat encodes, history and all, is what training saw; so the cache of earlier turns stays usable."""
    different = 0
    for i in range(400):
        system, turns = data.conversation(random.Random(f"ids {i}"))
        text = f"System: {system}<|eot_id|>" if system else ""
        text += "".join(f"User: {t.user}<|eot_id|>Assistant: {t.answer}<|eot_id|>" for t in turns)
        whole = tokenizer.encode(text, add_bos=True, parse_special=True)
        different += whole != data.encode(tokenizer, system, turns)[0]
    assert different <= 2  # a word reversed into one of the vocabulary: "nus" behind a space is spelled, "sun" is not


def test_every_byte_can_be_encoded(tokenizer: bitnet.Tokenizer) -> None:
    text = "naïve 🙂 日本 \x00 <|eot_id|>"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.token_to_id("<|eot_id|>") not in tokenizer.encode(text)


def test_same_seed_same_problems(tmp_path: Path) -> None:
    """The committed problems are those that the data script writes."""
    assert [p["turns"] for p in problems(HELD_OUT)] == [
        [list(turn) for turn in p["turns"]] for p in data.test_conversations(seed=1, per_skill=30)
    ]
