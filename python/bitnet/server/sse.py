"""Server-sent events: a response whose events are computed while it is sent."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any

from starlette.types import Receive, Scope, Send

from .. import Piece, Stream
from .errors import ApiError, of_engine, shutting_down
from .gate import Permit, disconnect, timed_out, until_done

DONE = b"data: [DONE]\n\n"
"""The last event of a stream of chunks."""

_KEEP_ALIVE = b": keep-alive\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would collect the events
]


def event(document: dict[str, Any], name: str | None = None) -> bytes:
    """An event with a JSON document, and a name if given."""
    data = f"data: {json.dumps(document, ensure_ascii=False, separators=(',', ':'))}\n\n"
    return (f"event: {name}\n{data}" if name else data).encode()


async def interleaved(streams: Sequence[Stream]) -> AsyncGenerator[tuple[int, Piece], None]:
    """The pieces of several streams as they come, each with the index of its stream.

    At most one piece of each stream is computed ahead of the consumer.
    """
    if len(streams) == 1:
        async for piece in streams[0]:
            yield 0, piece
        return
    waiting: dict[asyncio.Future[Piece | None], int] = {
        asyncio.ensure_future(_next(stream)): i for i, stream in enumerate(streams)
    }
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=waiting.__getitem__):
                i, next_piece = waiting.pop(task), task.result()
                if next_piece is not None:
                    waiting[asyncio.ensure_future(_next(streams[i]))] = i
                    yield i, next_piece
    finally:
        for stream in streams:
            stream.cancel()
        for task in waiting:
            task.cancel()
        for task in waiting:
            await until_done(task)


async def _next(stream: Stream) -> Piece | None:
    """The next piece; None at the end. A task cannot end with StopAsyncIteration."""
    async for piece in stream:
        return piece
    return None


class EventStream:
    """A response that sends events while they are computed, and stops computing once the client has left.

    Args:
        events: The events. They are closed at the end, whatever it is.
        permit: Is released at the end.
        keep_alive: Seconds without an event after which a comment is sent.
        timeout: Seconds that the stream may take from `started` on; 0 for no limit.
        started: When the request began, by `time.monotonic`.
        failed: Makes the last events of an error.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        permit: Permit,
        *,
        keep_alive: float,
        timeout: float,
        started: float,
        failed: Any = None,
    ) -> None:
        self._events, self._permit = events, permit
        self._keep_alive, self._timeout = keep_alive, timeout
        self._end = started + timeout if timeout else float("inf")
        self._failed = failed or (lambda error: event(error.document()))
        self._sending = True  # nothing else may be sent before the status
        self._sent = started
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        gone = asyncio.ensure_future(disconnect(receive))
        pump = asyncio.ensure_future(self._pump(send))
        try:
            await self._watch(pump, gone, send)
        except asyncio.CancelledError:
            await self._give_up(pump, send, shutting_down())
        finally:
            gone.cancel()
            pump.cancel()
            await until_done(pump)
            with suppress(Exception):
                await self._events.aclose()
            self._permit.release()

    async def _pump(self, send: Send) -> None:
        """Compute and send the events, then the end of the response."""
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        self._sending = False
        try:
            async for data in self._events:
                await self._send(send, data)
        except Exception as error:
            told = error if isinstance(error, ApiError) else of_engine(error)
            unknown = ApiError(500, "the server failed; its log tells why", code="internal_error")
            await self._send(send, self._failed(told or unknown))
            if told is None:
                raise
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, data: bytes) -> None:
        self._sending = True
        await send({"type": "http.response.body", "body": data, "more_body": True})
        self._sending, self._sent = False, time.monotonic()

    async def _watch(self, pump: "asyncio.Future[None]", gone: "asyncio.Future[None]", send: Send) -> None:
        """Wait for the end of the events, of the client or of the time; send comments in pauses."""
        while True:
            now = time.monotonic()
            pause = max(min(self._sent + self._keep_alive, self._end) - now, 0.001)
            if self._sending:  # a client that reads slowly
                pause = min(self._keep_alive, max(self._end - now, 0.001))
            await asyncio.wait([pump, gone], timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            if pump.done():
                return pump.result()
            if gone.done():
                return
            if time.monotonic() >= self._end:
                return await self._give_up(pump, send, timed_out(self._timeout))
            if not self._sending and time.monotonic() >= self._sent + self._keep_alive:
                await self._send(send, _KEEP_ALIVE)

    async def _give_up(self, pump: "asyncio.Future[None]", send: Send, error: ApiError) -> None:
        """Stop computing. The last event tells of the error, unless the client has yet to read an earlier one."""
        pump.cancel()
        await until_done(pump)
        if not self._sending:
            await self._send(send, self._failed(error))
            await send({"type": "http.response.body", "body": b"", "more_body": False})
