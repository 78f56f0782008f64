"""Invalid arguments raise the right exception, and its message holds the facts that help."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import bitnet
from bitnet._synthetic import Spec
from conftest import ModelMaker, message_of

SMALL = Spec("bitnet-b1.58", 1, 128, 192, 2, 1, vocab_size=40, context=64)


@pytest.fixture
def engine(model: ModelMaker) -> Iterator[Any]:
    with bitnet.Engine(model(SMALL)) as engine:
        yield engine


CALLS: dict[str, Callable[[Any, list[int]], object]] = {
    "logits": lambda engine, ids: engine.logits(ids),
    "logits_batch": lambda engine, ids: engine.logits_batch([[1, 2], ids]),
    "prefill": lambda engine, ids: engine.prefill(ids),
    "generate_tokens": lambda engine, ids: engine.generate_tokens(ids, max_tokens=1),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


@each_call
def test_too_long(engine: Any, call: Callable[[Any, list[int]], object]) -> None:
    assert engine.n_ctx == SMALL.context
    message = message_of(bitnet.ContextLengthError, call, engine, [1] * 70)
    assert "70" in message or "71" in message  # one more with the id to be generated
    assert "64" in message


@each_call
@pytest.mark.parametrize("wrong", [40, 128256, 2**31, 2**40, -1, -(2**40)])
def test_outside_the_vocabulary(engine: Any, call: Callable[[Any, list[int]], object], wrong: int) -> None:
    message = message_of(bitnet.TokenIdError, call, engine, [0, 39, 5, wrong, 7, -9])
    assert str(wrong) in message
    assert "position 3" in message


@each_call
@pytest.mark.parametrize(
    "ids",
    [
        *(["1"], [1.5], [None], 7, None, "12", [[1, 2.0]], [[[1]]], [True], {1, 2}, {1: 2}, b"12", bytearray(b"12")),
        *(np.array([True]), np.array([1, 2], "m8[s]"), np.array([[1]]), np.array(1), np.array([1.0])),
    ],
    ids=repr,
)
def test_ids_of_the_wrong_type(engine: Any, call: Callable[[Any, Any], object], ids: Any) -> None:
    if call is CALLS["logits"] and repr(ids) in ("'12'", "['1']"):
        return  # these are texts, of which it gives the logits
    with pytest.raises(TypeError):
        call(engine, ids)


@each_call
def test_numpy_ids(engine: Any, call: Callable[[Any, Any], object]) -> None:
    """Ids may be arrays of any integer type."""
    for dtype in (np.int32, np.int64, np.uint16):
        call(engine, np.array([1, 2, 3], dtype))


def test_which_sequence_is_wrong(engine: Any) -> None:
    for kind, ids in ((bitnet.TokenIdError, [99]), (bitnet.ContextLengthError, [1] * 70)):
        assert "sequences[1]" in message_of(kind, engine.logits_batch, [[1], ids])
        assert "ids[1]" in message_of(kind, engine.generate_tokens, [[1], ids], max_tokens=1)
    for call, name in ((engine.logits_batch, "sequences"), (engine.generate_tokens, "ids")):
        with pytest.raises(TypeError, match=rf"{name}\[1\]"):
            call([[1], "1"])


@pytest.mark.parametrize("huge", [2**31, 2**62, 2**63, 2**80])
def test_huge_counts(model: ModelMaker, engine: Any, huge: int) -> None:
    """A count that makes no sense, or that no machine word holds, is an ArgumentError and never an abort."""
    for call in (
        lambda: bitnet.Engine(model(SMALL), n_threads=huge),
        lambda: bitnet.Engine(model(SMALL), n_ctx=huge),
        lambda: bitnet.read_bandwidth(huge),
        lambda: bitnet.dot_peak(huge),
        lambda: bitnet.look_up_peak(huge),
    ):
        assert str(huge) in message_of(bitnet.ArgumentError, call)
    for name, call in {
        "n_batch": lambda: bitnet.Engine(model(SMALL), n_batch=huge).close(),
        "max_tokens": lambda: engine.generate_tokens([1], max_tokens=huge),
        "max_tokens ": lambda: engine.generate([1], max_tokens=huge),
    }.items():
        if huge < 2**63:
            call()
        else:
            assert f"{name.strip()} is {huge}" in message_of(bitnet.ArgumentError, call)
    if huge > 2**40:
        with pytest.raises((bitnet.OutOfMemoryError, bitnet.ArgumentError)):
            bitnet.read_bandwidth(1, huge)


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_memory_that_is_not_there(model: ModelMaker) -> None:
    """A process with too little memory gets a MemoryError, and the engine stays usable."""
    spec = Spec("llama", 1, 32, 32, 1, 1, vocab_size=200_000, context=4096, linear="F32")
    code = """
import bitnet, resource, sys
engine = bitnet.Engine(sys.argv[1], n_threads=1)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (600 << 20),) * 2)
for call in (engine.logits, lambda ids: engine.logits_batch([ids])):
    try:
        call([1] * 4000)
    except MemoryError as error:
        print(type(error).__name__, isinstance(error, bitnet.BitnetError), "could not allocate" in str(error))
