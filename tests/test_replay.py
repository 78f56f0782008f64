"""Replays check all ids of an answer in one pass, and find what generating it again finds: each altered id, each
altered setting, each other end.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bitnet
from bitnet import ChatSession, Engine, Receipt
from bitnet._synthetic import Spec, make_model
from test_forms import RECORD
from test_recurrent import HYBRID
from test_speculation import prompts
from text_model import make_text_model

GREEDY: dict[str, Any] = {"max_tokens": 24, "ignore_eos": True}
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "temperature": {"temperature": 1.0, "seed": 3},
    "top_k": {"temperature": 0.9, "top_k": 7, "seed": 4},
    "top_p": {"temperature": 1.1, "top_p": 0.7, "seed": 5},
    "min_p": {"temperature": 1.2, "min_p": 0.05, "seed": 6},
    "repetition": {"repetition_penalty": 1.4, "repeat_last_n": 9, "seed": 7},
    "penalties": {"presence_penalty": 0.4, "frequency_penalty": 0.6, "temperature": 0.4, "top_k": 9, "seed": 8},
    "bias": {"logit_bias": {3: 0.3, 5: float("-inf"), 8: 1.0}, "temperature": 1.0, "seed": 9},
    "in f64": {"temperature": 1e-9, "seed": 8},
}
FORMS: dict[str, dict[str, Any]] = {
    "record": {"json_schema": RECORD, "max_tokens": 90},
    "record, sampled": {"json_schema": RECORD, "max_tokens": 90, "temperature": 1.0, "seed": 4},
    "cut": {"json_schema": RECORD, "max_tokens": 12, "temperature": 1.0, "seed": 5},
    "regex": {"regex": r"[A-Z][a-z]{2,9} [0-9]{1,3}( or [0-9]{1,3})?", "temperature": 1.2, "top_k": 30, "seed": 6},
    "choice": {"choice": ["yes", "no", "not yet", "yesterday"], "repetition_penalty": 1.2},
    "grammar": {"grammar": 'start: "I have " NUMBER " " ("apples" | "pears") "."?\nNUMBER: /[0-9]{1,2}/\n'},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "small batches": {"n_batch": 5},
    "int8 head": {"lm_head": "int8"},
    "exact head": {"lm_head": "exact"},
    "f32 cache": {"kv_type": "f32"},
}
LARGE_HEAD = Spec("bitnet-b1.58", 2, 256, 640, 4, 2, context=256, vocab_size=6000)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("replay") / "model.gguf"
    make_text_model(path)
    return path


@pytest.fixture(scope="module")
def engine(path: Path) -> Iterator[Any]:
    with Engine(path, n_threads=2) as engine:
        yield engine


@pytest.fixture(scope="module")
def trit() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


def forged(receipt: Receipt, edit: Callable[[dict[str, Any]], Any]) -> Receipt:
    """A copy whose claim was edited."""
    document = receipt.to_dict()
    edit(document["claim"])
    return Receipt.from_json(json.dumps(document))


def generated(engine: Any, receipt: Receipt) -> tuple[list[int], str]:
    """The reference: the ids that a receipt's settings give token by token, and how they end."""
    claim = receipt.to_dict()["claim"]
    settings = {name: value for name, value in claim["sampling"].items() if value is not None}
    settings["logit_bias"] = {id: float(bias) for id, bias in settings["logit_bias"]}
    if form := claim.get("grammar"):
        text = form["text"]
        settings[form["kind"]] = json.loads(text) if form["kind"] in ("json_schema", "choice") else text
    stream = engine.stream(claim["prompt_ids"], ignore_eos=True, **settings)
    for count, _ in enumerate(stream, 1):  # one piece for each id
        if count == len(claim["output_ids"]):
            break
    stream.cancel()
    made = stream.receipt.to_dict()["claim"]
    return made["output_ids"], made["finish_reason"]


def check(engine: Any, receipt: Receipt) -> bool:
    """Replays a receipt. The verdict and the ids are those of the reference."""
    claim = receipt.to_dict()["claim"]
    ids, finish = generated(engine, receipt)
    same, found, _ = engine._replay(receipt)
    assert found == ids
    assert same == (ids == claim["output_ids"] and finish == claim["finish_reason"])
    return same


