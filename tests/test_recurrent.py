"""Conversations of models with a recurrent state, which cannot be cut back: whatever happens, answers are those of the
same conversation computed from nothing.
"""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest

import bitnet
from bitnet import ChatSession
from bitnet._synthetic import Spec
from conftest import fresh, likelihoods
from text_model import make_text_model

SHORT: dict[str, Any] = {"max_tokens": 6, "temperature": 1.0, "ignore_eos": True}
HYBRID = Spec("qwen35", 3, 128, 128, 2, 1, 32, linear="Q2_0_g64", embedding="F16", untied=True)
HYBRID = dataclasses.replace(HYBRID, full_interval=3, ssm_value_heads=4)
TEXTS = ["hello", "world", "hello world", "x", "one two three four five six seven eight nine ten"]


@pytest.fixture(scope="module", params=[160, 1200], ids=["short-context", "long-context"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("recurrent") / "model.gguf"
    make_text_model(path, request.param, HYBRID)
    with bitnet.Engine(path, n_threads=2, n_batch=32) as engine:
        yield engine


class Run:
    """Some conversations that share their past, and what may happen to them."""

    def __init__(self, engine: Any, seed: int, folder: Path) -> None:
        self.engine, self.random, self.folder = engine, random.Random(seed), folder
        self.chats = [ChatSession(engine, "Be brief.", template="bitnet", **SHORT)]
        self.reused = 0

    def step(self) -> None:
        i = self.random.randrange(len(self.chats))
        action = self.random.choice([self.send, self.send, self.send, self.cancel, self.rewind, self.fork, self.reload])
        action(i)

    def text(self) -> str:
        return self.random.choice(TEXTS) * self.random.choice([1, 1, 3, 12] if self.engine.n_ctx > 1000 else [1])

    def send(self, i: int) -> None:
        text, seed = self.text(), self.random.randrange(100)
        expected = fresh(self.chats[i]).send(text, seed=seed, logprobs=1)
        reply = self.chats[i].send(text, seed=seed, logprobs=1)
        assert (reply.text, reply.token_ids) == (expected.text, expected.token_ids)
        assert likelihoods(reply) == likelihoods(expected)
        assert expected.cached_tokens == 0
        self.reused += reply.cached_tokens
        reply.receipt.validate()
        assert self.engine.replay(reply.receipt)

    def cancel(self, i: int) -> None:
        stream = self.chats[i].stream(self.text(), seed=1)
        for _ in range(self.random.randrange(4)):
            next(stream)
        stream.cancel()

    def rewind(self, i: int) -> None:
        exchanges = len(self.chats[i].history) // 2
        self.chats[i].rewind(self.random.randint(0, exchanges))

    def fork(self, i: int) -> None:
        if len(self.chats) < 4:
            self.chats.append(self.chats[i].fork())

    def reload(self, i: int) -> None:
        path = self.folder / "chat"
        self.chats[i].save(path, cache=self.random.random() < 0.8)
        self.chats[i] = ChatSession.load(self.engine, path)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_answers_are_those_from_nothing(engine: Any, seed: int, tmp_path: Path) -> None:
    run = Run(engine, seed, tmp_path)
    for _ in range(25):
        run.step()
    assert run.reused > 0


def test_recomputed_positions_show_as_not_cached(engine: Any) -> None:
    """A prompt that ends like the last one, up to a few ids, starts at the state before these."""
    ids = [65 + i % 26 for i in range(100)]
    engine.clear_cache()
    assert engine.generate(ids, **SHORT, seed=1).cached_tokens == 0
    again = engine.generate([*ids[:97], 5, 6], **SHORT, seed=1, logprobs=1)
    assert again.cached_tokens == 100 - 8
    computed = again.receipt.to_dict()["run"]["work"]["attention"] / 3
    assert computed == 99 - 92 + SHORT["max_tokens"] - 1
    # Before that state there is none but the beginning.
    earlier = engine.generate([*ids[:50], 5, 6], **SHORT, seed=1, logprobs=1)
    assert earlier.cached_tokens == 0
    with bitnet.Engine(engine.path, n_batch=7) as other:
        alone = other.generate([*ids[:97], 5, 6], **SHORT, seed=1, logprobs=1)
        assert (alone.token_ids, likelihoods(alone)) == (again.token_ids, likelihoods(again))


def test_long_texts_have_states_at_regular_positions(engine: Any) -> None:
    if engine.n_ctx < 1000:
        pytest.skip("the text does not fit")
    ids = [65 + i * i % 26 for i in range(700)]
    engine.generate(ids, **SHORT, seed=1)
    reply = engine.generate([*ids[:600], 5], **SHORT, seed=1)
    assert reply.cached_tokens == 512


def test_an_engine_tells_the_bytes_of_a_state(engine: Any) -> None:
    nets, heads, channels = 2, 4, 2 * 2 * 32 + 4 * 32
    assert engine.per_token["state_bytes"] == nets * 4 * (3 * channels + heads * 32 * 32)


def test_a_saved_state_that_is_missing_is_refused(engine: Any, tmp_path: Path) -> None:
    chat = ChatSession(engine, template="bitnet", **SHORT)
    chat.send("hello", seed=1)
    chat.save(tmp_path / "chat", cache=True)
    data = (tmp_path / "chat").read_bytes()
    start = data.index(b'"states"')
    end = data.index(b"]", start) + 1
    (tmp_path / "chat").write_bytes(data[:start] + b'"states": []' + data[end:])
    with pytest.raises(bitnet.BitnetError, match=r"recurrent states at|damaged"):
        ChatSession.load(engine, tmp_path / "chat")


def test_kept_states_are_few(engine: Any) -> None:
    """However long a conversation is."""
    chat = ChatSession(engine, template="bitnet", **SHORT)
    for i in range(90 if engine.n_ctx > 1000 else 10):
        chat.send("x", seed=i, max_tokens=2)
    state, page = engine.per_token["state_bytes"], 64 * engine.per_token["kv_bytes"]
    receipt = chat.receipts[-1].to_dict()
    used = receipt["run"]["memory_bytes"] - engine.memory["packed_weights"] - engine.memory["head_copy"]
    assert used <= 65 * state + (engine.n_ctx // 64 + 1) * page


def test_a_failed_call_leaves_the_cached_prompt(engine: Any) -> None:
    ids = [65 + i % 26 for i in range(60)]
    engine.clear_cache()
    engine.prefill(ids)
    assert engine.cached_tokens == 60
    with pytest.raises(bitnet.TokenIdError):
        engine.prefill([*ids[:30], 99999])
    assert engine.cached_tokens == 60
