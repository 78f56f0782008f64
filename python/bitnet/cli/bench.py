"""`bitnet bench`."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import inspect, isas, processor
from .._format import byte_size, escape_line
from ..errors import ArgumentError
from ._options import Commands, add_command, add_model, model_path

_SMALL = 8 << 20
"""Where the size of the cache is unknown: weights of at most this many bytes are taken to fit into it."""


def add_parser(commands: Commands) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands,
        "bench",
        run,
        help="measure a model's speed, and its share of this machine's limits",
        description="Measure prefill and decode in tokens per second, and the share of this machine's limit that they "
        "reach. The limit is what the processor can multiply or look up, or the memory can deliver: the lower one. "
        "Options that take a LIST, such as 1,2,4, measure every combination.",
    )
    add_model(command)
    command.add_argument(
        "-p",
        "--prompt",
        type=_count,
        default=512,
        metavar="N",
        help="tokens of the prefill test, at most the context (default: 512)",
    )
    command.add_argument(
        "-n",
        "--tokens",
        type=_count,
        default=128,
        metavar="N",
        help="tokens that each decode test generates, at most what the context holds (default: 128)",
    )
    command.add_argument(
        "-d",
        "--depth",
        type=_depths,
        default=[0],
        metavar="LIST",
        help="tokens in the KV cache before a decode test begins (default: 0)",
    )
    command.add_argument(
        "-b",
        "--batch",
        type=_counts,
        default=[1],
        metavar="LIST",
        help="sequences that a decode test computes at once (default: 1)",
    )
    command.add_argument(
        "-t",
        "--threads",
        type=_counts,
        default=[1, processor()["cores"]],
        metavar="LIST",
        help="threads that compute (default: both 1 and the number of available cores)",
    )
    command.add_argument(
        "-r",
        "--repeats",
        type=_count,
        default=3,
        metavar="N",
        help="rounds of all tests; the medians are shown (default: 3)",
    )
    command.add_argument(
        "--isa",
        type=_names(*isas()),
        default=[None],
        metavar="LIST",
        help="instruction sets, as `bitnet doctor` lists them (default: the best one)",
    )
    command.add_argument(
        "--kv-type",
        type=_names("f16", "f32"),
        default=["f16"],
        metavar="LIST",
        help="number formats of the KV cache: f16, f32 (default: f16)",
    )
    command.add_argument(
        "--json", action="store_true", help="print everything as JSON, with minimum and maximum beside each median"
    )


def run(options: argparse.Namespace) -> None:
    """Measure, and print the report."""
    from .. import bench  # here, because it loads numpy

    model = model_path(options.model)
    prompt, tokens = _fit(model, options)
    plan = bench.Plan(model, prompt, tokens, options.depth, options.batch, options.repeats)
    settings = (dict.fromkeys(options.threads), options.isa, options.kv_type)
    report = bench.summary(plan)
    runs = bench.measurements(plan, *settings, progress=bool(sys.stderr and sys.stderr.isatty()))
    if options.json:
        print(json.dumps(report | {"runs": list(runs)}, indent=1))
        return
    for number, measured in enumerate(runs):
        cached = measured["per_token"]["weight_bytes"] <= (report["cache_bytes"] or _SMALL)
        if number == 0:
            print(_head(report, measured["per_token"], cached))
        print(f"\n{_as_text(measured, cached)}", flush=True)


def _fit(model: str, options: argparse.Namespace) -> tuple[int, int]:
    """The lengths of the prefill test and of the decode tests, cut to the model's context if they are longer."""
    config = inspect(model)["config"]
    if config is None:  # it cannot be run: opening it will say why
        return options.prompt, options.tokens
    context, depth = config["context"], max(options.depth)
    if depth + 2 > context:
        raise ArgumentError(f"--depth {depth} is too long: the model has a context of {context} tokens")
    prompt, tokens = min(options.prompt, context), min(options.tokens, context - depth - 1)
    cut = [
        f"{name} {to} in place of {asked}"
        for name, asked, to in (("--prompt", options.prompt, prompt), ("--tokens", options.tokens, tokens))
        if to < asked
    ]
    if cut:
        print(f"bitnet: the model has a context of {context} tokens: {', '.join(cut)}", file=sys.stderr)
    return prompt, tokens


def _head(report: dict[str, Any], cost: dict[str, int], cached: bool) -> str:
    """What is measured, and on what."""
    weights = byte_size(cost["weight_bytes"])
    file = escape_line(Path(report["model"]["path"]).name)
    lines = [
        f"{report['processor']}, {file}: for one token, {weights} of weights and "
        f"{cost['ternary_macs'] / 1e6:.4g} M ternary multiply-adds"
    ]
    if cached:
        lines.append(
            "The weights fit into the processor's cache, so the speed of memory does not limit this model, and so "
            "small a model does not reach the processor's peak. No limits are shown."
        )
    return "\n".join(lines)


def _as_text(run: dict[str, Any], cached: bool) -> str:
    """The measurement of one combination as lines and a table. For a model in the cache, without limits."""
    line = (
        f"threads {run['threads']}, {run['isa']}, KV cache {run['kv_type']}: from opening to the first token "
        f"{run['open_to_first_token_seconds']['median']:.2f} s"
    )
    if run["ffn_read"]:
        up, down = (100 * run["ffn_read"][name] for name in ("up", "down"))
        line += f"\na token alone reads {up:.0f} % of the rows of up and {down:.0f} % of the columns of down"
    if cached:
        return "\n".join([line, f"{'':<32} {'tokens/s':>10}", *(_test_line(test, cached) for test in run["tests"])])
    most = run["peak_memory_over_file"]
    looked_up = run["looked_up_per_second"]["median"]
    return "\n".join(
        [
            line + (f", peak memory {most:.2f} times the file's size" if most is not None else ""),
            f"this machine reads {run['read_bytes_per_second']['median'] / 1e9:.1f} GB/s and does "
            f"{run['multiply_adds_per_second']['median'] / 1e9:.1f} G multiply-adds/s"
            + (f", {looked_up / 1e9:.1f} G/s by look-ups, which prompts go by" if looked_up else ""),
            f"{'':<32} {'tokens/s':>10} {'limit':>10}  share of the limit",
            *(_test_line(test, cached) for test in run["tests"]),
        ]
    )


def _test_line(test: dict[str, Any], cached: bool) -> str:
    """A test as a line of the table."""
    name = f"{test['test']} {test['tokens']}"
    name += f" at depth {test['depth']}" if test["depth"] else ""
    name += f", batch {test['batch']}" if test["batch"] > 1 else ""
    line = f"{name:<32} {test['tokens_per_second']['median']:>10.1f}"
    if test["limit"] is not None and not cached:
        line += f" {test['limit']:>10.1f}  {100 * test['share_of_limit']:.0f} % ({test['limited_by']})"
    return line


def _count(text: str, least: int = 1) -> int:
    """Parse a number of at least `least`."""
    if not text.strip().isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number of at least {least}")
    return int(text)


def _counts(text: str, least: int = 1) -> list[int]:
    """Parse a list of numbers with commas between them; a number that is repeated counts once."""
    return list(dict.fromkeys(_count(item, least) for item in text.split(",")))


def _depths(text: str) -> list[int]:
    """Parse a list of numbers, 0 included."""
    return _counts(text, least=0)


def _names(*known: str) -> Callable[[str], list[str]]:
    """The parser of a list of names with commas between them, all of which are in `known`."""

    def parse(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"found {name!r}, expected one of {', '.join(known)}")
        return list(dict.fromkeys(text.split(",")))

    return parse
