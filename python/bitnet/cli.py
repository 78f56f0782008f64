"""The command `bitnet`."""

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from . import (
    ChatSession,
    Engine,
    Template,
    Tokenizer,
    __version__,
    batch,
    bench,
    inspect,
    isas,
    processor,
    read_bandwidth,
    _receipts,
)
from .errors import ArgumentError, BitnetError
from .hub import local
from .models import card, inside
from .picture import picture, unseen
from .repl import Receipts, Repl

FAILED = 2
INTERRUPTED = 130
SHOWN = 72
"""Characters of a metadata value that are shown."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, 1 if receipts fail, 2 after an error, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = parser().parse_args(argv)
    status: int | None = 0
    try:
        for name in ("model", "source"):
            if isinstance(model := getattr(options, name, None), str):
                setattr(options, name, local(model))
        status = options.run(options)
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
    return status or 0


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="bitnet", description="Ternary language models on an ordinary processor.")
    top.add_argument("--version", action="version", version=f"bitnet {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = commands.add_parser("inspect", help="show what is in a model file and how it would be run")
    command.add_argument(
        "model", metavar="MODEL", nargs="?", help="a GGUF file, or hf:owner/name (default: the model inside)"
    )
    command.add_argument("--tensors", action="store_true", help="list every tensor")
    command.add_argument("--json", action="store_true", help="print everything as JSON")
    command.set_defaults(run=run_inspect)

    command = commands.add_parser("doctor", help="show what this machine has and what the engine would use")
    command.add_argument("--json", action="store_true", help="print it as JSON")
    command.set_defaults(run=run_doctor)

    command = commands.add_parser("chat", help="talk with a model")
    add_engine_options(command)
    add_chat_options(command)
    add_sampling_options(command)
    command.add_argument("--history", type=Path, metavar="FILE", help="keep the inputs of a terminal in this file")
    command.set_defaults(run=run_chat)

    command = commands.add_parser("run", help="continue a prompt, or answer it with --chat; or a file of them")
    add_engine_options(command)
    prompt = command.add_mutually_exclusive_group(required=True)
    prompt.add_argument("-p", "--prompt", help="the text to continue; - reads it from standard input")
    prompt.add_argument(
        "--input",
        type=Path,
        metavar="FILE",
        help='a request a line, as JSON: {"prompt": ...} or {"messages": ...}, if wanted with "id", "max_tokens" ...; '
        "- reads them from standard input",
    )
    command.add_argument(
        "--output", type=Path, metavar="FILE", help="for --input: an answer a line; goes on with what it holds"
    )
    command.add_argument("--chat", action="store_true", help="answer the prompt through the model's chat template")
    add_chat_options(command)
    add_sampling_options(command)
    command.set_defaults(run=run_run)

    command = commands.add_parser("bench", help="measure a model, and how near it comes to what this machine can do")
    command.add_argument(
        "model", metavar="MODEL", nargs="?", help="a GGUF file, or hf:owner/name (default: the model inside)"
    )
    cores = processor()["cores"]
    command.add_argument("-p", "--prompt", type=count, default=512, help="tokens of the prefill (default: 512)")
    command.add_argument("-n", "--tokens", type=count, default=128, help="steps of the decoding (default: 128)")
    command.add_argument(
        "-d", "--depth", type=depths, default=[0], help="positions before the decoding, as a list (default: 0)"
    )
    command.add_argument(
        "-b", "--batch", type=counts, default=[1], help="sequences that are decoded at once, as a list (default: 1)"
    )
    command.add_argument(
        "-t", "--threads", type=counts, default=[1, cores], help=f"threads that compute, as a list (default: 1,{cores})"
    )
    command.add_argument("-r", "--repeats", type=count, default=3, help="rounds that give the medians (default: 3)")
    command.add_argument("--isa", type=one_of(*isas()), default=[None], help="instruction sets, as a list")
    command.add_argument(
        "--kv-type", type=one_of("f16", "f32"), default=["f16"], help="how keys and values are stored, as a list"
    )
    command.add_argument("--json", action="store_true", help="print everything as JSON, with least and greatest values")
    command.set_defaults(run=run_bench)

    command = commands.add_parser("tokenize", help="show the tokens of a text")
    command.add_argument("model", metavar="MODEL", help="a GGUF file, or hf:owner/name")
    command.add_argument("text", metavar="TEXT", help="- reads it from standard input")
    command.add_argument("--parse-special", action="store_true", help="recognise control tokens in the text")
    command.add_argument("--ids", action="store_true", help="print the ids alone, on one line")
    command.set_defaults(run=run_tokenize)

    command = commands.add_parser("template", help="show the prompt that a chat template makes of a conversation")
    command.add_argument("source", metavar="MODEL_OR_JINJA", help="a GGUF file, or a file with a Jinja source")
    command.add_argument("--messages", metavar="FILE", help="a JSON list of messages; - reads it from standard input")
    command.add_argument("--system", help="a system prompt before them")
    command.add_argument("--user", help="a question after them")
    command.add_argument("--template", metavar="NAME_OR_FILE", help="use this template in place of the model's")
    command.add_argument("--no-generation-prompt", action="store_true", help="do not begin the assistant's turn")
    command.add_argument("--show", action="store_true", help="show which part of the prompt who wrote")
    command.add_argument("--tokens", action="store_true", help="the same with the tokens of a model file's tokenizer")
    command.add_argument("--source", action="store_true", dest="show_source", help="print the template, not a prompt")
    command.set_defaults(run=run_template)

    _receipts.add_command(commands)
    return top


def add_engine_options(command: argparse.ArgumentParser) -> None:
    """The model, and how it is opened."""
    command.add_argument(
        "model", metavar="MODEL", nargs="?", help="a GGUF file, or hf:owner/name (default: the model inside)"
    )
    command.add_argument("-t", "--threads", type=int, help="threads that compute (default: all)")
    command.add_argument("-c", "--ctx", type=int, help="positions of the context (default: the model's, at most 4096)")
    command.add_argument("--kv-type", choices=["f16", "f32"], default="f16", help="how keys and values are stored")


def add_chat_options(command: argparse.ArgumentParser) -> None:
    """How a conversation is formatted, and where its receipts go."""
    command.add_argument("-s", "--system", help="the system prompt")
    command.add_argument(
        "--template", help="a built-in chat template, or a file with a Jinja source (default: the model's)"
    )
    command.add_argument(
        "--receipt-dir",
        "--emit-receipt-dir",
        type=Path,
        metavar="DIR",
        help="write each answer's receipt into this folder, and the newest as inference.json",
    )


def add_sampling_options(command: argparse.ArgumentParser) -> None:
    """How ids are chosen."""
    command.add_argument("-n", "--max-tokens", type=int, help="tokens at most (default: to the end)")
    command.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token (default)")
    command.add_argument("--top-k", type=int, default=0, help="draw among this many (default: all)")
    command.add_argument("--top-p", type=float, default=1.0, help="draw among the likeliest that reach this share")
    command.add_argument("--min-p", type=float, default=0.0, help="draw among those at least this likely, to the best")
    command.add_argument("--repetition-penalty", type=float, default=1.0, help="above 1: repeat less")
    command.add_argument("--seed", type=int, help="of the draws (default: chosen anew)")
    command.add_argument("--stop", action="append", default=[], help="a text that ends the answer")


def count(text: str, least: int = 1) -> int:
    """An argument that is a number."""
    if not text.strip().isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number from {least} up")
    return int(text)


def counts(text: str, least: int = 1) -> list[int]:
    """An argument that is a list of numbers, each once."""
    return list(dict.fromkeys(count(item, least) for item in text.split(",")))


def depths(text: str) -> list[int]:
    """The same from 0 up."""
    return counts(text, least=0)


def one_of(*known: str) -> Callable[[str], list[str]]:
    """The type of an argument that is a list of these names, each once."""

    def names(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"found {name!r}, expected {', '.join(known)}")
        return list(dict.fromkeys(text.split(",")))

    return names


def open_engine(options: argparse.Namespace) -> Engine:
    """The engine that the options ask for."""
    return Engine(options.model, n_threads=options.threads, n_ctx=options.ctx, kv_type=options.kv_type)


def sampling(options: argparse.Namespace) -> dict[str, Any]:
    """The sampling parameters among the options."""
    names = ["max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop"]
    return {name: getattr(options, name) for name in names}


def open_chat(engine: Engine, options: argparse.Namespace) -> ChatSession:
    """A conversation that has not begun."""
    template = chosen_template(engine.template, options.template)
    return ChatSession(engine, options.system, template=template, **sampling(options))


def chosen_template(own: Template, choice: str | None) -> Template:
    """A template by name or out of a file, with the tokens of the model's own; that if none is chosen."""
    if choice is None:
        return own
    tokens = own.bos_token, own.eos_token
    return Template.from_jinja(read(choice), *tokens) if Path(choice).is_file() else Template.named(choice, *tokens)


