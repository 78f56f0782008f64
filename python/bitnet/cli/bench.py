"""`bitnet bench`."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import isas, processor
from .._format import byte_size
from ._options import Commands, add_command, add_model, model_path


def add_parser(commands: Commands) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands,
        "bench",
        run,
        help="measure a model's speed, and its share of this machine's limits",
        description="Measure prefill and decode in tokens per second, and the share of this machine's limit that they "
        "reach. The limit is what the processor can multiply or the memory can deliver, whichever is lower. Options "
        "that take a LIST, such as 1,2,4, measure every combination.",
    )
    add_model(command)
    command.add_argument(
        "-p", "--prompt", type=_count, default=512, metavar="N", help="tokens of the prefill test (default: 512)"
    )
    command.add_argument(
        "-n",
        "--tokens",
        type=_count,
        default=128,
        metavar="N",
        help="tokens that each decode test generates (default: 128)",
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
        help="threads that compute (default: 1, and one per available core)",
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
    plan = bench.Plan(model, options.prompt, options.tokens, options.depth, options.batch, options.repeats)
    report = bench.bench(plan, dict.fromkeys(options.threads), options.isa, options.kv_type)
    print(json.dumps(report, indent=1) if options.json else _as_text(report))


def _as_text(report: dict[str, Any]) -> str:
    """The report as lines and tables."""
    cost = report["runs"][0]["per_token"]
    lines = [
        f"{report['processor']}, {Path(report['model']['path']).name}: for one token, "
        f"{byte_size(cost['weight_bytes'])} of weights and {cost['ternary_macs'] / 1e6:.4g} M ternary multiply-adds"
    ]
    for run in report["runs"]:
        most = run["peak_memory_over_file"]
        lines += [
            "",
            f"threads {run['threads']}, {run['isa']}, KV cache {run['kv_type']}: from opening to the first token "
            f"{run['open_to_first_token_seconds']['median']:.2f} s"
            + (f", peak memory {most:.2f} times the file's size" if most is not None else ""),
            f"this machine reads {run['read_bytes_per_second']['median'] / 1e9:.1f} GB/s and does "
            f"{run['multiply_adds_per_second']['median'] / 1e9:.1f} G multiply-adds/s",
            f"{'':<32} {'tokens/s':>10} {'limit':>10}  share of the limit",
        ]
        lines += map(_test_line, run["tests"])
    return "\n".join(lines)


def _test_line(test: dict[str, Any]) -> str:
    """A test as a line of the table."""
    name = f"{test['test']} {test['tokens']}"
    name += f" at depth {test['depth']}" if test["depth"] else ""
    name += f", batch {test['batch']}" if test["batch"] > 1 else ""
    line = f"{name:<32} {test['tokens_per_second']['median']:>10.1f}"
    if test["limit"] is not None:
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
