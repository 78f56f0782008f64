"""`bitnet serve`: every endpoint in this process, without a socket; answers are those of the engine."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import bitnet
from bitnet.server import Settings, create_app
from bitnet.server.body import check, parse
from bitnet.server.errors import ApiError
from conftest import ROOT

ASKED = [{"role": "user", "content": "What is 2+2?"}]


@pytest.fixture(scope="module")
def trit() -> Iterator[bitnet.Engine]:
    """The model in the package."""
    with bitnet.Engine(n_threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def client(trit: bitnet.Engine) -> Iterator[TestClient]:
    """A client of a server with the usual settings."""
    with TestClient(create_app(trit, Settings(model_names=("trit", "gpt-4o")))) as client:
        yield client


def answer(client: TestClient, path: str = "/v1/chat/completions", **fields: Any) -> Any:
    """The JSON that a request gives, which must succeed."""
    if path == "/v1/chat/completions":
        fields = {"messages": ASKED} | fields
    response = client.post(path, json=fields)
    assert response.status_code == 200, response.text
    return response.json()


def events(client: TestClient, path: str = "/v1/chat/completions", **fields: Any) -> list[Any]:
    """The documents of a stream, which must end with [DONE]."""
    if path == "/v1/chat/completions":
        fields = {"messages": ASKED} | fields
    response = client.post(path, json=fields | {"stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    *data, last, rest = response.text.split("\n\n")
    assert (last, rest) == ("data: [DONE]", "")
    return [json.loads(one.removeprefix("data: ")) for one in data]


def error(client: TestClient, path: str = "/v1/chat/completions", status: int = 400, **fields: Any) -> Any:
    """The error that a request gives, in OpenAI's form."""
    if path == "/v1/chat/completions":
        fields = {"messages": ASKED} | fields
    response = client.post(path, json=fields)
    assert response.status_code == status, response.text
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    return response.json()["error"]


# -- Chat -------------------------------------------------------------------------------------------------------------


def test_a_chat_answer_is_that_of_the_engine(client: TestClient, trit: bitnet.Engine) -> None:
    told, own = answer(client, model="trit", seed=5), trit.chat(ASKED, seed=5)
    choice = told["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": own.text, "refusal": None}
    assert (choice["finish_reason"], choice["index"], choice["logprobs"]) == ("stop", 0, None)
    assert own.receipt
    assert told["receipt_digest"] == choice["receipt_digest"] == own.receipt.digest
    assert (told["object"], told["model"]) == ("chat.completion", "trit")
    assert told["usage"]["prompt_tokens"] == own.prompt_tokens
    assert told["usage"]["completion_tokens"] == own.completion_tokens
    assert told["usage"]["total_tokens"] == own.prompt_tokens + own.completion_tokens
    assert "receipt" not in told


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 1.3, "seed": 7, "top_p": 0.9, "top_k": 20, "min_p": 0.01, "max_tokens": 9},
        {"repetition_penalty": 1.4, "repeat_last_n": 8, "presence_penalty": 0.5, "frequency_penalty": 0.25},
        {"stop": ["="], "logit_bias": {"50": 3.5}},
        {"stop": "4", "stop_token_ids": [43]},
        {"ignore_eos": True, "max_completion_tokens": 12},
        {"speculate": "lookup"},
    ],
)
def test_sampling_parameters_reach_the_engine(client: TestClient, trit: bitnet.Engine, fields: dict[str, Any]) -> None:
    """The digest covers all parameters, the prompt and the answer."""
    fields = {"seed": 1} | fields
    own = {name: value for name, value in fields.items() if name != "max_completion_tokens"}
    own |= {"max_tokens": fields["max_completion_tokens"]} if "max_completion_tokens" in fields else {}
    own |= {"logit_bias": {50: 3.5}} if "logit_bias" in fields else {}
    receipt = trit.chat(ASKED, **own).receipt
    assert receipt
    assert answer(client, **fields)["receipt_digest"] == receipt.digest
    assert events(client, **fields)[-1]["receipt_digest"] == receipt.digest