def flip_each(engine: Any, receipt: Receipt) -> None:
    """Alters each id in turn. The replay finds it, and names it; then it has the ids that the model gives."""
    ids = receipt.to_dict()["claim"]["output_ids"]
    for at, id in enumerate(ids):
        for other in {id ^ 1, (id + 7) % engine.n_vocab, engine.n_vocab - 1 - id} - {id, -1, engine.n_vocab}:
            altered = forged(receipt, lambda claim, at=at, other=other: claim["output_ids"].__setitem__(at, other))
            same, found, _ = engine._replay(altered)
            claimed = altered.to_dict()["claim"]["output_ids"]
            assert not same
            assert found == ids
            assert next(i for i in range(len(ids)) if found[i] != claimed[i]) == at


# -- Altered ids ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_each_altered_id_is_found_and_named(path: Path, options: dict[str, Any], setting: dict[str, Any]) -> None:
    with Engine(path, n_threads=1, **options) as engine:
        receipt = engine.generate(prompts(1, engine.n_vocab), **GREEDY, **setting).receipt
        assert check(engine, receipt)
        flip_each(engine, receipt)


def test_each_altered_id_is_found_by_bounds_of_logits(tmp_path: Path) -> None:
    """A head so large that its bounds decide which logits are computed, for more positions than it takes at once."""
    make_model(tmp_path / "large.gguf", LARGE_HEAD)
    with Engine(tmp_path / "large.gguf", n_threads=2) as engine:
        for name in ("greedy", "top_k", "min_p", "repetition"):
            receipt = engine.generate([1, 2, 3], max_tokens=90, ignore_eos=True, **SETTINGS[name]).receipt
            assert check(engine, receipt)
            for at in (0, 1, 63, 64, 65, 89):
                altered = forged(receipt, lambda claim, at=at: claim["output_ids"].__setitem__(at, 4321))
                found = engine.replay_ids(altered)
                assert found == receipt.to_dict()["claim"]["output_ids"]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_each_altered_id_of_a_form_is_found(trit: Engine, form: dict[str, Any]) -> None:
    """Ids that the form has forced among them."""
    receipt = trit.generate(trit.encode("Tell me about a person."), **form).receipt
    assert receipt is not None
    receipt.validate()
    assert check(trit, receipt)
    flip_each(trit, receipt)


def test_an_id_outside_the_vocabulary_is_found(engine: Any) -> None:
    receipt = engine.generate([1, 2], **GREEDY).receipt
    for at in (0, 11, 23):
        altered = forged(receipt, lambda claim, at=at: claim["output_ids"].__setitem__(at, engine.n_vocab + 3))
        assert engine._replay(altered)[:2] == (False, receipt.to_dict()["claim"]["output_ids"])


def test_an_answer_that_is_cut_or_longer_is_found(engine: Any) -> None:
    receipt = engine.generate([1, 2], **GREEDY, temperature=1.0, seed=5).receipt
    assert not engine.replay(forged(receipt, lambda claim: claim["output_ids"].pop()))
    assert not engine.replay(forged(receipt, lambda claim: claim["output_ids"].append(3)))
    assert not engine.replay(forged(receipt, lambda claim: claim["output_ids"].insert(0, 3)))


# -- Altered settings and ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "change"),
    [
        ("temperature", {"seed": 4}),
        ("temperature", {"temperature": 0.3}),
        ("temperature", {"top_k": 2}),
        ("temperature", {"top_p": 0.1}),
        ("temperature", {"min_p": 0.9}),
        ("top_k", {"top_k": 1}),
        ("top_p", {"top_p": 0.01}),
        ("greedy", {"temperature": 2.0}),
        ("greedy", {"repetition_penalty": 3.0}),
        ("greedy", {"presence_penalty": 2.0}),
        ("repetition", {"repetition_penalty": 1.0}),
        ("repetition", {"repeat_last_n": 1}),
        ("penalties", {"presence_penalty": -2.0}),
        ("penalties", {"frequency_penalty": -2.0}),
        ("greedy", {"logit_bias": [[3, 100.0]]}),
        ("greedy", {"max_tokens": 23}),
        ("greedy", {"max_tokens": 25}),
        ("greedy", {"max_tokens": None}),
    ],
    ids=str,
)
def test_each_altered_setting_is_found(engine: Any, setting: str, change: dict[str, Any]) -> None:
    receipt = engine.generate(prompts(2, engine.n_vocab), **GREEDY, **SETTINGS[setting]).receipt
    assert check(engine, receipt)
    assert not check(engine, forged(receipt, lambda claim: claim["sampling"].update(change)))


