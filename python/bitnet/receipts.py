"""Receipts at the command line, `bitnet receipt verify|replay|diff|redact|show`, and their JSON Schema."""

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from ._core import Engine, Receipt, _sampling_schema
from .errors import ReceiptError

NOT_VALID = 1
"""The exit status where a receipt is not valid, its replay differs, or two claims differ."""

STATUS = "exit status: 0 if all is well, 1 if not, 2 after an error"


def receipt_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a receipt's document."""
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("receipt.schema.json").read_text(encoding="utf-8"))
    schema["properties"]["claim"]["properties"]["sampling"] = json.loads(_sampling_schema())
    return schema


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The command `receipt` and its options."""
    top = commands.add_parser("receipt", help="check, compute again, compare or show receipts")
    actions = top.add_subparsers(title="actions", metavar="ACTION", required=True)

    action = actions.add_parser("verify", help="check each receipt, and that each follows another", epilog=STATUS)
    action.add_argument("files", metavar="FILE", nargs="+")
    action.set_defaults(run=verify)

    action = actions.add_parser("replay", help="compute each answer again and compare its ids", epilog=STATUS)
    action.add_argument("files", metavar="FILE", nargs="+")
    action.add_argument("-m", "--model", help="a GGUF file (default: the model inside the package)")
    action.add_argument("-t", "--threads", type=int, help="threads that compute (default: all)")
    action.add_argument("--isa", help="the instruction set (default: the best)")
    prompt = action.add_mutually_exclusive_group()
    prompt.add_argument("-p", "--prompt", help="the prompt of a redacted receipt; - reads it from standard input")
    prompt.add_argument("--prompt-ids", type=numbers, metavar="IDS", help="the same as ids, with spaces or commas")
    action.set_defaults(run=replay)

    action = actions.add_parser(
        "diff", help="show what differs between two receipts", epilog=f"{STATUS}; only the claims count for it"
    )
    action.add_argument("files", metavar="FILE", nargs=2)
    action.set_defaults(run=diff)

    action = actions.add_parser(
        "redact", help="copy a receipt with hashes in place of its texts and ids", epilog=STATUS
    )
    action.add_argument("file", metavar="FILE")
    action.add_argument("output", metavar="OUTPUT")
    action.set_defaults(run=redact)

    action = actions.add_parser("show", help="show what receipts say", epilog=STATUS)
    action.add_argument("files", metavar="FILE", nargs="+")
    action.set_defaults(run=show)


def numbers(text: str) -> list[int]:
    """An argument that is a list of ids."""
    try:
        return [int(item) for item in text.replace(",", " ").split()]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected ids") from error


def checked(path: str) -> Receipt | None:
    """The receipt in a file; nothing, and a line that says why, if it is not valid."""
    try:
        receipt = Receipt.load(path)
        receipt.validate()
    except ReceiptError as error:
        print(f"{path}: not valid: {error}")
        return None
    return receipt


def verify(options: argparse.Namespace) -> int:
    """`bitnet receipt verify FILE…`."""
    receipts = [(path, checked(path)) for path in options.files]
    files = {receipt.digest: path for path, receipt in reversed(receipts) if receipt}
    status = 0 if all(receipt for _, receipt in receipts) else NOT_VALID
    for path, receipt in receipts:
        if receipt is None:
            continue
        previous = receipt.to_dict()["claim"]["previous"]
        follows = f", follows {files.get(previous, previous)}" if previous else ""
        if previous and len(receipts) > 1 and previous not in files:
            status = NOT_VALID
            follows = f", but the receipt before it, {previous}, is not among the valid files"
        print(f"{path}: valid, {receipt.digest}{follows}")
    return status


def settings(receipt: Receipt) -> dict[str, Any]:
    """What an engine has to be opened with to compute a receipt's answer again."""
    claim = receipt.to_dict()["claim"]
    return {name: claim[name] for name in ("act_quant", "ffn_act", "kv_type", "n_ctx")}


def replay(options: argparse.Namespace) -> int:
    """`bitnet receipt replay FILE…`."""
    prompt = sys.stdin.read() if options.prompt == "-" else options.prompt or options.prompt_ids
    receipts = [(path, checked(path)) for path in options.files]
    status = 0 if all(receipt for _, receipt in receipts) else NOT_VALID
    valid = [(path, receipt) for path, receipt in receipts if receipt]
    for common, group in groupby(valid, key=lambda one: settings(one[1])):
        with Engine(options.model, n_threads=options.threads, isa=options.isa, **common) as engine:
            for path, receipt in group:
                same = engine.replay(receipt, prompt)
                found = "same" if same else difference(receipt, engine.replay_ids(receipt, prompt))
                print(f"{path}: {found}, {receipt.completion_tokens} ids on {engine.isa}, threads {engine.n_threads}")
                status = status if same else NOT_VALID
    return status


def difference(receipt: Receipt, ids: list[int]) -> str:
    """Where the ids of a replay leave those of the receipt."""
    claimed = receipt.to_dict()["claim"]["output_ids"]
    if isinstance(claimed, dict):
        return "different"
    if claimed == ids:
        return f"different: the ids are the same, but the answer does not end by {receipt.finish_reason!r}"
    return f"different from {apart(claimed, ids)}"


