"""Tools: calls of each family apart from the text, in every form of chat; the history; what is asked for."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import bitnet
from bitnet import ArgumentError, ChatSession, Completion, Engine, SamplingParams
from conftest import message_of
from scripted_model import scripted_model

HEAD = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls %}"
TAIL = "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TOOLS_SHOWN = "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}"
HERMES = (
    TOOLS_SHOWN
    + HEAD
    + '<tool_call>{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}</tool_call>'
    + TAIL
)
PLAIN = HEAD + TAIL
"""Never reads tools."""

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"b": {"type": "integer"}}}},
}
ASKED: list[dict[str, Any]] = [{"role": "user", "content": "x"}]
END = "<|im_end|>"
NAMED = '{"name": "f", '
ARGUMENTS = '{"b": 1}'
CALL = {"name": "f", "arguments": {"b": 1}}
MARKS = ["<tool_call>", "</tool_call>"]


def answering(path: Path, *script: str, template: str, control: list[str] | None = None) -> Engine:
    """An engine whose model says these tokens after the newline of the prompt, and ends."""
    words = [token for token in script if len(token) > 1]
    return Engine(
        scripted_model(path, ["\n", *script, END], template=template, words=words, control=control or [], context=2048)
    )


def calls_of(answer: Any) -> list[dict[str, Any]]:
    """The calls without their ids, the arguments parsed."""
    for call in answer.tool_calls or []:
        assert set(call) == {"id", "type", "function"} and call["type"] == "function"
        assert set(call["function"]) == {"name", "arguments"}
    functions = [call["function"] for call in answer.tool_calls or []]
    return [{"name": each["name"], "arguments": json.loads(each["arguments"])} for each in functions]


def prompt_of(engine: Engine, answer: Completion) -> str:
    assert answer.receipt
    return engine.decode(answer.receipt.to_dict()["claim"]["prompt_ids"], skip_special_tokens=False)


HERMES_SCRIPT = ["Well", ".", " ", "<tool_call>", NAMED, '"arguments": ', ARGUMENTS, "}", "</tool_call>"]


@pytest.fixture(scope="module")
def hermes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with answering(tmp_path_factory.mktemp("tools") / "hermes.gguf", *HERMES_SCRIPT, template=HERMES) as engine:
        yield engine


XML = TOOLS_SHOWN + "{# <tool_call><function=name> #}" + PLAIN
LLAMA = TOOLS_SHOWN + '{# "parameters": #}'.replace(":", ": ") + PLAIN
MISTRAL = TOOLS_SHOWN + "{# [TOOL_CALLS] #}" + PLAIN
MISTRAL_ARGS = TOOLS_SHOWN + "{# [TOOL_CALLS][ARGS] #}" + PLAIN


@pytest.mark.parametrize(
    ("template", "script"),
    [
        (HERMES, ["<tool_call>", NAMED, '"arguments": ', ARGUMENTS, "}", "</tool_call>"]),
        (XML, ["<tool_call>", "<function=f>", "<parameter=b>", "1", "</parameter>", "</function>", "</tool_call>"]),
        (LLAMA, [NAMED, '"parameters": ', ARGUMENTS, "}"]),
        (LLAMA, ["<|python_tag|>", NAMED, '"parameters": ', ARGUMENTS, "}"]),
        (MISTRAL, ["[TOOL_CALLS]", "[", NAMED, '"arguments": ', ARGUMENTS, "}", "]"]),
        (MISTRAL_ARGS, ["[TOOL_CALLS]", "f", "[ARGS]", ARGUMENTS]),
        (PLAIN, [NAMED, '"arguments": ', ARGUMENTS, "}"]),
    ],
)
@pytest.mark.parametrize("is_control", [False, True])
def test_the_calls_of_each_family_are_found(tmp_path: Path, template: str, script: list[str], is_control: bool) -> None:
    marks = [*MARKS, "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>"] if is_control else []
    with answering(tmp_path / "model.gguf", *script, template=template, control=marks) as engine:
        answer = engine.chat(ASKED, tools=[TOOL])
        assert (answer.text, calls_of(answer), answer.finish_reason) == ("", [CALL], "stop")
        assert answer.receipt and engine.replay(answer.receipt)
        plain = engine.chat(ASKED)
        assert plain.tool_calls is None
        assert plain.text == "".join(token for token in script if token not in marks)


def test_every_form_of_chat_gives_the_calls_apart(hermes: Engine) -> None:
    answer = hermes.chat(ASKED, tools=[TOOL], seed=5)
    assert (answer.text, calls_of(answer)) == ("Well.", [CALL])
    assert hermes.decode(answer.token_ids) == "".join(HERMES_SCRIPT)
    same: list[Any] = [
        *hermes.chat([ASKED, ASKED], tools=[TOOL], seed=5),
        asyncio.run(hermes.achat(ASKED, tools=[TOOL], seed=5)),
        hermes.chat_stream(ASKED, tools=[TOOL], seed=5),
    ]
    stream = same[-1]
    assert isinstance(stream, bitnet.Stream)
    pieces = list(stream)
    assert all(each.tool_calls == answer.tool_calls and each.text == "Well." for each in same)
    assert "".join(piece.text for piece in pieces) == "Well."
    found = [(piece.token_id, piece.tool_calls) for piece in pieces if piece.tool_calls]
    assert found == [(hermes.tokenizer.encode("</tool_call>", parse_special=True)[0], answer.tool_calls)]
    assert answer.to_dict()["tool_calls"] == answer.tool_calls
    assert "tool_calls=[{'id': '" in repr(answer)
    for copied in (pickle.loads(pickle.dumps(answer)), copy.deepcopy(answer)):
        assert copied == answer and copied.tool_calls == answer.tool_calls
    called = next(piece for piece in pieces if piece.tool_calls)
    assert pickle.loads(pickle.dumps(called)) == called and "tool_calls=" in repr(called)
    assert "tool_calls" not in repr(pieces[0])


def test_ids_follow_from_the_seed_and_the_prompt(hermes: Engine) -> None:
    def id_of(answer: Completion) -> str:
        assert answer.tool_calls
        found = answer.tool_calls[0]["id"]
        assert len(found) == 9 and found.isalnum(), "as Mistral's templates require"
        return str(found)

    first = id_of(hermes.chat(ASKED, tools=[TOOL], seed=1))
    assert first == id_of(hermes.chat(ASKED, tools=[TOOL], seed=1))
    others = [id_of(one) for one in hermes.chat(ASKED, tools=[TOOL], seed=2, n=2)]
    longer = id_of(hermes.chat([{"role": "user", "content": "xx"}], tools=[TOOL], seed=1))
    assert len({first, longer, *others}) == 4


def test_calls_that_are_none_stay_text(hermes: Engine) -> None:
    other = {"type": "function", "function": {"name": "g"}}
    assert hermes.chat(ASKED, tools=[other]).text == "".join(HERMES_SCRIPT)
    cut = hermes.chat(ASKED, tools=[TOOL], max_tokens=6)
    assert (cut.text, cut.tool_calls, cut.finish_reason) == ("".join(HERMES_SCRIPT[:6]), None, "length")
    stopped = hermes.chat(ASKED, tools=[TOOL], stop=["1"])
    assert (stopped.text, stopped.tool_calls) == ("".join(HERMES_SCRIPT[:6]) + '{"b": ', None)
    assert hermes.chat(ASKED, tools=[]).text == "".join(HERMES_SCRIPT)


def test_thoughts_come_before_calls(tmp_path: Path) -> None:
    template = HERMES + "{# <think> </think> #}"
    script = ["<think>", "hm", "</think>", "<tool_call>", NAMED, "}", "</tool_call>"]
    with answering(tmp_path / "thinks.gguf", *script, template=template) as engine:
        answer = engine.chat(ASKED, tools=[TOOL])
        # A comma before the brace: no JSON, so text.
        assert (answer.reasoning, answer.text, answer.tool_calls) == ("hm", "".join(script[3:]), None)
    script[4] = '{"name": "f"'
    with answering(tmp_path / "calls.gguf", *script, template=template) as engine:
        answer = engine.chat(ASKED, tools=[TOOL])
        assert (answer.reasoning, answer.text, calls_of(answer)) == ("hm", "", [{"name": "f", "arguments": {}}])


def test_the_result_of_a_call_goes_back_to_the_model(hermes: Engine) -> None:
    answer = hermes.chat(ASKED, tools=[TOOL])
    assert answer.tool_calls
    history: list[dict[str, Any]] = [
        *ASKED,
        {"role": "assistant", "content": None, "tool_calls": answer.tool_calls},
        {"role": "tool", "tool_call_id": answer.tool_calls[0]["id"], "content": "three"},
    ]
    again = hermes.chat(history, tools=[TOOL])
    prompt = prompt_of(hermes, again)
    assert '<|im_start|>assistant\n<tool_call>{"name": "f", "arguments": {"b": 1}}</tool_call><|im_end|>' in prompt
    assert "<|im_start|>tool\nthree<|im_end|>" in prompt
    assert hermes.count_tokens(history) > hermes.count_tokens(ASKED)
    wrong = copy.deepcopy(history)
    wrong[1]["tool_calls"][0]["function"]["arguments"] = "[]"
    assert "expected a JSON object" in message_of(bitnet.TemplateError, hermes.chat, wrong)
    assert "engine.chat takes any message" in message_of(TypeError, ChatSession, hermes, messages=history)


def test_a_template_without_tools_gets_them_in_the_system_prompt(tmp_path: Path) -> None:
    with answering(tmp_path / "plain.gguf", "4", template=PLAIN) as engine:
        prompt = prompt_of(engine, engine.chat(ASKED, tools=[TOOL]))
        assert "<|im_start|>system\nYou can call functions." in prompt
        assert json.dumps(TOOL["function"]) in prompt
        claim = engine.chat(ASKED, tools=[TOOL]).receipt.to_dict()["claim"]  # type: ignore[union-attr]
        assert claim["system"].startswith("You can call functions."), "the system prompt that the model saw"
        none = prompt_of(engine, engine.chat(ASKED, tools=[TOOL], tool_choice="none"))
        assert none == prompt_of(engine, engine.chat(ASKED))
        history: list[dict[str, Any]] = [
            *ASKED,
            {"role": "assistant", "content": "", "tool_calls": [{"function": CALL}]},
        ]
        history += [{"role": "tool", "content": "3"}]
        prompt = prompt_of(engine, engine.chat(history))
        assert 'assistant\n{"name": "f", "arguments": {"b": 1}}<|im_end|>' in prompt
        assert "user\nResult of the function:\n3<|im_end|>" in prompt


def test_the_choice_of_tools(hermes: Engine) -> None:
    none = hermes.chat(ASKED, tools=[TOOL], tool_choice="none")
    assert (none.tool_calls, none.text) == (None, "".join(HERMES_SCRIPT))
    assert "<tools>" not in prompt_of(hermes, none)
    for choice in (None, "auto"):
        answer = hermes.chat(ASKED, tools=[TOOL], tool_choice=choice, parallel_tool_calls=False)
        assert "<tools>" in prompt_of(hermes, answer) and calls_of(answer) == [CALL]


def test_wrong_arguments_are_named(hermes: Engine) -> None:
    choice: Any
    for wrong, choice in (("no tools", "required"), ("tools has no tools", "f")):
        assert wrong in message_of(ArgumentError, hermes.chat, ASKED, tool_choice=choice)
    for choice in ("g", {"type": "function", "function": {"name": "g"}}):
        message = message_of(ArgumentError, hermes.chat, ASKED, tools=[TOOL], tool_choice=choice)
        assert "tool_choice is 'g', but tools has 'f'" in message
    for choice in (5, {"type": "function"}, {"function": {"name": 5}}):
        assert "tool_choice is" in message_of(TypeError, hermes.chat, ASKED, tools=[TOOL], tool_choice=choice)
    assert "parallel_tool_calls" in message_of(TypeError, hermes.chat, ASKED, tools=[TOOL], parallel_tool_calls="no")
    assert "tools[1] has no name" in message_of(ArgumentError, hermes.chat, ASKED, tools=[TOOL, {"type": "function"}])
    assert "engine.chat" in message_of(TypeError, hermes.generate, "x", tool_choice="auto")


def test_batch_files_have_tools(hermes: Engine, tmp_path: Path) -> None:
    source, target = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"b": 1}'}}
    result = [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "3"}]
    lines: list[dict[str, Any]] = [
        {"messages": ASKED, "tools": [TOOL]},
        {"messages": ASKED, "tools": [TOOL], "tool_choice": "none"},
        {"messages": [*ASKED, *result], "tools": [TOOL], "parallel_tool_calls": True},
        {"messages": [*ASKED, *result]},
        {"messages": ASKED, "tools": [TOOL], "tool_choice": "g"},
        {"messages": ASKED},
    ]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    list(bitnet.batch.run(hermes, source, target, params=SamplingParams(seed=5)))
    answers = [json.loads(line) for line in target.read_text("utf-8").splitlines()]
    assert answers[0]["tool_calls"] == hermes.chat(ASKED, tools=[TOOL], seed=5).tool_calls
    assert answers[2]["tool_calls"] and answers[0]["text"] == answers[2]["text"] == "Well."
    assert all("tool_calls" not in answers[i] for i in (1, 3, 4, 5))
    assert "tool_choice is 'g'" in answers[4]["error"]
    assert len({answer["request"] for answer in answers}) == len(lines)
    for line, wrong in (
        ({"messages": ASKED, "tools": TOOL}, '"tools" is'),
        ({"messages": ASKED, "tool_choice": 5}, '"tool_choice" is 5'),
        ({"messages": ASKED, "tool_choice": {"function": "f"}}, 'expected a function with a "name"'),
        ({"messages": ASKED, "parallel_tool_calls": 1}, '"parallel_tool_calls" is 1, expected true or false'),
        ({"prompt": "x", "tools": [TOOL]}, '"tools" does not change how a prompt is continued'),
        ({"messages": [*ASKED, {"role": "tool", "content": 3}]}, r'messages\[1\]\["content"\] is 3'),
        ({"messages": [*ASKED, {"role": "assistant", "tool_calls": 3}]}, r'messages\[1\]\["tool_calls"\] is 3'),
        ({"messages": [*ASKED, {"role": "assistant", "content": None, "tool_calls": []}]}, "expected a text"),
    ):
        source.write_text(json.dumps(line) + "\n")
        with pytest.raises(ArgumentError, match=wrong):
            list(bitnet.batch.run(hermes, source, tmp_path / "none"))


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("control", [[], ["<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]"]])
@pytest.mark.parametrize("format", ["hermes", "xml", "llama", "mistral", "mistral args", "plain"])
def test_a_call_that_must_be_follows_its_schema(
    tmp_path: Path, format: str, control: list[str], parallel: bool
) -> None:
    """Of a model to which all tokens are equally likely, at temperature 1: every complete answer is calls and nothing
    else, whose arguments are valid."""
    template = {
        "hermes": HERMES,
        "xml": XML,
        "llama": LLAMA,
        "mistral": MISTRAL,
        "mistral args": MISTRAL_ARGS,
        "plain": PLAIN,
    }[format]
    tools = [
        {
            "type": "function",
            "function": {
                "name": name,
                "parameters": {
                    "type": "object",
                    "properties": {
                        "n": {"type": "integer", "minimum": 0, "maximum": 99},
                        "unit": {"enum": ["metre", "foot"]},
                        "exact": {"type": "boolean"},
                    },
                    "required": ["n", "unit"],
                },
            },
        }
        for name in ("f", "measure")
    ]
    words = [*MARKS, "[TOOL_CALLS]", "[ARGS]"]
    path = scripted_model(tmp_path / "m.gguf", template=template, words=words, control=control, context=4096)
    complete = 0
    with Engine(path, n_threads=1) as engine:
        for seed in range(8):
            how: dict[str, Any] = {"temperature": 1.0, "seed": seed, "max_tokens": 600}
            answer = engine.chat(ASKED, tools=tools, tool_choice="required", parallel_tool_calls=parallel, **how)
            assert answer.receipt is not None
            answer.receipt.validate()
            if answer.finish_reason != "stop":
                continue
            complete += 1
            calls = calls_of(answer)
            assert answer.text.strip() == "" and calls, answer.text
            assert parallel or len(calls) == 1
            for call in calls:
                schema = next(tool["function"] for tool in tools if tool["function"]["name"] == call["name"])
                jsonschema.validate(call["arguments"], schema["parameters"])
            assert engine.replay(answer.receipt)
            named = engine.chat(ASKED, tools=tools, tool_choice="measure", **how)
            if named.finish_reason == "stop":
                assert [call["name"] for call in calls_of(named)] == ["measure"]
        for other in ({"json_schema": True}, {"choice": ["a"]}, {"grammar": "start: /a/"}):
            with pytest.raises(ArgumentError, match="tool_choice asks for a call, and"):
                engine.chat(ASKED, tools=tools, tool_choice="required", **other)
    assert complete


@pytest.mark.parametrize("format", ["hermes", "xml", "llama", "plain"])
def test_calls_or_json_where_the_model_decides(tmp_path: Path, format: str) -> None:
    """With tools and a schema every complete answer is calls or JSON of the schema."""
    template = {"hermes": HERMES, "xml": XML, "llama": LLAMA, "plain": PLAIN}[format]
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    found = {"calls": 0, "json": 0}
    path = scripted_model(tmp_path / "m.gguf", template=template, words=MARKS, context=4096)
    with Engine(path, n_threads=1) as engine:
        for seed in range(40):
            how: dict[str, Any] = {"temperature": 1.0, "seed": seed, "max_tokens": 200}
            answer = engine.chat(ASKED, tools=[TOOL], json_schema=schema, **how)
            if answer.finish_reason != "stop":
                continue
            if answer.tool_calls:
                found["calls"] += 1
                assert {call["name"] for call in calls_of(answer)} == {"f"}
                assert answer.text.strip() == "" and answer.parsed is None
            else:
                found["json"] += 1
                assert answer.parsed in ({"n": 1}, {"n": 2})
            assert answer.receipt is not None and engine.replay(answer.receipt)
        with pytest.raises(ArgumentError, match="json_schema: it is not JSON"):
            engine.chat(ASKED, tools=[TOOL], json_schema="{")
    assert all(found.values()), found
