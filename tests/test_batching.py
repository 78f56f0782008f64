"""Calls of every kind at once, on one engine: each result has the bits of the same call alone."""

from __future__ import annotations

import asyncio
import dataclasses
import faulthandler
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import bitnet
from bitnet import ChatSession, SamplingParams
from bitnet._synthetic import Spec
from test_recurrent import HYBRID
from text_model import make_text_model

STUCK = 30.0
"""Seconds after which a call that has not returned is an error; all of them take a few seconds."""
SPECS = {
    "plain": Spec("llama", 2, 128, 192, 2, 1, untied=True),
    "grouped": Spec("llama", 2, 128, 192, 2, 1, untied=True, linear="Q2_0_g64"),
    "hybrid": HYBRID,
    "inside": None,
}
HEADER = "hello world, a header that several prompts begin with, and which is worth a wait: "
TEXTS = ["hello", "world hello world", HEADER + "hello", HEADER + "world", HEADER * 2 + "?", "one two three " * 9, "x"]


def queue_of(engine: Any) -> tuple[int, int, int]:
    """Passes so far, the steps in all of them, and what the queue of steps holds."""
    counts: tuple[int, int, int] = engine._queue
    return counts


def facts(answer: Any, logprobs: Any) -> Any:
    """What must not depend on what runs beside an answer."""
    answer.receipt.validate()
    assert 0 <= answer.cached_tokens < answer.prompt_tokens
    seconds = answer.receipt.seconds
    parts = sum(seconds[part] for part in ("render", "tokenize", "prefill", "decode", "sample", "detokenize"))
    assert parts <= seconds["wall"] + 1e-6, seconds
    return answer.text, answer.token_ids, answer.finish_reason, answer.receipt.digest, logprobs


def of_completion(answer: Any) -> Any:
    return facts(answer, answer.logprobs and [choice.logprob for choice in answer.logprobs])


def of_stream(stream: Any, pulls: int = sys.maxsize) -> Any:
    """Pulls some pieces of a stream, and cancels it if that is not all of them."""
    pieces = []
    for piece in stream:
        pieces.append(piece)
        if len(pieces) == pulls:
            stream.cancel()
    assert "".join(piece.text for piece in pieces) == stream.text or stream.finish_reason == "cancelled"
    return facts(stream, [piece.logprob.logprob for piece in pieces if piece.logprob] or None)


@dataclass
class Answer:
    """The answer to one prompt, or to one conversation."""

    prompt: Any
    sampling: dict[str, Any]
    pulls: int = sys.maxsize
    """Pieces after which it is cancelled."""

    @property
    def is_chat(self) -> bool:
        return isinstance(self.prompt, list)

    def run(self, engine: Any) -> Any:
        start = engine.chat if self.is_chat else engine.generate
        if self.pulls == sys.maxsize:
            return of_completion(start(self.prompt, **self.sampling))
        return of_stream(
            (engine.chat_stream if self.is_chat else engine.stream)(self.prompt, **self.sampling), self.pulls
        )

    async def arun(self, engine: Any) -> Any:
        if self.pulls == sys.maxsize:
            return of_completion(
                await (engine.achat if self.is_chat else engine.agenerate)(self.prompt, **self.sampling)
            )
        return await asyncio.to_thread(self.run, engine)


@dataclass
class Conversation:
    """What happens in a conversation, one thing after the other; the results of its answers."""

    seed: int

    def run(self, engine: Any) -> Any:
        draw, found = random.Random(self.seed), []
        chat = ChatSession(engine, draw.choice([None, HEADER]), template="bitnet", ignore_eos=True)
        for _ in range(5):
            match draw.choice(["send", "send", "cancel", "fork", "rewind"]):
                case "fork":
                    chat = chat.fork()
                case "rewind" if chat.receipts:
                    chat.rewind(1)
                case what:
                    stream = chat.stream(draw.choice(TEXTS), seed=3, temperature=0.8, max_tokens=6, logprobs=1)
                    found.append(of_stream(stream, 2 if what == "cancel" else sys.maxsize))
        return found


