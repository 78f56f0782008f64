"""The certificate of a run: one digest for the receipts of all tests, and their outcomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ._scores import APART, Document, Score, groups, total


def write_certificate(path: Path, folder: Path, document: Document) -> str:
    """Write the certificate of a report whose receipts are in `folder`. Returns what the summary says of it.

    The name of a receipt is TEST/NUMBER: pytest's name of the test, and the number of the answer, from 0. A run that
    cannot be certified, such as one without answers, leaves no file: an older one would be of another run.
    """
    from bitnet import BitnetError, Receipt
    from bitnet._records import Records
    from bitnet.certificate import certify

    path.unlink(missing_ok=True)
    results = {
        "cases": _counts(total(document)),
        "groups": {name: _counts(score) for name, score in groups(document).items()},
        "outcomes": {test: facts["outcome"] for test, facts in document.items()},
    }
    made = {"by": "pytest", "version": pytest.__version__}
    try:
        records = Records(folder)
        try:
            for test, facts in document.items():
                for number, answer in enumerate(facts["answers"]):
                    if "receipt" in answer:
                        file = answer["receipt"]
                        records.add(f"{test}/{number}", Receipt.load(folder / file), file=file)
            certificate = certify(records, records.names(), made, results)
        finally:
            records.close()
        certificate.save(path)
    except (BitnetError, OSError) as error:
        return f"no certificate: {error}"
    return f"{path.name} certifies {certificate.count} receipts, root {certificate.root}"


def _counts(score: Score) -> dict[str, Any]:
    """How many cases there are, how many passed, and how many have an outcome that does not count."""
    return {"passed": score.passed, "cases": score.cases, **{word: score.counts[word] for word in APART}}
