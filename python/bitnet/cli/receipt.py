"""`bitnet receipt verify|replay|diff|redact|show`."""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from .. import Engine, Receipt, Tokenizer, inspect
from .._format import escape_line, two_columns
from .._receipts import CONTRADICTED, summary
from .._text_input import read_text
from ..errors import ArgumentError, ModelError, ReceiptError
from ._errors import explain
from ._options import INSIDE, MODEL, MODEL_DEFAULT, Commands, add_command, add_threads, is_gguf, model_path

_NOT_VALID = 1
"""The exit status if a receipt is not valid, a replay differs, or two claims differ."""

_CONSTANT = [
    *("numerics", "model", "tokenizer", "act_quant", "act_block", "ffn_act", "kv_type", "lm_head", "n_ctx"),
    *("template", "system"),
]
"""Claims that are the same in all receipts of a conversation."""

_TOLD_WITHOUT_REPLAY = ["claim", "run", "timestamp", "environment", "model_info", "test_results"]
"""What a receipt only tells as long as nobody replays it: everything."""

_VALID_MEANS = (
    "Valid: the figures agree and the digest is right, which finds accidents. Everything is told, not proven, until "
    "`bitnet receipt replay` computes the answer again."
)

_STATUS = "Exit status: {0}; 2 after an error."


def add_parser(commands: Commands) -> None:
    """Describe the command, its actions and their options."""
    top = commands.add_parser(
        "receipt",
        help="check, replay, compare, redact or print receipts",
        description="Work with receipts. A receipt says what an answer was computed from, and how. `bitnet chat` and "
        "`bitnet run` write receipts with --receipt-dir.",
    )
    actions = top.add_subparsers(title="actions", metavar="ACTION", required=True)

    action = add_command(
        actions,
        "verify",
        _verify,
        help="check that receipts are valid",
        description="Check that each receipt's figures add up and its digest is right. If several files are given, "
        "also check that the receipt before each one in its conversation is among them.",
    )
    action.add_argument("files", metavar="FILE", nargs="+", help="a receipt")
    action.add_argument("--json", action="store_true", help="print the result as JSON")
    action.epilog = _STATUS.format("0 if all receipts are valid and the chain is complete, 1 if not")

    action = add_command(
        actions,
        "replay",
        _replay,
        help="compute the answers again and compare them",
        description="Compute the answer of each receipt again, and compare its token ids with the receipt's.",
    )
    action.add_argument("files", metavar="FILE", nargs="+", help="a receipt")
    action.add_argument("-m", "--model", metavar="MODEL", help=f"{MODEL} {MODEL_DEFAULT}")
    add_threads(action)
    action.add_argument(
        "--isa", metavar="NAME", help="instruction set, as `bitnet doctor` lists them (default: the best one)"
    )
    prompt = action.add_mutually_exclusive_group()
    prompt.add_argument(
        "-p",
        "--prompt",
        metavar="TEXT",
        help="the prompt, or - to read it from standard input; needed for redacted receipts, which do not hold it",
    )
    prompt.add_argument(
        "--prompt-ids", type=_ids, metavar="IDS", help="the prompt as token ids, with spaces or commas between them"
    )
    action.add_argument("--json", action="store_true", help="print the result as JSON")
    action.epilog = _STATUS.format("0 if all answers are the same, 1 if not")

    action = add_command(
        actions,
        "diff",
        _diff,
        help="show the differences between two receipts",
        description="Show the differences between two receipts: first those of the claims (what was computed), then "
        "those of the runs (how).",
    )
    action.add_argument("file", metavar="FILE", help="a receipt")
    action.add_argument("other", metavar="OTHER", help="another receipt")
    action.add_argument("--json", action="store_true", help="print the result as JSON")
    action.epilog = _STATUS.format("0 if the claims are the same, whatever the runs are; 1 if not")

    action = add_command(
        actions,
        "redact",
        _redact,
        help="copy a receipt without its texts and token ids",
        description="Copy a receipt, with hashes in place of its texts and token ids. The copy has the same digest.",
    )
    action.add_argument("file", metavar="FILE", help="a receipt")
    action.add_argument("output", metavar="OUTPUT", help="the file to write")
    action.epilog = _STATUS.format("0 if the copy was written, 1 if the receipt is not valid")

    action = add_command(
        actions,
        "show",
        _show,
        help="print receipts for people",
        description="Print receipts for people: the prompt and the answer (if the model is available), and the "
        "settings that differ from their defaults.",
    )
    action.add_argument("files", metavar="FILE", nargs="+", help="a receipt")
    action.add_argument(
        "-m",
        "--model",
        metavar="MODEL",
        help=f"the model of the receipts, to show their texts: {MODEL} (default: {INSIDE}, if they are of this model)",
    )
    action.epilog = _STATUS.format("0 if all receipts are valid, 1 if not")


def _ids(text: str) -> list[int]:
    """Parse a list of token ids."""
    try:
        return [int(item) for item in text.replace(",", " ").split()]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected token ids such as 1,2,3") from error


