"""Arithmetic skills, and what all skills share. A skill draws a problem, words the question, computes the answer.

The key of a problem decides where it may occur: problems with `held_out(key)` occur in tests only, in any wording or
turn. Facts to memorize (one-digit sums, the table up to 12 × 12) have no key: they are steps of other problems.
"""

from __future__ import annotations

import hashlib
import random
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import wordings as say

ONES = say.WORDS["numbers"]
BEYOND = "That is too far for me. I go on from 0 to 999."


def held_out(key: str) -> bool:
    """Whether a problem is kept out of training: one in ten is, by its hash."""
    return hashlib.sha256(key.encode()).digest()[0] % 10 == 0


class NoProblem(Exception):
    """No suitable problem can be drawn at this point of the conversation."""


@dataclass
class Turn:
    """A question and its answer."""

    skill: str
    user: str
    answer: str
    digits: int = 0


@dataclass
class Talk:
    """The state of a conversation: what later turns may refer to."""

    rng: random.Random
    test: bool = False  # draw the next problem from the held-out ones
    unseen: bool = False  # draw the next wording from the held-out ones
    last: int | None = None
    age: int = 0  # turns since the last result
    word: str | None = None
    items: list[str] | None = None
    facts: dict[str, str] = field(default_factory=dict)

    def ask(self, skill: str, **values: Any) -> str:
        """Return a wording with the values in it, typed as carelessly as people do."""
        choices = (self.unseen and say.UNSEEN.get(skill)) or say.SEEN[skill]
        return say.careless(self.rng, self.rng.choice(choices)).format(**values).strip()

    def draw(self, make: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
        """Draw until the key belongs to this side of the split; return the values after the key."""
        for _ in range(300):
            key, *values = make()
            if key is None or held_out(key) == self.test:
                return tuple(values)
        raise NoProblem

    def number(self, most: int = 999) -> int:
        """Draw a number: two digits half of the time, else one or three."""
        top = self.rng.choices([9, 99, 999], [3, 5, 2])[0]
        return self.rng.randint(0, min(top, most))

    def new_word(self, longest: int = 10, whole: bool = True) -> str:
        """Draw a word: from the list, a whole token if `whole`, an invented word, or random letters."""
        kind = self.rng.random()
        if kind < (0.45 if whole else 0.62):
            word = self.rng.choice(say.WORDS["words"])
        elif kind < 0.62:
            word = self.rng.choice(say.WORDS["whole"])
        elif kind < 0.85:
            pairs = [self.rng.choice("bcdfghjklmnprstvwz") + self.rng.choice("aeiouy") for _ in range(4)]
            word = "".join(pairs)[: self.rng.randint(3, 8)]
        else:
            word = "".join(self.rng.choices(string.ascii_lowercase, k=self.rng.randint(2, 7)))
        return word if len(word) <= longest else word[:longest]


def spoken(talk: Talk, a: int, sign: str, b: int) -> str:
    """Write an expression as people do."""
    rng = talk.rng
    words = {"+": ["plus"], "-": ["minus"], "*": ["times"]}[sign]
    signs = {"+": ["+"], "-": ["-"], "*": ["*", "x", "×"]}[sign]
    if max(a, b) <= 20 and rng.random() < 0.15:
        return f"{ONES[a]} {rng.choice(words)} {ONES[b]}"
    if rng.random() < 0.3:
        return f"{a} {rng.choice(words)} {b}"
    space = rng.choice(["", "", " "])
    return f"{a}{space}{rng.choice(signs)}{space}{b}"


def columns(number: int, count: int) -> list[int]:
    """Return the digits, ones first."""
    return [number // 10**i % 10 for i in range(count)]


def solve(a: int, sign: str, b: int) -> tuple[str, int]:
    """Return the answer and the number. The answer shows the steps, if any: "27+45: 7+5=12, 2+4+1=7, so 72."."""
    result = {"+": a + b, "-": a - b, "*": a * b}[sign]
    shown = ", ".join(steps(a, sign, b))
    return f"{a}{sign}{b}{f': {shown}, so ' if shown else '='}{result}.", result


def steps(a: int, sign: str, b: int) -> list[str]:
    """Return the steps of an answer: the columns, ones first, each with its carry."""
    if sign == "*":
        high, low = max(a, b), min(a, b)
        tens, ones = high // 10 * 10, high % 10
        if high <= 12 or low <= 1 or not ones:
            return []
        hundreds, x, y = tens * low // 100, tens * low // 10 % 10, ones * low // 10
        column = [f"{x}+{y}={x + y}"] if y else []  # the column of the tens
        carried = [f"{hundreds}+1={hundreds + 1}"] if hundreds and x + y > 9 else []
        return [f"{tens}*{low}={tens * low}", f"{ones}*{low}={ones * low}", *column, *carried]
    if sign == "-" and a < b:
        found = steps(b, "-", a)
        return [f"{b}-{a}: {found[0]}", *found[1:]] if found else [f"{b}-{a}={b - a}"]
    if key_of(a, sign, b) is None:
        return []
    count, carry, out = len(str(max(a, b))), 0, []
    for x, y in zip(columns(a, count), columns(b, count), strict=True):
        if sign == "-" and x - y - carry < 0:
            x += 10
        value = x + y + carry if sign == "+" else x - y - carry
        out.append(f"{x}{sign}{y}{f'{sign}1' if carry else ''}={value}")
        carry = int(value > 9 if sign == "+" else x > 9)
    return out


def key_of(a: int, sign: str, b: int) -> str | None:
    """Return the key of a sum, difference or product, the same for both orders; None for facts to memorize."""
    low, high = sorted((a, b))
    if sign == "*":
        heart = high <= 12 or low <= 1 or high % 10 == 0
    elif sign == "-":
        heart = high <= 9 or (high <= 18 and high - 10 < low <= 9)
    else:
        heart = high <= 9
    return None if heart else f"{low}{sign}{high}"


def operands(talk: Talk, sign: str, a: int | None = None) -> tuple[str | None, int, int]:
    """Draw two numbers in the range of the operation; return their key and the numbers."""
    rng = talk.rng
    if sign == "*":
        if a is None:
            a, b = (
                (rng.randint(0, 12), rng.randint(0, 12))
                if rng.random() < 0.4
                else (rng.randint(2, 99), rng.randint(2, 9))
            )
            if rng.random() < 0.3:
                a, b = b, a
        else:
            b = rng.randint(2, 9)
    else:
        a, b = talk.number() if a is None else a, talk.number()
        if sign == "-" and a < b and rng.random() < 0.75:
            a, b = (b, a) if talk.last != a else (a, rng.randint(0, a))
    return key_of(a, sign, b), a, b


def calculate(talk: Talk, sign: str) -> Turn:
    """Ask for a sum, difference or product."""
    skill = {"+": "add", "-": "subtract", "*": "multiply"}[sign]
    twice = sign == "+" and talk.rng.random() < 0.08

    def make() -> tuple[str | None, int, int]:
        key, a, b = operands(talk, sign)
        return (key_of(a, sign, a), a, a) if twice else (key, a, b)

    a, b = talk.draw(make)
    own = talk.rng.random() < 0.35
    wording = "twice" if twice else skill if own else "expression"
    user = talk.ask(wording, a=a, b=b, e=spoken(talk, a, sign, b))
    answer, talk.last = solve(a, sign, b)
    return Turn(skill, user, answer, len(str(max(a, b))))


def add(talk: Talk) -> Turn:
    return calculate(talk, "+")


def subtract(talk: Talk) -> Turn:
    return calculate(talk, "-")


def multiply(talk: Talk) -> Turn:
    return calculate(talk, "*")


def another(talk: Talk) -> Turn:
    """Ask for a new expression as a follow-up: "What about 3+3?"."""
    if talk.last is None:
        raise NoProblem
    sign = talk.rng.choices("+-*", [5, 3, 2])[0]
    a, b = talk.draw(lambda: operands(talk, sign))
    user = talk.ask("another", e=spoken(talk, a, sign, b))
    answer, talk.last = solve(a, sign, b)
    return Turn("another", user, answer, len(str(max(a, b))))


def follow_up(talk: Talk) -> Turn:
    """Ask for an operation on the last result: "add 5 to that", "and doubled?"."""
    last = talk.last
    if last is None:
        raise NoProblem
    if not 0 <= last <= 999:
        talk.last = None
        user = talk.ask(talk.rng.choice(["more", "fewer", "times"]), b=talk.number())
        return Turn("refuse", user, BEYOND)
    choices = ["+", "-", "2+"] + (["*"] if last <= 99 else []) + (["3*"] if last <= 99 else [])
    kind = talk.rng.choices(choices, [5, 4, 2, 2, 1][: len(choices)])[0]
    if kind in ("2+", "3*"):
        b = last if kind == "2+" else 3
        talk.draw(lambda: (key_of(last, kind[1], b),))
        user = talk.ask("double" if kind == "2+" else "triple")
    else:
        _, b = talk.draw(lambda: operands(talk, kind, last))
        spelled = ONES[b] if b <= 20 and talk.rng.random() < 0.15 else b
        user = talk.ask({"+": "more", "-": "fewer", "*": "times"}[kind], b=spelled)
    answer, talk.last = solve(last, kind[-1], b)
    return Turn("follow_up", user, answer, len(str(max(last, b))))


def three(talk: Talk) -> Turn:
    """Ask for the sum of three one-digit numbers."""

    def make() -> tuple[str, int, int, int]:
        a, b, c = (talk.rng.randint(0, 9) for _ in range(3))
        return key_of(a + b, "+", c) or f"three {sorted((a, b, c))}", a, b, c

    a, b, c = talk.draw(make)
    sign = talk.rng.choice(["+", " + ", " plus "])
    user = talk.ask("expression", e=f"{a}{sign}{b}{sign}{c}")
    talk.last = a + b + c
    return Turn("three", user, f"{a}+{b}={a + b}, {solve(a + b, '+', c)[0]}")


def tale(talk: Talk) -> Turn:
    """Ask for a sum or difference in a story."""
    sign, rng = talk.rng.choice("+-"), talk.rng

    def make() -> tuple[str | None, int, int]:
        a, b = rng.randint(1, rng.choice([9, 99])), rng.randint(1, rng.choice([9, 99]))
        a, b = (a, b) if sign == "+" else (max(a, b), min(a, b))
        return key_of(a, sign, b), a, b

    a, b = talk.draw(make)
    thing = rng.choice(say.WORDS["things"])
    user = talk.ask("gain" if sign == "+" else "loss", a=a, b=b, t=thing)
    answer, talk.last = solve(a, sign, b)
    return Turn("story", user, f"{answer} You have {talk.last} {thing}.")
