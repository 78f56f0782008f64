"""Pictures of prompts: who wrote what, and which tokens it became. Behaviours 12, 16 and 17."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bitnet import ChatSession, ChatTurn, Template
from text_model import CONTROL, EOT, TOKENS

TALK: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " hello <|eot_id|> é🙂\n"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "hello"},
]


def parts(spans: list[Any]) -> list[tuple[str | None, str]]:
    return [(span.role, span.text) for span in spans]


@pytest.mark.parametrize("name", ["raw", "instruct", "llama3-chat", "bitnet"])
def test_spans_are_the_prompt(name: str) -> None:
    """Behaviour 12: in stretches, what `render` gives; each message's text once, by its number."""
    template = Template.named(name, "<s>")
    spans = template.spans(TALK)
    prompt = template.render(TALK).encode()
    assert b"".join(span.text.encode() for span in spans) == prompt
    assert [(span.start, span.end) for span in spans] == [
        (start, start + len(span.text.encode()))
        for start, span in zip([0, *(span.end for span in spans)], spans, strict=False)
    ]
    own = [span for span in spans if span.message is not None]
    assert [span.message for span in own] == [0, 1, 2, 3]
    for span in own:
        given = TALK[span.message]
        assert (span.role, span.rewritten) == (given["role"], False)
        assert span.text == (given["content"] if name == "raw" else given["content"].strip())


def test_white_space_is_told_apart() -> None:
    """The template's own line break before a text that begins with one."""
    talk = [{"role": "user", "content": "\nx\n"}]
    assert parts(Template.from_jinja("\n{{ messages[0].content }}\n").spans(talk)) == [
        (None, "\n"),
        ("user", "\nx\n"),
    ]
    trimmed = Template.from_jinja("A:\n{{ messages[0].content | trim }}.").spans(talk)
    assert parts(trimmed) == [(None, "A:\n"), ("user", "x"), (None, ".")]


def test_a_text_that_a_template_changes_is_said_to_be_so() -> None:
    source = "{% for m in messages %}[{{ m.content | upper if m.role == 'user' else m.content }}]{% endfor %}"
    spans = Template.from_jinja(source).spans([ChatTurn("user", "abc"), ChatTurn("assistant", "abc")])
    assert [(span.role, span.text, span.rewritten) for span in spans] == [
        (None, "[", False),
        ("user", "ABC", True),
        (None, "][", False),
        ("assistant", "abc", False),
        (None, "]", False),
    ]


@pytest.mark.parametrize("content", ["thought</think>answer", "\ufdd0", "\ufdd0\ufdd9\ufdd0x\ufdd1", "x\ufdd1\ufdd0"])
def test_what_cannot_be_followed_is_the_templates(content: str) -> None:
    """A template that takes a text apart, or texts that hold the marks themselves: nothing wrong is said."""
    source = "{% for m in messages %}<{{ m.content.split('</think>')[-1] }}>{% endfor %}"
    template = Template.from_jinja(source)
    for talk in ([ChatTurn("user", content)], [ChatTurn("user", "x"), ChatTurn("assistant", content)]):
        spans = template.spans(talk)
        assert "".join(span.text for span in spans) == template.render(talk)
        for span in spans:
            assert span.role is None or span.text == talk[span.message].text


def test_lists_and_twenty_messages_are_followed() -> None:
    source = (
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for c in m.content %}{% if c.type == 'text' %}({{ c.text }}){% endif %}{% endfor %}{% endif %};{% endfor %}"
    )
    talk: list[Any] = [{"role": "user", "content": f"{i}"} for i in range(20)]
    talk.append(
        {"role": "tool", "content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]}
    )
    own = [(span.message, span.text) for span in Template.from_jinja(source).spans(talk) if span.role]
    assert own == [*((i, f"{i}") for i in range(20)), (20, "a"), (20, "b")]


def test_tokens_are_those_of_the_conversation(engine: Any) -> None:
    """Behaviours 16 and 17: one BOS, in front; control tokens where the template wrote them and nowhere else."""
    template = Template.named("bitnet", *CONTROL[:2])
    spans = template.spans(TALK, tokenizer=engine.tokenizer)
    ids = [token for span in spans for token in span.token_ids]
    chat = ChatSession.from_json(
        engine,
        json.dumps(
            json.loads(ChatSession(engine, "Be brief.", template=template, max_tokens=1).to_json())
            | {"turns": TALK[1:3]}
        ),
    )
    assert chat.send("hello").receipt.to_dict()["claim"]["prompt_ids"] == ids
    assert (spans[0].text, spans[0].token_ids) == ("", [TOKENS.index(CONTROL[0])])
    for span in spans:
        assert span.token_ids.count(EOT) == (span.text.count("<|eot_id|>") if span.role is None else 0)
    hello = [span for span in spans if span.text == "hello"]
    assert all(engine.decode(span.token_ids) in "hello" for span in hello)
    assert all(span.token_ids is None for span in template.spans(TALK))


def show(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bitnet", "template", *map(str, arguments)]
    variables = {**os.environ, "PYTHONIOENCODING": "utf-8", **environment}
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=variables)


def test_the_command_shows_them(text_model: Path, tmp_path: Path) -> None:
    """Behaviours 12 and 17."""
    asked = ("--template", "bitnet", "--system", "S", "--user", "<|eot_id|>")
    shown = show(text_model, *asked, "--show")
    assert shown.stdout.splitlines() == [
        "template   'System: '",
        "system     'S'",
        "template   '<|eot_id|>User: '",
        "user       '<|eot_id|>'",
        "template   '<|eot_id|>Assistant: '",
    ]
    lines = show(text_model, *asked, "--tokens").stdout.splitlines()
    assert lines[:2] == ["template   ''", f"{TOKENS.index(CONTROL[0]):>10} '<|begin_of_text|>'"]
    assert lines.count(f"{EOT:>10} '<|eot_id|>'") == 2
    assert [line for line in lines if not line.startswith(" ")][1:] == shown.stdout.splitlines()
    source = tmp_path / "own.jinja"
    source.write_text("{{ messages[0].content | replace('a', 'bb') | upper }}", "utf-8")
    assert show(source, "--user", "xay", "--show").stdout == "user, rewritten 'XBBY'\n"
    source.write_text("{{ messages[0].content | length }}", "utf-8")
    left_out = show(source, "--user", "xay", "--show")
    assert left_out.stdout == "template   '3'\n"
    assert "message 0" in left_out.stderr
    refused = show(source, "--user", "x", "--tokens")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "model file" in refused.stderr