class _Checked(NamedTuple):
    """A file, and the receipt in it."""

    path: str
    receipt: Receipt | None
    """None if it is not valid."""
    error: str | None
    """Why it is not valid."""


def _check(path: str) -> _Checked:
    """Load a receipt and validate it."""
    try:
        receipt = Receipt.load(path)
        receipt.validate()
    except ReceiptError as error:
        # The report begins with the path.
        return _Checked(path, None, explain(error).removeprefix(f"{escape_line(path)}: "))
    return _Checked(path, receipt, None)


def _report(options: argparse.Namespace, entries: list[dict[str, Any]], lines: list[str]) -> None:
    """Print entries as JSON if --json is given, else the lines."""
    print(json.dumps(entries, indent=1) if options.json else "\n".join(map(escape_line, lines)))


def _verify(options: argparse.Namespace) -> int:
    """Run `bitnet receipt verify`."""
    checked = [_check(path) for path in options.files]
    receipts = {one.receipt.digest: one for one in reversed(checked) if one.receipt}
    status = 0 if all(one.receipt for one in checked) else _NOT_VALID
    entries: list[dict[str, Any]] = []
    lines: list[str] = []
    for path, receipt, error in checked:
        if receipt is None:
            entries.append({"file": path, "valid": False, "error": error})
            lines.append(f"{path}: not valid: {error}")
            continue
        previous = receipt.to_dict()["claim"]["previous"]
        before = receipts.get(previous)
        follows = f", follows {before.path if before else previous}" if previous else ""
        missing = bool(previous) and len(checked) > 1 and before is None
        changed = _changed(before.receipt, receipt) if before and before.receipt else []
        if missing:
            follows = f", but the receipt before it, {previous}, is not among the valid files"
        elif changed:
            follows += f", but one conversation cannot change {', '.join(changed)}"
        if missing or changed:
            status = _NOT_VALID
        lines.append(f"{path}: valid, {receipt.digest}{follows}")
        entry = {"file": path, "valid": True, "digest": receipt.digest, "previous": previous}
        entry |= {"previous_file": before.path if before else None, "previous_missing": missing}
        entries.append(entry | {"previous_differs": changed, "told": _TOLD_WITHOUT_REPLAY})
    if any(one.receipt for one in checked):
        lines.append(_VALID_MEANS)
    _report(options, entries, lines)
    return status


def _changed(before: Receipt, receipt: Receipt) -> list[str]:
    """The claims that differ from the receipt before, although a conversation cannot change them."""
    one, other = (each.redact().to_dict()["claim"] for each in (before, receipt))
    return [f"claim.{name}" for name in _CONSTANT if one.get(name) != other.get(name)]


def _engine_options(receipt: Receipt, most: int) -> dict[str, Any]:
    """The options with which an engine has to be opened to replay a receipt. A larger context than the model has
    (`most`) cannot be opened; the replay says so."""
    claim = receipt.to_dict()["claim"]
    options = {name: claim[name] for name in ("act_quant", "ffn_act", "kv_type", "lm_head") if name in claim}
    return options | {"n_ctx": min(claim["n_ctx"], most)}


def _replay(options: argparse.Namespace) -> int:
    """Run `bitnet receipt replay`."""
    if models := [path for path in options.files if is_gguf(path)]:
        raise ArgumentError(f"{models[0]} is a model, not a receipt; name the model with --model")
    prompt = read_text("-") if options.prompt == "-" else options.prompt or options.prompt_ids
    model = model_path(options.model)
    checked = [_check(path) for path in options.files]
    entries: list[dict[str, Any]] = []
    for path, _, error in (one for one in checked if one.error):
        entries.append({"file": path, "valid": False, "error": error})
        if not options.json:
            print(escape_line(f"{path}: not valid: {error}"), flush=True)
    config = inspect(model)["config"]  # None if the model cannot be run: opening it says why
    most = config["context"] if config else 2**63
    valid = [(one.path, one.receipt) for one in checked if one.receipt]
    for common, group in groupby(valid, key=lambda one: _engine_options(one[1], most)):
        with Engine(model, n_threads=options.threads, isa=options.isa, **common) as engine:
            for path, receipt in group:
                told: list[str] = _TOLD_WITHOUT_REPLAY
                try:
                    same, ids, told = engine._replay(receipt, prompt)
                    difference = None if same else _difference(receipt, ids)
                except ReceiptError as error:
                    if not CONTRADICTED.search(str(error)):
                        raise ReceiptError(f"{path}: {_cannot_replay(error)}") from error
                    same, difference = False, f"different: {explain(error)}"
                entry = {"file": path, "valid": True, "same": same, "difference": difference}
                count, threads = receipt.completion_tokens, engine.n_threads
                entries.append(entry | {"ids": count, "isa": engine.isa, "threads": threads, "told": told})
                if not options.json:
                    line = f"{path}: {difference or 'same'}; {count} ids on {engine.isa}, threads {threads}"
                    print(escape_line(line))
                    print(f"  told, not proven: {', '.join(told)}", flush=True)
    if options.json:
        print(json.dumps(entries, indent=1))
    return 0 if all(entry.get("same") for entry in entries) else _NOT_VALID


