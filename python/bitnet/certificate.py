"""Certificates of evaluations: one digest for all receipts of a run, what was measured, and how to check it.

>>> import tempfile
>>> from bitnet import Engine
>>> from bitnet.certificate import Certificate
>>> engine = Engine()
>>> receipts = {f"sums/{i}": engine.generate(f"{i}+{i}=", max_tokens=4).receipt for i in range(3)}
>>> with tempfile.TemporaryDirectory() as folder:
...     certificate = Certificate.make(receipts, folder, results={"right": 3})
...     found = certificate.verify(folder, engine)
>>> found.ok, found.replayed
(True, 3)

docs/receipts.md describes the files, and what a certificate proves.
"""

import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path
from typing import Any

from ._canonical import canonical, parse, tree_hash
from ._core import Engine, Receipt
from ._receipts import CONTRADICTED
from ._records import (
    NAMED,
    RECORDS,
    SETTINGS,
    Records,
    ScoreReceipt,
    about,
    check_settings,
    is_file_name,
    kind_of,
    leaf,
    read_receipt,
    score_claims,
    settings_of,
)
from ._text_input import read_text
from .errors import ArgumentError, BitnetError, ReceiptError

__all__ = ["Certificate", "Problem", "ScoreReceipt", "Verification", "chance_to_miss", "most_wrong"]

STATEMENT = "https://in-toto.io/Statement/v1"
"""The type of the envelope."""
PREDICATE = "https://pypi.org/project/bitnet-engine/evaluation/v1"
"""The type of the predicate. A change that an older version cannot read gets another number."""
TREE = "rfc6962-sha256"
"""The name of the root's digest: it is the hash of a tree, not of a file."""

_HASH = re.compile("[0-9a-f]{64}")
_AT_ONCE = 64
"""Scores that are computed again by one call, in shared forward passes."""


@dataclass(frozen=True)
class Problem:
    """Something in a certificate or its receipts that is not right."""

    receipt: str | None
    """The name of the receipt, or None if the certificate itself or its list of leaves is wrong."""
    message: str

    def __str__(self) -> str:
        """The receipt's name and the message."""
        return self.message if self.receipt is None else f"{self.receipt}: {self.message}"


@dataclass(frozen=True)
class Verification:
    """What `Certificate.verify` found."""

    count: int
    """The number of receipts that the certificate counts."""
    replayed: int
    """The number of receipts that were computed again."""
    seed: str | None
    """What the sample was drawn with; None if nothing was drawn."""
    problems: list[Problem]

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not self.problems

    def confidence(self) -> str:
        """What the replays say about the receipts that were not replayed, in words."""
        if not self.replayed:
            return "No receipt was replayed: nobody has checked yet that the model gives these answers and scores."
        if self.replayed >= self.count:
            return f"All {self.count} receipts were replayed."
        few = max(1, math.ceil(self.count / 100))
        one = chance_to_miss(self.count, 1, self.replayed)
        text = f"{self.replayed} of {self.count} receipts were replayed, drawn with the seed {self.seed}. "
        if few > 1:
            missed = chance_to_miss(self.count, few, self.replayed)
            text += f"If {few} of the {self.count} were wrong, this sample would miss all of them with probability "
            text += f"{_percent(missed)}; if one was, {_percent(one)}. "
        else:
            text += f"If one of the {self.count} was wrong, this sample would miss it with probability "
            text += f"{_percent(one)}. "
        return text + (
            f"With 95 % confidence, at most {most_wrong(self.count, self.replayed)} of the {self.count} are wrong."
        )


def _percent(chance: float) -> str:
    """A probability in percent, with three digits, and never rounded to 0 or 100."""
    value = 100 * chance
    if 0 < value < 0.001:
        return "less than 0.001 %"
    if 99.9 < value < 100:
        return "more than 99.9 %"
    return f"{value:.3g} %"


def chance_to_miss(count: int, wrong: int, sample: int) -> float:
    """The probability that a sample has none of the wrong receipts: C(count - wrong, sample) / C(count, sample).

    The sample is drawn without replacement (the hypergeometric distribution). The result is exact, rounded once.

    >>> round(chance_to_miss(100_000, 1000, 300), 4)
    0.0488
    """
    if not (0 <= wrong <= count and 0 <= sample <= count):
        raise ArgumentError(f"wrong and sample are 0 to count, {count}; found {wrong} and {sample}")
    # Drawing the sample among the wrong ones has the same chance as drawing the wrong ones among the sample.
    few, many = sorted((wrong, sample))
    return float(Fraction(math.perm(count - many, few), math.perm(count, few)))