def test_openais_values_that_the_engine_has_otherwise(client: TestClient, trit: bitnet.Engine) -> None:
    banned = answer(client, logit_bias={"50": -100}, max_tokens=4, receipt=True)["receipt"]
    assert banned["claim"]["sampling"]["logit_bias"] != []
    assert 50 not in banned["claim"]["output_ids"]
    most_likely = answer(client, temperature=1, top_p=0, seed=1)["choices"][0]["message"]["content"]
    assert most_likely == trit.chat(ASKED).text
    assert answer(client, top_k=-1, seed=1)["receipt_digest"] == answer(client, seed=1)["receipt_digest"]


def test_several_answers_count_their_seeds(client: TestClient, trit: bitnet.Engine) -> None:
    how: dict[str, Any] = {"temperature": 1.7, "seed": 2**64 - 1, "n": 3}
    own = [one.receipt.digest for one in trit.chat(ASKED, **how) if one.receipt]
    told = answer(client, **how)
    assert [choice["receipt_digest"] for choice in told["choices"]] == own
    assert "receipt_digest" not in told
    assert told["usage"]["prompt_tokens"] == 14
    chunks = events(client, **how)
    ends = {one["choices"][0]["index"]: one["choices"][0]["receipt_digest"] for one in chunks[-3:]}
    assert [ends[i] for i in range(3)] == own
    indexes = [one["choices"][0]["index"] for one in chunks]
    assert indexes != sorted(indexes), "the answers come interleaved"


