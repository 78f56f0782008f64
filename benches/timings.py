"""Compare the times in a receipt with a clock outside the engine: do the parts add up?

python benches/timings.py [MODEL.gguf] [--prompt 512] [--tokens 64] [--repeats 3] [--isa NAME]

Exits with status 1 if more than 2 % of the time spent in pulls is in no part, even in the best repeat. Time that is not
measured is missing in every repeat; on a busy machine the process also waits between two clocks in some of them. A pull
costs some microseconds of its own, which are more than 2 % where a small model runs fast: --isa scalar slows it down.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterable

import numpy as np

from bitnet import Engine

PARTS = ("render", "tokenize", "prefill", "decode", "sample", "detokenize")
ALLOWED = 0.02


def measure(engine: Engine, prompt: Iterable[int], tokens: int) -> dict[str, float]:
    """Stream one completion; return the times of its receipt, and the time that the pulls took outside."""
    stream = engine.stream(list(prompt), max_tokens=tokens, temperature=0.7, seed=0, ignore_eos=True)
    outside = 0.0
    for _ in range(tokens):
        start = time.perf_counter()
        next(stream)
        outside += time.perf_counter() - start
    receipt = stream.receipt
    assert receipt is not None
    receipt.validate()
    times = receipt.seconds
    return times | {"outside": outside, "parts": sum(times[name] for name in PARTS)}


def main() -> int:
    """Print the table; return 0 if the parts add up, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="a GGUF file (default: the model inside the package)")
    parser.add_argument(
        "--prompt", type=int, default=512, help="tokens in the prompt, at most half of the context (default: 512)"
    )
    parser.add_argument("--tokens", type=int, default=64, help="tokens to generate (default: 64)")
    parser.add_argument("--repeats", type=int, default=3, help="completions, each of another prompt (default: 3)")
    parser.add_argument("--isa", help="instruction set, as `bitnet doctor` lists them (default: the best one)")
    options = parser.parse_args()
    with Engine(options.model, isa=options.isa) as engine:
        size = min(options.prompt, engine.n_ctx // 2)
        draw = np.random.default_rng(0).integers
        rounds = [measure(engine, draw(1, engine.n_vocab, size), options.tokens) for _ in range(options.repeats)]
        print(f"{engine.path}: {engine.isa}, threads {engine.n_threads}, {size} + {options.tokens} tokens")
    for name in (*PARTS, "parts", "wall", "outside"):
        print(f"{name:<11} {statistics.median(times[name] for times in rounds) * 1e3:>12.3f} ms")
    missing = {name: [1 - times["parts"] / times[name] for times in rounds] for name in ("wall", "outside")}
    middle, least = ({name: pick(shares) for name, shares in missing.items()} for pick in (statistics.median, min))
    print(f"not in any part: {middle['wall']:.3%} of wall, {middle['outside']:.3%} of the outside clock", end=" ")
    print(f"(least: {least['outside']:.3%})")
    return 0 if least["outside"] <= ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())
