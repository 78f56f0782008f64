"""Forms that try to break the engine: ends that are noticed late, forced stop ids, worn lexers, odd schemas."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from typing import Any, Literal

import jsonschema
import pytest

from bitnet import ArgumentError, Engine, SamplingParams

ASKED = [{"role": "user", "content": "Tell me about a person."}]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(n_threads=1) as engine:
        yield engine


def same_both_ways(engine: Engine, **how: Any) -> str:
    """The text, after a check that forcing changes nothing: neither ids and end nor the digest."""
    answer, plain = engine.chat(ASKED, **how), engine.chat(ASKED, **how, logprobs=0)
    assert (answer.token_ids, answer.finish_reason) == (plain.token_ids, plain.finish_reason)
    assert answer.receipt is not None and plain.receipt is not None
    answer.receipt.validate()
    plain.receipt.validate()
    assert answer.receipt.digest == plain.receipt.digest
    assert engine.replay(answer.receipt)
    return answer.text


@pytest.mark.parametrize("speculate", [None, "lookup"])
def test_guesses_are_not_counted_in_a_form(engine: Engine, speculate: Literal["lookup"] | None) -> None:
    assert same_both_ways(engine, choice=["a long text that is the only one"], speculate=speculate, seed=1)


def test_a_stop_id_is_never_forced(engine: Engine) -> None:
    """All logits and then the mask would choose it, and the answer would end there."""
    only = "yes, certainly"
    ids = engine.encode(only, add_bos=False)
    for stop in ids:
        text = same_both_ways(engine, choice=[only], stop_token_ids=[stop], seed=1)
        assert only.startswith(text) and text != only


def test_an_end_that_is_noticed_late_takes_no_stop_id(engine: Engine) -> None:
    """After -3 the number could go on, but no token fits: it is complete."""
    schema = {"type": "number", "exclusiveMinimum": -4, "exclusiveMaximum": -2, "multipleOf": 3}
    assert same_both_ways(engine, json_schema=schema, seed=1) in ("-3", "-3.0")
    assert same_both_ways(engine, json_schema=schema, seed=1, ignore_eos=True) in ("-3", "-3.0")


@pytest.mark.parametrize(
    "grammar", ['start: a "!"\na[max_tokens=2]: /a{20}/\n', 'start: "x" a\na[max_tokens=3]: /b{9}/\n']
)
def test_rules_with_a_limit_may_be_forced(engine: Engine, grammar: str) -> None:
    assert same_both_ways(engine, grammar=grammar, seed=1, max_tokens=40)


def test_a_parser_that_panics_is_an_error(engine: Engine) -> None:
    """It is no complete answer. Other answers of the same grammar get the same error, not that of a poisoned lock."""
    grammar = 'start: a "!"\na[stop="\\n"]: /[a-z]{2}/\n'
    for how in ({}, {"logprobs": 0}, {}):
        with pytest.raises(ArgumentError, match="grammar: the answer cannot go on in this form: panic: assertion"):
            engine.chat(ASKED, grammar=grammar, seed=1, **how)


def test_answers_do_not_wear_a_grammar_out(engine: Engine) -> None:
    """This expression takes tens of thousands of states in each answer. The lexer that answers share has a limit."""
    how: dict[str, Any] = {"regex": r"[\s\S]*[a-n][\s\S]{100}z[\s\S]*", "max_tokens": 400, "temperature": 50.0}
    first = engine.chat(ASKED, **how, seed=0)
    for seed in range(1, 9):
        engine.chat(ASKED, **how, seed=seed)
    assert engine.chat(ASKED, **how, seed=0).token_ids == first.token_ids


@pytest.mark.parametrize(
    "form",
    [
        {"regex": "((a{1000}){1000}){1000}"},
        {"json_schema": {"type": "string", "pattern": "^((a{1000}){1000}){1000}$"}},
        {"grammar": 'start: A\nA: "a"{1000000}'},
    ],
)
def test_a_form_that_is_longer_than_any_answer(engine: Engine, form: dict[str, Any]) -> None:
    """Not all of it is worked out: that would take all memory."""
    before = engine.memory["resident"]
    answer = engine.chat(ASKED, **form, max_tokens=12)
    assert set(answer.text) <= {"a", '"'} and answer.finish_reason == "length"
    assert engine.memory["resident"] - before < 1 << 30


def test_a_form_of_more_parts_than_any_answer(engine: Engine) -> None:
    doubling = "".join(f"{chr(97 + i)}: {chr(98 + i)} {chr(98 + i)}\n" for i in range(25))
    many: dict[str, Any] = {"type": "array", "items": {"const": 1}, "minItems": 10**7}
    for form in ({"json_schema": many}, {"grammar": f'start: a\n{doubling}z: "x"\n'}):
        with pytest.raises(ArgumentError, match="the answer cannot go on in this form: parser error: Too many items"):
            engine.chat(ASKED, **form, max_tokens=12)


@pytest.mark.parametrize("grammar", ["start: /a+/ start", 'start: /a+/ "a"'])
def test_text_that_is_forced_without_an_end(engine: Engine, grammar: str) -> None:
    with pytest.raises(ArgumentError, match="forces text that does not end"):
        engine.chat(ASKED, max_tokens=4, grammar=grammar)
    assert engine.chat(ASKED, max_tokens=4, grammar='start: "aa"').text == "aa"


@pytest.mark.parametrize("limits", [{"max_batch": 1}, {"n_batch": 1}, {"max_batch": 4}, {"n_batch": 5}])
def test_more_forced_ids_than_a_pass_has_rows(engine: Engine, limits: dict[str, int]) -> None:
    """Those behind a sampled id are computed over several passes, also beside other answers."""
    how: dict[str, Any] = {"regex": "[0-9]: xyz [0-9]: xyz [0-9]", "seed": 1}
    alone = engine.chat(ASKED, **how).receipt
    with Engine(n_threads=1, **limits) as small:
        answers = [small.chat(ASKED, **how), *small.chat([ASKED] * 3, **how)]
    assert alone is not None
    assert all(answer.receipt is not None and answer.receipt.digest == alone.digest for answer in answers)


def test_interrupted_steps_count_their_work_once() -> None:
    """Time-outs fall between the passes of the prompt and of the ids with which every answer begins."""

    async def pull(stream: Any) -> int:
        interrupted = 0
        while True:
            try:
                await asyncio.wait_for(anext(stream), 0.01)
            except asyncio.TimeoutError:
                interrupted += 1
            except StopAsyncIteration:
                return interrupted

    interrupted = 0
    with Engine(n_threads=1, n_batch=1, cache_bytes=0, isa="scalar") as slow:
        for seed in range(4):
            stream = slow.chat_stream(ASKED, regex="abcdefghijkl [a-z]{2}", seed=seed)
            interrupted += asyncio.run(pull(stream))
            assert stream.receipt is not None
            stream.receipt.validate()
    assert interrupted > 0


def test_only_the_empty_text(engine: Engine) -> None:
    assert same_both_ways(engine, grammar='start: ""', seed=1) == ""
    with pytest.raises(ArgumentError, match="grammar: only the empty text fits, and no stop id could end it"):
        engine.chat(ASKED, grammar='start: ""', ignore_eos=True)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
        {"type": "integer", "minimum": -1e300},
        {"type": "number", "minimum": -1e300, "maximum": 1e300},
        {"type": "integer", "minimum": 10**17, "maximum": 2**64},
        {"type": "number", "maximum": -(2**53)},
    ],
)
def test_far_bounds(engine: Engine, schema: dict[str, Any]) -> None:
    for seed in range(5):
        answer = engine.chat(ASKED, json_schema=schema, seed=seed, temperature=2.0, max_tokens=60)
        if answer.finish_reason == "stop":
            jsonschema.validate(json.loads(answer.text), schema)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": -(2**63) - 1, "maximum": -(2**63) - 1}, "maximum is .*expected a number from"),
        ({"type": "integer", "minimum": 2**60}, "minimum is .*expected a number from"),
        ({"const": 2**53 + 1}, "9007199254740993 is too large to be exact"),
        ({"enum": [[2**80]]}, "too large to be exact"),
        ({"const": -(2**63)}, "too large to be exact"),
        ({"enum": [2**63]}, "too large to be exact"),
        ({"type": "integer", "minimum": 2**53 + 1}, "too large to be exact"),
        ({"type": "integer", "multipleOf": 9_999_991}, "multipleOf is 9999991, expected"),
    ],
)
def test_numbers_that_cannot_be_held(engine: Engine, schema: dict[str, Any], words: str) -> None:
    """The first one and -2^63 crashed the process, the others gave other numbers or took minutes."""
    with pytest.raises(ArgumentError, match=f"json_schema: .*{words}"):
        engine.chat(ASKED, json_schema=schema, max_tokens=60)


@dataclasses.dataclass
class Node:
    value: Literal[1, 2]
    next: Node | None = None


def test_dataclasses_that_have_no_schema() -> None:
    with pytest.raises(TypeError, match="contains itself; use a pydantic model"):
        SamplingParams(json_schema=Node)
    with pytest.raises(TypeError, match=r"json_schema is Node.*expected a JSON Schema"):
        SamplingParams(json_schema=Node(1))
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"items": deep}
    with pytest.raises(ArgumentError, match="nested too deeply"):
        SamplingParams(json_schema=deep)


def test_a_processor_cannot_end_the_loop_over_a_stream(engine: Engine) -> None:
    def ends(ids: Any, logits: Any) -> None:
        raise StopIteration

    with pytest.raises(RuntimeError, match="logits_processor raised StopIteration"):
        list(engine.chat_stream(ASKED, max_tokens=4, logits_processor=ends))


def test_words_about_a_processor(engine: Engine) -> None:
    def everything(ids: Any, logits: Any) -> None:
        logits.fill(float("-inf"))

    with pytest.raises(ArgumentError, match="logits_processor bans every id of the vocabulary"):
        engine.chat(ASKED, max_tokens=2, logits_processor=everything)
    with pytest.raises(TypeError, match=r"not float64 of shape \(\d+,\)"):
        engine.chat(ASKED, max_tokens=2, logits_processor=lambda ids, logits: logits.astype("float64"))
    assert "logits_processor=<function" in repr(SamplingParams(logits_processor=everything))
