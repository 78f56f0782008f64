"""Chat templates from Python, and the command `bitnet template`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bitnet
import gguf
from bitnet import ArgumentError, ChatTurn, Template, TemplateError
from conftest import ROOT

USER = [{"role": "user", "content": "Hi"}]


def shown(value: Any) -> str:
    """How a template prints a value in a message."""
    return Template.from_jinja("{{ messages[0].x }}").render([{"x": value}])


def test_turns_and_dicts_render_alike() -> None:
    template = Template.named("bitnet")
    turns = [ChatTurn("user", "Hi"), ChatTurn("assistant", "Yes?", cancelled=True), ChatTurn("user", "Bye")]
    dicts = [{"role": turn.role, "content": turn.text} for turn in turns]
    expected = "System: S<|eot_id|>User: Hi<|eot_id|>Assistant: Yes?<|eot_id|>User: Bye<|eot_id|>Assistant: "
    assert template.render_chat(turns, system="S") == expected
    assert template.render([ChatTurn("system", "S"), *turns]) == expected
    assert template.render([{"role": "system", "content": "S"}, *dicts]) == expected
    assert template.render(USER, add_generation_prompt=False) == "User: Hi<|eot_id|>"
    assert template.apply("Hi", "S") == template.render_chat([ChatTurn("user", "Hi")], "S")


OWN = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}>{% endif %}"
)
ALL = [*(Template.named(name, "<s>", "</s>") for name in ("raw", "instruct", "llama3-chat", "bitnet"))]
ALL.append(Template.from_jinja(OWN, "<s>"))


@pytest.mark.parametrize("template", ALL, ids=lambda template: template.name)
@pytest.mark.parametrize("system", [None, "", "Be brief.\n"])
def test_a_single_question_is_a_conversation_of_one_turn(template: Template, system: str | None) -> None:
    """Behaviours 12 and 13: and both are `render` of the same messages."""
    for text in ("Hi", " {{ x }} <|eot_id|>\n", "é🙂"):
        one = template.apply(text, system)
        assert one == template.render_chat([ChatTurn("user", text)], system)
        messages = [] if system is None else [{"role": "system", "content": system}]
        assert one == template.render([*messages, {"role": "user", "content": text}])
        assert text.strip() in one


@pytest.mark.parametrize(
    ("template", "expected"),
    list(
        zip(
            ALL,
            [
                "Be brief. Hi Yes? Bye ",
                "Be brief.\n\n### Instruction:\nHi\n\n### Response:\nYes?\n\n### Instruction:\nBye\n\n### Response:\n",
                "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\nYes?<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\n",
                "System: Be brief.<|eot_id|>User: Hi<|eot_id|>Assistant: Yes?<|eot_id|>User: Bye<|eot_id|>Assistant: ",
                "<s>[system] Be brief. \n[user] Hi \n[assistant] Yes? \n[user] Bye \n>",
            ],
            strict=True,
        )
    ),
    ids=lambda value: value.name if isinstance(value, Template) else "",
)
def test_templates_render_to_the_byte(template: Template, expected: str, tmp_path: Path) -> None:
    """Behaviour 14, from Python and from the command line."""
    turns = [("system", "Be brief. "), ("user", "Hi "), ("assistant", "Yes? "), ("user", "Bye ")]
    assert template.render([ChatTurn(*turn) for turn in turns]) == expected
    source, messages = tmp_path / "own.jinja", tmp_path / "messages.json"
    source.write_bytes(template.source.replace("bos_token", "'<s>'").encode())
    messages.write_text(json.dumps([{"role": role, "content": text} for role, text in turns]), "utf-8")
    assert run(source, "--messages", messages).stdout == expected


@pytest.mark.parametrize(
    ("jinja", "name", "expected"),
    [
        (OWN, "meta-llama/Meta-Llama-3-8B-Instruct", ("jinja", "gguf")),
        (None, "meta-llama/Meta-Llama-3-8B-Instruct", ("llama3-chat", "tokenizer")),
        (None, "llama-2-13b", ("raw", "fallback")),
        (None, "llama-3000", ("raw", "fallback")),
        (None, "Llama-3/", ("raw", "fallback")),
        (None, "meta-llama-3/some-model", ("raw", "fallback")),
        (None, "bitnet-b1.58-2B-4T/other", ("raw", "fallback")),
        (" ", None, ("raw", "fallback")),
        (None, None, ("raw", "fallback")),
    ],
)
def test_a_template_is_detected_with_its_source(jinja: str | None, name: str | None, expected: tuple[str, str]) -> None:
    """Behaviour 15: the template of the file comes before its name, and the name of its folder decides nothing."""
    template = Template.detect(jinja=jinja, tokenizer_name=name)
    assert (template.name, template.origin) == expected
    assert (template.warning is None) == (template.origin != "fallback")


@pytest.mark.parametrize(
    "value",
    [
        {"z": 1, "a": [1, [], {"b": None}], "": True},
        [2**64 - 1, -(2**63), 0, True],
        [1e16, 1e-5, 0.1, 1e-7, 1e22, -0.0],
        ["it's", '"both" \'', "\x00\u200b\n", "é日🙂"],
    ],
)
def test_values_print_as_python_prints_them(value: Any) -> None:
    assert shown(value) == str(value)


def test_tojson_keeps_order_and_integers() -> None:
    value = {"b": 10**19, "a": {"z": [1.0, None, True], "y": "<é>"}}
    template = Template.from_jinja("{{ x | tojson }}{{ x | tojson(indent=2) }}")
    expected = json.dumps(value, ensure_ascii=False) + json.dumps(value, ensure_ascii=False, indent=2)
    assert template.render(USER, x=value) == expected


def nested() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda t: t.render("Hi"), TypeError, "messages must be a list of messages, found str"),
        (lambda t: t.render([{"x": [0, {"y": object()}]}]), TypeError, "messages[0]['x'][1]['y'] is of type object"),
        (lambda t: t.render([{"x": b"bytes"}]), TypeError, "bytes"),
        (lambda t: t.render(USER, tools=[print]), TypeError, "tools[0] is a function; give its JSON schema"),
        (lambda t: t.render(USER, x={1, 2}), TypeError, "x is of type set"),
        (lambda t: t.render([{"x": {5: 1}}]), TypeError, "messages[0]['x'][5]: the key is of type int"),
        (lambda t: t.render([{"x": 2**64}]), TemplateError, "messages[0]['x'] is an int of more than 64 bits"),
        (lambda t: t.render([{"x": float("nan")}]), TemplateError, "messages[0]['x'] is nan"),
        (lambda t: t.render([{"x": "\ud800"}]), ArgumentError, "messages[0]['x'] holds a lone surrogate"),
        (lambda t: t.render([{"x": nested()}]), TemplateError, "deep"),
        (lambda t: t.render([]), TemplateError, "empty"),
        (lambda t: ChatTurn("bot", "x"), bitnet.ArgumentError, "system, user, assistant"),
        (lambda t: ChatTurn("user", "\udc00"), ArgumentError, "lone surrogate"),
        (lambda t: Template.named("llama9"), TemplateError, "llama3-chat"),
        (lambda t: Template.from_jinja("\n{{ raise_exception('no!') }}").render(USER), TemplateError, "line 2: no!"),
        (lambda t: t.at("noon"), TemplateError, "time"),
    ],
)
def test_invalid_values_are_refused_with_their_place(
    call: Callable[[Template], Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        call(Template.named("raw"))
    assert words in str(caught.value)


def test_turns_compare_by_value() -> None:
    turn = ChatTurn("user", "it's")
    assert turn == ChatTurn("user", "it's")
    assert len({turn, ChatTurn("user", "it's"), ChatTurn("user", "it's", cancelled=True)}) == 2
    assert repr(turn) == "ChatTurn('user', \"it's\")"
    with pytest.raises(AttributeError):
        turn.text = "x"  # type: ignore[misc]


def test_a_template_has_attributes() -> None:
    template = Template.named("llama3-chat", "<s>", "</s>")
    assert template == Template.from_jinja(template.source, bos_token="<s>", eos_token="</s>")
    assert template != Template.named("llama3-chat")
    assert (template.name, template.origin, template.warning) == ("llama3-chat", "argument", None)
    assert (template.bos_token, template.eos_token) == ("<s>", "</s>")
    assert template.stop_sequences == ["<|eot_id|>", "</s>"]
    assert not template.add_bos
    assert Template.named("bitnet", "<s>").add_bos
    assert not Template.named("bitnet").add_bos
    assert repr(template) == "<Template llama3-chat from argument>"
    detected = Template.detect(tokenizer_name="meta-llama/Meta-Llama-3-8B-Instruct")
    assert (detected.name, detected.origin) == ("llama3-chat", "tokenizer")
    fallback = Template.detect(tokenizer_name="llama-2-13b")
    assert (fallback.name, fallback.origin) == ("raw", "fallback")
    assert "choose a template" in str(fallback.warning)


def test_the_time_can_be_fixed() -> None:
    template = Template.from_jinja("{{ strftime_now('%d %b %Y') }}").at("2026-07-04T12:00:00")
    assert template.apply("x") == "04 Jul 2026"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file without tensors, with a chat template."""
    path = tmp_path_factory.mktemp("template") / "model.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_token_list(["<s>", "</s>", "x"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(
        "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def run(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bitnet", "template", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True)


