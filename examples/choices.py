"""Scores a multiple-choice set: which of the answers a model finds likeliest, by the sum of its tokens' logarithms.

python examples/choices.py [MODEL.gguf]
"""

import sys

import numpy as np

from bitnet import Engine

SUMS = [(2, 2), (3, 4), (5, 1), (6, 2), (8, 7), (12, 9)]


def log_likelihood(engine: Engine, context: list[int], answer: list[int]) -> float:
    """The logarithm of the probability that the answer follows the context."""
    logits = engine.logits(context + answer)[len(context) - 1 : -1].astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return float(logprobs[np.arange(len(answer)), answer].sum())


def main(path: str | None = None) -> None:
    """Print the choice for each question, and the share of right ones."""
    right = 0
    with Engine(path) as engine:
        template = engine.template
        for i, j in SUMS:
            context = engine.encode(template.apply(f"What is {i}+{j}?"), template.add_bos, parse_special=True)
            answers = {n: engine.encode(f"{i}+{j}={n}.") for n in (i + j + 2, i + j, i + j - 1)}
            scores = {n: log_likelihood(engine, context, ids) for n, ids in answers.items()}
            best = max(scores, key=scores.__getitem__)
            right += best == i + j
            print(f"{i}+{j}={best}", {n: round(score, 2) for n, score in scores.items()})
    print(f"right: {right} of {len(SUMS)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
