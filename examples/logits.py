"""Print the most likely next tokens after some ids, and the speed of the prefill.

python examples/logits.py [MODEL.gguf 1 2 3]
"""

import sys

import numpy as np

import bitnet


def main(path: str | None = None, *ids: str) -> None:
    """Print the five best ids with their probabilities."""
    with bitnet.Engine(path) as engine:
        prompt = [int(i) for i in ids] or [0]
        last = engine.logits(prompt)[-1].astype(np.float64)
        odds = np.exp(last - last.max())
        for token in np.argsort(-odds, kind="stable")[:5]:
            print(f"{token:8}  {odds[token] / odds.sum():.4f}")
        print(engine.prefill(prompt))
        print(engine.generate_tokens(prompt, max_tokens=8))


if __name__ == "__main__":
    main(*sys.argv[1:])