print(engine.logits([1]).shape)
"""
    done = subprocess.run([sys.executable, "-c", code, model(spec)], capture_output=True, text=True)
    assert done.stdout == "OutOfMemoryError True True\n" * 2 + "(1, 200000)\n", done.stderr


def test_paths_of_every_kind(model: ModelMaker) -> None:
    path = model(SMALL)
    for given in (str(path), os.fsencode(path), path):
        bitnet.Engine(given).close()
        assert bitnet.inspect(given)["path"] == path
        assert bitnet.Tokenizer(given).vocab_size == SMALL.vocab_size


def test_type_errors_name_the_argument(model: ModelMaker, engine: Any) -> None:
    for name in WRONG_VALUES:
        with pytest.raises(TypeError, match=name):
            ENGINE(model(SMALL), **{name: [1]})
    for name in ("max_tokens", "stop_token_ids"):
        with pytest.raises(TypeError, match=f"^{name}[^:]*$"):
            engine.generate_tokens([1], **{name: 1.5})
        with pytest.raises(TypeError, match=f"^{name}[^:]*$"):
            engine.generate([1], **{name: 1.5})
    for name, call in {"path": ENGINE, "ids": engine.logits, "prompt": engine.generate}.items():
        with pytest.raises(TypeError, match=name):
            call(1.5)


def test_no_ids(engine: Any) -> None:
    """No ids give no logits; generating needs at least one id."""
    assert engine.logits([]).shape == (0, SMALL.vocab_size)
    assert engine.prefill([]).tokens == 0
    assert engine.logits_batch([]) == []
    message_of(bitnet.ArgumentError, engine.generate_tokens, [], max_tokens=1)
    for count in (0, -1):
        assert str(count) in message_of(bitnet.ArgumentError, engine.generate_tokens, [1], max_tokens=count)


@pytest.mark.parametrize("call", [CALLS["prefill"], CALLS["generate_tokens"]], ids=["prefill", "generate_tokens"])
@pytest.mark.parametrize("ids", [[1] * 70, [3, 1, 4, 40], [3, 1, -1]], ids=["too-long", "unknown", "negative"])
def test_after_an_error_the_cache_is_as_it_was(engine: Any, call: Callable[[Any, Any], object], ids: list[int]) -> None:
    prompt = [3, 1, 4, 1, 5, 9, 2, 6]
    expected = engine.generate_tokens(prompt, max_tokens=5)
    engine.prefill(prompt)
    before = engine.cached_tokens
    with pytest.raises(bitnet.BitnetError):
        call(engine, ids)
    assert engine.cached_tokens == before
    again = engine.prefill(prompt)
    assert again.cached_tokens == len(prompt)
    assert engine.generate_tokens(prompt, max_tokens=5) == expected


def test_an_isa_that_is_not_there(model: ModelMaker) -> None:
    known = ["scalar", "avx2", "avx-vnni", "avx512", "avx512-vnni", "amx", "neon", "neon-dot", "neon-i8mm", "simd128"]
    foreign = next(isa for isa in known if isa not in bitnet.isas())
    for isa in (foreign, "mmx"):
        message = message_of(bitnet.ArgumentError, bitnet.Engine, model(SMALL), isa=isa)
        assert isa in message
        assert all(name in message for name in bitnet.isas()), "the message lists what this processor supports"


WRONG_VALUES: dict[str, Any] = {
    "n_ctx": 0,
    "n_threads": 0,
    "n_batch": 0,
    "kv_type": "f64",
    "act_quant": "int4",
    "ffn_act": "gelu",
}


@pytest.mark.parametrize(("name", "value"), WRONG_VALUES.items(), ids=WRONG_VALUES.keys())
def test_wrong_values(model: ModelMaker, name: str, value: Any) -> None:
    message = message_of(bitnet.ArgumentError, bitnet.Engine, model(SMALL), **{name: value})
    assert name in message
    assert str(value) in message


# Untyped, for calls that a type checker would refuse.
ENGINE: Any = bitnet.Engine
INSPECT: Any = bitnet.inspect


@pytest.mark.parametrize("name", WRONG_VALUES)
def test_wrong_types(model: ModelMaker, name: str) -> None:
    for value in (object(), [1], 1.5):
        with pytest.raises(TypeError):
            ENGINE(model(SMALL), **{name: value})


def test_more_wrong_types(model: ModelMaker, engine: Any) -> None:
    for path in (7, 1.5, [str(model(SMALL))]):
        with pytest.raises(TypeError):
            ENGINE(path)
        with pytest.raises(TypeError):
            INSPECT(path)
    with pytest.raises(TypeError):
        ENGINE(model(SMALL), 64)  # options by name only
    with pytest.raises(TypeError):
        ENGINE(model(SMALL), threads=2)
    with pytest.raises(TypeError):
        engine.generate_tokens([1], max_tokens="2")
    with pytest.raises(TypeError):
        engine.generate_tokens([1], max_tokens=2, stop_token_ids=["</s>"])


def test_more_tokens_than_the_context_holds(model: ModelMaker) -> None:
    with bitnet.Engine(model(SMALL), n_ctx=16) as engine:
        assert engine.n_ctx == 16
        message = message_of(bitnet.ContextLengthError, engine.logits, [1] * 17)
        assert "17 tokens do not fit into the context of 16" in message
        assert "larger n_ctx (at most 64" in message
        assert engine.logits([1] * 16).shape == (16, SMALL.vocab_size)
    with bitnet.Engine(model(SMALL)) as engine:
        message = message_of(bitnet.ContextLengthError, engine.logits, [1] * 65)
        assert "65 tokens do not fit into the context of 64" in message
        assert "n_ctx" not in message, "the model has no larger context"


def test_closed_engine(model: ModelMaker) -> None:
    """Every use of a closed engine raises ClosedError; closing it again does nothing."""
    with bitnet.Engine(model(SMALL)) as engine:
        engine.prefill([1, 2])
    engine.close()
    engine.close()
    for call in CALLS.values():
        assert "closed" in message_of(bitnet.ClosedError, call, engine, [1, 2, 3])
    with pytest.raises(bitnet.ClosedError), engine:
        pass
