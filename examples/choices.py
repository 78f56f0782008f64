"""Answer multiple-choice questions by the log-probability of each choice.

python examples/choices.py [MODEL.gguf]
"""

import sys

from bitnet import Engine

QUESTIONS = [
    ("What is 8+7?", ["8+7=14.", "8+7=15.", "8+7=16."], 1),
    ("What is 9-4?", ["9-4=5.", "9-4=13.", "9-4=4."], 0),
    ("What is 6*3?", ["6*3=9.", "6*3=63.", "6*3=18."], 2),
    ("Spell cat.", ["The word cat: k-a-t.", "The word cat: c-a-t.", "The word cat: c-t-a."], 1),
    ("Spell horse.", ["The word horse: h-o-r-s-e.", "The word horse: h-o-s-e.", "The word horse: e-s-r-o-h."], 0),
]


def main(path: str | None = None) -> None:
    """Print the most likely choice for each question, and how many are right."""
    right = 0
    with Engine(path) as engine:
        template = engine.template
        for question, choices, answer in QUESTIONS:
            context = engine.encode(template.apply(question), add_bos=template.add_bos, parse_special=True)
            logprobs = engine.score(context, [engine.encode(choice) for choice in choices]).logprobs
            best = int(logprobs.argmax())
            right += best == answer
            print(f"{question} {choices[best]}", [round(float(logprob), 2) for logprob in logprobs])
    print(f"right: {right} of {len(QUESTIONS)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
