"""Files of earlier versions load, validate and give the same answers. `fixtures/make_old_files.py` made them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import bitnet
from bitnet.batch import run

FOLDERS = sorted((Path(__file__).resolve().parent / "fixtures").glob("v*"))


def old_files(kind: str) -> list[Any]:
    """One test parameter for each file of this kind: its path and what the old version recorded about it."""
    return [
        pytest.param(folder / kind / name, expected, id=f"{folder.name}-{name}")
        for folder in FOLDERS
        for name, expected in json.loads((folder / "expected.json").read_text("utf-8"))[kind].items()
    ]


def load(path: Path) -> bitnet.Receipt:
    return bitnet.Receipt.load(path.with_suffix(".json"))


def test_there_are_old_files() -> None:
    assert [folder.name for folder in FOLDERS][:1] == ["v0.1.0"]
    assert len(old_files("receipts")) >= 11
    assert len(old_files("conversations")) >= 4


@pytest.mark.parametrize(("path", "expected"), old_files("receipts"))
def test_an_old_receipt_validates_and_keeps_its_digest(path: Path, expected: dict[str, Any]) -> None:
    receipt = load(path)
    receipt.validate()
    assert (receipt.digest, receipt.finish_reason) == (expected["digest"], expected["finish_reason"])
    jsonschema.validate(receipt.to_dict(), bitnet.receipt_schema(), cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(("path", "expected"), old_files("receipts"))
def test_an_old_receipt_is_written_again_byte_for_byte(path: Path, expected: dict[str, Any]) -> None:
    """From its figures too: a copy with test results forgets the document that it was read from."""
    receipt, text = load(path), path.with_suffix(".json").read_text("utf-8")
    assert receipt.to_json() == text
    assert receipt.with_test_results(**json.loads(text)["test_results"]).to_json() == text
    assert receipt.redact().digest == expected["digest"]


@pytest.mark.parametrize(("path", "expected"), old_files("receipts"))
def test_an_old_receipt_is_replayed(path: Path, expected: dict[str, Any]) -> None:
    receipt = load(path)
    claim = receipt.to_dict()["claim"]
    prompt = None
    if path.name.endswith("-redacted"):
        with pytest.raises(bitnet.ReceiptError, match="redacted"):
            bitnet.Engine(n_threads=1).replay(receipt)
        prompt = load(path.with_name(path.name.removesuffix("-redacted"))).to_dict()["claim"]["prompt_ids"]
    with bitnet.Engine(n_threads=1, kv_type=claim["kv_type"], act_quant=claim["act_quant"]) as engine:
        assert engine.replay(receipt, prompt)


def test_an_old_receipt_names_the_one_before_it() -> None:
    for folder in FOLDERS:
        first, second = (load(folder / "receipts" / name) for name in ("chat-1", "chat-2"))
        assert first.to_dict()["claim"]["previous"] is None
        assert second.to_dict()["claim"]["previous"] == first.digest


@pytest.mark.parametrize(("path", "expected"), old_files("conversations"))
def test_an_old_conversation_goes_on_with_the_same_answer(path: Path, expected: dict[str, Any]) -> None:
    """The digest of the answer's receipt also stands for the prompt, the template and the sampling parameters."""
    with bitnet.Engine(n_threads=1, n_ctx=expected["n_ctx"]) as engine:
        chat = bitnet.ChatSession.load(engine, path)
        assert (len(chat.history), chat.forgotten) == (expected["turns"], expected["forgotten"])
        assert repr(chat.params) == expected["params"]
        if path.suffix == ".json":
            assert chat.to_json() == path.read_text("utf-8")
        answer = chat.send(expected["question"], seed=expected["seed"])
        assert answer.receipt is not None
        found = {"text": answer.text, "token_ids": answer.token_ids, "cached_tokens": answer.cached_tokens}
        found["digest"] = answer.receipt.digest
        assert found == {name: expected[name] for name in found}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.name))
def test_an_old_batch_is_resumed_without_computing_an_answer_again(folder: Path, tmp_path: Path) -> None:
    requests, answers = folder / "batch" / "requests.jsonl", tmp_path / "answers.jsonl"
    shutil.copy(folder / "batch" / "half.jsonl", answers)
    assert not answers.read_bytes().endswith(b"\n")  # the old version was killed while it wrote a line
    computed: list[bitnet.Receipt] = []
    with bitnet.Engine(n_threads=1) as engine:
        states = list(run(engine, requests, answers, system="Be kind.", max_tokens=12, seed=1, save=computed.append))
    assert states == [(3, 6), (4, 6), (5, 6), (6, 6)]
    assert len(computed) == 3
    assert answers.read_bytes() == (folder / "batch" / "answers.jsonl").read_bytes()