def _cannot_replay(error: ReceiptError) -> str:
    """Why a receipt cannot be replayed, with the options that help."""
    text = explain(error)
    if "the receipt is redacted; pass its prompt" in text:
        return "the receipt is redacted and does not hold its prompt; give it with -p TEXT or --prompt-ids IDS"
    if models := re.search(r"'claim\.model': it is [\"']?(\w+)[\"']?, but this engine has [\"']?(\w+)", text):
        own, other = (digest[:12] for digest in models.groups())
        return f"the receipt is of another model ({own}…) than the one opened ({other}…); name its model with -m"
    return text


def _difference(receipt: Receipt, ids: list[int]) -> str:
    """Describe how the ids of a replay differ from those of the receipt."""
    claimed = receipt.to_dict()["claim"]["output_ids"]
    if isinstance(claimed, dict):  # redacted: only hashes can be compared
        return "different"
    if claimed == ids:
        return f"different: the ids are the same, but the answer does not end with {receipt.finish_reason!r}"
    return f"different from {_first_difference(claimed, ids)}"


def _first_difference(one: list[Any], other: list[Any]) -> str:
    """Describe where two lists begin to differ."""
    pairs = enumerate(zip_longest(one, other, fillvalue="nothing"))
    at, (a, b) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
    return f"index {at} on: {a} | {b}"


def _diff(options: argparse.Namespace) -> int:
    """Run `bitnet receipt diff`."""
    one, other = (Receipt.load(path) for path in (options.file, options.other))
    # A redacted receipt holds hashes: redact the other one as well, to compare like with like.
    if any(isinstance(receipt.to_dict()["claim"]["prompt_ids"], dict) for receipt in (one, other)):
        one, other = one.redact(), other.redact()
    first, second = one.to_dict(), other.to_dict()
    same = one.digest == other.digest
    blocks = ("claim", "run", "model_info", "environment")
    found = [difference for block in blocks for difference in _differences(block, first[block], second[block])]
    if options.json:
        differences = [{"path": path, "first": a, "second": b} for path, a, b in found]
        print(json.dumps({"same_claims": same, "differences": differences}, indent=1))
    else:
        print("the claims are the same" if same else "the claims differ")
        for path, a, b in found:
            print(escape_line(f"  {path}: {_told_difference(a, b)}"))
    return 0 if same else _NOT_VALID


def _differences(path: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the values that differ, each with its path in the document."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            yield from _differences(f"{path}.{key}", one.get(key), other.get(key))
    elif one != other:
        yield path, one, other


def _told_difference(one: Any, other: Any) -> str:
    """Two values on one line; of lists, where they begin to differ."""
    if isinstance(one, list) and isinstance(other, list):
        return f"{len(one)} | {len(other)} items, different from {_first_difference(one, other)}"
    return f"{json.dumps(one)} | {json.dumps(other)}"


def _redact(options: argparse.Namespace) -> int:
    """Run `bitnet receipt redact`. A receipt that is not valid is not copied."""
    _, receipt, error = _check(options.file)
    if receipt is None:
        print(escape_line(f"{options.file}: not valid: {error}"))
        return _NOT_VALID
    print(escape_line(f"{receipt.redact().save(options.output)}: {receipt.digest}"))
    return 0


def _show(options: argparse.Namespace) -> int:
    """Run `bitnet receipt show`."""
    status = 0
    model = _ModelAtHand(options.model)
    for path in options.files:
        receipt = Receipt.load(path)
        valid = "valid"
        try:
            receipt.validate()
        except ReceiptError as error:
            valid, status = f"not valid: {explain(error)}", _NOT_VALID
        tokenizer = model.tokenizer_of(receipt)
        if options.model is not None and tokenizer is None:
            print(
                f"bitnet: {escape_line(path)}: the receipt is not of this model; its texts are not shown",
                file=sys.stderr,
            )
        rows = {"file": f"{path}, {valid}"} | summary(receipt, tokenizer)
        print(two_columns(rows, texts=("prompt", "answer")), end="\n\n")
    return status


class _ModelAtHand:
    """The model whose receipts are shown with their texts: the one of --model, or the model inside."""

    def __init__(self, name: str | None) -> None:
        """Take the name of --model, if it was given."""
        self.path = Path(model_path(name))
        self.named = name is not None
        self.hash: str | None = None

    def tokenizer_of(self, receipt: Receipt) -> Tokenizer | None:
        """The tokenizer of the model, if the receipt is of this model. Reads the whole file, once."""
        document = receipt.to_dict()
        if not self.named and document["model_info"]["bytes"] != self.path.stat().st_size:
            return None
        if self.hash is None:
            with Engine(self.path) as engine:
                own = engine.generate([0], max_tokens=1).receipt
            self.hash = own.to_dict()["claim"]["model"] if own else ""
        if document["claim"]["model"] != self.hash:
            return None
        try:
            return Tokenizer(self.path)
        except ModelError:  # the file has none
            return None
