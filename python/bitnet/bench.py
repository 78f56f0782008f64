"""Measure a model, and how near it comes to what the machine can do: `bitnet bench`."""

import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from . import Engine, __version__, dot_peak, processor, read_bandwidth


@dataclass(frozen=True)
class Plan:
    """What is measured in each process."""

    model: str
    prompt: int
    tokens: int
    depths: Sequence[int]
    batches: Sequence[int]
    repeats: int


def bench(
    plan: Plan, threads: Iterable[int], isas: Iterable[str | None], kv_types: Iterable[Literal["f16", "f32"]]
) -> dict[str, Any]:
    """The report: a run for each combination, in a process of its own, so that its peak memory is its own."""
    runs = []
    for setting in product(threads, isas, kv_types):
        # Ctrl-C is for the parent, which ends the process.
        quiet = (signal.SIGINT, signal.SIG_IGN)
        with multiprocessing.get_context("spawn").Pool(1, signal.signal, quiet) as process:
            runs.append(process.apply(measure, (plan, *setting)))
    path = Path(plan.model)
    return {
        "version": __version__,
        "processor": processor()["name"],
        "model": {"path": os.fspath(path), "bytes": path.stat().st_size},
        "repeats": plan.repeats,
        "runs": runs,
    }


def measure(plan: Plan, n_threads: int, isa: str | None, kv_type: Literal["f16", "f32"]) -> dict[str, Any]:
    """One run. Each round opens the model and measures everything once, the machine as well."""
    before = peak_resident_bytes()
    n_ctx = max(plan.prompt, max(plan.depths) + plan.tokens + 1)
    first_token: list[float] = []
    bandwidth: list[float] = []
    peak: list[float] = []
    prefill: list[float] = []
    decode: dict[tuple[int, int], list[tuple[float, float]]] = {
        point: [] for point in product(sorted(plan.depths), plan.batches)
    }
    for round_ in range(plan.repeats):
        start = time.perf_counter()
        with Engine(plan.model, n_ctx=n_ctx, n_threads=n_threads, isa=isa, kv_type=kv_type) as engine:
            engine.generate_tokens([0], max_tokens=1)
            first_token.append(time.perf_counter() - start)
            ids = np.random.default_rng(0).integers(1, engine.n_vocab, n_ctx).tolist()
            prefill.append(engine.prefill(ids[: plan.prompt]).tokens_per_second)
            for depth, batch in decode:
                engine.prefill(ids[:depth])
                prompts = [[*ids[:depth], ids[-1 - i % n_ctx]] for i in range(batch)]
                decode[depth, batch].append(time_decode(engine, prompts, plan.tokens))
            if round_ == 0:
                most = peak_resident_bytes() - before
            isa, file, cost = engine.isa, engine.memory["file"], engine.per_token
        bandwidth.append(read_bandwidth(n_threads) * 1e9)
        peak.append(dot_peak(n_threads, isa))

    arithmetic = statistics.median(peak) / cost["ternary_macs"] if cost["ternary_macs"] else None
    tests = [test("prefill", plan.prompt, 0, 1, prefill, {"arithmetic": arithmetic})]
    for (depth, batch), calls in decode.items():
        rates = [batch * plan.tokens / seconds for seconds in step_seconds(calls)]
        read = cost["weight_bytes"] / batch + cost["kv_bytes"] * (depth + plan.tokens / 2)
        limits = {"arithmetic": arithmetic, "memory": statistics.median(bandwidth) / read}
        tests.append(test("decode", plan.tokens, depth, batch, rates, limits))
    return {
        "threads": n_threads,
        "isa": isa,
        "kv_type": kv_type,
        "open_to_first_token_seconds": spread(first_token),
        "peak_memory_over_file": most / file if before else None,
        "read_bytes_per_second": spread(bandwidth),
        "multiply_adds_per_second": spread(peak),
        "per_token": cost,
        "tests": tests,
    }


def time_decode(engine: Engine, prompts: list[list[int]], tokens: int) -> tuple[float, float]:
    """Seconds of a call that gives each prompt one token, the lesser of two, and of one that gives `tokens` more.

    Both copy what the warm cache holds of the prompts, and compute the rest of them.
    """
    while True:
        times = [time.perf_counter()]
        for count in (1, tokens + 1, 1):
            engine.generate_tokens(prompts, max_tokens=count)
            times.append(time.perf_counter())
        before, long, after = (end - start for start, end in pairwise(times))
        if min(before, after) < long:  # otherwise the machine paused in both short calls
            return min(before, after), long


def step_seconds(calls: Sequence[tuple[float, float]]) -> list[float]:
    """Seconds of the steps after the first, for each of `time_decode`'s measurements of the same thing.

    The shortest of the short calls is taken off each long one: a short call that was held up would pass for speed.
    """
    shortest = min(short for short, _ in calls)
    return [long - shortest for _, long in calls]


def test(
    kind: str, tokens: int, depth: int, batch: int, rates: list[float], limits: dict[str, float | None]
) -> dict[str, Any]:
    """One line of the table: the rate, and the share that it is of the lowest limit."""
    known = {name: limit for name, limit in limits.items() if limit is not None}
    by = min(known, key=known.__getitem__, default=None)
    return {
        "test": kind,
        "tokens": tokens,
        "depth": depth,
        "batch": batch,
        "tokens_per_second": spread(rates),
        "limit": known[by] if by else None,
        "limited_by": by,
        "share_of_limit": statistics.median(rates) / known[by] if by else None,
    }


def spread(values: list[float]) -> dict[str, float]:
    """The median of some measurements, with the least and the greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def peak_resident_bytes() -> int:
    """The most memory that this process has had resident (Linux; 0 elsewhere)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def shown(report: dict[str, Any]) -> str:
    """The report for people."""
    cost = report["runs"][0]["per_token"]
    lines = [
        f"{report['processor']}, {Path(report['model']['path']).name}: of weights, a token takes "
        f"{cost['weight_bytes'] / 1e6:.4g} MB and {cost['ternary_macs'] / 1e6:.4g} M ternary multiply-adds"
    ]
    for run in report["runs"]:
        most = run["peak_memory_over_file"]
        lines += [
            "",
            f"threads {run['threads']}, {run['isa']}, {run['kv_type']} cache: opens to the first token in "
            f"{run['open_to_first_token_seconds']['median']:.2f} s"
            + (f", peak memory {most:.2f} times the file" if most is not None else ""),
            f"the machine reads {run['read_bytes_per_second']['median'] / 1e9:.1f} GB/s and does "
            f"{run['multiply_adds_per_second']['median'] / 1e9:.1f} G multiply-adds/s",
            f"{'':<32} {'tokens/s':>10} {'limit':>10}  share",
        ]
        for row in run["tests"]:
            name = f"{row['test']} {row['tokens']}"
            name += f" at depth {row['depth']}" if row["depth"] else ""
            name += f", batch {row['batch']}" if row["batch"] > 1 else ""
            line = f"{name:<32} {row['tokens_per_second']['median']:>10.1f}"
            if row["limit"] is not None:
                line += f" {row['limit']:>10.1f}  {100 * row['share_of_limit']:.0f} % ({row['limited_by']})"
            lines.append(line)
    return "\n".join(lines)
