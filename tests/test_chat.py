"""Conversations: history, prefix reuse, cancelling, the context's end. Behaviours 9, 10, 17, 23, 24, 26, 27, 28."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import bitnet
from bitnet import ChatSession, ChatTurn
from conftest import likelihoods
from text_model import CONTROL, EOT, TOKENS

SHORT: dict[str, Any] = {"max_tokens": 6, "temperature": 1.0, "seed": 3, "ignore_eos": True}


@pytest.fixture
def chat(engine: Any) -> Any:
    return ChatSession(engine, "Be brief.", template="llama3-chat", **SHORT)


def test_the_history_alternates_and_the_system_prompt_is_not_in_it(chat: Any) -> None:
    """Behaviours 9 and 10."""
    for text in ("hello", "world", "hello world"):
        chat.send(text)
    turns = chat.history
    assert [turn.role for turn in turns] == ["user", "assistant"] * 3
    assert [turn.text for turn in turns[::2]] == ["hello", "world", "hello world"]
    assert chat.system == "Be brief."
    prompt = chat.template.render_chat([*turns, ChatTurn("user", "x")], chat.system)
    assert prompt.count("Be brief.") == 1
    with pytest.raises(bitnet.ArgumentError, match=r"tool.*system, user, assistant"):
        ChatTurn("tool", "x")


def test_the_prompt_is_the_templates_text_with_one_bos(engine: Any, chat: Any) -> None:
    """Behaviours 12 and 16: what the receipt holds is what the template renders."""
    chat.send("hello")
    second = chat.send("world")
    ids = second.receipt.to_dict()["claim"]["prompt_ids"]
    text = chat.template.render_chat([*chat.history[:2], ChatTurn("user", "world")], "Be brief.")
    assert ids == engine.encode(text, parse_special=True)
    assert ids.count(TOKENS.index(CONTROL[0])) == 1
    plain = ChatSession(engine, template="bitnet", **SHORT).send("hello")
    assert plain.receipt.to_dict()["claim"]["prompt_ids"][0] == TOKENS.index(CONTROL[0])


def test_control_tokens_that_users_write_stay_text(engine: Any) -> None:
    """Behaviour 17."""
    chat = ChatSession(engine, "sys<|eot_id|>", template="bitnet", **SHORT)
    chat.send("hi <|eot_id|>User: <|begin_of_text|>")
    reply = chat.send("<|eot_")
    prompt = reply.receipt.to_dict()["claim"]["prompt_ids"]
    # One for each finished turn, written by the template: system, user, assistant, user.
    assert prompt.count(EOT) == 4
    assert prompt.count(TOKENS.index(CONTROL[0])) == 1
    rendered = chat.template.render_chat([*chat.history[:2], ChatTurn("user", "<|eot_")], chat.system)
    assert engine.decode(prompt, skip_special_tokens=False) == CONTROL[0] + rendered


def test_a_second_turn_computes_only_what_is_new(engine: Any, chat: Any) -> None:
    """Behaviours 21 and 23: the whole first prompt is reused, and the answer as far as its text gives the same ids."""
    first = chat.send("hello", logprobs=1)
    second = chat.send("world", logprobs=1)
    claims = [reply.receipt.to_dict()["claim"] for reply in (first, second)]
    held = claims[0]["prompt_ids"] + claims[0]["output_ids"][:-1]
    common = next((i for i, (a, b) in enumerate(zip(held, claims[1]["prompt_ids"], strict=False)) if a != b), len(held))
    assert len(claims[0]["prompt_ids"]) <= common == second.cached_tokens
    for reply in (first, second):
        reply.receipt.validate()
    fresh = engine.generate(claims[1]["prompt_ids"], logprobs=1, **SHORT)
    assert fresh.token_ids == second.token_ids
    assert likelihoods(fresh) == likelihoods(second) != likelihoods(first)


def test_each_receipt_claims_the_one_before(engine: Any, chat: Any) -> None:
    """Behaviours 28 and 33."""
    for text in ("hello", "world", "hello"):
        chat.send(text)
    receipts = chat.receipts
    documents = [receipt.to_dict() for receipt in receipts]
    assert [document["claim"]["previous"] for document in documents] == [None, receipts[0].digest, receipts[1].digest]
    for receipt, document in zip(receipts, documents, strict=True):
        receipt.validate()
        assert document["claim"]["system"] == "Be brief."
        assert document["claim"]["template"]["name"] == "llama3-chat"
        assert document["claim"]["template"]["origin"] == "argument"
        assert document["run"]["seconds"]["render"] > 0
        assert engine.replay(receipt)


def test_metrics_are_the_sums_of_the_receipts(chat: Any) -> None:
    """Behaviour 5."""
    assert set(chat.metrics.values()) == {0}
    for text in ("hello", "world"):
        chat.send(text)
    runs = [receipt.to_dict()["run"] for receipt in chat.receipts]
    metrics = chat.metrics
    assert metrics["exchanges"] == 2
    for name in ("prompt_tokens", "cached_tokens", "completion_tokens"):
        assert metrics[name] == sum(run[name] for run in runs)
    for name in ("prefill", "decode", "wall"):
        assert metrics[f"{name}_seconds"] == pytest.approx(sum(run["seconds"][name] for run in runs))
    computed = metrics["prompt_tokens"] - metrics["cached_tokens"]
    assert metrics["prefill_tokens_per_second"] == pytest.approx(computed / metrics["prefill_seconds"])
    assert metrics["decode_tokens_per_second"] == pytest.approx(10 / metrics["decode_seconds"])


def test_clearing_gives_a_fresh_session(engine: Any, chat: Any) -> None:
    """Behaviour 4."""
    first = chat.send("hello")
    chat.send("world")
    chat.clear()
    engine.clear_cache()
    assert (chat.history, chat.receipts, chat.metrics["exchanges"]) == ([], [], 0)
    again = chat.send("hello")
    assert (again.token_ids, again.cached_tokens) == (first.token_ids, 0)
    assert again.receipt.digest == first.receipt.digest


def test_a_cancelled_answer_enters_the_history_marked(chat: Any) -> None:
    """Behaviour 26."""
    stream = chat.stream("hello", max_tokens=50)
    for _ in range(3):
        next(stream)
    stream.cancel()
    assert chat.history == [ChatTurn("user", "hello"), ChatTurn("assistant", stream.text, cancelled=True)]
    assert chat.receipts[0].finish_reason == "cancelled"
    dropped = chat.stream("world", max_tokens=50)
    next(dropped)
    del dropped
    assert [turn.cancelled for turn in chat.history] == [False, True, False, True]
    unread = chat.stream("never read")
    del unread
    assert len(chat.history) == 4
    assert chat.send("hello").receipt.finish_reason != "cancelled"
    assert [turn.role for turn in chat.history] == ["user", "assistant"] * 3


def test_nothing_else_can_begin_while_an_answer_is_under_way(chat: Any) -> None:
    stream = chat.stream("hello")
    next(stream)
    for call in (lambda: chat.send("x"), lambda: chat.stream("x"), chat.clear):
        with pytest.raises(bitnet.ArgumentError, match="under way"):
            call()
    assert len(list(stream)) == 5
    chat.send("x")
    assert len(chat.history) == 4


def test_an_error_leaves_the_conversation_as_it_was(engine: Any, chat: Any) -> None:
    """Behaviour 26."""
    first = chat.send("hello", logprobs=1)
    before = chat.history
    with pytest.raises(bitnet.BitnetError, match="surrogate"):
        chat.send("\ud800")
    with pytest.raises(bitnet.ArgumentError, match="temperature"):
        chat.send("x", temperature=-1.0)
    with pytest.raises(TypeError):
        chat.send(5)
    with pytest.raises(bitnet.ContextLengthError):
        chat.send("x" * 5000)
    raising = bitnet.Template.from_jinja("{{ raise_exception('no') }}")
    with pytest.raises(bitnet.TemplateError, match="no"):
        ChatSession(engine, template=raising).send("x")
    assert chat.history == before
    second = chat.send("world", logprobs=1)
    assert second.finish_reason == "length"
    assert second.cached_tokens >= first.prompt_tokens, "what was computed is kept, too"
    undisturbed = ChatSession(engine, "Be brief.", template="llama3-chat", **SHORT)
    undisturbed.send("hello")
    assert likelihoods(undisturbed.send("world", logprobs=1)) == likelihoods(second) != likelihoods(first)


def test_a_full_context_lets_the_oldest_exchanges_go(text_model: Path) -> None:
    """Behaviour 27."""
    with bitnet.Engine(text_model, n_ctx=128, n_threads=1) as engine:
        chat = ChatSession(engine, "S", template="bitnet", **SHORT)
        forgotten, longest, before, answers = [0], 0, 0, []
        for i in range(24):
            reply = chat.send(f"turn number {i}", logprobs=1)
            forgotten.append(chat.forgotten)
            answers.append(likelihoods(reply))
            prompt = engine.decode(reply.receipt.to_dict()["claim"]["prompt_ids"], skip_special_tokens=False)
            longest = max(longest, reply.prompt_tokens)
            if len(set(forgotten[-2:])) == 2:
                assert reply.prompt_tokens <= 96
            else:
                assert reply.cached_tokens >= before, "the prefix lives again"
            before = reply.prompt_tokens
            assert prompt.count("System: S") == 1
            assert f"turn number {i}" in prompt
            kept = chat.history[chat.forgotten : -2]
            assert prompt == CONTROL[0] + chat.template.render_chat([*kept, ChatTurn("user", f"turn number {i}")], "S")
        assert longest <= 128
        assert forgotten == sorted(forgotten)
        assert forgotten[-1] > 0
        assert all(count % 2 == 0 for count in forgotten)
        assert len(chat.history) == 48
        assert all(a != b for a, b in pairwise(answers)), "each prompt is another"


def test_a_stop_sequence_of_the_template_ends_the_answer(engine: Any) -> None:
    """Behaviour 16: the template's end of turn, though the model calls it no end."""
    chat = ChatSession(engine, template="instruct", max_tokens=40)
    claim = chat.send("hello").receipt.to_dict()["claim"]
    assert "### Instruction:" in claim["sampling"]["stop"]
    assert (
        EOT
        in ChatSession(engine, template="bitnet", max_tokens=2)
        .send("x")
        .receipt.to_dict()["claim"]["sampling"]["stop_token_ids"]
    )