@dataclass
class Numbers:
    """A call that gives numbers."""

    call: Callable[[Any], Any]

    def run(self, engine: Any) -> Any:
        return self.call(engine)


@dataclass
class Replayed:
    """An answer, and whether a replay gives it again."""

    answer: Answer

    def run(self, engine: Any) -> Any:
        receipt = engine.generate(self.answer.prompt, **self.answer.sampling).receipt
        return receipt.digest, engine.replay(receipt)


def scores(engine: Any, contexts: list[str]) -> Any:
    found = [engine.score(context, [" world", " hello world", "x"]) for context in contexts]
    return [(score.logprobs if hasattr(score, "logprobs") else score.logprob).tolist() for score in found]


def bytes_of(arrays: Any) -> Any:
    return [array.tobytes() for array in arrays] if isinstance(arrays, list) else arrays.tobytes()


def numbers(draw: random.Random) -> Numbers:
    texts = draw.sample(TEXTS, 3)
    calls: list[Callable[[Any], Any]] = [
        lambda engine: scores(engine, texts),
        lambda engine: bytes_of(engine.embed(texts, normalize=True)),
        lambda engine: engine.perplexity(texts[0] + HEADER),
        lambda engine: bytes_of(engine.logprobs(engine.encode(texts[0] + "ab"))),
        lambda engine: bytes_of(engine.logits_batch([engine.encode(text)[:9] for text in texts])),
        lambda engine: engine.generate_tokens([engine.encode(text) for text in texts], max_tokens=5),
        lambda engine: engine.prefill(engine.encode(texts[1])).tokens,
    ]
    return Numbers(draw.choice(calls))


def answer(draw: random.Random) -> Answer:
    sampling: dict[str, Any] = {
        "max_tokens": draw.choice([1, 2, 7, 16, 24]),
        "ignore_eos": draw.random() < 0.8,
        "temperature": draw.choice([0.0, 0.7, 1.5]),
        "seed": draw.randrange(5),
    }
    others: list[dict[str, Any]] = [
        {},
        {"logprobs": 2},
        {"top_k": 9, "top_p": 0.8, "logprobs": 1},
        {"repetition_penalty": 1.3, "frequency_penalty": 0.4},
        {"stop": ["e", "or"]},
        {"logit_bias": {65: 4.0, 66: -4.0}, "min_p": 0.1},
    ]
    sampling |= draw.choice(others)
    text = draw.choice(TEXTS)
    prompt = [{"role": "system", "content": HEADER}, {"role": "user", "content": text}] if draw.random() < 0.4 else text
    return Answer(prompt, sampling, draw.choice([sys.maxsize, sys.maxsize, 1, 3]))


def mixed(seed: int, count: int) -> list[Any]:
    """Calls of all kinds."""
    draw = random.Random(seed)

    def one() -> Any:
        match draw.choice(["answer"] * 6 + ["conversation", "numbers", "numbers", "replay"]):
            case "answer":
                return answer(draw)
            case "conversation":
                return Conversation(draw.randrange(9))
            case "numbers":
                return numbers(draw)
        return Replayed(Answer(draw.choice(TEXTS), {"max_tokens": 9, "temperature": 1.0, "seed": 1}))

    return [one() for _ in range(count)]