def apart(one: list[Any], other: list[Any]) -> str:
    """The first difference of two lists."""
    pairs = enumerate(zip_longest(one, other, fillvalue="nothing"))
    at, (a, b) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
    return f"item {at} on (counted from 0): {a} | {b}"


def diff(options: argparse.Namespace) -> int:
    """`bitnet receipt diff FILE FILE`."""
    one, other = (Receipt.load(path) for path in options.files)
    # A part that one of them leaves out is compared by its hash.
    if any(isinstance(receipt.to_dict()["claim"]["prompt_ids"], dict) for receipt in (one, other)):
        one, other = one.redact(), other.redact()
    first, second = one.to_dict(), other.to_dict()
    same = one.digest == other.digest
    print("the claims are the same" if same else "the claims differ")
    for block in ("claim", "run", "model_info", "environment"):
        for line in differences(block, first[block], second[block]):
            print(f"  {line}")
    return 0 if same else NOT_VALID


def differences(path: str, one: Any, other: Any) -> Iterator[str]:
    """A line for each leaf that differs."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            yield from differences(f"{path}.{key}", one.get(key), other.get(key))
    elif isinstance(one, list) and isinstance(other, list) and one != other:
        yield f"{path}: {len(one)} | {len(other)} items, different from {apart(one, other)}"
    elif one != other:
        yield f"{path}: {json.dumps(one)} | {json.dumps(other)}"


def redact(options: argparse.Namespace) -> int:
    """`bitnet receipt redact FILE OUTPUT`. What is not valid is not copied."""
    receipt = checked(options.file)
    if receipt is None:
        return NOT_VALID
    print(f"{receipt.redact().save(options.output)}: {receipt.digest}")
    return 0


def show(options: argparse.Namespace) -> int:
    """`bitnet receipt show FILE…`."""
    status = 0
    for path in options.files:
        receipt = Receipt.load(path)
        valid = "valid"
        try:
            receipt.validate()
        except ReceiptError as error:
            valid, status = f"not valid: {error}", NOT_VALID
        lines = {"file": f"{path}, {valid}"} | summary(receipt)
        print("\n".join(f"{name:<9} {value}" for name, value in lines.items()), end="\n\n")
    return status


def summary(receipt: Receipt) -> dict[str, str]:
    """A receipt for people."""
    document = receipt.to_dict()
    claim, run, model, machine = (document[name] for name in ("claim", "run", "model_info", "environment"))
    template, seconds, steps, work = claim["template"], run["seconds"], run["step_seconds"], run["work"]
    parts = ("render", "tokenize", "prefill", "decode", "sample", "detokenize")
    kernels = [f"{name} {work[name]} rows {milliseconds(work[f'{name}_ns'] / 1e9)}" for name in kernel_names(work)]
    return {
        "ended": f"{receipt.timestamp}, by {receipt.finish_reason!r}",
        "digest": f"{receipt.digest}, after {claim['previous'] or 'none'}",
        "model": f"{model['file']} ({model['architecture']}, {model['bytes']} bytes), {claim['model']}",
        "settings": f"act_quant {claim['act_quant']}, ffn_act {claim['ffn_act']}, kv_type {claim['kv_type']}, "
        f"n_ctx {claim['n_ctx']}, numerics {claim['numerics']}",
        "template": f"{template['name']} (from: {template['origin']})" if template else "none",
        "system": "redacted" if isinstance(claim["system"], dict) else json.dumps(claim["system"], ensure_ascii=False),
        "sampling": ", ".join(f"{name} {json.dumps(value)}" for name, value in claim["sampling"].items()),
        "tokens": f"{receipt.prompt_tokens} prompt ({receipt.cached_tokens} reused), "
        f"{receipt.completion_tokens} generated, {receipt.computed_tokens} computed",
        "machine": f"{machine['processor']}, {run['isa']}, threads {run['threads']}, bitnet {run['version']}",
        "time": f"{milliseconds(seconds['wall'])} = "
        + " + ".join(f"{name} {milliseconds(seconds[name])}" for name in parts)
        + f" + other {milliseconds(run['other_seconds'])}; consumer {milliseconds(seconds['consumer'])}",
        "rates": f"prefill {run['prefill_tokens_per_second']:.1f} tokens/s, "
        f"decode {run['decode_tokens_per_second']:.1f} tokens/s, "
        f"step p50 {milliseconds(steps['p50'])}, p95 {milliseconds(steps['p95'])}, max {milliseconds(steps['max'])}",
        "kernels": f"{', '.join(kernels)}; between them {milliseconds(run['between_kernels_seconds'])}",
    }


def kernel_names(work: dict[str, int]) -> list[str]:
    """The kernels that counted rows."""
    return [name for name in ("ternary", "dense", "attention", "head") if work[name]]


def milliseconds(seconds: float) -> str:
    """A time for people."""
    return f"{seconds * 1e3:.3f} ms"
