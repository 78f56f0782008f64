"""`bitnet serve`: calls of tools apart from the text, streamed and not, and their results, through OpenAI's client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import bitnet
from bitnet.server import Settings, create_app
from scripted_model import scripted_model
from served import running
from test_tools import HERMES, HERMES_SCRIPT
from text_model import make_text_model

ASKED: list[Any] = [{"role": "user", "content": "x"}]
PARAMETERS = {
    "type": "object",
    "properties": {"b": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["b"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "description": "Does it.", "parameters": PARAMETERS}}
    for name in ("f", "g")
]
ITEMS: list[Any] = [{"type": "function", **tool["function"], "strict": True} for tool in TOOLS]
"""The same tools as /v1/responses has them."""


def served(engine: bitnet.Engine) -> Iterator[openai.OpenAI]:
    """OpenAI's client of a server of the engine."""
    with (
        running(create_app(engine, Settings(model_names=("m",)))) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def hermes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bitnet.Engine]:
    """A model that says "Well. " and calls f with {"b": 1}."""
    path = tmp_path_factory.mktemp("tools") / "hermes.gguf"
    words = [token for token in HERMES_SCRIPT if len(token) > 1]
    script = ["\n", *HERMES_SCRIPT, "<|im_end|>"]
    with bitnet.Engine(scripted_model(path, script, template=HERMES, words=words, context=2048)) as engine:
        yield engine


@pytest.fixture(scope="module")
def scripted(hermes: bitnet.Engine) -> Iterator[openai.OpenAI]:
    """A client of that model."""
    yield from served(hermes)


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """A client of a random model, which calls a tool only because it must."""
    path: Path = tmp_path_factory.mktemp("random") / "model.gguf"
    make_text_model(path, 4096)
    with bitnet.Engine(path, n_threads=1) as engine:
        yield from served(engine)


def functions(calls: Any) -> list[tuple[str, Any]]:
    """The name and the arguments of each call."""
    return [(call.function.name, json.loads(call.function.arguments)) for call in calls or ()]


def test_a_call_that_the_model_decides_on(scripted: openai.OpenAI, hermes: bitnet.Engine) -> None:
    told = scripted.chat.completions.create(model="m", messages=ASKED, tools=TOOLS, seed=5)
    own = hermes.chat(ASKED, tools=TOOLS, seed=5)
    choice = told.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", own.text)
    assert functions(choice.message.tool_calls) == [("f", {"b": 1})]
    assert [call.id for call in choice.message.tool_calls or ()] == [call["id"] for call in own.tool_calls or ()]
    assert own.receipt and told.model_extra and told.model_extra["receipt_digest"] == own.receipt.digest


def test_a_streamed_call(scripted: openai.OpenAI) -> None:
    how: dict[str, Any] = {"model": "m", "messages": ASKED, "tools": TOOLS, "seed": 5}
    whole = scripted.chat.completions.create(**how).choices[0]
    chunks = list(scripted.chat.completions.create(**how, stream=True))
    deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert [(call.index, call.id) for call in deltas] == [(0, (whole.message.tool_calls or [])[0].id)]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    with scripted.chat.completions.stream(**how) as events:
        final = events.get_final_completion().choices[0]
    assert functions(final.message.tool_calls) == functions(whole.message.tool_calls)
    assert final.message.content == whole.message.content


def test_no_calls(scripted: openai.OpenAI, hermes: bitnet.Engine) -> None:
    for how in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        told = scripted.chat.completions.create(model="m", messages=ASKED, **how).choices[0]  # type: ignore[call-overload]
        assert told.message.tool_calls is None
        assert told.finish_reason == "stop"
        assert "tool_call" in told.message.content


def test_results_go_back(scripted: openai.OpenAI, hermes: bitnet.Engine) -> None:
    told = scripted.chat.completions.create(model="m", messages=ASKED, tools=TOOLS, seed=5).choices[0].message
    assert told.tool_calls
    result: Any = {"role": "tool", "tool_call_id": told.tool_calls[0].id, "content": "4"}
    messages: list[Any] = [*ASKED, told.model_dump(exclude_none=True), result]
    after = scripted.chat.completions.create(model="m", messages=messages, tools=TOOLS, seed=5)
    calls = [call.model_dump() for call in told.tool_calls]
    own = hermes.chat(
        [*ASKED, {"role": "assistant", "content": told.content, "tool_calls": calls}, result], tools=TOOLS, seed=5
    )
    assert own.receipt and after.model_extra and after.model_extra["receipt_digest"] == own.receipt.digest


def test_calls_in_responses(scripted: openai.OpenAI) -> None:
    told = scripted.responses.create(model="m", input=ASKED, tools=ITEMS)
    message, call = told.output
    assert (message.type, call.type) == ("message", "function_call")
    assert (call.name, json.loads(call.arguments)) == ("f", {"b": 1})  # type: ignore[union-attr]
    with scripted.responses.stream(model="m", input=ASKED, tools=ITEMS) as events:
        kinds = [event.type for event in events]
        final = events.get_final_response()
    assert kinds.index("response.output_text.done") < kinds.index("response.function_call_arguments.delta")
    assert [item.type for item in final.output] == ["message", "function_call"]
    assert final.output_text == told.output_text
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "4"}  # type: ignore[union-attr]
    history: list[Any] = [*ASKED, *told.output, output]
    again = scripted.responses.create(model="m", input=history, tools=ITEMS)
    assert again.usage and told.usage and again.usage.input_tokens > told.usage.input_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_must_be(random: openai.OpenAI, stream: bool) -> None:
    def ask(**how: Any) -> Any:
        fields = {"model": "m", "messages": ASKED, "tools": TOOLS, "max_tokens": 400} | how
        if stream:
            with random.chat.completions.stream(**fields) as events:
                return events.get_final_completion().choices[0]
        return random.chat.completions.create(**fields).choices[0]

    named = ask(tool_choice={"type": "function", "function": {"name": "g"}})
    assert named.finish_reason == "tool_calls"
    ((name, arguments),) = functions(named.message.tool_calls)
    assert name == "g" and arguments["b"] in range(10)
    required = ask(tool_choice="required", parallel_tool_calls=False)
    ((name, arguments),) = functions(required.message.tool_calls)
    assert name in ("f", "g") and arguments["b"] in range(10)


def test_tools_that_do_not_exist(scripted: openai.OpenAI) -> None:
    named: Any = {"type": "function", "function": {"name": "cube"}}
    with pytest.raises(openai.BadRequestError) as refused:
        scripted.chat.completions.create(model="m", messages=ASKED, tools=TOOLS, tool_choice=named)
    assert refused.value.param == "tool_choice"
    wrong: Any = [{"type": "function", "function": {"name": "no spaces"}}]
    with pytest.raises(openai.BadRequestError) as refused:
        scripted.chat.completions.create(model="m", messages=ASKED, tools=wrong)
    assert refused.value.param == "tools[0].function.name"
