"""Names of other libraries: the error says what to write here, and what it says exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

import bitnet
from bitnet import ChatSession, Engine, SamplingParams, Tokenizer, _core, _hints
from conftest import message_of

PARAMETERS = [parameter[0] for parameter in _core._sampling_parameters()]
ASKED = [{"role": "user", "content": "What is 2+2?"}]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


@pytest.mark.parametrize("name", _hints.SAMPLING)
def test_another_name_of_a_parameter_gives_ours(engine: Engine, name: str) -> None:
    message = message_of(TypeError, SamplingParams, **{name: 1})
    assert f"{name} is not a sampling parameter; did you mean" in message
    meant = re.findall(r"\w+", _hints.SAMPLING[name])[0]
    assert meant in [*PARAMETERS, "params", "keywords"]
    assert message_of(TypeError, engine.chat, ASKED, **{name: 1}) == message


@pytest.mark.parametrize("name", _hints.NOT_SAMPLING)
def test_a_keyword_that_means_something_else_says_what_to_do(name: str) -> None:
    assert name not in PARAMETERS
    assert _hints.NOT_SAMPLING[name] in message_of(TypeError, SamplingParams, **{name: 1})


@pytest.mark.parametrize("name", _hints.ENGINE)
def test_an_option_of_other_engines_says_what_to_do(name: str) -> None:
    message = message_of(TypeError, Engine, **{name: 1})
    assert message.startswith(f"{name} is not an option of Engine; {_hints.ENGINE[name]}")


def test_misspelt_names_get_the_closest(engine: Engine) -> None:
    assert "did you mean max_tokens?" in message_of(TypeError, engine.generate, "a", max_tokns=1)
    assert "did you mean n_threads?" in message_of(TypeError, Engine, n_thread=1)
    assert "n_ctx, n_threads" in message_of(TypeError, Engine, zzz=1)
    assert "SamplingParams" in message_of(TypeError, engine.generate, "a", zzz=1)


def objects(engine: Engine) -> dict[str, Any]:
    return {
        "Engine": engine,
        "ChatSession": ChatSession(engine),
        "Completion": engine.chat(ASKED),
        "Stream": engine.chat_stream(ASKED),
        "Tokenizer": engine.tokenizer,
        "Template": engine.template,
    }


def test_attributes_of_other_libraries_say_what_to_write(engine: Engine) -> None:
    found = objects(engine)
    assert found.keys() == _hints.ATTRIBUTES.keys()
    for kind, names in _hints.ATTRIBUTES.items():
        for name, advice in names.items():
            if kind == "Tokenizer" and name == "from_pretrained":
                continue
            message = message_of(AttributeError, getattr, found[kind], name)
            assert f"'bitnet.{kind}' object has no attribute '{name}'" in message and advice in message
        assert not hasattr(found[kind], "_private")
        assert "has no attribute 'zzz'" in message_of(AttributeError, getattr, found[kind], "zzz")


def test_the_advice_names_things_that_exist(engine: Engine) -> None:
    found = {kind.lower().replace("chatsession", "chat"): value for kind, value in objects(engine).items()}
    texts = [advice for names in _hints.ATTRIBUTES.values() for advice in names.values()]
    texts += [*_hints.NOT_SAMPLING.values(), *_hints.ENGINE.values(), *_hints.MODULE.values()]
    named = {
        pair
        for text in texts
        for pair in re.findall(r"\b(engine|chat|completion|stream|tokenizer|template)\.(\w+)", text)
    }
    assert len(named) > 20
    for kind, name in named - {("tokenizer", "json")}:  # the file
        assert hasattr(found[kind], name), f"{kind}.{name}"


@pytest.mark.parametrize("name", _hints.MODULE)
def test_names_of_other_packages_say_what_to_import(name: str) -> None:
    if name == "lm_eval":
        pytest.skip("a module of this package, which another test may have imported")
    with pytest.raises(ImportError, match=re.escape(_hints.MODULE[name])):
        exec(f"from bitnet import {name}")
    assert _hints.MODULE[name] in message_of(AttributeError, getattr, bitnet, name)


def test_unknown_names_of_the_package_are_ordinary_errors() -> None:
    assert not hasattr(bitnet, "zzz")
    with pytest.raises(ImportError, match="cannot import name 'zzz'"):
        exec("from bitnet import zzz")


def test_objects_that_are_no_functions_say_what_to_call(engine: Engine) -> None:
    assert "engine.chat(messages)" in message_of(TypeError, engine, "Q: Name the planets. A: ", max_tokens=16)
    assert "chat.send(text)" in message_of(TypeError, ChatSession(engine), "Hello")
    assert "tokenizer.encode(text)" in message_of(TypeError, engine.tokenizer, "Hello")
    assert "completion" in message_of(TypeError, lambda: engine.chat(ASKED)["choices"]).lower()


def test_the_model_inside_is_known_by_its_name(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inside = bitnet.Engine().path
    for engine in (Engine("trit"), Engine.from_pretrained("trit")):
        with engine:
            assert engine.path == inside
    assert Tokenizer("trit").vocab_size == Tokenizer.from_pretrained("trit").vocab_size
    assert bitnet.Template.from_model("trit") == bitnet.Template.from_model(inside)
    assert bitnet.inspect("trit")["path"] == inside
    (tmp_path / "trit").write_bytes(b"x")  # a file of this name comes first
    message_of(bitnet.ModelFileError, Engine, "trit")


@pytest.mark.parametrize("name", ["max_tokens", "top_k", "logprobs", "seed", "temperature", "min_p"])
def test_a_bool_is_no_number(engine: Engine, name: str) -> None:
    message = message_of(TypeError, engine.generate, "a", **{name: True})
    assert f"{name} must be" in message and "found bool" in message
