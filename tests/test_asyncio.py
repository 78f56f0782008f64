"""`async for` and `await`: the same answers, an event loop that is never kept waiting, cancelled steps."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import bitnet
from bitnet import BitnetError, ChatSession
from bitnet._synthetic import Spec
from conftest import ModelMaker

DRAWN: dict[str, Any] = {"max_tokens": 8, "temperature": 1.0, "seed": 3, "ignore_eos": True}
SLOW = Spec("bitnet", 8, 1024, 4096, 16, 16, vocab_size=300, context=2048, linear="F32")
LONG = list(range(100)) * 19
"""Nobody waits for it to its end."""
SHORT = list(range(30))


@pytest.fixture
def slow(model: ModelMaker) -> Iterator[Any]:
    """An engine that takes long to compute a prompt, but not its chunks."""
    with bitnet.Engine(model(SLOW), isa="scalar", n_batch=16) as engine:
        yield engine


async def read(stream: AsyncIterator[Any]) -> list[tuple[str, int | None, str | None]]:
    return [(piece.text, piece.token_id, piece.finish_reason) async for piece in stream]


async def first(stream: Any) -> Any:
    return await stream.__anext__()


def test_the_same_stream_works_with_async_for(engine: Any) -> None:
    expected = engine.stream("hello world", **DRAWN)
    pieces = [(piece.text, piece.token_id, piece.finish_reason) for piece in expected]
    stream = engine.stream("hello world", **DRAWN)
    assert asyncio.run(read(stream)) == pieces
    assert (stream.text, stream.receipt.digest) == (expected.text, expected.receipt.digest)
    stream.receipt.validate()
    # One may change over in the middle.
    both = engine.stream("hello world", **DRAWN)
    begun = [(piece.text, piece.token_id, piece.finish_reason) for piece in (next(both), next(both))]
    assert begun + asyncio.run(read(both)) == pieces


def test_whole_answers(engine: Any) -> None:
    def facts(answer: Any) -> Any:
        return answer.text, answer.token_ids, answer.receipt.digest, str(answer.logprobs)

    prompts: list[Any] = ["hello", [104, 101], "world"]
    expected = [facts(engine.generate(prompt, logprobs=2, **DRAWN)) for prompt in prompts]
    # Without a task around it, as a coroutine is run.
    assert facts(asyncio.run(engine.agenerate("hello", logprobs=2, **DRAWN))) == expected[0]
    assert [facts(answer) for answer in asyncio.run(engine.agenerate(prompts, logprobs=2, **DRAWN))] == expected

    async def talk(chat: Any) -> list[Any]:
        return [facts(await chat.asend(text)) for text in ("hello", "world")]

    chat, other = (ChatSession(engine, template="bitnet", **DRAWN) for _ in range(2))
    assert asyncio.run(talk(chat)) == [facts(other.send(text)) for text in ("hello", "world")]
    assert chat.history == other.history


def test_errors_are_raised_by_await(engine: Any) -> None:
    async def ask(prompt: Any, **keywords: Any) -> None:
        await engine.agenerate(prompt, **keywords)

    for prompt, keywords, error in (
        ("hello", {"top_p": 2.0}, bitnet.ArgumentError),
        ([10**6], {}, bitnet.TokenIdError),
        ([1] * 1000, {}, bitnet.ContextLengthError),
    ):
        with pytest.raises(error):
            asyncio.run(ask(prompt, **keywords))


def test_the_loop_goes_on_while_a_prompt_is_computed(slow: Any) -> None:
    async def main() -> int:
        answer = asyncio.ensure_future(slow.agenerate(SHORT, max_tokens=1))
        ticks = 0
        while not answer.done():
            await asyncio.sleep(0)
            ticks += 1
        await answer
        return ticks

    # Of a loop that computes, a turn or two would be left.
    assert asyncio.run(main()) > 10


async def cancelled(work: Any) -> None:
    """Cancel it in the middle of a step."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0.1)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_cancelling_a_task_abandons_its_step(slow: Any) -> None:
    async def main() -> None:
        slow.clear_cache()
        stream = slow.stream(LONG, max_tokens=1)
        await cancelled(first(stream))
        # The stream is free at once, and where it was: a step that ran to its end would have given the only id.
        assert (stream.completion_tokens, stream.finish_reason, stream.cached_tokens) == (0, None, 0)
        stream.cancel()
        assert slow.cached_tokens == 0

        await cancelled(slow.agenerate([1, 2, 3, *LONG], max_tokens=1))
        chat = ChatSession(slow, template="raw", max_tokens=1)
        with pytest.raises(BitnetError):
            await chat.asend("a model without a tokenizer")
        assert chat.history == []

    asyncio.run(main())


