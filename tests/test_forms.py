"""Answers that have to have a form: a JSON schema, a regular expression, one of some texts, a grammar."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Optional

import jsonschema
import numpy as np
import pytest

import bitnet
from bitnet import ArgumentError, ChatSession, Engine, ReceiptError, SamplingParams, _schema
from bitnet._synthetic import Spec
from conftest import ROOT
from scripted_model import scripted_model
from text_model import make_text_model

ASKED = [{"role": "user", "content": "Tell me about a person."}]
RECORD = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["person", "place", "thing"]},
        "size": {"type": "integer", "minimum": 0, "maximum": 999},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 6}, "maxItems": 2},
    },
    "required": ["kind", "size", "tags"],
    "additionalProperties": False,
}
FORMS: dict[str, dict[str, Any]] = {
    "record": {"json_schema": RECORD, "max_tokens": 90},
    "any object": {"json_schema": True, "max_tokens": 40},
    "regex": {"regex": r"[A-Z][a-z]{2,9} [0-9]{1,3}( or [0-9]{1,3})?", "max_tokens": 40},
    "choice": {"choice": ["yes", "no", "not yet", "yesterday", "né"]},
    "grammar": {"grammar": 'start: "I have " NUMBER " " ("apples" | "pears") "."?\nNUMBER: /[0-9]{1,2}/\n'},
}
SAMPLERS: dict[str, dict[str, Any]] = {
    "greedy": {"seed": 3},
    "temperature 1": {"temperature": 1.0, "seed": 4},
    "top_k": {"temperature": 0.9, "top_k": 7, "seed": 5},
    "min_p": {"temperature": 1.3, "min_p": 0.02, "seed": 6},
    "top_p": {"temperature": 1.1, "top_p": 0.7, "seed": 7},
    "penalties": {
        "seed": 4,
        "repetition_penalty": 1.4,
        "frequency_penalty": 0.3,
        "logit_bias": {300: 4.0, 17: float("inf")},
    },
    "in f64": {"temperature": 1e-9, "seed": 8},
}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


def receipt_of(answer: bitnet.Completion) -> dict[str, Any]:
    assert answer.receipt is not None
    answer.receipt.validate()
    return answer.receipt.to_dict()


def fits(form: dict[str, Any], answer: bitnet.Completion) -> bool:
    """Whether a complete answer has its form."""
    if "regex" in form:
        return re.fullmatch(form["regex"], answer.text) is not None
    if "choice" in form:
        return answer.text in form["choice"]
    if "grammar" in form:
        return re.fullmatch(r"I have [0-9]{1,2} (apples|pears)\.?", answer.text) is not None
    schema = {"type": "object"} if form["json_schema"] is True else form["json_schema"]
    jsonschema.validate(answer.parsed, schema, jsonschema.Draft202012Validator)
    return True


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("form", FORMS)
def test_the_ids_are_those_of_all_logits_then_the_mask(engine: Engine, form: str, sampler: str) -> None:
    """With log-probabilities every step computes all logits, and the mask comes afterwards: no id is forced, no row of
    the output head is left out. The ids are the same, on every kind of head, and the receipt replays."""
    how = {**FORMS[form], **SAMPLERS[sampler]}
    plain = engine.chat(ASKED, **how, logprobs=0)
    answer = engine.chat(ASKED, **how)
    assert answer.token_ids == plain.token_ids and answer.finish_reason == plain.finish_reason
    if answer.finish_reason == "stop":
        assert fits(FORMS[form], answer)
    document, slow = receipt_of(answer), receipt_of(plain)
    assert document["digest"] == slow["digest"]
    assert document["run"]["work"]["logits"] < slow["run"]["work"]["logits"]
    assert slow["run"]["forced"]["ids"] == 0
    assert answer.receipt is not None and engine.replay(answer.receipt)


@pytest.mark.parametrize("lm_head", ["exact", "int8"])
def test_every_head_keeps_the_form(lm_head: Literal["exact", "int8"]) -> None:
    with Engine(lm_head=lm_head, n_threads=1) as engine:
        for form in FORMS.values():
            how = {**form, "temperature": 1.0, "seed": 3}
            answer, plain = engine.chat(ASKED, **how), engine.chat(ASKED, **how, logprobs=0)
            assert answer.token_ids == plain.token_ids
            assert answer.finish_reason == "length" or fits(form, answer)
            assert answer.receipt is not None and engine.replay(answer.receipt)


SHAPES = {
    "llama": Spec("llama", 2, 128, 192, 2, 1, untied=True),
    "delta nets": Spec("qwen35", 3, 128, 128, 2, 1, 32, linear="Q2_0_g64", embedding="F16", untied=True),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_models_of_other_kinds(tmp_path: Path, shape: str) -> None:
    make_text_model(tmp_path / "model.gguf", spec=SHAPES[shape])
    with Engine(tmp_path / "model.gguf", n_threads=1) as engine:
        ids = engine.encode("hello world")
        for seed in range(4):
            how: dict[str, Any] = {"choice": ["hello", "hello world", "help", "é"], "temperature": 1.0, "seed": seed}
            answer = engine.generate(ids, **how)
            assert answer.text in how["choice"] and answer.finish_reason == "stop"
            assert answer.token_ids == engine.generate(ids, **how, logprobs=0).token_ids
            receipt_of(answer)
            assert answer.receipt is not None and engine.replay(answer.receipt)


def test_a_form_begins_after_the_thoughts(tmp_path: Path) -> None:
    """The prompt has begun them, so they stay free. A replay, which knows no template, reads it off the receipt."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "<|im_start|>assistant\n<think>"
    )
    script = ["<think>", *"hm?", "</think>", *"42", "<|im_end|>"]
    with Engine(scripted_model(tmp_path / "m.gguf", script, template=template)) as engine:
        answer = engine.chat([{"role": "user", "content": "x"}], choice=["42", "17"])
        assert (answer.reasoning, answer.text, answer.finish_reason) == ("hm?", "42", "stop")
        claim = receipt_of(answer)["claim"]
        assert claim["grammar"]["after"] == "</think>"
        jsonschema.validate(receipt_of(answer), bitnet.receipt_schema())
        assert answer.receipt is not None and engine.replay(answer.receipt)


