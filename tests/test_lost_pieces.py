"""No interrupted pull loses a piece: timeouts, cancelled tasks, signals; with short and with long steps."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import bitnet
from bitnet import Engine, Stream
from bitnet._synthetic import Spec
from conftest import ModelMaker

STEPS = Spec("bitnet", 4, 1024, 4096, 16, 16, vocab_size=300, context=2048, linear="F32")
"""A step of its decode takes some milliseconds."""


@pytest.fixture(scope="module")
def short() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def long(model: ModelMaker) -> Iterator[Engine]:
    with Engine(model(STEPS), isa="scalar") as engine:
        yield engine


INTERRUPTS = 40
"""Of one answer. Later steps run to their end, so that the answer ends where steps take longer than their time."""


def begin(engine: Engine, seed: int) -> Stream:
    """An answer of 24 pieces."""
    return engine.stream([1, 2, 3], max_tokens=24, temperature=1.0, seed=seed, ignore_eos=True)


@pytest.fixture(params=["short", "long"])
def engine(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def check(stream: Stream, pieces: list[Any]) -> None:
    """Every piece was delivered, once and in order."""
    assert [piece.token_id for piece in pieces] == stream.token_ids
    assert "".join(piece.text for piece in pieces) == stream.text
    assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["length"]


async def with_timeouts(stream: Stream, limit: Callable[[], float]) -> list[Any]:
    """Reads as servers do that send a heartbeat."""
    pieces, interrupts = [], 0
    while True:
        try:
            pieces.append(await asyncio.wait_for(anext(stream), limit() if interrupts < INTERRUPTS else None))
        except (TimeoutError, asyncio.TimeoutError):
            interrupts += 1
        except StopAsyncIteration:
            return pieces


def test_a_timeout_loses_no_piece(engine: Engine) -> None:
    dice = random.Random(1)
    for seed in range(10):
        stream = begin(engine, seed)
        check(stream, asyncio.run(with_timeouts(stream, lambda: dice.uniform(0, 0.01))))


def test_a_cancelled_task_loses_no_piece(engine: Engine) -> None:
    """The task that reads is cancelled, and another one goes on, with pulls from plain Python between them."""
    dice = random.Random(2)

    async def read(stream: Stream, pieces: list[Any]) -> None:
        async for piece in stream:
            pieces.append(piece)

    async def interrupted(stream: Stream, pieces: list[Any]) -> None:
        for _ in range(INTERRUPTS):
            task = asyncio.ensure_future(read(stream, pieces))
            await asyncio.sleep(dice.uniform(0, 0.01))
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    for seed in range(10):
        stream, pieces = begin(engine, seed), list[Any]()
        asyncio.run(interrupted(stream, pieces))
        pieces.extend(stream)
        check(stream, pieces)


class Interrupt(Exception):
    """What the handler of the signal raises, as Python's own raises KeyboardInterrupt."""


def test_a_signal_loses_no_piece(engine: Engine) -> None:
    dice = random.Random(3)

    def handler(*_: Any) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for seed in range(10):
            stream, pieces = begin(engine, seed), list[Any]()
            for _ in range(INTERRUPTS):
                with contextlib.suppress(Interrupt):
                    signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.001, 0.02))
                    for piece in stream:
                        pieces.append(piece)
                stop_timer()
            pieces.extend(stream)
            check(stream, pieces)
    finally:
        signal.signal(signal.SIGALRM, before)


def stop_timer() -> None:
    """The last signal may come while the timer is being stopped."""
    with contextlib.suppress(Interrupt):
        signal.setitimer(signal.ITIMER_REAL, 0)
        time.sleep(0)


def test_a_piece_that_waits_is_delivered_after_a_cancel(short: Engine) -> None:
    async def interrupted(stream: Stream) -> None:
        task = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        while not stream.token_ids:  # the step has ended, and its piece is on the way
            time.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    stream = begin(short, 1)
    asyncio.run(interrupted(stream))
    stream.cancel()
    pieces = list(stream)
    assert [piece.token_id for piece in pieces] == stream.token_ids != []
    assert stream.finish_reason == "cancelled"


def test_whole_answers_are_not_cut(short: Engine) -> None:
    """`wait_for` around a whole answer: it is abandoned, and the next one is complete."""
    full = short.generate([1, 2, 3], max_tokens=24, ignore_eos=True)

    async def main() -> bitnet.Completion:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(short.agenerate([1, 2, 3], max_tokens=24, ignore_eos=True), 0.0001)
        return await short.agenerate([1, 2, 3], max_tokens=24, ignore_eos=True)

    assert asyncio.run(main()).token_ids == full.token_ids
