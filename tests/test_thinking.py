"""Thinking models: thoughts apart from the answer, on and off, in the history, and what they leave of the prefix."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bitnet
from bitnet import ArgumentError, ChatSession, ChatTurn, Completion, Engine, SamplingParams, Template
from conftest import message_of
from scripted_model import TOKENS, scripted_model
from text_model import CONTROL

HISTORY = """\
{%- set ns = namespace(last=messages|length - 1, found=false) %}
{%- for message in messages[::-1] %}
    {%- if not ns.found and message.role == 'user' %}
        {%- set ns.found = true %}
        {%- set ns.last = messages|length - 1 - loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'assistant' %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last and (reasoning or loop.last) %}
            {{- '<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- content }}
        {%- endif %}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
"""
"""The history of Qwen3's template: thoughts stay after the user's last message only."""
CLOSED = (
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
)
QWEN3 = HISTORY + CLOSED + "{%- endif %}"
"""The model writes <think> itself."""
QWEN35 = HISTORY + CLOSED.replace("{%- endif %}", "{%- else %}{{- '<think>\\n' }}{%- endif %}") + "{%- endif %}"
"""The prompt ends with <think>."""
PLAIN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""No thoughts."""

ASKED = [{"role": "user", "content": "x"}]
END = "<|im_end|>"
WHOLE = "<think>hm?</think>\t42"
"""What the model says after the newline of a generation prompt. In a script each token occurs once: a tab stands for
the newlines that real models write here."""
SCRIPT = ["\n", "<think>", *"hm?", "</think>", *"\t42", END]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("thinking")


@pytest.fixture(scope="module")
def qwen3(folder: Path) -> Iterator[Engine]:
    with Engine(scripted_model(folder / "qwen3.gguf", SCRIPT, template=QWEN3)) as engine:
        yield engine


@pytest.fixture(scope="module")
def qwen35(folder: Path) -> Iterator[Engine]:
    """After the newline of `<think>\\n` come thoughts."""
    script = ["\n", *"hm?", "</think>", *"\t42", END]
    with Engine(scripted_model(folder / "qwen35.gguf", script, template=QWEN35)) as engine:
        yield engine


def parts(answer: Any) -> tuple[str | None, str]:
    return answer.reasoning, answer.text


def prompt_of(engine: Engine, answer: Completion) -> str:
    assert answer.receipt
    return engine.decode(answer.receipt.to_dict()["claim"]["prompt_ids"], skip_special_tokens=False)


def test_every_form_of_chat_gives_the_thoughts_apart(qwen3: Engine) -> None:
    expected = ("hm?", "\t42")
    answer = qwen3.chat(ASKED, logprobs=0)
    assert parts(answer) == expected
    assert str(answer) == answer == "\t42"
    assert qwen3.decode(answer.token_ids) == WHOLE
    assert answer.logprobs and [one.id for one in answer.logprobs] == answer.token_ids
    assert answer.completion_tokens == len(answer.token_ids) + 1
    assert [parts(each) for each in qwen3.chat([ASKED, ASKED])] == [expected] * 2
    assert [parts(each) for each in qwen3.chat(ASKED, n=2)] == [expected] * 2
    assert parts(asyncio.run(qwen3.achat(ASKED))) == expected
    chat = ChatSession(qwen3)
    assert parts(chat.send("x")) == expected
    assert parts(asyncio.run(chat.asend("x"))) == expected
    for stream in (qwen3.chat_stream(ASKED), ChatSession(qwen3).stream("x")):
        pieces = list(stream)
        assert parts(stream) == expected
        assert "".join(map(str, pieces)) == "".join(piece.text for piece in pieces) == "\t42"
        assert "".join(piece.reasoning for piece in pieces) == "hm?"
        assert (
            [piece.token_id for piece in pieces if piece.token_id is not None] == stream.token_ids == answer.token_ids
        )
        assert not any(piece.text and piece.reasoning for piece in pieces)
    assert "reasoning='hm?'" in repr(answer)
    assert answer.to_dict()["reasoning"] == "hm?"
    for same in (pickle.loads(pickle.dumps(answer)), copy.deepcopy(answer)):
        assert parts(same) == expected
        assert same == answer
    piece = next(each for each in pieces if each.reasoning)
    assert pickle.loads(pickle.dumps(piece)) == piece
    assert "reasoning='h'" in repr(piece)


def test_a_raw_continuation_is_as_it_was(qwen3: Engine) -> None:
    with pytest.warns(bitnet.BitnetWarning, match="chat template"):
        answer = qwen3.generate("\n")
    assert parts(answer) == (None, WHOLE)
    stream = qwen3.stream([10])
    assert "".join(map(str, stream)) == WHOLE
    assert stream.reasoning is None


def test_a_receipt_replays_with_its_thoughts(qwen3: Engine) -> None:
    answer = qwen3.chat(ASKED, stop=["2"])
    assert parts(answer) == ("hm?", "\t4")
    assert answer.receipt and qwen3.replay(answer.receipt)
    stopped = qwen3.chat(ASKED, stop=["?"])
    assert (parts(stopped), stopped.finish_reason) == (("hm", ""), "stop")
    assert stopped.receipt and qwen3.replay(stopped.receipt)


def test_thoughts_that_do_not_end_are_all_there_is(qwen3: Engine) -> None:
    answer = qwen3.chat(ASKED, max_tokens=3)
    assert (parts(answer), answer.finish_reason) == (("hm", ""), "length")
    assert parts(qwen3.chat(ASKED, max_tokens=1)) == (None, "")
    chat = ChatSession(qwen3)
    stream = chat.stream("x")
    assert [next(stream).reasoning for _ in range(3)] == ["", "h", "m"]
    stream.cancel()
    assert parts(stream) == ("hm", "")
    assert chat.history[1] == ChatTurn("assistant", "", cancelled=True, reasoning="hm")


def test_the_prompt_begins_the_thoughts(qwen35: Engine) -> None:
    answer = qwen35.chat(ASKED)
    assert parts(answer) == ("hm?", "\t42")
    assert qwen35.decode(answer.token_ids) == "hm?</think>\t42"
    # The empty thoughts that keep the model from thinking end with a newline, too, after which it goes on the same.
    off = qwen35.chat(ASKED, enable_thinking=False)
    assert prompt_of(qwen35, off).endswith("<think>\n\n</think>\n\n")
    assert parts(off) == (None, "hm?</think>\t42"), "thoughts are over, so a mark in the answer is text"


def test_thinking_is_switched_by_a_keyword(qwen3: Engine) -> None:
    end = "<|im_start|>assistant\n"
    off = end + "<think>\n\n</think>\n\n"
    for forms in ({}, {"enable_thinking": None}, {"enable_thinking": True}):
        assert prompt_of(qwen3, qwen3.chat(ASKED, **forms)).endswith(end)
    assert prompt_of(qwen3, qwen3.chat(ASKED, enable_thinking=False)).endswith(off)
    assert prompt_of(qwen3, asyncio.run(qwen3.achat(ASKED, enable_thinking=False))).endswith(off)
    assert prompt_of(qwen3, qwen3.chat(ASKED, chat_template_kwargs={"enable_thinking": False})).endswith(off)
    stream = qwen3.chat_stream(ASKED, enable_thinking=False, max_tokens=1)
    list(stream)
    chat = ChatSession(qwen3, enable_thinking=False)
    assert chat.enable_thinking is False
    assert ChatSession(qwen3).enable_thinking is None
    assert prompt_of(qwen3, chat.send("x")).endswith(off)
    assert prompt_of(qwen3, chat.send("x", enable_thinking=True)).endswith(end)
    assert prompt_of(qwen3, asyncio.run(chat.asend("x", enable_thinking=True))).endswith(end)
    list(chat.stream("x", enable_thinking=True))
    assert [receipt.prompt_tokens for receipt in chat.receipts]
    chat.clear()
    assert chat.fork().enable_thinking is False
    assert ChatSession.from_json(qwen3, chat.to_json()).enable_thinking is False


def test_a_template_that_cannot_switch_is_an_error(qwen3: Engine) -> None:
    plain = Template.from_jinja(PLAIN)
    for call in (
        lambda: qwen3.chat(ASKED, template=plain, enable_thinking=False),
        lambda: qwen3.chat_stream(ASKED, template=plain, enable_thinking=True),
        lambda: asyncio.run(qwen3.achat(ASKED, template=plain, enable_thinking=True)),
        lambda: ChatSession(qwen3, template=plain, enable_thinking=True),
        lambda: ChatSession(qwen3, template=plain).send("x", enable_thinking=True),
    ):
        assert "the chat template does not read this variable" in message_of(ArgumentError, call)
    other = Template.from_jinja(PLAIN + "{{ thinking }}{{ enable_thinking_more }}")
    message = message_of(ArgumentError, qwen3.chat, ASKED, template=other, enable_thinking=True)
    assert 'it reads the variable thinking, which chat_template_kwargs={"thinking": ...} sets' in message
    twice = {"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": True}}
    assert "give it once" in message_of(TypeError, qwen3.chat, ASKED, **twice)
    assert "enable_thinking" in message_of(TypeError, qwen3.chat, ASKED, enable_thinking="yes")
    for keyword in ("enable_thinking", "thinking", "think"):
        assert "with enable_thinking=" in message_of(TypeError, qwen3.generate, [1], **{keyword: True})


def test_a_template_without_thoughts_changes_nothing(qwen3: Engine) -> None:
    plain = Template.from_jinja(PLAIN)
    answer = qwen3.chat(ASKED, template=plain)
    assert parts(answer) == (None, WHOLE)
    assert "reasoning" not in repr(answer)
    chat = ChatSession(qwen3, template=plain)
    assert parts(chat.send("x")) == (None, WHOLE)
    assert chat.history[1] == ChatTurn("assistant", WHOLE)
    assert "reasoning" not in chat.to_json()
    assert "thinking" not in json.dumps({**json.loads(chat.to_json()), "template": None, "turns": None})


def test_marks_that_are_control_tokens_count(folder: Path) -> None:
    path = scripted_model(folder / "control.gguf", SCRIPT, template=QWEN3, control=["<think>", "</think>"])
    with Engine(path) as engine:
        answer = engine.chat(ASKED)
        assert parts(answer) == ("hm?", "\t42")
        assert TOKENS.index("<think>") in answer.token_ids
        assert answer.receipt and engine.replay(answer.receipt)


def test_marks_may_be_several_tokens(folder: Path) -> None:
    """Here each is made of single bytes."""
    script = ["\n", *"ab", "<", "/", "t", "h", "i", "n", "k", ">", *"42", END]
    with Engine(scripted_model(folder / "bytes.gguf", script, template=QWEN35)) as engine:
        stream = engine.chat_stream(ASKED)
        pieces = [(piece.reasoning, piece.text) for piece in stream]
        assert parts(stream) == ("ab", "42")
        assert [both for both in pieces if both != ("", "")] == [("a", ""), ("b", ""), ("", "4"), ("", "2")]


def test_an_end_without_a_beginning_ends_thoughts(folder: Path) -> None:
    """As Qwen's templates read it, though a stream has shown the text before it by then."""
    script = ["\n", *"ab", "</think>", *"42", END]
    with Engine(scripted_model(folder / "lone.gguf", script, template=QWEN3)) as engine:
        assert parts(engine.chat(ASKED)) == ("ab", "42")
        stream = engine.chat_stream(ASKED)
        assert [next(stream).text for _ in range(2)] == ["a", "b"]
        assert parts(stream) == (None, "ab")
        next(stream)
        assert parts(stream) == ("ab", "")
        list(stream)
        assert parts(stream) == ("ab", "42")


def test_newlines_before_an_end_without_a_beginning_are_no_thoughts(folder: Path) -> None:
    """They were shown as the answer; nothing of them is left."""
    template = "{# </think> #}" + PLAIN.replace("assistant\n", "assistant:")
    for name, script in (
        ("bytes", [":", "\n", *"</", *"think", ">", *"42", END]),
        ("token", [":", "\n", "</think>", *"42", END]),
    ):
        with Engine(scripted_model(folder / f"newline-{name}.gguf", script, template=template)) as engine:
            assert parts(engine.chat(ASKED)) == (None, "42")
            chat = ChatSession(engine)
            assert parts(chat.send("x")) == (None, "42")
            stream = chat.stream("x")
            assert (list(stream)[-1].finish_reason, parts(stream)) == ("stop", (None, "42"))


def test_templates_show_the_thoughts_that_are_answered_with(qwen3: Engine) -> None:
    """Also under the shorter name, whoever renders."""
    turns = [*ASKED, {"role": "assistant", "content": "y", "reasoning": "q"}]
    longer = [*ASKED, {"role": "assistant", "content": "y", "reasoning_content": "q"}]
    assert "<think>\nq\n</think>" in qwen3.template.render(turns)
    assert qwen3.template.render(turns) == qwen3.template.render(longer)
    with pytest.raises(TypeError, match=r"messages\[1\]\['reasoning'\] is no text"):
        qwen3.chat([*ASKED, {"role": "assistant", "content": "y", "reasoning": 5}, *ASKED])


def test_what_a_user_writes_about_marks_is_text(qwen35: Engine, qwen3: Engine) -> None:
    asked = [{"role": "user", "content": "What does <think> mean?"}]
    assert parts(qwen3.chat(asked, enable_thinking=False)) == ("hm?", "\t42")
    assert parts(qwen35.chat([{"role": "user", "content": "and </think>?"}])) == ("hm?", "\t42")


def test_a_message_that_is_continued_may_have_begun_thoughts(folder: Path) -> None:
    path = scripted_model(folder / "go.gguf", [*"ab", "</think>", *"42", END], template=PLAIN + "{# </think> #}")
    with Engine(path) as engine:

        def go_on(begun: str) -> tuple[str | None, str]:
            messages = [*ASKED, {"role": "assistant", "content": begun}]
            return parts(engine.chat(messages, continue_final_message=True))

        assert go_on("<think>\na") == ("b", "42")
        assert go_on("<think>\nx</think>a") == (None, "b</think>42")


def test_the_template_decides_which_thoughts_stay(qwen3: Engine) -> None:
    chat = ChatSession(qwen3)
    chat.send("one")
    second = chat.send("two")
    assert chat.history[1] == ChatTurn("assistant", "\t42", reasoning="hm?")
    assert "hm?" not in prompt_of(qwen3, second)
    assert "<|im_start|>assistant\n\t42<|im_end|>" in prompt_of(qwen3, second)
    rendered = chat.template.render_chat([*chat.history[:2], ChatTurn("user", "two")])
    assert prompt_of(qwen3, second) == CONTROL[0] + rendered
    tool = {"role": "tool", "content": "ok"}
    for key in ("reasoning_content", "reasoning"):
        thought = {"role": "assistant", "content": "\t42", key: "hm?"}
        kept = qwen3.chat([*ASKED, thought, tool])
        assert "<think>\nhm?\n</think>\n\n\t42<|im_end|>" in prompt_of(qwen3, kept)
        assert "hm?" not in prompt_of(qwen3, qwen3.chat([*ASKED, thought, *ASKED]))
        begun = ChatSession(qwen3, messages=[*ASKED, thought])
        assert begun.history[1] == ChatTurn("assistant", "\t42", reasoning="hm?")
    wrong = [*ASKED, {"role": "assistant", "content": "4", "reasoning": 5}]
    assert "messages[1]['reasoning']" in message_of(TypeError, ChatSession, qwen3, messages=wrong)
    wrong = [{"role": "user", "content": "4", "reasoning": "x"}, {"role": "assistant", "content": "4"}]
    assert "the key 'reasoning'" in message_of(TypeError, ChatSession, qwen3, messages=wrong)


@pytest.mark.parametrize("model", ["qwen3", "qwen35"])
def test_everything_before_the_first_answer_is_reused(model: str, request: pytest.FixtureRequest) -> None:
    engine: Engine = request.getfixturevalue(model)
    header = "<|im_start|>assistant\n"
    chat = ChatSession(engine, "S" * 40)
    first = chat.send("one")
    before = prompt_of(engine, first)
    before = before[: before.rindex(header) + len(header)]
    second = chat.send("two")
    assert second.cached_tokens >= len(engine.encode(before, parse_special=True)) > 40
    assert second.token_ids == first.token_ids
    assert chat.receipts[1].cached_tokens == second.cached_tokens


def test_thoughts_that_stay_are_reused(folder: Path) -> None:
    """A call of a tool: the thoughts of the same answer stay in the prompt, so nothing of it is computed again."""
    thoughtful = QWEN3.replace("'<think>\\n' +", "'<think>' +").replace("'\\n</think>\\n\\n' +", "'</think>' +")
    script = ["\n", "<think>", *"hm?", "</think>", *"42", END]
    with Engine(scripted_model(folder / "tools.gguf", script, template=thoughtful)) as engine:
        first = engine.chat(ASKED)
        answer = {"role": "assistant", "content": first.text, "reasoning_content": first.reasoning}
        second = engine.chat([*ASKED, answer, {"role": "tool", "content": "ok"}])
        assert second.cached_tokens == first.prompt_tokens + len(first.token_ids)


def test_a_saved_conversation_keeps_its_thoughts(qwen3: Engine, tmp_path: Path) -> None:
    chat = ChatSession(qwen3, enable_thinking=True)
    chat.send("one")
    loaded = ChatSession.load(qwen3, chat.save(tmp_path / "chat", cache=True))
    assert (loaded.history, loaded.enable_thinking) == (chat.history, True)
    assert loaded.history[1].reasoning == "hm?"
    assert loaded.send("two").cached_tokens == chat.send("two").cached_tokens > 0
    assert pickle.loads(pickle.dumps(chat.history[1])) == chat.history[1]
    document = json.loads(chat.to_json())
    assert document["turns"][1] == {"role": "assistant", "content": "\t42", "reasoning": "hm?"}


def test_a_turn_with_thoughts() -> None:
    turn = ChatTurn("assistant", "4", reasoning="hm")
    assert repr(turn) == "ChatTurn('assistant', '4', reasoning='hm')"
    assert turn == "4"
    assert turn != ChatTurn("assistant", "4")
    assert ChatTurn("assistant", "4").reasoning is None
    assert Template.from_jinja("{{ messages[0] }}").render_chat([turn]).count("reasoning_content") == 1


def test_a_batch_has_the_thoughts_in_a_field(qwen3: Engine, tmp_path: Path) -> None:
    source = tmp_path / "requests.jsonl"
    source.write_text(json.dumps({"messages": ASKED}) + "\n" + json.dumps({"prompt": [10]}) + "\n")

    def answers(name: str, **how: Any) -> list[dict[str, Any]]:
        list(bitnet.batch.run(qwen3, source, tmp_path / name, **how))
        return [json.loads(line) for line in (tmp_path / name).read_text("utf-8").splitlines()]

    chat, raw = answers("on")
    assert (chat["reasoning"], chat["text"]) == ("hm?", "\t42")
    assert ("reasoning" in raw, raw["text"]) == (False, WHOLE)
    off = answers("off", enable_thinking=False)[0]
    assert off["prompt_tokens"] > chat["prompt_tokens"]
    assert off["request"] != chat["request"]


def test_requests_of_a_batch_may_have_thoughts_and_switch_them(qwen3: Engine, tmp_path: Path) -> None:
    source, target = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
    turn = {"role": "assistant", "content": "y", "reasoning": "q"}
    longer = {"role": "assistant", "content": "y", "reasoning_content": "q"}
    lines = [{"messages": [*ASKED, one, *ASKED]} for one in (turn, longer)]
    lines += [{"messages": ASKED, "enable_thinking": switch} for switch in (False, None, True)]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    list(bitnet.batch.run(qwen3, source, target))
    first, second, off, default, on = (json.loads(line) for line in target.read_text("utf-8").splitlines())
    assert first["text"] == second["text"] == "\t42"
    assert off["prompt_tokens"] > default["prompt_tokens"] == on["prompt_tokens"]
    assert len({off["request"], default["request"], on["request"]}) == 3
    for line, wrong in (
        ({"messages": ASKED, "enable_thinking": 1}, '"enable_thinking" is 1, expected true, false or null'),
        ({"prompt": "x", "enable_thinking": True}, "does not change how a prompt is continued"),
        (
            {"messages": [*ASKED, turn | {"reasoning": 5}, *ASKED]},
            r'messages\[1\]\["reasoning"\] is 5, expected a text',
        ),
        ({"messages": [ASKED[0] | {"reasoning": "q"}]}, 'expected an object with "role" and "content" only'),
    ):
        source.write_text(json.dumps(line) + "\n")
        with pytest.raises(bitnet.ArgumentError, match=wrong):
            list(bitnet.batch.run(qwen3, source, tmp_path / "none"))


def command(*arguments: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    whole = [sys.executable, "-m", "bitnet", *map(str, arguments)]
    return subprocess.run(whole, input=text, capture_output=True, text=True, encoding="utf-8")


def test_a_pipe_gets_the_answer_alone(qwen3: Engine) -> None:
    assert command("run", qwen3.path, "Say it.").stdout == "\t42\n"
    for flag in ("--thinking", "--think", "--enable-thinking"):
        assert command("run", qwen3.path, "Say it.", flag).stdout == "\t42\n"
    assert command("chat", qwen3.path, text="x\n").stdout == "\t42\n"
    done = command("run", qwen3.path, "Say it.", "--max-tokens", "3")
    assert done.stdout == "\n"
    assert "the answer ended inside its thoughts; allow more tokens with -n" in done.stderr


def test_the_command_line_switches_thinking(qwen3: Engine, tmp_path: Path) -> None:
    for flags, text in (("--no-thinking",), ""), (("--no-think",), ""), ((), "/thinking off\n"), ((), "/set nothink\n"):
        done = command("chat", qwen3.path, *flags, "--receipt-dir", tmp_path, text=text + "x\n/thinking\n")
        claim = json.loads((tmp_path / "inference.json").read_text("utf-8"))["claim"]
        prompt = qwen3.decode(claim["prompt_ids"], skip_special_tokens=False)
        assert prompt.endswith("<think>\n\n</think>\n\n"), done.stderr
        assert "thinking: off" in done.stderr
    hidden = command("chat", qwen3.path, text="/thinking hide\n/thinking on\n/thinking x\n")
    assert "thinking: as the template decides; thoughts are hidden" in hidden.stderr
    assert "thinking: on; thoughts are hidden" in hidden.stderr
    assert "/thinking takes on, off, show or hide" in hidden.stderr
    refused = command("run", qwen3.path, "Say it.", "--template", "raw", "--no-thinking")
    assert refused.returncode == 2
    assert "'enable_thinking', so --thinking and --no-thinking cannot turn thinking on or off" in refused.stderr
    assert (
        "--thinking does not change how a text is continued"
        in command("run", qwen3.path, "-p", "x", "--no-thinking").stderr
    )


def test_sampling_parameters_stay_what_they_were(qwen3: Engine) -> None:
    """`params` and `enable_thinking` go together."""
    answer = qwen3.chat(ASKED, SamplingParams(max_tokens=2), enable_thinking=True)
    assert (answer.completion_tokens, answer.reasoning) == (2, "h")