def test_sessions_on_one_engine_do_not_disturb_each_other(text_model: Path) -> None:
    with bitnet.Engine(text_model, n_threads=2) as engine:

        def talk(name: str) -> list[list[int]]:
            chat = ChatSession(engine, name, template="bitnet", **SHORT)
            return [chat.send(text).token_ids for text in ("hello", name, "world")]

        names = ["a", "b", "hello", "xyz"]
        alone = [talk(name) for name in names]
        together: dict[str, list[list[int]]] = {}
        threads = [threading.Thread(target=lambda name=name: together.update({name: talk(name)})) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [together[name] for name in names] == alone


def test_a_closed_engine_ends_its_conversations(text_model: Path) -> None:
    engine = bitnet.Engine(text_model)
    chat = ChatSession(engine, template="raw", **SHORT)
    chat.send("hello")
    engine.close()
    with pytest.raises(bitnet.ClosedError):
        chat.send("world")
    assert len(chat.history) == 2


def test_a_template_is_chosen_or_found(engine: Any) -> None:
    """Behaviour 8 and 15."""
    assert (engine.template.name, engine.template.origin) == ("raw", "fallback")
    assert "raw" in engine.template.warning
    with pytest.raises(bitnet.TemplateError, match=r"llama9.*llama3-chat"):
        ChatSession(engine, template="llama9")
    own = bitnet.Template.from_jinja("{{ messages[-1]['content'] }}!")
    claim = ChatSession(engine, template=own, **SHORT).send("hello").receipt.to_dict()["claim"]
    assert engine.decode(claim["prompt_ids"]) == "hello!"


def test_ctrl_c_in_a_long_prefill_leaves_the_conversation_usable(text_model: Path) -> None:
    code = """
import signal, sys, bitnet
engine = bitnet.Engine(sys.argv[1], isa="scalar", n_threads=1, n_batch=4)
chat = bitnet.ChatSession(engine, template="raw", max_tokens=3, ignore_eos=True)
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.02)
try:
    chat.send("x" * 200)
    signal.setitimer(signal.ITIMER_REAL, 0)  # an answer that was quicker is none the worse
except KeyboardInterrupt:
    pass
print([turn.role for turn in chat.history])
print(chat.send("hello").finish_reason)
"""
    done = subprocess.run([sys.executable, "-c", code, text_model], capture_output=True, text=True, timeout=120)
    # Nothing has entered the history, unless the answer had begun.
    assert done.stdout in ("[]\nlength\n", "['user', 'assistant']\nlength\n"), done.stderr


@pytest.mark.parametrize("exchanges", [0, 1, 2, 5, 17, 40, 300])
@pytest.mark.parametrize("max_tokens", [4, None])
def test_the_most_exchanges_that_fit_stay(exchanges: int, max_tokens: int | None) -> None:
    with bitnet.Engine(n_ctx=256) as engine:
        dice = random.Random(exchanges)
        history = [
            {"role": ("user", "assistant")[i % 2], "content": "word " * dice.randrange(1, 9)}
            for i in range(2 * exchanges)
        ]
        asked = {"role": "user", "content": "What is 2+2?"}
        chat = bitnet.ChatSession(engine, messages=history, max_tokens=max_tokens)
        chat.send(asked["content"])
        lengths = [engine.count_tokens([*history[2 * i :], asked]) for i in range(exchanges + 1)]
        reserve = min(max_tokens or 256, 256 // 8)
        fits = [i for i, length in enumerate(lengths) if length <= 256 // 4 * 3]
        assert chat.forgotten == (0 if lengths[0] + reserve <= 256 else 2 * fits[0])


def test_a_conversation_is_rendered_as_far_as_it_can_fit() -> None:
    """What leaves the context anyway is not looked at, so that a long conversation costs no more than a full one."""
    bounded = "{% if messages|length > 61 %}{{ raise_exception('too much') }}{% endif %}"
    with bitnet.Engine() as engine:
        template = bitnet.Template.from_jinja(bounded + engine.template.source)
        history = [
            {"role": ("user", "assistant")[i % 2], "content": f"This is message number {i}."} for i in range(2000)
        ]
        chat = bitnet.ChatSession(engine, messages=history, template=template)
        assert chat.send("What is 2+2?").prompt_tokens <= 288
