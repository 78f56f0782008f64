"""`bitnet certificate verify|show`."""

import argparse
import json
from typing import Any

from .. import Engine, inspect
from .._format import escape_line, two_columns
from ..certificate import Certificate, Verification
from ..errors import ArgumentError, ReceiptError
from ._errors import explain
from ._options import INSIDE, MODEL, Commands, add_command, add_threads, is_gguf, model_path, number, whole

_WRONG = 1
"""The exit status if something in a certificate or its receipts is not right."""

_UNSIGNED = (
    "A certificate carries no signature, so anyone could have written it. Replays prove the answers and scores; the "
    "results follow from them by the program that made them, and are told, as are times and names."
)


def add_parser(commands: Commands) -> None:
    """Describe the command, its actions and their options."""
    top = commands.add_parser(
        "certificate",
        help="check or print the certificate of an evaluation",
        description="Work with certificates of evaluations. A certificate has one digest for all receipts of a run, "
        "and its results. `python -m bitnet.lm_eval` writes one with --certificate, pytest with --bitnet-certificate.",
    )
    actions = top.add_subparsers(title="actions", metavar="ACTION", required=True)

    action = add_command(
        actions,
        "verify",
        _verify,
        help="check a certificate and replay its receipts",
        description="Check that a certificate counts exactly the receipts that are there, and compute all or a sample "
        "of their answers and scores again. Names each receipt that is wrong.",
    )
    action.add_argument("file", metavar="FILE", help="a certificate")
    action.add_argument(
        "--receipts", metavar="DIR", help="the folder of the receipts (default: the one that the certificate names)"
    )
    action.add_argument("-m", "--model", metavar="MODEL", help=f"{MODEL} (default: {INSIDE}, the model in the package)")
    how_many = action.add_mutually_exclusive_group()
    how_many.add_argument(
        "--share", type=number, metavar="SHARE", help="the share of receipts to compute again, 0 to 1 (default: 1)"
    )
    how_many.add_argument(
        "--count",
        type=whole,
        metavar="N",
        help="the number of receipts to compute again; 0 needs no model (default: all)",
    )
    action.add_argument(
        "--seed",
        metavar="SEED",
        help="what the sample is drawn with, such as a number; choose it after the certificate was made (default: a "
        "random one, which is printed)",
    )
    add_threads(action)
    action.add_argument(
        "--isa", metavar="NAME", help="instruction set, as `bitnet doctor` lists them (default: the best one)"
    )
    action.add_argument("--json", action="store_true", help="print the result as JSON")
    action.epilog = "Exit status: 0 if nothing is wrong, 1 if something is; 2 after an error."

    action = add_command(
        actions,
        "show",
        _show,
        help="print a certificate for people",
        description="Print a certificate for people: its root, model, settings, how it was made, and its results. "
        "Nothing is checked.",
    )
    action.add_argument("file", metavar="FILE", help="a certificate")
    action.epilog = "Exit status: 0 if the file is a certificate, 1 if not; 2 after an error."


def _load(options: argparse.Namespace) -> Certificate:
    if is_gguf(options.file):
        raise ArgumentError(f"{options.file} is a model, not a certificate; name the model with --model")
    return Certificate.load(options.file)


def _verify(options: argparse.Namespace) -> int:
    """Run `bitnet certificate verify`."""
    sample = {"count": options.count, "share": options.share, "seed": options.seed}
    try:
        certificate = _load(options)
    except ReceiptError as error:
        _report(options, None, [f"not valid: {explain(error)}"])
        return _WRONG
    if options.count == 0 or options.share == 0:
        found = certificate.verify(options.receipts, **sample)
    else:
        model = model_path(options.model)
        settings = {name: value for name, value in certificate.settings.items() if name in _OPENING}
        config = inspect(model)["config"]  # None if the model cannot be run: opening it says why
        if config:
            settings["n_ctx"] = min(certificate.settings["n_ctx"], config["context"])
        with Engine(model, n_threads=options.threads, isa=options.isa, **settings) as engine:
            try:
                found = certificate.verify(options.receipts, engine, **sample)
            except ReceiptError as error:
                raise ReceiptError(_cannot_replay(certificate, error)) from error
    _report(options, found, [str(problem) for problem in found.problems], certificate)
    return 0 if found.ok else _WRONG


_OPENING = ("act_quant", "ffn_act", "kv_type", "lm_head", "n_ctx")
"""The settings that an engine is opened with."""


def _cannot_replay(certificate: Certificate, error: ReceiptError) -> str:
    """Why a certificate cannot be replayed here, with the option that helps."""
    text = explain(error)
    if "gate 'claim.model'" in text:
        own = certificate.predicate["model"]
        return f"the certificate is of another model ({own['file']}, {own['blake3'][:12]}…); name its model with -m"
    if "the receipt is redacted" in text:
        name = text.partition(": ")[0]
        return f"{name}: the receipt is redacted and does not hold its prompt, so it cannot be computed again"
    return text


def _report(
    options: argparse.Namespace,
    found: Verification | None,
    problems: list[str],
    certificate: Certificate | None = None,
) -> None:
    """Print what was found."""
    if options.json:
        result: dict[str, Any] = {"file": options.file, "ok": not problems}
        if found and certificate:
            result |= {"root": certificate.root, "count": found.count, "replayed": found.replayed, "seed": found.seed}
            result["confidence"] = found.confidence() if found.ok else None
            wrong = [{"receipt": one.receipt, "problem": one.message} for one in found.problems]
        else:
            wrong = [{"receipt": None, "problem": text} for text in problems]
        print(json.dumps(result | {"problems": wrong}, indent=1))
        return
    lines = [f"{options.file}: {text}" for text in problems]
    if found and certificate and found.ok:
        lines.append(f"{options.file}: {found.count} receipts with the root {certificate.root}")
        lines += [found.confidence(), _UNSIGNED]
    elif found:
        lines.append(f"{len(found.problems)} problems; {found.replayed} of {found.count} receipts were replayed")
    print("\n".join(map(escape_line, lines)))


def _show(options: argparse.Namespace) -> int:
    """Run `bitnet certificate show`."""
    try:
        certificate = _load(options)
    except ReceiptError as error:
        print(escape_line(f"{options.file}: not valid: {explain(error)}"))
        return _WRONG
    predicate = certificate.predicate
    model, engine, receipts = predicate["model"], predicate["engine"], predicate["receipts"]
    kinds = f"{receipts['answers']} answers, {receipts['scores']} scores"
    rows = {
        "file": f"{options.file}, not checked",
        "root": certificate.root,
        "receipts": f"{receipts['count']} ({kinds}) in {certificate.folder}",
        "model": f"{model['file']}, {model['blake3']}",
        "engine": f"{engine['name']} {engine['version']}, numerics {engine['numerics']}",
        "settings": ", ".join(f"{name} {value}" for name, value in engine["settings"].items()),
        "time": predicate["time"],
    }
    for title in ("made", "results"):
        rows |= {f"{title}.{path}": _shown(value) for path, value in _flat(predicate[title])}
    print(two_columns(rows))
    return 0


def _flat(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """The values in objects, each with its path; null is left out."""
    if isinstance(value, dict):
        return [one for name, part in value.items() for one in _flat(part, f"{path}.{name}" if path else name)]
    return [] if value is None else [(path, value)]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
