"""Conversations that fork, go back and are stored. Behaviours 5, 11, 23, 26 and 27."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bitnet
from bitnet import ChatSession, ChatTurn
from conftest import ROOT, fresh, likelihoods

SHORT: dict[str, Any] = {"max_tokens": 6, "temperature": 1.0, "seed": 3, "ignore_eos": True}
TEXTS = ["hello", "world", "hello world"]


@pytest.fixture
def chat(engine: Any) -> Any:
    chat = ChatSession(engine, "Be brief.", template="bitnet", **SHORT)
    for text in TEXTS:
        chat.send(text)
    return chat


def prompt_of(reply: Any) -> list[int]:
    ids: list[int] = reply.receipt.to_dict()["claim"]["prompt_ids"]
    return ids


def test_a_fork_shares_what_is_computed_and_nothing_else(engine: Any, chat: Any) -> None:
    """Behaviour 23: a fork reuses the prefix; it and the other answer as if each were alone, whoever goes first."""
    before = chat.history
    expected = [fresh(chat).send(text, logprobs=1) for text in ("one", "two")]
    assert likelihoods(expected[0]) != likelihoods(expected[1])
    for order in ((0, 1), (1, 0)):
        both = [chat.fork(), chat.fork()]
        replies: dict[int, Any] = {i: both[i].send(("one", "two")[i], logprobs=1) for i in order}
        for i, reply in replies.items():
            assert (reply.text, reply.token_ids) == (expected[i].text, expected[i].token_ids)
            assert likelihoods(reply) == likelihoods(expected[i])
            assert reply.cached_tokens >= chat.receipts[-1].prompt_tokens > 0 == expected[i].cached_tokens
            reply.receipt.validate()
            assert engine.replay(reply.receipt)
        # Once more each: what one wrote into a page is not what the other reads.
        for i in order:
            again = ChatSession.from_json(engine, both[i].to_json()).send("more", logprobs=1)
            assert likelihoods(both[i].send("more", logprobs=1)) == likelihoods(again)
    assert (chat.history, len(chat.receipts)) == (before, 3)


def test_forks_go_on_at_once(chat: Any) -> None:
    texts = ["a", "hello", "world", "xyz"]

    def talk(fork: Any, text: str) -> list[list[int]]:
        return [fork.send(line).token_ids for line in (text, "hello", text)]

    alone = [talk(fresh(chat), text) for text in texts]
    together: dict[str, list[list[int]]] = {}
    forks = [(chat.fork(), text) for text in texts]
    threads = [threading.Thread(target=lambda f=f, t=t: together.update({t: talk(f, t)})) for f, t in forks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[text] for text in texts] == alone


def test_a_fork_goes_on_with_the_receipts(chat: Any) -> None:
    fork = chat.fork()
    fork.send("x")
    assert [r.digest for r in fork.receipts[:3]] == [r.digest for r in chat.receipts]
    assert fork.receipts[3].to_dict()["claim"]["previous"] == chat.receipts[2].digest
    assert (fork.metrics["exchanges"], chat.metrics["exchanges"]) == (4, 3)
    assert (fork.system, fork.params, fork.template) == (chat.system, chat.params, chat.template)


def test_going_back_forgets_exchanges_and_their_receipts(chat: Any) -> None:
    """Behaviours 5 and 26: history, receipts and metrics go back together; the same question has the same answer."""
    first, second, third = chat.receipts
    turns = chat.history
    chat.rewind(2)
    assert (chat.history, chat.receipts) == (turns[:2], [first])
    assert chat.metrics["prompt_tokens"] == first.prompt_tokens
    assert chat.metrics["wall_seconds"] == first.seconds["wall"]
    again = chat.send(TEXTS[1]).receipt
    assert again.digest == second.digest
    assert again.cached_tokens >= first.prompt_tokens
    assert chat.send(TEXTS[2]).receipt.digest == third.digest
    chat.rewind(0)
    assert chat.history == turns
    chat.rewind(3)
    assert (chat.history, chat.receipts, chat.metrics["exchanges"]) == ([], [], 0)
    with pytest.raises(bitnet.ArgumentError, match=r"cannot take back 1 exchanges, .* has 0"):
        chat.rewind(1)
    with pytest.raises(bitnet.ArgumentError, match="at least 0"):
        chat.rewind(-1)
    with pytest.raises(TypeError):
        chat.rewind("1")


def test_nothing_forks_or_goes_back_while_an_answer_is_under_way(chat: Any, tmp_path: Path) -> None:
    stream = chat.stream("x")
    next(stream)
    for call in (chat.fork, lambda: chat.rewind(1), lambda: chat.save(tmp_path / "chat", cache=True)):
        with pytest.raises(bitnet.ArgumentError, match="under way"):
            call()
    assert len(chat.history) == 6
    stream.cancel()
    chat.rewind(1)
    assert len(chat.history) == 6


def test_going_back_over_a_full_context(text_model: Path) -> None:
    """Behaviour 27: what has left the prompt stays out of it, unless nothing would be in it."""
    with bitnet.Engine(text_model, n_ctx=128, n_threads=1) as engine:
        chat = ChatSession(engine, "S", template="bitnet", **SHORT)
        replies = [chat.send(f"turn number {i}") for i in range(12)]
        forgotten = chat.forgotten
        assert 4 < forgotten < 22
        chat.rewind(1)
        assert chat.forgotten == forgotten
        assert chat.send("turn number 11").receipt.digest == replies[-1].receipt.digest
        assert prompt_of(fresh(chat).send("x")) == prompt_of(chat.fork().send("x"))
        chat.rewind(11)
        assert (len(chat.history), chat.forgotten) == (2, 0)


def test_json_brings_back_the_same_prompts(engine: Any, chat: Any) -> None:
    """Behaviour 11: system, template, turns and sampling."""
    stream = chat.stream("é 🙂 <|eot_id|>\n", max_tokens=50)
    next(stream)
    stream.cancel()
    loaded = fresh(chat)
    assert loaded.history == chat.history
    assert loaded.history[-1].cancelled
    assert (loaded.system, loaded.params, loaded.template) == (chat.system, chat.params, chat.template)
    assert loaded.to_json() == chat.to_json()
    rendered = [c.template.render_chat([*c.history, ChatTurn("user", "x")], c.system) for c in (chat, loaded)]
    assert rendered[0] == rendered[1]
    ours, theirs = loaded.send("x"), chat.send("x")
    assert (prompt_of(ours), ours.token_ids) == (prompt_of(theirs), theirs.token_ids)
    assert ours.receipt.to_dict()["claim"]["template"] == theirs.receipt.to_dict()["claim"]["template"]
    assert (loaded.metrics["exchanges"], len(loaded.history)) == (1, 10)
    loaded.rewind(2)
    assert (len(loaded.receipts), len(loaded.history)) == (0, 6)


def test_json_holds_every_parameter(engine: Any) -> None:
    params = bitnet.SamplingParams(
        temperature=0.7, top_k=3, top_p=0.9, min_p=0.05, repetition_penalty=1.1, repeat_last_n=5, presence_penalty=0.1,
        frequency_penalty=0.2, logit_bias={3: float("-inf"), 7: 1.25}, seed=2**64 - 1, max_tokens=9, stop=["é", "\n"],
        stop_token_ids=[5], ignore_eos=True, logprobs=2, speculate="lookup",
        choice=["a", "é"],
    )  # fmt: skip
    schema = bitnet.SamplingParams(json_schema={"type": "object"})
    forms = [schema, bitnet.SamplingParams(regex="a+"), bitnet.SamplingParams(grammar="start: /a/")]
    for given in (params, bitnet.SamplingParams(), *forms):
        text = ChatSession(engine, template="raw", params=given).to_json()
        assert ChatSession.from_json(engine, text).params == given
        json.loads(text, parse_constant=pytest.fail)
    assert '"temperature": 0.7' in ChatSession(engine, template="raw", params=params).to_json()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(format="x"), "bitnet chat 1"),
        (lambda d: d["turns"].pop(), "5 turns"),
        (lambda d: d["turns"].reverse(), "turn 0 has role \"assistant\", expected \"user\""),
        (lambda d: d["turns"][0].update(role="system"), "turn 0"),
        (lambda d: d.update(forgotten=8), "8 of them evicted"),
        (lambda d: d["params"].update(temperature=-1), "temperature is -1"),
        (lambda d: d.update(logit_bias=[[1, "much"]]), 'logit_bias: it is "much" for id 1'),
        (lambda d: d["params"].update(temprature=1), "temprature"),
        (lambda d: d["template"].update(origin="dream"), "origin"),
        (lambda d: d["template"].update(source="{% if %}"), "chat template"),
        (lambda d: d.update(more=1), "more"),
        (lambda d: d.pop("turns"), "turns"),
    ],
)  # fmt: skip
def test_a_document_that_is_none_is_refused(engine: Any, chat: Any, change: Callable[[Any], Any], words: str) -> None:
    document = json.loads(chat.to_json())
    change(document)
    with pytest.raises(bitnet.BitnetError) as caught:
        ChatSession.from_json(engine, json.dumps(document))
    assert words in str(caught.value)
    with pytest.raises(bitnet.ArgumentError, match="not a saved conversation"):
        ChatSession.from_json(engine, chat.to_json()[:-9])


@pytest.mark.parametrize("kv_type", ["f16", "f32"])
def test_a_file_brings_back_what_was_computed(text_model: Path, tmp_path: Path, kv_type: Any) -> None:
    """Behaviours 11 and 23: in another engine, by another instruction set, the prefix is reused for the same answer."""
    path = tmp_path / "new" / "chat"
    with bitnet.Engine(text_model, kv_type=kv_type) as engine:
        chat = ChatSession(engine, "Be brief.", template="bitnet", **SHORT)
        for text in ("hello " * 20, "world"):
            chat.send(text)
        assert chat.save(path, cache=True) == path
        assert list(path.parent.iterdir()) == [path]
        expected = chat.send("hello", logprobs=1)
    with bitnet.Engine(text_model, kv_type=kv_type, isa="scalar", n_threads=1) as engine:
        reply = ChatSession.load(engine, path).send("hello", logprobs=1)
        assert likelihoods(reply) == likelihoods(expected)
        assert (reply.token_ids, reply.cached_tokens) == (expected.token_ids, expected.cached_tokens)
        assert reply.cached_tokens > 64
        reply.receipt.validate()
        cold = ChatSession.load(engine, path, cache=False).send("hello")
        assert (cold.token_ids, cold.cached_tokens) == (expected.token_ids, 0)


def test_a_file_without_the_cache_is_json(engine: Any, chat: Any, tmp_path: Path) -> None:
    path = chat.save(tmp_path / "chat.json")
    assert path.read_text("utf-8") == chat.to_json()
    loaded = ChatSession.load(engine, path)
    assert (loaded.to_json(), loaded.send("x").cached_tokens) == (chat.to_json(), 0)
    empty = ChatSession(engine, template="raw").save(tmp_path / "empty", cache=True)
    assert ChatSession.load(engine, empty).history == []
    with pytest.raises(FileNotFoundError):
        ChatSession.load(engine, tmp_path / "none")
    with pytest.raises(OSError):
        chat.save(tmp_path)
    wrong = ROOT / "LICENSE-MIT"
    with pytest.raises(bitnet.ArgumentError, match="not a saved conversation") as caught:
        ChatSession.load(engine, wrong)
    assert str(caught.value).startswith(f"{wrong}: ")


def test_a_foreign_or_damaged_cache_is_refused(text_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "chat"
    with bitnet.Engine(text_model) as engine:
        chat = ChatSession(engine, template="raw", **SHORT)
        chat.send("hello")
        chat.save(path, cache=True)
        whole = path.read_bytes()
        start = whole.index(b"\n}\n") + 3
        assert json.loads(whole[:start])["cache"]["model"] == chat.receipts[0].to_dict()["claim"]["model"]
        assert len(whole) - start - 32 == engine.per_token["kv_bytes"] * 64
        damaged = [whole[:-1], whole + b"x", whole[: start + 1000], whole[:start]]
        damaged += [
            whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in (start, start + 999, len(whole) - 1)
        ]
        damaged.append(whole.replace(b'"hello"', b'"jello"'))
        for data in damaged:
            path.write_bytes(data)
            with pytest.raises(bitnet.ArgumentError, match="damaged"):
                ChatSession.load(engine, path)
            assert len(ChatSession.load(engine, path, cache=False).history) == 2
        path.write_bytes(whole)
    for model, options, word in [
        (text_model, {"kv_type": "f32"}, "kv_type is 'f16', this engine's 'f32'"),
        (text_model, {"ffn_act": "relu2"}, "ffn_act"),
        (None, {}, "its model is"),
    ]:
        with bitnet.Engine(model, **options) as engine:
            with pytest.raises(bitnet.ArgumentError, match=word):
                ChatSession.load(engine, path)
            assert ChatSession.load(engine, path, cache=False).send("world").text is not None
    with bitnet.Engine(text_model, n_ctx=4) as engine, pytest.raises(bitnet.ContextLengthError):
        ChatSession.load(engine, path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_thousand_turns_keep_memory_flat_and_roles_alternating(text_model: Path) -> None:
    """Behaviours 9 and 27: all that grows is the history and its receipts."""
    code = """
import os, sys, bitnet
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
engine = bitnet.Engine(sys.argv[1], n_ctx=128, n_threads=1)
chat = bitnet.ChatSession(engine, "S", template="bitnet", max_tokens=3, ignore_eos=True)
for i in range(1000):
    chat.send(f"turn {i}")
    if i == 100:
        before = resident()
grown = resident() - before
assert [turn.role for turn in chat.history] == ["user", "assistant"] * 1000
assert [turn.text for turn in chat.history[::2]] == [f"turn {i}" for i in range(1000)]
assert len(chat.receipts) == 1000 and chat.receipts[-1].prompt_tokens <= 128
chat.receipts[-1].validate()
chat.clear()
print(grown)
"""
    done = subprocess.run([sys.executable, "-c", code, text_model], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    # 900 receipts with prompts of at most 128 ids.
    assert int(done.stdout) < 900 * 5000
