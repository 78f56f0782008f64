"""Measure what docs/sizing.md says: memory of sessions, a stream beside others, threads and processes.

    python benches/sizing.py MODEL [--packed MODEL.packed] [--context 256] [--tokens 16] [--repeats 2]

Streams of threads of one engine share passes, as clients of a server would. All prompts differ, so that nothing but
the weights is shared. The read bandwidth is measured beside each table, since a shared machine changes. Linux only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import threading
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from bitnet import Engine, processor, read_bandwidth
from bitnet.sizing import plan

CORES = processor()["cores"]


def prompts(engine: Engine, length: int, seed: int) -> Iterator[list[int]]:
    """Prompts that share no prefix."""
    draw = np.random.default_rng(seed).integers
    while True:
        yield draw(1, engine.n_vocab, length).tolist()


def private_bytes() -> int:
    """Memory of this process without pages of files."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))


def memory(model: str, context: int) -> None:
    """Keep sessions of `context` tokens, and compare the memory with the plan."""
    start = private_bytes()
    with Engine(model, cache_bytes=0) as engine:
        kept = []
        for count, ids in enumerate(prompts(engine, context - 2, 0), 1):
            stream = engine.stream(ids, ignore_eos=True)
            next(stream)
            kept.append(stream)
            if count & (count - 1) == 0:
                taken = private_bytes() - start
                print(f"{count} sessions of {context} tokens: {taken / 1e6:.1f} MB", flush=True)
            if count == 4:
                break
    each = plan(model, 4, context, cache_bytes=0)
    fixed = each["memory"]["total"] - each["memory"]["sessions"] - each["memory"]["shared_weights"]
    print(f"planned: {fixed / 1e6:.1f} MB and {each['session']['bytes'] / 1e6:.1f} MB a session")


def pull(engine: Engine, ids: list[int], tokens: int, gaps: list[float], ready: Any) -> None:
    """Pull a stream, and note the seconds between its tokens once all streams have begun."""
    stream = engine.stream(ids, max_tokens=tokens + 1, ignore_eos=True)
    next(stream)
    ready.wait()
    before = time.perf_counter()
    for _ in range(tokens):
        next(stream)
        now = time.perf_counter()
        gaps.append(now - before)
        before = now


def together(engine: Engine, count: int, tokens: int, seed: int) -> list[float]:
    """The gaps of `count` streams of as many threads."""
    ready = threading.Barrier(count)
    gaps: list[list[float]] = [[] for _ in range(count)]
    of = prompts(engine, 8, seed)
    threads = [threading.Thread(target=pull, args=(engine, next(of), tokens, each, ready)) for each in gaps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [gap for each in gaps for gap in each]


def told(gaps: list[float]) -> str:
    """Median and 95th percentile in milliseconds."""
    p95 = sorted(gaps)[int(0.95 * (len(gaps) - 1))]
    return f"{1e3 * statistics.median(gaps):.0f} ms, p95 {1e3 * p95:.0f} ms"


def streams(model: str, tokens: int, repeats: int) -> None:
    """The time between tokens of a stream beside others, and the rate of all."""
    for threads in dict.fromkeys([1, CORES]):
        with Engine(model, n_threads=threads, cache_bytes=0) as engine:
            together(engine, 1, 1, 0)  # makes the copy of the output head
            bandwidths = []
            found: dict[int, list[list[float]]] = {count: [] for count in (1, 2, 4, 8, 16)}
            for seed in range(repeats):
                bandwidths.append(read_bandwidth(threads))
                for count, rounds in found.items():
                    rounds.append(together(engine, count, tokens, seed))
            print(f"{threads} threads; read bandwidth {statistics.median(bandwidths):.1f} GB/s")
            for count, rounds in found.items():
                rate = count / statistics.median(statistics.fmean(gaps) for gaps in rounds)
                print(
                    f"  {count} streams: {told(list(chain(*rounds)))} a token, {rate:.1f} tokens/s in all", flush=True
                )


def beside_a_prompt(model: str, tokens: int) -> None:
    """The time between tokens of a stream alone, and while another thread's prompt of 256 tokens is computed."""
    with Engine(model, cache_bytes=0) as engine:
        together(engine, 1, 1, 0)
        alone = together(engine, 1, tokens, 1)
        long = next(prompts(engine, 256, 2))
        prompt = threading.Thread(target=engine.generate, args=(long,), kwargs={"max_tokens": 1})
        gaps: list[float] = []
        stream = engine.stream([1, 2, 3], ignore_eos=True)
        next(stream)
        start = time.perf_counter()
        prompt.start()
        while prompt.is_alive():
            before = time.perf_counter()
            next(stream)
            gaps.append(time.perf_counter() - before)
        seconds = time.perf_counter() - start
        print(f"a stream alone: {told(alone)}; beside a prompt of 256 tokens: {told(gaps)} (it took {seconds:.1f} s)")


def worker(model: str, threads: int, count: int, tokens: int, ready: Any, out: Any) -> None:
    """Decode `count` sequences together, and report the seconds."""
    with Engine(model, n_threads=threads, cache_bytes=0) as engine:
        of = prompts(engine, 1, threads)
        ids = [next(of) for _ in range(count)]
        engine.generate_tokens(ids, max_tokens=1)
        ready.wait()
        start = time.perf_counter()
        engine.generate_tokens(ids, max_tokens=tokens)
        out.put(time.perf_counter() - start)


def processes(model: str, tokens: int, repeats: int) -> None:
    """One process with all threads, and one process for each core, with the same streams."""
    context = multiprocessing.get_context("spawn")
    for count in (CORES, 8):
        rates: dict[int, list[float]] = {1: [], CORES: []}
        for _ in range(repeats):
            for workers, measured in rates.items():
                ready, out = context.Barrier(workers), context.Queue()
                args = (model, CORES // workers, count // workers, tokens, ready, out)
                started = [context.Process(target=worker, args=args) for _ in range(workers)]
                for process in started:
                    process.start()
                measured.append(count * tokens / max(out.get() for _ in started))
                for process in started:
                    process.join()
        for workers, measured in rates.items():
            print(
                f"{Path(model).name}, {count} streams: {workers} processes of {CORES // workers} threads, "
                f"{statistics.median(measured):.1f} tokens/s",
                flush=True,
            )


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--packed", help="the same model, packed: for several processes (default: the model)")
    parser.add_argument("--context", type=int, default=256, help="tokens of each session (default: 256)")
    parser.add_argument("--tokens", type=int, default=16, help="tokens of each stream (default: 16)")
    parser.add_argument("--repeats", type=int, default=2, help="rounds; medians are shown (default: 2)")
    options = parser.parse_args()
    memory(options.model, options.context)
    streams(options.model, options.tokens, options.repeats)
    beside_a_prompt(options.model, options.tokens)
    processes(options.packed or options.model, options.tokens, options.repeats)


if __name__ == "__main__":
    main()