def test_a_vocabulary_without_the_letters() -> None:
    engine = Engine(ROOT / "tests" / "fixtures" / "relu2-i2s.gguf", n_threads=1)
    with pytest.raises(ArgumentError, match=r"choice: .*no token of the vocabulary fits"):
        engine.generate([1, 2], choice=["a"])


def test_forced_ids_take_no_step_of_their_own(engine: Engine) -> None:
    """Where the grammar leaves no choice, no logits are computed; the end of an answer is not computed at all."""
    only = "a long text that is the only one"
    answer = engine.chat(ASKED, choice=[only])
    run = receipt_of(answer)["run"]
    assert answer.text == only and len(answer.token_ids) > 3
    assert run["forced"] == {"ids": len(answer.token_ids) - 1, "uncomputed": 0, "wasted": 0}
    assert run["work"]["head"] == 1 and run["work"]["logits"] == 1
    tail = receipt_of(engine.chat(ASKED, choice=["no, certainly not", "yes, certainly"]))["run"]
    assert tail["forced"]["uncomputed"] > 0
    assert tail["computed_tokens"] < tail["prompt_tokens"] - tail["cached_tokens"] + tail["completion_tokens"] - 1


def test_the_answer_ends_when_it_is_complete(engine: Engine) -> None:
    """Neither a stop id nor max_tokens is needed."""
    for how in ({}, {"ignore_eos": True}):
        answer = engine.chat(ASKED, regex="[0-9]{4}", **how)
        assert re.fullmatch("[0-9]{4}", answer.text) and answer.finish_reason == "stop"
    exact = engine.chat(ASKED, regex="[0-9]{4}", max_tokens=len(answer.token_ids))
    assert exact.finish_reason == "stop" and exact.text == answer.text
    short = engine.chat(ASKED, regex="[0-9]{4}", max_tokens=len(answer.token_ids) - 1)
    assert short.finish_reason == "length" and answer.text.startswith(short.text)
    assert short.receipt is not None and engine.replay(short.receipt)


