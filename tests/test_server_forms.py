"""`bitnet serve`: answers of a given form, and calls of tools."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest

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
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["a"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "description": "", "parameters": PARAMETERS}}
    for name in ("double", "square")
]


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
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="trit", messages=ASKED, extra_body=own)


def test_a_tool_that_must_be_called(client: openai.OpenAI) -> None:
    named: Any = {"type": "function", "function": {"name": "square"}}
    told = client.chat.completions.create(model="trit", messages=ASKED, tools=TOOLS, tool_choice=named).choices[0]
    assert told.finish_reason == "tool_calls"
    assert told.message.tool_calls
    call: Any = told.message.tool_calls[0]
    assert (call.type, call.function.name) == ("function", "square")
    assert json.loads(call.function.arguments)["a"] in range(10)
    required = client.chat.completions.create(
        model="trit", messages=ASKED, tools=TOOLS, tool_choice="required", parallel_tool_calls=False
    ).choices[0]
    assert required.message.tool_calls
    assert len(required.message.tool_calls) == 1


def test_streamed_calls_are_the_same(client: openai.OpenAI) -> None:
    how: dict[str, Any] = {"model": "trit", "messages": ASKED, "tools": TOOLS, "tool_choice": "required"}
    told = client.chat.completions.create(**how).choices[0].message.tool_calls
    with client.chat.completions.stream(**how) as events:
        final = events.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls"
    assert told and final.message.tool_calls
    for one, other in zip(told, final.message.tool_calls, strict=True):
        assert json.loads(one.model_dump_json())["function"]["arguments"] == other.function.arguments


def test_results_of_tools_go_back(client: openai.OpenAI) -> None:
    told = client.chat.completions.create(model="trit", messages=ASKED, tools=TOOLS, tool_choice="required").choices[0]
    assert told.message.tool_calls
    results = [{"role": "tool", "tool_call_id": call.id, "content": "4"} for call in told.message.tool_calls]
    messages = [*ASKED, told.message.model_dump(exclude_none=True), *results]
    after = client.chat.completions.create(model="trit", messages=messages, tools=TOOLS, tool_choice="none").choices[0]
    assert after.message.tool_calls is None
    assert after.finish_reason in ("stop", "length")


def test_calls_in_responses(client: openai.OpenAI) -> None:
    tools: list[Any] = [{"type": "function", **tool["function"], "strict": True} for tool in TOOLS]
    told = client.responses.create(model="trit", input=ASKED, tools=tools, tool_choice="required")
    calls = [item for item in told.output if item.type == "function_call"]
    assert calls
    assert json.loads(calls[0].arguments)["a"] in range(10)
    with client.responses.stream(model="trit", input=ASKED, tools=tools, tool_choice="required") as events:
        kinds = [event.type for event in events]
        final = events.get_final_response()
    assert "response.function_call_arguments.done" in kinds
    assert [item.arguments for item in final.output if item.type == "function_call"] == [
        item.arguments for item in calls
    ]
    output: list[Any] = [{"type": "function_call_output", "call_id": call.call_id, "output": "4"} for call in calls]
    again = client.responses.create(
        model="trit", input=[*ASKED, *told.output, *output], tools=tools, tool_choice="none"
    )
    assert again.usage and told.usage and again.usage.input_tokens > told.usage.input_tokens


def test_tools_that_do_not_exist(client: openai.OpenAI) -> None:
    named: Any = {"type": "function", "function": {"name": "cube"}}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="trit", messages=ASKED, tools=TOOLS, tool_choice=named)
    assert refused.value.param == "tool_choice"