def test_a_cancelled_stream_goes_on(slow: Any) -> None:
    prompt = SHORT
    expected = slow.generate(prompt, max_tokens=3).token_ids
    slow.clear_cache()

    async def main() -> list[int | None]:
        stream = slow.stream(prompt, max_tokens=3)
        task = asyncio.ensure_future(first(stream))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        return [piece.token_id async for piece in stream]

    assert asyncio.run(main()) == expected


def test_a_cancelled_question_leaves_the_conversation_free() -> None:
    """Whenever it is cancelled: the next question finds the conversation idle, and turns alternate."""
    with bitnet.Engine() as engine:

        async def main() -> None:
            for turns in range(0, 40, 3):
                chat = ChatSession(engine)
                task = asyncio.ensure_future(chat.asend("What is 99+99?"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert (await chat.asend("What is 2+2?")).receipt.validate() is None
                assert [turn.role for turn in chat.history] == ["user", "assistant"] * (len(chat.history) // 2)

        asyncio.run(main())


def test_a_stream_has_one_consumer(slow: Any) -> None:
    async def main() -> list[Any]:
        stream = slow.stream(SHORT, max_tokens=1)
        return await asyncio.gather(first(stream), first(stream), return_exceptions=True)

    kinds = {type(result) for result in asyncio.run(main())}
    assert kinds == {bitnet.Piece, bitnet.ArgumentError}


def test_a_hundred_conversations_at_once() -> None:
    questions = [f"What is {i}+{j}?" for i in range(10) for j in range(10)]
    with bitnet.Engine() as engine:

        async def streamed(question: str) -> str:
            stream = ChatSession(engine).stream(question)
            return "".join([piece.text async for piece in stream])

        async def sent(question: str) -> str:
            answer: str = (await ChatSession(engine).asend(question)).text
            return answer

        async def all_of(ask: Any) -> list[str]:
            return list(await asyncio.gather(*map(ask, questions)))

        expected = [ChatSession(engine).send(question).text for question in questions]
        assert len(set(expected)) > 50
        assert asyncio.run(all_of(streamed)) == expected
        assert asyncio.run(all_of(sent)) == expected


def test_nothing_is_kept() -> None:
    """Neither memory nor threads grow with the answers, those that were cancelled or left included."""
    with bitnet.Engine() as engine:

        async def some(n: int) -> None:
            for i in range(n):
                await engine.agenerate([1, 2], max_tokens=2)
                left = engine.stream([1, 2], max_tokens=4)
                await first(left)
                task = asyncio.ensure_future(first(engine.stream(list(range(200)))))
                for _ in range(i % 5):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])

        asyncio.run(some(100))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        asyncio.run(some(400))
        # A cache page of this model takes 100 kB and more.
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8_000
        assert threading.active_count() < 20


def script(code: str, *arguments: str | Path, interrupted: bool = False) -> subprocess.CompletedProcess[str]:
    """Run it with every warning an error; Ctrl-C once it says that it is ready, if asked for."""
    # In dev mode asyncio also reports slow callbacks, which a busy machine has. Its errors stay visible.
    quiet = "import logging\nlogging.getLogger('asyncio').setLevel(logging.ERROR)\n"
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", quiet + code, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        if interrupted:
            assert process.stdout and process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def test_ctrl_c_in_the_middle_of_a_step(model: ModelMaker) -> None:
    code = """
import asyncio, sys, bitnet
engine = bitnet.Engine(sys.argv[1], isa="scalar", n_batch=16)
async def main():
    asyncio.get_running_loop().call_later(0.2, lambda: print("ready", flush=True))
    async for piece in engine.stream(list(range(100)) * 19, max_tokens=1):
        print("computed")
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", len(engine.generate([1, 2], max_tokens=2).token_ids))
"""
    done = script(code, model(SLOW), interrupted=True)
    assert (done.stdout, done.stderr, done.returncode) == ("interrupted 2\n", "", 0)


def test_leaving_with_streams_open() -> None:
    code = """
import asyncio, bitnet
engine = bitnet.Engine()
chat = bitnet.ChatSession(engine)
streams = []
async def main():
    for _ in range(20):
        streams.append(engine.stream(engine.encode("Hello"), max_tokens=50))
        await streams[-1].__anext__()
    streams.append(chat.stream("What is 2+2?"))
    async for piece in streams[-1]:
        break
    streams.append(engine.stream(list(range(300))))
    asyncio.ensure_future(pull(streams[-1]))  # cancelled by `run` when it has just begun
    await asyncio.sleep(0)
async def pull(stream):
    await stream.__anext__()
asyncio.run(main())
print("left")
"""
    done = script(code)
    assert (done.stdout, done.stderr, done.returncode) == ("left\n", "", 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_is_told() -> None:
    code = """
import asyncio, os, warnings, bitnet
engine = bitnet.Engine()
asyncio.run(engine.agenerate(engine.encode("Hello"), max_tokens=1))
warnings.simplefilter("ignore")
child = os.fork()
if not child:
    try:
        asyncio.run(bitnet.Engine().agenerate([1], max_tokens=1))
    except bitnet.BitnetError as error:
        print("spawn" in str(error), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    done = script(code)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_task_is_stopped_from_outside(slow: Any) -> None:
    """A button, or `aclosing`, ends an answer whose step is under way; the task that pulls finds its end."""

    async def main() -> tuple[int, str | None]:
        stream = slow.stream(LONG)
        pieces = asyncio.ensure_future(read(stream))
        await asyncio.sleep(0.1)
        assert (stream.prompt_tokens, stream.completion_tokens, stream.finish_reason) == (len(LONG), 0, None)
        stream.cancel()
        return len(await pieces), stream.finish_reason

    assert asyncio.run(main()) == (0, "cancelled")

    async def closed() -> Any:
        async with contextlib.aclosing(slow.stream(SHORT)) as stream:
            async for _ in stream:
                break
        return stream

    stream = asyncio.run(closed())
    assert (stream.finish_reason, list(stream)) == ("cancelled", [])


def test_steps_in_the_queue_are_given_up_where_they_stand(model: ModelMaker) -> None:
    """They do not wait for the step at the engine's threads, which here is a whole prompt."""

    async def main(slow: bitnet.Engine) -> list[bool]:
        asks = [slow.agenerate(LONG[:200], max_tokens=1) for _ in range(9)]
        first, *others = map(asyncio.ensure_future, asks)
        await asyncio.sleep(0.1)
        for other in others:
            other.cancel()
        await asyncio.wait(others, timeout=60)
        before = [first.done(), *(other.cancelled() for other in others)]
        first.cancel()
        return before

    with bitnet.Engine(model(SLOW), isa="scalar", n_batch=200) as engine:
        assert asyncio.run(main(engine)) == [False] + [True] * 8


def test_leaving_ends_the_loops_of_other_threads() -> None:
    code = """
import asyncio, atexit, sys, threading, bitnet
engine = bitnet.Engine()
begun = threading.Event()
async def forever():
    while True:
        await engine.agenerate([1, 2], ignore_eos=True)
        begun.set()
thread = threading.Thread(target=lambda: asyncio.run(forever()), daemon=True)
atexit.register(lambda: (thread.join(60), print(thread.is_alive())))
thread.start()
begun.wait()
"""
    done = script(code)
    assert (done.stdout, done.stderr, done.returncode) == ("False\n", "", 0)


def test_a_coroutine_that_is_never_awaited_says_which() -> None:
    with pytest.warns(RuntimeWarning, match=r"coroutine 'Engine\.agenerate' was never awaited"):
        bitnet.Engine().agenerate([1, 2])
