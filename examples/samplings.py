"""Compare two sets of sampling parameters: how often each is right, and how often both agree.

python examples/samplings.py [MODEL.gguf]
"""

import sys

from bitnet import ChatSession, Engine, SamplingParams

SAMPLINGS = {
    "greedy": SamplingParams(max_tokens=32),
    "warm": SamplingParams(max_tokens=32, temperature=2.5, seed=1),
}


def main(path: str | None = None) -> None:
    """Ask the same questions with both; print the scores and three disagreements."""
    sums = [(i, j) for i in range(2, 10) for j in range(2, 10)]
    said: dict[str, list[str]] = {}
    with Engine(path) as engine:
        for name, params in SAMPLINGS.items():
            said[name] = [ChatSession(engine, params=params).send(f"What is {i}+{j}?").text for i, j in sums]
    for name, texts in said.items():
        right = sum(text == f"{i}+{j}={i + j}." for text, (i, j) in zip(texts, sums, strict=True))
        print(f"{name:<7} {right} of {len(sums)} right")
    pairs = list(zip(*said.values(), strict=True))
    print(f"both say the same: {sum(one == other for one, other in pairs)} of {len(pairs)}")
    for one, other in [pair for pair in pairs if pair[0] != pair[1]][:3]:
        print(f"{one!r} | {other!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
