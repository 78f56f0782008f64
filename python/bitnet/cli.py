"""The command `bitnet`."""

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from . import Engine, Tokenizer, __version__, inspect, isas, processor, read_bandwidth
from .errors import BitnetError

FAILED = 2
INTERRUPTED = 130
SHOWN = 72
"""Characters of a metadata value that are shown."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, 2 after an error, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = parser().parse_args(argv)
    try:
        options.run(options)
        if sys.stdout:  # None if it was closed before Python started
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader has left. Python flushes stdout once more at exit: give it somewhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (BitnetError, OSError) as error:
        print(f"bitnet: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="bitnet", description="Ternary language models on an ordinary processor.")
    top.add_argument("--version", action="version", version=f"bitnet {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = commands.add_parser("inspect", help="show what is in a model file and how it would be run")
    command.add_argument("model", metavar="MODEL", help="a GGUF file")
    command.add_argument("--tensors", action="store_true", help="list every tensor")
    command.add_argument("--json", action="store_true", help="print everything as JSON")
    command.set_defaults(run=run_inspect)

    command = commands.add_parser("doctor", help="show what this machine has and what the engine would use")
    command.add_argument("--json", action="store_true", help="print it as JSON")
    command.set_defaults(run=run_doctor)

    command = commands.add_parser("run", help="continue a prompt")
    command.add_argument("model", metavar="MODEL", help="a GGUF file")
    command.add_argument("-p", "--prompt", required=True, help="the text to continue; - reads it from standard input")
    command.add_argument("-n", "--max-tokens", type=int, help="tokens at most (default: to the end)")
    command.add_argument("-t", "--threads", type=int, help="threads that compute (default: all)")
    command.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token (default)")
    command.add_argument("--top-k", type=int, default=0)
    command.add_argument("--top-p", type=float, default=1.0)
    command.add_argument("--seed", type=int)
    command.add_argument("--stop", action="append", default=[], help="a text that ends the answer")
    command.set_defaults(run=run_run)

    command = commands.add_parser("tokenize", help="show the tokens of a text")
    command.add_argument("model", metavar="MODEL", help="a GGUF file")
    command.add_argument("text", metavar="TEXT", help="- reads it from standard input")
    command.add_argument("--parse-special", action="store_true", help="recognise control tokens in the text")
    command.add_argument("--ids", action="store_true", help="print the ids alone, on one line")
    command.set_defaults(run=run_tokenize)
    return top


def run_inspect(options: argparse.Namespace) -> None:
    """`bitnet inspect MODEL`."""
    model = inspect(options.model)
    if options.json:
        print(json.dumps(model, indent=1, default=os.fspath))
        return
    head = {
        "file": f"{model['path']} (GGUF version {model['version']}, {size(model['file_size'])})",
        "architecture": model["arch"],
    }
    table(head | ({"cannot be run": model["error"]} if model["error"] else verdicts(model)))
    print("\ntensors")
    table({f"  {name}": f"{t['tensors']}, {size(t['bytes'])}" for name, t in model["types"].items()})
    if options.tensors:
        print()
        for tensor in model["tensors"]:
            shape = " x ".join(map(str, tensor["shape"]))
            print(f"  {tensor['name']:<32} {tensor['type']:<7} {shape:<16} {size(tensor['bytes'])}")
    print("\nmetadata")
    table({f"  {entry['key']}": shown(entry["value"]) for entry in model["metadata"]})
    for warning in model["warnings"]:
        print(f"\nwarning: {warning}")


def verdicts(model: dict[str, Any]) -> dict[str, Any]:
    """How the engine runs a model."""
    config = model["config"]
    output = "tied to the embedding" if config["tied"] else "of its own"
    return {
        "layers": config["layers"],
        "width": f"{config['width']}, feed-forward {config['ffn']}",
        "heads": f"{config['heads']} of {config['head_dim']} channels, {config['kv_heads']} for keys and values",
        "vocabulary": f"{config['vocab']}, output head {output}",
        "context": config["context"],
        "constants": f"rope theta {config['rope_theta']:g}, norm epsilon {config['eps']:g}",
        "activation": model["activation"],
        "act_quant": f"{model['act_quant']} ({model['act_quant_reason']})",
    }


def run_doctor(options: argparse.Namespace) -> None:
    """`bitnet doctor`."""
    machine = processor()
    cores = machine["cores"]
    chosen = os.environ.get("BITNET_ISA") or isas()[-1]
    report: dict[str, Any] = {
        "version": __version__,
        "processor": machine["name"],
        "target": machine["target"],
        "instruction_sets": machine["isas"],
        "chosen": chosen,
        "threads": cores,
        "memory_bytes": memory(),
        "read_gb_per_s": {n: round(read_bandwidth(n), 1) for n in dict.fromkeys([1, cores])},
    }
    if options.json:
        print(json.dumps(report, indent=1))
        return
    origin = "by BITNET_ISA" if os.environ.get("BITNET_ISA") else "the best"
    known = chosen in machine["isas"]
    table(
        {
            "bitnet": report["version"],
            "processor": f"{report['processor']} ({report['target']})",
            "instruction sets": ", ".join(machine["isas"]),
            "chosen": f"{chosen} ({origin})" if known else f"{chosen} (by BITNET_ISA), which this processor lacks",
            "threads": cores,
            "memory": size(report["memory_bytes"]) if report["memory_bytes"] else "unknown",
            "read bandwidth": ", ".join(f"{rate} GB/s with {n}" for n, rate in report["read_gb_per_s"].items()),
        }
    )


def given(text: str) -> str:
    """An argument that may stand for standard input."""
    return sys.stdin.read() if text == "-" else text


def run_run(options: argparse.Namespace) -> None:
    """`bitnet run MODEL -p PROMPT`."""
    with Engine(options.model, n_threads=options.threads) as engine:
        answer = engine.stream(
            given(options.prompt),
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            seed=options.seed,
            stop=options.stop,
        )
        for piece in answer:
            print(piece.text, end="", flush=True)
        print()


def run_tokenize(options: argparse.Namespace) -> None:
    """`bitnet tokenize MODEL TEXT`."""
    tokenizer = Tokenizer(options.model)
    ids = tokenizer.encode(given(options.text), parse_special=options.parse_special)
    if options.ids:
        print(*ids)
        return
    for token in ids:
        print(f"{token:>8}  {tokenizer.decode([token], skip_special_tokens=False)!r}")


def memory() -> int | None:
    """Bytes of memory in this machine, where the system tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def table(rows: dict[str, Any]) -> None:
    """Print names and values in two columns."""
    width = max(map(len, rows), default=0)
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")


def size(count: int) -> str:
    """A number of bytes for people."""
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}" if unit != "bytes" else f"{count} bytes"
        value /= 1000
    return f"{value:.3g} GB"


def shown(value: Any) -> str:
    """A metadata value as JSON writes it, cut to one line of at most `SHOWN` characters."""
    line = json.dumps(value, ensure_ascii=False)
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
