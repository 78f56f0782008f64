"""One object in many threads at once, with the interpreter's lock or without it (a free-threaded Python)."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import bitnet

THREADS = 8


def at_once(work: Callable[[int], Any]) -> list[Any]:
    """What each thread's call gives; all begin together."""
    start = Barrier(THREADS)

    def begin(i: int) -> Any:
        start.wait()
        return work(i)

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(begin, range(THREADS)))


def test_importing_the_package_leaves_a_free_threaded_python_without_its_lock() -> None:
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        assert not sys._is_gil_enabled()  # type: ignore[attr-defined]


def test_everything_of_an_engine(engine: bitnet.Engine) -> None:
    def work(_: int) -> list[Any]:
        return [
            engine.logits([1, 2, 3]).tobytes(),
            engine.logprobs([65, 66, 67]).tobytes(),
            engine.score("hello", [" world", " hello"]).logprobs.tobytes(),
            engine.embed(["hello", "world"]).tobytes(),
            engine.perplexity("hello world hello"),
            engine.decode(engine.encode("hello world")),
            engine.template.render([bitnet.ChatTurn("user", "hello")]),
            engine.generate("hello", max_tokens=8, temperature=1.0, seed=3).receipt.digest,
            [answer.token_ids for answer in engine.generate(["hello", "world"], max_tokens=4)],
        ]

    alone = work(0)
    assert at_once(work) == [alone] * THREADS


def test_a_stream_in_many_hands_loses_no_piece(engine: bitnet.Engine) -> None:
    settings: dict[str, Any] = {"max_tokens": 60, "ignore_eos": True, "logprobs": 1, "temperature": 1.0, "seed": 4}
    whole = engine.generate("hello", **settings)
    stream = engine.stream("hello", **settings)

    def work(_: int) -> list[int]:
        ids: list[int] = []
        while True:
            try:
                ids.extend(piece.token_id for piece in stream if piece.token_id is not None)
                return ids
            except bitnet.ArgumentError as error:
                assert "one consumer" in str(error)

    assert sorted(id for ids in at_once(work) for id in ids) == sorted(whole.token_ids)
    assert stream.receipt is not None
    assert stream.receipt.digest == whole.receipt.digest


def test_a_conversation_answers_one_at_a_time_and_says_so(engine: bitnet.Engine) -> None:
    chat = bitnet.ChatSession(engine, max_tokens=6, ignore_eos=True)

    def work(i: int) -> int:
        answered = 0
        for _ in range(6):
            try:
                chat.send(f"hello {i}")
                answered += 1
            except bitnet.ArgumentError as error:
                assert "under way" in str(error)
            assert chat.metrics["exchanges"] <= 6 * THREADS
            assert [turn.role for turn in chat.history[:2]] in ([], ["user", "assistant"])
            chat.to_json()
        return answered

    answered = sum(at_once(work))
    assert 1 <= answered == len(chat.receipts)
    assert [turn.role for turn in chat.history] == ["user", "assistant"] * answered
    for before, after in zip(chat.receipts, chat.receipts[1:], strict=False):
        assert after.to_dict()["claim"]["previous"] == before.digest
        after.validate()


def test_an_engine_closed_under_work_ends_it_or_lets_it_end(text_model: Path) -> None:
    for _ in range(4):
        engine = bitnet.Engine(text_model, n_threads=2)
        whole = engine.generate("hello", max_tokens=20, ignore_eos=True).token_ids

        def work(i: int, engine: bitnet.Engine = engine) -> Any:
            if i == 0:
                return engine.close()
            try:
                return [piece.token_id for piece in engine.stream("hello", max_tokens=20, ignore_eos=True)]
            except bitnet.BitnetError as error:
                return "closed" in str(error)

        assert all(found in (True, whole) for found in at_once(work)[1:])


def test_objects_are_read_while_they_are_used(engine: bitnet.Engine) -> None:
    answer = engine.generate("hello", max_tokens=4)
    turns = [bitnet.ChatTurn("user", "hello"), bitnet.ChatTurn("assistant", answer.text)]

    def work(i: int) -> tuple[str, ...]:
        answer.receipt.validate()
        return (
            answer.receipt.to_json(),
            bitnet.Receipt.from_json(answer.receipt.to_json()).digest,
            repr((engine.template, turns, answer.logprobs)),
            engine.template.render(turns, add_generation_prompt=False),
            engine._repr_html_().split("process")[0],  # behind that stands the memory of the moment
        )

    assert len(set(at_once(work))) == 1
