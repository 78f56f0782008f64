"""Objects as values: `pickle`, `copy`, `==` with texts, dicts for JSON."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitnet
from bitnet import ChatSession, ChatTurn, Completion, Engine, SamplingParams, Template, Tokenizer
from conftest import message_of

ASKED = [{"role": "user", "content": "What is 2+2?"}]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(n_ctx=200) as engine:
        yield engine


def copies(value: Any) -> list[Any]:
    pickled = [pickle.loads(pickle.dumps(value, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    return [*pickled, copy.copy(value), copy.deepcopy(value)]


def values(engine: Engine) -> list[Any]:
    answer = engine.chat(ASKED, logprobs=2, seed=1)
    assert answer.logprobs and answer.receipt
    return [
        answer,
        engine.chat(ASKED, stop="=", seed=1),
        answer.receipt,
        answer.receipt.redact(),
        answer.logprobs[0],
        *engine.chat_stream(ASKED, logprobs=1),
        SamplingParams(),
        SamplingParams(temperature=0.3, logit_bias={3: -1.5, 4: float("-inf")}, stop=["x", "é"], seed=2**64 - 1),
        ChatTurn("assistant", "é\n", cancelled=True),
        engine.template,
        engine.template.at("2026-07-04T12:00:00"),
        Template.from_jinja("{{ messages }}", "<s>"),
        *engine.template.spans(ASKED, tokenizer=engine.tokenizer),
        engine.prefill([1, 2, 3]),
    ]


def test_values_are_pickled_and_copied_by_value(engine: Engine) -> None:
    for value in values(engine):
        for other in copies(value):
            assert type(other) is type(value) and other == value, value
            assert repr(other) == repr(value)


def test_different_values_differ(engine: Engine) -> None:
    answer, other = engine.chat(ASKED, seed=1), engine.chat(ASKED, seed=2)
    assert answer != other and answer.text == other.text
    assert SamplingParams(seed=1) != SamplingParams(seed=2)
    assert engine.template != engine.template.at("2026-07-04T12:00:00")
    assert ChatTurn("user", "x") != ChatTurn("assistant", "x")


def test_arrays_are_pickled(engine: Engine) -> None:
    scores = engine.score("2+2=", ["4", "5"])
    for other in copies(scores):
        np.testing.assert_array_equal(other.logprobs, scores.logprobs)
        np.testing.assert_array_equal(other.is_greedy, scores.is_greedy)
        assert [list(one) for one in other.token_logprobs] == [list(one) for one in scores.token_logprobs]
        assert other.computed_tokens == scores.computed_tokens


def test_what_is_inside_a_model_is_pickled(engine: Engine) -> None:
    for name in ("blk.0.attn_q.weight", "output_norm.weight"):
        tensor = engine.tensor(name)
        for other in copies(tensor):
            np.testing.assert_array_equal(np.asarray(other), np.asarray(tensor))
            assert (other.name, other.type, other.shape) == (tensor.name, tensor.type, tensor.shape)
    trace = engine.trace([1, 2, 3], layers=[1])
    for other in copies(trace):
        np.testing.assert_array_equal(other.logits, trace.logits)
        np.testing.assert_array_equal(other.layers[1].attention, trace.layers[1].attention)
        own, copied = trace.layers[1].projections["ffn_up"], other.layers[1].projections["ffn_up"]
        for field in ("x", "x_int8", "x_scale", "output"):
            np.testing.assert_array_equal(getattr(copied, field), getattr(own, field))


def test_an_engine_is_opened_again_where_it_is_unpickled(engine: Engine, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)  # the path of the pickle does not depend on the folder
    data = pickle.dumps(engine)
    one, two = pickle.loads(data), pickle.loads(data)
    assert one is two and one is not engine, "one process opens the model once"
    assert (one.n_ctx, one.n_vocab) == (200, engine.n_vocab)
    assert one.chat(ASKED).text == "2+2=4."
    assert copy.copy(engine) is engine and copy.deepcopy(engine) is engine
    one.close()
    again = pickle.loads(data)
    assert not again.closed
    assert "closed" in message_of(bitnet.ClosedError, pickle.dumps, one)


def test_a_conversation_is_pickled_with_its_engine_and_receipts(engine: Engine) -> None:
    session = ChatSession(engine, "Be brief.", max_tokens=16, seed=3)
    session.send("What is 2+2?")
    for other in copies(session):
        assert (other.history, other.system, other.params) == (session.history, session.system, session.params)
        assert other.receipts == session.receipts
        assert other.send("What is 3+3?").text == "3+3=6."
        assert other.receipts[1].to_dict()["claim"]["previous"] == other.receipts[0].digest
    assert len(session.history) == 2
    stream = session.stream("What is 3+3?")
    next(stream)
    assert "under way" in message_of(bitnet.ArgumentError, pickle.dumps, session)


def test_a_tokenizer_is_read_again(engine: Engine) -> None:
    for tokenizer in (engine.tokenizer, Tokenizer("trit")):
        for other in copies(tokenizer):
            assert other.encode("Hello") == tokenizer.encode("Hello")


def test_a_stream_is_not_pickled(engine: Engine) -> None:
    for make in (pickle.dumps, copy.copy, copy.deepcopy):
        assert "receipt" in message_of(TypeError, make, engine.chat_stream(ASKED))


def answer_of(task: tuple[Engine, Any]) -> Completion:
    return task[0].chat(task[1])


def test_engines_go_to_processes_that_are_spawned(engine: Engine) -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        answers = list(pool.map(answer_of, [(engine, ASKED)] * 4))
    assert [answer.text for answer in answers] == ["2+2=4."] * 4
    assert all(answer.receipt and engine.replay(answer.receipt) for answer in answers)


def test_texts_compare_with_str_as_texts(engine: Engine) -> None:
    answer = engine.chat(ASKED)
    piece = next(iter(engine.chat_stream(ASKED)))
    span = engine.template.spans(ASKED)[1]
    turn = ChatTurn("user", "Hi")
    for value in (answer, piece, span, turn):
        assert str(value) == value.text and f"{value}" == value.text
        assert value == value.text and value.text == value
        assert value != value.text + "x"
        assert value in {value.text} and value in [value.text]
        assert value != 5 and value is not None
    assert turn != span


def test_a_stream_refuses_to_be_compared_with_a_text(engine: Engine) -> None:
    stream = engine.chat_stream(ASKED)
    assert "stream.text" in message_of(TypeError, stream.__eq__, "2+2=4.")
    assert "stream.text" in message_of(TypeError, lambda: stream != "2+2=4.")
    assert stream == stream and stream != engine.chat_stream(ASKED)
    assert "".join(map(str, stream)) == str(stream) == "2+2=4."


def test_a_completion_becomes_json(engine: Engine) -> None:
    answer = engine.chat(ASKED, logprobs=1)
    data = json.loads(json.dumps(answer.to_dict()))
    assert data["text"] == answer.text and data["token_ids"] == answer.token_ids
    assert answer.logprobs and bytes(data["logprobs"][0]["bytes"]) == answer.logprobs[0].bytes == b"2"
    assert answer.receipt and data["receipt"]["digest"] == answer.receipt.digest
    assert engine.chat(ASKED).to_dict()["logprobs"] is None


def test_bytes_of_logprobs_make_the_text(engine: Engine) -> None:
    answer = engine.generate(engine.encode("é🙂"), temperature=5.0, seed=1, max_tokens=40, logprobs=0)
    assert answer.logprobs
    controls = {engine.tokenizer.bos_token_id, *engine.tokenizer.stop_token_ids}
    spelled = b"".join(one.bytes for one in answer.logprobs if one.id not in controls)
    ids = [id for id in answer.token_ids if id not in controls]
    assert spelled.decode(errors="replace") == engine.decode(ids)
