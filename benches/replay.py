"""The speed of replays: an answer generated and replayed in turn, and receipts replayed one by one and together.

python benches/replay.py 2b.gguf
python benches/replay.py --together 32
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import bitnet

SAMPLERS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "temperature 0.8": {"temperature": 0.8, "seed": 3},
    "top_k 40, top_p 0.95": {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "seed": 3},
}


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def alone(engine: bitnet.Engine, prompt: list[int], tokens: int, rounds: int, names: list[str]) -> None:
    """An answer: generated, replayed, generated, replayed."""
    for name in names:
        settings = SAMPLERS[name] | {"max_tokens": tokens, "ignore_eos": True}
        generated, replayed = [], []
        for _ in range(rounds):
            engine.clear_cache()
            took, answer = seconds(lambda settings=settings: engine.generate(prompt, **settings))
            generated.append(took)
            took, same = seconds(lambda answer=answer: engine.replay(answer.receipt))
            replayed.append(took)
            assert same
        a, b = statistics.median(generated), statistics.median(replayed)
        print(f"{name}: generated {a:.2f} s, replayed {b:.2f} s, {a / b:.2f} times as fast", flush=True)


def together(engine: bitnet.Engine, count: int, tokens: int, rounds: int) -> None:
    """Receipts: one by one, together, one by one, together."""
    prompts = [engine.encode(f"What is {i} + {i * 7}?") for i in range(count)]
    answers = engine.generate(prompts, max_tokens=tokens, ignore_eos=True, temperature=0.8, seed=1)
    receipts = [answer.receipt for answer in answers if answer.receipt]
    ones, lists = [], []
    for _ in range(rounds):
        took, same = seconds(lambda: [engine.replay(receipt) for receipt in receipts])
        ones.append(took)
        took, found = seconds(lambda: engine.replay(receipts))
        lists.append(took)
        assert all(same) and all(found)
    a, b = statistics.median(ones), statistics.median(lists)
    print(f"{count} receipts: one by one {a:.3f} s, together {b:.3f} s, {a / b:.2f} times as fast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a GGUF file (default: the model inside the package)")
    parser.add_argument("--tokens", type=int, help="length of an answer (default: 512; with --together 64)")
    parser.add_argument("--prompt", type=int, default=32, help="length of the prompt in tokens (default: 32)")
    parser.add_argument("--threads", type=int, default=2, help="default: 2")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind (default: 3)")
    parser.add_argument("--sampler", choices=SAMPLERS, help="measure only this one")
    parser.add_argument("--together", type=int, metavar="N", help="measure N receipts one by one and together")
    options = parser.parse_args()
    model = (options.model,) if options.model else ()
    with bitnet.Engine(*model, n_threads=options.threads) as engine:
        print(engine)
        if options.together:
            together(engine, options.together, options.tokens or 64, options.rounds)
        else:
            prompt = [i * 31 % engine.n_vocab for i in range(options.prompt)]
            names = [options.sampler] if options.sampler else list(SAMPLERS)
            alone(engine, prompt, options.tokens or 512, options.rounds, names)


if __name__ == "__main__":
    main()
