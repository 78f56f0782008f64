"""`bitnet serve`: what programs send that speak to OpenAI's API, llama-server or vLLM, each seen in a real request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import bitnet
from bitnet.server import Settings, create_app
from text_model import make_text_model

CHAT = "/v1/chat/completions"
ASKED = [{"role": "user", "content": "What is 2+2?"}]
SCHEMA = {"type": "object", "properties": {"b": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["b"]}
TOOL = {"type": "function", "function": {"name": "f", "description": "Does it.", "parameters": SCHEMA}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"b": 1}'}}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """A client of a server of the model in the package."""
    with bitnet.Engine(n_threads=1) as engine, TestClient(create_app(engine, Settings(model_names=("m",)))) as client:
        yield client


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of a random model with a long context."""
    path: Path = tmp_path_factory.mktemp("random") / "model.gguf"
    make_text_model(path, 4096)
    with bitnet.Engine(path, n_threads=1) as engine, TestClient(create_app(engine)) as client:
        yield client


def post(client: TestClient, path: str = CHAT, status: int = 200, **fields: Any) -> Any:
    """The document that a request gets."""
    body = ({"messages": ASKED} if path == CHAT else {}) | fields
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    return response.json()


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": -1},
        {"max_completion_tokens": -1, "max_tokens": -1},
        {"logprobs": False, "top_logprobs": 0},
        {"stream_options": {"include_usage": True}},
        {"tools": [], "parallel_tool_calls": True},
        {"tools": None, "tool_choice": "none", "n": None, "stop": None, "logit_bias": {}, "user": None},
        {"messages": [ASKED[0] | {"name": "bob", "content": [{"type": "text", "text": "What is 2+2?"}]}]},
    ],
)
def test_fields_that_say_nothing(client: TestClient, fields: dict[str, Any]) -> None:
    """Values by which clients mean what is the case anyway."""
    plain, told = post(client, seed=1), post(client, **{"seed": 1} | fields)
    assert told["receipt_digest"] == plain["receipt_digest"]


def test_no_limit_is_the_servers_limit() -> None:
    """LM Studio's and llama-server's max_tokens -1."""
    settings = Settings(max_tokens=3)
    with bitnet.Engine(n_threads=1) as engine, TestClient(create_app(engine, settings)) as client:
        chat, text = post(client, max_tokens=-1), post(client, "/v1/completions", prompt="2+2=", max_tokens=-1)
        for told in (chat, text):
            assert told["usage"]["completion_tokens"] == 3


def test_seed_minus_one_draws_a_seed(client: TestClient) -> None:
    digests = {post(client, seed=-1)["receipt_digest"] for _ in range(2)}
    assert len(digests) == 2
    streamed = client.post(CHAT, json={"messages": ASKED, "seed": -1, "stream": True})
    assert streamed.status_code == 200


def test_messages_without_text(random: TestClient) -> None:
    """Answers that were empty, and functions that return nothing, come back as null."""
    for null in ({"content": None}, {}):
        history = [*ASKED, {"role": "assistant", **null}, *ASKED]
        empty = [*ASKED, {"role": "assistant", "content": ""}, *ASKED]
        how: dict[str, Any] = {"seed": 1, "max_tokens": 1}
        digest = post(random, messages=history, **how)["receipt_digest"]
        assert digest == post(random, messages=empty, **how)["receipt_digest"]
        called = [*ASKED, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
        result = {"role": "tool", "tool_call_id": "call_1", **null}
        post(random, messages=[*called, result], tools=[TOOL], max_tokens=1)


def test_members_of_tools_that_others_read(random: TestClient) -> None:
    """LiteLLM passes on marks for caches of other services."""
    post(random, tools=[TOOL | {"cache_control": {"type": "ephemeral"}}], max_tokens=1)


def test_a_format_beside_a_call_that_must_be(random: TestClient) -> None:
    """instructor sends both. The format is one of texts, and a call that must be leaves no text."""
    form = {"type": "json_schema", "name": "s", "schema": {"type": "object"}}
    chosen = {"type": "function", "name": "f"}
    item = {"type": "function", **TOOL["function"]}  # type: ignore[dict-item]
    how: dict[str, Any] = {"input": "x", "tools": [item], "tool_choice": chosen, "max_output_tokens": 400}
    (call,) = post(random, "/v1/responses", **how, text={"format": form})["output"]
    assert call["type"] == "function_call" and json.loads(call["arguments"])["b"] in range(1, 10)
    chat: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required", "max_tokens": 400}
    told = post(random, **chat, response_format={"type": "json_object"})["choices"][0]
    assert told["finish_reason"] == "tool_calls"
    post(random, status=400, **chat, regex="a")


def test_objects_of_a_response_format_are_closed(client: TestClient) -> None:
    """pydantic's schemas say nothing of further properties, and small models would write them without end."""
    for form in (
        {"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": SCHEMA}},
        {"type": "json_schema", "schema": SCHEMA},
        {"type": "json_object", "schema": SCHEMA},
    ):
        told = post(client, response_format=form, max_tokens=100)["choices"][0]
        assert list(json.loads(told["message"]["content"])) == ["b"]
    open_schema = SCHEMA | {"additionalProperties": {"type": "integer", "maximum": 9}}
    how: dict[str, Any] = {"max_tokens": 40, "seed": 1}
    form = {"type": "json_schema", "json_schema": {"schema": open_schema}}
    formatted = post(client, **how, response_format=form)
    assert formatted["receipt_digest"] == post(client, **how, json_schema=open_schema)["receipt_digest"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"repeat_penalty": 1.1}, "did you mean repetition_penalty?"),
        ({"n_predict": 5}, "did you mean max_tokens?"),
        ({"guided_json": {}}, "did you mean json_schema?"),
        ({"structured_outputs": {}}, "did you mean json_schema, regex, choice or grammar?"),
        ({"functions": []}, "did you mean tools?"),
        ({"mesages": ASKED, "messages": None}, "did you mean messages?"),
    ],
)
def test_names_of_other_servers_are_explained(client: TestClient, fields: dict[str, Any], words: str) -> None:
    error = post(client, status=400, **fields)["error"]
    assert error["code"] == "unknown_field" and error["message"].endswith(words)


def test_the_kind_of_a_tool_is_checked_before_its_name(client: TestClient) -> None:
    error = post(client, "/v1/responses", 400, input="x", tools=[{"type": "web_search"}])["error"]
    assert error["param"] == "tools[0].type"


@pytest.mark.parametrize("path", ["/chat/completions", "/v1/chat/completions/"])
def test_a_base_address_that_is_nearly_right(client: TestClient, path: str) -> None:
    response = client.post(path, json={"messages": ASKED})
    assert response.status_code == 404
    assert "did you mean /v1/chat/completions?" in response.json()["error"]["message"]


def test_ids_of_another_tokenizer(client: TestClient) -> None:
    """LangChain sends ids of OpenAI's tokenizer unless it is told not to."""
    error = post(client, "/v1/embeddings", 400, input=[[15339, 1917]])["error"]
    assert error["param"] == "input" and "send texts" in error["message"]