def most_wrong(count: int, sample: int, risk: float = 0.05) -> int:
    """How many receipts can be wrong, at most, if none of a sample is: with more, the sample would have none of them
    with a probability of at most `risk`.

    >>> most_wrong(5000, 300)
    48
    """
    low, high = 0, count - sample  # with more than that, the sample has one of them for certain
    while low < high:
        middle = (low + high + 1) // 2
        if chance_to_miss(count, middle, sample) > risk:
            low = middle
        else:
            high = middle - 1
    return low


@dataclass
class Certificate:
    """A statement about a run: the root of the tree of its receipts, the model, how they were made, and the results.

    The envelope is an in-toto Statement v1. `document` is its JSON.
    """

    document: dict[str, Any]
    base: Path = field(default_factory=Path.cwd)
    """The directory that the path to the receipts starts in: that of the certificate's file."""

    @staticmethod
    def make(
        receipts: Mapping[str, Receipt | ScoreReceipt],
        folder: str | os.PathLike[str],
        *,
        made: Mapping[str, Any] | None = None,
        results: Mapping[str, Any] | None = None,
    ) -> "Certificate":
        """Write receipts into a folder, and return the certificate of them. `save` writes it.

        Args:
            receipts: The receipts by name. The order of the tree is that of the names.
            folder: Where to write the receipts. A folder may have those of several certificates.
            made: How the receipts were made: tasks, few-shot examples, limits. JSON values.
            results: What the run found, such as scores. JSON values.

        Raises:
            ArgumentError: There are no receipts, or they are of engines with different settings; or another process
                writes into the folder.
        """
        records = Records(Path(folder))
        try:
            for name, receipt in receipts.items():
                records.add(name, receipt)
            return certify(records, records.names(), made or {}, results or {})
        finally:
            records.close()

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "Certificate":
        """Read a certificate from a file. Raises ReceiptError if it is none."""
        try:
            document = parse(read_text(path))
        except (ValueError, ArgumentError) as error:
            raise ReceiptError(f"{path}: it is not a certificate: {error}") from error
        try:
            _check_form(document)
        except (LookupError, TypeError, ValueError) as error:
            what = f"it has no {error}" if isinstance(error, KeyError) else error
            raise ReceiptError(f"{path}: it is not a certificate of this version: {what}") from error
        return Certificate(document, Path(path).absolute().parent)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the certificate to a file, as indented JSON, and return its path. The receipts are named relative to
        the file's directory."""
        path = Path(path).absolute()
        receipts = self.predicate["receipts"]
        folder = self.folder
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            receipts["folder"] = Path(os.path.relpath(folder, path.parent)).as_posix()
        except ValueError:  # another drive
            receipts["folder"] = folder.as_posix()
        self.base = path.parent
        self.document["subject"][1]["digest"]["sha256"] = _hash(self.predicate)
        text = json.dumps(self.document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        unfinished = path.with_name(f"{path.name}.{os.getpid()}")
        unfinished.write_text(text, encoding="utf-8", newline="\n")
        unfinished.replace(path)
        return path

    @property
    def predicate(self) -> dict[str, Any]:
        """Model, engine, receipts, how they were made, results, time."""
        found: dict[str, Any] = self.document["predicate"]
        return found

    @property
    def root(self) -> str:
        """The root of the tree over all receipts, in hexadecimal: the run's digest."""
        return str(self.document["subject"][0]["digest"][TREE])

    @property
    def count(self) -> int:
        """The number of receipts."""
        return int(self.predicate["receipts"]["count"])

    @property
    def results(self) -> dict[str, Any]:
        """What the run found."""
        found: dict[str, Any] = self.predicate["results"]
        return found

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the engine, as the claims of receipts have them."""
        model, engine = self.predicate["model"], self.predicate["engine"]
        own = {"numerics": engine["numerics"], "model": model["blake3"], "tokenizer": model["tokenizer_blake3"]}
        return own | dict(engine["settings"])

    @property
    def folder(self) -> Path:
        """The folder of the receipts."""
        return self.base / str(self.predicate["receipts"]["folder"])

    def verify(
        self,
        receipts: str | os.PathLike[str] | None = None,
        engine: Engine | None = None,
        *,
        count: int | None = None,
        share: float | None = None,
        seed: str | int | None = None,
    ) -> Verification:
        """Check the tree and each receipt, and compute all or a sample of them again.

        Args:
            receipts: The folder of the receipts. Default: the one that the certificate names.
            engine: The model, opened with the settings of the certificate. Default: none; then nothing is computed, as
                with count=0.
            count, share: How many receipts to compute again, as a number or as a share of all. Default: all.
            seed: What the sample is drawn with. Default: chosen by chance. Whoever could know the seed before making
                the certificate could alter the other receipts only.

        Raises:
            ArgumentError: Both or impossible values of count and share.
            OSError: The folder has no list of leaves or no receipts.
            ReceiptError: The receipts need an engine with another model or other settings; or a receipt that was drawn
                is redacted.
        """
        if count is not None and share is not None:
            raise ArgumentError("count and share exclude each other")
        if share is not None and not 0 <= share <= 1:
            raise ArgumentError(f"share is {share}, expected 0 to 1")
        if count is not None and count < 0:
            raise ArgumentError(f"count is {count}, expected 0 or more")
        folder = self.folder if receipts is None else Path(receipts)
        problems = list(self._own_problems())
        leaves = self._leaves(folder, problems)
        found = self._receipts(folder, leaves, problems)
        wanted = len(leaves)
        if count is not None or share is not None:
            wanted = min(wanted, count if count is not None else math.ceil(Fraction(str(share)) * wanted))
        if engine is None:
            wanted = 0
        drawn: list[str] = list(leaves)
        if 0 < wanted < len(drawn):
            seed = secrets.token_hex(8) if seed is None else str(seed)
            drawn = sorted(draw(drawn, self.root, seed)[:wanted], key=str.encode)
        else:
            drawn, seed = drawn[:wanted], None
        if engine is not None and drawn:
            check_settings(about(engine)[0], self.settings)
            problems += replay(engine, [(name, found[name]) for name in drawn if name in found], folder)
        replayed = sum(name in found for name in drawn)
        return Verification(self.count, replayed, seed, problems)

    def _own_problems(self) -> Iterator[Problem]:
        """What is wrong in the certificate itself."""
        if self.document["subject"][1]["digest"]["sha256"] != _hash(self.predicate):
            message = "the predicate was altered: it has another digest than the subject 'predicate'"
            yield Problem(None, message)
        receipts = self.predicate["receipts"]
        if receipts["answers"] + receipts["scores"] != receipts["count"]:
            message = f"{receipts['answers']} answers and {receipts['scores']} scores are not {receipts['count']}"
            yield Problem(None, message)

    def _leaves(self, folder: Path, problems: list[Problem]) -> dict[str, tuple[str, str]]:
        """The kind and digest of each receipt that the certificate counts, by name."""
        receipts = self.predicate["receipts"]
        file = folder / receipts["leaves"]
        lines = file.read_bytes().split(b"\n")
        if lines[-1]:
            problems.append(Problem(None, f"{file.name} has no end of its last line"))
        else:
            lines.pop()
        leaves: dict[str, tuple[str, str]] = {}
        last = b""
        for number, line in enumerate(lines, 1):
            where = f"{file.name}, line {number}"
            try:
                one = parse(line.decode())
                name, kind, digest = one["name"], one["kind"], one["digest"]
                if line != leaf(name, kind, digest):
                    raise ValueError("it is not the canonical JSON of digest, kind and name")
                key = name.encode()
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                problems.append(Problem(None, f"{where} is not a leaf: {error}"))
                continue
            if name in leaves:
                problems.append(Problem(name, f"it is listed twice ({where})"))
            elif number > 1 and key < last:
                problems.append(Problem(name, f"it is not in the order of the names ({where})"))
            leaves[name], last = (kind, digest), key
        if (root := tree_hash(lines)) != self.root:
            message = f"the leaves in {file.name} have the root {root}, but the certificate is of {self.root}"
            problems.append(Problem(None, message))
        if len(lines) != receipts["count"]:
            message = f"{file.name} lists {len(lines)} receipts, but the certificate counts {receipts['count']}"
            problems.append(Problem(None, message))
        kinds = [kind for kind, _ in leaves.values()]
        for kind in ("answer", "score"):
            if len(lines) == receipts["count"] and kinds.count(kind) != receipts[f"{kind}s"]:
                message = f"{file.name} lists {kinds.count(kind)} {kind}s, the certificate {receipts[f'{kind}s']}"
                problems.append(Problem(None, message))
        return leaves

    def _receipts(
        self, folder: Path, leaves: Mapping[str, tuple[str, str]], problems: list[Problem]
    ) -> dict[str, dict[str, Any]]:
        """Check each receipt that the leaves list. Returns the records of those that are there."""
        settings = self.settings
        found: dict[str, dict[str, Any]] = {}
        others: dict[str, str] = {}
        """Why a receipt of this name is not the one that the certificate counts."""
        with (folder / RECORDS).open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    record = parse(line.decode())
                    name = record["name"]
                    expected = leaves.get(name)
                except (ValueError, KeyError, TypeError):
                    problems.append(Problem(None, f"{RECORDS}, line {number} is not a record"))
                    continue
                if expected is None:
                    continue  # the folder may have receipts of other certificates
                try:
                    receipt = read_receipt(folder, record)
                    receipt.validate()
                    if (kind_of(receipt), receipt.digest) != expected:
                        raise ReceiptError(f"its digest is {receipt.digest}, but the certificate counts {expected[1]}")
                    claim = receipt.claim if isinstance(receipt, ScoreReceipt) else receipt.to_dict()["claim"]
                    if changed := [part for part in SETTINGS if settings.get(part) != settings_of(claim).get(part)]:
                        raise ReceiptError(f"it has another {', '.join(changed)} than the certificate")
                except (ReceiptError, OSError) as error:
                    others[name] = str(error)
                else:
                    found[name] = record
        for name in leaves:
            if name not in found:
                message = f"it was altered: {others[name]}" if name in others else f"it is not in {folder / RECORDS}"
                problems.append(Problem(name, message))
        return found


def draw(names: Iterable[str], root: str, seed: str) -> list[str]:
    """Names in the order of a draw: by the SHA-256 of root, seed and name, each on a line of its own."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{root}\n{seed}\n{name}".encode()).digest())


