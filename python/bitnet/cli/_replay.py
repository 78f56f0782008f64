"""`bitnet receipt replay`."""

import argparse
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from .. import Engine, Receipt, inspect
from .._format import escape_line
from .._receipts import CONTRADICTED
from .._text_input import read_text
from ..errors import ArgumentError, BitnetError, ReceiptError
from ._errors import explain
from ._options import is_gguf, model_path
from ._receipt_files import NOT_VALID, TOLD_WITHOUT_REPLAY, Checked, check, first_difference, in_folders

_FAILED = 2
"""The exit status if no answer differs, but some could not be computed again."""


def replay(options: argparse.Namespace) -> int:
    """Run `bitnet receipt replay`."""
    if models := [path for path in options.files if is_gguf(path)]:
        raise ArgumentError(f"{models[0]} is a model, not a receipt; name the model with --model")
    prompt = read_text("-") if options.prompt == "-" else options.prompt or options.prompt_ids
    model = model_path(options.model)
    checked = [check(path) for path in in_folders(options.files)]
    report = _Report(options, checked)
    try:
        config = inspect(model)["config"]  # None if the model cannot be run: opening it says why
        most = config["context"] if config else 2**63
        groups: dict[str, list[Checked]] = {}
        for one in checked:
            if one.receipt:
                groups.setdefault(json.dumps(_engine_options(one.receipt, most)), []).append(one)
        for common, group in groups.items():
            with Engine(model, n_threads=options.threads, isa=options.isa, **json.loads(common)) as engine:
                report.replay(engine, group, prompt)
    except KeyboardInterrupt:
        report.end()
        raise
    report.end()
    return report.status


def _engine_options(receipt: Receipt, most: int) -> dict[str, Any]:
    """The options with which an engine has to be opened to replay a receipt. A larger context than the model has
    (`most`) cannot be opened; the replay says so."""
    claim = receipt.to_dict()["claim"]
    options = {name: claim[name] for name in ("act_quant", "ffn_act", "kv_type", "lm_head") if name in claim}
    return options | {"n_ctx": min(claim["n_ctx"], most)}


class _Report:
    """What replays have found. It is printed in the order of the files, as far as they are done."""

    def __init__(self, options: argparse.Namespace, checked: list[Checked]) -> None:
        self.json = options.json
        self.paths = [one.path for one in checked]
        self.is_long = any(Path(path).is_dir() for path in options.files)
        self.shows_progress = len(checked) > 1 and bool(sys.stderr and sys.stderr.isatty())
        self.entries: dict[str, dict[str, Any]] = {}
        """What is known of each file."""
        self.printed = 0
        self.ids = 0
        self.seconds = 0.0
        for path, _, error in checked:
            if error:
                self.entries[path] = {"file": path, "valid": False, "error": error}

    def replay(self, engine: Engine, group: list[Checked], prompt: Any) -> None:
        """Replay receipts on the engine that they need."""
        receipts = [one.receipt for one in group if one.receipt]
        start, before = time.monotonic(), self.seconds

        def add(i: int, found: tuple[bool, list[int], list[str]] | Exception) -> None:
            self.seconds = before + time.monotonic() - start
            self.add(group[i].path, receipts[i], engine, found)

        engine._replay_each(receipts, [prompt] * len(receipts) if prompt else None, add)

    def add(self, path: str, receipt: Receipt, engine: Engine, found: Any) -> None:
        """Note what the replay of one receipt has found."""
        same: bool | None
        told = TOLD_WITHOUT_REPLAY
        if not isinstance(found, Exception):
            same, ids, told = found
            difference = None if same else _difference(receipt, ids)
        elif isinstance(found, ReceiptError) and CONTRADICTED.search(str(found)):
            same, difference = False, f"different: {explain(found)}"
        elif len(self.paths) == 1 and not self.is_long:
            raise ReceiptError(f"{path}: {_cannot_replay(found)}") if isinstance(found, ReceiptError) else found
        elif isinstance(found, BitnetError):
            self.entries[path] = {"file": path, "valid": True, "same": None, "error": _cannot_replay(found)}
            self._print()
            return
        else:
            raise found
        count = receipt.completion_tokens
        self.ids += count
        entry = {"file": path, "valid": True, "same": same, "difference": difference, "ids": count}
        self.entries[path] = entry | {"isa": engine.isa, "threads": engine.n_threads, "told": told}
        self._print()

    def _print(self, *, is_end: bool = False) -> None:
        """Print what is known of the next files. At the end, files of which nothing is known are passed over."""
        self._clear()
        while self.printed < len(self.paths) and (is_end or self.paths[self.printed] in self.entries):
            entry = self.entries.get(self.paths[self.printed])
            self.printed += 1
            if entry and not self.json:
                for line in _lines(entry, self.is_long):
                    print(escape_line(line), flush=True)
        if self.shows_progress and not is_end:
            speed = f", {self.ids / self.seconds:.0f} ids/s" if self.seconds else ""
            print(f"\r{len(self.entries)} of {len(self.paths)} receipts{speed}", end="", file=sys.stderr, flush=True)

    def _clear(self) -> None:
        """Remove the line with the progress."""
        if self.shows_progress:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Print the rest, and the summary for folders. After Ctrl-C this is what was found so far."""
        self._print(is_end=True)
        entries = [self.entries[path] for path in self.paths if path in self.entries]
        if self.json:
            print(json.dumps(entries, indent=1))
        elif self.is_long:
            print("\n".join(map(escape_line, self._summary(entries))), flush=True)

    def _summary(self, entries: list[dict[str, Any]]) -> list[str]:
        right = [entry for entry in entries if entry.get("same")]
        counts = [f"{len(right)} of {len(self.paths)} receipts are right"]
        for count, what in [
            (sum(entry.get("same") is False for entry in entries), "different"),
            (sum(not entry["valid"] for entry in entries), "not valid"),
            (sum(entry["valid"] and entry["same"] is None for entry in entries), "not replayed"),
            (len(self.paths) - len(entries), "left out"),
        ]:
            if count:
                counts.append(f"{count} {what}")
        speed = f"; {self.ids} ids in {self.seconds:.1f} s, {self.ids / self.seconds:.0f} ids/s" if self.seconds else ""
        told = dict.fromkeys(field for entry in right for field in entry["told"])
        return [", ".join(counts) + speed] + ([f"told, not proven: {', '.join(told)}"] if told else [])

    @property
    def status(self) -> int:
        """The exit status."""
        entries = [self.entries[path] for path in self.paths]
        if any(not entry["valid"] or entry["same"] is False for entry in entries):
            return NOT_VALID
        return 0 if all(entry["same"] for entry in entries) else _FAILED


def _lines(entry: dict[str, Any], is_long: bool) -> list[str]:
    """What is printed of one file: of many, only what is wrong."""
    if not entry["valid"]:
        return [f"{entry['file']}: not valid: {entry['error']}"]
    if entry["same"] is None:
        return [f"{entry['file']}: not replayed: {entry['error']}"]
    where = f"{entry['ids']} ids on {entry['isa']}, threads {entry['threads']}"
    line = f"{entry['file']}: {entry['difference'] or 'same'}; {where}"
    if is_long:
        return [] if entry["same"] else [line]
    return [line, f"  told, not proven: {', '.join(entry['told'])}"]


def _cannot_replay(error: Exception) -> str:
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
    return f"different from {first_difference(claimed, ids)}"