def test_the_pieces_of_a_stream_add_up(client: TestClient, trit: bitnet.Engine) -> None:
    chunks = events(client, stream_options={"include_usage": True})
    choices = [one["choices"][0] for one in chunks[:-1]]
    assert choices[0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert "".join(choice["delta"].get("content", "") for choice in choices) == trit.chat(ASKED).text
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
    assert {one["object"] for one in chunks} == {"chat.completion.chunk"}
    assert len({one["id"] for one in chunks}) == 1
    assert all(one["usage"] is None for one in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 7
    assert "usage" not in events(client)[-1]


def test_timings_are_told_as_llama_server_does(client: TestClient) -> None:
    names = ["cache_n", "prompt_n", "prompt_ms", "prompt_per_second"]
    names += ["predicted_n", "predicted_ms", "predicted_per_second"]
    answer(client)
    for timings in (answer(client)["timings"], events(client)[-1]["timings"]):
        assert list(timings) == names
        assert (timings["cache_n"] + timings["prompt_n"], timings["predicted_n"]) == (14, 7)
        assert timings["cache_n"] > 0
        assert timings["prompt_ms"] > 0 < timings["predicted_per_second"]
    assert "timings" in events(client, stream_options={"include_usage": True})[-1]


def test_receipts_on_request(client: TestClient, trit: bitnet.Engine) -> None:
    for told in (answer(client, receipt=True), events(client, receipt=True)[-1]):
        receipt = bitnet.Receipt.from_json(json.dumps(told["receipt"]))
        receipt.validate()
        assert receipt.digest == told["receipt_digest"]
        assert trit.replay(receipt)


def test_log_probabilities_of_a_chat(client: TestClient, trit: bitnet.Engine) -> None:
    own = trit.chat(ASKED, logprobs=3)
    assert own.logprobs and own.top_logprobs
    told = answer(client, logprobs=True, top_logprobs=3)["choices"][0]["logprobs"]["content"]
    streamed = [one["choices"][0]["logprobs"] for one in events(client, logprobs=True, top_logprobs=3)]
    assert told == [entry for one in streamed if one for entry in one["content"]]
    for entry, chosen, top in zip(told, own.logprobs, own.top_logprobs, strict=True):
        assert (entry["token"], entry["logprob"]) == (chosen.text, chosen.logprob)
        assert bytes(entry["bytes"]) == chosen.bytes
        assert [one["logprob"] for one in entry["top_logprobs"]] == [one.logprob for one in top]
    assert answer(client, logprobs=True)["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []
    assert answer(client, logprobs=False)["choices"][0]["logprobs"] is None
    assert "needs 'logprobs'" in error(client, top_logprobs=2)["message"]


def test_messages_of_every_kind(client: TestClient, trit: bitnet.Engine) -> None:
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": "2+2?"}]
    given = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts, "name": "ann"}]
    expected = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is\n2+2?"}]
    own = trit.chat(expected, seed=1).receipt
    assert own
    assert answer(client, messages=given, seed=1)["receipt_digest"] == own.digest
    begun = [*ASKED, {"role": "assistant", "content": "2+2="}]
    continued = answer(client, messages=begun, continue_final_message=True)
    assert continued["choices"][0]["message"]["content"] == "4."


def test_a_finish_reason_of_the_context_is_length(client: TestClient, trit: bitnet.Engine) -> None:
    told = answer(client, logit_bias={"5": 1000}, ignore_eos=True)
    assert told["choices"][0]["finish_reason"] == "length"
    assert told["usage"]["total_tokens"] >= trit.n_ctx
    assert answer(client, max_tokens=2)["choices"][0]["finish_reason"] == "length"


def test_fields_without_effect_and_nulls(client: TestClient) -> None:
    plain = answer(client, seed=1)["receipt_digest"]
    ignored = {"user": "u", "store": True, "metadata": {"a": "b"}, "service_tier": "auto", "reasoning_effort": "low"}
    assert answer(client, seed=1, **ignored)["receipt_digest"] == plain
    assert answer(client, seed=1, temperature=None, stop=None, tools=None, n=None)["receipt_digest"] == plain
    assert answer(client, seed=1, tools=[], tool_choice="auto")["receipt_digest"] == plain
    assert answer(client, model="gpt-4o", modalities=["text"])["model"] == "trit"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": "hi"}, "messages", "a list"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", '"developer"'),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "a string or a list"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
            '"image_url", expected one of "text"',
        ),
        ({"temperature": "warm"}, "temperature", "a number"),
        ({"temperature": True}, "temperature", "a number"),
        ({"top_p": 2}, "top_p", "from 0 to 1"),
        ({"max_tokens": 0}, "max_tokens", "at least 1, or -1"),
        ({"max_tokens": 10**30}, "max_tokens", "to 9223372036854775807"),
        ({"max_tokens": 1.5}, "max_tokens", "a whole number"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "differ"),
        ({"n": 1000}, "n", "from 1 to 128"),
        ({"stop": ["x"] * 17}, "stop", "at most 16"),
        ({"stop": ""}, "stop", "at least 1"),
        ({"logit_bias": {"cat": 1}}, "logit_bias", "a token id"),
        ({"logit_bias": {"5": "much"}}, "logit_bias.5", "a number"),
        ({"seed": -2}, "seed", "from -1"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]", "from 0"),
        ({"temprature": 1}, "temprature", "did you mean temperature?"),
        ({"audio": {}}, "audio", "leave it out"),
        ({"tool_choice": "required"}, "tool_choice", "give tools"),
        ({"enable_thinking": True}, "messages", "enable_thinking"),
        ({"regex": "a", "choice": ["b"]}, "regex", "give one of them"),
        ({"regex": "a", "response_format": {"type": "json_object"}}, None, "give one of them"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema", "missing"),
        ({"response_format": {"type": "yaml"}}, "response_format.type", '"json_object"'),
        ({"messages": [{"role": "user", "content": "a " * 9000}]}, "messages", "context of 384"),
    ],
)
def test_what_is_refused_is_named(client: TestClient, fields: dict[str, Any], param: str | None, words: str) -> None:
    refused = error(client, **fields)
    assert (refused["type"], refused["param"]) == ("invalid_request_error", param)
    assert words in refused["message"]
    streamed = error(client, **fields, stream=True)
    assert streamed == refused, "an error before the first token has a status of its own"


def test_codes_that_programs_look_for(client: TestClient) -> None:
    assert error(client, messages=[{"role": "user", "content": "a " * 9000}])["code"] == "context_length_exceeded"
    assert error(client, "/v1/completions", prompt="a " * 9000)["code"] == "context_length_exceeded"
    assert error(client, status=404, model="gpt-9")["code"] == "model_not_found"
    assert client.get("/v1/models/gpt-9").json()["error"]["code"] == "model_not_found"