def replay(engine: Engine, records: list[tuple[str, dict[str, Any]]], folder: Path) -> Iterator[Problem]:
    """Compute receipts again. Yields those that the model does not give."""
    scores: list[tuple[str, ScoreReceipt]] = []
    answers: list[tuple[str, Receipt]] = []
    settings = about(engine)[0]
    for name, record in records:
        receipt = read_receipt(folder, record)
        if isinstance(receipt, ScoreReceipt):
            scores.append((name, receipt))
            if len(scores) == _AT_ONCE:
                yield from _replay_scores(engine, settings, scores)
                scores.clear()
            continue
        answers.append((name, receipt))
        if len(answers) == _AT_ONCE:
            yield from _replay_answers(engine, answers)
            answers.clear()
    yield from _replay_answers(engine, answers)
    yield from _replay_scores(engine, settings, scores)


def _replay_answers(engine: Engine, answers: list[tuple[str, Receipt]]) -> Iterator[Problem]:
    """Compute answers again, together. Yields those that the model does not give."""
    found: dict[int, Any] = {}
    engine._replay_each([receipt for _, receipt in answers], None, found.__setitem__)
    for i, (name, _) in enumerate(answers):
        if isinstance(found[i], ReceiptError):
            if not CONTRADICTED.search(str(found[i])):
                raise ReceiptError(f"{name}: {found[i]}") from found[i]
            yield Problem(name, f"the replay differs: {found[i]}")
        elif isinstance(found[i], Exception):
            raise found[i]
        elif not found[i][0]:
            yield Problem(name, "the replay differs: the model gives another answer")