def test_a_template_is_read_from_a_model_file(model: Path) -> None:
    template = Template.from_model(model)
    assert (template.name, template.origin, template.bos_token, template.eos_token) == ("jinja", "gguf", "<s>", "</s>")
    assert template.apply("Hi") == "<s>user: Hi</s>"
    with pytest.raises(bitnet.ModelNotFoundError):
        Template.from_model("no-such.gguf")


def test_the_command_prints_prompts(model: Path, tmp_path: Path) -> None:
    assert run(model, "--user", "Hi", "--system", "S").stdout == "<s>system: S</s>user: Hi</s>"
    source = tmp_path / "own.jinja"
    source.write_text("{{ messages | length }}{{ eos_token }}{{ ' go' if add_generation_prompt }}", "utf-8")
    assert run(source, "--user", "Hi").stdout == "1 go"
    assert run(model, "--user", "Hi", "--template", source, "--no-generation-prompt").stdout == "1</s>"
    assert run(model, "--messages", "-", "--template", "raw", stdin=json.dumps(USER)).stdout == "Hi"
    messages = tmp_path / "messages.json"
    messages.write_text(json.dumps(USER), "utf-8")
    assert run(model, "--messages", messages, "--user", "Bye").stdout == "<s>user: Hi</s>user: Bye</s>"
    name, text = run(model, "--source").stdout.split("\n", 1)
    assert name == "jinja, from gguf"
    assert text == Template.from_model(model).source + "\n"


def test_the_command_reports_errors(model: Path, tmp_path: Path) -> None:
    warned = run(ROOT / "tests" / "fixtures" / "relu2-i2s.gguf", "--user", "Hi")
    assert (warned.returncode, warned.stdout) == (0, "Hi")
    assert "warning" in warned.stderr
    binary = tmp_path / "x.jinja"
    binary.write_bytes(b"\xff\xfe")
    for arguments, stdin, word in [
        ((model,), "", "--user"),
        ((model, "--user", "x", "--template", "nosuch"), "", "nosuch"),
        ((model, "--messages", "-"), "{", "not a JSON list"),
        ((model, "--messages", "-"), "3", "not a JSON list"),
        ((binary, "--user", "x"), "", "UTF-8"),
        (("no-such.jinja", "--user", "x"), "", "no-such.jinja"),
    ]:
        done = run(*arguments, stdin=stdin)
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1
        assert word in done.stderr