# -- Completions ------------------------------------------------------------------------------------------------------


def test_completions_of_texts_and_ids(client: TestClient, trit: bitnet.Engine) -> None:
    own = trit.generate(ids := trit.encode("2+2=", add_bos=True), max_tokens=5, seed=1)
    for prompt in ("2+2=", ids, ["2+2="], [ids]):
        told = answer(client, "/v1/completions", prompt=prompt, max_tokens=5, seed=1)
        assert own.receipt
        assert (told["choices"][0]["text"], told["receipt_digest"]) == (own.text, own.receipt.digest)
        assert told["object"] == "text_completion"
    both = answer(client, "/v1/completions", prompt=["2+2=", "3+3="], max_tokens=5, n=2, temperature=1, seed=4)
    all_own = trit.generate(["2+2=", "3+3="], max_tokens=5, n=2, temperature=1, seed=4)
    assert [choice["text"] for choice in both["choices"]] == [one.text for pair in all_own for one in pair]
    assert both["usage"]["prompt_tokens"] == 10
    assert both["usage"]["completion_tokens"] == 20


def test_streamed_completions_are_the_same(client: TestClient) -> None:
    how: dict[str, Any] = {"prompt": ["2+2=", "3+3="], "max_tokens": 5, "n": 2, "temperature": 1.5, "seed": 4}
    how |= {"echo": True, "logprobs": 2}
    whole = answer(client, "/v1/completions", **how)
    chunks = events(client, "/v1/completions", **how)
    for i, choice in enumerate(whole["choices"]):
        own = [one["choices"][0] for one in chunks if one["choices"][0]["index"] == i]
        assert "".join(one["text"] for one in own) == choice["text"]
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            joined = [value for one in own if one["logprobs"] for value in one["logprobs"][name]]
            assert joined == choice["logprobs"][name], name
        assert own[-1]["receipt_digest"] == choice["receipt_digest"]


def test_echo_scores_the_prompt_as_the_engine_does(client: TestClient, trit: bitnet.Engine) -> None:
    text = "User: What is 2+2?"
    ids = trit.encode(text, add_bos=True)
    for prompt in (text, ids):
        choice = answer(client, "/v1/completions", prompt=prompt, echo=True, logprobs=2, max_tokens=1)["choices"][0]
        logprobs = choice["logprobs"]
        assert len(logprobs["tokens"]) == len(ids) + 1
        assert logprobs["token_logprobs"][0] is logprobs["top_logprobs"][0] is None
        scored = np.array(logprobs["token_logprobs"][1:-1], np.float32)
        assert scored.tobytes() == trit.logprobs(ids).tobytes()
        likely = trit.logits(ids)[:-1].argmax(axis=1)
        for id, row, own in zip(likely, logprobs["top_logprobs"][1:-1], scored, strict=True):
            assert max(row.values()) == row[trit.decode([int(id)], skip_special_tokens=False)]
            assert own <= max(row.values())
        for token, offset in zip(logprobs["tokens"][1:-1], logprobs["text_offset"][1:-1], strict=True):
            assert choice["text"][offset : offset + len(token)] == token
    without = answer(client, "/v1/completions", prompt=text, max_tokens=3)["choices"][0]
    echoed = answer(client, "/v1/completions", prompt=text, max_tokens=3, echo=True)["choices"][0]
    assert echoed["text"] == text + without["text"]


def test_no_tokens_only_score(client: TestClient, trit: bitnet.Engine) -> None:
    told = answer(client, "/v1/completions", prompt="2+2=", echo=True, logprobs=0, max_tokens=0)
    choice = told["choices"][0]
    assert (choice["text"], choice["finish_reason"], told["usage"]["completion_tokens"]) == ("2+2=", "length", 0)
    scored = np.array(choice["logprobs"]["token_logprobs"][1:], np.float32)
    assert scored.tobytes() == trit.logprobs("2+2=").tobytes()
    assert answer(client, "/v1/completions", prompt="2+2=", max_tokens=0)["choices"][0]["text"] == ""
    streamed = events(client, "/v1/completions", prompt="2+2=", echo=True, logprobs=0, max_tokens=0)
    assert streamed[0]["choices"][0]["logprobs"] == choice["logprobs"]


