"""Answer multiple-choice questions by the log-probability of each choice.

python examples/choices.py [MODEL.gguf]
"""

import sys

from bitnet import Engine

SUMS = [(2, 2), (3, 4), (5, 1), (6, 2), (8, 7), (12, 9)]


def main(path: str | None = None) -> None:
    """Print the most likely choice for each question, and how many are right."""
    right = 0
    with Engine(path) as engine:
        template = engine.template
        for i, j in SUMS:
            question = template.apply(f"What is {i}+{j}?")
            context = engine.encode(question, add_bos=template.add_bos, parse_special=True)
            choices = [i + j + 2, i + j, i + j - 1]
            scores = engine.score(context, [engine.encode(f"{i}+{j}={n}.") for n in choices]).logprobs
            best = choices[scores.argmax()]
            right += best == i + j
            print(f"{i}+{j}={best}", {n: round(float(score), 2) for n, score in zip(choices, scores, strict=True)})
    print(f"right: {right} of {len(SUMS)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