def _replay_scores(
    engine: Engine, settings: Mapping[str, Any], scores: list[tuple[str, ScoreReceipt]]
) -> Iterator[Problem]:
    pairs = [(one.claim["context_ids"], one.claim["continuation_ids"]) for _, one in scores]
    try:
        claims = score_claims(engine, settings, pairs) if pairs else []
    except BitnetError as error:  # ids that are no tokens, or more than the context holds
        if len(scores) == 1:
            yield Problem(scores[0][0], f"the replay differs: it cannot be computed: {error}")
            return
        for one in scores:
            yield from _replay_scores(engine, settings, [one])
        return
    for (name, receipt), claim in zip(scores, claims, strict=True):
        if claim != receipt.claim:
            own = ScoreReceipt(claim, "", "")
            shown = f"{own.logprob}, not {receipt.logprob}" if own.logprob != receipt.logprob else "other bits"
            yield Problem(name, f"the replay differs: the model gives the log-likelihood {shown}")


def certify(records: Records, names: list[str], made: Mapping[str, Any], results: Mapping[str, Any]) -> Certificate:
    """Write the leaves of these receipts, and return the certificate."""
    if records.first is None or not names:
        raise ArgumentError("there are no receipts to certify")
    settings, model_file, version = records.first
    lines = list(records.leaves(names))
    root = tree_hash(lines)
    leaves = f"leaves-{root[:12]}.jsonl"
    (records.folder / leaves).write_bytes(b"".join(line + b"\n" for line in lines))
    kinds = records.kinds(names)
    predicate = {
        "model": {"file": model_file, "blake3": settings["model"], "tokenizer_blake3": settings["tokenizer"]},
        "engine": {
            "name": "bitnet-engine",
            "version": version,
            "numerics": settings["numerics"],
            "settings": {name: settings[name] for name in SETTINGS[3:] if name in settings},
        },
        "receipts": {
            "count": len(lines),
            "answers": kinds.count("answer"),
            "scores": kinds.count("score"),
            "folder": records.folder.absolute().as_posix(),
            "leaves": leaves,
        },
        "made": dict(made),
        "results": dict(results),
        "time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    try:
        own = _hash(predicate)
    except ValueError as error:
        raise ArgumentError(f"made and results must be JSON: {error}") from error
    subject = [
        {"name": "receipts", "digest": {TREE: root}},
        {"name": "predicate", "digest": {"sha256": own}},
    ]
    document = {"_type": STATEMENT, "subject": subject, "predicateType": PREDICATE, "predicate": predicate}
    return Certificate(json.loads(json.dumps(document)), records.folder.absolute())


def _hash(predicate: Any) -> str:
    """SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(predicate)).hexdigest()


def _check_form(document: Any) -> None:
    """Raise KeyError, TypeError or ValueError if a document is no certificate."""
    for name, expected in (("_type", STATEMENT), ("predicateType", PREDICATE)):
        if document[name] != expected:
            raise ValueError(f"{name} is {document[name]!r}, expected {expected!r}")
    subject, predicate = document["subject"], document["predicate"]
    if [one["name"] for one in subject] != ["receipts", "predicate"]:
        raise ValueError("its subjects are not 'receipts' and 'predicate'")
    for value in (subject[0]["digest"][TREE], subject[1]["digest"]["sha256"]):
        if not (isinstance(value, str) and _HASH.fullmatch(value)):
            raise ValueError(f"{value!r} is not a SHA-256 in hexadecimal")
    model, engine, receipts = predicate["model"], predicate["engine"], predicate["receipts"]
    texts = [model["file"], model["blake3"], engine["name"], engine["version"], receipts["folder"], receipts["leaves"]]
    if not all(isinstance(text, str) for text in [*texts, predicate["time"]]):
        raise ValueError("a name in it is not a text")
    if not is_file_name(receipts["leaves"]):
        raise ValueError(f"{receipts['leaves']!r} is not the name of a file")
    if "\0" in receipts["folder"]:
        raise ValueError(f"{receipts['folder']!r} is not the path of a folder")
    if not all(isinstance(part, dict) for part in (engine["settings"], predicate["made"], predicate["results"])):
        raise ValueError("settings, made and results are objects")
    settings = engine["settings"]
    if others := settings.keys() - set(SETTINGS[3:]):
        raise ValueError(f"the engine has unknown settings: {', '.join(sorted(others))}")
    if not all(isinstance(value, str) for value in (*map(settings.__getitem__, NAMED), settings.get("lm_head", ""))):
        raise ValueError("a setting of the engine is not a text")
    numbers = [receipts["count"], receipts["answers"], receipts["scores"], engine["numerics"], settings["n_ctx"]]
    if not all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers):
        raise ValueError("a count in it is not a whole number")
    if model["tokenizer_blake3"] is not None and not isinstance(model["tokenizer_blake3"], str):
        raise ValueError("tokenizer_blake3 is not a text")
    canonical(document)