def test_the_stop_token_is_scored_too(client: TestClient, trit: bitnet.Engine) -> None:
    """Clients that score texts drop the last token, which is then not one of the prompt's."""
    ids = trit.template.encode([*ASKED, {"role": "assistant", "content": "2+2=4."}], trit.tokenizer)
    ids = ids[: len(ids) - 1 - ids[::-1].index(581)]  # up to the end of the answer: the next token ends the turn
    told = answer(client, "/v1/completions", prompt=ids, echo=True, logprobs=1, max_tokens=1)
    assert told["choices"][0]["finish_reason"] == "stop"
    logprobs = told["choices"][0]["logprobs"]
    assert len(logprobs["tokens"]) == len(ids) + 1
    assert logprobs["tokens"][-1] == trit.decode([581], skip_special_tokens=False)
    assert logprobs["token_logprobs"][-1] == max(logprobs["top_logprobs"][-1].values())


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 5]}, "prompt[1]"),
        ({"prompt": [[1, 2], []]}, "prompt[1]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [99999]}, "prompt"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 4}, "best_of"),
        ({"prompt": ["a"] * 64, "n": 3}, "n"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
        ({"prompt": "a", "messages": ASKED}, "messages"),
    ],
)
def test_completions_that_are_refused(client: TestClient, fields: dict[str, Any], param: str) -> None:
    assert error(client, "/v1/completions", **fields)["param"] == param


# -- Embeddings, tokens, models, receipts -----------------------------------------------------------------------------


def test_embeddings_are_those_of_the_engine(client: TestClient, trit: bitnet.Engine) -> None:
    texts = ["2+2=", "Hello"]
    told = answer(client, "/v1/embeddings", input=texts)
    own = trit.embed(texts, normalize=True)
    assert np.array([one["embedding"] for one in told["data"]], np.float32).tobytes() == own.tobytes()
    assert [one["index"] for one in told["data"]] == [0, 1]
    assert told["usage"]["prompt_tokens"] == sum(trit.count_tokens(texts))
    coded = answer(client, "/v1/embeddings", input=texts[0], encoding_format="base64")["data"][0]["embedding"]
    assert base64.b64decode(coded) == own[0].tobytes()
    ids = trit.encode("2+2=")
    how = {"pooling": "last", "normalize": False, "dimensions": len(own[0])}
    by_ids = answer(client, "/v1/embeddings", input=[ids, ids], **how)["data"]
    expected = trit.embed(ids, pooling="last")
    assert [np.array(one["embedding"], np.float32).tobytes() for one in by_ids] == [expected.tobytes()] * 2
    many = [f"{i} " * 90 for i in range(40)]
    found = answer(client, "/v1/embeddings", input=many)["data"]
    expected = trit.embed(many, normalize=True)
    assert np.array([one["embedding"] for one in found], np.float32).tobytes() == expected.tobytes()
    assert error(client, "/v1/embeddings", input="a", dimensions=3)["param"] == "dimensions"
    assert error(client, "/v1/embeddings", input=["a", ""])["param"] == "input[1]"
    assert error(client, "/v1/embeddings", input="a " * 9000)["code"] == "context_length_exceeded"


