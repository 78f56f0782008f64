"""Skills about the order of numbers: compare, even or odd, biggest and smallest, sort."""

from __future__ import annotations

from typing import Any

from arithmetic import NoProblem, Talk, Turn


def compare(talk: Talk) -> Turn:
    """Ask which of two different numbers is bigger or smaller, or whether one is."""

    def make() -> tuple[str, int, int]:
        a = talk.number()
        near = talk.rng.random() < 0.25
        b = max(0, a + talk.rng.randint(-9, 9)) if near else talk.number()
        b = b + 1 if a == b else b
        return f"compare {sorted((a, b))}", a, b

    a, b = talk.draw(make)
    kind = talk.rng.choice(["bigger", "smaller", "is_bigger", "is_smaller"])
    user = talk.ask(kind, a=a, b=b)
    talk.last = None
    word = "bigger" if a > b else "smaller"
    if kind.startswith("is_"):
        answer = f"{a} is {word} than {b}, so {'yes' if kind == 'is_' + word else 'no'}."
    else:
        answer = f"{a} is {word} than {b}, so {a if kind == word else b}."
    return Turn("compare", user, answer)


def parity(talk: Talk) -> Turn:
    """Ask whether a number is even or odd."""

    def make() -> tuple[str, int]:
        n = talk.number()
        return f"parity {n}", n

    talk.last = n = talk.draw(make)[0]
    return Turn("even_odd", talk.ask("parity", n=n), f"{n} is {'odd' if n % 2 else 'even'}.")


def extreme(talk: Talk) -> Turn:
    """Ask for the biggest or smallest of three to five numbers."""
    numbers = some_numbers(talk, 5)
    kind = talk.rng.choice(["biggest", "smallest"])
    user = talk.ask(kind, l=listed(talk, numbers))
    best = (max if kind == "biggest" else min)(numbers)
    return Turn("biggest", user, f"{best} is the {kind}.")


def some_numbers(talk: Talk, most: int) -> list[int]:
    """Draw three to five different numbers below 10, or three to `most` below 100."""

    def make() -> tuple[str, list[int]]:
        below, count = talk.rng.choice([(10, 5), (100, most)])
        numbers = talk.rng.sample(range(below), talk.rng.randint(3, count))
        return f"numbers {sorted(numbers)}", numbers

    found: list[int] = talk.draw(make)[0]
    return found


def listed(talk: Talk, items: list[Any]) -> str:
    """Write a list as people do."""
    mark = talk.rng.choice([", ", ", ", ", ", " ", ","])
    if mark == ", " and talk.rng.random() < 0.2:
        return f"{', '.join(map(str, items[:-1]))} and {items[-1]}"
    return mark.join(map(str, items))


def sort(talk: Talk) -> Turn:
    """Ask to sort numbers, ascending or descending."""
    numbers = some_numbers(talk, 3)
    down = talk.rng.random() < 0.25
    user = talk.ask("sort_down" if down else "sort", l=listed(talk, numbers))
    talk.items = [str(number) for number in sorted(numbers, reverse=down)]
    return Turn("sort", user, ", ".join(talk.items) + ".")


def other_way(talk: Talk) -> Turn:
    """Ask for the last list in reverse order."""
    if talk.items is None:
        raise NoProblem
    talk.items = talk.items[::-1]
    return Turn("sort", talk.ask("other_way"), ", ".join(talk.items) + ".")