def test_altered_stops_ends_and_prompts_are_found(engine: Any) -> None:
    receipt = engine.generate(prompts(2, engine.n_vocab), **GREEDY, temperature=1.0, seed=2).receipt
    ids, text = receipt.to_dict()["claim"]["output_ids"], engine.decode(receipt.to_dict()["claim"]["output_ids"])
    inside = next(char for char in text[3:] if char.strip() and char.isascii())
    for name, value in [("stop", [inside]), ("stop_token_ids", [ids[4]]), ("stop_token_ids", [ids[-1]])]:
        assert not check(engine, forged(receipt, lambda claim, n=name, v=value: claim["sampling"].update({n: v})))
    for finish in ("stop", "context", "cancelled"):
        assert not check(engine, forged(receipt, lambda claim, f=finish: claim.update(finish_reason=f)))
    for at in range(len(receipt.to_dict()["claim"]["prompt_ids"])):
        check(engine, forged(receipt, lambda claim, at=at: claim["prompt_ids"].__setitem__(at, 2)))
    assert not check(engine, forged(receipt, lambda claim: claim["prompt_ids"].append(2)))


def test_a_stop_string_that_is_left_out_is_found(engine: Any) -> None:
    receipt = engine.generate("hello world", max_tokens=60, temperature=1.0, seed=1, stop=["a", "e"]).receipt
    assert receipt.finish_reason == "stop"
    assert check(engine, receipt)
    assert not check(engine, forged(receipt, lambda claim: claim["sampling"].update(stop=[])))


# -- Kinds of answers -------------------------------------------------------------------------------------------------


def test_an_answer_to_the_end_of_the_context_is_verified(engine: Any) -> None:
    receipt = engine.generate([1] * 200, ignore_eos=True).receipt
    assert receipt.finish_reason == "context"
    assert check(engine, receipt)
    flip_each(engine, receipt)
    assert not engine.replay(forged(receipt, lambda claim: claim.update(finish_reason="cancelled")))


def test_an_engine_with_too_short_a_context_refuses(path: Path, engine: Any) -> None:
    receipt = engine.generate([1, 2, 3], **GREEDY).receipt
    with Engine(path, n_ctx=26) as enough, Engine(path, n_ctx=25) as short:
        assert enough.replay(receipt)
        with pytest.raises(bitnet.ContextLengthError, match="26"):
            short.replay(receipt)


@pytest.mark.parametrize("count", [1, 2, 9, 17])
def test_a_cancelled_answer_is_verified(engine: Any, trit: Engine, count: int) -> None:
    for model, form in [(engine, {}), (engine, {"speculate": "lookup"}), (trit, FORMS["record"])]:
        stream = model.stream(prompts(3, model.n_vocab), **{**GREEDY, **form})
        for _ in range(count):
            next(stream)
        stream.cancel()
        assert stream.receipt.finish_reason == "cancelled"
        assert check(model, stream.receipt)
        flip_each(model, stream.receipt)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_an_answer_with_guesses_is_verified(engine: Any, setting: dict[str, Any]) -> None:
    receipt = engine.generate(prompts(4, engine.n_vocab), **GREEDY, **setting, speculate="lookup").receipt
    assert check(engine, receipt)


def test_conversations_and_batches_are_verified(engine: Any) -> None:
    chat = ChatSession(engine, "Be brief.", template="bitnet", max_tokens=7, temperature=1.0, seed=5)
    for text in ("hello", "world", "hello world"):
        chat.send(text)
    answers = engine.generate([[1, 2], [1, 2, 3], [4] * 20], **GREEDY, temperature=1.0, seed=4)
    receipts = [*chat.receipts, *(answer.receipt for answer in answers)]
    assert engine.replay(receipts) == [True] * 6
    assert all(check(engine, receipt) for receipt in receipts)


def test_answers_of_recurrent_models_are_verified(tmp_path: Path) -> None:
    make_text_model(tmp_path / "model.gguf", 160, HYBRID)
    with Engine(tmp_path / "model.gguf", n_threads=2, n_batch=32) as engine:
        for setting in ({}, SETTINGS["temperature"]):
            receipt = engine.generate(list(range(5, 50)), **{**GREEDY, "max_tokens": 70}, **setting).receipt
            assert check(engine, receipt)
            flip_each(engine, receipt)