def test_tokens_and_templates(client: TestClient, trit: bitnet.Engine) -> None:
    ids = trit.encode("2+2=", add_bos=True)
    for name in ("prompt", "content"):
        told = answer(client, "/tokenize", **{name: "2+2="})
        assert told == {"tokens": ids, "count": len(ids), "max_model_len": trit.n_ctx}
    assert answer(client, "/tokenize", prompt="2+2=", add_special_tokens=False)["tokens"] == ids[1:]
    pieces = answer(client, "/tokenize", content="2+2=", with_pieces=True, add_special=False)["tokens"]
    assert "".join(one["piece"] for one in pieces) == "2+2="
    special = answer(client, "/tokenize", prompt="<|eot_id|>", add_special_tokens=False, parse_special=True)
    assert special["tokens"] == [581]
    prompt = answer(client, "/apply-template", messages=ASKED)["prompt"]
    assert prompt == trit.template.render(ASKED)
    asked = answer(client, "/tokenize", messages=ASKED)["tokens"]
    assert asked == trit.template.encode(ASKED, trit.tokenizer)
    assert answer(client, "/detokenize", tokens=asked)["prompt"] == trit.decode(asked, skip_special_tokens=False)
    assert answer(client, "/detokenize", tokens=ids, skip_special_tokens=True)["content"] == "2+2="
    assert error(client, "/detokenize", tokens=[10**6])["param"] == "tokens"
    assert error(client, "/tokenize")["param"] is None
    assert error(client, "/tokenize", prompt="a", content="b")["param"] == "prompt"
    info = client.get("/tokenizer_info").json()
    assert (info["bos_token"], info["vocab_size"]) == ("<|begin_of_text|>", trit.n_vocab)


def test_models(client: TestClient, trit: bitnet.Engine) -> None:
    listed = client.get("/v1/models").json()
    assert [one["id"] for one in listed["data"]] == ["trit", "gpt-4o"]
    assert client.get("/v1/models/trit").json() == listed["data"][0]
    assert listed["data"][0]["max_model_len"] == trit.n_ctx


def test_receipts_are_kept_and_checked(client: TestClient, trit: bitnet.Engine) -> None:
    told = answer(client, receipt=True)
    kept = client.get(f"/v1/receipts/{told['receipt_digest']}")
    assert kept.json() == told["receipt"]
    missing = client.get("/v1/receipts/abc")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "receipt_not_found")

    found = answer(client, "/v1/receipts/verify", receipt=told["receipt"])
    assert (found["valid"], found["digest"], found["replay"]["same"]) == (True, told["receipt_digest"], True)
    assert answer(client, "/v1/receipts/verify", receipt=told["receipt"], replay=False)["replay"] is None

    forged = json.loads(json.dumps(told["receipt"]))
    forged["claim"]["output_ids"][0] += 1
    found = answer(client, "/v1/receipts/verify", receipt=forged)
    assert (found["valid"], found["replay"]) == (False, None)
    assert "digest" in found["error"]
    assert answer(client, "/v1/receipts/verify", receipt={})["valid"] is False

    redacted = bitnet.Receipt.from_json(json.dumps(told["receipt"])).redact().to_dict()
    found = answer(client, "/v1/receipts/verify", receipt=redacted)
    assert (found["valid"], found["replay"]["same"]) == (True, None)
    assert "redacted" in found["replay"]["error"]
    prompt = trit.template.encode(ASKED, trit.tokenizer)
    assert answer(client, "/v1/receipts/verify", receipt=redacted, prompt=prompt)["replay"]["same"] is True


# -- HTTP -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "expected an object"),
        (b"null", "expected an object"),
        (b'{"messages": NaN}', "NaN is not JSON"),
        (b'{"temperature": -Infinity}', "not JSON"),
        (b'{"temperature": 1e999}', "too large"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"messages": "\\ud800"}', "surrogate"),
        (b'{"messages": "\xff"}', "not UTF-8"),
        (b"[" * 100_000 + b"]" * 100_000, "nested"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "nested"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
    ],
)
def test_bodies_that_are_no_request(client: TestClient, body: bytes, words: str) -> None:
    response = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert words in response.json()["error"]["message"]


def test_whole_surrogate_pairs_are_text(client: TestClient) -> None:
    body = b'{"prompt": "\\ud83d\\ude00", "add_special_tokens": false}'
    told = client.post("/tokenize", content=body, headers={"content-type": "application/json"}).json()
    assert answer(client, "/detokenize", tokens=told["tokens"])["prompt"] == "\N{GRINNING FACE}"


