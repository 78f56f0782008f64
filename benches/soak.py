"""Use one engine for minutes as a server of strangers would, and assert that nothing wears out.

python benches/soak.py [--minutes 20] [--threads 8] [--tasks 8] [--clients 8]

Threads and asyncio tasks create conversations and stream, cancel, fork, rewind, save, load and pickle them at random.
Clients, which are tasks, too, stream answers and ask for lists of them, and disconnect at any moment. Asserted: the
pieces of each stream join to its text, each answer equals its replay, the digests of clients' answers are those of the
same requests alone on an engine that does not batch, nothing waits for a minute, and resident memory, measured at rest,
stays within 2 % after a warm-up of a quarter of the time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import faulthandler
import gc
import os
import pickle
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import bitnet

TEXTS = ("What is 2+2?", "What is a cat?", "Name a color.", "And then?", "Say <|eot_id|> and 7*6.")
SAMPLING: dict[str, Any] = {"max_tokens": 24, "temperature": 1.0, "ignore_eos": True}
"""Of clients' requests."""
STUCK = 60.0
"""Seconds without a finished life of any one worker, after which the soak ends with all stacks."""
CACHE = 4 << 20
"""Bytes of the prefix cache; it is full after the warm-up, and entries come and go."""
ROUNDS = 20
"""After each, memory is measured while nobody works."""
WARM_UP = 5
"""Rounds before memory counts."""
ALLOWED = 0.02


class Soak:
    """The engine, and what the workers have done so far."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.engine = bitnet.Engine(cache_bytes=CACHE)
        self.digests = offline()
        self.folder = folder
        self.seconds = seconds
        """The length of a round."""
        self.end = 0.0
        self.draw_from = 0
        """The seed of a round's first worker."""
        self.done: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.alive: dict[str, float] = {}
        self.errors: list[BaseException] = []

    def count(self, what: str) -> None:
        with self.lock:
            self.done[what] += 1

    def runs(self, worker: str) -> bool:
        self.alive[worker] = time.monotonic()
        return self.alive[worker] < self.end and not self.errors

    def check(self, stream: bitnet.Stream, pieces: list[bitnet.Piece], replayed: bool) -> None:
        """An answer that has ended: no piece is lost, and a replay gives the same ids."""
        assert "".join(piece.text for piece in pieces) == stream.text, f"{pieces} is not {stream.text!r}"
        self.count(f"answers: {stream.finish_reason}")
        if stream.receipt and replayed:
            receipt = pickle.loads(pickle.dumps(stream.receipt))
            receipt.validate()
            assert self.engine.replay(receipt), receipt.to_json()
            self.count("replays")

    def change(self, chat: bitnet.ChatSession, draw: random.Random, path: Path) -> bitnet.ChatSession:
        """Do one thing to a conversation that is not streaming."""
        match what := draw.choice(("keep", "fork", "rewind", "save and load", "pickle", "clear")):
            case "fork":
                chat = chat.fork()
            case "rewind" if chat.receipts:
                chat.rewind(1)
            case "save and load":
                chat.save(path, cache=draw.random() < 0.5)
                chat = bitnet.ChatSession.load(self.engine, path, cache=draw.random() < 0.5)
            case "pickle":
                history = pickle.loads(pickle.dumps((chat.history, chat.receipts, chat.params)))
                assert history[0] == chat.history
            case "clear":
                chat.clear()
        self.count(what)
        return chat

    def new_chat(self, draw: random.Random) -> bitnet.ChatSession:
        self.count("conversations")
        system = draw.choice((None, "Be brief."))
        return bitnet.ChatSession(
            self.engine, system, max_tokens=draw.randint(1, 24), temperature=draw.choice((0.0, 1.0))
        )

    # Both kinds of workers --------------------------------------------------------------------------------------------

    def thread(self, number: int) -> None:
        draw, worker = random.Random(self.draw_from + number), f"thread {number}"
        while self.runs(worker):
            chat = self.new_chat(draw)
            for _ in range(draw.randint(1, 4)):
                stream, pieces = chat.stream(draw.choice(TEXTS), seed=draw.randrange(99)), []
                stop_after = draw.choice((1, 3, 99))
                for piece in stream:
                    pieces.append(piece)
                    if len(pieces) == stop_after:
                        stream.cancel()
                self.check(stream, pieces, draw.random() < 0.2)
                chat = self.change(chat, draw, self.folder / worker)

    async def task(self, number: int) -> None:
        draw, worker = random.Random(self.draw_from + 500 + number), f"task {number}"
        while self.runs(worker):
            chat = self.new_chat(draw)
            for _ in range(draw.randint(1, 4)):
                stream, pieces = chat.stream(draw.choice(TEXTS), seed=draw.randrange(99)), []
                stop_after = draw.choice((1, 3, 99))
                while True:
                    # As a server with a heartbeat waits: again and again, each time for a moment.
                    try:
                        pieces.append(await asyncio.wait_for(anext(stream), draw.choice((0.0005, 0.01, 9))))
                    except asyncio.TimeoutError:
                        self.count("pulls that timed out")
                    except StopAsyncIteration:
                        break
                    if len(pieces) == stop_after:
                        await stream.aclose()
                replayed = draw.random() < 0.2
                await asyncio.to_thread(self.check, stream, pieces, replayed)
                chat = await asyncio.to_thread(self.change, chat, draw, self.folder / worker)

    async def client(self, number: int) -> None:
        draw, worker = random.Random(self.draw_from + 700 + number), f"client {number}"
        while self.runs(worker):
            requests = draw.choices(list(self.digests), k=draw.randint(1, 6))
            conversations = [conversation(text) for text, _ in requests]
            params = [bitnet.SamplingParams(seed=seed, **SAMPLING) for _, seed in requests]
            patience = draw.choice((0.001, 0.02, 0.1, 60))
            if draw.random() < 0.5:
                try:
                    answers = await asyncio.wait_for(self.engine.achat(conversations, params=params), patience)
                except asyncio.TimeoutError:
                    self.count("lists that were left")
                    continue
                found = [answer.receipt for answer in answers]
            else:
                stream, end = self.engine.chat_stream(conversations[0], params=params[0]), time.monotonic() + patience
                async for _ in stream:
                    if time.monotonic() > end:
                        break
                found = [stream.receipt]
            if found == [None]:
                self.count("streams that were left")
                del stream  # as a server's handler ends when its client has gone
                continue
            assert [receipt and receipt.digest for receipt in found] == [self.digests[request] for request in requests][
                : len(found)
            ]
            self.count("answers to clients")

    async def tasks(self, n: int, n_clients: int) -> None:
        await asyncio.gather(*(self.task(i) for i in range(n)), *(self.client(i) for i in range(n_clients)))

    def guarded(self, work: object, *arguments: object) -> None:
        try:
            work(*arguments)  # type: ignore[operator]
        except BaseException as error:
            self.errors.append(error)