def test_a_redacted_answer_is_generated(engine: Any) -> None:
    receipt = engine.generate([1, 2], **GREEDY).receipt
    assert engine.replay(receipt.redact(), [1, 2])
    wrong = forged(receipt.redact(), lambda claim: claim["output_ids"].update(blake3="00" * 32))
    assert not engine.replay(wrong, [1, 2])


# -- Many at once, and what it costs ----------------------------------------------------------------------------------


def passes(engine: Any, work: Callable[[], Any]) -> int:
    before = engine._queue[0]
    work()
    return int(engine._queue[0] - before)


def test_a_replay_takes_one_pass(engine: Any, trit: Engine) -> None:
    prompt = prompts(5, engine.n_vocab)
    for setting in SETTINGS.values():
        receipt = engine.generate(prompt, **GREEDY, **setting).receipt
        assert passes(engine, lambda receipt=receipt: engine.replay(receipt)) == 1
    for form in FORMS.values():
        receipt = trit.generate(trit.encode("Tell me about a person."), **form).receipt
        assert receipt is not None
        assert passes(trit, lambda receipt=receipt: trit.replay(receipt)) == 1


def test_a_replay_in_small_passes_computes_each_position_once(path: Path) -> None:
    with Engine(path, n_threads=1, n_batch=8) as engine:
        receipt = engine.generate([1] * 20, **GREEDY).receipt
        # A step checks up to 8 ids, and a pass has up to 8 rows: the prompt with the first ids, then the others.
        first = math.ceil((20 + 7) / 8)
        assert passes(engine, lambda: engine.replay(receipt)) == first + 2


def test_after_a_wrong_id_the_answer_is_generated(engine: Any) -> None:
    receipt = engine.generate([1, 2], **GREEDY).receipt
    for at in (0, 10, 23):
        altered = forged(receipt, lambda claim, at=at: claim["output_ids"].__setitem__(at, 9))
        assert passes(engine, lambda altered=altered: engine.replay(altered)) == 24 - at


def test_many_receipts_share_passes(engine: Any) -> None:
    answers = [engine.generate([i, i + 1, i + 2], **GREEDY, temperature=1.0, seed=i) for i in range(8)]
    receipts = [answer.receipt for answer in answers]
    receipts[3] = forged(receipts[3], lambda claim: claim["output_ids"].__setitem__(23, 9))
    assert engine.replay(receipts) == [i != 3 for i in range(8)]
    assert engine.replay_ids(receipts) == [answer.receipt.to_dict()["claim"]["output_ids"] for answer in answers]
    one_by_one = passes(engine, lambda: [engine.replay(receipt) for receipt in receipts])
    assert passes(engine, lambda: engine.replay(receipts)) < one_by_one / 2
    assert engine.replay([]) == []


def test_a_list_with_a_receipt_of_another_engine_names_it(engine: Any, trit: Engine) -> None:
    own, other = engine.generate([1], **GREEDY).receipt, trit.generate([1], max_tokens=2).receipt
    with pytest.raises(bitnet.ReceiptError, match=r"receipt\[1\]: .*claim\."):
        engine.replay([own, other])
    found: dict[int, Any] = {}
    engine._replay_each([own, other, own], None, found.__setitem__)
    assert found[0][0] and found[2][0] and isinstance(found[1], bitnet.ReceiptError)
    with pytest.raises(ZeroDivisionError):
        engine._replay_each([own], None, lambda *_: 1 / 0)


def test_lists_take_lists_of_prompts(engine: Any) -> None:
    receipt = engine.generate([1, 2], **GREEDY).receipt
    assert engine.replay([receipt, receipt.redact()], [None, [1, 2]]) == [True, True]
    for prompt in ("ab", [[1, 2]], 3):
        with pytest.raises(TypeError, match="2 receipts need a list of 2 prompts"):
            engine.replay([receipt, receipt.redact()], prompt)
    with pytest.raises(TypeError, match=r"receipt\[1\] must be a Receipt.*found str"):
        engine.replay([receipt, "a.json"])
    with pytest.raises(TypeError, match=r"receipt must be a Receipt or a list of them, found int"):
        engine.replay(3)