def test_methods_paths_and_types(client: TestClient) -> None:
    for method, path, status in (
        ("GET", "/v2/models", 404),
        ("GET", "/v1/models/", 404),
        ("POST", "/health", 405),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models/trit", 405),
    ):
        response = client.request(method, path)
        assert (response.status_code, set(response.json()["error"])) == (status, {"message", "type", "param", "code"})
    assert client.request("GET", "/v1/completions").headers["allow"] == "POST"
    assert client.options("/v1/completions").headers["allow"] == "POST, OPTIONS"
    assert client.options("/v1/completions").status_code == 204
    head = client.head("/health")
    assert (head.status_code, head.content) == (200, b"")
    form = client.post("/v1/completions", data={"prompt": "a"})
    assert (form.status_code, form.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert client.get("/health").json() == {"status": "ok"}
    assert len({client.get("/health").headers["x-request-id"] for _ in range(2)}) == 2
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]


def test_metrics_count(trit: bitnet.Engine) -> None:
    with TestClient(create_app(trit)) as client:
        answer(client)
        events(client)
        error(client, n=0)
        client.get("/nothing")
        text = client.get("/metrics").text
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    chat = 'path="/v1/chat/completions"'
    assert samples[f'bitnet_requests_total{{{chat},status="200"}}'] == "2"
    assert samples[f'bitnet_requests_total{{{chat},status="400"}}'] == "1"
    assert samples['bitnet_requests_total{path="other",status="404"}'] == "1"
    assert (samples["bitnet_prompt_tokens_total"], samples["bitnet_completion_tokens_total"]) == ("28", "14")
    assert int(samples["bitnet_cached_tokens_total"]) > 0
    assert samples[f"bitnet_request_seconds_count{{{chat}}}"] == "3"
    assert samples[f'bitnet_request_seconds_bucket{{{chat},le="+Inf"}}'] == "3"
    assert samples["bitnet_first_token_seconds_count"] == "1"
    assert samples["bitnet_requests_running"] == samples["bitnet_requests_waiting"] == "0"
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))


def test_every_endpoint_is_described(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    served = {
        (route.path.replace(":path", ""), method.lower())
        for route in client.app.routes  # type: ignore[attr-defined]
        for method in route.methods - {"HEAD"}
    }
    assert served == {(path, method) for path, item in described["paths"].items() for method in item}
    assert described["openapi"] == "3.1.0"


def test_schemas_know_only_what_is_checked() -> None:
    """A keyword that `check` ignores would be a promise of /openapi.json that nobody keeps."""
    from bitnet.server.openapi import requests

    known = {"type", "enum", "minimum", "maximum", "minLength", "maxLength", "pattern", "minItems", "maxItems", "items"}
    known |= {"properties", "required", "additionalProperties", "anyOf", "title", "description"}

    def visit(schema: Any) -> None:
        assert set(schema) <= known, schema
        for one in (*schema.get("anyOf", ()), *schema.get("properties", {}).values()):
            visit(one)
        for name in ("items", "additionalProperties"):
            if isinstance(schema.get(name), dict):
                visit(schema[name])

    for schema in requests(Settings()).values():
        visit(schema)


def test_checks_agree_with_jsonschema() -> None:
    import jsonschema

    from bitnet.server.openapi import requests

    validators = {path: jsonschema.Draft202012Validator(schema) for path, schema in requests(Settings()).items()}
    values: list[Any] = [None, True, 0, 1, -1, 2.5, 10**20, "", "a", [], ["a"], [1], [[1]], ["a", 1], {}, {"a": 1}]
    values += [{"type": "text"}, {"type": "function"}, ASKED, [{"role": "user", "content": [{"type": "text"}]}]]
    for path, schema in requests(Settings()).items():
        least = {"messages": ASKED, "prompt": "a", "input": "a", "tokens": [1], "receipt": {}}
        body = {name: least[name] for name in schema.get("required", ())}
        for name in [*schema["properties"], "unknown"]:
            for value in values:
                fields = body | {name: value}
                try:
                    check(fields, schema)
                    passes = True
                except ApiError:
                    passes = False
                assert passes == validators[path].is_valid(fields), (path, name, value)


def test_parsed_values_are_python_s() -> None:
    assert parse(b'{"a": [1, 2.5, "\\u00fc", null, true]}') == {"a": [1, 2.5, "ü", None, True]}


def test_the_page_is_in_the_package() -> None:
    assert (ROOT / "python" / "bitnet" / "server" / "page.html").stat().st_size > 100
