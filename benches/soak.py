"""Use two engines for minutes as a server of strangers would, and assert that nothing wears out.

python benches/soak.py [--minutes 20] [--threads 8] [--tasks 8] [--clients 8] [--http 4]

One engine has the model in the package, the other a random one with a recurrent state. Threads and asyncio tasks create
conversations, some with a form, and stream, cancel, fork, rewind, save, load and pickle them at random. Clients, which
are tasks, too, stream answers and ask for lists of them, and disconnect at any moment; others do so over HTTP, and send
requests that are refused. Asserted: the pieces of each stream join to its text, each answer equals its replay, complete
answers have their form, the digests of clients' answers are those of the same requests alone on an engine that does not
batch, nothing waits for a minute, and resident memory, measured at rest, stays within 2 % after a warm-up of a quarter
of the time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import dataclasses
import faulthandler
import gc
import itertools
import json
import os
import pickle
import random
import re
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

import bitnet
from bitnet._synthetic import Spec, make_model
from bitnet.models import inside
from bitnet.server import Settings, create_app

TEXTS = ("What is 2+2?", "What is a cat?", "Name a color.", "And then?", "Say <|eot_id|> and 7*6.")
SAMPLING: dict[str, Any] = {"max_tokens": 24, "temperature": 1.0, "ignore_eos": True}
"""Of clients' requests."""
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", None]}}, "required": ["a"]}
FORMS: tuple[dict[str, Any], ...] = (
    {},
    {"json_schema": SCHEMA},
    {"regex": "[a-f]{2,12}"},
    {"choice": ["yes", "no", "perhaps"]},
)
WRONG: tuple[tuple[int, dict[str, Any]], ...] = (
    (400, {"messages": []}),
    (400, {"messages": [{"role": "user", "content": "Hi"}], "regex": "("}),
    (400, {"messages": [{"role": "user", "content": "Hi"}], "json_schema": {"const": 2**80}}),
    (400, {"messages": [{"role": "user", "content": "many " * 2000}]}),
)
"""What servers refuse, with the status."""
STUCK = 60.0
"""Seconds without a finished life of any one worker, after which the soak ends with all stacks."""
CACHE = 4 << 20
"""Bytes of the prefix cache; it is full after the warm-up, and entries come and go."""
RECEIPTS = 50
"""Receipts that a server keeps: as many as it has answered before the warm-up ends."""
ROUNDS = 20
"""After each, memory is measured while nobody works."""
WARM_UP = 5
"""Rounds before memory counts."""
ALLOWED = 0.02


Request = tuple[str, int, int]
"""A client's text and seed, and the index of its form."""


class Soak:
    """The engines, and what the workers have done so far."""

    def __init__(self, folder: Path, seconds: float) -> None:
        paths = (inside(), recurrent(folder / "recurrent.gguf"))
        self.engines = [bitnet.Engine(path, cache_bytes=CACHE) for path in paths]
        self.digests = [offline(path) for path in paths]
        """The digests of clients' requests, for each engine."""
        self.addresses: list[str] = []
        """Of the servers, one for each engine."""
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

    def check(
        self, chat: bitnet.ChatSession, stream: bitnet.Stream, pieces: list[bitnet.Piece], replayed: bool
    ) -> None:
        """An answer that has ended: no piece is lost, it has its form, and a replay gives the same ids."""
        assert "".join(piece.text for piece in pieces) == stream.text, f"{pieces} is not {stream.text!r}"
        self.count(f"answers: {stream.finish_reason}")
        form = next((form for form in FORMS[1:] for name in form if getattr(chat.params, name)), {})
        if form and stream.finish_reason == "stop":
            assert fits(form, stream.text), f"{stream.text!r} does not fit {form}"
            self.count(f"complete answers: {next(iter(form))}")
        if stream.receipt and replayed:
            receipt = pickle.loads(pickle.dumps(stream.receipt))
            receipt.validate()
            assert chat.engine.replay(receipt), receipt.to_json()
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
                chat = bitnet.ChatSession.load(chat.engine, path, cache=draw.random() < 0.5)
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
        how: dict[str, Any] = {"max_tokens": draw.randint(1, 24), "temperature": draw.choice((0.0, 1.0))}
        return bitnet.ChatSession(draw.choice(self.engines), system, **how, **draw.choice((*FORMS, {}, {})))

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
                self.check(chat, stream, pieces, draw.random() < 0.2)
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
                await asyncio.to_thread(self.check, chat, stream, pieces, replayed)
                chat = await asyncio.to_thread(self.change, chat, draw, self.folder / worker)

    async def client(self, number: int) -> None:
        draw, worker = random.Random(self.draw_from + 700 + number), f"client {number}"
        while self.runs(worker):
            engine, digests = draw.choice(list(zip(self.engines, self.digests, strict=True)))
            requests = draw.choices(list(digests), k=draw.randint(1, 6))
            conversations = [conversation(text) for text, _, _ in requests]
            params = [bitnet.SamplingParams(seed=seed, **SAMPLING, **FORMS[form]) for _, seed, form in requests]
            patience = draw.choice((0.001, 0.02, 0.1, 60))
            if draw.random() < 0.5:
                try:
                    answers = await asyncio.wait_for(engine.achat(conversations, params=params), patience)
                except asyncio.TimeoutError:
                    self.count("lists that were left")
                    continue
                found = [answer.receipt for answer in answers]
            else:
                stream = engine.chat_stream(conversations[0], params=params[0])
                end = time.monotonic() + patience
                async for _ in stream:
                    if time.monotonic() > end:
                        break
                found = [stream.receipt]
            if found == [None]:
                self.count("streams that were left")
                del stream  # as a server's handler ends when its client has gone
                continue
            assert [receipt and receipt.digest for receipt in found] == [digests[request] for request in requests][
                : len(found)
            ]
            self.count("answers to clients")

    def http(self, number: int) -> None:
        """Clients of the servers: each keeps its connection for some requests."""
        draw, worker = random.Random(self.draw_from + 900 + number), f"HTTP client {number}"
        while self.runs(worker):
            which = draw.randrange(len(self.engines))
            with httpx.Client(base_url=self.addresses[which], timeout=STUCK) as client:
                for _ in range(draw.randint(1, 6)):
                    self.request(draw, client, self.digests[which])

    def request(self, draw: random.Random, client: httpx.Client, digests: dict[Request, str]) -> None:
        """One request, which is answered as alone, left, or refused."""
        if draw.random() < 0.2:
            status, body = draw.choice(WRONG)
            assert client.post("/v1/chat/completions", json=body).status_code == status
            self.count("HTTP requests refused")
            return
        text, seed, form = request = draw.choice(list(digests))
        body = {"messages": conversation(text), "seed": seed, **SAMPLING, **FORMS[form]}
        if draw.random() < 0.5:
            answer = client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            assert answer.json()["choices"][0]["receipt_digest"] == digests[request]
            self.count("HTTP answers")
            return
        most = draw.choice((1, 5, 999))
        with client.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as stream:
            assert stream.status_code == 200
            lines = [line for line, _ in zip(stream.iter_lines(), range(most), strict=False)]
        is_whole = "data: [DONE]" in lines
        assert is_whole or len(lines) == most, lines
        if is_whole:
            assert f'"{digests[request]}"' in "".join(lines)
        self.count("HTTP streams" if is_whole else "HTTP streams that were left")

    async def tasks(self, n: int, n_clients: int) -> None:
        await asyncio.gather(*(self.task(i) for i in range(n)), *(self.client(i) for i in range(n_clients)))

    def guarded(self, work: object, *arguments: object) -> None:
        try:
            work(*arguments)  # type: ignore[operator]
        except BaseException as error:
            self.errors.append(error)


