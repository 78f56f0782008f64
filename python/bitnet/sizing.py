"""Plan how many sessions a machine can serve: memory, limits of speed. The library behind `bitnet plan`."""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from . import Engine, dot_peak, look_up_peak, processor, read_bandwidth
from ._machine import machine
from ._sizing_advice import advice
from .bench import cache_bytes as processor_cache_bytes
from .errors import ArgumentError

__all__ = ["Memory", "Session", "plan"]

PAGE = 64
"""Positions of a page of the KV cache; a sequence takes whole pages."""
MARK_BYTES, MARKS = 320 << 20, 64
"""The most bytes, and the most states, of the marks of a sequence; one mark is always kept."""
HUGE_PAGE = 2 << 20
"""The size of a huge page. Pages of the KV cache and states of at least this size are made of whole ones."""
PYTHON_BYTES = 40 << 20
"""Memory of a Python process that has imported bitnet and numpy."""
SMALL = 8 << 20
"""Where the size of the processor's cache is unknown: weights of at most this many bytes are taken to fit into it."""


@dataclass(frozen=True)
class Session:
    """Memory of one session with a full context, in bytes."""

    kv_bytes: int
    """Keys and values of its tokens, in whole pages."""
    state_bytes: int
    """Its recurrent state; 0 without gated delta nets."""
    mark_bytes: int
    """The most that earlier states take, which it keeps to go back to."""

    padding_bytes: int
    """What is lost at the ends of huge pages, where the system has them."""

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.kv_bytes + self.state_bytes + self.mark_bytes + self.padding_bytes

    @staticmethod
    def of(per_token: dict[str, int], context: int, huge_pages: bool) -> "Session":
        """The session of a model that costs this per token (`Engine.per_token`)."""

        def padding(part: int) -> int:
            return -part % HUGE_PAGE if huge_pages and part >= HUGE_PAGE else 0

        page, state = per_token["kv_bytes"] * PAGE, per_token["state_bytes"]
        pages = -(-context // PAGE)
        marks = min(max(MARK_BYTES // state, 1), MARKS) if state else 0
        lost = pages * padding(page) + (1 + marks) * padding(state)
        return Session(pages * page, state, marks * state, lost)


@dataclass(frozen=True)
class Memory:
    """Memory of all processes together, in bytes. `total` is the sum of the others."""

    weights: int
    """Weights that each process has for itself, times the processes."""
    head_copies: int
    """The copy of the output head, if each process has one for itself, and its upper six bits."""
    neuron_copies: int
    """The copy of the feed-forward networks in which a single stream skips zeros; 0 for models that have none."""
    shared_weights: int
    """Weights that are read from the mapped file. Processes share them."""
    sessions: int
    """Keys, values and states of all sessions."""
    prefix_caches: int
    """The most that the prefix caches hold beside the sessions."""
    pass_buffers: int
    """Buffers of a forward pass: an estimate."""
    interpreters: int
    """Python, the tokenizer and other small things: an estimate."""

    @property
    def total(self) -> int:
        """The sum."""
        return sum(asdict(self).values())

    @property
    def fixed(self) -> int:
        """What does not depend on the number of sessions."""
        return self.total - self.sessions


def plan(
    model: str | os.PathLike[str] | None = None,
    sessions: int = 1,
    context: int | None = None,
    *,
    kv_type: Literal["f16", "f32"] = "f16",
    max_batch: int | None = None,
    cache_bytes: int | None = None,
    processes: int = 1,
    n_threads: int | None = None,
) -> dict[str, Any]:
    """Plan `sessions` sessions of `context` tokens each on this machine.

    The model is opened and computes two tokens, so that the sizes are those of an engine: it has to fit into memory
    once. Read bandwidth and multiply-adds of the machine are measured, which takes about a second. The rates that
    follow are limits, which no engine exceeds; they are not measurements of the model.

    Args:
        model: As for `Engine`.
        sessions: Number of sessions: conversations or streams that are kept at once, in all processes together.
        context: Tokens of each, prompt and answers together. Default: the model's context, at most 4096.
        kv_type: As for `Engine`.
        max_batch: As for `Engine`, for each process.
        cache_bytes: As for `Engine`, for each process.
        processes: Number of processes, which share the sessions and the threads.
        n_threads: Threads of all processes together. Default: all processors that this process may use.

    Returns:
        A dict of numbers and texts that `json.dumps` accepts. session: the fields of `Session`; memory: those of
        `Memory`, with total, available (None if the system does not tell) and fits; max_sessions: how many sessions fit
        (None as before); max_context: with how many tokens each all would fit, if they do not (None otherwise); rates:
        for each number of streams that decode at once, with empty (depth 0) and full contexts, the limit of tokens per
        second of each stream and of all, and what sets it ("memory" or "arithmetic"); prompt_rate: the limit of tokens
        per second of a prompt. Both are None for a model that fits into the processor's cache, for which these limits
        mean nothing. advice: sentences.

    Raises ArgumentError for an argument out of range, and the errors of `Engine`.

    >>> from bitnet.sizing import plan
    >>> planned = plan(sessions=10, context=256)
    >>> planned["memory"]["sessions"] == 10 * planned["session"]["bytes"]
    True
    """
    for name, value in (("sessions", sessions), ("processes", processes), ("context", context)):
        if value is None and name == "context":
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an int, found {type(value).__name__}")
        if value < 1 and name != "context":  # `Engine` refuses that
            raise ArgumentError(f"{name} is {value}, expected at least 1")
    if sessions < processes:
        raise ArgumentError(f"processes is {processes}, expected at most {sessions}, the number of sessions")
    here = machine()
    available, huge_pages = here.available, here.huge_pages in ("always", "madvise")
    before = _private_bytes()
    options: dict[str, Any] = {"kv_type": kv_type, "max_batch": max_batch, "cache_bytes": cache_bytes}
    with Engine(model, n_ctx=context, n_threads=n_threads, **options) as engine:
        engine.generate_tokens([0], max_tokens=1)  # makes the copies
        row = _row_bytes(engine)
        per_token, found, n_threads, isa = engine.per_token, engine.memory, engine.n_threads, engine.isa
        context, max_batch, cache_bytes = engine.n_ctx, engine.max_batch, engine.cache_bytes
        each = -(-sessions // processes)
        streams = min(max_batch, each)
        own = found["packed_weights"] + found["head_copy"]
        copied = found["neuron_copy"]
        upper = found["head_upper"]
        small = max(_private_bytes() - before - own - copied - upper - found["kv_cache"], 0) + PYTHON_BYTES
        # Of a stream that decodes: its logits with their two bounds, and the next state beside the one that it keeps.
        buffers = engine.n_batch * row + streams * (12 * engine.n_vocab + per_token["state_bytes"])
        about = {"path": os.fspath(engine.path), "arch": engine.arch, "file_bytes": found["file"]}
    session = Session.of(per_token, context, huge_pages)
    memory = Memory(
        weights=processes * found["packed_weights"],
        head_copies=processes * (found["head_copy"] + upper),
        neuron_copies=processes * copied,
        shared_weights=per_token["weight_bytes"] - own,
        sessions=sessions * session.bytes,
        prefix_caches=processes * cache_bytes * session.bytes // (session.bytes - session.padding_bytes),
        pass_buffers=processes * buffers,
        interpreters=processes * small,
    )
    max_context = None
    if available is not None and memory.total > available:
        shorter = range((context - 1) // PAGE * PAGE, 0, -PAGE)
        left = available - memory.fixed
        fit = (at for at in shorter if sessions * Session.of(per_token, at, huge_pages).bytes <= left)
        max_context = next(fit, None)
    bandwidth, peak = read_bandwidth(n_threads) * 1e9, dot_peak(n_threads, isa)
    is_cached = per_token["weight_bytes"] <= (processor_cache_bytes() or SMALL)
    macs = per_token["ternary_macs"]
    planned: dict[str, Any] = {
        "model": about,
        "sessions": sessions,
        "context": context,
        "processes": processes,
        "threads": n_threads,
        "cores": processor()["cores"],
        "kv_type": kv_type,
        "max_batch": max_batch,
        "per_token": per_token,
        "session": asdict(session) | {"bytes": session.bytes},
        "memory": asdict(memory)
        | {
            "total": memory.total,
            "available": available,
            "fits": None if available is None else memory.total <= available,
        },
        "max_sessions": None if available is None else max(available - memory.fixed, 0) // session.bytes,
        "max_context": max_context,
        "read_bytes_per_second": bandwidth,
        "multiply_adds_per_second": peak,
        "rates": None
        if is_cached
        else [
            _rate(n, depth, processes, per_token, bandwidth, peak, copied + upper // 3)
            for n in _streams(streams, processes)
            for depth in (0, context)
        ],
        "prompt_rate": None if is_cached or not macs else (look_up_peak(n_threads, isa) or peak) / macs,
    }
    return planned | {"advice": advice(planned)}


def _streams(most: int, processes: int) -> Iterable[int]:
    """Numbers of streams that decode at once: 1, 2, 4, and so on in each process, up to `most`; and one alone."""
    powers = [1 << i for i in range(most.bit_length()) if 1 << i < most]
    return dict.fromkeys([1, *(processes * batch for batch in [*powers, most])])


def _rate(
    streams: int,
    depth: int,
    processes: int,
    per_token: dict[str, int],
    bandwidth: float,
    peak: float,
    skippable: int = 0,
) -> dict[str, Any]:
    """The limit of so many streams that decode at once, each behind `depth` tokens.

    Each process that decodes reads the weights; each stream reads its keys and values, and reads and writes its state.
    A process with a single stream may skip `skippable` bytes of the weights. How many it skips depends on the text, so
    the limit is that of skipping all.
    """
    weights = min(streams, processes) * (per_token["weight_bytes"] - (skippable if streams <= processes else 0))
    own = per_token["kv_bytes"] * depth + 2 * per_token["state_bytes"]
    seconds = {
        "memory": (weights + streams * own) / bandwidth,
        "arithmetic": streams * per_token["ternary_macs"] / peak,
    }
    by = max(seconds, key=seconds.__getitem__)
    return {
        "streams": streams,
        "depth": depth,
        "tokens_per_second_each": 1 / seconds[by],
        "tokens_per_second": streams / seconds[by],
        "limited_by": by,
        "share_of_own_reads": streams * own / (weights + streams * own),
    }


def _row_bytes(engine: Engine) -> int:
    """About how many bytes the buffers of a pass take for each token: inputs and outputs of a layer, as floats."""
    trace = engine.trace([0])
    widths = [
        sum(linear.x.shape[1] // 4 + linear.output.shape[1] for linear in layer.projections.values())
        + 4 * layer.hidden.shape[1]
        for layer in trace.layers.values()
    ]
    return 4 * int(max(widths))


def _private_bytes() -> int:
    """Memory of this process without pages of files (Linux; 0 elsewhere)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)
