"""`bitnet receipt verify|replay|diff|redact|show`."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import Engine, Receipt, Tokenizer
from .._format import escape_line, two_columns
from .._receipts import summary
from ..errors import ModelError, ReceiptError
from ._errors import explain
from ._options import INSIDE, MODEL, MODEL_DEFAULT, Commands, add_command, add_threads, model_path
from ._receipt_files import NOT_VALID, TOLD_WITHOUT_REPLAY, check, first_difference
from ._replay import replay

_CONSTANT = [
    *("numerics", "model", "tokenizer", "act_quant", "act_block", "ffn_act", "kv_type", "lm_head", "n_ctx"),
    *("template", "system"),
]
"""Claims that are the same in all receipts of a conversation."""

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
        replay,
        help="compute the answers again and compare them",
        description="Compute the answer of each receipt again, and compare its token ids with the receipt's. The ids "
        "of an answer are checked in one pass, and answers are checked together. For a folder, only receipts that are "
        "not right are listed, with a summary at the end.",
    )
    action.add_argument(
        "files", metavar="FILE", nargs="+", help="a receipt, or a folder of receipts (its *.json files)"
    )
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
    action.epilog = (
        "Exit status: 0 if all answers are the same; 1 if not; 2 after an error, or if no answer differs but some "
        "could not be computed again; 130 after Ctrl-C, which prints what was found so far."
    )

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


def _report(options: argparse.Namespace, entries: list[dict[str, Any]], lines: list[str]) -> None:
    """Print entries as JSON if --json is given, else the lines."""
    print(json.dumps(entries, indent=1) if options.json else "\n".join(map(escape_line, lines)))


def _verify(options: argparse.Namespace) -> int:
    """Run `bitnet receipt verify`."""
    checked = [check(path) for path in options.files]
    receipts = {one.receipt.digest: one for one in reversed(checked) if one.receipt}
    status = 0 if all(one.receipt for one in checked) else NOT_VALID
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
            status = NOT_VALID
        lines.append(f"{path}: valid, {receipt.digest}{follows}")
        entry = {"file": path, "valid": True, "digest": receipt.digest, "previous": previous}
        entry |= {"previous_file": before.path if before else None, "previous_missing": missing}
        entries.append(entry | {"previous_differs": changed, "told": TOLD_WITHOUT_REPLAY})
    if any(one.receipt for one in checked):
        lines.append(_VALID_MEANS)
    _report(options, entries, lines)
    return status


def _changed(before: Receipt, receipt: Receipt) -> list[str]:
    """The claims that differ from the receipt before, although a conversation cannot change them."""
    one, other = (each.redact().to_dict()["claim"] for each in (before, receipt))
    return [f"claim.{name}" for name in _CONSTANT if one.get(name) != other.get(name)]


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
    return 0 if same else NOT_VALID


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
        return f"{len(one)} | {len(other)} items, different from {first_difference(one, other)}"
    return f"{json.dumps(one)} | {json.dumps(other)}"


def _redact(options: argparse.Namespace) -> int:
    """Run `bitnet receipt redact`. A receipt that is not valid is not copied."""
    _, receipt, error = check(options.file)
    if receipt is None:
        print(escape_line(f"{options.file}: not valid: {error}"))
        return NOT_VALID
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
            valid, status = f"not valid: {explain(error)}", NOT_VALID
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