def run_chat(options: argparse.Namespace) -> None:
    """`bitnet chat MODEL`."""
    receipts = Receipts(options.receipt_dir, "chat") if options.receipt_dir else None
    with open_engine(options) as engine:
        Repl(open_chat(engine, options), receipts, options.history).run()


def run_inspect(options: argparse.Namespace) -> None:
    """`bitnet inspect MODEL`."""
    model = inspect(options.model or inside())
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
    if options.model is None:
        print(f"\n{card()}")


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
    if text != "-":
        return text
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise ArgumentError(f"standard input is not a text in UTF-8: {error}") from error


def run_run(options: argparse.Namespace) -> None:
    """`bitnet run MODEL -p PROMPT`."""
    if (options.input is None) != (options.output is None):
        raise ArgumentError("--input and --output go together")
    receipts = Receipts(options.receipt_dir, "run") if options.receipt_dir else None
    with open_engine(options) as engine:
        if options.input:
            template = chosen_template(engine.template, options.template)
            save = receipts.save if receipts else None
            asked = dict(chat=options.chat, system=options.system, template=template, save=save)
            progress(batch.run(engine, options.input, options.output, **asked, **sampling(options)))
            return
        prompt = given(options.prompt)
        if options.chat:
            answer = open_chat(engine, options).stream(prompt)
        else:
            answer = engine.stream(prompt, **sampling(options))
        for piece in answer:
            print(piece.text, end="", flush=True)
        print()
        if receipts and answer.receipt:
            receipts.save(answer.receipt)


