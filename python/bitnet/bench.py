"""Measure a model's speed, and compare it with the limits of the machine: the library behind `bitnet bench`."""

import multiprocessing
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from . import Engine, __version__, dot_peak, look_up_peak, processor, read_bandwidth
from ._synthetic import synthetic

__all__ = [
    "Plan",
    "bench",
    "cache_bytes",
    "measure",
    "measurements",
    "step_seconds",
    "summary",
    "synthetic",
    "time_decode",
]


@dataclass(frozen=True)
class Plan:
    """What to measure, in tokens unless stated otherwise."""

    model: str
    """Path of the model file."""
    prompt: int
    """Length of the prompt that the prefill test computes."""
    tokens: int
    """Steps of each decode test."""
    depths: Sequence[int]
    """Positions that are in the KV cache before a decode test begins."""
    batches: Sequence[int]
    """Numbers of sequences that a decode test computes at once."""
    repeats: int
    """Rounds of everything; the report has the medians."""


def bench(
    plan: Plan, threads: Iterable[int], isas: Iterable[str | None], kv_types: Iterable[Literal["f16", "f32"]]
) -> dict[str, Any]:
    """Measure every combination of threads, instruction set and cache format, and return the report.

    Each combination runs in a process of its own, so that its peak memory can be measured.
    """
    return summary(plan) | {"runs": list(measurements(plan, threads, isas, kv_types))}


def summary(plan: Plan) -> dict[str, Any]:
    """The head of a report: what was measured, and where."""
    path = Path(plan.model)
    return {
        "version": __version__,
        "processor": processor()["name"],
        "cache_bytes": cache_bytes(),
        "model": {"path": os.fspath(path), "bytes": path.stat().st_size},
        "repeats": plan.repeats,
    }


