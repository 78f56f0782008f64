"""`bitnet serve`: /v1/responses, its items and its events."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

import bitnet
from bitnet.server import create_app
from bitnet.server.responses_input import as_chat
from test_server import ASKED, answer, error


@pytest.fixture(scope="module")
def trit() -> Iterator[bitnet.Engine]:
    """The model in the package."""
    with bitnet.Engine(n_threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def client(trit: bitnet.Engine) -> Iterator[TestClient]:
    """A client of a server with the usual settings."""
    with TestClient(create_app(trit)) as client:
        yield client


def test_responses(client: TestClient, trit: bitnet.Engine) -> None:
    own = trit.chat([{"role": "system", "content": "Be brief."}, *ASKED], seed=1).receipt
    assert own
    parts = [{"type": "input_text", "text": "What is 2+2?"}]
    for given in ("What is 2+2?", ASKED, [{"type": "message", "role": "user", "content": parts}]):
        told = answer(client, "/v1/responses", input=given, instructions="Be brief.", metadata={"a": "b"}, seed=1)
        assert told["receipt_digest"] == own.digest
        (item,) = told["output"]
        assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
        assert (told["status"], told["metadata"], told["store"]) == ("completed", {"a": "b"}, False)
    cut = answer(client, "/v1/responses", input="What is 2+2?", max_output_tokens=2)
    assert (cut["status"], cut["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert cut["usage"]["output_tokens"] == 2
    assert error(client, "/v1/responses", input="a", previous_response_id="resp_1")["code"] == "unsupported"
    assert error(client, "/v1/responses", input="a", background=True)["param"] == "background"
    assert error(client, "/v1/responses", input=[{"role": "user"}])["param"] == "input[0].content"
    item = {"type": "function_call", "name": "f"}
    assert error(client, "/v1/responses", input=[item])["param"] == "input[0].arguments"
    tool = {"type": "web_search"}
    assert error(client, "/v1/responses", input="a", tools=[tool])["param"].startswith("tools[0]")


def test_the_events_of_a_response(client: TestClient, trit: bitnet.Engine) -> None:
    how = {"input": "What is 2+2?", "stream": True, "include": ["message.output_text.logprobs"], "receipt": True}
    response = client.post("/v1/responses", json=how)
    found = [one.split("\n") for one in response.text.strip().split("\n\n")]
    documents = [json.loads(data.removeprefix("data: ")) for _, data in found]
    assert [name.removeprefix("event: ") for name, _ in found] == [one["type"] for one in documents]
    assert [one["sequence_number"] for one in documents] == list(range(len(documents)))
    kinds = [one["type"].removeprefix("response.") for one in documents]
    deltas = [one for one in documents if one["type"].endswith(".delta")]
    assert kinds == [
        *["created", "in_progress", "output_item.added", "content_part.added"],
        *["output_text.delta"] * len(deltas),
        *["output_text.done", "content_part.done", "output_item.done", "completed"],
    ]
    assert "".join(one["delta"] for one in deltas) == trit.chat(ASKED).text
    last = documents[-1]["response"]
    assert last["output"][0]["content"][0]["text"] == trit.chat(ASKED).text
    assert len(last["output"][0]["content"][0]["logprobs"]) == len(deltas)
    assert last["receipt_digest"] == bitnet.Receipt.from_json(json.dumps(last["receipt"])).digest


def test_earlier_items_become_messages() -> None:
    items = [
        {"role": "user", "content": "Weather?"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Look it up."}]},
        {"type": "function_call", "call_id": "a", "name": "weather", "arguments": "{}"},
        {"type": "function_call", "call_id": "b", "name": "time", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "sunny"},
        {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "noon"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Sunny."}]},
    ]
    tool = {"type": "function", "name": "weather", "parameters": {}}
    chat = as_chat({"input": items, "instructions": "Help.", "tools": [tool], "tool_choice": "auto"})
    calls = [
        {"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}}
        for id, name in (("a", "weather"), ("b", "time"))
    ]
    assert chat["messages"] == [
        {"role": "system", "content": "Help."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "reasoning_content": "Look it up.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": "sunny"},
        {"role": "tool", "tool_call_id": "b", "content": "noon"},
        {"role": "assistant", "content": "Sunny."},
    ]
    assert chat["tools"] == [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
