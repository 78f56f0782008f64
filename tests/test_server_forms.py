"""`bitnet serve`: answers of a given form, in chats, completions and responses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest
from starlette.testclient import TestClient

import bitnet
from bitnet.server import Settings, create_app
from served import running

ASKED: list[Any] = [{"role": "user", "content": "What is 2+2?"}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"sum": {"type": "integer", "minimum": 0, "maximum": 99}, "sure": {"enum": ["yes", "no"]}},
    "required": ["sum", "sure"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def trit() -> Iterator[bitnet.Engine]:
    """The model in the package."""
    with bitnet.Engine(n_threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def client(trit: bitnet.Engine) -> Iterator[openai.OpenAI]:
    """OpenAI's client of a server."""
    with (
        running(create_app(trit, Settings(model_names=("trit",)))) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def text(client: openai.OpenAI, **fields: Any) -> str:
    """The text of a chat answer, which its stream gives as well."""
    own = {name: fields.pop(name) for name in ("json_schema", "regex", "choice", "grammar") if name in fields}
    told = client.chat.completions.create(model="trit", messages=ASKED, seed=1, extra_body=own, **fields)
    assert told.choices[0].finish_reason == "stop"
    content = told.choices[0].message.content
    assert content is not None
    chunks = client.chat.completions.create(model="trit", messages=ASKED, seed=1, extra_body=own, stream=True, **fields)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == content
    return content


def test_json_of_a_schema(client: openai.OpenAI, trit: bitnet.Engine) -> None:
    how = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA, "strict": True}}
    content = text(client, response_format=how)
    told = json.loads(content)
    assert set(told) == {"sum", "sure"}
    assert told["sum"] in range(100) and told["sure"] in ("yes", "no")
    assert content == trit.chat(ASKED, json_schema=SCHEMA, seed=1).text == text(client, json_schema=SCHEMA)


def test_a_class_of_pydantic(client: openai.OpenAI) -> None:
    class Sum(pydantic.BaseModel):
        sum: int = pydantic.Field(ge=0, le=99)

    told = client.chat.completions.parse(model="trit", messages=ASKED, response_format=Sum)
    assert isinstance(told.choices[0].message.parsed, Sum)
    response = client.responses.parse(model="trit", input=ASKED, text_format=Sum)
    assert response.output_parsed == told.choices[0].message.parsed


def test_expressions_choices_and_grammars(client: openai.OpenAI) -> None:
    assert re.fullmatch(r"[0-9]{3}-[a-c]", text(client, regex=r"[0-9]{3}-[a-c]"))
    assert text(client, choice=["maybe", "certainly"]) in ("maybe", "certainly")
    assert text(client, grammar='start: "a"~3 | "b"~2') in ("aaa", "bb")
    told = client.completions.create(model="trit", prompt="2+2=", extra_body={"regex": "[5-9]"})
    assert re.fullmatch("[5-9]", told.choices[0].text)


def test_forms_that_make_no_sense(client: openai.OpenAI) -> None:
    for own in (
        {"regex": "("},
        {"grammar": "start: nothing"},
        {"json_schema": {"type": "thing"}},
        {"json_schema": False},
        {"choice": []},
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model="trit", messages=ASKED, extra_body=own)
        assert refused.value.param == next(iter(own))


def test_a_form_of_the_server_gives_way_to_that_of_a_request(trit: bitnet.Engine) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    call = {"tools": [tool], "tool_choice": "required"}
    usual = Settings(defaults={"json_schema": SCHEMA})
    with TestClient(create_app(trit, usual)) as client:

        def message(**fields: Any) -> Any:
            told = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}]} | fields)
            assert told.status_code == 200, told.text
            return told.json()["choices"][0]["message"]

        assert set(json.loads(message()["content"])) == {"sum", "sure"}
        assert message(choice=["u"])["content"] == "u"
        assert message(**call)["tool_calls"][0]["function"]["name"] == "f"