@pytest.mark.parametrize("max_tokens", range(1, 14))
def test_every_limit_cuts_the_same_answer(engine: Engine, max_tokens: int) -> None:
    """Also in the middle of ids that the grammar forces."""
    how: dict[str, Any] = {"json_schema": RECORD, "temperature": 1.0, "seed": 11}
    whole = engine.chat(ASKED, **how, max_tokens=90).token_ids
    answer = engine.chat(ASKED, **how, max_tokens=max_tokens)
    assert answer.token_ids == whole[:max_tokens] and answer.finish_reason == "length"
    receipt_of(answer)
    assert answer.receipt is not None and engine.replay(answer.receipt)


@pytest.mark.parametrize("taken", range(1, 12))
def test_a_stream_that_is_cancelled_between_forced_ids(engine: Engine, taken: int) -> None:
    stream = engine.chat_stream(ASKED, json_schema=RECORD, max_tokens=90)
    for _, _piece in zip(range(taken), stream, strict=False):
        pass
    stream.cancel()
    assert stream.receipt is not None and stream.finish_reason == "cancelled"
    stream.receipt.validate()
    assert engine.replay(stream.receipt)


def test_stop_strings_inside_forced_ids(engine: Engine) -> None:
    whole = engine.chat(ASKED, json_schema=RECORD, max_tokens=90)
    answer = engine.chat(ASKED, json_schema=RECORD, max_tokens=90, stop='"size"')
    assert answer.finish_reason == "stop" and answer.text == whole.text.split('"size"')[0]
    assert answer.parsed is None
    receipt_of(answer)
    assert answer.receipt is not None and engine.replay(answer.receipt)


def test_pieces_add_up_and_lists_streams_and_tasks_agree(engine: Engine) -> None:
    hows: list[dict[str, Any]] = [{**form, "temperature": 1.0, "seed": 9} for form in FORMS.values()]
    alone = [engine.chat(ASKED, **how) for how in hows]
    together = engine.chat([ASKED] * len(hows), [SamplingParams(**how) for how in hows])
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]

    async def all_at_once() -> list[bitnet.Completion]:
        return list(await asyncio.gather(*(engine.achat(ASKED, **how) for how in hows)))

    for answer, alike in zip(asyncio.run(all_at_once()), alone, strict=True):
        assert receipt_of(answer)["digest"] == receipt_of(alike)["digest"]
    for how, answer in zip(hows, alone, strict=True):
        stream = engine.chat_stream(ASKED, **how)
        assert "".join(piece.text for piece in stream) == answer.text == stream.text
    session = ChatSession(engine, **hows[0])
    assert session.send(ASKED[0]["content"]).token_ids == alone[0].token_ids
    session.send("And another?")  # continues behind ids that were never computed
    assert [receipt.validate() for receipt in session.receipts] == [None, None]
    assert all(engine.replay(receipt) for receipt in session.receipts)


def test_n_answers_with_a_form(engine: Engine) -> None:
    answers = engine.chat(ASKED, n=5, choice=["red", "green", "blue"], temperature=2.0, seed=1)
    assert len({answer.text for answer in answers}) > 1
    assert all(answer.text in ("red", "green", "blue") for answer in answers)


def test_a_banned_token_is_never_forced(engine: Engine) -> None:
    """The definition is: all logits, bias, mask. So a bias that bans the only token is an error, as without forcing."""
    only = engine.encode("yes")
    for how in ({}, {"logprobs": 0}):
        with pytest.raises(ArgumentError, match="bans every id that the grammar allows"):
            engine.chat(ASKED, choice=["yes"], logit_bias={id: float("-inf") for id in range(engine.n_vocab)}, **how)
    assert only