def conversation(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def offline() -> dict[tuple[str, int], str]:
    """The digests of clients' requests, each computed alone."""
    with bitnet.Engine(cache_bytes=0, max_batch=1) as engine:
        requests = [(text, seed) for text in TEXTS for seed in range(4)]
        answers = [engine.chat(conversation(text), seed=seed, **SAMPLING) for text, seed in requests]
        return {
            request: answer.receipt.digest for request, answer in zip(requests, answers, strict=True) if answer.receipt
        }


def resident() -> int:
    """Bytes of this process in memory, without what the allocator and idle threads keep for later."""
    time.sleep(2)  # threads of `await` end after a second without work
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def one_round(run: Soak, threads: int, tasks: int, clients: int) -> None:
    """Let all workers work until the round ends."""
    run.alive.clear()
    workers = [threading.Thread(target=run.guarded, args=(run.thread, i), daemon=True) for i in range(threads)]
    workers.append(threading.Thread(target=run.guarded, args=(asyncio.run, run.tasks(tasks, clients)), daemon=True))
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        time.sleep(0.1)
        if run.alive and time.monotonic() - min(run.alive.values()) > STUCK + run.seconds:
            print("a worker is stuck", file=sys.stderr)
            faulthandler.dump_traceback(all_threads=True)
            os._exit(2)
    for error in run.errors:
        raise error


def soak(minutes: float, threads: int, tasks: int, clients: int, folder: Path) -> bool:
    """Run it and print the table. Returns whether memory stayed flat."""
    run = Soak(folder, 60 * minutes / ROUNDS)
    sizes = []
    for number in range(ROUNDS):
        run.draw_from = number * 1000
        run.end = time.monotonic() + run.seconds
        one_round(run, threads, tasks, clients)
        sizes.append(resident())
    for what, count in sorted(run.done.items()):
        print(f"{what:28}{count:>10,}")
    first, last = (statistics.median(part) for part in (sizes[WARM_UP : 2 * WARM_UP], sizes[-WARM_UP:]))
    print(f"prefix cache, MB: {run.engine.memory['kv_cache'] / 1e6:.1f}")
    print("resident after each round, MB:", *(f"{size / 1e6:.1f}" for size in sizes))
    print(f"growth after warm-up: {last / first - 1:+.2%}; {minutes:g} minutes")
    return last / first - 1 <= ALLOWED


def main() -> int:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        return 0 if soak(options.minutes, options.threads, options.tasks, options.clients, Path(folder)) else 1
    return 130


if __name__ == "__main__":
    sys.exit(main())