class Crowd:
    """Threads and tasks that make the same calls at once, each in an order and in groups of its own, and others whose
    calls come to nothing."""

    def __init__(self, engine: Any, calls: list[Any], expected: list[Any], seed: int) -> None:
        self.engine, self.calls, self.expected, self.seed = engine, calls, expected, seed
        self.is_over = False
        self.errors: list[BaseException] = []

    def check(self, index: int, found: Any) -> None:
        assert found == self.expected[index], self.calls[index]

    def groups(self, draw: random.Random) -> list[list[int]]:
        """All calls; some answers in lists."""
        order = draw.sample(range(len(self.calls)), len(self.calls))
        groups: list[list[int]] = []
        for is_chat in (False, True):
            kind = [i for i in order if isinstance(self.calls[i], Answer) and self.calls[i].is_chat == is_chat]
            while whole := [i for i in kind if self.calls[i].pulls == sys.maxsize]:
                groups.append(whole[: draw.choice([1, 1, 2, 6])])
                kind = [i for i in kind if i not in groups[-1]]
        grouped = {i for group in groups for i in group}
        groups += [[i] for i in order if i not in grouped]
        draw.shuffle(groups)
        return groups

    def many(self, group: list[int]) -> dict[str, Any]:
        """The arguments of a call with several answers."""
        answers = [self.calls[i] for i in group]
        params = [SamplingParams(**answer.sampling) for answer in answers]
        return {"messages" if answers[0].is_chat else "prompt": [answer.prompt for answer in answers], "params": params}

    def thread(self, seed: int) -> None:
        for group in self.groups(random.Random(seed)):
            if len(group) == 1:
                self.check(group[0], self.calls[group[0]].run(self.engine))
                continue
            start = self.engine.chat if self.calls[group[0]].is_chat else self.engine.generate
            for i, found in zip(group, start(**self.many(group)), strict=True):
                self.check(i, of_completion(found))

    async def task(self, seed: int) -> None:
        for group in self.groups(random.Random(seed)):
            call = self.calls[group[0]]
            if len(group) > 1:
                answers = await (self.engine.achat if call.is_chat else self.engine.agenerate)(**self.many(group))
                for i, found in zip(group, answers, strict=True):
                    self.check(i, of_completion(found))
            elif isinstance(call, Answer):
                self.check(group[0], await call.arun(self.engine))
            else:
                self.check(group[0], await asyncio.to_thread(call.run, self.engine))

    async def tasks(self, seed: int) -> None:
        await asyncio.gather(*(self.task(seed + i) for i in range(3)))

    async def quitters(self, seed: int) -> None:
        """Tasks that are cancelled at any moment."""
        draw = random.Random(seed)
        while not self.is_over:
            prompts = [draw.choice(TEXTS) for _ in range(draw.randint(1, 5))]
            task = asyncio.ensure_future(self.engine.agenerate(prompts, max_tokens=30, ignore_eos=True))
            await asyncio.sleep(draw.choice([0, 0.001, 0.01]))
            task.cancel()
            await asyncio.wait([task])

    def disturb(self, seed: int) -> None:
        """Streams that are dropped, or cancelled from another thread; answers that fail; an emptied prefix cache."""
        draw = random.Random(seed)
        while not self.is_over:
            stream = self.engine.stream(draw.choice(TEXTS), max_tokens=40, ignore_eos=True, seed=1, temperature=1.0)
            match draw.choice(["drop", "cancel", "fail", "empty"]):
                case "drop":
                    for _ in range(draw.randrange(5)):
                        next(stream)
                case "cancel":
                    timer = threading.Timer(draw.random() * 0.01, stream.cancel)
                    timer.start()
                    pieces = list(stream)
                    timer.join()
                    assert stream.finish_reason in ("cancelled", "length", "context")
                    if stream.receipt and pieces:
                        stream.receipt.validate()
                        assert self.engine.replay(stream.receipt)
                case "fail":
                    bans = dict.fromkeys(range(self.engine.n_vocab), float("-inf"))
                    with pytest.raises(bitnet.ArgumentError, match="bans every id"):
                        self.engine.generate(draw.choice(TEXTS), logit_bias=bans)
                case "empty":
                    self.engine.clear_cache()

    def guarded(self, work: Callable[[int], Any], seed: int) -> None:
        try:
            coroutine = work(seed)
            if coroutine is not None:
                asyncio.run(coroutine)
        except BaseException as error:
            self.errors.append(error)
            self.is_over = True

    def run(self) -> None:
        steady: list[Callable[[int], Any]] = [self.thread, self.thread, self.tasks]
        unsteady: list[Callable[[int], Any]] = [self.quitters, self.disturb]
        threads = [
            threading.Thread(target=self.guarded, args=(work, self.seed + 10 * i), daemon=True)
            for i, work in enumerate(steady + unsteady)
        ]
        for thread in threads:
            thread.start()
        for i, thread in enumerate(threads):
            if i == len(steady):
                self.is_over = True
            thread.join(STUCK)
            if thread.is_alive():
                faulthandler.dump_traceback(all_threads=True)
                pytest.fail("a call does not return")
        if self.errors:
            raise self.errors[0]