# -- JSON -------------------------------------------------------------------------------------------------------------


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@dataclasses.dataclass
class Owner:
    code: Literal["A", "B"]
    age: int | None


@dataclasses.dataclass
class Animal:
    size: Size
    legs: Literal[2, 4]
    owner: Owner
    weights: tuple[Literal[1, 2], Literal[0.5, 1.5]]
    wild: bool = False
    notes: Optional[list[Literal["x", "y"]]] = None  # noqa: UP045  the old spelling


@dataclasses.dataclass
class Folder:
    folders: list[Folder]


def test_a_dataclass_that_contains_itself_is_refused(engine: Engine) -> None:
    with pytest.raises(TypeError, match="contains itself; use a pydantic model"):
        engine.chat(ASKED, json_schema=Folder)


def test_dataclasses(engine: Engine) -> None:
    kinds = set()
    for seed in range(8):
        answer = engine.chat(ASKED, json_schema=Animal, temperature=1.0, seed=seed, max_tokens=400)
        if answer.finish_reason == "stop":
            animal = answer.parsed
            assert isinstance(animal, Animal) and isinstance(animal.size, Size) and animal.legs in (2, 4)
            assert isinstance(animal.owner, Owner) and isinstance(animal.weights, tuple)
            kinds.add(animal.size)
            again = pickle.loads(pickle.dumps(answer))
            assert again.parsed == animal and again == answer
    assert kinds


def test_json_values_become_what_a_type_says() -> None:
    assert _schema.parsed("[1, 2]", tuple[int, float]) == (1, 2.0)
    assert isinstance(_schema.parsed("1", float), float)
    assert _schema.parsed('{"a": null, "b": "small"}', dict[str, Size | None]) == {"a": None, "b": Size.SMALL}
    assert _schema.parsed('[{"code": "A", "age": 3}]', list[Owner | int]) == [Owner("A", 3)]
    assert _schema.parsed('{"cut": ', True) is None


def test_pydantic_models(engine: Engine) -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model(
        "Thing", colour=(Literal["red", "blue"], ...), count=(int, pydantic.Field(ge=0, le=9))
    )
    answer = engine.chat(ASKED, json_schema=model, temperature=1.0, seed=2, max_tokens=60)
    assert answer.finish_reason == "stop" and isinstance(answer.parsed, model)
    assert json.loads(answer.text).keys() == {"colour", "count"}
    assert isinstance(engine.generate([[1]], SamplingParams(json_schema=model))[0].parsed, model)
    adapter = pydantic.TypeAdapter(tuple[Literal["a", "b"], bool])
    assert isinstance(engine.chat(ASKED, json_schema=adapter).parsed, tuple)


