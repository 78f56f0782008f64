"""The receipts of an evaluation in a folder: receipts of answers, receipts of scores, and the leaves of a certificate.

`receipts.jsonl` has a record on each line and only grows: an evaluation that was stopped goes on with what it holds.
`leaves-….jsonl` lists what one certificate counts: each line is a leaf of its tree.
"""

import hashlib
import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._canonical import canonical, parse
from .batch import _append, _lock
from .errors import ArgumentError, ReceiptError

if TYPE_CHECKING:
    from . import Engine, Receipt

RECORDS = "receipts.jsonl"
"""The file of records in a folder."""

SETTINGS = ("numerics", "model", "tokenizer", "act_quant", "act_block", "ffn_act", "kv_type", "lm_head", "n_ctx")
"""The parts of a claim that say what computed it. `act_block` and `lm_head` are there only if they are not usual."""

NAMED = ("act_quant", "ffn_act", "kv_type")
"""Those that are names of modes and always there."""

_OPTIONAL = ("act_block", "lm_head")
_IDS = ("context_ids", "continuation_ids")
_HEX = re.compile("[0-9a-f]*")
_NOT_IN_NAMES = re.compile("[\\\\\0\ud800-\udfff]")
"""Characters of file names that a system has no form for, or takes for a separator."""


@dataclass(frozen=True)
class ScoreReceipt:
    """A record of a log-likelihood, which anyone who has the model can check by computing it again.

    The claim has the settings of the engine as a `Receipt` claims them, `context_ids` and `continuation_ids`, and the
    result: `token_logprobs`, the bits of the binary32 log-probabilities of the continuation's ids, 8 hexadecimal digits
    each; `logprob`, those of their sum; and `is_greedy`. docs/receipts.md describes the fields.

    >>> from bitnet import Engine
    >>> from bitnet.certificate import ScoreReceipt
    >>> engine = Engine()
    >>> receipt = ScoreReceipt.of(engine, engine.encode("2+2="), engine.encode("4"))
    >>> receipt.validate()
    >>> receipt.replay(engine)
    True
    """

    claim: dict[str, Any]
    model_file: str
    """The name of the model's file. It is told, as in every receipt, and not in the digest."""
    version: str
    """The version of the engine; told, too."""

    @staticmethod
    def of(engine: "Engine", context: list[int], continuation: list[int]) -> "ScoreReceipt":
        """Compute the log-likelihood of ids after other ids, and return its receipt."""
        settings, file, version = about(engine)
        return ScoreReceipt(score_claims(engine, settings, [(context, continuation)])[0], file, version)

    @property
    def digest(self) -> str:
        """SHA-256 of the claim's canonical JSON (RFC 8785), as hexadecimal text."""
        return hashlib.sha256(canonical(self.claim)).hexdigest()

    @property
    def logprob(self) -> float:
        """The log-likelihood: the sum of the ids' log-probabilities, a binary32 number."""
        return _floats(self.claim["logprob"])[0]

    @property
    def is_greedy(self) -> bool:
        """Whether greedy decoding gives exactly this continuation."""
        return bool(self.claim["is_greedy"])

    def validate(self) -> None:
        """Check the form of the claim, and that `logprob` is the sum of `token_logprobs`. Raises ReceiptError."""
        claim = self.claim
        _gate("form", isinstance(claim, dict), "the claim is an object")
        names = {*SETTINGS, *_IDS, "logprob", "token_logprobs", "is_greedy"}
        missing, others = names - set(_OPTIONAL) - claim.keys(), claim.keys() - names
        _gate("form", not missing, f"the claim lacks {', '.join(sorted(missing))}")
        _gate("form", not others, f"the claim has unknown fields: {', '.join(sorted(others))}")
        for name in (*_IDS, "numerics", "n_ctx"):
            value = claim[name]
            ids = value if isinstance(value, list) and name in _IDS else [value]
            whole = all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 2**32 for one in ids)
            _gate(f"claim.{name}", whole, f"expected {'token ids' if name in _IDS else 'a whole number'}")
            _gate(f"claim.{name}", isinstance(value, list) == (name in _IDS), "it has another type")
        _gate("claim.context_ids", bool(claim["context_ids"]), "a score needs at least one id before it")
        _gate("claim.is_greedy", isinstance(claim["is_greedy"], bool), "expected true or false")
        for name, count in (("logprob", 1), ("token_logprobs", len(claim["continuation_ids"]))):
            text = claim[name]
            fits = isinstance(text, str) and len(text) == 8 * count and _HEX.fullmatch(text)
            _gate(f"claim.{name}", bool(fits), f"expected the bits of {count} numbers, 8 hexadecimal digits each")
        try:
            total = _bits([sum(_floats(claim["token_logprobs"]), 0.0)])
        except OverflowError:
            raise ReceiptError("gate 'claim.token_logprobs': their sum is beyond binary32") from None
        _gate("claim.logprob", claim["logprob"] == total, f"the sum of token_logprobs has the bits {total}")
        for name in ("model", "tokenizer", *NAMED):
            _gate(f"claim.{name}", isinstance(claim[name], str) or name == "tokenizer", "expected a text")

    def replay(self, engine: "Engine") -> bool:
        """Compute the log-likelihood again, and return whether all of its bits are the same.

        Raises ReceiptError if the receipt needs another engine: another model, other settings.
        """
        settings, _, _ = about(engine)
        check_settings(settings, self.claim)
        ids = self.claim["context_ids"], self.claim["continuation_ids"]
        return score_claims(engine, settings, [ids])[0] == self.claim

    def to_dict(self) -> dict[str, Any]:
        """The document: claim, model_file and version."""
        return {"claim": self.claim, "model_file": self.model_file, "version": self.version}

    @staticmethod
    def from_dict(document: Any) -> "ScoreReceipt":
        """Read the document of `to_dict`. Raises ReceiptError if it is none."""
        fits = isinstance(document, dict) and document.keys() == {"claim", "model_file", "version"}
        _gate("form", fits, "a receipt of a score has claim, model_file and version")
        texts = isinstance(document["model_file"], str) and isinstance(document["version"], str)
        _gate("form", texts and isinstance(document["claim"], dict), "a field has another type")
        receipt = ScoreReceipt(document["claim"], document["model_file"], document["version"])
        try:
            canonical(receipt.claim)
        except ValueError as error:
            raise ReceiptError(f"gate 'form': {error}") from error
        return receipt