def conversation(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def recurrent(path: Path) -> Path:
    """A small random model with gated delta nets, and the vocabulary of the model in the package."""
    with bitnet.Engine(n_threads=1) as engine:
        n_vocab, context = engine.n_vocab, engine.n_ctx
    spec = Spec("qwen35", 3, 128, 128, 2, 1, 32, n_vocab, context, linear="Q2_0_g64", embedding="F16", untied=True)
    make_model(path, dataclasses.replace(spec, full_interval=3, ssm_value_heads=4), inside())
    return path


def offline(path: Path) -> dict[Request, str]:
    """The digests of clients' requests, each computed alone."""
    with bitnet.Engine(path, cache_bytes=0, max_batch=1) as engine:
        found = {}
        for text, seed, form in itertools.product(TEXTS, range(4), range(len(FORMS))):
            how = SAMPLING | FORMS[form]
            receipt = engine.chat(conversation(text), seed=seed, **how).receipt
            assert receipt is not None
            found[text, seed, form] = receipt.digest
        return found


def fits(form: dict[str, Any], text: str) -> bool:
    """Whether a complete answer has its form."""
    if "regex" in form:
        return re.fullmatch(form["regex"], text) is not None
    return text in form["choice"] if "choice" in form else isinstance(json.loads(text)["a"], int)


@contextmanager
def served(engine: bitnet.Engine) -> Iterator[str]:
    """Serve an engine on a free port; gives the address."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        create_app(engine, Settings(receipts=RECEIPTS)), log_level="critical", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def resident() -> int:
    """Bytes of this process in memory, without what the allocator and idle threads keep for later."""
    time.sleep(2)  # threads of `await` end after a second without work
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def one_round(run: Soak, threads: int, tasks: int, clients: int, http: int) -> None:
    """Let all workers work until the round ends."""
    run.alive.clear()
    workers = [threading.Thread(target=run.guarded, args=(run.thread, i), daemon=True) for i in range(threads)]
    workers += [threading.Thread(target=run.guarded, args=(run.http, i), daemon=True) for i in range(http)]
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


def soak(minutes: float, threads: int, tasks: int, clients: int, http: int, folder: Path) -> bool:
    """Run it and print the table. Returns whether memory stayed flat."""
    run = Soak(folder, 60 * minutes / ROUNDS)
    sizes = []
    with contextlib.ExitStack() as servers:
        run.addresses = [servers.enter_context(served(engine)) for engine in run.engines]
        for number in range(ROUNDS):
            run.draw_from = number * 1000
            run.end = time.monotonic() + run.seconds
            one_round(run, threads, tasks, clients, http)
            sizes.append(resident())
    for what, count in sorted(run.done.items()):
        print(f"{what:28}{count:>10,}")
    first, last = (statistics.median(part) for part in (sizes[WARM_UP : 2 * WARM_UP], sizes[-WARM_UP:]))
    print("prefix caches, MB:", *(f"{engine.memory['kv_cache'] / 1e6:.1f}" for engine in run.engines))
    print("resident after each round, MB:", *(f"{size / 1e6:.1f}" for size in sizes))
    print(f"growth after warm-up: {last / first - 1:+.2%}; {minutes:g} minutes")
    return last / first - 1 <= ALLOWED


def main() -> int:
    assert __doc__
    # One heap for all threads: what glibc keeps for later in each of many would look like a leak.
    M_ARENA_MAX = -8
    ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--http", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        workers = options.threads, options.tasks, options.clients, options.http
        return 0 if soak(options.minutes, *workers, Path(folder)) else 1
    return 130


if __name__ == "__main__":
    sys.exit(main())
