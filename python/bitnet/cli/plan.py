"""`bitnet plan`."""

import argparse
import json
from pathlib import Path
from typing import Any

from .._format import byte_size, two_columns
from ._options import Commands, add_command, add_model, add_option, add_threads, model_path, whole


def add_parser(commands: Commands) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands,
        "plan",
        run,
        help="plan how many sessions this machine can serve: memory, limits of speed",
        description="Show what a number of sessions needs of this machine: memory of weights, KV caches and buffers, "
        "how many sessions fit, the tokens per second that the machine allows, and what to change. The model is opened "
        "for it and has to fit into memory. The rates are limits by read bandwidth and arithmetic, which are measured; "
        "the model's own speed is not (see `bitnet bench`).",
    )
    add_model(command)
    command.add_argument(
        "-n",
        "--sessions",
        type=whole,
        default=1,
        metavar="N",
        help="sessions (conversations or streams) that are kept at once, in all processes together (default: 1)",
    )
    add_option(
        command,
        "-c",
        "--context",
        dest="ctx",
        type=whole,
        metavar="C",
        help="tokens of each session, prompt and answers together (default: the model's own context, at most 4096)",
    )
    command.add_argument(
        "--kv-type",
        choices=["f16", "f32"],
        default="f16",
        help="number format of the KV cache; f32 takes twice the memory (default: f16)",
    )
    command.add_argument(
        "--max-batch",
        type=whole,
        metavar="N",
        help="streams that one forward pass advances, in each process (default: 32)",
    )
    command.add_argument(
        "--cache-bytes",
        type=whole,
        metavar="N",
        help="bytes of each process's prefix cache (default: 512 MiB, or what one session takes if that is more)",
    )
    command.add_argument(
        "--processes", type=whole, default=1, metavar="N", help="processes that share the sessions (default: 1)"
    )
    add_threads(command, "threads of all processes together (default: one per available core)")
    command.add_argument("--json", action="store_true", help="print everything as JSON")


def run(options: argparse.Namespace) -> None:
    """Plan, and print it."""
    from ..sizing import plan  # here, because it loads numpy

    planned = plan(
        model_path(options.model),
        options.sessions,
        options.ctx,
        kv_type=options.kv_type,
        max_batch=options.max_batch,
        cache_bytes=options.cache_bytes,
        processes=options.processes,
        n_threads=options.threads,
    )
    print(json.dumps(planned, indent=1) if options.json else _as_text(planned))


def _as_text(planned: dict[str, Any]) -> str:
    """The plan as lines."""
    session, memory = planned["session"], planned["memory"]
    states = session["state_bytes"] + session["mark_bytes"]
    each = f"{byte_size(session['kv_bytes'])} of keys and values"
    each += f", {byte_size(states)} of recurrent states" if states else ""
    each += f", {byte_size(session['padding_bytes'])} at the ends of huge pages" if session["padding_bytes"] else ""
    available = memory["available"]
    free = "unknown" if available is None else byte_size(available)
    fits = {True: "fits", False: "does not fit", None: "memory unknown"}[memory["fits"]]
    sessions, processes, threads = planned["sessions"], planned["processes"], planned["threads"]
    rows = {
        "model": f"{Path(planned['model']['path']).name} ({planned['model']['arch']})",
        "plan": f"{_count(sessions, 'session')} of {planned['context']} tokens each, KV cache {planned['kv_type']}; "
        f"{_count(processes, 'process')}, {_count(threads, 'thread')}",
        "memory of a session": each,
        "sessions": f"{byte_size(memory['sessions'])} with full contexts",
        "weights": f"{byte_size(memory['weights'])} packed in memory"
        + _each(processes)
        + (f"; {byte_size(memory['shared_weights'])} of the mapped file, shared" if memory["shared_weights"] else ""),
        "copy of the head": byte_size(memory["head_copies"]) + _each(processes),
        "copy of neurons": byte_size(memory["neuron_copies"]) + _each(processes),
        "prefix cache": f"at most {byte_size(memory['prefix_caches'])}" + _each(processes),
        "buffers of a pass": f"about {byte_size(memory['pass_buffers'])}" + _each(processes),
        "Python and the rest": f"about {byte_size(memory['interpreters'])}" + _each(processes),
        "total": f"{byte_size(memory['total'])} of {free} free: {fits}",
    }
    if planned["max_sessions"] is not None:
        rows["sessions that fit"] = planned["max_sessions"]
    rows["this machine"] = (
        f"reads {planned['read_bytes_per_second'] / 1e9:.1f} GB/s and does "
        f"{planned['multiply_adds_per_second'] / 1e9:.1f} G multiply-adds/s (measured now)"
    )
    rates = ["", *_rates(planned)] if planned["rates"] else []
    return "\n".join([two_columns(rows), *rates, "", *planned["advice"]])


def _rates(planned: dict[str, Any]) -> list[str]:
    """The table of limits."""
    by_depth = [[rate for rate in planned["rates"] if rate["depth"] == at] for at in (0, planned["context"])]
    lines = [
        "Limits of this machine in tokens/s, not measurements; see docs/sizing.md for what was reached.",
        *([f"prompts, all together: {planned['prompt_rate']:.1f}"] if planned["prompt_rate"] else []),
        f"{'streams':>7}  {'empty contexts: each':>21} {'all':>8}  {'full contexts: each':>20} {'all':>8}",
    ]
    for pair in zip(*by_depth, strict=True):
        (each, all_), (full_each, full_all) = (
            (rate["tokens_per_second_each"], rate["tokens_per_second"]) for rate in pair
        )
        bounds = " and ".join(dict.fromkeys(rate["limited_by"] for rate in pair))
        lines.append(
            f"{pair[0]['streams']:>7}  {each:>21.1f} {all_:>8.1f}  {full_each:>20.1f} {full_all:>8.1f}  {bounds}"
        )
    return lines


def _count(number: int, of: str) -> str:
    """A number of things in words."""
    return f"{number} {of}" if number == 1 else f"{number} {of}{'es' if of.endswith('s') else 's'}"


def _each(processes: int) -> str:
    """That a figure is the sum of several processes."""
    return f" in {processes} processes" if processes > 1 else ""
