"""Measure many requests at once: lists, asyncio streams, a stream beside a prompt, scores, the harness.

    python benches/many.py 2b-4t.gguf
    python benches/many.py 2b-4t.gguf --parts list fair --tokens 32

Each part computes the same work one request after the other and together, in turns, and prints medians over the rounds.
"One after the other" is this version's engine, asked request by request with an empty prefix cache.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import bitnet

median = statistics.median


class Bench:
    """An open engine and how much to measure."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.engine: Any = bitnet.Engine(options.model, n_threads=options.threads, n_ctx=4096)
        self.tokens, self.rounds, self.questions = options.tokens, options.rounds, options.questions
        self.draw = random.Random(1)
        self.engine.generate([1, 2], max_tokens=2)

    def ids(self, n: int) -> list[int]:
        return [self.draw.randrange(1, self.engine.n_vocab) for _ in range(n)]

    def time(self, work: Callable[[], Any]) -> float:
        self.engine.clear_cache()
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    def compare(self, name: str, unit: str, amount: float, one: Callable[[], Any], many: Callable[[], Any]) -> None:
        """Time both in turns."""
        pairs = [(self.time(one), self.time(many)) for _ in range(self.rounds)]
        before, after = (amount / median(pair[i] for pair in pairs) for i in (0, 1))
        print(f"{name:<44} {before:9.1f} {after:9.1f} {unit:<12} x {after / before:.2f}", flush=True)

    def list(self) -> None:
        limits: dict[str, Any] = {"max_tokens": self.tokens, "ignore_eos": True}
        for n in (1, 2, 4, 8, 16, 32):
            prompts = [self.ids(8) for _ in range(n)]
            self.compare(
                f"generate, a list of {n}",
                "tokens/s",
                n * self.tokens,
                lambda prompts=prompts: [self.engine.generate(ids, **limits) for ids in prompts],  # type: ignore[misc]
                lambda prompts=prompts: self.engine.generate(prompts, **limits),  # type: ignore[misc]
            )

    def streams(self) -> None:
        prompts = [self.ids(8) for _ in range(8)]
        limits: dict[str, Any] = {"max_tokens": self.tokens, "ignore_eos": True}

        async def read(ids: list[int]) -> None:
            async for _ in self.engine.stream(ids, **limits):
                pass

        async def all_streams() -> None:
            await asyncio.gather(*map(read, prompts))

        self.compare(
            "8 asyncio streams, beside generate(list of 8)",
            "tokens/s",
            8 * self.tokens,
            lambda: self.engine.generate(prompts, **limits),
            lambda: asyncio.run(all_streams()),
        )

    def fair(self) -> None:
        own: list[float] = []
        beside: list[float] = []
        alone: list[float] = []
        together: list[float] = []
        for _ in range(self.rounds):
            prompt = self.ids(24 * 8)
            alone.append(self.time(lambda prompt=prompt: self.engine.prefill(prompt)))  # type: ignore[misc]
            self.engine.clear_cache()
            stream = self.engine.stream(self.ids(8), max_tokens=4000, ignore_eos=True)
            next(stream)
            own += [self.step(stream) for _ in range(20)]
            start = time.perf_counter()
            other = threading.Thread(target=lambda prompt=prompt: self.engine.prefill(prompt))  # type: ignore[misc]
            other.start()
            time.sleep(2 * own[-1])
            while other.is_alive():
                beside.append(self.step(stream))
            together.append(time.perf_counter() - start)
            stream.cancel()
        beside.sort()
        p95 = beside[int(0.95 * len(beside))]
        print(
            f"a stream's step: alone {1e3 * median(own):.1f} ms; beside another caller's prompt of {24 * 8} tokens "
            f"{1e3 * median(beside):.1f} ms (x {median(beside) / median(own):.2f}), p95 {1e3 * p95:.1f} ms "
            f"(x {p95 / median(own):.2f}); the prompt {median(together):.2f} s, alone {median(alone):.2f} s",
            flush=True,
        )

    def step(self, stream: Any) -> float:
        start = time.perf_counter()
        next(stream)
        return time.perf_counter() - start

    def score(self) -> None:
        """Four choices after a context of 500 tokens, of which 400 are the examples of all questions."""
        for shared, name in (
            (400, "score, 4 choices, 500 tokens, 400 of them shared"),
            (0, "score, 4 choices, 100 tokens"),
        ):
            examples = self.ids(shared)
            contexts = [examples + self.ids(100) for _ in range(self.questions)]
            choices = [[self.ids(4) for _ in range(4)] for _ in contexts]

            def one(contexts: Any = contexts, choices: Any = choices) -> None:
                for context, own in zip(contexts, choices, strict=True):
                    self.engine.clear_cache()
                    self.engine.score(context, own)

            self.compare(
                name,
                "questions/s",
                self.questions,
                one,
                lambda contexts=contexts, choices=choices: self.engine.score(contexts, choices),  # type: ignore[misc]
            )


def main() -> None:
    """Measure the parts that were asked for."""
    parts = ("list", "streams", "fair", "score")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts, help="what to measure (default: all)")
    parser.add_argument("--threads", type=int, help="threads of the engine (default: all)")
    parser.add_argument("--tokens", type=int, default=32, help="tokens of each answer (default: 32)")
    parser.add_argument("--questions", type=int, default=20, help="questions of the part score (default: 20)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each measurement (default: 3)")
    options = parser.parse_args()
    warnings.simplefilter("ignore", bitnet.BitnetWarning)
    bench = Bench(options)
    print(f"{'':<44} {'before':>9} {'together':>9}")
    for part in options.parts:
        getattr(bench, part)()


if __name__ == "__main__":
    main()