def test_schemas_as_data(engine: Engine) -> None:
    schema = {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 2}
    for given in (schema, json.dumps(schema), SamplingParams(json_schema=schema).json_schema):
        answer = engine.chat(ASKED, json_schema=given)
        assert answer.parsed in ([1, 1], [1, 2], [2, 1], [2, 2])
        assert answer.text == json.dumps(answer.parsed)  # on one line, as Python writes it
    assert engine.chat(ASKED, max_tokens=3).parsed is None
    cut = engine.chat(ASKED, json_schema=RECORD, max_tokens=5)
    assert cut.finish_reason == "length" and cut.parsed is None
    loose = {**schema, "x-guidance": {"whitespace_flexible": False, "item_separator": ","}}
    assert "," in (text := engine.chat(ASKED, json_schema=loose).text) and ", " not in text


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"regex": "("}, "regex: "),
        ({"regex": ""}, "regex is empty"),
        ({"grammar": "start: other"}, "grammar: .*other"),
        ({"json_schema": "{"}, "json_schema: it is not JSON"),
        ({"json_schema": "[]"}, "json_schema: expected a JSON object"),
        ({"json_schema": {"type": "nothing"}}, "json_schema: .*nothing"),
        ({"json_schema": {"dependentSchemas": {}}}, "json_schema: .*dependentSchemas"),
        ({"json_schema": {"enum": []}}, "json_schema: "),
        ({"choice": ["a", ""]}, "choice is an empty text"),
        ({"choice": ["a"], "regex": "b"}, "regex and choice are both set"),
        ({"regex": "a" * (1 << 20) + "b"}, "1048577 bytes"),
        ({"grammar": "start: " + "(" * 100_000}, "grammar: "),
        ({"json_schema": '{"a":' * 5000 + "1" + "}" * 5000}, "json_schema: "),
    ],
)
def test_forms_that_cannot_be_used(engine: Engine, how: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        engine.chat(ASKED, **how, max_tokens=3)
    assert engine.chat(ASKED, max_tokens=2).text  # nothing is lost


@pytest.mark.parametrize("schema", [1, 1.5, [], object(), int.__add__])
def test_values_that_are_no_schemas(schema: Any) -> None:
    with pytest.raises(TypeError, match="json_schema"):
        SamplingParams(json_schema=schema)


# -- Receipts ---------------------------------------------------------------------------------------------------------


def test_the_claim_holds_the_grammar(engine: Engine) -> None:
    answer = engine.chat(ASKED, choice=["yes", "no"])
    free = engine.chat(ASKED, max_tokens=1)
    claim = receipt_of(answer)["claim"]
    assert claim["grammar"]["kind"] == "choice" and json.loads(claim["grammar"]["text"]) == ["yes", "no"]
    assert "grammar" not in receipt_of(free)["claim"] and "forced" not in receipt_of(free)["run"]
    jsonschema.validate(receipt_of(answer), bitnet.receipt_schema())
    redacted = answer.receipt.redact()  # type: ignore[union-attr]
    redacted.validate()
    assert redacted.digest == answer.receipt.digest  # type: ignore[union-attr]
    assert "yes" not in json.dumps(redacted.to_dict()["claim"]["grammar"])
    jsonschema.validate(redacted.to_dict(), bitnet.receipt_schema())
    with pytest.raises(ReceiptError, match=r"claim\.grammar\.text"):
        engine.replay(redacted, claim["prompt_ids"])


def changed(receipt: bitnet.Receipt, edit: Any) -> bitnet.Receipt:
    document = receipt.to_dict()
    edit(document)
    return bitnet.Receipt.from_json(json.dumps(document))


def test_another_grammar_is_found(engine: Engine) -> None:
    receipt = engine.chat(ASKED, choice=["yes", "no"]).receipt
    assert receipt is not None
    for edit, words in [
        (lambda d: d["claim"]["grammar"].update(text='["yes","on"]'), "digest"),
        (lambda d: d["claim"]["grammar"].update(kind="regex"), "digest"),
        (lambda d: d["run"]["forced"].update(ids=d["run"]["forced"]["ids"] + 1), "run"),
        (lambda d: d["run"]["forced"].update(uncomputed=d["run"]["forced"]["uncomputed"] + 1), "run"),
        (lambda d: d["run"]["forced"].update(wasted=1), "run"),
        (lambda d: d["claim"]["grammar"].update(colour="red"), "form"),
    ]:
        with pytest.raises(ReceiptError, match=words):
            changed(receipt, edit).validate()
    with pytest.raises(ReceiptError, match=r"claim\.grammar\.kind"):
        engine.replay(changed(receipt, lambda d: d["claim"]["grammar"].update(kind="poem")))
    later = changed(receipt, lambda d: d["claim"]["grammar"].update(engine="llguidance 9"))
    assert engine.replay(later)  # the same answer is proof enough
    other = changed(later, lambda d: d["claim"]["output_ids"].__setitem__(0, 5))
    with pytest.raises(ReceiptError, match=r"claim\.grammar\.engine.*llguidance 9"):
        engine.replay(other)


def test_the_grammar_engine_is_the_one_that_is_built_in(engine: Engine) -> None:
    lock = (Path(__file__).parents[1] / "Cargo.lock").read_text(encoding="utf-8")
    version = re.search(r'name = "llguidance"\nversion = "([^"]+)"', lock)
    claim = receipt_of(engine.chat(ASKED, choice=["a", "b"]))["claim"]
    assert version and claim["grammar"]["engine"] == f"llguidance {version[1]}"


# -- Functions that change logits -------------------------------------------------------------------------------------


def test_a_logits_processor_changes_logits_in_place(engine: Engine) -> None:
    plain = engine.chat(ASKED, max_tokens=8)
    seen: list[int] = []

    def ban_the_plain_answer(ids: Any, logits: Any) -> None:
        assert ids.dtype == np.uint32 and logits.dtype == np.float32 and logits.shape == (engine.n_vocab,)
        seen.append(len(ids))
        logits[plain.token_ids] = -np.inf

    answer = engine.chat(ASKED, max_tokens=8, logits_processor=ban_the_plain_answer)
    assert seen == list(range(seen[0], seen[0] + len(answer.token_ids)))
    assert not set(answer.token_ids) & set(plain.token_ids)
    returned = engine.chat(ASKED, max_tokens=8, logits_processor=lambda ids, logits: logits * 1)
    assert returned.token_ids == plain.token_ids
    constrained = engine.chat(ASKED, choice=["yes", "no"], logits_processor=ban_the_plain_answer)
    assert constrained.text in ("yes", "no")


def test_a_receipt_names_the_function_and_does_not_replay(engine: Engine) -> None:
    def my_function(ids: Any, logits: Any) -> None:
        logits[:] = -logits

    answer = engine.chat(ASKED, max_tokens=3, logits_processor=my_function)
    assert "my_function" in receipt_of(answer)["claim"]["logits_processor"]
    jsonschema.validate(receipt_of(answer), bitnet.receipt_schema())
    with pytest.raises(ReceiptError, match=r"claim\.logits_processor.*my_function"):
        engine.replay(answer.receipt)  # type: ignore[arg-type]


def test_processors_in_lists_streams_sessions_and_tasks(engine: Engine) -> None:
    def negative(ids: Any, logits: Any) -> None:
        np.negative(logits, out=logits)

    expected = engine.chat(ASKED, max_tokens=4, logits_processor=negative).token_ids
    params = SamplingParams(max_tokens=4, logits_processor=negative)
    assert [answer.token_ids for answer in engine.chat([ASKED, ASKED], params)] == [expected] * 2
    assert list(ChatSession(engine, params=params).send(ASKED[0]["content"]).token_ids) == expected
    assert [piece.token_id for piece in engine.chat_stream(ASKED, params)] == expected
    assert asyncio.run(engine.achat(ASKED, params)).token_ids == expected
    assert params != SamplingParams(max_tokens=4) and params == SamplingParams(max_tokens=4, logits_processor=negative)


def test_a_processor_that_fails_ends_the_answer(engine: Engine) -> None:
    class Mine(Exception):
        pass

    def failing(ids: Any, logits: Any) -> None:
        if len(ids) > start + 1:
            raise Mine("here")

    start = engine.count_tokens(ASKED)
    with pytest.raises(Mine, match="here"):
        engine.chat(ASKED, max_tokens=8, logits_processor=failing)
    stream = engine.chat_stream(ASKED, max_tokens=8, logits_processor=failing)
    pieces = []
    with pytest.raises(Mine, match="here"):
        pieces.extend(stream)
    assert stream.finish_reason == "cancelled" and list(stream) == []
    for wrong in (lambda ids, logits: logits[:3], lambda ids, logits: "text"):
        with pytest.raises(TypeError, match="must return None or an array"):
            engine.chat(ASKED, max_tokens=2, logits_processor=wrong)
    with pytest.raises(ArgumentError, match="NaN"):
        engine.chat(ASKED, max_tokens=2, logits_processor=lambda ids, logits: logits * np.nan)
    with pytest.raises(TypeError, match="logits_processor must be a function"):
        SamplingParams(logits_processor=3)  # type: ignore[arg-type]
    assert engine.chat(ASKED, max_tokens=2).text