def progress(counts: Iterator[tuple[int, int]]) -> None:
    """Go through them with a bar at a terminal."""
    at_terminal = sys.stderr and sys.stderr.isatty()
    start, held = time.monotonic(), None
    for done, total in counts:
        held = done if held is None else held
        if at_terminal:
            bar = "#" * (24 * done // max(total, 1))
            rate = f", {(done - held) / (time.monotonic() - start):.1f} a second" if done > held else ""
            print(f"\r[{bar:<24}] {done} of {total}{rate} ", end="", file=sys.stderr, flush=True)
    if at_terminal:
        print(file=sys.stderr)


def run_bench(options: argparse.Namespace) -> None:
    """`bitnet bench MODEL`."""
    model = str(options.model or inside())
    plan = bench.Plan(model, options.prompt, options.tokens, options.depth, options.batch, options.repeats)
    report = bench.bench(plan, dict.fromkeys(options.threads), options.isa, options.kv_type)
    print(json.dumps(report, indent=1) if options.json else bench.shown(report))


def run_tokenize(options: argparse.Namespace) -> None:
    """`bitnet tokenize MODEL TEXT`."""
    tokenizer = Tokenizer(options.model)
    ids = tokenizer.encode(given(options.text), parse_special=options.parse_special)
    if options.ids:
        print(*ids)
        return
    for token in ids:
        print(f"{token:>8}  {tokenizer.decode([token], skip_special_tokens=False)!r}")


def run_template(options: argparse.Namespace) -> None:
    """`bitnet template MODEL_OR_JINJA`."""
    with open(options.source, "rb") as file:
        is_model = file.read(4) == b"GGUF"
    own = Template.from_model(options.source) if is_model else Template.from_jinja(read(options.source))
    template = chosen_template(own, options.template)
    if template.warning:
        print(f"bitnet: warning: {template.warning}", file=sys.stderr)
    if options.show_source:
        print(f"{template.name}, from {template.origin}\n{template.source}")
        return
    messages: list[Any] = [{"role": "system", "content": options.system}] if options.system is not None else []
    if options.messages is not None:
        text = given("-") if options.messages == "-" else read(options.messages)
        try:
            messages += json.loads(text)
        except (ValueError, TypeError) as error:
            raise ArgumentError(f"{options.messages} is not a JSON list of messages: {error}") from error
    if options.user is not None:
        messages.append({"role": "user", "content": options.user})
    answer = not options.no_generation_prompt
    if not (options.show or options.tokens):
        sys.stdout.write(template.render(messages, add_generation_prompt=answer))
        return
    if options.tokens and not is_model:
        raise ArgumentError(f"{options.source} has no tokenizer; --tokens takes a model file")
    tokenizer = Tokenizer(options.source) if options.tokens else None
    spans = template.spans(messages, add_generation_prompt=answer, tokenizer=tokenizer)
    sys.stdout.write(picture(spans, tokenizer))
    for i in unseen(spans, messages):
        print(f"bitnet: the template takes apart the text of message {i}, or leaves it out", file=sys.stderr)
    if tokenizer and any(span.token_ids is None for span in spans):
        print("bitnet: the tokens do not spell the prompt; see `bitnet tokenize`", file=sys.stderr)


def read(path: str) -> str:
    """The text of a file, its line ends included."""
    try:
        return Path(path).read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{path} is not a text in UTF-8: {error}") from error


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