def measurements(
    plan: Plan,
    threads: Iterable[int],
    isas: Iterable[str | None],
    kv_types: Iterable[Literal["f16", "f32"]],
    *,
    progress: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield the measurement of each combination as soon as it is done. See `bench` and `measure`."""
    for setting in product(threads, isas, kv_types):
        # Only this process reacts to Ctrl-C; leaving the `with` block then ends the child.
        ignore_ctrl_c = (signal.SIGINT, signal.SIG_IGN)
        with multiprocessing.get_context("spawn").Pool(1, signal.signal, ignore_ctrl_c) as process:
            run = process.apply(measure, (plan, *setting), {"progress": progress})
        yield run


def cache_bytes() -> int | None:
    """The size of this processor's largest cache (Linux; None elsewhere)."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max((int(size[:-1]) * units[size[-1]] for size in sizes if size[-1:] in units), default=None)


def measure(
    plan: Plan, n_threads: int, isa: str | None, kv_type: Literal["f16", "f32"], *, progress: bool = False
) -> dict[str, Any]:
    """Measure one combination in this process.

    Each round opens the model and measures everything once, the machine's limits included, so that a slow phase of the
    machine affects both. progress: show on standard error what is being measured.
    """

    def say(test: str) -> None:
        if progress:
            line = f"threads {n_threads}, round {round_ + 1} of {plan.repeats}: {test}" if test else ""
            print(f"\r{line:<78}\r", end="", file=sys.stderr, flush=True)

    before = _peak_resident_bytes()
    n_ctx = max(plan.prompt, max(plan.depths) + plan.tokens + 1)
    first_token: list[float] = []
    bandwidth: list[float] = []
    peak: list[float] = []
    looked_up: list[float] = []
    prefill: list[float] = []
    decode: dict[tuple[int, int], list[tuple[float, float]]] = {
        point: [] for point in product(sorted(plan.depths), plan.batches)
    }
    for round_ in range(plan.repeats):
        say(f"prefill {plan.prompt}")
        start = time.perf_counter()
        with Engine(plan.model, n_ctx=n_ctx, n_threads=n_threads, isa=isa, kv_type=kv_type) as engine:
            engine.generate_tokens([0], max_tokens=1)
            first_token.append(time.perf_counter() - start)
            ids = np.random.default_rng(0).integers(1, engine.n_vocab, n_ctx).tolist()
            prefill.append(engine.prefill(ids[: plan.prompt]).tokens_per_second)
            for depth, batch in decode:
                say(f"decode {plan.tokens}, depth {depth}, batch {batch}")
                engine.prefill(ids[:depth])
                prompts = [[*ids[:depth], ids[-1 - i % n_ctx]] for i in range(batch)]
                decode[depth, batch].append(time_decode(engine, prompts, plan.tokens))
            if round_ == 0:
                most = _peak_resident_bytes() - before
                say("the share of neurons that is read")
                ffn_read = _ffn_read(engine, ids[0], min(plan.tokens, 32))
            isa, memory, cost = engine.isa, engine.memory, engine.per_token
        say("the machine's limits")
        bandwidth.append(read_bandwidth(n_threads) * 1e9)
        peak.append(dot_peak(n_threads, isa))
        looked_up.append(look_up_peak(n_threads, isa))
        say("")

    arithmetic, look_ups = (
        statistics.median(rates) / cost["ternary_macs"] if cost["ternary_macs"] else None for rates in (peak, looked_up)
    )
    tests = [
        _row("prefill", plan.prompt, 0, 1, prefill, {"look-ups": look_ups} if look_ups else {"arithmetic": arithmetic})
    ]
    for (depth, batch), calls in decode.items():
        rates = [batch * plan.tokens / seconds for seconds in step_seconds(calls)]
        # A single sequence skips neurons. Half of their copy are the rows of `up`, half the columns of `down`.
        skipped = memory["neuron_copy"] * (1 - sum(ffn_read.values()) / 2) if ffn_read and batch == 1 else 0
        if batch == 1:
            skipped += memory["head_upper"] / 3  # six of eight bits are read
        # A recurrent state is read and written.
        read = (
            (cost["weight_bytes"] - skipped) / batch
            + cost["kv_bytes"] * (depth + plan.tokens / 2)
            + 2 * cost["state_bytes"]
        )
        limits = {"arithmetic": arithmetic, "memory": statistics.median(bandwidth) / read}
        tests.append(_row("decode", plan.tokens, depth, batch, rates, limits))
    return {
        "threads": n_threads,
        "isa": isa,
        "kv_type": kv_type,
        "open_to_first_token_seconds": _spread(first_token),
        "peak_memory_over_file": most / memory["file"] if before else None,
        "read_bytes_per_second": _spread(bandwidth),
        "multiply_adds_per_second": _spread(peak),
        "looked_up_per_second": _spread(looked_up),
        "per_token": cost,
        "ffn_read": ffn_read,
        "tests": tests,
    }


def time_decode(engine: Engine, prompts: list[list[int]], tokens: int) -> tuple[float, float]:
    """Time two calls: one that generates 1 token for each prompt, and one that generates `tokens` + 1.

    Both calls do the same work before the first token: they copy the warm cache's prefix and compute the rest of the
    prompts. So their difference is the time of `tokens` decode steps. Returns both times in seconds; the short call is
    timed twice, and the lesser time counts.
    """
    while True:
        times = [time.perf_counter()]
        for count in (1, tokens + 1, 1):
            engine.generate_tokens(prompts, max_tokens=count)
            times.append(time.perf_counter())
        before, long, after = (end - start for start, end in pairwise(times))
        if min(before, after) < long:  # otherwise the machine was held up in both short calls: measure again
            return min(before, after), long


def step_seconds(calls: Sequence[tuple[float, float]]) -> list[float]:
    """The decode time of each measurement by `time_decode`, in seconds for all its steps together.

    Subtracts the shortest of all short calls from each long one: a short call that was held up would make the decoding
    look faster than it is.
    """
    shortest = min(short for short, _ in calls)
    return [long - shortest for _, long in calls]


def _ffn_read(engine: Engine, first: int, tokens: int) -> dict[str, float] | None:
    """The shares of the rows of `up` and of the columns of `down` that single tokens read; None if they read all.

    A prompt of one token, so that every pass has a single row.
    """
    answer = engine.generate([first], max_tokens=tokens, ignore_eos=True)
    assert answer.receipt is not None
    run = answer.receipt.to_dict()["run"]
    return {"up": run["ffn_up_share"], "down": run["ffn_down_share"]} if "ffn_up_share" in run else None


def _row(
    kind: str, tokens: int, depth: int, batch: int, rates: list[float], limits: dict[str, float | None]
) -> dict[str, Any]:
    """One test of the report: its rate, the lowest limit, and the share of that limit which the rate reaches."""
    known = {name: limit for name, limit in limits.items() if limit is not None}
    by = min(known, key=known.__getitem__, default=None)
    return {
        "test": kind,
        "tokens": tokens,
        "depth": depth,
        "batch": batch,
        "tokens_per_second": _spread(rates),
        "limit": known[by] if by else None,
        "limited_by": by,
        "share_of_limit": statistics.median(rates) / known[by] if by else None,
    }


def _spread(values: list[float]) -> dict[str, float]:
    """The median, the minimum and the maximum of some measurements."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _peak_resident_bytes() -> int:
    """The peak resident memory of this process (Linux; 0 elsewhere)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