def _gate(name: str, right: bool, message: str) -> None:
    if not right:
        raise ReceiptError(f"gate {name!r}: {message}")


def _bits(values: Any) -> str:
    """The bits of binary32 numbers, the most significant first, in hexadecimal."""
    return b"".join(struct.pack(">f", value) for value in values).hex()


def _floats(text: str) -> list[float]:
    data = bytes.fromhex(text)
    return list(struct.unpack(f">{len(data) // 4}f", data))


def about(engine: "Engine") -> tuple[dict[str, Any], str, str]:
    """What receipts of an engine say: its settings, the name of the model's file, the engine's version."""
    answer: Any = engine.generate([0], max_tokens=1)  # the fingerprint is in receipts only
    document = answer.receipt.to_dict()
    return settings_of(document["claim"]), document["model_info"]["file"], document["run"]["version"]


def settings_of(claim: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a claim."""
    return {name: claim[name] for name in SETTINGS if name in claim}


def check_settings(settings: Mapping[str, Any], claim: Mapping[str, Any]) -> None:
    """Raise ReceiptError if a claim needs an engine with other settings."""
    for name in SETTINGS:
        own, claimed = settings.get(name), claim.get(name)
        _gate(f"claim.{name}", own == claimed, f"it is {claimed!r}, but this engine has {own!r}")


def score_claims(
    engine: "Engine", settings: Mapping[str, Any], pairs: list[tuple[list[int], list[int]]]
) -> list[dict[str, Any]]:
    """The claims of scores of (context, continuation), which share forward passes."""
    scores = engine.score([context for context, _ in pairs], [[continuation] for _, continuation in pairs])
    return [
        score_claim(settings, context, continuation, one.logprobs[0], one.is_greedy[0], one.token_logprobs[0])
        for (context, continuation), one in zip(pairs, scores, strict=True)
    ]


def score_claim(
    settings: Mapping[str, Any],
    context: list[int],
    continuation: list[int],
    logprob: Any,
    is_greedy: Any,
    token_logprobs: Any,
) -> dict[str, Any]:
    """The claim of a score, with the numbers of `Engine.score`."""
    return {
        **settings,
        "context_ids": list(context),
        "continuation_ids": list(continuation),
        "logprob": _bits([logprob]),
        "token_logprobs": _bits(token_logprobs),
        "is_greedy": bool(is_greedy),
    }


def kind_of(receipt: "Receipt | ScoreReceipt") -> str:
    """What a leaf calls a receipt."""
    return "score" if isinstance(receipt, ScoreReceipt) else "answer"


def leaf(name: str, kind: str, digest: str) -> bytes:
    """A leaf of the tree: the canonical JSON of a receipt's name, kind and digest."""
    return canonical({"name": name, "kind": kind, "digest": digest})


class Records:
    """The receipts of a folder, to add to and to look up by name."""

    def __init__(self, folder: Path) -> None:
        """Open the folder, or make it. Raises ArgumentError if another process writes into it."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._file = (folder / RECORDS).open("a+b", buffering=0)
        _lock(self._file)
        self._places: dict[str, tuple[int, int]] = {}
        self._counted: dict[str, tuple[str, str]] = {}
        """The kind and digest of each receipt that this run has, by name."""
        self.first: tuple[dict[str, Any], str, str] | None = None
        """The settings, the file of the model and the version of the first receipt."""
        self._file.seek(0)
        at = 0
        for line in self._file.read().split(b"\n")[:-1]:
            try:
                name = parse(line.decode())["name"]
                self._places[name] = at, len(line)
            except (ValueError, KeyError, TypeError):
                pass  # not a record; `bitnet certificate verify` says so
            at += len(line) + 1
        self._file.truncate(at)  # drops a last line that a killed process did not finish

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def record(self, name: str) -> dict[str, Any] | None:
        """The newest record of this name, if there is one."""
        if name not in self._places:
            return None
        at, length = self._places[name]
        self._file.seek(at)
        found: dict[str, Any] = parse(self._file.read(length).decode())
        return found

    def count(self, name: str, receipt: "Receipt | ScoreReceipt") -> None:
        """Count a receipt under this name.

        Raises ArgumentError if its engine is another one than that of the receipts before.
        """
        if isinstance(receipt, ScoreReceipt):
            settings, model_file, version = settings_of(receipt.claim), receipt.model_file, receipt.version
        else:
            document = receipt.to_dict()
            settings = settings_of(document["claim"])
            model_file, version = document["model_info"]["file"], document["run"]["version"]
        if self.first is None:
            self.first = settings, model_file, version
        elif self.first[0] != settings:
            changed = [part for part in SETTINGS if self.first[0].get(part) != settings.get(part)]
            raise ArgumentError(
                f"the receipt {name} has another {', '.join(changed)} than those before it; a certificate is of one "
                "model with one set of settings, so make one for each"
            )
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ArgumentError(f"the name {name!r} holds a lone surrogate, which is not a character") from error
        self._counted[name] = kind_of(receipt), receipt.digest

    def add(self, name: str, receipt: "Receipt | ScoreReceipt", *, file: str | None = None, **told: Any) -> None:
        """Count a receipt, and write it unless it is there. `file` names a file that has it already; `told` goes into
        the record beside the receipt. Errors as of `count`."""
        self.count(name, receipt)
        if isinstance(receipt, ScoreReceipt):
            content: dict[str, Any] = {"score": receipt.to_dict()}
        else:
            content = {"receipt": receipt.to_dict()} if file is None else {"file": file}
        record = {"name": name, **content, **told}
        if self.record(name) != json.loads(json.dumps(record)):
            line = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
            self._places[name] = self._file.seek(0, 2), len(line)
            _append(self._file, line + b"\n")

    def names(self) -> list[str]:
        """The names of the receipts that this run has, in the order of the tree: as UTF-8 bytes."""
        return sorted(self._counted, key=str.encode)

    def leaves(self, names: list[str]) -> Iterator[bytes]:
        """The leaves of these receipts."""
        return (leaf(name, *self._counted[name]) for name in names)

    def kinds(self, names: list[str]) -> list[str]:
        """The kinds of these receipts."""
        return [self._counted[name][0] for name in names]


def is_file_name(text: str) -> bool:
    """Whether a text names a file of a folder, and nothing outside of it, on every system."""
    return text not in ("", "..") and Path(text).name == text and not _NOT_IN_NAMES.search(text)


def read_receipt(folder: Path, record: Mapping[str, Any]) -> "Receipt | ScoreReceipt":
    """The receipt of a record. Raises ReceiptError if it is none, and OSError if its file cannot be read."""
    from . import Receipt

    if "score" in record:
        return ScoreReceipt.from_dict(record["score"])
    if "receipt" in record:
        return Receipt.from_json(json.dumps(record["receipt"]))
    file = record.get("file")
    _gate("form", isinstance(file, str), "a record has one of receipt, score and file")
    # A record of a stranger must not name a file elsewhere.
    _gate("form", is_file_name(str(file)), f"{file!r} is not a file of this folder")
    return Receipt.load(folder / str(file))