@pytest.fixture(scope="module", params=SPECS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The path of a model, calls, and their results, each alone."""
    spec = SPECS[request.param]
    path: Any = "trit"
    if spec:
        path = tmp_path_factory.mktemp("batching") / "model.gguf"
        make_text_model(path, 384, spec)
    calls = mixed(1, 24 if spec else 12)
    with bitnet.Engine(path, n_threads=1, n_ctx=384, cache_bytes=0, max_batch=1) as engine:
        return path, calls, [call.run(engine) for call in calls]


@pytest.mark.filterwarnings("ignore:the model has a chat template")
@pytest.mark.parametrize(
    ("n_batch", "max_batch", "n_threads", "cache_bytes"),
    [(1, 1, 1, 0), (2, 32, 2, 150_000), (3, 2, 2, None), (7, 32, 1, 1_000_000), (128, 32, 2, None)],
)
def test_whatever_runs_beside_a_call(
    model: Any, n_batch: int, max_batch: int, n_threads: int, cache_bytes: int | None
) -> None:
    path, calls, expected = model
    options: dict[str, Any] = {} if cache_bytes is None else {"cache_bytes": cache_bytes}
    with bitnet.Engine(path, n_ctx=384, n_batch=n_batch, max_batch=max_batch, n_threads=n_threads, **options) as engine:
        Crowd(engine, calls, expected, n_batch).run()
        passes, steps, held = queue_of(engine)
        assert steps > passes or max_batch == n_batch == 1
        assert held == 0
        assert engine.memory["kv_cache"] <= engine.cache_bytes
        engine.clear_cache()
        assert (engine.cached_tokens, engine.memory["kv_cache"]) == (0, 0)


@pytest.fixture
def busy(request: pytest.FixtureRequest) -> Any:
    """An engine whose passes take some milliseconds, beside two threads that stream all the time."""
    options = {"n_threads": 2, "max_batch": 2, "n_batch": 2} | getattr(request, "param", {})
    engine, is_over = bitnet.Engine(**options), threading.Event()

    def stream(text: str) -> None:
        while not is_over.is_set():
            for _ in engine.stream(text, max_tokens=50, ignore_eos=True):
                if is_over.is_set():
                    break

    threads = [threading.Thread(target=stream, args=(text,), daemon=True) for text in TEXTS[:2]]
    for thread in threads:
        thread.start()
    yield engine
    is_over.set()
    for thread in threads:
        thread.join(STUCK)
        assert not thread.is_alive()


def returns(work: Callable[[], Any]) -> None:
    """Calls `work` on another thread, so that a call that never returns is a failure."""
    errors: list[BaseException] = []

    def call() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(STUCK)
    assert not thread.is_alive()
    for error in errors:
        raise error


@pytest.mark.filterwarnings("ignore:the model has a chat template")
def test_a_list_that_is_cancelled_while_others_compute_some_of_it(busy: Any) -> None:
    async def cancel(after: float) -> None:
        task = asyncio.ensure_future(busy.agenerate(["hello world"] * 4, max_tokens=50, ignore_eos=True))
        await asyncio.sleep(after)
        task.cancel()
        await asyncio.wait([task])

    async def some() -> None:
        draw = random.Random(1)
        for _ in range(60):
            await cancel(draw.random() * 0.05)

    returns(lambda: asyncio.run(some()))


def test_a_prompt_of_many_short_passes_can_be_cancelled(tmp_path: Path) -> None:
    make_text_model(tmp_path / "model.gguf", 16384)
    ids = [65, 66, 67, 68] * 4000
    with bitnet.Engine(tmp_path / "model.gguf", n_threads=1, n_ctx=16384, n_batch=1) as engine:

        async def cancel() -> None:
            task = asyncio.ensure_future(engine.agenerate(ids, max_tokens=1))
            while queue_of(engine)[0] == 0:
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.wait([task])

        returns(lambda: asyncio.run(cancel()))
        while queue_of(engine)[2]:  # the abandoned step ends beside the event loop
            time.sleep(0.01)
        assert queue_of(engine)[0] < len(ids)


def test_of_many_continuations_few_are_under_way(text_model: Path) -> None:
    with bitnet.Engine(text_model, n_threads=1, max_batch=4) as engine, ThreadPoolExecutor(1) as threads:
        continuations = [[i % 250, i // 250, 1, 2] for i in range(1000)]
        scores = threads.submit(engine.score, [65, 66, 67], continuations)
        held = []
        while not scores.done():
            held.append(queue_of(engine)[2])
        assert held
        assert max(held) <= 4
        alone = [engine.score([65, 66, 67], [ids]).logprobs[0] for ids in continuations[:20]]
        assert scores.result().logprobs[:20].tolist() == alone


DROP = """
import os, sys, threading, time
import bitnet
engine = bitnet.Engine(sys.argv[1], n_threads=2, n_ctx=8192, n_batch=128, cache_bytes=0)
def compute():
    while True:
        engine.generate([65, 66, 67, 68] * 1900, max_tokens=1)
threading.Thread(target=compute, daemon=True).start()
for i in range(2):
    streams = [engine.stream([65], max_tokens=1), engine.stream([70 + i, 71, 72] * 2500, max_tokens=1)]
    answers = bitnet._core._Together(streams)
    next(answers)
    time.sleep(0.15)  # the other thread computes a part of the long prompt
    passes = engine._queue[0]
    del answers
    assert engine._queue[0] <= passes + 3, "it waits for the pass under way and no further"
os._exit(0)
"""


def test_answers_dropped_while_another_thread_computes_them_do_not_keep_the_interpreters_lock(tmp_path: Path) -> None:
    make_text_model(tmp_path / "model.gguf", 8192, Spec("llama", 4, 1024, 2048, 8, 4, untied=True))
    subprocess.run([sys.executable, "-c", DROP, str(tmp_path / "model.gguf")], check=True, timeout=STUCK)


@pytest.mark.filterwarnings("ignore:the model has a chat template")
def test_200_requests_have_the_same_digests_however_they_are_asked_for(text_model: Path) -> None:
    draw = random.Random(2)
    calls = [dataclasses.replace(answer(draw), pulls=sys.maxsize) for _ in range(200)]
    with bitnet.Engine(text_model, n_threads=1, cache_bytes=0, max_batch=1) as engine:
        alone = [call.run(engine) for call in calls]
    texts = [i for i, call in enumerate(calls) if not call.is_chat]
    chats = [i for i, call in enumerate(calls) if call.is_chat]
    with bitnet.Engine(text_model, n_threads=2) as engine:
        crowd = Crowd(engine, calls, alone, 0)
        for group, start in ((texts, engine.generate), (chats, engine.chat)):
            for i, found in zip(group, start(**crowd.many(group)), strict=True):
                crowd.check(i, of_completion(found))
        passes, steps, _ = queue_of(engine)
        assert steps > 8 * passes, "a list shares its passes"
    with bitnet.Engine(text_model, n_threads=2) as engine, ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda call: call.run(engine), calls)) == alone
    with bitnet.Engine(text_model, n_threads=2) as engine:

        async def all_at_once() -> list[Any]:
            return await asyncio.gather(*(call.arun(engine) for call in calls))

        assert asyncio.run(all_at_once()) == alone
        passes, steps, held = queue_of(engine)
        assert steps > passes  # how many share a pass depends on the load: mostly six, two on a busy machine
        assert held == 0
