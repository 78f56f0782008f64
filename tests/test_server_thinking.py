"""`bitnet serve`: thoughts apart from the answer, in every form of an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

import bitnet
from bitnet.server import create_app
from scripted_model import scripted_model
from test_thinking import ASKED, CLOSED, HISTORY, QWEN3, SCRIPT


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bitnet.Engine]:
    """A model that thinks "hm?" and answers "\\t42"."""
    path = tmp_path_factory.mktemp("thinking") / "model.gguf"
    assert CLOSED in QWEN3 and QWEN3.startswith(HISTORY)
    with bitnet.Engine(scripted_model(path, SCRIPT, template=QWEN3), n_threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def client(engine: bitnet.Engine) -> Iterator[TestClient]:
    """A client of its server."""
    with TestClient(create_app(engine)) as client:
        yield client


def documents(response: Any) -> list[Any]:
    """The documents of a stream's events."""
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def test_thoughts_of_a_chat(client: TestClient, engine: bitnet.Engine) -> None:
    own = engine.chat(ASKED, seed=1)
    told = client.post("/v1/chat/completions", json={"messages": ASKED, "seed": 1}).json()
    message = told["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == (own.reasoning, own.text) == ("hm?", "\t42")
    chunks = documents(client.post("/v1/chat/completions", json={"messages": ASKED, "seed": 1, "stream": True}))
    deltas = [one["choices"][0]["delta"] for one in chunks]
    assert "".join(one.get("reasoning_content", "") for one in deltas) == "hm?"
    assert "".join(one.get("content", "") for one in deltas) == "\t42"
    assert own.receipt
    assert told["receipt_digest"] == chunks[-1]["receipt_digest"] == own.receipt.digest


def test_thoughts_can_be_turned_off(client: TestClient, engine: bitnet.Engine) -> None:
    own = engine.chat(ASKED, enable_thinking=False, seed=1, max_tokens=5).receipt
    fields = {"messages": ASKED, "seed": 1, "max_tokens": 5}
    for how in ({"enable_thinking": False}, {"chat_template_kwargs": {"enable_thinking": False}}):
        told = client.post("/v1/chat/completions", json=fields | how).json()
        assert own and told["receipt_digest"] == own.digest
    prompt = client.post("/apply-template", json={"messages": ASKED, "enable_thinking": False}).json()["prompt"]
    assert prompt == engine.template.render(ASKED, enable_thinking=False)
    both = {"enable_thinking": False, "chat_template_kwargs": {"enable_thinking": True}}
    for path in ("/v1/chat/completions", "/apply-template"):
        assert client.post(path, json={"messages": ASKED} | both).status_code == 400


def test_earlier_thoughts_reach_the_template(client: TestClient, engine: bitnet.Engine) -> None:
    begun = [*ASKED, {"role": "assistant", "content": "4", "reasoning_content": "so?"}]
    prompt = client.post("/apply-template", json={"messages": begun, "add_generation_prompt": False}).json()["prompt"]
    assert "<think>\nso?\n</think>" in prompt
    ids = client.post("/tokenize", json={"messages": begun, "add_generation_prompt": False}).json()["tokens"]
    assert ids == engine.template.encode(begun, engine.tokenizer, add_generation_prompt=False)


def test_thoughts_of_a_response(client: TestClient) -> None:
    told = client.post("/v1/responses", json={"input": "x"}).json()
    thoughts, message = told["output"]
    assert (thoughts["type"], thoughts["content"]) == ("reasoning", [{"type": "reasoning_text", "text": "hm?"}])
    assert message["content"][0]["text"] == "\t42"
    events = documents(client.post("/v1/responses", json={"input": "x", "stream": True}))
    final = events[-1]["response"]["output"]
    assert [(one["type"], one["content"][0]["text"]) for one in final] == [("reasoning", "hm?"), ("message", "\t42")]
    kinds = [one["type"].removeprefix("response.") for one in events if not one["type"].endswith(".delta")]
    assert kinds == [
        *["created", "in_progress", "output_item.added", "reasoning_text.done", "output_item.done"],
        *["output_item.added", "content_part.added", "output_text.done", "content_part.done", "output_item.done"],
        "completed",
    ]
    places = [(one["output_index"], one["item_id"]) for one in events if one["type"].endswith(".delta")]
    assert places == sorted(places, key=lambda place: place[0])
    assert {id for _, id in places} == {one["id"] for one in final}
    again = client.post("/v1/responses", json={"input": [{"role": "user", "content": "x"}, *final]})
    assert again.status_code == 200
