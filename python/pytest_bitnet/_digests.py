"""Files of committed digests: reading, writing, and saying what changed.

A file holds for each answer its digest and what the digest is computed from: the claim of the redacted receipt, which
has hashes in place of texts and token ids. Parts that all answers have in common stand at the head of the file.
Version 1 of the file held the digests only.
"""

from __future__ import annotations

import json
import os
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bitnet import Receipt

Committed = dict[str, list[dict[str, Any]]]
"""For each test its answers: digest, and unless version 1 of a file held it, prompt, answer and claim."""

_VERSION = 2
_SHOWN = 200
"""Prompts and answers are cut to this many characters in a file."""
_RESULT = ("output_ids", "finish_reason")
"""Parts of a claim that are results; the others are what was asked for."""


def digest_key(item: pytest.Item, file: Path) -> str:
    """A test's name in a file of digests. Its path is relative to that file, so it does not depend on pytest's root."""
    path = os.path.relpath(item.path.parent.resolve() / item.path.name, file.parent.resolve())
    return Path(path).as_posix() + "".join(item.nodeid.partition("::")[1:])


def claimed(receipt: Receipt) -> dict[str, Any]:
    """What a receipt's digest is computed from: each part by its path, such as "sampling.max_tokens"."""
    flat: dict[str, Any] = {}

    def add(path: str, value: Any) -> None:
        if isinstance(value, dict) and value.keys() != {"count", "blake3"}:
            for name, part in value.items():
                add(f"{path}.{name}" if path else name, part)
        else:
            flat[path] = value

    add("", receipt.redact().to_dict()["claim"])
    return flat


def committed_form(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a file keeps of a test's answers."""
    return [
        {name: one[name] for name in ("digest", "prompt", "answer", "claim") if name in one}
        | {name: one[name][:_SHOWN] for name in ("prompt", "answer")}
        for one in answers
    ]


def differences(committed: list[dict[str, Any]], answers: list[dict[str, Any]]) -> list[str]:
    """Lines that say which answers differ from the committed ones, and in which parts."""
    lines = []
    for old, new in zip_longest(committed, committed_form(answers)):
        if old is None:
            lines += [f"prompt {new['prompt']!r}, answer {new['answer']!r}: not in the file", f"  {new['digest']}"]
        elif new is None:
            which = f"prompt {old['prompt']!r}, answer {old['answer']!r}" if "prompt" in old else "an answer"
            lines += [f"{which}: in the file, but the test did not ask for it", f"  {old['digest']}"]
        elif old["digest"] != new["digest"]:
            lines += [f"prompt {new['prompt']!r}: {_changes(old, new)}"]
            lines += [f"  {new['digest']}, expected {old['digest']}"]
    return lines


def _changes(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What differs between two answers, in words."""
    if "claim" not in old or "claim" not in new:
        return f"answer {new['answer']!r}; the file has no more than the digest of what it was"
    before, after = old["claim"], new["claim"]
    changed = [part for part in (after | before) if before.get(part, ...) != after.get(part, ...)]
    asked = [part for part in changed if part not in _RESULT]
    if old["prompt"] != new["prompt"]:
        prompt = [f"the prompt was {old['prompt']!r}"]
        asked = [part for part in asked if part != "prompt_ids"]
    else:
        prompt = []
    if asked == ["previous"]:
        named = ["previous: an earlier answer of the conversation differs"]
    else:
        named = [_change(part, before, after) for part in asked if part != "previous"]
    if old["answer"] != new["answer"]:
        result = f"the text is {new['answer']!r}, was {old['answer']!r}"
    elif "output_ids" in changed:
        same = f"the first {_SHOWN} characters are" if len(new["answer"]) == _SHOWN else "the text is"
        result = f"{same} the same, the token ids differ"
    else:
        result = "the text is the same"
    if "finish_reason" in changed:
        result += f"; {_change('finish_reason', before, after)}"
    return "; ".join([*prompt, *named, result])


def _change(part: str, before: dict[str, Any], after: dict[str, Any]) -> str:
    """A part with its values, if they are short."""
    values = [json.dumps(claim[part], ensure_ascii=False) if part in claim else "not set" for claim in (after, before)]
    if any(len(value) > 40 for value in values):  # hashes and long lists
        return part
    return f"{part} is {values[0]}, was {values[1]}"


def read_digests(file: Path, update: bool) -> Committed:
    """Read a file of digests. An update opens it for writing, so that an error shows before the tests run."""
    if not (update or file.exists()):
        return {}
    try:
        existed = file.exists()
        with file.open("a+" if update else "r", encoding="utf-8") as opened:
            opened.seek(0)
            text = opened.read() or "{}"
        if not existed:
            file.unlink()
        return _parse(text)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        do = "correct it, or move it away and write a new one with --bitnet-update-digests"
        raise pytest.UsageError(f"--bitnet-digests: {file} is not a file of digests ({why}); {do}") from error


def _parse(text: str) -> Committed:
    """The digests in a file of any version. Raises ValueError if the text is something else."""
    found = json.loads(text)
    unexpected = ValueError(f"found {text[:40].strip()!r}, expected an object with a list of digests for each test")
    if not isinstance(found, dict):
        raise unexpected
    if "version" in found:
        if found["version"] != _VERSION:
            raise ValueError(f"version {found['version']!r}; this version of the plugin reads {_VERSION}")
        common, tests = found.get("common"), found.get("tests")
    else:
        common, tests = {}, found
    if not (isinstance(common, dict) and isinstance(tests, dict)):
        raise unexpected
    committed: Committed = {}
    for test, answers in tests.items():
        if not isinstance(answers, list):
            raise unexpected
        committed[test] = []
        for answer in answers:
            entry = dict(answer) if isinstance(answer, dict) else {"digest": answer}
            if not isinstance(entry.get("digest"), str | None):
                raise unexpected
            if "claim" in entry:
                entry["claim"] = {**common, **entry["claim"]}
            committed[test].append(entry)
    return committed


def digests_text(committed: Committed) -> str:
    """The content of a file of digests."""
    claims = [answer["claim"] for answers in committed.values() for answer in answers if "claim" in answer]
    first = claims[0] if claims else {}
    common = {part: value for part, value in first.items() if all(claim.get(part, ...) == value for claim in claims)}
    tests = {
        test: [
            answer | {"claim": {part: value for part, value in answer["claim"].items() if part not in common}}
            if "claim" in answer
            else answer
            for answer in answers
        ]
        for test, answers in sorted(committed.items())
        if answers
    }
    return json.dumps({"version": _VERSION, "common": common, "tests": tests}, indent=1, ensure_ascii=False) + "\n"
